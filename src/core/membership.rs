//! Who belongs to the cluster, and whether a change of that may be made now. Pure: what is known goes in, a plan or a refusal comes out.
//!
//! People name nodes, Raft counts members: (node, incarnation). While a node is replaced there are two members of it at once, so each
//! rule says which of them it means.

pub mod admission;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thiserror::Error;

use crate::id::{MemberId, NodeId};
use crate::protocol::membership::{
    Change, ChangeRequest, Introduction, LONGEST_WAIT_MS, MEMBERS_LIMIT, MemberRole, Place, WAIT_MS, majority,
};

/// The membership as one node knows it: the latest in its log, and with it whoever stands in the last one that is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Every member and where it is found.
    pub places: BTreeMap<MemberId, Place>,
    /// Who counts for majorities; while voters change, those before and those after.
    pub voters: BTreeSet<MemberId>,
    /// Who counts when the change under way is done; else the same as `voters`.
    pub next_voters: BTreeSet<MemberId>,
    /// Lives that were members and will not be again.
    pub removed: BTreeSet<MemberId>,
    /// Entries of the log up to and including the latest membership; 0 before the cluster has begun.
    pub length: u64,
}

impl Roster {
    /// Whether the node knows of no membership: the cluster has not begun, or this node is not taken in yet.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether a change of voters has begun and is not finished.
    pub fn is_changing(&self) -> bool {
        self.voters != self.next_voters
    }

    /// Voter or learner; none for who is no member.
    pub fn role(&self, member: MemberId) -> Option<MemberRole> {
        self.places
            .contains_key(&member)
            .then(|| if self.voters.contains(&member) { MemberRole::Voter } else { MemberRole::Learner })
    }

    /// The member that is meant when people name a node: its voter, and while it is replaced the one that will be; else its learner.
    pub fn stands_for(&self, node: NodeId) -> Option<MemberId> {
        let of_node = |member: &&MemberId| member.node == node;
        let last = |members: &BTreeSet<MemberId>| members.iter().rfind(of_node).copied();
        let learner = || self.places.keys().rfind(of_node).copied();
        last(&self.next_voters).or_else(|| last(&self.voters)).or_else(learner)
    }

    /// The nodes, as people name them.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.places.keys().map(|member| member.node).collect()
    }

    /// Where the node is found that people mean.
    pub fn place_of(&self, node: NodeId) -> Option<Place> {
        self.places.get(&self.stands_for(node)?).copied()
    }

    /// A member that is there keeps its date, unless it is somewhere else now.
    pub fn dated(&self, member: MemberId, place: Place, now_unix_ms: u64) -> Place {
        let known = self.places.get(&member).filter(|known| (known.http, known.peer) == (place.http, place.peer));
        Place { since_unix_ms: known.map_or(Some(now_unix_ms), |known| known.since_unix_ms), ..place }
    }

    fn members_of(&self, node: NodeId) -> BTreeSet<MemberId> {
        self.places.keys().filter(|member| member.node == node).copied().collect()
    }
}

/// A request that makes sense by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A node leaves.
    Remove {
        /// Which.
        node: NodeId,
    },
    /// A node comes, or is found elsewhere.
    Admit {
        /// Add or replace.
        change: Change,
        /// Which.
        node: NodeId,
        /// Where it answers.
        place: Place,
        /// How long it may take to catch up.
        wait: Duration,
    },
}

impl Order {
    /// What the request asks for.
    ///
    /// # Errors
    /// [`Senseless`].
    pub fn of(request: &ChangeRequest) -> Result<Order, Senseless> {
        let ChangeRequest { change, node, address, peer_address, wait_ms } = *request;
        if node.0 == 0 {
            return Err(Senseless::NoNode);
        }
        let wait_ms = wait_ms.unwrap_or(WAIT_MS);
        if wait_ms > LONGEST_WAIT_MS {
            return Err(Senseless::TooLong { wait_ms });
        }
        let http = match (change, address) {
            (Change::Remove, None) if peer_address.is_none() => return Ok(Order::Remove { node }),
            (Change::Remove, _) => return Err(Senseless::AddressToRemove),
            (_, None) => return Err(Senseless::NoAddress { change }),
            (_, Some(http)) => http,
        };
        let place = match peer_address {
            Some(peer) => Place::new(http, peer),
            None => Place::beside(http).ok_or_else(|| Senseless::NoNodePort { address: http.to_string() })?,
        };
        for address in [place.http, place.peer] {
            if address.ip().is_unspecified() || address.port() == 0 {
                return Err(Senseless::Unreachable { address: address.to_string() });
            }
        }
        Ok(Order::Admit { change, node, place, wait: Duration::from_millis(wait_ms) })
    }
}

