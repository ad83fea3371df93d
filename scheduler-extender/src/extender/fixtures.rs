//! Bodies recorded from a real kube-scheduler, for the tests.

use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/fixtures/extender"))
}

/// Names of the recorded exchanges, such as `filter-cache-error`.
pub(super) fn all() -> Vec<String> {
    let names = std::fs::read_dir(directory()).expect("the fixtures lie beside the workspace");
    let names = names.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"));
    let mut cases: Vec<String> = names.filter_map(|name| name.strip_suffix(".request.json").map(str::to_owned)).collect();
    cases.sort();
    assert_eq!(cases.len(), 20, "all twenty recorded exchanges are there");
    cases
}

/// The request's bytes as they were on the wire.
pub(super) fn request(case: &str) -> String {
    read(case, "request")
}

/// The answer's bytes as kube-scheduler accepted them.
pub(super) fn response(case: &str) -> String {
    read(case, "response")
}

fn read(case: &str, part: &str) -> String {
    let path = directory().join(format!("{case}.{part}.json"));
    minify(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// Undoes the pretty-printing and nothing else: key order and escapes stay.
fn minify(pretty: &str) -> String {
    let (mut out, mut in_string, mut escaped) = (String::with_capacity(pretty.len()), false, false);
    for c in pretty.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_string = c == '"';
        }
        out.push(c);
    }
    out
}
