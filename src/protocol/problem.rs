//! Refusals over HTTP: `application/problem+json` (RFC 9457), with a code that programs may rely on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::RequestId;

/// What kind of refusal it is; each has one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// The request is not of the route's form (400).
    BadRequest,
    /// Not an image, or a damaged one (422).
    BadImage,
    /// Over a limit of size (413).
    TooLarge,
    /// The picture cannot hold the data (422, with `need` and `have` in bytes).
    CarrierTooSmall,
    /// The node has as much work as it may hold; try again after `retry_after_ms` (503).
    Busy,
    /// The node is not Active (503).
    NotActive,
    /// The node has never learned the cluster id, so it cannot seal (503).
    NoClusterId,
    /// No such route, or nothing there (404).
    NotFound,
    /// The route is there, but not for this method (405).
    MethodNotAllowed,
    /// The body did not arrive in time (408).
    TooSlow,
    /// The call needs the admin token (401).
    Unauthorized,
    /// The caller may not do this: a foreign `Host` or `Origin`, or a wrong admin token (403).
    Forbidden,
    /// The image belongs to another cluster, or is locked under a cluster key that was retired (409).
    WrongCluster,
    /// The job was dropped because the node failed meanwhile (503).
    Dropped,
    /// Another node leads; the answer's `Location` names it (307).
    NotLeader,
    /// A key is not as the request requires, or a sum would leave its bounds (409).
    Conflict,
    /// The changes asked for are not kept any more (410).
    Forgotten,
    /// No leader is confirmed at this moment; try again after `retry_after_ms` (503).
    NoLeader,
    /// No majority of the nodes answers; nothing was done (503).
    NoQuorum,
    /// Too many writes wait; nothing was done, try again after `retry_after_ms` (503).
    Overloaded,
    /// The store holds as much as it may; nothing was done (507).
    StorageFull,
    /// The request may or may not be done later: repeat it with the same request id (504).
    OutcomeUnknown,
    /// A fault of the node itself (500).
    Internal,
}

impl ProblemCode {
    /// The HTTP status that goes with the code.
    pub const fn status(self) -> u16 {
        match self {
            ProblemCode::BadRequest => 400,
            ProblemCode::Unauthorized => 401,
            ProblemCode::Forbidden => 403,
            ProblemCode::NotFound => 404,
            ProblemCode::MethodNotAllowed => 405,
            ProblemCode::TooSlow => 408,
            ProblemCode::TooLarge => 413,
            ProblemCode::BadImage | ProblemCode::CarrierTooSmall => 422,
            ProblemCode::Internal => 500,
            ProblemCode::NotLeader => 307,
            ProblemCode::Conflict | ProblemCode::WrongCluster => 409,
            ProblemCode::Forgotten => 410,
            ProblemCode::Busy
            | ProblemCode::NotActive
            | ProblemCode::NoClusterId
            | ProblemCode::Dropped
            | ProblemCode::NoLeader
            | ProblemCode::NoQuorum
            | ProblemCode::Overloaded => 503,
            ProblemCode::OutcomeUnknown => 504,
            ProblemCode::StorageFull => 507,
        }
    }

    /// The code as it stands in JSON.
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).ok().and_then(|value| value.as_str().map(str::to_owned));
        name.unwrap_or_default()
    }

    /// Whether the same request may succeed at another node or at another time.
    pub const fn is_worth_a_retry(self) -> bool {
        match self {
            ProblemCode::Busy
            | ProblemCode::NotActive
            | ProblemCode::NoClusterId
            | ProblemCode::Dropped
            | ProblemCode::NotLeader
            | ProblemCode::NoLeader
            | ProblemCode::NoQuorum
            | ProblemCode::Overloaded
            | ProblemCode::OutcomeUnknown
            | ProblemCode::Internal => true,
            ProblemCode::BadRequest
            | ProblemCode::BadImage
            | ProblemCode::TooLarge
            | ProblemCode::CarrierTooSmall
            | ProblemCode::NotFound
            | ProblemCode::MethodNotAllowed
            | ProblemCode::TooSlow
            | ProblemCode::Unauthorized
            | ProblemCode::Forbidden
            | ProblemCode::WrongCluster
            | ProblemCode::Conflict
            | ProblemCode::Forgotten
            | ProblemCode::StorageFull => false,
        }
    }
}

/// The body of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `about:blank#code`, as RFC 9457 has it.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code.
    pub code: ProblemCode,
    /// The HTTP status, repeated.
    pub status: u16,
    /// One line: what was wrong and what to do.
    pub detail: String,
    /// Bytes needed, where something did not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<u64>,
    /// Bytes available, where something did not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<u64>,
    /// Entries of the log that the refusal comes from, where the ledger refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<u64>,
    /// The ledger's revision there: with `commit` it says between which commands the refusal stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Where the leader answers, as `http://host:port`, where another node leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// How long to wait before the next attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    /// A problem with a code and its one line.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Problem {
            kind: format!("about:blank#{}", code.name()),
            code,
            status: code.status(),
            detail: detail.into(),
            need: None,
            have: None,
            commit: None,
            revision: None,
            leader: None,
            retry_after_ms: None,
        }
    }

    /// A request id came back with other content: the first request's answer would be wrong.
    pub fn reused_id(id: RequestId) -> Self {
        let detail = format!("the request id {id} was used for another request: give each request an id of its own");
        Problem::new(ProblemCode::BadRequest, detail)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.detail)
    }
}
