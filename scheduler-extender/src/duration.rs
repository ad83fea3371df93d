//! Durations as Kubernetes writes them: `90s`, `1h30m`, `1.5h`.

use std::time::Duration;

const NANOS: [(&str, u128); 8] = [
    // A unit comes before the shorter one that it begins with.
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
/// Longer than anything Kubernetes prints; a hint may come from anybody.
const LENGTH_MAX: usize = 64;
/// Go's durations end at 2⁶³ nanoseconds, about 292 years.
const NANOS_MAX: u128 = i64::MAX as u128;

/// Reads a duration in Go's notation, which is that of every duration in Kubernetes' objects. A sign, negative durations
/// included, is refused: nothing here lasts less than no time. Fractions of a nanosecond are cut off.
pub fn parse(text: &str) -> Option<Duration> {
    if text.len() > LENGTH_MAX {
        return None;
    }
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut nanos) = (text, 0_u128);
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let (unit, factor) = NANOS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        nanos = nanos.checked_add(amount(number, *factor)?).filter(|nanos| *nanos <= NANOS_MAX)?;
        rest = &tail[unit.len()..];
    }
    (!text.is_empty()).then(|| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

/// `number × factor`, where the number may have a point, with digits on at least one side of it.
fn amount(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let read = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
    // Below a nanosecond nothing counts, so fourteen digits are enough even for hours.
    let fraction = &fraction[..fraction.len().min(14)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    read(whole)?.checked_mul(factor)?.checked_add(read(fraction)? * factor / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_prints() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("90s", 90_000),
            ("1m30s", 90_000),
            ("1h0m0s", 3_600_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("5.s", 5_000),
            ("250ms", 250),
            ("1500us", 1),
            ("1500µs", 1),
            ("1000000ns", 1),
            ("8760h", 31_536_000_000),
            ("1s1s", 2_000),
        ] {
            assert_eq!(parse(text).map(|time| time.as_millis()), Some(millis), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in
            ["", "90", "s", ".s", "1.2.3s", "-1s", "+1s", "1d", "1 s", "1h-5m", "2562048h", "ten minutes", "1S", "1_0s", "١s"]
        {
            assert_eq!(parse(text), None, "{text:?} was taken");
        }
        assert_eq!(parse(&"1s".repeat(33)), None, "a text without end was taken");
        assert_eq!(parse("99999999999999999999999999999999999999999999h"), None);
    }
}