/// Why a request makes no sense, whatever the membership is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Senseless {
    /// Node 0.
    #[error("nodes have numbers from 1")]
    NoNode,
    /// Too long a wait.
    #[error("wait_ms is {wait_ms}; a change waits for at most {LONGEST_WAIT_MS} ms")]
    TooLong {
        /// As asked for.
        wait_ms: u64,
    },
    /// Who leaves is nowhere.
    #[error("to remove a node, name no address")]
    AddressToRemove,
    /// Who comes is somewhere.
    #[error("to {change} a node, name the address where it answers")]
    NoAddress {
        /// Add or replace.
        change: Change,
    },
    /// There is no port beside that one.
    #[error("the node port of {address} would be over 65535: name one as peer_address")]
    NoNodePort {
        /// The HTTP address.
        address: String,
    },
    /// All addresses, or no port.
    #[error("{address} is no address at which others can reach the node")]
    Unreachable {
        /// The address.
        address: String,
    },
}

/// What the leader knows when it is asked for a change.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The membership.
    pub roster: &'a Roster,
    /// The leader itself.
    pub me: MemberId,
    /// Voters that answer at this moment, the leader included.
    pub live: &'a BTreeSet<MemberId>,
}

/// How a change is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The leader itself leaves: another one must make the change.
    HandOverFirst,
    /// Take this member in as a learner, wait until it has caught up, then make it a voter in place of `leaves`.
    TakeIn {
        /// Whom.
        member: MemberId,
        /// Where it is found.
        place: Place,
        /// Who leaves in the same step.
        leaves: BTreeSet<MemberId>,
    },
    /// The member stays, at another address.
    Move {
        /// Who.
        member: MemberId,
        /// Where it is found now.
        place: Place,
    },
    /// These leave.
    Remove {
        /// Who.
        leaves: BTreeSet<MemberId>,
    },
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No such node.
    #[error(
        "there is no node {node} in the cluster, its nodes are {known}: `client members add {node} ADDRESS` takes a new one in"
    )]
    UnknownNode {
        /// The node.
        node: NodeId,
        /// The nodes.
        known: String,
    },
    /// It is there.
    #[error(
        "node {node} is a member already ({member}, at {}): to put another disk or machine in its place, start it with an empty \
         directory and --join, and use `client members replace {node} ADDRESS`", .place.http
    )]
    AlreadyMember {
        /// The node.
        node: NodeId,
        /// In which life.
        member: MemberId,
        /// Where.
        place: Place,
    },
    /// The address belongs to another member.
    #[error("{address} overlaps with node {other}, which is at {} and {}: give each node addresses of its own", .place.http, .place.peer)]
    Overlap {
        /// The new address.
        address: String,
        /// Whose it is.
        other: NodeId,
        /// All that it has.
        place: Place,
    },
    /// The two addresses of one node are the same.
    #[error(
        "{address} cannot be for clients and for other nodes at the same time: name another one for the nodes with --peer"
    )]
    OneAddress {
        /// The address.
        address: String,
    },
    /// The cluster would be nobody.
    #[error("node {node} is the last voter: without it there is no cluster; stop it instead")]
    LastVoter {
        /// The node.
        node: NodeId,
    },
    /// Too few of the voters that would be left answer now.
    #[error(
        "the change would lose the quorum: of the {voters} voters that there would be {live} answer now, {needed} must; start {missing} \
         first, or remove one that is gone"
    )]
    LosesQuorum {
        /// Voters after the change.
        voters: usize,
        /// Those of them that answer.
        live: usize,
        /// A majority.
        needed: usize,
        /// Nodes that do not answer.
        missing: String,
    },
    /// A node with a log must not be taken in under another membership.
    #[error(
        "node {} at that address is not empty: its log has {entries} entries and this life of it ({member}) is no member; \
         start it with an empty directory and --join", .member.node
    )]
    NotEmpty {
        /// Who answers there.
        member: MemberId,
        /// Entries of its log.
        entries: u64,
    },
    /// A life that was removed has forgotten what it voted for since.
    #[error("this life of node {} ({member}) was removed from the cluster: start it with an empty directory and --join", .member.node)]
    WasRemoved {
        /// Who answers there.
        member: MemberId,
    },
    /// Somebody else answers.
    #[error("at that address answers node {found}, not node {wanted}")]
    WrongNode {
        /// Who should answer.
        wanted: NodeId,
        /// Who does.
        found: NodeId,
    },
    /// The cluster is large enough.
    #[error("a cluster has at most {MEMBERS_LIMIT} members: remove one first")]
    TooMany,
    /// A change of voters has begun and is not finished.
    #[error("another change of the members is not finished yet: nothing was done, try again")]
    Unfinished,
}

