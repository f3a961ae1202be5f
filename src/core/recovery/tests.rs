use super::*;
use crate::id::Term;

const ME: NodeId = NodeId(2);
const LEADER: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(3);
/// Twice the time after which another is asked.
const LIMIT: Duration = Duration::from_millis(400);

fn at(milliseconds: u64) -> Moment {
    Moment::from_millis(milliseconds)
}

fn leadership(node: NodeId) -> Option<Leadership> {
    Some(Leadership { term: Term(3), node })
}

fn answer(node: NodeId, commit: u64) -> StateSyncResponse {
    StateSyncResponse { node, active: true, coordinator: leadership(LEADER), placements: Vec::new(), commit }
}

fn recovering() -> Recovery {
    let mut recovery = Recovery::new(Settings::new(ME), at(0));
    let effects = recovery.step(at(0), Input::Coordinator(leadership(LEADER)));
    assert_eq!(effects, [Effect::AskStateSync { peer: LEADER, applied: 0, limit: LIMIT }]);
    recovery
}

fn changed(from: NodeState, to: NodeState, why: &str) -> Effect {
    Effect::StateChanged { from, to, why: why.into() }
}

#[test]
fn it_is_active_only_when_synced_caught_up_and_warm() {
    let mut recovery = recovering();
    let adopted = recovery.step(at(10), Input::Synced(answer(LEADER, 7)));
    assert_eq!(adopted, [Effect::Adopt(answer(LEADER, 7))]);
    assert_eq!(recovery.step(at(60), Input::Applied { applied: 6, own_term: false }), []);
    assert_eq!(recovery.state(), NodeState::Recovering);
    assert_eq!(
        recovery.step(at(61), Input::Applied { applied: 7, own_term: false }),
        [
            changed(NodeState::Recovering, NodeState::Active, "in sync with node 1"),
            Effect::Recovered { from: Some(LEADER), entries: 7, took: Duration::from_millis(61) },
        ]
    );
}

/// `StateSync` decides: everything else is in place, the answer is held back, and the node takes no job.
#[test]
fn while_the_answer_is_held_back_it_stays_recovering() {
    let mut recovery = recovering();
    recovery.step(at(1), Input::Applied { applied: 1000, own_term: false });
    for milliseconds in (5..60_000).step_by(5) {
        for effect in recovery.step(at(milliseconds), Input::Tick) {
            assert_eq!(effect, Effect::AskStateSync { peer: LEADER, applied: 1000, limit: LIMIT });
        }
        assert_eq!(recovery.state(), NodeState::Recovering);
    }
}

#[test]
fn a_silent_coordinator_is_followed_by_an_active_peer_and_asked_again_later() {
    let mut recovery = recovering();
    recovery.step(at(1), Input::ActivePeers(BTreeSet::from([OTHER])));
    assert_eq!(recovery.step(at(199), Input::Tick), []);
    assert_eq!(recovery.step(at(200), Input::Tick), [Effect::AskStateSync { peer: OTHER, applied: 0, limit: LIMIT }]);
    // The coordinator's answer comes too late; it is not the one that is waited for now.
    assert_eq!(recovery.step(at(201), Input::Synced(answer(LEADER, 0))), []);
    assert_eq!(recovery.step(at(400), Input::Tick), [Effect::AskStateSync { peer: LEADER, applied: 0, limit: LIMIT }]);
}

#[test]
fn an_answer_of_a_node_that_is_not_active_does_not_count() {
    let mut recovery = recovering();
    recovery.step(at(1), Input::ActivePeers(BTreeSet::from([OTHER])));
    let useless = StateSyncResponse { active: false, ..answer(LEADER, 0) };
    assert_eq!(recovery.step(at(2), Input::Synced(useless)), []);
    assert_eq!(recovery.step(at(21), Input::Tick), [], "it does not ask in a tight loop");
    assert_eq!(recovery.step(at(22), Input::Tick), [Effect::AskStateSync { peer: OTHER, applied: 0, limit: LIMIT }]);
}

#[test]
fn whoever_is_confirmed_while_recovering_is_active_with_the_first_entry_of_its_term() {
    let mut recovery = Recovery::new(Settings::new(ME), at(0));
    assert_eq!(recovery.step(at(1), Input::Coordinator(leadership(ME))), []);
    assert_eq!(recovery.step(at(2), Input::Applied { applied: 4, own_term: false }), []);
    assert_eq!(
        recovery.step(at(3), Input::Applied { applied: 5, own_term: true }),
        [
            changed(NodeState::Recovering, NodeState::Active, "confirmed as coordinator"),
            Effect::Recovered { from: Some(ME), entries: 5, took: Duration::from_millis(3) },
        ]
    );
}

