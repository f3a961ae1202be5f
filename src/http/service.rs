//! What HTTP needs of a node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::id::{NodeId, RequestId};
use crate::protocol::event::Event;
use crate::protocol::job::{Announcement, EncryptionResponse, Label, Operation, SealForm};
use crate::protocol::problem::Problem;
use crate::protocol::status::NodeStatus;

/// A node as HTTP sees it.
pub type Service = Arc<dyn NodeService>;

/// A job as it arrives, before its image is read.
#[derive(Clone, Debug)]
pub struct JobOrder {
    /// The same in every attempt.
    pub id: RequestId,
    /// What is to be done.
    pub work: Work,
    /// Size of the image in bytes.
    pub bytes: u64,
}

/// What is to be done with the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Seal it.
    Seal {
        /// How the result is written.
        form: SealForm,
        /// The file's name, kept inside the seal.
        name: String,
    },
    /// Label it.
    Label {
        /// What the label says.
        label: Label,
        /// How the result is written.
        form: SealForm,
    },
}

impl Work {
    /// The operation.
    pub const fn operation(&self) -> Operation {
        match self {
            Work::Seal { .. } => Operation::Seal,
            Work::Label { .. } => Operation::Label,
        }
    }
}

/// Memory that an answer takes while it leaves; given back when this is dropped.
pub type Sending = Box<dyn Send>;

/// A finished job.
#[derive(Clone, Debug)]
pub struct Done {
    /// The finished PNG.
    pub image: Bytes,
    /// Time from admission to the finished answer.
    pub took: Duration,
}

/// What the node says to an order.
pub enum Reservation {
    /// Send the image; the promise does the job, and gives the place back when it is dropped.
    Admitted(Box<dyn FnOnce(Bytes) -> BoxFuture<'static, Result<Done, Problem>> + Send>),
    /// The answer to a repeated request id, if the image is the same again.
    Repeated {
        /// The answer.
        done: Done,
        /// CRC-32 of the image that it answers.
        checksum: u32,
    },
}

/// Limits that are checked before a body is read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest original in bytes.
    pub original_bytes: u64,
    /// How long an upload may take.
    pub upload_time: Duration,
}

/// A node as HTTP sees it.
pub trait NodeService: Send + Sync + 'static {
    /// Its id.
    fn node(&self) -> NodeId;
    /// Its HTTP address: what `Host` may say besides loopback names.
    fn address(&self) -> SocketAddr;
    /// Its limits.
    fn limits(&self) -> Limits;
    /// A fresh request id, for a caller that named none.
    fn fresh_id(&self) -> RequestId;
    /// Answers an announcement.
    fn announce(&self, announcement: Announcement) -> BoxFuture<'static, Result<Vec<EncryptionResponse>, Problem>>;
    /// Counts the memory of an answer that begins to leave.
    fn sending(&self, bytes: usize) -> Sending;
    /// Admits a job, or refuses it, before its image is read.
    fn reserve(&self, order: JobOrder) -> BoxFuture<'static, Result<Reservation, Problem>>;
    /// Its status.
    fn status(&self) -> BoxFuture<'static, Result<NodeStatus, Problem>>;
    /// Its events from number `since` on.
    fn events(&self, since: u64) -> Vec<Event>;
    /// Makes it fail.
    fn fail(&self, duration: Duration) -> BoxFuture<'static, Result<(), Problem>>;
    /// Why it takes no jobs now, if it takes none.
    fn not_ready(&self) -> Option<Problem>;
    /// How often it has failed; changes when a failure begins.
    fn failures(&self) -> u64;
    /// While it is Failed: resolves when the failure is over.
    fn silence(&self) -> Option<BoxFuture<'static, ()>>;
}
