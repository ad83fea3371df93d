use super::*;
use crate::workload::tests::{converted, pod, with_spec};
use std::sync::Arc;

/// Requests and limits of a pod in one line.
fn check_requests(spec: &str, requests: &str, limits: &str) {
    let view = converted(&with_spec(spec));
    let print = |resources: &policy::Resources| {
        let mut text = format!(
            "{} {} {}",
            Quantity::from_millis(resources.cpu_millis),
            Quantity::from_units(resources.memory_bytes),
            Quantity::from_units(resources.ephemeral_bytes)
        );
        for (name, amount) in &resources.extended {
            text.push_str(&format!(" {name}={amount}"));
        }
        text
    };
    assert_eq!(print(&view.requests), requests, "requests of {spec}");
    assert_eq!(print(&view.limits), limits, "limits of {spec}");
}

#[test]
fn containers_are_added_up() {
    check_requests(
        "{containers: [
            {name: a, resources: {requests: {cpu: 100m, memory: 1Gi, ephemeral-storage: 1Gi, nvidia.com/gpu: 1}}},
            {name: b, resources: {requests: {cpu: '1.5', memory: 512Mi, hugepages-2Mi: 4Mi}}},
            {name: c}]}",
        "1600m 1536Mi 1Gi hugepages-2Mi=4194304 nvidia.com/gpu=1",
        "0 0 0",
    );
}

#[test]
fn sums_are_rounded_once_at_the_end() {
    check_requests(
        "{containers: [{name: a, resources: {requests: {cpu: 100u, memory: 500m}}}, {name: b, resources: {requests: {cpu: 100u, memory: 500m}}}]}",
        "1m 1 0",
        "0 0 0",
    );
}

#[test]
fn the_largest_init_container_counts_if_it_is_more_than_the_sum() {
    check_requests(
        "{initContainers: [{name: i, resources: {requests: {cpu: '2', memory: 10Mi}}}, {name: j, resources: {requests: {cpu: '1', memory: 3Gi}}}],
          containers: [{name: a, resources: {requests: {cpu: '1', memory: 1Gi}}}]}",
        "2 3Gi 0",
        "0 0 0",
    );
}

#[test]
fn sidecars_count_beside_the_containers_and_beside_later_init_containers() {
    // i runs before the sidecar, j beside it.
    check_requests(
        "{initContainers: [
            {name: i, resources: {requests: {cpu: '3'}}},
            {name: s, restartPolicy: Always, resources: {requests: {cpu: 500m, memory: 64Mi}}},
            {name: j, resources: {requests: {cpu: '2', memory: 2Gi}}}],
          containers: [{name: a, resources: {requests: {cpu: '1', memory: 1Gi}}}]}",
        "3 2112Mi 0",
        "0 0 0",
    );
    check_requests(
        "{initContainers: [
            {name: s, restartPolicy: Always, resources: {requests: {cpu: 500m}}},
            {name: t, restartPolicy: Always, resources: {requests: {cpu: 300m}}},
            {name: j, resources: {requests: {cpu: 400m}}}],
          containers: [{name: a, resources: {requests: {cpu: 200m}}}]}",
        "1200m 0 0",
        "0 0 0",
    );
}

#[test]
fn the_pods_own_resources_replace_the_sum_and_overhead_comes_on_top() {
    check_requests(
        "{resources: {requests: {cpu: '2'}, limits: {cpu: '4', memory: 4Gi}}, overhead: {cpu: 250m, memory: 120Mi},
          containers: [{name: a, resources: {requests: {cpu: '1', memory: 1Gi}, limits: {cpu: '3', memory: 2Gi}}}, {name: b}]}",
        "2250m 1144Mi 0",
        "4 4Gi 0",
    );
    // Where neither says anything, the pod's limit is its request.
    check_requests("{resources: {limits: {memory: 1Gi}}, containers: [{name: a}]}", "0 1Gi 0", "0 1Gi 0");
    // A pod as a whole asks for CPU, memory and huge pages only.
    check_requests(
        "{resources: {requests: {ephemeral-storage: 1Gi, hugepages-2Mi: 2Mi}}, containers: [{name: a}]}",
        "0 0 0 hugepages-2Mi=2097152",
        "0 0 0",
    );
}

#[test]
fn a_missing_request_is_the_limit() {
    check_requests(
        "{containers: [{name: a, resources: {requests: {cpu: 100m}, limits: {cpu: '1', memory: 1Gi, nvidia.com/gpu: 2}}}, {name: b}]}",
        "100m 1Gi 0 nvidia.com/gpu=2",
        "1 1Gi 0 nvidia.com/gpu=2",
    );
}

#[test]
fn names_that_no_scheduler_counts_are_left_out() {
    check_requests(
        "{containers: [{name: a, resources: {requests: {pods: '1', storage: 1Gi, cpu: 1m, example.com/fpga: '0'}, limits: {spillway.dev/burst: '0'}}}]}",
        "1m 0 0",
        "0 0 0",
    );
}

#[test]
fn a_pod_in_resize_holds_the_most_of_what_it_has_and_wants() {
    let text = |conditions: &str| {
        format!(
            "{{spec: {{nodeName: n, containers: [{{name: a, resources: {{requests: {{cpu: '3', memory: 1Gi}}}}}}, {{name: b, resources: {{requests: {{cpu: 100m}}}}}}]}},
               status: {{conditions: [{conditions}], containerStatuses: [
                 {{name: a, image: i, imageID: i, ready: true, restartCount: 0, allocatedResources: {{cpu: '2', memory: 1Gi}}, resources: {{requests: {{cpu: '1', memory: 2Gi}}}}}}]}}}}"
        )
    };
    let sized = |conditions: &str| {
        let resources = requests(&pod(&text(conditions)));
        (resources.cpu_millis, resources.memory_bytes >> 20)
    };
    assert_eq!(sized(""), (3100, 2048));
    // What can never be given is not held; a container that the status does not know has nothing either.
    assert_eq!(sized("{type: PodResizePending, status: 'True', reason: Infeasible}"), (2000, 2048));
    assert_eq!(sized("{type: PodResizePending, status: 'True', reason: Deferred}"), (3100, 2048));
}

#[test]
fn containers_that_ask_for_nothing_are_counted() {
    let counts = |spec: &str| {
        let view = converted(&with_spec(spec));
        (view.containers, view.init_containers, view.containers_without_cpu, view.containers_without_memory)
    };
    let spec = "{initContainers: [{name: i}, {name: s, restartPolicy: Always}],
        containers: [{name: a, resources: {requests: {cpu: '1'}}}, {name: b, resources: {limits: {memory: 1Gi}}}]";
    assert_eq!(counts(&format!("{spec}}}")), (3, 1, 2, 2));
    assert_eq!(counts(&format!("{spec}, resources: {{limits: {{cpu: '2'}}}}}}")), (3, 1, 0, 2));
}

#[test]
fn node_resources() {
    let list = serde_yaml_ng::from_str("{cpu: 3920m, memory: 14Gi, ephemeral-storage: 100Gi, pods: '110', nvidia.com/gpu: '4'}")
        .expect("a list");
    let node = resources(&list).expect("good quantities");
    assert_eq!((node.cpu_millis, node.memory_bytes >> 30, node.ephemeral_bytes >> 30), (3920, 14, 100));
    assert_eq!(node.extended, [(Arc::from("nvidia.com/gpu"), 4)]);
}
