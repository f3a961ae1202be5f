//! The printed result of an election.

use std::fmt;

use crate::protocol::election::{Campaign, Cause, ElectionResult};
use crate::protocol::status::NodeState;

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Cause::FirstStart => "first start",
            Cause::ConnectionRefused => "its connection closed and its port refuses",
            Cause::Silence => "no heartbeat",
            Cause::RaftSilence => "heartbeats, but nothing from its Raft",
            Cause::NoCoordinator => "nobody knows a coordinator",
            Cause::HandOver => "the coordinator handed over",
            Cause::LessLoaded => "the coordinator handed over to a much less loaded node",
            Cause::Preferred => "the coordinator handed over to a preferred node",
            Cause::PlannedStop => "the coordinator was told to stop and handed over",
            Cause::MembershipChange => "the coordinator is to leave the membership and handed over",
            Cause::DiskStall => "the coordinator's disk stalled and it handed over",
        })
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Campaign::Initialise => "initialised the cluster",
            Campaign::AgreedDeath => "agreed death",
            Campaign::PreVote => "pre-vote",
        })
    }
}

/// Coordinator and load, who called the election and why, votes, time, then every node by its load:
///
/// ```text
/// Election result, term 4
///   Coordinator: node 3, load 0.12
///   Called by node 1: no heartbeat (node 2, term 3); agreed death; votes of nodes 1, 3 (2 of 3); took 13.2 ms
///     node 3     load   0.12   [COORDINATOR]
///     node 1     load   0.50
/// ```
impl fmt::Display for ElectionResult {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let winner = self.coordinator.node;
        let winners_load = self.standings.iter().find(|standing| standing.member.node == winner);
        writeln!(formatter, "Election result, term {}", self.coordinator.term)?;
        write!(formatter, "  Coordinator: node {winner}")?;
        match winners_load {
            Some(standing) => writeln!(formatter, ", load {}", standing.load)?,
            None => writeln!(formatter)?,
        }
        match self.caller {
            Some(caller) => write!(formatter, "  Called by node {caller}: {}", self.cause)?,
            None => write!(formatter, "  Called by Raft's own timeout: {}", self.cause)?,
        }
        if let Some(vacancy) = self.vacancy {
            write!(formatter, " (node {}, term {})", vacancy.node, vacancy.term)?;
        }
        if let Some(campaign) = self.campaign {
            write!(formatter, "; {campaign}")?;
        }
        if !self.votes.is_empty() {
            let names: Vec<String> = self.votes.iter().map(ToString::to_string).collect();
            write!(formatter, "; votes of nodes {} ({} of {})", names.join(", "), self.votes.len(), self.voters)?;
        }
        let micros = self.took_micros;
        writeln!(formatter, "; took {}.{} ms", micros / 1000, micros / 100 % 10)?;
        if let Some(heir) = self.handed_over_to {
            writeln!(formatter, "  Handed over to node {heir}, which was better placed and has caught up")?;
        }
        let mut by_load: Vec<_> = self.standings.iter().collect();
        by_load.sort_by_key(|standing| (standing.load, standing.member.node));
        for standing in by_load {
            let node = standing.member.node;
            write!(formatter, "    node {node:<5} load {:>6}", standing.load.to_string())?;
            if standing.state != NodeState::Active {
                write!(formatter, "   {}", standing.state)?;
            }
            if node == winner {
                write!(formatter, "   [COORDINATOR]")?;
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Load, LogPosition, MemberId, NodeId, Term};
    use crate::protocol::election::{Finding, Standing};
    use crate::protocol::status::Leadership;

    #[test]
    fn the_result_shows_every_load_sorted_with_the_coordinator_marked() {
        let standing = |node: u16, load: u32, state| Standing {
            member: MemberId { node: NodeId(node), ..MemberId::default() },
            load: Load::from_hundredths(load),
            last_log: LogPosition::default(),
            state,
            finding: Finding::Gone,
        };
        let result = ElectionResult {
            coordinator: Leadership { term: Term(4), node: NodeId(3) },
            vacancy: Some(Leadership { term: Term(3), node: NodeId(2) }),
            caller: Some(NodeId(1)),
            cause: Cause::Silence,
            standings: vec![standing(3, 12, NodeState::Active), standing(1, 1250, NodeState::Recovering)],
            campaign: Some(Campaign::AgreedDeath),
            votes: vec![NodeId(1), NodeId(3)],
            voters: 3,
            took_micros: 13_270,
            handed_over_to: None,
        };
        let handed_over = ElectionResult { handed_over_to: Some(NodeId(1)), ..result.clone() };
        let expected = "\
Election result, term 4
  Coordinator: node 3, load 0.12
  Called by node 1: no heartbeat (node 2, term 3); agreed death; votes of nodes 1, 3 (2 of 3); took 13.2 ms
    node 3     load   0.12   [COORDINATOR]
    node 1     load  12.50   Recovering
";
        assert_eq!(result.to_string(), expected);
        let line = "  Handed over to node 1, which was better placed and has caught up\n";
        assert!(handed_over.to_string().contains(line), "{handed_over}");
    }
}
