use std::collections::HashMap;

use super::*;
use crate::burst_policy::{Mode, Packing};
use crate::ledger::{Budget, Ledger, Scope, WhenExceeded};
use crate::sample;
use crate::selector::Selector;
use crate::snapshot::{Backends, Namespaces};
use crate::virtual_node::{Closed, Limits, Provider, VirtualNode};
use crate::workload::Feature;
use proptest::prelude::*;

const GIB: i64 = 1 << 30;

/// A cluster to decide in, and the text of its decisions.
struct Scene {
    policy: BurstPolicy,
    backends: Backends,
    ledger: Ledger,
    namespaces: Namespaces,
    workload: Workload,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn rate(text: &str) -> Rate {
    text.parse().expect("the test's own rate")
}

fn dedicated() -> Tier {
    Tier::Dedicated(DedicatedTier {
        name: Arc::from("dedicated"),
        node_selector: vec![],
        packing: Packing::MostAllocated,
        vcpu: Rate::FREE,
        gib: Rate::FREE,
    })
}

fn serverless(after: After, nodes: &[&str]) -> Tier {
    Tier::Serverless(ServerlessTier {
        name: Arc::from("serverless"),
        after,
        virtual_nodes: nodes.iter().map(|name| Arc::from(*name)).collect(),
        spot: false,
        limits: Limits::default(),
    })
}

impl Scene {
    fn new(tiers: Vec<Tier>, nodes: Vec<VirtualNode>) -> Scene {
        let mut backends = Backends::default();
        for node in nodes {
            backends.set(Arc::new(node));
        }
        let policy = BurstPolicy {
            name: Arc::from("p"),
            generation: 1,
            weight: 100,
            created: Timestamp::EPOCH,
            mode: Mode::Enforce,
            stop: StopPolicy::None,
            namespace_selector: Some(Selector::default()),
            pod_selector: Some(Selector::default()),
            tiers,
            waiting_cost: rate("0.10"),
            expected_run: Duration::from_secs(3600),
            extender: false,
            gate: false,
        };
        Scene {
            policy,
            backends,
            ledger: Ledger::default(),
            namespaces: HashMap::default(),
            workload: sample::workload(1000, 2 * GIB),
        }
    }

    fn budget(&mut self, limit: &str) {
        let limit = limit.parse().expect("the test's own amount");
        self.ledger.set_budget(Budget {
            name: Arc::from("cap"),
            scope: Scope::default(),
            limit,
            when_exceeded: WhenExceeded::DedicatedOnly,
            start: Timestamp::EPOCH,
            end: at(86_400),
        });
        self.ledger.authorize("cap", limit);
    }

    fn decide(&self, room: Room, now: Timestamp) -> Decision {
        let snapshot = Snapshot { backends: &self.backends, books: self.ledger.books(), namespaces: &self.namespaces };
        decide(&snapshot, &self.policy, &self.workload, room, now)
    }

