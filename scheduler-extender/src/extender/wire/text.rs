//! Strings, maps of strings and bounded lists, borrowed from a JSON body.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::LIST_MAX;

/// A string of the request, borrowed unless it was written with escapes.
///
/// Invariant: a borrowed text holds nothing that JSON would have to escape, so it can be copied into an answer as it
/// is. Reading keeps it (JSON lends only what stood unescaped between the quotes), and so does `From<&str>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Appends the text as a JSON string, quotes included.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Cow::Borrowed(plain) => {
                out.push(b'"');
                out.extend_from_slice(plain.as_bytes());
                out.push(b'"');
            }
            Cow::Owned(escaped) => write_escaped(escaped, out),
        }
    }
}

/// Appends any string as a JSON string, escaping what JSON requires.
pub(crate) fn write_escaped(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => {
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Text<'a> {
        let needs_escape = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
        if text.bytes().any(needs_escape) { Text(Cow::Owned(text.to_owned())) } else { Text(Cow::Borrowed(text)) }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

// === impl Entries ===

/// A JSON object of strings in the order of the request: labels, selectors, quantities. A few entries, so a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries<'a>(Vec<(Text<'a>, Text<'a>)>);

impl<'a> Entries<'a> {
    /// The value of `key`; the last one if it is there twice, as Go reads it.
    pub fn get(&self, key: &str) -> Option<&Text<'a>> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// Keys and values in the order of the request.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Entries<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(entries: I) -> Entries<'a> {
        Entries(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries<'a>, D::Error> {
        deserializer.deserialize_any(EntriesVisitor { prefix: "" })
    }
}

/// Keeps only the entries whose key starts with `spillway.dev/`: annotations can be large and are somebody else's.
pub(super) fn hints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Entries<'de>, D::Error> {
    deserializer.deserialize_any(EntriesVisitor { prefix: "spillway.dev/" })
}

struct EntriesVisitor {
    prefix: &'static str,
}

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_unit<E: Error>(self) -> Result<Entries<'de>, E> {
        Ok(Entries::default())
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries<'de>, M::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            if !key.starts_with(self.prefix) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if entries.len() == LIST_MAX {
                return Err(Error::custom(format_args!("an object has more than {LIST_MAX} entries")));
            }
            entries.push((key, map.next_value()?));
        }
        Ok(Entries(entries))
    }
}

// === lists ===

/// A list of at most `MAX` elements. Go writes an empty list as `null` where the field has no `omitempty`.
pub(super) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(ListVisitor::<T, MAX>(PhantomData))
}

/// How many elements a list has, for lists of which only that matters.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    Ok(deserializer.deserialize_any(ListVisitor::<IgnoredAny, LIST_MAX>(PhantomData))?.len())
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Vec<T>, S::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            if elements.len() == MAX {
                return Err(Error::custom(format_args!("a list has more than {MAX} elements")));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}
