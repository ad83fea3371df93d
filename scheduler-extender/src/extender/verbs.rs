//! The seam between the protocol and the decisions: what an implementation is asked and how it can answer.
//!
//! The types leave no room for an answer that would harm kube-scheduler. Answers are made from the request's own
//! candidates and speak of them by position, so a node that was not asked about cannot be named; a refused node cannot
//! be without a reason; a reason is a constant, because a text that changes from call to call makes kube-scheduler
//! retry the pod in a hot loop; victims can be dropped per node, never changed.

use super::wire::{Mode, NodeVictims, PodView, Text};

/// Decides. Called from kube-scheduler's serial loop: no locks that others hold for long, no waiting, no IO.
pub trait Answers: Send + Sync + 'static {
    /// Which of the candidates may take the pod.
    fn filter(&self, pod: &PodView<'_>, candidates: Candidates<'_>) -> Result<FilterAnswer, Fault>;

    /// How much each candidate is wanted.
    fn prioritize(&self, pod: &PodView<'_>, candidates: Candidates<'_>) -> Result<Scores, Fault>;

    /// On which nodes victims may be evicted for the pod.
    fn preempt(&self, pod: &PodView<'_>, victims: Victims<'_>) -> Result<PreemptAnswer, Fault>;
}

/// An internal fault: the answer is then what plain Kubernetes would do, and the fault is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Fault {
    /// What failed; a constant, as it becomes a log line per call.
    pub cause: &'static str,
}

/// Refuses nothing, prefers nothing, protects nobody: the same as no extender.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassThrough;

impl Answers for PassThrough {
    fn filter(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<FilterAnswer, Fault> {
        Ok(candidates.pass_all())
    }

    fn prioritize(&self, _: &PodView<'_>, candidates: Candidates<'_>) -> Result<Scores, Fault> {
        Ok(candidates.score(|_, _| Score::LOWEST))
    }

    fn preempt(&self, _: &PodView<'_>, victims: Victims<'_>) -> Result<PreemptAnswer, Fault> {
        Ok(victims.keep(|_| true))
    }
}

/// A constant text for a refused node. kube-scheduler puts it into the pod's condition and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReasonText(&'static str);

impl ReasonText {
    /// Meant for constants: `const NO: ReasonText = ReasonText::new("...")` checks the text when it is compiled.
    ///
    /// # Panics
    /// When the text is empty, longer than 200 bytes, or needs escaping in JSON.
    pub const fn new(text: &'static str) -> ReasonText {
        let bytes = text.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= 200, "a reason is a short sentence");
        let mut i = 0;
        while i < bytes.len() {
            let byte = bytes[i];
            assert!(byte >= 0x20 && byte < 0x7f && byte != b'"' && byte != b'\\', "a reason is plain ASCII without quotes");
            i += 1;
        }
        ReasonText(text)
    }

    /// The text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// The answer about one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeVerdict {
    /// The node may take the pod.
    Pass,
    /// Refused; evicting pods from the node could help.
    Failed(ReasonText),
    /// Refused by policy; evicting pods from the node would not help, so kube-scheduler does not try.
    Unresolvable(ReasonText),
}

/// One candidate of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CandidateIndex(usize);

impl CandidateIndex {
    /// Position in the request.
    pub fn position(self) -> usize {
        self.0
    }
}

// === impl Candidates ===

/// The nodes that the request offers, and the only way to make answers about them.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'r> {
    names: &'r [Text<'r>],
    mode: Mode,
}

impl<'r> Candidates<'r> {
    /// The candidates of a request.
    pub fn new(names: &'r [Text<'r>], mode: Mode) -> Candidates<'r> {
        Candidates { names, mode }
    }

    /// How many nodes are offered. Not the size of the cluster: kube-scheduler samples.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no node is offered.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How the scheduler is configured.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Each candidate with its node name, in the order of the request.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (CandidateIndex, &'r str)> + use<'r> {
        self.names.iter().enumerate().map(|(i, name)| (CandidateIndex(i), name.as_str()))
    }

    /// Every node may take the pod.
    pub fn pass_all(&self) -> FilterAnswer {
        self.answer(Choice::All)
    }

    /// No node may take the pod.
    pub fn refuse_all(&self, why: Refusal) -> FilterAnswer {
        self.answer(Choice::None(why))
    }

    /// One node takes the pod; kube-scheduler then skips scoring. `others` says why the other nodes were passed over.
    pub fn choose(&self, chosen: CandidateIndex, others: Refusal) -> FilterAnswer {
        self.answer(Choice::One { chosen: chosen.0, others })
    }

    /// Node by node.
    pub fn judge(&self, mut verdict: impl FnMut(CandidateIndex, &'r str) -> NodeVerdict) -> FilterAnswer {
        self.answer(Choice::Each(self.iter().map(|(index, name)| verdict(index, name)).collect()))
    }

    /// A score for every node.
    pub fn score(&self, mut score: impl FnMut(CandidateIndex, &'r str) -> Score) -> Scores {
        Scores(self.iter().map(|(index, name)| score(index, name)).collect())
    }

    fn answer(&self, choice: Choice) -> FilterAnswer {
        FilterAnswer { candidates: self.names.len(), choice }
    }
}

/// A reason together with what kube-scheduler may do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As [`NodeVerdict::Failed`].
    Failed(ReasonText),
    /// As [`NodeVerdict::Unresolvable`].
    Unresolvable(ReasonText),
}

