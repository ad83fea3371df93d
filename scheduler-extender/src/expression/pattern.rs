//! Patterns of `matches`, with the meaning that the API server's RE2 gives them.
//!
//! The syntax of the crate `regex` is that of RE2 but for a few points: `\d`, `\w`, `\s` and `\b` mean all of Unicode,
//! `\<` and `\>` are word boundaries, and classes know set operations. Those are translated or refused.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

/// Most memory of one compiled pattern.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Largest number of repetitions, as in RE2.
const REPETITIONS_MAX: u32 = 1000;

/// Compiles a pattern; the error is the rest of a sentence that begins with "the pattern".
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern)?;
    RegexBuilder::new(&translated).size_limit(COMPILED_BYTES_MAX).build().map_err(|error| {
        let text = error.to_string();
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        format!("cannot be compiled: {}", last.trim().trim_start_matches("error: "))
    })
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\\' => escape(&mut rest, false, &mut out)?,
            '[' => class(&mut rest, &mut out)?,
            '(' => group(&mut rest, &mut out)?,
            '{' => repetition(&mut rest, &mut out)?,
            other => out.push(other),
        }
    }
    Ok(out)
}

fn escape(rest: &mut Peekable<Chars<'_>>, in_class: bool, out: &mut String) -> Result<(), String> {
    let Some(character) = rest.next() else { return Err("ends with a backslash".to_owned()) };
    match character {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str("[\\t\\n\\f\\r ]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'b' if !in_class && rest.peek() != Some(&'{') => out.push_str("(?-u:\\b)"),
        'A' | 'z' if !in_class => out.extend(['\\', character]),
        'a' | 'f' | 'n' | 'r' | 't' | 'v' | 'x' | 'p' | 'P' => out.extend(['\\', character]),
        '<' | '>' => out.push(character),
        other if other.is_ascii_punctuation() => out.extend(['\\', other]),
        other => return Err(format!("uses \\{other}, which is not available")),
    }
    Ok(())
}

fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    // A bracket that comes first stands for itself.
    if rest.next_if_eq(&']').is_some() {
        out.push_str("\\]");
    }
    while let Some(character) = rest.next() {
        match character {
            ']' => {
                out.push(']');
                return Ok(());
            }
            '\\' => escape(rest, true, out)?,
            '[' if rest.peek() == Some(&':') => {
                out.push('[');
                for inner in rest.by_ref() {
                    out.push(inner);
                    if inner == ']' {
                        break;
                    }
                }
            }
            '[' | '&' | '~' => out.extend(['\\', character]),
            '-' if rest.peek() == Some(&'-') => return Err("has two dashes in a class".to_owned()),
            other => out.push(other),
        }
    }
    Err("has a class without its end".to_owned())
}

/// Flags that RE2 does not know are refused; everything else means the same.
fn group(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('(');
    if rest.next_if_eq(&'?').is_none() {
        return Ok(());
    }
    out.push('?');
    while let Some(character) = rest.next_if(|next| next.is_ascii_alphabetic() || *next == '-') {
        match character {
            'i' | 'm' | 's' | 'U' | '-' => out.push(character),
            'P' if rest.peek() == Some(&'<') => out.push(character),
            other => return Err(format!("uses the flag {other}, which is not available")),
        }
    }
    Ok(())
}

fn repetition(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('{');
    let mut number: u32 = 0;
    while let Some(character) = rest.next_if(|next| next.is_ascii_digit() || *next == ',') {
        number = character.to_digit(10).map_or(0, |digit| number.saturating_mul(10).saturating_add(digit));
        if number > REPETITIONS_MAX {
            return Err(format!("repeats more than {REPETITIONS_MAX} times"));
        }
        out.push(character);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, text: &str, expected: bool) {
        let compiled = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        assert_eq!(compiled.is_match(text), expected, "{pattern} on {text}");
    }

    #[test]
    fn classes_are_those_of_ascii() {
        check("^\\d+$", "42", true);
        check("^\\d+$", "\u{664}\u{662}", false);
        check("^[\\w.]+$", "image.png", true);
        check("^\\w$", "é", false);
        check("^[^\\D]$", "7", true);
        check("é\\b", "é", false);
        check("a\\b", "a-b", true);
    }

    #[test]
    fn brackets_and_operators_in_a_class_stand_for_themselves() {
        check("^[[]$", "[", true);
        check("^[]]$", "]", true);
        check("^[a&&b]$", "&", true);
        check("^[a~~b]+$", "~", true);
        check("^[[:alpha:]]+$", "abc", true);
        check("^\\<a\\>$", "<a>", true);
    }

    #[test]
    fn what_re2_does_not_know_is_refused() {
        for pattern in ["\\B", "(?x)a", "(?u)a", "[a--b]", "a{1001}", "\\Qa\\E", "\\1", "(?=a)", "[a", "a\\", "\\b{start}"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
        check("(?i)ABC", "abc", true);
        check("(?P<name>a){2,3}", "aa", true);
    }

    #[test]
    fn a_pattern_that_would_fill_the_memory_is_refused() {
        assert!(compile("((a{1000}){1000}){1000}").is_err());
    }
}
