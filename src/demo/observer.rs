//! Looks at the nodes several times a second: their states, loads, memory, and every event exactly once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::client::Cluster;
use crate::demo::outages;
use crate::demo::report::{NodeRow, Usage, text};
use crate::id::{Load, NodeId};
use crate::protocol::event::{Event, EventKind};
use crate::protocol::fault;
use crate::protocol::status::{Leadership, NodeState, NodeStatus};
use crate::time::{Moment, now};

/// Events that are kept for the report; later ones are still printed.
const EVENT_LIMIT: usize = 100_000;

/// The cluster as it was last seen.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every node that has ever answered; none while it does not.
    pub nodes: BTreeMap<NodeId, Option<NodeState>>,
    /// The confirmed coordinator of the highest term that any node knows.
    pub coordinator: Option<Leadership>,
}

impl Snapshot {
    /// Whether `expected` nodes are Active and know a coordinator that is one of them.
    pub fn is_settled(&self, expected: usize) -> bool {
        let active = self.nodes.values().filter(|state| **state == Some(NodeState::Active)).count();
        let led = self.coordinator.is_some_and(|leadership| self.nodes.contains_key(&leadership.node));
        active >= expected && active == self.nodes.len() && led
    }

    /// One line: each node with its state, the coordinator marked.
    pub fn line(&self) -> String {
        let states = self.nodes.iter().map(|(node, state)| {
            let mark = if self.coordinator.is_some_and(|leadership| leadership.node == *node) { "*" } else { "" };
            let state = state.map_or_else(|| "silent".to_owned(), |state| state.to_string());
            format!("{node}{mark} {state}")
        });
        states.collect::<Vec<_>>().join("  ")
    }
}

#[derive(Debug, Default)]
struct Seen {
    address: String,
    state: Option<NodeState>,
    first: Option<NodeStatus>,
    last: Option<(NodeStatus, Moment)>,
    load_sum: f64,
    samples: u64,
    load_max: Load,
    memory_max: u64,
    next_event: u64,
}

#[derive(Debug, Default)]
struct All {
    nodes: BTreeMap<NodeId, Seen>,
    coordinator: Option<Leadership>,
    events: Vec<Event>,
    load_began: Option<Moment>,
}

/// Looks at the nodes of one cluster.
pub struct Observer {
    cluster: Cluster,
    all: Mutex<All>,
}

