//! The arrows between the crates, and what the engine must never gain.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// Direct dependencies of each workspace crate, development ones left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages").iter().map(|package| {
        let of = package["dependencies"].as_array().expect("dependencies").iter();
        let normal = of.filter(|dependency| dependency["kind"].is_null()).filter_map(|dependency| dependency["name"].as_str());
        (package["name"].as_str().expect("a name").to_owned(), normal.map(str::to_owned).collect())
    });
    packages.collect()
}

#[test]
fn dependencies_point_one_way() {
    let ours = ["policy", "providers", "virtual-node", "world", "scheduler-extender", "tests"];
    let dependencies = dependencies();
    assert_eq!(
        dependencies.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        ours.into(),
        "a new crate has its place in the order"
    );
    for (place, name) in ours.iter().enumerate() {
        for other in &ours[place..] {
            assert!(!dependencies[*name].contains(*other), "{name} must not depend on {other}");
        }
    }
}

#[test]
fn the_engine_has_no_io_no_async_no_serde_and_no_kubernetes() {
    assert_eq!(dependencies()["policy"], ["foldhash".to_owned()].into(), "policy takes nothing else in");
    let forbidden = [
        "std::fs",
        "std::net",
        "std::io",
        "std::process",
        "std::env",
        "std::thread",
        "SystemTime",
        "Instant::now",
        "async fn",
        ".await",
        "println!",
        "eprintln!",
        "tokio",
        "serde",
        "kube::",
        "k8s_openapi",
        "jiff",
    ];
    let mut found = Vec::new();
    for file in sources(&root().join("policy/src")) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            found.extend(
                forbidden
                    .iter()
                    .filter(|word| code.contains(**word))
                    .map(|word| format!("{}:{}: {word}", file.display(), number + 1)),
            );
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_simulated_world_knows_nothing_of_the_program() {
    let dependencies = dependencies();
    assert!(!dependencies["world"].contains("scheduler-extender"));
    assert!(
        !dependencies["providers"].contains("kube") && !dependencies["providers"].contains("k8s-openapi"),
        "clouds know nothing of Kubernetes"
    );
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
