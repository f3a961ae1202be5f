//! Raft: confirms the coordinator and orders the log. The only folder that names the Raft library and its log.
//!
//! ```text
//! RaftNode ──── Group ──┬── Network ── RaftTransport (the node's connections)
//!   tokio  │    any     ├── LogStore   raft/log/        (raft-log)
//!          │    runtime └── Machine    raft/snapshot/   (pure State, snapshot file; Feed: the last changes)
//!          └─ Proposals (writes that wait share an entry)
//! ```
//!
//! What is simulated on a deterministic runtime is everything but the two stores on disk.

pub mod error;
pub mod group;
pub mod log_store;
pub mod machine;
pub mod snapshot;
pub mod state;
pub mod sync_clock;
pub mod types;

mod ballot;
mod feed;
mod network;
mod proposals;
#[cfg(test)]
mod tests;
mod torn_tail;
mod view;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;

pub use self::error::{CampaignError, HandOverError, ProposeError, RaftError};
pub use self::feed::Forgotten;
pub use self::network::{RaftTransport, TransportError};
pub use self::state::ClusterId;
pub use self::types::{Command, Outcome};

use self::group::Group;
use self::log_store::LogStore;
use self::machine::Machine;
use self::proposals::Proposals;
use self::snapshot::FileSnapshots;
use self::sync_clock::SyncClock;
use self::types::{Tokio, position};
use crate::core::election::RaftView;
use crate::core::ledger::Ledger;
use crate::id::{LogPosition, MemberId};
use crate::protocol::codec::{self, CodecError};
use crate::protocol::election::{Campaign, Cause, ElectionResult};
use crate::protocol::ledger::{Answer, Change, Write};
use crate::protocol::status::Leadership;
use crate::time::{self, Moment};

/// How Raft runs on this node.
#[derive(Clone, Debug)]
pub struct RaftSettings {
    /// This node, in this life.
    pub member: MemberId,
    /// Where log and snapshots are; made if it does not exist. Its lock is the data directory's. The file `<directory>.begun`
    /// beside it says that this node has voted, so that a lost log is not taken for a first start.
    pub directory: PathBuf,
    /// Pause between the leader's empty appends (50 ms).
    pub heartbeat: Duration,
    /// The shortest wait of a native election (200 ms).
    pub election_min: Duration,
    /// The longest wait of a native election, and the lease of a leader at its voters (300 ms).
    pub election_max: Duration,
    /// Whether Raft elects by itself from the start: strategy `raft`.
    pub native_elections: bool,
    /// Entries after which a snapshot is made (5,000).
    pub snapshot_after: u64,
    /// Entries kept behind a snapshot, so that a node that was away briefly needs no snapshot (1,000).
    pub keep_after_snapshot: u64,
}

impl RaftSettings {
    /// The defaults.
    pub fn new(member: MemberId, directory: impl Into<PathBuf>) -> Self {
        RaftSettings {
            member,
            directory: directory.into(),
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(200),
            election_max: Duration::from_millis(300),
            native_elections: false,
            snapshot_after: 5_000,
            keep_after_snapshot: 1_000,
        }
    }
}

/// A command that is committed and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The log up to and including the command.
    pub position: LogPosition,
    /// What came of it.
    pub outcome: Outcome,
}

/// Raft on this node: durable, on the tokio runtime that [`open`](RaftNode::open) was called in. Clones share it.
#[derive(Clone)]
pub struct RaftNode {
    group: Group<Tokio>,
    proposals: Proposals,
    views: watch::Receiver<RaftView>,
    failure: watch::Receiver<Option<RaftError>>,
    syncs: Arc<SyncClock>,
}

