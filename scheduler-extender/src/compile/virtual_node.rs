//! `VirtualNode`.

use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use policy::Timestamp;
use policy::selector::Labels;
use policy::virtual_node::{CapacityType, Limits, Prices, Provider};
use policy::workload::Feature;

use super::{bounded, limits, name, rate, selectors};
use crate::api::{self, Invalid};
use crate::hygiene;

/// Longest start.
const START_MAX: Duration = Duration::from_secs(3600);

/// Longer than the slowest start of a large image that still succeeds.
const START_DEADLINE: Duration = Duration::from_secs(900);

/// Interruptions of Spot capacity per 1,000 hours, where nobody says otherwise.
const INTERRUPTIONS: u32 = 50;

/// Compiles a virtual node. Its Node and whether it is closed are not known here. Without prices it compiles, and
/// nothing is sent there. `currency` is that of the installation.
pub fn virtual_node(object: &api::VirtualNode, currency: &str) -> Result<policy::VirtualNode, Invalid> {
    let prices = prices(object, currency)?;
    let written = node_spec(object).map_err(|invalid| invalid.within("spec"))?;
    let status = object.status.as_ref();
    let quota = optional(status.and_then(|status| status.quota.as_ref()), "status.quota")?;
    // What an administrator wrote wins over what was observed.
    let largest_pod = match status.and_then(|status| status.largest_pod.as_ref()) {
        Some(observed) if object.spec.largest_pod.is_none() => size(observed, "status.largestPod")?,
        Some(_) | None => written.largest_pod,
    };
    Ok(policy::VirtualNode { prices, quota, largest_pod, ..written })
}

/// What the specification says by itself.
fn node_spec(object: &api::VirtualNode) -> Result<policy::VirtualNode, Invalid> {
    let spec = &object.spec;
    let backend = backend(spec)?;
    let (start_latency, billed_startup) = start(spec, backend.provider)?;
    let start_deadline = match &spec.start_deadline {
        Some(text) => bounded("startDeadline", text, Duration::from_secs(1), START_MAX)?,
        None => START_DEADLINE,
    };
    if let Some(adopt) = &spec.adopt {
        let requirements = selectors::exact(&adopt.node_selector).map_err(|invalid| invalid.within("adopt.nodeSelector"))?;
        if requirements.is_empty() {
            return Err(Invalid::new("adopt.nodeSelector", "", "must have at least one label"));
        }
        if let Some(lost) = hygiene::unwanted().find(|key| adopt.node_selector.contains_key(*key)) {
            let allowed = "must be a label that a virtual node keeps, such as one of your own: this one is taken off";
            return Err(Invalid::new("adopt.nodeSelector", lost, allowed));
        }
    }
    Ok(policy::VirtualNode {
        name: name(&object.metadata),
        node_name: None,
        provider: backend.provider,
        region: Arc::from(backend.region),
        capacity_type: match spec.capacity_type {
            api::CapacityType::OnDemand => CapacityType::OnDemand,
            api::CapacityType::Spot => CapacityType::Spot,
        },
        labels: node_labels(spec, backend.architecture)?,
        closed: None,
        prices: None,
        start_latency,
        billed_startup,
        start_deadline,
        interruptions_per_1000_hours: interruptions(spec)?,
        limits: optional(spec.limits.as_ref(), "limits")?,
        quota: Limits::default(),
        capabilities: capabilities(&spec.capabilities)?,
        mhz_per_core: backend.mhz_per_core,
        largest_pod: spec.largest_pod.as_ref().map_or(Ok(Limits::default()), |written| size(written, "largestPod"))?,
    })
}

fn size(size: &api::PodSize, field: &str) -> Result<Limits, Invalid> {
    let api::PodSize { cpu, memory } = size.clone();
    limits(&api::PodResources { pods: None, cpu, memory }).map_err(|invalid| invalid.within(field))
}

/// What the settings of the provider say to the engine.
struct Backend<'s> {
    provider: Provider,
    region: &'s str,
    architecture: api::Architecture,
    mhz_per_core: u32,
}

