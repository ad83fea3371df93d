//! Manifests in, what the engine gets or what is refused out.

use serde_json::Value;

use super::*;
use crate::api::{BurstBudget, BurstPolicy, VirtualNode, strict};
use policy::selector::Labels;
use policy::workload::Feature;
use policy::{Money, virtual_node as node};

const POLICY: &str = "
apiVersion: spillway.dev/v1alpha1
kind: BurstPolicy
metadata: {name: images, generation: 7, creationTimestamp: '2026-11-01T00:00:00Z'}
spec:
  weight: 200
  namespaceSelector: {matchLabels: {team: media}}
  podSelector: {matchExpressions: [{key: app, operator: In, values: [thumbnailer, resizer]}]}
  matchConditions: [{name: small, expression: object.spec.containers.size() == 1}]
  tiers:
  - {name: dedicated, nodeSelector: {pool: batch}, price: {vcpuHour: '0.01'}}
  - {name: soon, after: 45s, virtualNodes: [fargate, aci], spot: Allow, limits: {pods: 500, cpu: 1500m, memory: 1Gi}}
  - {name: later, after: Auto, virtualNodes: [nomad]}
  waitingCost: '0.10'
  expectedDuration: 10m
  extender: Use
";

const NODE: &str = "
apiVersion: spillway.dev/v1alpha1
kind: VirtualNode
metadata: {name: fargate}
spec:
  fargate: {region: us-east-1, cluster: burst, subnets: [subnet-0a1b2c3d], architecture: arm64}
  capacityType: Spot
  labels: {team: media}
  pricing: {currency: USD, vcpuHour: '0.05', gbHour: '0.004445', discountPercent: '20', asOf: 2026-11-01}
  limits: {pods: 200}
  capabilities: [{rule: startupProbe, allow: true}, {rule: gpu, allow: false}]
";

const BUDGET: &str = "
apiVersion: spillway.dev/v1alpha1
kind: BurstBudget
metadata: {name: nightly}
spec:
  amount: '12.50'
  currency: USD
  period: Day
  timeZone: Europe/Berlin
  scope: {namespaceSelector: {matchLabels: {team: media}}, policies: [images]}
";

/// 2026-11-21T11:48:44Z.
const NOW: Timestamp = Timestamp::from_millis(1_795_261_724_000);

/// What `spillway` would say to a manifest on its command line.
fn read(manifest: &str) -> Result<(), String> {
    let value: Value = serde_yaml_ng::from_str(manifest).unwrap();
    let result = match value["kind"].as_str() {
        Some("BurstPolicy") => strict(value).and_then(|object| burst_policy(&object)).map(|_| ()),
        Some("VirtualNode") => strict(value).and_then(|object| virtual_node(&object, "USD")).map(|_| ()),
        _ => strict(value).and_then(|object| burst_budget(&object, "USD", NOW)).map(|_| ()),
    };
    result.map_err(|invalid| invalid.to_string())
}

#[track_caller]
fn check(manifest: &str, part: &str, replacement: &str, expected: &str) {
    assert!(manifest.contains(part), "{part:?} is not in the manifest");
    let changed = manifest.replacen(part, replacement, 1);
    assert_eq!(read(&changed), Err(expected.to_owned()), "{changed}");
}

fn policy_of(manifest: &str) -> CompiledPolicy {
    let object: BurstPolicy = strict(serde_yaml_ng::from_str(manifest).unwrap()).unwrap();
    burst_policy(&object).unwrap()
}

fn node_of(manifest: &str) -> policy::VirtualNode {
    let object: VirtualNode = strict(serde_yaml_ng::from_str(manifest).unwrap()).unwrap();
    virtual_node(&object, "USD").unwrap()
}

