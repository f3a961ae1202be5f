//! Who is let in at the node port, and in whose name a request of Raft may be made there.
//!
//! Raft itself asks nobody who they are: an append with a high enough term may cut a log that a majority has. So what stands in a request
//! is compared with the connection that it came on, whose node is the certificate's.

use thiserror::Error;

use super::Roster;
use crate::id::{MemberId, NodeId};
use crate::protocol::frame::{Hello, Purpose, Refusal};

/// Who answers at the node port.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// This node.
    pub me: MemberId,
    /// Every configured node; empty for a node that is to join.
    pub nodes: &'a [NodeId],
    /// The membership as this node knows it.
    pub roster: &'a Roster,
}

impl Here<'_> {
    /// Why a caller with the certificate of that node is not let in; none if it is.
    pub fn refusal(&self, hello: &Hello, certified: NodeId) -> Option<Refusal> {
        let Here { me, nodes, roster } = *self;
        let caller = hello.member;
        let is_configured = nodes.is_empty() || nodes.contains(&caller.node);
        if caller.node != certified {
            return Some(Refusal::NotCertified { claimed: caller.node, certified });
        }
        // While this node is replaced, its other life is a member like any other.
        if caller == me || (roster.is_empty() && caller.node == me.node && !is_for_newcomers(hello.purpose)) {
            return Some(Refusal::SameNode { node: me.node });
        }
        if roster.removed.contains(&caller) {
            return Some(Refusal::Removed { caller });
        }
        if roster.is_empty() && !is_configured && !is_for_newcomers(hello.purpose) {
            return Some(Refusal::UnknownNode { here: me.node, caller: caller.node });
        }
        if hello.to != me.node {
            return Some(Refusal::WrongNode { asked: hello.to, here: me.node });
        }
        if let Some(incarnation) = hello.life.filter(|life| *life != me.incarnation) {
            return Some(Refusal::AnotherLife { asked: MemberId { node: me.node, incarnation }, here: me });
        }
        let is_open = roster.is_empty() || roster.places.contains_key(&caller) || is_for_newcomers(hello.purpose);
        (!is_open).then_some(Refusal::NotAMember { caller })
    }
}

/// Whether a caller that was let in is not any more.
pub fn is_shut_out(roster: &Roster, hello: &Hello) -> bool {
    let caller = hello.member;
    let is_unknown = !roster.is_empty() && !roster.places.contains_key(&caller);
    roster.removed.contains(&caller) || (is_unknown && !is_for_newcomers(hello.purpose))
}

/// What any node of this cluster may call for, member or not as far as this node knows. Raft itself brings the membership to a node
/// that lags behind or has just been taken in, so its sender may be unknown here; and the leader asks before it takes a node in.
const fn is_for_newcomers(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Raft(_) | Purpose::Admission)
}

/// What this node knows of a caller. One that lags behind may not have heard of a node's present life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A life of it is a member, or there is no membership yet.
    Member,
    /// It was removed: this very life; or an earlier one, while there is a leader who would have told if it were back.
    Removed,
    /// Nothing is known of it, or only of an earlier life, and no leader is heard.
    Unknown,
}

/// A request of Raft, as far as it matters who makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Append, piece of a snapshot, vote or pre-vote, in the name of whoever leads or wants to.
    By(MemberId),
    /// The receiver shall lead in place of this leader.
    Transfer(MemberId),
    /// A question that changes nothing.
    Question,
    /// A write of the ledger, whose signature the sender says to have checked.
    Write,
}

/// Why a request of Raft is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Inadmissible {
    /// The sender is not who has greeted.
    #[error("the request is in the name of {from}, its connection in the name of {caller}")]
    NotTheCaller {
        /// Whom the request names.
        from: MemberId,
        /// Whose connection it is.
        caller: MemberId,
    },
    /// It says that somebody else leads, or stands for election.
    #[error("{from} sends the vote of {of}: each member sends its own")]
    NotItsVote {
        /// Who sends it.
        from: MemberId,
        /// Whose vote it is.
        of: MemberId,
    },
    /// Its node was removed.
    #[error("node {0} was removed from the cluster: `client members add {0} ADDRESS` takes it in again")]
    Removed(NodeId),
    /// Nobody knows its node, and nothing depends on its being heard.
    #[error("node {0} is no member of this cluster, as far as is known here")]
    Unknown(NodeId),
}

