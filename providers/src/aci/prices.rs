//! Azure's published prices: an API without credentials, filtered by service, location and meter.

use std::time::Duration;

use policy::virtual_node::{CapacityType, Prices};
use policy::{Rate, Timestamp};
use reqwest::Url;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Settings;
use crate::{Error, ErrorKind, Operation, body};

/// A filtered list is a dozen entries; ten pages of a hundred are more than the whole service has in one location.
const PAGES: usize = 10;
const BODY_BYTES: usize = 4 << 20;
const TIMEOUT: Duration = Duration::from_secs(20);

/// A part of the price list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    items: Vec<Meter>,
    #[serde(default)]
    next_page_link: Option<String>,
}

/// One price.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meter {
    product_name: String,
    sku_name: String,
    meter_name: String,
    unit_of_measure: String,
    arm_region_name: String,
    #[serde(rename = "type")]
    kind: String,
    /// As it is written: a double would lose what is exact in decimals.
    retail_price: Box<RawValue>,
    #[serde(default)]
    tier_minimum_units: f64,
}

/// Today's prices of this location and capacity type, Linux, in US dollars; `None` if Azure publishes none.
pub(super) async fn read(
    client: &reqwest::Client,
    endpoint: &str,
    settings: &Settings,
    now: Timestamp,
) -> Result<Option<Prices>, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        super::error(ErrorKind::Unavailable, Operation::Observe).because(source)
    };
    let filter = format!(
        "serviceName eq 'Container Instances' and armRegionName eq '{}' and priceType eq 'Consumption'",
        settings.location.replace('\'', "")
    );
    let first = Url::parse_with_params(endpoint, [("$filter", &filter)]).map_err(|error| failed(error.into()))?;
    let mut next = Some(first.clone());
    let mut meters = Vec::new();
    for _ in 0..PAGES {
        let Some(url) = next.take() else { break };
        let page = page(client, url).await.map_err(failed)?;
        meters.extend(page.items);
        if let Some(link) = page.next_page_link.filter(|link| !link.is_empty()) {
            let link: Url = link.parse().map_err(|error: <Url as std::str::FromStr>::Err| failed(error.into()))?;
            if link.origin() != first.origin() {
                return Err(failed("the next page is at another host".into()));
            }
            next = Some(link);
        }
    }
    Ok(choose(&meters, settings, now))
}

async fn page(client: &reqwest::Client, url: Url) -> Result<Page, Box<dyn std::error::Error + Send + Sync>> {
    let answer = client.get(url).timeout(TIMEOUT).send().await?.error_for_status()?;
    Ok(serde_json::from_slice(&body::read(answer, BODY_BYTES).await?)?)
}

/// The two meters that are billed. Others have nearly the same names: confidential, GPU, Windows, the other capacity type.
fn choose(meters: &[Meter], settings: &Settings, now: Timestamp) -> Option<Prices> {
    let sku = match settings.capacity_type {
        CapacityType::OnDemand => "Standard",
        CapacityType::Spot => "Standard Spot",
    };
    let price = |resource: &str, unit: &str| {
        let name = format!("{sku} {resource} Duration");
        let sold = meters.iter().filter(|meter| {
            meter.product_name == "Container Instances"
                && meter.sku_name == sku
                && meter.meter_name == name
                && meter.unit_of_measure == unit
                && meter.arm_region_name == settings.location
                && meter.kind == "Consumption"
                && meter.tier_minimum_units == 0.0
        });
        // Should there ever be two, the dearer: under-billing is the worse error.
        sold.filter_map(|meter| rate(meter.retail_price.get())).max()
    };
    let (vcpu, gb) = (price("vCPU", "1 Hour")?, price("Memory", "1 GB Hour")?);
    Some(Prices { vcpu, gb, ephemeral_gb: Rate::FREE, minimum: Duration::ZERO, as_of: now })
}

/// A JSON number as a price. Small ones are written with an exponent, which has no more digits than a double is exact to.
fn rate(number: &str) -> Option<Rate> {
    if !number.contains(['e', 'E']) {
        return number.parse().ok();
    }
    let double: f64 = number.parse().ok()?;
    format!("{double:.12}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ownership;

    /// The list of one location as the API gives it, shortened to what is read.
    fn meters() -> Vec<Meter> {
        let meter = |product: &str, sku: &str, meter: &str, unit: &str, price: &str| {
            format!(
                r#"{{"currencyCode":"USD","tierMinimumUnits":0.0,"retailPrice":{price},"armRegionName":"eastus","productName":"{product}","skuName":"{sku}","serviceName":"Container Instances","meterName":"{meter}","unitOfMeasure":"{unit}","type":"Consumption"}}"#
            )
        };
        let own = "Container Instances";
        let items = [
            meter(own, "Standard", "Standard vCPU Duration", "1 Hour", "0.0405"),
            meter(own, "Standard", "Standard Memory Duration", "1 GB Hour", "0.00445"),
            meter(own, "Standard", "Standard Windows Software Duration", "1 Second", "1.2E-05"),
            meter(own, "Standard Spot", "Standard Spot vCPU Duration", "1 Hour", "0.01215"),
            meter(own, "Standard Spot", "Standard Spot Memory Duration", "1 GB Hour", "0.001335"),
            meter(own, "Confidential containers ACI", "Confidential containers ACI vCPU Duration", "1 Hour", "0.05"),
            meter("Container Instances GPU", "Standard", "Standard vCPU Duration", "1 Hour", "9"),
        ];
        let page: Page =
            serde_json::from_str(&format!(r#"{{"Items":[{}],"NextPageLink":null}}"#, items.join(","))).expect("JSON");
        assert!(page.next_page_link.is_none());
        page.items
    }

    fn settings(location: &str, capacity_type: CapacityType) -> Settings {
        let ownership = Ownership { cluster: "c".into(), virtual_node: "v".into() };
        Settings { capacity_type, ..Settings::new("s", "g", location, ownership) }
    }

    #[test]
    fn the_right_meters_are_chosen_exactly() {
        let now = Timestamp::from_millis(1);
        let chosen = |capacity_type| choose(&meters(), &settings("eastus", capacity_type), now).expect("sold there");
        let regular = chosen(CapacityType::OnDemand);
        assert_eq!((regular.vcpu, regular.gb), ("0.0405".parse().expect("rate"), "0.00445".parse().expect("rate")));
        assert_eq!((regular.minimum, regular.as_of), (Duration::ZERO, now));
        let spot = chosen(CapacityType::Spot);
        assert_eq!((spot.vcpu, spot.gb), ("0.01215".parse().expect("rate"), "0.001335".parse().expect("rate")));
        assert_eq!(choose(&meters(), &settings("westus", CapacityType::OnDemand), now), None);
    }

    #[test]
    fn small_numbers_have_exponents() {
        assert_eq!(rate("1.2E-05"), "0.000012".parse().ok());
        assert_eq!(rate("0.1"), "0.1".parse().ok());
        assert_eq!(rate("-1"), None);
        assert_eq!(rate("true"), None);
    }
}
