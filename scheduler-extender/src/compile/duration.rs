//! Durations as Kubernetes writes them.

use std::time::Duration;

/// Longest text; what people write is far shorter.
const LENGTH_MAX: usize = 32;

/// Reads a duration such as `90s`, `1h30m`, `1.5h` or `250ms`; without sign, in whole nanoseconds, cut off.
pub fn duration(text: &str) -> Option<Duration> {
    if text.is_empty() || text.len() > LENGTH_MAX {
        return None;
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        total = total.checked_add(part(number, unit)?)?;
        rest = tail;
    }
    Some(total)
}

fn part(number: &str, unit: &str) -> Option<Duration> {
    let unit: u128 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let nanos = whole.parse::<u128>().ok()? * unit + fraction.parse::<u128>().ok()? * unit / scale;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_kubernetes_writes() {
        for (text, millis) in [
            ("0s", 0),
            ("45s", 45_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("1m0.5s", 60_500),
            ("24h0m0s", 86_400_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-5s", "+5s", "5d", "1.s", ".5s", "1..5s", "5us", "9999999999s", "1h ", "1h1", "５s"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
        assert_eq!(duration(&"999999999h".repeat(4)), None);
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer(text in "\\PC{0,40}") {
            let _ = duration(&text);
        }

        #[test]
        fn parts_add_up(hours in 0..1000_u64, minutes in 0..1000_u64, seconds in 0..1000_u64) {
            let expected = Duration::from_secs(hours * 3600 + minutes * 60 + seconds);
            prop_assert_eq!(duration(&format!("{hours}h{minutes}m{seconds}s")), Some(expected));
        }
    }
}
