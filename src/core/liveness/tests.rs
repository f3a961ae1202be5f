//! Exact effect lists of the failure detector.

use super::*;

const ONE: NodeId = NodeId(1);

fn ms(milliseconds: u64) -> Moment {
    Moment::from_millis(milliseconds)
}

fn round(number: u64) -> RoundId {
    RoundId { caller: NodeId(3), number }
}

/// Node 2's view of nodes 1 and 3, with node 1 heard at 0 ms.
fn hearing_one() -> Liveness {
    let mut liveness = Liveness::new(Settings::new(vec![ONE, NodeId(3)]));
    assert_eq!(liveness.step(ms(0), Input::Heard { node: ONE }), []);
    liveness
}

/// Ticks every 5 ms from after `from` to `until`; returns what happened and when.
fn ticks(liveness: &mut Liveness, from: u64, until: u64) -> Vec<(u64, Effect)> {
    let mut happened = Vec::new();
    for now in (from + 5..=until).step_by(5) {
        happened.extend(liveness.step(ms(now), Input::Tick).into_iter().map(|effect| (now, effect)));
    }
    happened
}

fn probe(after: u64) -> Effect {
    Effect::Probe { node: ONE, after: Duration::from_millis(after), limit: Duration::from_millis(10) }
}

fn probed(outcome: ProbeOutcome) -> Input {
    Input::Probed { node: ONE, outcome }
}

fn suspected(cause: Cause) -> Effect {
    Effect::Suspected { node: ONE, cause }
}

fn found(number: u64, finding: Finding) -> Effect {
    Effect::Found { round: round(number), node: ONE, finding }
}

/// E3: silence for more than 150 ms on two ticks in a row; heard again, it is trusted again.
#[test]
fn silence_is_suspicious_on_the_second_tick() {
    let mut liveness = hearing_one();
    assert_eq!(ticks(&mut liveness, 0, 155), []);
    assert_eq!(ticks(&mut liveness, 155, 400), [(160, suspected(Cause::Silence))]);
    assert_eq!(liveness.step(ms(401), Input::Heard { node: ONE }), [Effect::Trusted { node: ONE }]);
    assert_eq!(liveness.suspected().count(), 0);
}

/// E3: a pause of this process is not the death of the others.
#[test]
fn an_own_pause_is_not_a_death() {
    let mut liveness = hearing_one();
    assert_eq!(ticks(&mut liveness, 0, 100), []);
    assert_eq!(liveness.step(ms(400), Input::Tick), [], "300 ms late: look again");
    assert_eq!(
        liveness.step(ms(400), Input::Asked { round: round(1), node: ONE }),
        [probe(0)],
        "what came meanwhile may still be unread"
    );
    liveness.step(ms(401), Input::Heard { node: ONE });
    assert_eq!(liveness.step(ms(401), probed(ProbeOutcome::Connected)), [found(1, Finding::Alive)]);
    assert_eq!(ticks(&mut liveness, 400, 550), []);
}

/// The same for a question that comes before the late tick: it is answered by a probe, not by a silence that may be our own.
#[test]
fn an_own_pause_answers_no_question() {
    let mut liveness = hearing_one();
    assert_eq!(ticks(&mut liveness, 0, 100), []);
    assert_eq!(liveness.step(ms(400), Input::Asked { round: round(1), node: ONE }), [probe(0)]);
    assert_eq!(liveness.step(ms(400), Input::Heard { node: ONE }), []);
    assert_eq!(liveness.step(ms(401), probed(ProbeOutcome::Connected)), [found(1, Finding::Alive)]);
}

