//! What the election promises, checked on every input and effect by what really happened, not by what the cores
//! remember.

use std::collections::{BTreeMap, BTreeSet};

use image_cloud::core::election::{Effect, Election, Input};
use image_cloud::id::Term;
use image_cloud::protocol::election::{Campaign, ElectionMessage, Finding, RoundId, Standing};
use image_cloud::protocol::status::Leadership;

use super::raft::{Raft, leader_of};
use super::world::{BACK_OFF_STEPS, NODES, index, node};

#[derive(Clone, Copy, Debug)]
pub enum Promise {
    AnnouncedOnlyConfirmedAndLatest,
    LateNewsChangesNothing,
    BehindIsNeverNominatedTwice,
    TransferOnlyAfterAgreedDeath,
    OlderAgreementCountsForNothing,
    NoNominationOnOneWord,
    NomineeIsFirstByFrozenLoads,
    CampaignsAreABackOffApart,
    HandedOverOnlyToTheCaughtUp,
}

impl Promise {
    pub fn text(self) -> &'static str {
        match self {
            Promise::AnnouncedOnlyConfirmedAndLatest => {
                "Coordinator{term} is announced only for a (term, self) that Raft confirmed and that is still the latest"
            }
            Promise::LateNewsChangesNothing => "a late confirmed or refused of an older term changes nothing",
            Promise::BehindIsNeverNominatedTwice => "a node that is behind is never nominated twice in a row",
            Promise::TransferOnlyAfterAgreedDeath => {
                "no campaign by the transfer path unless a majority of voters, the nominee among them, each found this (term, coordinator) gone by its own probe in this round"
            }
            Promise::OlderAgreementCountsForNothing => {
                "an agreement about an older (term, coordinator) counts for nothing"
            }
            Promise::NoNominationOnOneWord => {
                "no nomination on one node's word alone against a coordinator that answers"
            }
            Promise::NomineeIsFirstByFrozenLoads => {
                "the nominee of a round is the first in rank by the loads frozen at its start"
            }
            Promise::CampaignsAreABackOffApart => {
                "two campaigns of one node in one vacancy are at least its back-off apart"
            }
            Promise::HandedOverOnlyToTheCaughtUp => "the lead is offered only to a node that has all that is committed",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Sight {
    Confirmed,
    RefusedThenConfirmed,
    LeastLoadedLed,
    HandedOver,
}

impl Sight {
    pub fn text(self) -> &'static str {
        match self {
            Sight::Confirmed => "confirmed",
            Sight::RefusedThenConfirmed => "refused, then confirmed",
            Sight::LeastLoadedLed => "the least-loaded led",
            Sight::HandedOver => "a live coordinator handed over",
        }
    }
}

type ByNode<T> = BTreeMap<usize, T>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    broken: u16,
    seen: u8,
    rounds: BTreeMap<RoundId, Round>,
    /// The latest term of which each node has heard.
    known: [u64; NODES],
    /// The term in which each node last asked Raft.
    asked: [Option<Term>; NODES],
    /// The vacancy and the time of each node's last campaign.
    campaigned: [Option<(Option<Leadership>, u8)>; NODES],
    /// The nominee of each caller's last round, if it was behind.
    behind: [Option<usize>; NODES],
    refused: [bool; NODES],
}

/// What really happened in one round.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round {
    vacancy: Option<Leadership>,
    frozen: ByNode<u32>,
    found_gone: BTreeSet<usize>,
    nominees: Vec<usize>,
}

impl History {
    pub fn is_broken(&self, promise: Promise) -> bool {
        self.broken & 1 << promise as u16 != 0
    }

    pub fn break_promise(&mut self, promise: Promise) {
        self.broken |= 1 << promise as u16;
    }

    pub fn has_seen(&self, sight: Sight) -> bool {
        self.seen & 1 << sight as u8 != 0
    }

    pub fn see(&mut self, sight: Sight) {
        self.seen |= 1 << sight as u8;
    }

    fn demand(&mut self, promise: Promise, kept: bool) {
        if !kept {
            self.break_promise(promise);
        }
    }

    /// A crash: the node forgets; what happened in its rounds happened.
    pub fn forget(&mut self, who: usize) {
        self.asked[who] = None;
        self.campaigned[who] = None;
        self.known[who] = 0;
        self.behind[who] = None;
        self.refused[who] = false;
    }

    /// Before the step: loads are frozen when the question comes, findings count in their round.
    pub fn see_input(&mut self, who: usize, input: &Input, loads: &[u32; NODES]) {
        match input {
            Input::Received { message: ElectionMessage::LoadQuery { round, .. }, .. } => {
                if let Some(known) = self.rounds.get_mut(round) {
                    known.frozen.entry(who).or_insert(loads[who]);
                }
            }
            Input::Probed { round, finding: Finding::Gone, .. } => {
                if let Some(known) = self.rounds.get_mut(round) {
                    known.found_gone.insert(who);
                }
            }
            _ => {}
        }
    }

