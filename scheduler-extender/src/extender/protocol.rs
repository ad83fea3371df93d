//! From the bytes of a request to the bytes of its answer, with kube-scheduler's rules kept whatever happens.
//!
//! # Which status, which body
//!
//! kube-scheduler reads the body of a 200 only; anything else is an error without words, and `ignorable: true` treats
//! both alike. So every call of a verb is answered with 200 and JSON:
//!
//! | situation | `filter` | `prioritize` | `preempt` |
//! |---|---|---|---|
//! | unreadable or oversized request | empty `NodeNames`, `Error` says what is wrong | `[]`: nobody is preferred | `{}`: nobody is evicted |
//! | fault or panic in the decision | all nodes pass | all scores 0 | victims as they came |
//!
//! An unreadable request holds no nodes that could be passed on. With `Error` the pod is retried with a real backoff
//! (or the extender is skipped when it is ignorable), while a refusal of all nodes would look like a decision.
//! A fault of our own must not hold anybody up: the answer is then what it would be without the extender.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::{error, warn};

use super::verbs::{Answers, Candidates, FilterAnswer, NodeVerdict, PreemptAnswer, Scores, Victims};
use super::wire::{self, FilterRequest, Invalid, Mode, NodeVictims, Offered, PodView, PreemptRequest, Text};

/// What kube-scheduler can ask. There is no bind: Spillway's own Bindings do not pass through the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Which nodes may take the pod.
    Filter,
    /// Which of them are preferred.
    Prioritize,
    /// On which nodes others may be evicted for it.
    Preempt,
}

impl Verb {
    /// All verbs, for metrics that start at zero.
    pub const ALL: [Verb; 3] = [Verb::Filter, Verb::Prioritize, Verb::Preempt];

    /// The verb as it stands in the path and in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Verb::Filter => "filter",
            Verb::Prioritize => "prioritize",
            Verb::Preempt => "preempt",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The decision was given.
    Answered,
    /// The decision failed or panicked; the answer is plain Kubernetes'.
    FailedOpen,
    /// The request could not be read.
    Invalid,
    /// The body was larger than the limit.
    TooLarge,
    /// The body did not arrive in time or broke off.
    Incomplete,
    /// The replica is draining and said so.
    Draining,
}

impl Outcome {
    /// All outcomes, for metrics that start at zero.
    pub const ALL: [Outcome; 6] =
        [Outcome::Answered, Outcome::FailedOpen, Outcome::Invalid, Outcome::TooLarge, Outcome::Incomplete, Outcome::Draining];

    /// Stable label for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::FailedOpen => "failed_open",
            Outcome::Invalid => "invalid",
            Outcome::TooLarge => "too_large",
            Outcome::Incomplete => "incomplete",
            Outcome::Draining => "draining",
        }
    }
}

/// An answer and what there is to count about it.
#[derive(Debug)]
pub struct Answer {
    /// JSON, always for status 200.
    pub body: Vec<u8>,
    /// How the call ended.
    pub outcome: Outcome,
    /// How the scheduler sends nodes; unknown when the request could not be read.
    pub mode: Option<Mode>,
    /// How many nodes the request named.
    pub candidates: usize,
    /// How many of them the answer left.
    pub offered: usize,
}

/// Answers one call. Never panics, never fails.
pub fn answer(verb: Verb, body: &[u8], answers: &dyn Answers) -> Answer {
    let answered = match verb {
        Verb::Filter => wire::decode_filter(body).map(|request| filter(&request, answers)),
        Verb::Prioritize => wire::decode_filter(body).map(|request| prioritize(&request, answers)),
        Verb::Preempt => wire::decode_preempt(body).map(|request| preempt(&request, answers)),
    };
    answered.unwrap_or_else(|invalid| unreadable(verb, &invalid))
}

/// The answer to a request that was not read.
pub(super) fn refused(verb: Verb, outcome: Outcome, why: &str) -> Answer {
    let body = match verb {
        Verb::Filter => {
            let nothing = Offered { names: Vec::new(), bodies: None };
            let none_of_it = Candidates::new(&nothing.names, Mode::Cache).pass_all();
            encode_filter(&nothing, &none_of_it, None, why).0
        }
        Verb::Prioritize => b"[]".to_vec(),
        Verb::Preempt => b"{\"NodeNameToMetaVictims\":{}}".to_vec(),
    };
    Answer { body, outcome, mode: None, candidates: 0, offered: 0 }
}

/// Longest description of a bad request: it quotes the request, which may be long.
const DESCRIPTION_MAX: usize = 300;

