//! The bill, as a cloud writes it.
//!
//! On purpose not the engine's quote: one is checked against the other.

use std::time::Duration;

use policy::virtual_node::{Prices, Provider};
use policy::{Money, Shape, millis};

const SECOND_MILLIS: i64 = 1000;

/// What `shape` costs for `billed` time: whole seconds, rounded up, at least the minimum.
pub(super) fn charge(provider: Provider, prices: &Prices, shape: &Shape, billed: Duration) -> Money {
    let billed_millis = millis(billed.max(prices.minimum));
    let seconds = billed_millis / SECOND_MILLIS + i64::from(billed_millis % SECOND_MILLIS != 0);
    let time = seconds.saturating_mul(SECOND_MILLIS);
    let gigabyte = i128::from(provider.gb_bytes());
    let gb_thousandths = (i128::from(shape.memory_bytes.max(0)) * 1000 + gigabyte - 1) / gigabyte;
    let gb_thousandths = i64::try_from(gb_thousandths).unwrap_or(i64::MAX);
    prices.vcpu.price(shape.cpu_millis.max(0), time).saturating_add(prices.gb.price(gb_thousandths, time))
}
