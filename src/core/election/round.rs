//! A round as its caller runs it: ask everybody, rank the frozen standings, nominate the first, pass over whoever does not win.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{MemberId, NodeId};
use crate::protocol::election::{Campaign, Cause, ElectionMessage, RoundId, Standing};
use crate::protocol::membership::majority;
use crate::protocol::status::{Leadership, NodeState};
use crate::time::Moment;

use super::rank::{self, Evidence};
use super::{Effect, Election, FirstStart, Rule, Settings, Strategy};

/// The round that this node called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Round {
    pub id: RoundId,
    pub vacancy: Option<Leadership>,
    pub cause: Cause,
    opened: Moment,
    answers: BTreeMap<NodeId, Standing>,
    pub stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Asking,
    Nominated(Nominated),
}

/// A closed round: nothing in it changes any more but the nominee.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Nominated {
    pub ranked: Vec<Standing>,
    pub nominee: NodeId,
    /// Those that come next if the nominee does not win.
    next: Vec<NodeId>,
    /// When the nominee is passed over.
    deadline: Moment,
    /// What its agreement adds to that, once: the time before which no vote can be granted.
    lease: Duration,
}

/// When the next round may be called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Calls {
    last_number: u64,
    not_before: Moment,
    quick_retries_left: u32,
    pub last_waiting: Option<Moment>,
}

impl Calls {
    /// The numbers of two lives of a process do not meet, so that no late answer fits a round of the next life.
    pub fn numbered_from(seed: u64, settings: &Settings) -> Self {
        let last_number = (seed & 0xffff_ffff) << 20;
        Calls {
            last_number,
            not_before: Moment::default(),
            quick_retries_left: settings.quick_retries,
            last_waiting: None,
        }
    }
}

impl Election {
    /// Calls a round if there is a reason and nothing under way.
    pub(super) fn call_if_vacant(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let is_busy = self.round.is_some() || self.candidacy.is_some() || self.hand_over.is_some();
        let is_leaving = self.state == NodeState::Stopping;
        if is_busy || is_leaving || now < self.calls.not_before {
            return;
        }
        if self.is_before_first_start() {
            self.call(now, None, Cause::FirstStart, effects);
        } else if self.settings.strategy == Strategy::Bully
            && self.is_voter()
            && let Some(cause) = self.reason_to_call(now)
        {
            self.call(now, self.latest, cause, effects);
        }
    }

    fn reason_to_call(&self, now: Moment) -> Option<Cause> {
        if self.is_stuck() {
            return Some(Cause::HandOver);
        }
        if self.coordinator().is_some() {
            return None;
        }
        let suspicion = self
            .latest
            .filter(|latest| latest.term >= self.raft.term)
            .and_then(|latest| self.suspected.get(&latest.node));
        match suspicion {
            Some(suspicion) => Some(suspicion.cause),
            // A node that has just started, or just voted, hears of a coordinator in a moment.
            None => self.dead_man.has_lasted(now, self.settings.back_off).then_some(Cause::NoCoordinator),
        }
    }

    fn call(&mut self, now: Moment, vacancy: Option<Leadership>, cause: Cause, effects: &mut Vec<Effect>) {
        self.calls.last_number += 1;
        let id = RoundId { caller: self.me(), number: self.calls.last_number };
        self.round = Some(Round { id, vacancy, cause, opened: now, answers: BTreeMap::new(), stage: Stage::Asking });
        for to in self.peers() {
            self.post(now, to, ElectionMessage::LoadQuery { round: id, vacancy, cause }, effects);
        }
        self.post(now, id.caller, ElectionMessage::LoadQuery { round: id, vacancy, cause }, effects);
        self.continue_round(now, effects);
    }

