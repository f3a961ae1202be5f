//! Who voted for this node: the library decides by the votes but does not tell whose they were.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::id::{NodeId, Term};

/// The votes that this node got in the latest term in which it got any.
#[derive(Debug, Default)]
pub(crate) struct Ballot {
    votes: Mutex<(Term, BTreeSet<NodeId>)>,
}

impl Ballot {
    /// Counts a vote.
    pub fn granted(&self, term: Term, voter: NodeId) {
        let mut votes = self.votes.lock().unwrap_or_else(PoisonError::into_inner);
        if votes.0 < term {
            *votes = (term, BTreeSet::new());
        }
        if votes.0 == term {
            votes.1.insert(voter);
        }
    }

    /// Who voted for this node in that term.
    pub fn of(&self, term: Term) -> BTreeSet<NodeId> {
        let votes = self.votes.lock().unwrap_or_else(PoisonError::into_inner);
        if votes.0 == term { votes.1.clone() } else { BTreeSet::new() }
    }
}
