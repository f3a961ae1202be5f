//! The log on disk, by raft-log: votes and entries are synced before anybody is told about them.
//!
//! One sync is under way at a time; everything that arrives meanwhile shares the next. So a writer alone never waits for a timer,
//! and hundreds share one sync.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::codeq::{Decode, Encode};
use raft_log::{Callback, RaftLog, RaftLogRecord};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::protocol::codec::{self, LIMIT_BYTES};
use crate::raft::sync_clock::SyncClock;
use crate::raft::torn_tail;
use crate::raft::types::{Command, Entry, LogId, Payload, Tokio, Types, Vote};
use crate::time;

/// A chunk of the log is one file; purged chunks are deleted whole. The library keeps every entry of the last chunk in memory, however
/// small its cache is and even when it is purged.
pub const CHUNK_BYTES: usize = 8 << 20;
/// Entries that were written last are read from memory: for the followers, and to be applied.
const CACHE_BYTES: usize = 8 << 20;
/// What an entry, and each write in it, is taken to cost in the cache beside its keys and values.
const OVERHEAD_BYTES: u64 = 256;
const READ_BUFFER_BYTES: usize = 1 << 20;

const WRITER_ENDED: &str = "the log's writer has ended";

/// The log of one node. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    log: Arc<Mutex<RaftLog<Stored>>>,
    syncs: Arc<Mutex<Syncs>>,
    clock: Arc<SyncClock>,
    begun: Arc<Begun>,
    /// Where the next sync is begun: the log's own thread must not wait for itself.
    runtime: Handle,
}

/// Who waits for which sync.
#[derive(Default)]
struct Syncs {
    under_way: bool,
    next: Vec<Waiter>,
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
    /// Opens the log in an existing directory, which it locks; its files grow to `chunk_bytes`, normally [`CHUNK_BYTES`]. A record
    /// that was torn by a crash at the very end is cut off; nobody was told that it was kept. `begun` is a file elsewhere that marks a
    /// log that has held a vote.
    ///
    /// # Errors
    /// The system's; `InvalidData` if the log is damaged elsewhere, or empty although it is marked.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(directory: &Path, begun: &Path, chunk_bytes: usize) -> io::Result<LogStore> {
        let mut config = raft_log::Config::new(directory.display());
        // The library would wait for more to come; here that has been gathered already.
        config.wal.flush_batch_wait = Some(Duration::ZERO);
        config.wal.chunk_max_size = Some(chunk_bytes);
        config.wal.read_buffer_size = Some(READ_BUFFER_BYTES);
        config.wal.truncate_incomplete_record = Some(false);
        config.log_cache_capacity = Some(CACHE_BYTES);
        torn_tail::mend::<RaftLogRecord<Stored>>(directory)?;
        let log = RaftLog::open(Arc::new(config))?;
        let marked = begun.try_exists()?;
        if marked && log.log_state().vote().is_none() {
            let what = format!("it is empty, but {} says that this node has voted", begun.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let begun = Arc::new(Begun { path: begun.to_owned(), marked: Mutex::new(marked) });
        let runtime = Handle::current();
        Ok(LogStore { log: Arc::new(Mutex::new(log)), syncs: Arc::default(), clock: Arc::default(), begun, runtime })
    }

    /// Lets `waiter` know when everything that was written to the log before this call is on disk.
    fn sync(&self, waiter: Waiter) {
        let mut syncs = locked(&self.syncs);
        syncs.next.push(waiter);
        if !std::mem::replace(&mut syncs.under_way, true) {
            drop(syncs);
            begin_sync(&self.log, &self.syncs, &self.clock, &self.runtime);
        }
    }

    async fn synced(&self) -> io::Result<()> {
        let (sender, synced) = oneshot::channel();
        self.sync(Waiter::Caller(sender));
        synced.await.unwrap_or_else(|_| Err(io::Error::other(WRITER_ENDED)))
    }

    /// How the disk keeps up.
    pub fn syncs(&self) -> Arc<SyncClock> {
        self.clock.clone()
    }

    /// What the log takes on disk. It does not keep the log open.
    pub(crate) fn disk(&self) -> LogDisk {
        LogDisk(Arc::downgrade(&self.log))
    }

    fn log(&self) -> MutexGuard<'_, RaftLog<Stored>> {
        locked(&self.log)
    }
}

