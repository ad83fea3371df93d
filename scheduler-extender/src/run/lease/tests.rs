//! Replicas, one Lease, and clocks that do not agree.

use super::*;

const TIMES: Times = Times {
    lease_duration: Duration::from_secs(6),
    renew_deadline: Duration::from_secs(4),
    retry_period: Duration::from_secs(1),
};

/// The API server's part: one Lease under optimistic concurrency.
#[derive(Default)]
struct Store {
    lease: Option<Lease>,
    version: u64,
}

impl Store {
    fn write(&mut self, lease: Lease) -> Written {
        let stands = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if stands != lease.metadata.resource_version {
            return Written::Conflict;
        }
        self.put(lease)
    }

    fn put(&mut self, mut lease: Lease) -> Written {
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        Written::Done(Box::new(lease))
    }

    fn holder(&self) -> Option<&str> {
        self.lease.as_ref()?.spec.as_ref()?.holder_identity.as_deref()
    }
}

/// One replica whose wall clock is wrong by some seconds.
struct Replica {
    election: Election,
    skew: i64,
    started: Instant,
}

impl Replica {
    fn new(name: &str, skew: i64, now: Instant) -> Replica {
        let place = ("spillway-system".to_owned(), "spillway".to_owned());
        Replica { election: Election::new(Arc::from(name), place, TIMES, now), skew, started: now }
    }

    /// Everything that it does at this moment, answered at once.
    fn step(&mut self, store: &mut Store, now: Instant) {
        let passed = i64::try_from((now - self.started).as_millis()).expect("little");
        let wall = Timestamp::from_millisecond((1_790_000_000 + self.skew) * 1000 + passed).expect("a time");
        for _ in 0..10 {
            match self.election.next(now, wall) {
                Move::Rest(until) => return assert!(until > now, "it would spin"),
                Move::Read => self.election.read(store.lease.clone(), now),
                Move::Write(lease) => {
                    let written = store.write(*lease);
                    self.election.written(written, now, now);
                }
            }
        }
        panic!("it spins");
    }