    pub(super) fn answered(
        &mut self,
        from: MemberId,
        id: RoundId,
        standing: Standing,
        latest: Option<Leadership>,
        voters: Vec<MemberId>,
        effects: &mut Vec<Effect>,
    ) {
        let is_awaited = |round: &&mut Round| round.id == id && round.stage == Stage::Asking;
        if standing.member != from || self.round.as_mut().filter(is_awaited).is_none() {
            return;
        }
        self.shown(&voters, effects);
        if let Some(latest) = latest {
            self.learn(latest);
        }
        // The answer may have ended the round: by a later leadership, or by a membership without this node.
        if let Some(round) = &mut self.round {
            round.answers.entry(from.node).or_insert(standing);
        }
    }

    pub(super) fn continue_round(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Some(round) = &self.round else { return };
        // An empty node goes on asking: it must be shown the membership, to see whether it stands in it.
        let asks_anyway = matches!(round.cause, Cause::HandOver | Cause::FirstStart);
        let is_needless = self.coordinator().is_some() && !asks_anyway;
        if is_needless || (round.cause == Cause::FirstStart && !self.is_before_first_start()) {
            self.round = None;
            return;
        }
        match &round.stage {
            Stage::Asking if self.is_answered(round) || now.since(round.opened) >= self.settings.round_timeout => {
                self.close(now, effects);
            }
            Stage::Nominated(nominated) if now >= nominated.deadline => self.pass_over(now, effects),
            Stage::Asking | Stage::Nominated(_) => {}
        }
    }

    /// Whether everybody who is not taken for lost has answered; a first start waits for all.
    fn is_answered(&self, round: &Round) -> bool {
        self.nodes().iter().all(|node| {
            let is_lost = *node != self.me() && round.cause != Cause::FirstStart && self.suspected.contains_key(node);
            round.answers.contains_key(node) || is_lost
        })
    }

    fn close(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Some(round) = &self.round else { return };
        let (vacancy, cause) = (round.vacancy, round.cause);
        let mut standings: Vec<Standing> = round.answers.values().cloned().collect();
        if !self.keeps(Rule::FreezeLoads) {
            standings
                .iter_mut()
                .filter(|standing| standing.member == self.settings.me)
                .for_each(|own| own.load = self.load);
        }
        if cause == Cause::FirstStart {
            return self.close_first_start(now, standings, effects);
        }
        let voters = self.raft.voters.clone();
        if !Evidence::of(&standings, &voters).is_from_majority() {
            return self.give_up_round(now);
        }
        self.relieve_dead_man(effects);
        let ranked = rank::in_rank_order(standings, &voters, &self.settings.prefer);
        let candidates = if self.keeps(Rule::CheckLogs) {
            rank::candidates(&ranked, &voters, vacancy)
        } else {
            rank::in_rank_order(ranked.clone(), &[], &[]).iter().map(|standing| standing.member.node).collect()
        };
        self.nominate_first_of(now, ranked, candidates, effects);
    }

    /// E0: when everybody (or, asked for by the operator, a majority) has answered with an empty log, the first in rank
    /// initialises. Every empty node comes to its own result; two that initialise with the same members do no harm.
    fn close_first_start(&mut self, now: Moment, standings: Vec<Standing>, effects: &mut Vec<Effect>) {
        let is_empty = |standing: &Standing| standing.last_log.length == 0;
        let missing: Vec<NodeId> = self
            .settings
            .nodes
            .iter()
            .copied()
            .filter(|node| !standings.iter().any(|standing| standing.member.node == *node))
            .collect();
        let enough = match self.settings.first_start {
            FirstStart::Everybody => missing.is_empty(),
            FirstStart::Majority => standings.len() >= majority(self.settings.nodes.len()),
            FirstStart::Never => false,
        };
        if !standings.iter().all(is_empty) {
            return self.give_up_round(now);
        }
        if !enough {
            self.wait_for(now, missing, effects);
            return self.give_up_round(now);
        }
        let members: Vec<MemberId> = standings.iter().map(|standing| standing.member).collect();
        let ranked = rank::in_rank_order(standings, &members, &self.settings.prefer);
        let is_first = ranked.first().is_some_and(|first| first.member == self.settings.me);
        match self.settings.first_start {
            FirstStart::Everybody if !is_first => self.give_up_round(now),
            FirstStart::Everybody | FirstStart::Majority | FirstStart::Never => {
                let Some(round) = self.round.take() else { return };
                self.stand(now, round.id, None, round.cause, ranked, Campaign::Initialise, effects);
            }
        }
    }

