//! The nominee: it believes nobody's word alone, and asks Raft.

use std::time::Duration;

use crate::id::{MemberId, Term};
use crate::protocol::election::{Campaign, Cause, ElectionMessage, Finding, RoundId, Standing};
use crate::protocol::status::{Leadership, NodeState};
use crate::time::Moment;

use super::rank::{Evidence, is_electable};
use super::{Effect, Election, Phase, Rule};

/// A nomination that this node has taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidacy {
    pub round: RoundId,
    pub vacancy: Option<Leadership>,
    pub cause: Cause,
    pub ranked: Vec<Standing>,
    pub campaign: Campaign,
    /// When this node first knew of the vacancy.
    pub since: Moment,
    deadline: Moment,
    stage: Stage,
}

/// Where the candidacy stands with Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// It has not asked yet.
    Ready,
    /// It asked when it was in that term. A pre-vote is asked again until the voters' lease has run out.
    Asked { term: Term, again: Option<Moment> },
    /// Raft said no.
    RaftSaidNo { term: Term, until: Moment },
}

impl Candidacy {
    pub fn phase(&self) -> Phase {
        match self.stage {
            Stage::Ready | Stage::Asked { .. } => Phase::Campaigning,
            Stage::RaftSaidNo { .. } => Phase::RaftSaidNo,
        }
    }

    /// The term in which this node last asked Raft.
    pub fn asked_in(&self) -> Option<Term> {
        match self.stage {
            Stage::Ready => None,
            Stage::Asked { term, .. } | Stage::RaftSaidNo { term, .. } => Some(term),
        }
    }
}

/// The campaigns of this node in one vacancy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Campaigns {
    vacancy: Option<Leadership>,
    /// The term from which it campaigned first.
    first_term: Term,
    last: Moment,
}

impl Election {
    /// A caller nominates this node. It takes the nomination, whatever else it is doing, if the round's evidence has it by a
    /// majority, this node's own finding in that round agrees, its log is long enough and no later leadership is known.
    pub(super) fn nominated(
        &mut self,
        now: Moment,
        from: MemberId,
        message: ElectionMessage,
        effects: &mut Vec<Effect>,
    ) {
        let ElectionMessage::Election { round, vacancy, cause, standings, campaign } = message else { return };
        let Some(finding) = self.own_answer(round, vacancy).and_then(|answer| answer.finding) else { return };
        let is_over = self.latest.is_some_and(|latest| latest.is_later_than(vacancy));
        let own = standings.iter().find(|standing| standing.member == self.settings.me);
        let is_behind =
            own.is_none_or(|own| !is_electable(own, &standings, &self.raft.voters)) && self.keeps(Rule::CheckLogs);
        let is_leaving = self.state == NodeState::Stopping;
        if from.node != round.caller || is_over || is_behind || is_leaving {
            return;
        }
        let Some(campaign) = self.permitted(campaign, vacancy, finding, &standings) else { return };
        self.post(now, round.caller, ElectionMessage::Ok { round }, effects);
        self.stand(now, round, vacancy, cause, standings, campaign, effects);
    }

    /// The campaign that this node may lead by what it found itself and by what it can count (E3).
    fn permitted(
        &self,
        asked: Campaign,
        vacancy: Option<Leadership>,
        finding: Finding,
        standings: &[Standing],
    ) -> Option<Campaign> {
        let allowed = match Evidence::of(standings, &self.raft.voters).campaign(finding) {
            None if !self.keeps(Rule::AgreeOnDeath) => Some(Campaign::AgreedDeath),
            allowed => allowed,
        };
        match (asked, allowed?) {
            (Campaign::AgreedDeath, Campaign::AgreedDeath) => Some(self.still_by_transfer(vacancy)),
            (Campaign::AgreedDeath | Campaign::PreVote, _) => Some(Campaign::PreVote),
            // Only a node's own first round leads there.
            (Campaign::Initialise, _) => None,
        }
    }