fn backend(spec: &api::VirtualNodeSpec) -> Result<Backend<'_>, Invalid> {
    let plain = |provider, region, architecture| Backend { provider, region, architecture, mhz_per_core: 0 };
    let backend = match (&spec.fargate, &spec.aci, &spec.nomad, &spec.in_memory) {
        (Some(fargate), None, None, None) => plain(Provider::Fargate, fargate.region.as_str(), fargate.architecture),
        (None, Some(aci), None, None) => plain(Provider::Aci, aci.location.as_str(), api::Architecture::Amd64),
        (None, None, Some(nomad), None) => {
            let mhz = u32::try_from(nomad.mhz_per_core).ok().filter(|mhz| *mhz > 0);
            let mhz_per_core = mhz.ok_or_else(|| {
                Invalid::new("nomad.mhzPerCore", nomad.mhz_per_core.to_string(), "must be a whole number from 100 to 20000")
            })?;
            if !nomad.address.starts_with("https://") || nomad.address.len() == "https://".len() {
                let allowed = "must be a https URL, such as https://nomad.example.com:4646";
                return Err(Invalid::new("nomad.address", &nomad.address, allowed));
            }
            Backend { mhz_per_core, ..plain(Provider::Nomad, nomad.region.as_str(), api::Architecture::Amd64) }
        }
        (None, None, None, Some(memory)) => plain(Provider::InMemory, memory.region.as_str(), api::Architecture::Amd64),
        _ => return Err(Invalid::new("fargate", "", "exactly one of fargate, aci, nomad and inMemory must be given")),
    };
    if backend.provider == Provider::Nomad && spec.capacity_type == api::CapacityType::Spot {
        let allowed = "must be OnDemand for nomad, which sells no interruptible capacity";
        return Err(Invalid::new("capacityType", "Spot", allowed));
    }
    Ok(backend)
}

/// Start latency and the billed part of it. The defaults are what images of some hundred megabytes take.
fn start(spec: &api::VirtualNodeSpec, provider: Provider) -> Result<(Duration, Duration), Invalid> {
    let (usual, usual_billed) = match provider {
        Provider::Fargate => (45, 15),
        Provider::Aci => (30, 15),
        Provider::Nomad => (10, 10),
        Provider::InMemory => (1, 0),
    };
    let given =
        |field, text: &Option<String>| text.as_ref().map(|text| bounded(field, text, Duration::ZERO, START_MAX)).transpose();
    let latency = given("startLatency", &spec.start_latency)?;
    let billed = given("billedStartup", &spec.billed_startup)?;
    if let (Some(latency), Some(billed), Some(text)) = (latency, billed, &spec.billed_startup)
        && billed > latency
    {
        return Err(Invalid::new("billedStartup", text, "is a part of startLatency and cannot be longer"));
    }
    let latency = latency.unwrap_or_else(|| Duration::from_secs(usual).max(billed.unwrap_or_default()));
    Ok((latency, billed.unwrap_or_else(|| Duration::from_secs(usual_billed).min(latency))))
}

/// Labels that the provider implies give way to those that are written down.
fn node_labels(spec: &api::VirtualNodeSpec, architecture: api::Architecture) -> Result<Labels, Invalid> {
    let mut labels = selectors::labels(&spec.labels).map_err(|invalid| invalid.within("labels"))?;
    let architecture = match architecture {
        api::Architecture::Amd64 => "amd64",
        api::Architecture::Arm64 => "arm64",
    };
    for (key, value) in [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", architecture)] {
        if labels.get(key).is_none() {
            labels.insert(Arc::from(key), Arc::from(value));
        }
    }
    labels.insert(Arc::from(api::names::DECIDED_LABEL), Arc::from(api::names::DECIDED_BURST));
    Ok(labels)
}

fn interruptions(spec: &api::VirtualNodeSpec) -> Result<u32, Invalid> {
    let field = "spotInterruptionsPerHour";
    match (&spec.spot_interruptions_per_hour, spec.capacity_type) {
        (None, api::CapacityType::OnDemand) => Ok(0),
        (None, api::CapacityType::Spot) => Ok(INTERRUPTIONS),
        (Some(text), api::CapacityType::OnDemand) => Err(Invalid::new(field, text, "is only for capacityType Spot")),
        (Some(text), api::CapacityType::Spot) => thousandths(text).ok_or_else(|| {
            Invalid::new(field, text, "must be a decimal number of at most 9999 with up to three decimals, such as 0.05")
        }),
    }
}

/// A decimal number with up to three decimals, in thousandths.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str, most| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole, 4) || !digits(fraction, 3) {
        return None;
    }
    Some(whole.parse::<u32>().ok()? * 1000 + format!("{fraction:0<3}").parse::<u32>().ok()?)
}

fn capabilities(overrides: &[api::CapabilityOverride]) -> Result<Vec<(Feature, bool)>, Invalid> {
    let mut capabilities: Vec<(Feature, bool)> = Vec::with_capacity(overrides.len());
    for (index, api::CapabilityOverride { rule, allow }) in overrides.iter().enumerate() {
        let refuse = |allowed: &str| Invalid::new(format!("capabilities[{index}].rule"), rule, allowed);
        let known = Feature::ALL.into_iter().find(|feature| feature.label() == rule);
        let feature = known.ok_or_else(|| refuse("must be the label of a rule, such as gpu or startupProbe"))?;
        if policy::capability::binds_to_cluster(feature) {
            return Err(refuse("cannot be overridden: such pods belong to their cluster, and no backend runs them"));
        }
        if capabilities.iter().any(|(before, _)| *before == feature) {
            return Err(refuse("must be unique in the list"));
        }
        capabilities.push((feature, *allow));
    }
    capabilities.sort_by_key(|(feature, _)| *feature);
    Ok(capabilities)
}

