//! How long a leader waits for more writes before it proposes those that it has, and how many entries it has under way: **pure**.
//!
//! An entry costs a sync on each disk, a message to each follower and a turn of every thread on the way, however many writes it has.
//! Clients that have been answered mostly come again, a moment after the others that had to wait. So those who are to be expected are
//! waited for: as many as the last entry had, and as many as had not been answered when it was done. If they all come, two halves that
//! would have taken turns share one entry; if they do not, the wait is over after twice what the last entry took.
//!
//! Of very many, halves do take turns: two entries are under way at a time, and each waits for its half, so that the one is read and
//! answered while the other is on its way to the disks.
//!
//! Clients that do not wait for answers are not told from those that do: where many of them write at once, an entry then has three times
//! as many writes, and a write takes up to four times as long as an entry instead of two.

use std::time::Duration;

/// With fewer to come nobody waits: one client alone is answered at once.
const LEAST: usize = 8;

/// From so many clients on there are two entries: each is then large enough to be worth its price.
const MANY: usize = 128;

/// A wait shorter than this is none: timers go by the millisecond.
const SHORTEST: Duration = Duration::from_millis(1);

/// Nobody waits longer.
const LONGEST: Duration = Duration::from_millis(5);

/// Who is to be expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gathering {
    expected: usize,
    patience: Duration,
}

impl Gathering {
    /// How many entries may be under way at a time, at least 1.
    pub fn entries_at_once(&self) -> usize {
        if self.expected >= MANY { 2 } else { 1 }
    }

    /// How much longer to wait for another write of this entry, when so many have come, so many are under way in the other one, and the
    /// wait has lasted so long; none: propose them.
    pub fn wait(&self, come: usize, under_way: usize, waited: Duration) -> Option<Duration> {
        let share = self.expected.div_ceil(self.entries_at_once());
        let expected = share.min(self.expected.saturating_sub(under_way));
        if expected < LEAST || come >= expected {
            return None;
        }
        self.patience.checked_sub(waited).filter(|left| !left.is_zero() && self.patience >= SHORTEST)
    }

    /// An entry of so many writes is done; it took so long, and so many others are waiting now, gathered already, or under way in another
    /// one.
    pub fn is_done(&mut self, writes: usize, took: Duration, others: usize) {
        *self = Gathering { expected: writes + others, patience: (2 * took).min(LONGEST) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn after(writes: usize, took: Duration, waiting: usize) -> Gathering {
        let mut gathering = Gathering::default();
        gathering.is_done(writes, took, waiting);
        gathering
    }

    #[test]
    fn nobody_waits_for_nobody() {
        assert_eq!(Gathering::default().wait(1, 0, Duration::ZERO), None);
        assert_eq!(after(1, MS, 0).wait(1, 0, Duration::ZERO), None, "one client alone");
        assert_eq!(after(3, MS, 4).wait(5, 0, Duration::ZERO), None, "a few");
        assert_eq!(after(8, MS / 4, 8).wait(8, 0, Duration::ZERO), None, "too short to wait for");
    }

    #[test]
    fn who_was_answered_and_who_is_waiting_are_expected_for_twice_what_the_last_entry_took() {
        let gathering = after(8, 2 * MS, 8);
        assert_eq!(gathering.wait(8, 0, Duration::ZERO), Some(4 * MS));
        assert_eq!(gathering.wait(15, 0, 3 * MS), Some(MS));
        assert_eq!(gathering.wait(16, 0, MS), None, "all are here");
        assert_eq!(gathering.wait(15, 0, 4 * MS), None, "they do not come");
        assert_eq!(after(8, 1000 * MS, 8).wait(8, 0, Duration::ZERO), Some(LONGEST));
    }

    /// Two entries under way share the clients between them.
    #[test]
    fn very_many_go_in_two_halves() {
        assert_eq!(after(100, MS, 27).entries_at_once(), 1);
        let gathering = after(100, 2 * MS, 29);
        assert_eq!(gathering.entries_at_once(), 2);
        assert_eq!(gathering.wait(64, 0, MS), Some(3 * MS));
        assert_eq!(gathering.wait(65, 0, MS), None, "half of them are here");
        assert!(gathering.wait(28, 100, MS).is_some());
        assert_eq!(gathering.wait(29, 100, MS), None, "all are here or under way");
    }

    /// Clients that go away are waited for once.
    #[test]
    fn who_has_not_come_is_not_expected_again() {
        let mut gathering = after(32, MS, 32);
        assert!(gathering.wait(32, 0, Duration::ZERO).is_some());
        gathering.is_done(32, MS, 0);
        assert_eq!(gathering.wait(32, 0, Duration::ZERO), None);
    }
}
