use super::*;
use crate::sample::{virtual_node, workload};
use crate::selector::Selector;
use std::sync::Arc;

const PROVIDERS: [Provider; 4] = [Provider::Aci, Provider::Fargate, Provider::Nomad, Provider::InMemory];

fn pod(features: &[Feature]) -> Workload {
    Workload { features: features.iter().copied().collect(), ..workload(1000, 1 << 30) }
}

fn feature(label: &str) -> Feature {
    Feature::ALL.into_iter().find(|feature| feature.label() == label).unwrap_or_else(|| panic!("no feature {label:?}"))
}

fn rule(workload: &Workload, node: &VirtualNode) -> Option<&'static str> {
    refusal(workload, node).map(|refusal| refusal.rule)
}

/// What the verdict on a pod of one feature looks like: yes, no, or one of the two kinds of "no, but".
fn verdict(workload: &Workload, node: &VirtualNode) -> char {
    match refusal(workload, node) {
        None => 'Y',
        Some(refusal) if refusal.sentence.contains("capabilities say so") => 'C',
        Some(refusal) if refusal.sentence.contains("imperfectly") => 'E',
        Some(_) => 'N',
    }
}

#[test]
fn places_of_features_are_their_numbers() {
    for (place, feature) in Feature::ALL.into_iter().enumerate() {
        assert_eq!(place, feature as usize, "{feature:?}");
    }
    assert!(Feature::ALL.len() <= 64, "a feature set has 64 bits");
}

/// Features that no place has to have: kube-scheduler's own business, or ours.
const EVERYWHERE: [Feature; 4] = [Feature::TopologySpread, Feature::Preferences, Feature::PodAntiAffinity, Feature::Marked];

#[test]
fn every_feature_has_exactly_one_rule() {
    for feature in Feature::ALL {
        let rules = usize::from(NOWHERE.contains(&feature))
            + usize::from(EVERYWHERE.contains(&feature))
            + TABLE.iter().filter(|row| row.feature == feature).count();
        assert_eq!(rules, 1, "{feature:?}");
    }
}

/// The table once more, by labels, as it stands in the documentation: ACI, Fargate, Nomad, in-memory. `?` is a condition on
/// the pod, tested below.
#[test]
fn the_capability_table() {
    let table = "
        hostPid                 NNNY
        hostIpc                 NNNY
        hostAliases             NNYY
        manyContainers          ?NYY
        longGracePeriod         N?CY
        sharedProcessNamespace  NYNY
        addedCapabilities       C?CY
        droppedCapabilities     YYYY
        runAsUser               YYYY
        readOnlyRootFilesystem  NYYY
        fsGroup                 NNNY
        seLinux                 NNNY
        sysctls                 NCYY
        initContainers          YYYY
        demandingInitContainers NYYY
        sidecars                EYYY
        restartAlways           YYYY
        restartOnFailure        YCYY
        emptyDir                YYYY
        emptyDirMemory          NN?Y
        configVolume            YEYY
        projectedVolume         EEYY
        azureFile               YNCY
        nfs                     NYNY
        otherVolume             NNNY
        livenessExec            YECY
        livenessHttp            YNCY
        socketProbe             NECY
        readinessProbe          YECY
        startupProbe            NNNY
        lifecycleHooks          NNNY
        argsWithoutCommand      NYYY
        addressFieldRef         NNYY
        resourceFieldRef        YYYY
        secretEnvironment       YYYY
        imagePullSecrets        YYYY
        limitAboveRequests      YYYY
        gpu                     CNCY
        extendedResource        NNNY
        windows                 ??YY
        runtimeClass            NNNY
        userNamespace           NNNY
        workingDirectory        NYYY
        subPath                 NNYY
        severalContainers       YNYY
    ";
    let rows: Vec<(&str, &str)> = table.split_whitespace().collect::<Vec<_>>().chunks(2).map(|row| (row[0], row[1])).collect();
    assert_eq!(rows.len(), TABLE.len());
    for (label, cells) in rows {
        for (provider, cell) in PROVIDERS.into_iter().zip(cells.chars()) {
            let (mut node, pod) = (virtual_node(provider), pod(&[feature(label)]));
            if label == "windows" {
                node.labels.insert(Arc::from("kubernetes.io/os"), Arc::from("windows"));
            }
            if cell != '?' {
                assert_eq!(verdict(&pod, &node), cell, "{label} on {}", provider.label());
            }
            if cell != 'Y' && cell != '?' {
                assert_eq!(rule(&pod, &node), Some(label), "{label} on {}", provider.label());
            }
        }
    }
}

