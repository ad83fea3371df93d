use super::*;
use policy::selector::{Operator, Requirement};
use policy::taint::{Effect, tolerated};
use policy::workload::Feature;

pub(super) fn pod(text: &str) -> Pod {
    serde_yaml_ng::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// A pod with these fields of its specification.
pub(super) fn with_spec(fields: &str) -> Pod {
    pod(&format!("{{metadata: {{name: web-0, namespace: media}}, spec: {fields}}}"))
}

pub(super) fn converted(pod: &Pod) -> Workload {
    workload(pod).unwrap_or_else(|invalid| panic!("{invalid}"))
}

#[test]
fn what_cannot_be_read_is_named() {
    for (spec, message) in [
        (
            "{containers: [{name: a}, {name: b, resources: {requests: {cpu: lots}}}]}",
            "spec.containers[1].resources.requests.cpu: \"lots\" is not allowed: must be a Kubernetes quantity such as \"500m\", \"2\" or \"1.5Gi\"",
        ),
        (
            "{containers: [{name: a, resources: {limits: {memory: '-1'}}}]}",
            "spec.containers[0].resources.limits.memory: \"-1\" is not allowed: must not be negative",
        ),
        (
            "{initContainers: [{name: i, resources: {requests: {cpu: 1x}}}], containers: []}",
            "spec.initContainers[0].resources.requests.cpu: \"1x\" is not allowed: must be a Kubernetes quantity such as \"500m\", \"2\" or \"1.5Gi\"",
        ),
        ("{overhead: {cpu: '-1'}, containers: []}", "spec.overhead.cpu: \"-1\" is not allowed: must not be negative"),
        (
            "{resources: {limits: {memory: '-1'}}, containers: []}",
            "spec.resources.limits.memory: \"-1\" is not allowed: must not be negative",
        ),
        (
            "{containers: [], tolerations: [{operator: Exists}, {key: a, operator: Gt, value: '1'}]}",
            "spec.tolerations[1].operator: \"Gt\" is not allowed: must be Equal or Exists",
        ),
        (
            "{containers: [], affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [
                {matchExpressions: [{key: a, operator: Near}]}]}}}}",
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0]\
             .operator: \"Near\" is not allowed: must be In, NotIn, Exists, DoesNotExist, Gt or Lt",
        ),
    ] {
        assert_eq!(workload(&with_spec(spec)).map_err(|invalid| invalid.to_string()).err().as_deref(), Some(message));
    }
    assert_eq!(workload(&pod("{metadata: {name: a}}")).err().map(|invalid| invalid.field).as_deref(), Some("spec"));
    // For pods that count anyway, what cannot be read is nothing.
    assert_eq!(
        requests(&with_spec("{containers: [{name: a, resources: {requests: {cpu: lots}}}]}")),
        policy::Resources::default()
    );
}

/// Labels of the features of a pod, those that every pod of this table has left out.
fn features(pod: &Pod) -> String {
    let labels: Vec<&str> =
        converted(pod).features.iter().map(Feature::label).filter(|label| *label != "restartAlways").collect();
    labels.join(" ")
}

