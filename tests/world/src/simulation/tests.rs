use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use policy::Timestamp;
use proptest::prelude::*;
use providers::StartFailure;
use providers::memory::{Fault, FaultWindow};

use super::*;

fn manifests(text: &str) -> Manifests {
    let mut manifests = Manifests::default();
    manifests.read(text, "test").expect("the test's own manifest");
    manifests
}

fn nodes(count: usize, cpu: &str) -> Manifests {
    let node = |number| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: dedicated-{number:02}}}\n\
             status: {{allocatable: {{cpu: \"{cpu}\", memory: 64Gi, pods: \"110\"}}}}\n"
        )
    };
    manifests(&(0..count).map(node).collect::<Vec<_>>().join("---\n"))
}

fn virtual_node() -> Manifests {
    manifests(
        "apiVersion: v1\nkind: Node\nmetadata: {name: cloud, labels: {type: virtual-kubelet}}\n\
         spec: {taints: [{key: spillway.dev/virtual-node, effect: NoSchedule}]}\n\
         status: {allocatable: {cpu: \"100\", memory: 1Ti, pods: \"0\"}}\n",
    )
}

fn job(completions: u32, parallelism: u32, extra: &str) -> Manifests {
    manifests(&format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: work, namespace: media}}\n\
         spec:\n  completions: {completions}\n  parallelism: {parallelism}\n  completionMode: Indexed\n  template:\n\
         \x20   metadata: {{annotations: {{simulation.spillway.dev/run-time: 20s..40s}}}}\n\
         \x20   spec:\n      restartPolicy: Never\n      {extra}\n      containers:\n\
         \x20     - {{name: main, image: work, resources: {{requests: {{cpu: \"1\", memory: 1Gi}}}}}}\n"
    ))
}

fn simulation(seed: u64) -> Simulation {
    Simulation::new(Settings::new(seed))
}

fn hours(simulation: &Simulation, count: u64) -> Timestamp {
    simulation.now() + Duration::from_secs(3600 * count)
}

fn binding(pod: &Pod, node: &str) -> Request {
    let metadata = ObjectMeta {
        annotations: Some(BTreeMap::from([("spillway.dev/decision".to_owned(), "{}".to_owned())])),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        ..ObjectMeta::default()
    };
    Request::Bind(Box::new(Binding {
        metadata,
        target: ObjectReference { name: Some(node.to_owned()), ..ObjectReference::default() },
    }))
}

/// The condition `PodScheduled` as `status/reason`.
fn scheduled(pod: &Pod) -> String {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let condition = conditions.into_iter().find(|condition| condition.type_ == "PodScheduled");
    condition.map_or(String::new(), |c| format!("{}/{}", c.status, c.reason.as_deref().unwrap_or_default()))
}

/// No node holds more than it has, at any moment: sweeps over binding and ending times.
fn assert_capacity(simulation: &Simulation, cpus: i64) {
    let mut changes: BTreeMap<Arc<str>, Vec<(Timestamp, i64)>> = BTreeMap::new();
    for (_, life) in simulation.pods() {
        let (Some(node), Some(bound)) = (&life.node, life.bound_at) else { continue };
        let changes = changes.entry(node.clone()).or_default();
        changes.push((bound, 1));
        changes.extend(life.ended_at.map(|ended| (ended, -1)));
    }
    for (node, mut changes) in changes.into_iter().filter(|(node, _)| node.starts_with("dedicated")) {
        changes.sort_unstable();
        let most = changes
            .iter()
            .scan(0, |sum, (_, change)| {
                *sum += change;
                Some(*sum)
            })
            .max();
        assert!(most <= Some(cpus), "{node} held {most:?} pods of one CPU with {cpus} CPUs");
    }
}

#[test]
fn a_job_runs_in_waves_on_dedicated_nodes() {
    let mut simulation = simulation(1);
    simulation.apply(nodes(4, "8"));
    simulation.apply(job(100, 100, ""));
    let limit = hours(&simulation, 1);
    assert!(simulation.run_to_rest(limit, &mut NoExtender), "still busy after an hour");
    let progress = simulation.jobs().next().expect("the Job");
    assert_eq!((progress.succeeded, progress.failed, progress.is_complete), (100, 0, true));
    // 100 pods of 20 to 40 s, 32 at once: at least three waves.
    let took = progress.ended_at.expect("it ended").since(Settings::new(1).start);
    assert!((Duration::from_secs(80)..Duration::from_secs(240)).contains(&took), "{took:?}");
    assert_capacity(&simulation, 8);
    let indexes: BTreeSet<&str> =
        simulation.pods().map(|(pod, _)| pod.metadata.labels.as_ref().expect("labels")[jobs::INDEX_KEY].as_str()).collect();
    assert_eq!(indexes.len(), 100);
    assert!(simulation.events().iter().any(
        |event| event.reason == "FailedScheduling" && event.note.starts_with("0/4 nodes are available: 4 Insufficient cpu.")
    ));
}

#[test]
fn the_driver_binds_to_a_cloud_and_is_held_to_the_preconditions() {
    let mut simulation = simulation(2);
    simulation.apply(virtual_node());
    simulation.apply(job(1, 1, ""));
    let limit = hours(&simulation, 1);
    let pod = loop {
        let seen = simulation.run_until(limit, &mut NoExtender).into_iter().find_map(|observation| match observation {
            Observation::Change(Change::PodApplied(pod)) if scheduled(&pod) == "False/Unschedulable" => Some(pod),
            _ => None,
        });
        if let Some(pod) = seen {
            break pod;
        }
    };
    let mut stale = (*pod).clone();
    stale.metadata.resource_version = Some("1".to_owned());
    let mut stranger = (*pod).clone();
    stranger.metadata.uid = Some("another".to_owned());
    let tickets: Vec<Ticket> =
        [&stale, &stranger, &*pod].into_iter().map(|pod| simulation.submit(binding(pod, "cloud"))).collect();
    let mut answers = BTreeMap::new();
    while answers.len() < 3 {
        for observation in simulation.run_until(limit, &mut NoExtender) {
            if let Observation::Answer(answer) = observation {
                answers.insert(answer.ticket, answer.outcome.map(|_| ()).map_err(|error| error.code));
            }
        }
    }
    assert_eq!(answers[&tickets[0]], Err(Some(409)));
    assert_eq!(answers[&tickets[1]], Err(Some(409)));
    assert_eq!(answers[&tickets[2]], Ok(()));
    let again = simulation.submit(binding(&pod, "cloud"));
    let refused = simulation.advance_to(limit, &mut NoExtender).into_iter().any(|observation| {
        matches!(observation, Observation::Answer(answer) if answer.ticket == again && answer.outcome.as_ref().is_err_and(|error| error.code == Some(409)))
    });
    assert!(refused, "a pod was bound twice");
    let (bound, life) = simulation.pods().next().expect("the pod");
    assert_eq!((scheduled(bound).as_str(), life.node.as_deref()), ("True/", Some("cloud")));
    assert!(bound.metadata.annotations.as_ref().expect("annotations").contains_key("spillway.dev/decision"));
    assert!(simulation.jobs().next().expect("the Job").is_complete);
}

#[test]
fn a_verdict_may_be_older_than_the_binding() {
    let mut simulation = simulation(3);
    simulation.apply(virtual_node());
    simulation.apply(job(200, 200, ""));
    let limit = hours(&simulation, 1);
    let mut sent = BTreeSet::new();
    let mut is_stale_seen = false;
    while simulation.next_event_at().is_some_and(|at| at <= limit) {
        for observation in simulation.run_until(limit, &mut NoExtender) {
            let Observation::Change(Change::PodApplied(pod)) = observation else { continue };
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
            is_stale_seen |= node.is_some() && scheduled(&pod) == "False/Unschedulable";
            if node.is_none() && sent.insert(pod.metadata.uid.clone()) {
                let mut early = (*pod).clone();
                early.metadata.resource_version = None;
                simulation.submit(binding(&early, "cloud"));
            }
        }
    }
    assert!(is_stale_seen, "kube-scheduler's late patch was never seen on a bound pod");
    assert!(simulation.jobs().next().expect("the Job").is_complete);
}

#[test]
fn gated_pods_wait_and_are_not_bound() {
    let mut simulation = simulation(4);
    simulation.apply(nodes(1, "8"));
    simulation.apply(job(1, 1, "schedulingGates: [{name: spillway.dev/decide}]"));
    let limit = hours(&simulation, 1);
    simulation.run_to_rest(limit, &mut NoExtender);
    let pod = simulation.pods().next().expect("the pod").0.clone();
    assert_eq!(scheduled(&pod), "False/SchedulingGated");
    let ticket = simulation.submit(binding(&pod, "dedicated-00"));
    let outcomes: Vec<Observation> = simulation.advance_to(hours(&simulation, 1), &mut NoExtender);
    let refused = |observation: &Observation| {
        matches!(observation, Observation::Answer(answer) if answer.ticket == ticket
            && answer.outcome.as_ref().is_err_and(|error| error.message.contains("schedulingGates")))
    };
    assert!(outcomes.iter().any(refused));
}

/// Keeps only nodes of one name, and counts.
struct Only(&'static str, usize);

impl Extender for Only {
    fn filter(&mut self, _pod: &Pod, nodes: &[&str]) -> FilterOutcome {
        self.1 += 1;
        let failed =
            nodes.iter().filter(|node| **node != self.0).map(|node| ((*node).to_owned(), "not packed".to_owned())).collect();
        let feasible = nodes.iter().filter(|node| **node == self.0).map(|node| (*node).to_owned()).collect();
        FilterOutcome::Answer { feasible, failed, unresolvable: BTreeMap::new() }
    }

    fn preempt(&mut self, _pod: &Pod, _victims: &BTreeMap<String, Vec<String>>) -> Option<BTreeSet<String>> {
        Some(BTreeSet::new())
    }
}

#[test]
fn only_marked_pods_reach_the_extender_and_it_decides_for_them() {
    let marked = |pods| {
        let text = "apiVersion: v1\nkind: List\nitems:\n".to_owned()
            + &(0..pods)
                .map(|number| {
                    format!(
                        "- apiVersion: v1\n  kind: Pod\n  metadata: {{name: marked-{number}}}\n  spec:\n    containers:\n\
                         \x20   - {{name: main, image: work, resources: {{requests: {{cpu: \"1\"}}, limits: {{spillway.dev/burst: \"0\"}}}}}}\n"
                    )
                })
                .collect::<String>();
        manifests(&text)
    };
    let mut simulation = simulation(5);
    simulation.apply(nodes(3, "4"));
    simulation.apply(job(3, 3, ""));
    let mut extender = Only("dedicated-01", 0);
    let limit = hours(&simulation, 1);
    simulation.run_to_rest(limit, &mut extender);
    assert_eq!(extender.1, 0, "the Job's pods carry no marker");
    simulation.apply(marked(3));
    simulation.run_to_rest(hours(&simulation, 1), &mut extender);
    let packed = simulation.pods().filter(|(pod, life)| {
        pod.metadata.name.as_deref().is_some_and(|name| name.starts_with("marked"))
            && life.node.as_deref() == Some("dedicated-01")
    });
    assert_eq!(packed.count(), 3);
    assert_eq!(extender.1, 3);
}

#[test]
fn a_higher_priority_preempts() {
    let mut simulation = simulation(6);
    simulation.apply(nodes(1, "2"));
    let pods = |name: &str, priority: i32, cpu: u32| {
        manifests(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  priority: {priority}\n  containers:\n\
             \x20 - {{name: main, image: work, resources: {{requests: {{cpu: \"{cpu}\"}}}}}}\n"
        ))
    };
    simulation.apply(pods("low", 0, 1));
    simulation.apply(pods("middle", 5, 1));
    simulation.advance_to(simulation.now() + Duration::from_secs(10), &mut NoExtender);
    simulation.apply(pods("high", 10, 1));
    simulation.advance_to(simulation.now() + Duration::from_secs(20), &mut NoExtender);
    let running: BTreeSet<&str> =
        simulation.pods().filter(|(_, life)| life.node.is_some()).filter_map(|(pod, _)| pod.metadata.name.as_deref()).collect();
    assert_eq!(running, BTreeSet::from(["high", "middle"]));
}

#[test]
fn failures_of_a_cloud_reach_the_owner_and_the_work_is_done_elsewhere() {
    let mut simulation = simulation(7);
    simulation.apply(virtual_node());
    let start = simulation.now();
    let fault = Fault::FailAfterAcceptance {
        after: Duration::from_secs(5),
        cause: StartFailure::Image,
        reason: "CannotPullContainerError".to_owned(),
    };
    let window = FaultWindow { fault, from: start, until: start + Duration::from_secs(60) };
    simulation.at(start, Disturbance::BackendFault { node: "cloud".to_owned(), window });
    simulation.apply(job(1, 1, ""));
    simulation.at(start + Duration::from_secs(30), Disturbance::Apply(nodes(1, "4")));
    let pod = loop {
        let observations = simulation.run_until(hours(&simulation, 1), &mut NoExtender);
        let pod = observations.into_iter().find_map(|observation| match observation {
            Observation::Change(Change::PodApplied(pod)) => Some(pod),
            _ => None,
        });
        if let Some(pod) = pod {
            break pod;
        }
    };
    simulation.submit(binding(
        &Pod { metadata: ObjectMeta { resource_version: None, ..pod.metadata.clone() }, ..(*pod).clone() },
        "cloud",
    ));
    simulation.run_to_rest(hours(&simulation, 1), &mut NoExtender);
    let ends: Vec<(Option<&str>, Option<&str>)> = simulation
        .pods()
        .map(|(pod, life)| (life.node.as_deref(), pod.status.as_ref().and_then(|status| status.message.as_deref())))
        .collect();
    assert_eq!(ends, [(Some("cloud"), Some("CannotPullContainerError")), (Some("dedicated-00"), None)]);
    assert!(simulation.jobs().next().expect("the Job").is_complete);
}

#[test]
fn lost_answers_and_late_watches() {
    let mut settings = Settings::new(8);
    settings.lost_binding_answers_one_in = 1;
    let mut simulation = Simulation::new(settings);
    simulation.apply(virtual_node());
    let delay = Duration::from_secs(5);
    let start = simulation.now();
    simulation.at(start, Disturbance::WatchDelay { delay, until: start + Duration::from_secs(1) });
    simulation.at(start + Duration::from_millis(1), Disturbance::Apply(job(1, 1, "")));
    let mut lost = 0;
    let mut first_seen = None;
    while simulation.next_event_at().is_some_and(|at| at < start + Duration::from_secs(100)) {
        for observation in simulation.run_until(start + Duration::from_secs(100), &mut NoExtender) {
            match observation {
                Observation::Change(Change::PodApplied(pod)) if first_seen.is_none() => {
                    first_seen = Some(simulation.now());
                    simulation.submit(binding(
                        &Pod { metadata: ObjectMeta { resource_version: None, ..pod.metadata.clone() }, ..(*pod).clone() },
                        "cloud",
                    ));
                }
                Observation::Answer(answer) => lost += usize::from(answer.outcome.is_err_and(|error| error.code.is_none())),
                Observation::Change(_) => {}
            }
        }
    }
    assert!(first_seen.expect("seen").since(start) >= delay);
    assert_eq!(lost, 1);
    assert!(simulation.jobs().next().expect("the Job").is_complete, "the Binding itself was done");
}

#[test]
fn nonsense_in_a_manifest_is_named() {
    let check = |text: &str, complaint: &str| {
        let error = Manifests::default().read(text, "file.yaml").expect_err(text);
        assert!(format!("{error:#}").contains(complaint), "{error:#}");
    };
    check("metadata: {name: x}", "file.yaml, document 1: not a Kubernetes object: it has no `kind`");
    check("kind: Pod", "no `apiVersion`");
    check("apiVersion: v1\nkind: Node\nmetadata: {name: [1]}", "invalid type");
    check("a: b: c", "mapping values are not allowed");
    check("apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List}]", "a List within a List");
    let mut manifests = Manifests::default();
    manifests
        .read("---\n---\napiVersion: spillway.dev/v1alpha1\nkind: BurstPolicy\n---\n", "file.yaml")
        .expect("empty documents are fine");
    assert_eq!(manifests.others.len(), 1);
}

/// The whole history as text: what everybody saw, in order.
fn history(seed: u64, pods: u32, cpus: u32) -> Vec<String> {
    let mut simulation = simulation(seed);
    simulation.apply(nodes(3, &cpus.to_string()));
    simulation.apply(job(pods, pods, ""));
    let limit = hours(&simulation, 2);
    let mut history = Vec::new();
    while simulation.next_event_at().is_some_and(|at| at <= limit) {
        for observation in simulation.run_until(limit, &mut NoExtender) {
            history.push(format!("{:?} {observation:?}", simulation.now()));
        }
    }
    assert_capacity(&simulation, i64::from(cpus));
    assert!(simulation.jobs().all(|job| job.is_complete));
    history
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn same_seed_same_history_and_no_node_over_capacity(seed in any::<u64>(), pods in 1..60_u32, cpus in 1..6_u32) {
        prop_assert_eq!(history(seed, pods, cpus), history(seed, pods, cpus));
    }
}

/// Effort is counted, not timed: a busy machine must not fail this. 100,000 steps are far below a second in a release build.
#[test]
fn five_hundred_pods_are_simulated_in_few_steps() {
    let mut simulation = simulation(9);
    simulation.apply(nodes(10, "8"));
    simulation.apply(job(500, 500, ""));
    let limit = hours(&simulation, 2);
    let mut steps = 0;
    while simulation.next_event_at().is_some_and(|at| at <= limit) {
        simulation.step(&mut NoExtender);
        simulation.ready.clear();
        steps += 1;
    }
    assert!(simulation.jobs().all(|job| job.is_complete));
    assert!(steps < 100_000, "{steps} steps");
}
