//! Money as exact integers.
//!
//! One currency per installation, so an amount carries no currency. The unit is the nano (10⁻⁹ of the currency unit):
//! list prices of serverless clouds have up to eight decimals per hour, and i64 nanos still reach nine billion.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;

const NANOS_PER_UNIT: i64 = 1_000_000_000;
const MILLIS_PER_HOUR: i128 = 3_600_000;

/// An amount of money in nano-units of the installation's currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money {
    nanos: i64,
}

/// Money per hour for one unit of a resource (one vCPU, one GB).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    per_hour: Money,
}

// === impl Money ===

impl Money {
    /// Nothing.
    pub const ZERO: Money = Money { nanos: 0 };
    /// The largest amount; used where "no limit" must still be a number.
    pub const MAX: Money = Money { nanos: i64::MAX };

    /// An amount from nano-units.
    pub const fn from_nanos(nanos: i64) -> Money {
        Money { nanos }
    }

    /// The amount in nano-units.
    pub const fn nanos(self) -> i64 {
        self.nanos
    }

    /// `None` on overflow: a budget that wraps is worse than one that refuses.
    pub fn checked_add(self, other: Money) -> Option<Money> {
        self.nanos.checked_add(other.nanos).map(Money::from_nanos)
    }

    /// `None` on overflow.
    pub fn checked_sub(self, other: Money) -> Option<Money> {
        self.nanos.checked_sub(other.nanos).map(Money::from_nanos)
    }

    /// Sum that stops at the largest amount, for limits and reports.
    pub fn saturating_add(self, other: Money) -> Money {
        Money::from_nanos(self.nanos.saturating_add(other.nanos))
    }

    /// Difference that stops at the extremes.
    pub fn saturating_sub(self, other: Money) -> Money {
        Money::from_nanos(self.nanos.saturating_sub(other.nanos))
    }

    /// `self × numerator / denominator`, rounded up (away from under-billing), stopping at the extremes.
    ///
    /// `denominator` must be positive.
    pub fn scaled_up(self, numerator: i128, denominator: i128) -> Money {
        debug_assert!(denominator > 0, "a share needs a positive denominator");
        Money::from_nanos(clamp(div_up(i128::from(self.nanos).saturating_mul(numerator), denominator)))
    }

    /// Rounded up to the given number of decimals, as people expect to read it.
    pub fn display_decimals(self, decimals: usize) -> String {
        let decimals = decimals.min(9);
        let step = 10_i128.pow(u32::try_from(9 - decimals).unwrap_or(0));
        let rounded = div_up(i128::from(self.nanos), step);
        let unit = 10_i128.pow(u32::try_from(decimals).unwrap_or(0));
        let sign = if rounded < 0 { "-" } else { "" };
        let rounded = rounded.abs();
        if decimals == 0 {
            return format!("{sign}{rounded}");
        }
        format!("{sign}{}.{:0width$}", rounded / unit, rounded % unit, width = decimals)
    }
}

/// Parses a decimal string such as `12.50`. More than nine decimals are rounded up, so that nothing is under-billed.
impl FromStr for Money {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Money, ParseError> {
        let refuse = || ParseError::new("amount of money", text, "a decimal number such as \"12.50\"");
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let decimal = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !decimal(whole) || !decimal(fraction) || digits.ends_with('.') || digits.len() > 40 {
            return Err(refuse());
        }
        let mut nanos: i128 =
            whole.parse::<i128>().map_err(|_| refuse())?.checked_mul(i128::from(NANOS_PER_UNIT)).ok_or_else(refuse)?;
        let (kept, rest) = fraction.split_at(fraction.len().min(9));
        if !kept.is_empty() {
            let scale = 10_i128.pow(u32::try_from(9 - kept.len()).map_err(|_| refuse())?);
            nanos += kept.parse::<i128>().map_err(|_| refuse())? * scale;
        }
        // Rounding up means towards more to pay, so only a positive amount gains the last nano.
        if !negative && rest.bytes().any(|byte| byte != b'0') {
            nanos += 1;
        }
        let nanos = if negative { -nanos } else { nanos };
        i64::try_from(nanos).map(Money::from_nanos).map_err(|_| refuse())
    }
}

/// The shortest exact decimal, with at least two decimals: `12.50`, `0.000001349`.
impl fmt::Display for Money {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.nanos < 0 { "-" } else { "" };
        let magnitude = self.nanos.unsigned_abs();
        let (whole, fraction) = (magnitude / NANOS_PER_UNIT.unsigned_abs(), magnitude % NANOS_PER_UNIT.unsigned_abs());
        let fraction = format!("{fraction:09}");
        let kept = fraction.trim_end_matches('0').len().max(2);
        write!(out, "{sign}{whole}.{}", &fraction[..kept])
    }
}

