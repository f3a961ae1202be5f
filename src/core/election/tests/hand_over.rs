//! The last step of an election whose least-loaded node was behind (E1).

use super::*;

/// Node 2 has just won term 2; node 3, less loaded, was one entry behind.
fn winner() -> Election {
    let mut election = caller(2, 50);
    let behind = Standing { last_log: log(1, 9), ..standing(3, 0, GONE) };
    election.step(ms(13), received(3, response(round(2, 1), behind, None)));
    let effects = election.step(ms(16), Input::Raft(leading(log(1, 9))));
    assert_eq!(effects.len(), 3, "announced to two and confirmed, not yet decided: {effects:?}");
    assert_eq!(election.phase(), Phase::HandingOver);
    election
}

fn leading(matched: LogPosition) -> RaftView {
    RaftView { matched: [(member(3), matched)].into(), last_log: log(2, 11), commit: 10, ..view(2, Some(2)) }
}

fn decided(effects: &[Effect]) -> Option<Option<NodeId>> {
    effects.iter().find_map(|effect| match effect {
        Effect::Decided(result) => Some(result.handed_over_to),
        _ => None,
    })
}

/// E1: caught up, the less loaded node takes over, and the result says so.
#[test]
fn e1_hands_over_to_the_least_loaded_when_it_has_caught_up() {
    let mut election = winner();
    assert_eq!(election.step(ms(17), Input::Raft(leading(log(1, 10)))), [], "not yet");
    let hand_over = Effect::HandOver { to: member(3), term: Term(2), cause: Cause::HandOver };
    assert_eq!(election.step(ms(18), Input::Raft(leading(log(2, 11)))), [hand_over]);
    let effects = election.step(ms(20), Input::Raft(view(3, Some(3))));
    assert_eq!(decided(&effects), Some(Some(node(3))));
    assert!(effects.contains(&Effect::CoordinatorConfirmed(leadership(3, 3))));
}

/// E1, E7: the node that takes over records why it leads.
#[test]
fn e7_the_successor_names_the_hand_over() {
    let mut election = follower(3, 0);
    let effects = election.step(ms(20), Input::Raft(view(2, Some(3))));
    let Some(Effect::Decided(result)) = effects.get(2) else { panic!("{effects:?}") };
    assert_eq!((result.cause, result.vacancy), (Cause::HandOver, Some(leadership(1, 1))));
    assert_eq!(result.caller, Some(node(1)), "no timeout called this election");
}

/// E1: a target that is taken for lost, or does not catch up in 2 s, is left alone: a transfer to a dead node stops all writes.
#[test]
fn e1_no_hand_over_to_a_lost_or_slow_node() {
    let mut election = winner();
    assert_eq!(decided(&election.step(ms(17), suspected(3))), Some(None));
    assert_eq!(election.phase(), Phase::Idle);
    let mut election = winner();
    assert_eq!(election.step(ms(2015), Input::Tick), []);
    assert_eq!(decided(&election.step(ms(2016), Input::Tick)), Some(None));
    assert_eq!(election.step(ms(2017), Input::Raft(leading(log(2, 11)))), []);
}

/// E1: a hand-over that does not come off leaves a leader that refuses writes: after 400 ms it calls a round about itself.
#[test]
fn e1_a_failed_hand_over_is_repaired_by_another_election() {
    let mut election = winner();
    election.step(ms(18), Input::Raft(leading(log(2, 11))));
    assert_eq!(election.step(ms(417), Input::Tick), []);
    let effects = election.step(ms(418), Input::Tick);
    let vacancy = Some(leadership(2, 2));
    assert_eq!(
        effects[0],
        Effect::Alarm("the hand-over to node 3 did not come off: another election is called".into())
    );
    assert_eq!(decided(&effects), Some(None));
    let ask = |to| send(to, query(round(2, 2), vacancy, Cause::HandOver));
    assert_eq!(effects[2..], [ask(1), ask(3)]);
    let answer = response(round(2, 2), standing(1, 10, Finding::Unknown), vacancy);
    election.step(ms(420), received(1, answer));
    let behind = Standing { last_log: log(2, 11), ..standing(3, 0, Finding::Unknown) };
    let effects = election.step(ms(421), received(3, response(round(2, 2), behind, vacancy)));
    let Some(Effect::Send { to, message: ElectionMessage::Election { campaign, .. } }) = effects.first() else {
        panic!("{effects:?}")
    };
    assert_eq!((*to, *campaign), (node(3), Campaign::PreVote));
}

