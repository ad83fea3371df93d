//! Every rule of the extender protocol, one named test each.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::extender::fixtures;
use crate::extender::verbs::{Fault, NodeVerdict, PassThrough, ReasonText, Refusal, Score};

const NOT_ELIGIBLE: ReasonText = ReasonText::new("burst: not eligible");
const WAITING: ReasonText = ReasonText::new("burst: waiting for dedicated capacity");

/// Answers given as closures, so that each test says only what it is about.
struct Says<F>(F);

impl<F> Answers for Says<F>
where
    F: Fn(Candidates<'_>) -> Result<FilterAnswer, Fault> + Send + Sync + 'static,
{
    fn filter(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<FilterAnswer, Fault> {
        (self.0)(candidates)
    }

    fn prioritize(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<Scores, Fault> {
        Ok(candidates.score(|_, name| if is_virtual(name) { Score::HIGHEST } else { Score::LOWEST }))
    }

    fn preempt(&self, _: &PodView<'_>, victims: Victims<'_>) -> Result<PreemptAnswer, Fault> {
        Ok(victims.keep(|victims| !is_virtual(&victims.node)))
    }
}

/// Fails in every verb, by an error or by a panic.
struct Broken {
    panics: bool,
}

impl Broken {
    fn fail<T>(&self) -> Result<T, Fault> {
        assert!(!self.panics, "a bug in the decision");
        Err(Fault { cause: "no snapshot" })
    }
}

impl Answers for Broken {
    fn filter(&self, _: &PodView<'_>, _: Candidates<'_>) -> Result<FilterAnswer, Fault> {
        self.fail()
    }

    fn prioritize(&self, _: &PodView<'_>, _: Candidates<'_>) -> Result<Scores, Fault> {
        self.fail()
    }

    fn preempt(&self, _: &PodView<'_>, _: Victims<'_>) -> Result<PreemptAnswer, Fault> {
        self.fail()
    }
}

fn is_virtual(name: &str) -> bool {
    name.starts_with("virtual-")
}

fn refuse_virtual(candidates: Candidates<'_>, verdict: NodeVerdict) -> FilterAnswer {
    candidates.judge(|_, name| if is_virtual(name) { verdict } else { NodeVerdict::Pass })
}

fn refuse_all(candidates: Candidates<'_>) -> Result<FilterAnswer, Fault> {
    Ok(candidates.refuse_all(Refusal::Unresolvable(NOT_ELIGIBLE)))
}

fn ask(verb: Verb, request: &Value, answers: &dyn Answers) -> (Answer, Value) {
    let answer = answer(verb, request.to_string().as_bytes(), answers);
    let body = serde_json::from_slice(&answer.body).expect("an answer is JSON");
    (answer, body)
}

fn names(names: &[&str]) -> Value {
    json!({"Pod": {"metadata": {"name": "p"}}, "Nodes": null, "NodeNames": names})
}

fn nominated(node: &str, candidates: &[&str]) -> Value {
    json!({"Pod": {"status": {"nominatedNodeName": node}}, "NodeNames": candidates})
}

fn victims(nodes: &Value) -> Value {
    json!({"Pod": {}, "NodeNameToVictims": null, "NodeNameToMetaVictims": nodes})
}

// === recorded exchanges ===

#[test]
fn recorded_answers_round_trip_byte_for_byte() {
    let fail = |text| move |c: Candidates<'_>| Ok(refuse_virtual(c, NodeVerdict::Failed(text)));
    let mut compared = 0;
    for case in fixtures::all() {
        let mut parts = case.splitn(3, '-');
        let (verb, _mode, what) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap_or(""));
        let pass: Box<dyn Answers> = Box::new(Says(|c: Candidates<'_>| Ok(c.pass_all())));
        let (verb, answers): (_, Box<dyn Answers>) = match (verb, what) {
            ("filter", "failednodes") => (Verb::Filter, Box::new(Says(fail(NOT_ELIGIBLE)))),
            ("filter", "unresolvable") => {
                let refuse = |c: Candidates<'_>| Ok(refuse_virtual(c, NodeVerdict::Unresolvable(NOT_ELIGIBLE)));
                (Verb::Filter, Box::new(Says(refuse)))
            }
            ("filter", "all-rejected") => {
                (Verb::Filter, Box::new(Says(|c: Candidates<'_>| Ok(c.refuse_all(Refusal::Failed(WAITING))))))
            }
            // `Error` together with nodes and answers to bind: Spillway never gives them, see below.
            ("filter", "error") | ("bind", _) => continue,
            ("filter", _) => (Verb::Filter, pass),
            ("prioritize", _) => (Verb::Prioritize, pass),
            ("preempt", _) => (Verb::Preempt, pass),
            _ => panic!("unknown case {case}"),
        };
        let answer = answer(verb, fixtures::request(&case).as_bytes(), answers.as_ref());
        assert_eq!(String::from_utf8(answer.body).unwrap(), fixtures::response(&case), "{case}");
        assert_eq!(answer.outcome, Outcome::Answered, "{case}");
        compared += 1;
    }
    assert_eq!(compared, 16);
}

#[test]
fn recorded_answers_that_spillway_never_gives_are_in_the_same_form() {
    for case in ["filter-cache-error", "filter-nocache-error"] {
        let request = fixtures::request(case);
        let FilterRequest { offered, .. } = wire::decode_filter(request.as_bytes()).unwrap();
        let all = Candidates::new(&offered.names, offered.mode()).pass_all();
        let (body, _) = encode_filter(&offered, &all, None, "cost engine unavailable");
        assert_eq!(String::from_utf8(body).unwrap(), fixtures::response(case), "{case}");
    }
    for case in ["bind-cache", "bind-nocache"] {
        let request: Value = serde_json::from_str(&fixtures::request(case)).unwrap();
        let keys: Vec<&String> = request.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["Node", "PodName", "PodNamespace", "PodUID"], "{case}: no pod, no nodes, nothing to decide on");
        assert_eq!(fixtures::response(case), r#"{"Error":""}"#);
    }
}

// === invariants ===

#[test]
fn a_reason_is_given_for_every_refused_node() {
    let (_, body) = ask(Verb::Filter, &names(&["a", "b", "c"]), &Says(refuse_all));
    let all = json!({"a": NOT_ELIGIBLE.as_str(), "b": NOT_ELIGIBLE.as_str(), "c": NOT_ELIGIBLE.as_str()});
    assert_eq!(body["FailedAndUnresolvableNodes"], all);
    assert_eq!(body["NodeNames"], json!([]));

    let choose_b = |c: Candidates<'_>| {
        let (b, _) = c.iter().find(|(_, name)| *name == "b").unwrap();
        Ok(c.choose(b, Refusal::Failed(WAITING)))
    };
    let (answer, body) = ask(Verb::Filter, &names(&["a", "b", "c"]), &Says(choose_b));
    assert_eq!(body["NodeNames"], json!(["b"]));
    assert_eq!(body["FailedNodes"], json!({"a": WAITING.as_str(), "c": WAITING.as_str()}));
    assert_eq!((answer.candidates, answer.offered), (3, 1));
}

#[test]
fn policy_refusals_go_to_failed_and_unresolvable_nodes() {
    let (_, body) = ask(Verb::Filter, &names(&["a"]), &Says(refuse_all));
    assert_eq!(body["FailedNodes"], json!({}));
    assert_eq!(body["FailedAndUnresolvableNodes"], json!({"a": NOT_ELIGIBLE.as_str()}));
}

#[test]
fn failure_texts_are_constant() {
    let texts: Vec<Vec<u8>> = (0..50).map(|_| ask(Verb::Filter, &names(&["a", "b"]), &Says(refuse_all)).0.body).collect();
    assert!(texts.iter().all(|text| *text == texts[0]));
    let unreadable: Vec<Vec<u8>> = (0..50).map(|_| answer(Verb::Filter, b"{", &PassThrough).body).collect();
    assert!(unreadable.iter().all(|text| *text == unreadable[0]), "an unreadable request is described in the same words");
}

#[test]
fn the_nominated_node_is_never_refused() {
    for answers in [&Says(refuse_all) as &dyn Answers, &Broken { panics: true }, &Broken { panics: false }] {
        let (_, body) = ask(Verb::Filter, &nominated("n", &["n"]), answers);
        assert_eq!(body["NodeNames"], json!(["n"]));
        assert_eq!(body["FailedAndUnresolvableNodes"], json!({}));
    }
    let (answer, body) = ask(Verb::Filter, &nominated("n", &["m", "n"]), &Says(refuse_all));
    assert_eq!((body["NodeNames"].clone(), answer.offered), (json!(["n"]), 1));
    let (_, body) = ask(Verb::Filter, &nominated("gone", &["m"]), &Says(refuse_all));
    assert_eq!(body["NodeNames"], json!([]), "only the nominated node is exempt");
    let (_, body) = ask(Verb::Filter, &nominated("", &[""]), &Says(refuse_all));
    assert_eq!(body["NodeNames"], json!([]), "no nomination exempts nobody");
}

#[test]
fn victims_are_never_null() {
    let request = victims(
        &json!({"a": null, "b": {"Pods": null, "NumPDBViolations": 0}, "c": {"Pods": [{"UID": "u"}], "NumPDBViolations": 2}}),
    );
    for answers in [&PassThrough as &dyn Answers, &Broken { panics: true }] {
        let (_, body) = ask(Verb::Preempt, &request, answers);
        assert_eq!(body, json!({"NodeNameToMetaVictims": {"c": {"Pods": [{"UID": "u"}], "NumPDBViolations": 2}}}));
    }
    let (_, body) = ask(Verb::Preempt, &victims(&json!({"a": null})), &PassThrough);
    assert_eq!(body, json!({"NodeNameToMetaVictims": {}}));
}

#[test]
fn preempt_answers_a_subset_with_unchanged_uids_in_the_meta_form() {
    let request = fixtures::request("preempt-nocache");
    let answer = answer(Verb::Preempt, request.as_bytes(), &PassThrough);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer.mode, Some(Mode::NoCache));
    let request: Value = serde_json::from_str(&request).unwrap();
    for (node, victims) in body["NodeNameToMetaVictims"].as_object().unwrap() {
        assert_eq!(victims["Pods"][0]["UID"], request["NodeNameToVictims"][node]["Pods"][0]["metadata"]["uid"]);
    }

    let mixed = victims(&json!({
        "dedicated-0": {"Pods": [{"UID": "x"}, {"UID": "y"}], "NumPDBViolations": 1},
        "virtual-aci": {"Pods": [{"UID": "z"}], "NumPDBViolations": 0}}));
    let (answer, body) = ask(Verb::Preempt, &mixed, &Says(refuse_all));
    let kept = json!({"dedicated-0": {"Pods": [{"UID": "x"}, {"UID": "y"}], "NumPDBViolations": 1}});
    assert_eq!(body, json!({"NodeNameToMetaVictims": kept}));
    assert_eq!((answer.candidates, answer.offered), (2, 1));
}

#[test]
fn preempt_can_spare_everybody() {
    struct Spare;
    impl Answers for Spare {
        fn filter(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<FilterAnswer, Fault> {
            Ok(candidates.pass_all())
        }
        fn prioritize(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<Scores, Fault> {
            Ok(candidates.score(|_, _| Score::LOWEST))
        }
        fn preempt(&self, _: &PodView<'_>, victims: Victims<'_>) -> Result<PreemptAnswer, Fault> {
            Ok(victims.spare_all())
        }
    }
    let answer = answer(Verb::Preempt, fixtures::request("preempt-cache").as_bytes(), &Spare);
    assert_eq!(answer.body, br#"{"NodeNameToMetaVictims":{}}"#);
}

#[test]
fn full_nodes_are_answered_with_the_same_bytes() {
    let node = r#"{"metadata":{"name":"a","labels":{"odd":"\u003c\u00fc>"}},"status":{"n":1e3,"deep":[[{}]]}}"#;
    let body = format!(
        r#"{{"Pod":{{}},"Nodes":{{"metadata":{{}},"items":[{node},{{"metadata":{{"name":"virtual-b"}}}}]}},"NodeNames":null}}"#
    );
    let keep = |c: Candidates<'_>| {
        assert_eq!(c.mode(), Mode::NoCache);
        Ok(refuse_virtual(c, NodeVerdict::Failed(WAITING)))
    };
    let answer = answer(Verb::Filter, body.as_bytes(), &Says(keep));
    let expected = format!(
        r#"{{"FailedNodes":{{"virtual-b":"{}"}},"FailedAndUnresolvableNodes":{{}},"Error":"","Nodes":{{"metadata":{{}},"items":[{node}]}}}}"#,
        WAITING.as_str()
    );
    assert_eq!(String::from_utf8(answer.body).unwrap(), expected);
    assert_eq!(answer.mode, Some(Mode::NoCache));
}

#[test]
fn a_fault_or_a_panic_fails_open_and_is_counted() {
    for panics in [false, true] {
        let broken = Broken { panics };
        let (answer, body) = ask(Verb::Filter, &names(&["a", "b"]), &broken);
        assert_eq!(answer.outcome, Outcome::FailedOpen);
        assert_eq!(body, json!({"NodeNames": ["a", "b"], "FailedNodes": {}, "FailedAndUnresolvableNodes": {}, "Error": ""}));
        let (answer, body) = ask(Verb::Prioritize, &names(&["a"]), &broken);
        assert_eq!((answer.outcome, body), (Outcome::FailedOpen, json!([{"Host": "a", "Score": 0}])));
        let nodes = json!({"a": {"Pods": [{"UID": "u"}], "NumPDBViolations": 0}});
        let (answer, body) = ask(Verb::Preempt, &victims(&nodes), &broken);
        assert_eq!((answer.outcome, body), (Outcome::FailedOpen, json!({"NodeNameToMetaVictims": nodes})));
    }
}

#[test]
fn an_answer_to_another_request_fails_open() {
    let other = [Text::from("x"), Text::from("y"), Text::from("z")];
    let kept = Candidates::new(&other, Mode::Cache).refuse_all(Refusal::Failed(WAITING));
    let (answer, body) = ask(Verb::Filter, &names(&["a"]), &Says(move |_: Candidates<'_>| Ok(kept.clone())));
    assert_eq!((answer.outcome, body["NodeNames"].clone()), (Outcome::FailedOpen, json!(["a"])));
    let position = Candidates::new(&other, Mode::Cache).iter().last().unwrap().0;
    let choose = move |c: Candidates<'_>| Ok(c.choose(position, Refusal::Failed(WAITING)));
    let (answer, body) = ask(Verb::Filter, &names(&["a"]), &Says(choose));
    assert_eq!((answer.outcome, body["NodeNames"].clone()), (Outcome::FailedOpen, json!(["a"])));
}

#[test]
fn scores_are_integers_from_0_to_10() {
    assert_eq!(Score::new(10), Some(Score::HIGHEST));
    assert_eq!(Score::new(11), None);
    let (_, body) = ask(Verb::Prioritize, &names(&["a", "virtual-b"]), &Says(refuse_all));
    assert_eq!(body, json!([{"Host": "a", "Score": 0}, {"Host": "virtual-b", "Score": 10}]));
}

#[test]
fn escaped_names_come_back_as_valid_json() {
    let body = br#"{"Pod":{},"NodeNames":["q\"\\\u0001\n","\u00e4","\ud83d\ude80"]}"#;
    let answer = answer(Verb::Filter, body, &PassThrough);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["NodeNames"], json!(["q\"\\\u{1}\n", "ä", "🚀"]));
}

#[test]
fn reasons_cannot_need_escaping() {
    for text in ["", "with \"quotes\"", "back\\slash", "line\nbreak", "ümlaut"] {
        assert!(std::panic::catch_unwind(|| ReasonText::new(text)).is_err(), "{text:?}");
    }
}

// === bad requests ===

/// Bodies that no kube-scheduler sends, with a part of what the answer says about each.
fn hostile() -> Vec<(String, Vec<u8>, &'static str)> {
    let text = |name: &str, body: &str, says| (name.to_owned(), body.as_bytes().to_vec(), says);
    let fixture = fixtures::request("filter-cache");
    let mut bodies = vec![
        text("empty", "", "the body is empty"),
        text("space", "   \n", "EOF while parsing"),
        text("null", "null", "invalid type: null"),
        text("a list", "[]", "neither NodeNames nor Nodes"),
        text("a number", "5", "invalid type: integer"),
        text("prose", "hello", "expected value"),
        text("trailing garbage", r#"{"Pod":{},"NodeNames":[]}x"#, "trailing characters"),
        text("duplicate key", r#"{"Pod":{},"Pod":{},"NodeNames":["a"]}"#, "duplicate field `Pod`"),
        text("names are numbers", r#"{"Pod":{},"NodeNames":[1]}"#, "expected a string"),
        text("names are an object", r#"{"Pod":{},"NodeNames":{}}"#, "expected a list"),
        text("name is null", r#"{"Pod":{},"NodeNames":[null]}"#, "expected a string"),
        text("pod is text", r#"{"Pod":"p","NodeNames":["a"]}"#, "Pod is not an object"),
        text("pod name is a number", r#"{"Pod":{"metadata":{"name":1}},"NodeNames":["a"]}"#, "expected a string"),
        text("metadata is a list of lists", r#"{"Pod":{"metadata":[[]]},"NodeNames":["a"]}"#, "expected a string"),
        text(
            "nominated node is an object",
            r#"{"Pod":{"status":{"nominatedNodeName":{}}},"NodeNames":["a"]}"#,
            "expected a string",
        ),
        text("lone surrogate", r#"{"Pod":{},"NodeNames":["\ud800"]}"#, "hex escape"),
        text("control character", "{\"Pod\":{},\"NodeNames\":[\"\u{1}\"]}", "control character"),
        text("long wrong value", &format!(r#"{{"Pod":{{}},"NodeNames":"{}"}}"#, "x".repeat(1 << 20)), "invalid type: string"),
    ];
    bodies.push(("invalid UTF-8".to_owned(), b"{\"Pod\":{},\"NodeNames\":[\"\xff\xfe\"]}".to_vec(), "invalid unicode"));
    bodies.push((
        "invalid UTF-8 in the pod".to_owned(),
        b"{\"Pod\":{\"x\":\"\xff\"},\"NodeNames\":[]}".to_vec(),
        "invalid unicode",
    ));
    bodies.push(("binary".to_owned(), (0..=255).collect(), "expected value"));
    let (deep, shut) = ("[".repeat(1 << 20), "]".repeat(1 << 20));
    bodies.push(text("deep list", &deep, "EOF while parsing a list"));
    bodies.push(text("deep names", &format!(r#"{{"Pod":{{}},"NodeNames":{deep}"#), "expected a string"));
    bodies.push(text("deep unknown key", &format!(r#"{{"x":{deep}{shut},"Pod":{{}}}}"#), "neither NodeNames nor Nodes"));
    bodies.push(text("deep pod", &format!(r#"{{"Pod":{deep}{shut},"NodeNames":["a"]}}"#), "Pod is not an object"));
    for cut in [1, 10, fixture.len() / 2, fixture.len() - 1] {
        bodies.push((format!("truncated at {cut}"), fixture.as_bytes()[..cut].to_vec(), "EOF while parsing"));
    }
    bodies
}

#[test]
fn hostile_bodies_are_answered_with_an_error_that_names_what_is_wrong() {
    for (name, body, says) in hostile() {
        let answer = answer(Verb::Filter, &body, &PassThrough);
        let text: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{name}: {e}"));
        let error = text["Error"].as_str().unwrap();
        assert!(error.starts_with("spillway: cannot read the filter request: "), "{name}: {error}");
        assert!(error.contains(says), "{name}: {error}");
        assert!(error.len() < 400, "{name}: the description is short");
        assert_eq!((text["NodeNames"].clone(), answer.outcome), (json!([]), Outcome::Invalid), "{name}");
    }
}

#[test]
fn hostile_bodies_of_the_other_verbs_prefer_and_evict_nobody() {
    for (name, body, _) in hostile() {
        let scores = answer(Verb::Prioritize, &body, &PassThrough);
        assert_eq!((scores.body.as_slice(), scores.outcome), (b"[]".as_slice(), Outcome::Invalid), "{name}");
        let victims = answer(Verb::Preempt, &body, &PassThrough);
        assert_eq!(victims.body, br#"{"NodeNameToMetaVictims":{}}"#, "{name}");
        assert_eq!(victims.outcome, Outcome::Invalid, "{name}");
    }
}

// === properties ===

/// Answers from a list of drawn numbers: any verdicts, faults, panics and answers of the wrong size.
struct Drawn {
    verdicts: Vec<u8>,
    way: u8,
}

impl Answers for Drawn {
    fn filter(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<FilterAnswer, Fault> {
        let drawn = |position: usize| self.verdicts.get(position).copied().unwrap_or(0);
        let other = [Text::from("never-asked")];
        match self.way % 7 {
            0 => Ok(candidates.pass_all()),
            1 => Ok(candidates.refuse_all(Refusal::Failed(WAITING))),
            2 => Err(Fault { cause: "drawn" }),
            3 => panic!("drawn"),
            4 => Ok(Candidates::new(&other, Mode::Cache).pass_all()),
            5 => match candidates.iter().nth(usize::from(drawn(0))) {
                Some((index, _)) => Ok(candidates.choose(index, Refusal::Unresolvable(NOT_ELIGIBLE))),
                None => Ok(candidates.pass_all()),
            },
            _ => Ok(candidates.judge(|index, _| match drawn(index.position()) % 3 {
                0 => NodeVerdict::Pass,
                1 => NodeVerdict::Failed(WAITING),
                _ => NodeVerdict::Unresolvable(NOT_ELIGIBLE),
            })),
        }
    }

    fn prioritize(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<Scores, Fault> {
        Ok(candidates.score(|index, _| Score::new(self.verdicts.get(index.position()).map_or(0, |v| v % 11)).unwrap()))
    }

    fn preempt(&self, _: &PodView<'_>, victims: Victims<'_>) -> Result<PreemptAnswer, Fault> {
        let mut position = 0;
        Ok(victims.keep(|_| {
            position += 1;
            self.verdicts.get(position - 1).is_some_and(|v| v % 2 == 0)
        }))
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

proptest! {
    #[test]
    fn what_is_offered_is_a_subset_of_what_was_given(
        given in prop::collection::btree_set(".{1,12}", 0..12),
        verdicts in prop::collection::vec(any::<u8>(), 0..12),
        way in any::<u8>(),
        nominee in any::<prop::sample::Index>(),
        full_nodes in any::<bool>(),
    ) {
        let given: Vec<String> = given.into_iter().collect();
        let nominee = given.get(nominee.index(given.len() + 1)).cloned().unwrap_or_default();
        let pod = json!({"status": {"nominatedNodeName": nominee}});
        let request = if full_nodes {
            let items: Vec<Value> = given.iter().map(|name| json!({"metadata": {"name": name}})).collect();
            json!({"Pod": pod, "Nodes": {"items": items}})
        } else {
            json!({"Pod": pod, "NodeNames": given})
        };
        let (answer, body) = ask(Verb::Filter, &request, &Drawn { verdicts: verdicts.clone(), way });
        let offered = if full_nodes {
            body["Nodes"]["items"].as_array().unwrap().iter().map(|n| n["metadata"]["name"].as_str().unwrap().to_owned()).collect()
        } else {
            texts(&body["NodeNames"])
        };
        let reasons = |key: &str| body[key].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let (failed, unresolvable) = (reasons("FailedNodes"), reasons("FailedAndUnresolvableNodes"));
        let mut accounted: Vec<String> = [offered.clone(), failed, unresolvable].concat();
        accounted.sort();
        prop_assert_eq!(accounted, given.clone(), "each node is offered or has one reason, and no other node is named");
        prop_assert_eq!(offered.len(), answer.offered);
        prop_assert!(nominee.is_empty() || offered.contains(&nominee));
    }

    #[test]
    fn victims_are_a_subset_of_what_was_given(
        given in prop::collection::btree_map("[a-z\"é]{1,8}", prop::collection::vec("[a-f0-9-]{1,8}", 0..4), 0..6),
        verdicts in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let nodes: serde_json::Map<String, Value> = given.iter().map(|(node, uids)| {
            let pods: Vec<Value> = uids.iter().map(|uid| json!({"UID": uid})).collect();
            (node.clone(), json!({"Pods": pods, "NumPDBViolations": uids.len()}))
        }).collect();
        let (_, body) = ask(Verb::Preempt, &victims(&Value::Object(nodes.clone())), &Drawn { verdicts, way: 0 });
        for (node, victims) in body["NodeNameToMetaVictims"].as_object().unwrap() {
            prop_assert_eq!(victims, &nodes[node]);
            prop_assert!(!victims["Pods"].as_array().unwrap().is_empty());
        }
    }

    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bent = fixtures::request("filter-cache-affinity-spread-pvc").into_bytes();
        let position = cut.index(bent.len());
        bent[position] = byte;
        for body in [&body, &bent] {
            for verb in Verb::ALL {
                let answer = answer(verb, body, &PassThrough);
                prop_assert!(serde_json::from_slice::<Value>(&answer.body).is_ok());
            }
        }
    }
}
