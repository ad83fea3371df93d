use super::*;
use crate::sample::{virtual_node, workload};
use crate::workload::Feature;
use proptest::prelude::*;

const GIB: i64 = 1 << 30;

fn priced(provider: Provider, cpu_millis: i64, memory_bytes: i64, run_seconds: u64) -> Quote {
    quote(&workload(cpu_millis, memory_bytes), &virtual_node(provider), Duration::from_secs(run_seconds), Rate::FREE)
        .expect("the sample is sold")
}

fn nanos(text: &str) -> i64 {
    text.parse::<Money>().expect("the test's own amount").nanos()
}

/// Seconds at a price per hour, rounded up.
fn part_of_an_hour(hourly: i64, seconds: i64) -> i64 {
    (hourly * seconds + 3599) / 3600
}

#[test]
fn an_hour_of_fargate_and_aci_as_on_their_price_lists() {
    // 4 vCPU and 16 GB: the figures of the price pages.
    assert_eq!(priced(Provider::Fargate, 4000, 16 * GIB, 3600).hourly.to_string(), "0.23304");
    assert_eq!(priced(Provider::Aci, 4000, 16_000_000_000, 3600).hourly.to_string(), "0.2332");
    // An hour of run is billed with the fifteen seconds of image pull before it.
    let quote = priced(Provider::Fargate, 4000, 16 * GIB, 3600);
    assert_eq!(quote.bill.nanos(), part_of_an_hour(233_040_000, 3615));
}

#[test]
fn short_runs_pay_the_minimum_where_there_is_one() {
    // 12 seconds and 15 of pull: a minute on Fargate, 27 seconds on ACI.
    assert_eq!(priced(Provider::Fargate, 1000, 2 * GIB, 12).bill.nanos(), part_of_an_hour(nanos("0.04937"), 60));
    assert_eq!(priced(Provider::Aci, 1000, 2_000_000_000, 12).bill.nanos(), part_of_an_hour(nanos("0.0494"), 27));
}

#[test]
fn seconds_are_whole() {
    let at = |millis| {
        let run = Duration::from_millis(millis);
        quote(&workload(1000, GIB), &virtual_node(Provider::Aci), run, Rate::FREE).expect("sold").bill
    };
    assert_eq!(at(59_001), at(60_000));
    assert!(at(60_001) > at(60_000));
}

#[test]
fn a_pod_never_runs_longer_than_its_deadline() {
    let mut pod = workload(1000, GIB);
    pod.run_limit = Some(Duration::from_secs(100));
    let quote = quote(&pod, &virtual_node(Provider::Aci), Duration::from_secs(3600), Rate::FREE).expect("sold");
    assert_eq!(quote.run, Duration::from_secs(100));
    assert_eq!(quote.bill, priced(Provider::Aci, 1000, GIB, 100).bill);
}

#[test]
fn ephemeral_storage_costs_above_what_is_free() {
    let with = |provider, gib: i64| {
        let mut pod = workload(1000, 2 * GIB);
        pod.requests.ephemeral_bytes = gib * GIB;
        quote(&pod, &virtual_node(provider), Duration::from_secs(3600), Rate::FREE).expect("sold").hourly.nanos()
    };
    assert_eq!(with(Provider::Fargate, 20), with(Provider::Fargate, 0));
    assert_eq!(with(Provider::Fargate, 120) - with(Provider::Fargate, 0), 100 * nanos("0.000111"));
    assert_eq!(with(Provider::Aci, 40), with(Provider::Aci, 0));
    assert_eq!(with(Provider::InMemory, 10) - with(Provider::InMemory, 0), 10 * nanos("0.000111"));
}

#[test]
fn waiting_for_the_start_has_a_price() {
    let quote =
        quote(&workload(1000, GIB), &virtual_node(Provider::Fargate), Duration::from_secs(60), "0.10".parse().expect("a rate"))
            .expect("sold");
    // 45 seconds at 0.10 an hour.
    assert_eq!(quote.waiting.to_string(), "0.00125");
    assert_eq!(quote.total(), quote.bill.saturating_add(quote.waiting));
    assert_eq!(quote.spot_loss, Money::ZERO);
}

