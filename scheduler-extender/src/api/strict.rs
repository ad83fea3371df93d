//! Reading manifests as strictly as `kubectl` with field validation does.
//!
//! The API server drops fields it does not know, and refuses values that break the schema. A manifest that is given
//! on the command line never meets it, so the schema is applied here. What CEL rules say is checked by `compile`.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{CustomResourceExt, Resource};
use regex::Regex;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Invalid;
use crate::crds;

/// Longest name of an object of ours; it is repeated in every decision.
const NAME_CHARACTERS_MAX: usize = 63;

/// Reads one object of kind `K`, refusing unknown fields and everything that its schema forbids. The path of the
/// field in the error counts from the top of the object.
pub fn strict<K>(mut object: Value) -> Result<K, Invalid>
where
    K: CustomResourceExt + Resource<DynamicType = ()> + DeserializeOwned,
{
    let Value::Object(map) = &object else {
        return Err(Invalid::new("", shown(&object), "an object is expected"));
    };
    expect_text(map, "apiVersion", &K::api_version(&()))?;
    expect_text(map, "kind", &K::kind(&()))?;
    check_metadata(map.get("metadata"))?;
    let schema = schema_of::<K>()?;
    drop_nulls(&schema, &mut object);
    let mut body = object.clone();
    if let Some(map) = body.as_object_mut() {
        map.retain(|field, _| !["apiVersion", "kind", "metadata"].contains(&field.as_str()));
    }
    check(&schema, &body, "")?;
    serde_json::from_value(object).map_err(|error| Invalid::new("", "", format!("cannot be read: {error}")))
}

fn schema_of<K: CustomResourceExt + Resource<DynamicType = ()>>() -> Result<JSONSchemaProps, Invalid> {
    crds::crds()
        .into_iter()
        .find(|crd| crd.metadata.name.as_deref() == Some(K::crd_name()))
        .and_then(|crd| crd.spec.versions.into_iter().next())
        .and_then(|version| version.schema?.open_api_v3_schema)
        .ok_or_else(|| Invalid::new("kind", K::kind(&()), "has no schema"))
}

