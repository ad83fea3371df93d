//! Environment variables: where they come from, which of two wins, what they are expanded to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container as Wire, EnvVar, Pod};
use providers::{Secret, Value, Variable};

use super::expansion::{Part, parts};
use super::{Notice, Place, Unresolved, fields, invalid};
use crate::Objects;

/// The variables of one container.
pub(super) struct Environment {
    /// In the order in which they were first named.
    names: Vec<String>,
    values: BTreeMap<String, Value>,
}

/// Variables from whole objects first, then those of the container, which win; of two with one name the later one.
pub(super) fn environment(
    pod: &Pod,
    wire: &Wire,
    place: &Place,
    objects: &Objects,
    field: &str,
    notices: &mut Vec<Notice>,
) -> Result<Environment, Unresolved> {
    let mut environment = Environment { names: Vec::new(), values: BTreeMap::new() };
    for (index, source) in wire.env_from.iter().flatten().enumerate() {
        let at = format!("{field}.envFrom[{index}]");
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(wanted) = &source.config_map_ref {
            match objects.config_maps.get(&wanted.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        environment.set_from(prefix, key, Value::Plain(value.clone()), &at, notices);
                    }
                }
                None if wanted.optional == Some(true) => notices.push(Notice::optional_config_map(&wanted.name)),
                None => return Err(Unresolved::no_config_map(&at, &wanted.name)),
            }
        }
        if let Some(wanted) = &source.secret_ref {
            match objects.secrets.get(&wanted.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let text = text(&value.0, || format!("{at}.secretRef, key {key}"))?;
                        environment.set_from(prefix, key, Value::Secret(Secret::new(text)), &at, notices);
                    }
                }
                None if wanted.optional == Some(true) => notices.push(Notice::optional_secret(&wanted.name)),
                None => return Err(Unresolved::no_secret(&at, &wanted.name)),
            }
        }
    }
    for (index, variable) in wire.env.iter().flatten().enumerate() {
        let at = format!("{field}.env[{index}]");
        if let Some(value) = environment.value(pod, wire, variable, place, objects, &at, notices)? {
            environment.set(&variable.name, value);
        }
    }
    Ok(environment)
}

// === impl Environment ===

impl Environment {
    /// The variables as they go to the cloud.
    pub(super) fn variables(&self) -> Vec<Variable> {
        self.names.iter().map(|name| Variable { name: name.clone(), value: self.values[name].clone() }).collect()
    }

    /// Expands a text that everybody sees: a command, an argument, a path.
    pub(super) fn expand_plain(&self, word: &str, at: &str) -> Result<String, Unresolved> {
        match self.expand(word, at)? {
            Value::Plain(plain) => Ok(plain),
            _ => Err(invalid(
                at,
                "refers to a variable from a Secret, and everybody who may read the cloud's task would see its value: \
                 let the program read the variable",
            )),
        }
    }

    /// Expands references to what is set already; what a secret is written into is secret. Unknown names stand as they are.
    fn expand(&self, text: &str, at: &str) -> Result<Value, Unresolved> {
        let (mut expanded, mut secret) = (String::new(), false);
        for part in parts(text) {
            match part {
                Part::Plain(plain) => expanded.push_str(plain),
                Part::Variable(name) => match self.values.get(name) {
                    Some(Value::Plain(plain)) => expanded.push_str(plain),
                    Some(Value::Secret(value)) => {
                        secret = true;
                        expanded.push_str(value.expose());
                    }
                    Some(Value::PodAddress | Value::HostAddress) => {
                        return Err(invalid(at, format!("refers to {name}, an address that the cloud decides on later")));
                    }
                    None => expanded.push_str(&format!("$({name})")),
                },
            }
        }
        Ok(if secret { Value::Secret(Secret::new(expanded)) } else { Value::Plain(expanded) })
    }

