//! Rounds: who calls, who answers what, who is nominated (E1, E3).

use super::*;

/// E1: the least-loaded of the frozen standings is nominated, though a load changed meanwhile.
#[test]
fn e1_the_least_loaded_by_the_frozen_loads_is_nominated() {
    let mut election = caller(2, 50);
    assert_eq!(election.step(ms(12), own(0)), [], "the load of the round is frozen");
    let standings = vec![standing(3, 20, GONE), standing(2, 50, GONE)];
    assert_eq!(
        election.step(ms(13), received(3, response(round(2, 1), standing(3, 20, GONE), Some(leadership(1, 1))))),
        [send(3, nomination(round(2, 1), standings, Campaign::AgreedDeath))]
    );
}

/// E1: equal loads are decided by the lowest id; a caller that is its own nominee obeys the same rules.
#[test]
fn e1_equal_loads_go_to_the_lowest_id() {
    let mut election = caller(2, 20);
    assert_eq!(
        election.step(ms(13), received(3, response(round(2, 1), standing(3, 20, GONE), None))),
        [campaign(Campaign::AgreedDeath, 1)]
    );
}

/// E1: who is one entry behind is not nominated, however idle: Raft would refuse it for ever.
#[test]
fn e1_a_shorter_log_is_never_nominated() {
    let mut election = caller(2, 50);
    let behind = Standing { last_log: log(1, 9), ..standing(3, 0, GONE) };
    assert_eq!(
        election.step(ms(13), received(3, response(round(2, 1), behind, None))),
        [campaign(Campaign::AgreedDeath, 1)]
    );
}

/// E5: a Recovering node is nominated only if no Active electable node answered.
#[test]
fn e5_active_before_recovering() {
    let recovering = Standing { state: NodeState::Recovering, ..standing(3, 0, GONE) };
    let mut active = caller(2, 50);
    assert_eq!(
        active.step(ms(13), received(3, response(round(2, 1), recovering.clone(), None))),
        [campaign(Campaign::AgreedDeath, 1)]
    );

    let mut behind = follower(2, 50);
    let mut shorter = view(1, Some(1));
    shorter.last_log = log(1, 9);
    behind.step(ms(5), Input::Raft(shorter));
    behind.step(ms(10), suspected(1));
    behind.step(ms(11), probed(round(2, 1), GONE));
    let own = Standing { last_log: log(1, 9), ..standing(2, 50, GONE) };
    assert_eq!(
        behind.step(ms(13), received(3, response(round(2, 1), recovering.clone(), None))),
        [send(3, nomination(round(2, 1), vec![recovering, own], Campaign::AgreedDeath))],
        "the Active node cannot win"
    );
}

/// E3: everybody answers by a probe of its own, and says which later leadership it knows.
#[test]
fn e3_a_query_is_answered_by_probing() {
    let mut election = follower(3, 70);
    let id = round(2, 9);
    let ask = query(id, Some(leadership(1, 1)), Cause::ConnectionRefused);
    assert_eq!(election.step(ms(10), received(2, ask)), [Effect::Probe { round: id, node: node(1) }]);
    assert_eq!(election.step(ms(11), own(5)), []);
    assert_eq!(
        election.step(ms(12), probed(id, ALIVE)),
        [send(2, response(id, standing(3, 70, ALIVE), Some(leadership(1, 1))))],
        "the load is that of the question"
    );
    assert_eq!(election.step(ms(13), probed(id, GONE)), [], "one answer per round");
}

/// E3: about a leadership that a later term has overtaken nobody can find a death, so no agreement can come of it.
#[test]
fn e3_a_superseded_leadership_is_unknown_without_a_probe() {
    let mut election = follower(3, 70);
    election.step(ms(5), Input::Raft(view(2, None)));
    let id = round(2, 9);
    let ask = query(id, Some(leadership(1, 1)), Cause::ConnectionRefused);
    assert_eq!(
        election.step(ms(10), received(2, ask)),
        [send(2, response(id, standing(3, 70, Finding::Unknown), Some(leadership(1, 1))))]
    );
}

/// E3: the coordinator itself answers that it leads.
#[test]
fn e3_the_coordinator_answers_for_itself() {
    let mut election = Election::new(settings(1), 0);
    election.step(ms(0), Input::Raft(view(1, Some(1))));
    election.step(ms(0), own(10));
    let id = round(2, 9);
    let ask = query(id, Some(leadership(1, 1)), Cause::Silence);
    assert_eq!(
        election.step(ms(10), received(2, ask)),
        [send(2, response(id, standing(1, 10, ALIVE), Some(leadership(1, 1))))]
    );
}