#[test]
fn spot_pays_for_what_an_interruption_destroys() {
    let mut node = virtual_node(Provider::InMemory);
    (node.interruptions_per_1000_hours, node.billed_startup) = (1000, Duration::ZERO);
    let hour =
        |node: &VirtualNode, waiting: Rate| quote(&workload(1000, GIB), node, Duration::from_secs(3600), waiting).expect("sold");
    assert_eq!(hour(&node, Rate::FREE).spot_loss, Money::ZERO, "nobody interrupts what is bought on demand");
    node.capacity_type = CapacityType::Spot;
    // One interruption an hour: 1 - 1/(1 + 1 + 1/2 + 1/6) = 62.5 %, of 17/6 of the bill of 0.022.
    let loss = hour(&node, Rate::FREE).spot_loss.nanos();
    assert_eq!(loss, nanos("0.038958334"), "{loss}");
    // Half an hour of lost time at 0.10 an hour, with the same probability.
    let waiting = hour(&node, "0.10".parse().expect("a rate"));
    assert!((waiting.spot_loss.nanos() - loss - nanos("0.03125")).abs() < 30_000, "{}", waiting.spot_loss);
    node.interruptions_per_1000_hours = 0;
    assert_eq!(hour(&node, Rate::FREE).spot_loss, Money::ZERO);
}

#[test]
fn probability_of_an_interruption_is_near_the_exponential() {
    for (per_1000_hours, hours, exact) in [(50, 1, 48_771), (50, 24, 698_806), (200, 10, 864_665), (1000, 3, 950_213)] {
        let found = interruption_millionths(per_1000_hours, Duration::from_secs(3600 * hours));
        assert!(found <= exact + 1 && found >= exact - 30_000, "{per_1000_hours} per 1000 h, {hours} h: {found} for {exact}");
    }
    assert_eq!(interruption_millionths(0, Duration::MAX), 0);
    assert!((998_000..=1_000_000).contains(&interruption_millionths(u32::MAX, Duration::MAX)));
}

#[test]
fn no_price_is_a_refusal() {
    let mut node = virtual_node(Provider::Aci);
    node.prices = None;
    let refusal = quote(&workload(1, 1), &node, Duration::ZERO, Rate::FREE).expect_err("unpriced");
    assert_eq!((refusal.label(), hourly(&priced(Provider::Aci, 1, 1, 1).shape, &node)), ("pricesMissing", None));
    let refusal = quote(&workload(5000, 1), &virtual_node(Provider::Aci), Duration::ZERO, Rate::FREE).expect_err("too large");
    assert_eq!(refusal.label(), "shapeTooLarge");
    assert_eq!(refusal.to_string(), "the pod needs 5 vCPU and the largest size has 4");
}

#[test]
fn the_bill_of_a_run_is_the_quote_that_foresaw_it() {
    let node = virtual_node(Provider::Fargate);
    let prices = node.prices.expect("the sample has prices");
    let foreseen = priced(Provider::Fargate, 1000, 2 * GIB, 600);
    let started = Timestamp::from_millis(1_000_000);
    let at = |seconds| bill(&foreseen.shape, node.provider, &prices, started, started + Duration::from_secs(seconds));
    assert_eq!(at(615), foreseen.bill);
    assert_eq!(at(0), at(60));
    assert!(at(61) > at(60));
    // A clock that goes backwards does not earn money.
    assert_eq!(bill(&foreseen.shape, node.provider, &prices, started, Timestamp::EPOCH), at(60));
    assert_eq!(hourly(&foreseen.shape, &node), Some(foreseen.hourly));
}

