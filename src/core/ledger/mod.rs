//! The ledger: `apply(stamp, write) -> answer`. No clock (the leader stamps), no randomness, ordered maps only, so that every node
//! that applies the same entries holds the same bytes.
//!
//! Its tables have commands of their own: no key-value command reaches another table.

mod answers;
mod clock;
mod images;
mod kv;
#[cfg(test)]
mod rights_tests;
mod stored;
#[cfg(test)]
mod tests;
mod users;

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::answers::ANSWERS_KEPT_MS;
pub use self::clock::{IDLE_MS, LeaderClock};
pub use self::kv::{PAGE_LIMIT, Page};

use self::answers::{Answers, Known, WITHOUT_TRACE_KEPT_MS};
use self::images::{Applied, Asked, Images};
use self::kv::Table;
use self::users::Users;
use crate::id::{ImageId, UserId};
use crate::protocol::ledger::{
    Answer, Caller, Change, Done, KeyValue, KvOperation, Refused, RefusedWhy, Request, Stamp, Write,
};
use crate::protocol::rights::{AuditEntry, ImageCommand, ImageRecord, WrapTerms};
use crate::protocol::user::{Date, InvitationId, User};

/// What is kept beside each key and value, about, in bytes: revisions, and the maps' own space.
const BESIDE_A_KEY: u64 = 128;

/// The ledger's state. A clone copies pointers only, so that a snapshot can be written while commands go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    revision: u64,
    stamp: Stamp,
    /// The latest date of any entry: what has expired does not come back, whoever leads.
    latest_date: Date,
    /// The date of the last entry, by the clock of the leader that wrote it: what signed requests are compared with. A leader whose
    /// clock is wrong must not leave its date to the next one.
    entry_date: Date,
    table: Table,
    answers: Answers,
    /// What came of commands on images that left no trace there: refused ones, and what was so already. Views apart.
    without_trace: Answers,
    users: Users,
    images: Images,
}

impl Ledger {
    /// Lets the ledger's time go on: what is due by then expires, and old answers are forgotten. Commands of one entry follow.
    /// Gives the keys that are gone.
    pub fn advance(&mut self, stamp: Stamp, date: Date) -> Vec<Change> {
        self.stamp = self.stamp.max(stamp);
        self.entry_date = date;
        self.latest_date = self.latest_date.max(date);
        self.images.forget(self.latest_date);
        let expired = self.table.expire(self.stamp);
        self.revision += u64::from(!expired.is_empty());
        self.answers.forget(self.stamp, ANSWERS_KEPT_MS);
        self.without_trace.forget(self.stamp, WITHOUT_TRACE_KEPT_MS);
        expired.into_iter().map(|key| Change::Gone { key, revision: self.revision }).collect()
    }

    /// What the write that has just been applied has changed, each key once.
    pub fn changes(&self, write: &Write, answer: &Answer) -> Vec<Change> {
        let Ok(results) = answer.kv() else { return Vec::new() };
        let done = write.operations().iter().zip(results).filter(|(_, result)| result.changes());
        let keys: BTreeSet<&Bytes> = done.map(|(operation, _)| operation.key()).collect();
        let gone = |key: &Bytes| Change::Gone { key: key.clone(), revision: self.revision };
        let change = |key: &Bytes| self.get(key).map_or_else(|| gone(key), Change::Written);
        keys.into_iter().map(change).collect()
    }

    /// Applies a write that stands in the log as number `commit`: all of it or nothing. A request id that was answered before gets
    /// the same answer again and changes nothing.
    pub fn apply(&mut self, commit: u64, write: &Write) -> Answer {
        let refused = |why| Err(Refused { operation: 0, why });
        let (commit, outcome) = match &write.request {
            Request::Kv(operations) => return self.apply_operations(commit, write, operations),
            Request::User { signed, command } => {
                let done = self.users.apply(write.caller, *signed, command, self.entry_date);
                (commit, done.map_or_else(refused, |()| Ok(Done::User)))
            }
            Request::Image(command) => return self.apply_image(commit, write, command),
        };
        Answer { commit, revision: self.revision, outcome }
    }

    fn apply_operations(&mut self, commit: u64, write: &Write, operations: &[KvOperation]) -> Answer {
        let content = answers::content(operations);
        match self.answers.find(write.caller, write.id, content) {
            Known::Answered(answer) => return answer,
            Known::OtherContent => {
                let outcome = Err(Refused { operation: 0, why: RefusedWhy::IdReused });
                return Answer { commit, revision: self.revision, outcome };
            }
            Known::New => {}
        }
        let outcome = self.table.apply(operations, self.stamp, self.revision + 1);
        let (outcome, changed) = match outcome {
            Ok((results, changed)) => (Ok(Done::Kv(results)), changed),
            Err(refused) => (Err(refused), false),
        };
        self.revision += u64::from(changed);
        let answer = Answer { commit, revision: self.revision, outcome };
        self.answers.keep(self.stamp, write.caller, write.id, content, &answer);
        answer
    }

