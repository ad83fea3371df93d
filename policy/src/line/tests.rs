use super::*;
use proptest::prelude::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn line(pods: u64) -> Line {
    let mut line = Line::default();
    for arrival in 0..pods {
        line.set(Arrival(arrival), None, false);
    }
    line
}

fn without_room(line: &Line) -> Vec<u64> {
    line.without_room().map(|(arrival, _)| arrival.0).collect()
}

#[test]
fn surplus_is_what_waits_behind_the_room() {
    let mut line = line(5);
    line.weigh(Evidence::Equals, 3, Timestamp::EPOCH, at(1));
    assert_eq!(without_room(&line), [3, 4]);
    line.remove(Arrival(0));
    line.weigh(Evidence::Equals, 2, Timestamp::EPOCH, at(2));
    assert_eq!(without_room(&line), [3, 4], "one was bound, one slot less");
    assert_eq!(line.no_room_since(Arrival(3)), Some(at(1)), "the moment stays");
    line.weigh(Evidence::Equals, 9, Timestamp::EPOCH, at(3));
    assert!(without_room(&line).is_empty(), "a node came");
}

#[test]
fn one_verdict_speaks_for_all_equals_when_nothing_fits() {
    let mut line = line(3);
    line.set(Arrival(1), Some(at(5)), false);
    line.weigh(Evidence::Equals, 0, Timestamp::EPOCH, at(6));
    assert_eq!(without_room(&line), [0, 1, 2]);
}

#[test]
fn a_verdict_older_than_the_room_is_waited_out() {
    let mut line = line(2);
    line.set(Arrival(0), Some(at(0)), false);
    line.weigh(Evidence::Equals, 0, Timestamp::EPOCH, at(1));
    assert_eq!(without_room(&line), [0, 1]);
    // A slot opens at 5 s: the older pod waits for its scheduler again, the younger is still surplus.
    let again = line.weigh(Evidence::Equals, 1, Timestamp::EPOCH, at(5000));
    assert_eq!(without_room(&line), [1]);
    assert_eq!(again, Some(at(15_000)));
    line.weigh(Evidence::Equals, 1, Timestamp::EPOCH, at(14_999));
    assert_eq!(without_room(&line), [1]);
    line.weigh(Evidence::Equals, 1, Timestamp::EPOCH, at(15_000));
    assert_eq!(without_room(&line), [0, 1], "the scheduler has had its longest backoff");
}

#[test]
fn who_stands_alone_needs_its_own_verdict() {
    let mut line = line(3);
    line.set(Arrival(2), Some(at(7)), false);
    line.weigh(Evidence::OwnVerdict, 0, Timestamp::EPOCH, at(8));
    assert_eq!(without_room(&line), [2]);
}

#[test]
fn a_change_in_the_neighbourhood_makes_a_verdict_old() {
    let mut line = line(1);
    line.set(Arrival(0), Some(at(0)), false);
    // Room all the time (its spread forbids it), and a pod of the app was placed at 9 s.
    line.weigh(Evidence::OwnVerdict, 2, Timestamp::EPOCH, at(0));
    assert_eq!(line.weigh(Evidence::OwnVerdict, 2, at(9000), at(10_000)), Some(at(19_000)));
    assert!(without_room(&line).is_empty());
    line.weigh(Evidence::OwnVerdict, 2, at(9000), at(19_000));
    assert_eq!(without_room(&line), [0]);
}

#[test]
fn a_nominated_pod_is_left_to_its_scheduler() {
    let mut line = line(2);
    line.set(Arrival(0), Some(at(0)), true);
    line.set(Arrival(1), Some(at(0)), false);
    for evidence in [Evidence::Equals, Evidence::OwnVerdict, Evidence::Refused] {
        line.weigh(evidence, 0, Timestamp::EPOCH, at(20_000));
        assert_eq!(without_room(&line), [1], "{evidence:?}");
    }
}

proptest! {
    /// No pod is surplus before an equal pod that came later: the older ones keep the dedicated room.
    #[test]
    fn the_surplus_is_the_younger_end_of_the_line(pods in 0..40_u64, rooms in prop::collection::vec(0..50_i64, 1..20), gone in prop::collection::vec(0..40_u64, 0..20)) {
        let mut line = line(pods);
        for (step, room) in rooms.iter().enumerate() {
            if let Some(arrival) = gone.get(step) {
                line.remove(Arrival(*arrival));
            }
            line.weigh(Evidence::Equals, *room, Timestamp::EPOCH, at(i64::try_from(step).unwrap_or(0)));
            let surplus = without_room(&line);
            let expected = line.len().saturating_sub(usize::try_from(*room).unwrap_or(0));
            prop_assert_eq!(surplus.len(), expected);
            let youngest: Vec<u64> = line.pods.keys().rev().take(expected).map(|arrival| arrival.0).rev().collect();
            prop_assert_eq!(surplus, youngest);
        }
    }
}