#[test]
fn conditions_look_at_the_pod() {
    let on = |provider, pod: &Workload| verdict(pod, &virtual_node(provider));
    let mut crowd = pod(&[Feature::ManyContainers]);
    (crowd.containers, crowd.init_containers) = (58, 2);
    assert_eq!(on(Provider::Aci, &crowd), 'Y');
    crowd.init_containers = 3;
    assert_eq!(on(Provider::Aci, &crowd), 'N');

    let mut slow = pod(&[Feature::LongGracePeriod]);
    slow.grace_seconds = 120;
    assert_eq!(on(Provider::Fargate, &slow), 'Y');
    slow.grace_seconds = 121;
    assert_eq!(on(Provider::Fargate, &slow), 'N');

    let mut memory = pod(&[Feature::EmptyDirMemory]);
    (memory.containers, memory.init_containers) = (1, 0);
    assert_eq!(on(Provider::Nomad, &memory), 'Y');
    memory.init_containers = 1;
    assert_eq!(on(Provider::Nomad, &memory), 'N');

    let mut capable = pod(&[Feature::AddedCapabilities]);
    capable.added_capabilities = vec![Arc::from("SYS_PTRACE")];
    assert_eq!(on(Provider::Fargate, &capable), 'Y');
    capable.added_capabilities.push(Arc::from("SYS_TIME"));
    assert_eq!(on(Provider::Fargate, &capable), 'N');
}

#[test]
fn windows_pods_and_nodes_find_each_other() {
    let windows = |provider| {
        let mut node = virtual_node(provider);
        node.labels.insert(Arc::from("kubernetes.io/os"), Arc::from("windows"));
        node
    };
    for provider in PROVIDERS {
        assert_eq!(rule(&pod(&[Feature::Windows]), &virtual_node(provider)), Some("operatingSystem"));
        assert_eq!(rule(&pod(&[]), &windows(provider)), Some("operatingSystem"));
        assert_eq!(rule(&pod(&[Feature::Windows]), &windows(provider)), None);
    }
    let mut unlabelled = virtual_node(Provider::Aci);
    unlabelled.labels = crate::selector::Labels::default();
    assert_eq!(rule(&pod(&[]), &unlabelled), None, "a node that does not say is Linux");
    // ACI: one container, no secret or emptyDir volumes.
    for volume in [Feature::EmptyDir, Feature::ConfigVolume] {
        assert_eq!(rule(&pod(&[Feature::Windows, volume]), &windows(Provider::Aci)), Some("windows"));
    }
    let two = Workload { containers: 2, ..pod(&[Feature::Windows]) };
    assert_eq!(rule(&two, &windows(Provider::Aci)), Some("windows"));
    assert_eq!(rule(&two, &windows(Provider::Fargate)), None);
    let mut spot = windows(Provider::Fargate);
    spot.capacity_type = CapacityType::Spot;
    assert_eq!(rule(&two, &spot), Some("windows"));
}

#[test]
fn some_pods_never_leave_the_cluster() {
    let never: Vec<&str> =
        Feature::ALL.into_iter().filter_map(|feature| not_burstable(&pod(&[feature]))).map(Feature::label).collect();
    assert_eq!(
        never.join(" "),
        "optedOut daemonSet mirrorPod schedulingGate podAffinity gang resourceClaim persistentVolumeClaim localTraffic \
         hostNetwork hostPath hostPort privileged inlineCsi"
    );
    assert_eq!(not_burstable(&pod(&[])), None);
}

#[test]
fn anti_affinity_and_spread_forbid_nothing() {
    let spread = pod(&[Feature::TopologySpread, Feature::PodAntiAffinity, Feature::Preferences, Feature::Marked]);
    assert_eq!(not_burstable(&spread), None);
    for provider in PROVIDERS {
        assert_eq!(refusal(&spread, &virtual_node(provider)), None);
    }
}

#[test]
fn the_admin_overrides_the_table_both_ways() {
    let mut node = virtual_node(Provider::Fargate);
    node.capabilities = vec![(Feature::InitContainers, false), (Feature::RestartOnFailure, true), (Feature::Gpu, true)];
    node.capabilities.sort_unstable();
    assert_eq!(refusal(&pod(&[Feature::RestartOnFailure, Feature::Gpu]), &node), None);
    let refused = refusal(&pod(&[Feature::InitContainers]), &node).expect("switched off");
    assert_eq!(refused.rule, "initContainers");
    assert_eq!(refused.sentence, "this virtual node is configured not to run pods with init containers");
    // Even what needs no capability can be switched off; what binds to the cluster cannot be switched on.
    node.capabilities = vec![(Feature::TopologySpread, false), (Feature::HostNetwork, true)];
    node.capabilities.sort_unstable();
    assert_eq!(rule(&pod(&[Feature::TopologySpread]), &node), Some("topologySpread"));
    assert_eq!(not_burstable(&pod(&[Feature::HostNetwork])), Some(Feature::HostNetwork));
}

#[test]
fn sentences_name_provider_and_cause() {
    let says = |provider, used| refusal(&pod(&[used]), &virtual_node(provider)).map(|refusal| refusal.sentence.into_owned());
    assert_eq!(says(Provider::Aci, Feature::StartupProbe).as_deref(), Some("ACI does not run pods with a startup probe"));
    assert_eq!(
        says(Provider::Nomad, Feature::Gpu).as_deref(),
        Some("Nomad runs pods with GPUs only where the virtual node's capabilities say so")
    );
    assert_eq!(
        says(Provider::Fargate, Feature::ReadinessProbe).as_deref(),
        Some("Fargate runs pods with a readiness probe only imperfectly")
    );
}

