//! Keeps the log short by size and by age; by number of entries the library does it alone.
//!
//! What a node takes on disk is bounded by the log at which a snapshot is made, what is written while it is made, and two snapshots
//! (the next one is written beside the last).

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use crate::raft::RaftSettings;
use crate::raft::group::Group;
use crate::raft::log_store::{LogBytes, LogDisk};
use crate::raft::types::{Tokio, position};
use crate::time::{self, Moment};

/// How often it is looked. A log that grows by 100 MiB a second is 5 MiB over its limit then.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// When a snapshot is made, and what stays behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    bytes: u64,
    age: Duration,
    keep: u64,
}

impl From<&RaftSettings> for Limits {
    fn from(settings: &RaftSettings) -> Self {
        let RaftSettings { snapshot_after_bytes, snapshot_after_time, keep_bytes, .. } = settings;
        Limits { bytes: *snapshot_after_bytes, age: *snapshot_after_time, keep: *keep_bytes }
    }
}

/// What is seen at one look. Lengths count entries from the beginning of the log.
#[derive(Clone, Copy, Debug)]
struct Seen {
    log: LogBytes,
    /// Bytes of keys and values.
    state: u64,
    applied: u64,
    snapshot: u64,
}

/// Decides when a snapshot is due.
#[derive(Debug)]
struct Compaction {
    limits: Limits,
    /// The length that the last snapshot covers, how much had been written when it was begun, and since when it is there.
    snapshot: u64,
    written: u64,
    since: Moment,
    /// How much had been written when the next one was asked for.
    asked: Option<u64>,
}

impl Compaction {
    /// What lies in the log at the start counts as written since the last snapshot.
    fn new(limits: Limits, now: Moment, seen: Seen) -> Self {
        let written = seen.log.written - seen.log.held;
        Compaction { limits, snapshot: seen.snapshot, written, since: now, asked: None }
    }

    /// Whether a snapshot is due. It is asked for once, until it is there.
    fn step(&mut self, now: Moment, seen: Seen) -> bool {
        if seen.snapshot > self.snapshot {
            self.snapshot = seen.snapshot;
            self.written = self.asked.take().unwrap_or(seen.log.written);
            self.since = now;
        }
        // A snapshot costs as much as the state is large, so a large state waits for as much log.
        let is_large = seen.log.written - self.written >= self.limits.bytes.max(seen.state);
        let is_old = now.since(self.since) >= self.limits.age;
        let is_due = self.asked.is_none() && seen.applied > seen.snapshot && (is_large || is_old);
        if is_due {
            self.asked = Some(seen.log.written);
        }
        is_due
    }
}

/// Looks after the log until it is closed or Raft has stopped.
pub(crate) async fn compact(group: Group<Tokio>, disk: LogDisk, limits: Limits) {
    let look = || {
        let log = disk.bytes()?;
        let metrics = group.raft().data_metrics().borrow_watched().clone();
        let (applied, snapshot) = (position(metrics.last_applied).length, position(metrics.snapshot).length);
        let state = group.machine().applied().state.ledger().size_bytes();
        Some((Seen { log, state, applied, snapshot }, position(metrics.purged).length))
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
        let upto =
            snapshot.filter(|_| seen.log.held > limits.keep).and_then(|last| disk.dispensable(limits.keep, last));
        if let Some(upto) = upto.filter(|upto| *upto >= purged)
            && group.raft().trigger().purge_log(upto).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 1000, age: Duration::from_secs(60), keep: 100 };

    fn seen(written: u64, state: u64, applied: u64, snapshot: u64) -> Seen {
        Seen { log: LogBytes { held: written, written }, state, applied, snapshot }
    }

    fn begun() -> Compaction {
        Compaction::new(LIMITS, Moment(0), seen(0, 0, 0, 0))
    }

    /// One snapshot for so many bytes of log, however long it takes and however large the log stays behind it.
    #[test]
    fn a_snapshot_is_asked_for_once_when_the_log_is_large() {
        let mut compaction = begun();
        let now = Moment(0);
        assert!(!compaction.step(now, seen(999, 0, 9, 0)));
        assert!(compaction.step(now, seen(1000, 0, 10, 0)));
        assert!(!compaction.step(now, seen(5000, 0, 50, 0)), "it is being made");
        assert!(
            compaction.step(now, seen(5000, 0, 50, 10)),
            "it is there, and 4000 bytes have been written since it was begun"
        );
        assert!(!compaction.step(now, seen(5999, 0, 59, 50)));
        assert!(compaction.step(now, seen(6000, 0, 60, 50)));
        // One that was made for the number of entries counts too.
        assert!(!compaction.step(now, seen(6100, 0, 61, 61)));
    }

    #[test]
    fn a_large_state_waits_for_as_much_log() {
        let mut compaction = begun();
        assert!(!compaction.step(Moment(0), seen(2999, 3000, 9, 0)));
        assert!(compaction.step(Moment(0), seen(3000, 3000, 9, 0)));
    }

    #[test]
    fn an_old_snapshot_is_replaced_if_anything_was_written() {
        let mut compaction = begun();
        let minute = Moment::from_millis(60_000);
        assert!(!compaction.step(minute, seen(0, 0, 0, 0)), "nothing to keep");
        assert!(!compaction.step(Moment::from_millis(59_999), seen(10, 0, 1, 0)));
        assert!(compaction.step(minute, seen(10, 0, 1, 0)));
        assert!(!compaction.step(minute, seen(10, 0, 1, 1)));
        assert!(!compaction.step(Moment::from_millis(120_000), seen(10, 0, 1, 1)), "nothing was written");
    }
}
