//! Whom to ask next when nobody knows who leads, and for how long: **pure**.
//!
//! A node that knows of no quorum, or does not answer, sends a request elsewhere; those who have not done so come first.

use std::time::Duration;

use super::error::AttemptError;

/// How long an attempt may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Most nodes that are silent for longer than a moment will be for longer.
    pub first: Duration,
    /// From then on when a node that was silent is still said to lead, or nobody has said a word.
    pub later: Duration,
}

/// Why there is nobody left to ask.
#[derive(Clone, Debug)]
pub enum End {
    /// That node has said why; one that does so knows more than one that does not answer.
    Refused(usize, AttemptError),
    /// No node has said a word.
    Silence,
}

/// What the nodes have said of one request so far.
#[derive(Debug)]
pub struct Asking {
    patience: Patience,
    is_patient: bool,
    /// Why each node sends elsewhere, if that is the last that it has said.
    said: Vec<Option<AttemptError>>,
    next: usize,
}

impl Asking {
    /// None of so many nodes has been asked.
    pub fn new(nodes: usize, patience: Patience) -> Self {
        Asking { patience, is_patient: false, said: vec![None; nodes], next: 0 }
    }

    /// How long the next attempt may take.
    pub fn attempt(&self) -> Duration {
        if self.is_patient { self.patience.later } else { self.patience.first }
    }

    /// Whose turn it is, if nobody is said to lead.
    pub fn turn(&mut self) -> usize {
        let nodes = self.said.len();
        let in_turn = |step: usize| (self.next + step) % nodes;
        let index = (0..nodes).map(in_turn).find(|index| self.said[*index].is_none()).unwrap_or(in_turn(0));
        self.next = index + 1;
        index
    }

    /// Somebody says that this node leads. Its own refusal, if it has denied that: the other one has not heard yet.
    pub fn follow(&mut self, leader: usize) -> Option<AttemptError> {
        let denied = self.said[leader].clone()?;
        self.is_patient |= denied.refusal().is_none();
        denied.refusal().is_some().then_some(denied)
    }

    /// A node sends elsewhere, for this reason, or it does not.
    pub fn heard(&mut self, node: usize, elsewhere: Option<AttemptError>) {
        self.said[node] = elsewhere;
    }

    /// Whether all have sent elsewhere, so that it is over. Those who were merely too slow for the first attempts are asked again.
    pub fn end(&mut self) -> Option<End> {
        if self.said.iter().any(Option::is_none) {
            return None;
        }
        let said = || self.said.iter().flatten();
        if let Some((node, refused)) = said().enumerate().find(|(_, error)| error.refusal().is_some()) {
            return Some(End::Refused(node, refused.clone()));
        }
        if self.is_patient || !said().any(|error| matches!(error, AttemptError::Timeout(_))) {
            return Some(End::Silence);
        }
        self.is_patient = true;
        self.said.fill(None);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::problem::{Problem, ProblemCode};

    const FIRST: Duration = Duration::from_millis(500);
    const LATER: Duration = Duration::from_secs(2);

    fn three() -> Asking {
        Asking::new(3, Patience { first: FIRST, later: LATER })
    }

    fn silent() -> Option<AttemptError> {
        Some(AttemptError::Timeout(FIRST))
    }

    fn no_quorum() -> Option<AttemptError> {
        Some(AttemptError::Refused(Box::new(Problem::new(ProblemCode::NoQuorum, "no quorum"))))
    }

    #[test]
    fn who_was_silent_comes_last() {
        let mut asking = three();
        assert_eq!(asking.turn(), 0);
        // It named node 1, which is silent.
        asking.heard(1, silent());
        assert_eq!([asking.turn(), asking.turn()], [2, 0]);
        asking.heard(0, silent());
        assert_eq!([asking.turn(), asking.turn()], [2, 2], "the only one that may know more");
    }

    #[test]
    fn one_that_was_silent_and_is_still_said_to_lead_gets_more_time() {
        let mut asking = three();
        assert!(asking.follow(1).is_none());
        assert_eq!(asking.attempt(), FIRST);
        asking.heard(1, silent());
        assert!(asking.follow(1).is_none());
        assert_eq!(asking.attempt(), LATER);
    }

    #[test]
    fn one_that_has_denied_to_lead_is_believed() {
        let mut asking = three();
        asking.heard(1, no_quorum());
        assert_eq!(asking.follow(1).and_then(|error| error.refusal()), Some(ProblemCode::NoQuorum));
        assert_eq!(asking.attempt(), FIRST);
    }

    /// A network may be slower than the first attempts are long.
    #[test]
    fn nobody_is_given_up_before_all_had_the_whole_time() {
        let mut asking = three();
        (0..3).for_each(|node| asking.heard(node, silent()));
        assert!(asking.end().is_none());
        assert_eq!(asking.attempt(), LATER);
        (0..3).for_each(|node| asking.heard(node, silent()));
        assert!(matches!(asking.end(), Some(End::Silence)));
    }

    #[test]
    fn one_word_against_a_quorum_is_enough_when_nobody_knows_better() {
        let mut asking = three();
        asking.heard(0, silent());
        asking.heard(2, no_quorum());
        assert!(asking.end().is_none(), "node 1 may know better");
        asking.heard(1, silent());
        assert!(matches!(asking.end(), Some(End::Refused(2, _))));
    }

    #[test]
    fn closed_ports_are_believed_at_once() {
        let mut asking = three();
        (0..3).for_each(|node| asking.heard(node, Some(AttemptError::Connection("refused".to_owned()))));
        assert!(matches!(asking.end(), Some(End::Silence)));
    }
}
