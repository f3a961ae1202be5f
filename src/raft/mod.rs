//! Raft: confirms the coordinator and orders the log. The only folder that names the Raft library.
//!
//! ```text
//! RaftNode ──── Group ──┬── Network ── RaftTransport (the node's connections)
//!   tokio  │    any     ├── LogStore   raft/log/        (a thread writes and syncs; Compaction keeps it short)
//!          │    runtime └── Machine    raft/snapshot/   (pure State, snapshot file; Feed: the last changes)
//!          └─ Proposals (writes that wait share an entry)
//! ```
//!
//! `view` translates the library's metrics for the election, `ballot` remembers who voted, `members` changes the membership,
//! `compaction` keeps the log short, `sync_clock` tells how the disk keeps up, `pace` when each follower is sent what.
//!
//! `group`, `network` and `machine` run on any runtime: they are what the simulation runs, with stores in memory.

pub mod error;
pub mod group;
pub mod log_store;
pub mod machine;
pub mod snapshot;
pub mod state;
pub mod sync_clock;
pub mod types;

mod ballot;
mod compaction;
mod feed;
pub mod forward;
mod members;
mod network;
mod pace;
mod proposals;
#[cfg(test)]
mod tests;

mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;

pub use self::error::{CampaignError, HandOverError, HashError, ProposeError, RaftError};
pub use self::feed::Forgotten;
pub use self::forward::Written;
pub use self::members::MembershipError;
pub use self::network::{RaftTransport, TransportError};
pub use self::types::{Command, Outcome};

use self::group::Group;
use self::log_store::{LogStore, SEGMENT_BYTES};
use self::machine::Machine;
use self::proposals::Proposals;
use self::snapshot::FileSnapshots;
use self::sync_clock::SyncClock;
use self::types::{Tokio, position};
use crate::core::election::RaftView;
use crate::core::ledger::Ledger;
use crate::core::membership::Roster;
use crate::id::{ClusterId, LogPosition, MemberId};
use crate::protocol::codec;
use crate::protocol::election::{Campaign, Cause, ElectionResult};
use crate::protocol::ledger::{Answer, Change, Write};
use crate::protocol::membership::Place;
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
    /// Bytes of the log after which a snapshot is made (64 MiB), or as many as keys and values have, if that is more.
    pub snapshot_after_bytes: u64,
    /// Time after which a snapshot is made if anything was committed since the last one (1 h).
    pub snapshot_after_time: Duration,
    /// Entries kept behind a snapshot, so that a node that was away briefly needs no snapshot (1,000).
    pub keep_after_snapshot: u64,
    /// Bytes of the log that these entries may take (16 MiB); the last file stays in any case.
    pub keep_bytes: u64,
    /// Bytes that the ledger may hold, as [`Ledger::footprint_bytes`] counts them (512 MiB). All of it is in memory, and in each snapshot.
    pub ledger_bytes: u64,
    /// Bytes of kept answers over which new requests are refused (256 MiB): what 46,000 writes a second leave in the minute that answers
    /// are kept, and the fastest writers that were measured write less. With the largest table they still fit a snapshot.
    pub answers_bytes: u64,
    /// Size to which each file of the log grows; files are deleted whole (8 MiB).
    pub segment_bytes: usize,
    /// Writes that may wait for their answers; the next one is refused at once (256).
    pub waiting_writes: usize,
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
            snapshot_after_bytes: 64 << 20,
            snapshot_after_time: Duration::from_secs(3600),
            keep_after_snapshot: 1_000,
            keep_bytes: 16 << 20,
            ledger_bytes: 512 << 20,
            answers_bytes: 256 << 20,
            segment_bytes: SEGMENT_BYTES,
            waiting_writes: 256,
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
    rosters: watch::Receiver<Roster>,
    fault: watch::Receiver<Option<RaftError>>,
    syncs: Arc<SyncClock>,
    ledger_bytes: u64,
    /// Held while the state is hashed.
    hashing: Arc<Mutex<()>>,
}

