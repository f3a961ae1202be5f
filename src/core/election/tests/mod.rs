//! Exact effect lists of the election; each test names the rule of ARCHITECTURE.md (E0 to E7) that it keeps.

mod balance;
mod campaign;
mod confirm;
mod first_start;
mod hand_over;
mod load_swings;
mod round;
mod states;

use std::time::Duration;

use super::*;
use crate::id::{Incarnation, LogPosition};
use crate::protocol::election::{Campaign, ElectionResult, Finding};

pub const GONE: Finding = Finding::Gone;
pub const ALIVE: Finding = Finding::Alive;

pub fn node(number: u16) -> NodeId {
    NodeId(number)
}

pub fn member(number: u16) -> MemberId {
    MemberId { node: node(number), incarnation: Incarnation(100 + u64::from(number)) }
}

pub fn members() -> Vec<MemberId> {
    vec![member(1), member(2), member(3)]
}

pub fn leadership(term: u64, leader: u16) -> Leadership {
    Leadership { term: Term(term), node: node(leader) }
}

pub fn log(term: u64, length: u64) -> LogPosition {
    LogPosition { term: Term(term), length }
}

pub fn round(caller: u16, number: u64) -> RoundId {
    RoundId { caller: node(caller), number }
}

pub fn ms(milliseconds: u64) -> Moment {
    Moment::from_millis(milliseconds)
}

/// Times of their own, so that the tests do not change with the defaults, and no jitter.
pub fn settings(me: u16) -> Settings {
    Settings {
        back_off: Duration::from_millis(40),
        jitter: Duration::ZERO,
        dead_man: Duration::from_secs(5),
        ..Settings::new(member(me), vec![node(1), node(2), node(3)])
    }
}

pub fn view(term: u64, leader: Option<u16>) -> RaftView {
    RaftView {
        term: Term(term),
        leader: leader.map(NodeId),
        last_log: log(1, 10),
        voters: members(),
        ..RaftView::default()
    }
}

pub fn standing(of: u16, load: u32, finding: Finding) -> Standing {
    Standing {
        member: member(of),
        load: Load::from_hundredths(load),
        last_log: log(1, 10),
        state: NodeState::Active,
        finding,
    }
}

pub fn own(load: u32) -> Input {
    Input::Own { load: Load::from_hundredths(load), state: NodeState::Active }
}

/// Node `me` with this load, following node 1, the coordinator of term 1.
pub fn follower(me: u16, load: u32) -> Election {
    follower_with(settings(me), load)
}

pub fn follower_with(settings: Settings, load: u32) -> Election {
    let mut election = Election::new(settings, 0);
    // Raft first: a node without a log would begin a first start.
    assert_eq!(election.step(ms(0), Input::Raft(view(1, Some(1)))), [Effect::CoordinatorConfirmed(leadership(1, 1))]);
    assert_eq!(election.step(ms(0), own(load)), []);
    election
}

pub fn suspected(whom: u16) -> Input {
    Input::Suspected { node: node(whom), cause: Cause::ConnectionRefused }
}

/// A heartbeat of an Active node with load 0.07 that knows this coordinator.
pub fn heartbeat(from: u16, coordinator: Leadership) -> Input {
    Input::Heartbeat(Heartbeat {
        member: member(from),
        sequence: 1,
        state: NodeState::Active,
        load: Load::from_hundredths(7),
        pressure: Load::default(),
        workers: 1,
        jobs_accepted: 0,
        disk_waits_ms: 0,
        last_log: log(1, 10),
        coordinator: Some(coordinator),
    })
}

pub fn received(from: u16, message: ElectionMessage) -> Input {
    Input::Received { from: member(from), message }
}

pub fn send(to: u16, message: ElectionMessage) -> Effect {
    Effect::Send { to: node(to), message }
}

pub fn query(id: RoundId, vacancy: Option<Leadership>, cause: Cause) -> ElectionMessage {
    ElectionMessage::LoadQuery { round: id, vacancy, cause }
}

pub fn response(id: RoundId, standing: Standing, latest: Option<Leadership>) -> ElectionMessage {
    ElectionMessage::LoadResponse { round: id, standing, latest, voters: members() }
}

pub fn nomination(id: RoundId, standings: Vec<Standing>, campaign: Campaign) -> ElectionMessage {
    let (vacancy, cause) = (Some(leadership(1, 1)), Cause::ConnectionRefused);
    ElectionMessage::Election { round: id, vacancy, cause, standings, campaign }
}

pub fn probed(id: RoundId, finding: Finding) -> Input {
    Input::Probed { round: id, node: node(1), finding }
}

pub fn campaign(campaign: Campaign, term: u64) -> Effect {
    Effect::Campaign { campaign, term: Term(term), vacancy: Some(leadership(1, 1)), members: vec![] }
}

pub fn refused(term: u64) -> Input {
    Input::CampaignRefused { term: Term(term), why: "no".into() }
}

/// What a node does that misses the coordinator 1 of term 1.
pub fn calls(caller: u16, number: u64) -> Vec<Effect> {
    let id = round(caller, number);
    let ask = |to| send(to, query(id, Some(leadership(1, 1)), Cause::ConnectionRefused));
    let others = [1, 2, 3].into_iter().filter(|other| *other != caller).map(ask);
    others.chain([Effect::Probe { round: id, node: node(1) }]).collect()
}

/// Node 2 or 3 after it has lost the coordinator and seen for itself that it is gone: its round waits for the other's answer.
pub fn caller(me: u16, load: u32) -> Election {
    let mut election = follower(me, load);
    let mut effects = vec![Effect::CoordinatorLost];
    effects.extend(calls(me, 1));
    assert_eq!(election.step(ms(10), suspected(1)), effects);
    assert_eq!(election.step(ms(11), probed(round(me, 1), GONE)), []);
    election
}
