//! Linearizability of a long history in one pass: each answer says where in the log it comes from, so the order is given, and what
//! remains is to check that this order respects real time and explains every answer.
//!
//! Calls of unknown outcome have no place. But every change makes one revision, without gaps: a gap in the revisions of the known
//! answers can only be filled by them, and so only there something must be tried; and what is read later tells which keys such a
//! revision changed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use image_cloud::protocol::ledger::KvOperation;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::model::Model;
use super::{Answer, Call, NEVER, NotLinearizable, Question, Told};

/// What a history was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub changes: usize,
    pub refusals: usize,
    pub reads: usize,
    /// Writes of unknown outcome, and how many of them were done.
    pub unknown: usize,
    pub unknown_done: usize,
}

/// Tries in one order, at most. An early choice that was wrong may show late: it is better to begin anew in another order than to change
/// the latest choices for long.
const TRIES: usize = 20_000;

/// Orders, at most.
const ORDERS: u64 = 200;

struct Known<'a> {
    call: &'a Call,
    answer: &'a Answer,
}

struct Unknown<'a> {
    call: &'a Call,
    /// It stands behind this place: its call began after that had been answered.
    behind: u64,
    /// The revision that it made if it was done, where a value was read that nobody else wrote.
    made: Option<u64>,
    used: bool,
}

impl<'a> Unknown<'a> {
    fn operations(&self) -> &'a [KvOperation] {
        match &self.call.question {
            Question::Write(operations) => operations,
            _ => &[],
        }
    }
}

/// What the known answers say about the revisions that no known call has made.
#[derive(Default)]
struct Clues {
    /// In this revision the key was changed; to this value, if that was seen.
    changed: BTreeMap<u64, Vec<(Bytes, Option<Bytes>)>>,
    /// In this revision these keys were not changed.
    quiet: BTreeMap<u64, BTreeSet<Bytes>>,
}

struct Replay<'a> {
    clues: Clues,
    known: Vec<Known<'a>>,
    unknown: Vec<Unknown<'a>>,
    tries: usize,
}

/// Checks a history.
pub fn check(history: &[Call]) -> Result<Summary, NotLinearizable> {
    let behind = real_time(history)?;
    let mut known: Vec<_> =
        history.iter().filter_map(|call| call.answer.as_ref().map(|answer| Known { call, answer })).collect();
    // Writes of one entry stand by their revisions; one that changed nothing stands behind the change that made its revision. A
    // read sees whole entries.
    known.sort_by_key(|Known { call, answer }| {
        let reads = !matches!(call.question, Question::Write(_));
        (answer.commit, reads, answer.revision, !answer.told.is_a_change())
    });
    let unknown: Vec<_> = history
        .iter()
        .zip(behind)
        .filter(|(call, _)| call.answer.is_none() && matches!(call.question, Question::Write(_)))
        .map(|(call, behind)| Unknown { call, behind, made: None, used: false })
        .collect();
    let mut summary = Summary { unknown: unknown.len(), ..Summary::default() };
    for Known { call, answer } in &known {
        match (&call.question, answer.told.is_a_change()) {
            (Question::Write(_), true) => summary.changes += 1,
            (Question::Write(_), false) => summary.refusals += 1,
            _ => summary.reads += 1,
        }
    }
    let mut replay = Replay { clues: Clues::gather(&known), known, unknown, tries: 0 };
    replay.recognise();
    let mut farthest = String::new();
    for order in 0..ORDERS {
        replay.tries = 0;
        match replay.go(0, Model::default()) {
            Ok(()) => {
                summary.unknown_done = replay.unknown.iter().filter(|unknown| unknown.used).count();
                return Ok(summary);
            }
            Err((_, why)) if replay.tries <= TRIES => return Err(why),
            Err((_, why)) => farthest = why.0,
        }
        let mut rng = SmallRng::seed_from_u64(order);
        replay.unknown.sort_by_cached_key(|_| rng.random::<u64>());
    }
    Err(NotLinearizable(format!("undecided after {TRIES} tries in each of {ORDERS} orders: {farthest}")))
}

fn puts(operations: &[KvOperation]) -> impl Iterator<Item = (&Bytes, &Bytes)> {
    operations.iter().filter_map(|operation| match operation {
        KvOperation::Put { key, value, .. } => Some((key, value)),
        _ => None,
    })
}

/// A call that began after another one ended stands behind it; gives for each call the place that it stands behind.
fn real_time(history: &[Call]) -> Result<Vec<u64>, NotLinearizable> {
    let mut ends: Vec<_> = history.iter().filter(|call| call.ended != NEVER).collect();
    ends.sort_by_key(|call| call.ended);
    let mut begins: Vec<_> = (0..history.len()).collect();
    begins.sort_by_key(|index| history[*index].began);
    let mut ends = ends.into_iter().peekable();
    let mut latest: Option<(&Call, u64)> = None;
    let mut behind = vec![0; history.len()];
    for index in begins {
        let call = &history[index];
        while let Some(ended) = ends.next_if(|ended| ended.ended < call.began) {
            let commit = ended.answer.as_ref().map_or(0, |answer| answer.commit);
            if latest.is_none_or(|(_, latest)| latest < commit) {
                latest = Some((ended, commit));
            }
        }
        let Some((before, commit)) = latest else { continue };
        behind[index] = commit;
        let Some(answer) = &call.answer else { continue };
        let reads = !matches!(call.question, Question::Write(_));
        // An entry is answered when it is committed: a write that begins then gets a later one.
        if answer.commit < commit || !reads && answer.commit == commit {
            return Err(NotLinearizable(format!("{call:?} began after {before:?} had ended, and stands before it")));
        }
    }
    Ok(behind)
}