/// What the log takes on disk.
pub(crate) struct LogDisk(Weak<Mutex<RaftLog<Stored>>>);

impl LogDisk {
    /// Bytes on disk, and bytes that were ever written; none when the log is closed.
    pub fn bytes(&self) -> Option<LogBytes> {
        let log = self.0.upgrade()?;
        let log = locked(&log);
        Some(LogBytes { held: log.on_disk_size(), written: log.stat().open_chunk.global_end })
    }

    /// The index of the last entry that may go, so that its file and all before it are deleted and the rest takes at most `keep`
    /// bytes; entries behind `last` stay.
    pub fn dispensable(&self, keep: u64, last: u64) -> Option<u64> {
        let log = self.0.upgrade()?;
        let stat = locked(&log).stat();
        let mut bytes = stat.open_chunk.size;
        for chunk in stat.closed_chunks.iter().rev() {
            bytes += chunk.size;
            let ends_at = chunk.log_state.last().map(|id| id.0.index());
            if bytes > keep && ends_at.is_some_and(|index| index <= last) {
                return ends_at;
            }
        }
        None
    }
}

/// Bytes of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogBytes {
    /// On disk now.
    pub held: u64,
    /// Ever written, in all lives of this log.
    pub written: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin_sync(log: &Arc<Mutex<RaftLog<Stored>>>, syncs: &Arc<Mutex<Syncs>>, clock: &Arc<SyncClock>, runtime: &Handle) {
    let mut held = locked(log);
    let waiters = std::mem::take(&mut locked(syncs).next);
    let next = Next { log: Arc::downgrade(log), syncs: syncs.clone(), clock: clock.clone(), runtime: runtime.clone() };
    clock.begin(time::now());
    // If it cannot even begin, the callback is dropped, and tells its waiters.
    if let Err(error) = held.flush(true, Some(Synced { waiters: Some(waiters), next })) {
        log::error!("the log cannot be synced: {error}");
    }
}

impl RaftLogReader<Types<Tokio>> for LogStore {
    async fn try_get_log_entries<B>(&mut self, range: B) -> Result<Vec<Entry>, io::Error>
    where
        B: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
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
        if from >= to {
            return Ok(Vec::new());
        }
        let log = self.log();
        log.read(from, to)
            .map(|record| record.map(|(id, payload)| Entry { log_id: id.0, payload: payload.0 }))
            .collect()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log().log_state().vote().map(|vote| vote.0))
    }
}

impl RaftLogStorage<Types<Tokio>> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types<Tokio>>, io::Error> {
        let log = self.log();
        let state = log.log_state();
        Ok(LogState { last_purged_log_id: state.purged().map(|id| id.0), last_log_id: state.last().map(|id| id.0) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.log().save_vote(Coded(*vote))?;
        self.synced().await?;
        self.begun.mark()
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut log = self.log();
        let state = log.log_state();
        // It only saves work after a restart. The log refuses a position that it does not hold, and one that goes back.
        let last = state.last().map(|id| id.0);
        let before = state.committed().map(|id| id.0);
        match committed.min(last) {
            // It is written with the next sync.
            Some(committed) if Some(committed) > before => log.commit(Coded(committed)).map(|_| ()),
            _ => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log().log_state().committed().map(|id| id.0))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<Tokio>>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.log().append(entries.into_iter().map(|entry| (Coded(entry.log_id), Coded(entry.payload))))?;
        self.sync(Waiter::Entries(callback));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        {
            let mut log = self.log();
            if log.log_state().last().map(|id| id.0) <= last {
                return Ok(());
            }
            log.truncate(last.map_or(0, |id| id.index() + 1))?;
        }
        // Synced before it returns, although the log is written in order: what follows may be a snapshot, which is another
        // file. If a crash kept that and lost this, the node would find a log that contradicts its snapshot and would not
        // start again. The simulation found it.
        self.synced().await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.log().purge(Coded(upto))?;
        self.sync(Waiter::Nobody);
        Ok(())
    }
}

/// The types of the log file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stored;

impl raft_log::Types for Stored {
    type LogId = Coded<LogId>;
    type LogPayload = Coded<Payload>;
    type Vote = Coded<Vote>;
    type Callback = Synced;
    type UserData = String;

