//! Where a call goes that only the leader can answer, as a node sees it that has just refused it.

use crate::id::{NodeId, Term};
use crate::protocol::status::Leadership;

/// What a node knows about the lead.
///
/// Election and Raft learn of a new leader one after the other, in either order, and a leader that hands over refuses before there is
/// another: whoever knows the later term is believed, and nobody is sent to a node that has just refused.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The node.
    pub me: NodeId,
    /// The coordinator, by what the election has heard.
    pub coordinator: Option<Leadership>,
    /// The term of the node's own Raft.
    pub term: Term,
    /// Who leads in that term by the node's own Raft.
    pub leader: Option<NodeId>,
}

impl Known {
    /// Who leads now, if it is another node; nobody while the lead changes hands. The refusal has `named` a leader, or none.
    pub fn leader_after(&self, named: Option<NodeId>) -> Option<NodeId> {
        // Raft names its last leader for as long as there is no other, also while this node misses it.
        let coordinator = self.coordinator?;
        let leads = if self.election_is_ahead(coordinator) { Some(coordinator.node) } else { named };
        leads.filter(|leader| *leader != self.me)
    }

    /// Whether whom Raft names leads no more, by what the election knows.
    pub fn raft_is_behind(&self) -> bool {
        self.coordinator.is_none_or(|coordinator| self.election_is_ahead(coordinator))
    }

    fn election_is_ahead(&self, coordinator: Leadership) -> bool {
        coordinator.term > self.term || (coordinator.term == self.term && self.leader.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const OLD: NodeId = NodeId(2);
    const NEW: NodeId = NodeId(3);

    fn coordinator(node: NodeId, term: u64) -> Option<Leadership> {
        Some(Leadership { node, term: Term(term) })
    }

    /// In term 5 `OLD` leads, by election and Raft.
    fn settled() -> Known {
        Known { me: ME, coordinator: coordinator(OLD, 5), term: Term(5), leader: Some(OLD) }
    }

    #[test]
    fn the_leader_that_everybody_knows_is_the_way() {
        assert_eq!(settled().leader_after(Some(OLD)), Some(OLD));
        assert!(!settled().raft_is_behind());
    }

    #[test]
    fn nobody_is_sent_to_a_leader_that_is_missed() {
        let missed = Known { coordinator: None, ..settled() };
        assert_eq!(missed.leader_after(Some(OLD)), None);
        assert!(missed.raft_is_behind());
    }

    #[test]
    fn nobody_is_sent_back_to_the_node_that_refused() {
        assert_eq!(settled().leader_after(None), None);
    }

    #[test]
    fn what_the_election_has_heard_of_a_later_term_counts() {
        let heard_first = Known { coordinator: coordinator(NEW, 6), ..settled() };
        assert_eq!(heard_first.leader_after(Some(OLD)), Some(NEW));
        assert!(heard_first.raft_is_behind());
        // This node has voted for it, and no append has told its Raft yet who won.
        assert_eq!(Known { term: Term(6), leader: None, ..heard_first }.leader_after(None), Some(NEW));
        // This node is to lead, and its Raft does not know it yet.
        assert_eq!(Known { coordinator: coordinator(ME, 6), ..settled() }.leader_after(Some(OLD)), None);
    }

    #[test]
    fn what_raft_knows_of_a_later_term_counts() {
        let known = Known { coordinator: coordinator(OLD, 5), term: Term(6), leader: Some(NEW), me: ME };
        assert_eq!(known.leader_after(Some(NEW)), Some(NEW));
        assert_eq!(Known { coordinator: coordinator(ME, 5), ..known }.leader_after(Some(NEW)), Some(NEW));
        // This node leads, but refused: it hands over, to nobody yet.
        let hands_over = Known { coordinator: coordinator(ME, 6), leader: Some(ME), ..known };
        assert_eq!(hands_over.leader_after(None), None);
        // Nobody has won the term yet.
        assert_eq!(Known { leader: None, ..known }.leader_after(None), None);
    }
}
