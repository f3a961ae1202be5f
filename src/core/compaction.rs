//! When the log is folded into a snapshot: by size and by age.

use std::time::Duration;

use crate::time::Moment;

/// When a snapshot is made, and what stays behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the log, or as many as the state has, if that is more.
    pub bytes: u64,
    /// Time since the last snapshot, if anything was written.
    pub age: Duration,
    /// Bytes of the log that stay behind a snapshot.
    pub keep: u64,
}

/// What is seen at one look. Lengths count entries from the beginning of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Bytes of the log that are there.
    pub held: u64,
    /// Bytes of the log that were ever written.
    pub written: u64,
    /// Bytes of keys and values.
    pub state: u64,
    /// Entries that are applied.
    pub applied: u64,
    /// Entries that the last snapshot covers.
    pub snapshot: u64,
}

/// Decides when a snapshot is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
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
    pub fn new(limits: Limits, now: Moment, seen: Seen) -> Self {
        let written = seen.written - seen.held;
        Compaction { limits, snapshot: seen.snapshot, written, since: now, asked: None }
    }

    /// Whether a snapshot is due. It is asked for once, until it is there.
    pub fn step(&mut self, now: Moment, seen: Seen) -> bool {
        if seen.snapshot > self.snapshot {
            self.snapshot = seen.snapshot;
            self.written = self.asked.take().unwrap_or(seen.written);
            self.since = now;
        }
        // A snapshot costs as much as the state is large, so a large state waits for as much log.
        let is_large = seen.written - self.written >= self.limits.bytes.max(seen.state);
        let is_old = now.since(self.since) >= self.limits.age;
        let is_due = self.asked.is_none() && seen.applied > seen.snapshot && (is_large || is_old);
        if is_due {
            self.asked = Some(seen.written);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 1000, age: Duration::from_secs(60), keep: 100 };

    fn seen(written: u64, state: u64, applied: u64, snapshot: u64) -> Seen {
        Seen { held: written, written, state, applied, snapshot }
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