impl std::iter::Sum for Money {
    fn sum<I: Iterator<Item = Money>>(amounts: I) -> Money {
        amounts.fold(Money::ZERO, Money::saturating_add)
    }
}

// === impl Rate ===

impl Rate {
    /// Free of charge, as room on a node that is paid for anyway.
    pub const FREE: Rate = Rate { per_hour: Money::ZERO };

    /// A price per hour.
    pub const fn per_hour(per_hour: Money) -> Rate {
        Rate { per_hour }
    }

    /// What one hour of one unit costs.
    pub const fn hourly(self) -> Money {
        self.per_hour
    }

    /// Price of `thousandths` of a unit for `millis` milliseconds, rounded up to the next nano.
    pub fn price(self, thousandths: i64, millis: i64) -> Money {
        let product = i128::from(self.per_hour.nanos) * i128::from(thousandths) * i128::from(millis);
        Money::from_nanos(clamp(div_up(product, 1000 * MILLIS_PER_HOUR)))
    }

    /// The rate after a discount in thousandths of a per cent (20 % = 20 000), rounded up.
    pub fn discounted(self, millipercent: u32) -> Rate {
        let left = 100_000_i128 - i128::from(millipercent.min(100_000));
        Rate { per_hour: self.per_hour.scaled_up(left, 100_000) }
    }
}

impl FromStr for Rate {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Rate, ParseError> {
        let per_hour: Money = text.parse()?;
        if per_hour < Money::ZERO {
            return Err(ParseError::new("price per hour", text, "zero or more"));
        }
        Ok(Rate { per_hour })
    }
}

fn div_up(numerator: i128, denominator: i128) -> i128 {
    numerator.div_euclid(denominator) + i128::from(numerator.rem_euclid(denominator) != 0)
}

fn clamp(nanos: i128) -> i64 {
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn money(text: &str) -> Money {
        text.parse().expect("the test's own amount")
    }

    #[test]
    fn reads_and_prints_decimals() {
        for (text, nanos, printed) in [
            ("0", 0, "0.00"),
            ("12.50", 12_500_000_000, "12.50"),
            ("0.04048", 40_480_000, "0.04048"),
            ("-3.2", -3_200_000_000, "-3.20"),
            ("0.0000000001", 1, "0.000000001"),
            ("9223372036.854775807", i64::MAX, "9223372036.854775807"),
        ] {
            assert_eq!(money(text).nanos(), nanos, "{text}");
            assert_eq!(money(text).to_string(), printed, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_decimal() {
        for text in ["", ".", "1.", ".5", "1e3", "1,5", "+1", "--1", "NaN", "1_000", "9223372036.854775808", " 1"] {
            assert!(text.parse::<Money>().is_err(), "{text:?} was taken");
        }
        assert!("-1".parse::<Rate>().is_err(), "a negative price was taken");
    }

    #[test]
    fn price_is_rounded_up_once() {
        let fargate_vcpu: Rate = "0.04048".parse().expect("rate");
        assert_eq!(fargate_vcpu.price(1000, 3_600_000), money("0.04048"));
        assert_eq!(fargate_vcpu.price(250, 60_000), money("0.000168667"));
        assert_eq!(Rate::FREE.price(64_000, i64::MAX), Money::ZERO);
    }

    #[test]
    fn people_read_cents_rounded_up() {
        assert_eq!(money("1.2345").display_decimals(2), "1.24");
        assert_eq!(money("-1.2345").display_decimals(2), "-1.23");
        assert_eq!(money("7").display_decimals(0), "7");
    }

    proptest! {
        #[test]
        fn print_then_parse_is_identity(nanos in any::<i64>().prop_filter("has a positive twin", |n| *n != i64::MIN)) {
            let amount = Money::from_nanos(nanos);
            prop_assert_eq!(money(&amount.to_string()), amount);
        }

        #[test]
        fn price_is_monotone(rate in 0..10_000_000_000_i64, size in 0..1_000_000_i64, time in 0..1_000_000_000_i64, more in 0..1000_i64) {
            let at = |rate, size, time| Rate::per_hour(Money::from_nanos(rate)).price(size, time);
            prop_assert!(at(rate + more, size, time) >= at(rate, size, time));
            prop_assert!(at(rate, size + more, time) >= at(rate, size, time));
            prop_assert!(at(rate, size, time + more) >= at(rate, size, time));
        }
    }
}