    /// Nominates the first candidate that the evidence allows to campaign; the others stay behind it in the same round.
    fn nominate_first_of(
        &mut self,
        now: Moment,
        ranked: Vec<Standing>,
        candidates: Vec<NodeId>,
        effects: &mut Vec<Effect>,
    ) {
        let evidence = Evidence::of(&ranked, &self.raft.voters);
        let Some((&nominee, next)) = candidates.split_first() else {
            let text = format!("no node could be elected: {}", self.describe(&ranked));
            self.alarm(now, text, effects);
            return self.give_up_round(now);
        };
        let finding = ranked.iter().find(|standing| standing.member.node == nominee).map(|standing| standing.finding);
        let campaign = finding.and_then(|finding| {
            if self.keeps(Rule::AgreeOnDeath) { evidence.campaign(finding) } else { Some(Campaign::AgreedDeath) }
        });
        let Some(campaign) = campaign else { return self.not_agreed(now) };
        let Some(round) = &mut self.round else { return };
        let (id, vacancy, cause) = (round.id, round.vacancy, round.cause);
        let deadline = now + self.settings.nominee_timeout;
        let lease = match campaign {
            Campaign::PreVote => self.settings.lease,
            Campaign::AgreedDeath | Campaign::Initialise => Duration::ZERO,
        };
        let standings = ranked.clone();
        round.stage = Stage::Nominated(Nominated { ranked, nominee, next: next.to_vec(), deadline, lease });
        self.post(now, nominee, ElectionMessage::Election { round: id, vacancy, cause, standings, campaign }, effects);
    }

    /// The nominee took the nomination: its time to win begins when its votes can be granted.
    pub(super) fn agreed(&mut self, from: MemberId, id: RoundId) {
        if let Some(Round { id: own, stage: Stage::Nominated(nominated), .. }) = &mut self.round
            && *own == id
            && nominated.nominee == from.node
        {
            nominated.deadline = nominated.deadline + std::mem::take(&mut nominated.lease);
        }
    }

    fn pass_over(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Some(Round { stage: Stage::Nominated(nominated), .. }) = &self.round else { return };
        let (ranked, next) = (nominated.ranked.clone(), nominated.next.clone());
        self.nominate_first_of(now, ranked, next, effects);
    }

    /// The others still find the coordinator alive: they may learn of its death a few milliseconds later.
    fn not_agreed(&mut self, now: Moment) {
        if self.calls.quick_retries_left == 0 {
            return self.give_up_round(now);
        }
        self.calls.quick_retries_left -= 1;
        self.round = None;
        self.calls.not_before = now + self.settings.quick_retry;
    }

    fn give_up_round(&mut self, now: Moment) {
        self.round = None;
        self.back_off(now);
    }

    /// No round for the back-off, with jitter, so that two callers do not collide for ever.
    pub(super) fn back_off(&mut self, now: Moment) {
        self.calls.not_before = now + self.settings.back_off + self.jitter.below(self.settings.jitter);
    }

    /// A coordinator is heard again: if it is lost once more, the quick retries begin anew.
    pub(super) fn renew_quick_retries(&mut self) {
        self.calls.quick_retries_left = self.settings.quick_retries;
    }

    /// A later leadership: nothing that was tried before holds up the next vacancy.
    pub(super) fn forget_calls(&mut self) {
        self.calls.not_before = Moment::default();
        self.calls.quick_retries_left = self.settings.quick_retries;
    }
}
