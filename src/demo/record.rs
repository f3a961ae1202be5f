//! One record per request: all that the statistics, the outages and the report are made from.

use std::time::Duration;

use crate::client::PlacedBy;
use crate::id::NodeId;
use crate::protocol::job::Operation;

/// What became of one request. Times count from the start of the load.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Number of the request in the run, from 0.
    pub index: u64,
    /// The client actor that sent it, from 0.
    pub client: u32,
    /// What was asked for, and for a view, whether it was right to refuse it.
    pub kind: Kind,
    /// Which picture was sent.
    pub picture: usize,
    /// When it was due: in the open model the planned moment, in the closed model the moment it was sent.
    pub intended: Duration,
    /// When it was sent.
    pub sent: Duration,
    /// When its result was there.
    pub finished: Duration,
    /// Bytes of the picture.
    pub bytes_in: u64,
    /// Every attempt, in order.
    pub attempts: Vec<AttemptRecord>,
    /// The result.
    pub outcome: Outcome,
}

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A picture was sealed.
    Seal,
    /// A picture was labelled.
    Label,
    /// A key was released.
    View,
    /// A view was denied.
    Refusal,
}

impl Kind {
    /// As it stands in every report.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Seal => "seal",
            Kind::Label => "label",
            Kind::View => "view",
            Kind::Refusal => "refusal",
        }
    }

    /// Whether a picture travels to a node that was chosen for it, and comes back. For the others the coordinator is asked.
    pub const fn is_job(self) -> bool {
        matches!(self, Kind::Seal | Kind::Label)
    }
}

impl From<Operation> for Kind {
    fn from(operation: Operation) -> Kind {
        match operation {
            Operation::Seal => Kind::Seal,
            Operation::Label => Kind::Label,
        }
    }
}

/// One attempt of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRecord {
    /// The node that was tried; none if none could be chosen.
    pub node: Option<NodeId>,
    /// Who chose it.
    pub placed_by: PlacedBy,
    /// How long it took.
    pub took: Duration,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// The one result of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Answered; the answer was right, as far as it was checked.
    Answered {
        /// The node that did the job.
        node: NodeId,
        /// The node's own time for the job.
        job_time: Duration,
        /// Bytes of the answer.
        bytes_out: u64,
    },
    /// Answered, but the check found the answer wrong.
    Wrong {
        /// The node that did the job.
        node: NodeId,
        /// What was wrong with it.
        why: String,
    },
    /// Not answered.
    Failed {
        /// A short word for the counts: `timeout`, `busy`, ...
        reason: String,
        /// One line for people.
        detail: String,
    },
    /// In the open model: still waiting for a free place when its deadline passed, so never sent.
    NotSent,
}

impl Record {
    /// Time from the intended send to the result: what a user would have waited.
    pub fn latency(&self) -> Duration {
        self.finished.saturating_sub(self.intended)
    }

    /// Time from the real send to the result, which hides the wait for a free place.
    pub fn service_time(&self) -> Duration {
        self.finished.saturating_sub(self.sent)
    }

    /// The node that answered rightly.
    pub fn answered_by(&self) -> Option<NodeId> {
        match self.outcome {
            Outcome::Answered { node, .. } => Some(node),
            _ => None,
        }
    }

    /// The short word for the counts of failures; none for a right answer.
    pub fn failure(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Answered { .. } => None,
            Outcome::Wrong { .. } => Some("wrong_answer"),
            Outcome::Failed { reason, .. } => Some(reason),
            Outcome::NotSent => Some("not_sent"),
        }
    }
}
