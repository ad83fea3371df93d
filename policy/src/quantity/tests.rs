use super::*;
use proptest::prelude::*;

const KI: i128 = 1024;

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// Text, mantissa and power of ten, as apimachinery's own tests have them.
fn check(cases: &[(&str, i128, i32)]) {
    for (text, mantissa, exponent) in cases {
        let nanos = 10_i128.pow(u32::try_from(9 + exponent).expect("not finer than a nano")) * mantissa;
        for (sign, nanos) in [("", nanos), ("+", nanos), ("-", -nanos)] {
            let text = format!("{sign}{text}");
            assert_eq!(quantity(&text).nanos(), nanos, "{text}");
        }
    }
}

#[test]
fn zero_with_any_suffix() {
    for suffix in ["", "n", "u", "m", "Ki", "k", "Mi", "M", "Gi", "G", "Ti", "T", "Pi", "P", "Ei", "E", "e3", "E-3"] {
        check(&[(&format!("0{suffix}"), 0, 0), (&format!("00.000{suffix}"), 0, 0)]);
        assert_eq!(quantity(&format!("0{suffix}")).to_string(), "0");
    }
}

#[test]
fn binary_suffixes() {
    check(&[
        ("1Ki", KI, 0),
        ("8Ki", 8 * KI, 0),
        ("7Mi", 7 * KI.pow(2), 0),
        ("6Gi", 6 * KI.pow(3), 0),
        ("5Ti", 5 * KI.pow(4), 0),
        ("4Pi", 4 * KI.pow(5), 0),
        ("3Ei", 3 * KI.pow(6), 0),
        ("10Ti", 10 * KI.pow(4), 0),
        ("100Ti", 100 * KI.pow(4), 0),
        ("100.035Ki", 10_243_584, -2),
        ("0.5Mi", KI.pow(2) / 2, 0),
        ("0.05Gi", 536_870_912, -1),
        ("0.025Ti", 274_877_906_944, -1),
        ("1.5Gi", 3 * KI.pow(3) / 2, 0),
    ]);
}

#[test]
fn decimal_suffixes_and_none() {
    check(&[
        ("1", 1, 0),
        ("9", 9, 0),
        ("5n", 5, -9),
        ("4u", 4, -6),
        ("3m", 3, -3),
        ("8k", 8, 3),
        ("50k", 5, 4),
        ("7M", 7, 6),
        ("6G", 6, 9),
        ("5T", 5, 12),
        ("40T", 4, 13),
        ("300T", 3, 14),
        ("2P", 2, 15),
        ("1E", 1, 18),
        ("9.01", 901, -2),
        ("8.1k", 81, 2),
        ("7.123456M", 7_123_456, 0),
        ("6.987654321G", 6_987_654_321, 0),
        ("5.444T", 5444, 9),
        ("40.1T", 401, 11),
        ("300.2T", 3002, 11),
        ("2.5P", 25, 14),
        ("1.01E", 101, 16),
        ("10.035M", 10_035, 3),
        ("100.035k", 100_035, 0),
    ]);
}

#[test]
fn exponents() {
    check(&[
        ("1E-3", 1, -3),
        ("1e3", 1, 3),
        ("1E6", 1, 6),
        ("1e9", 1, 9),
        ("1E12", 1, 12),
        ("1e13", 1, 13),
        ("1e14", 1, 14),
        ("1e15", 1, 15),
        ("1E18", 1, 18),
        ("0.5e0", 5, -1),
        ("0.5e-1", 5, -2),
        ("0.5e-2", 5, -3),
        ("1.2e3", 12, 2),
        ("1.3E+6", 13, 5),
        ("1.40e9", 14, 8),
        ("1.53E12", 153, 10),
        ("1.6e15", 16, 14),
        ("1.7E18", 17, 17),
    ]);
}

#[test]
fn fractions() {
    check(&[
        ("0.001", 1, -3),
        ("0.005", 5, -3),
        ("0.05", 5, -2),
        ("0.5", 5, -1),
        ("0.00500", 5, -3),
        ("0.05000", 5, -2),
        ("0.50000", 5, -1),
        ("0.0005k", 5, -1),
        ("0.00050k", 5, -1),
        (".001", 1, -3),
        (".0001k", 100, -3),
        ("1.", 1, 0),
        ("1.G", 1, 9),
    ]);
}

#[test]
fn what_is_finer_than_a_nano_is_rounded_away_from_zero() {
    check(&[
        ("3.001n", 4, -9),
        ("1.1E-9", 2, -9),
        ("0.0000000001", 1, -9),
        ("0.0000000005", 1, -9),
        ("0.00000000050", 1, -9),
        ("0.5e-9", 1, -9),
        ("0.9n", 1, -9),
        ("0.00000012345", 124, -9),
        ("0.00000012354", 124, -9),
        ("0.000000000001Ki", 2, -9),
        ("1e-999999999", 1, -9),
        // A long fraction is not cut before the suffix has multiplied it.
        ("9.99999999999999999999999999999999999999999999999999999999Ki", 10_240, 0),
        ("0.0000000000000000000000000000000000000000000000000000000001Ei", 1, -9),
    ]);
}

