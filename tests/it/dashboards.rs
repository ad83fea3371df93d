//! The dashboards and rules that are shipped: the rules of good dashboards, and every query against a real Prometheus
//! that scrapes a real `/metrics`.

mod alerts;
mod grafana;
mod lint;
mod prometheus;
mod promql;
mod queries;

use std::path::{Path, PathBuf};

/// The folder `dashboards` of the repository.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

/// The files of a folder with this extension, in order. There is at least one, or a test would pass by reading nothing.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no .{extension} files in {}", folder.display());
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
