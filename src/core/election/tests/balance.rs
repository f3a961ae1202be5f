//! A live coordinator hands over: to a much better node, or because it must leave (E4).

use super::*;

const SECOND: u64 = 1000;

/// Node 1, confirmed in term 2 at 0 ms, with load 5.00. Both others have its whole log.
fn coordinator_with(settings: Settings) -> Election {
    let mut election = Election::new(settings, 0);
    election.step(ms(0), Input::Raft(view(1, None)));
    let matched = [(member(2), log(2, 11)), (member(3), log(2, 11))].into();
    let leading = RaftView { matched, last_log: log(2, 11), commit: 11, ..view(2, Some(1)) };
    election.step(ms(0), Input::Raft(leading));
    election.step(ms(0), own(500));
    assert_eq!(election.coordinator(), Some(leadership(2, 1)));
    election
}

fn coordinator() -> Election {
    coordinator_with(settings(1))
}

fn report(from: u16, load: u32, state: NodeState) -> Input {
    let Input::Heartbeat(heartbeat) = heartbeat(from, leadership(2, 1)) else { unreachable!("it makes heartbeats") };
    Input::Heartbeat(Heartbeat { load: Load::from_hundredths(load), state, ..heartbeat })
}

/// Looks every 100 ms from one moment to another, with these loads at nodes 2 and 3; gives the first effects and their time.
fn look(election: &mut Election, from: u64, to: u64, loads: [u32; 2]) -> Option<(u64, Vec<Effect>)> {
    (from..=to).step_by(100).find_map(|now| {
        let mut effects = election.step(ms(now), report(2, loads[0], NodeState::Active));
        effects.extend(election.step(ms(now), report(3, loads[1], NodeState::Active)));
        (!effects.is_empty()).then_some((now, effects))
    })
}

fn hands_over(to: u16, cause: Cause) -> Vec<Effect> {
    let message = ElectionMessage::HandingOver { leadership: leadership(2, 1), cause };
    vec![send(to, message), Effect::HandOver { to: member(to), term: Term(2), cause }]
}

/// E4: the gap is large and old, and the election long ago: to the least loaded, once, and the record of it at both.
#[test]
fn e4_hands_over_to_the_least_loaded_after_hold_and_cool_down() {
    let mut election = coordinator();
    let (at, effects) = look(&mut election, 0, 100 * SECOND, [300, 50]).expect("a hand-over");
    assert_eq!(
        (at, effects),
        (60 * SECOND, hands_over(3, Cause::LessLoaded)),
        "held for 60 s: the cool-down is longer"
    );
    let effects = election.step(ms(at + 4), Input::Raft(view(3, Some(3))));
    let (from, took) = (leadership(2, 1), Duration::from_millis(4));
    assert_eq!(
        effects,
        [
            Effect::CoordinatorConfirmed(leadership(3, 3)),
            Effect::HandedOver { from, to: node(3), cause: Cause::LessLoaded, took }
        ]
    );
}

/// E4, E7: the successor names the hand-over, who made it and why.
#[test]
fn e7_the_successor_says_why_it_was_handed_over() {
    let mut election = follower(3, 0);
    let message = ElectionMessage::HandingOver { leadership: leadership(1, 1), cause: Cause::PlannedStop };
    assert_eq!(election.step(ms(10), received(2, message.clone())), [], "only the coordinator's own word counts");
    assert_eq!(election.step(ms(10), received(1, message)), []);
    let effects = election.step(ms(14), Input::Raft(view(2, Some(3))));
    let Some(Effect::Decided(result)) = effects.get(2) else { panic!("{effects:?}") };
    assert_eq!((result.cause, result.caller, result.took_micros), (Cause::PlannedStop, Some(node(1)), 4000));
    assert_eq!(result.vacancy, Some(leadership(1, 1)));
}

/// E4: the gap must be there for 30 s without a break.
#[test]
fn e4_a_break_begins_the_hold_time_anew() {
    let mut election = coordinator();
    assert_eq!(look(&mut election, 0, 59_900, [450, 450]), None);
    assert_eq!(look(&mut election, 60_000, 89_900, [50, 450]), None);
    assert_eq!(look(&mut election, 90_000, 90_000, [450, 450]), None, "one look with an even load");
    assert_eq!(look(&mut election, 90_100, 120_000, [50, 450]), None);
    assert_eq!(look(&mut election, 120_100, 121_000, [50, 450]).map(|(at, _)| at), Some(120_100));
}

/// E4: a pause of this process is no time in which anything was seen.
#[test]
fn e4_a_pause_begins_the_hold_time_anew() {
    let mut election = coordinator();
    assert_eq!(look(&mut election, 50_000, 60_000, [50, 50]), None);
    assert_eq!(look(&mut election, 95_000, 124_900, [50, 50]), None);
    assert!(look(&mut election, 125_000, 125_000, [50, 50]).is_some());
}

