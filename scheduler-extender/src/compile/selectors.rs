//! Label selectors.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::selector::{Labels, Operator, Requirement, Selector};

use crate::api::{self, Invalid};

/// Compiles a label selector; an empty one matches everything.
pub fn label_selector(selector: &api::LabelSelector) -> Result<Selector, Invalid> {
    let api::LabelSelector { match_labels, match_expressions } = selector;
    let mut requirements = match match_labels {
        Some(labels) => exact(labels).map_err(|invalid| invalid.within("matchLabels"))?,
        None => Vec::new(),
    };
    for (index, expression) in match_expressions.iter().flatten().enumerate() {
        let path = format!("matchExpressions[{index}]");
        check_key(&expression.key).map_err(|invalid| invalid.within(&format!("{path}.key")))?;
        let values: Vec<Arc<str>> = expression.values.iter().flatten().map(|value| Arc::from(value.as_str())).collect();
        let operator = match (expression.operator.as_str(), values.is_empty()) {
            ("In", false) => Operator::In(values),
            ("NotIn", false) => Operator::NotIn(values),
            ("Exists", true) => Operator::Exists,
            ("DoesNotExist", true) => Operator::DoesNotExist,
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {
                let allowed = "must be given for In and NotIn, and must be absent for Exists and DoesNotExist";
                return Err(Invalid::new(format!("{path}.values"), "", allowed));
            }
            (other, _) => {
                let allowed = "must be one of In, NotIn, Exists, DoesNotExist";
                return Err(Invalid::new(format!("{path}.operator"), other, allowed));
            }
        };
        requirements.push(Requirement { key: Arc::from(expression.key.as_str()), operator });
    }
    Ok(Selector { requirements })
}

/// Labels that must be there with these values, as in `nodeSelector` and `matchLabels`.
pub(super) fn exact(labels: &BTreeMap<String, String>) -> Result<Vec<Requirement>, Invalid> {
    check_labels(labels)?;
    Ok(labels.iter().map(|(key, value)| Requirement::equals(key, value)).collect())
}

/// Labels as a set.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> Result<Labels, Invalid> {
    check_labels(labels)?;
    Ok(labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect())
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Invalid> {
    labels.iter().try_for_each(|(key, value)| {
        check_key(key)?;
        if value.is_empty() || is_name(value) {
            return Ok(());
        }
        Err(Invalid::new(key, value, "must be a label value: at most 63 letters, digits, dashes, underscores and dots"))
    })
}

/// A selector with a key that no label can have would match nothing, or everything, without a word.
fn check_key(key: &str) -> Result<(), Invalid> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_is_good = prefix.is_none_or(|prefix| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let label = |part: &str| !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-');
        prefix.len() <= 253 && prefix.split('.').all(label)
    });
    if prefix_is_good && is_name(name) {
        return Ok(());
    }
    Err(Invalid::new("", key, "must be a label key, such as team or example.com/team"))
}

fn is_name(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && ends(bytes.first()) && ends(bytes.last()) && text.bytes().all(inner)
}