/// The API server replaces a null by the field's default, and refuses it where there is none.
fn drop_nulls(schema: &JSONSchemaProps, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema.properties.iter().flatten() {
                if property.default.is_some() && map.get(name).is_some_and(Value::is_null) {
                    map.remove(name);
                } else if let Some(value) = map.get_mut(name) {
                    drop_nulls(property, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
                items.iter_mut().for_each(|value| drop_nulls(item, value));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn expect_text(map: &Map<String, Value>, field: &str, expected: &str) -> Result<(), Invalid> {
    match map.get(field) {
        Some(Value::String(found)) if found == expected => Ok(()),
        Some(found) => Err(Invalid::new(field, shown(found), format!("must be {expected}"))),
        None => Err(Invalid::new(field, "", format!("is required: {expected}"))),
    }
}

/// Names are checked here because the API server has rules of its own for metadata, which no schema shows.
fn check_metadata(metadata: Option<&Value>) -> Result<(), Invalid> {
    let Some(Value::Object(given)) = metadata else {
        return Err(Invalid::new("metadata.name", "", "is required"));
    };
    let parsed: ObjectMeta = serde_json::from_value(Value::Object(given.clone()))
        .map_err(|error| Invalid::new("metadata", "", format!("cannot be read: {error}")))?;
    let known = serde_json::to_value(&parsed).unwrap_or_default();
    if let Some(unknown) = given.iter().find(|(name, _)| known.get(name).is_none()) {
        return Err(Invalid::new(format!("metadata.{}", unknown.0), "", "unknown field"));
    }
    let name = parsed.name.unwrap_or_default();
    let label = |part: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !part.is_empty() && part.chars().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    if name.is_empty() {
        return Err(Invalid::new("metadata.name", "", "is required"));
    }
    if name.len() > NAME_CHARACTERS_MAX || !name.split('.').all(label) {
        return Err(Invalid::new("metadata.name", name, "must be a DNS name of at most 63 characters"));
    }
    Ok(())
}

/// Applies the structural part of a schema. Depth is bounded by the schema, not by the value.
fn check(schema: &JSONSchemaProps, value: &Value, path: &str) -> Result<(), Invalid> {
    if let Some(allowed) = &schema.enum_
        && !allowed.iter().any(|json| &json.0 == value)
    {
        let names: Vec<String> = allowed.iter().map(|json| shown(&json.0)).collect();
        return Err(Invalid::new(path, shown(value), format!("must be one of {}", names.join(", "))));
    }
    match (schema.type_.as_deref(), value) {
        (Some("object"), Value::Object(map)) => check_object(schema, map, path),
        (Some("array"), Value::Array(items)) => check_array(schema, items, path),
        (Some("string"), Value::String(text)) => check_string(schema, text, path),
        (Some("string"), Value::Number(_) | Value::Bool(_)) => {
            Err(Invalid::new(path, shown(value), "must be a string: put it in quotes"))
        }
        (Some("integer"), Value::Number(number)) => check_integer(schema, number.as_i64(), value, path),
        (Some("boolean"), Value::Bool(_)) => Ok(()),
        (Some(expected), _) => Err(Invalid::new(path, shown(value), format!("must be of type {expected}"))),
        (None, Value::String(text)) => check_string(schema, text, path),
        (None, Value::Number(number)) if number.is_i64() => check_string(schema, &number.to_string(), path),
        (None, _) => Err(Invalid::new(path, shown(value), "must be a quantity, such as 500m, 4 or 16Gi")),
    }
}

fn check_object(schema: &JSONSchemaProps, map: &Map<String, Value>, path: &str) -> Result<(), Invalid> {
    let count = i64::try_from(map.len()).unwrap_or(i64::MAX);
    within(schema.min_properties, schema.max_properties, count, path, "entries")?;
    // A field that is written wrongly is the better message than the one that is missing for it.
    let of = |name: &String| match (
        schema.properties.as_ref().and_then(|properties| properties.get(name)),
        &schema.additional_properties,
    ) {
        (None, Some(JSONSchemaPropsOrBool::Schema(property))) => Some(&**property),
        (property, _) => property,
    };
    if let Some((name, _)) = map.iter().find(|(name, _)| of(name).is_none()) {
        let known: Vec<&str> = schema.properties.iter().flatten().map(|(name, _)| name.as_str()).collect();
        return Err(Invalid::new(join(path, name), "", format!("unknown field; known are {}", known.join(", "))));
    }
    if let Some(name) = schema.required.iter().flatten().find(|name| !map.contains_key(*name)) {
        return Err(Invalid::new(join(path, name), "", "is required"));
    }
    map.iter().try_for_each(|(name, value)| of(name).map_or(Ok(()), |property| check(property, value, &join(path, name))))
}

fn check_array(schema: &JSONSchemaProps, items: &[Value], path: &str) -> Result<(), Invalid> {
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    within(schema.min_items, schema.max_items, count, path, "entries")?;
    let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items else {
        return Ok(());
    };
    for (index, value) in items.iter().enumerate() {
        check(item, value, &format!("{path}[{index}]"))?;
    }
    let keys = schema.x_kubernetes_list_map_keys.as_deref().unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (index, value) in items.iter().enumerate() {
        let identity = match schema.x_kubernetes_list_type.as_deref() {
            Some("set") => shown(value),
            Some("map") => keys.iter().map(|key| value.get(key).map(shown).unwrap_or_default() + "\0").collect(),
            _ => continue,
        };
        if !seen.insert(identity) {
            let field = keys.first().map_or(format!("{path}[{index}]"), |key| format!("{path}[{index}].{key}"));
            let value = keys.first().and_then(|key| value.get(key)).unwrap_or(value);
            return Err(Invalid::new(field, shown(value), "must be unique in the list"));
        }
    }
    Ok(())
}

fn check_string(schema: &JSONSchemaProps, text: &str, path: &str) -> Result<(), Invalid> {
    let count = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    within(schema.min_length, schema.max_length, count, path, "characters")?;
    let Some(pattern) = &schema.pattern else {
        return Ok(());
    };
    match Regex::new(pattern) {
        Ok(regex) if regex.is_match(text) => Ok(()),
        Ok(_) => {
            let rule = schema.x_kubernetes_validations.iter().flatten().find_map(|rule| rule.message.clone());
            let allowed = rule.unwrap_or_else(|| format!("must match {pattern}"));
            Err(Invalid::new(path, shown(&Value::from(text)), allowed))
        }
        Err(error) => Err(Invalid::new(path, "", format!("its schema has an unreadable pattern: {error}"))),
    }
}

fn check_integer(schema: &JSONSchemaProps, number: Option<i64>, value: &Value, path: &str) -> Result<(), Invalid> {
    // Bounds in our schemas are small whole numbers, which f64 holds exactly.
    #[allow(clippy::cast_possible_truncation)]
    let bound = |limit: Option<f64>| limit.map(|limit| limit as i64);
    let (minimum, maximum) = (bound(schema.minimum), bound(schema.maximum));
    let allowed = number
        .is_some_and(|number| minimum.is_none_or(|minimum| number >= minimum) && maximum.is_none_or(|maximum| number <= maximum));
    if allowed {
        return Ok(());
    }
    let text = match (minimum, maximum) {
        (Some(minimum), Some(maximum)) => {
            format!("must be a whole number from {minimum} to {maximum}")
        }
        (Some(minimum), None) => format!("must be a whole number of at least {minimum}"),
        (None, Some(maximum)) => format!("must be a whole number of at most {maximum}"),
        (None, None) => "must be a whole number".to_owned(),
    };
    Err(Invalid::new(path, shown(value), text))
}

fn within(min: Option<i64>, max: Option<i64>, count: i64, path: &str, unit: &str) -> Result<(), Invalid> {
    match (min, max) {
        (Some(min), _) if count < min => Err(Invalid::new(path, "", format!("must have at least {min} {unit}"))),
        (_, Some(max)) if count > max => Err(Invalid::new(path, "", format!("must have at most {max} {unit}, and has {count}"))),
        _ => Ok(()),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A value as its author wrote it, more or less.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
