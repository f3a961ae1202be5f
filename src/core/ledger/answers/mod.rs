//! Answers that are kept, so that a request that comes again is not done again: also after a change of the leader, and from a
//! snapshot, since they are part of the state.

mod filter;
mod kepts;
mod run;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::filter::Hash;
use self::kepts::Kepts;
use super::clock;
use crate::id::RequestId;
use crate::protocol::ledger::{Answer, Caller, Done, Expectation, KvOperation, KvResult, Refused, Stamp};
use crate::protocol::rights::{ImageCommand, ImageDone};
use crate::protocol::user::SIGNED_WITHIN_MS;

/// How long an answer is kept at least, in milliseconds: 60 s. A client that tries again later than that must
/// look first what became of its request.
pub const ANSWERS_KEPT_MS: u64 = 60_000;

/// How long it is remembered at least that a command on an image left no trace, in milliseconds: as long as its signature may count, by
/// a signer's clock that is ahead.
pub(super) const WITHOUT_TRACE_KEPT_MS: u64 = 2 * SIGNED_WITHIN_MS;

/// Answers of this span of time are forgotten together.
const GENERATION_MS: u64 = 10_000;

/// What an answer takes beside its results, about, in bytes: some 40 in a run, and up to 190 among the latest.
const BESIDE_RESULTS: u64 = 64;

/// What a request was about: the beginning of a BLAKE3-256. It guards against mistakes; who looks for two requests that are alike
/// finds that the second of his own is answered as the first.
type Content = u64;

/// The id of a request, and who sent it if that is told from others.
type Id = [u8; 16];

/// Under what an answer is kept: ids that anyone may choose do not meet those of the known.
enum Key {
    OfAnyone(Id),
    OfKnown(Id),
}

/// Kept answers, in generations, each of which goes as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answers {
    generations: VecDeque<Generation>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Generation {
    begun: Stamp,
    last: Stamp,
    /// Of whoever may reach the port, by their ids: a client that counts its requests puts them side by side.
    of_anyone: Kepts,
    /// Of those whom the node knows.
    of_known: Kepts,
}

/// An answer: most commands have one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    content: Content,
    commit: u64,
    revision: u64,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    One(KvResult),
    /// Behind one thin pointer: the length beside it would make every answer larger.
    Several(Arc<Vec<KvResult>>),
    Refused(Box<Refused>),
    Image(Box<ImageDone>),
}

/// What is known of a request.
pub(super) enum Known {
    New,
    Answered(Answer),
    OtherContent,
}

/// What a write is about; its id, its caller and its stamp are not part of it.
pub(super) fn content(operations: &[KvOperation]) -> Content {
    let mut hasher = blake3::Hasher::new();
    for operation in operations {
        match operation {
            KvOperation::Put { key, value, expires_in_ms } => {
                let expires = expires_in_ms.map_or([0; 8], |after| after.saturating_add(1).to_be_bytes());
                fields(&mut hasher, 0, &[key, value, &expires]);
            }
            KvOperation::Delete { key } => fields(&mut hasher, 1, &[key]),
            KvOperation::Require { key, expect } => match expect {
                Expectation::Absent => fields(&mut hasher, 2, &[key]),
                Expectation::Present => fields(&mut hasher, 3, &[key]),
                Expectation::ModRevision(revision) => fields(&mut hasher, 4, &[key, &revision.to_be_bytes()]),
                Expectation::Value(value) => fields(&mut hasher, 5, &[key, value]),
            },
            KvOperation::Add { key, by, floor: None } => fields(&mut hasher, 6, &[key, &by.to_be_bytes()]),
            KvOperation::Add { key, by, floor: Some(floor) } => {
                fields(&mut hasher, 7, &[key, &by.to_be_bytes(), &floor.to_be_bytes()]);
            }
        }
    }
    beginning(&hasher)
}

/// The same for a command on an image, whose wrap and signature are not part of it either.
pub(super) fn content_of_image(command: &ImageCommand) -> Content {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&command.image.0);
    command.action.hash_into(&mut hasher);
    beginning(&hasher)
}

fn beginning(hasher: &blake3::Hasher) -> Content {
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    Content::from_be_bytes(first)
}

