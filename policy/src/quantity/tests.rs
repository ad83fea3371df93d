use super::*;
use proptest::prelude::*;

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn reads_the_forms_people_write() {
    for (text, nanos) in [
        ("0", 0),
        ("100m", NANO / 10),
        ("1", NANO),
        ("1.5Gi", NANO * 3 * 512 * 1024 * 1024),
        ("2e3", 2000 * NANO),
        ("2E3", 2000 * NANO),
        ("1E", 1_000_000_000_000_000_000 * NANO),
        ("1n", 1),
        ("0.1n", 1),
        ("-0.1n", -1),
        (".5", NANO / 2),
        ("5.", 5 * NANO),
        ("+7", 7 * NANO),
    ] {
        assert_eq!(quantity(text).nanos(), nanos, "{text}");
    }
}

#[test]
fn refuses_what_apimachinery_refuses() {
    for text in ["", ".", "-", "1.1.1", "1i", "1mi", "1.1M1", "1 Gi", "1K", "0x10", "e3", "Gi", "1e1e1", "١"] {
        assert!(text.parse::<Quantity>().is_err(), "{text:?} was taken");
    }
}

#[test]
fn stops_at_the_largest_value() {
    for text in ["9223372036854775807", "9223372036854775808", "8Ei", "1e20", "1e999999", "100000000000000000000E"] {
        assert_eq!(quantity(text).nanos(), LARGEST, "{text}");
    }
    assert_eq!(quantity("-1e999999").nanos(), -LARGEST);
}

proptest! {
    #[test]
    fn print_then_parse_is_identity(units in -(i64::MAX - 1)..i64::MAX - 1, below in 0..NANO) {
        let value = Quantity::from_nanos(i128::from(units) * NANO + below);
        prop_assert_eq!(quantity(&value.to_string()), value);
    }

    #[test]
    fn never_panics(text in "\\PC{0,70}") {
        let _ = text.parse::<Quantity>();
    }
}
