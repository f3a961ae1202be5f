//! Who belongs to the cluster: an empty node whose life is not among the voters takes no part (E0).

use crate::id::MemberId;
use crate::time::Moment;

use super::{Effect, Election};

/// Whether this node, as long as its log is empty, was shown a membership without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Membership {
    /// Nobody showed a membership, or this node stands in it.
    #[default]
    Undisputed,
    /// A wiped disk: the old life of this node is a voter, the new one is not, and would vote twice.
    Outsider,
}

impl Election {
    /// An answer showed the voters that a peer knows.
    pub(super) fn shown(&mut self, voters: &[MemberId], effects: &mut Vec<Effect>) {
        let is_left_out = !voters.is_empty() && !voters.contains(&self.settings.me);
        if self.raft.voters.is_empty() && is_left_out && self.membership != Membership::Outsider {
            self.membership = Membership::Outsider;
            self.round = None;
            self.candidacy = None;
            let node = self.me();
            effects.push(Effect::Alarm(format!(
                "node {node} has an empty disk and is not among the voters in its new life {}: \"members replace {node}\" is needed, \
                 which this version lacks: put its old data directory back, or begin anew with the data of all nodes deleted",
                self.settings.me
            )));
        }
    }

    /// Whether this node must keep out of every election. It ends when its own Raft knows it for a voter.
    pub(super) fn is_outsider(&self) -> bool {
        self.membership == Membership::Outsider && !self.raft.voters.contains(&self.settings.me)
    }

    pub(super) fn is_voter(&self) -> bool {
        self.raft.voters.contains(&self.settings.me)
    }

    /// All logs are empty, as far as this node knows.
    pub(super) fn is_before_first_start(&self) -> bool {
        self.raft.voters.is_empty()
    }

    /// Says whom the first start waits for, at most once a second.
    pub(super) fn wait_for(&mut self, now: Moment, missing: Vec<crate::id::NodeId>, effects: &mut Vec<Effect>) {
        if self.calls.last_waiting.is_none_or(|last| now.since(last) >= super::ONE_SECOND) {
            self.calls.last_waiting = Some(now);
            effects.push(Effect::Waiting { missing });
        }
    }
}