/// E3: after the connection closed, the port may still accept: four probes, 2 ms apart.
#[test]
fn a_closed_connection_is_probed_until_the_port_refuses() {
    let mut liveness = hearing_one();
    assert_eq!(liveness.step(ms(10), Input::Closed { node: ONE }), [probe(0)]);
    assert_eq!(liveness.step(ms(10), probed(ProbeOutcome::Connected)), [probe(2)]);
    assert_eq!(liveness.step(ms(12), probed(ProbeOutcome::Refused)), [suspected(Cause::ConnectionRefused)]);
    assert_eq!(liveness.step(ms(13), Input::Heard { node: ONE }), [Effect::Trusted { node: ONE }]);

    let mut listening = hearing_one();
    listening.step(ms(10), Input::Closed { node: ONE });
    for now in [10, 12, 14] {
        assert_eq!(listening.step(ms(now), probed(ProbeOutcome::Connected)), [probe(2)]);
    }
    assert_eq!(listening.step(ms(16), probed(ProbeOutcome::Connected)), [], "silence will tell");
    assert_eq!(listening.step(ms(17), probed(ProbeOutcome::Refused)), [], "nothing was asked");
}

/// A peer that came back while it was probed is not lost.
#[test]
fn a_heartbeat_outweighs_an_older_refusal() {
    let mut liveness = hearing_one();
    liveness.step(ms(10), Input::Closed { node: ONE });
    assert_eq!(liveness.step(ms(11), Input::Heard { node: ONE }), []);
    assert_eq!(liveness.step(ms(12), probed(ProbeOutcome::Refused)), [probe(2)]);
    assert_eq!(liveness.step(ms(14), probed(ProbeOutcome::Connected)), [probe(2)]);
}

/// E3: a finding is this node's own look at that moment: silent, refused, Raft-silent, or alive.
#[test]
fn findings() {
    let ask = |number| Input::Asked { round: round(number), node: ONE };
    let mut liveness = hearing_one();
    assert_eq!(liveness.step(ms(10), ask(1)), [probe(0)]);
    assert_eq!(
        liveness.step(ms(11), probed(ProbeOutcome::Refused)),
        [suspected(Cause::ConnectionRefused), found(1, Finding::Gone)],
        "gone before its connection was seen to close"
    );

    let mut liveness = hearing_one();
    liveness.step(ms(10), ask(1));
    assert_eq!(liveness.step(ms(10), ask(2)), [], "one probe serves both");
    assert_eq!(liveness.step(ms(11), probed(ProbeOutcome::Connected)), [found(2, Finding::Alive)]);

    let mut liveness = hearing_one();
    assert_eq!(ticks(&mut liveness, 0, 150), []);
    assert_eq!(liveness.step(ms(151), ask(1)), [found(1, Finding::Gone)]);

    let mut liveness = hearing_one();
    liveness.step(ms(0), Input::Follows { leader: Some(ONE) });
    assert_eq!(liveness.step(ms(301), Input::Heard { node: ONE }), []);
    assert_eq!(liveness.step(ms(301), ask(1)), [probe(0)]);
    assert_eq!(liveness.step(ms(302), probed(ProbeOutcome::Connected)), [found(1, Finding::RaftSilent)]);

    let stranger = Input::Asked { round: round(1), node: NodeId(9) };
    let alive = Effect::Found { round: round(1), node: NodeId(9), finding: Finding::Alive };
    assert_eq!(liveness.step(ms(303), stranger), [alive]);
}

/// A probe that never comes back is answered for after 15 ms: the promise of an answer within 20 ms holds.
#[test]
fn a_finding_does_not_wait_for_ever() {
    let mut liveness = hearing_one();
    assert_eq!(ticks(&mut liveness, 0, 20), []);
    assert_eq!(liveness.step(ms(20), Input::Asked { round: round(1), node: ONE }), [probe(0)]);
    assert_eq!(ticks(&mut liveness, 20, 60), [(35, found(1, Finding::Alive))]);
}

