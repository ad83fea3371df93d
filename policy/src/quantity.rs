//! Kubernetes quantities (`500m`, `1Gi`, `1.5e3`) as exact integers.
//!
//! Semantics are those of apimachinery's `resource.Quantity`: a value finer than a nano is rounded away from zero; a value
//! with a binary suffix stops at ±(2⁶³−1), one with a decimal suffix does not. Digits may be missing on either side of the
//! point, and even on both: `1.`, `.5` and `+` are numbers there, so they are here. Unlike there, no text is longer than 64
//! characters and no value larger than 10²⁹.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;

const NANO: i128 = 1_000_000_000;
/// Where a value with a binary suffix stops.
const LARGEST_BINARY: i128 = (i64::MAX as i128) * NANO;
/// Where any value stops: 10²⁹, what 128 bits hold with nine decimals.
const LARGEST: i128 = 100_000_000_000_000_000_000_000_000_000 * NANO;
const LENGTH_MAX: usize = 64;

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

    /// The value in units of 10⁻⁹, for exact arithmetic; within ±10³⁸.
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
        if text.is_empty() || text.len() > LENGTH_MAX {
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
        if fraction.contains('.') {
            return Err(refuse());
        }
        let scale = Scale::parse(suffix).ok_or_else(refuse)?;
        let magnitude = scale.nanos(whole, fraction);
        Ok(Quantity { nanos: if negative { -magnitude } else { magnitude } })
    }
}

/// Canonical form: no fraction, the largest suffix that loses nothing, binary or decimal, whichever is shorter. (A quantity
/// does not remember how it was written.)
impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return out.write_str("0");
        }
        let (decimal, exponent) = divided(self.nanos, 1000);
        if self.nanos % (NANO * 1024) == 0 {
            let (binary, power) = divided(self.nanos / NANO, 1024);
            if binary.abs() <= decimal.abs()
                && let Some(suffix) = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].get(power - 1)
            {
                return write!(out, "{binary}{suffix}");
            }
        }
        match ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"].get(exponent) {
            Some(suffix) => write!(out, "{decimal}{suffix}"),
            // There is no suffix beyond 10¹⁸.
            None => write!(out, "{decimal}e{}", 3 * exponent - 9),
        }
    }
}

/// `value` without its factors of `base`, and how many there were; `value` is not zero.
fn divided(mut value: i128, base: i128) -> (i128, usize) {
    let mut power = 0;
    while value % base == 0 {
        value /= base;
        power += 1;
    }
    (value, power)
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
        let (factor, shift, largest) = match self {
            Scale::Binary(power) => (1024_u64.pow(power), 0, LARGEST_BINARY),
            Scale::Decimal(exponent) => (1, i64::from(exponent), LARGEST),
        };
        // What people write: a few digits and no fraction, at most 10¹⁰ × 10²⁷, so nothing overflows.
        if fraction.is_empty()
            && (1..=10).contains(&whole.len())
            && (-9..=18).contains(&shift)
            && let (Ok(number), Ok(power)) = (whole.parse::<i128>(), u32::try_from(9 + shift))
        {
            return (number * i128::from(factor)).saturating_mul(10_i128.pow(power)).min(largest);
        }
        let digits = multiplied(whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').collect(), factor);
        // The digits stand for `digits × 10^exponent` nanos.
        let exponent = 9 + shift - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
        let cut = usize::try_from(-exponent).unwrap_or(0).min(digits.len());
        let (kept, lost) = digits.split_at(digits.len() - cut);
        let value = kept.iter().fold(0_i128, |value, digit| value.saturating_mul(10).saturating_add(i128::from(*digit)));
        let grown = match u32::try_from(exponent).ok().and_then(|power| 10_i128.checked_pow(power)) {
            Some(power) => value.saturating_mul(power),
            // Either nothing was to be added, or more than there is room for.
            None if exponent <= 0 || value == 0 => value,
            None => i128::MAX,
        };
        grown.saturating_add(i128::from(lost.iter().any(|digit| *digit != 0))).min(largest)
    }
}

/// Decimal digits times a factor, exactly: a fraction with a binary suffix must not be cut before it is multiplied.
fn multiplied(mut digits: Vec<u8>, factor: u64) -> Vec<u8> {
    if factor == 1 {
        return digits;
    }
    let mut carry = 0_u128;
    let mut digit_of = |digit: u8| {
        let product = u128::from(digit) * u128::from(factor) + carry;
        carry = product / 10;
        u8::try_from(product % 10).unwrap_or_default()
    };
    for digit in digits.iter_mut().rev() {
        *digit = digit_of(*digit);
    }
    // 1024⁶ has nineteen digits, so no carry has more.
    let front: Vec<u8> = (0..20).map(|_| digit_of(0)).collect();
    front.into_iter().rev().chain(digits).collect()
}

fn div_up(numerator: i128, denominator: i128) -> i128 {
    numerator.div_euclid(denominator) + i128::from(numerator.rem_euclid(denominator) != 0)
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests;
