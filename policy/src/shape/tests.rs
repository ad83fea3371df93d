use super::*;
use crate::sample::{virtual_node, workload};
use proptest::prelude::*;
use std::collections::BTreeSet;

const MB: i64 = 1_000_000;

fn choose(provider: Provider, cpu_millis: i64, memory_bytes: i64) -> Result<Shape, ShapeTooLarge> {
    Shape::choose(&workload(cpu_millis, memory_bytes), &virtual_node(provider))
}

fn check(provider: Provider, cpu_millis: i64, memory_bytes: i64, shape: &str) {
    let chosen = choose(provider, cpu_millis, memory_bytes).map_or_else(|refusal| refusal.to_string(), |shape| shape.to_string());
    assert_eq!(chosen, shape, "{} for {cpu_millis}m and {memory_bytes} bytes", provider.label());
}

/// The table as AWS prints it: vCPU in thousandths, GiB in halves.
fn fargate_cells() -> BTreeSet<(i64, i64)> {
    let mut cells = BTreeSet::from([(250, 1), (250, 2), (250, 4)]);
    for (cpu, from, to, step) in
        [(500, 1, 4, 1), (1000, 2, 8, 1), (2000, 4, 16, 1), (4000, 8, 30, 1), (8000, 16, 60, 4), (16_000, 32, 120, 8)]
    {
        cells.extend((from..=to).step_by(step).map(|gib| (cpu, 2 * gib)));
    }
    cells.into_iter().map(|(cpu, halves)| (cpu, halves * GIB / 2)).collect()
}

#[test]
fn every_fargate_cell_is_sold_as_asked() {
    // Where memory costs nothing, the smallest vCPU count wins, so every cell is the answer to its own request at the prices
    // of somewhere only if no row with less CPU reaches it; with CPU requested exactly, none does.
    let cells = fargate_cells();
    assert_eq!(cells.len(), 74);
    for (cpu_millis, memory_bytes) in &cells {
        let shape = choose(Provider::Fargate, *cpu_millis, *memory_bytes).expect("a cell of the table");
        assert_eq!((shape.cpu_millis, shape.memory_bytes), (*cpu_millis, *memory_bytes));
    }
    // And nothing else is ever sold.
    for cpu_millis in [1, 250, 251, 500, 999, 1000, 2000, 2001, 4000, 5000, 8000, 9000, 16_000] {
        for half_gib in 0..=240 {
            let shape = choose(Provider::Fargate, cpu_millis, half_gib * GIB / 2 + 1 - (half_gib & 1));
            if let Ok(shape) = shape {
                assert!(cells.contains(&(shape.cpu_millis, shape.memory_bytes)), "{shape} is not in the table");
            }
        }
    }
}

#[test]
fn fargate_takes_the_cheapest_cell_that_covers_both() {
    check(Provider::Fargate, 0, 0, "0.25 vCPU, 0.5 GiB");
    check(Provider::Fargate, 100, 600 * MIB, "0.25 vCPU, 1 GiB");
    check(Provider::Fargate, 250, 1100 * MIB, "0.25 vCPU, 2 GiB");
    check(Provider::Fargate, 250, 3 * GIB, "0.5 vCPU, 3 GiB");
    check(Provider::Fargate, 1000, 9 * GIB, "2 vCPU, 9 GiB");
    check(Provider::Fargate, 1001, GIB, "2 vCPU, 4 GiB");
    check(Provider::Fargate, 4000, 31 * GIB, "8 vCPU, 32 GiB");
    check(Provider::Fargate, 8000, 16 * GIB + 1, "8 vCPU, 20 GiB");
    check(Provider::Fargate, 8000, 61 * GIB, "16 vCPU, 64 GiB");
    check(Provider::Fargate, 16_000, 120 * GIB, "16 vCPU, 120 GiB");
}

#[test]
fn prices_decide_between_cells() {
    // Memory steps widen with the vCPU count, and at 8 vCPU 60 GiB are followed by 16 vCPU: where CPU is free, the row with
    // the finer memory step is cheaper even when it has more CPU than asked for.
    let pod = workload(500, 4 * GIB);
    let mut node = virtual_node(Provider::Fargate);
    assert_eq!(Shape::choose(&pod, &node).map(|shape| shape.to_string()).as_deref(), Ok("0.5 vCPU, 4 GiB"));
    let prices = node.prices.as_mut().expect("the sample has prices");
    (prices.vcpu, prices.gb) = (Rate::FREE, "0.01".parse().expect("a rate"));
    // Equal price, so still the smaller size.
    assert_eq!(Shape::choose(&pod, &node).map(|shape| shape.to_string()).as_deref(), Ok("0.5 vCPU, 4 GiB"));
    node.prices = None;
    assert_eq!(Shape::choose(&pod, &node).map(|shape| shape.to_string()).as_deref(), Ok("0.5 vCPU, 4 GiB"));
}