#[test]
fn with_no_coordinator_for_two_seconds_it_takes_jobs_and_syncs_later() {
    let mut recovery = Recovery::new(Settings::new(ME), at(0));
    assert_eq!(recovery.step(at(1995), Input::Tick), []);
    let why = "no coordinator for 2 s: takes jobs, will sync when one is confirmed";
    assert_eq!(recovery.step(at(2000), Input::Tick), [changed(NodeState::Recovering, NodeState::Active, why)]);
    assert_eq!(recovery.state_for_elections(), NodeState::Recovering, "E5");

    let asked = recovery.step(at(5000), Input::Coordinator(leadership(LEADER)));
    assert_eq!(asked, [Effect::AskStateSync { peer: LEADER, applied: 0, limit: LIMIT }]);
    let effects = recovery.step(at(5001), Input::Synced(answer(LEADER, 0)));
    assert_eq!(effects[1], Effect::Recovered { from: Some(LEADER), entries: 0, took: Duration::from_millis(5001) });
    assert_eq!(recovery.state_for_elections(), NodeState::Active);
}

#[test]
fn a_failure_begins_a_new_recovery_that_counts_what_was_missed() {
    let mut recovery = recovering();
    recovery.step(at(1), Input::Applied { applied: 3, own_term: false });
    recovery.step(at(60), Input::Synced(answer(LEADER, 3)));
    assert_eq!(recovery.state(), NodeState::Active);
    let failed = recovery.step(at(100), Input::Failed { why: "told to".into() });
    assert_eq!(failed, [changed(NodeState::Active, NodeState::Failed, "told to")]);
    assert_eq!(recovery.step(at(150), Input::Synced(answer(LEADER, 3))), [], "a Failed node hears nothing");
    assert_eq!(
        recovery.step(at(1100), Input::FailureOver),
        [
            changed(NodeState::Failed, NodeState::Recovering, "the failure is over"),
            Effect::AskStateSync { peer: LEADER, applied: 3, limit: LIMIT },
        ]
    );
    recovery.step(at(1110), Input::Synced(answer(LEADER, 9)));
    let effects = recovery.step(at(1200), Input::Applied { applied: 9, own_term: false });
    assert_eq!(effects[1], Effect::Recovered { from: Some(LEADER), entries: 6, took: Duration::from_millis(100) });
}

/// A cluster of one has nobody to ask; a former coordinator that was deaf has a successor. Both must prove that they lead.
#[test]
fn whoever_still_believes_to_lead_after_a_failure_must_prove_it() {
    let mut recovery = Recovery::new(Settings::new(ME), at(0));
    recovery.step(at(1), Input::Coordinator(leadership(ME)));
    recovery.step(at(2), Input::Applied { applied: 2, own_term: true });
    recovery.step(at(100), Input::Failed { why: "told to".into() });
    let over = recovery.step(at(1100), Input::FailureOver);
    assert_eq!(over, [changed(NodeState::Failed, NodeState::Recovering, "the failure is over")]);
    assert_eq!(recovery.step(at(1299), Input::Tick), []);
    assert_eq!(recovery.step(at(1300), Input::Tick), [Effect::ProveLeadership]);
    assert_eq!(recovery.state(), NodeState::Recovering);

    let mut replaced = recovery.clone();
    let effects = recovery.step(at(1301), Input::Applied { applied: 3, own_term: true });
    assert_eq!(effects[0], changed(NodeState::Recovering, NodeState::Active, "confirmed as coordinator"));

    let effects = replaced.step(at(1301), Input::Coordinator(leadership(LEADER)));
    assert_eq!(
        effects,
        [Effect::AskStateSync { peer: LEADER, applied: 2, limit: LIMIT }],
        "it asks its successor at once"
    );
}

/// A node that was told to stop takes no more jobs, whatever happens, and does not fail for show.
#[test]
fn it_is_stopping_until_the_end() {
    let mut recovery = recovering();
    recovery.step(at(10), Input::Synced(answer(LEADER, 0)));
    recovery.step(at(60), Input::Tick);
    assert_eq!(recovery.state(), NodeState::Active);
    let stop = || Input::Stop { why: "told to stop".into() };
    assert_eq!(recovery.step(at(70), stop()), [changed(NodeState::Active, NodeState::Stopping, "told to stop")]);
    assert_eq!(recovery.step(at(71), stop()), []);
    assert_eq!(recovery.step(at(72), Input::Failed { why: "dice".into() }), []);
    recovery.step(at(73), Input::Coordinator(None));
    recovery.step(at(60_000), Input::Tick);
    assert_eq!((recovery.state(), recovery.state_for_elections()), (NodeState::Stopping, NodeState::Stopping));

    let mut failed = recovering();
    failed.step(at(10), Input::Failed { why: "dice".into() });
    assert_eq!(failed.step(at(20), stop()), []);
    assert_eq!(failed.state(), NodeState::Failed);
}
