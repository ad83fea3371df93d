//! What the API server was asked by Spillway, in its own words: the audit log.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use world::control_plane::{Builder, User};

/// Requests of Spillway's service account, as they end.
pub(crate) struct Audit {
    folder: TempDir,
}

/// One request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    pub(crate) verb: String,
    #[serde(rename = "requestURI")]
    pub(crate) uri: String,
    #[serde(default)]
    pub(crate) user_agent: String,
    #[serde(rename = "stageTimestamp")]
    pub(crate) ended: Timestamp,
    response_status: Option<Status>,
}

#[derive(Clone, Debug, Deserialize)]
struct Status {
    code: Option<u16>,
}

impl Audit {
    pub(crate) fn new() -> Audit {
        let folder = tempfile::tempdir().expect("a folder");
        let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
            "rules": [{"level": "Metadata", "users": [User::Spillway.name()]}, {"level": "None"}]});
        std::fs::write(folder.path().join("policy.json"), policy.to_string()).expect("a file");
        Audit { folder }
    }

    /// The flags of an API server that writes it.
    pub(crate) fn flags(&self, builder: Builder) -> Builder {
        builder
            .api_server_flag(&format!("--audit-policy-file={}", self.folder.path().join("policy.json").display()))
            .api_server_flag(&format!("--audit-log-path={}", self.log().display()))
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    /// Everything so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Request {
    pub(crate) fn code(&self) -> u16 {
        self.response_status.as_ref().and_then(|status| status.code).unwrap_or(0)
    }

    /// Whether it has changed something.
    pub(crate) fn has_written(&self) -> bool {
        !["get", "list", "watch"].contains(&&*self.verb) && (200..300).contains(&self.code())
    }

    /// Whether a pod was bound by it.
    pub(crate) fn has_bound(&self) -> bool {
        self.has_written() && self.uri.contains("/binding")
    }
}
