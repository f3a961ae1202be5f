//! What a log that is found after a crash may hold: what some prefix of the steps adds up to, and nothing that was acknowledged lacks.

use serde::{Deserialize, Serialize};

/// An entry: term and index.
pub type Id = (u64, u64);

/// What the log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The term of the vote.
    pub vote: Option<u64>,
    pub entries: Vec<Id>,
    pub purged: Option<Id>,
    pub committed: Option<Id>,
}

impl Log {
    pub fn last(&self) -> Option<Id> {
        self.entries.last().copied().or(self.purged)
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Vote(term) => self.vote = Some(term),
            Step::Append(id) => self.entries.push(id),
            Step::TruncateBehind(last) => self.entries.retain(|id| Some(id.1) <= last.map(|last| last.1)),
            Step::Commit(id) => self.committed = Some(id),
            Step::Purge(upto) => {
                self.entries.retain(|id| id.1 > upto.1);
                self.purged = Some(upto);
            }
        }
    }
}

/// The smallest step: after a crash it is done or not.
#[derive(Clone, Copy, Debug)]
enum Step {
    Vote(u64),
    Append(Id),
    TruncateBehind(Option<Id>),
    Commit(Id),
    Purge(Id),
}

/// What is asked of the log or the snapshots at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    Vote(u64),
    Append(Vec<Id>),
    TruncateBehind(Option<Id>),
    Commit(Id),
    Purge(Id),
    /// A snapshot of everything up to this index.
    Snapshot(u64),
}

/// What the recorded process writes down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// This is what it found.
    Found { log: Log, snapshot: Option<u64> },
    /// It is about to do that.
    Begin { number: usize, operation: Operation },
    /// It was told that it is done.
    Done { number: usize },
}

/// Everything that may be found at some point of a recording.
#[derive(Clone, Debug)]
pub struct Possible {
    pub logs: Vec<Log>,
    /// The least and the greatest index that the snapshot may cover.
    pub snapshots: (Option<u64>, Option<u64>),
}

impl Possible {
    pub fn nothing_yet() -> Possible {
        Possible { logs: vec![Log::default()], snapshots: (None, None) }
    }

    /// After these marks of a process that found one of the possibilities `before`.
    pub fn after(before: &Possible, marks: &[Mark]) -> Possible {
        let Some(Mark::Found { log, snapshot }) = marks.first() else { return before.clone() };
        let mut steps = Vec::new();
        let mut ends = Vec::new();
        let mut certain = 0;
        let (mut least, mut greatest) = (*snapshot, *snapshot);
        let mut saved = Vec::new();
        for mark in &marks[1..] {
            match mark {
                Mark::Begin { number, operation } => {
                    assert_eq!(*number, ends.len());
                    match operation {
                        Operation::Vote(term) => steps.push(Step::Vote(*term)),
                        Operation::Append(ids) => steps.extend(ids.iter().copied().map(Step::Append)),
                        Operation::TruncateBehind(last) => steps.push(Step::TruncateBehind(*last)),
                        Operation::Commit(id) => steps.push(Step::Commit(*id)),
                        Operation::Purge(upto) => steps.push(Step::Purge(*upto)),
                        Operation::Snapshot(index) => greatest = Some(*index),
                    }
                    saved.push(if let Operation::Snapshot(index) = operation { Some(*index) } else { None });
                    ends.push(steps.len());
                }
                Mark::Done { number } => match saved[*number] {
                    Some(index) => least = Some(index),
                    // The log is one sequence: with an operation all before it are durable.
                    None => certain = certain.max(ends[*number]),
                },
                Mark::Found { .. } => panic!("found twice"),
            }
        }
        let mut log = log.clone();
        steps[..certain].iter().for_each(|step| log.apply(*step));
        let mut logs = vec![log.clone()];
        for step in &steps[certain..] {
            log.apply(*step);
            logs.push(log.clone());
        }
        Possible { logs, snapshots: (least, greatest) }
    }

    /// Whether that was found rightly.
    pub fn check(&self, log: &Log, snapshot: Option<u64>) -> Result<(), String> {
        let (least, greatest) = self.snapshots;
        if snapshot < least || snapshot > greatest {
            return Err(format!("the snapshot covers {snapshot:?}, it should be one of {:?}", self.snapshots));
        }
        if log.purged.map(|id| id.1) > snapshot {
            return Err(format!("the log is purged up to {:?}, the snapshot covers {snapshot:?}", log.purged));
        }
        if !self.logs.contains(log) {
            return Err(format!("the log is {log:?}\nit should be one of {:?}", self.logs));
        }
        Ok(())
    }
}
