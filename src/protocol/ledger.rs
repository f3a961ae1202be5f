//! The conversation with the ledger: commands as they stand in the log, and what comes of them.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{RequestId, UserId};
use crate::protocol::rights::{ImageCommand, ImageDone, MOST_RIGHTS, MOST_VIEWS};
use crate::protocol::user::{SIGNED_WITHIN_MS, Signed, UserCommand};

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
    /// Whoever shows the admin token.
    Administrator,
    /// The user whose signature the node that was asked has checked.
    User(UserId),
}

/// A write, as it stands in the log. The leader has put a [`Stamp`] beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Who asks.
    pub caller: Caller,
    /// The same in every attempt of this request.
    pub id: RequestId,
    /// What shall be done.
    pub request: Request,
}

/// What shall be done, and to which table. New ones go to the end: their number is their form on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Operations on the key-value table, all of them or none.
    Kv(Vec<KvOperation>),
    /// A command on the table of users, with the caller's signature unless it is an administrator's.
    User {
        /// The signature.
        signed: Option<Signed>,
        /// The command.
        command: UserCommand,
    },
    /// A command on the table of images.
    Image(Box<ImageCommand>),
}

impl Write {
    /// Operations on the key-value table.
    pub fn kv(id: RequestId, operations: Vec<KvOperation>) -> Write {
        Write { caller: Caller::Anyone, id, request: Request::Kv(operations) }
    }

    /// Its operations on the key-value table.
    pub fn operations(&self) -> &[KvOperation] {
        match &self.request {
            Request::Kv(operations) => operations,
            Request::User { .. } | Request::Image(_) => &[],
        }
    }

    /// Bytes that it may add to the ledger, about: keys and values, names, rights.
    pub fn size_bytes(&self) -> usize {
        match &self.request {
            Request::Kv(operations) => operations.iter().map(KvOperation::size_bytes).sum(),
            Request::User { command: UserCommand::Register { name, .. }, .. } => name.len() + 128,
            Request::User { .. } => 128,
            Request::Image(command) => 256 + 128 * command.rights(),
        }
    }