    /// `outcome reason`, then a line per tier and candidate.
    fn check(&self, room: Room, now: Timestamp, expected: &str) {
        let Decision { outcome, explanation } = self.decide(room, now);
        let mut text = match outcome {
            Outcome::Dedicated => "dedicated".to_owned(),
            Outcome::Burst(placement) => format!("burst to {}", placement.virtual_node),
            Outcome::Wait(None) => "wait".to_owned(),
            Outcome::Wait(Some(until)) => format!("wait until {}", until.millis() / 1000),
        };
        text += &format!(" {}", explanation.reason.label());
        for tier in &explanation.tiers {
            text += &format!("; {} {}", tier.tier, tier.reason.label());
            for candidate in &tier.candidates {
                let verdict = candidate.verdict.as_ref().map_or_else(Reason::label, |_| "ok");
                text += &format!(" {}={verdict}", candidate.virtual_node);
            }
        }
        assert_eq!(text, expected);
    }
}

fn two_clouds() -> Vec<VirtualNode> {
    vec![sample::virtual_node(Provider::Fargate), sample::virtual_node(Provider::Nomad)]
}

#[test]
fn dedicated_first_means_dedicated_first() {
    let scene = Scene::new(vec![dedicated(), serverless(After::Fixed(Duration::ZERO), &["fargate", "nomad"])], two_clouds());
    scene.check(Room::Some, at(0), "dedicated HasRoom; dedicated HasRoom");
    scene.check(Room::NoneSince(at(0)), at(0), "burst to nomad NoRoom; dedicated NoRoom; serverless NoRoom fargate=ok nomad=ok");
}

#[test]
fn a_tier_opens_after_its_time() {
    let scene = Scene::new(vec![dedicated(), serverless(After::Fixed(Duration::from_secs(45)), &["nomad"])], two_clouds());
    scene.check(Room::NoneSince(at(10)), at(54), "wait until 55 TierNotOpen; dedicated NoRoom; serverless TierNotOpen nomad=ok");
    scene.check(Room::NoneSince(at(10)), at(55), "burst to nomad NoRoom; dedicated NoRoom; serverless NoRoom nomad=ok");
}

#[test]
fn auto_waits_while_waiting_is_cheaper() {
    // One hour of 1 vCPU and 2 GiB on this Nomad costs 0.0241 with 15 s of start-up; waiting costs 0.10 an hour: 867.6 s.
    let scene = Scene::new(vec![dedicated(), serverless(After::Auto, &["nomad"])], two_clouds());
    scene.check(Room::NoneSince(at(0)), at(860), "wait until 867 TierNotOpen; dedicated NoRoom; serverless TierNotOpen nomad=ok");
    scene.check(Room::NoneSince(at(0)), at(868), "burst to nomad NoRoom; dedicated NoRoom; serverless NoRoom nomad=ok");
    let free = Scene { policy: BurstPolicy { waiting_cost: Rate::FREE, ..scene.policy.clone() }, ..scene };
    assert!(matches!(free.decide(Room::NoneSince(at(0)), at(1_000_000)).outcome, Outcome::Wait(_)), "waiting is free");
}

#[test]
fn serverless_first_needs_no_full_cluster() {
    let scene = Scene::new(vec![serverless(After::Fixed(Duration::ZERO), &["nomad"]), dedicated()], two_clouds());
    scene.check(Room::Some, at(0), "burst to nomad ServerlessFirst; serverless ServerlessFirst nomad=ok");
}

#[test]
fn a_dear_node_loses_against_a_cheap_cloud() {
    let dear = Tier::Dedicated(DedicatedTier {
        name: Arc::from("dedicated"),
        node_selector: vec![],
        packing: Packing::MostAllocated,
        vcpu: rate("0.05"),
        gib: rate("0.01"),
    });
    let scene = Scene::new(vec![dear, serverless(After::Fixed(Duration::ZERO), &["nomad"])], two_clouds());
    scene.check(
        Room::Some,
        at(0),
        "burst to nomad CheaperThanDedicated; dedicated DearerThanBursting; serverless CheaperThanDedicated nomad=ok",
    );
}

#[test]
fn what_no_backend_runs_is_said_before_everything_else() {
    let mut scene = Scene::new(vec![dedicated(), serverless(After::Fixed(Duration::ZERO), &["nomad"])], two_clouds());
    scene.workload.features.insert(Feature::HostPath);
    scene.check(Room::NoneSince(at(0)), at(0), "dedicated NotBurstable");
}

#[test]
fn every_refusal_is_told_per_candidate() {
    let closed = VirtualNode { closed: Some(Closed::BackendUnhealthy), ..sample::virtual_node(Provider::Fargate) };
    let quota = Limits { pods: Some(0), ..Limits::default() };
    let full = VirtualNode { quota, ..sample::virtual_node(Provider::Aci) };
    let free = VirtualNode { prices: None, ..sample::virtual_node(Provider::Nomad) };
    let spot =
        VirtualNode { name: Arc::from("spot"), capacity_type: CapacityType::Spot, ..sample::virtual_node(Provider::InMemory) };
    let tiers = vec![dedicated(), serverless(After::Fixed(Duration::ZERO), &["fargate", "aci", "nomad", "spot", "nowhere"])];
    let scene = Scene::new(tiers, vec![closed, full, free, spot]);
    scene.check(
        Room::NoneSince(at(0)),
        at(0),
        "wait QuotaExhausted; dedicated NoRoom; serverless QuotaExhausted fargate=BackendClosed aci=QuotaExhausted nomad=NoQuote spot=SpotNotAllowed nowhere=UnknownVirtualNode",
    );
}

#[test]
fn a_spent_budget_means_waiting_as_an_ordinary_pod() {
    let mut scene = Scene::new(vec![dedicated(), serverless(After::Fixed(Duration::ZERO), &["nomad"])], two_clouds());
    scene.budget("0.02");
    scene.check(
        Room::NoneSince(at(0)),
        at(0),
        "wait BudgetExceeded; dedicated NoRoom; serverless BudgetExceeded nomad=BudgetExceeded",
    );
    scene.check(Room::Some, at(0), "dedicated HasRoom; dedicated HasRoom");
}

#[test]
fn money_that_is_not_authorized_yet_sends_nobody_elsewhere() {
    let mut scene = Scene::new(
        vec![serverless(After::Fixed(Duration::ZERO), &["nomad"]), dedicated()],
        vec![sample::virtual_node(Provider::Nomad)],
    );
    scene.budget("10");
    scene.ledger.authorize("cap", Money::ZERO);
    let waits = "wait BudgetNotYetAuthorized; serverless BudgetNotYetAuthorized nomad=ok";
    scene.check(Room::Some, at(0), waits);
    scene.check(Room::NoneSince(at(0)), at(0), waits);
    // A spent budget is another matter, also where another one still has to be authorized.
    scene.ledger.set_budget(Budget {
        name: Arc::from("spent"),
        scope: Scope::default(),
        limit: Money::ZERO,
        when_exceeded: WhenExceeded::DedicatedOnly,
        start: Timestamp::EPOCH,
        end: at(86_400),
    });
    scene.check(Room::Some, at(0), "dedicated HasRoom; serverless BudgetExceeded nomad=BudgetExceeded; dedicated HasRoom");
}

#[test]
fn a_stopped_policy_holds() {
    let mut scene = Scene::new(vec![dedicated(), serverless(After::Fixed(Duration::ZERO), &["nomad"])], two_clouds());
    scene.policy.stop = StopPolicy::Hold;
    scene.check(Room::NoneSince(at(0)), at(0), "dedicated PolicyHeld");
}

#[test]
fn limits_of_tiers_and_nodes_count_what_is_in_use() {
    let mut scene = Scene::new(vec![dedicated(), serverless(After::Fixed(Duration::ZERO), &["nomad"])], two_clouds());
    let Tier::Serverless(tier) = &mut scene.policy.tiers[1] else { unreachable!("built so above") };
    tier.limits.pods = Some(1);
    scene.backends.occupy(
        "fargate",
        &Arc::from("p"),
        &Arc::from("serverless"),
        &Usage { pods: 1, cpu_millis: 1, memory_bytes: 1 },
    );
    scene.check(Room::NoneSince(at(0)), at(0), "wait TierLimit; dedicated NoRoom; serverless TierLimit nomad=TierLimit");
}

proptest! {
    /// The order in which a tier names its backends decides nothing but the order of the explanation.
    #[test]
    fn independent_of_input_order(order in Just(vec!["fargate", "aci", "nomad", "in-memory"]).prop_shuffle(), cpu in 100..4000_i64) {
        let nodes = || [Provider::Fargate, Provider::Aci, Provider::Nomad, Provider::InMemory].map(sample::virtual_node).to_vec();
        let placement = |names: &[&str]| {
            let mut scene = Scene::new(vec![dedicated(), serverless(After::Fixed(Duration::ZERO), names)], nodes());
            scene.workload = sample::workload(cpu, 2 * GIB);
            match scene.decide(Room::NoneSince(at(0)), at(0)).outcome {
                Outcome::Burst(placement) => Some((placement.virtual_node, placement.quote)),
                Outcome::Dedicated | Outcome::Wait(_) => None,
            }
        };
        prop_assert_eq!(placement(&order), placement(&["fargate", "aci", "nomad", "in-memory"]));
    }

    /// Whoever is chosen was named by the tier, and nobody feasible was cheaper.
    #[test]
    fn the_choice_is_a_cheapest_candidate(cpu in 100..16_000_i64, gib in 1..60_i64) {
        let nodes = [Provider::Fargate, Provider::Aci, Provider::Nomad].map(sample::virtual_node).to_vec();
        let mut scene = Scene::new(vec![dedicated(), serverless(After::Fixed(Duration::ZERO), &["fargate", "aci", "nomad"])], nodes);
        scene.workload = sample::workload(cpu, gib * GIB);
        let decision = scene.decide(Room::NoneSince(at(0)), at(0));
        let quotes: Vec<_> = decision.explanation.tiers[1].candidates.iter().filter_map(|one| one.verdict.as_ref().ok()).collect();
        match decision.outcome {
            Outcome::Burst(placement) => prop_assert!(quotes.iter().all(|quote| quote.total() >= placement.quote.total())),
            Outcome::Dedicated | Outcome::Wait(_) => prop_assert!(quotes.is_empty()),
        }
    }
}
