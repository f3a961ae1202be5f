//! The first recorded process: log and snapshots do at random everything that Raft may ask of them.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::join_all;
use image_cloud::id::{Incarnation, MemberId, NodeId, RequestId};
use image_cloud::protocol::ledger::{KvOperation, Stamp, Write};
use image_cloud::protocol::user::Date;
use image_cloud::raft::Command;
use image_cloud::raft::log_store::LogStore;
use image_cloud::raft::snapshot::{FileSnapshots, SnapshotStore};
use image_cloud::raft::types::{Entry, LogId, Payload, Vote};
use openraft::EntryPayload;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::model::{Id, Log, Mark, Operation};
use crate::recording::MARKS;

/// Small files, so that a short run fills many.
pub const SEGMENT_BYTES: usize = 16 << 10;

/// What the directory must hold beforehand.
pub const DIRECTORIES: [&str; 2] = ["log", "snapshot"];

fn log_id((term, index): Id) -> LogId {
    LogId::new_term_index(term, index)
}

/// Every entry has a payload of its own: small ones, empty ones, and some that are larger than a file of the log.
fn payload((term, index): Id) -> Payload {
    if index % 11 == 0 {
        return EntryPayload::Blank;
    }
    let size = if index % 37 == 0 { 20_000 } else { (index * 7919 + term * 104_729) % 3000 };
    let value = Bytes::from(vec![(term * 31 + index) as u8; size as usize]);
    let put = KvOperation::Put { key: Bytes::from(format!("{term}/{index}")), value, expires_in_ms: None };
    let id = RequestId((u128::from(term) << 64 | u128::from(index)).to_be_bytes());
    EntryPayload::Normal(Command::Ledger {
        stamp: Stamp(term),
        date: Date(term),
        writes: [Write::kv(id, vec![put])].into(),
    })
}

pub fn entry(id: Id) -> Entry {
    Entry { log_id: log_id(id), payload: payload(id) }
}

fn state(index: u64) -> Vec<u8> {
    vec![index as u8; (index % 50 * 200) as usize]
}

/// Opens log and snapshots below `root` and says what they hold.
pub async fn open(root: &Path) -> Result<(LogStore, FileSnapshots, Log, Option<u64>), String> {
    let mut store = LogStore::open(&root.join("log"), &root.join("begun"), SEGMENT_BYTES, member())
        .map_err(|error| error.to_string())?;
    let snapshots = FileSnapshots::open(&root.join("snapshot")).map_err(|error| error.to_string())?;
    let log = read(&mut store).await?;
    let snapshot = match snapshots.load().map_err(|error| error.to_string())? {
        None => None,
        Some(stored) => {
            let index =
                u64::from_be_bytes(stored.description.try_into().map_err(|_| "a strange description".to_owned())?);
            if stored.state != state(index) {
                return Err(format!("the snapshot of {index} has another state"));
            }
            Some(index)
        }
    };
    Ok((store, snapshots, log, snapshot))
}

async fn read(store: &mut LogStore) -> Result<Log, String> {
    let vote = store.read_vote().await.map_err(|error| error.to_string())?;
    let id = |id: LogId| (id.committed_leader_id().term, id.index());
    let committed = store.read_committed().await.map_err(|error| error.to_string())?;
    let state = store.get_log_state().await.map_err(|error| error.to_string())?;
    let entries = store.try_get_log_entries(..).await.map_err(|error| error.to_string())?;
    if let Some(other) = entries.iter().find(|found| found.payload != payload(id(found.log_id))) {
        return Err(format!("entry {} has another content", other.log_id));
    }
    let log = Log {
        vote: vote.map(|vote| vote.leader_id().term),
        entries: entries.into_iter().map(|entry| id(entry.log_id)).collect(),
        purged: state.last_purged_log_id.map(id),
        committed: committed.map(id),
    };
    if log.last() != state.last_log_id.map(id) {
        return Err(format!("the log ends at {:?} and says {:?}", log.last(), state.last_log_id));
    }
    Ok(log)
}

/// Writes marks into the recording: they stand in it where they were written.
#[derive(Clone)]
pub struct Marks(Arc<Mutex<std::fs::File>>);

impl Marks {
    pub fn new(root: &Path) -> Marks {
        let file = std::fs::File::options().create(true).append(true).open(root.join(MARKS)).unwrap();
        Marks(Arc::new(Mutex::new(file)))
    }

