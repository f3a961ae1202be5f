//! What can go wrong with Raft.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::id::{MemberId, Term};
use crate::protocol::codec::CodecError;
use crate::protocol::status::Leadership;

/// Why Raft cannot run, or runs no longer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RaftError {
    /// The directory cannot be used.
    #[error("node {node}: cannot {what} {path}: {error}")]
    Directory {
        /// The node.
        node: MemberId,
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        error: String,
    },
    /// Log or snapshot is damaged.
    #[error(
        "node {node}: {path} is damaged ({error}): restore it from a backup, or move the node's directory away and replace this member by a new one"
    )]
    Corrupt {
        /// The node.
        node: MemberId,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// The numbers do not fit together.
    #[error("node {node}: the timing of Raft is impossible: {error}")]
    Settings {
        /// The node.
        node: MemberId,
        /// What clashes.
        error: String,
    },
    /// The disk failed while Raft ran: full, read-only, or a sync that failed, which is not tried again. The node must end.
    #[error("node {node}: its disk has failed ({error}): make space or mend it, then start the node again")]
    Disk {
        /// The node.
        node: MemberId,
        /// The system's answer.
        error: String,
    },
    /// Raft stopped: a bug. The node must end; what it acknowledged is safe with the others.
    #[error("node {node}: raft has stopped: {error}")]
    Stopped {
        /// The node.
        node: MemberId,
        /// Why.
        error: String,
    },
}

/// Why Raft was not asked for its confirmation, or said no at once.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CampaignError {
    /// Raft did not answer in time.
    #[error("raft did not answer within {} ms", .0.as_millis())]
    Hung(Duration),
    /// Raft has stopped.
    #[error(transparent)]
    Stopped(#[from] RaftError),
    /// An agreed death without the dead.
    #[error("an agreed death must name the leadership that was found vacant")]
    NoVacancy,
    /// The world has moved on: the agreement was about another term.
    #[error("the agreement was about node {} in term {}, this node has seen term {latest}", .vacancy.node, .vacancy.term)]
    Moved {
        /// What was found vacant.
        vacancy: Leadership,
        /// The latest term.
        latest: Term,
    },
    /// Initialising needs members.
    #[error("to initialise, name the members")]
    NoMembers,
    /// There is a log already.
    #[error("the cluster has begun already: this node is in term {term}")]
    AlreadyInitialised {
        /// Its term.
        term: Term,
    },
    /// This node is not among the members.
    #[error("node {me} is not among the members that it should begin with")]
    NotAMember {
        /// This node.
        me: MemberId,
    },
    /// Raft said no.
    #[error("raft said no: {0}")]
    Refused(String),
}

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandOverError {
    /// Raft did not answer in time.
    #[error("raft did not answer within {} ms", .0.as_millis())]
    Hung(Duration),
    /// Raft has stopped.
    #[error(transparent)]
    Stopped(#[from] RaftError),
    /// Only the leader can.
    #[error("this node does not lead")]
    NotLeader,
    /// Only to another voter.
    #[error("node {to} is not another voter")]
    NotAVoter {
        /// To whom.
        to: MemberId,
    },
    /// Leadership given to a node that is down or far behind would leave a leader that refuses every write.
    #[error("node {to} is not ready to lead: {why}")]
    NotReady {
        /// To whom.
        to: MemberId,
        /// Why.
        why: String,
    },
}

/// Why the state was not hashed.
#[derive(Debug, Error)]
pub enum HashError {
    /// One hash at a time.
    #[error("the state is being hashed for somebody else: try again")]
    Busy,
    /// The state has no byte form: a bug.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Why a command is not known to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Another node leads, or nobody. The command was not taken.
    #[error("{}", .leader.map_or_else(|| "no node leads now".to_owned(), |leader| format!("node {leader} leads")))]
    NotLeader {
        /// The leader, if known.
        leader: Option<MemberId>,
    },
    /// No majority answers. The command was not taken.
    #[error("no quorum: no majority of the nodes answers")]
    NoQuorum,
    /// Too much waits already. The command was not taken.
    #[error("too many writes wait already")]
    Overloaded,
    /// The ledger holds as much as it may. The command was not taken.
    #[error("the ledger is full: it may hold {} MiB (limits.ledger_mib); delete keys or remove images first", .limit >> 20)]
    Full {
        /// How much it may hold, in bytes.
        limit: u64,
    },
    /// The command may or may not be committed later: repeat it with the same request id.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// Raft has stopped.
    #[error(transparent)]
    Stopped(#[from] RaftError),
}