#[test]
fn every_feature_is_found_where_it_is_used() {
    let container = |fields: &str| format!("{{containers: [{{name: a, {fields}}}]}}");
    let init = |fields: &str| format!("{{initContainers: [{{name: i, {fields}}}], containers: [{{name: a}}]}}");
    let volume = |source: &str| format!("{{containers: [{{name: a}}], volumes: [{{name: v, {source}}}]}}");
    let spec = |fields: &str| format!("{{containers: [{{name: a}}], {fields}}}");
    let affinity = |fields: &str| spec(&format!("affinity: {{{fields}}}"));
    let eleven = (0..11).map(|place| format!("{{name: c{place}}}")).collect::<Vec<_>>().join(", ");
    for (spec, expected) in [
        (spec("schedulingGates: [{name: spillway.dev/decide}]"), ""),
        (spec("schedulingGates: [{name: spillway.dev/decide}, {name: example.com/quota}]"), "schedulingGate"),
        (spec("topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule}]"), "topologySpread"),
        (spec("topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}]"), "preferences"),
        (
            affinity("nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {}}]}"),
            "preferences",
        ),
        (
            affinity(
                "podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: z}}]}",
            ),
            "preferences",
        ),
        (
            affinity(
                "podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: z}}]}",
            ),
            "preferences",
        ),
        (affinity("podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: z}]}"), "podAffinity"),
        (affinity("podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: z}]}"), "podAntiAffinity"),
        (affinity("podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: []}"), ""),
        (spec("resourceClaims: [{name: gpu, resourceClaimName: g}]"), "resourceClaim"),
        (spec("hostNetwork: true"), "hostNetwork"),
        (spec("hostNetwork: false"), ""),
        (spec("hostPID: true"), "hostPid"),
        (spec("hostIPC: true"), "hostIpc"),
        (spec("hostAliases: [{ip: 10.0.0.1, hostnames: [a]}]"), "hostAliases"),
        (spec("shareProcessNamespace: true"), "sharedProcessNamespace"),
        (spec("hostUsers: false"), "userNamespace"),
        (spec("hostUsers: true"), ""),
        (container("workingDir: /srv"), "workingDirectory"),
        (container("workingDir: ''"), ""),
        (container("volumeMounts: [{name: v, mountPath: /v, subPath: a}]"), "subPath"),
        (container("volumeMounts: [{name: v, mountPath: /v, subPathExpr: $(A)}]"), "subPath"),
        (container("volumeMounts: [{name: v, mountPath: /v}]"), ""),
        (spec("imagePullSecrets: [{name: registry}]"), "imagePullSecrets"),
        (spec("terminationGracePeriodSeconds: 30"), ""),
        (spec("terminationGracePeriodSeconds: 31"), "longGracePeriod"),
        (spec("runtimeClassName: gvisor"), "runtimeClass"),
        (spec("os: {name: windows}"), "windows"),
        (spec("nodeSelector: {kubernetes.io/os: windows}"), "windows"),
        (spec("nodeSelector: {kubernetes.io/os: linux}"), ""),
        (spec("securityContext: {runAsUser: 1000}"), "runAsUser"),
        (spec("securityContext: {runAsGroup: 1000}"), "runAsUser"),
        (spec("securityContext: {fsGroup: 1000}"), "fsGroup"),
        (spec("securityContext: {supplementalGroups: [1000]}"), "fsGroup"),
        (spec("securityContext: {seLinuxOptions: {level: s0}}"), "seLinux"),
        (spec("securityContext: {sysctls: [{name: net.core.somaxconn, value: '1024'}]}"), "sysctls"),
        (spec("securityContext: {windowsOptions: {hostProcess: true}}"), "privileged"),
        (spec("securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}"), ""),
        (format!("{{containers: [{eleven}]}}"), "manyContainers"),
        ("{restartPolicy: Never, containers: [{name: a}, {name: b}]}".to_owned(), "severalContainers"),
        ("{restartPolicy: Never, containers: [{name: a}], initContainers: [{name: b}]}".to_owned(), "initContainers"),
        ("{restartPolicy: Always, containers: [{name: a}, {name: b}]}".to_owned(), ""),
        (volume("persistentVolumeClaim: {claimName: data}"), "persistentVolumeClaim"),
        (volume("ephemeral: {}"), "persistentVolumeClaim"),
        (volume("hostPath: {path: /var/log}"), "hostPath"),
        (volume("emptyDir: {}"), "emptyDir"),
        (volume("emptyDir: {medium: Memory}"), "emptyDirMemory"),
        (volume("emptyDir: {medium: HugePages}"), "otherVolume"),
        (volume("configMap: {name: c}"), "configVolume"),
        (volume("secret: {secretName: s}"), "configVolume"),
        (volume("downwardAPI: {}"), "configVolume"),
        (volume("projected: {sources: [{configMap: {name: c}}]}"), "projectedVolume"),
        (volume("azureFile: {secretName: s, shareName: t}"), "azureFile"),
        (volume("csi: {driver: file.csi.azure.com}"), "azureFile"),
        (volume("csi: {driver: secrets-store.csi.k8s.io}"), "inlineCsi"),
        (volume("nfs: {server: fs-1234.efs.us-east-1.amazonaws.com, path: /}"), "nfs"),
        (volume("nfs: {server: 10.0.0.1, path: /}"), "otherVolume"),
        (volume("image: {reference: registry.example.com/model}"), "otherVolume"),
        (container("ports: [{containerPort: 80, hostPort: 0}]"), ""),
        (container("ports: [{containerPort: 80, hostPort: 80}]"), "hostPort"),
        (container("securityContext: {privileged: true}"), "privileged"),
        (container("securityContext: {capabilities: {add: [NET_ADMIN]}}"), "addedCapabilities"),
        (container("securityContext: {capabilities: {drop: [ALL]}}"), "droppedCapabilities"),
        (container("securityContext: {runAsUser: 0}"), "runAsUser"),
        (container("securityContext: {readOnlyRootFilesystem: true}"), "readOnlyRootFilesystem"),
        (container("securityContext: {seLinuxOptions: {level: s0}}"), "seLinux"),
        (container("livenessProbe: {exec: {command: [a]}}"), "livenessExec"),
        (container("livenessProbe: {httpGet: {port: 80}}"), "livenessHttp"),
        (container("livenessProbe: {tcpSocket: {port: 80}}"), "socketProbe"),
        (container("readinessProbe: {grpc: {port: 80}}"), "socketProbe"),
        (container("readinessProbe: {httpGet: {port: 80}}"), "readinessProbe"),
        (container("readinessProbe: {exec: {command: [a]}}"), "readinessProbe"),
        (container("startupProbe: {exec: {command: [a]}}"), "startupProbe"),
        (container("lifecycle: {preStop: {sleep: {seconds: 5}}}"), "lifecycleHooks"),
        (container("lifecycle: {postStart: {exec: {command: [a]}}}"), "lifecycleHooks"),
        (container("args: [a]"), "argsWithoutCommand"),
        (container("command: [b], args: [a]"), ""),
        (container("env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]"), "addressFieldRef"),
        (container("env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.hostIPs}}}]"), "addressFieldRef"),
        (container("env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]"), ""),
        (container("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]"), "resourceFieldRef"),
        (container("env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]"), "secretEnvironment"),
        (container("envFrom: [{secretRef: {name: s}}]"), "secretEnvironment"),
        (container("envFrom: [{configMapRef: {name: c}}]"), ""),
        (container("resources: {requests: {cpu: 100m}, limits: {cpu: 200m}}"), "limitAboveRequests"),
        (container("resources: {requests: {memory: 1Gi}, limits: {memory: 1025Mi}}"), "limitAboveRequests"),
        (container("resources: {limits: {cpu: 200m, memory: 1Gi}}"), ""),
        (container("resources: {limits: {nvidia.com/gpu: 1}}"), "gpu"),
        (container("resources: {limits: {gpu.intel.com/i915: 1}}"), "gpu"),
        (container("resources: {limits: {nvidia.com/gpu: 0}}"), ""),
        (container("resources: {limits: {example.com/fpga: 1}}"), "extendedResource"),
        (container("resources: {limits: {hugepages-2Mi: 2Mi}}"), "extendedResource"),
        (container("resources: {limits: {spillway.dev/burst: '0'}}"), "marked"),
        (init(""), "initContainers"),
        (init("resources: {requests: {cpu: 100m}}"), "initContainers"),
        (init("resources: {limits: {cpu: 100m}}"), "initContainers demandingInitContainers"),
        (init("ports: [{containerPort: 80}]"), "initContainers demandingInitContainers"),
        (init("restartPolicy: Always"), "sidecars"),
        (init("restartPolicy: Always, startupProbe: {exec: {command: [a]}}"), "sidecars startupProbe"),
        (init("securityContext: {privileged: true}"), "privileged initContainers"),
    ] {
        assert_eq!(features(&with_spec(&spec)), expected, "{spec}");
    }
}

