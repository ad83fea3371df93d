//! Reading manifests: what is refused, and with which field in the message.

use serde_json::Value;

use super::*;

/// Whether a manifest is read, or the text of its refusal.
fn read(manifest: &str) -> Result<(), String> {
    let value: Value = serde_yaml_ng::from_str(manifest).unwrap();
    let result = match value["kind"].as_str() {
        Some("BurstPolicy") => strict::<BurstPolicy>(value).map(|_| ()),
        Some("VirtualNode") => strict::<VirtualNode>(value).map(|_| ()),
        _ => strict::<BurstBudget>(value).map(|_| ()),
    };
    result.map_err(|invalid| invalid.to_string())
}

const POLICY: &str = "
apiVersion: spillway.dev/v1alpha1
kind: BurstPolicy
metadata: {name: images}
spec:
  podSelector: {matchLabels: {app: thumbnailer}}
  namespaceSelector: {}
  tiers:
  - {name: dedicated}
  - {name: serverless, after: 45s, virtualNodes: [fargate], limits: {pods: 500, cpu: 1000, memory: 2Ti}}
";

const NODE: &str = "
apiVersion: spillway.dev/v1alpha1
kind: VirtualNode
metadata: {name: fargate}
spec:
  fargate: {region: us-east-1, cluster: burst, subnets: [subnet-0a1b2c3d]}
  pricing: {currency: USD, vcpuHour: '0.04048', gbHour: '0.004445'}
";

const BUDGET: &str = "
apiVersion: spillway.dev/v1alpha1
kind: BurstBudget
metadata: {name: nightly}
spec: {amount: '12.50', currency: USD, period: Day}
";

/// The manifest with one part replaced is refused with this text.
fn check(manifest: &str, part: &str, replacement: &str, expected: &str) {
    assert!(manifest.contains(part), "{part:?} is not in the manifest");
    let changed = manifest.replacen(part, replacement, 1);
    assert_eq!(read(&changed), Err(expected.to_owned()), "{changed}");
}

#[test]
fn good_manifests_are_read() {
    for manifest in [POLICY, NODE, BUDGET] {
        assert_eq!(read(manifest), Ok(()));
    }
}

#[test]
fn unknown_fields_are_refused_with_their_path() {
    check(BUDGET, ", period: Day", "", "spec.period: is required");
    check(
        BUDGET,
        "period",
        "perod",
        "spec.perod: unknown field; known are amount, currency, period, scope, timeZone, whenExceeded",
    );
    check(
        BUDGET,
        "{amount",
        "{limit: 1, amount",
        "spec.limit: unknown field; known are amount, currency, period, scope, timeZone, whenExceeded",
    );
    check(
        POLICY,
        "after: 45s",
        "waitForDedicated: 45s",
        "spec.tiers[1].waitForDedicated: unknown field; known are after, limits, name, nodeSelector, packing, price, spot, \
         virtualNodes",
    );
    check(NODE, "name: fargate", "name: fargate, nmae: x", "metadata.nmae: unknown field");
    check(NODE, "spec:", "sepc: {}\nspec:", "sepc: unknown field; known are spec, status");
}

#[test]
fn values_are_checked_as_the_api_server_does() {
    check(BUDGET, "'12.50'", "12.50", "spec.amount: \"12.5\" is not allowed: must be a string: put it in quotes");
    check(BUDGET, "Day", "Fortnight", "spec.period: \"Fortnight\" is not allowed: must be one of Hour, Day, Week, Month");
    check(
        POLICY,
        "45s",
        "5 minutes",
        "spec.tiers[1].after: \"5 minutes\" is not allowed: must be Auto or a duration of at most 24h, such as 45s",
    );
    check(
        POLICY,
        "pods: 500",
        "pods: -1",
        "spec.tiers[1].limits.pods: \"-1\" is not allowed: must be a whole number from 0 to 1000000",
    );
    check(
        POLICY,
        "cpu: 1000",
        "cpu: -4",
        "spec.tiers[1].limits.cpu: \"-4\" is not allowed: must be a quantity between 0 and 1000000",
    );
    check(
        POLICY,
        "cpu: 1000",
        "cpu: [1]",
        "spec.tiers[1].limits.cpu: \"[1]\" is not allowed: must be a quantity, such as 500m, 4 or 16Gi",
    );
    check(
        POLICY,
        "[fargate]",
        "[fargate, fargate]",
        "spec.tiers[1].virtualNodes[1]: \"fargate\" is not allowed: must be unique in the list",
    );
    check(
        POLICY,
        "name: dedicated",
        "name: serverless",
        "spec.tiers[1].name: \"serverless\" is not allowed: must be unique in the list",
    );
    check(POLICY, "[fargate]", "[]", "spec.tiers[1].virtualNodes: must have at least 1 entries");
    check(
        NODE,
        "subnet-0a1b2c3d",
        "net-1",
        "spec.fargate.subnets[0]: \"net-1\" is not allowed: must match ^subnet-[0-9a-f]{8,17}$",
    );
    check(
        NODE,
        "name: fargate",
        "name: Fargate",
        "metadata.name: \"Fargate\" is not allowed: must be a DNS name of at most 63 characters",
    );
    check(NODE, "v1alpha1", "v1", "apiVersion: \"spillway.dev/v1\" is not allowed: must be spillway.dev/v1alpha1");
    check(NODE, "metadata: {name: fargate}", "metadata: {}", "metadata.name: is required");
}

#[test]
fn a_null_is_replaced_by_the_default_or_refused() {
    check(BUDGET, "'12.50'", "null", "spec.amount: \"null\" is not allowed: must be of type string");
    assert_eq!(read(&BUDGET.replace("Day", "Day, timeZone: null")), Ok(()));
}

#[test]
fn defaults_are_those_of_the_schema() {
    let value: Value = serde_yaml_ng::from_str(POLICY).unwrap();
    let policy = strict::<BurstPolicy>(value).unwrap();
    let BurstPolicySpec { weight, mode, stop_policy, return_to_dedicated, extender, when_unsatisfiable, tiers, .. } = policy.spec;
    assert_eq!((weight, mode, stop_policy), (100, Mode::Enforce, StopPolicy::None));
    assert_eq!((return_to_dedicated, extender), (ReturnToDedicated::Never, ExtenderUse::Ignore));
    assert_eq!(when_unsatisfiable, WhenUnsatisfiable::Wait);
    assert_eq!((tiers[0].after.as_str(), tiers[1].after.as_str()), ("0s", "45s"));
    assert_eq!(tiers[1].limits.as_ref().unwrap().cpu, Some(Quantity("1000".to_owned())));
}

/// A long value must not flood a condition or a log line.
#[test]
fn long_values_are_cut() {
    let invalid = Invalid::new("spec.amount", "9".repeat(10_000), "must be shorter");
    assert!(invalid.to_string().len() < 200, "{invalid}");
    assert_eq!(Invalid::new("amount", "1", "x").within("spec").field, "spec.amount");
}
