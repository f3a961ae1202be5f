//! The time that a leader stamps on its entries.
//!
//! What is promised in this time is a span, not a date: a key lives as long as it was given, less 1 % at most, and an answer is kept
//! for at least [`ANSWERS_KEPT_MS`](super::ANSWERS_KEPT_MS), whatever the clocks on the walls say. So the ledger's time never runs
//! faster than time does, but for that 1 %. Within one leadership it goes on by the leader's monotonic clock. A leader that begins goes on
//! from the ledger's stamp: how long ago that was set nobody can tell it for certain. The wall clock sets the time of an empty
//! ledger, and later draws it slowly, so that dates come right again.
//!
//! The price is paid on the other side, and is bounded: while nobody leads the ledger's time stands still, and at a change of the
//! leader it loses what had passed since the last entry, at most [`IDLE_MS`] while there is anything that waits for its time. Keys
//! may live longer by that much, until the wall clock has drawn the time after it.

use crate::id::Term;
use crate::protocol::ledger::Stamp;
use crate::time::Moment;

/// The wall clock may make the ledger's time faster or slower by one part in so many: 1 %.
const DRIFT: u64 = 100;

/// A leader without writes stamps an entry of its own so often, in milliseconds, while there is anything that waits for its time.
pub const IDLE_MS: u64 = 10_000;

/// How long a span of the ledger's time must be, in milliseconds, so that at least `span` have passed.
pub(super) const fn at_least(span: u64) -> u64 {
    span + span.div_ceil(DRIFT)
}

/// The time of the ledger as this node stamps it when it leads.
#[derive(Clone, Debug, Default)]
pub struct LeaderClock {
    leads: Option<Leads>,
}

#[derive(Clone, Copy, Debug)]
struct Leads {
    term: Term,
    /// When it was last read.
    at: Moment,
    /// What it showed, in microseconds: so a clock that is read often loses nothing.
    micros: u64,
}

impl LeaderClock {
    /// The time now, for the leader of that term. `wall` is what the wall clock shows, `ledger` the last stamp that was applied.
    pub fn stamp(&mut self, term: Term, now: Moment, wall: Stamp, ledger: Stamp) -> Stamp {
        let begun = if ledger == Stamp::default() { wall } else { ledger };
        let begins = Leads { term, at: now, micros: micros(begun) };
        let last = self.leads.filter(|leads| leads.term == term).unwrap_or(begins);
        let passed = now.since(last.at).as_micros() as u64;
        let (goes_on, drift) = (last.micros.saturating_add(passed), passed / DRIFT);
        let drawn = micros(wall).clamp(goes_on - drift, goes_on.saturating_add(drift));
        // A new leader may learn only now how far its predecessor had come.
        let leads = Leads { term, at: last.at.max(now), micros: drawn.max(micros(ledger)) };
        self.leads = Some(leads);
        Stamp(leads.micros / 1000)
    }
}

fn micros(stamp: Stamp) -> u64 {
    stamp.0.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const START: u64 = 1_700_000_000_000;

    fn at(milliseconds: u64) -> Moment {
        Moment::from_millis(milliseconds)
    }

    /// Reads the clock each 100 ms for a while and gives the last stamp; the wall clock is ahead by `ahead`.
    fn run(clock: &mut LeaderClock, term: u64, from: u64, until: u64, ahead: i64, mut ledger: Stamp) -> Stamp {
        for now in (from..=until).step_by(100) {
            let wall = Stamp((START + now).saturating_add_signed(ahead));
            let stamp = clock.stamp(Term(term), at(now), wall, ledger);
            assert!(stamp >= ledger, "it never goes back");
            ledger = stamp;
        }
        ledger
    }

    #[test]
    fn an_empty_ledger_takes_its_time_from_the_wall() {
        let mut clock = LeaderClock::default();
        assert_eq!(clock.stamp(Term(1), at(5), Stamp(START), Stamp(0)), Stamp(START));
        assert_eq!(clock.stamp(Term(1), at(1_005), Stamp(START + 1_000), Stamp(START)), Stamp(START + 1_000));
    }

    #[test]
    fn a_wall_clock_that_jumps_moves_the_time_by_one_part_in_a_hundred_at_most() {
        for ahead in [HOUR as i64, -(HOUR as i64)] {
            let mut clock = LeaderClock::default();
            let ledger = run(&mut clock, 1, 0, 60_000, 0, Stamp(0));
            assert_eq!(ledger, Stamp(START + 60_000));
            let later = run(&mut clock, 1, 60_100, 120_000, ahead, ledger);
            let passed = later.0 - ledger.0;
            assert_eq!(passed, if ahead > 0 { 60_600 } else { 59_400 }, "{ahead}");
        }
    }

    #[test]
    fn the_wall_clock_draws_the_time_until_both_are_the_same() {
        let mut clock = LeaderClock::default();
        let ledger = run(&mut clock, 1, 0, 1_000, 0, Stamp(0));
        for ahead in [5_000, -5_000] {
            let mut clock = clock.clone();
            let later = run(&mut clock, 1, 1_100, 1_000_000, ahead, ledger);
            assert_eq!(later, Stamp((START + 1_000_000).saturating_add_signed(ahead)));
        }
    }

    /// A leader whose clock is an hour ahead, or behind, changes nothing for what is kept.
    #[test]
    fn a_new_leader_goes_on_from_the_ledgers_time_whatever_its_clock_says() {
        let ledger = Stamp(START + 60_000);
        for ahead in [HOUR as i64, -(HOUR as i64)] {
            let mut clock = LeaderClock::default();
            let first = run(&mut clock, 2, 500, 500, ahead, ledger);
            assert_eq!(first, ledger);
            let later = run(&mut clock, 2, 600, 10_500, ahead, first);
            assert!((9_900..=10_100).contains(&(later.0 - ledger.0)), "{later:?}");
        }
    }

    /// What passed while another node led is that node's to tell.
    #[test]
    fn a_leader_that_comes_back_does_not_count_what_it_missed() {
        let mut clock = LeaderClock::default();
        let ledger = run(&mut clock, 1, 0, 1_000, 0, Stamp(0));
        let by_another = Stamp(ledger.0 + 2_000);
        assert_eq!(clock.stamp(Term(3), at(HOUR), Stamp(START + HOUR), by_another), by_another);
    }

    /// Entries of the leader before may be applied after the first stamp: the time is not before theirs from then on.
    #[test]
    fn the_time_is_never_behind_what_is_applied() {
        let mut clock = LeaderClock::default();
        assert_eq!(clock.stamp(Term(2), at(0), Stamp(START), Stamp(START)), Stamp(START));
        let applied = Stamp(START + 700);
        assert_eq!(clock.stamp(Term(2), at(100), Stamp(START), applied), applied);
        assert_eq!(clock.stamp(Term(2), at(1_100), Stamp(START + 1_100), applied), Stamp(START + 1_690));
    }

    #[test]
    fn an_idle_leader_loses_nothing() {
        let mut clock = LeaderClock::default();
        let ledger = clock.stamp(Term(1), at(0), Stamp(START), Stamp(0));
        assert_eq!(clock.stamp(Term(1), at(HOUR), Stamp(START + HOUR), ledger), Stamp(START + HOUR));
    }

    #[test]
    fn a_span_of_the_ledgers_time_covers_the_same_span_of_time() {
        let mut clock = LeaderClock::default();
        let ledger = run(&mut clock, 1, 0, 100, 0, Stamp(0));
        let fastest = run(&mut clock, 1, 200, 60_100, HOUR as i64, ledger);
        assert!(fastest.0 - ledger.0 <= at_least(60_000));
    }
}