#[test]
fn the_default_token_is_no_feature_and_another_audience_is() {
    let token = |audience: &str| {
        with_spec(&format!(
            "{{containers: [{{name: a}}], volumes: [{{name: kube-api-access-x7f2k, projected: {{sources: [
               {{serviceAccountToken: {{{audience}path: token}}}}, {{configMap: {{name: kube-root-ca.crt}}}},
               {{downwardAPI: {{items: []}}}}]}}}}]}}"
        ))
    };
    assert_eq!(features(&token("")), "");
    assert_eq!(features(&token("audience: vault, ")), "projectedVolume");
}

#[test]
fn restart_policies() {
    let policy = |text: &str| {
        let view = converted(&with_spec(&format!("{{containers: [{{name: a}}], restartPolicy: {text}}}")));
        (view.features.contains(Feature::RestartAlways), view.features.contains(Feature::RestartOnFailure))
    };
    assert_eq!((policy("Always"), policy("OnFailure"), policy("Never")), ((true, false), (false, true), (false, false)));
}

#[test]
fn features_of_the_metadata() {
    let of = |metadata: &str| features(&pod(&format!("{{metadata: {metadata}, spec: {{containers: [{{name: a}}]}}}}")));
    let owner = |kind: &str, controller: bool| {
        format!("{{ownerReferences: [{{apiVersion: v1, kind: {kind}, name: o, uid: u, controller: {controller}}}]}}")
    };
    assert_eq!(of("{labels: {spillway.dev/do-not-burst: 'true'}}"), "optedOut");
    assert_eq!(of("{labels: {spillway.dev/do-not-burst: 'false'}}"), "");
    assert_eq!(of(&owner("DaemonSet", true)), "daemonSet");
    assert_eq!(of(&owner("DaemonSet", false)), "");
    assert_eq!(of(&owner("Node", true)), "mirrorPod");
    assert_eq!(of("{annotations: {kubernetes.io/config.mirror: abc}}"), "mirrorPod");
    for label in ["scheduling.x-k8s.io/pod-group", "pod-group.scheduling.sigs.k8s.io", "kueue.x-k8s.io/pod-group-name"] {
        assert_eq!(of(&format!("{{labels: {{{label}: g}}}}")), "gang", "{label}");
    }
    for annotation in ["scheduling.k8s.io/group-name", "yunikorn.apache.org/task-group-name"] {
        assert_eq!(of(&format!("{{annotations: {{{annotation}: g}}}}")), "gang", "{annotation}");
    }
}

