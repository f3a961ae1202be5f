//! The log on disk: votes and entries are synced before anybody is told about them.
//!
//! ```text
//! LogStore ── what the library asks ──▶ State (contents: what the log holds; the next frame)
//!                                         ▲ │ one frame at a time
//!                                         │ ▼
//!                                       writer, a thread ──▶ segments/ files ──▶ frame: their bytes
//! ```

mod contents;
mod frame;
mod segments;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;

use self::contents::Found;
use self::frame::{Step, invalid};
use self::writer::{Shared, State, Waiter};
use crate::id::MemberId;
use crate::raft::sync_clock::SyncClock;
use crate::raft::types::{Entry, LogId, Payload, Tokio, Types, Vote};

/// The length of a segment, one file of the log, unless its last frame is larger; purged segments are deleted whole.
pub const SEGMENT_BYTES: usize = 8 << 20;

/// The log of one node. Clones share it.
#[derive(Clone)]
pub struct LogStore(Arc<Open>);

/// An open log; closed when its last user is gone.
struct Open {
    shared: Arc<Shared>,
    begun: Begun,
    writer: Option<JoinHandle<()>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            log::error!("the log's writer ended with a panic");
        }
    }
}

/// The mark, outside the log's directory, that this log has held a vote. Without it a log whose files are lost would look like
/// a first start, and its node could vote a second time in a term.
struct Begun {
    path: PathBuf,
    marked: Mutex<bool>,
}

impl Begun {
    /// Makes the mark, synced, unless it is there.
    fn mark(&self) -> io::Result<()> {
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        if !*marked {
            File::create(&self.path)?.sync_all()?;
            if let Some(directory) = self.path.parent() {
                File::open(directory)?.sync_all()?;
            }
            *marked = true;
        }
        Ok(())
    }
}

impl LogStore {
    /// Opens the log in an existing directory, in which no other process has it open; its files have `segment_bytes`, normally
    /// [`SEGMENT_BYTES`]. What a crash has left half written at the very end is cut off; nobody was told that it was kept. `begun` is
    /// a file elsewhere that marks a log that has held a vote, `me` the member whose log it is: entries of another leader may be written at
    /// once.
    ///
    /// # Errors
    /// The system's; `InvalidData` if the log is damaged elsewhere, or empty although it is marked.
    pub fn open(directory: &Path, begun: &Path, segment_bytes: usize, me: MemberId) -> io::Result<LogStore> {
        let marked = begun.try_exists()?;
        let segments::Recovered { mut segments, contents } = segments::recover(directory, marked)?;
        if marked && contents.checkpoint.vote.is_none() {
            return Err(invalid(format!("it is empty, but {} says that this node has voted", begun.display())));
        }
        if segments.is_empty() {
            segments.push(segments::create(directory, 1, segment_bytes, &contents.checkpoint)?);
        }
        let shared = Arc::new(Shared::new(directory.to_owned(), segment_bytes, me, contents, segments));
        let writing = shared.clone();
        let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || writing.run())?;
        let begun = Begun { path: begun.to_owned(), marked: Mutex::new(marked) };
        Ok(LogStore(Arc::new(Open { shared, begun, writer: Some(writer) })))
    }

    /// How the disk keeps up.
    pub fn syncs(&self) -> Arc<SyncClock> {
        self.0.shared.clock.clone()
    }

    /// What the log takes on disk. It does not keep the log open.
    pub(crate) fn disk(&self) -> LogDisk {
        LogDisk(Arc::downgrade(&self.0))
    }

    /// Where it is told what followers have. It does not keep the log open.
    pub(crate) fn followers(&self) -> Followers {
        Followers(Arc::downgrade(&self.0))
    }

    /// Reads the log as it is now.
    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.shared.state())
    }

    /// Writes one step; it returns when that is on disk.
    async fn put_synced(&self, step: Step) -> io::Result<()> {
        let (sender, synced) = oneshot::channel();
        {
            let mut state = self.0.shared.state();
            state.put(step)?;
            self.0.shared.sync(state, Waiter::Caller(sender));
        }
        synced.await.unwrap_or_else(|_| Err(io::Error::other("the log's writer has ended")))
    }
}

/// What followers have of the log.
pub(crate) struct Followers(Weak<Open>);

impl Followers {
    /// One of them has all entries up to this one.
    pub fn acknowledged(&self, index: u64) {
        if let Some(open) = self.0.upgrade() {
            open.shared.acknowledged(index);
        }
    }
}

/// What the log takes on disk.
pub(crate) struct LogDisk(Weak<Open>);