impl From<Refusal> for NodeVerdict {
    fn from(refusal: Refusal) -> NodeVerdict {
        match refusal {
            Refusal::Failed(reason) => NodeVerdict::Failed(reason),
            Refusal::Unresolvable(reason) => NodeVerdict::Unresolvable(reason),
        }
    }
}

/// One verdict for each candidate. Made by [`Candidates`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterAnswer {
    /// How many candidates this answers; it fits no request of another size.
    candidates: usize,
    choice: Choice,
}

/// The usual answers without a verdict per node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    All,
    None(Refusal),
    One { chosen: usize, others: Refusal },
    Each(Vec<NodeVerdict>),
}

impl FilterAnswer {
    /// Whether this is an answer about so many candidates. One that was kept from another request may not be.
    pub(super) fn fits(&self, candidates: usize) -> bool {
        let chosen_exists = match self.choice {
            Choice::One { chosen, .. } => chosen < candidates,
            Choice::All | Choice::None(_) | Choice::Each(_) => true,
        };
        self.candidates == candidates && chosen_exists
    }

    /// The verdict about one candidate.
    #[inline]
    pub(super) fn verdict(&self, position: usize) -> NodeVerdict {
        match &self.choice {
            Choice::All => NodeVerdict::Pass,
            Choice::None(why) => (*why).into(),
            Choice::One { chosen, .. } if *chosen == position => NodeVerdict::Pass,
            Choice::One { others, .. } => (*others).into(),
            Choice::Each(verdicts) => verdicts[position],
        }
    }
}

// === prioritize ===

/// How much a node is wanted, 0 to 10. kube-scheduler multiplies it by the extender's weight and checks no range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(u8);

impl Score {
    /// No wish.
    pub const LOWEST: Score = Score(0);
    /// The strongest wish.
    pub const HIGHEST: Score = Score(10);

    /// `None` above ten.
    pub const fn new(value: u8) -> Option<Score> {
        if value <= Score::HIGHEST.0 { Some(Score(value)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A score for each candidate. Made by [`Candidates::score`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scores(Vec<Score>);

impl Scores {
    /// In the order of the candidates.
    pub(super) fn as_slice(&self) -> &[Score] {
        &self.0
    }
}

// === preempt ===

/// The nodes on which kube-scheduler could make room, and the only way to answer about them.
#[derive(Clone, Copy, Debug)]
pub struct Victims<'r> {
    nodes: &'r [NodeVictims<'r>],
}

impl<'r> Victims<'r> {
    /// The victims of a request.
    pub fn new(nodes: &'r [NodeVictims<'r>]) -> Victims<'r> {
        Victims { nodes }
    }

    /// Node by node, in the order of the request.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'r NodeVictims<'r>> + use<'r> {
        self.nodes.iter()
    }

    /// Nobody is evicted for this pod now.
    pub fn spare_all(&self) -> PreemptAnswer {
        self.keep(|_| false)
    }

    /// Room may be made on the nodes for which `keep` says yes. All victims of a node or none: with some of them
    /// spared the pod would not fit.
    pub fn keep(&self, keep: impl FnMut(&'r NodeVictims<'r>) -> bool) -> PreemptAnswer {
        PreemptAnswer(self.nodes.iter().map(keep).collect())
    }
}

/// Which nodes stay candidates for preemption. Made by [`Victims`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreemptAnswer(Vec<bool>);

impl PreemptAnswer {
    /// In the order of the request's nodes.
    pub(super) fn as_slice(&self) -> &[bool] {
        &self.0
    }
}
