//! The log on disk, by raft-log: votes and entries are synced before anybody is told about them.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::codeq::{Decode, Encode};
use raft_log::{Callback, RaftLog};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::protocol::codec::{self, LIMIT_BYTES};
use crate::raft::sync_clock::SyncClock;
use crate::raft::torn_tail;
use crate::raft::types::{Entry, LogId, Payload, Tokio, Types, Vote};
use crate::time;

/// Entries that arrive within this time share one sync. The library's default of 1 ms would be added to every serial write and
/// every vote; at zero it syncs each entry by itself (measured: 600/s, 1,500/s and 2,100/s serial, 30,000/s against 4,000/s at
/// 256 writers).
const FLUSH_WAIT: Duration = Duration::from_micros(100);

/// A chunk of the log is one file; purged chunks are deleted whole.
const CHUNK_BYTES: usize = 64 << 20;
const CACHE_BYTES: usize = 64 << 20;
/// What an entry is taken to cost in the cache; most cost less.
const ENTRY_BYTES: u64 = 1 << 10;
const READ_BUFFER_BYTES: usize = 1 << 20;

const WRITER_ENDED: &str = "the log's writer has ended";

/// The log of one node. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    log: Arc<Mutex<RaftLog<Stored>>>,
    begun: Arc<Begun>,
    syncs: Arc<SyncClock>,
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
    /// Opens the log in an existing directory, which it locks. A record that was torn by a crash at the very end is cut off;
    /// nobody was told that it was kept. `begun` is a file elsewhere that marks a log that has held a vote.
    ///
    /// # Errors
    /// The system's; `InvalidData` if the log is damaged elsewhere, or empty although it is marked.
    pub fn open(directory: &Path, begun: &Path) -> io::Result<LogStore> {
        let mut config = raft_log::Config::new(directory.display());
        config.wal.flush_batch_wait = Some(FLUSH_WAIT);
        config.wal.chunk_max_size = Some(CHUNK_BYTES);
        config.wal.read_buffer_size = Some(READ_BUFFER_BYTES);
        config.wal.truncate_incomplete_record = Some(true);
        config.log_cache_capacity = Some(CACHE_BYTES);
        let config = Arc::new(config);
        let log = match RaftLog::open(config.clone()) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                torn_tail::open_without_blank_tail(directory, || RaftLog::open(config.clone()), error)?
            }
            result => result?,
        };
        let marked = begun.try_exists()?;
        if marked && log.log_state().vote().is_none() {
            let what = format!("it is empty, but {} says that this node has voted", begun.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let begun = Arc::new(Begun { path: begun.to_owned(), marked: Mutex::new(marked) });
        Ok(LogStore { log: Arc::new(Mutex::new(log)), begun, syncs: Arc::default() })
    }

    fn log(&self) -> MutexGuard<'_, RaftLog<Stored>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the disk keeps up.
    pub fn syncs(&self) -> Arc<SyncClock> {
        self.syncs.clone()
    }

    /// A sync that begins now; its end is noted when it is called back.
    fn timed(&self, waiter: Waiter) -> Option<Synced> {
        self.syncs.begin(time::now());
        Some(Synced { waiter, syncs: self.syncs.clone() })
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
        let (sender, synced) = oneshot::channel();
        {
            let mut log = self.log();
            log.save_vote(Coded(*vote))?;
            log.flush(true, self.timed(Waiter::Task(sender)))?;
        }
        synced.await.unwrap_or_else(|_| Err(io::Error::other(WRITER_ENDED)))?;
        self.begun.mark()
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut log = self.log();
        let state = log.log_state();
        // It only saves work after a restart. The log refuses a position that it does not hold, and one that goes back.
        let last = state.last().map(|id| id.0);
        let before = state.committed().map(|id| id.0);
        match committed.min(last) {
            Some(committed) if Some(committed) > before => {
                log.commit(Coded(committed))?;
                log.flush(false, None)
            }
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
        let mut log = self.log();
        log.append(entries.into_iter().map(|entry| (Coded(entry.log_id), Coded(entry.payload))))?;
        log.flush(true, self.timed(Waiter::Entries(callback)))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let (sender, synced) = oneshot::channel();
        {
            let mut log = self.log();
            if log.log_state().last().map(|id| id.0) <= last {
                return Ok(());
            }
            log.truncate(last.map_or(0, |id| id.index() + 1))?;
            // Synced before it returns, although the log is written in order: what follows may be a snapshot, which is another
            // file. If a crash kept that and lost this, the node would find a log that contradicts its snapshot and would not
            // start again. The simulation found it.
            log.flush(true, self.timed(Waiter::Task(sender)))?;
        }
        synced.await.unwrap_or_else(|_| Err(io::Error::other(WRITER_ENDED)))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let mut log = self.log();
        log.purge(Coded(upto))?;
        log.flush(true, None)
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

    fn payload_size(_: &Coded<Payload>) -> u64 {
        ENTRY_BYTES
    }
}

/// A sync under way.
struct Synced {
    waiter: Waiter,
    syncs: Arc<SyncClock>,
}

/// Who waits for a sync.
enum Waiter {
    Task(oneshot::Sender<io::Result<()>>),
    Entries(IOFlushed<Types<Tokio>>),
}

impl Callback for Synced {
    fn send(self, result: io::Result<()>) {
        self.syncs.end(time::now());
        match self.waiter {
            // If nobody waits any more, Raft is shutting down.
            Waiter::Task(sender) => drop(sender.send(result)),
            Waiter::Entries(callback) => callback.io_completed(result),
        }
    }
}

/// A value in the project's byte form, behind its length (`u32`, big endian).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Coded<T>(T);

impl<T: Serialize> Encode for Coded<T> {
    fn encode<W: Write>(&self, mut writer: W) -> io::Result<usize> {
        let bytes = codec::encode(&self.0).map_err(io::Error::other)?;
        writer.write_all(&(bytes.len() as u32).to_be_bytes())?;
        writer.write_all(&bytes)?;
        Ok(4 + bytes.len())
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
