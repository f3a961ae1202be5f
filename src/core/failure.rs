//! The failure simulation: every so often the dice are thrown, and a node that loses ignores everybody for a while.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::time::Moment;

/// The numbers of the simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Whether the dice are thrown at all; a command works in either case.
    pub random: bool,
    /// Time between two throws.
    pub every: Duration,
    /// Probability of a failure at each throw.
    pub probability: f64,
    /// Shortest random failure.
    pub shortest: Duration,
    /// Longest random failure.
    pub longest: Duration,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time passes.
    Tick,
    /// Somebody outside commands a failure; while failed, it sets the new end.
    Command(Duration),
    /// Somebody outside ends the failure; without one nothing happens.
    End,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ignore all communication from now on.
    Fail {
        /// For how long.
        duration: Duration,
    },
    /// The failure is over: recover.
    Recover,
}

/// The failure simulation of one node.
#[derive(Clone, Debug)]
pub struct Failures {
    settings: Settings,
    random: SmallRng,
    next_throw: Moment,
    failed_until: Option<Moment>,
}

impl Failures {
    /// A simulation that throws first after one full interval.
    pub fn new(settings: Settings, seed: u64, now: Moment) -> Self {
        let next_throw = now + settings.every;
        Failures { settings, random: SmallRng::seed_from_u64(seed), next_throw, failed_until: None }
    }

    /// Takes one input.
    pub fn step(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        match input {
            Input::Command(duration) => self.fail(now, duration),
            Input::End => {
                self.failed_until = self.failed_until.map(|end| end.min(now));
                self.step(now, Input::Tick)
            }
            Input::Tick => match self.failed_until {
                Some(end) if now < end => Vec::new(),
                Some(_) => {
                    self.failed_until = None;
                    self.next_throw = now + self.settings.every;
                    vec![Effect::Recover]
                }
                None => self.throw(now),
            },
        }
    }

    fn throw(&mut self, now: Moment) -> Vec<Effect> {
        if !self.settings.random || now < self.next_throw {
            return Vec::new();
        }
        self.next_throw = now + self.settings.every;
        if !self.random.random_bool(self.settings.probability) {
            return Vec::new();
        }
        let duration = self.random.random_range(self.settings.shortest..=self.settings.longest);
        self.fail(now, duration)
    }

    fn fail(&mut self, now: Moment, duration: Duration) -> Vec<Effect> {
        let already_failed = self.failed_until.replace(now + duration).is_some();
        if already_failed { Vec::new() } else { vec![Effect::Fail { duration }] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            random: true,
            every: Duration::from_secs(30),
            probability: 0.2,
            shortest: Duration::from_secs(10),
            longest: Duration::from_secs(20),
        }
    }

    #[test]
    fn a_failure_can_be_ended_early_and_a_node_without_one_does_not_notice() {
        let mut failures = Failures::new(Settings { random: false, ..settings() }, 1, Moment(0));
        assert_eq!(failures.step(Moment(0), Input::End), []);
        let five = Duration::from_secs(5);
        assert_eq!(failures.step(Moment(0), Input::Command(five)), [Effect::Fail { duration: five }]);
        assert_eq!(failures.step(Moment::from_millis(1000), Input::End), [Effect::Recover]);
        assert_eq!(failures.step(Moment::from_millis(1010), Input::End), []);
        assert_eq!(failures.step(Moment::from_millis(5010), Input::Tick), []);
    }

    #[test]
    fn a_command_fails_the_node_once_and_then_it_recovers() {
        let mut failures = Failures::new(Settings { random: false, ..settings() }, 1, Moment(0));
        let five = Duration::from_secs(5);
        assert_eq!(failures.step(Moment(0), Input::Command(five)), [Effect::Fail { duration: five }]);
        assert_eq!(failures.step(Moment::from_millis(10), Input::Command(five)), []);
        assert_eq!(failures.step(Moment::from_millis(5000), Input::Tick), []);
        assert_eq!(failures.step(Moment::from_millis(5010), Input::Tick), [Effect::Recover]);
        assert_eq!(failures.step(Moment::from_millis(5020), Input::Tick), []);
    }

    #[test]
    fn one_throw_in_five_fails_the_node_for_ten_to_twenty_seconds() {
        let (mut thrown, mut failed) = (0, 0);
        for seed in 0..2000 {
            let mut failures = Failures::new(settings(), seed, Moment(0));
            assert_eq!(failures.step(Moment::from_millis(29_999), Input::Tick), []);
            thrown += 1;
            for effect in failures.step(Moment::from_millis(30_000), Input::Tick) {
                let Effect::Fail { duration } = effect else { panic!("{effect:?}") };
                assert!((10..=20).contains(&duration.as_secs()), "{duration:?}");
                failed += 1;
            }
        }
        let share = f64::from(failed) / f64::from(thrown);
        assert!((0.16..0.24).contains(&share), "{share} of the throws failed a node");
    }

    #[test]
    fn dice_rest_when_switched_off() {
        let mut failures = Failures::new(Settings { random: false, probability: 1.0, ..settings() }, 1, Moment(0));
        assert_eq!(failures.step(Moment::from_millis(90_000), Input::Tick), []);
    }
}