#[test]
fn pods_of_one_job_are_equal() {
    let of_index = |index: usize| {
        converted(&pod(&format!(
            "{{metadata: {{name: thumbnails-{index}-x, namespace: media, uid: u{index}, creationTimestamp: '2026-11-20T16:00:0{index}Z',
               labels: {{app: thumbnailer, batch.kubernetes.io/job-completion-index: '{index}', apps.kubernetes.io/pod-index: '{index}',
                 statefulset.kubernetes.io/pod-name: db-{index}, controller-revision-hash: abc}},
               annotations: {{batch.kubernetes.io/job-completion-index: '{index}'}},
               ownerReferences: [{{apiVersion: v1, kind: Other, name: x, uid: x}}, {{apiVersion: batch/v1, kind: Job, name: thumbnails, uid: j, controller: true}}]}},
               spec: {{hostname: thumbnails-{index}, containers: [{{name: a, resources: {{requests: {{cpu: '1'}}}}}}]}}}}"
        )))
    };
    assert_eq!(of_index(0), of_index(7));
    let view = of_index(0);
    assert_eq!(view.labels, [("app", "thumbnailer"), ("controller-revision-hash", "abc")].into_iter().collect());
    assert_eq!(view.owner, Some(Owner { kind: Arc::from("Job"), name: Arc::from("thumbnails") }));
    let mut all = with_spec("{containers: []}");
    all.metadata.labels = Some([("apps.kubernetes.io/pod-index".to_owned(), "3".to_owned())].into());
    assert_eq!(labels(&all).get("apps.kubernetes.io/pod-index"), Some("3"), "selectors see every label");
}

