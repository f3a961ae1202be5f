//! Who should lead, by the answers of one round: pure arithmetic over frozen standings.

use std::cmp::Ordering;

use crate::id::{MemberId, NodeId};
use crate::protocol::election::{Campaign, Finding, Standing};
use crate::protocol::membership::majority;
use crate::protocol::status::{Leadership, NodeState};

/// What the voters that answered a round found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Voters that answered.
    pub answered: usize,
    /// Of these, those that found the coordinator gone.
    pub gone: usize,
    /// Of these, those that see no working coordinator: gone, its Raft silent, or none known.
    pub without: usize,
    majority: usize,
}

impl Evidence {
    /// Counts the answers of voters; others do not count.
    pub fn of(standings: &[Standing], voters: &[MemberId]) -> Self {
        let findings: Vec<Finding> = standings
            .iter()
            .filter(|standing| voters.contains(&standing.member))
            .map(|standing| standing.finding)
            .collect();
        Evidence {
            answered: findings.len(),
            gone: findings.iter().filter(|finding| **finding == Finding::Gone).count(),
            without: findings.iter().filter(|finding| **finding != Finding::Alive).count(),
            majority: majority(voters.len()),
        }
    }

    /// Whether enough voters answered for any election to succeed.
    pub fn is_from_majority(self) -> bool {
        self.answered >= self.majority
    }

    /// How a nominee that found `finding` may ask Raft (E3), if at all: by the transfer path only if a majority, itself among
    /// them, found the coordinator gone; by pre-vote if a majority sees no working coordinator.
    pub fn campaign(self, finding: Finding) -> Option<Campaign> {
        if self.gone >= self.majority && finding == Finding::Gone {
            Some(Campaign::AgreedDeath)
        } else if self.without >= self.majority {
            Some(Campaign::PreVote)
        } else {
            None
        }
    }
}

/// Whether a candidate's log is at least as long as that of a majority of all voters, itself included (E1): one that is a single
/// entry behind is refused by Raft for ever.
pub fn is_electable(candidate: &Standing, standings: &[Standing], voters: &[MemberId]) -> bool {
    let covered = standings
        .iter()
        .filter(|standing| voters.contains(&standing.member) && standing.last_log <= candidate.last_log)
        .count();
    voters.contains(&candidate.member) && covered >= majority(voters.len())
}

/// A node's place in the preferred order; those that it does not name share the place after the last.
pub fn place(prefer: &[NodeId], node: NodeId) -> usize {
    prefer.iter().position(|preferred| *preferred == node).unwrap_or(prefer.len())
}

/// The standings in rank order: electable first, then Active before Recovering (E5), then the preferred order if there is one, then
/// the lowest load, then the lowest id.
pub fn in_rank_order(mut standings: Vec<Standing>, voters: &[MemberId], prefer: &[NodeId]) -> Vec<Standing> {
    let electable: Vec<MemberId> = standings
        .iter()
        .filter(|standing| is_electable(standing, &standings, voters))
        .map(|standing| standing.member)
        .collect();
    standings.sort_by(|a, b| {
        electable.contains(&b.member).cmp(&electable.contains(&a.member)).then_with(|| by_merit(a, b, prefer))
    });
    standings
}

/// The order among nodes whose logs are equally good.
fn by_merit(a: &Standing, b: &Standing, prefer: &[NodeId]) -> Ordering {
    let key = |standing: &Standing| {
        let node = standing.member.node;
        (standing.state != NodeState::Active, place(prefer, node), standing.load, node)
    };
    key(a).cmp(&key(b))
}

/// The candidates of a round, first in rank first: whoever is electable, except a coordinator that holds that it leads, for its
/// Raft cannot campaign, and a node that is stopping.
pub fn candidates(ranked: &[Standing], voters: &[MemberId], vacancy: Option<Leadership>) -> Vec<NodeId> {
    let still_leads = |standing: &Standing| {
        standing.finding != Finding::Unknown && vacancy.is_some_and(|vacancy| vacancy.node == standing.member.node)
    };
    ranked
        .iter()
        .filter(|standing| is_electable(standing, ranked, voters) && !still_leads(standing))
        .filter(|standing| standing.state != NodeState::Stopping)
        .map(|standing| standing.member.node)
        .collect()
}

/// The node to which `winner` hands over as the last step of its election (E1): a voter that was behind, and that is strictly
/// better by state, preferred order or load (an equal load is not worth a hand-over).
pub fn better_but_behind(
    ranked: &[Standing],
    voters: &[MemberId],
    prefer: &[NodeId],
    winner: NodeId,
) -> Option<MemberId> {
    let winner = ranked.iter().find(|standing| standing.member.node == winner)?;
    let cost =
        |standing: &Standing| (standing.state != NodeState::Active, place(prefer, standing.member.node), standing.load);
    ranked
        .iter()
        .filter(|standing| voters.contains(&standing.member) && !is_electable(standing, ranked, voters))
        .filter(|standing| cost(standing) < cost(winner))
        .min_by(|a, b| by_merit(a, b, prefer))
        .map(|standing| standing.member)
}