/// E3: one node's word against a coordinator that others hear comes to nothing: six quick repetitions, for the others may learn
/// of a death milliseconds later, then the back-off.
#[test]
fn e3_one_nodes_word_deposes_nobody() {
    let mut election = caller(2, 0);
    let mut now = 12;
    for number in 1..=6 {
        assert_eq!(
            election
                .step(ms(now), received(3, response(round(2, number), standing(3, 50, ALIVE), Some(leadership(1, 1))))),
            []
        );
        assert_eq!(election.step(ms(now + 2), Input::Tick), [], "not before 3 ms");
        assert_eq!(election.step(ms(now + 3), Input::Tick), calls(2, number + 1));
        assert_eq!(election.step(ms(now + 4), probed(round(2, number + 1), GONE)), []);
        now += 5;
    }
    assert_eq!(
        election.step(ms(now), received(3, response(round(2, 7), standing(3, 50, ALIVE), Some(leadership(1, 1))))),
        []
    );
    assert_eq!(election.step(ms(now + 39), Input::Tick), []);
    assert_eq!(election.step(ms(now + 40), Input::Tick), calls(2, 8));
    assert_eq!(
        election.step(ms(now + 41), Input::Trusted { node: node(1) }),
        [Effect::CoordinatorConfirmed(leadership(1, 1))],
        "a coordinator that is heard again is known again, and the round is over"
    );
    assert_eq!(election.phase(), Phase::Idle);
}

/// E3: a majority that sees no working coordinator, without agreeing on its death, waits for the lease.
#[test]
fn e3_silence_without_agreement_on_death_is_a_pre_vote() {
    let mut election = caller(2, 0);
    assert_eq!(
        election.step(ms(13), received(3, response(round(2, 1), standing(3, 50, Finding::RaftSilent), None))),
        [campaign(Campaign::PreVote, 1)]
    );
}

/// E3: a nominee that itself did not find the death does not take the transfer path, whatever the majority found.
#[test]
fn e3_a_nominee_that_did_not_find_the_death_campaigns_by_pre_vote() {
    let mut settings = settings(2);
    settings.nodes = (1..=5).map(NodeId).collect();
    let mut five = view(1, Some(1));
    five.voters = (1..=5).map(member).collect();
    let mut election = Election::new(settings, 0);
    election.step(ms(0), Input::Raft(five.clone()));
    election.step(ms(0), own(50));
    election.step(ms(10), suspected(1));
    election.step(ms(11), probed(round(2, 1), GONE));
    let answer = |of, load, finding| {
        let (round, standing, latest) = (round(2, 1), standing(of, load, finding), None);
        received(of, ElectionMessage::LoadResponse { round, standing, latest, voters: five.voters.clone() })
    };
    assert_eq!(election.step(ms(12), answer(3, 60, GONE)), []);
    assert_eq!(election.step(ms(12), answer(4, 70, GONE)), []);
    let standings =
        vec![standing(5, 0, Finding::RaftSilent), standing(2, 50, GONE), standing(3, 60, GONE), standing(4, 70, GONE)];
    assert_eq!(
        election.step(ms(13), answer(5, 0, Finding::RaftSilent)),
        [send(5, nomination(round(2, 1), standings, Campaign::PreVote))]
    );
}

/// E1: without answers from a majority the round ends after its time and is called again after the back-off.
#[test]
fn e1_no_majority_no_nomination() {
    let mut election = caller(2, 0);
    assert_eq!(election.step(ms(69), Input::Tick), []);
    assert_eq!(election.step(ms(70), Input::Tick), [], "60 ms");
    assert_eq!(election.step(ms(109), Input::Tick), []);
    assert_eq!(election.step(ms(110), Input::Tick), calls(2, 2), "40 ms later");
}

/// E1: a node that is taken for lost is not waited for.
#[test]
fn e1_a_lost_node_is_not_waited_for() {
    let mut election = caller(2, 0);
    election.step(ms(12), suspected(3));
    assert_eq!(election.phase(), Phase::Idle, "the round closed at once, for want of a majority");
}

