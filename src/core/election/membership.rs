//! Who belongs to the cluster: an empty node whose life is not among the voters takes no part until it is taken in (E0).

use crate::id::MemberId;
use crate::time::Moment;

use super::{Effect, Election, FirstStart};

/// Whether this node, as long as its log is empty, was shown a membership without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Membership {
    /// Nobody showed a membership, or this node stands in it.
    #[default]
    Undisputed,
    /// A new node, or a wiped disk: the old life of this node is a voter, the new one is not, and would vote twice.
    Outsider,
}

impl Membership {
    /// A node that waits to be taken in keeps out of everything until then.
    pub fn at_start(first_start: FirstStart) -> Self {
        match first_start {
            FirstStart::Never => Membership::Outsider,
            FirstStart::Everybody | FirstStart::Majority => Membership::Undisputed,
        }
    }
}

impl Election {
    /// An answer showed the voters that a peer knows.
    pub(super) fn shown(&mut self, voters: &[MemberId], effects: &mut Vec<Effect>) {
        let is_left_out = !voters.is_empty() && !voters.contains(&self.settings.me);
        if is_left_out {
            self.shut_out(effects);
        }
    }

    /// The cluster goes on without this life of the node. One with a log learns more from that.
    pub(super) fn shut_out(&mut self, effects: &mut Vec<Effect>) {
        if self.raft.voters.is_empty() && self.membership != Membership::Outsider {
            self.membership = Membership::Outsider;
            self.round = None;
            self.candidacy = None;
            let node = self.me();
            effects.push(Effect::Alarm(format!(
                "node {node} has an empty disk and is no member in its new life {}: `client members replace {node} ADDRESS` takes it \
                 in with this node's HTTP address, or `client members add` if there was no node {node} before",
                self.settings.me
            )));
        }
    }

    /// Whether this node must keep out of every election. It ends when its own Raft knows it for a voter.
    pub fn is_outsider(&self) -> bool {
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
