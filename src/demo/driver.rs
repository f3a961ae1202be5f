//! Makes the scenario's failures happen, and keeps the bar moving: the shell around the pure [`Scenario`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::{Cluster, FailTarget};
use crate::demo::clients::Counters;
use crate::demo::cluster::Lines;
use crate::demo::observer::{Observer, Snapshot, narrate};
use crate::demo::progress::{MovingRate, Progress};
use crate::demo::scenario::{Command, Observation, Scenario};
use crate::time::{Moment, now};

/// How often the nodes are looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often the scenario and the bar move.
const STEP_EVERY: Duration = Duration::from_millis(50);

/// Looks at the nodes for ever, and says what happens there.
pub async fn watch_nodes(observer: Arc<Observer>, progress: Progress, start_unix_ms: u64) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for event in observer.look().await {
            if let Some(text) = narrate(&event, start_unix_ms) {
                progress.say(&text);
            }
        }
    }
}

/// The scenario as it runs.
pub struct Driver {
    /// The nodes, to command them.
    pub cluster: Cluster,
    /// To nodes of its own, the lines that also reach a failed one.
    pub lines: Option<Lines>,
    /// The nodes, to look at them.
    pub observer: Arc<Observer>,
    /// The progress of the clients.
    pub counters: Arc<Counters>,
    /// The bar.
    pub progress: Progress,
    /// The rules; none if nobody shall fail.
    pub scenario: Option<Scenario>,
    /// When the load began.
    pub start: Moment,
    /// What went wrong with commands, for the report.
    pub troubles: Vec<String>,
    /// Failures that the nodes were told to have.
    pub commanded: u32,
}

impl Driver {
    /// Goes on until the clients are done: to be dropped then.
    pub async fn drive(&mut self) {
        let mut ticks = tokio::time::interval(STEP_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut rate = MovingRate::default();
        loop {
            ticks.tick().await;
            let (at, done) = (now().since(self.start), self.counters.done.load(Ordering::Relaxed));
            let failed = self.counters.failed.load(Ordering::Relaxed);
            let snapshot = self.observer.snapshot();
            let failed = if failed > 0 { format!("  {failed} failed") } else { String::new() };
            self.progress.show(done, format!("{:.0}/s{failed}   nodes {}", rate.look(at, done), snapshot.line()));
            self.step(done, &snapshot).await;
        }
    }

    /// One step of the scenario.
    pub async fn step(&mut self, done: u64, snapshot: &Snapshot) {
        let Some(scenario) = &mut self.scenario else { return };
        let seen = observation(now().since(self.start), done, snapshot);
        for command in scenario.step(&seen) {
            match perform(&self.cluster, self.lines.as_ref(), &command).await {
                Ok(told) => {
                    self.commanded += u32::from(matches!(command, Command::Fail { .. }));
                    self.progress.say(&format!("t={:+.2} s  {told}", now().since(self.start).as_secs_f64()));
                }
                Err(trouble) => self.troubles.push(trouble),
            }
        }
    }

    /// Whether a failure that the scenario began is still going on.
    pub fn is_failing(&self) -> bool {
        self.scenario.as_ref().is_some_and(Scenario::is_failing)
    }
}

/// What a core of failures may know of the cluster.
pub fn observation(at: Duration, done: u64, snapshot: &Snapshot) -> Observation {
    Observation {
        now: at,
        done,
        nodes: snapshot.nodes.clone(),
        coordinator: snapshot.coordinator.map(|leadership| leadership.node),
    }
}

/// Does what a core of failures wants; says what was done, or what went wrong.
///
/// # Errors
/// The node did not take the command.
pub async fn perform(cluster: &Cluster, lines: Option<&Lines>, command: &Command) -> Result<String, String> {
    match command {
        Command::Fail { node, duration } => {
            let seconds = duration.as_secs_f64();
            match cluster.fail(FailTarget::Node(*node), *duration).await {
                Ok(_) => Ok(format!("node {node} is told to fail for at most {seconds:.1} s")),
                Err(error) => Err(format!("node {node} could not be told to fail for {seconds:.1} s: {error}")),
            }
        }
        Command::Recover { node } => match lines.map(|lines| lines.end_failure(*node)) {
            Some(Ok(())) => Ok(format!("node {node} is told to recover")),
            Some(Err(error)) => Err(format!("node {node} could not be told to recover: {error}")),
            None => Err(format!("node {node} could not be told to recover: it is not a child of this process")),
        },
    }
}
