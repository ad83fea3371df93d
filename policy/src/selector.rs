//! Label selectors and node selectors, with every operator Kubernetes knows.

use std::sync::Arc;

/// Labels sorted by key, so that equal sets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Vec<(Arc<str>, Arc<str>)>);

/// One condition on one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: Arc<str>,
    /// What must hold for it.
    pub operator: Operator,
}

/// The operators of `matchExpressions`. A label selector uses the first four.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The value is one of these.
    In(Vec<Arc<str>>),
    /// The key is absent or its value none of these.
    NotIn(Vec<Arc<str>>),
    /// The key is there.
    Exists,
    /// The key is absent.
    DoesNotExist,
    /// The value is an integer above this.
    Gt(i64),
    /// The value is an integer below this.
    Lt(i64),
}

/// All requirements must hold; none means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// The conditions, all of which must hold.
    pub requirements: Vec<Requirement>,
}

/// One term of a required node affinity: labels and fields. An empty term matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    /// Conditions on the node's labels.
    pub labels: Vec<Requirement>,
    /// Conditions on the node's fields; Kubernetes knows `metadata.name` only.
    pub fields: Vec<Requirement>,
}

// === impl Labels ===

impl Labels {
    /// Labels in any order; of a doubled key the last value stays.
    pub fn new(pairs: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) -> Labels {
        let mut labels = Labels::default();
        for (key, value) in pairs {
            labels.insert(key, value);
        }
        labels
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.place(key).ok().map(|place| &*self.0[place].1)
    }

    /// Adds or replaces a label.
    pub fn insert(&mut self, key: Arc<str>, value: Arc<str>) {
        match self.place(&key) {
            Ok(place) => self.0[place].1 = value,
            Err(place) => self.0.insert(place, (key, value)),
        }
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(candidate, _)| (**candidate).cmp(key))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Labels {
        Labels::new(pairs.into_iter().map(|(key, value)| (Arc::from(key), Arc::from(value))))
    }
}

// === impl Requirement ===

impl Requirement {
    /// `key = value`, as in `nodeSelector` and `matchLabels`.
    pub fn equals(key: &str, value: &str) -> Requirement {
        Requirement { key: Arc::from(key), operator: Operator::In(vec![Arc::from(value)]) }
    }

    /// Whether the condition holds for the value of its key.
    pub fn holds(&self, value: Option<&str>) -> bool {
        match (&self.operator, value) {
            (Operator::In(values), Some(value)) => values.iter().any(|candidate| **candidate == *value),
            (Operator::NotIn(values), Some(value)) => values.iter().all(|candidate| **candidate != *value),
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::Gt(bound), Some(value)) => value.parse::<i64>().is_ok_and(|value| value > *bound),
            (Operator::Lt(bound), Some(value)) => value.parse::<i64>().is_ok_and(|value| value < *bound),
            (Operator::NotIn(_), None) => true,
            (Operator::In(_) | Operator::Gt(_) | Operator::Lt(_), None) => false,
        }
    }
}

// === impl Selector ===

impl Selector {
    /// Whether every requirement holds.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(labels.get(&requirement.key)))
    }
}

// === impl NodeTerm ===

impl NodeTerm {
    /// Whether a node of this name and these labels satisfies the term.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return false;
        }
        self.labels.iter().all(|requirement| requirement.holds(labels.get(&requirement.key)))
            && self.fields.iter().all(|requirement| requirement.holds((&*requirement.key == "metadata.name").then_some(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(operator: &Operator, value: Option<&str>, holds: bool) {
        let requirement = Requirement { key: Arc::from("k"), operator: operator.clone() };
        assert_eq!(requirement.holds(value), holds, "{operator:?} on {value:?}");
    }

    #[test]
    fn every_operator_as_kubernetes_means_it() {
        let values = || vec![Arc::from("a"), Arc::from("b")];
        check(&Operator::In(values()), Some("a"), true);
        check(&Operator::In(values()), Some("c"), false);
        check(&Operator::In(values()), None, false);
        check(&Operator::NotIn(values()), Some("a"), false);
        check(&Operator::NotIn(values()), None, true);
        check(&Operator::Exists, Some(""), true);
        check(&Operator::Exists, None, false);
        check(&Operator::DoesNotExist, None, true);
        check(&Operator::Gt(4), Some("5"), true);
        check(&Operator::Gt(4), Some("4"), false);
        check(&Operator::Gt(4), Some("five"), false);
        check(&Operator::Lt(4), Some("3"), true);
        check(&Operator::Lt(4), None, false);
    }

    #[test]
    fn an_empty_term_matches_nothing_and_an_empty_selector_everything() {
        let labels: Labels = [("zone", "a")].into_iter().collect();
        assert!(!NodeTerm::default().matches("node", &labels));
        assert!(Selector::default().matches(&labels));
        let by_name = NodeTerm { labels: vec![], fields: vec![Requirement::equals("metadata.name", "node")] };
        assert!(by_name.matches("node", &labels) && !by_name.matches("other", &labels));
    }
}
