//! As much of Nomad's templates as jobs from pods use: Variables, text, `base64Decode` and `toJSON`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::world::State;

/// Bytes of a rendered template; `None` as long as a Variable is missing.
pub(super) fn render(template: &str, state: &State) -> Result<Option<Vec<u8>>, String> {
    let mut out = Vec::new();
    let mut items: Option<BTreeMap<String, String>> = None;
    let mut rest = template;
    while let Some(begin) = rest.find("{{") {
        out.extend_from_slice(&rest.as_bytes()[..begin]);
        let end = rest[begin..].find("}}").ok_or("unclosed action")? + begin;
        let action = rest[begin + 2..end].trim();
        rest = &rest[end + 2..];
        if let Some(path) = action.strip_prefix("with nomadVar ") {
            let path = path.trim().trim_matches('"');
            let Some(variable) = state.variables.get(path) else { return Ok(None) };
            let fields = variable["Items"].as_object().into_iter().flatten();
            items = Some(fields.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect());
        } else if action == "end" {
            items = None;
        } else {
            out.extend(value(action, items.as_ref())?);
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(Some(out))
}

fn value(action: &str, items: Option<&BTreeMap<String, String>>) -> Result<Vec<u8>, String> {
    let mut stages = action.split(" | ").map(str::trim);
    let first = stages.next().unwrap_or_default();
    let mut value = if let Some(text) = first.strip_prefix('"') {
        text.trim_end_matches('"').as_bytes().to_vec()
    } else {
        let key = first.trim_start_matches('.').trim_end_matches(".Value");
        let found = items.and_then(|items| items.get(key)).ok_or_else(|| format!("no field {key:?}"))?;
        found.as_bytes().to_vec()
    };
    for stage in stages {
        value = match stage {
            "base64Decode" => BASE64.decode(&value).map_err(|error| error.to_string())?,
            "toJSON" => Value::from(String::from_utf8_lossy(&value).into_owned()).to_string().into_bytes(),
            other => return Err(format!("function {other:?} not defined")),
        };
    }
    Ok(value)
}

/// Variables of a file of lines.
pub(super) fn variables(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut out = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once('=').ok_or("a line without =")?;
        let value = if value.starts_with('"') {
            serde_json::from_str(value).map_err(|error| error.to_string())?
        } else {
            value.to_owned()
        };
        out.push((name.to_owned(), value));
    }
    Ok(out)
}

/// `${NAME}` replaced where it is known; how `Env` is read.
pub(super) fn replaced(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find("${") {
        out.push_str(&rest[..begin]);
        let Some(end) = rest[begin..].find('}').map(|end| end + begin) else { break };
        match known.get(&rest[begin + 2..end]) {
            Some(value) => out.push_str(value),
            None => out.push_str(&rest[begin..=end]),
        }
        rest = &rest[end + 1..];
    }
    out + rest
}

/// An HCL template; how a driver's configuration is read.
pub(super) fn interpolated(text: &str, known: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(place) = rest.find(['$', '%']) {
        out.push_str(&rest[..place]);
        let at = &rest[place..];
        if let Some(after) = at.strip_prefix("$${").or_else(|| at.strip_prefix("%%{")) {
            out.push_str(&at[1..3]);
            rest = after;
        } else if let Some(after) = at.strip_prefix("${") {
            let end = after.find('}').ok_or("Unterminated template string")?;
            let name = &after[..end];
            out.push_str(known.get(name).ok_or_else(|| format!("Unsupported attribute: {name:?}"))?);
            rest = &after[end + 1..];
        } else if at.starts_with("%{") {
            return Err("Invalid template directive".to_owned());
        } else {
            out.push_str(&at[..1]);
            rest = &at[1..];
        }
    }
    Ok(out + rest)
}