/// E4: the margin counts without what leading costs, and a quarter of a high load is chance.
#[test]
fn e4_a_gap_below_the_margin_is_none() {
    let mut election = coordinator();
    election.step(ms(0), own(300));
    assert_eq!(look(&mut election, 0, 200 * SECOND, [176, 300]), None, "3.00 less 0.25 of leading: a gap of 0.99");
    assert!(look(&mut election, 201 * SECOND, 300 * SECOND, [175, 300]).is_some());
    let mut election = coordinator();
    election.step(ms(0), own(4000));
    assert_eq!(look(&mut election, 0, 200 * SECOND, [3000, 3000]), None, "10 of 40");
}

/// E4: only to a node that is Active, heard and caught up, and a voter in this life.
#[test]
fn e4_only_to_a_node_that_could_lead_at_once() {
    for unready in [
        report(3, 0, NodeState::Recovering),
        report(3, 0, NodeState::Stopping),
        suspected(3),
        Input::Raft(RaftView {
            matched: [(member(2), log(2, 11)), (member(3), log(2, 10))].into(),
            last_log: log(2, 11),
            commit: 11,
            ..view(2, Some(1))
        }),
    ] {
        let mut election = coordinator();
        for now in (0..200 * SECOND).step_by(100) {
            election.step(ms(now), report(3, 0, NodeState::Active));
            assert_eq!(election.step(ms(now), unready.clone()), [], "at {now} ms: {unready:?}");
        }
    }
}

/// E4: strategy `raft` has no voluntary hand-over.
#[test]
fn e4_strategy_raft_moves_nothing() {
    let mut election = coordinator_with(Settings { strategy: Strategy::Raft, ..settings(1) });
    assert_eq!(look(&mut election, 0, 300 * SECOND, [0, 0]), None);
}

/// E4: a target that was not ready is left alone for the cool-down.
#[test]
fn e4_a_refusal_is_followed_by_a_cool_down() {
    let mut election = coordinator();
    let (at, _) = look(&mut election, 0, 100 * SECOND, [300, 50]).unwrap();
    election.step(ms(at + 1), Input::HandOverRefused { term: Term(2), why: "no".into() });
    let (again, _) = look(&mut election, at + 100, at + 100 * SECOND, [300, 50]).unwrap();
    assert_eq!(again, at + 60 * SECOND + 100);
}

/// The preferred order: load decides only among nodes of one place, and the lead goes back after the hold time.
#[test]
fn e4_the_lead_goes_back_to_a_preferred_node_after_the_hold_time() {
    let prefer = |order: &[u16]| Settings { prefer: order.iter().copied().map(node).collect(), ..settings(1) };
    let mut election = coordinator_with(prefer(&[1]));
    assert_eq!(look(&mut election, 0, 200 * SECOND, [0, 0]), None, "the preferred node keeps the lead under any load");

    let mut election = coordinator_with(prefer(&[2, 1]));
    assert_eq!(look(&mut election, 0, 59_900, [900, 0]), None);
    let (at, effects) = look(&mut election, 60_000, 60_000, [900, 0]).unwrap();
    assert_eq!((at, effects), (60_000, hands_over(2, Cause::Preferred)));

    // It comes back long after the election: from then on it must be ready for 30 s.
    let mut election = coordinator_with(prefer(&[2, 1]));
    election.step(ms(0), suspected(2));
    assert_eq!(look(&mut election, 0, 200_000, [0, 0]), None);
    election.step(ms(200_001), Input::Trusted { node: node(2) });
    let (at, _) = look(&mut election, 200_100, 300_000, [0, 0]).unwrap();
    assert_eq!(at, 230_100);
}

/// The preferred order in a round: before the load, after electability and state.
#[test]
fn e1_the_preferred_is_nominated_before_the_less_loaded() {
    let mut election = follower_with(Settings { prefer: vec![node(3), node(1)], ..settings(2) }, 0);
    election.step(ms(10), suspected(1));
    election.step(ms(11), probed(round(2, 1), GONE));
    let standings = vec![standing(3, 900, GONE), standing(2, 0, GONE)];
    assert_eq!(
        election.step(ms(13), received(3, response(round(2, 1), standing(3, 900, GONE), None))),
        [send(3, nomination(round(2, 1), standings, Campaign::AgreedDeath))]
    );
}

fn stop() -> Input {
    Input::Own { load: Load::from_hundredths(500), state: NodeState::Stopping }
}

/// A planned stop: at once, to an Active node before a less loaded Recovering one; the cool-down does not count.
#[test]
fn e4_a_node_that_is_told_to_stop_hands_over_at_once() {
    let mut election = coordinator();
    election.step(ms(5), report(2, 0, NodeState::Recovering));
    election.step(ms(5), report(3, 900, NodeState::Active));
    assert_eq!(election.step(ms(6), stop()), hands_over(3, Cause::PlannedStop));
    // Not ready: the other is asked after the back-off, Recovering or not.
    election.step(ms(7), Input::HandOverRefused { term: Term(2), why: "no".into() });
    assert_eq!(election.step(ms(46), Input::Tick), []);
    assert_eq!(election.step(ms(47), Input::Tick), hands_over(2, Cause::PlannedStop));
}

