//! What is wrong with an object, in words that its author can act on.

use std::fmt;

/// Longest value that a message repeats; a manifest may hold megabytes where a word was expected.
const VALUE_CHARACTERS_MAX: usize = 120;

/// A field that cannot be used, with its value and what would be allowed instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Path of the field from the top of the object, as the API server writes it: `spec.tiers[1].after`.
    pub field: String,
    /// The value that was found, shortened; empty if the field is missing.
    pub value: String,
    /// What is allowed there, as the rest of a sentence.
    pub allowed: String,
}

impl Invalid {
    /// Long values are shortened here, so that no caller has to think of it.
    pub fn new(field: impl Into<String>, value: impl AsRef<str>, allowed: impl Into<String>) -> Invalid {
        let value = value.as_ref();
        let mut shown: String = value.chars().take(VALUE_CHARACTERS_MAX).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        Invalid { field: field.into(), value: shown, allowed: allowed.into() }
    }

    /// The same fault, in an object that is part of another one.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Invalid {
        self.field = if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Invalid { field, value, allowed } = self;
        if value.is_empty() {
            write!(out, "{field}: {allowed}")
        } else {
            write!(out, "{field}: {value:?} is not allowed: {allowed}")
        }
    }
}

impl std::error::Error for Invalid {}
