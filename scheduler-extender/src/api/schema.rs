//! Pieces of schema that several kinds share.
//!
//! Every string, list and map gets a bound: the API server prices CEL rules by the largest value a schema allows, and
//! an unbounded list would make it refuse the whole definition. Where a pattern alone would give an unreadable message,
//! a rule with a sentence stands beside it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::hygiene;

/// Most entries of any map of labels.
const LABELS_MAX: u32 = 64;

/// A Kubernetes label value; empty is legal.
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// A Kubernetes label key, with or without a prefix.
const LABEL_KEY: &str = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";

/// A DNS label: names of tiers and conditions.
const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// A DNS subdomain: names of cluster-scoped objects.
const DNS_SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// An amount of money that fits i64 nano-units with room to add: nine digits, nine decimals.
pub(super) fn money(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 19, "pattern": "^[0-9]{1,9}(\\.[0-9]{1,9})?$"})
}

/// A price per unit and hour. Price lists print more decimals than an amount keeps; they are rounded up when read.
pub(super) fn rate(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 19, "pattern": "^[0-9]{1,6}(\\.[0-9]{1,12})?$"})
}

/// A share of a price.
pub(super) fn percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": 7, "pattern": "^[0-9]{1,3}(\\.[0-9]{1,3})?$",
        "x-kubernetes-validations": [{
            "rule": "double(self) <= 100.0",
            "message": "must be between 0 and 100",
        }],
    })
}

/// A count per hour as a decimal.
pub(super) fn frequency(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 8, "pattern": "^[0-9]{1,4}(\\.[0-9]{1,3})?$"})
}

/// ISO 4217.
pub(super) fn currency(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 3, "maxLength": 3, "pattern": "^[A-Z]{3}$"})
}

/// The pattern of a duration in Go's notation without a sign.
const DURATION: &str = "^([0-9]{1,9}(\\.[0-9]{1,9})?(ms|s|m|h))+$";

/// A duration from `min` to `max`, both in the notation they are checked in.
fn duration(min: &str, max: &str) -> Schema {
    json_schema!({
        "type": "string", "minLength": 2, "maxLength": 32, "pattern": DURATION,
        "x-kubernetes-validations": [{
            "rule": format!("duration(self) >= duration('{min}') && duration(self) <= duration('{max}')"),
            "message": format!("must be a duration between {min} and {max}, such as 90s or 1h30m"),
        }],
    })
}

/// How long a start may take.
pub(super) fn start_duration(_: &mut SchemaGenerator) -> Schema {
    duration("0s", "1h")
}

/// An object that the API server keeps as it is.
pub(super) fn anything(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// How long a start may take.
pub(super) fn start_deadline(_: &mut SchemaGenerator) -> Schema {
    duration("1s", "1h")
}

/// How long a pod may run, as far as anybody expects.
pub(super) fn run_duration(_: &mut SchemaGenerator) -> Schema {
    duration("1s", "8760h")
}

/// When a tier opens.
pub(super) fn after(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 2, "maxLength": 32,
        "pattern": "^(Auto|([0-9]{1,9}(\\.[0-9]{1,9})?(ms|s|m|h))+)$",
        "x-kubernetes-validations": [{
            "rule": "self == 'Auto' || duration(self) <= duration('24h')",
            "message": "must be Auto or a duration of at most 24h, such as 45s",
        }],
    })
}

/// A date without a time.
pub(super) fn date(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 10, "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"})
}

/// An IANA time zone. The rule asks the API server's own zone database; `Local` would be the zone of whoever reads it.
pub(super) fn time_zone(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": 64,
        "pattern": "^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$",
        "x-kubernetes-validations": [{
            "rule": "self != 'Local' && timestamp('2026-01-01T12:00:00Z').getFullYear(self) == 2026",
            "message": "must be the name of an IANA time zone, such as UTC or Europe/Berlin",
        }],
    })
}

/// A DNS label.
pub(super) fn dns_label(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": DNS_LABEL})
}

/// The name of a namespace, secret or cluster-scoped object.
pub(super) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": DNS_SUBDOMAIN})
}

/// A set of names of our own cluster-scoped objects, whose names are at most 63 characters long.
pub(super) fn names(min_items: u32, max_items: u32) -> Schema {
    json_schema!({
        "type": "array", "minItems": min_items, "maxItems": max_items, "x-kubernetes-list-type": "set",
        "items": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": DNS_SUBDOMAIN},
    })
}

/// A bounded set of strings that match `pattern`.
pub(super) fn strings(min_items: u32, max_items: u32, max_length: u32, pattern: &str) -> Schema {
    json_schema!({
        "type": "array", "minItems": min_items, "maxItems": max_items, "x-kubernetes-list-type": "set",
        "items": {"type": "string", "minLength": 1, "maxLength": max_length, "pattern": pattern},
    })
}

/// A bounded string that matches `pattern`.
pub(super) fn string(max_length: u32, pattern: &str) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": max_length, "pattern": pattern})
}

/// A list of structures that are told apart by one field.
pub(super) fn keyed<T: JsonSchema>(generate: &mut SchemaGenerator, key: &str, max_items: u32) -> Schema {
    json_schema!({
        "type": "array", "maxItems": max_items,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key],
        "items": generate.subschema_for::<T>(),
    })
}