impl Clues {
    fn gather(known: &[Known<'_>]) -> Clues {
        let changes = known.iter().filter(|known| known.answer.told.is_a_change()).map(|known| known.answer.revision);
        let made: BTreeSet<u64> = changes.collect();
        let last = known.iter().map(|known| known.answer.revision).max().unwrap_or_default();
        let gaps: BTreeSet<u64> = (1..=last).filter(|revision| !made.contains(revision)).collect();
        let mut clues = Clues::default();
        for Known { answer, .. } in known {
            let Told::Found(found) = &answer.told else { continue };
            for (key, seen) in found {
                if gaps.contains(&seen.mod_revision) {
                    let clue = (key.clone(), Some(seen.value.clone()));
                    clues.changed.entry(seen.mod_revision).or_default().push(clue);
                }
                if gaps.contains(&seen.create_revision) {
                    clues.changed.entry(seen.create_revision).or_default().push((key.clone(), None));
                }
                let after = seen.mod_revision + 1;
                for revision in gaps.range(after..after.max(answer.revision + 1)) {
                    clues.quiet.entry(*revision).or_default().insert(key.clone());
                }
            }
        }
        clues.changed.values_mut().for_each(|clues| {
            clues.sort();
            clues.dedup();
        });
        clues
    }

    /// Whether a write may have made the next revision.
    fn allow(&self, before: &Model, after: &Model, operations: &[KvOperation]) -> bool {
        let changed = self.changed.get(&after.revision).into_iter().flatten();
        let fits = |(key, value): &(Bytes, Option<Bytes>)| {
            after.get(key).is_some_and(|seen| {
                seen.mod_revision == after.revision && value.as_ref().is_none_or(|value| seen.value == value)
            })
        };
        let quiet = self.quiet.get(&after.revision);
        let is_quiet = |operation: &KvOperation| quiet.is_some_and(|keys| keys.contains(operation.key()));
        let disturbs = |operation: &KvOperation| before.get(operation.key()) != after.get(operation.key());
        changed.into_iter().all(fits) && !operations.iter().any(|operation| is_quiet(operation) && disturbs(operation))
    }
}

impl Replay<'_> {
    /// Finds those of the unknown writes that have left a value of their own.
    fn recognise(&mut self) {
        let mut made = BTreeMap::new();
        for (revision, changed) in &self.clues.changed {
            made.extend(changed.iter().filter_map(|(key, value)| Some(((key, value.as_ref()?), *revision))));
        }
        let mut writers: BTreeMap<(&Bytes, &Bytes), usize> = BTreeMap::new();
        for unknown in &self.unknown {
            puts(unknown.operations()).for_each(|put| *writers.entry(put).or_default() += 1);
        }
        let own = |unknown: &Unknown<'_>| {
            puts(unknown.operations()).filter(|put| writers[put] == 1).find_map(|put| made.get(&put).copied())
        };
        let made: Vec<_> = self.unknown.iter().map(own).collect();
        self.unknown.iter_mut().zip(made).for_each(|(unknown, made)| unknown.made = made);
    }

    /// Replays the known answers from place `at` on. In vain: how far it came, and why not farther.
    fn go(&mut self, mut at: usize, mut model: Model) -> Result<(), (usize, NotLinearizable)> {
        while let Some(Known { call, answer }) = self.known.get(at) {
            let revision_before = answer.revision - u64::from(answer.told.is_a_change());
            if model.revision < revision_before {
                return self.fill(at, &model);
            }
            let told = model.answer(&call.question);
            if told != answer.told || model.revision != answer.revision {
                let why = format!("{call:?}: in this place the answer is {told:?} in revision {}", model.revision);
                return Err((at, NotLinearizable(why)));
            }
            at += 1;
        }
        Ok(())
    }

    /// Somebody made a revision and was not told so: tries whom it may have been.
    fn fill(&mut self, at: usize, model: &Model) -> Result<(), (usize, NotLinearizable)> {
        let Known { call, answer } = &self.known[at];
        let commit = answer.commit;
        let why = format!("{call:?}: revision {} before it was made by no call of this history", model.revision + 1);
        let mut farthest = (at, NotLinearizable(why));
        let mut tried: Vec<usize> = Vec::new();
        for index in 0..self.unknown.len() {
            let unknown = &self.unknown[index];
            let operations = unknown.operations();
            let is_known = |other: &usize| self.unknown[*other].operations() == operations;
            let is_elsewhere = unknown.made.is_some_and(|made| made != model.revision + 1);
            if unknown.used || unknown.behind >= commit || is_elsewhere || tried.iter().any(is_known) {
                continue;
            }
            tried.push(index);
            let mut next = model.clone();
            if next.write(operations).is_err() || next.revision == model.revision {
                continue;
            }
            if !self.clues.allow(model, &next, operations) {
                continue;
            }
            self.tries += 1;
            if self.tries > TRIES {
                return Err(farthest);
            }
            self.unknown[index].used = true;
            match self.go(at, next) {
                Ok(()) => return Ok(()),
                Err(why) if why.0 > farthest.0 => farthest = why,
                Err(_) => {}
            }
            self.unknown[index].used = false;
        }
        Err(farthest)
    }
}
