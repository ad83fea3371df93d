use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::extender::fixtures;

fn pod(pod: &Value) -> PodView<'static> {
    let body: &'static str = json!({"Pod": pod, "NodeNames": ["a"]}).to_string().leak();
    decode_filter(body.as_bytes()).expect("a well-formed pod").pod
}

fn error(body: &str) -> String {
    decode_filter(body.as_bytes()).expect_err("must not decode").to_string()
}

#[test]
fn every_recorded_request_decodes() {
    for case in fixtures::all() {
        let request = fixtures::request(&case);
        match case.split('-').next() {
            Some("filter" | "prioritize") => {
                let decoded = decode_filter(request.as_bytes()).unwrap_or_else(|e| panic!("{case}: {e}"));
                assert!(!decoded.offered.names.is_empty() && !decoded.pod.name.is_empty(), "{case}");
                let mode = if case.contains("nocache") { Mode::NoCache } else { Mode::Cache };
                assert_eq!(decoded.offered.mode(), mode, "{case}");
            }
            Some("preempt") => {
                let decoded = decode_preempt(request.as_bytes()).unwrap_or_else(|e| panic!("{case}: {e}"));
                assert_eq!(decoded.nodes.len(), 3, "{case}");
                assert!(decoded.nodes.iter().all(|victims| victims.uids.len() == 1), "{case}");
            }
            // Spillway has no bind verb; the recorded bodies show what one would get.
            Some("bind") => assert!(request.starts_with(r#"{"PodName":"#), "{case}"),
            _ => panic!("unknown verb: {case}"),
        }
    }
}

#[test]
fn the_pod_is_handed_on_whole() {
    let request = fixtures::request("filter-cache-affinity-spread-pvc");
    let FilterRequest { pod, offered } = decode_filter(request.as_bytes()).unwrap();
    assert_eq!(offered.names, ["dedicated-0", "dedicated-1", "dedicated-2", "virtual-aci", "virtual-fargate", "virtual-nomad"]);
    assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("default", "full-0"));
    assert_eq!(pod.uid, "3270c0de-0be1-43bc-b2b6-da9d39b7c191");
    let whole: Value = serde_json::from_str(pod.json).unwrap();
    assert_eq!(whole["spec"]["containers"][0]["name"], "c");
}

#[test]
fn the_nominated_node_is_read() {
    let pod = pod(&json!({"metadata": {"name": "p"}, "status": {"nominatedNodeName": "node-1"}}));
    assert_eq!(pod.nominated_node_name, "node-1");
}

#[test]
fn names_borrow_from_the_body_unless_escaped() {
    let body = r#"{"Pod":{},"NodeNames":["plain","\u0070lain","q\"uote","ümlaut"]}"#;
    let FilterRequest { offered, .. } = decode_filter(body.as_bytes()).unwrap();
    assert_eq!(offered.names, ["plain", "plain", "q\"uote", "ümlaut"]);
    let within = |name: &Text<'_>| body.as_bytes().as_ptr_range().contains(&name.as_str().as_ptr());
    assert_eq!(offered.names.iter().map(within).collect::<Vec<_>>(), [true, false, false, true]);
}

#[test]
fn node_lists_must_be_one_of_two_kinds() {
    assert_eq!(error(r#"{"Pod":{}}"#), "neither NodeNames nor Nodes");
    assert_eq!(error(r#"{"Pod":{},"Nodes":null,"NodeNames":null}"#), "neither NodeNames nor Nodes");
    assert_eq!(error(r#"{"Pod":{},"Nodes":{"items":[]},"NodeNames":[]}"#), "both NodeNames and Nodes");
    assert_eq!(error(r#"{"Pod":{},"Nodes":{"items":[{"metadata":{"name":"a"}},{}]}}"#), "Nodes.items[1] has no metadata.name");
    assert_eq!(error(r#"{"NodeNames":["a"]}"#), "no Pod");
    assert_eq!(error(r#"{"Pod":[],"NodeNames":["a"]}"#), "Pod is not an object");
    let twice = r#"{"Pod":{},"NodeNameToMetaVictims":{"a":{"Pods":[]},"a":{"Pods":[]}}}"#;
    assert_eq!(decode_preempt(twice.as_bytes()).unwrap_err().to_string(), "victims of a node given twice");
    assert!(decode_preempt(br#"{"Pod":{}}"#).is_err());
}

#[test]
fn lists_and_pods_have_limits() {
    let names = |count: usize| format!(r#"{{"Pod":{{}},"NodeNames":[{}]}}"#, vec![r#""a""#; count].join(","));
    assert_eq!(decode_filter(names(NODES_MAX).as_bytes()).unwrap().offered.names.len(), NODES_MAX);
    assert!(error(&names(NODES_MAX + 1)).contains("more than 50000 elements"));
    let large = format!(r#"{{"Pod":{{"x":"{}"}},"NodeNames":["a"]}}"#, "x".repeat(POD_BYTES_MAX));
    assert!(error(&large).contains("more than 4194304"));
}

proptest! {
    #[test]
    fn any_text_written_reads_back(text in any::<String>()) {
        let mut out = Vec::new();
        write_escaped(&text, &mut out);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.clone());

        let mut out = Vec::new();
        Text::from(text.as_str()).write_json(&mut out);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.clone());

        let json = serde_json::to_vec(&text).unwrap();
        let mut out = Vec::new();
        serde_json::from_slice::<Text<'_>>(&json).unwrap().write_json(&mut out);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
