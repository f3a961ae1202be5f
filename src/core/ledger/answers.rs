//! Answers that are kept, so that a request that comes again is not done again: also after a change of the leader, and from a
//! snapshot, since they are part of the state.

use std::collections::VecDeque;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{clock, stored};
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

/// What an answer takes beside its results, about, in bytes: its id, its numbers, and the map's own space.
const BESIDE_RESULTS: u64 = 128;

/// What a request was about: the first half of a BLAKE3-256.
type Content = [u8; 16];

/// Kept answers, in generations, each of which goes as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredAnswers")]
pub(super) struct Answers {
    generations: VecDeque<Generation>,
    #[serde(skip_serializing)]
    size_bytes: u64,
}

/// Answers as a snapshot has them.
#[derive(Deserialize)]
struct StoredAnswers {
    generations: VecDeque<Generation>,
}

impl From<StoredAnswers> for Answers {
    fn from(StoredAnswers { generations }: StoredAnswers) -> Answers {
        let size_bytes = generations.iter().map(Generation::size_bytes).sum();
        Answers { generations, size_bytes }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Generation {
    begun: Stamp,
    last: Stamp,
    #[serde(deserialize_with = "stored::map::<(Caller, RequestId), _, _, _>")]
    kept: OrdMap<(Caller, RequestId), Kept>,
}

/// An answer in little space: most commands have one operation.
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
    Several(Box<[KvResult]>),
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
    half(&hasher)
}

/// The same for a command on an image, whose wrap and signature are not part of it either.
pub(super) fn content_of_image(command: &ImageCommand) -> Content {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&command.image.0);
    command.action.hash_into(&mut hasher);
    half(&hasher)
}

fn half(hasher: &blake3::Hasher) -> Content {
    let mut content = Content::default();
    content.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    content
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
        let found = self.generations.iter().rev().find_map(|generation| generation.kept.get(&(caller, id)));
        match found {
            None => Known::New,
            Some(kept) if kept.content != content => Known::OtherContent,
            Some(kept) => Known::Answered(kept.answer()),
        }
    }

    pub fn keep(&mut self, now: Stamp, caller: Caller, id: RequestId, content: Content, answer: &Answer) {
        if self.generations.back().is_none_or(|last| now.0 - last.begun.0 >= GENERATION_MS) {
            self.generations.push_back(Generation { begun: now, last: now, kept: OrdMap::new() });
        }
        let Some(youngest) = self.generations.back_mut() else { return };
        youngest.last = now;
        let kept = Kept::new(content, answer);
        self.size_bytes += kept.size_bytes();
        if let Some(before) = youngest.kept.insert((caller, id), kept) {
            self.size_bytes -= before.size_bytes();
        }
    }

    /// Forgets the generations whose youngest answer is older than so many milliseconds.
    pub fn forget(&mut self, now: Stamp, kept_ms: u64) {
        let kept_for = clock::at_least(kept_ms);
        while self.generations.front().is_some_and(|oldest| oldest.last.0 + kept_for < now.0) {
            let gone = self.generations.pop_front();
            self.size_bytes -= gone.map_or(0, |gone| gone.size_bytes());
        }
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub fn len(&self) -> usize {
        self.generations.iter().map(|generation| generation.kept.len()).sum()
    }
}

impl Generation {
    fn size_bytes(&self) -> u64 {
        self.kept.values().map(Kept::size_bytes).sum()
    }
}

impl Kept {
    fn size_bytes(&self) -> u64 {
        let results = match &self.outcome {
            Outcome::One(_) => 0,
            Outcome::Several(results) => size_of_val::<[KvResult]>(results),
            Outcome::Refused(_) => size_of::<Refused>(),
            Outcome::Image(_) => size_of::<ImageDone>(),
        };
        BESIDE_RESULTS + results as u64
    }

    fn new(content: Content, answer: &Answer) -> Self {
        let outcome = match &answer.outcome {
            Ok(Done::Kv(results)) if results.len() == 1 => Outcome::One(results[0]),
            Ok(Done::Kv(results)) => Outcome::Several(results.as_slice().into()),
            Ok(Done::Image(done)) => Outcome::Image(Box::new(*done)),
            // Commands on users are not kept.
            Ok(Done::User) => Outcome::Several(Box::default()),
            Err(refused) => Outcome::Refused(Box::new(*refused)),
        };
        Kept { content, commit: answer.commit, revision: answer.revision, outcome }
    }

    fn answer(&self) -> Answer {
        let outcome = match &self.outcome {
            Outcome::One(result) => Ok(Done::Kv(vec![*result])),
            Outcome::Several(results) => Ok(Done::Kv(results.to_vec())),
            Outcome::Refused(refused) => Err(**refused),
            Outcome::Image(done) => Ok(Done::Image(**done)),
        };
        Answer { commit: self.commit, revision: self.revision, outcome }
    }
}
