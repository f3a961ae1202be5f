//! Histories of the ledger, as its callers saw them, and two ways to find out whether one store in one order explains them.
//!
//! [`by_index`] believes the commit index and the revision of each answer and checks that they are right: fast, for long histories.
//! [`by_search`] believes nothing but times and values: slow, for short ones.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod by_index;
pub mod by_search;
pub mod model;

use std::fmt;

use bytes::Bytes;
use image_cloud::protocol::ledger::{KvOperation, KvResult, RefusedWhy};

/// The end of a call that nobody has seen end.
pub const NEVER: u64 = u64::MAX;

/// One call of a client, from its beginning to its answer, in microseconds on one clock.
#[derive(Clone, Debug)]
pub struct Call {
    pub client: usize,
    pub began: u64,
    pub ended: u64,
    pub question: Question,
    /// None if its outcome is unknown: it may have been done, may be done later, or never.
    pub answer: Option<Answer>,
}

#[derive(Clone, Debug)]
pub enum Question {
    Write(Vec<KvOperation>),
    Get(Bytes),
    /// All keys.
    List,
}

/// An answer and where in the log it comes from.
#[derive(Clone, Debug)]
pub struct Answer {
    pub commit: u64,
    pub revision: u64,
    pub told: Told,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Done(Vec<KvResult>),
    /// Why nothing was done, in the words of [`RefusedWhy`].
    Refused(String),
    /// The keys that were asked for and are there, in order.
    Found(Vec<(Bytes, Seen)>),
}

/// A value with its history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    pub value: Bytes,
    pub create_revision: u64,
    pub mod_revision: u64,
    pub version: u64,
}

impl Told {
    /// What a write is told.
    pub fn written(outcome: Result<Vec<KvResult>, RefusedWhy>) -> Told {
        outcome.map_or_else(|why| Told::Refused(why.to_string()), Told::Done)
    }

    /// What the reader of one key is told.
    pub fn found(key: &Bytes, seen: Option<Seen>) -> Told {
        Told::Found(seen.map(|seen| (key.clone(), seen)).into_iter().collect())
    }

    /// Whether this is the answer to a write that changed something, and so made a revision.
    pub fn is_a_change(&self) -> bool {
        let Told::Done(results) = self else { return false };
        results.iter().any(|result| !matches!(result, KvResult::AsExpected | KvResult::Deleted(false)))
    }
}

/// Calls that no single store explains, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLinearizable(pub String);

impl fmt::Display for NotLinearizable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "not linearizable: {}", self.0)
    }
}