/// E1: a later leadership in an answer ends the round, and is learned.
#[test]
fn e1_a_later_leadership_ends_the_round() {
    let mut election = caller(2, 0);
    assert_eq!(
        election
            .step(ms(12), received(3, response(round(2, 1), standing(3, 0, Finding::Unknown), Some(leadership(2, 3))))),
        [Effect::CoordinatorConfirmed(leadership(2, 3))]
    );
    assert_eq!(election.phase(), Phase::Idle);
}

/// E1: answers to other rounds, and in another node's name, do not count.
#[test]
fn e1_answers_count_in_their_own_round_only() {
    let mut election = caller(2, 50);
    assert_eq!(election.step(ms(12), received(3, response(round(2, 7), standing(3, 0, GONE), None))), []);
    assert_eq!(election.step(ms(12), received(3, response(round(2, 1), standing(1, 0, GONE), None))), []);
    assert_eq!(election.phase(), Phase::Calling);
}

/// E3: a nominee that does not agree or does not win in its time is passed over for the next in rank of
/// the same round; when nobody is left, the operator is told and a new round is called.
#[test]
fn e3_a_silent_nominee_is_passed_over_for_the_next_in_rank() {
    let mut election = caller(2, 50);
    election.step(ms(13), received(3, response(round(2, 1), standing(3, 20, GONE), None)));
    assert_eq!(election.step(ms(162), Input::Tick), []);
    assert_eq!(election.step(ms(163), Input::Tick), [campaign(Campaign::AgreedDeath, 1)]);
    assert_eq!(election.step(ms(264), refused(1)), [Effect::CampaignRefused { term: Term(1), why: "no".into() }]);
    assert_eq!(election.step(ms(304), Input::Tick), [campaign(Campaign::AgreedDeath, 1)], "once more");
    let alarm = Effect::Alarm(
        "no node could be elected: 2 of 3 voters answered [NodeId(3), NodeId(2)], and none of them could win".into(),
    );
    assert_eq!(election.step(ms(313), Input::Tick), [alarm]);
    assert_eq!(election.step(ms(353), Input::Tick), calls(2, 2));
}

/// E3 (a): a nominee that agreed to a pre-vote has the lease on top, once.
#[test]
fn e3_a_pre_vote_has_the_lease_on_top() {
    let mut election = caller(2, 50);
    let standings = vec![standing(3, 20, Finding::RaftSilent), standing(2, 50, GONE)];
    assert_eq!(
        election.step(ms(13), received(3, response(round(2, 1), standing(3, 20, Finding::RaftSilent), None))),
        [send(3, nomination(round(2, 1), standings, Campaign::PreVote))]
    );
    election.step(ms(14), received(3, ElectionMessage::Ok { round: round(2, 1) }));
    election.step(ms(14), received(3, ElectionMessage::Ok { round: round(2, 1) }));
    assert_eq!(election.step(ms(462), Input::Tick), []);
    assert_eq!(election.step(ms(463), Input::Tick), [campaign(Campaign::PreVote, 1)]);
}

/// E1: a restart of everything: nobody knows a coordinator, so a round is called for that reason and the lease is waited for.
#[test]
fn e1_after_a_restart_of_everything_a_round_is_called() {
    let mut election = Election::new(settings(2), 0);
    assert_eq!(election.step(ms(0), Input::Raft(view(4, None))), []);
    assert_eq!(election.step(ms(39), own(0)), []);
    let ask = |to| send(to, query(round(2, 1), None, Cause::NoCoordinator));
    assert_eq!(election.step(ms(40), Input::Tick), [ask(1), ask(3)]);
    let answer = response(round(2, 1), standing(3, 5, Finding::Unknown), None);
    assert_eq!(election.step(ms(41), received(3, answer)), []);
    assert_eq!(
        election.step(ms(100), Input::Tick),
        [Effect::Campaign { campaign: Campaign::PreVote, term: Term(4), vacancy: None, members: vec![] }]
    );
}

/// E1: a question in another node's name is not answered.
#[test]
fn e1_only_the_caller_asks() {
    let mut election = follower(3, 0);
    let foreign = query(round(2, 1), Some(leadership(1, 1)), Cause::Silence);
    assert_eq!(election.step(ms(10), received(1, foreign)), []);
}

