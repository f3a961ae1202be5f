//! For how long the disk has been working on a sync: a disk that stalls says nothing, it only does not answer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Moment;

/// The syncs of one log that are under way.
#[derive(Debug, Default)]
pub struct SyncClock(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    syncs: u64,
    /// When the first of them began, or when the disk last finished another.
    since: Moment,
}

impl SyncClock {
    /// A sync begins.
    pub fn begin(&self, now: Moment) {
        let mut waiting = self.waiting();
        if waiting.syncs == 0 {
            waiting.since = now;
        }
        waiting.syncs += 1;
    }

    /// A sync ends: the disk works.
    pub fn end(&self, now: Moment) {
        let mut waiting = self.waiting();
        waiting.syncs = waiting.syncs.saturating_sub(1);
        waiting.since = now;
    }

    /// For how long the disk has finished nothing although something waits for it; zero while nothing does.
    pub fn waits(&self, now: Moment) -> Duration {
        let waiting = self.waiting();
        if waiting.syncs == 0 { Duration::ZERO } else { now.since(waiting.since) }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Moment {
        Moment::from_millis(milliseconds)
    }

    /// Only a disk that finishes nothing stalls: neither an idle one nor a busy one does.
    #[test]
    fn a_stall_is_the_time_without_a_finished_sync() {
        let clock = SyncClock::default();
        assert_eq!(clock.waits(ms(9000)), Duration::ZERO, "nothing waits");
        clock.begin(ms(9000));
        clock.begin(ms(9400));
        assert_eq!(clock.waits(ms(9500)), Duration::from_millis(500));
        clock.end(ms(9500));
        assert_eq!(clock.waits(ms(9600)), Duration::from_millis(100), "one came back");
        clock.end(ms(9700));
        assert_eq!(clock.waits(ms(9999)), Duration::ZERO);
    }
}
