//! One hand-over from its beginning to its end, whatever it is for: the last step of an election whose least-loaded node was
//! behind (E1), a better node or a coordinator that must leave (E4, `balance`).

use std::time::Duration;

use crate::id::{MemberId, Term};
use crate::protocol::election::{Cause, ElectionMessage, ElectionResult};
use crate::protocol::status::Leadership;
use crate::time::Moment;

use super::{Effect, Election, Rule};

/// Entries that a follower may lack of which the most are on their way.
const ON_ITS_WAY: u64 = 128;

/// A hand-over under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HandOver {
    pub to: MemberId,
    /// The term of this node's leadership.
    pub term: Term,
    cause: Cause,
    /// The election whose last step it is: published when it is done.
    result: Option<ElectionResult>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Until then the other may catch up.
    CatchingUp { until: Moment },
    /// Raft was asked to transfer the lead.
    Asked { since: Moment },
}

/// Why the coordinator was about to hand over to this node, by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Offer {
    pub from: Leadership,
    pub cause: Cause,
    pub at: Moment,
}

impl Election {
    /// E1: the winner of an election waits for the less loaded node.
    pub(super) fn prepare_hand_over(&mut self, now: Moment, to: MemberId, result: ElectionResult) {
        let (term, cause) = (result.coordinator.term, Cause::HandOver);
        let stage = Stage::CatchingUp { until: now + self.settings.catch_up };
        self.hand_over = Some(HandOver { to, term, cause, result: Some(result), stage });
    }

    /// E4: to a node that has caught up, at once.
    pub(super) fn begin_hand_over(
        &mut self,
        now: Moment,
        to: MemberId,
        term: Term,
        cause: Cause,
        effects: &mut Vec<Effect>,
    ) {
        let leadership = Leadership { term, node: self.me() };
        effects.push(Effect::Send { to: to.node, message: ElectionMessage::HandingOver { leadership, cause } });
        effects.push(Effect::HandOver { to, term, cause });
        self.hand_over = Some(HandOver { to, term, cause, result: None, stage: Stage::Asked { since: now } });
    }

    pub(super) fn continue_hand_over(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Some(hand_over) = &self.hand_over else { return };
        let (to, term, cause, stage) = (hand_over.to, hand_over.term, hand_over.cause, hand_over.stage);
        let successor = self.latest.filter(|latest| latest.term > term);
        let is_leader = self.leads_in(term);
        match stage {
            Stage::CatchingUp { until } => {
                let is_hopeless = !is_leader || self.suspected.contains_key(&to.node) || self.must_leave(now).is_some();
                if successor.is_some() || is_hopeless || now >= until {
                    self.finish_hand_over(now, None, effects);
                } else if self.has_caught_up(to) {
                    effects.push(Effect::HandOver { to, term, cause });
                    self.hand_over = self
                        .hand_over
                        .take()
                        .map(|hand_over| HandOver { stage: Stage::Asked { since: now }, ..hand_over });
                }
            }
            Stage::Asked { since } => match successor {
                Some(successor) => {
                    let took = now.since(since);
                    self.finish_hand_over(now, (successor.node == to.node).then_some(took), effects);
                }
                None if now.since(since) >= self.settings.hand_over => {
                    if is_leader {
                        self.stuck = Some(term);
                        let text =
                            format!("the hand-over to node {} did not come off: another election is called", to.node);
                        self.alarm(now, text, effects);
                    }
                    self.finish_hand_over(now, None, effects);
                }
                None => {}
            },
        }
    }

    /// Raft was not asked, because the other is not ready: this node still leads.
    pub(super) fn hand_over_refused(&mut self, now: Moment, term: Term, why: String, effects: &mut Vec<Effect>) {
        let is_asked = |hand_over: &&HandOver| hand_over.term == term && matches!(hand_over.stage, Stage::Asked { .. });
        let Some(to) = self.hand_over.as_ref().filter(is_asked).map(|hand_over| hand_over.to) else { return };
        effects.push(Effect::HandOverRefused { to: to.node, term, why });
        self.balance.declined(now + self.settings.back_off, to.node);
        self.finish_hand_over(now, None, effects);
    }

    /// Whether that node's log holds an entry of this leader's term, so everything older, and all that is committed.
    pub(super) fn has_caught_up(&self, member: MemberId) -> bool {
        self.lacks_at_most(0, member)
    }

    /// The same but for what is on its way: while the ledger is written to, a follower has the last entries some milliseconds later.
    pub(super) fn has_nearly_caught_up(&self, member: MemberId) -> bool {
        self.lacks_at_most(ON_ITS_WAY, member)
    }

    fn lacks_at_most(&self, entries: u64, member: MemberId) -> bool {
        let is_close = self
            .raft
            .matched
            .get(&member)
            .is_some_and(|matched| matched.term == self.raft.term && matched.length + entries >= self.raft.commit);
        is_close || !self.keeps(Rule::HandOverToCaughtUp)
    }

    /// The end: with the time it took, if the other leads now.
    pub(super) fn finish_hand_over(&mut self, now: Moment, success: Option<Duration>, effects: &mut Vec<Effect>) {
        let Some(HandOver { to, term, cause, result, .. }) = self.hand_over.take() else { return };
        self.balance.rest_until(now + self.settings.hand_over_cool_down);
        match (result, success) {
            (Some(mut result), success) => {
                result.handed_over_to = success.map(|_| to.node);
                effects.push(Effect::Decided(result));
            }
            (None, Some(took)) => {
                let from = Leadership { term, node: self.me() };
                effects.push(Effect::HandedOver { from, to: to.node, cause, took });
            }
            (None, None) => {}
        }
    }

    /// The coordinator says why it is about to hand over to this node.
    pub(super) fn offered(&mut self, now: Moment, from: MemberId, leadership: Leadership, cause: Cause) {
        if leadership.node == from.node && cause.is_hand_over() {
            self.offer = Some(Offer { from: leadership, cause, at: now });
        }
    }

    /// Whether this node leads but its Raft refuses writes, because a transfer is pending for ever.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some_and(|term| self.leads_in(term) && self.latest.is_none_or(|latest| latest.term <= term))
    }
}
