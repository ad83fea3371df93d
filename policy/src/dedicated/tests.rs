use super::*;
use proptest::prelude::*;

fn node(name: &str, cpu_millis: i64, pods: i64) -> DedicatedNode {
    DedicatedNode {
        name: Arc::from(name),
        labels: [("pool", "a")].into_iter().collect(),
        taints: vec![],
        allocatable: Resources::new(cpu_millis, 64 << 30),
        pods,
        starting: false,
    }
}

fn fit(cpu_millis: i64) -> Fit {
    Fit::new(&crate::sample::workload(cpu_millis, 1 << 30), &[])
}

#[test]
fn room_is_counted_per_node_not_in_the_sum() {
    let mut nodes = DedicatedNodes::default();
    let id = nodes.watch(fit(600));
    nodes.set(node("a", 1000, 110));
    nodes.set(node("b", 1000, 110));
    // 2000 milli-CPU hold three such pods, two nodes of 1000 hold two.
    assert_eq!(nodes.room(id), 2);
    nodes.place("a", &Resources::new(500, 0), 0);
    assert_eq!(nodes.room(id), 1);
    nodes.unplace("a", &Resources::new(500, 0), 0);
    nodes.remove("b");
    assert_eq!(nodes.room(id), 1);
}

#[test]
fn taints_selectors_and_pod_counts_take_room_away() {
    let mut nodes = DedicatedNodes::default();
    let plain = nodes.watch(fit(100));
    let picky = nodes.watch(Fit { node_selector: vec![Requirement::equals("pool", "b")], ..fit(100) });
    nodes.set(node("a", 1000, 3));
    assert_eq!((nodes.room(plain), nodes.room(picky)), (3, 0));
    nodes.set(DedicatedNode { taints: vec![unschedulable_taint()], ..node("a", 1000, 3) });
    assert_eq!(nodes.room(plain), 0);
}

#[test]
fn a_node_that_starts_is_room_that_is_coming() {
    let not_ready = Taint { key: Arc::from("node.kubernetes.io/not-ready"), value: Arc::from(""), effect: Effect::NoSchedule };
    let mut nodes = DedicatedNodes::default();
    let id = nodes.watch(fit(100));
    nodes.set(DedicatedNode { taints: vec![not_ready.clone()], starting: true, ..node("a", 1000, 3) });
    assert_eq!(nodes.room(id), 3);
    nodes.set(DedicatedNode { taints: vec![not_ready], starting: false, ..node("a", 1000, 3) });
    assert_eq!(nodes.room(id), 0);
}

#[test]
fn nobody_is_preempted_who_is_not_lower() {
    let mut nodes = DedicatedNodes::default();
    let id = nodes.watch(fit(100));
    nodes.set(node("a", 1000, 3));
    nodes.place("a", &Resources::new(100, 0), 5);
    assert!(!nodes.could_preempt(id, 5));
    assert!(nodes.could_preempt(id, 6));
    nodes.unplace("a", &Resources::new(100, 0), 5);
    assert!(!nodes.could_preempt(id, 6));
}

proptest! {
    /// Counting step by step ends where counting from scratch does.
    #[test]
    fn incremental_count_equals_a_fresh_one(moves in prop::collection::vec((0..4_usize, 1..500_i64, any::<bool>()), 0..60), asked in 1..400_i64) {
        let names = ["a", "b", "c", "d"];
        let mut nodes = DedicatedNodes::default();
        let id = nodes.watch(fit(asked));
        let mut placed: Vec<(usize, i64)> = vec![];
        for (place, name) in names.iter().enumerate() {
            nodes.set(node(name, 1000 + 100 * i64::try_from(place).unwrap_or(0), 5));
        }
        for (place, cpu, add) in moves {
            if add {
                nodes.place(names[place], &Resources::new(cpu, 0), 0);
                placed.push((place, cpu));
            } else if let Some((place, cpu)) = placed.pop() {
                nodes.unplace(names[place], &Resources::new(cpu, 0), 0);
            }
        }
        let mut fresh = nodes.clone();
        fresh.unwatch(id);
        let again = fresh.watch(fit(asked));
        prop_assert_eq!(nodes.room(id), fresh.room(again));
    }
}