impl RaftNode {
    /// Opens log and snapshot and takes part from now on. Nothing that computes for long may share the runtime's thread.
    ///
    /// # Errors
    /// [`RaftError::Directory`], [`RaftError::Corrupt`], [`RaftError::Settings`], [`RaftError::Stopped`].
    pub async fn open(settings: RaftSettings, transport: Arc<dyn RaftTransport>) -> Result<RaftNode, RaftError> {
        let log_directory = settings.directory.join("log");
        let snapshot_directory = settings.directory.join("snapshot");
        for directory in [&log_directory, &snapshot_directory] {
            create(directory).map_err(|error| storage_error(settings.member, "create", directory, &error))?;
        }
        let machine = FileSnapshots::open(&snapshot_directory)
            .and_then(|snapshots| Machine::load(Arc::new(snapshots)))
            .map_err(|error| storage_error(settings.member, "read", &snapshot_directory, &error))?;
        let begun = settings.directory.with_extension("begun");
        let log_store = LogStore::open(&log_directory, &begun, settings.segment_bytes, settings.member)
            .map_err(|error| storage_error(settings.member, "open", &log_directory, &error))?;
        let (syncs, disk, followers) = (log_store.syncs(), log_store.disk(), log_store.followers());
        let group = Group::start(&settings, transport, log_store, machine).await?;
        group.pace().set_log(followers);

        // The library has published what it read from disk when it answers this. An empty view would be taken for a first start.
        let answer = group.raft().with_raft_state(|_| ()).await;
        answer.map_err(|fatal| group.stopped(&fatal))?;
        let (view_sender, views) = watch::channel(current_view(&group));
        let (roster_sender, rosters) = watch::channel(group.roster());
        let (fault_sender, fault) = watch::channel(None);
        tokio::spawn(watch_metrics(group.clone(), view_sender, roster_sender, fault_sender));
        tokio::spawn(finish_changes(group.clone(), rosters.clone()));
        tokio::spawn(compaction::compact(group.clone(), disk, compaction::Limits::from(&settings)));
        let proposals = Proposals::start(group.clone(), settings.waiting_writes, settings.answers_bytes);
        let (ledger_bytes, hashing) = (settings.ledger_bytes, Arc::default());
        Ok(RaftNode { group, proposals, views, rosters, fault, syncs, ledger_bytes, hashing })
    }

    /// Raft as the election sees it; changes whenever Raft does.
    pub fn views(&self) -> watch::Receiver<RaftView> {
        self.views.clone()
    }

    /// The membership as this node knows it; changes whenever that does.
    pub fn rosters(&self) -> watch::Receiver<Roster> {
        self.rosters.clone()
    }

    /// Becomes `Some` when Raft stops by itself, for example because the disk does not sync: the node must end then.
    pub fn fault(&self) -> watch::Receiver<Option<RaftError>> {
        self.fault.clone()
    }

    /// When this node last accepted an append, empty or not, of a leader.
    pub fn last_append(&self) -> Option<Moment> {
        self.group.last_append()
    }