impl RaftNode {
    /// Opens log and snapshot and takes part from now on. Call it in a multi-thread runtime: never in an actix arbiter, whose
    /// single thread would carry all of Raft.
    ///
    /// # Errors
    /// [`RaftError::Directory`], [`RaftError::Corrupt`], [`RaftError::Settings`], [`RaftError::Stopped`].
    pub async fn open(settings: RaftSettings, transport: Arc<dyn RaftTransport>) -> Result<RaftNode, RaftError> {
        let log_directory = settings.directory.join("log");
        let snapshot_directory = settings.directory.join("snapshot");
        for directory in [&log_directory, &snapshot_directory] {
            create(directory).map_err(|error| storage_error(settings.member, "create", directory, &error))?;
        }
        let machine = Machine::load(Arc::new(FileSnapshots::new(&snapshot_directory)))
            .map_err(|error| storage_error(settings.member, "read", &snapshot_directory, &error))?;
        let log_store = LogStore::open(&log_directory, &settings.directory.with_extension("begun"))
            .map_err(|error| storage_error(settings.member, "open", &log_directory, &error))?;
        let syncs = log_store.syncs();
        let group = Group::start(&settings, transport, log_store, machine).await?;

        // The library has published what it read from disk when it answers this. An empty view would be taken for a first start.
        let answer = group.raft().with_raft_state(|_| ()).await;
        answer.map_err(|fatal| group.stopped(&fatal))?;
        let (view_sender, views) = watch::channel(current_view(&group));
        let (failure_sender, failure) = watch::channel(None);
        tokio::spawn(watch_metrics(group.clone(), view_sender, failure_sender));
        let proposals = Proposals::start(group.clone());
        Ok(RaftNode { group, proposals, views, failure, syncs })
    }

    /// Raft as the election sees it; changes whenever Raft does.
    pub fn views(&self) -> watch::Receiver<RaftView> {
        self.views.clone()
    }

    /// Becomes `Some` when Raft stops by itself, for example because the disk does not sync: the node must end then.
    pub fn failure(&self) -> watch::Receiver<Option<RaftError>> {
        self.failure.clone()
    }

    /// When this node last accepted an append, empty or not, of a leader.
    pub fn last_append(&self) -> Option<Moment> {
        self.group.last_append()
    }

    /// Begins the log with these members, at most 100 ms. Two nodes that begin with the same members do no harm.
    ///
    /// # Errors
    /// [`CampaignError`].
    pub async fn initialise(&self, members: Vec<MemberId>) -> Result<(), CampaignError> {
        self.group.initialise(members).await
    }

    /// Asks for the confirmation of this node; see [`Group::campaign`].
    ///
    /// # Errors
    /// [`CampaignError`].
    pub async fn campaign(&self, campaign: Campaign, vacancy: Option<Leadership>) -> Result<(), CampaignError> {
        self.group.campaign(campaign, vacancy).await
    }

    /// As leader: hands over to a voter that is ready; see [`Group::hand_over`].
    ///
    /// # Errors
    /// [`HandOverError`].
    pub async fn hand_over(&self, to: MemberId) -> Result<(), HandOverError> {
        self.group.hand_over(to).await
    }

    /// Lets Raft elect by itself, or not.
    pub fn set_native_elections(&self, enabled: bool) {
        self.group.set_native_elections(enabled);
    }

