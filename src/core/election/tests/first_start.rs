//! The first start of a cluster, and nodes that do not belong to it (E0).

use super::*;

fn ask(to: u16, number: u64) -> Effect {
    send(to, query(round(1, number), None, Cause::FirstStart))
}

fn empty(of: u16, load: u32) -> Standing {
    Standing { last_log: LogPosition::default(), ..standing(of, load, Finding::Unknown) }
}

fn answer(number: u64, standing: Standing, voters: Vec<MemberId>) -> Input {
    let from = standing.member;
    let message = ElectionMessage::LoadResponse { round: round(1, number), standing, latest: None, voters };
    Input::Received { from, message }
}

fn initialise(members: Vec<MemberId>) -> Effect {
    Effect::Campaign { campaign: Campaign::Initialise, term: Term(0), vacancy: None, members }
}

fn starting(settings: Settings) -> Election {
    let mut election = Election::new(settings, 0);
    assert_eq!(election.step(ms(0), own(0)), [ask(2, 1), ask(3, 1)]);
    election
}

/// E0: the first in rank initialises, with exactly the members that answered, and only when all have.
#[test]
fn e0_the_first_in_rank_initialises_when_all_have_answered() {
    let mut election = starting(settings(1));
    assert_eq!(election.step(ms(1), answer(1, empty(3, 0), vec![])), []);
    assert_eq!(election.step(ms(2), answer(1, empty(2, 0), vec![])), [initialise(members())]);
}

/// E0: who is not first waits for the first.
#[test]
fn e0_the_others_wait() {
    let mut election = starting(settings(1));
    election.step(ms(0), own(90));
    let mut election = {
        election.step(ms(60), Input::Tick);
        assert_eq!(election.step(ms(100), Input::Tick), [ask(2, 2), ask(3, 2)]);
        election
    };
    assert_eq!(election.step(ms(101), answer(2, empty(3, 0), vec![])), []);
    assert_eq!(election.step(ms(102), answer(2, empty(2, 50), vec![])), []);
    assert_eq!(election.phase(), Phase::Idle);
}

/// E0: whom it waits for is said at most once a second.
#[test]
fn e0_waiting_names_the_missing() {
    let mut election = starting(settings(1));
    election.step(ms(1), answer(1, empty(2, 0), vec![]));
    assert_eq!(election.step(ms(60), Input::Tick), [Effect::Waiting { missing: vec![node(3)] }]);
    let mut said = 0;
    for now in 61..1000 {
        said += election
            .step(ms(now), Input::Tick)
            .iter()
            .filter(|effect| matches!(effect, Effect::Waiting { .. }))
            .count();
    }
    assert_eq!(said, 0);
    for now in 1000..1200 {
        said += election
            .step(ms(now), Input::Tick)
            .iter()
            .filter(|effect| matches!(effect, Effect::Waiting { .. }))
            .count();
    }
    assert_eq!(said, 1);
}

/// E0: `--bootstrap` starts with the majority that answered.
#[test]
fn e0_bootstrap_starts_with_a_majority() {
    let mut election = starting(Settings { first_start: FirstStart::Majority, ..settings(1) });
    election.step(ms(1), answer(1, empty(2, 0), vec![]));
    assert_eq!(election.step(ms(60), Input::Tick), [initialise(vec![member(1), member(2)])]);
    let mut alone = starting(Settings { first_start: FirstStart::Majority, ..settings(1) });
    assert_eq!(alone.step(ms(60), Input::Tick), [Effect::Waiting { missing: vec![node(2), node(3)] }]);
}

/// E0: where somebody has a log, nobody initialises.
#[test]
fn e0_a_log_anywhere_means_that_the_cluster_exists() {
    let mut election = starting(settings(1));
    election.step(ms(1), answer(1, empty(3, 0), vec![]));
    assert_eq!(election.step(ms(2), answer(1, standing(2, 0, Finding::Unknown), members())), []);
    assert_eq!(election.phase(), Phase::Idle);
}

/// E0: a wiped node under its old number takes no part, and says once what is needed.
#[test]
fn e0_a_wiped_node_takes_no_part() {
    let mut election = starting(settings(1));
    let old_life = MemberId { node: node(1), incarnation: Incarnation(7) };
    let alarm = "node 1 has an empty disk and is no member in its new life 1.0000000000000065: `client members replace 1 \
                 ADDRESS` takes it in with this node's HTTP address, or `client members add` if there was no node 1 before";
    let shown = || answer(1, standing(2, 0, Finding::Unknown), vec![old_life, member(2), member(3)]);
    assert_eq!(election.step(ms(2), shown()), [Effect::Alarm(alarm.into())]);
    assert_eq!(election.step(ms(3), shown()), []);
    assert_eq!(election.step(ms(4), received(2, query(round(2, 1), Some(leadership(1, 3)), Cause::Silence))), []);
    assert_eq!(election.step(ms(5000), Input::Tick), []);
    assert_eq!(
        election.step(ms(5001), Input::Raft(view(2, Some(2)))),
        [Effect::CoordinatorConfirmed(leadership(2, 2))],
        "once it is a voter, it takes part"
    );
    let effects = election.step(ms(5002), received(3, query(round(3, 1), Some(leadership(2, 2)), Cause::Silence)));
    assert_eq!(effects, [Effect::Probe { round: round(3, 1), node: node(2) }]);
}

