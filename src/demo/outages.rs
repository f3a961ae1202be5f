//! Events of all nodes and the records of the requests → each election, and each failure with what it cost: **pure**.
//!
//! Two figures say what a failure cost, because they answer two questions.
//! * *Cluster window*: the longest interval, from the start of the failure until its node was Active again, in which no request
//!   of the whole run was answered. "For how long did nothing work?"
//! * *Longest wait*: of the requests that the failure touched (one of their attempts went to the failed node and failed while
//!   it was away), the longest time from the start of the failure, or from the send if that was later, to the answer from
//!   another node. "How long did the unluckiest user wait because of it?"

use serde::Serialize;

use crate::demo::record::Record;
use crate::id::NodeId;
use crate::protocol::election::ElectionResult;
use crate::protocol::event::{Event, EventKind};
use crate::protocol::status::NodeState;

/// One confirmed election. Times are seconds since the load began; the first election lies before it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Election {
    /// When Raft had confirmed it.
    pub at_s: f64,
    /// Who won, called by whom and why, every load, the votes, the time it took.
    #[serde(flatten)]
    pub result: ElectionResult,
}

impl Election {
    /// The winner.
    pub fn coordinator(&self) -> NodeId {
        self.result.coordinator.node
    }
}

/// One failure of one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// The node.
    pub node: NodeId,
    /// Whether it was the coordinator when it failed.
    pub was_coordinator: bool,
    /// Why, in the node's words. The length that it names is the one that was asked for; the failure may have been ended earlier.
    pub why: String,
    /// Start of the failure.
    pub from_s: f64,
    /// End of the failure, where Recovering began; none if the run ended first.
    pub until_s: Option<f64>,
    /// When it was Active again.
    pub active_again_s: Option<f64>,
    /// The cluster window; none if nothing was answered after the start.
    pub cluster_window_ms: Option<f64>,
    /// Requests that the failure touched.
    pub touched: u64,
    /// Those of them that got no right answer in the end.
    pub touched_and_failed: u64,
    /// The longest wait; none if no touched request was answered.
    pub longest_wait_ms: Option<f64>,
    /// How the node came back.
    pub recovery: Option<Recovery>,
}

/// How a node came back.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recovery {
    /// Who answered its `StateSync`.
    pub from: Option<NodeId>,
    /// Log entries that it had missed.
    pub entries: u64,
    /// From the end of the failure to Active.
    pub took_ms: u64,
}

/// Seconds since the load began.
pub fn seconds_since(start_unix_ms: u64, at_unix_ms: u64) -> f64 {
    (at_unix_ms as f64 - start_unix_ms as f64) / 1000.0
}

/// Every election, oldest first.
pub fn elections(events: &[Event], start_unix_ms: u64) -> Vec<Election> {
    let mut elections: Vec<Election> = events
        .iter()
        .filter_map(|event| match &event.what {
            EventKind::Elected(result) => {
                Some(Election { at_s: seconds_since(start_unix_ms, event.at_unix_ms), result: result.clone() })
            }
            _ => None,
        })
        .collect();
    elections.sort_by(|left, right| {
        left.at_s.total_cmp(&right.at_s).then(left.result.coordinator.cmp(&right.result.coordinator))
    });
    elections
}

/// Every failure, oldest first.
pub fn failures(events: &[Event], records: &[Record], start_unix_ms: u64) -> Vec<Failure> {
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|event| (event.at_unix_ms, event.node, event.seq));
    let finished = finished_seconds(records);
    let begins = |event: &&&Event| matches!(event.what, EventKind::StateChanged { to: NodeState::Failed, .. });
    sorted.iter().filter(begins).map(|event| failure(event, &sorted, records, &finished, start_unix_ms)).collect()
}

fn failure(begin: &Event, sorted: &[&Event], records: &[Record], finished: &[f64], start_unix_ms: u64) -> Failure {
    let seconds = |event: &Event| seconds_since(start_unix_ms, event.at_unix_ms);
    let node = begin.node;
    let later = || sorted.iter().filter(|event| event.node == node && event.seq > begin.seq);
    let next_failure = later()
        .find(|event| matches!(event.what, EventKind::StateChanged { to: NodeState::Failed, .. }))
        .map_or(u64::MAX, |event| event.seq);
    let within = || later().filter(|event| event.seq < next_failure);
    let change_to = |wanted: NodeState| {
        within().find(|event| matches!(event.what, EventKind::StateChanged { to, .. } if to == wanted))
    };
    let recovery = within().find_map(|event| match event.what {
        EventKind::Recovered { from, entries, took_ms } => Some(Recovery { from, entries, took_ms }),
        _ => None,
    });
    let why = match &begin.what {
        EventKind::StateChanged { why, .. } => why.clone(),
        _ => String::new(),
    };
    let from_s = seconds(begin);
    let until_s = change_to(NodeState::Recovering).map(|event| seconds(event));
    let active_again_s = change_to(NodeState::Active).map(|event| seconds(event));
    let mut failure = Failure {
        node,
        was_coordinator: coordinator_before(sorted, begin) == Some(node),
        why,
        from_s,
        until_s,
        active_again_s,
        cluster_window_ms: longest_gap_ms(finished, from_s, active_again_s.unwrap_or(f64::INFINITY)),
        touched: 0,
        touched_and_failed: 0,
        longest_wait_ms: None,
        recovery,
    };
    count_touched(&mut failure, records);
    failure
}

