//! The type behind `quantity(..)`: Kubernetes' quantities with the methods that its CEL documents.

use std::any::Any;
use std::cmp::Ordering;

use cel::common::types::{CelBool, CelDouble, CelInt, CelString, Type};
use cel::common::value::{StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError, add_member_overload, add_overload};
use policy::Quantity;

static TYPE: Type = Type::new_unspecified_type("kubernetes.Quantity");

/// A quantity in an expression.
#[derive(Clone, Copy, Debug)]
struct Amount {
    exact: Quantity,
    /// The same as a scaled integer, where apimachinery holds it as one. Whether `asInteger` works depends on that and
    /// not on the value: it does for `1k` and not for `1.0`.
    scaled: Option<Scaled>,
}

/// `value × 10^scale`.
#[derive(Clone, Copy, Debug)]
struct Scaled {
    value: i64,
    scale: i32,
}

impl Val for Amount {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        &TYPE
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Amount>().is_some_and(|other| other.exact == self.exact)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(*self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Amount {}

/// Adds `quantity` and its methods to a language.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    add_overload!(env, fn quantity: (CelString<'_>) -> Result<Amount>)?;
    add_overload!(env, fn sign: (Amount) -> CelInt)?;
    add_member_overload!(env, fn compare_to: (Amount, Amount) -> CelInt)?;
    add_member_overload!(env, fn is_greater_than: (Amount, Amount) -> CelBool)?;
    add_member_overload!(env, fn is_less_than: (Amount, Amount) -> CelBool)?;
    add_member_overload!(env, fn is_integer: (Amount) -> CelBool)?;
    add_member_overload!(env, fn as_integer: (Amount) -> Result<CelInt>)?;
    add_member_overload!(env, fn as_approximate_float: (Amount) -> CelDouble)?;
    add_member_overload!(env, fn add: (Amount, Amount) -> Amount)?;
    add_member_overload!(env, fn add_integer: (Amount, CelInt) -> Amount, name = "add")?;
    add_member_overload!(env, fn sub: (Amount, Amount) -> Amount)?;
    add_member_overload!(env, fn sub_integer: (Amount, CelInt) -> Amount, name = "sub")
}

fn quantity(text: &CelString<'_>) -> Result<Amount, ExecutionError> {
    let exact = text.inner().parse().map_err(|error| ExecutionError::function_error("quantity", error))?;
    Ok(Amount { exact, scaled: Scaled::parse(text.inner()) })
}

fn compare_to(this: &Amount, other: &Amount) -> CelInt {
    CelInt::from(match this.exact.cmp(&other.exact) {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    })
}

fn is_greater_than(this: &Amount, other: &Amount) -> CelBool {
    CelBool::from(this.exact > other.exact)
}

fn is_less_than(this: &Amount, other: &Amount) -> CelBool {
    CelBool::from(this.exact < other.exact)
}

fn sign(this: &Amount) -> CelInt {
    compare_to(this, &Amount { exact: Quantity::ZERO, scaled: None })
}

fn is_integer(this: &Amount) -> CelBool {
    CelBool::from(this.scaled.and_then(Scaled::integer).is_some())
}

fn as_integer(this: &Amount) -> Result<CelInt, ExecutionError> {
    let integer = this.scaled.and_then(Scaled::integer);
    integer.map(CelInt::from).ok_or_else(|| ExecutionError::function_error("asInteger", "cannot convert value to integer"))
}

/// Approximate by name; quantities take part in no sum of money here.
#[allow(clippy::cast_precision_loss)]
fn as_approximate_float(this: &Amount) -> CelDouble {
    CelDouble::from(match this.scaled {
        Some(Scaled { value, scale }) => value as f64 * 10_f64.powi(scale),
        None => this.exact.nanos() as f64 * 1e-9,
    })
}

fn add(this: &Amount, other: &Amount) -> Amount {
    Amount {
        exact: Quantity::from_nanos(this.exact.nanos().saturating_add(other.exact.nanos())),
        scaled: this.scaled.zip(other.scaled).and_then(|(this, other)| this.plus(other)),
    }
}

fn add_integer(this: &Amount, other: &CelInt) -> Amount {
    add(this, &Amount::whole(*other.inner()))
}

fn sub(this: &Amount, other: &Amount) -> Amount {
    let negated = |scaled: Scaled| scaled.value.checked_neg().map(|value| Scaled { value, ..scaled });
    let other = Amount { exact: Quantity::from_nanos(-other.exact.nanos()), scaled: other.scaled.and_then(negated) };
    add(this, &other)
}

fn sub_integer(this: &Amount, other: &CelInt) -> Amount {
    sub(this, &Amount::whole(*other.inner()))
}

// === impl Amount ===

impl Amount {
    fn whole(value: i64) -> Amount {
        Amount { exact: Quantity::from_units(value), scaled: Some(Scaled { value, scale: 0 }) }
    }
}

// === impl Scaled ===

impl Scaled {
    /// Digits that fit a scaled integer.
    const DIGITS_MAX: usize = 18;
    /// Finest scale of a scaled integer: a nano.
    const SCALE_MIN: i32 = -9;

    /// `None` where apimachinery falls back to arbitrary precision. `text` is known to be a quantity.
    fn parse(text: &str) -> Option<Scaled> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let number_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            digits => digits,
        };
        let (mantissa, exponent) = Scaled::suffix(suffix, fraction, whole.len())?;
        let scale = exponent - i32::try_from(fraction.len()).ok()?;
        if whole.len() + fraction.len() > Scaled::DIGITS_MAX || scale < Scaled::SCALE_MIN {
            return None;
        }
        let value = format!("{whole}{fraction}").parse::<i64>().ok()?.checked_mul(mantissa)?;
        Some(Scaled { value: if negative { -value } else { value }, scale })
    }

    /// Factor and exponent of a suffix.
    fn suffix(suffix: &str, fraction: &str, digits: usize) -> Option<(i64, i32)> {
        let exponent = match suffix {
            "n" => -9,
            "u" => -6,
            "m" => -3,
            "" => 0,
            "k" => 3,
            "M" => 6,
            "G" => 9,
            "T" => 12,
            "P" => 15,
            "E" => 18,
            "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => {
                let power = "KMGTPE".find(&suffix[..1])? + 1;
                // Room for the digits beside those of 2^(10 × power).
                let room = 15_usize.checked_sub(digits + power * 3 + 1);
                return (fraction.is_empty() && room.is_some()).then(|| (1_i64 << (10 * power), 0));
            }
            other => other.get(1..)?.parse().ok()?,
        };
        Some((1, exponent))
    }

    fn integer(self) -> Option<i64> {
        u32::try_from(self.scale).ok().and_then(|scale| self.grown(scale))
    }

    /// The value counted in units that are `10^places` smaller.
    fn grown(self, places: u32) -> Option<i64> {
        if self.value == 0 {
            return Some(0);
        }
        10_i64.checked_pow(places).and_then(|factor| self.value.checked_mul(factor))
    }

    fn plus(self, other: Scaled) -> Option<Scaled> {
        if other.value == 0 {
            return Some(self);
        }
        if self.value == 0 {
            return Some(other);
        }
        let scale = self.scale.min(other.scale);
        let places = |amount: Scaled| u32::try_from(amount.scale - scale).ok();
        let value = self.grown(places(self)?)?.checked_add(other.grown(places(other)?)?)?;
        Some(Scaled { value, scale })
    }
}
