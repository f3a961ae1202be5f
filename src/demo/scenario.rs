//! The scenario: **pure**. Progress and node states in, commands out; no clock, no I/O.
//!
//! At 25 % of the requests the coordinator fails until 45 % are done. From 65 % on, once every node is Active again, another
//! node fails for the same share of the requests. A failure lasts at least one second and at most five, and there are never
//! two at once. A node that has failed hears nobody, so a cluster of the demo's own is told over a line apart when to come
//! back, and an attached one gets the length of the failure with the command, estimated from the progress so far.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::id::NodeId;
use crate::protocol::status::NodeState;

/// The shortest failure of the scenario.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// The longest failure of the scenario.
pub const LONGEST: Duration = Duration::from_secs(5);
const FIRST_AT_PERCENT: u64 = 25;
const SECOND_AT_PERCENT: u64 = 65;
const SPAN_PERCENT: u64 = 20;

/// How a failure is brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By [`Command::Recover`].
    OnCommand,
    /// By itself, after the duration that [`Command::Fail`] named.
    Estimated,
}

/// The numbers of the scenario.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Requests of the whole run.
    pub total: u64,
    /// How a failure ends.
    pub ending: Ending,
}

/// What the run looks like now.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Time since the load began.
    pub now: Duration,
    /// Requests that have their result.
    pub done: u64,
    /// Every node; none for one that does not answer.
    pub nodes: BTreeMap<NodeId, Option<NodeState>>,
    /// The confirmed coordinator.
    pub coordinator: Option<NodeId>,
}

impl Observation {
    /// Whether every node is Active.
    pub fn all_active(&self) -> bool {
        self.nodes.values().all(|state| *state == Some(NodeState::Active))
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// This node fails.
    Fail {
        /// Which.
        node: NodeId,
        /// For how long, unless [`Command::Recover`] comes first.
        duration: Duration,
    },
    /// The failure of this node is over.
    Recover {
        /// Which.
        node: NodeId,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting { failures_so_far: u64 },
    Failing { failures_so_far: u64, node: NodeId, since: Duration, duration: Duration },
}

/// The state of the scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    settings: Settings,
    phase: Phase,
    failed_before: Option<NodeId>,
}

impl Scenario {
    /// A scenario before its first failure.
    pub fn new(settings: Settings) -> Self {
        Scenario { settings, phase: Phase::Waiting { failures_so_far: 0 }, failed_before: None }
    }

    /// Whether a failure that the scenario began has not been ended.
    pub fn is_failing(&self) -> bool {
        matches!(self.phase, Phase::Failing { .. })
    }

    /// Looks at the run and says what to do.
    pub fn step(&mut self, seen: &Observation) -> Vec<Command> {
        match self.phase {
            Phase::Waiting { failures_so_far } => self.begin(failures_so_far, seen),
            Phase::Failing { failures_so_far, node, since, duration } => {
                let lasted = seen.now.saturating_sub(since);
                let is_over = match self.settings.ending {
                    Ending::OnCommand => {
                        let enough = self.percent_done(seen) >= Self::begins_at(failures_so_far) + SPAN_PERCENT;
                        lasted >= LONGEST || (lasted >= SHORTEST && enough)
                    }
                    Ending::Estimated => lasted >= duration,
                };
                if !is_over {
                    return Vec::new();
                }
                self.failed_before = Some(node);
                self.phase = Phase::Waiting { failures_so_far: failures_so_far + 1 };
                match self.settings.ending {
                    Ending::OnCommand => vec![Command::Recover { node }],
                    Ending::Estimated => Vec::new(),
                }
            }
        }
    }

    fn begin(&mut self, failures_so_far: u64, seen: &Observation) -> Vec<Command> {
        let is_due = failures_so_far < 2 && self.percent_done(seen) >= Self::begins_at(failures_so_far);
        // Without requests left to send a failure would touch nothing.
        if !is_due || !seen.all_active() || seen.done >= self.settings.total {
            return Vec::new();
        }
        let chosen = if failures_so_far == 0 {
            seen.coordinator
        } else {
            let others = || seen.nodes.keys().copied().filter(|node| Some(*node) != self.failed_before);
            others().find(|node| Some(*node) != seen.coordinator).or_else(|| others().next())
        };
        let Some(node) = chosen else { return Vec::new() };
        let duration = match self.settings.ending {
            Ending::OnCommand => LONGEST,
            Ending::Estimated => self.estimate(seen),
        };
        self.phase = Phase::Failing { failures_so_far, node, since: seen.now, duration };
        vec![Command::Fail { node, duration }]
    }

