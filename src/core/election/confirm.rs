//! Raft's word: the only thing that makes a coordinator (E2).

use std::mem;
use std::time::Duration;

use crate::id::{MemberId, NodeId, Term};
use crate::protocol::election::{Cause, ElectionMessage, ElectionResult, Finding, Standing};
use crate::protocol::status::Leadership;
use crate::time::Moment;

use super::campaign::Candidacy;
use super::hand_over::Offer;
use super::{Effect, Election, NativeElections, ONE_SECOND, RaftView, Rule, rank};

impl Election {
    /// Raft changed. What it says of an older term than it said before is late, and changes nothing.
    pub(super) fn raft_changed(&mut self, now: Moment, view: RaftView) {
        if view.term < self.raft.term && self.keeps(Rule::CompareTerms) {
            return;
        }
        let is_news = view.term > self.raft.term || (self.raft.voters.is_empty() && !view.voters.is_empty());
        self.raft = view;
        if !self.is_before_first_start() {
            let voters = &self.raft.voters;
            self.reports.retain(|_, report| voters.contains(&report.member));
        }
        match self.raft.leader {
            // Its own leadership is learned when it is announced.
            Some(node) if node != self.me() => self.learn(Leadership { term: self.raft.term, node }),
            // A vote has just been asked for, or the cluster has just begun: time for it to come to something.
            None if is_news => self.back_off(now),
            Some(_) | None => {}
        }
    }

    /// A leadership that was confirmed: if it is later than any known before, all that was about the older vacancy is over.
    pub(super) fn learn(&mut self, leadership: Leadership) {
        if !leadership.is_later_than(self.latest) {
            return;
        }
        self.latest = Some(leadership);
        // Late news of the very leadership that is found vacant ends nothing.
        self.round.take_if(|round| leadership.is_later_than(round.vacancy));
        for candidacy in [&mut self.candidacy, &mut self.expired] {
            candidacy.take_if(|candidacy| leadership.is_later_than(candidacy.vacancy));
        }
        self.forget_calls();
    }

    /// A peer announced itself.
    pub(super) fn announced_by(&mut self, from: MemberId, leadership: Leadership) {
        let is_old = leadership.term < self.raft.term && self.keeps(Rule::CompareTerms);
        if from.node == leadership.node && !is_old {
            self.learn(leadership);
        }
    }

    pub(super) fn leads_in(&self, term: Term) -> bool {
        self.raft.leader == Some(self.me()) && self.raft.term == term
    }

    /// Announces this node, once per term, if Raft has made it leader in the latest known term.
    pub(super) fn confirm(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Some(term) = self.confirmed_in() else { return };
        let is_latest = self.latest.is_none_or(|latest| term >= latest.term) || !self.keeps(Rule::CompareTerms);
        if term <= self.announced || !is_latest {
            return;
        }
        let leadership = Leadership { term, node: self.me() };
        let result = self.result(now, leadership);
        self.announced = term;
        self.balance.begin_anew();
        self.balance.rest_until(now + self.settings.hand_over_cool_down);
        self.learn(leadership);
        self.round = None;
        self.candidacy = None;
        for to in self.peers() {
            let result = result.clone();
            effects.push(Effect::Send { to, message: ElectionMessage::Coordinator { leadership, result } });
        }
        let better = rank::better_but_behind(&result.standings, &self.raft.voters, &self.settings.prefer, self.me());
        match better.filter(|better| result.campaign.is_some() && !self.suspected.contains_key(&better.node)) {
            Some(better) => self.prepare_hand_over(now, better, result),
            None => effects.push(Effect::Decided(result)),
        }
    }

    /// The term in which Raft has made this node leader.
    fn confirmed_in(&self) -> Option<Term> {
        if !self.keeps(Rule::AnnounceConfirmed)
            && let Some(asked) = self.candidacy.as_ref().and_then(Candidacy::asked_in)
        {
            return Some(Term(asked.0 + 1));
        }
        (self.raft.leader == Some(self.me())).then_some(self.raft.term)
    }

    fn result(&self, now: Moment, coordinator: Leadership) -> ElectionResult {
        let voters = self.raft.voters.len() as u32;
        let votes = self.raft.votes.clone();
        match self.candidacy_that_won(coordinator.term) {
            Some(candidacy) => ElectionResult {
                coordinator,
                vacancy: candidacy.vacancy,
                caller: Some(candidacy.round.caller),
                cause: candidacy.cause,
                standings: candidacy.ranked.clone(),
                campaign: Some(candidacy.campaign),
                votes,
                voters,
                took_micros: now.since(candidacy.since).as_micros() as u64,
                handed_over_to: None,
            },
            None => {
                let (cause, took) = self.cause_without_candidacy(now);
                ElectionResult {
                    coordinator,
                    vacancy: self.latest,
                    caller: self.latest.filter(|_| cause.is_hand_over()).map(|latest| latest.node),
                    cause,
                    standings: self.reported_standings(),
                    campaign: None,
                    votes,
                    voters,
                    took_micros: took.as_micros() as u64,
                    handed_over_to: None,
                }
            }
        }
    }

    /// Raft made this node leader unasked: by its native elections, or because the coordinator handed over. The cause, and for
    /// how long it has been known.
    fn cause_without_candidacy(&self, now: Moment) -> (Cause, Duration) {
        let is_taken_up = |offer: &Offer| self.latest == Some(offer.from) && now.since(offer.at) < ONE_SECOND;
        if let Some(offer) = self.offer.filter(is_taken_up) {
            return (offer.cause, now.since(offer.at));
        }
        let suspicion = self.latest.and_then(|latest| self.suspected.get(&latest.node));
        let cause = match (self.dead_man.native(), suspicion) {
            (_, Some(suspicion)) => suspicion.cause,
            (NativeElections::Off, None) if self.latest.is_some_and(|latest| latest.node != self.me()) => {
                Cause::HandOver
            }
            (NativeElections::Off | NativeElections::On, None) => Cause::NoCoordinator,
        };
        (cause, self.dead_man.lasted(now))
    }

    /// The standings as the last heartbeats told them, for an election without a round.
    fn reported_standings(&self) -> Vec<Standing> {
        let own = Standing {
            member: self.settings.me,
            load: self.load,
            last_log: self.raft.last_log,
            state: self.state,
            finding: Finding::Unknown,
        };
        let peers =
            self.reports.iter().filter(|(node, _)| !self.suspected.contains_key(node)).map(|(_, report)| Standing {
                member: report.member,
                load: report.load,
                last_log: report.last_log,
                state: report.state,
                finding: Finding::Unknown,
            });
        rank::in_rank_order(peers.chain([own]).collect(), &self.raft.voters, &self.settings.prefer)
    }

    /// Says when a coordinator becomes known, and when none is known any more.
    pub(super) fn report(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let coordinator = self.coordinator();
        self.dead_man.note(now, coordinator);
        let reported = mem::replace(&mut self.reported, coordinator);
        match coordinator {
            Some(leadership) if reported != coordinator => effects.push(Effect::CoordinatorConfirmed(leadership)),
            None if reported.is_some() => effects.push(Effect::CoordinatorLost),
            Some(_) | None => {}
        }
    }

    /// The nodes that answered, in words.
    pub(super) fn describe(&self, ranked: &[Standing]) -> String {
        let nodes: Vec<NodeId> = ranked.iter().map(|standing| standing.member.node).collect();
        format!("{} of {} voters answered {nodes:?}, and none of them could win", ranked.len(), self.raft.voters.len())
    }
}
