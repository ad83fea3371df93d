use super::*;

/// An excerpt of the file of eu-central-1, reduced to what is read and to neighbours that must not be mistaken for it.
const FILE: &str = include_str!("eu-central-1.json");

fn parsed(text: &str) -> Rate {
    text.parse().expect("the test's own price")
}

#[test]
fn prices_are_found_by_their_whole_usage_type() {
    let now = Timestamp::from_millis(7);
    let prices = parse(FILE.as_bytes(), Architecture::Amd64, now).expect("prices");
    assert_eq!((prices.vcpu, prices.gb, prices.ephemeral_gb), (parsed("0.04656"), parsed("0.00511"), parsed("0.000133")));
    assert_eq!((prices.minimum, prices.as_of), (Duration::from_secs(60), now));
    let arm = parse(FILE.as_bytes(), Architecture::Arm64, now).expect("prices");
    assert_eq!((arm.vcpu, arm.gb), (parsed("0.03725"), parsed("0.00409")));
}

#[test]
fn a_price_list_without_a_price_says_which() {
    let without = FILE.replace("EUC1-Fargate-GB-Hours", "EUC1-Something-Else");
    let error = parse(without.as_bytes(), Architecture::Amd64, Timestamp::EPOCH).expect_err("a price is missing");
    assert_eq!(error.to_string(), "the price list has no price for Fargate-GB-Hours");
    let free = FILE.replace("0.0465600000", "free");
    assert!(matches!(parse(free.as_bytes(), Architecture::Amd64, Timestamp::EPOCH), Err(PriceListError::NotANumber(_))));
    assert!(matches!(parse(b"<html>", Architecture::Amd64, Timestamp::EPOCH), Err(PriceListError::Unreadable(_))));
}
