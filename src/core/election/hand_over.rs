//! The last step of an election whose least-loaded node was behind (E1): the winner hands over as soon as that node has caught up.

use crate::id::{MemberId, Term};
use crate::protocol::election::ElectionResult;
use crate::time::Moment;

use super::{Effect, Election};

/// A hand-over under way, and the result that is published when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HandOver {
    pub to: MemberId,
    /// The term of the winner.
    pub term: Term,
    result: ElectionResult,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Until then the other may catch up.
    CatchingUp { until: Moment },
    /// Raft was asked to transfer the lead.
    Asked { until: Moment },
}

impl Election {
    pub(super) fn prepare_hand_over(&mut self, now: Moment, to: MemberId, result: ElectionResult) {
        let stage = Stage::CatchingUp { until: now + self.settings.catch_up };
        self.hand_over = Some(HandOver { to, term: result.coordinator.term, result, stage });
    }

    pub(super) fn continue_hand_over(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Some(hand_over) = &self.hand_over else { return };
        let (to, term, stage) = (hand_over.to, hand_over.term, hand_over.stage);
        let successor = self.latest.filter(|latest| latest.term > term);
        let is_leader = self.leads_in(term);
        match stage {
            Stage::CatchingUp { until } => {
                if successor.is_some() || !is_leader || self.suspected.contains_key(&to.node) || now >= until {
                    self.finish_hand_over(None, effects);
                } else if self.has_caught_up(to) {
                    effects.push(Effect::HandOver { to, term });
                    let until = now + self.settings.hand_over;
                    self.hand_over =
                        self.hand_over.take().map(|hand_over| HandOver { stage: Stage::Asked { until }, ..hand_over });
                }
            }
            Stage::Asked { until } => match successor {
                Some(successor) => self.finish_hand_over((successor.node == to.node).then_some(to), effects),
                None if now >= until => {
                    if is_leader {
                        self.stuck = Some(term);
                        let text =
                            format!("the hand-over to node {} did not come off: another election is called", to.node);
                        self.alarm(now, text, effects);
                    }
                    self.finish_hand_over(None, effects);
                }
                None => {}
            },
        }
    }

    /// Whether that node's log holds an entry of this leader's term, so everything older, and all that is committed.
    fn has_caught_up(&self, member: MemberId) -> bool {
        self.raft
            .matched
            .get(&member.node)
            .is_some_and(|matched| matched.term == self.raft.term && matched.length >= self.raft.commit)
    }

    /// Publishes the result, which has waited for this last step.
    pub(super) fn finish_hand_over(&mut self, to: Option<MemberId>, effects: &mut Vec<Effect>) {
        if let Some(HandOver { mut result, .. }) = self.hand_over.take() {
            result.handed_over_to = to.map(|to| to.node);
            effects.push(Effect::Decided(result));
        }
    }

    /// Whether this node leads but its Raft refuses writes, because a transfer is pending for ever.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some_and(|term| self.leads_in(term) && self.latest.is_none_or(|latest| latest.term <= term))
    }
}
