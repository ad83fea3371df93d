//! As much of PromQL as the rules need: which series a query selects, how, and over which range.

/// One selector of one of Spillway's series.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selector {
    /// Name of the series.
    pub(super) series: String,
    /// What stands between the braces.
    pub(super) matchers: String,
    /// What stands between the brackets.
    pub(super) range: Option<String>,
    /// The function that is applied to it directly.
    pub(super) function: Option<String>,
}

impl Selector {
    /// Whether the series is a counter by its name.
    pub(super) fn is_counter(&self) -> bool {
        self.series.ends_with("_total")
    }

    /// The name as it stands in a `# TYPE` line: without the suffixes of histograms.
    pub(super) fn family(&self) -> &str {
        ["_bucket", "_sum", "_count"].iter().find_map(|suffix| self.series.strip_suffix(suffix)).unwrap_or(&self.series)
    }
}

/// Every selector of a series that begins with `spillway_`.
pub(super) fn selectors(query: &str) -> Vec<Selector> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    for (at, _) in query.match_indices("spillway_") {
        if query[..at].ends_with(in_name) {
            continue; // the rest of a recording rule's name
        }
        let rest = &query[at..];
        let (series, rest) = rest.split_at(rest.find(|c| !in_name(c)).unwrap_or(rest.len()));
        let (matchers, rest) = enclosed(rest, '{', '}');
        let (range, _) = enclosed(rest, '[', ']');
        let function = query[..at].strip_suffix('(').map(|before| {
            let start = before.rfind(|c| !in_name(c)).map_or(0, |last| last + 1);
            before[start..].to_string()
        });
        found.push(Selector {
            series: series.to_string(),
            matchers: matchers.unwrap_or_default().to_string(),
            range: range.map(str::to_string),
            function: function.filter(|name| !name.is_empty()),
        });
    }
    found
}

/// The text between the brackets at the beginning, if it begins with one, and what follows. No label value that the
/// dashboards match on contains a bracket.
fn enclosed(text: &str, open: char, close: char) -> (Option<&str>, &str) {
    text.strip_prefix(open).and_then(|rest| rest.split_once(close)).map_or((None, text), |(inside, rest)| (Some(inside), rest))
}

#[test]
fn selectors_are_found_with_all_that_belongs_to_them() {
    let found = selectors(r#"sum(rate(spillway_a_total{job=~"$job"}[5m])) / spillway_b - budget:spillway_c:max"#);
    let (a, b) = (&found[0], &found[1]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((a.series.as_str(), a.matchers.as_str()), ("spillway_a_total", r#"job=~"$job""#));
    assert_eq!((a.range.as_deref(), a.function.as_deref()), (Some("5m"), Some("rate")));
    assert_eq!((b.series.as_str(), b.range.as_deref(), b.function.as_deref()), ("spillway_b", None, None));
}
