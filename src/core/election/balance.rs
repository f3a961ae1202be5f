//! Moving the lead while the coordinator lives (E4). To a better node: rarely, because each move costs a few milliseconds without a
//! leader, and a load that is compared at every moment would move it thousands of times an hour. And away from a node that must
//! not lead any longer: at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{NodeId, Term};
use crate::protocol::election::Cause;
use crate::protocol::status::NodeState;
use crate::time::Moment;

use super::rank::place;
use super::{Effect, Election, Report, Rule, Strategy};

/// After a longer break (a pause of this process) nothing is known of what was between.
const LOOKS_APART: Duration = Duration::from_secs(1);

/// A gap of loads counts only if it is at least this part of the coordinator's load: beyond some tens of waiting jobs, chance
/// alone makes a gap of the margin.
const SMALLEST_PART: u32 = 4;

/// What a coordinator knows of better ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Balance {
    /// Since when each node has been the better coordinator, without a break.
    better_since: BTreeMap<NodeId, Moment>,
    looked: Moment,
    /// No voluntary hand-over before (the cool-down).
    rests_until: Moment,
    /// Nodes that were not ready when a node that must leave asked them, and when it may ask again.
    declined: BTreeSet<NodeId>,
    asks_again: Moment,
}

impl Balance {
    pub fn rest_until(&mut self, moment: Moment) {
        self.rests_until = self.rests_until.max(moment);
    }

    pub fn declined(&mut self, asks_again: Moment, node: NodeId) {
        self.declined.insert(node);
        self.asks_again = asks_again;
    }

    /// A new leadership, or none: what was seen before counts for nothing.
    pub fn begin_anew(&mut self) {
        let rests_until = self.rests_until;
        *self = Balance { rests_until, ..Balance::default() };
    }
}

impl Election {
    pub(super) fn consider_hand_over(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Some(term) = self.coordinator().filter(|latest| latest.node == self.me()).map(|latest| latest.term) else {
            return self.balance.begin_anew();
        };
        if self.reports.is_empty() {
            return;
        }
        self.look(now);
        if self.hand_over.is_some() || self.round.is_some() || self.candidacy.is_some() || self.is_stuck() {
            return;
        }
        match self.must_leave(now) {
            Some(cause) => self.leave(now, term, cause, effects),
            None => self.improve(now, term, effects),
        }
    }

    /// Notes which nodes would be the better coordinator, and since when.
    fn look(&mut self, now: Moment) {
        if now.since(self.balance.looked) > LOOKS_APART {
            self.balance.better_since.clear();
        }
        self.balance.looked = now;
        for (node, report) in &self.reports {
            // Its last entries may be on their way at this moment: they are asked for when the lead is offered.
            let is_ready = self.is_ready_but_for_entries(report) && self.has_nearly_caught_up(report.member);
            if is_ready && self.reason_for(report).is_some() {
                self.balance.better_since.entry(*node).or_insert(now);
            } else {
                self.balance.better_since.remove(node);
            }
        }
    }

    /// Why that node would be the better coordinator, if it would.
    fn reason_for(&self, report: &Report) -> Option<Cause> {
        let prefer = &self.settings.prefer;
        let (own, other) = (place(prefer, self.me()), place(prefer, report.member.node));
        if self.settings.strategy == Strategy::Raft || report.state != NodeState::Active || other > own {
            None
        } else if other < own {
            Some(Cause::Preferred)
        } else {
            self.is_much_less_loaded(report).then_some(Cause::LessLoaded)
        }
    }

    fn is_much_less_loaded(&self, report: &Report) -> bool {
        let own = self.load.hundredths();
        // What leading costs would move along, so it is no reason to move.
        let gap =
            own.saturating_sub(self.settings.hand_over_cost.hundredths()).saturating_sub(report.load.hundredths());
        if self.keeps(Rule::Margin) {
            gap >= self.settings.hand_over_margin.hundredths().max(own / SMALLEST_PART)
        } else {
            gap > 0
        }
    }

    /// Whether that node could lead at once.
    fn is_ready(&self, report: &Report) -> bool {
        self.is_ready_but_for_entries(report) && self.has_caught_up(report.member)
    }

    fn is_ready_but_for_entries(&self, report: &Report) -> bool {
        self.raft.voters.contains(&report.member)
            && !self.suspected.contains_key(&report.member.node)
            && matches!(report.state, NodeState::Active | NodeState::Recovering)
            // Nodes of one machine share its disk: if that stalls, the other could not even vote for itself.
            && report.disk_waits < self.settings.disk_stall / 2
    }

    fn improve(&mut self, now: Moment, term: Term, effects: &mut Vec<Effect>) {
        if now < self.balance.rests_until && self.keeps(Rule::CoolDown) {
            return;
        }
        let hold = if self.keeps(Rule::Hold) { self.settings.hand_over_hold } else { Duration::ZERO };
        let prefer = &self.settings.prefer;
        let long_enough = self.balance.better_since.iter().filter(|(_, since)| now.since(**since) >= hold);
        let best = long_enough
            .filter_map(|(node, _)| self.reports.get(node))
            .min_by_key(|report| (place(prefer, report.member.node), report.load, report.member.node));
        if let Some(best) = best
            && self.has_caught_up(best.member)
            && let Some(cause) = self.reason_for(best)
        {
            self.begin_hand_over(now, best.member, term, cause, effects);
        }
    }

    /// Why this node should not lead any longer, if it should not.
    pub(super) fn must_leave(&self, now: Moment) -> Option<Cause> {
        if self.state == NodeState::Stopping {
            Some(Cause::PlannedStop)
        } else if now < self.leaves_until {
            Some(Cause::MembershipChange)
        } else if self.disk_waits >= self.settings.disk_stall {
            Some(Cause::DiskStall)
        } else {
            None
        }
    }

    /// Hands over to the best node that is ready; to none, if none is.
    fn leave(&mut self, now: Moment, term: Term, cause: Cause, effects: &mut Vec<Effect>) {
        if now < self.balance.asks_again {
            return;
        }
        let rank = |report: &&Report| {
            let node = report.member.node;
            let has_declined = self.balance.declined.contains(&node);
            (has_declined, report.state != NodeState::Active, place(&self.settings.prefer, node), report.load, node)
        };
        if let Some(best) = self.reports.values().filter(|report| self.is_ready(report)).min_by_key(rank) {
            self.begin_hand_over(now, best.member, term, cause, effects);
        }
    }
}