    /// Whether this is news of an older term than the node has heard of, or than it asked in.
    pub fn is_late(&self, who: usize, input: &Input) -> bool {
        match input {
            Input::Raft(view) => view.term.0 < self.known[who],
            Input::CampaignRefused { term, .. } => self.asked[who].is_some_and(|asked| *term < asked),
            _ => false,
        }
    }

    /// The latest term that a node has been told of, by its Raft or by the one that leads in it.
    pub fn hear(&mut self, who: usize, input: &Input) {
        let term = match input {
            Input::Raft(view) => view.term,
            Input::Received { message: ElectionMessage::Coordinator { leadership, .. }, .. } => leadership.term,
            _ => return,
        };
        self.known[who] = self.known[who].max(term.0);
    }

    pub fn see_nomination(&mut self, who: usize, before: &Election, after: &Election, raft: &Raft) {
        let Some(nomination) = after.nomination() else { return };
        let was = before.nomination().map(|old| (old.round, old.nominee));
        if was == Some((nomination.round, nomination.nominee)) {
            return;
        }
        let nominee = index(nomination.nominee);
        let without = nomination.standings.iter().filter(|standing| standing.finding != Finding::Alive).count();
        self.demand(Promise::NoNominationOnOneWord, without > NODES / 2);

        let Some(round) = self.rounds.get_mut(&nomination.round) else { return };
        let candidates = candidates(nomination.standings, round);
        let is_next = candidates.get(round.nominees.len()) == Some(&nominee);
        round.nominees.push(nominee);
        let is_first = round.nominees.len() == 1;
        self.demand(Promise::NomineeIsFirstByFrozenLoads, is_next);

        if is_first {
            let is_behind = !raft.could_win(nominee);
            self.demand(Promise::BehindIsNeverNominatedTwice, !is_behind || self.behind[who] != Some(nominee));
            self.behind[who] = is_behind.then_some(nominee);
        }
    }

    pub fn see_effect(
        &mut self,
        who: usize,
        core: &Election,
        effect: &Effect,
        raft: &Raft,
        clock: u8,
        loads: &[u32; NODES],
    ) {
        match effect {
            Effect::Send { message: ElectionMessage::LoadQuery { round, vacancy, .. }, .. } => {
                self.rounds.entry(*round).or_insert_with(|| Round {
                    vacancy: *vacancy,
                    frozen: ByNode::from([(who, loads[who])]),
                    found_gone: BTreeSet::new(),
                    nominees: Vec::new(),
                });
            }
            Effect::Send { message: ElectionMessage::Coordinator { leadership, .. }, .. } => {
                let is_confirmed =
                    leader_of(raft, leadership.term) == Some(leadership.node) && leadership.node == node(who);
                let is_latest = leadership.term.0 >= self.known[who];
                self.demand(Promise::AnnouncedOnlyConfirmedAndLatest, is_confirmed && is_latest);
                self.see(Sight::Confirmed);
                if self.refused[who] {
                    self.see(Sight::RefusedThenConfirmed);
                }
                if loads.iter().all(|load| loads[who] <= *load) {
                    self.see(Sight::LeastLoadedLed);
                }
            }
            Effect::CampaignRefused { .. } => self.refused[who] = true,
            Effect::HandOver { to, .. } => {
                self.demand(Promise::HandedOverOnlyToTheCaughtUp, raft.has_all_committed(index(to.node)));
            }
            Effect::Campaign { campaign, term, vacancy, .. } => {
                let last = self.campaigned[who].filter(|(last, _)| last == vacancy);
                let is_apart = last.is_none_or(|(_, at)| clock - at >= BACK_OFF_STEPS);
                self.demand(Promise::CampaignsAreABackOffApart, is_apart);
                self.campaigned[who] = Some((*vacancy, clock));
                self.asked[who] = Some(*term);
                if *campaign == Campaign::AgreedDeath {
                    let in_round = core.stands_in().and_then(|id| self.rounds.get(&id));
                    let is_agreed = in_round.is_some_and(|round| {
                        round.vacancy == *vacancy
                            && round.found_gone.contains(&who)
                            && round.found_gone.len() > NODES / 2
                    });
                    self.demand(Promise::TransferOnlyAfterAgreedDeath, is_agreed);
                    let is_latest = vacancy.is_some_and(|vacancy| vacancy.term.0 >= self.known[who]);
                    self.demand(Promise::OlderAgreementCountsForNothing, is_latest);
                }
            }
            _ => {}
        }
    }
}

/// Whom a round may nominate, in order: the electable by its standings, by the loads that really were frozen.
fn candidates(standings: &[Standing], round: &Round) -> Vec<usize> {
    let is_electable =
        |standing: &&Standing| standings.iter().filter(|other| other.last_log <= standing.last_log).count() > NODES / 2;
    let still_leads = |standing: &&Standing| {
        standing.finding == Finding::Alive && round.vacancy.is_some_and(|vacancy| vacancy.node == standing.member.node)
    };
    let mut candidates: Vec<usize> = standings
        .iter()
        .filter(is_electable)
        .filter(|standing| !still_leads(standing))
        .map(|standing| index(standing.member.node))
        .collect();
    candidates.sort_by_key(|who| (round.frozen.get(who).copied(), *who));
    candidates
}
