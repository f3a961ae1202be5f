//! The client library: it announces a job to all nodes, uploads to the chosen one, retries with the same id.
//!
//! A [`Cluster`] is made once and cloned into every task. Inside, from the pure to the shell: `round` (what follows from the
//! answers to an announcement), `latency`, `back_off`, `view` (what is known of a node); `announcer` (one task per node), `exchange` (HTTP); `cluster` (one
//! request from start to end), `queries` (status, events, commands), `asking` (whom to ask for the leader), `ledger` and `watch` (the
//! key-value store), `members` (who belongs to the cluster), `sharing`, `signer` and `sealed` (users and rights), [`keys`] (a user's keys, journal and leases on this
//! machine). [`command`] is the `client` program.

mod announcer;
mod asking;
pub mod audit;
mod back_off;
mod cluster;
pub mod command;
mod error;
mod exchange;
pub mod keys;
mod latency;
mod ledger;
mod members;
mod queries;
mod round;
mod sealed;
mod settings;
mod sharing;
mod signer;
mod upload;
mod view;
mod watch;

pub use cluster::Cluster;
pub use error::{AttemptError, ClientError, RequestFailed};
pub use ledger::{Consistency, LookedUp, Value};
pub use queries::{FailTarget, NodeReport, confirmed_coordinator};
pub use sealed::SealedFile;
pub use settings::{ClientCredentials, ClientSettings, NodeAddress};
pub use signer::Signer;
pub use upload::Ownership;
pub use watch::Watch;

use std::time::Duration;

use bytes::Bytes;

use crate::id::{NodeId, RequestId};
use crate::protocol::job::{Label, Operation, SealForm};

/// One logical request.
#[derive(Clone, Debug)]
pub struct Job {
    /// The same in every attempt.
    pub id: RequestId,
    /// The image file's bytes, as they are.
    pub image: Bytes,
    /// The file's name, kept inside the seal.
    pub name: String,
    /// What is to be done.
    pub work: Work,
}

/// What is to be done, with what it needs.
#[derive(Clone, Debug)]
pub enum Work {
    /// Seal in this form.
    Seal(SealForm),
    /// Seal in this form, for an owner and whom the owner names.
    SealOwned(SealForm, Ownership),
    /// Label with these names and quota.
    Label(Label),
}

impl Work {
    /// The operation as it is announced.
    pub const fn operation(&self) -> Operation {
        match self {
            Work::Seal(_) | Work::SealOwned(..) => Operation::Seal,
            Work::Label(_) => Operation::Label,
        }
    }
}

/// Who chose the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacedBy {
    /// The coordinator's placement.
    Coordinator,
    /// The client took the lowest load itself: no coordinator answered within 100 ms.
    Client,
}

impl PlacedBy {
    /// As it stands in headers and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            PlacedBy::Coordinator => "coordinator",
            PlacedBy::Client => "client",
        }
    }
}

/// One attempt of a request, for the report.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The node that was tried; none if no node answered the announcement.
    pub node: Option<NodeId>,
    /// Who chose it.
    pub placed_by: PlacedBy,
    /// How long the attempt took, announcing included.
    pub took: Duration,
    /// The part of it until the node was chosen.
    pub announce: Duration,
    /// Why it failed, if it did: `busy`, `timeout`, `connection`, `not_active`, `dropped`, `no_node`, ...
    pub failure: Option<String>,
}

/// The one result of a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The finished PNG.
    pub image: Bytes,
    /// The node that did the job.
    pub node: NodeId,
    /// The node's own time from admission to answer.
    pub job_time: Duration,
    /// Whether the node answered from its cache of repeated ids, without a second job.
    pub repeated: bool,
    /// Every attempt, the successful one last.
    pub attempts: Vec<Attempt>,
}
