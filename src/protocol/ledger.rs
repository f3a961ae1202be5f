//! The conversation with the ledger: commands as they stand in the log, and what comes of them.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::RequestId;

/// Milliseconds since 1970, stamped by the leader and never going back along the log. Nothing in the ledger reads a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(pub u64);

/// Who sent a command: request ids of different callers do not meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Caller {
    /// Whoever may reach the port.
    #[default]
    Anyone,
}

/// A write, as it stands in the log. The leader has put a [`Stamp`] beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Who asks.
    pub caller: Caller,
    /// The same in every attempt of this request.
    pub id: RequestId,
    /// What shall be done, all of it or nothing.
    pub operations: Vec<KvOperation>,
}

impl Write {
    /// Bytes of all its keys and values.
    pub fn size_bytes(&self) -> usize {
        self.operations.iter().map(KvOperation::size_bytes).sum()
    }

    /// Whether it only removes keys.
    pub fn only_deletes(&self) -> bool {
        self.operations.iter().all(|operation| matches!(operation, KvOperation::Delete { .. }))
    }
}

/// One operation on the key-value table. New ones go to the end: their number is their form on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvOperation {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// Time after which the key is gone, in milliseconds from the command's stamp.
        expires_in_ms: Option<u64>,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Lets the command fail unless the key is as expected. With a [`KvOperation::Put`] behind it: compare-and-swap.
    Require {
        /// The key.
        key: Bytes,
        /// How it must be.
        expect: Expectation,
    },
    /// Adds to a number, which is written in decimal digits. A key that is not there counts as 0.
    Add {
        /// The key.
        key: Bytes,
        /// What is added; negative to subtract.
        by: i64,
        /// The least value that may come out: below it the command fails and changes nothing.
        floor: Option<i64>,
    },
}

impl KvOperation {
    /// The key that it is about.
    pub fn key(&self) -> &Bytes {
        match self {
            KvOperation::Put { key, .. }
            | KvOperation::Delete { key }
            | KvOperation::Require { key, .. }
            | KvOperation::Add { key, .. } => key,
        }
    }

    /// Bytes of key and values.
    pub fn size_bytes(&self) -> usize {
        let value = match self {
            KvOperation::Put { value, .. } => value.len(),
            KvOperation::Require { expect: Expectation::Value(value), .. } => value.len(),
            _ => 0,
        };
        self.key().len() + value
    }
}

/// How a key must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expectation {
    /// Not there.
    Absent,
    /// There, whatever its value.
    Present,
    /// There, and last changed at this revision.
    ModRevision(u64),
    /// There, with this value.
    Value(Bytes),
}

/// A value with its history, as in etcd: revisions count the commands that changed something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Revision in which the key was made.
    pub create_revision: u64,
    /// Revision of its last change.
    pub mod_revision: u64,
    /// Changes since it was made, that one included.
    pub version: u64,
    /// When it is gone.
    pub expires: Option<Stamp>,
}

/// A key that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision of the change.
    pub revision: u64,
    /// The key.
    pub key: Bytes,
    /// What it is now; none if it is gone.
    pub now: Option<KeyValue>,
}

impl Change {
    /// Bytes of key and value.
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.now.as_ref().map_or(0, |now| now.value.len())
    }
}

/// The answer to a [`Write`]: the same for the same request id, for as long as answers are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Entries of the log up to and including the command.
    pub commit: u64,
    /// The ledger's revision after it.
    pub revision: u64,
    /// What came of each operation, or why nothing was done.
    pub outcome: Result<Vec<KvResult>, Refused>,
}

/// What came of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KvResult {
    /// The key is set.
    Put,
    /// The key is gone; whether it was there.
    Deleted(bool),
    /// The key is as expected.
    AsExpected,
    /// The sum.
    Sum(i64),
}

impl KvResult {
    /// Whether the operation has changed the table.
    pub const fn changes(self) -> bool {
        match self {
            KvResult::Put | KvResult::Deleted(true) | KvResult::Sum(_) => true,
            KvResult::Deleted(false) | KvResult::AsExpected => false,
        }
    }
}

/// Which operation kept the command from being done, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its place among the operations, from 0.
    pub operation: u32,
    /// Why.
    pub why: RefusedWhy,
}

/// Why a command was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedWhy {
    /// The key is not as expected; the revision of its last change, if it is there.
    NotAsExpected {
        /// Revision of its last change.
        mod_revision: Option<u64>,
    },
    /// The sum would be below the floor.
    BelowFloor {
        /// The value, unchanged.
        value: i64,
        /// The floor.
        floor: i64,
    },
    /// The value is not a number in decimal digits.
    NotANumber,
    /// The sum does not fit 64 bits.
    Overflow,
    /// The request id came before with other content.
    IdReused,
}

impl fmt::Display for RefusedWhy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefusedWhy::NotAsExpected { mod_revision: None } => write!(formatter, "the key is not there"),
            RefusedWhy::NotAsExpected { mod_revision: Some(revision) } => {
                write!(formatter, "the key is not as expected: it was last changed in revision {revision}")
            }
            RefusedWhy::BelowFloor { value, floor } => {
                write!(formatter, "the value is {value}, the result would be below the floor of {floor}")
            }
            RefusedWhy::NotANumber => write!(formatter, "the value is not a number in decimal digits"),
            RefusedWhy::Overflow => write!(formatter, "the sum does not fit 64 bits"),
            RefusedWhy::IdReused => {
                write!(formatter, "this request id was used for another request: give each request an id of its own")
            }
        }
    }
}