    fn log_index(id: &Coded<LogId>) -> u64 {
        id.0.index()
    }

    fn payload_size(payload: &Coded<Payload>) -> u64 {
        let EntryPayload::Normal(Command::Ledger { writes, .. }) = &payload.0 else { return 4 * OVERHEAD_BYTES };
        let parts = |write: &crate::protocol::ledger::Write| write.operations().len().max(1) as u64;
        let bytes: u64 = writes.iter().map(|write| parts(write) * OVERHEAD_BYTES + write.size_bytes() as u64).sum();
        OVERHEAD_BYTES + bytes
    }
}

/// Who waits for a sync.
enum Waiter {
    Caller(oneshot::Sender<io::Result<()>>),
    Entries(IOFlushed<Types<Tokio>>),
    Nobody,
}

impl Waiter {
    fn tell(self, result: &io::Result<()>) {
        let result = result.as_ref().map(|&()| ()).map_err(|error| io::Error::new(error.kind(), error.to_string()));
        match self {
            // If nobody waits any more, Raft is shutting down.
            Waiter::Caller(sender) => drop(sender.send(result)),
            Waiter::Entries(callback) => callback.io_completed(result),
            Waiter::Nobody => {}
        }
    }
}

/// The end of one sync: tells everybody who shared it, and begins the next if somebody waits for that.
struct Synced {
    waiters: Option<Vec<Waiter>>,
    next: Next,
}

/// What the next sync needs. The log is not kept open for its sake.
struct Next {
    log: Weak<Mutex<RaftLog<Stored>>>,
    syncs: Arc<Mutex<Syncs>>,
    clock: Arc<SyncClock>,
    runtime: Handle,
}

impl Callback for Synced {
    fn send(mut self, result: io::Result<()>) {
        self.end(&result);
    }
}

impl Synced {
    fn end(&mut self, result: &io::Result<()>) {
        let Some(waiters) = self.waiters.take() else { return };
        self.next.clock.end(time::now());
        waiters.into_iter().for_each(|waiter| waiter.tell(result));
        let Next { log, syncs, clock, runtime } = &self.next;
        let mut waiting = locked(syncs);
        waiting.under_way = !waiting.next.is_empty();
        if waiting.under_way {
            let (log, syncs, clock) = (log.clone(), syncs.clone(), clock.clone());
            let begun_in = runtime.clone();
            runtime.spawn(async move {
                if let Some(log) = log.upgrade() {
                    begin_sync(&log, &syncs, &clock, &begun_in);
                }
            });
        }
    }
}

impl Drop for Synced {
    /// The log's writer has ended without a word: whoever waits must not wait for ever.
    fn drop(&mut self) {
        self.end(&Err(io::Error::other(WRITER_ENDED)));
    }
}

/// A value in the project's byte form, behind its length (`u32`, big endian).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Coded<T>(T);

impl<T: Serialize> Encode for Coded<T> {
    fn encode<W: Write>(&self, mut writer: W) -> io::Result<usize> {
        let mut bytes = vec![0; 4];
        codec::encode_into(&self.0, &mut bytes).map_err(io::Error::other)?;
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        writer.write_all(&bytes)?;
        Ok(bytes.len())
    }
}

impl<T: DeserializeOwned> Decode for Coded<T> {
    fn decode<R: Read>(mut reader: R) -> io::Result<Self> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut length = [0; 4];
        reader.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > LIMIT_BYTES {
            return Err(invalid(format!("a value of {length} bytes in the log")));
        }
        let mut bytes = vec![0; length];
        reader.read_exact(&mut bytes)?;
        codec::decode(&bytes).map(Coded).map_err(|error| invalid(error.to_string()))
    }
}
