//! Only Raft makes a coordinator (E2), and every election keeps its reason (E7).

use super::*;

/// Node 2 as the nominee of its own round, campaigning since 13 ms.
fn campaigning() -> Election {
    let mut election = caller(2, 20);
    let answer = response(round(2, 1), standing(3, 50, GONE), None);
    assert_eq!(election.step(ms(13), received(3, answer)), [campaign(Campaign::AgreedDeath, 1)]);
    election
}

fn won(term: u64) -> Input {
    Input::Raft(RaftView { votes: vec![node(2), node(3)], ..view(term, Some(2)) })
}

/// E2, E7: Raft confirms; the winner tells everybody, once, with the reason: who called, why, the loads, the votes, the time.
#[test]
fn e2_confirmed_then_announced_once() {
    let mut election = campaigning();
    assert_eq!(election.step(ms(14), Input::Raft(view(2, None))), [], "a raised term is no confirmation");
    let result = ElectionResult {
        coordinator: leadership(2, 2),
        vacancy: Some(leadership(1, 1)),
        caller: Some(node(2)),
        cause: Cause::ConnectionRefused,
        standings: vec![standing(2, 20, GONE), standing(3, 50, GONE)],
        campaign: Some(Campaign::AgreedDeath),
        votes: vec![node(2), node(3)],
        voters: 3,
        took_micros: 6000,
        handed_over_to: None,
    };
    let coordinator = ElectionMessage::Coordinator { leadership: leadership(2, 2), result: result.clone() };
    assert_eq!(
        election.step(ms(16), won(2)),
        [
            send(1, coordinator.clone()),
            send(3, coordinator),
            Effect::Decided(result),
            Effect::CoordinatorConfirmed(leadership(2, 2))
        ]
    );
    assert_eq!(election.step(ms(17), won(2)), []);
    assert_eq!(election.phase(), Phase::Idle);
}

/// E2: a late confirmation of an older term changes nothing.
#[test]
fn e2_a_late_confirmation_changes_nothing() {
    let mut election = campaigning();
    assert_eq!(election.step(ms(14), Input::Raft(view(3, Some(3)))), [Effect::CoordinatorConfirmed(leadership(3, 3))]);
    assert_eq!(election.step(ms(15), won(2)), []);
    assert_eq!(election.step(ms(16), refused(1)), []);
    assert_eq!(election.coordinator(), Some(leadership(3, 3)));
}

/// E2: not announced when a later leadership is known, though this node's Raft has not heard of it.
#[test]
fn e2_no_announcement_when_a_later_leadership_is_known() {
    let mut election = campaigning();
    let result = ElectionResult {
        coordinator: leadership(3, 3),
        vacancy: None,
        caller: None,
        cause: Cause::NoCoordinator,
        standings: vec![],
        campaign: None,
        votes: vec![],
        voters: 3,
        took_micros: 0,
        handed_over_to: None,
    };
    let message = ElectionMessage::Coordinator { leadership: leadership(3, 3), result };
    assert_eq!(election.step(ms(14), received(3, message)), [Effect::CoordinatorConfirmed(leadership(3, 3))]);
    assert_eq!(election.step(ms(15), won(2)), []);
}

/// E2: an announcement is taken from the announced only, and only if no later term is known.
#[test]
fn e2_old_and_foreign_announcements_are_ignored() {
    let mut election = campaigning();
    election.step(ms(14), Input::Raft(view(5, None)));
    let announce = |term, leader| {
        let mut other = Election::new(settings(leader), 0);
        let effects = other.step(ms(0), Input::Raft(view(term, Some(leader))));
        let Some(Effect::Send { message, .. }) = effects.first().cloned() else { panic!("{effects:?}") };
        message
    };
    assert_eq!(election.step(ms(15), received(3, announce(4, 3))), []);
    assert_eq!(election.step(ms(15), received(3, announce(5, 1))), []);
    assert_eq!(election.step(ms(16), received(3, announce(5, 3))), [Effect::CoordinatorConfirmed(leadership(5, 3))]);
}

/// E2: a heartbeat that names a later coordinator makes up for a lost announcement.
#[test]
fn e2_a_coordinator_is_learned_from_a_heartbeat() {
    let mut election = caller(2, 20);
    assert_eq!(election.step(ms(14), heartbeat(3, leadership(2, 3))), [Effect::CoordinatorConfirmed(leadership(2, 3))]);
}

/// E2: a higher term without a leader means that nobody is known to coordinate.
#[test]
fn e2_a_later_term_without_a_leader_is_no_coordinator() {
    let mut election = follower(2, 0);
    assert_eq!(election.step(ms(5), Input::Raft(view(2, None))), [Effect::CoordinatorLost]);
    assert_eq!(election.step(ms(6), Input::Raft(view(2, Some(3)))), [Effect::CoordinatorConfirmed(leadership(2, 3))]);
}

/// E2: a late view of an older term does not make this node forget the later one.
#[test]
fn e2_a_late_view_does_not_turn_back_the_term() {
    let mut election = follower(2, 0);
    election.step(ms(5), Input::Raft(view(5, None)));
    election.step(ms(6), Input::Raft(view(2, None)));
    let mut other = Election::new(settings(3), 0);
    let effects = other.step(ms(0), Input::Raft(view(4, Some(3))));
    let Some(Effect::Send { message, .. }) = effects.into_iter().nth(1) else { panic!("no announcement") };
    assert_eq!(election.step(ms(7), received(3, message)), []);
}