#[test]
fn a_policy_compiles() {
    let CompiledPolicy { policy, conditions } = policy_of(POLICY);
    assert_eq!((&*policy.name, policy.generation, policy.weight), ("images", 7, 200));
    assert_eq!(policy.created, Timestamp::from_millis(1_793_491_200_000));
    let labels = |pairs: &[(&'static str, &'static str)]| pairs.iter().copied().collect::<Labels>();
    let media = labels(&[("team", "media")]);
    assert!(policy.selects(&media, &labels(&[("app", "resizer")])));
    assert!(!policy.selects(&media, &labels(&[("app", "web")])));
    assert!(!policy.selects(&Labels::default(), &labels(&[("app", "resizer")])));
    assert_eq!(conditions.iter().map(Expression::source).collect::<Vec<_>>(), ["object.spec.containers.size() == 1"]);
    let dedicated = policy.dedicated().unwrap();
    assert_eq!(dedicated.node_selector, [Requirement::equals("pool", "batch")]);
    assert_eq!((dedicated.vcpu, dedicated.gib), ("0.01".parse().unwrap(), Rate::FREE));
    let tiers: Vec<_> = policy.serverless().map(|(_, tier)| tier).collect();
    assert_eq!((tiers[0].after, tiers[1].after), (After::Fixed(Duration::from_secs(45)), After::Auto));
    assert_eq!((tiers[0].spot, tiers[1].spot), (true, false));
    assert_eq!(tiers[0].limits, Limits { pods: Some(500), cpu_millis: Some(1500), memory_bytes: Some(1 << 30) });
    assert_eq!((policy.expected_run, policy.extender), (Duration::from_secs(600), true));
    assert_eq!(policy.waiting_cost, "0.1".parse().unwrap());
}

#[test]
fn selectors_that_are_absent_select_nothing_and_empty_ones_everything() {
    let absent = policy_of(&POLICY.replace("  namespaceSelector: {matchLabels: {team: media}}\n", ""));
    let pod: Labels = [("app", "resizer")].into_iter().collect();
    assert!(!absent.policy.selects(&Labels::default(), &pod));
    let empty = policy_of(&POLICY.replace("{matchLabels: {team: media}}", "{}"));
    assert!(empty.policy.selects(&Labels::default(), &pod));
}

#[test]
fn policies_that_make_no_sense_are_refused() {
    check(POLICY, "  waitingCost: '0.10'\n", "", "spec.waitingCost: is required when a tier has after: Auto");
    check(
        POLICY,
        "virtualNodes: [nomad]",
        "virtualNodes: [nomad], packing: Spread",
        "spec.tiers[2].packing: belongs to the tier of dedicated nodes, which has no virtualNodes",
    );
    check(POLICY, "{pool: batch}", "{pool: batch}, spot: Allow", "spec.tiers[0].spot: belongs to tiers with virtualNodes");
    check(
        POLICY,
        "{pool: batch}",
        "{pool: batch}, limits: {pods: 1}",
        "spec.tiers[0].limits: belongs to tiers with virtualNodes",
    );
    check(
        POLICY,
        "{pool: batch}",
        "{pool: batch}, after: 5s",
        "spec.tiers[0].after: \"5s\" is not allowed: belongs to tiers with virtualNodes; dedicated nodes are never closed",
    );
    check(
        POLICY,
        "after: Auto, virtualNodes: [nomad]",
        "after: 0s",
        "spec.tiers: at most one of the tiers may be of dedicated nodes (without virtualNodes)",
    );
    check(
        POLICY,
        "after: 45s",
        "after: 25h",
        "spec.tiers[1].after: \"25h\" is not allowed: must be Auto or a duration of at most 24h, such as 45s",
    );
    check(
        POLICY,
        "10m",
        "0s",
        "spec.expectedDuration: \"0s\" is not allowed: must be a duration between 1s and 8760h, such as 90s or 1h30m",
    );
    check(
        POLICY,
        "{pool: batch}",
        "{'po ol': batch}",
        "spec.tiers[0].nodeSelector: \"po ol\" is not allowed: must be a label key, such as team or example.com/team",
    );
    check(
        POLICY,
        "operator: In, values: [thumbnailer, resizer]",
        "operator: Exists, values: [x]",
        "spec.podSelector.matchExpressions[0].values: must be given for In and NotIn, and must be absent for Exists and DoesNotExist",
    );
    check(
        POLICY,
        "cpu: 1500m",
        "cpu: '1e300'",
        "spec.tiers[1].limits.cpu: \"1e300\" is not allowed: must be a quantity between 0 and 1000000",
    );
    let only_dedicated = POLICY.replace("  - {name: soon", "  #").replace("  - {name: later", "  #");
    assert_eq!(read(&only_dedicated), Err("spec.tiers: at least one of the tiers must name virtualNodes".to_owned()));
}

#[test]
fn the_largest_bounds_fit() {
    let largest = api::PodResources {
        pods: Some(1),
        cpu: Some(api::Quantity("1M".to_owned())),
        memory: Some(api::Quantity("64Pi".to_owned())),
    };
    let expected = Limits { pods: Some(1), cpu_millis: Some(1_000_000_000), memory_bytes: Some(64 << 50) };
    assert_eq!(limits(&largest), Ok(expected));
}