    fn leads(&self, now: Instant) -> bool {
        matches!(self.election.position(now), Position::Leads { .. })
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn one_leads_and_the_other_knows_who() {
    let (mut store, start) = (Store::default(), Instant::now());
    let (mut one, mut two) = (Replica::new("one", 0, start), Replica::new("two", 0, start));
    for tenths in 0..300 {
        let now = start + millis(tenths * 100);
        one.step(&mut store, now);
        two.step(&mut store, now);
        assert!(one.leads(now) && !two.leads(now), "{tenths}");
    }
    assert_eq!(two.election.position(start + millis(29_900)), Position::Follows { leader: Some(Arc::from("one")) });
    let spec = store.lease.expect("a Lease").spec.expect("a spec");
    assert_eq!((spec.lease_transitions, spec.lease_duration_seconds), (Some(0), Some(6)));
}

#[test]
fn a_successor_begins_after_the_lease_ran_out_and_not_before_whatever_the_clocks_say() {
    for skew in [-86_400, 0, 86_400] {
        let (mut store, start) = (Store::default(), Instant::now());
        let (mut one, mut two) = (Replica::new("one", 0, start), Replica::new("two", skew, start));
        let mut taken = None;
        for tenths in 0..200 {
            let now = start + millis(tenths * 100);
            // The first is gone after five seconds, without a word.
            if tenths < 50 {
                one.step(&mut store, now);
            }
            two.step(&mut store, now);
            assert!(!(one.leads(now) && two.leads(now)), "two at a time");
            if two.leads(now) {
                taken.get_or_insert(tenths);
            }
        }
        let taken = taken.expect("a successor");
        // The last renewal was at 4.0 s, and may have been seen a retry later.
        assert!((100..=112).contains(&taken), "{taken} tenths, skew {skew}");
        assert_eq!(store.holder(), Some("two"));
        assert_eq!(store.lease.expect("a Lease").spec.expect("a spec").lease_transitions, Some(1));
    }
}

#[test]
fn the_deadline_counts_from_before_the_request_was_sent() {
    let start = Instant::now();
    let mut one = Replica::new("one", 0, start).election;
    let Move::Read = one.next(start, Timestamp::UNIX_EPOCH) else { panic!("it must look first") };
    one.read(None, start);
    let Move::Write(lease) = one.next(start, Timestamp::UNIX_EPOCH) else { panic!("nobody holds it") };
    one.written(Store::default().put(*lease), start, start + millis(1_500));
    assert_eq!(one.position(start + millis(1_500)), Position::Leads { tenure: 1, until: start + TIMES.renew_deadline });
    assert_eq!(one.position(start + TIMES.renew_deadline), Position::Follows { leader: None });
}

#[test]
fn an_answer_after_the_deadline_does_not_prolong_a_tenure() {
    let (mut store, start) = (Store::default(), Instant::now());
    let mut one = Replica::new("one", 0, start);
    one.step(&mut store, start);
    let sent = start + millis(1_000);
    let Move::Write(lease) = one.election.next(sent, Timestamp::UNIX_EPOCH) else { panic!("time to renew") };
    // The process slept meanwhile.
    let woken = start + millis(4_500);
    one.election.written(store.write(*lease), sent, woken);
    assert!(!one.leads(woken));
    one.step(&mut store, woken);
    let Position::Leads { tenure, .. } = one.election.position(woken) else { panic!("nobody else has it") };
    assert_eq!(tenure, 2, "a new tenure, so that nothing of the old one is carried on");
}

#[test]
fn renewals_that_fail_end_at_the_deadline() {
    let (mut store, start) = (Store::default(), Instant::now());
    let mut one = Replica::new("one", 0, start);
    one.step(&mut store, start);
    let mut now = start;
    let mut attempts = 0;
    while one.leads(now) {
        match one.election.next(now, Timestamp::UNIX_EPOCH) {
            Move::Rest(until) => now = until,
            Move::Read => one.election.not_read(now),
            Move::Write(_) => {
                attempts += 1;
                assert!(one.election.patience(now) <= (start + TIMES.renew_deadline) - now);
                one.election.written(Written::Unknown, now, now);
            }
        }
    }
    assert_eq!((now, attempts), (start + TIMES.renew_deadline, 3));
}

#[test]
fn whoever_finds_another_in_the_lease_stops_at_once() {
    let (mut store, start) = (Store::default(), Instant::now());
    let mut one = Replica::new("one", 0, start);
    one.step(&mut store, start);
    let mut stolen = store.lease.clone().expect("a Lease");
    stolen.spec.as_mut().expect("a spec").holder_identity = Some("ghost".to_owned());
    store.put(stolen);
    let now = start + millis(1_000);
    let Move::Write(lease) = one.election.next(now, Timestamp::UNIX_EPOCH) else { panic!("time to renew") };
    one.election.written(store.write(*lease), now, now);
    assert!(one.leads(now), "a conflict may be a label that somebody has set");
    let now = now + AFTER_CONFLICT;
    one.step(&mut store, now);
    assert_eq!(one.election.position(now), Position::Follows { leader: Some(Arc::from("ghost")) });
}

#[test]
fn a_label_on_the_lease_ends_nobody_and_renews_nobody() {
    let (mut store, start) = (Store::default(), Instant::now());
    let (mut one, mut two) = (Replica::new("one", 0, start), Replica::new("two", 0, start));
    one.step(&mut store, start);
    two.step(&mut store, start);
    for second in 1..20 {
        let mut labelled = store.lease.clone().expect("a Lease");
        labelled.metadata.labels = Some([("second".to_owned(), second.to_string())].into());
        store.put(labelled);
        let now = start + millis(second * 1_000);
        if second < 10 {
            one.step(&mut store, now);
            one.step(&mut store, now + AFTER_CONFLICT);
            assert!(one.leads(now + AFTER_CONFLICT), "{second}");
        }
        two.step(&mut store, now + millis(200));
        two.step(&mut store, now + millis(200) + AFTER_CONFLICT);
    }
    assert!(two.leads(start + millis(19_300)), "labels kept a dead leader alive");
}

#[test]
fn what_is_released_is_taken_at_the_next_look() {
    let (mut store, start) = (Store::default(), Instant::now());
    let (mut one, mut two) = (Replica::new("one", 0, start), Replica::new("two", 0, start));
    one.step(&mut store, start);
    two.step(&mut store, start);
    let now = start + millis(500);
    let released = one.election.release(now, Timestamp::UNIX_EPOCH).expect("it led");
    assert!(!one.leads(now));
    assert!(matches!(store.write(released), Written::Done(_)));
    assert_eq!(one.election.release(now, Timestamp::UNIX_EPOCH), None);
    two.step(&mut store, start + millis(1_000));
    assert!(two.leads(start + millis(1_000)));
}

#[test]
fn a_renewal_whose_answer_was_lost_is_no_loss() {
    let (mut store, start) = (Store::default(), Instant::now());
    let mut one = Replica::new("one", 0, start);
    one.step(&mut store, start);
    let now = start + millis(1_000);
    let Move::Write(lease) = one.election.next(now, Timestamp::UNIX_EPOCH) else { panic!("time to renew") };
    store.write(*lease);
    one.election.written(Written::Unknown, now, now);
    let now = start + millis(2_000);
    one.step(&mut store, now);
    let now = now + AFTER_CONFLICT;
    one.step(&mut store, now);
    assert_eq!(one.election.position(now), Position::Leads { tenure: 1, until: now + TIMES.renew_deadline });
}

#[test]
fn a_lease_for_ever_is_waited_for_five_minutes() {
    let (mut store, start) = (Store::default(), Instant::now());
    let mut one = Replica::new("one", 0, start);
    one.step(&mut store, start);
    let mut odd = store.lease.clone().expect("a Lease");
    let spec = odd.spec.as_mut().expect("a spec");
    (spec.holder_identity, spec.lease_duration_seconds) = (Some("ghost".to_owned()), Some(i32::MAX));
    store.put(odd);
    let mut two = Replica::new("two", 0, start);
    let mut now = start;
    while !two.leads(now) {
        now += millis(500);
        two.step(&mut store, now);
        assert!(now <= start + LONGEST + millis(1_500));
    }
    assert!(now >= start + LONGEST);
}

#[test]
fn times_must_be_in_order() {
    assert!(TIMES.checked().is_ok());
    for (lease, renew, retry, flag) in [
        (1, 500, 100, "lease-duration"),
        (301, 4_000, 1_000, "lease-duration"),
        (6, 5_500, 1_000, "renew-deadline"),
        (6, 4_000, 2_500, "retry-period"),
        (6, 4_000, 50, "retry-period"),
    ] {
        let times =
            Times { lease_duration: Duration::from_secs(lease), renew_deadline: millis(renew), retry_period: millis(retry) };
        let error = times.checked().expect_err("out of order").to_string();
        assert!(error.contains(flag), "{error}");
    }
}
