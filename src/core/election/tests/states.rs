//! Failed nodes (E5), the dead-man switch and the strategy `raft` (E6).

use super::*;

fn own_state(state: NodeState) -> Input {
    Input::Own { load: Load::from_hundredths(20), state }
}

/// E5: a Failed node drops its round, answers nothing and calls nothing; afterwards it begins with a back-off.
#[test]
fn e5_failed_takes_part_in_nothing() {
    let mut election = caller(2, 20);
    assert_eq!(election.step(ms(12), own_state(NodeState::Failed)), []);
    assert_eq!(election.phase(), Phase::Idle);
    assert_eq!(election.step(ms(13), received(3, response(round(2, 1), standing(3, 50, GONE), None))), []);
    assert_eq!(election.step(ms(14), received(3, query(round(3, 1), Some(leadership(1, 1)), Cause::Silence))), []);
    assert_eq!(election.step(ms(20_000), Input::Tick), []);
    assert_eq!(election.step(ms(20_001), own_state(NodeState::Recovering)), [], "and no dead-man switch for that time");
    assert_eq!(election.step(ms(20_040), Input::Tick), []);
    assert_eq!(election.step(ms(20_041), Input::Tick), calls(2, 2));
}

/// E5: a Recovering node takes full part, and says in its standing that it recovers.
#[test]
fn e5_recovering_answers() {
    let mut election = follower(3, 0);
    election.step(ms(1), own_state(NodeState::Recovering));
    let id = round(2, 1);
    election.step(ms(10), received(2, query(id, Some(leadership(1, 1)), Cause::Silence)));
    let recovering = Standing { state: NodeState::Recovering, ..standing(3, 20, GONE) };
    assert_eq!(election.step(ms(11), probed(id, GONE)), [send(2, response(id, recovering, Some(leadership(1, 1))))]);
}

/// E6: without a coordinator for 5 s Raft elects by itself, and has the time to; once there was a coordinator again, the next
/// round that a majority answers switches it off.
#[test]
fn e6_the_dead_man_switch() {
    let mut election = caller(2, 20);
    let on = Effect::NativeElections(NativeElections::On);
    let off = Effect::NativeElections(NativeElections::Off);
    for now in 12..5010 {
        assert!(!election.step(ms(now), Input::Tick).contains(&on), "at {now} ms");
    }
    let effects = election.step(ms(5010), Input::Tick);
    assert!(effects.contains(&on), "{effects:?}");
    let mut answered_round = |from: u64| {
        let called_at = |now| {
            let effects = election.step(ms(now), Input::Tick);
            effects.into_iter().find_map(|effect| match effect {
                Effect::Probe { round, .. } => Some((now, round)),
                _ => None,
            })
        };
        let (now, id) = (from..from + 200).find_map(called_at).expect("a round is called every 100 ms");
        election.step(ms(now + 1), probed(id, GONE));
        let effects = election.step(ms(now + 2), received(3, response(id, standing(3, 50, GONE), None)));
        election.step(ms(now + 3), Input::Trusted { node: node(1) });
        election.step(ms(now + 4), suspected(1));
        effects
    };
    assert_eq!(answered_round(5011), [campaign(Campaign::AgreedDeath, 1)], "both may succeed");
    let effects = answered_round(5300);
    assert_eq!(effects, [off, campaign(Campaign::AgreedDeath, 1)]);
}

/// E6, E7: strategy `raft` calls no round; what Raft elects is announced and recorded, with the loads that the heartbeats told.
#[test]
fn e6_strategy_raft() {
    let mut election = Election::new(Settings { strategy: Strategy::Raft, ..settings(2) }, 0);
    assert_eq!(
        election.step(ms(0), Input::Raft(view(1, Some(1)))),
        [Effect::CoordinatorConfirmed(leadership(1, 1)), Effect::NativeElections(NativeElections::On)]
    );
    election.step(ms(0), own(20));
    assert_eq!(election.step(ms(5), heartbeat(3, leadership(1, 1))), []);
    assert_eq!(election.step(ms(10), suspected(1)), [Effect::CoordinatorLost]);
    assert_eq!(election.step(ms(300), Input::Tick), []);
    let effects = election.step(ms(310), Input::Raft(view(2, Some(2))));
    let result = ElectionResult {
        coordinator: leadership(2, 2),
        vacancy: Some(leadership(1, 1)),
        caller: None,
        cause: Cause::ConnectionRefused,
        standings: vec![standing(3, 7, Finding::Unknown), standing(2, 20, Finding::Unknown)],
        campaign: None,
        votes: vec![],
        voters: 3,
        took_micros: 300_000,
        handed_over_to: None,
    };
    assert_eq!(effects[2..], [Effect::Decided(result), Effect::CoordinatorConfirmed(leadership(2, 2))]);
}