/// What can be refused before anybody is asked who answers at the address.
///
/// # Errors
/// [`Refusal`].
pub fn check(situation: Situation<'_>, change: Change, node: NodeId, place: Option<Place>) -> Result<(), Refusal> {
    let roster = situation.roster;
    if roster.is_changing() {
        return Err(Refusal::Unfinished);
    }
    let members = roster.members_of(node);
    let voter = members.iter().find(|member| roster.voters.contains(member));
    match (change, voter) {
        (Change::Add, Some(member)) => {
            return Err(Refusal::AlreadyMember { node, member: *member, place: roster.places[member] });
        }
        (Change::Replace | Change::Remove, _) if members.is_empty() => {
            let known = names(roster.nodes());
            return Err(Refusal::UnknownNode { node, known });
        }
        _ => {}
    }
    let Some(place) = place else { return Ok(()) };
    if place.http == place.peer {
        return Err(Refusal::OneAddress { address: place.http.to_string() });
    }
    let others = roster.places.iter().filter(|(member, _)| member.node != node);
    if let Some((other, theirs)) = others.into_iter().find(|(_, theirs)| theirs.overlaps(&place)) {
        let clashes = |address| [theirs.http, theirs.peer].contains(&address);
        let address = if clashes(place.http) { place.http } else { place.peer };
        return Err(Refusal::Overlap { address: address.to_string(), other: other.node, place: *theirs });
    }
    Ok(())
}

/// How a node is removed.
///
/// # Errors
/// [`Refusal`].
pub fn plan_removal(situation: Situation<'_>, node: NodeId) -> Result<Plan, Refusal> {
    check(situation, Change::Remove, node, None)?;
    let leaves = situation.roster.members_of(node);
    if situation.roster.voters.is_subset(&leaves) {
        return Err(Refusal::LastVoter { node });
    }
    keeps_quorum(situation, None, &leaves)?;
    Ok(if leaves.contains(&situation.me) { Plan::HandOverFirst } else { Plan::Remove { leaves } })
}

/// How whoever answers at `place` is taken in.
///
/// # Errors
/// [`Refusal`].
pub fn plan_admission(
    situation: Situation<'_>,
    change: Change,
    node: NodeId,
    place: Place,
    found: Introduction,
) -> Result<Plan, Refusal> {
    check(situation, change, node, Some(place))?;
    let (roster, member) = (situation.roster, found.member);
    if member.node != node {
        return Err(Refusal::WrongNode { wanted: node, found: member.node });
    }
    if roster.removed.contains(&member) {
        return Err(Refusal::WasRemoved { member });
    }
    match (roster.role(member), roster.places.get(&member)) {
        (Some(MemberRole::Voter), Some(known)) if (known.http, known.peer) == (place.http, place.peer) => {
            return Err(Refusal::AlreadyMember { node, member, place: *known });
        }
        (Some(MemberRole::Voter), Some(known)) => {
            return Ok(Plan::Move { member, place: Place { since_unix_ms: known.since_unix_ms, ..place } });
        }
        // A change that was interrupted goes on where it was.
        (Some(MemberRole::Learner), _) => {}
        _ if found.last_log.length > 0 => {
            return Err(Refusal::NotEmpty { member, entries: found.last_log.length });
        }
        _ if roster.places.len() >= MEMBERS_LIMIT => return Err(Refusal::TooMany),
        _ => {}
    }
    let leaves: BTreeSet<MemberId> = roster.members_of(node).into_iter().filter(|other| *other != member).collect();
    keeps_quorum(situation, Some(member), &leaves)?;
    let gives_way = leaves.contains(&situation.me);
    Ok(if gives_way { Plan::HandOverFirst } else { Plan::TakeIn { member, place, leaves } })
}