#[test]
fn plain_fields_and_their_defaults() {
    let view = converted(&pod("{metadata: {}, spec: {containers: [{name: a}]}}"));
    assert_eq!((&*view.namespace, &*view.scheduler_name), ("default", "default-scheduler"));
    assert_eq!((view.priority, view.may_preempt, view.grace_seconds), (0, true, 30));
    assert_eq!((view.run_limit, view.expected_run, view.owner), (None, None, None));
    let view = converted(&with_spec(
        "{schedulerName: mine, priority: -5, preemptionPolicy: Never, terminationGracePeriodSeconds: 0, activeDeadlineSeconds: 90,
          nodeSelector: {pool: gold, disk: ssd}, containers: [
            {name: a, securityContext: {capabilities: {add: [SYS_TIME, NET_ADMIN]}}},
            {name: b, securityContext: {capabilities: {add: [NET_ADMIN]}}}]}",
    ));
    assert_eq!((&*view.scheduler_name, view.priority, view.may_preempt, view.grace_seconds), ("mine", -5, false, 0));
    assert_eq!(view.run_limit, Some(Duration::from_secs(90)));
    assert_eq!(view.node_selector, [Requirement::equals("disk", "ssd"), Requirement::equals("pool", "gold")]);
    assert_eq!(view.added_capabilities, [Arc::from("NET_ADMIN"), Arc::from("SYS_TIME")]);
}

#[test]
fn a_bad_hint_is_ignored_and_reported() {
    let hinted = |text: &str| {
        let mut pod = with_spec("{containers: [{name: a}]}");
        pod.metadata.annotations = Some([("spillway.dev/expected-duration".to_owned(), text.to_owned())].into());
        pod
    };
    assert_eq!(converted(&hinted("1m30s")).expected_run, Some(Duration::from_secs(90)));
    for bad in ["soon", "", "-5m", "0s", "90"] {
        let pod = hinted(bad);
        assert_eq!(converted(&pod).expected_run, None, "{bad:?}");
        let complaint = expected_run(&pod).expect_err("a complaint");
        assert_eq!(complaint.field, "metadata.annotations[spillway.dev/expected-duration]");
        assert_eq!(complaint.value, bad);
    }
    assert_eq!(expected_run(&with_spec("{containers: []}")), Ok(None));
}

fn node_terms(text: &str) -> Result<Vec<NodeTerm>, String> {
    let selector = serde_yaml_ng::from_str(&format!("{{nodeSelectorTerms: {text}}}")).expect("the test's own selector");
    node_selector(&selector).map_err(|invalid| invalid.to_string())
}