    pub fn put(&self, line: &str) {
        self.0.lock().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn mark(&self, mark: &Mark) {
        self.put(&serde_json::to_string(mark).unwrap());
    }
}

struct Script {
    rng: SmallRng,
    marks: Marks,
    store: LogStore,
    snapshots: FileSnapshots,
    log: Log,
    snapshot: Option<u64>,
    term: u64,
    begun: usize,
}

/// Goes on from what is there, with that many operations.
pub async fn run(root: &Path, seed: u64, operations: usize) {
    let (store, snapshots, log, snapshot) = open(root).await.unwrap();
    let marks = Marks::new(root);
    marks.mark(&Mark::Found { log: log.clone(), snapshot });
    let term = log.vote.max(log.last().map(|id| id.0)).unwrap_or(0) + 1;
    let rng = SmallRng::seed_from_u64(seed);
    let mut script = Script { rng, marks, store, snapshots, log, snapshot, term, begun: 0 };
    while script.begun < operations {
        script.step().await;
    }
}

impl Script {
    fn begin(&mut self, operation: Operation) -> usize {
        self.marks.mark(&Mark::Begin { number: self.begun, operation });
        self.begun += 1;
        self.begun - 1
    }

    fn done(&self, number: usize) {
        self.marks.mark(&Mark::Done { number });
    }

    async fn step(&mut self) {
        let (last, committed) = (self.log.last(), self.log.committed);
        match self.rng.random_range(0..100) {
            0..10 => {
                self.term += 1;
                let number = self.begin(Operation::Vote(self.term));
                // What follows another member is written in another way.
                let leader = if self.rng.random() { member() } else { other() };
                self.store.save_vote(&Vote::new(self.term, leader)).await.unwrap();
                self.log.vote = Some(self.term);
                self.done(number);
            }
            10..60 => self.append().await,
            60..75 => {
                // Anything behind the committed entry, up to the last one.
                let from = self.log.entries.iter().position(|id| Some(*id) > committed);
                if let Some(from) = from {
                    let id = self.log.entries[self.rng.random_range(from..self.log.entries.len())];
                    self.begin(Operation::Commit(id));
                    self.store.save_committed(Some(log_id(id))).await.unwrap();
                    self.log.committed = Some(id);
                }
            }
            75..82 => {
                let uncommitted = self.log.entries.iter().filter(|id| Some(**id) > committed).count();
                if uncommitted > 0 {
                    let kept = self.log.entries.len() - self.rng.random_range(1..=uncommitted);
                    let behind = kept.checked_sub(1).map(|place| self.log.entries[place]).or(self.log.purged);
                    let number = self.begin(Operation::TruncateBehind(behind));
                    self.store.truncate_after(behind.map(log_id)).await.unwrap();
                    self.log.entries.truncate(kept);
                    self.term += 1;
                    self.done(number);
                }
            }
            82..90 => {
                let upto = committed.filter(|id| Some(id.1) > self.snapshot);
                if let Some(upto) = upto {
                    self.save(upto.1);
                }
            }
            90..98 => {
                let covered = self.log.entries.iter().filter(|id| Some(id.1) <= self.snapshot).count();
                if covered > 0 {
                    let upto = self.log.entries[self.rng.random_range(0..covered)];
                    self.purge(upto).await;
                }
            }
            _ => {
                // A snapshot of the leader takes the place of the whole log.
                let Some((_, index)) = last else { return };
                // A crash may have kept the snapshot before it and lost the purge behind that.
                let upto = (self.term, index.max(self.snapshot.unwrap_or(0)) + self.rng.random_range(1..50));
                self.save(upto.1);
                self.purge(upto).await;
            }
        }
    }

    /// Some appends, of which none waits for the one before it.
    async fn append(&mut self) {
        let mut appends = Vec::new();
        for _ in 0..self.rng.random_range(1..=3) {
            let next = self.log.last().map_or(0, |id| id.1 + 1);
            let ids: Vec<Id> = (next..next + self.rng.random_range(1..=5)).map(|index| (self.term, index)).collect();
            self.log.entries.extend(&ids);
            appends.push((self.begun, ids));
            self.begun += 1;
        }
        let append = async |number: usize, ids: Vec<Id>| {
            self.marks.mark(&Mark::Begin { number, operation: Operation::Append(ids.clone()) });
            self.store.clone().blocking_append(ids.into_iter().map(entry)).await.unwrap();
            self.done(number);
        };
        join_all(appends.into_iter().map(|(number, ids)| append(number, ids))).await;
    }

    fn save(&mut self, index: u64) {
        let number = self.begin(Operation::Snapshot(index));
        self.snapshots.save(&index.to_be_bytes(), &state(index)).unwrap();
        self.snapshot = Some(index);
        self.done(number);
    }

    async fn purge(&mut self, upto: Id) {
        self.begin(Operation::Purge(upto));
        self.store.purge(log_id(upto)).await.unwrap();
        self.log.entries.retain(|id| id.1 > upto.1);
        self.log.purged = Some(upto);
    }
}

/// Whose log it is.
pub fn member() -> MemberId {
    MemberId { node: NodeId(1), incarnation: Incarnation(7) }
}

fn other() -> MemberId {
    MemberId { node: NodeId(2), incarnation: Incarnation(7) }
}
