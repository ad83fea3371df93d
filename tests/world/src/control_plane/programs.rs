//! Where the real programs are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The path of a real program by its file name: `etcd`, `kube-apiserver`, `promtool` …
///
/// `$KUBEBUILDER_ASSETS` comes first, so that a machine that has the usual test binaries needs no Go; then the folder
/// that `make components` fills. Tests never build Go code themselves, so a missing program is an error that names the command.
///
/// # Errors
/// When the program is in neither place.
pub fn program(name: &str) -> Result<PathBuf> {
    let folders: Vec<PathBuf> = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).into_iter().chain(cache_folder()).collect();
    find(name, &folders)
}

/// The folder that `make components` fills; the rule is the same as in `tests/components/build.sh`.
fn cache_folder() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("SPILLWAY_COMPONENTS").or_else(|| {
        let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
        Some(cache.join("spillway").join("components"))
    })
}

fn find(name: &str, folders: &[PathBuf]) -> Result<PathBuf> {
    if let Some(path) = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()) {
        return Ok(path);
    }
    let searched: Vec<_> = folders.iter().map(|folder| Path::display(folder).to_string()).collect();
    bail!("{name} is not built (looked in {}): run `make components` once", searched.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_the_program_wins() {
        let (assets, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [assets.path().to_path_buf(), cache.path().to_path_buf()];
        std::fs::write(cache.path().join("etcd"), "").unwrap();
        assert_eq!(find("etcd", &folders).unwrap(), cache.path().join("etcd"));
        std::fs::write(assets.path().join("etcd"), "").unwrap();
        assert_eq!(find("etcd", &folders).unwrap(), assets.path().join("etcd"));
    }

    #[test]
    fn a_missing_program_names_the_command_that_builds_it() {
        let error = find("etcd", &[PathBuf::from("/nowhere")]).unwrap_err().to_string();
        assert!(error.contains("/nowhere") && error.contains("make components"), "{error}");
    }
}
