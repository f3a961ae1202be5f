//! One round of announcing: what each node has said about one request, and what follows from it. Pure.
//!
//! The coordinator's placement is taken as soon as it is there. Otherwise the client takes the lowest load itself, as soon
//! as nobody is left whom it would wait for.

use crate::id::NodeId;
use crate::protocol::job::EncryptionResponse;
use crate::protocol::status::NodeState;
use crate::time::Moment;

/// What a node's announcer tells a request that waits.
#[derive(Clone, Debug)]
pub(super) enum Word {
    /// It takes longer than the announce timeout: wait for it only if nobody else answers.
    Late,
    /// There will be no answer in this round.
    NoAnswer,
    /// The node's answer.
    Answer {
        response: EncryptionResponse,
        /// When the node was asked: what was placed on it later is not in the answered load.
        asked: Moment,
    },
}

/// Index of a node in the client's settings.
pub(super) type Index = usize;

#[derive(Clone, Debug)]
enum Entry {
    Awaited,
    Late,
    Gone,
    Answered { response: EncryptionResponse, asked: Moment },
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Upload to the node that the coordinator chose.
    Placed(Index),
    /// Nobody is left to wait for: choose one of these.
    Choose(Vec<Candidate>),
    /// An answer is worth waiting for.
    Wait,
    /// Nobody takes jobs.
    Nobody,
}

/// An active node, to be chosen by load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub index: Index,
    /// Hundredths of a job per worker.
    pub load: u64,
    pub asked: Moment,
}

/// Which nodes a request had better not use, and what they are called.
pub(super) trait Knowledge {
    /// Where the node is.
    fn index_of(&self, node: NodeId) -> Option<Index>;
    /// Whether the node is better avoided, as long as there is another one.
    fn is_doubtful(&self, index: Index) -> bool;
}

#[derive(Clone, Debug)]
pub(super) struct Round {
    entries: Vec<Entry>,
}

impl Round {
    /// A round among `nodes` nodes, all of them awaited.
    pub fn new(nodes: usize) -> Self {
        Round { entries: vec![Entry::Awaited; nodes] }
    }

    /// Takes in what an announcer said.
    pub fn hear(&mut self, index: Index, word: Word) {
        self.entries[index] = match word {
            Word::Late => Entry::Late,
            Word::NoAnswer => Entry::Gone,
            Word::Answer { response, asked } => Entry::Answered { response, asked },
        };
    }

    /// Nothing more will be heard.
    pub fn close(&mut self) {
        for entry in &mut self.entries {
            if matches!(entry, Entry::Awaited | Entry::Late) {
                *entry = Entry::Gone;
            }
        }
    }

    /// Whether an active node has answered: from then on nobody is waited for beyond the announce timeout.
    pub fn has_active_answer(&self) -> bool {
        self.candidates().next().is_some()
    }

    /// What follows from the answers so far, and from whether the round has lasted as long as it may.
    pub fn verdict(&self, knowledge: &dyn Knowledge, clock: Clock) -> Verdict {
        let placed = self.placement().and_then(|node| knowledge.index_of(node));
        if let Some(index) = placed
            && !knowledge.is_doubtful(index)
        {
            return Verdict::Placed(index);
        }
        let all: Vec<Candidate> = self.candidates().collect();
        let awaited = self.entries.iter().any(|entry| matches!(entry, Entry::Awaited));
        let late = self.entries.iter().any(|entry| matches!(entry, Entry::Late));
        if clock == Clock::Running && (awaited || (late && all.is_empty() && placed.is_none())) {
            return Verdict::Wait;
        }
        let trusted: Vec<Candidate> =
            all.iter().copied().filter(|candidate| !knowledge.is_doubtful(candidate.index)).collect();
        match (trusted.is_empty(), placed, all.is_empty()) {
            (false, ..) => Verdict::Choose(trusted),
            (true, Some(index), _) => Verdict::Placed(index),
            (true, None, false) => Verdict::Choose(all),
            (true, None, true) => Verdict::Nobody,
        }
    }

    /// The placement of the confirmed coordinator with the highest term, if no answer knows of a higher one.
    fn placement(&self) -> Option<NodeId> {
        let newest = self.answers().filter_map(|(_, response, _)| response.coordinator).max()?;
        self.answers()
            .find(|(_, response, _)| response.node == newest.node && response.coordinator == Some(newest))
            .and_then(|(_, response, _)| response.placement)
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        self.answers()
            .filter(|(_, response, _)| response.state == NodeState::Active)
            .map(|(index, response, asked)| Candidate { index, load: u64::from(response.load.hundredths()), asked })
    }

    fn answers(&self) -> impl Iterator<Item = (Index, &EncryptionResponse, Moment)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| match entry {
            Entry::Answered { response, asked } => Some((index, response, *asked)),
            _ => None,
        })
    }
}

/// Whether the round may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    Running,
    TimeIsUp,
}

/// The candidates with the lowest load, each job of this client that the answered load cannot show counting as one more.
pub(super) fn least_loaded(candidates: &[Candidate], uncovered: impl Fn(&Candidate) -> u64) -> Vec<Index> {
    let expected = |candidate: &Candidate| candidate.load + 100 * uncovered(candidate);
    let lowest = candidates.iter().map(expected).min();
    candidates
        .iter()
        .filter(|&candidate| Some(expected(candidate)) == lowest)
        .map(|candidate| candidate.index)
        .collect()
}

#[cfg(test)]
#[path = "round_tests.rs"]
mod tests;
