//! The conversation between a client and the nodes about one image.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Load, NodeId, RequestId};
use crate::protocol::status::{Leadership, NodeState};

/// What is to be done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Hide the encrypted original in an Access Denied picture.
    Seal,
    /// Write names and a quota into the lowest bits of the picture itself.
    Label,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Operation::Seal => "seal",
            Operation::Label => "label",
        })
    }
}

/// A request as it is announced to **all** nodes, before the image is sent to one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EncryptionRequest {
    /// The same in every attempt.
    pub request_id: RequestId,
    /// What is to be done.
    pub operation: Operation,
    /// Size of the image in bytes.
    pub size_bytes: u64,
}

/// Body of `POST /api/v1/announcements`: the requests that were waiting when the client wrote, at most
/// [`Announcement::LIMIT`]. The answer is a list of [`EncryptionResponse`] in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// The announced requests.
    pub requests: Vec<EncryptionRequest>,
}

impl Announcement {
    /// The most requests in one announcement.
    pub const LIMIT: usize = 256;
}

/// What a node answers to an announcement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EncryptionResponse {
    /// The announced request.
    pub request_id: RequestId,
    /// Who answers.
    pub node: NodeId,
    /// Whether it takes jobs (only an Active node does).
    pub state: NodeState,
    /// Its load.
    pub load: Load,
    /// The confirmed coordinator that it knows.
    pub coordinator: Option<Leadership>,
    /// From the coordinator only: the node that shall do the job.
    pub placement: Option<NodeId>,
}

/// How a sealed image is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SealForm {
    /// Huffman-coded: about 1.04 times the payload. The default.
    #[default]
    Compact,
    /// Stored blocks: twice the payload, several times as fast.
    Stored,
}

/// The label that `client label` writes and `client read-label` reads: the JSON `{"usernames":[…],"quota":n}`, fields in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Who may look.
    pub usernames: Vec<String>,
    /// How often.
    pub quota: u64,
}

/// Routes and header names of the HTTP interface, in one place for both sides.
pub mod route {
    /// `POST`: an [`Announcement`](super::Announcement).
    pub const ANNOUNCEMENTS: &str = "/api/v1/announcements";
    /// `POST`: image bytes in, sealed PNG out. Query: `form=compact|stored`, `name=FILE`.
    pub const SEAL: &str = "/api/v1/images/seal";
    /// `POST`: image bytes in, labelled PNG out. Query: `to=alice,bob`, `quota=5`.
    pub const LABEL: &str = "/api/v1/images/label";
    /// `GET`: a [`NodeStatus`](crate::protocol::status::NodeStatus).
    pub const STATUS: &str = "/api/v1/status";
    /// `GET`: the node's [`Event`](crate::protocol::event::Event)s with `seq` ≥ `?since=N`, oldest first, at most 1,024.
    pub const EVENTS: &str = "/api/v1/events";
    /// `GET`: the [`ElectionResult`](crate::protocol::election::ElectionResult)s that stand in the log, at most 64, the oldest first.
    pub const ELECTIONS: &str = "/api/v1/cluster/elections";
    /// `POST`: a [`FailCommand`](crate::protocol::sync::FailCommand) to the node that shall fail.
    pub const FAIL: &str = "/api/v1/node/fail";
    /// `GET`, `POST`: the [`LinkFault`](crate::protocol::fault::LinkFault)s of the node's links; a new list replaces the old one.
    pub const FAULTS: &str = "/api/v1/faults";
    /// `GET`: the description of all routes, OpenAPI 3.1.
    pub const OPENAPI: &str = "/api/v1/openapi.json";
    /// `GET`: the process runs. Never depends on a quorum.
    pub const LIVEZ: &str = "/livez";
    /// `GET`: the node takes jobs.
    pub const READYZ: &str = "/readyz";
    /// Request header: the [`RequestId`](crate::id::RequestId); a repeated one is answered without a second job.
    pub const REQUEST_ID: &str = "idempotency-key";
    /// Response header: the node that did the job.
    pub const NODE: &str = "x-node";
    /// Response header: time from admission to the finished answer, in microseconds.
    pub const JOB_MICROS: &str = "x-job-micros";
    /// Response header: `true` if the answer comes from the cache of repeated ids.
    pub const REPEATED: &str = "x-repeated";
}
