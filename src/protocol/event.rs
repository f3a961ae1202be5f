//! What happened at a node: a bounded, numbered list that anybody may read, the demo's report among them.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{NodeId, Term};
use crate::protocol::election::{Cause, ElectionResult};
use crate::protocol::fault::{self, LinkFault};
use crate::protocol::status::{Leadership, NodeState};

/// One event of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Number of the event at this node, from 1, without gaps.
    pub seq: u64,
    /// Wall time in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Where it happened.
    pub node: NodeId,
    /// The node's term then.
    pub term: Term,
    /// The node's state then.
    pub state: NodeState,
    /// What happened.
    #[serde(flatten)]
    pub what: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The node changed its state.
    StateChanged {
        /// Before.
        from: NodeState,
        /// After.
        to: NodeState,
        /// Why, for people.
        why: String,
    },
    /// The node took the coordinator for lost.
    Suspected {
        /// Whom.
        coordinator: Leadership,
        /// Why, for people.
        why: String,
    },
    /// This node won an election and Raft confirmed it.
    Elected(ElectionResult),
    /// The node learned of a confirmed coordinator.
    CoordinatorKnown {
        /// Who it is.
        coordinator: Leadership,
    },
    /// This node led, and handed over.
    HandedOver {
        /// Its leadership.
        coordinator: Leadership,
        /// To whom.
        to: NodeId,
        /// Why.
        cause: Cause,
        /// From the request to Raft's confirmation of the other, in microseconds.
        took_micros: u64,
    },
    /// Raft did not confirm this node's nomination.
    CampaignRefused {
        /// The term that it campaigned from.
        campaign_term: Term,
        /// Why, for people.
        why: String,
    },
    /// This node leads and wanted to hand over, but the other is not ready: it leads on.
    HandOverRefused {
        /// Its leadership.
        coordinator: Leadership,
        /// To whom.
        to: NodeId,
        /// Why, for people.
        why: String,
    },
    /// The node is in sync again.
    Recovered {
        /// Who answered its `StateSync`; the node itself if it was confirmed as coordinator; none if it went on without.
        from: Option<NodeId>,
        /// Log entries that it had missed.
        entries: u64,
        /// Time from the end of the failure (or the start) to Active, in milliseconds.
        took_ms: u64,
    },
    /// An operator set the faults of this node's links; none means that all are healed.
    LinkFaults {
        /// All that stand from now on.
        faults: Vec<LinkFault>,
    },
    /// Something an operator should know.
    Alarm {
        /// What, for people.
        text: String,
    },
}

/// In one line, for logs and people.
impl fmt::Display for EventKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventKind::StateChanged { from, to, why } => write!(formatter, "{from} → {to}: {why}"),
            EventKind::Suspected { coordinator, why } => {
                write!(formatter, "suspects node {}, coordinator of term {}: {why}", coordinator.node, coordinator.term)
            }
            EventKind::Elected(result) => write!(formatter, "won the election of term {}", result.coordinator.term),
            EventKind::CoordinatorKnown { coordinator } => {
                write!(formatter, "node {} coordinates in term {}", coordinator.node, coordinator.term)
            }
            EventKind::HandedOver { to, cause, took_micros, .. } => {
                let milliseconds = *took_micros as f64 / 1000.0;
                write!(formatter, "handed over to node {to}: {cause}; took {milliseconds:.1} ms")
            }
            EventKind::CampaignRefused { campaign_term, why } => {
                write!(formatter, "not confirmed after term {campaign_term}: {why}")
            }
            EventKind::HandOverRefused { coordinator, to, why } => {
                write!(formatter, "still leads in term {}, node {to} did not take over: {why}", coordinator.term)
            }
            EventKind::Recovered { from: Some(from), entries, took_ms } => {
                write!(formatter, "recovered from node {from}: {entries} entries in {took_ms} ms")
            }
            EventKind::Recovered { from: None, entries, took_ms } => {
                write!(formatter, "went on alone: {entries} entries in {took_ms} ms")
            }
            EventKind::LinkFaults { faults } => formatter.write_str(&fault::in_words(faults)),
            EventKind::Alarm { text } => write!(formatter, "ALARM: {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: a hand-over that was declined does not read as an election that was lost.
    #[test]
    fn a_declined_hand_over_does_not_read_as_a_lost_election() {
        let why = "its log is behind".to_owned();
        let lost = EventKind::CampaignRefused { campaign_term: Term(4), why: why.clone() };
        assert_eq!(lost.to_string(), "not confirmed after term 4: its log is behind");
        let coordinator = Leadership { term: Term(4), node: NodeId(1) };
        let declined = EventKind::HandOverRefused { coordinator, to: NodeId(3), why };
        assert_eq!(declined.to_string(), "still leads in term 4, node 3 did not take over: its log is behind");
    }
}
