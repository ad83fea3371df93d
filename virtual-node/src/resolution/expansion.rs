//! References to variables, `$(NAME)`, as Kubernetes expands them.

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'t> {
    /// Stands as it is.
    Plain(&'t str),
    /// Stands for the value of a variable.
    Variable(&'t str),
}

/// Takes a text apart. `$$` is a dollar; what is not a whole reference stands for itself.
pub(super) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, after) = (&rest[..dollar], &rest[dollar + 1..]);
        let reference = after.strip_prefix('(').and_then(|open| open.split_once(')'));
        let (part, left) = match (reference, after.strip_prefix('$')) {
            (Some((name, left)), _) => (Part::Variable(name), left),
            (None, Some(left)) => (Part::Plain("$"), left),
            (None, None) => (Part::Plain("$"), after),
        };
        if !before.is_empty() {
            parts.push(Part::Plain(before));
        }
        parts.push(part);
        rest = left;
    }
    if !rest.is_empty() {
        parts.push(Part::Plain(rest));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_apart_as_kubernetes_does() {
        let expanded = |text: &str| {
            let parts = parts(text);
            parts
                .iter()
                .map(|part| match part {
                    Part::Plain(plain) => (*plain).to_owned(),
                    Part::Variable(name) => format!("<{name}>"),
                })
                .collect::<String>()
        };
        let cases = [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "<A>"),
            ("a $(A) b $(B)c", "a <A> b <B>c"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$<A>"),
            ("$$$$(A)", "$$(A)"),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("100$", "100$"),
            ("$()", "<>"),
            ("$($(A))", "<$(A>)"),
        ];
        for (text, wanted) in cases {
            assert_eq!(expanded(text), wanted, "{text}");
        }
    }
}
