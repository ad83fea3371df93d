//! Names on the wire that users, other programs and the chart rely on. They never change within `v1alpha1`.

/// The API group of all our kinds.
pub const GROUP: &str = "spillway.dev";
/// The only version served so far.
pub const VERSION: &str = "v1alpha1";
/// `kubectl get spillway` lists all our kinds.
pub const CATEGORY: &str = "spillway";

/// Taint of every virtual node; no pod tolerates it before Spillway has bound it.
pub const VIRTUAL_NODE_TAINT: &str = "spillway.dev/virtual-node";
/// Label by which every virtual kubelet marks its Node, with [`VIRTUAL_NODE_TYPE`] as its value.
pub const NODE_TYPE_LABEL: &str = "type";
/// Value of [`NODE_TYPE_LABEL`] on a virtual node.
pub const VIRTUAL_NODE_TYPE: &str = "virtual-kubelet";

/// Annotation that carries the commitment of a pod; only Spillway may write it.
pub const DECISION_ANNOTATION: &str = "spillway.dev/decision";
/// Annotation with which the owner of a pod says how long it will run.
pub const EXPECTED_DURATION_ANNOTATION: &str = "spillway.dev/expected-duration";
/// Annotation with which the owner of a pod says when it must be done.
pub const DEADLINE_ANNOTATION: &str = "spillway.dev/deadline";
/// Label with which the owner of a pod keeps it on dedicated nodes, with the value `true`.
pub const DO_NOT_BURST_LABEL: &str = "spillway.dev/do-not-burst";

/// Annotation of a virtual node's Node that is touched to wake kube-scheduler.
pub const WOKEN_AT_ANNOTATION: &str = "spillway.dev/woken-at";

/// Annotation of a DaemonSet that Spillway has kept off virtual nodes, once.
pub const KEPT_OFF_ANNOTATION: &str = "spillway.dev/kept-off";

/// Extended resource whose limit `0` sends a pod through the extender.
pub const EXTENDER_MARKER: &str = "spillway.dev/burst";
/// Scheduling gate of pods whose policy asks for a gate.
pub const DECIDE_GATE: &str = "spillway.dev/decide";

/// Label that every virtual node has in the engine's eyes, and that a gated pod gets as its node selector when it is decided to
/// burst: no dedicated node has it, so no scheduler can be faster than Spillway.
pub const DECIDED_LABEL: &str = "spillway.dev/decided";
/// Value of [`DECIDED_LABEL`].
pub const DECIDED_BURST: &str = "burst";

/// Field manager of our writes and reporting controller of our Events.
pub const COMMITTER: &str = "spillway.dev/committer";