/// E1: a coordinator that holds that it leads is no candidate, however idle: its Raft cannot campaign.
#[test]
fn e1_the_vacant_coordinator_is_no_candidate() {
    let mut election = follower(2, 50);
    election.step(ms(10), Input::Suspected { node: node(1), cause: Cause::RaftSilence });
    election.step(ms(11), probed(round(2, 1), Finding::RaftSilent));
    let coordinator = response(round(2, 1), standing(1, 0, ALIVE), Some(leadership(1, 1)));
    assert_eq!(election.step(ms(12), received(1, coordinator)), []);
    let other = response(round(2, 1), standing(3, 60, Finding::RaftSilent), None);
    assert_eq!(election.step(ms(13), received(3, other)), [campaign(Campaign::PreVote, 1)]);
}

/// E3: only the nominee's own agreement gives it more time.
#[test]
fn e3_only_the_nominee_agrees() {
    let mut election = caller(2, 50);
    election.step(ms(13), received(3, response(round(2, 1), standing(3, 20, Finding::RaftSilent), None)));
    election.step(ms(14), received(1, ElectionMessage::Ok { round: round(2, 1) }));
    assert_eq!(election.step(ms(163), Input::Tick), [campaign(Campaign::PreVote, 1)]);
}

/// E1: once a later term is known, the death of the old coordinator is not the reason any more, and is not probed.
#[test]
fn e1_a_term_without_a_leader_is_a_vacancy_of_its_own() {
    let mut election = follower(2, 0);
    election.step(ms(5), Input::Raft(view(2, None)));
    assert_eq!(election.step(ms(10), suspected(1)), []);
    let ask = |to| send(to, query(round(2, 1), Some(leadership(1, 1)), Cause::NoCoordinator));
    assert_eq!(election.step(ms(45), Input::Tick), [ask(1), ask(3)]);
}

/// E1: nothing that was tried in one vacancy delays the first round of the next.
#[test]
fn e1_the_next_vacancy_begins_at_once() {
    let mut election = caller(2, 0);
    assert_eq!(election.step(ms(70), Input::Tick), [], "given up until 110 ms");
    election.step(ms(71), Input::Raft(view(2, Some(3))));
    let effects = election.step(ms(72), suspected(3));
    assert_eq!(effects.first(), Some(&Effect::CoordinatorLost));
    assert_eq!(election.phase(), Phase::Calling);
}

/// E3: a coordinator that was heard again and is lost once more is asked about as quickly as the first time.
#[test]
fn e3_the_quick_repetitions_begin_anew() {
    let mut election = follower_with(Settings { quick_retries: 1, ..settings(2) }, 0);
    let disagree = |election: &mut Election, now, number| {
        election.step(ms(now), probed(round(2, number), GONE));
        let alive = response(round(2, number), standing(3, 50, ALIVE), Some(leadership(1, 1)));
        assert_eq!(election.step(ms(now), received(3, alive)), []);
    };
    election.step(ms(10), suspected(1));
    disagree(&mut election, 10, 1);
    assert_eq!(election.step(ms(13), Input::Tick), calls(2, 2));
    election.step(ms(14), Input::Trusted { node: node(1) });
    election.step(ms(15), suspected(1));
    disagree(&mut election, 16, 3);
    assert_eq!(election.step(ms(19), Input::Tick), calls(2, 4));
}

/// E1: a question or an answer that comes twice does not thaw a frozen load (found by the model).
#[test]
fn e1_a_repeated_question_does_not_thaw_the_load() {
    let mut election = follower(3, 70);
    let id = round(2, 9);
    let ask = query(id, Some(leadership(1, 1)), Cause::ConnectionRefused);
    election.step(ms(10), received(2, ask.clone()));
    election.step(ms(11), probed(id, GONE));
    election.step(ms(11), own(5));
    assert_eq!(election.step(ms(12), received(2, ask)), []);

    let mut caller = follower(2, 50);
    caller.step(ms(1), Input::Raft(RaftView { voters: (1..=5).map(member).collect(), ..view(1, Some(1)) }));
    caller.step(ms(10), suspected(1));
    caller.step(ms(11), probed(round(2, 1), GONE));
    // Node 5 does not answer, so the round stays open.
    assert_eq!(caller.step(ms(12), received(4, response(round(2, 1), standing(4, 70, GONE), None))), []);
    for load in [60, 0] {
        assert_eq!(caller.step(ms(12), received(3, response(round(2, 1), standing(3, load, GONE), None))), []);
    }
    assert_eq!(caller.step(ms(70), Input::Tick), [campaign(Campaign::AgreedDeath, 1)], "node 3 has said 0.60");
}