fn with_labels(labels: &[(&str, &str)]) -> VirtualNode {
    VirtualNode { labels: labels.iter().copied().collect(), ..virtual_node(Provider::InMemory) }
}

fn wants(key: &str, operator: Operator) -> Requirement {
    Requirement { key: Arc::from(key), operator }
}

fn values(values: &[&str]) -> Vec<Arc<str>> {
    values.iter().copied().map(Arc::from).collect()
}

#[test]
fn every_operator_of_node_affinity_is_matched_against_the_virtual_nodes_labels() {
    let node = with_labels(&[("arch", "amd64"), ("generation", "5")]);
    let refused = |requirement: Requirement| {
        let term = NodeTerm { labels: vec![requirement], fields: vec![] };
        let pod = Workload { node_affinity: Some(vec![term]), ..pod(&[]) };
        refusal(&pod, &node).map(|refusal| {
            assert_eq!(refusal.rule, "nodeAffinity");
            refusal.sentence.into_owned()
        })
    };
    for passing in [
        wants("arch", Operator::In(values(&["arm64", "amd64"]))),
        wants("arch", Operator::NotIn(values(&["arm64"]))),
        wants("zone", Operator::NotIn(values(&["a"]))),
        wants("arch", Operator::Exists),
        wants("zone", Operator::DoesNotExist),
        wants("generation", Operator::Gt(4)),
        wants("generation", Operator::Lt(6)),
    ] {
        assert_eq!(refused(passing.clone()), None, "{passing:?}");
    }
    for (failing, sentence) in [
        (wants("arch", Operator::In(values(&["arm64"]))), "whose label arch is arm64; the virtual node has \"amd64\""),
        (wants("arch", Operator::NotIn(values(&["amd64"]))), "whose label arch is not amd64; the virtual node has \"amd64\""),
        (wants("zone", Operator::Exists), "with the label zone; the virtual node has none"),
        (wants("arch", Operator::DoesNotExist), "without the label arch; the virtual node has \"amd64\""),
        (wants("generation", Operator::Gt(5)), "whose label generation is above 5; the virtual node has \"5\""),
        (wants("generation", Operator::Lt(5)), "whose label generation is below 5; the virtual node has \"5\""),
        (
            wants("zone", Operator::In(values(&["a", "b", "c", "d", "e"]))),
            "whose label zone is a or b or c or one of 2 more; the virtual node has none",
        ),
    ] {
        assert_eq!(refused(failing).as_deref(), Some(format!("the pod wants a node {sentence}").as_str()));
    }
}

#[test]
fn one_matching_term_is_enough_and_none_is_not() {
    let node = with_labels(&[("arch", "amd64")]);
    let term = |requirement| NodeTerm { labels: vec![requirement], fields: vec![] };
    let pod = |terms: Vec<NodeTerm>| Workload { node_affinity: Some(terms), ..pod(&[]) };
    let (arm, amd) = (Requirement::equals("arch", "arm64"), Requirement::equals("arch", "amd64"));
    assert_eq!(rule(&pod(vec![term(arm.clone()), term(amd.clone())]), &node), None);
    let refused = refusal(&pod(vec![term(arm.clone()), term(arm)]), &node).expect("arm is not here");
    assert_eq!(refused.sentence, "no term of the pod's required node affinity matches the virtual node");
    assert_eq!(rule(&pod(vec![]), &node), Some("nodeAffinity"));
    assert_eq!(rule(&pod(vec![NodeTerm::default()]), &node), Some("nodeAffinity"));
    let here = NodeTerm { labels: vec![], fields: vec![Requirement::equals("metadata.name", "in-memory")] };
    let elsewhere = NodeTerm { labels: vec![], fields: vec![Requirement::equals("metadata.name", "worker-1")] };
    assert_eq!(rule(&pod(vec![here]), &node), None);
    assert_eq!(rule(&pod(vec![elsewhere]), &node), Some("nodeAffinity"));
}

#[test]
fn node_selectors_are_refused_by_name() {
    let node = with_labels(&[("disk", "ssd")]);
    let selector = Selector { requirements: vec![Requirement::equals("disk", "ssd"), Requirement::equals("pool", "gold")] };
    let picky = Workload { node_selector: selector.requirements, ..pod(&[]) };
    let refused = refusal(&picky, &node).expect("no such pool");
    assert_eq!(refused.rule, "nodeSelector");
    assert_eq!(refused.sentence, "the pod wants a node whose label pool is gold; the virtual node has none");
}

#[test]
fn a_translation_refuses_by_the_same_rule_and_names_the_cloud() {
    let refusal = untranslatable(Feature::SubPath, Provider::Aci);
    assert_eq!((refusal.rule, &*refusal.sentence), ("subPath", "Spillway runs no pods with a subPath in a volume mount on ACI"));
}