/// Whether a request may reach Raft. It comes from `from` on the connection of `caller`, of whose node the membership says `standing`.
///
/// A node that is unknown here is heard, with all that a majority may need: who was away while it was taken in must take its appends,
/// and give it the vote without which there may be no majority any more.
///
/// # Errors
/// [`Inadmissible`].
pub fn admit(caller: MemberId, from: MemberId, kind: Kind, standing: Standing) -> Result<(), Inadmissible> {
    if from != caller {
        return Err(Inadmissible::NotTheCaller { from, caller });
    }
    match (kind, standing) {
        (Kind::By(of) | Kind::Transfer(of), _) if of != from => Err(Inadmissible::NotItsVote { from, of }),
        (Kind::By(_) | Kind::Transfer(_) | Kind::Write, Standing::Removed) => Err(Inadmissible::Removed(from.node)),
        // Whoever is to lead has nearly the whole log, and knows its leader from there.
        (Kind::Transfer(_) | Kind::Write, Standing::Unknown) => Err(Inadmissible::Unknown(from.node)),
        (Kind::By(_) | Kind::Transfer(_) | Kind::Write | Kind::Question, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Incarnation;

    fn member(node: u16, life: u64) -> MemberId {
        MemberId { node: NodeId(node), incarnation: Incarnation(life) }
    }

    /// A leader believes a signature that another node has checked: only if that is a member.
    #[test]
    fn only_members_hand_writes_on() {
        let caller = member(2, 1);
        assert_eq!(admit(caller, caller, Kind::Write, Standing::Member), Ok(()));
        let refused = admit(caller, caller, Kind::Write, Standing::Unknown);
        assert_eq!(refused, Err(Inadmissible::Unknown(NodeId(2))));
        assert_eq!(admit(caller, caller, Kind::Write, Standing::Removed), Err(Inadmissible::Removed(NodeId(2))));
    }

    #[test]
    fn nobody_speaks_in_the_name_of_another() {
        let (caller, other, later) = (member(2, 1), member(3, 1), member(2, 2));
        for standing in [Standing::Member, Standing::Removed, Standing::Unknown] {
            for from in [other, later] {
                for kind in [Kind::By(from), Kind::By(caller), Kind::Transfer(from), Kind::Question] {
                    let refused = Err(Inadmissible::NotTheCaller { from, caller });
                    assert_eq!(admit(caller, from, kind, standing), refused, "{kind:?} {standing:?}");
                }
            }
            for of in [other, later] {
                for kind in [Kind::By(of), Kind::Transfer(of)] {
                    let refused = Err(Inadmissible::NotItsVote { from: caller, of });
                    assert_eq!(admit(caller, caller, kind, standing), refused, "{kind:?} {standing:?}");
                }
            }
        }
    }

    #[test]
    fn what_a_node_may_send_depends_on_what_is_known_of_it() {
        let from = member(2, 1);
        let removed = Err(Inadmissible::Removed(from.node));
        let table = [
            (Kind::By(from), Standing::Member, Ok(())),
            (Kind::By(from), Standing::Unknown, Ok(())),
            (Kind::By(from), Standing::Removed, removed),
            (Kind::Transfer(from), Standing::Member, Ok(())),
            (Kind::Transfer(from), Standing::Unknown, Err(Inadmissible::Unknown(from.node))),
            (Kind::Transfer(from), Standing::Removed, removed),
            (Kind::Question, Standing::Member, Ok(())),
            (Kind::Question, Standing::Unknown, Ok(())),
            (Kind::Question, Standing::Removed, Ok(())),
        ];
        for (kind, standing, expected) in table {
            assert_eq!(admit(from, from, kind, standing), expected, "{kind:?} {standing:?}");
        }
    }
}