fn optional(bounds: Option<&api::PodResources>, field: &str) -> Result<Limits, Invalid> {
    bounds.map_or(Ok(Limits::default()), |bounds| limits(bounds).map_err(|invalid| invalid.within(field)))
}

/// Prices that an administrator wrote win over those that were observed.
fn prices(object: &api::VirtualNode, currency: &str) -> Result<Option<Prices>, Invalid> {
    let minimum = if object.spec.fargate.is_some() { Duration::from_secs(60) } else { Duration::ZERO };
    if let Some(pricing) = &object.spec.pricing {
        return written(pricing, currency, minimum).map(Some).map_err(|invalid| invalid.within("spec.pricing"));
    }
    match object.status.as_ref().and_then(|status| status.prices.as_ref()) {
        Some(prices) => observed(prices, currency, minimum).map(Some).map_err(|invalid| invalid.within("status.prices")),
        None => Ok(None),
    }
}

fn written(pricing: &api::Pricing, installed: &str, minimum: Duration) -> Result<Prices, Invalid> {
    let api::Pricing { currency, vcpu_hour, gb_hour, ephemeral_gb_hour, minimum_billed_seconds, as_of, discount_percent } =
        pricing;
    check_currency("currency", currency, installed)?;
    let discount = thousandths(discount_percent)
        .filter(|discount| *discount <= 100_000)
        .ok_or_else(|| Invalid::new("discountPercent", discount_percent, "must be from 0 to 100, with up to three decimals"))?;
    let discounted = |field, text: &str| rate(field, text).map(|rate| rate.discounted(discount));
    let minimum = match minimum_billed_seconds {
        Some(seconds) => u64::try_from(*seconds)
            .ok()
            .filter(|seconds| *seconds <= 86_400)
            .map(Duration::from_secs)
            .ok_or_else(|| Invalid::new("minimumBilledSeconds", seconds.to_string(), "must be from 0 to 86400"))?,
        None => minimum,
    };
    Ok(Prices {
        vcpu: discounted("vcpuHour", vcpu_hour)?,
        gb: discounted("gbHour", gb_hour)?,
        ephemeral_gb: discounted("ephemeralGbHour", ephemeral_gb_hour)?,
        minimum,
        as_of: match as_of {
            Some(text) => day(text).ok_or_else(|| Invalid::new("asOf", text, "must be a date, such as 2026-11-21"))?,
            // Prices without a date do not age.
            None => Timestamp::MAX,
        },
    })
}

fn observed(prices: &api::ObservedPrices, installed: &str, minimum: Duration) -> Result<Prices, Invalid> {
    let api::ObservedPrices { vcpu_hour, gb_hour, ephemeral_gb_hour, currency, source: _, observed_at } = prices;
    check_currency("currency", currency, installed)?;
    let moment = |time: &api::Time| Timestamp::from_millis(time.0.as_millisecond());
    Ok(Prices {
        vcpu: rate("vcpuHour", vcpu_hour)?,
        gb: rate("gbHour", gb_hour)?,
        ephemeral_gb: rate("ephemeralGbHour", ephemeral_gb_hour)?,
        minimum,
        as_of: observed_at.as_ref().map_or(Timestamp::MAX, moment),
    })
}

/// One currency per installation: amounts in two cannot be compared.
pub(super) fn check_currency(field: &str, currency: &str, installed: &str) -> Result<(), Invalid> {
    if currency == installed {
        return Ok(());
    }
    Err(Invalid::new(field, currency, format!("must be {installed}, the currency of this installation")))
}

/// The beginning of a day in UTC.
fn day(text: &str) -> Option<Timestamp> {
    let midnight = text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(Timestamp::from_millis(midnight.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use policy::Rate;

    use super::*;

    #[test]
    fn thousandths_are_read_exactly() {
        for (text, value) in [("0", 0), ("0.05", 50), ("100", 100_000), ("12.345", 12_345), ("9999.999", 9_999_999)] {
            assert_eq!(thousandths(text), Some(value), "{text}");
        }
        for text in ["", ".5", "1.", "1.2345", "10000", "-1", "1e3", "0x1"] {
            assert_eq!(thousandths(text), None, "{text}");
        }
    }

    #[test]
    fn a_discount_never_makes_a_price_free() {
        let rate: Rate = "0.000000001".parse().unwrap();
        assert_eq!(rate.discounted(99_999), rate);
        assert_eq!(rate.discounted(100_000), Rate::FREE);
    }
}