#[test]
fn conditions_are_refused_with_their_place() {
    check(
        POLICY,
        "object.spec.containers.size() == 1",
        "object.spec.hostname.upperAscii() == 'X'",
        "spec.matchConditions[0].expression: \"object.spec.hostname.upperAscii() == 'X'\" is not allowed: function upperAscii is not \
         available; available are the standard macros and add, asApproximateFloat, asInteger, bool, bytes, compareTo, contains, \
         double, dyn, endsWith, int, isGreaterThan, isInteger, isLessThan, matches, quantity, sign, size, startsWith, string, sub, \
         type, uint",
    );
    check(
        POLICY,
        "object.spec.containers.size() == 1",
        "object.spec.hostNetwork",
        "spec.matchConditions[0].expression: \"object.spec.hostNetwork\" is not allowed: must yield a boolean: compare the value with \
         something, as in `.. == true`",
    );
}

#[test]
fn a_virtual_node_compiles() {
    let node = node_of(NODE);
    assert_eq!(
        (node.provider, &*node.region, node.capacity_type),
        (node::Provider::Fargate, "us-east-1", node::CapacityType::Spot)
    );
    let labels: Vec<_> = node.labels.iter().collect();
    assert_eq!(
        labels,
        [("kubernetes.io/arch", "arm64"), ("kubernetes.io/os", "linux"), ("spillway.dev/decided", "burst"), ("team", "media")]
    );
    let prices = node.prices.unwrap();
    assert_eq!((prices.vcpu, prices.gb), ("0.04".parse().unwrap(), "0.003556".parse().unwrap()));
    assert_eq!((prices.ephemeral_gb, prices.minimum), (Rate::FREE, Duration::from_secs(60)));
    assert_eq!(prices.as_of, Timestamp::from_millis(1_793_491_200_000));
    assert_eq!((node.start_latency, node.billed_startup), (Duration::from_secs(45), Duration::from_secs(15)));
    assert_eq!(node.interruptions_per_1000_hours, 50);
    assert_eq!(node.capabilities, [(Feature::StartupProbe, true), (Feature::Gpu, false)]);
    assert!(node.capabilities.is_sorted());
    assert_eq!((node.limits.pods, node.quota), (Some(200), Limits::default()));
    assert_eq!((node.node_name, node.closed), (None, None));
}

#[test]
fn prices_come_from_the_status_where_nobody_wrote_any() {
    let without = NODE.lines().filter(|line| !line.contains("pricing")).collect::<Vec<_>>().join("\n");
    assert_eq!(node_of(&without).prices, None);
    let observed =
        "\nstatus:\n  quota: {pods: 5}\n  prices: {vcpuHour: '0.06', gbHour: '0.01', currency: USD, source: price list}\n";
    let node = node_of(&(without.clone() + observed));
    assert_eq!(node.prices.unwrap().vcpu, "0.06".parse().unwrap());
    assert_eq!(node.quota.pods, Some(5));
    assert_eq!(node_of(&(NODE.to_owned() + observed)).prices.unwrap().vcpu, "0.04".parse().unwrap());
    check(
        &(without + observed),
        "currency: USD",
        "currency: EUR",
        "status.prices.currency: \"EUR\" is not allowed: must be USD, the currency of this installation",
    );
}

#[test]
fn the_largest_pod_is_what_was_written_or_else_what_the_cloud_says() {
    let observed = "\nstatus:\n  largestPod: {cpu: 3500m, memory: '7000000000'}\n";
    let largest = node_of(&(NODE.to_owned() + observed)).largest_pod;
    assert_eq!((largest.cpu_millis, largest.memory_bytes), (Some(3500), Some(7_000_000_000)));
    let written = NODE.replace("limits: {pods: 200}", "largestPod: {cpu: 8}");
    let largest = node_of(&(written + observed)).largest_pod;
    assert_eq!((largest.cpu_millis, largest.memory_bytes), (Some(8000), None));
    assert_eq!(node_of(NODE).largest_pod, node::Limits::default());
    let object = (NODE.to_owned() + observed).replace("3500m", "'-1'");
    let refused = "status.largestPod.cpu: \"-1\" is not allowed: must be a quantity between 0 and 1000000";
    let object: VirtualNode = serde_yaml_ng::from_str(&object).unwrap();
    assert_eq!(virtual_node(&object, "USD").map_err(|invalid| invalid.to_string()), Err(refused.to_owned()));
}

