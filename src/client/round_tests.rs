//! What a client concludes from the answers of three nodes.

use super::*;
use crate::id::{Load, RequestId, Term};
use crate::protocol::status::Leadership;

struct Known {
    doubtful: Vec<Index>,
}

impl Knowledge for Known {
    fn index_of(&self, node: NodeId) -> Option<Index> {
        (1..=3).contains(&node.0).then(|| usize::from(node.0) - 1)
    }

    fn is_doubtful(&self, index: Index) -> bool {
        self.doubtful.contains(&index)
    }
}

const TRUSTING: Known = Known { doubtful: Vec::new() };

fn answer(node: u16, load: f64) -> EncryptionResponse {
    EncryptionResponse {
        request_id: RequestId([1; 16]),
        node: NodeId(node),
        state: NodeState::Active,
        load: Load::from(load),
        coordinator: None,
        placement: None,
    }
}

/// The answer of a node that knows `coordinator` since `term`, and places on `placement`.
fn knowing(node: u16, coordinator: u16, term: u64, placement: Option<u16>) -> EncryptionResponse {
    let leadership = Leadership { term: Term(term), node: NodeId(coordinator) };
    EncryptionResponse { coordinator: Some(leadership), placement: placement.map(NodeId), ..answer(node, 0.5) }
}

fn round(answers: impl IntoIterator<Item = EncryptionResponse>) -> Round {
    let mut round = Round::new(3);
    for response in answers {
        round.hear(usize::from(response.node.0) - 1, Word::Answer { response, placed_before: 0 });
    }
    round
}

fn chosen(verdict: &Verdict) -> Vec<Index> {
    match verdict {
        Verdict::Choose(candidates) => least_loaded(candidates, |_| 0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_coordinators_placement_ends_the_round_at_once() {
    assert_eq!(round([knowing(1, 1, 7, Some(3))]).verdict(&TRUSTING, Clock::Running), Verdict::Placed(2));
}

#[test]
fn only_the_coordinator_itself_places() {
    let round = round([knowing(1, 2, 7, Some(3)), knowing(3, 2, 7, Some(3))]);
    assert_eq!(round.verdict(&TRUSTING, Clock::Running), Verdict::Wait);
    assert_eq!(chosen(&round.verdict(&TRUSTING, Clock::TimeIsUp)), [0, 2]);
}

#[test]
fn a_deposed_coordinator_is_not_believed_once_a_higher_term_is_known() {
    let mut round = round([knowing(1, 1, 7, Some(1)), knowing(2, 3, 8, None)]);
    assert_eq!(round.verdict(&TRUSTING, Clock::Running), Verdict::Wait);
    round.hear(2, Word::Answer { response: knowing(3, 3, 8, Some(2)), placed_before: 0 });
    assert_eq!(round.verdict(&TRUSTING, Clock::Running), Verdict::Placed(1));
}

#[test]
fn without_a_coordinator_the_lowest_load_is_taken_when_all_have_answered() {
    let mut round = round([answer(1, 0.5), answer(2, 0.25)]);
    assert_eq!(round.verdict(&TRUSTING, Clock::Running), Verdict::Wait);
    round.hear(2, Word::Answer { response: answer(3, 2.0), placed_before: 0 });
    assert_eq!(chosen(&round.verdict(&TRUSTING, Clock::Running)), [1]);
}

#[test]
fn a_late_node_is_waited_for_only_if_it_is_the_only_hope() {
    let mut others_answer = round([answer(1, 0.5), answer(2, 0.25)]);
    others_answer.hear(2, Word::Late);
    assert_eq!(chosen(&others_answer.verdict(&TRUSTING, Clock::Running)), [1]);

    let mut only_hope = Round::new(3);
    only_hope.hear(0, Word::NoAnswer);
    only_hope.hear(1, Word::NoAnswer);
    only_hope.hear(2, Word::Late);
    assert_eq!(only_hope.verdict(&TRUSTING, Clock::Running), Verdict::Wait);
    assert_eq!(only_hope.verdict(&TRUSTING, Clock::TimeIsUp), Verdict::Nobody);
}

#[test]
fn recovering_nodes_get_no_jobs() {
    let recovering = |node| EncryptionResponse { state: NodeState::Recovering, ..answer(node, 0.0) };
    let with_one_active = round([recovering(1), answer(2, 3.0), recovering(3)]);
    assert_eq!(chosen(&with_one_active.verdict(&TRUSTING, Clock::Running)), [1]);
    let with_none = round([recovering(1), recovering(2), recovering(3)]);
    assert_eq!(with_none.verdict(&TRUSTING, Clock::Running), Verdict::Nobody);
}

#[test]
fn a_doubtful_placement_yields_to_another_active_node_but_is_used_if_there_is_none() {
    let known = Known { doubtful: vec![2] };
    let placed_on_3 = || knowing(1, 1, 7, Some(3));
    let mut round = round([placed_on_3(), answer(3, 0.0)]);
    assert_eq!(round.verdict(&known, Clock::Running), Verdict::Wait);
    round.hear(1, Word::NoAnswer);
    assert_eq!(chosen(&round.verdict(&known, Clock::Running)), [0], "node 1 is active as well");

    let not_active = EncryptionResponse { state: NodeState::Recovering, ..placed_on_3() };
    round.hear(0, Word::Answer { response: not_active, placed_before: 0 });
    assert_eq!(round.verdict(&known, Clock::Running), Verdict::Placed(2));
}

#[test]
fn own_placements_count_before_the_nodes_report_them() {
    let candidate = |index, load| Candidate { index, load, placed_before: 10 };
    let candidates = [candidate(0, 0), candidate(1, 0), candidate(2, 150)];
    let mut placed = [10, 10, 10];
    for _ in 0..50 {
        let lowest = least_loaded(&candidates, |index| placed[index]);
        placed[lowest[0]] += 1;
    }
    assert_eq!(placed.map(|count| count - 10), [17, 17, 16], "50 tasks in one millisecond do not herd");
}