    const fn begins_at(failures_so_far: u64) -> u64 {
        if failures_so_far == 0 { FIRST_AT_PERCENT } else { SECOND_AT_PERCENT }
    }

    fn percent_done(&self, seen: &Observation) -> u64 {
        seen.done * 100 / self.settings.total.max(1)
    }

    /// How long the next share of the requests will take at the speed so far with one node less.
    fn estimate(&self, seen: &Observation) -> Duration {
        let nodes = seen.nodes.len().max(2) as f64;
        let share = self.settings.total as f64 * SPAN_PERCENT as f64 / 100.0;
        let seconds = seen.now.as_secs_f64() / seen.done.max(1) as f64 * share * nodes / (nodes - 1.0);
        Duration::from_millis((seconds * 1000.0) as u64).clamp(SHORTEST, LONGEST)
    }
}

/// The seed documents' random failures, after the report: every 30 seconds each Active node fails with a probability of 20 %,
/// for 10 to 20 seconds.
#[derive(Debug)]
pub struct RandomFailures {
    generator: Xoshiro256PlusPlus,
    next_throw: Duration,
}

impl RandomFailures {
    const EVERY: Duration = Duration::from_secs(30);
    const PROBABILITY: f64 = 0.2;
    const DURATION_MS: std::ops::RangeInclusive<u64> = 10_000..=20_000;

    /// The first throw of the dice comes 30 seconds after `now`.
    pub fn new(seed: u64, now: Duration) -> Self {
        RandomFailures { generator: Xoshiro256PlusPlus::seed_from_u64(seed), next_throw: now + Self::EVERY }
    }

