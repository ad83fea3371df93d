//! AWS's public price list.
//!
//! One JSON file for each service and region: products by SKU, prices by SKU. Fargate is sold under the usage types
//! `<prefix>Fargate-vCPU-Hours:perCPU` and so on, where the prefix is the region's (`EUC1-`; none in some files).

use std::collections::BTreeMap;
use std::time::Duration;

use policy::virtual_node::Prices;
use policy::{Rate, Timestamp};
use serde::Deserialize;

use crate::{Architecture, body};

/// The file of the largest region has about one megabyte.
const MOST_BYTES: usize = 32 << 20;
/// The whole file.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a price list was of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum PriceListError {
    #[error("no answer from the price list")]
    Unreachable(#[from] reqwest::Error),
    #[error("the price list was not read to its end")]
    Unread(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the price list is not what it was")]
    Unreadable(#[from] serde_json::Error),
    #[error("the price list has no price for {0}")]
    Missing(&'static str),
    #[error("the price list has a price that is no number: {0:?}")]
    NotANumber(String),
}

#[derive(Deserialize)]
struct Offers {
    products: BTreeMap<String, Product>,
    terms: Terms,
}

#[derive(Deserialize)]
struct Product {
    attributes: Attributes,
}

#[derive(Deserialize)]
struct Attributes {
    #[serde(default)]
    usagetype: String,
}

#[derive(Deserialize)]
struct Terms {
    #[serde(rename = "OnDemand")]
    on_demand: BTreeMap<String, BTreeMap<String, Term>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Term {
    price_dimensions: BTreeMap<String, Dimension>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dimension {
    price_per_unit: PricePerUnit,
}

#[derive(Deserialize)]
struct PricePerUnit {
    #[serde(rename = "USD")]
    usd: Option<String>,
}

/// Reads the prices of a region.
pub(super) async fn read(
    http: &reqwest::Client,
    base: &str,
    region: &str,
    architecture: Architecture,
    now: Timestamp,
) -> Result<Prices, PriceListError> {
    let url = format!("{}/offers/v1.0/aws/AmazonECS/current/{region}/index.json", base.trim_end_matches('/'));
    let answer = http.get(url).timeout(PATIENCE).send().await?.error_for_status()?;
    let body = body::read(answer, MOST_BYTES).await.map_err(PriceListError::Unread)?;
    parse(&body, architecture, now)
}

/// The prices in a price list. A whole usage type must match: `Fargate-ARM-…`, `Fargate-Windows-…` are other products.
pub(super) fn parse(body: &[u8], architecture: Architecture, now: Timestamp) -> Result<Prices, PriceListError> {
    let offers: Offers = serde_json::from_slice(body)?;
    let (vcpu, gb) = match architecture {
        Architecture::Amd64 => ("Fargate-vCPU-Hours:perCPU", "Fargate-GB-Hours"),
        Architecture::Arm64 => ("Fargate-ARM-vCPU-Hours:perCPU", "Fargate-ARM-GB-Hours"),
    };
    Ok(Prices {
        vcpu: rate(&offers, vcpu)?,
        gb: rate(&offers, gb)?,
        ephemeral_gb: rate(&offers, "Fargate-EphemeralStorage-GB-Hours")?,
        minimum: Duration::from_secs(60),
        as_of: now,
    })
}

fn rate(offers: &Offers, usage_type: &'static str) -> Result<Rate, PriceListError> {
    let is_it = |product: &Product| {
        let usage = product.attributes.usagetype.as_str();
        usage
            .strip_suffix(usage_type)
            .is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('-') && !prefix.contains("Fargate"))
    };
    let skus = offers.products.iter().filter(|(_, product)| is_it(product)).map(|(sku, _)| sku);
    let terms = skus.filter_map(|sku| offers.terms.on_demand.get(sku)).flat_map(BTreeMap::values);
    let price =
        terms.flat_map(|term| term.price_dimensions.values()).find_map(|dimension| dimension.price_per_unit.usd.as_deref());
    let price = price.ok_or(PriceListError::Missing(usage_type))?;
    price.parse().map_err(|_| PriceListError::NotANumber(price.to_owned()))
}

#[cfg(test)]
mod tests;
