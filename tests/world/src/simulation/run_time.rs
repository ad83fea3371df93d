//! How long the containers of a simulated pod run.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::random::Random;

/// What a pod's template says about its true run time, for the simulation only: `90s`, `1m30s`, or a range `60s..2m`.
pub const RUN_TIME_ANNOTATION: &str = "simulation.spillway.dev/run-time";
/// What its containers exit with, for the simulation only.
pub const EXIT_CODE_ANNOTATION: &str = "simulation.spillway.dev/exit-code";
/// The hint that Spillway reads; the simulation falls back on it.
const HINT_ANNOTATION: &str = "spillway.dev/expected-duration";
/// Truth scatters around a hint by so many percent.
const HINT_SPREAD_PERCENT: u64 = 20;

/// Draws the run time of a pod; `None` runs until somebody ends it.
pub(super) fn draw(pod: &Pod, fallback: Option<Duration>, random: &mut Random) -> Option<Duration> {
    let annotations = pod.metadata.annotations.as_ref();
    let annotation = |key: &str| annotations.and_then(|annotations| annotations.get(key));
    // Drawn for every pod, so that an annotation more changes no other pod's luck.
    let luck = random.next();
    if let Some((low, high)) = annotation(RUN_TIME_ANNOTATION).and_then(|text| range(text)) {
        return Some(between(low, high, luck));
    }
    let Some(middle) = annotation(HINT_ANNOTATION).and_then(|text| duration(text)) else { return fallback };
    let spread = middle * u32::try_from(HINT_SPREAD_PERCENT).unwrap_or(0) / 100;
    Some(between(middle.saturating_sub(spread), middle + spread, luck))
}

/// The exit code that the pod's annotations ask for.
pub(super) fn exit_code(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(EXIT_CODE_ANNOTATION)).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn between(low: Duration, high: Duration, luck: u64) -> Duration {
    let span = u64::try_from(high.saturating_sub(low).as_millis()).unwrap_or(0);
    low + Duration::from_millis(luck % (span + 1))
}

fn range(text: &str) -> Option<(Duration, Duration)> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    let (low, high) = (duration(low)?, duration(high)?);
    (low <= high).then_some((low, high))
}

/// Durations as Kubernetes writes them: `1h30m`, `90s`, `250ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0)?;
        let amount: u64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let millis = match &rest[digits..unit_end] {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(amount.checked_mul(millis)?))?;
        rest = &rest[unit_end..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_ranges() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("1h2m3s"), Some(3723));
        for nonsense in ["", "s", "5", "5x", "-5s", "1.5m", "99999999999999999999s"] {
            assert_eq!(seconds(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(range("1s..2s"), Some((Duration::from_secs(1), Duration::from_secs(2))));
        assert_eq!(range("2s..1s"), None);
    }

    #[test]
    fn the_annotation_beats_the_hint_and_the_hint_beats_the_default() {
        let mut pod = Pod::default();
        let mut random = Random::new(1, "test");
        let mut drawn = |pod: &Pod| draw(pod, Some(Duration::from_secs(7)), &mut random).expect("ends").as_secs();
        assert_eq!(drawn(&pod), 7);
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(HINT_ANNOTATION.to_owned(), "100s".to_owned());
        assert!((80..=120).contains(&drawn(&pod)));
        pod.metadata.annotations.get_or_insert_default().insert(RUN_TIME_ANNOTATION.to_owned(), "5s".to_owned());
        assert_eq!(drawn(&pod), 5);
    }
}