/// E0: so does one that is told by a member that nobody knows it; one with a log learns from its log.
#[test]
fn e0_a_node_that_nobody_knows_takes_no_part() {
    let mut election = starting(settings(1));
    assert!(matches!(&election.step(ms(1), Input::NotAMember)[..], [Effect::Alarm(_)]));
    assert_eq!(election.step(ms(2), Input::NotAMember), []);
    assert!(election.is_outsider());
    assert_eq!(election.step(ms(5000), Input::Tick), []);
    let mut voter = follower(2, 0);
    assert_eq!(voter.step(ms(1), Input::NotAMember), []);
    assert!(!voter.is_outsider());
}

/// E0: a node that is to join asks nobody and answers nobody until it is a voter.
#[test]
fn e0_a_node_that_joins_waits_until_it_is_taken_in() {
    let mut election = Election::new(Settings { first_start: FirstStart::Never, ..settings(2) }, 0);
    assert_eq!(election.step(ms(0), own(0)), []);
    assert_eq!(election.step(ms(5000), Input::Tick), []);
    assert_eq!(election.step(ms(5001), received(3, query(round(3, 1), None, Cause::FirstStart))), []);
    // As a learner it follows the coordinator and takes no part.
    let learner = RaftView { voters: vec![member(1), member(3)], ..view(1, Some(1)) };
    assert_eq!(election.step(ms(5002), Input::Raft(learner)), [Effect::CoordinatorConfirmed(leadership(1, 1))]);
    assert!(election.is_outsider());
    election.step(ms(5003), Input::Raft(view(1, Some(1))));
    assert!(!election.is_outsider());
}

/// E0, E7: the first coordinator is announced with its reason.
#[test]
fn e0_the_first_coordinator_is_confirmed_by_raft() {
    let mut election = starting(settings(1));
    election.step(ms(1), answer(1, empty(3, 0), vec![]));
    election.step(ms(2), answer(1, empty(2, 0), vec![]));
    assert_eq!(election.step(ms(3), Input::Raft(view(1, None))), []);
    let effects = election.step(ms(5), Input::Raft(view(1, Some(1))));
    let Some(Effect::Decided(result)) = effects.get(2) else { panic!("{effects:?}") };
    assert_eq!(
        (result.cause, result.campaign, result.caller),
        (Cause::FirstStart, Some(Campaign::Initialise), Some(node(1)))
    );
    assert_eq!((result.coordinator, result.voters, result.took_micros), (leadership(1, 1), 3, 5000));
    assert_eq!(effects.get(3), Some(&Effect::CoordinatorConfirmed(leadership(1, 1))));
}

/// E0: a refused initialisation is tried again after the back-off.
#[test]
fn e0_a_refused_initialisation_is_repeated() {
    let mut election = starting(settings(1));
    election.step(ms(1), answer(1, empty(3, 0), vec![]));
    election.step(ms(2), answer(1, empty(2, 0), vec![]));
    assert_eq!(election.step(ms(3), refused(0)), [Effect::CampaignRefused { term: Term(0), why: "no".into() }]);
    assert_eq!(election.step(ms(43), Input::Tick), [initialise(members())]);
}

/// E0: a node that is taken for lost is waited for all the same.
#[test]
fn e0_the_first_start_waits_for_a_lost_node_too() {
    let mut election = starting(settings(1));
    election.step(ms(0), suspected(3));
    assert_eq!(election.step(ms(1), answer(1, empty(2, 0), vec![])), []);
    assert_eq!(election.phase(), Phase::Calling);
}

/// E0: a node with a log is no outsider, whatever voters it is shown: its own Raft tells it who votes.
#[test]
fn e0_a_node_with_a_log_is_no_outsider() {
    let mut election = caller(2, 20);
    let (round, standing, latest) = (round(2, 1), standing(3, 50, GONE), None);
    let message = ElectionMessage::LoadResponse { round, standing, latest, voters: vec![member(1), member(3)] };
    assert_eq!(election.step(ms(13), received(3, message)), [campaign(Campaign::AgreedDeath, 1)]);
}