/// The coordinator by the last word about it before the event, the failed node's own word included.
fn coordinator_before(sorted: &[&Event], event: &Event) -> Option<NodeId> {
    sorted
        .iter()
        .take_while(|earlier| {
            (earlier.at_unix_ms, earlier.node, earlier.seq) < (event.at_unix_ms, event.node, event.seq)
        })
        .filter_map(|earlier| match &earlier.what {
            EventKind::Elected(result) => Some(result.coordinator),
            EventKind::CoordinatorKnown { coordinator } => Some(*coordinator),
            _ => None,
        })
        .max_by_key(|leadership| leadership.term)
        .map(|leadership| leadership.node)
}

fn finished_seconds(records: &[Record]) -> Vec<f64> {
    let answered = records.iter().filter(|record| record.answered_by().is_some());
    let mut finished: Vec<f64> = answered.map(|record| record.finished.as_secs_f64()).collect();
    finished.sort_by(f64::total_cmp);
    finished
}

/// The longest interval without an answer between `from_s` and `until_s`, as far as the load went on.
fn longest_gap_ms(finished: &[f64], from_s: f64, until_s: f64) -> Option<f64> {
    let first = finished.partition_point(|at| *at < from_s);
    let mut previous = from_s;
    let mut longest: Option<f64> = None;
    for at in &finished[first..] {
        // The answer that ends the last interval may come after the recovery; the interval counts up to there.
        let end = at.min(until_s);
        longest = Some(longest.unwrap_or(0.0).max(end - previous));
        if *at >= until_s {
            break;
        }
        previous = *at;
    }
    longest.map(|seconds| seconds * 1000.0)
}

fn count_touched(failure: &mut Failure, records: &[Record]) {
    let until = failure.until_s.unwrap_or(f64::INFINITY);
    for record in records {
        let (sent, finished) = (record.sent.as_secs_f64(), record.finished.as_secs_f64());
        let overlaps = sent <= until && finished >= failure.from_s;
        let lost_there =
            record.attempts.iter().any(|attempt| attempt.node == Some(failure.node) && attempt.failure.is_some());
        if !overlaps || !lost_there {
            continue;
        }
        failure.touched += 1;
        if record.answered_by().is_some() {
            let wait_ms = (finished - sent.max(failure.from_s)) * 1000.0;
            failure.longest_wait_ms = Some(failure.longest_wait_ms.unwrap_or(0.0).max(wait_ms));
        } else {
            failure.touched_and_failed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::PlacedBy;
    use crate::demo::fixture::{self, START_UNIX_MS};

    fn close(left: Option<f64>, right: f64) -> bool {
        left.is_some_and(|value| (value - right).abs() < 1e-6)
    }

    #[test]
    fn elections_come_in_order_with_their_times() {
        let elections = elections(&fixture::events(), START_UNIX_MS);
        let found: Vec<_> = elections.iter().map(|election| (election.at_s, election.coordinator().0)).collect();
        assert_eq!(found, [(-0.4, 1), (2.18, 2)]);
    }

    #[test]
    fn a_failure_has_its_span_its_window_its_requests_and_its_recovery() {
        // Answers every 100 ms until the failure at 2.0 s, none until 2.35 s, then every 100 ms to the end at 5 s.
        let mut records: Vec<Record> =
            (0..20).map(|turn| fixture::answered(turn, 1, turn * 100, turn * 100 + 50)).collect();
        records.extend((0..27).map(|turn| fixture::answered(20 + turn, 2, 2300 + turn * 100, 2350 + turn * 100)));
        // Two requests were at node 1 when it failed: one answered by node 3 at 3.2 s, the other given up.
        let mut saved = fixture::answered(90, 3, 1900, 3200);
        saved.attempts.insert(0, fixture::attempt(Some(1), PlacedBy::Coordinator, Some("timeout")));
        records.push(saved);
        records.push(fixture::failed(91, "timeout", 1950, 3300));
        let failures = failures(&fixture::events(), &records, START_UNIX_MS);
        assert_eq!(failures.len(), 1);
        let failure = &failures[0];
        assert!(failure.was_coordinator);
        assert_eq!(
            (failure.node, failure.from_s, failure.until_s, failure.active_again_s),
            (NodeId(1), 2.0, Some(4.0), Some(4.14))
        );
        assert!(close(failure.cluster_window_ms, 350.0), "{:?}", failure.cluster_window_ms);
        assert_eq!((failure.touched, failure.touched_and_failed), (2, 1));
        assert!(close(failure.longest_wait_ms, 1200.0), "{:?}", failure.longest_wait_ms);
        assert_eq!(failure.recovery, Some(Recovery { from: Some(NodeId(2)), entries: 12, took_ms: 140 }));
    }

    #[test]
    fn a_failure_that_the_run_did_not_outlast_is_open_and_one_without_load_has_no_window() {
        let events = &fixture::events()[..2];
        let failures = failures(events, &[fixture::answered(0, 1, 0, 50)], START_UNIX_MS);
        assert_eq!(
            (failures[0].until_s, failures[0].active_again_s, failures[0].cluster_window_ms),
            (None, None, None)
        );
    }

    #[test]
    fn a_window_does_not_reach_past_the_recovery() {
        assert!(close(longest_gap_ms(&[1.0, 9.0], 2.0, 4.0), 2000.0));
        assert!(close(longest_gap_ms(&[1.0, 2.5, 3.0, 9.0], 2.0, 4.0), 1000.0));
        assert_eq!(longest_gap_ms(&[1.0], 2.0, 4.0), None);
    }

    #[test]
    fn a_node_that_was_not_coordinator_is_not_called_one() {
        let mut events = fixture::events();
        events.push(fixture::state_change(3, 1, 5000, NodeState::Active, NodeState::Failed));
        let failures = failures(&events, &[], START_UNIX_MS);
        assert_eq!(
            failures.iter().map(|failure| (failure.node.0, failure.was_coordinator)).collect::<Vec<_>>(),
            [(1, true), (3, false)]
        );
    }
}
