//! Answering a round: with a standing that is frozen when the question comes, and with what this node sees by itself.

use crate::id::{Load, MemberId, NodeId};
use crate::protocol::election::{ElectionMessage, Finding, RoundId, Standing};
use crate::protocol::status::{Leadership, NodeState};
use crate::time::Moment;

use super::{Effect, Election};

/// This node's answer to one round. It is kept, because a nomination is checked against it (E3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Answer {
    pub round: RoundId,
    pub vacancy: Option<Leadership>,
    pub asked_at: Moment,
    load: Load,
    state: NodeState,
    /// None while the probe is under way.
    pub finding: Option<Finding>,
}

impl Election {
    pub(super) fn queried(
        &mut self,
        now: Moment,
        from: MemberId,
        round: RoundId,
        vacancy: Option<Leadership>,
        effects: &mut Vec<Effect>,
    ) {
        // A question that comes twice must not be answered by another load than the first time.
        let is_repeated = self.answers.get(&round.caller).is_some_and(|answer| answer.round == round);
        if from.node != round.caller || is_repeated {
            return;
        }
        let answer = Answer { round, vacancy, asked_at: now, load: self.load, state: self.state, finding: None };
        self.answers.insert(round.caller, answer);
        match self.find_without_probe(vacancy, from.node) {
            Ok(finding) => self.found(now, round, finding, effects),
            Err(node) => effects.push(Effect::Probe { round, node }),
        }
    }

    /// What needs no probe; else the node to probe.
    fn find_without_probe(&self, vacancy: Option<Leadership>, caller: NodeId) -> Result<Finding, NodeId> {
        let Some(vacancy) = vacancy else { return Ok(Finding::Unknown) };
        let is_superseded =
            self.raft.term > vacancy.term || self.latest.is_some_and(|latest| latest.is_later_than(Some(vacancy)));
        if vacancy.node == caller {
            // A coordinator that calls a round about its own leadership says itself that it cannot lead; which of the two
            // it is, only it knows.
            let still_leads = caller == self.me() && self.leads_in(vacancy.term);
            Ok(if still_leads { Finding::RaftSilent } else { Finding::Unknown })
        } else if vacancy.node == self.me() {
            Ok(if self.leads_in(vacancy.term) { Finding::Alive } else { Finding::Unknown })
        } else if is_superseded && self.keeps(super::Rule::ThisLeadership) {
            Ok(Finding::Unknown)
        } else {
            Err(vacancy.node)
        }
    }

    pub(super) fn probed(
        &mut self,
        now: Moment,
        round: RoundId,
        node: NodeId,
        finding: Finding,
        effects: &mut Vec<Effect>,
    ) {
        let is_awaited = self.answers.get(&round.caller).is_some_and(|answer| {
            answer.round == round
                && answer.finding.is_none()
                && answer.vacancy.is_some_and(|vacancy| vacancy.node == node)
        });
        if is_awaited {
            self.found(now, round, finding, effects);
        }
    }

    fn found(&mut self, now: Moment, round: RoundId, finding: Finding, effects: &mut Vec<Effect>) {
        let Some(answer) = self.answers.get_mut(&round.caller) else { return };
        answer.finding = Some(finding);
        // The log is taken now: what the coordinator had sent before it died may have arrived since the question.
        let (member, last_log) = (self.settings.me, self.raft.last_log);
        let standing = Standing { member, load: answer.load, last_log, state: answer.state, finding };
        let (latest, voters) = (self.latest, self.raft.voters.clone());
        self.post(now, round.caller, ElectionMessage::LoadResponse { round, standing, latest, voters }, effects);
    }

    /// That node is heard again: what was found of its leadership is no longer what this node sees, so no late nomination may
    /// rest on it.
    pub(super) fn take_back_findings(&mut self, node: NodeId) {
        let is_about = |answer: &&mut Answer| answer.vacancy.is_some_and(|vacancy| vacancy.node == node);
        self.answers.values_mut().filter(is_about).for_each(|answer| answer.finding = None);
    }

    /// What this node found in that round of that caller, if it was asked, about that vacancy.
    pub(super) fn own_answer(&self, round: RoundId, vacancy: Option<Leadership>) -> Option<&Answer> {
        self.answers.get(&round.caller).filter(|answer| answer.round == round && answer.vacancy == vacancy)
    }
}
