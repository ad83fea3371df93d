//! What expressions yield and what is refused. The table is also asked of a real API server, in `tests/it`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

#[derive(Deserialize)]
struct Table {
    namespace: Value,
    object: Value,
    results: BTreeMap<String, Vec<String>>,
}

fn table() -> Table {
    serde_yaml_ng::from_str(include_str!("../../../tests/golden/expressions.yaml")).unwrap()
}

fn answer(expression: &str, object: &Value, namespace: &Value) -> String {
    match Expression::compile(expression) {
        Err(_) => "refused".to_owned(),
        Ok(expression) => match expression.matches(object, namespace) {
            Ok(held) => held.to_string(),
            Err(EvaluationError::Failed { .. }) => "error".to_owned(),
            Err(other) => other.label().to_owned(),
        },
    }
}

#[test]
fn the_table_holds() {
    let Table { namespace, object, results } = table();
    let mut wrong = Vec::new();
    for (expected, expressions) in &results {
        for expression in expressions {
            let found = answer(expression, &object, &namespace);
            if found != *expected {
                wrong.push(format!("{expression}\n    is {found}, expected {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One subject serves many expressions, each with patterns of its own.
#[test]
fn a_subject_answers_as_often_as_it_is_asked() {
    let Table { namespace, object, results } = table();
    let expressions: Vec<Expression> = results["true"].iter().map(|source| Expression::compile(source).unwrap()).collect();
    let mut subject = Subject::new(&object, &namespace);
    for _ in 0..2 {
        for expression in &expressions {
            assert_eq!(subject.matches(expression), Ok(true), "{}", expression.source());
        }
    }
}

#[track_caller]
fn refused(expression: &str, expected: &str) {
    let invalid = Expression::compile(expression).map(|expression| expression.source().to_owned()).unwrap_err();
    assert!(invalid.allowed.contains(expected), "{expression}\n    is refused with {:?}", invalid.allowed);
}

#[test]
fn what_the_api_server_would_not_know_or_mean_differently_is_refused() {
    refused("object.metadata.name.lowerAscii() == 'x'", "function lowerAscii is not available; available are the standard");
    refused("object.spec.containers.exists(c, url(c.image).getHost() == 'x')", "function url is not available");
    refused("object.metadata.name.split('-').size() == 2", "function split is not available");
    refused("timestamp(object.metadata.creationTimestamp) > timestamp('2026-01-01T00:00:00Z')", "function timestamp");
    refused("quantity('1', '2').sign() == 1", "function quantity takes 1 argument(s), and gets 2");
    refused("quantity('1').compareTo() == 1", "function compareTo takes 1 argument(s), and gets 0");
    refused("optional.of(1).hasValue()", "variable optional is not available");
    refused("object.?spec.hostNetwork.orValue(false)", "is not CEL");
    refused("params.x == 1", "variable params is not available; available are object (the pod) and namespaceObject");
    refused("request.userInfo.username == 'x'", "variable request");
    refused("c.name == 'x' || object.spec.containers.all(c, true)", "variable c");
    refused("google.protobuf.Duration{seconds: 1} == object.x", "structure google.protobuf.Duration");
    refused("object.metadata.name.matches(object.metadata.labels.pattern)", "must be a literal string");
    refused("object.metadata.name.matches('(')", "the pattern of matches cannot be compiled");
    refused("object.metadata.name.matches('\\\\Bx')", "the pattern of matches uses \\B");
    refused("quantity('2') == quantity('1').add(1)", "compared with compareTo");
    refused("object.x == 1 && 'a' + 1 == 'a1'", "operator + is not defined for a string and an int");
    refused("object.x.startsWith(7)", "function startsWith is not defined for a value of any type and an int");
    refused("1 in {'a': 1}", "operator in is not defined for an int and a map");
    refused("object.a.b(", "is not CEL");
    refused("", "is not CEL");
    refused("object.metadata.@visit('x')", "is not CEL");
}

#[test]
fn what_yields_no_boolean_is_refused() {
    for expression in
        ["object.spec.hostNetwork", "object.spec.hostNetwork ? true : object.x", "[object.spec.hostNetwork][0]", "dyn(true)"]
    {
        refused(expression, "must yield a boolean: compare the value with something");
    }
    for (expression, yields) in [
        ("1 + object.x", "an int"),
        ("'true'", "a string"),
        ("object.spec.containers.map(c, c.name)", "a list"),
        ("object.spec.containers.filter(c, true)", "a list"),
        ("[true]", "a list"),
        ("size('x')", "an int"),
        ("quantity('1').add(1)", "a quantity"),
    ] {
        refused(expression, &format!("must yield a boolean, and yields {yields}"));
    }
}

#[test]
fn length_and_nesting_are_bounded() {
    let long = format!("object.metadata.name == '{}'", "x".repeat(SOURCE_CHARACTERS_MAX));
    refused(&long, "must have at most 2048 characters, and has 2074");
    refused("[1].all(a, [1].all(b, [1].all(c, true)))", "comprehensions may be nested 2 deep");
    assert!(Expression::compile("[1].all(a, [1].all(b, b == a)) && [2].map(a, a).filter(a, a > 1).exists(a, a == 2)").is_ok());
}

/// Whatever an author nests or strings together gets an answer, on the small stack of a worker thread too.
#[test]
fn depth_is_bounded() {
    let around = |open: &str, inner: &str, close: &str, times: usize| open.repeat(times) + inner + &close.repeat(times);
    for times in [10, 30, 100, 900] {
        for source in [
            around("(", "true", ")", times),
            around("[", "true", "]", times) + " == []",
            around("{1:", "true", "}", times) + " == {}",
            around("!", "true", "", times),
            around("-", "1", "", times) + " == 1",
            around("size(", "''", ")", times) + " == 0",
            around("true ? true : ", "true", "", times),
            around("true || ", "true", "", times),
            around("1 + ", "1", "", times) + " == 1",
            "object".to_owned() + &".a".repeat(times) + " == 1",
            "object".to_owned() + &"[0]".repeat(times) + " == 1",
            "object.size()".to_owned() + &".size()".repeat(times) + " == 1",
            "object.a".to_owned() + &" in object.a".repeat(times),
            around("object.all(a, ", "true", ")", times),
            around("object", ".map(a, a)", "", 1) + &".map(a, a)".repeat(times) + " == []",
        ] {
            if let Ok(expression) = Expression::compile(&source) {
                let _ = expression.matches(&json!({"a": []}), &Value::Null);
            }
        }
    }
    refused(&around("(", "true", ")", 200), "is not CEL");
    for source in [around("(", "true", ")", 10), around("object.a == 1 || ", "true", "", 100), around("!", "true", "", 30)] {
        assert!(Expression::compile(&source).is_ok(), "{source}");
    }
    refused(&format!("object{} == 1", "[0]".repeat(40)), "is more than 32 operations deep");
}

/// A pod can make a harmless expression expensive; it then counts as not selected, quickly.
#[test]
fn evaluation_is_bounded_by_the_elements_visited() {
    let names: Vec<Value> = (0..1000).map(|index| json!({"name": format!("v{index}"), "value": "x"})).collect();
    let object = json!({"spec": {"containers": names.clone(), "list": names}});
    let check = |source: &str| Expression::compile(source).unwrap().matches(&object, &Value::Null);
    assert_eq!(
        check("object.spec.containers.all(c, object.spec.list.all(e, e.name != c.value))"),
        Err(EvaluationError::TooCostly)
    );
    // Even where the errors of a comprehension would be absorbed.
    assert_eq!(
        check("object.spec.containers.exists(c, object.spec.list.all(e, e.name != '') && c.name == 'v999') || true"),
        Err(EvaluationError::TooCostly)
    );
    assert_eq!(check("object.spec.containers.all(c, c.name != '') && object.spec.list.map(e, e.name).size() == 1000"), Ok(true));
}

#[test]
fn a_condition_that_turns_out_not_boolean_gives_no_answer() {
    let check = |source: &str, object: Value| answer(source, &object, &Value::Null);
    assert_eq!(check("object.a && object.b", json!({"a": true, "b": "yes"})), "error");
    assert_eq!(check("object.a && object.b", json!({"a": true, "b": true})), "true");
    assert_eq!(check("object.a == null", json!({"a": null})), "true");
    assert_eq!(check("object.big > 0.0 && object.big > 9223372036854775807", json!({"big": u64::MAX})), "true");
}

#[test]
fn expressions_travel_between_threads() {
    fn travels<T: Send + Sync>() {}
    travels::<Expression>();
}