    /// A signature is looked at before what is known of its request: one that is not of this time is refused, not answered, and may be
    /// asked again with a fresh one. Else a command is decided once, whatever its outcome, so that a copy of it that was late cannot do
    /// what its sender was told was not done.
    fn apply_image(&mut self, commit: u64, write: &Write, command: &ImageCommand) -> Answer {
        let revision = self.revision;
        let refused = |why| Answer { commit, revision, outcome: Err(Refused { operation: 0, why }) };
        let by = match self.users.check(write.caller, command.signed, self.entry_date) {
            Ok(by) => by,
            Err(why) => return refused(why),
        };
        let content = answers::content_of_image(command);
        match self.without_trace.find(write.caller, write.id, content) {
            Known::Answered(answer) => return answer,
            Known::OtherContent => return refused(RefusedWhy::IdReused),
            Known::New => {}
        }
        let (latest_date, entry_date) = (self.latest_date, self.entry_date);
        let asked = Asked { commit, by, id: write.id, command, latest_date, entry_date };
        let applied = self.images.apply(&asked, |user| self.users.may_have_rights(user));
        let leaves_a_trace = match &applied {
            Ok(applied) => applied.leaves_a_trace,
            // The id stands with what it was used for before.
            Err(why) => *why == RefusedWhy::IdReused,
        };
        let answer = match applied {
            Ok(Applied { commit, done, .. }) => Answer { commit, revision, outcome: Ok(Done::Image(done)) },
            Err(why) => refused(why),
        };
        if !leaves_a_trace && !command.action.is_decided_anew() {
            self.without_trace.keep(self.stamp, write.caller, write.id, content, &answer);
        }
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

    /// A user.
    pub fn user(&self, id: UserId) -> Option<User> {
        self.users.get(id)
    }

    /// Whether somebody may register with this invitation, as of the last entry.
    pub fn is_invited(&self, invitation: InvitationId) -> bool {
        self.users.is_invited(invitation, self.entry_date)
    }

    /// The user of that name.
    pub fn user_named(&self, name: &str) -> Option<User> {
        self.users.named(name)
    }

    /// Users in the order of their ids, behind one.
    pub fn users(&self, after: Option<UserId>, limit: usize) -> Vec<User> {
        self.users.list(after, limit)
    }

    /// An image's rights for somebody who shows its wrap: as they are remembered, or as the wrap begins.
    ///
    /// # Errors
    /// [`RefusedWhy::NoRight`], [`RefusedWhy::Expired`].
    pub fn look(&self, image: ImageId, terms: &WrapTerms, by: UserId) -> Result<ImageRecord, RefusedWhy> {
        self.images.look(image, terms, by, self.latest_date)
    }

    /// Whether anything is known of an image beyond its wrap.
    pub fn has_image(&self, image: ImageId) -> bool {
        self.images.has(image)
    }

    /// What is known of an image beyond its wrap.
    pub fn image(&self, image: ImageId) -> Option<ImageRecord> {
        self.images.get(image)
    }

    /// The images of an owner that have records, in the order of their ids, behind one.
    pub fn images_of(&self, owner: UserId, after: Option<ImageId>, limit: usize) -> Vec<(ImageId, ImageRecord)> {
        self.images.owned_by(owner, after, limit)
    }

    /// Entries of an image's audit chain behind a number.
    pub fn audit(&self, image: ImageId, after: u64, limit: usize) -> Vec<AuditEntry> {
        self.images.audit(image, after, limit)
    }

    /// Commands that changed something in the key-value table.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The time of the last command.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Bytes of all keys and values.
    #[cfg(test)]
    pub fn size_bytes(&self) -> u64 {
        self.table.size_bytes()
    }

    /// Bytes that the tables take, about: keys, values, users, images, and what is kept beside each.
    pub fn footprint_bytes(&self) -> u64 {
        let rights = self.users.footprint_bytes() + self.images.footprint_bytes();
        self.table.footprint_bytes(BESIDE_A_KEY) + rights
    }

    /// Whether this write may be done in a ledger that shall hold no more than `limit` bytes. What only deletes is welcome in a full
    /// one, and what was done already.
    pub fn has_room(&self, write: &Write, limit: u64) -> bool {
        let fits = self.footprint_bytes() + write.size_bytes() as u64 <= limit;
        // What makes a record anew takes room, even to take a right away.
        let only_takes_away = match &write.request {
            Request::Image(command) => command.action.only_takes_away() && self.images.has(command.image),
            Request::Kv(_) | Request::User { .. } => write.is_welcome_when_full(),
        };
        fits || only_takes_away || self.has_answered(write)
    }

    /// Whether the answer to this write is known already: to apply it again changes nothing.
    pub fn has_answered(&self, write: &Write) -> bool {
        match &write.request {
            Request::Kv(operations) => {
                !matches!(self.answers.find(write.caller, write.id, answers::content(operations)), Known::New)
            }
            Request::Image(command) => match write.caller {
                Caller::User(user) => {
                    let content = answers::content_of_image(command);
                    let without_trace = self.without_trace.find(write.caller, write.id, content);
                    !matches!(without_trace, Known::New) || self.images.is_settled(user, write.id, command)
                }
                Caller::Anyone | Caller::Administrator => false,
            },
            Request::User { .. } => false,
        }
    }

    /// Answers that are kept for repeated request ids.
    pub fn answers(&self) -> usize {
        self.answers.len() + self.without_trace.len()
    }

    /// Bytes that these answers take, about.
    pub fn answers_bytes(&self) -> u64 {
        self.answers.size_bytes()
    }

    /// Bytes that the answers to commands without a trace take, about.
    pub fn without_trace_bytes(&self) -> u64 {
        self.without_trace.size_bytes()
    }

    /// Whether anything waits for its time: keys that expire, and answers that are kept.
    pub fn waits_for_time(&self) -> bool {
        self.table.expires() || self.answers() > 0
    }

    /// Whether something is due by `now` that only a command can let expire.
    pub fn is_due(&self, now: Stamp) -> bool {
        self.table.is_due(now)
    }

    /// Whether records of images may go by `now`, for which only a command can let them go.
    pub fn has_images_due(&self, now: Date) -> bool {
        self.images.is_due(now)
    }
}
