//! Prices that are built in.
//!
//! For clouds whose price list cannot be reached, and as a first value before it was read. The file says for every price where
//! it comes from and of which day it is; `VirtualNode.spec.pricing` overrides all of it.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use policy::virtual_node::{CapacityType, Prices, Provider};
use policy::{Rate, Timestamp};
use serde::Deserialize;

use crate::{Architecture, OperatingSystem, Platform};

const FILE: &str = include_str!("prices.json");

/// What is bought where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer<'o> {
    /// The cloud.
    pub provider: Provider,
    /// Its region, as it names it.
    pub region: &'o str,
    /// On demand or Spot.
    pub capacity_type: CapacityType,
    /// Operating system and processor.
    pub platform: Platform,
}

/// Prices with their origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListPrices {
    /// The prices; `as_of` is the epoch where the day is not known.
    pub prices: Prices,
    /// Where they come from.
    pub source: &'static str,
}

/// No price is built in for an offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no price of {offer} is known; set spec.pricing of the virtual node (vcpuHour, gbHour, currency). {known}")]
pub struct UnknownPrice {
    /// What was asked for.
    pub offer: String,
    /// What there is, as a sentence.
    pub known: String,
}

struct Row {
    provider: Provider,
    region: String,
    capacity_type: CapacityType,
    platform: Platform,
    list: ListPrices,
}

#[derive(Deserialize)]
struct Wire {
    currency: String,
    sources: std::collections::BTreeMap<String, String>,
    prices: Vec<WireRow>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRow {
    provider: String,
    region: String,
    os: String,
    architecture: String,
    capacity_type: String,
    vcpu_hour: String,
    gb_hour: String,
    ephemeral_gb_hour: Option<String>,
    minimum_seconds: Option<u64>,
    as_of: Option<String>,
    source: String,
}

/// Parsed once; a test reads the file, so that no running program meets a bad one.
static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| rows(FILE).unwrap_or_else(|problem| panic!("prices.json: {problem}")));

/// The built-in prices of an offer.
pub fn embedded(offer: &Offer<'_>) -> Result<ListPrices, UnknownPrice> {
    let sold =
        |row: &&Row| row.provider == offer.provider && row.capacity_type == offer.capacity_type && row.platform == offer.platform;
    if let Some(row) = ROWS.iter().filter(sold).find(|row| row.region == offer.region) {
        return Ok(row.list);
    }
    let regions: Vec<&str> = ROWS.iter().filter(sold).map(|row| row.region.as_str()).collect();
    let known = match regions.as_slice() {
        [] => "None of its kind is built in.".to_owned(),
        regions => format!("Built in are those of {}.", regions.join(", ")),
    };
    Err(UnknownPrice { offer: offer.to_string(), known })
}

/// The currency of all built-in prices, ISO 4217.
pub const CURRENCY: &str = "USD";

fn rows(file: &str) -> Result<Vec<Row>, String> {
    let wire: Wire = serde_json::from_str(file).map_err(|error| error.to_string())?;
    if wire.currency != CURRENCY {
        return Err(format!("currency {} is not {CURRENCY}", wire.currency));
    }
    let sources: std::collections::BTreeMap<String, &'static str> =
        wire.sources.into_iter().map(|(name, text)| (name, &*text.leak())).collect();
    // Where nobody found the price of more disk, the dearest of the same cloud is taken: under-billing is the worse error.
    let dearest = |provider: &str| {
        let of_cloud = wire.prices.iter().filter(|row| row.provider == provider);
        of_cloud.filter_map(|row| rate(row.ephemeral_gb_hour.as_deref()?).ok()).max().unwrap_or(Rate::FREE)
    };
    let row = |row: &WireRow| {
        let ephemeral_gb = row.ephemeral_gb_hour.as_deref().map_or_else(|| Ok(dearest(&row.provider)), rate)?;
        Ok(Row {
            provider: one_of(&row.provider, &[("fargate", Provider::Fargate), ("aci", Provider::Aci)])?,
            region: row.region.clone(),
            capacity_type: one_of(&row.capacity_type, &[("on-demand", CapacityType::OnDemand), ("spot", CapacityType::Spot)])?,
            platform: Platform {
                os: one_of(&row.os, &[("linux", OperatingSystem::Linux), ("windows", OperatingSystem::Windows)])?,
                architecture: one_of(&row.architecture, &[("amd64", Architecture::Amd64), ("arm64", Architecture::Arm64)])?,
            },
            list: ListPrices {
                prices: Prices {
                    vcpu: rate(&row.vcpu_hour)?,
                    gb: rate(&row.gb_hour)?,
                    ephemeral_gb,
                    minimum: Duration::from_secs(row.minimum_seconds.unwrap_or(0)),
                    as_of: row.as_of.as_deref().map_or(Ok(Timestamp::EPOCH), day)?,
                },
                source: sources.get(&row.source).ok_or_else(|| format!("no source {}", row.source))?,
            },
        })
    };
    wire.prices.iter().map(row).collect()
}