fn unreadable(verb: Verb, invalid: &Invalid) -> Answer {
    let mut why = format!("spillway: cannot read the {} request: {invalid}", verb.label());
    if why.len() > DESCRIPTION_MAX {
        why.truncate(why.floor_char_boundary(DESCRIPTION_MAX));
        why.push_str("...");
    }
    warn!(verb = verb.label(), error = %why, "unreadable request");
    refused(verb, Outcome::Invalid, &why)
}

/// Runs a decision; `None` when it failed, which is logged here and counted by the caller.
fn decide<T>(verb: Verb, pod: &PodView<'_>, decision: impl FnOnce() -> Result<T, super::verbs::Fault>) -> Option<T> {
    // Unwind safe: a decision reads an immutable snapshot, and nothing of it is used after a panic.
    let cause = match catch_unwind(AssertUnwindSafe(decision)) {
        Ok(Ok(answer)) => return Some(answer),
        Ok(Err(fault)) => fault.cause,
        Err(_) => "panic",
    };
    error!(verb = verb.label(), namespace = %pod.namespace, pod = %pod.name, cause, "decision failed, answering as plain Kubernetes would");
    None
}

/// The answer of a decision if it fits the request, else the way plain Kubernetes goes.
fn or_open<T>(decided: Option<T>, fits: impl FnOnce(&T) -> bool, open: impl FnOnce() -> T) -> (T, Outcome) {
    match decided {
        Some(answer) if fits(&answer) => (answer, Outcome::Answered),
        Some(_) => {
            error!("the decision answers another request, answering as plain Kubernetes would");
            (open(), Outcome::FailedOpen)
        }
        None => (open(), Outcome::FailedOpen),
    }
}

// === filter ===

fn filter(request: &FilterRequest<'_>, answers: &dyn Answers) -> Answer {
    let FilterRequest { pod, offered } = request;
    let count = offered.names.len();
    let candidates = Candidates::new(&offered.names, offered.mode());
    let decided = decide(Verb::Filter, pod, || answers.filter(pod, candidates));
    let (answer, outcome) = or_open(decided, |answer| answer.fits(count), || candidates.pass_all());
    let nominated = nominated(pod, offered);
    let (body, passed) = encode_filter(offered, &answer, nominated, "");
    Answer { body, outcome, mode: Some(offered.mode()), candidates: count, offered: passed }
}

/// kube-scheduler has evicted pods to make room for this pod on its nominated node. Refusing that node now would send
/// it to the next one, to evict there as well, and so on through the cluster.
fn nominated(pod: &PodView<'_>, offered: &Offered<'_>) -> Option<usize> {
    if pod.nominated_node_name.is_empty() {
        return None;
    }
    offered.names.iter().position(|name| *name == pod.nominated_node_name)
}

/// Writes the answer in the form in which the scheduler sent the nodes; returns also how many passed.
fn encode_filter(offered: &Offered<'_>, answer: &FilterAnswer, nominated: Option<usize>, error: &str) -> (Vec<u8>, usize) {
    let Offered { names, bodies } = offered;
    let verdict = |position: usize| {
        if nominated == Some(position) { NodeVerdict::Pass } else { answer.verdict(position) }
    };
    let Tally { passed, failed, unresolvable, bytes } = tally(offered, verdict);
    let mut out = Vec::with_capacity(bytes + error.len());
    out.extend_from_slice(b"{\"FailedNodes\":{");
    if failed > 0 {
        write_reasons(&mut out, names, |position| match verdict(position) {
            NodeVerdict::Failed(reason) => Some(reason.as_str()),
            NodeVerdict::Pass | NodeVerdict::Unresolvable(_) => None,
        });
    }
    out.extend_from_slice(b"},\"FailedAndUnresolvableNodes\":{");
    if unresolvable > 0 {
        write_reasons(&mut out, names, |position| match verdict(position) {
            NodeVerdict::Unresolvable(reason) => Some(reason.as_str()),
            NodeVerdict::Pass | NodeVerdict::Failed(_) => None,
        });
    }
    out.extend_from_slice(b"},\"Error\":");
    wire::write_escaped(error, &mut out);
    let passing = (0..names.len()).filter(|position| matches!(verdict(*position), NodeVerdict::Pass));
    match bodies {
        None => {
            out.extend_from_slice(b",\"NodeNames\":[");
            write_list(&mut out, passing, |out, position| names[position].write_json(out));
            out.extend_from_slice(b"]}");
        }
        Some(bodies) => {
            out.extend_from_slice(b",\"Nodes\":{\"metadata\":{},\"items\":[");
            write_list(&mut out, passing, |out, position| out.extend_from_slice(bodies[position].get().as_bytes()));
            out.extend_from_slice(b"]}}");
        }
    }
    (out, passed)
}

/// What an answer will hold, so that it is written into memory of the right size.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    unresolvable: usize,
    bytes: usize,
}