impl Key {
    fn of(caller: Caller, request: RequestId) -> Key {
        let hashed = |parts: &[&[u8]]| {
            let mut hasher = blake3::Hasher::new();
            for part in parts {
                hasher.update(part);
            }
            let mut id = Id::default();
            hasher.update(&request.0).finalize_xof().fill(&mut id);
            Key::OfKnown(id)
        };
        match caller {
            Caller::Anyone => Key::OfAnyone(request.0),
            Caller::Administrator => hashed(&[&[1]]),
            Caller::User(user) => hashed(&[&[2], &user.0]),
        }
    }
}

/// A number for the kind of operation, then each field behind its length: no two requests run together.
fn fields(hasher: &mut blake3::Hasher, kind: u8, fields: &[&[u8]]) {
    hasher.update(&[kind]);
    for field in fields {
        hasher.update(&(field.len() as u64).to_be_bytes()).update(field);
    }
}

impl Answers {
    pub fn find(&self, caller: Caller, id: RequestId, content: Content) -> Known {
        let found = match Key::of(caller, id) {
            Key::OfAnyone(id) => self.find_in(&id, |generation| &generation.of_anyone),
            Key::OfKnown(id) => self.find_in(&id, |generation| &generation.of_known),
        };
        match found {
            None => Known::New,
            Some(kept) if kept.content != content => Known::OtherContent,
            Some(kept) => Known::Answered(kept.answer()),
        }
    }

    fn find_in(&self, id: &Id, which: impl Fn(&Generation) -> &Kepts) -> Option<Kept> {
        let hash = Hash::of(id);
        self.generations.iter().rev().find_map(|generation| which(generation).get(id, hash))
    }

    /// Keeps the answer to a request that was not found.
    pub fn keep(&mut self, now: Stamp, caller: Caller, id: RequestId, content: Content, answer: &Answer) {
        if self.generations.back().is_none_or(|last| now.0 - last.begun.0 >= GENERATION_MS) {
            self.generations.back_mut().into_iter().for_each(Generation::close);
            self.generations.push_back(Generation { begun: now, ..Generation::default() });
        }
        let Some(youngest) = self.generations.back_mut() else { return };
        youngest.last = now;
        let kept = Kept::new(content, answer);
        match Key::of(caller, id) {
            Key::OfAnyone(id) => youngest.of_anyone.insert(id, kept),
            Key::OfKnown(id) => youngest.of_known.insert(id, kept),
        }
    }

    /// Forgets the generations whose youngest answer is older than so many milliseconds.
    pub fn forget(&mut self, now: Stamp, kept_ms: u64) {
        let kept_for = clock::at_least(kept_ms);
        while self.generations.front().is_some_and(|oldest| oldest.last.0 + kept_for < now.0) {
            self.generations.pop_front();
        }
    }

    pub fn size_bytes(&self) -> u64 {
        self.generations
            .iter()
            .map(|generation| generation.of_anyone.size_bytes() + generation.of_known.size_bytes())
            .sum()
    }

    pub fn len(&self) -> usize {
        self.generations.iter().map(|generation| generation.of_anyone.len() + generation.of_known.len()).sum()
    }
}

impl Generation {
    fn close(&mut self) {
        self.of_anyone.close();
        self.of_known.close();
    }
}

impl Kept {
    fn size_bytes(&self) -> u64 {
        let results = match &self.outcome {
            Outcome::One(_) => 0,
            Outcome::Several(results) => size_of_val(results.as_slice()),
            Outcome::Refused(_) => size_of::<Refused>(),
            Outcome::Image(_) => size_of::<ImageDone>(),
        };
        BESIDE_RESULTS + results as u64
    }

    fn new(content: Content, answer: &Answer) -> Self {
        let outcome = match &answer.outcome {
            Ok(Done::Kv(results)) if results.len() == 1 => Outcome::One(results[0]),
            Ok(Done::Kv(results)) => Outcome::Several(Arc::new(results.clone())),
            Ok(Done::Image(done)) => Outcome::Image(Box::new(*done)),
            // Commands on users are not kept.
            Ok(Done::User) => Outcome::Several(Arc::default()),
            Err(refused) => Outcome::Refused(Box::new(*refused)),
        };
        Kept { content, commit: answer.commit, revision: answer.revision, outcome }
    }

    fn answer(&self) -> Answer {
        let outcome = match &self.outcome {
            Outcome::One(result) => Ok(Done::Kv(vec![*result])),
            Outcome::Several(results) => Ok(Done::Kv(results.as_ref().clone())),
            Outcome::Refused(refused) => Err(**refused),
            Outcome::Image(done) => Ok(Done::Image(**done)),
        };
        Answer { commit: self.commit, revision: self.revision, outcome }
    }
}