    fn set(&mut self, name: &str, value: Value) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.names.push(name.to_owned());
        }
    }

    /// Keys of whole objects may be anything; names of variables may not.
    fn set_from(&mut self, prefix: &str, key: &str, value: Value, at: &str, notices: &mut Vec<Notice>) {
        let name = format!("{prefix}{key}");
        let legal = !name.is_empty() && name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=');
        if legal {
            self.set(&name, value);
        } else {
            notices.push(Notice {
                reason: "InvalidEnvironmentVariableNames",
                message: format!("{at}: {name:?} is no name for a variable and was left out"),
            });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a variable may come from anywhere")]
    fn value(
        &self,
        pod: &Pod,
        wire: &Wire,
        variable: &EnvVar,
        place: &Place,
        objects: &Objects,
        at: &str,
        notices: &mut Vec<Notice>,
    ) -> Result<Option<Value>, Unresolved> {
        let Some(source) = &variable.value_from else {
            return self.expand(variable.value.as_deref().unwrap_or_default(), at).map(Some);
        };
        if let Some(field) = &source.field_ref {
            return fields::field(pod, &field.field_path, place, at).map(Some);
        }
        if let (Some(selector), Some(spec)) = (&source.resource_field_ref, &pod.spec) {
            return fields::resource(spec, selector, &wire.name, place, at).map(|text| Some(Value::Plain(text)));
        }
        if let Some(wanted) = &source.config_map_key_ref {
            let optional = wanted.optional == Some(true);
            let Some(map) = objects.config_maps.get(&wanted.name) else {
                if optional {
                    notices.push(Notice::optional_config_map(&wanted.name));
                    return Ok(None);
                }
                return Err(Unresolved::no_config_map(at, &wanted.name));
            };
            return match map.data.as_ref().and_then(|data| data.get(&wanted.key)) {
                Some(value) => Ok(Some(Value::Plain(value.clone()))),
                None if optional => {
                    notices.push(Notice::optional_config_map_key(&wanted.name, &wanted.key));
                    Ok(None)
                }
                None => Err(Unresolved::no_config_map_key(at, &wanted.name, &wanted.key)),
            };
        }
        if let Some(wanted) = &source.secret_key_ref {
            let optional = wanted.optional == Some(true);
            let Some(secret) = objects.secrets.get(&wanted.name) else {
                if optional {
                    notices.push(Notice::optional_secret(&wanted.name));
                    return Ok(None);
                }
                return Err(Unresolved::no_secret(at, &wanted.name));
            };
            return match secret.data.as_ref().and_then(|data| data.get(&wanted.key)) {
                Some(value) => {
                    let text = text(&value.0, || format!("{at}.valueFrom.secretKeyRef"))?;
                    Ok(Some(Value::Secret(Secret::new(text))))
                }
                None if optional => {
                    notices.push(Notice::optional_secret_key(&wanted.name, &wanted.key));
                    Ok(None)
                }
                None => Err(Unresolved::no_secret_key(at, &wanted.name, &wanted.key)),
            };
        }
        Err(invalid(format!("{at}.valueFrom"), "fieldRef, resourceFieldRef, configMapKeyRef or secretKeyRef"))
    }
}

fn text(bytes: &[u8], at: impl Fn() -> String) -> Result<String, Unresolved> {
    String::from_utf8(bytes.to_vec()).map_err(|_| invalid(at(), "a variable must be text, and this value is not UTF-8"))
}

// === impl Notice ===

impl Notice {
    pub(super) fn optional_config_map(name: &str) -> Notice {
        Notice { reason: "OptionalConfigMapNotFound", message: format!("optional ConfigMap {name:?} does not exist") }
    }

    fn optional_config_map_key(name: &str, key: &str) -> Notice {
        let message = format!("optional key {key:?} is not in ConfigMap {name:?}");
        Notice { reason: "OptionalConfigMapKeyNotFound", message }
    }

    pub(super) fn optional_secret(name: &str) -> Notice {
        Notice { reason: "OptionalSecretNotFound", message: format!("optional Secret {name:?} does not exist") }
    }

    fn optional_secret_key(name: &str, key: &str) -> Notice {
        Notice { reason: "OptionalSecretKeyNotFound", message: format!("optional key {key:?} is not in Secret {name:?}") }
    }
}

// === impl Unresolved ===

impl Unresolved {
    fn missing(reason: &'static str, field: &str, message: String) -> Unresolved {
        Unresolved { field: field.to_owned(), reason, message }
    }

    pub(super) fn no_config_map(field: &str, name: &str) -> Unresolved {
        Unresolved::missing("MandatoryConfigMapNotFound", field, format!("ConfigMap {name:?} does not exist"))
    }

    pub(super) fn no_config_map_key(field: &str, name: &str, key: &str) -> Unresolved {
        let message = format!("ConfigMap {name:?} has no key {key:?}");
        Unresolved::missing("MandatoryConfigMapKeyNotFound", field, message)
    }

    pub(super) fn no_secret(field: &str, name: &str) -> Unresolved {
        Unresolved::missing("MandatorySecretNotFound", field, format!("Secret {name:?} does not exist"))
    }

    pub(super) fn no_secret_key(field: &str, name: &str, key: &str) -> Unresolved {
        Unresolved::missing("MandatorySecretKeyNotFound", field, format!("Secret {name:?} has no key {key:?}"))
    }
}
