//! Kubernetes quantities (`500m`, `1Gi`, `1.5e3`) as exact integers.
//!
//! Semantics are those of apimachinery's `resource.Quantity`: a value finer than a nano is rounded away from zero, a value
//! beyond ±(2⁶³−1) stops there.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;

const NANO: i128 = 1_000_000_000;
const LARGEST: i128 = (i64::MAX as i128) * NANO;

/// An exact Kubernetes quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    nanos: i128,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Quantity = Quantity { nanos: 0 };

    /// A whole number.
    pub const fn from_units(units: i64) -> Quantity {
        Quantity { nanos: units as i128 * NANO }
    }

    /// A number of thousandths, as CPU is counted.
    pub const fn from_millis(millis: i64) -> Quantity {
        Quantity { nanos: millis as i128 * (NANO / 1000) }
    }

    /// The value in units of 10⁻⁹, for exact arithmetic; within ±(2⁶³−1)·10⁹.
    pub const fn nanos(self) -> i128 {
        self.nanos
    }

    /// A value in units of 10⁻⁹, stopping at the range's ends.
    pub fn from_nanos(nanos: i128) -> Quantity {
        Quantity { nanos: nanos.clamp(-LARGEST, LARGEST) }
    }

    /// The value rounded up to whole units (bytes, pods).
    pub fn units_up(self) -> i64 {
        saturate(div_up(self.nanos, NANO))
    }

    /// The value rounded up to thousandths (milli-CPU).
    pub fn millis_up(self) -> i64 {
        saturate(div_up(self.nanos, NANO / 1000))
    }

    /// Whether the value has no fraction.
    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Quantity, ParseError> {
        let refuse = || ParseError::new("quantity", text, "a Kubernetes quantity such as \"500m\", \"2\" or \"1.5Gi\"");
        if text.is_empty() || text.len() > 64 {
            return Err(refuse());
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(refuse());
        }
        let scale = Scale::parse(suffix).ok_or_else(refuse)?;
        let magnitude = scale.nanos(whole, fraction);
        Ok(Quantity { nanos: if negative { -magnitude } else { magnitude } })
    }
}

/// Canonical form: the largest suffix that needs no fraction; binary suffixes only where the value is a multiple of 1Ki.
impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return out.write_str("0");
        }
        if self.nanos % (NANO * 1024) == 0 {
            let units = self.nanos / NANO;
            for (power, suffix) in [(6, "Ei"), (5, "Pi"), (4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")] {
                let unit = 1024_i128.pow(power);
                if units % unit == 0 {
                    return write!(out, "{}{suffix}", units / unit);
                }
            }
        }
        for (exponent, suffix) in [(27, "E"), (24, "P"), (21, "T"), (18, "G"), (15, "M"), (12, "k"), (9, ""), (6, "m"), (3, "u")]
        {
            let unit = 10_i128.pow(exponent);
            if self.nanos % unit == 0 {
                return write!(out, "{}{suffix}", self.nanos / unit);
            }
        }
        write!(out, "{}n", self.nanos)
    }
}

/// What a suffix multiplies by: a power of 1024, or a power of ten.
#[derive(Clone, Copy)]
enum Scale {
    Binary(u32),
    Decimal(i32),
}

impl Scale {
    fn parse(suffix: &str) -> Option<Scale> {
        Some(match suffix {
            "n" => Scale::Decimal(-9),
            "u" => Scale::Decimal(-6),
            "m" => Scale::Decimal(-3),
            "" => Scale::Decimal(0),
            "k" => Scale::Decimal(3),
            "M" => Scale::Decimal(6),
            "G" => Scale::Decimal(9),
            "T" => Scale::Decimal(12),
            "P" => Scale::Decimal(15),
            "E" => Scale::Decimal(18),
            "Ki" => Scale::Binary(1),
            "Mi" => Scale::Binary(2),
            "Gi" => Scale::Binary(3),
            "Ti" => Scale::Binary(4),
            "Pi" => Scale::Binary(5),
            "Ei" => Scale::Binary(6),
            exponent => {
                let digits = exponent.strip_prefix(['e', 'E'])?;
                let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
                if unsigned.is_empty() || unsigned.len() > 9 || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                Scale::Decimal(digits.parse().ok()?)
            }
        })
    }

    /// `whole.fraction × scale` in nanos, rounded up, stopping at the largest value.
    fn nanos(self, whole: &str, fraction: &str) -> i128 {
        let (factor, shift) = match self {
            Scale::Binary(power) => (1024_i128.pow(power), 0),
            Scale::Decimal(exponent) => (1, exponent),
        };
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').collect();
        // The digits stand for `digits × 10^(9 + shift − fraction)` nanos.
        let exponent = 9_i64 + i64::from(shift) - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
        let mut value: i128 = 0;
        let mut lost = false;
        let kept = if exponent < 0 {
            digits.len().saturating_sub(usize::try_from(-exponent).unwrap_or(usize::MAX))
        } else {
            digits.len()
        };
        // A binary suffix multiplies before anything is cut, so its digits are all kept and divided at the end.
        let (kept, divisor) = match self {
            Scale::Binary(_) if exponent < 0 => (digits.len(), 10_i128.checked_pow(u32::try_from(-exponent).unwrap_or(u32::MAX))),
            _ => (kept, Some(1)),
        };
        for (place, digit) in digits.iter().enumerate() {
            if place < kept {
                value = value.saturating_mul(10).saturating_add(i128::from(*digit));
            } else {
                lost |= *digit != 0;
            }
        }
        let value = value.saturating_mul(factor);
        let value = match divisor {
            Some(divisor) => div_up(value, divisor),
            None => i128::from(value != 0),
        };
        let grown = if exponent > 0 && value != 0 {
            u32::try_from(exponent)
                .ok()
                .and_then(|power| 10_i128.checked_pow(power))
                .map_or(i128::MAX, |ten| value.saturating_mul(ten))
        } else {
            value
        };
        grown.saturating_add(i128::from(lost)).min(LARGEST)
    }
}

fn div_up(numerator: i128, denominator: i128) -> i128 {
    numerator.div_euclid(denominator) + i128::from(numerator.rem_euclid(denominator) != 0)
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests;
