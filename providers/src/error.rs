//! Errors that say what the caller should do.

use std::fmt;
use std::time::Duration;

/// A call to a cloud that failed.
#[derive(Debug, thiserror::Error)]
#[error("{provider}: {operation} failed: {kind}")]
pub struct Error {
    /// What the caller should do about it.
    pub kind: ErrorKind,
    /// Which provider was called, for logs and metrics.
    pub provider: &'static str,
    /// What was asked of it.
    pub operation: Operation,
    /// The cloud's own words, where there are any.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The closed list of outcomes a caller must handle. Requeue, back-off, metric label and event reason follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such pod. Forget it.
    NotFound,
    /// Somebody else's object has the name, or it changed meanwhile. Read again, then decide.
    Conflict,
    /// Too many calls. The same call will do later.
    Throttled {
        /// When, if the cloud says so.
        retry_after: Option<Duration>,
    },
    /// The account's quota is used up. Nothing of this size until something ends or the quota grows.
    QuotaExceeded,
    /// The cloud is out of capacity for this shape. Try another backend, and this one again after a while.
    NoCapacity,
    /// The credentials may not do this. A human must act.
    Denied,
    /// The request can never work as it is. Do not repeat it.
    Invalid,
    /// No answer, or a broken one: the call may or may not have worked. Repeat it; calls are idempotent.
    Unavailable,
    /// This provider cannot do that at all.
    Unsupported,
}

/// The operations of a [`Provider`](crate::Provider).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Quota, usage, health, prices.
    Observe,
    /// Start a pod.
    Create,
    /// Look at one pod.
    Get,
    /// Look at all pods.
    List,
    /// End a pod.
    Delete,
    /// Read a container's output.
    Logs,
    /// Run a command in a container.
    Exec,
    /// Measure what containers use.
    Stats,
}

// === impl Error ===

impl Error {
    /// An error without words of the cloud.
    pub fn new(kind: ErrorKind, provider: &'static str, operation: Operation) -> Error {
        Error { kind, provider, operation, source: None }
    }

    /// The same with the cloud's words.
    pub fn because(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error { source: Some(source.into()), ..self }
    }
}

// === impl ErrorKind ===

impl ErrorKind {
    /// Whether the same call may work later without anybody changing anything.
    pub fn is_transient(self) -> bool {
        match self {
            ErrorKind::Throttled { .. } | ErrorKind::NoCapacity | ErrorKind::Unavailable => true,
            ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::QuotaExceeded
            | ErrorKind::Denied
            | ErrorKind::Invalid
            | ErrorKind::Unsupported => false,
        }
    }

    /// Stable label for metrics; never reword.
    pub fn label(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "not_found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Throttled { .. } => "throttled",
            ErrorKind::QuotaExceeded => "quota_exceeded",
            ErrorKind::NoCapacity => "no_capacity",
            ErrorKind::Denied => "denied",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            ErrorKind::NotFound => "not found",
            ErrorKind::Conflict => "conflict with another object",
            ErrorKind::Throttled { .. } => "too many calls",
            ErrorKind::QuotaExceeded => "quota exceeded",
            ErrorKind::NoCapacity => "no capacity",
            ErrorKind::Denied => "denied",
            ErrorKind::Invalid => "invalid request",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Unsupported => "unsupported",
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Operation::Observe => "observe",
            Operation::Create => "create",
            Operation::Get => "get",
            Operation::List => "list",
            Operation::Delete => "delete",
            Operation::Logs => "logs",
            Operation::Exec => "exec",
            Operation::Stats => "stats",
        })
    }
}
