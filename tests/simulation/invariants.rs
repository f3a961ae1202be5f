//! What Raft promises (D. Ongaro and J. Ousterhout, "In Search of an Understandable Consensus Algorithm", figure 3), and what the
//! ledger promises on top of it, each by its name: pure, from what is seen of the nodes.

use std::collections::BTreeMap;
use std::fmt;

use image_cloud::id::MemberId;
use image_cloud::raft::machine::Applied;
use image_cloud::raft::types::{Entry, LogId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// At most one leader can be elected in a given term.
    ElectionSafety,
    /// A leader never overwrites or deletes entries in its log; it only appends new entries.
    LeaderAppendOnly,
    /// If two logs contain an entry with the same index and term, then the logs are identical in all entries up to that index.
    LogMatching,
    /// If an entry is committed in a given term, then it is present in the logs of the leaders of all higher terms.
    LeaderCompleteness,
    /// If a node has applied an entry at an index, no other node will ever apply another one at that index.
    StateMachineSafety,
    /// What was acknowledged is there.
    Durability,
    /// One store in one order explains every answer.
    Linearizability,
    /// A healed cluster goes on.
    Progress,
    /// What an election asks of Raft takes at most [`ELECTION_WAIT`](image_cloud::raft::group::ELECTION_WAIT) for each of its waits.
    BoundedWaits,
}

/// A promise that was broken, with what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: Invariant,
    pub seen: String,
}

impl Violation {
    pub fn new(invariant: Invariant, seen: impl Into<String>) -> Violation {
        Violation { invariant, seen: seen.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} is violated: {}", self.invariant, self.seen)
    }
}

/// What can be seen of one node's disk and memory at one moment.
#[derive(Clone, Default)]
pub struct Observed {
    /// Restarts of this node.
    pub life: u64,
    /// The term in which it leads, by its own word and by the vote on its disk.
    pub leads_in: Option<u64>,
    pub log: BTreeMap<u64, Entry>,
    pub purged: Option<LogId>,
    /// How far it knows the log to be committed, and the term of its vote.
    pub committed: Option<(LogId, u64)>,
    /// Entries purged since the last look: a snapshot covers them, so they are committed.
    pub just_purged: Vec<Entry>,
    /// None if it does not run.
    pub applied: Option<Applied>,
}

impl Observed {
    /// Entries up to here are only in its snapshot.
    fn purged_length(&self) -> u64 {
        self.purged.map_or(0, |id| id.index() + 1)
    }
}

/// States that are remembered.
const STATES: usize = 256;

/// What was seen before, as far as a promise is about it.
#[derive(Default)]
pub struct Invariants {
    leaders: BTreeMap<u64, MemberId>,
    leader_logs: BTreeMap<usize, (u64, u64, BTreeMap<u64, Entry>)>,
    /// The entry that was seen committed at each index, and the term of the vote of whoever knew it first: it was committed in
    /// that term or before.
    committed: BTreeMap<u64, (Entry, u64)>,
    states: BTreeMap<u64, Applied>,
}

impl Invariants {
    /// Looks at all nodes at one moment.
    pub fn check(&mut self, nodes: &[(MemberId, Observed)]) -> Result<(), Violation> {
        for (member, node) in nodes {
            if let Some(term) = node.leads_in {
                self.election_safety(term, *member)?;
            }
        }
        self.leader_append_only(nodes)?;
        log_matching(nodes)?;
        self.state_machine_safety(nodes)?;
        self.leader_completeness(nodes)
    }

    /// A node was seen to lead in a term.
    pub fn election_safety(&mut self, term: u64, leader: MemberId) -> Result<(), Violation> {
        let first = *self.leaders.entry(term).or_insert(leader);
        if first == leader {
            return Ok(());
        }
        let seen = format!("two leaders in term {term}: {first} and {leader}");
        Err(Violation::new(Invariant::ElectionSafety, seen))
    }

    fn leader_append_only(&mut self, nodes: &[(MemberId, Observed)]) -> Result<(), Violation> {
        for (index, (member, node)) in nodes.iter().enumerate() {
            let Some(term) = node.leads_in else {
                self.leader_logs.remove(&index);
                continue;
            };
            let before = self.leader_logs.insert(index, (node.life, term, node.log.clone()));
            let Some((_, _, log)) = before.filter(|(life, led, _)| (*life, *led) == (node.life, term)) else {
                continue;
            };
            for (at, entry) in log.range(node.purged_length()..) {
                let now = node.log.get(at);
                if now != Some(entry) {
                    let seen = format!("{member} leads in term {term} and had {entry:?}, now {now:?}");
                    return Err(Violation::new(Invariant::LeaderAppendOnly, seen));
                }
            }
        }
        Ok(())
    }

    fn state_machine_safety(&mut self, nodes: &[(MemberId, Observed)]) -> Result<(), Violation> {
        let violated = |seen| Err(Violation::new(Invariant::StateMachineSafety, seen));
        for (member, node) in nodes {
            let (upto, term) = match node.committed {
                Some((id, term)) if node.log.get(&id.index()).is_some_and(|entry| entry.log_id == id) => {
                    (id.index() + 1, term)
                }
                _ => (0, 0),
            };
            // Whoever purged an entry knew it to be committed, at that time or before.
            let purged = node.just_purged.iter().map(|entry| (entry, u64::MAX));
            let known = node.log.range(..upto).map(|(_, entry)| (entry, term));
            for (entry, term) in known.chain(purged) {
                let (first, in_term) =
                    self.committed.entry(entry.log_id.index()).or_insert_with(|| (entry.clone(), term));
                *in_term = term.min(*in_term);
                if first != entry {
                    return violated(format!("{member} has committed {entry:?}, before it was {first:?}"));
                }
            }
            let Some(applied) = node.applied.as_ref() else { continue };
            let Some(last) = applied.last else { continue };
            let first = self.states.entry(last.index()).or_insert_with(|| applied.clone());
            if first != applied {
                return violated(format!("{member} has applied {applied:?}, before it was {first:?}"));
            }
        }
        while self.states.len() > STATES {
            self.states.pop_first();
        }
        Ok(())
    }