impl Observer {
    /// An observer that asks over `cluster`, which should give up soon on a node that does not answer.
    pub fn new(cluster: Cluster) -> Observer {
        Observer { cluster, all: Mutex::default() }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks once, and returns the events that are new, oldest first.
    pub async fn look(&self) -> Vec<Event> {
        let reports = self.cluster.status().await;
        let at = now();
        let mut answered = Vec::new();
        {
            let mut all = self.all();
            for seen in all.nodes.values_mut() {
                seen.state = None;
            }
            for report in reports {
                let Ok(status) = report.result else { continue };
                let seen = all.nodes.entry(status.node).or_default();
                answered.push((status.node, seen.next_event));
                seen.take(report.address, status, at);
            }
            let known = all.nodes.values().filter(|seen| seen.state.is_some());
            all.coordinator = known.filter_map(|seen| seen.last.as_ref()?.0.coordinator).max().or(all.coordinator);
        }
        let asked = answered.into_iter().map(|(node, since)| self.cluster.events(node, since));
        let mut new: Vec<Event> = futures::future::join_all(asked).await.into_iter().flatten().flatten().collect();
        new.sort_by_key(|event| (event.at_unix_ms, event.node, event.seq));
        let mut all = self.all();
        for event in &new {
            let seen = all.nodes.entry(event.node).or_default();
            seen.next_event = seen.next_event.max(event.seq + 1);
            if all.events.len() < EVENT_LIMIT {
                all.events.push(event.clone());
            }
        }
        new
    }

    /// The cluster as it was last seen.
    pub fn snapshot(&self) -> Snapshot {
        let all = self.all();
        let nodes = all.nodes.iter().map(|(node, seen)| (*node, seen.state)).collect();
        Snapshot { nodes, coordinator: all.coordinator }
    }

    /// From now on loads, processor time and memory count for the report.
    pub fn begin_load(&self) {
        let mut all = self.all();
        all.load_began = Some(now());
        for seen in all.nodes.values_mut() {
            seen.first = seen.last.as_ref().map(|(status, _)| status.clone());
            (seen.load_sum, seen.samples) = (0.0, 0);
            (seen.load_max, seen.memory_max) = (Load::default(), 0);
        }
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.all().events.clone()
    }

    /// The nodes for the report, without their answers.
    pub fn rows(&self) -> Vec<NodeRow> {
        let all = self.all();
        let row = |(node, seen): (&NodeId, &Seen)| {
            let since_first = |count: fn(&NodeStatus) -> u64| {
                let last = seen.last.as_ref().map_or(0, |(status, _)| count(status));
                last.saturating_sub(seen.first.as_ref().map_or(0, count))
            };
            let cpu_ms = since_first(|status| status.cpu_ms);
            let began = all.load_began.unwrap_or_default();
            let elapsed = seen.last.as_ref().map_or(0.0, |(_, at)| at.since(began).as_secs_f64());
            NodeRow {
                node: *node,
                address: seen.address.clone(),
                state: seen.state,
                is_coordinator: all.coordinator.is_some_and(|leadership| leadership.node == *node),
                answers: 0,
                jobs_done: since_first(|status| status.jobs_done),
                jobs_refused: since_first(|status| status.jobs_refused),
                repeats_answered: since_first(|status| status.repeats_answered),
                placements: since_first(|status| status.placements),
                load_mean: if seen.samples == 0 { 0.0 } else { seen.load_sum / seen.samples as f64 },
                load_max: seen.load_max,
                usage: Usage {
                    cpu_ms,
                    cpu_cores: if elapsed > 0.0 { cpu_ms as f64 / 1000.0 / elapsed } else { 0.0 },
                    memory_max_bytes: seen.memory_max,
                },
            }
        };
        all.nodes.iter().map(row).collect()
    }
}

impl Seen {
    fn take(&mut self, address: String, status: NodeStatus, at: Moment) {
        self.address = address.trim_start_matches("http://").to_owned();
        self.state = Some(status.state);
        self.load_sum += f64::from(status.load);
        self.samples += 1;
        self.load_max = self.load_max.max(status.load);
        self.memory_max = self.memory_max.max(status.memory_bytes);
        self.last = Some((status, at));
    }
}

/// What a person wants to hear of an event while it happens; nothing of the small ones.
pub fn narrate(event: &Event, start_unix_ms: u64) -> Option<String> {
    let at = outages::seconds_since(start_unix_ms, event.at_unix_ms);
    let node = event.node;
    match &event.what {
        EventKind::Elected(_) => {
            let elections = outages::elections(std::slice::from_ref(event), start_unix_ms);
            elections.first().map(text::election)
        }
        EventKind::StateChanged { from, to, why } => Some(format!("t={at:+.2} s  node {node}: {from} → {to} ({why})")),
        what @ (EventKind::CampaignRefused { .. } | EventKind::HandOverRefused { .. }) => {
            Some(format!("t={at:+.2} s  node {node}: {what}"))
        }
        EventKind::LinkFaults { faults } => Some(format!("t={at:+.2} s  node {node}: {}", fault::in_words(faults))),
        EventKind::Alarm { text } => Some(format!("t={at:+.2} s  node {node}: ALARM {text}")),
        EventKind::Suspected { .. }
        | EventKind::CoordinatorKnown { .. }
        | EventKind::HandedOver { .. }
        | EventKind::Recovered { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::fixture;
    use crate::id::Term;

    #[test]
    fn a_cluster_is_settled_when_all_expected_nodes_are_active_under_a_coordinator_among_them() {
        let active = Some(NodeState::Active);
        let leadership = Leadership { term: Term(1), node: NodeId(2) };
        let mut snapshot =
            Snapshot { nodes: [(NodeId(1), active), (NodeId(2), active)].into(), coordinator: Some(leadership) };
        assert!(snapshot.is_settled(2) && !snapshot.is_settled(3));
        assert_eq!(snapshot.line(), "1 Active  2* Active");
        snapshot.nodes.insert(NodeId(3), None);
        assert!(!snapshot.is_settled(2));
        assert_eq!(snapshot.line(), "1 Active  2* Active  3 silent");
        snapshot.nodes.remove(&NodeId(3));
        snapshot.coordinator = None;
        assert!(!snapshot.is_settled(2));
    }

    #[test]
    fn elections_and_transitions_are_told_and_small_events_are_not() {
        let told: Vec<String> =
            fixture::events().iter().filter_map(|event| narrate(event, fixture::START_UNIX_MS)).collect();
        assert_eq!(told.len(), 5);
        assert!(told[0].contains("node 1") && told[0].contains("[COORDINATOR]"), "{}", told[0]);
        assert_eq!(told[1], "t=+2.00 s  node 1: Active → Failed (commanded)");
    }
}
