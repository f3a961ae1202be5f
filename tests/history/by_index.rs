//! Linearizability of a long history in one pass: each answer says where in the log it comes from, so the order is given, and what
//! remains is to check that this order respects real time and explains every answer.
//!
//! Calls of unknown outcome have no place. But every change makes one revision, without gaps: a gap in the revisions of the known
//! answers can only be filled by them, and so only there something must be tried.

use super::model::Model;
use super::{Answer, Call, NEVER, NotLinearizable, Question};

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

/// More tries than this are not made.
const TRIES: usize = 200_000;

struct Known<'a> {
    call: &'a Call,
    answer: &'a Answer,
}

struct Unknown<'a> {
    call: &'a Call,
    /// It stands behind this place: its call began after that had been answered.
    behind: u64,
    used: bool,
}

struct Replay<'a> {
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
        .map(|(call, behind)| Unknown { call, behind, used: false })
        .collect();
    let mut summary = Summary { unknown: unknown.len(), ..Summary::default() };
    for Known { call, answer } in &known {
        match (&call.question, answer.told.is_a_change()) {
            (Question::Write(_), true) => summary.changes += 1,
            (Question::Write(_), false) => summary.refusals += 1,
            _ => summary.reads += 1,
        }
    }
    let mut replay = Replay { known, unknown, tries: 0 };
    replay.go(0, Model::default()).map_err(|(_, why)| why)?;
    summary.unknown_done = replay.unknown.iter().filter(|unknown| unknown.used).count();
    Ok(summary)
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

impl Replay<'_> {
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
            let Unknown { call, behind, used } = &self.unknown[index];
            let Question::Write(operations) = &call.question else { continue };
            let is_known = |other: &usize| matches!(&self.unknown[*other].call.question, Question::Write(others) if others == operations);
            if *used || *behind >= commit || tried.iter().any(is_known) {
                continue;
            }
            tried.push(index);
            let mut next = model.clone();
            if next.write(operations).is_err() || next.revision == model.revision {
                continue;
            }
            self.tries += 1;
            if self.tries > TRIES {
                return Err((at, NotLinearizable(format!("undecided after {TRIES} tries: {}", farthest.1.0))));
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
