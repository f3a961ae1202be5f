//! Groups, and the faults that follow from them.

use super::*;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

fn groups(text: &str) -> Groups {
    text.parse().unwrap()
}

fn silent(node: Option<NodeId>) -> NodeReport {
    NodeReport { address: "http://127.0.0.1:9".into(), node, result: Err("no answer within 500 ms".into()) }
}

#[test]
fn groups_are_parted_by_slashes() {
    assert_eq!(groups("1,2/3").pairs(), [(ONE, THREE), (TWO, THREE)]);
    assert_eq!(groups("1/2/3").pairs(), [(ONE, TWO), (ONE, THREE), (TWO, THREE)]);
    assert_eq!(groups("3,1/2").to_string(), "1,3 / 2");
}

/// Each wrong way to write groups has an error of its own.
#[test]
fn wrong_groups_say_what_is_wrong() {
    for (text, part) in [
        ("1,2", "is one group"),
        ("1,2/", "has an empty group"),
        ("/1", "has an empty group"),
        ("", "has an empty group"),
        ("1,2/2,3", "node 2 is named twice"),
        ("1,1/2", "node 1 is named twice"),
        ("1,x/2", "\"x\" is not a node id"),
        ("1,/2", "\"\" is not a node id"),
        ("0/1", "\"0\" is not a node id"),
    ] {
        let error = text.parse::<Groups>().unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

/// A cut is told to both ends, a delay to the end that sends.
#[test]
fn a_cut_stands_at_both_ends_and_a_delay_at_the_sender() {
    let mut faults = Faults::default();
    faults.cut(ONE, TWO);
    assert_eq!(faults.of(ONE), [LinkFault { cut_out: true, ..LinkFault::none(TWO) }]);
    assert_eq!(faults.of(TWO), [LinkFault { cut_in: true, ..LinkFault::none(ONE) }]);
    let slow = LinkFault { delay_ms: 50, ..LinkFault::none(THREE) };
    faults.slow(ONE, THREE, slow);
    assert_eq!(faults.of(ONE).len(), 2);
    assert_eq!(faults.of(THREE), []);
}

/// A new partition replaces the cuts and leaves the delays; a new delay leaves the cuts.
#[test]
fn cuts_and_delays_do_not_undo_one_another() {
    let mut faults = Faults::default();
    let slow = LinkFault { delay_ms: 50, loss: 0.5, ..LinkFault::none(TWO) };
    faults.cut(ONE, TWO);
    faults.slow(ONE, TWO, slow);
    assert_eq!(faults.of(ONE), [LinkFault { cut_out: true, ..slow }]);
    faults.join();
    assert_eq!(faults.of(ONE), [slow]);
    assert_eq!(faults.of(TWO), []);
}

/// A node that is configured and does not answer is known; a silent address is told of, whoever it is.
#[test]
fn nodes_that_do_not_answer_are_known_and_unknown_ones_are_refused() {
    let present = Present::of(&[silent(Some(ONE)), silent(None)]);
    assert!(present.check(&[ONE].into()).is_ok());
    let error = present.check(&[ONE, THREE].into()).unwrap_err();
    assert_eq!(error.exit, Exit::NotFound);
    assert!(error.text.unwrap().contains("no node 3 is known"));
    assert_eq!(present.strangers.len(), 1);
}
