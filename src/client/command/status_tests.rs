//! Rows of nodes that answer, that do not, and that nobody asked.

use super::*;
use crate::id::{Incarnation, LogPosition, Term};
use crate::protocol::fault::LinkFault;
use crate::protocol::status::RaftRole;

fn peer(node: u16, last_seen_ms: Option<u64>, load: f64) -> PeerStatus {
    PeerStatus { node: NodeId(node), address: None, state: NodeState::Active, load: Load::from(load), last_seen_ms }
}

fn answering(node: u16, applied: u64, coordinator: (u64, u16), peers: Vec<PeerStatus>) -> NodeReport {
    let status = NodeStatus {
        node: NodeId(node),
        incarnation: Incarnation(1),
        address: format!("127.0.0.1:800{node}"),
        version: "0.1.0".into(),
        state: NodeState::Active,
        is_outsider: false,
        role: RaftRole::Follower,
        term: Term(coordinator.0),
        coordinator: Some(Leadership { term: Term(coordinator.0), node: NodeId(coordinator.1) }),
        without_quorum_ms: None,
        cause: Some(if coordinator.0 == 4 { Cause::PlannedStop } else { Cause::Silence }),
        load: Load::from(0.5),
        workers: 2,
        queued: 3,
        running: 2,
        jobs_done: 17,
        jobs_refused: 0,
        repeats_answered: 0,
        placements: 0,
        commit: 40,
        applied,
        last_log: LogPosition::default(),
        uptime_ms: 1,
        cpu_ms: 1,
        memory_bytes: 1,
        cluster_id: None,
        faults: Vec::new(),
        peers,
    };
    NodeReport { address: format!("http://127.0.0.1:800{node}"), node: Some(NodeId(node)), result: Ok(status) }
}

fn silent(node: Option<u16>) -> NodeReport {
    NodeReport { address: "http://127.0.0.1:9".into(), node: node.map(NodeId), result: Err("no answer".into()) }
}

#[test]
fn a_node_that_does_not_answer_is_a_row_with_what_the_others_last_heard() {
    let view = ClusterView::of(&[
        silent(Some(2)),
        answering(1, 40, (4, 1), vec![peer(2, Some(900), 0.25), peer(3, Some(5), 0.5)]),
        answering(3, 38, (3, 2), vec![peer(2, Some(700), 0.75), peer(1, Some(4), 0.5)]),
    ]);
    assert_eq!(view.coordinator, Some(Leadership { term: Term(4), node: NodeId(1) }), "the highest term counts");
    let rows: Vec<_> =
        view.nodes.iter().map(|row| (row.node.unwrap().0, row.answers, row.last_seen_ms, row.lag)).collect();
    assert_eq!(rows, [(1, true, None, Some(0)), (2, false, Some(700), None), (3, true, None, Some(2))]);
    assert_eq!(view.nodes[1].load, Some(Load::from(0.75)));
    let table = view.table();
    let heading = "coordinator: node 1 since term 4 (the one before: the coordinator was told to stop and handed over)";
    for part in [heading, "no answer (was Active)", "0.7 s ago", "[COORDINATOR]", "2+3"] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    assert_eq!(table.matches("[COORDINATOR]").count(), 1);
    assert!(!table.contains('\u{1b}'), "no colour where there is no terminal");
}

#[test]
fn nodes_that_were_not_asked_are_rows_too() {
    let view = ClusterView::of(&[answering(1, 40, (4, 3), vec![peer(2, None, 0.0), peer(3, Some(5), 0.5)])]);
    let rows: Vec<_> = view.nodes.iter().map(|row| (row.node.unwrap().0, row.state)).collect();
    assert_eq!(rows, [(1, Some(NodeState::Active)), (2, None), (3, Some(NodeState::Active))]);
    assert!(view.table().contains("never"));
}

#[test]
fn a_cluster_of_silence_is_a_table_as_well() {
    let view = ClusterView::of(&[silent(None), silent(Some(1))]);
    assert_eq!(view.nodes[0].node, Some(NodeId(1)));
    assert!(view.table().contains("coordinator: none confirmed"));
    assert!(serde_json::to_string(&view).unwrap().contains("\"answers\":false"));
}

fn without_coordinator(node: u16, term: u64, without_quorum_ms: u64) -> NodeReport {
    let mut report = answering(node, 40, (term, node), Vec::new());
    let status = report.result.as_mut().unwrap();
    (status.coordinator, status.without_quorum_ms) = (None, Some(without_quorum_ms));
    report
}

/// What is wrong stands where the coordinator would.
#[test]
fn why_there_is_no_coordinator_stands_in_the_heading() {
    let parted = ClusterView::of(&[without_coordinator(1, 4, 3_200), without_coordinator(2, 4, 2_900)]);
    assert!(parted.table().starts_with("coordinator: none confirmed, no quorum for 2.9 s\n"), "{}", parted.table());
    let new = ClusterView::of(&[without_coordinator(1, 0, 3_200), silent(Some(2))]);
    assert!(new.table().starts_with("coordinator: none, and no node that answers knows"), "{}", new.table());
    let one_is_cut_off = ClusterView::of(&[without_coordinator(1, 4, 3_200), answering(2, 40, (5, 2), Vec::new())]);
    assert!(one_is_cut_off.table().starts_with("coordinator: node 2 since term 5"), "{}", one_is_cut_off.table());
    // Of five nodes two are left: one still hears the other, which knows that it leads no more.
    let two_of_five = ClusterView::of(&[without_coordinator(1, 4, 3_200), answering(2, 40, (4, 1), Vec::new())]);
    assert!(two_of_five.table().starts_with("coordinator: none confirmed, no quorum"), "{}", two_of_five.table());
}

/// A directory that lost its memory looks like a node that catches up, and never will.
#[test]
fn who_keeps_out_stands_below_the_table() {
    let mut report = answering(2, 0, (4, 1), Vec::new());
    report.result.as_mut().unwrap().is_outsider = true;
    let table = ClusterView::of(&[answering(1, 40, (4, 1), Vec::new()), report]).table();
    assert!(table.contains("\nnode 2: its data directory is no voter"), "{table}");
    assert!(table.contains("client members replace 2 127.0.0.1:8002"), "{table}");
    assert!(!table.contains("\nnode 1:"), "{table}");
}

/// Which links are cut stands in the table and in the JSON.
#[test]
fn cut_links_stand_below_the_table() {
    let mut report = answering(1, 40, (4, 1), Vec::new());
    let cut = LinkFault { cut_in: true, cut_out: true, ..LinkFault::none(NodeId(3)) };
    report.result.as_mut().unwrap().faults = vec![cut];
    let view = ClusterView::of(&[report, answering(2, 40, (4, 1), Vec::new())]);
    let table = view.table();
    assert!(table.ends_with("\nnode 1: link to node 3: cut both ways"), "{table}");
    assert!(serde_json::to_string(&view).unwrap().contains("\"faults\":[{\"peer\":3,\"cut_in\":true"));
}