/// With no ready voter there is nobody to hand over to.
#[test]
fn e4_a_node_that_is_told_to_stop_among_unready_ones_asks_nobody() {
    let mut election = coordinator();
    election.step(ms(5), report(2, 0, NodeState::Stopping));
    election.step(ms(5), report(3, 0, NodeState::Active));
    election.step(ms(5), suspected(3));
    for now in 6..400 {
        assert_eq!(election.step(ms(now), stop()), []);
    }
}

/// A node that is stopping is no candidate: it calls nothing, takes no nomination, and nobody nominates it.
#[test]
fn e5_a_stopping_node_is_no_candidate() {
    let mut election = follower(2, 0);
    election.step(ms(1), stop());
    assert_eq!(election.step(ms(10), suspected(1)), [Effect::CoordinatorLost]);
    assert_eq!(election.step(ms(1000), Input::Tick), [], "it calls no round");
    let id = round(3, 7);
    let effects = election.step(ms(1001), received(3, query(id, Some(leadership(1, 1)), Cause::Silence)));
    assert_eq!(effects, [Effect::Probe { round: id, node: node(1) }], "it answers");
    election.step(ms(1002), probed(id, GONE));
    let own = Standing { state: NodeState::Stopping, ..standing(2, 500, GONE) };
    let message = nomination(id, vec![own.clone(), standing(3, 900, GONE)], Campaign::AgreedDeath);
    assert_eq!(election.step(ms(1003), received(3, message)), []);

    let mut caller = caller(3, 900);
    let answer = response(round(3, 1), Standing { load: Load::default(), ..own }, None);
    assert_eq!(caller.step(ms(13), received(2, answer)), [campaign(Campaign::AgreedDeath, 1)], "it nominates itself");
}

/// A disk that stalls: the coordinator gives up after 500 ms, whatever the loads; a busy disk is none that stalls.
#[test]
fn e4_a_coordinator_whose_disk_stalls_hands_over() {
    let mut election = coordinator();
    election.step(ms(5), report(2, 900, NodeState::Active));
    let disk = |milliseconds| Input::Disk { waits: Duration::from_millis(milliseconds) };
    assert_eq!(election.step(ms(1000), disk(499)), []);
    assert_eq!(election.step(ms(1001), disk(500)), hands_over(2, Cause::DiskStall));
    let mut shared = coordinator();
    let Input::Heartbeat(heartbeat) = report(2, 0, NodeState::Active) else { unreachable!("it makes heartbeats") };
    shared.step(ms(5), Input::Heartbeat(Heartbeat { disk_waits_ms: 250, ..heartbeat }));
    assert_eq!(shared.step(ms(1001), disk(9000)), [], "the other's disk is the same one, or no better");
    let mut follower = follower(2, 0);
    assert_eq!(follower.step(ms(1000), disk(5000)), [], "only the coordinator has a lead to give up");
}

/// E4: a coordinator that is to leave the membership hands over at once, and leads no more until its time is over.
#[test]
fn e4_a_coordinator_that_is_to_leave_the_membership_hands_over() {
    let mut election = coordinator();
    look(&mut election, 0, 0, [50, 50]);
    let effects = election.step(ms(10), Input::GiveUpLead { until: ms(5010) });
    assert_eq!(effects, hands_over(2, Cause::MembershipChange));
    let mut stays = coordinator();
    look(&mut stays, 0, 0, [50, 50]);
    assert_eq!(stays.step(ms(5010), Input::GiveUpLead { until: ms(5010) }), [], "its time is over");
}

/// A member that is replaced: of two lives of a node only the voter's word counts.
#[test]
fn only_the_voter_of_a_node_counts() {
    let mut election = coordinator();
    let new = MemberId { node: node(2), incarnation: Incarnation(9) };
    let Input::Heartbeat(of_two) = report(2, 10, NodeState::Active) else { unreachable!("it makes heartbeats") };
    election.step(ms(0), Input::Heartbeat(Heartbeat { member: new, ..of_two }));
    assert!(!election.reports.contains_key(&node(2)), "a learner");
    election.step(ms(0), Input::Heartbeat(of_two.clone()));
    assert!(election.reports.contains_key(&node(2)));
    let voters = vec![member(1), new, member(3)];
    election.step(ms(1), Input::Raft(RaftView { voters, ..view(2, Some(1)) }));
    assert!(!election.reports.contains_key(&node(2)), "what the old one said is forgotten");
    election.step(ms(2), Input::Heartbeat(of_two));
    assert!(!election.reports.contains_key(&node(2)), "and it is not heard any more");
}
