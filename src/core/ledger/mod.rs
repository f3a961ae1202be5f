//! The ledger: `apply(stamp, write) -> answer`. No clock (the leader stamps), no randomness, ordered maps only, so that every node
//! that applies the same entries holds the same bytes.
//!
//! Its tables have commands of their own: no key-value command reaches another table.

mod answers;
mod clock;
mod kv;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::answers::ANSWERS_KEPT_MS;
pub use self::clock::{IDLE_MS, LeaderClock};
pub use self::kv::{PAGE_LIMIT, Page};

use self::answers::{Answers, Known};
use self::kv::Table;
use crate::protocol::ledger::{Answer, Change, KeyValue, Refused, RefusedWhy, Stamp, Write};

/// What is kept beside each key and value, about, in bytes: revisions, and the maps' own space.
const BESIDE_A_KEY: u64 = 128;

/// The ledger's state. A clone costs a few pointers, so that a snapshot can be written while commands go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    revision: u64,
    stamp: Stamp,
    table: Table,
    answers: Answers,
}

impl Ledger {
    /// Lets the ledger's time go on: what is due by then expires, and old answers are forgotten. Commands of one entry follow.
    /// Gives the keys that are gone.
    pub fn advance(&mut self, stamp: Stamp) -> Vec<Change> {
        self.stamp = self.stamp.max(stamp);
        let expired = self.table.expire(self.stamp);
        self.revision += u64::from(!expired.is_empty());
        self.answers.forget(self.stamp);
        expired.into_iter().map(|key| Change { revision: self.revision, key, now: None }).collect()
    }

    /// What the write that has just been applied has changed, each key once.
    pub fn changes(&self, write: &Write, answer: &Answer) -> Vec<Change> {
        let Ok(results) = &answer.outcome else { return Vec::new() };
        let done = write.operations.iter().zip(results).filter(|(_, result)| result.changes());
        let keys: BTreeSet<&Bytes> = done.map(|(operation, _)| operation.key()).collect();
        let change = |key: &Bytes| Change { revision: self.revision, key: key.clone(), now: self.get(key) };
        keys.into_iter().map(change).collect()
    }

    /// Applies a write that stands in the log as number `commit`: all of it or nothing. A request id that was answered before gets
    /// the same answer again and changes nothing.
    pub fn apply(&mut self, commit: u64, write: &Write) -> Answer {
        let content = answers::content(write);
        match self.answers.find(write.caller, write.id, content) {
            Known::Answered(answer) => return answer,
            Known::OtherContent => {
                let outcome = Err(Refused { operation: 0, why: RefusedWhy::IdReused });
                return Answer { commit, revision: self.revision, outcome };
            }
            Known::New => {}
        }
        let outcome = self.table.apply(&write.operations, self.stamp, self.revision + 1);
        let (outcome, changed) = match outcome {
            Ok((results, changed)) => (Ok(results), changed),
            Err(refused) => (Err(refused), false),
        };
        self.revision += u64::from(changed);
        let answer = Answer { commit, revision: self.revision, outcome };
        self.answers.keep(self.stamp, write.caller, write.id, content, &answer);
        answer
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.table.get(key, self.stamp)
    }

    /// Keys that begin with `prefix`, in order, behind `after`; at most `limit` of them, and at most [`PAGE_LIMIT`] bytes.
    pub fn list(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Page {
        self.table.list(prefix, after, limit, self.stamp)
    }

    /// Commands that changed something.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The time of the last command.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Bytes of all keys and values.
    pub fn size_bytes(&self) -> u64 {
        self.table.size_bytes()
    }

    /// Bytes that the table takes, about: keys, values, and what is kept beside each.
    pub fn footprint_bytes(&self) -> u64 {
        self.table.footprint_bytes(BESIDE_A_KEY)
    }

    /// Whether this write may be done in a ledger that shall hold no more than `limit` bytes. What only deletes is welcome in a full
    /// one, and what was done already.
    pub fn has_room(&self, write: &Write, limit: u64) -> bool {
        let fits = self.footprint_bytes() + write.size_bytes() as u64 <= limit;
        fits || write.only_deletes() || self.has_answered(write)
    }

    /// Whether the answer to this write is known already: to apply it again changes nothing.
    pub fn has_answered(&self, write: &Write) -> bool {
        !matches!(self.answers.find(write.caller, write.id, answers::content(write)), Known::New)
    }

    /// Answers that are kept for repeated request ids.
    pub fn answers(&self) -> usize {
        self.answers.len()
    }

    /// Bytes that these answers take, about.
    pub fn answers_bytes(&self) -> u64 {
        self.answers.size_bytes()
    }

    /// Whether anything waits for its time: keys that expire, and answers that are kept.
    pub fn waits_for_time(&self) -> bool {
        self.table.expires() || self.answers.len() > 0
    }

    /// Whether something is due by `now` that only a command can let expire.
    pub fn is_due(&self, now: Stamp) -> bool {
        self.table.is_due(now)
    }
}
