//! The type configuration of the Raft library, for any runtime: tokio in a node, a deterministic one in the simulation.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use openraft::{AsyncRuntime, EntryPayload, OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};

use crate::id::{LogPosition, MemberId, Term};
use crate::protocol::election::ElectionResult;
use crate::protocol::ledger::{Answer, Stamp, Write};
use crate::protocol::membership::Place;
use crate::protocol::user::Date;

/// What a log entry may say. New commands go to the end: their number is their form on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Remember how a coordinator was found.
    RecordElection(ElectionResult),
    /// Nothing: only a leader with a majority can have it committed.
    ProveLeadership,
    /// Writes that were waiting together, with the leader's time. Without any, only the time goes on.
    Ledger {
        /// The ledger's time when the leader took them.
        stamp: Stamp,
        /// The date then, by the leader's wall clock.
        date: Date,
        /// The writes, in the order in which they are done. Shared: each follower's task and the state machine take an entry of their own.
        writes: Arc<[Write]>,
    },
}

impl fmt::Display for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::RecordElection(result) => {
                write!(formatter, "record the election of term {}", result.coordinator.term)
            }
            Command::ProveLeadership => write!(formatter, "prove leadership"),
            Command::Ledger { writes, .. } => write!(formatter, "{} writes of the ledger", writes.len()),
        }
    }
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is recorded. Also the outcome of entries that carry no command.
    Recorded,
    /// The answers to the writes, in their order.
    Answered(Vec<Answer>),
}

/// The configuration. One leader per term ([`leader_id_std`](openraft::impls::leader_id_std)); a node's id is its
/// [`MemberId`], so that a wiped disk is another voter; with it stands where the member is found, so that all know it.
pub struct Types<R>(PhantomData<fn() -> R>);

impl<R: AsyncRuntime> RaftTypeConfig for Types<R> {
    type D = Command;
    type R = Outcome;
    type NodeId = MemberId;
    type Node = Place;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, MemberId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Command, MemberId, Place>;
    type Entry = openraft::impls::Entry<CommittedTerm, Self::Payload>;
    type AsyncRuntime = R;
    type Responder<T>
        = openraft::impls::ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// The runtime of a node.
pub type Tokio = openraft::impls::TokioRuntime;

/// A leader's term, as log entries carry it.
pub type CommittedTerm = <LeaderId as openraft::vote::RaftLeaderId>::Committed;
/// Who leads, in which term.
pub type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, MemberId>;
/// Where an entry stands in the log.
pub type LogId = openraft::LogId<CommittedTerm>;
/// A vote.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// What an entry carries.
pub type Payload = EntryPayload<Command, MemberId, Place>;
/// A log entry.
pub type Entry = openraft::impls::Entry<CommittedTerm, Payload>;
/// A membership and the entry that brought it.
pub type StoredMembership = openraft::StoredMembership<CommittedTerm, MemberId, Place>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedTerm, MemberId, Place>;
/// A snapshot.
pub type Snapshot = openraft::Snapshot<CommittedTerm, MemberId, Place, Vec<u8>>;

/// A log position as the election compares it.
pub fn position(id: Option<LogId>) -> LogPosition {
    id.map_or(LogPosition::default(), |id| LogPosition {
        term: Term(id.committed_leader_id().term),
        length: id.index() + 1,
    })
}

// The library asks for these of the configuration type itself. A derive would ask them of the runtime, too.
impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Types<R> {}
impl<R> Default for Types<R> {
    fn default() -> Self {
        Types(PhantomData)
    }
}
impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Types")
    }
}
impl<R> PartialEq for Types<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<R> Eq for Types<R> {}
impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<R> Ord for Types<R> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}