    /// Looks at the cluster and says what to do.
    pub fn step(&mut self, seen: &Observation) -> Vec<Command> {
        if seen.now < self.next_throw {
            return Vec::new();
        }
        self.next_throw = seen.now + Self::EVERY;
        let mut commands = Vec::new();
        for (node, state) in &seen.nodes {
            // The dice are thrown for every node, so that one that is away does not change what the others draw.
            let fails = self.generator.random_bool(Self::PROBABILITY);
            let duration = Duration::from_millis(self.generator.random_range(Self::DURATION_MS));
            if fails && *state == Some(NodeState::Active) {
                commands.push(Command::Fail { node: *node, duration });
            }
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIVE: Option<NodeState> = Some(NodeState::Active);

    fn seen(now_ms: u64, done: u64, coordinator: u16, states: [Option<NodeState>; 3]) -> Observation {
        let nodes = (1..).map(NodeId).zip(states).collect();
        Observation { now: Duration::from_millis(now_ms), done, nodes, coordinator: Some(NodeId(coordinator)) }
    }

    fn run(ending: Ending, observations: &[Observation]) -> Vec<Vec<Command>> {
        let mut scenario = Scenario::new(Settings { total: 1000, ending });
        observations.iter().map(|observation| scenario.step(observation)).collect()
    }

    fn fail(node: u16, duration_ms: u64) -> Vec<Command> {
        vec![Command::Fail { node: NodeId(node), duration: Duration::from_millis(duration_ms) }]
    }

    fn recover(node: u16) -> Vec<Command> {
        vec![Command::Recover { node: NodeId(node) }]
    }

    #[test]
    fn the_coordinator_fails_from_25_to_45_per_cent_and_another_node_from_65_when_all_are_active() {
        let commands = run(
            Ending::OnCommand,
            &[
                seen(0, 0, 2, [ACTIVE; 3]),
                seen(2490, 249, 2, [ACTIVE; 3]),
                seen(2500, 250, 2, [ACTIVE; 3]),
                seen(3600, 400, 1, [ACTIVE, None, ACTIVE]),
                seen(4500, 450, 1, [ACTIVE, None, ACTIVE]),
                seen(6500, 650, 1, [ACTIVE, Some(NodeState::Recovering), ACTIVE]),
                seen(6600, 660, 1, [ACTIVE; 3]),
                seen(8500, 849, 1, [ACTIVE, ACTIVE, None]),
                seen(8600, 850, 1, [ACTIVE, ACTIVE, None]),
                seen(9900, 990, 1, [ACTIVE; 3]),
            ],
        );
        let nothing = Vec::new;
        assert_eq!(
            commands,
            [
                nothing(),
                nothing(),
                fail(2, 5000),
                nothing(),
                recover(2),
                nothing(),
                fail(3, 5000),
                nothing(),
                recover(3),
                nothing()
            ]
        );
    }

    #[test]
    fn a_failure_lasts_a_second_at_least_and_five_at_most() {
        let fast = run(
            Ending::OnCommand,
            &[
                seen(100, 250, 1, [ACTIVE; 3]),
                seen(1099, 900, 2, [None, ACTIVE, ACTIVE]),
                seen(1100, 1000, 2, [None, ACTIVE, ACTIVE]),
            ],
        );
        assert_eq!(fast, [fail(1, 5000), vec![], recover(1)]);
        let slow = run(
            Ending::OnCommand,
            &[
                seen(100, 250, 1, [ACTIVE; 3]),
                seen(5099, 260, 2, [None, ACTIVE, ACTIVE]),
                seen(5100, 260, 2, [None, ACTIVE, ACTIVE]),
            ],
        );
        assert_eq!(slow, [fail(1, 5000), vec![], recover(1)]);
    }

    #[test]
    fn without_a_line_to_the_node_the_length_is_estimated_from_the_progress() {
        // 250 requests took 2 s; 200 more take 1.6 s, and half as long again with two nodes of three.
        let commands = run(
            Ending::Estimated,
            &[
                seen(2000, 250, 1, [ACTIVE; 3]),
                seen(4399, 420, 2, [None, ACTIVE, ACTIVE]),
                seen(4400, 460, 2, [ACTIVE; 3]),
                seen(6500, 650, 2, [ACTIVE; 3]),
            ],
        );
        assert_eq!(commands, [fail(1, 2400), vec![], vec![], fail(3, 3000)]);
    }

    #[test]
    fn nobody_fails_without_a_coordinator_or_without_requests_left() {
        let mut lost = seen(2500, 250, 1, [ACTIVE; 3]);
        lost.coordinator = None;
        assert_eq!(run(Ending::OnCommand, &[lost]), [vec![]]);
        assert_eq!(run(Ending::OnCommand, &[seen(900, 1000, 1, [ACTIVE; 3])]), [vec![]]);
    }

    #[test]
    fn a_single_node_fails_once_only() {
        let alone = |now_ms, done| Observation {
            now: Duration::from_millis(now_ms),
            done,
            nodes: [(NodeId(1), ACTIVE)].into(),
            coordinator: Some(NodeId(1)),
        };
        let commands = run(Ending::OnCommand, &[alone(100, 250), alone(1200, 450), alone(2000, 700)]);
        assert_eq!(commands, [fail(1, 5000), recover(1), vec![]]);
    }

    #[test]
    fn random_failures_follow_the_seed_and_keep_their_numbers() {
        let thrown = |seed| {
            let mut failures = RandomFailures::new(seed, Duration::ZERO);
            (1..=400u64).map(|turn| failures.step(&seen(turn * 15_000, 0, 1, [ACTIVE; 3]))).collect::<Vec<_>>()
        };
        assert_eq!(thrown(5), thrown(5));
        let commands: Vec<Command> = thrown(5).into_iter().flatten().collect();
        // 200 throws of three dice at 20 %: 120 expected, standard deviation 10.
        assert!((80..=160).contains(&commands.len()), "seed 5: {}", commands.len());
        for command in commands {
            let Command::Fail { duration, .. } = command else { panic!("a random failure ends by itself") };
            assert!((10.0..=20.0).contains(&duration.as_secs_f64()));
        }
        assert!(RandomFailures::new(5, Duration::ZERO).step(&seen(29_999, 0, 1, [ACTIVE; 3])).is_empty());
    }
}
