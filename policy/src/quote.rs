//! What one pod would cost on one virtual node.
//!
//! Three parts that can be compared as money: the cloud's bill, the price of waiting until the container runs, and on Spot
//! the work that an interruption is expected to destroy. The ledger reserves the bill; the choice goes by the sum.

use std::fmt;
use std::time::Duration;

use crate::shape::{Shape, ShapeTooLarge};
use crate::virtual_node::{CapacityType, Prices, Provider};
use crate::{Money, Rate, Timestamp, VirtualNode, Workload, millis};

/// A priced offer for one placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// What is bought.
    pub shape: Shape,
    /// Run time that the quote assumes: the expected one, at most `activeDeadlineSeconds`.
    pub run: Duration,
    /// What an hour of the shape costs.
    pub hourly: Money,
    /// What the cloud will bill for start-up and run, minimum and rounding included.
    pub bill: Money,
    /// What waiting for the start is worth.
    pub waiting: Money,
    /// Expected price of doing interrupted work again.
    pub spot_loss: Money,
}

/// Why there is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuoteRefusal {
    /// Nobody told what the backend costs.
    PricesMissing,
    /// The backend sells nothing so large.
    ShapeTooLarge(ShapeTooLarge),
}

/// Prices `workload` on `node` for an expected run time. Amounts beyond the largest [`Money`] stop there.
pub fn quote(workload: &Workload, node: &VirtualNode, run: Duration, waiting_cost: Rate) -> Result<Quote, QuoteRefusal> {
    let prices = node.prices.as_ref().ok_or(QuoteRefusal::PricesMissing)?;
    let shape = Shape::choose(workload, node).map_err(QuoteRefusal::ShapeTooLarge)?;
    let run = workload.run_limit.map_or(run, |limit| run.min(limit));
    let hourly = hourly_at(&shape, node.provider, prices);
    let bill = billed(hourly, prices, node.billed_startup.saturating_add(run));
    let spot_loss = match node.capacity_type {
        CapacityType::OnDemand => Money::ZERO,
        CapacityType::Spot => spot_loss(bill, run, node.interruptions_per_1000_hours, waiting_cost),
    };
    Ok(Quote { shape, run, hourly, bill, waiting: worth(waiting_cost, node.start_latency), spot_loss })
}

/// What an hour of the shape costs; `None` without prices.
pub fn hourly(shape: &Shape, node: &VirtualNode) -> Option<Money> {
    node.prices.as_ref().map(|prices| hourly_at(shape, node.provider, prices))
}

/// What the cloud bills for an actual run, from the start of the image pull to the end. A run that never began (the cloud
/// started nothing) is not billed and not to be asked about here: even no time at all costs the minimum.
pub fn bill(shape: &Shape, provider: Provider, prices: &Prices, started: Timestamp, finished: Timestamp) -> Money {
    billed(hourly_at(shape, provider, prices), prices, finished.since(started))
}

// === impl Quote ===

impl Quote {
    /// What the placement costs all in all; placements are chosen by this.
    pub fn total(&self) -> Money {
        self.bill.saturating_add(self.waiting).saturating_add(self.spot_loss)
    }
}

// === impl QuoteRefusal ===

impl QuoteRefusal {
    /// Constant name of the rule; never reworded.
    pub const fn label(&self) -> &'static str {
        match self {
            QuoteRefusal::PricesMissing => "pricesMissing",
            QuoteRefusal::ShapeTooLarge(_) => ShapeTooLarge::LABEL,
        }
    }
}

impl fmt::Display for QuoteRefusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuoteRefusal::PricesMissing => out.write_str("nobody told what the virtual node costs"),
            QuoteRefusal::ShapeTooLarge(refusal) => refusal.fmt(out),
        }
    }
}

impl std::error::Error for QuoteRefusal {}

/// Every resource by itself is rounded up to the nano, as it stands by itself on the cloud's bill.
fn hourly_at(shape: &Shape, provider: Provider, prices: &Prices) -> Money {
    let part = |rate: Rate, amount: i64, unit: i64| Money::from_nanos(share_up(rate.hourly().nanos(), amount, unit));
    part(prices.vcpu, shape.cpu_millis, 1000)
        .saturating_add(part(prices.gb, shape.memory_bytes, provider.gb_bytes()))
        .saturating_add(part(prices.ephemeral_gb, shape.billed_ephemeral_bytes(provider), provider.gb_bytes()))
}

/// Whole seconds, at least the minimum.
fn billed(hourly: Money, prices: &Prices, time: Duration) -> Money {
    let time = time.max(prices.minimum);
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() != 0));
    Money::from_nanos(share_up(hourly.nanos(), i64::try_from(seconds).unwrap_or(i64::MAX), 3600))
}

fn worth(rate: Rate, time: Duration) -> Money {
    Money::from_nanos(share_up(rate.hourly().nanos(), millis(time), 3_600_000))
}

/// Expected loss by interruption: P × (on demand − bill / 2 + waiting cost × run / 2).
///
/// An interrupted pod starts again from nothing, on demand so that it ends for sure. An interruption comes on average in the
/// middle: half of the Spot bill is then not spent, half of the run is lost time. What on demand costs is not known of a
/// backend that sells Spot; both clouds that have it ask about 30 % of the list price, so it is taken as 10/3 of the bill.
fn spot_loss(bill: Money, run: Duration, interruptions_per_1000_hours: u32, waiting_cost: Rate) -> Money {
    let repeated = Money::from_nanos(share_up(bill.nanos(), 17, 6));
    let lost = repeated.saturating_add(worth(waiting_cost, run / 2));
    let millionths = interruption_millionths(interruptions_per_1000_hours, run);
    Money::from_nanos(share_up(lost.nanos(), millionths, 1_000_000))
}

/// Probability of at least one interruption during a run, in millionths.
///
/// With x expected interruptions it is 1 − e⁻ˣ; with e^x as 1 + x + x²/2 + x³/6 it is at most three hundredths too small,
/// grows with the run and needs integers only.
fn interruption_millionths(per_1000_hours: u32, run: Duration) -> i64 {
    const ONE: i64 = 1_000_000;
    // Sixteen expected interruptions are as good as certain (998.8 in a thousand here), and the powers still fit.
    let expected = i64::from(per_1000_hours).saturating_mul(millis(run)) / 3600;
    let x = expected.min(16 * ONE);
    let square = x * x / (2 * ONE);
    let cube = square * x / (3 * ONE);
    let exponential = ONE + x + square + cube;
    share_up(exponential - ONE, ONE, exponential)
}

/// `amount × part / whole` rounded up, stopping at the largest number; nothing negative comes in.
fn share_up(amount: i64, part: i64, whole: i64) -> i64 {
    debug_assert!(whole > 0, "a share needs a positive denominator");
    let (amount, part) = (amount.max(0), part.max(0));
    // Nearly every price fits 64 bits, where a division takes a tenth of the time that 128 bits need.
    if let Some(product) = amount.checked_mul(part) {
        return product / whole + i64::from(product % whole != 0);
    }
    let (product, whole) = (i128::from(amount) * i128::from(part), i128::from(whole));
    i64::try_from(product / whole + i128::from(product % whole != 0)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
