use super::*;

fn settings() -> Settings {
    let ownership = crate::Ownership { cluster: "c".into(), virtual_node: "v".into() };
    Settings::new("00000000-0000-0000-0000-000000000001", "bursts", "eastus", ownership)
}

#[test]
fn settings_that_azure_would_refuse_for_every_pod_are_refused_at_once() {
    let problem = |settings: Settings| settings.check().expect_err("refused").to_string();
    assert_eq!(settings().check(), Ok(()));
    assert!(problem(Settings { resource_group: "a/b".into(), ..settings() }).starts_with("resourceGroup"));
    assert!(problem(Settings { location: "..".into(), ..settings() }).starts_with("location"));
    assert!(problem(Settings { api_version: Some("2021-10-01".into()), ..settings() }).contains("2023-05-01 or later"));
    let spot = Settings { capacity_type: CapacityType::Spot, subnet_id: Some("x".into()), ..settings() };
    assert!(problem(spot).starts_with("subnetId"));
}

#[test]
fn a_credential_that_lacks_a_part_is_refused_with_its_name() {
    let secret = |tenant: &str, secret: &str| Credential::ClientSecret {
        tenant_id: tenant.to_owned(),
        client_id: "app".to_owned(),
        secret: crate::Secret::new(secret),
    };
    assert!(Access::new(secret("tenant", "s3cret")).is_ok());
    let error = Access::new(secret("tenant", "")).expect_err("no secret");
    assert!(error.to_string().starts_with("credentials"), "{error}");
    let error = Access::new(secret("no/tenant", "s3cret")).expect_err("no tenant");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

fn usage(name: &str, current_value: i64, limit: i64) -> UsageEntry {
    UsageEntry { name: wire::UsageName { value: name.to_owned() }, current_value, limit }
}

#[test]
fn each_capacity_type_has_its_cores() {
    let usages = [usage("ContainerGroups", 3, 100), usage("StandardCores", 7, 100), usage("StandardSpotCores", 2, 10)];
    let (limits, used) = quota(&usages, CapacityType::OnDemand);
    assert_eq!((limits.pods, limits.cpu_millis, limits.memory_bytes), (Some(100), Some(100_000), None));
    assert_eq!((used.pods, used.cpu_millis), (3, 7000));
    let (limits, used) = quota(&usages, CapacityType::Spot);
    assert_eq!((limits.cpu_millis, used.cpu_millis), (Some(10_000), 2000));
    assert_eq!(quota(&[], CapacityType::Spot).0, Limits::default(), "what is not told is not limited");
}

#[test]
fn the_largest_pod_is_that_of_linux_with_the_address_it_will_have() {
    let entry = |os: &str, kind: &str, gpu: &str, cpu: f64, memory: f64| CapabilityEntry {
        os_type: os.to_owned(),
        ip_address_type: kind.to_owned(),
        gpu: gpu.to_owned(),
        capabilities: wire::LargestSizes { max_cpu: cpu, max_memory_gb: memory },
    };
    let entries = [
        entry("Windows", "Public", "None", 8.0, 32.0),
        entry("Linux", "Public", "V100", 24.0, 448.0),
        entry("Linux", "Public", "None", 4.0, 16.0),
        entry("Linux", "Private", "None", 31.0, 240.5),
    ];
    let largest = |private| largest_pod(&entries, private);
    assert_eq!((largest(false).cpu_millis, largest(false).memory_bytes), (Some(4000), Some(16_000_000_000)));
    assert_eq!((largest(true).cpu_millis, largest(true).memory_bytes), (Some(31_000), Some(240_500_000_000)));
    assert_eq!(largest_pod(&[], true), Limits::default());
}
