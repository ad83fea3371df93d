//! Pods that leave their virtual node before they are done: drained, or never started.

use anyhow::ensure;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use serde_json::{Value, json};
use world::control_plane::{place_of, wait_until};

use crate::scenario::{Extender, NAMESPACE, PATIENCE, Scenario, dedicated_first};

const JOB: &str = include_str!("../../../deploy/examples/pod-failure-policy/job.yaml");

/// The example, with pods that KWOK ends before they go, as kubelets do.
async fn job(scenario: &Scenario) {
    let mut job: Value = serde_yaml_ng::from_str(JOB).expect("YAML");
    job["spec"]["template"]["metadata"]["annotations"] = json!({"kwok.example/stops": "true"});
    scenario.apply(job).await.expect("a Job");
}

async fn job_status(scenario: &Scenario) -> k8s_openapi::api::batch::v1::JobStatus {
    let jobs: Api<Job> = Api::namespaced(scenario.client.clone(), NAMESPACE);
    jobs.get("nightly-report").await.expect("the Job").status.unwrap_or_default()
}

fn deployment(app: &str, replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": app, "namespace": NAMESPACE},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": app}},
            "template": {"metadata": {"labels": {"app": app}}, "spec": {"containers": [
                {"name": "main", "image": "registry.example/work:1", "resources": {"requests": {"cpu": "1", "memory": "128Mi"}}}]}}}})
}

fn disruption_budget(app: &str, available: u32) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": app, "namespace": NAMESPACE},
        "spec": {"minAvailable": available, "selector": {"matchLabels": {"app": app}}}})
}

#[tokio::test]
async fn a_drained_policy_returns_what_its_owners_make_again_as_far_as_disruption_budgets_go() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.virtual_node("virtual-0", "0.04").await;
    for app in ["service", "nightly-report", "bare", "other"] {
        scenario.policy(app, app, dedicated_first(&["virtual-0"]), json!({})).await;
    }
    scenario.start().await;
    scenario.apply(deployment("service", 3)).await.expect("a Deployment");
    scenario.apply(disruption_budget("service", 3)).await.expect("a PodDisruptionBudget");
    job(&scenario).await;
    scenario.pod("bare", "bare", "1", json!({})).await;
    scenario.pod("other", "other", "1", json!({})).await;
    for (app, count) in [("service", 3), ("nightly-report", 3), ("bare", 1), ("other", 1)] {
        assert_eq!(scenario.all_bound(app, count).await.counts(), (0, count, 0));
    }
    scenario.dedicated(2, "8").await;

    for app in ["service", "nightly-report", "bare"] {
        scenario.policy(app, app, dedicated_first(&["virtual-0"]), json!({"stopPolicy": "HoldAndDrain"})).await;
    }
    // A Job's pods are made again, and the Job does not count those that were taken from it.
    let back = async |app: &str, count: usize| {
        let (what, app) = (format!("{app} is back on dedicated nodes"), app.to_owned());
        let back = wait_until(&what, PATIENCE, async || {
            let places = scenario.places(&app).await;
            let (dedicated, virtual_) = (places.dedicated.len(), places.virtual_.iter().filter(|pod| !ended(pod)).count());
            ensure!((dedicated, virtual_) == (count, 0), "{:?}", places.counts());
            Ok(())
        });
        back.await.unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
    };
    back("nightly-report", 3).await;
    let status = job_status(&scenario).await;
    assert_eq!((status.failed.unwrap_or(0), status.conditions.unwrap_or_default().len()), (0, 0), "backoffLimit is 0");
    assert_eq!(
        scenario.event("bare", "NotReturned").await,
        "stays on its virtual node: it has no controller that would make it again"
    );

    // All three must be there, so none may go.
    let text = scenario.events_of("service-", "EvictionBlocked").await;
    assert!(text[0].contains("PodDisruptionBudget"), "{text:?}");
    assert_eq!(scenario.places("service").await.counts(), (0, 3, 0));
    scenario.apply(disruption_budget("service", 2)).await.expect("a PodDisruptionBudget");
    back("service", 3).await;
    for app in ["bare", "other"] {
        assert_eq!(scenario.places(app).await.counts(), (0, 1, 0), "{app} is left alone");
    }
}

fn ended(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

#[tokio::test]
async fn pods_that_do_not_start_are_made_again_elsewhere_and_the_job_does_not_count_them() {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.virtual_node_with("never-starts", json!({"inMemory": {"region": "here"}, "startDeadline": "2s"}), "0.01").await;
    scenario.virtual_node("works", "0.05").await;
    scenario.policy("report", "nightly-report", dedicated_first(&["never-starts", "works"]), json!({})).await;
    scenario.start().await;
    scenario.virtual_node_ready("never-starts").await;
    scenario.virtual_node_ready("works").await;

    job(&scenario).await;
    let running = wait_until("the Job's pods run elsewhere", PATIENCE, async || {
        let pods = scenario.places("nightly-report").await.virtual_;
        let works = pods.iter().filter(|pod| place_of(pod) == Some("works") && !ended(pod)).count();
        ensure!((works, pods.len()) == (3, 3), "{works} of {}", pods.len());
        Ok(())
    });
    running.await.unwrap_or_else(|error| panic!("{error:#}\n{}", scenario.log()));
    let texts = scenario.events_of("nightly-report-", "BackendStartFailed").await;
    assert_eq!(texts, ["the virtual node did not start it in time; it is failed, so that its owner makes another"; 3]);
    let status = job_status(&scenario).await;
    assert_eq!((status.failed.unwrap_or(0), status.active), (0, Some(3)), "backoffLimit is 0");
    assert!(status.conditions.unwrap_or_default().is_empty());

    // Such pods go elsewhere for a while; others do not.
    scenario.pod("small", "nightly-report", "500m", json!({})).await;
    assert_eq!(place_of(&scenario.bound("small").await), Some("never-starts"));
}