fn one_of<T: Copy>(text: &str, allowed: &[(&str, T)]) -> Result<T, String> {
    allowed.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| format!("{text:?} is nothing known"))
}

fn rate(text: &str) -> Result<Rate, String> {
    text.parse().map_err(|_| format!("{text:?} is no price"))
}

fn day(text: &str) -> Result<Timestamp, String> {
    let day: jiff::civil::Date = text.parse().map_err(|_| format!("{text:?} is no day"))?;
    let start = day.to_zoned(jiff::tz::TimeZone::UTC).map_err(|error| error.to_string())?;
    Ok(Timestamp::from_millis(start.timestamp().as_millisecond()))
}

// === impl Offer ===

/// `on-demand linux/amd64 of fargate in eu-central-1`.
impl fmt::Display for Offer<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let os = match self.platform.os {
            OperatingSystem::Linux => "linux",
            OperatingSystem::Windows => "windows",
        };
        let architecture = match self.platform.architecture {
            Architecture::Amd64 => "amd64",
            Architecture::Arm64 => "arm64",
        };
        write!(out, "{} {os}/{architecture} of {} in {}", self.capacity_type.label(), self.provider.label(), self.region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fargate(region: &str, architecture: Architecture) -> Offer<'_> {
        let platform = Platform { os: OperatingSystem::Linux, architecture };
        Offer { provider: Provider::Fargate, region, capacity_type: CapacityType::OnDemand, platform }
    }

    fn parsed(text: &str) -> Rate {
        text.parse().expect("the test's own price")
    }

    #[test]
    fn every_built_in_price_is_read_once_and_has_a_source() {
        let rows = rows(FILE).expect("prices.json");
        for (place, row) in rows.iter().enumerate() {
            let key = |row: &Row| (row.provider, row.region.clone(), row.capacity_type, row.platform);
            assert!(rows[..place].iter().all(|other| key(other) != key(row)), "{} twice", row.region);
            assert!(!row.list.source.is_empty() && row.list.prices.vcpu > Rate::FREE && row.list.prices.gb > Rate::FREE);
        }
        assert!(rows.len() >= 15);
    }

    #[test]
    fn prices_are_exact_and_say_how_old_they_are() {
        let list = embedded(&fargate("eu-central-1", Architecture::Amd64)).expect("built in");
        assert_eq!((list.prices.vcpu, list.prices.gb), (parsed("0.04656"), parsed("0.00511")));
        assert_eq!(list.prices.minimum, Duration::from_secs(60));
        assert_eq!(list.prices.as_of, Timestamp::from_millis(1_785_888_000_000), "2026-08-05");
        assert!(list.source.contains("EUC1-Fargate"), "{}", list.source);
        // Nobody found the price of disk there; it is not taken for free.
        assert_eq!(list.prices.ephemeral_gb, parsed("0.000111"));
        let undated = embedded(&fargate("us-west-2", Architecture::Amd64)).expect("built in");
        assert_eq!(undated.prices.as_of, Timestamp::EPOCH);
    }

    #[test]
    fn architectures_systems_and_capacity_types_have_prices_of_their_own() {
        let vcpu = |offer: Offer<'_>| embedded(&offer).expect("built in").prices.vcpu;
        let linux = fargate("us-east-1", Architecture::Amd64);
        assert_eq!(vcpu(linux), parsed("0.04048"));
        assert_eq!(vcpu(fargate("us-east-1", Architecture::Arm64)), parsed("0.03238"));
        assert_eq!(vcpu(Offer { capacity_type: CapacityType::Spot, ..linux }), parsed("0.0124419"));
        let windows = Platform { os: OperatingSystem::Windows, ..linux.platform };
        assert_eq!(vcpu(Offer { platform: windows, ..linux }), parsed("0.13748"), "with the licence");
        assert_eq!(vcpu(Offer { provider: Provider::Aci, region: "eastus", ..linux }), parsed("0.0405"));
    }

    #[test]
    fn an_unknown_region_says_what_to_set() {
        let error = embedded(&fargate("af-south-1", Architecture::Amd64)).expect_err("not built in").to_string();
        assert_eq!(
            error,
            "no price of on-demand linux/amd64 of fargate in af-south-1 is known; set spec.pricing of the virtual node \
             (vcpuHour, gbHour, currency). Built in are those of us-east-1, us-west-2, eu-west-1, eu-central-1, ap-northeast-1."
        );
    }

    #[test]
    fn a_bad_file_is_refused() {
        for (from, to) in [("0.04656", "free"), ("\"linux\"", "\"beos\""), ("\"USD\"", "\"EUR\""), ("2026-08-05", "2026-13-05")] {
            assert!(rows(&FILE.replacen(from, to, 9)).is_err(), "{to} was taken");
        }
    }
}
