//! Made-up records and events for the tests of the demo.

use std::time::Duration;

use crate::client::PlacedBy;
use crate::demo::record::{AttemptRecord, Kind, Outcome, Record};
use crate::id::{Incarnation, Load, LogPosition, MemberId, NodeId, Term};
use crate::protocol::election::{Campaign, Cause, ElectionResult, Finding, Standing};
use crate::protocol::event::{Event, EventKind};
use crate::protocol::status::{Leadership, NodeState};

/// Wall time at which the load of the made-up runs begins.
pub const START_UNIX_MS: u64 = 1_795_230_000_000;

pub fn attempt(node: Option<u16>, placed_by: PlacedBy, failure: Option<&str>) -> AttemptRecord {
    AttemptRecord {
        node: node.map(NodeId),
        placed_by,
        took: Duration::from_millis(100),
        failure: failure.map(str::to_owned),
    }
}

pub fn answered(index: u64, node: u16, sent_ms: u64, finished_ms: u64) -> Record {
    let outcome = Outcome::Answered { node: NodeId(node), job_time: Duration::from_millis(5), bytes_out: 110_000 };
    Record {
        index,
        client: index as u32 % 50,
        kind: Kind::Seal,
        picture: index as usize % 2,
        intended: Duration::from_millis(sent_ms),
        sent: Duration::from_millis(sent_ms),
        finished: Duration::from_millis(finished_ms),
        bytes_in: 100_000,
        attempts: vec![attempt(Some(node), PlacedBy::Coordinator, None)],
        outcome,
    }
}

pub fn failed(index: u64, reason: &str, sent_ms: u64, finished_ms: u64) -> Record {
    Record {
        attempts: vec![attempt(Some(1), PlacedBy::Client, Some(reason))],
        outcome: Outcome::Failed { reason: reason.to_owned(), detail: "no answer within 30 s".to_owned() },
        ..answered(index, 1, sent_ms, finished_ms)
    }
}

pub fn wrong(index: u64, node: u16, sent_ms: u64, finished_ms: u64) -> Record {
    let outcome = Outcome::Wrong { node: NodeId(node), why: "the opened original differs at byte 17".to_owned() };
    Record { outcome, ..answered(index, node, sent_ms, finished_ms) }
}

pub fn event(node: u16, seq: u64, at_ms: i64, what: EventKind) -> Event {
    let at_unix_ms = START_UNIX_MS.saturating_add_signed(at_ms);
    Event { seq, at_unix_ms, node: NodeId(node), term: Term(1), state: NodeState::Active, what }
}

pub fn state_change(node: u16, seq: u64, at_ms: i64, from: NodeState, to: NodeState) -> Event {
    event(node, seq, at_ms, EventKind::StateChanged { from, to, why: "commanded".to_owned() })
}

pub fn elected(node: u16, seq: u64, at_ms: i64, term: u64, cause: Cause) -> Event {
    let standing = |id: u16, hundredths: u32| Standing {
        member: MemberId { node: NodeId(id), incarnation: Incarnation(7) },
        load: Load::from_hundredths(hundredths),
        last_log: LogPosition { term: Term(1), length: 3 },
        state: NodeState::Active,
        finding: Finding::Gone,
    };
    let others = (1..=3).filter(|other| *other != node).map(|other| standing(other, 50 + u32::from(other)));
    let result = ElectionResult {
        coordinator: Leadership { term: Term(term), node: NodeId(node) },
        vacancy: None,
        caller: Some(NodeId(3)),
        cause,
        standings: std::iter::once(standing(node, 25)).chain(others).collect(),
        campaign: Some(Campaign::AgreedDeath),
        votes: vec![NodeId(node), NodeId(3)],
        voters: 3,
        took_micros: 23_400,
        handed_over_to: None,
    };
    event(node, seq, at_ms, EventKind::Elected(result))
}

/// Two elections, and one failure of the first coordinator, which was away from 2.0 s to 4.0 s and Active at 4.14 s.
pub fn events() -> Vec<Event> {
    use NodeState::{Active, Failed, Recovering};
    vec![
        elected(1, 1, -400, 1, Cause::FirstStart),
        state_change(1, 2, 2000, Active, Failed),
        elected(2, 1, 2180, 2, Cause::Silence),
        state_change(1, 3, 4000, Failed, Recovering),
        event(1, 4, 4140, EventKind::Recovered { from: Some(NodeId(2)), entries: 12, took_ms: 140 }),
        state_change(1, 5, 4140, Recovering, Active),
    ]
}
