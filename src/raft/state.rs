//! The replicated state: pure, the same on every node that has applied the same entries.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::core::ledger::Ledger;
use crate::id::{ClusterId, MemberId};
use crate::protocol::election::ElectionResult;
use crate::protocol::ledger::{Change, Write};
use crate::raft::types::{Command, Outcome};

/// Elections that are remembered.
pub const ELECTIONS_LIMIT: usize = 64;

/// Removed members that are remembered.
pub const REMOVED_LIMIT: usize = 1024;

/// What the log adds up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    cluster_id: Option<ClusterId>,
    elections: VecDeque<ElectionResult>,
    ledger: Ledger,
    /// Lives that were members, the last [`REMOVED_LIMIT`]: who is told so stops, and none of them comes back.
    removed: VecDeque<MemberId>,
}

impl State {
    /// Applies the command that is number `commit` in the log, counted from 1.
    ///
    /// What it changes in the ledger is added to `changes`.
    pub fn apply(&mut self, commit: u64, command: Command, changes: &mut Vec<Change>) -> Outcome {
        match command {
            Command::ProveLeadership => Outcome::Recorded,
            Command::RecordElection(result) => {
                if self.elections.len() == ELECTIONS_LIMIT {
                    self.elections.pop_front();
                }
                self.elections.push_back(result);
                Outcome::Recorded
            }
            Command::Ledger { stamp, date, writes } => {
                changes.extend(self.ledger.advance(stamp, date));
                let mut apply = |write: &Write| {
                    let before = self.ledger.revision();
                    let answer = self.ledger.apply(commit, write);
                    if self.ledger.revision() > before {
                        changes.extend(self.ledger.changes(write, &answer));
                    }
                    answer
                };
                Outcome::Answered(writes.iter().map(&mut apply).collect())
            }
        }
    }

    /// Takes note of a membership: the first one names the cluster, later ones do not change the name. Whoever was a member before
    /// and is none now is remembered as removed.
    pub fn apply_membership(&mut self, before: &BTreeSet<MemberId>, now: &BTreeSet<MemberId>) {
        self.cluster_id.get_or_insert_with(|| cluster_id(now));
        self.removed.extend(before.difference(now));
        let over = self.removed.len().saturating_sub(REMOVED_LIMIT);
        self.removed.drain(..over);
    }

    /// Lives that were members and are none any more, as far as remembered.
    pub fn removed(&self) -> impl Iterator<Item = MemberId> {
        self.removed.iter().copied()
    }

    /// The cluster id, once the first membership is applied.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The last elections, the oldest first.
    pub fn elections(&self) -> impl Iterator<Item = &ElectionResult> {
        self.elections.iter()
    }
}

/// BLAKE3-256 of the members in ascending order, each as node id (2 bytes) and incarnation (8 bytes), big endian.
fn cluster_id(voters: &BTreeSet<MemberId>) -> ClusterId {
    let mut hasher = blake3::Hasher::new_derive_key("image-cloud 2026 cluster id");
    for member in voters {
        hasher.update(&member.node.0.to_be_bytes());
        hasher.update(&member.incarnation.0.to_be_bytes());
    }
    ClusterId(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, NodeId, Term};
    use crate::protocol::election::Cause;
    use crate::protocol::status::Leadership;

    fn member(node: u16, incarnation: u64) -> MemberId {
        MemberId { node: NodeId(node), incarnation: Incarnation(incarnation) }
    }

    #[test]
    fn the_first_membership_names_the_cluster_for_ever() {
        let mut state = State::default();
        assert_eq!(state.cluster_id(), None);
        let first = BTreeSet::from([member(1, 7), member(2, 8)]);
        state.apply_membership(&BTreeSet::new(), &first);
        let name = state.cluster_id();
        assert!(name.is_some());
        state.apply_membership(&first, &BTreeSet::from([member(1, 7)]));
        assert_eq!(state.cluster_id(), name);
        assert_eq!(state.removed().collect::<Vec<_>>(), [member(2, 8)]);

        let mut reset = State::default();
        reset.apply_membership(&BTreeSet::new(), &BTreeSet::from([member(1, 7), member(2, 9)]));
        assert_ne!(reset.cluster_id(), name, "another life of one disk is another ledger");
    }

    /// The memory of removed members is bounded, and the last ones stay.
    #[test]
    fn removed_members_are_remembered_up_to_a_limit() {
        let mut state = State::default();
        let one = |life| BTreeSet::from([member(1, life)]);
        let lives = REMOVED_LIMIT as u64 + 10;
        (0..lives).for_each(|life| state.apply_membership(&one(life), &one(life + 1)));
        assert_eq!(state.removed().count(), REMOVED_LIMIT);
        assert_eq!(state.removed().last(), Some(member(1, lives - 1)));
    }

    #[test]
    fn only_the_last_elections_are_kept() {
        let mut state = State::default();
        for term in 0..100 {
            let coordinator = Leadership { term: Term(term), node: NodeId(1) };
            state.apply(
                term + 1,
                Command::RecordElection(ElectionResult {
                    coordinator,
                    vacancy: None,
                    caller: None,
                    cause: Cause::FirstStart,
                    standings: Vec::new(),
                    campaign: None,
                    votes: Vec::new(),
                    voters: 3,
                    took_micros: 0,
                    handed_over_to: None,
                }),
                &mut Vec::new(),
            );
        }
        let terms: Vec<u64> = state.elections().map(|result| result.coordinator.term.0).collect();
        assert_eq!(terms, (36..100).collect::<Vec<u64>>());
    }
}