    /// Whether it takes away keys or a user, or puts a user's keys in the place of others: done in a full ledger, too.
    pub fn is_welcome_when_full(&self) -> bool {
        match &self.request {
            Request::Kv(operations) => {
                operations.iter().all(|operation| matches!(operation, KvOperation::Delete { .. }))
            }
            Request::User { command, .. } => matches!(command, UserCommand::Expel { .. } | UserCommand::Rotate { .. }),
            Request::Image(_) => false,
        }
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
pub enum Change {
    /// It was written, in its `mod_revision`.
    Written(KeyValue),
    /// It is gone.
    Gone {
        /// The key.
        key: Bytes,
        /// The revision of the change.
        revision: u64,
    },
}

impl Change {
    /// The key.
    pub fn key(&self) -> &Bytes {
        match self {
            Change::Written(KeyValue { key, .. }) | Change::Gone { key, .. } => key,
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> u64 {
        match self {
            Change::Written(KeyValue { mod_revision: revision, .. }) | Change::Gone { revision, .. } => *revision,
        }
    }

    /// Bytes of key and value.
    pub fn size_bytes(&self) -> usize {
        match self {
            Change::Written(now) => now.key.len() + now.value.len(),
            Change::Gone { key, .. } => key.len(),
        }
    }
}

/// The answer to a [`Write`]: the same for the same request id, for as long as answers are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Entries of the log up to and including the command.
    pub commit: u64,
    /// The ledger's revision after it.
    pub revision: u64,
    /// What came of it, or why nothing was done.
    pub outcome: Result<Done, Refused>,
}

/// What came of a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// What came of each operation.
    Kv(Vec<KvResult>),
    /// The command on the table of users is done.
    User,
    /// What came of the command on an image.
    Image(ImageDone),
}

impl Answer {
    /// What came of each operation on the key-value table, or why none was done.
    ///
    /// # Errors
    /// The refusal.
    pub fn kv(&self) -> Result<&[KvResult], Refused> {
        match &self.outcome {
            Ok(Done::Kv(results)) => Ok(results),
            Ok(Done::User | Done::Image(_)) => Ok(&[]),
            Err(refused) => Err(*refused),
        }
    }
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
    /// The signature was made too long ago, or will be made in the future, by the leader's clock.
    NotOfThisTime {
        /// The leader's clock, in milliseconds since 1970.
        now_unix_ms: u64,
    },
    /// The user signs with other keys now.
    KeyReplaced,
    /// Whoever asks is no user of this cluster.
    UnknownCaller,
    /// There is no such user.
    NoSuchUser,
    /// The user was expelled.
    UserExpelled,
    /// Somebody has this name.
    NameTaken,
    /// The keys are a user's already.
    KeysTaken,
    /// Nobody was invited so, or the invitation was used, or is over.
    NotInvited,
    /// Too many invitations are open.
    TooManyInvitations,
    /// The caller has no right to this image, or there is no such image: nobody without a right learns which.
    NoRight,
    /// The user that the owner speaks of has no right to this image.
    NotNamed,
    /// All views are spent.
    NoneLeft,
    /// The owner has taken the right back.
    RightRevoked,
    /// The rights have ended.
    Expired,
    /// Only the owner may do this.
    NotTheOwner,
    /// The image has as many users as it may have.
    TooManyRights,
    /// A user would have more views than anybody may have.
    TooManyViews,
    /// The records of the owner's images take as much as they may.
    OwnerIsFull,
    /// Not so many are left, or no number of views at all.
    NotSoMany {
        /// Those that are there.
        left: u64,
    },
    /// The owner does not take views back, or there is no such lease, or it is over.
    NotReturnable,
    /// Only who administers may do this.
    NotAnAdministrator,
}

impl fmt::Display for RefusedWhy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefusedWhy::NotAsExpected { mod_revision: None } => write!(formatter, "the key is not there"),
            RefusedWhy::NotAsExpected { mod_revision: Some(revision) } => {
                write!(
                    formatter,
                    "the key is not as expected: it was last changed in revision {revision}; read it, and decide anew"
                )
            }
            RefusedWhy::BelowFloor { value, floor } => {
                write!(formatter, "the value is {value}, the result would be below the floor of {floor}")
            }
            RefusedWhy::NotANumber => write!(formatter, "the value is not a number in decimal digits"),
            RefusedWhy::Overflow => write!(formatter, "the sum does not fit 64 bits"),
            RefusedWhy::IdReused => {
                write!(formatter, "this request id was used for another request: give each request an id of its own")
            }
            RefusedWhy::NotOfThisTime { now_unix_ms } => write!(
                formatter,
                "the request was not signed within {} s of the leader's clock, which shows {now_unix_ms} ms since 1970: set this \
                 machine's clock and ask again",
                SIGNED_WITHIN_MS / 1000
            ),
            RefusedWhy::KeyReplaced => {
                write!(
                    formatter,
                    "it is signed with keys that were replaced: use the newest ones, wherever they were made"
                )
            }
            RefusedWhy::UnknownCaller => {
                write!(formatter, "whoever signed this is no user of this cluster: `client register NAME` makes one")
            }
            RefusedWhy::NoSuchUser => {
                write!(formatter, "there is no such user: ask them to run `client register NAME`")
            }
            RefusedWhy::UserExpelled => write!(formatter, "this user was expelled from the cluster"),
            RefusedWhy::NameTaken => write!(formatter, "somebody else has this name: take another one"),
            RefusedWhy::KeysTaken => write!(formatter, "these keys belong to a user already, under another name"),
            RefusedWhy::NotInvited => write!(
                formatter,
                "registration needs an invitation that was not used yet: whoever administers makes one with `client invite`"
            ),
            RefusedWhy::TooManyInvitations => {
                write!(formatter, "too many invitations are open: wait until some are used or over")
            }
            RefusedWhy::NoRight => write!(formatter, "no right to open this image"),
            RefusedWhy::NotNamed => write!(formatter, "that user has no right to this image"),
            RefusedWhy::NoneLeft => write!(formatter, "all views of this image are spent: ask its owner for more"),
            RefusedWhy::RightRevoked => write!(formatter, "the owner has taken the right to open this image back"),
            RefusedWhy::Expired => write!(formatter, "the right to open this image has expired"),
            RefusedWhy::NotAnAdministrator => write!(formatter, "only who administers the cluster may do this"),
            RefusedWhy::NotTheOwner => write!(formatter, "only the owner of the image may do this"),
            RefusedWhy::TooManyRights => write!(formatter, "an image has at most {MOST_RIGHTS} users with rights"),
            RefusedWhy::TooManyViews => write!(
                formatter,
                "1 to {MOST_VIEWS} views of an image can be granted to a user, all grants taken together"
            ),
            RefusedWhy::OwnerIsFull => {
                write!(
                    formatter,
                    "the rights and audit chains of this owner's images take as much room as one owner may have: images that expire \
                     make room"
                )
            }
            RefusedWhy::NotSoMany { left: 0 } => write!(formatter, "there are no views left"),
            RefusedWhy::NotSoMany { left } => write!(formatter, "between 1 and {left} views can be had"),
            RefusedWhy::NotReturnable => {
                write!(
                    formatter,
                    "these views cannot be given back: the owner does not allow it, or the lease is over or another's"
                )
            }
        }
    }
}