fn tally(offered: &Offered<'_>, verdict: impl Fn(usize) -> NodeVerdict) -> Tally {
    /// The keys and brackets of an answer without nodes.
    const FRAME: usize = 128;
    let mut tally = Tally { bytes: FRAME, ..Tally::default() };
    for (position, name) in offered.names.iter().enumerate() {
        tally.bytes += match verdict(position) {
            NodeVerdict::Pass => {
                tally.passed += 1;
                offered.bodies.as_ref().map_or(name.len() + 3, |bodies| bodies[position].get().len() + 1)
            }
            NodeVerdict::Failed(reason) => {
                tally.failed += 1;
                name.len() + reason.as_str().len() + 6
            }
            NodeVerdict::Unresolvable(reason) => {
                tally.unresolvable += 1;
                name.len() + reason.as_str().len() + 6
            }
        };
    }
    tally
}

/// Reasons hold nothing to escape: `ReasonText` sees to that.
fn write_reasons(out: &mut Vec<u8>, names: &[Text<'_>], reason: impl Fn(usize) -> Option<&'static str>) {
    let refused = names.iter().enumerate().filter_map(|(position, name)| Some((name, reason(position)?)));
    write_list(out, refused, |out, (name, reason)| {
        name.write_json(out);
        out.extend_from_slice(b":\"");
        out.extend_from_slice(reason.as_bytes());
        out.push(b'"');
    });
}

fn write_list<T>(out: &mut Vec<u8>, elements: impl Iterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    let mut first = true;
    for element in elements {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write(out, element);
    }
}

// === prioritize ===

fn prioritize(request: &FilterRequest<'_>, answers: &dyn Answers) -> Answer {
    let FilterRequest { pod, offered } = request;
    let count = offered.names.len();
    let candidates = Candidates::new(&offered.names, offered.mode());
    let decided = decide(Verb::Prioritize, pod, || answers.prioritize(pod, candidates));
    let open = || candidates.score(|_, _| super::verbs::Score::LOWEST);
    let (scores, outcome) = or_open(decided, |scores| scores.as_slice().len() == count, open);
    let body = encode_scores(&offered.names, &scores);
    Answer { body, outcome, mode: Some(offered.mode()), candidates: count, offered: count }
}

fn encode_scores(names: &[Text<'_>], scores: &Scores) -> Vec<u8> {
    let mut out = Vec::with_capacity(names.iter().map(|name| name.len() + 26).sum::<usize>() + 2);
    out.push(b'[');
    write_list(&mut out, names.iter().zip(scores.as_slice()), |out, (name, score)| {
        out.extend_from_slice(b"{\"Host\":");
        name.write_json(out);
        out.extend_from_slice(b",\"Score\":");
        out.extend_from_slice(score.get().to_string().as_bytes());
        out.push(b'}');
    });
    out.push(b']');
    out
}

// === preempt ===

fn preempt(request: &PreemptRequest<'_>, answers: &dyn Answers) -> Answer {
    let PreemptRequest { pod, nodes, mode } = request;
    let victims = Victims::new(nodes);
    let decided = decide(Verb::Preempt, pod, || answers.preempt(pod, victims));
    let (answer, outcome) = or_open(decided, |answer| answer.as_slice().len() == nodes.len(), || victims.keep(|_| true));
    let (body, kept) = encode_victims(nodes, &answer);
    Answer { body, outcome, mode: Some(*mode), candidates: nodes.len(), offered: kept }
}

/// Always the meta form, and never null: a null victim ends the kube-scheduler process. A node without victims is left
/// out too, as kube-scheduler takes it for an error.
fn encode_victims(nodes: &[NodeVictims<'_>], answer: &PreemptAnswer) -> (Vec<u8>, usize) {
    let kept = || {
        let pairs = nodes.iter().zip(answer.as_slice());
        pairs.filter(|(victims, keep)| **keep && !victims.uids.is_empty()).map(|(victims, _)| victims)
    };
    let mut out = b"{\"NodeNameToMetaVictims\":{".to_vec();
    write_list(&mut out, kept(), |out, victims| {
        victims.node.write_json(out);
        out.extend_from_slice(b":{\"Pods\":[");
        write_list(out, victims.uids.iter(), |out, uid| {
            out.extend_from_slice(b"{\"UID\":");
            uid.write_json(out);
            out.push(b'}');
        });
        out.extend_from_slice(b"],\"NumPDBViolations\":");
        out.extend_from_slice(victims.pdb_violations.to_string().as_bytes());
        out.push(b'}');
    });
    out.extend_from_slice(b"}}");
    (out, kept().count())
}

#[cfg(test)]
mod tests;
