//! Keeps the log short by size and by age, as `core::compaction` decides; by number of entries the library does it alone.
//!
//! What a node takes on disk is bounded by the log at which a snapshot is made, what is written while it is made, and two snapshots
//! (the next one is written beside the last).

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

pub(crate) use crate::core::compaction::Limits;

use crate::core::compaction::{Compaction, Seen};
use crate::raft::RaftSettings;
use crate::raft::group::Group;
use crate::raft::log_store::{LogBytes, LogDisk};
use crate::raft::types::{Tokio, position};
use crate::time;

/// How often it is looked. A log that grows by 100 MiB a second is 5 MiB over its limit then.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl From<&RaftSettings> for Limits {
    fn from(settings: &RaftSettings) -> Self {
        let RaftSettings { snapshot_after_bytes, snapshot_after_time, keep_bytes, .. } = settings;
        Limits { bytes: *snapshot_after_bytes, age: *snapshot_after_time, keep: *keep_bytes }
    }
}

/// Looks after the log until it is closed or Raft has stopped.
pub(crate) async fn compact(group: Group<Tokio>, disk: LogDisk, limits: Limits) {
    let look = || {
        let LogBytes { held, written } = disk.bytes()?;
        let metrics = group.raft().data_metrics().borrow_watched().clone();
        let (applied, snapshot) = (position(metrics.last_applied).length, position(metrics.snapshot).length);
        let state = group.machine().applied().state.ledger().footprint_bytes();
        Some((Seen { held, written, state, applied, snapshot }, position(metrics.purged).length))
    };
    let Some((seen, _)) = look() else { return };
    let mut compaction = Compaction::new(limits, time::now(), seen);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some((seen, purged)) = look() else { return };
        if compaction.step(time::now(), seen) && group.raft().trigger().snapshot().await.is_err() {
            return;
        }
        let snapshot = seen.snapshot.checked_sub(1);
        let upto = snapshot.filter(|_| seen.held > limits.keep).and_then(|last| disk.dispensable(limits.keep, last));
        if let Some(upto) = upto.filter(|upto| *upto >= purged)
            && group.raft().trigger().purge_log(upto).await.is_err()
        {
            return;
        }
    }
}