/// Whether the voters after a change could commit anything at this moment. The new one answers: it has just been asked.
fn keeps_quorum(situation: Situation<'_>, comes: Option<MemberId>, leaves: &BTreeSet<MemberId>) -> Result<(), Refusal> {
    let after: BTreeSet<MemberId> = situation.roster.voters.difference(leaves).copied().chain(comes).collect();
    let is_live = |member: &&MemberId| situation.live.contains(member) || comes == Some(**member);
    let live = after.iter().filter(is_live).count();
    let needed = majority(after.len());
    if live >= needed {
        return Ok(());
    }
    let missing = names(after.iter().filter(|member| !is_live(member)).map(|member| member.node));
    Err(Refusal::LosesQuorum { voters: after.len(), live, needed, missing: format!("node {missing}") })
}

fn names(nodes: impl IntoIterator<Item = NodeId>) -> String {
    nodes.into_iter().map(|node| node.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, LogPosition, Term};

    fn member(node: u16, life: u64) -> MemberId {
        MemberId { node: NodeId(node), incarnation: Incarnation(life) }
    }

    fn place(port: u16) -> Place {
        let address = |port| core::net::SocketAddr::from(([127, 0, 0, 1], port));
        Place::new(address(port), address(port + 1000))
    }

    /// Nodes 1 to `voters`, each in its first life, at 8001, 8002, ...
    fn roster(voters: u16) -> Roster {
        let places: BTreeMap<_, _> = (1..=voters).map(|node| (member(node, 1), place(8000 + node))).collect();
        let members: BTreeSet<_> = places.keys().copied().collect();
        Roster { places, voters: members.clone(), next_voters: members, length: 1, ..Roster::default() }
    }

    fn live(nodes: &[u16]) -> BTreeSet<MemberId> {
        nodes.iter().map(|node| member(*node, 1)).collect()
    }

    fn empty(node: u16, life: u64, port: u16) -> Introduction {
        Introduction { member: member(node, life), place: place(port), last_log: LogPosition::default() }
    }

    fn admit(
        roster: &Roster,
        answering: &[u16],
        change: Change,
        node: u16,
        port: u16,
        found: Introduction,
    ) -> Result<Plan, Refusal> {
        let situation = Situation { roster, me: member(1, 1), live: &live(answering) };
        plan_admission(situation, change, NodeId(node), place(port), found)
    }

    fn remove(roster: &Roster, answering: &[u16], node: u16) -> Result<Plan, Refusal> {
        plan_removal(Situation { roster, me: member(1, 1), live: &live(answering) }, NodeId(node))
    }

    /// What makes no sense by itself is refused before anybody is asked.
    #[test]
    fn a_request_that_makes_no_sense_is_refused_by_itself() {
        let request = |change, node, address: Option<&str>, peer: Option<&str>, wait_ms| {
            let parse = |text: &str| text.parse().unwrap();
            let (address, peer_address) = (address.map(parse), peer.map(parse));
            Order::of(&ChangeRequest { change, node: NodeId(node), address, peer_address, wait_ms })
        };
        let http = Some("127.0.0.1:8004");
        let wait = Duration::from_millis(WAIT_MS);
        let admit = |change, place| Ok(Order::Admit { change, node: NodeId(4), place, wait });
        assert_eq!(request(Change::Add, 4, http, None, None), admit(Change::Add, place(8004)));
        let elsewhere = Place::new(place(8004).http, "127.0.0.1:7".parse().unwrap());
        assert_eq!(request(Change::Replace, 4, http, Some("127.0.0.1:7"), None), admit(Change::Replace, elsewhere));
        assert_eq!(request(Change::Remove, 4, None, None, None), Ok(Order::Remove { node: NodeId(4) }));

        assert_eq!(request(Change::Add, 0, http, None, None), Err(Senseless::NoNode));
        let wait_ms = LONGEST_WAIT_MS + 1;
        assert_eq!(request(Change::Add, 4, http, None, Some(wait_ms)), Err(Senseless::TooLong { wait_ms }));
        assert_eq!(request(Change::Remove, 4, http, None, None), Err(Senseless::AddressToRemove));
        assert_eq!(request(Change::Remove, 4, None, http, None), Err(Senseless::AddressToRemove));
        assert_eq!(request(Change::Add, 4, None, http, None), Err(Senseless::NoAddress { change: Change::Add }));
        let unreachable = |address: &str| Err(Senseless::Unreachable { address: address.to_owned() });
        assert_eq!(request(Change::Add, 4, Some("0.0.0.0:8004"), None, None), unreachable("0.0.0.0:8004"));
        assert_eq!(request(Change::Add, 4, http, Some("127.0.0.1:0"), None), unreachable("127.0.0.1:0"));
        let address = "127.0.0.1:65000".to_owned();
        assert_eq!(
            request(Change::Add, 4, Some("127.0.0.1:65000"), None, None),
            Err(Senseless::NoNodePort { address })
        );
    }

    #[test]
    fn a_member_keeps_its_date_where_it_is() {
        let mut one = roster(1);
        let since = |roster: &Roster, place| roster.dated(member(1, 1), place, 7).since_unix_ms;
        assert_eq!(since(&one, place(8001)), None, "it has been there from the beginning");
        assert_eq!(since(&one, place(8009)), Some(7));
        one.places.insert(member(1, 1), Place { since_unix_ms: Some(5), ..place(8001) });
        assert_eq!(since(&one, place(8001)), Some(5));
    }

    /// A new node is taken in beside the others; a new life in place of the old one, dead or alive.
    #[test]
    fn a_new_node_comes_and_a_new_life_takes_the_place_of_the_old_one() {
        let three = roster(3);
        let taken = |node, life, leaves: &[MemberId], port| {
            let leaves = leaves.iter().copied().collect();
            Ok(Plan::TakeIn { member: member(node, life), place: place(port), leaves })
        };
        assert_eq!(admit(&three, &[1, 2, 3], Change::Add, 4, 8004, empty(4, 9, 8004)), taken(4, 9, &[], 8004));
        let old = [member(2, 1)];
        for answering in [&[1, 2, 3][..], &[1, 3][..]] {
            let plan = admit(&three, answering, Change::Replace, 2, 8012, empty(2, 9, 8012));
            assert_eq!(plan, taken(2, 9, &old, 8012));
        }
        // A wiped disk at the old address.
        assert_eq!(admit(&three, &[1, 3], Change::Replace, 2, 8002, empty(2, 9, 8002)), taken(2, 9, &old, 8002));
    }

    /// Unknown nodes, members that are there already and overlapping addresses are refused by name.
    #[test]
    fn what_is_there_and_what_is_not_is_refused_by_name() {
        let three = roster(3);
        let all = &[1, 2, 3];
        let words = |result: Result<Plan, Refusal>| result.unwrap_err().to_string();
        let text = words(admit(&three, all, Change::Replace, 7, 8007, empty(7, 9, 8007)));
        assert!(text.contains("no node 7") && text.contains("1, 2, 3"), "{text}");
        let text = words(remove(&three, all, 7));
        assert!(text.contains("no node 7"), "{text}");
        let text = words(admit(&three, all, Change::Add, 2, 8012, empty(2, 9, 8012)));
        assert!(text.contains("is a member already") && text.contains("127.0.0.1:8002"), "{text}");
        let same = Introduction { last_log: LogPosition { term: Term(1), length: 5 }, ..empty(2, 1, 8002) };
        assert!(matches!(admit(&three, all, Change::Replace, 2, 8002, same), Err(Refusal::AlreadyMember { .. })));
        for port in [8003, 9003, 7003] {
            let result = admit(&three, all, Change::Add, 4, port, empty(4, 9, port));
            assert!(matches!(&result, Err(Refusal::Overlap { other: NodeId(3), .. })), "{port}: {result:?}");
        }
        let text = words(admit(&three, all, Change::Add, 4, 8004, empty(5, 9, 8004)));
        assert_eq!(text, "at that address answers node 5, not node 4");
    }

    /// Whoever comes has an empty disk, or is a learner of a change that was interrupted; a removed life never comes back.
    #[test]
    fn only_an_empty_disk_comes_and_a_removed_life_never_again() {
        let mut three = roster(3);
        let with_log = |node, life| Introduction {
            last_log: LogPosition { term: Term(4), length: 70 },
            ..empty(node, life, 8004)
        };
        let refused = admit(&three, &[1, 2, 3], Change::Add, 4, 8004, with_log(4, 9));
        assert_eq!(refused, Err(Refusal::NotEmpty { member: member(4, 9), entries: 70 }));
        three.removed.insert(member(4, 9));
        let refused = admit(&three, &[1, 2, 3], Change::Add, 4, 8004, empty(4, 9, 8004));
        assert_eq!(refused, Err(Refusal::WasRemoved { member: member(4, 9) }));
        three.places.insert(member(4, 8), place(8004));
        let resumed = admit(&three, &[1, 2, 3], Change::Add, 4, 8004, with_log(4, 8));
        let leaves = BTreeSet::new();
        assert_eq!(resumed, Ok(Plan::TakeIn { member: member(4, 8), place: place(8004), leaves }));
    }

    /// A member that has moved with its disk keeps its vote and gets another address.
    #[test]
    fn the_same_life_at_another_address_moves() {
        let moved = Introduction { last_log: LogPosition { term: Term(1), length: 5 }, ..empty(2, 1, 8012) };
        let plan = admit(&roster(3), &[1, 2, 3], Change::Replace, 2, 8012, moved);
        assert_eq!(plan, Ok(Plan::Move { member: member(2, 1), place: place(8012) }));
    }

    /// The last voter stays, and so does whoever the quorum needs now; the leader hands over first.
    #[test]
    fn no_change_loses_the_last_voter_or_the_quorum() {
        assert_eq!(remove(&roster(1), &[1], 1), Err(Refusal::LastVoter { node: NodeId(1) }));
        assert_eq!(remove(&roster(3), &[1, 2, 3], 2), Ok(Plan::Remove { leaves: [member(2, 1)].into() }));
        assert_eq!(remove(&roster(3), &[1, 2, 3], 1), Ok(Plan::HandOverFirst));
        assert_eq!(remove(&roster(3), &[1, 3], 2), Ok(Plan::Remove { leaves: [member(2, 1)].into() }), "the dead one");
        let text = remove(&roster(3), &[1, 3], 3).unwrap_err().to_string();
        assert!(
            text.contains("of the 2 voters that there would be 1 answer now, 2 must; start node 2 first"),
            "{text}"
        );
        let refused = remove(&roster(5), &[1, 2, 3], 3);
        assert!(matches!(refused, Err(Refusal::LosesQuorum { voters: 4, live: 2, needed: 3, .. })), "{refused:?}");
        let added = admit(&roster(2), &[1, 2], Change::Add, 3, 8003, empty(3, 9, 8003));
        assert!(added.is_ok(), "{added:?}");
        let five = admit(&roster(4), &[1, 2], Change::Add, 5, 8005, empty(5, 9, 8005));
        assert!(five.is_ok(), "three of five answer: {five:?}");
        let replaced = admit(&roster(3), &[1, 2, 3], Change::Replace, 1, 8011, empty(1, 9, 8011));
        assert_eq!(replaced, Ok(Plan::HandOverFirst));
    }

    /// One change at a time.
    #[test]
    fn while_voters_change_nothing_else_does() {
        let mut three = roster(3);
        three.next_voters = live(&[1, 2]);
        assert_eq!(remove(&three, &[1, 2, 3], 2), Err(Refusal::Unfinished));
    }

    /// While a node is replaced there are two of it: its name means the one that votes, and then the one that will.
    #[test]
    fn a_name_means_the_voter_and_then_the_one_that_takes_its_place() {
        let mut three = roster(3);
        let new = member(2, 9);
        three.places.insert(new, place(8012));
        assert_eq!(three.stands_for(NodeId(2)), Some(member(2, 1)));
        assert_eq!(three.role(new), Some(MemberRole::Learner));
        three.voters.insert(new);
        three.next_voters = [member(1, 1), new, member(3, 1)].into();
        assert_eq!(three.stands_for(NodeId(2)), Some(new));
        assert_eq!(three.place_of(NodeId(2)), Some(place(8012)));
        assert_eq!((three.stands_for(NodeId(9)), three.role(member(9, 1))), (None, None));
    }
}