#[test]
fn fargate_ephemeral_storage_is_free_to_twenty_and_ends_at_two_hundred() {
    let sized = |ephemeral: i64| {
        let mut pod = workload(250, 512 * MIB);
        pod.requests.ephemeral_bytes = ephemeral;
        Shape::choose(&pod, &virtual_node(Provider::Fargate))
    };
    let billed = |ephemeral| sized(ephemeral).map(|shape| shape.billed_ephemeral_bytes(Provider::Fargate) / GIB);
    assert_eq!(billed(20 * GIB), Ok(0));
    assert_eq!(billed(20 * GIB + 1), Ok(1));
    assert_eq!(billed(200 * GIB), Ok(180));
    assert_eq!(sized(21 * GIB).map(|shape| shape.to_string()).as_deref(), Ok("0.25 vCPU, 0.5 GiB, 21 GiB of disk"));
    let refusal = sized(201 * GIB).expect_err("more than there is");
    assert_eq!(refusal.to_string(), "the pod needs 201 GiB of ephemeral storage and the most is 200 GiB");
}

#[test]
fn windows_on_fargate_begins_at_one_vcpu_and_ends_at_four() {
    let sized = |cpu_millis, memory| {
        let mut pod = workload(cpu_millis, memory);
        pod.features.insert(Feature::Windows);
        Shape::choose(&pod, &virtual_node(Provider::Fargate)).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(sized(100, MIB).map(|shape| shape.to_string()).as_deref(), Ok("1 vCPU, 2 GiB"));
    assert_eq!(sized(4000, 30 * GIB).map(|shape| shape.to_string()).as_deref(), Ok("4 vCPU, 30 GiB"));
    assert_eq!(sized(5000, GIB), Err("the pod needs 5 vCPU and the largest size has 4".to_owned()));
}

#[test]
fn too_large_for_fargate() {
    check(Provider::Fargate, 16_001, GIB, "the pod needs 16.001 vCPU and the largest size has 16");
    check(Provider::Fargate, 1, 121 * GIB, "the pod needs 121 GiB of memory and the largest size has 120 GiB");
    check(Provider::Fargate, i64::MAX, i64::MAX, "the pod needs 9223372036854775.807 vCPU and the largest size has 16");
}

#[test]
fn aci_rounds_up_and_starts_at_one_and_one() {
    check(Provider::Aci, 1, 1, "1 vCPU, 1 GB");
    check(Provider::Aci, 1001, 1_550 * MB, "1.01 vCPU, 1.6 GB");
    check(Provider::Aci, 1500, 1500 * MB, "1.5 vCPU, 1.5 GB");
    // 1 GiB is more than 1 GB, so it is 1.1 of them.
    check(Provider::Aci, 1000, GIB, "1 vCPU, 1.1 GB");
    check(Provider::Aci, 4000, 16_000 * MB, "4 vCPU, 16 GB");
    check(Provider::Aci, 4001, GIB, "the pod needs 4.001 vCPU and the largest size has 4");
    check(Provider::Aci, 1000, 16 * GIB, "the pod needs 16 GiB of memory and the largest size has 16 GB");
}

#[test]
fn aci_limits_are_those_of_the_region_where_known() {
    let mut node = virtual_node(Provider::Aci);
    node.largest_pod = Limits { pods: None, cpu_millis: Some(31_000), memory_bytes: Some(240_000 * MB) };
    assert!(Shape::choose(&workload(31_000, 240_000 * MB), &node).is_ok());
    assert!(Shape::choose(&workload(31_001, GIB), &node).is_err());
    assert!(Shape::choose(&workload(1000, 240_000 * MB + 1), &node).is_err());
}

#[test]
fn aci_has_fifty_gigabytes_of_disk_and_no_more() {
    let sized = |ephemeral: i64, windows: bool| {
        let mut pod = workload(1000, GIB);
        pod.requests.ephemeral_bytes = ephemeral;
        if windows {
            pod.features.insert(Feature::Windows);
        }
        Shape::choose(&pod, &virtual_node(Provider::Aci))
    };
    assert_eq!(sized(50_000 * MB, false).map(|shape| shape.ephemeral_bytes), Ok(0));
    assert!(sized(50_001 * MB, false).is_err());
    assert!(sized(20_000 * MB, true).is_ok() && sized(20_001 * MB, true).is_err());
}

#[test]
fn nomad_takes_what_is_asked_in_whole_mhz_and_mib() {
    check(Provider::Nomad, 333, 100 * MIB + 1, "0.333 vCPU, 101 MiB");
    check(Provider::Nomad, 64_000, 1024 * GIB, "64 vCPU, 1024 GiB");
    let mut pod = workload(333, 0);
    pod.containers_without_memory = 0;
    assert_eq!(Shape::choose(&pod, &virtual_node(Provider::Nomad)).map(|shape| shape.memory_bytes), Ok(10 * MIB));
    let mut node = virtual_node(Provider::Nomad);
    node.largest_pod.cpu_millis = Some(8000);
    assert!(Shape::choose(&workload(8001, GIB), &node).is_err());
}

#[test]
fn containers_without_requests_get_what_the_provider_gives_them() {
    let mut pod = workload(0, 0);
    (pod.containers, pod.containers_without_cpu, pod.containers_without_memory) = (2, 2, 2);
    let sized = |provider| Shape::choose(&pod, &virtual_node(provider)).map(|shape| shape.to_string());
    assert_eq!(sized(Provider::Aci).as_deref(), Ok("2 vCPU, 3 GB"));
    assert_eq!(sized(Provider::Fargate).as_deref(), Ok("0.25 vCPU, 0.5 GiB"));
    // 100 MHz of 2,500 each.
    assert_eq!(sized(Provider::Nomad).as_deref(), Ok("0.08 vCPU, 600 MiB"));
    assert_eq!(sized(Provider::InMemory).as_deref(), Ok("0 vCPU, 0 bytes"));
    // A sidecar without requests beside a container with some.
    (pod.requests.cpu_millis, pod.containers_without_cpu) = (500, 1);
    let aci = Shape::choose(&pod, &virtual_node(Provider::Aci));
    assert_eq!(aci.map(|shape| shape.cpu_millis), Ok(1500));
}

#[test]
fn in_memory_takes_anything_within_the_admins_bound() {
    check(Provider::InMemory, 17, 12_345, "0.017 vCPU, 12345 bytes");
    let mut node = virtual_node(Provider::InMemory);
    node.largest_pod.memory_bytes = Some(GIB);
    let refusal = Shape::choose(&workload(1, GIB + 1), &node).expect_err("beyond the bound");
    assert!(refusal.to_string().ends_with("and the largest size has 1 GiB"), "{refusal}");
}

fn provider() -> impl Strategy<Value = Provider> {
    prop::sample::select(vec![Provider::Fargate, Provider::Aci, Provider::Nomad, Provider::InMemory])
}

proptest! {
    #[test]
    fn the_shape_covers_the_request(provider in provider(), cpu in 0..20_000_i64, mib in 0..130_000_i64, odd in 0..MIB, disk in 0..300_i64) {
        let mut pod = workload(cpu, mib * MIB + odd);
        pod.requests.ephemeral_bytes = disk * GIB;
        if let Ok(shape) = Shape::choose(&pod, &virtual_node(provider)) {
            prop_assert!(shape.cpu_millis >= cpu && shape.memory_bytes >= mib * MIB + odd);
            prop_assert!(shape.ephemeral_bytes.max(provider.free_ephemeral_bytes()) >= disk * GIB);
        }
    }

    /// Who asks for less never gets more refused, and never pays more (the price itself is tested with the quote).
    #[test]
    fn what_fits_still_fits_when_less_is_asked(provider in provider(), cpu in 0..20_000_i64, mib in 0..130_000_i64, less in 0..5_000_i64) {
        let node = virtual_node(provider);
        if Shape::choose(&workload(cpu, mib * MIB), &node).is_ok() && cpu > less && mib > less {
            prop_assert!(Shape::choose(&workload(cpu - less, (mib - less) * MIB), &node).is_ok());
        }
    }

    #[test]
    fn no_request_is_too_absurd(provider in provider(), cpu: i64, memory: i64, disk: i64, windows: bool) {
        let mut pod = workload(cpu, memory);
        pod.requests.ephemeral_bytes = disk;
        if windows {
            pod.features.insert(Feature::Windows);
        }
        let text = Shape::choose(&pod, &virtual_node(provider)).map_or_else(|refusal| refusal.to_string(), |shape| shape.to_string());
        prop_assert!(!text.is_empty());
    }
}