    /// An agreement about a leadership counts only while no later term is known: Raft would refuse it, and rightly.
    fn still_by_transfer(&self, vacancy: Option<Leadership>) -> Campaign {
        let is_latest = vacancy.is_some_and(|vacancy| vacancy.term >= self.raft.term);
        if is_latest || !self.keeps(Rule::ThisLeadership) { Campaign::AgreedDeath } else { Campaign::PreVote }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a candidacy, and the step's own two")]
    pub(super) fn stand(
        &mut self,
        now: Moment,
        round: RoundId,
        vacancy: Option<Leadership>,
        cause: Cause,
        ranked: Vec<Standing>,
        campaign: Campaign,
        effects: &mut Vec<Effect>,
    ) {
        let asked_at = self.own_answer(round, vacancy).map_or(now, |answer| answer.asked_at);
        let suspicion = vacancy.and_then(|vacancy| self.suspected.get(&vacancy.node));
        let since = suspicion.map_or(asked_at, |suspicion| suspicion.since.min(asked_at));
        let lease = if campaign == Campaign::PreVote { self.settings.lease } else { Duration::ZERO };
        let deadline = now + lease + self.settings.nominee_timeout;
        // What was asked of Raft already stays asked: a second nomination in the same vacancy is no second campaign.
        let stage = self.candidacy.as_ref().map_or(Stage::Ready, |candidacy| candidacy.stage);
        self.candidacy = Some(Candidacy { round, vacancy, cause, ranked, campaign, since, deadline, stage });
        self.continue_candidacy(now, effects);
    }

    pub(super) fn continue_candidacy(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Some(candidacy) = &self.candidacy else { return };
        if now >= candidacy.deadline {
            self.expired = self.candidacy.take();
            return;
        }
        let is_due = match candidacy.stage {
            Stage::Ready => true,
            Stage::Asked { again, .. } => again.is_some_and(|again| now >= again),
            Stage::RaftSaidNo { until, .. } => now >= until,
        };
        let before = self.campaigns.filter(|campaigns| campaigns.vacancy == candidacy.vacancy);
        let has_waited =
            !self.keeps(Rule::BackOff) || before.is_none_or(|before| now.since(before.last) >= self.settings.back_off);
        if !is_due || !has_waited {
            return;
        }
        let is_heard_again = self.coordinator().is_some() && candidacy.cause != Cause::HandOver;
        if candidacy.stage != Stage::Ready && is_heard_again {
            // The coordinator is heard again, and Raft has not let it fall.
            self.candidacy = None;
            return;
        }
        self.ask_raft(now, effects);
    }

    fn ask_raft(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let pause = self.pause();
        let Some(mut candidacy) = self.candidacy.take() else { return };
        if candidacy.campaign == Campaign::AgreedDeath {
            candidacy.campaign = self.still_by_transfer(candidacy.vacancy);
        }
        let members = match candidacy.campaign {
            Campaign::Initialise => candidacy.ranked.iter().map(|standing| standing.member).collect(),
            Campaign::AgreedDeath | Campaign::PreVote => Vec::new(),
        };
        let again = (candidacy.campaign == Campaign::PreVote).then_some(now + pause);
        let term = self.raft.term;
        candidacy.stage = Stage::Asked { term, again };
        effects.push(Effect::Campaign { campaign: candidacy.campaign, term, vacancy: candidacy.vacancy, members });
        let before = self.campaigns.filter(|campaigns| campaigns.vacancy == candidacy.vacancy);
        let first_term = before.map_or(term, |before| before.first_term);
        self.campaigns = Some(Campaigns { vacancy: candidacy.vacancy, first_term, last: now });
        self.candidacy = Some(candidacy);
    }

    /// The candidacy whose fruit a leadership in that term is: the present one, or one whose time had run out when a slow vote
    /// arrived after all.
    pub(super) fn candidacy_that_won(&self, term: Term) -> Option<&Candidacy> {
        let candidacy = self.candidacy.as_ref().or(self.expired.as_ref())?;
        let campaigns = self.campaigns.filter(|campaigns| campaigns.vacancy == candidacy.vacancy)?;
        (term > campaigns.first_term).then_some(candidacy)
    }

    fn pause(&mut self) -> Duration {
        if self.keeps(Rule::BackOff) {
            self.settings.back_off + self.jitter.below(self.settings.jitter)
        } else {
            Duration::ZERO
        }
    }

    /// Raft said no. A refusal of another term than the one that was asked last changes nothing.
    pub(super) fn refused(&mut self, now: Moment, term: Term, why: String, effects: &mut Vec<Effect>) {
        let until = now + self.pause();
        let Some(candidacy) = &mut self.candidacy else { return };
        if matches!(candidacy.stage, Stage::Asked { term: asked, .. } if asked == term) {
            candidacy.stage = Stage::RaftSaidNo { term, until };
            effects.push(Effect::CampaignRefused { term, why });
        }
    }
}