#[test]
fn virtual_nodes_that_make_no_sense_are_refused() {
    let refused = [
        (
            "  fargate: {",
            "  inMemory: {}\n  fargate: {",
            "spec.fargate: exactly one of fargate, aci, nomad and inMemory must be given",
        ),
        (
            "currency: USD",
            "currency: EUR",
            "spec.pricing.currency: \"EUR\" is not allowed: must be USD, the currency of this installation",
        ),
        (
            "'20'",
            "'100.5'",
            "spec.pricing.discountPercent: \"100.5\" is not allowed: must be from 0 to 100, with up to three decimals",
        ),
        ("2026-11-01", "2026-02-30", "spec.pricing.asOf: \"2026-02-30\" is not allowed: must be a date, such as 2026-11-21"),
        (
            "startupProbe",
            "arm64",
            "spec.capabilities[0].rule: \"arm64\" is not allowed: must be the label of a rule, such as gpu or startupProbe",
        ),
        (
            "startupProbe",
            "hostNetwork",
            "spec.capabilities[0].rule: \"hostNetwork\" is not allowed: cannot be overridden: such pods belong to their cluster, and no backend runs them",
        ),
        (
            "capacityType: Spot",
            "spotInterruptionsPerHour: '0.1'",
            "spec.spotInterruptionsPerHour: \"0.1\" is not allowed: is only for capacityType Spot",
        ),
        (
            "capacityType: Spot",
            "startLatency: 10s\n  billedStartup: 11s",
            "spec.billedStartup: \"11s\" is not allowed: is a part of startLatency and cannot be longer",
        ),
        (
            "capacityType: Spot",
            "startLatency: 2h",
            "spec.startLatency: \"2h\" is not allowed: must be a duration between 0s and 1h, such as 90s or 1h30m",
        ),
        (
            "fargate: {region: us-east-1, cluster: burst, subnets: [subnet-0a1b2c3d], architecture: arm64}",
            "nomad: {address: 'https://nomad:4646', mhzPerCore: 2000}",
            "spec.capacityType: \"Spot\" is not allowed: must be OnDemand for nomad, which sells no interruptible capacity",
        ),
        (
            "fargate: {region: us-east-1, cluster: burst, subnets: [subnet-0a1b2c3d], architecture: arm64}",
            "nomad: {address: 'http://nomad:4646', mhzPerCore: 2000}",
            "spec.nomad.address: \"http://nomad:4646\" is not allowed: must be a https URL, such as https://nomad.example.com:4646",
        ),
    ];
    for (part, replacement, expected) in refused {
        check(NODE, part, replacement, expected);
    }
}

#[test]
fn a_budget_compiles() {
    let object: BurstBudget = strict(serde_yaml_ng::from_str(BUDGET).unwrap()).unwrap();
    let budget = burst_budget(&object, "USD", NOW).unwrap();
    assert_eq!((&*budget.name, budget.limit), ("nightly", "12.50".parse::<Money>().unwrap()));
    assert_eq!((budget.start, budget.end), window(api::BudgetPeriod::Day, "Europe/Berlin", NOW).unwrap());
    let media: Labels = [("team", "media")].into_iter().collect();
    assert!(budget.scope.covers("images", &media));
    assert!(!budget.scope.covers("other", &media) && !budget.scope.covers("images", &Labels::default()));
    let everything: BurstBudget = BurstBudget { spec: api::BurstBudgetSpec { scope: None, ..object.spec }, ..object };
    assert!(burst_budget(&everything, "USD", NOW).unwrap().scope.covers("other", &Labels::default()));
}

#[test]
fn budgets_that_make_no_sense_are_refused() {
    check(BUDGET, "USD", "EUR", "spec.currency: \"EUR\" is not allowed: must be USD, the currency of this installation");
    check(
        BUDGET,
        "Europe/Berlin",
        "Mars/Olympus",
        "spec.timeZone: \"Mars/Olympus\" is not allowed: must be the name of an IANA time zone, such as UTC or Europe/Berlin",
    );
    check(
        BUDGET,
        "{team: media}",
        "{'': media}",
        "spec.scope.namespaceSelector.matchLabels: must be a label key, such as team or example.com/team",
    );
    // An object that is older than its schema.
    let mut object: BurstBudget = strict(serde_yaml_ng::from_str(BUDGET).unwrap()).unwrap();
    object.spec.amount = "-1".to_owned();
    let refusal = burst_budget(&object, "USD", NOW).unwrap_err().to_string();
    assert_eq!(refusal, "spec.amount: \"-1\" is not allowed: must be a decimal number such as 12.50, zero or more");
    object.spec.amount = "12.50".to_owned();
    assert!(burst_budget(&object, "USD", Timestamp::MAX).is_err(), "no calendar reaches so far");
}