/// E1: what the coordinator says of itself needs no probe.
#[test]
fn e1_a_coordinator_that_cannot_lead_is_believed() {
    let mut election = follower(3, 0);
    let id = round(1, 5);
    assert_eq!(
        election.step(ms(10), received(1, query(id, Some(leadership(1, 1)), Cause::HandOver))),
        [send(1, response(id, standing(3, 0, Finding::Unknown), Some(leadership(1, 1))))]
    );
}

/// E1: the nominee goes on asking, though the coordinator that gave up its lead is still heard.
#[test]
fn e1_the_nominee_of_a_stuck_coordinator_asks_again() {
    let mut election = follower(3, 0);
    let id = round(1, 5);
    election.step(ms(10), received(1, query(id, Some(leadership(1, 1)), Cause::HandOver)));
    let stuck = Standing { finding: Finding::RaftSilent, ..standing(1, 50, Finding::RaftSilent) };
    let message = ElectionMessage::Election {
        round: id,
        vacancy: Some(leadership(1, 1)),
        cause: Cause::HandOver,
        standings: vec![standing(3, 0, Finding::Unknown), stuck],
        campaign: Campaign::PreVote,
    };
    assert_eq!(
        election.step(ms(11), received(1, message)),
        [send(1, ElectionMessage::Ok { round: id }), campaign(Campaign::PreVote, 1)]
    );
    assert_eq!(election.step(ms(51), Input::Tick), [campaign(Campaign::PreVote, 1)]);
}

/// E5, E7: a winner that fails before it could hand over still records its election.
#[test]
fn e7_a_failing_winner_records_its_election() {
    let mut election = winner();
    let failed = Input::Own { load: Load::from_hundredths(50), state: NodeState::Failed };
    assert_eq!(decided(&election.step(ms(17), failed)), Some(None));
}

/// E1: a node that has the first entry of the term but not all that is committed has not caught up.
#[test]
fn e1_caught_up_means_all_that_is_committed() {
    let mut election = winner();
    assert_eq!(election.step(ms(17), Input::Raft(leading(log(2, 9)))), []);
}

/// E1: if somebody else leads in the end, the result does not say that it was handed over.
#[test]
fn e1_a_hand_over_that_went_elsewhere_is_none() {
    let mut election = winner();
    election.step(ms(18), Input::Raft(leading(log(2, 11))));
    assert_eq!(decided(&election.step(ms(20), Input::Raft(view(3, Some(1))))), Some(None));
}

/// E1: an equal load is not worth a hand-over.
#[test]
fn e1_no_hand_over_for_an_equal_load() {
    let mut election = caller(2, 50);
    let behind = Standing { last_log: log(1, 9), ..standing(3, 50, GONE) };
    election.step(ms(13), received(3, response(round(2, 1), behind, None)));
    assert_eq!(decided(&election.step(ms(16), Input::Raft(leading(log(1, 9))))), Some(None));
}

/// E1: a target that is not ready after all costs no election: Raft was not asked, so this node still leads.
#[test]
fn e1_a_refused_hand_over_changes_nothing() {
    let mut election = winner();
    election.step(ms(18), Input::Raft(leading(log(2, 11))));
    let refused = || Input::HandOverRefused { term: Term(2), why: "not ready".into() };
    let effects = election.step(ms(19), refused());
    assert_eq!(effects[0], Effect::HandOverRefused { to: node(3), term: Term(2), why: "not ready".into() });
    assert_eq!(decided(&effects), Some(None));
    assert_eq!(election.step(ms(20), refused()), [], "said once");
    assert_eq!(election.step(ms(1000), Input::Tick), [], "and no round");
    assert_eq!(election.coordinator(), Some(leadership(2, 2)));
}
