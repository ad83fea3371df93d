//! Random clusters and workloads, compared with plain kube-scheduler: what bursts must have found no dedicated node.
//!
//! Each seed is run to rest with Spillway. Then Spillway is stopped and kube-scheduler is asked about a twin of every pod that
//! burst: none may find a dedicated node. Where all pods have one size, the same pods are run once more without Spillway: the
//! dedicated nodes must have been exactly as full.
//!
//! `SPILLWAY_SEED=17` runs one seed, `SPILLWAY_SEEDS=50` that many from a random one; the seed stands in every failure.

mod plan;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use world::control_plane::{place_of, summary, wait_until};

use crate::scenario::{Extender, NAMESPACE, Scenario, is_refused, record};
use plan::{Plan, VIRTUAL};

/// A verdict against what the snapshot shows is trusted after ten seconds, so this is several of those.
const REST: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_bursts_while_its_twin_would_find_a_dedicated_node() {
    let seeds = seeds();
    println!("seeds {seeds:?}");
    let scenario = stage().await;
    for seed in seeds {
        let plan = Plan::new(seed);
        let outcome = run(&scenario, &plan).await;
        let told = outcome.unwrap_or_else(|error| panic!("SPILLWAY_SEED={seed}: {error:#}\n{plan:#?}\n{}", scenario.log()));
        println!("seed {seed}: {told}");
    }
}

/// The sample of `make test` is always the same, so that it says something about the change at hand.
fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number")));
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match (number("SPILLWAY_SEED"), number("SPILLWAY_SEEDS")) {
        (None, None) => (0..3).collect(),
        (Some(seed), count) => (seed..seed + count.unwrap_or(1)).collect(),
        (None, Some(count)) => (clock()..clock() + count).collect(),
    }
}

async fn stage() -> Scenario {
    let scenario = Scenario::new(Extender::Absent).await;
    for (name, price, labels) in VIRTUAL {
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        scenario.virtual_node_with(name, json!({"inMemory": {"region": "here"}, "labels": labels}), price).await;
    }
    for (name, tiers) in plan::policies() {
        scenario.policy(name, name, tiers, json!({})).await;
    }
    for (name, value) in plan::PRIORITIES {
        scenario.priority_class(name, value, "Never").await;
    }
    scenario
}

/// One seed; says how it went.
async fn run(scenario: &Scenario, plan: &Plan) -> Result<String> {
    for nodes in &plan.nodes {
        scenario.plane.create_dedicated_nodes(nodes).await?;
    }
    scenario.start().await;
    scenario.create_pods(&plan.manifests(None)).await?;
    let pods = rest(scenario, plan).await?;
    scenario.kill();

    let burst: Vec<&Pod> = pods.iter().filter(|pod| is_virtual(pod)).collect();
    for pod in &burst {
        let group = plan.group_of(name(pod));
        ensure!(group.may_burst(), "{} is on a virtual node; {group:?}", name(pod));
        ensure!(*record(pod).policy == *group.app, "{} burst by another policy: {:?}", name(pod), record(pod));
    }
    twins(scenario, plan, &burst).await?;
    let told = format!(
        "{} kinds of nodes, {} pods: {} dedicated, {} burst, {} wait",
        plan.nodes.len(),
        pods.len(),
        pods.iter().filter(|pod| place_of(pod).is_some() && !is_virtual(pod)).count(),
        burst.len(),
        pods.iter().filter(|pod| place_of(pod).is_none()).count()
    );
    if plan.one_size {
        scenario.delete_all_pods().await?;
        let alone = plan.manifests(Some("alone"));
        scenario.create_pods(&alone).await?;
        let without = decided(scenario, "app=alone", alone.len(), |_| true).await?;
        let (with, without) = (fullness(&pods), fullness(&without));
        ensure!(
            with.values().sum::<usize>() == without.values().sum::<usize>(),
            "pods on dedicated nodes with Spillway {with:?}, without it {without:?}"
        );
        // Where pods were left over every node is full; otherwise the scheduler may choose either way.
        ensure!(burst.is_empty() || with == without, "with Spillway {with:?}, without it {without:?}");
    }
    scenario.delete_all_pods().await?;
    scenario.delete_dedicated_nodes().await?;
    Ok(told)
}

/// Waits until kube-scheduler and Spillway have nothing more to do.
async fn rest(scenario: &Scenario, plan: &Plan) -> Result<Vec<Pod>> {
    decided(scenario, "", plan.len(), |pod| !plan.group_of(name(pod)).may_burst()).await
}

/// Waits until every pod is bound, or called Unschedulable where it may wait.
async fn decided(scenario: &Scenario, selector: &str, count: usize, may_wait: impl Fn(&Pod) -> bool) -> Result<Vec<Pod>> {
    wait_until("every pod decided", REST, async || {
        let pods = scenario.plane.pods(NAMESPACE, selector).await?;
        let open: Vec<Pod> =
            pods.iter().filter(|pod| place_of(pod).is_none() && !(may_wait(pod) && is_refused(pod))).cloned().collect();
        ensure!(pods.len() == count && open.is_empty(), "{} of {count} pods, undecided: {}", pods.len(), summary(&open));
        Ok(pods)
    })
    .await
}

/// Asks kube-scheduler alone about a twin of every burst pod.
async fn twins(scenario: &Scenario, plan: &Plan, burst: &[&Pod]) -> Result<()> {
    let twins: Vec<Value> = burst.iter().map(|pod| plan.twin(name(pod))).collect();
    scenario.create_pods(&twins).await?;
    let answers = decided(scenario, "app=twin", twins.len(), |_| true).await?;
    for twin in answers {
        let place = place_of(&twin);
        ensure!(place.is_none(), "{} found room on {place:?}; {:?}", name(&twin), plan.group_of(name(&twin)));
    }
    Ok(())
}

/// Pods per dedicated node.
fn fullness(pods: &[Pod]) -> BTreeMap<String, usize> {
    let mut fullness = BTreeMap::new();
    for place in pods.iter().filter(|pod| !is_virtual(pod)).filter_map(place_of) {
        *fullness.entry(place.to_owned()).or_default() += 1;
    }
    fullness
}

fn is_virtual(pod: &Pod) -> bool {
    place_of(pod).is_some_and(|node| !node.starts_with("dedicated"))
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

#[test]
fn a_plan_repeats_and_says_who_may_burst() {
    assert_eq!(format!("{:?}", Plan::new(7)), format!("{:?}", Plan::new(7)));
    assert_ne!(format!("{:?}", Plan::new(7)), format!("{:?}", Plan::new(8)));
    let plans: Vec<Plan> = (0..50).map(Plan::new).collect();
    let groups = || plans.iter().flat_map(|plan| &plan.groups);
    assert!(groups().any(plan::Group::may_burst) && groups().any(|group| !group.may_burst()));
    assert!(plans.iter().any(|plan| plan.one_size) && plans.iter().any(|plan| !plan.one_size));
}