    /// As leader: commits and applies a command.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        self.group.propose(command).await
    }

    /// As leader: commits and applies a write of the ledger, together with others that wait.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn write(&self, write: Write) -> Result<Answer, ProposeError> {
        self.proposals.write(write).await
    }

    /// As leader: everything that was committed before this call is applied when it returns; see [`Group::read_barrier`].
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        self.group.read_barrier().await
    }

    /// As leader: how long ago a majority last confirmed it. A node that is the majority by itself always has it.
    pub fn quorum_age(&self) -> Option<Duration> {
        if self.views.borrow().voters.len() == 1 {
            return Some(Duration::ZERO);
        }
        let acknowledged = self.group.raft().data_metrics().borrow_watched().last_quorum_acked?;
        Some(acknowledged.elapsed())
    }

    /// Reads the ledger as applied here, with the number of entries that it comes from. Keep it brief: nothing is applied meanwhile.
    pub fn read<T>(&self, read: impl FnOnce(&Ledger) -> T) -> (u64, T) {
        let applied = self.group.machine().applied();
        (position(applied.last).length, read(applied.state.ledger()))
    }

    /// Up to `limit` changes of the ledger after a revision, of keys that begin with `prefix`, and the revision up to which they are
    /// all that there are.
    ///
    /// # Errors
    /// [`Forgotten`] if older changes would be needed.
    pub fn changes_after(&self, revision: u64, prefix: &[u8], limit: usize) -> Result<(Vec<Change>, u64), Forgotten> {
        self.group.machine().feed().after(revision, prefix, limit)
    }

    /// Changes when there are new changes of the ledger.
    pub fn ledger_revision(&self) -> watch::Receiver<u64> {
        self.group.machine().feed().revision()
    }

    /// BLAKE3-256 of the whole applied state, with the number of entries that it comes from: equal on all nodes that have applied
    /// the same entries. It takes a while for a large ledger; call it where blocking is allowed.
    ///
    /// # Errors
    /// The state is larger than a snapshot may be.
    pub fn state_hash(&self) -> Result<(u64, [u8; 32]), CodecError> {
        let (length, state) = {
            let applied = self.group.machine().applied();
            (position(applied.last).length, applied.state.clone())
        };
        Ok((length, *blake3::hash(&codec::encode_snapshot(&state)?).as_bytes()))
    }

    /// Answers a request of another node's [`RaftTransport`].
    pub async fn receive(&self, request: Vec<u8>) -> Vec<u8> {
        self.group.receive(request).await
    }

    /// The cluster id, once this node has applied the first membership.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.group.machine().applied().state.cluster_id()
    }

    /// The last elections that were recorded, the oldest first.
    pub fn elections(&self) -> Vec<ElectionResult> {
        self.group.machine().applied().state.elections().cloned().collect()
    }

    /// Why that coordinator was elected, if the log has brought its record here.
    pub fn cause_of(&self, coordinator: Leadership) -> Option<Cause> {
        let machine = self.group.machine().applied();
        machine.state.elections().find(|result| result.coordinator == coordinator).map(|result| result.cause)
    }

    /// For how long the log's disk has been working on a sync without finishing any; zero while nothing waits for it.
    pub fn disk_waits(&self) -> Duration {
        self.syncs.waits(time::now())
    }

    /// Stops Raft on this node.
    pub async fn shutdown(&self) {
        self.group.shutdown().await;
    }
}

/// Makes a directory that survives a power cut.
fn create(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    for ancestor in directory.ancestors().skip(1).take(2) {
        fs::File::open(ancestor)?.sync_all()?;
    }
    Ok(())
}

fn storage_error(node: MemberId, what: &'static str, path: &Path, error: &io::Error) -> RaftError {
    let (path, text) = (path.to_owned(), error.to_string());
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => RaftError::Corrupt { node, path, error: text },
        _ => RaftError::Directory { node, what, path, error: text },
    }
}

/// The view of now. The library's values are cloned at once: while they are borrowed, Raft waits.
fn current_view(group: &Group<Tokio>) -> RaftView {
    let term = group.raft().metrics().borrow_watched().current_term;
    let data = group.raft().data_metrics().borrow_watched().clone();
    let server = group.raft().server_metrics().borrow_watched().clone();
    view::translate(group, term, &data, &server)
}

/// Publishes a view at every change; ends when Raft has ended.
async fn watch_metrics(group: Group<Tokio>, views: watch::Sender<RaftView>, failure: watch::Sender<Option<RaftError>>) {
    let mut metrics = group.raft().metrics();
    loop {
        let running = metrics.borrow_watched().running_state.clone();
        let view = current_view(&group);
        views.send_if_modified(|old| {
            let changed = *old != view;
            *old = view;
            changed
        });
        if let Err(fatal) = running {
            if !matches!(fatal, openraft::errors::Fatal::Stopped) {
                log::error!("{}", group.stopped(&fatal));
                failure.send_replace(Some(group.stopped(&fatal)));
            }
            return;
        }
        if metrics.changed().await.is_err() {
            // Whoever is shut down says so with its last metrics; this one panicked.
            log::error!("{}", group.stopped(&openraft::errors::Fatal::Panicked));
            failure.send_replace(Some(group.stopped(&openraft::errors::Fatal::Panicked)));
            return;
        }
    }
}
