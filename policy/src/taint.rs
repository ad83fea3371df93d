//! Taints and tolerations, as kube-scheduler compares them.

use std::sync::Arc;

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away if they can.
    PreferNoSchedule,
    /// Pods that run there are evicted, too.
    NoExecute,
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taint {
    /// The taint's key.
    pub key: Arc<str>,
    /// Its value, often empty.
    pub value: Arc<str>,
    /// What it does.
    pub effect: Effect,
}

/// A toleration of a pod. Without a key it tolerates every key, without an effect every effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// The key, or any.
    pub key: Option<Arc<str>>,
    /// The value that must be equal; `None` is the operator `Exists`.
    pub value: Option<Arc<str>>,
    /// The effect, or any.
    pub effect: Option<Effect>,
}

impl Toleration {
    /// Whether this toleration covers the taint.
    pub fn covers(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && self.key.as_ref().is_none_or(|key| *key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
    }
}

/// Whether a pod with these tolerations may be scheduled to a node with these taints.
pub fn tolerated(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    taints
        .iter()
        .filter(|taint| taint.effect != Effect::PreferNoSchedule)
        .all(|taint| tolerations.iter().any(|toleration| toleration.covers(taint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, value: &str, effect: Effect) -> Taint {
        Taint { key: Arc::from(key), value: Arc::from(value), effect }
    }

    #[test]
    fn covers_by_key_value_and_effect() {
        let gpu = taint("gpu", "a100", Effect::NoSchedule);
        let toleration = |key: Option<&str>, value: Option<&str>, effect| Toleration {
            key: key.map(Arc::from),
            value: value.map(Arc::from),
            effect,
        };
        assert!(toleration(Some("gpu"), Some("a100"), None).covers(&gpu));
        assert!(toleration(Some("gpu"), None, Some(Effect::NoSchedule)).covers(&gpu));
        assert!(toleration(None, None, None).covers(&gpu));
        assert!(!toleration(Some("gpu"), Some("v100"), None).covers(&gpu));
        assert!(!toleration(Some("gpu"), None, Some(Effect::NoExecute)).covers(&gpu));
        assert!(!toleration(Some("other"), None, None).covers(&gpu));
    }

    #[test]
    fn a_preference_keeps_nobody_off() {
        assert!(tolerated(&[taint("slow", "", Effect::PreferNoSchedule)], &[]));
        assert!(!tolerated(&[taint("full", "", Effect::NoExecute)], &[]));
    }
}