    /// Begins the log with these members and their places, at most 100 ms. Two nodes that begin with the same members do no harm.
    ///
    /// # Errors
    /// [`CampaignError`].
    pub async fn initialise(&self, members: BTreeMap<MemberId, Place>) -> Result<(), CampaignError> {
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

    /// As leader: takes a member in as a learner; see [`Group::take_in`].
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn take_in(&self, roster: &Roster, member: MemberId, place: Place) -> Result<(), MembershipError> {
        self.group.take_in(roster, member, place).await
    }

    /// As leader: waits until that member has nearly everything.
    ///
    /// # Errors
    /// [`MembershipError::Behind`], [`MembershipError::NotLeader`].
    pub async fn wait_until_caught_up(&self, member: MemberId, limit: Duration) -> Result<(), MembershipError> {
        self.group.wait_until_caught_up(member, limit).await
    }

    /// As leader: one member becomes a voter and others leave, in one step; see [`Group::change_voters`].
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn change_voters(
        &self,
        roster: &Roster,
        comes: Option<MemberId>,
        leaves: &BTreeSet<MemberId>,
    ) -> Result<(), MembershipError> {
        self.group.change_voters(roster, comes, leaves).await
    }

    /// Which of these members answer at this moment; see [`Group::answering`].
    pub async fn answering(&self, members: &BTreeSet<MemberId>) -> BTreeSet<MemberId> {
        self.group.answering(members).await
    }

    /// The membership of this moment; [`rosters`](RaftNode::rosters) may lag behind it.
    pub fn roster(&self) -> Roster {
        self.group.roster()
    }

    /// As leader: how many entries that member is known to have, and how many there are.
    pub fn progress(&self, member: MemberId) -> Option<(u64, u64)> {
        self.group.progress(member)
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

    /// Whether this node leads, by what Raft has told last.
    pub fn leads(&self) -> bool {
        self.group.must_lead().is_ok()
    }

    /// Whether as many writes wait for their answers as may wait: the next one would be refused.
    pub fn is_full_of_writes(&self) -> bool {
        self.proposals.is_full()
    }

    /// Resolves when every write that this node has taken is answered. What it had in its log when it handed over, the next leader commits and
    /// tells it.
    pub async fn writes_answered(&self) {
        self.proposals.all_answered().await;
    }

    /// As leader: commits and applies a write of the ledger, together with others that wait.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn write(&self, write: Write) -> Result<Answer, ProposeError> {
        // Whoever comes to the wrong node is told at once, and takes nobody's place among those that wait.
        self.group.must_lead()?;
        self.has_room(&write)?;
        self.proposals.write(write).await
    }

    /// Commits and applies a write of a user: here if this node leads, else at the leader, to whom it is handed on. Whoever calls this
    /// has checked its signature.
    ///
    /// # Errors
    /// [`ProposeError`]; `NotLeader` only if no leader is known, or the one that is known is none.
    pub async fn write_anywhere(&self, write: Write) -> Result<Written, ProposeError> {
        forward::write(self, write).await
    }

    /// As leader: refuses a write that would let the ledger grow over its limit. What only deletes is welcome then, and what was done
    /// already.
    fn has_room(&self, write: &Write) -> Result<(), ProposeError> {
        if !self.group.machine().applied().state.ledger().has_room(write, self.ledger_bytes) {
            return Err(ProposeError::Full { limit: self.ledger_bytes });
        }
        Ok(())
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

    /// The ledger as applied here, with the number of entries that it comes from, for what takes longer: a few pointers are copied.
    pub fn ledger(&self) -> (u64, Ledger) {
        self.read(Ledger::clone)
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
    /// [`HashError::Busy`] while another one is made: each keeps a core busy, and the state of its beginning in memory.
    pub fn state_hash(&self) -> Result<(u64, [u8; 32]), HashError> {
        let _alone = match self.hashing.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(HashError::Busy),
            held => held,
        };
        let (length, state) = {
            let applied = self.group.machine().applied();
            (position(applied.last).length, applied.state.clone())
        };
        Ok((length, codec::hash(&state)?))
    }

    /// Answers a request of the [`RaftTransport`] of `caller`.
    pub async fn receive(&self, caller: MemberId, request: Vec<u8>) -> Vec<u8> {
        self.group.receive(caller, request, |write| forward::take(self, write)).await
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
    fs::create_dir_all(directory)?;
    // Also if it is there: whoever made it may have been killed before it was synced.
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

/// How late a view may tell how far the log has come. That changes several times with every write, and each view wakes a thread.
const PROGRESS_PAUSE: Duration = Duration::from_millis(10);

/// Publishes a view at every change, those of the log's progress not at once; ends when Raft has ended.
async fn watch_metrics(
    group: Group<Tokio>,
    views: watch::Sender<RaftView>,
    rosters: watch::Sender<Roster>,
    fault: watch::Sender<Option<RaftError>>,
) {
    let mut metrics = group.raft().metrics();
    let mut server = group.raft().server_metrics();
    let mut memberships = None;
    loop {
        let running = metrics.borrow_watched().running_state.clone();
        // The roster goes first: whoever learns of a new voter must be able to reach it. It is made anew only when it can differ.
        let known = group.known_memberships();
        if memberships != Some(known) {
            memberships = Some(known);
            let roster = group.roster();
            rosters.send_if_modified(|old| {
                let changed = *old != roster;
                *old = roster;
                changed
            });
        }
        let view = current_view(&group);
        views.send_if_modified(|old| {
            let changed = *old != view;
            *old = view;
            changed
        });
        if let Err(fatal) = running {
            if !matches!(fatal, openraft::errors::Fatal::Stopped) {
                log::error!("{}", group.stopped(&fatal));
                fault.send_replace(Some(group.stopped(&fatal)));
            }
            return;
        }
        let progress = async {
            tokio::time::sleep(PROGRESS_PAUSE).await;
            metrics.changed().await.is_ok()
        };
        // Votes, leaders and memberships are told at once.
        let is_alive = tokio::select! {
            changed = server.changed() => changed.is_ok(),
            is_alive = progress => is_alive,
        };
        // What stopped it stands in its last metrics, which may have come meanwhile.
        if !is_alive && metrics.borrow_watched().running_state.is_ok() {
            // Whoever is shut down says so with its last metrics; this one panicked.
            log::error!("{}", group.stopped(&openraft::errors::Fatal::Panicked));
            fault.send_replace(Some(group.stopped(&openraft::errors::Fatal::Panicked)));
            return;
        }
    }
}

/// A change of voters that has stood unfinished for so long was begun by a leader that is gone.
const UNFINISHED: Duration = Duration::from_secs(1);

/// Finishes, whenever this node leads, what a leader before it has left half done; ends when Raft has ended.
async fn finish_changes(group: Group<Tokio>, mut rosters: watch::Receiver<Roster>) {
    while rosters.wait_for(Roster::is_changing).await.is_ok() {
        let begun = group.roster();
        tokio::time::sleep(UNFINISHED).await;
        let roster = group.roster();
        if roster.is_changing()
            && roster == begun
            && let Err(error) = group.finish_change(&roster).await
        {
            // Who does not lead cannot, and whoever leads tries the same.
            log::debug!("node {}: an unfinished change of members stands: {error}", group.me());
        }
    }
}