    fn leader_completeness(&self, nodes: &[(MemberId, Observed)]) -> Result<(), Violation> {
        for (member, node) in nodes {
            let Some(term) = node.leads_in else { continue };
            let entries = self.committed.range(node.purged_length()..);
            for (at, (entry, _)) in entries.filter(|(_, (_, committed_in))| *committed_in < term) {
                let found = node.log.get(at);
                if found != Some(entry) {
                    let seen =
                        format!("{member} leads in term {term}, {entry:?} was committed before, it has {found:?}");
                    return Err(Violation::new(Invariant::LeaderCompleteness, seen));
                }
            }
        }
        Ok(())
    }

    /// The entry that was committed at an index.
    pub fn committed(&self, index: u64) -> Option<&Entry> {
        self.committed.get(&index).map(|(entry, _)| entry)
    }
}

fn log_matching(nodes: &[(MemberId, Observed)]) -> Result<(), Violation> {
    for (place, (one, first)) in nodes.iter().enumerate() {
        for (other, second) in &nodes[place + 1..] {
            let mut matching = false;
            for (index, entry) in first.log.iter().rev() {
                let Some(found) = second.log.get(index) else { continue };
                matching |= entry.log_id == found.log_id;
                if matching && entry != found {
                    let seen = format!("{one} and {other} differ before a common entry: {entry:?}, {found:?}");
                    return Err(Violation::new(Invariant::LogMatching, seen));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use image_cloud::raft::types::Payload;

    use super::super::world::{member, record};
    use super::*;

    fn entry(term: u64, index: u64, number: u64) -> Entry {
        Entry { log_id: LogId::new_term_index(term, index), payload: Payload::Normal(record(number)) }
    }

    /// A node whose log has entries of these terms.
    fn node(leads_in: Option<u64>, terms: &[u64], committed: Option<(u64, u64)>) -> Observed {
        let log: BTreeMap<u64, Entry> =
            (0..).zip(terms).map(|(index, term)| (index, entry(*term, index, index))).collect();
        let committed = committed.map(|(index, vote)| (log[&index].log_id, vote));
        Observed { leads_in, log, committed, ..Observed::default() }
    }

    fn applied(index: u64, number: u64) -> Option<Applied> {
        let mut applied = Applied { last: Some(LogId::new_term_index(1, index)), ..Applied::default() };
        applied.state.apply(1, record(number), &mut Vec::new());
        Some(applied)
    }

    /// Looks at two nodes again and again; gives the first promise that is seen broken.
    fn broken(moments: Vec<[Observed; 2]>) -> Option<Invariant> {
        let mut invariants = Invariants::default();
        let mut see = |nodes: [Observed; 2]| {
            let nodes: Vec<_> = nodes.into_iter().enumerate().map(|(index, node)| (member(index), node)).collect();
            invariants.check(&nodes).err().map(|violation| violation.invariant)
        };
        moments.into_iter().find_map(&mut see)
    }

    /// Each of Raft's promises is told broken by its name when it is, and not before.
    #[test]
    fn each_promise_can_be_seen_broken() {
        let follower = || node(None, &[], None);
        let led = |terms: &[u64]| node(Some(3), terms, None);
        assert_eq!(broken(vec![[led(&[1]), follower()], [led(&[1, 3]), node(Some(4), &[1, 4], None)]]), None);
        assert_eq!(broken(vec![[led(&[1]), follower()], [follower(), led(&[1])]]), Some(Invariant::ElectionSafety));
        assert_eq!(
            broken(vec![[led(&[1, 3]), follower()], [led(&[1]), follower()]]),
            Some(Invariant::LeaderAppendOnly)
        );
        let restarted = Observed { life: 1, ..led(&[1]) };
        assert_eq!(broken(vec![[led(&[1, 3]), follower()], [restarted, follower()]]), None);
        assert_eq!(broken(vec![[led(&[1, 3]), node(None, &[2, 3], None)]]), Some(Invariant::LogMatching));
        assert_eq!(broken(vec![[led(&[1, 2]), node(None, &[1, 3], None)]]), None);
        let knew = node(None, &[1, 2], Some((1, 2)));
        assert_eq!(
            broken(vec![[knew.clone(), follower()], [knew.clone(), led(&[1])]]),
            Some(Invariant::LeaderCompleteness)
        );
        assert_eq!(broken(vec![[knew.clone(), follower()], [knew.clone(), led(&[1, 2, 3])]]), None);
        let other = node(None, &[1, 3], Some((1, 3)));
        assert_eq!(broken(vec![[knew, follower()], [follower(), other]]), Some(Invariant::StateMachineSafety));
        let apply = |number| Observed { applied: applied(0, number), ..follower() };
        assert_eq!(broken(vec![[apply(1), follower()], [apply(1), apply(1)]]), None);
        assert_eq!(broken(vec![[apply(1), follower()], [follower(), apply(2)]]), Some(Invariant::StateMachineSafety));
    }
}
