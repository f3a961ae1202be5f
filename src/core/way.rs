//! Where a call goes that only the leader can answer, as a node sees it that has just been refused.

use crate::id::{NodeId, Term};
use crate::protocol::status::Leadership;

/// What a node knows about the lead.
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
    /// Whom the refusal names.
    pub named: Option<NodeId>,
}

/// Who leads now, if it is another node; nobody while the lead changes hands.
///
/// Election and Raft learn of a new leader one after the other, in either order, and a leader that hands over refuses before there is
/// another: whoever knows the later term is believed, and nobody is sent to a node that has just refused.
pub fn way(known: Known) -> Option<NodeId> {
    let Known { me, coordinator, term, leader, named } = known;
    // Raft names its last leader for as long as there is no other, also while this node misses it.
    let coordinator = coordinator?;
    let election_is_ahead = coordinator.term > term || (coordinator.term == term && leader.is_none());
    let leads = if election_is_ahead { Some(coordinator.node) } else { named };
    leads.filter(|leader| *leader != me)
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

    /// In term 5 `OLD` leads, Raft names it and so does the refusal.
    fn settled() -> Known {
        Known { me: ME, coordinator: coordinator(OLD, 5), term: Term(5), leader: Some(OLD), named: Some(OLD) }
    }

    #[test]
    fn the_leader_that_everybody_knows_is_the_way() {
        assert_eq!(way(settled()), Some(OLD));
    }

    #[test]
    fn nobody_is_sent_to_a_leader_that_is_missed() {
        assert_eq!(way(Known { coordinator: None, ..settled() }), None);
    }

    #[test]
    fn nobody_is_sent_back_to_the_node_that_refused() {
        assert_eq!(way(Known { named: None, ..settled() }), None);
    }

    #[test]
    fn what_the_election_has_heard_of_a_later_term_counts() {
        let heard_first = Known { coordinator: coordinator(NEW, 6), ..settled() };
        assert_eq!(way(heard_first), Some(NEW));
        // This node has voted for it, and no append has told its Raft yet who won.
        assert_eq!(way(Known { term: Term(6), leader: None, named: None, ..heard_first }), Some(NEW));
        // This node is to lead, and its Raft does not know it yet.
        assert_eq!(way(Known { coordinator: coordinator(ME, 6), ..settled() }), None);
    }

    #[test]
    fn what_raft_knows_of_a_later_term_counts() {
        let known =
            Known { coordinator: coordinator(OLD, 5), term: Term(6), leader: Some(NEW), named: Some(NEW), me: ME };
        assert_eq!(way(known), Some(NEW));
        assert_eq!(way(Known { coordinator: coordinator(ME, 5), ..known }), Some(NEW));
        // This node leads by its Raft, but refused: it is handing over, to nobody yet.
        let handing_over = Known { leader: Some(ME), named: None, ..known };
        assert_eq!(way(Known { coordinator: coordinator(ME, 6), ..handing_over }), None);
        // Nobody has won the term yet.
        assert_eq!(way(Known { leader: None, named: None, ..known }), None);
    }
}
