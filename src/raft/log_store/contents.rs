//! What a log holds, and where: **pure**. The last entries are in memory, for the followers and to be applied; of the others it is known
//! where they stand on disk.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use openraft::EntryPayload;

use super::frame::{Checkpoint, Record, invalid};
use crate::protocol::ledger::Write;
use crate::raft::types::{Command, Entry, LogId, Payload};

/// Entries that were written last are kept in memory up to this size.
const CACHE_BYTES: usize = 1 << 20;

/// What an entry, and each operation in it, is taken to cost in memory beside its keys and values.
const OVERHEAD_BYTES: usize = 256;

/// Vote, entries and positions.
#[derive(Debug, Default)]
pub struct Contents {
    pub checkpoint: Checkpoint,
    entries: VecDeque<Kept>,
    /// So many of the first entries are not in memory.
    on_disk_only: usize,
    cached_bytes: usize,
}

#[derive(Debug)]
struct Kept {
    id: LogId,
    place: Place,
    /// With what it takes in memory; in a box, since most entries are on disk only.
    payload: Option<Box<(Payload, usize)>>,
}

/// Where the record of an entry stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a frame that is not on disk yet, at so many bytes of it.
    Frame(u64, Range<usize>),
    /// In a segment.
    Segment(u64, Range<usize>),
}

/// An entry as it is found.
#[derive(Debug)]
pub enum Found {
    InMemory(Payload),
    /// In this segment, there.
    OnDisk(u64, Range<usize>),
}

impl Contents {
    /// What holds at the beginning of a segment.
    pub fn begin(checkpoint: Checkpoint) -> Contents {
        Contents { checkpoint, ..Contents::default() }
    }

    /// Where the log ends.
    pub fn last(&self) -> Option<LogId> {
        self.entries.back().map(|kept| kept.id).or(self.checkpoint.purged)
    }

    /// Does what a record of the frame at `offset` in a segment says.
    ///
    /// # Errors
    /// `InvalidData` if an entry does not follow the one before it.
    pub fn replay(&mut self, record: Record, segment: u64, offset: usize) -> io::Result<()> {
        match record {
            Record::Vote(vote) => self.checkpoint.vote = Some(vote),
            Record::Committed(committed) => self.checkpoint.committed = Some(committed),
            Record::TruncateAfter(last) => self.truncate_after(last),
            Record::Purge(upto) => self.purge(upto),
            Record::Entry(id, range) => {
                if let Some(before) = self.entries.back().filter(|before| before.id.index() + 1 != id.index()) {
                    return Err(invalid(format!(
                        "entry {id} stands behind entry {}: there is a hole in the log",
                        before.id
                    )));
                }
                let place = Place::Segment(segment, offset + range.start..offset + range.end);
                self.entries.push_back(Kept { id, place, payload: None });
                self.on_disk_only = self.entries.len();
            }
        }
        Ok(())
    }

    /// Whether the entries begin where the log was purged: before that a snapshot has them.
    ///
    /// # Errors
    /// `InvalidData` if some are missing in between.
    pub fn check_beginning(&self) -> io::Result<()> {
        let begins = self.checkpoint.purged.map_or(0, |purged| purged.index() + 1);
        match self.entries.front().filter(|first| first.id.index() != begins) {
            Some(first) => {
                Err(invalid(format!("the log begins with entry {}, those from {begins} on are missing", first.id)))
            }
            None => Ok(()),
        }
    }

    /// Puts an entry behind the others, and drops the oldest ones from memory.
    pub fn append(&mut self, entry: Entry, frame: u64, range: Range<usize>) {
        let Entry { log_id: id, payload } = entry;
        let bytes = bytes_in_memory(&payload);
        self.cached_bytes += bytes;
        self.entries.push_back(Kept {
            id,
            place: Place::Frame(frame, range),
            payload: Some(Box::new((payload, bytes))),
        });
        while self.cached_bytes > CACHE_BYTES {
            match self.entries.get_mut(self.on_disk_only) {
                Some(Kept { place: Place::Segment(..), payload, .. }) => {
                    self.cached_bytes -= payload.take().map_or(0, |cached| cached.1);
                    self.on_disk_only += 1;
                }
                _ => break,
            }
        }
    }

    /// This frame is on disk now, at `offset` of a segment.
    pub fn is_written(&mut self, frame: u64, segment: u64, offset: usize) {
        for kept in self.entries.iter_mut().rev() {
            match &kept.place {
                Place::Frame(number, range) if *number == frame => {
                    kept.place = Place::Segment(segment, offset + range.start..offset + range.end);
                }
                Place::Frame(..) => {}
                Place::Segment(..) => break,
            }
        }
    }

    /// The entries behind `last` are gone.
    pub fn truncate_after(&mut self, last: Option<LogId>) {
        while self.entries.back().is_some_and(|kept| last.is_none_or(|last| kept.id.index() > last.index())) {
            let gone = self.entries.pop_back();
            self.cached_bytes -= gone.map_or(0, |kept| kept.cached_bytes());
        }
        self.on_disk_only = self.on_disk_only.min(self.entries.len());
    }

    /// The entries up to `upto` are in a snapshot.
    pub fn purge(&mut self, upto: LogId) {
        while self.entries.front().is_some_and(|kept| kept.id.index() <= upto.index()) {
            let gone = self.entries.pop_front();
            self.cached_bytes -= gone.map_or(0, |kept| kept.cached_bytes());
            self.on_disk_only = self.on_disk_only.saturating_sub(1);
        }
        self.checkpoint.purged = self.checkpoint.purged.max(Some(upto));
    }

    /// The entries from one index to before another.
    pub fn entries(&self, from: u64, to: u64) -> Vec<(LogId, Found)> {
        let first = self.entries.front().map_or(0, |kept| kept.id.index());
        let place = |index: u64| (index.saturating_sub(first).min(self.entries.len() as u64)) as usize;
        let range = place(from)..place(to).max(place(from));
        self.entries.range(range).map(|kept| (kept.id, kept.found())).collect()
    }
}

impl Kept {
    fn cached_bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, |cached| cached.1)
    }

    fn found(&self) -> Found {
        match (&self.payload, &self.place) {
            (Some(cached), _) => Found::InMemory(cached.0.clone()),
            (None, Place::Segment(segment, range) | Place::Frame(segment, range)) => {
                Found::OnDisk(*segment, range.clone())
            }
        }
    }
}

/// What a payload takes in memory, about.
fn bytes_in_memory(payload: &Payload) -> usize {
    let EntryPayload::Normal(Command::Ledger { writes, .. }) = payload else { return 4 * OVERHEAD_BYTES };
    let bytes = |write: &Write| write.operations().len().max(1) * OVERHEAD_BYTES + write.size_bytes();
    OVERHEAD_BYTES + writes.iter().map(bytes).sum::<usize>()
}
