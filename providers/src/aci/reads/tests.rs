use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::settings::READS_PER_HOUR;
use super::*;

/// What Resource Manager answers in any hour.
const ARM_READS_PER_HOUR: usize = 12_000;
/// How often a virtual node asks for its pods.
const TICK: Duration = Duration::from_secs(5);

/// A subscription with groups that start, run and end.
struct Azure {
    groups: Vec<Group>,
    reads: VecDeque<Timestamp>,
    most_reads: usize,
    oldest: Duration,
}

struct Group {
    name: String,
    made_at: Timestamp,
    runs_at: Timestamp,
    ends_at: Timestamp,
    read_at: Option<Timestamp>,
}

impl Group {
    fn stage(&self, now: Timestamp) -> u8 {
        u8::from(now >= self.runs_at) + u8::from(now >= self.ends_at)
    }
}

fn second(second: u64) -> Timestamp {
    Timestamp::EPOCH + Duration::from_secs(second)
}

/// Runs a plan for hours. `groups`: when made, how long it starts, how long it runs, in seconds.
fn run(groups: impl Iterator<Item = (u64, u64, u64)>, hours: u64, asked_for_each_tick: usize) -> Azure {
    let groups = groups.enumerate().map(|(place, (made, starts, runs))| Group {
        name: format!("g{place}"),
        made_at: second(made),
        runs_at: second(made + starts),
        ends_at: second(made + starts + runs),
        read_at: None,
    });
    let mut azure = Azure { groups: groups.collect(), reads: VecDeque::new(), most_reads: 0, oldest: Duration::ZERO };
    let mut plan = ReadPlan::new(READS_PER_HOUR);
    let mut now = second(0);
    while now < second(hours * 3600) {
        azure.tick(&mut plan, now);
        for _ in 0..asked_for_each_tick {
            if plan.ask(now).is_ok() {
                azure.count(now);
            }
        }
        now = now + TICK;
    }
    azure
}

impl Azure {
    fn count(&mut self, now: Timestamp) {
        self.reads.push_back(now);
        while self.reads.front().is_some_and(|read| now.since(*read) >= Duration::from_secs(3600)) {
            self.reads.pop_front();
        }
        self.most_reads = self.most_reads.max(self.reads.len());
    }

    fn tick(&mut self, plan: &mut ReadPlan, now: Timestamp) {
        if plan.list(now) {
            let known: Vec<_> = self.groups.iter().filter(|group| group.made_at <= now).collect();
            let pages = u32::try_from(known.len().div_ceil(100).max(1)).expect("few");
            // A list does not tell that a container has ended.
            let entries =
                known.iter().map(|group| (group.name.as_str(), if now < group.runs_at { "Creating" } else { "Succeeded" }));
            plan.listed(entries, pages, now);
            (0..pages).for_each(|_| self.count(now));
        }
        for name in plan.due(now) {
            self.count(now);
            let place: usize = name[1..].parse().expect("a number");
            let group = &mut self.groups[place];
            let before = group.read_at.map(|read_at| group.stage(read_at));
            plan.read(&name, before != Some(group.stage(now)), group.stage(now) == 2, now);
            group.read_at = Some(now);
        }
        for group in self.groups.iter().filter(|group| group.made_at <= now) {
            let seen = group.read_at.unwrap_or(group.made_at);
            if group.stage(seen) != 2 {
                self.oldest = self.oldest.max(now.since(seen));
            }
        }
    }
}

#[test]
fn a_thousand_groups_that_run_for_hours_stay_below_the_limit_and_are_seen_every_ten_minutes() {
    let azure = run((0..1000).map(|place| (place * 3 / 10, 40, 36_000)), 4, 0);
    assert!(azure.most_reads <= ARM_READS_PER_HOUR, "{} reads in an hour", azure.most_reads);
    assert!(azure.oldest <= Duration::from_secs(700), "a status was {:?} old", azure.oldest);
}

#[test]
fn a_thousand_groups_at_once_stay_below_the_limit_and_wait_in_turn() {
    let azure = run((0..1000).map(|_| (0, 40, 3600)), 3, 10);
    assert!(azure.most_reads <= ARM_READS_PER_HOUR, "{} reads in an hour", azure.most_reads);
    assert!(azure.oldest <= Duration::from_secs(900), "a status was {:?} old", azure.oldest);
}

#[test]
fn the_end_of_a_short_run_is_seen_soon() {
    for run_seconds in [20, 300, 3000] {
        let azure = run([(0, 40, run_seconds)].into_iter(), 1, 0);
        let seen = azure.groups[0].read_at.expect("read").since(azure.groups[0].ends_at);
        let bound = Duration::from_secs(run_seconds) / PART + 2 * TICK;
        assert!(seen <= bound, "a run of {run_seconds} s was seen to end {seen:?} late");
    }
}

#[test]
fn what_has_ended_is_left_alone_and_what_the_list_shows_is_read_at_once() {
    let mut plan = ReadPlan::new(READS_PER_HOUR);
    plan.listed([("a", "Creating")].into_iter(), 1, second(0));
    assert_eq!(plan.due(second(0)).len(), 1);
    plan.read("a", true, false, second(0));
    plan.listed([("a", "Creating")].into_iter(), 1, second(1));
    assert!(plan.due(second(1)).is_empty());
    plan.listed([("a", "Succeeded")].into_iter(), 1, second(2));
    assert_eq!(plan.due(second(2)).len(), 1, "its list entry has changed");
    plan.read("a", true, true, second(2));
    assert!(plan.due(second(90_000)).is_empty(), "it has ended");
    plan.listed([("a", "Deleting")].into_iter(), 1, second(90_001));
    assert_eq!(plan.due(second(90_001)).len(), 1);
    plan.listed(std::iter::empty(), 1, second(90_010));
    assert!(plan.groups.is_empty(), "what is gone is forgotten");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]
    #[test]
    fn no_hour_has_too_many_reads(
        count in 1_u64..1500, spread in 1_u64..7200, starts in 1_u64..600, runs in 1_u64..20_000, asked in 0_usize..20,
    ) {
        let azure = run((0..count).map(|place| (place * 7919 % spread, starts, runs)), 3, asked);
        prop_assert!(azure.most_reads <= ARM_READS_PER_HOUR, "{} reads in an hour", azure.most_reads);
    }
}