#[test]
fn binary_values_stop_where_64_bits_end_and_decimal_ones_go_on() {
    let largest = i128::from(i64::MAX);
    check(&[
        ("9Ei", largest, 0),
        ("8Ei", largest, 0),
        ("9223372036854775807Ki", largest, 0),
        ("99999999999999999999999999999999999999999999999999999.9Ei", largest, 0),
        ("12E", 12, 18),
        ("18446744073709551616", 1 << 64, 0),
        ("1000E", 1, 21),
        ("1000000E", 1, 24),
    ]);
    for text in ["1e29", "1e30", "1e999999999", "99999999999999999999999999999999999999999E"] {
        check(&[(text, 1, 29)]);
    }
    assert_eq!(quantity("12E").units_up(), i64::MAX);
    assert_eq!(quantity("-12E").units_up(), i64::MIN);
}

/// apimachinery reads a missing number as zero; a pod that came through the API server may be written so.
#[test]
fn a_number_without_digits_is_zero() {
    for text in [".", "+", "-", "-.", "m", "Ki", ".Gi", "e3"] {
        assert_eq!(quantity(text), Quantity::ZERO, "{text}");
    }
}

#[test]
fn refuses_what_apimachinery_refuses() {
    for text in [
        "",
        "1.1.M",
        "1.1.1",
        "1+1.0M",
        "0.1mi",
        "0.1am",
        "aoeu",
        "Non-Numeric",
        ".5i",
        "1i",
        "-3.01i",
        "-3.01e-",
        "1e",
        "1e1e1",
        "1e1.5",
        " 1",
        "1 ",
        "1 Gi",
        "1K",
        "1mi",
        "1.1M1",
        "0x10",
        "--1",
        "1,5",
        "١",
        "1\u{0}",
    ] {
        assert!(text.parse::<Quantity>().is_err(), "{text:?} was taken");
    }
    assert!("1".repeat(65).parse::<Quantity>().is_err(), "a text without end was taken");
}

#[test]
fn prints_the_largest_suffix_that_loses_nothing() {
    for (text, printed) in [
        ("1024Mi", "1Gi"),
        ("307200Ki", "300Mi"),
        ("6Ki", "6Ki"),
        ("1025024Mi", "1001Gi"),
        ("1024Gi", "1Ti"),
        ("5000m", "5"),
        ("0.5", "500m"),
        ("1000M", "1G"),
        ("0.001T", "1G"),
        ("1000u", "1m"),
        ("80m", "80m"),
        ("1.08", "1080m"),
        ("1080000000n", "1080m"),
        ("300M", "300M"),
        ("1T", "1T"),
        ("1234567M", "1234567M"),
        ("1234567m", "1234567m"),
        ("3k", "3k"),
        ("1025", "1025"),
        ("16000000000", "16G"),
        ("80n", "80n"),
        ("1080u", "1080u"),
        (".001Ki", "1024m"),
        (".000001Ki", "1024u"),
        (".000000001Ki", "1024n"),
        (".000000000001Ki", "2n"),
        ("1000E", "1e21"),
        ("5000E", "5e21"),
        ("1000000E", "1e24"),
        ("-1.5Gi", "-1536Mi"),
        ("-9.01", "-9010m"),
        ("1e29", "100e27"),
    ] {
        assert_eq!(quantity(text).to_string(), printed, "{text}");
    }
}

#[test]
fn rounds_up_to_what_is_counted() {
    for (text, millis, units) in [("9.01", 9010, 10), ("100m", 100, 1), ("0.1m", 1, 1), ("1Gi", 1_073_741_824_000, 1 << 30)] {
        assert_eq!((quantity(text).millis_up(), quantity(text).units_up()), (millis, units), "{text}");
    }
    assert!(quantity("1.5Gi").is_whole() && !quantity("1.5").is_whole());
}

#[test]
fn compares_by_value() {
    for (smaller, larger) in [("50m", "100m"), ("100Gi", "10000T"), ("0", "1n"), ("-1", "0"), ("1000Mi", "1Gi")] {
        assert!(quantity(smaller) < quantity(larger), "{smaller} < {larger}");
    }
    assert_eq!(quantity("1024Mi"), quantity("1Gi"));
}

proptest! {
    #[test]
    fn print_then_parse_is_identity(units in -(i64::MAX - 1)..i64::MAX - 1, below in 0..NANO) {
        let value = Quantity::from_nanos(i128::from(units) * NANO + below);
        prop_assert_eq!(quantity(&value.to_string()), value);
    }

    #[test]
    fn print_then_parse_is_identity_for_round_numbers(mantissa in -1024..1024_i128, power in 0..6_u32, binary: bool) {
        let value = Quantity::from_nanos(mantissa * if binary { 1024_i128 } else { 1000 }.pow(power) * NANO);
        prop_assert_eq!(quantity(&value.to_string()), value);
    }

    /// The short way and the exact way agree.
    #[test]
    fn a_point_at_the_end_changes_nothing(number in 0..10_000_000_000_u64, suffix in "([num]?|[kMGTPE]|[KMGTPE]i|e-?[0-9]|)") {
        prop_assert_eq!(quantity(&format!("{number}{suffix}")), quantity(&format!("{number}.0{suffix}")));
    }

    #[test]
    fn never_panics(text in "\\PC{0,70}") {
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn never_panics_on_what_looks_like_a_quantity(text in "[+-]?[0-9]{0,40}\\.?[0-9]{0,40}([eEKMGTPnumk]i?[+-]?[0-9]{0,10})?") {
        if let Ok(value) = text.parse::<Quantity>() {
            prop_assert_eq!(quantity(&value.to_string()), value);
        }
    }
}
