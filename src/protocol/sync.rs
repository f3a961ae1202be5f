//! Coming back: what a recovering node asks for, and the command that makes a node fail.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Load, NodeId};
use crate::protocol::status::Leadership;

/// "I was away. What did I miss?" Sent by a Recovering node to the coordinator, else to any Active peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSync {
    /// Who asks.
    pub node: NodeId,
    /// Entries that it has applied.
    pub applied: u64,
}

/// What a recovering node must know before it takes jobs again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSyncResponse {
    /// Who answers.
    pub node: NodeId,
    /// Whether the answer can be used: only an Active node's can.
    pub active: bool,
    /// The confirmed coordinator.
    pub coordinator: Option<Leadership>,
    /// The placement table: each node with its load and the jobs placed on it that its reports do not cover yet.
    pub placements: Vec<PlacementEntry>,
    /// Entries that the asker must have applied before it is Active.
    pub commit: u64,
}

/// One line of the coordinator's placement table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementEntry {
    /// The node.
    pub node: NodeId,
    /// Its last reported load.
    pub load: Load,
    /// Jobs placed on it since that report.
    pub uncovered: u32,
}

/// Body of `POST /api/v1/node/fail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FailCommand {
    /// How long the node ignores all communication, in milliseconds: from 1 to [`FailCommand::LONGEST`].
    pub duration_ms: u64,
}

impl FailCommand {
    /// The longest failure, commanded or random: 10 minutes.
    pub const LONGEST: Duration = Duration::from_secs(600);
}
