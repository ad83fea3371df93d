use super::*;
use crate::sample;
use crate::virtual_node::{Limits, Provider};

/// So many pods of one CPU and one GiB.
fn pods(count: i64) -> Usage {
    Usage { pods: count, cpu_millis: count * 1000, memory_bytes: count << 30 }
}

/// One backend, and our own pods on it.
struct Books {
    backends: Backends,
    name: Arc<str>,
}

impl Books {
    fn new() -> Books {
        let mut backends = Backends::default();
        let node = sample::virtual_node(Provider::Aci);
        let name = node.name.clone();
        backends.set(Arc::new(node));
        Books { backends, name }
    }

    fn start(&mut self, count: i64) {
        self.backends.occupy(&self.name, &Arc::from("p"), &Arc::from("t"), &pods(count));
    }

    fn end(&mut self, count: i64) {
        self.backends.vacate(&self.name, &Arc::from("p"), &Arc::from("t"), &pods(count));
    }

    /// The cloud says that so many pods run; how many count against the quota then.
    fn hear(&mut self, count: i64) -> i64 {
        self.backends.hear(&self.name, &pods(count));
        self.used()
    }

    fn used(&self) -> i64 {
        self.backends.get(&self.name).expect("the test's own").quota_used().pods
    }
}

#[test]
fn what_others_use_is_what_is_beyond_our_own() {
    let mut books = Books::new();
    assert_eq!(books.hear(3), 3, "nothing of ours");
    books.start(2);
    assert_eq!(books.used(), 5, "ours count from the moment of their commitment");
    assert_eq!(books.hear(5), 5);
    assert_eq!(books.hear(2), 2, "the others have gone");
    assert!(!books.backends.hear(&books.name, &pods(2)), "nothing new");
    assert!(books.backends.hear(&books.name, &pods(4)));
}

#[test]
fn our_own_pods_are_never_somebody_elses() {
    let mut books = Books::new();
    books.start(10);
    assert_eq!(books.hear(0), 10, "the cloud does not know them yet");
    assert_eq!(books.hear(10), 10);
    // They end after the cloud has looked and before its answer arrives.
    books.end(8);
    assert_eq!(books.hear(10), 2);
    // It has looked before the last that came.
    books.start(3);
    assert_eq!(books.hear(2), 5);
    // Some come and some go between two answers: whichever moment the answer is of, others are none.
    books.end(5);
    books.start(4);
    for seen in 0..=5 {
        let mut at_any_time = Books { backends: books.backends.clone(), name: books.name.clone() };
        assert_eq!(at_any_time.hear(seen), 4, "{seen}");
    }
}

#[test]
fn what_the_cloud_still_runs_of_ours_much_later_is_in_use() {
    let mut books = Books::new();
    books.start(4);
    books.end(4);
    assert_eq!(books.hear(4), 0, "it may be about the time before");
    assert_eq!(books.hear(4), 4, "it may not: they are not ours any more, and there");
}

#[test]
fn amounts_that_are_not_told_apart_are_not_mixed() {
    let mut books = Books::new();
    books.start(1);
    // A cloud that does not count memory says zero.
    books.backends.hear(&books.name, &Usage { pods: 3, cpu_millis: 500, memory_bytes: 0 });
    let used = books.backends.get(&books.name).expect("the test's own").quota_used();
    assert_eq!(used, Usage { pods: 3, cpu_millis: 1000, memory_bytes: 1 << 30 });
    let quota = Limits { pods: Some(4), ..Limits::default() };
    assert!(quota.allow(&used, &pods(1)) && !quota.allow(&used, &pods(2)));
}

#[test]
fn who_is_unknown_is_not_heard() {
    assert!(!Backends::default().hear("nobody", &pods(1)));
}

#[test]
fn a_suspension_ends_with_one_pod_that_is_started() {
    let mut books = Books::new();
    let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
    let gets = |books: &Books| !books.backends.get(&books.name).expect("the test's own").is_suspended(&pods(1));
    books.start(1);
    books.backends.suspend(&books.name, &pods(1), at(60));
    assert!(!gets(&books));
    assert!(!books.backends.started(&books.name, &pods(1)), "one of the same wave, perhaps");
    assert!(!books.backends.try_again(at(59)) && !gets(&books));
    assert!(books.backends.try_again(at(60)) && gets(&books));
    books.start(1);
    assert!(!gets(&books), "the others wait for how it fares");
    assert!(!books.backends.try_again(at(999)));
    books.end(1);
    assert!(gets(&books), "it is gone: another one is tried");
    books.start(1);
    books.backends.suspend(&books.name, &pods(1), at(200));
    books.end(1);
    assert!(!gets(&books), "it was not started");
    assert!(books.backends.try_again(at(200)));
    books.start(1);
    assert!(!books.backends.started(&books.name, &pods(2)), "another size says nothing");
    assert!(books.backends.started(&books.name, &pods(1)) && gets(&books));
    books.start(1);
    assert!(gets(&books), "open for all");
}
