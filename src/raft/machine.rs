//! The state machine as the library wants it: applies entries to the pure [`State`], makes and installs snapshots.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{AsyncRuntime, EntryPayload, OptionalSend};

use crate::id::MemberId;
use crate::protocol::codec::{self, CodecError};
use crate::protocol::membership::Place;
use crate::raft::feed::Feed;
use crate::raft::snapshot::SnapshotStore;
use crate::raft::state::State;
use crate::raft::types::{LogId, Outcome, Snapshot, SnapshotMeta, StoredMembership, Types};

/// The state machine of one node. Clones share it.
#[derive(Clone)]
pub struct Machine {
    applied: Arc<Mutex<Applied>>,
    feed: Feed,
    snapshots: Arc<dyn SnapshotStore>,
    /// What the stored snapshot covers; held while the next one is stored.
    stored: Arc<Mutex<Option<LogId>>>,
}

/// The state and how far it has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// The last entry applied.
    pub last: Option<LogId>,
    /// The last membership applied.
    pub membership: StoredMembership,
    /// What the entries add up to.
    pub state: State,
}

impl Machine {
    /// Starts from the latest snapshot, if there is one.
    ///
    /// # Errors
    /// The store's, or `InvalidData`.
    pub fn load(snapshots: Arc<dyn SnapshotStore>) -> io::Result<Machine> {
        let applied = match load(snapshots.as_ref())? {
            Some(snapshot) => Applied {
                last: snapshot.meta.last_log_id,
                membership: snapshot.meta.last_membership,
                state: codec::decode_snapshot(&snapshot.snapshot).map_err(invalid)?,
            },
            None => Applied::default(),
        };
        let feed = Feed::new(applied.state.ledger().revision());
        let stored = Arc::new(Mutex::new(applied.last));
        Ok(Machine { applied: Arc::new(Mutex::new(applied)), feed, snapshots, stored })
    }

    /// The state as applied so far. Hold it briefly: nothing is applied meanwhile.
    pub fn applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last changes of the ledger.
    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Stores a snapshot, unless a later one is there: the leader's may have come while this one was made, and the log may be purged
    /// up to that.
    fn save(&self, meta: &SnapshotMeta, state: &[u8]) -> io::Result<()> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if meta.last_log_id >= *stored {
            self.snapshots.save(&codec::encode(meta).map_err(invalid)?, state)?;
            *stored = meta.last_log_id;
        }
        Ok(())
    }

    /// Makes a snapshot of what is applied now.
    fn snapshot(&self) -> io::Result<Snapshot> {
        let applied = self.applied().clone();
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership };
        let snapshot = codec::encode_snapshot(&applied.state).map_err(unfit)?;
        self.save(&meta, &snapshot)?;
        Ok(Snapshot { meta, snapshot })
    }
}

fn load(snapshots: &dyn SnapshotStore) -> io::Result<Option<Snapshot>> {
    let Some(stored) = snapshots.load()? else { return Ok(None) };
    let meta = codec::decode(&stored.description).map_err(invalid)?;
    Ok(Some(Snapshot { meta, snapshot: stored.state }))
}

/// Does what takes long for a large ledger on a thread of its own: heartbeats and Raft share one. Without tokio, as in the
/// simulation, it is done at once.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await.map_err(io::Error::other)?,
        Err(_) => work(),
    }
}

fn invalid(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The state outgrew what a snapshot may have, which the limits of the ledger and of its kept answers are there to prevent.
fn unfit(error: CodecError) -> io::Error {
    let what = format!(
        "the state does not fit a snapshot, the disk is sound: {error}; lower limits.ledger_mib and delete keys"
    );
    io::Error::new(io::ErrorKind::FileTooLarge, what)
}

impl<R: AsyncRuntime> RaftStateMachine<Types<R>> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.applied();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types<R>>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut changes = Vec::new();
            let outcome = {
                let mut applied = self.applied();
                applied.last = Some(entry.log_id);
                match entry.payload {
                    EntryPayload::Blank => Outcome::Recorded,
                    EntryPayload::Normal(command) => {
                        applied.state.apply(entry.log_id.index() + 1, command, &mut changes)
                    }
                    EntryPayload::Membership(membership) => {
                        let ids = |nodes: &mut dyn Iterator<Item = (&MemberId, &Place)>| {
                            nodes.map(|(member, _)| *member).collect::<BTreeSet<_>>()
                        };
                        let before = ids(&mut applied.membership.nodes());
                        applied.state.apply_membership(&before, &ids(&mut membership.nodes()));
                        applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                        Outcome::Recorded
                    }
                }
            };
            self.feed.push(changes);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Vec<u8>) -> Result<(), io::Error> {
        let (machine, covers) = (self.clone(), meta.clone());
        let state = aside(move || {
            let state: State = codec::decode_snapshot(&snapshot).map_err(invalid)?;
            // On disk first: the library purges the log that the snapshot replaces as soon as this is installed.
            machine.save(&covers, &snapshot).map(|()| state)
        });
        let state = state.await?;
        let revision = state.ledger().revision();
        *self.applied() = Applied { last: meta.last_log_id, membership: meta.last_membership.clone(), state };
        self.feed.restart(revision);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        aside(move || load(snapshots.as_ref())).await
    }
}

impl<R: AsyncRuntime> RaftSnapshotBuilder<Types<R>> for Machine {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let machine = self.clone();
        aside(move || machine.snapshot()).await
    }
}