/// A map of labels, replaced as a whole by whoever applies it.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    label_map(0)
}

/// A node selector with at least one label: an empty one would take every node of the cluster.
pub(super) fn node_selector(_: &mut SchemaGenerator) -> Schema {
    label_map(1)
}

/// A node selector by labels that a virtual node keeps: the others are taken off it, and it would not match any more.
pub(super) fn adopting_selector(_: &mut SchemaGenerator) -> Schema {
    let mut schema = label_map(1);
    let lost: Vec<String> = hygiene::unwanted().map(|key| format!("'{key}'")).collect();
    let rule = serde_json::json!({
        "rule": format!("self.all(key, !(key in [{}]))", lost.join(", ")),
        "message": "hostname, zone, region, os and arch labels are taken off virtual nodes: select another label, such as one of your own",
    });
    if let Some(rules) = schema.get_mut("x-kubernetes-validations").and_then(serde_json::Value::as_array_mut) {
        rules.push(rule);
    }
    schema
}

fn label_map(min_properties: u32) -> Schema {
    json_schema!({
        "type": "object", "minProperties": min_properties, "maxProperties": LABELS_MAX,
        "x-kubernetes-map-type": "atomic",
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
        "x-kubernetes-validations": [label_keys()],
    })
}

/// A schema has no patterns for keys.
fn label_keys() -> serde_json::Value {
    serde_json::json!({
        "rule": format!("self.all(key, key.size() <= 317 && key.matches('{LABEL_KEY}'))"),
        "message": "keys must be label keys, such as team or example.com/team",
    })
}

/// `metav1.LabelSelector` with bounds, and with the rules that the API server applies to its own.
pub(super) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchExpressions": {
                "description": "Requirements on labels; all must hold.",
                "type": "array", "maxItems": 16, "x-kubernetes-list-type": "atomic",
                "items": label_requirement(),
            },
            "matchLabels": {
                "description": "Labels that must be present with these values.",
                "type": "object", "maxProperties": LABELS_MAX,
                "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
                "x-kubernetes-validations": [label_keys()],
            },
        },
    })
}

fn label_requirement() -> Schema {
    json_schema!({
        "description": "A requirement on one label.",
        "type": "object", "required": ["key", "operator"],
        "properties": {
            "key": {
                "description": "Key of the label.",
                "type": "string", "minLength": 1, "maxLength": 317,
                "pattern": LABEL_KEY,
            },
            "operator": {
                "description": "How the label relates to the values: In, NotIn, Exists or DoesNotExist.",
                "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
            },
            "values": {
                "description": "The values: at least one for In and NotIn, none for Exists and DoesNotExist.",
                "type": "array", "maxItems": LABELS_MAX, "x-kubernetes-list-type": "atomic",
                "items": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
            },
        },
        "x-kubernetes-validations": [{
            "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 \
                     : !has(self.values) || self.values.size() == 0",
            "message": "values must be given for In and NotIn, and must be absent for Exists and DoesNotExist",
            "fieldPath": ".values",
        }],
    })
}

/// A number of CPUs: a quantity up to a million.
pub(super) fn cpu(_: &mut SchemaGenerator) -> Schema {
    quantity("1000000")
}

/// An amount of memory: a quantity up to 64 pebibytes.
pub(super) fn memory(_: &mut SchemaGenerator) -> Schema {
    quantity("64Pi")
}

fn quantity(max: &str) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true, "maxLength": 24,
        "pattern": "^([0-9]+(\\.[0-9]*)?|\\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE]\\+?[0-9]+)?$",
        "x-kubernetes-validations": [{
            "rule": format!(
                "quantity(string(self)).compareTo(quantity('0')) >= 0 && \
                 quantity(string(self)).compareTo(quantity('{max}')) <= 0"
            ),
            "message": format!("must be a quantity between 0 and {max}"),
        }],
    })
}

/// A whole number within bounds.
pub(super) fn integer(minimum: i64, maximum: i64) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": minimum, "maximum": maximum})
}

/// A number of pods.
pub(super) fn pods(_: &mut SchemaGenerator) -> Schema {
    integer(0, 1_000_000)
}

/// A choice that has no default in the schema. The description is left to the field: an optional enumeration would
/// otherwise show the one of its type.
pub(super) fn choice<T: JsonSchema>(generate: &mut SchemaGenerator) -> Schema {
    let mut schema = generate.subschema_for::<T>();
    schema.remove("description");
    schema
}

/// Conditions, one per type, with the bounds that `metav1.Condition` has in its own definition.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 16,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "description": "One aspect of the object's state.",
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "description": "When the status last changed.",
                    "type": "string", "format": "date-time",
                },
                "message": {"description": "Details for people.", "type": "string", "maxLength": 32768},
                "observedGeneration": {
                    "description": "Generation of the specification that the condition speaks of.",
                    "type": "integer", "format": "int64", "minimum": 0,
                },
                "reason": {
                    "description": "Why, in one word for programs.",
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "status": {
                    "description": "Whether the condition holds: True, False or Unknown.",
                    "type": "string", "enum": ["True", "False", "Unknown"],
                },
                "type": {
                    "description": "Which condition this is.",
                    "type": "string", "maxLength": 316, "pattern": "^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$",
                },
            },
        },
    })
}