/// E3: heartbeats go on, but Raft appends nothing for the lease.
#[test]
fn raft_silence_is_suspicious() {
    let mut liveness = hearing_one();
    liveness.step(ms(0), Input::Follows { leader: Some(ONE) });
    let mut happened = Vec::new();
    for now in (5..=400).step_by(5) {
        liveness.step(ms(now), Input::Heard { node: ONE });
        happened.extend(liveness.step(ms(now), Input::Tick).into_iter().map(|effect| (now, effect)));
    }
    assert_eq!(happened, [(310, suspected(Cause::RaftSilence))], "and a heartbeat does not cure it");
    let mut hanging = liveness.clone();
    assert_eq!(liveness.step(ms(401), Input::Appended), [Effect::Trusted { node: ONE }]);
    assert_eq!(ticks(&mut hanging, 400, 600), [(560, suspected(Cause::Silence))], "and then its heartbeats stop too");
}

/// A node that comes back knows from its log who led. Who is not there is not said to send heartbeats.
#[test]
fn a_leader_that_was_never_heard_is_silent_in_every_way() {
    let mut liveness = Liveness::new(Settings::new(vec![ONE, NodeId(3)]));
    liveness.step(ms(0), Input::Follows { leader: Some(ONE) });
    assert_eq!(ticks(&mut liveness, 0, 400), [(310, suspected(Cause::Silence))]);
    let mut appends = liveness.clone();
    assert_eq!(appends.step(ms(401), Input::Appended), [Effect::Trusted { node: ONE }]);
    assert_eq!(liveness.step(ms(401), Input::Heard { node: ONE }), [Effect::Trusted { node: ONE }]);
    assert_eq!(
        liveness.step(ms(405), Input::Tick),
        [suspected(Cause::RaftSilence)],
        "now it is heard, and appends nothing"
    );
}

/// A follower that no leader appends to any more does not judge the old one.
#[test]
fn another_leader_ends_the_raft_silence() {
    let mut liveness = hearing_one();
    liveness.step(ms(0), Input::Follows { leader: Some(ONE) });
    for now in (5..=400).step_by(5) {
        liveness.step(ms(now), Input::Heard { node: ONE });
        liveness.step(ms(now), Input::Tick);
    }
    assert_eq!(liveness.step(ms(401), Input::Follows { leader: Some(NodeId(3)) }), [Effect::Trusted { node: ONE }]);
}

/// Before its first heartbeat a peer is not lost, but a finding about it is made by the probe.
#[test]
fn a_peer_that_was_never_heard_is_not_lost() {
    let mut liveness = Liveness::new(Settings::new(vec![ONE]));
    assert_eq!(ticks(&mut liveness, 0, 1000), []);
    assert_eq!(liveness.step(ms(1001), Input::Closed { node: ONE }), []);
    let ask = |number| Input::Asked { round: round(number), node: ONE };
    assert_eq!(liveness.step(ms(1002), ask(1)), [probe(0)]);
    assert_eq!(liveness.step(ms(1003), probed(ProbeOutcome::Refused)), [found(1, Finding::Gone)]);
    assert_eq!(liveness.step(ms(1004), ask(2)), [probe(0)]);
    assert_eq!(liveness.step(ms(1005), probed(ProbeOutcome::NoAnswer)), [found(2, Finding::Gone)]);
}

/// Nodes that are not configured do not exist.
#[test]
fn strangers_are_ignored() {
    let mut liveness = hearing_one();
    for input in [
        Input::Heard { node: NodeId(9) },
        Input::Closed { node: NodeId(9) },
        Input::Probed { node: NodeId(9), outcome: ProbeOutcome::Refused },
    ] {
        assert_eq!(liveness.step(ms(1), input), []);
    }
    assert_eq!(liveness.last_heard(NodeId(9)), None);
}

/// E3: what is asked is found out before the patience is over, so one attempt to connect takes less than that.
#[test]
fn a_probe_ends_before_the_patience() {
    let settings = Settings::new(vec![ONE]);
    assert!(settings.probe_limit < settings.patience, "{settings:?}");
}