impl LogDisk {
    /// Bytes on disk, and bytes that were ever written; none when the log is closed.
    pub fn bytes(&self) -> Option<LogBytes> {
        let open = self.0.upgrade()?;
        let state = open.shared.state();
        let held = state.segments.iter().map(|segment| segment.end as u64).sum();
        Some(LogBytes { held, written: state.written })
    }

    /// The index of the last entry that may go, so that its segment and all before it are deleted and the rest takes at most `keep`
    /// bytes; entries behind `last` stay.
    pub fn dispensable(&self, keep: u64, last: u64) -> Option<u64> {
        let open = self.0.upgrade()?;
        let state = open.shared.state();
        let (open_one, closed) = state.segments.split_last()?;
        let mut bytes = open_one.end as u64;
        for segment in closed.iter().rev() {
            bytes += segment.end as u64;
            if bytes > keep && segment.ends_at.is_some_and(|index| index <= last) {
                return segment.ends_at;
            }
        }
        None
    }
}

/// Bytes of the log, the blank rest of its last file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogBytes {
    /// On disk now.
    pub held: u64,
    /// Those, and all that was written since the log was opened.
    pub written: u64,
}

/// The first index in a range, and the one behind its last.
fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let from = match range.start_bound() {
        Bound::Included(&index) => index,
        Bound::Excluded(&index) => index + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(&index) => index + 1,
        Bound::Excluded(&index) => index,
        Bound::Unbounded => u64::MAX,
    };
    from..to
}

/// Where a payload is to be read from.
enum Source {
    Memory(Payload),
    Disk(Arc<File>, Range<usize>),
}

impl RaftLogReader<Types<Tokio>> for LogStore {
    async fn try_get_log_entries<B>(&mut self, range: B) -> Result<Vec<Entry>, io::Error>
    where
        B: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let Range { start, end } = bounds(&range);
        let found = self.look(|state| {
            let file_of = |ordinal: u64| {
                let segment = state.segments.iter().rev().find(|segment| segment.ordinal == ordinal);
                segment
                    .map(|segment| segment.file.clone())
                    .ok_or_else(|| invalid(format!("there is no segment {ordinal}")))
            };
            let source = |found| match found {
                Found::InMemory(payload) => Ok(Source::Memory(payload)),
                Found::OnDisk(ordinal, range) => file_of(ordinal).map(|file| Source::Disk(file, range)),
            };
            let entries = state.contents.entries(start, end).into_iter();
            entries.map(|(id, found)| source(found).map(|source| (id, source))).collect::<io::Result<Vec<_>>>()
        })?;
        // The disk is read without holding the log.
        let read = |(log_id, source)| {
            let payload = match source {
                Source::Memory(payload) => payload,
                Source::Disk(file, range) => {
                    let mut record = vec![0; range.len()];
                    file.read_exact_at(&mut record, range.start as u64)?;
                    frame::read_entry(&record, &log_id)?
                }
            };
            Ok(Entry { log_id, payload })
        };
        found.into_iter().map(read).collect()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.look(|state| state.contents.checkpoint.vote))
    }
}

impl RaftLogStorage<Types<Tokio>> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types<Tokio>>, io::Error> {
        Ok(self.look(|state| LogState {
            last_purged_log_id: state.contents.checkpoint.purged,
            last_log_id: state.contents.last(),
        }))
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.put_synced(Step::Vote(*vote)).await?;
        self.0.begun.mark()
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut state = self.0.shared.state();
        // It only saves work after a restart. The log keeps no position that it does not hold, and none that goes back.
        match committed.min(state.contents.last()) {
            // It is written with the next sync.
            Some(known) if Some(known) > state.contents.checkpoint.committed => state.put(Step::Committed(known)),
            _ => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.look(|state| state.contents.checkpoint.committed))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<Tokio>>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut state = self.0.shared.state();
        for entry in entries {
            state.put(Step::Entry(entry))?;
        }
        self.0.shared.sync_soon(state, Waiter::Entries(callback));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        if self.look(|state| state.contents.last()) <= last {
            return Ok(());
        }
        // Synced before it returns, although the log is written in order: what follows may be a snapshot, which is another
        // file. If a crash kept that and lost this, the node would find a log that contradicts its snapshot and would not
        // start again. The simulation found it.
        self.put_synced(Step::TruncateAfter(last)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let mut state = self.0.shared.state();
        state.put(Step::Purge(upto))?;
        self.0.shared.sync(state, Waiter::Purge(upto));
        Ok(())
    }
}