#[test]
fn node_selectors_with_every_operator() {
    let operator = |text: &str| {
        node_terms(&format!("[{{matchExpressions: [{{key: k, {text}}}]}}]"))
            .map(|terms| terms[0].labels.first().map(|requirement| requirement.operator.clone()))
    };
    let values = || vec![Arc::from("a"), Arc::from("b")];
    assert_eq!(operator("operator: In, values: [a, b]"), Ok(Some(Operator::In(values()))));
    assert_eq!(operator("operator: NotIn, values: [a, b]"), Ok(Some(Operator::NotIn(values()))));
    assert_eq!(operator("operator: Exists"), Ok(Some(Operator::Exists)));
    assert_eq!(operator("operator: DoesNotExist, values: []"), Ok(Some(Operator::DoesNotExist)));
    assert_eq!(operator("operator: Gt, values: ['5']"), Ok(Some(Operator::Gt(5))));
    assert_eq!(operator("operator: Lt, values: ['-5']"), Ok(Some(Operator::Lt(-5))));
    for (text, complaint) in [
        ("operator: in, values: [a]", "operator: \"in\" is not allowed: must be In, NotIn, Exists, DoesNotExist, Gt or Lt"),
        ("operator: In", "values: must not be empty with the operator In"),
        ("operator: Exists, values: [a]", "values: \"a\" is not allowed: must be empty with the operator Exists"),
        ("operator: Gt, values: [five]", "values: \"five\" is not allowed: must be one integer"),
        ("operator: Lt, values: ['1', '2']", "values: \"1,2\" is not allowed: must be one integer with the operator Lt"),
    ] {
        assert_eq!(operator(text), Err(format!("nodeSelectorTerms[0].matchExpressions[0].{complaint}")));
    }
    let fields = node_terms("[{}, {matchFields: [{key: metadata.name, operator: In, values: [worker-1]}]}]").expect("good terms");
    assert!(!fields[0].matches("worker-1", &Labels::default()), "an empty term matches nothing");
    assert!(fields[1].matches("worker-1", &Labels::default()) && !fields[1].matches("worker-2", &Labels::default()));
    assert_eq!(
        node_terms("[{matchFields: [{key: metadata.uid, operator: In, values: [a]}]}]"),
        Err("nodeSelectorTerms[0].matchFields[0].key: \"metadata.uid\" is not allowed: must be metadata.name".to_owned())
    );
}

#[test]
fn taints_and_tolerations() {
    let node: k8s_openapi::api::core::v1::NodeSpec =
        serde_yaml_ng::from_str("{taints: [{key: gpu, value: a100, effect: NoSchedule}, {key: spot, effect: NoExecute}]}")
            .expect("a node");
    let taints = taints(&node).expect("good taints");
    assert_eq!(taints[1].effect, Effect::NoExecute);
    for (text, covered) in [
        ("[]", false),
        ("[{operator: Exists}]", true),
        ("[{key: gpu, operator: Exists}, {key: spot, operator: Exists, effect: NoExecute, tolerationSeconds: 30}]", true),
        ("[{key: gpu, value: a100}, {key: spot}]", true),
        ("[{key: gpu, operator: Equal, value: v100}, {key: spot, operator: Exists}]", false),
        ("[{key: gpu, operator: Exists}, {key: spot, operator: Exists, effect: NoSchedule}]", false),
    ] {
        let view = converted(&with_spec(&format!("{{containers: [{{name: a}}], tolerations: {text}}}")));
        assert_eq!(tolerated(&taints, &view.tolerations), covered, "{text}");
    }
    let bad = serde_yaml_ng::from_str("{taints: [{key: a, effect: Sometimes}]}").expect("a node");
    assert_eq!(super::taints(&bad).err().map(|invalid| invalid.field).as_deref(), Some("spec.taints[0].effect"));
    let keyless = with_spec("{containers: [], tolerations: [{value: a}]}");
    assert_eq!(workload(&keyless).err().map(|invalid| invalid.field).as_deref(), Some("spec.tolerations[0].operator"));
}

/// A real pod as kube-scheduler sends it: sidecar, init container, claim, spread, affinity of every kind.
#[test]
fn the_pod_of_a_recorded_request() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/fixtures/extender/filter-cache-affinity-spread-pvc.request.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let request: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let pod: Pod = serde_json::from_value(request["Pod"].clone()).expect("a pod");
    let view = converted(&pod);
    assert_eq!(features(&pod), "topologySpread preferences podAntiAffinity persistentVolumeClaim initContainers sidecars");
    assert_eq!(view.requests, policy::Resources::new(550, 256 << 20));
    assert_eq!(
        (view.containers, view.init_containers, view.containers_without_cpu, view.containers_without_memory),
        (2, 1, 0, 1)
    );
    assert_eq!((view.priority, view.may_preempt, view.grace_seconds), (0, true, 0));
    assert_eq!((view.tolerations.len(), view.node_affinity), (3, None));
    assert_eq!(policy::capability::not_burstable(&converted(&pod)), Some(Feature::PersistentVolumeClaim));
}
