//! A simulated disk: writes are seen at once, synced later and in order; a crash forgets what was not synced.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use image_cloud::raft::snapshot::{SnapshotStore, StoredSnapshot};
use image_cloud::raft::types::{Entry, LogId, Types, Vote};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt_sim::SimRuntime;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// What a log file says.
#[derive(Clone, Default)]
pub struct Image {
    pub vote: Option<Vote>,
    pub entries: BTreeMap<u64, Entry>,
    pub purged: Option<LogId>,
    pub committed: Option<LogId>,
}

impl Image {
    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }

    /// Whether that very entry stands in the log.
    pub fn holds(&self, id: LogId) -> bool {
        self.entries.get(&id.index()).is_some_and(|entry| entry.log_id == id)
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Vote(vote) => self.vote = Some(vote),
            Write::Append(entries) => {
                self.entries.extend(entries.into_iter().map(|entry| (entry.log_id.index(), entry)));
            }
            Write::TruncateFrom(index) => drop(self.entries.split_off(&index)),
            Write::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index() + 1));
                self.purged = self.purged.max(Some(upto));
            }
            Write::Committed(committed) => self.committed = self.committed.max(committed),
        }
    }
}

#[derive(Clone)]
enum Write {
    Vote(Vote),
    Append(Vec<Entry>),
    TruncateFrom(u64),
    Purge(LogId),
    Committed(Option<LogId>),
}

/// Whether a sync means anything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Honesty {
    /// What is synced survives.
    Honest,
    /// It says "synced" and forgets all the same. For the test of the checker.
    Lying,
}

pub struct Disk {
    pub seen: Image,
    synced: Image,
    pending: VecDeque<Write>,
    written: u64,
    /// Handles of an earlier life write into the void.
    life: u64,
    /// No sync ends while it stalls.
    stalls: bool,
    honesty: Honesty,
    rng: SmallRng,
    snapshot: Option<StoredSnapshot>,
    /// Entries that were purged since the checker looked last: a snapshot covers them, so they are committed.
    pub purged: Vec<Entry>,
}

/// A disk; clones share it.
#[derive(Clone)]
pub struct SharedDisk(Arc<Mutex<Disk>>);

impl SharedDisk {
    pub fn new(seed: u64, honesty: Honesty) -> Self {
        SharedDisk(Arc::new(Mutex::new(Disk {
            seen: Image::default(),
            synced: Image::default(),
            pending: VecDeque::new(),
            written: 0,
            life: 0,
            stalls: false,
            honesty,
            rng: SmallRng::seed_from_u64(seed),
            snapshot: None,
            purged: Vec::new(),
        })))
    }

    pub fn lock(&self) -> std::sync::MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// Ends the life that writes here; of the writes that were not synced, a random number made it all the same.
    pub fn crash(&self) {
        let mut disk = self.lock();
        disk.life += 1;
        let unsynced = disk.pending.len();
        let kept = disk.rng.random_range(0..=unsynced);
        for _ in 0..kept {
            let write = disk.pending.pop_front().unwrap();
            disk.synced.apply(write);
        }
        disk.pending.clear();
        disk.seen = disk.synced.clone();
    }

    /// From now on no sync ends, or those that wait do.
    pub fn set_stalled(&self, stalls: bool) {
        self.lock().stalls = stalls;
    }

    /// The log as the next life finds it.
    pub fn open(&self) -> SimLog {
        SimLog { life: self.lock().life, disk: self.clone() }
    }
}

impl SnapshotStore for SharedDisk {
    fn save(&self, description: &[u8], state: &[u8]) -> io::Result<()> {
        self.lock().snapshot = Some(StoredSnapshot { description: description.to_vec(), state: state.to_vec() });
        Ok(())
    }

    fn load(&self) -> io::Result<Option<StoredSnapshot>> {
        Ok(self.lock().snapshot.clone())
    }
}

/// One life's handle on the log.
#[derive(Clone)]
pub struct SimLog {
    life: u64,
    disk: SharedDisk,
}

impl SimLog {
    /// Writes; gives the number of the write and how long its sync takes. None if this life is over.
    fn write(&self, write: Write) -> Option<(u64, Duration)> {
        let mut disk = self.disk.lock();
        if disk.life != self.life {
            return None;
        }
        // A log that does not hold the last purged entry itself is replaced by a snapshot, and may hold anything.
        if let Write::Purge(upto) = &write
            && disk.seen.holds(*upto)
        {
            let purged: Vec<Entry> = disk.seen.entries.range(..=upto.index()).map(|(_, entry)| entry.clone()).collect();
            disk.purged.extend(purged);
        }
        disk.seen.apply(write.clone());
        disk.pending.push_back(write);
        disk.written += 1;
        let micros = if disk.rng.random_bool(0.02) { 20_000 } else { disk.rng.random_range(50..2_000) };
        Some((disk.written, Duration::from_micros(micros)))
    }

    /// Writes and syncs; never returns if this life is over.
    async fn write_synced(&self, write: Write) -> Result<(), io::Error> {
        if let Some(write) = self.write(write)
            && self.sync(write).await
        {
            return Ok(());
        }
        std::future::pending().await
    }

    /// Syncs everything up to a write; false if this life ended before.
    async fn sync(&self, (number, time): (u64, Duration)) -> bool {
        SimRuntime::sleep(time).await;
        while self.disk.lock().stalls {
            SimRuntime::sleep(time).await;
        }
        let mut disk = self.disk.lock();
        if disk.life != self.life {
            return false;
        }
        while disk.honesty == Honesty::Honest && disk.written - (disk.pending.len() as u64) < number {
            let write = disk.pending.pop_front().unwrap();
            disk.synced.apply(write);
        }
        true
    }
}

impl RaftLogReader<Types<SimRuntime>> for SimLog {
    async fn try_get_log_entries<B>(&mut self, range: B) -> Result<Vec<Entry>, io::Error>
    where
        B: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.disk.lock().seen.entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.disk.lock().seen.vote)
    }
}

impl RaftLogStorage<Types<SimRuntime>> for SimLog {
    type LogReader = SimLog;

    async fn get_log_state(&mut self) -> Result<LogState<Types<SimRuntime>>, io::Error> {
        let disk = self.disk.lock();
        Ok(LogState { last_purged_log_id: disk.seen.purged, last_log_id: disk.seen.last() })
    }

    async fn get_log_reader(&mut self) -> SimLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.write_synced(Write::Vote(*vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.write(Write::Committed(committed));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let disk = self.disk.lock();
        Ok(disk.seen.committed.min(disk.seen.last()))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<SimRuntime>>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        if let Some(write) = self.write(Write::Append(entries.into_iter().collect())) {
            let log = self.clone();
            SimRuntime::spawn(async move {
                if log.sync(write).await {
                    callback.io_completed(Ok(()));
                }
            });
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        // As in the product: see `LogStore::truncate_after`.
        self.write_synced(Write::TruncateFrom(last.map_or(0, |id| id.index() + 1))).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.write(Write::Purge(upto));
        Ok(())
    }
}