fn any_node() -> impl Strategy<Value = VirtualNode> {
    let provider = prop::sample::select(vec![Provider::Fargate, Provider::Aci, Provider::Nomad, Provider::InMemory]);
    (provider, 0..1_000_000_000_i64, 0..1_000_000_000_i64, 0..120_u64, any::<bool>(), 0..5_000_u32).prop_map(
        |(provider, vcpu, gb, minimum, spot, interruptions)| {
            let mut node = virtual_node(provider);
            let prices = node.prices.as_mut().expect("the sample has prices");
            let rate = |nanos| Rate::per_hour(Money::from_nanos(nanos));
            (prices.vcpu, prices.gb, prices.minimum) = (rate(vcpu), rate(gb), Duration::from_secs(minimum));
            node.capacity_type = if spot { CapacityType::Spot } else { CapacityType::OnDemand };
            node.interruptions_per_1000_hours = interruptions;
            node
        },
    )
}

proptest! {
    #[test]
    fn monotone_in_price_size_and_time(
        node in any_node(), cpu in 0..4_000_i64, mib in 0..15_000_i64, run in 0..1_000_000_u64, wait in 0..1_000_000_000_i64,
        more_price in 0..1_000_i64, more_cpu in 0..2_000_i64, more_mib in 0..2_000_i64, more_run in 0..100_000_u64,
    ) {
        let at = |node: &VirtualNode, cpu, mib: i64, run, wait| {
            let mut pod = workload(cpu, mib << 20);
            (pod.containers_without_cpu, pod.containers_without_memory) = (0, 0);
            quote(&pod, node, Duration::from_millis(run), Rate::per_hour(Money::from_nanos(wait))).map(|quote| quote.total())
        };
        let Ok(total) = at(&node, cpu, mib, run, wait) else { return Ok(()) };
        let mut dearer = node.clone();
        let prices = dearer.prices.as_mut().expect("the sample has prices");
        prices.vcpu = Rate::per_hour(prices.vcpu.hourly().saturating_add(Money::from_nanos(more_price)));
        prop_assert!(at(&dearer, cpu, mib, run, wait).is_ok_and(|dearer| dearer >= total));
        prices_of(&mut dearer).gb = Rate::per_hour(prices_of(&mut dearer).gb.hourly().saturating_add(Money::from_nanos(more_price)));
        prop_assert!(at(&dearer, cpu, mib, run, wait).is_ok_and(|dearer| dearer >= total));
        prop_assert!(at(&node, cpu + more_cpu, mib + more_mib, run, wait).map_or(true, |larger| larger >= total));
        prop_assert!(at(&node, cpu, mib, run + more_run, wait).is_ok_and(|longer| longer >= total));
        prop_assert!(at(&node, cpu, mib, run, wait + more_price).is_ok_and(|dearer| dearer >= total));
        let mut slower = node.clone();
        slower.start_latency += Duration::from_millis(more_run);
        prop_assert!(at(&slower, cpu, mib, run, wait).is_ok_and(|slower| slower >= total));
    }

    #[test]
    fn never_overflows(
        node in any_node(), cpu: i64, memory: i64, disk: i64, run: Duration, latency: Duration, startup: Duration,
        rate: i64, interruptions: u32, windows: bool,
    ) {
        let mut node = node;
        let rate = Rate::per_hour(Money::from_nanos(rate));
        (node.start_latency, node.billed_startup, node.interruptions_per_1000_hours) = (latency, startup, interruptions);
        (prices_of(&mut node).vcpu, prices_of(&mut node).gb, prices_of(&mut node).ephemeral_gb) = (rate, rate, rate);
        let mut pod = workload(cpu, memory);
        pod.requests.ephemeral_bytes = disk;
        if windows {
            pod.features.insert(Feature::Windows);
        }
        if let Ok(quote) = quote(&pod, &node, run, rate) {
            prop_assert!(quote.bill >= Money::ZERO && quote.waiting >= Money::ZERO && quote.spot_loss >= Money::ZERO);
            prop_assert!(quote.total() >= quote.bill);
        }
    }
}

fn prices_of(node: &mut VirtualNode) -> &mut Prices {
    node.prices.as_mut().expect("the sample has prices")
}
