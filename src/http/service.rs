//! What HTTP needs of a node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::rights_service::RightsService;
use crate::id::{NodeId, RequestId};
use crate::image::Terms;
use crate::protocol::election::ElectionResult;
use crate::protocol::event::Event;
use crate::protocol::fault::LinkFault;
use crate::protocol::job::{Announcement, EncryptionResponse, Label, SealForm};
use crate::protocol::kv::BESIDE_VALUE_BYTES;
use crate::protocol::ledger::{Answer, Change, KeyValue, Write};
use crate::protocol::membership::{ChangeRequest, Changed, Members};
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
        /// Who may open it.
        terms: Terms,
    },
    /// Label it.
    Label {
        /// What the label says.
        label: Label,
        /// How the result is written.
        form: SealForm,
    },
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

/// What is asked of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// One key.
    Key(Bytes),
    /// Keys in order.
    Prefix {
        /// How they begin.
        prefix: Bytes,
        /// Behind this one.
        after: Option<Bytes>,
        /// How many at most.
        limit: usize,
    },
}

/// What the ledger holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Entries of the log that the answer comes from.
    pub commit: u64,
    /// The ledger's revision.
    pub revision: u64,
    /// Keys and values, in order.
    pub items: Vec<KeyValue>,
    /// Whether there are more.
    pub more: bool,
}

/// Why this node does not answer for the ledger.
#[derive(Clone, Debug)]
pub enum NotHere {
    /// Another node leads.
    Leader {
        /// The leader.
        node: NodeId,
        /// Where it answers, as `http://host:port`.
        base: String,
    },
    /// Nobody can answer now, or the node itself cannot.
    Refused(Problem),
}

/// Limits that are checked before a body is read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest original in bytes.
    pub original_bytes: u64,
    /// How long an upload may take.
    pub upload_time: Duration,
    /// Longest key of the key-value store in bytes.
    pub key_bytes: usize,
    /// Largest value of the key-value store in bytes.
    pub value_bytes: usize,
}

impl Limits {
    /// Keys and values of one request in bytes: one entry of the log must hold them.
    pub const fn request_bytes(&self) -> usize {
        self.value_bytes + BESIDE_VALUE_BYTES
    }

    /// A body as JSON in bytes: base64 and the names of its fields take more than what they carry.
    pub const fn json_bytes(&self) -> usize {
        2 * self.request_bytes()
    }
}

/// A node as HTTP sees it.
pub trait NodeService: Send + Sync + 'static {
    /// Its users and images.
    fn rights(&self) -> &dyn RightsService;
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
    /// The elections that stand in the log, the oldest first.
    fn elections(&self) -> Vec<ElectionResult>;
    /// Makes it fail.
    fn fail(&self, duration: Duration) -> BoxFuture<'static, Result<(), Problem>>;
    /// Why it takes no write on the ledger at this moment, if too many wait.
    fn refuses_writes(&self) -> Option<Problem>;
    /// Does a write on the ledger.
    fn write(&self, write: Write) -> BoxFuture<'static, Result<Answer, NotHere>>;
    /// Reads the ledger: linearizable, or as this node knows it (`stale`).
    fn read(&self, question: Question, stale: bool) -> BoxFuture<'static, Result<Found, NotHere>>;
    /// The ledger's revision at this node.
    fn revision(&self) -> u64;
    /// Up to `limit` changes after a revision, and the revision up to which they are all.
    fn changes_after(&self, revision: u64, prefix: &[u8], limit: usize) -> Result<(Vec<Change>, u64), Problem>;
    /// Resolves when there are changes after a revision.
    fn revision_after(&self, revision: u64) -> BoxFuture<'static, ()>;
    /// Entries applied, and the hash of what they add up to.
    fn state_hash(&self) -> BoxFuture<'static, Result<(u64, [u8; 32]), Problem>>;
    /// The members as it knows them.
    fn members(&self) -> BoxFuture<'static, Result<Members, Problem>>;
    /// Changes them, if it leads.
    fn change_members(&self, change: ChangeRequest) -> BoxFuture<'static, Result<Changed, NotHere>>;
    /// The simulated faults of its links.
    fn faults(&self) -> Vec<LinkFault>;
    /// Replaces them; what cannot be is refused and changes nothing.
    fn set_faults(&self, faults: &[LinkFault]) -> Result<(), Problem>;
    /// Why it takes no jobs now, if it takes none.
    fn not_ready(&self) -> Option<Problem>;
    /// How often it has failed; changes when a failure begins.
    fn failures(&self) -> u64;
    /// While it is Failed: resolves when the failure is over.
    fn silence(&self) -> Option<BoxFuture<'static, ()>>;
}
