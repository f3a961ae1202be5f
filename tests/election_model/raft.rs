//! Raft as far as the election depends on it: one leader per term, by a majority of durable votes, never with a shorter log; slow
//! or unwilling as the checker likes.

use std::collections::BTreeMap;

use image_cloud::core::election::RaftView;
use image_cloud::id::{LogPosition, NodeId, Term};
use image_cloud::protocol::election::Campaign;

use super::world::{NODES, member, members, node};

/// What each node's disk holds, and who ever led.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    pub disks: [Disk; NODES],
    pub leaders: BTreeMap<u64, usize>,
}

/// A node's durable state, and whom it follows in its term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    pub term: u64,
    voted_for: Option<usize>,
    pub follows: Option<usize>,
    pub log: LogPosition,
}

/// How a campaign ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Won,
    Refused,
}

impl Raft {
    /// Node 0 leads term 1; the logs have these lengths.
    pub fn led_by_the_first(lengths: [u64; NODES]) -> Self {
        let disk =
            |length| Disk { term: 1, voted_for: Some(0), follows: Some(0), log: LogPosition { term: Term(1), length } };
        Raft { disks: lengths.map(disk), leaders: BTreeMap::from([(1, 0)]) }
    }

    pub fn view(&self, of: usize) -> RaftView {
        let disk = &self.disks[of];
        RaftView {
            term: Term(disk.term),
            leader: disk.follows.map(node),
            last_log: disk.log,
            voters: members().to_vec(),
            ..RaftView::default()
        }
    }

    /// The same, with what a leader knows of the other logs; only where hand-overs are, for it makes many more states.
    pub fn view_with_logs(&self, of: usize) -> RaftView {
        let mut view = self.view(of);
        if self.leads(of) {
            view.matched = (0..NODES).map(|who| (member(who), self.disks[who].log)).collect();
            let mut lengths = self.disks.clone().map(|disk| disk.log.length);
            lengths.sort_unstable();
            view.commit = lengths[NODES - (NODES / 2 + 1)];
        }
        view
    }

    /// Whether that log holds everything that a majority holds: what is committed may be there, and nowhere else.
    pub fn has_all_committed(&self, who: usize) -> bool {
        self.could_win(who)
    }

    pub fn leads(&self, who: usize) -> bool {
        self.disks[who].follows == Some(who)
    }

    /// Whether this log is at least as long as a majority's, by what really is on the disks.
    pub fn could_win(&self, who: usize) -> bool {
        let covered = self.disks.iter().filter(|disk| disk.log <= self.disks[who].log).count();
        covered > NODES / 2
    }

    pub fn forget_leader(&mut self, who: usize) {
        self.disks[who].follows = None;
    }

    /// `candidate` asks the voters that can be `reached`; `leases` are those that hear their leader and grant no pre-vote.
    pub fn campaign(&mut self, candidate: usize, how: Campaign, reached: &[usize], leases: &[usize]) -> Outcome {
        let log = self.disks[candidate].log;
        let majority = NODES / 2 + 1;
        if how == Campaign::PreVote {
            let would_grant = |voter: &&usize| {
                let disk = &self.disks[**voter];
                !leases.contains(voter) && disk.log <= log && disk.term <= self.disks[candidate].term + 1
            };
            if leases.contains(&candidate) || 1 + reached.iter().filter(would_grant).count() < majority {
                return Outcome::Refused;
            }
        }
        let term = self.disks[candidate].term + 1;
        self.disks[candidate] = Disk { term, voted_for: Some(candidate), follows: None, log };
        let mut votes = 1;
        for voter in reached {
            let disk = &mut self.disks[*voter];
            if disk.term < term {
                *disk = Disk { term, voted_for: None, follows: None, log: disk.log };
            }
            let may_vote = disk.term == term && disk.voted_for.is_none_or(|vote| vote == candidate);
            if may_vote && disk.log <= log {
                disk.voted_for = Some(candidate);
                votes += 1;
            }
        }
        if votes < majority {
            return Outcome::Refused;
        }
        let other = self.leaders.insert(term, candidate);
        assert!(other.is_none(), "the model of Raft is wrong: two leaders in term {term}");
        let length = log.length + 1;
        self.disks[candidate].follows = Some(candidate);
        self.disks[candidate].log = LogPosition { term: Term(term), length };
        Outcome::Won
    }

    /// The leader appends to a follower, or learns from it that it leads no more. Returns whose view changed.
    pub fn append(&mut self, leader: usize, to: usize) -> Option<usize> {
        let (from, follower) = (self.disks[leader].clone(), self.disks[to].clone());
        if follower.term > from.term {
            self.disks[leader] = Disk { term: follower.term, voted_for: None, follows: None, log: from.log };
            return Some(leader);
        }
        let voted_for = if follower.term == from.term { follower.voted_for } else { None };
        self.disks[to] = Disk { term: from.term, voted_for, follows: Some(leader), log: from.log };
        (self.disks[to] != follower).then_some(to)
    }
}

/// The leader of a term, as the node numbers of the project name it.
pub fn leader_of(raft: &Raft, term: Term) -> Option<NodeId> {
    raft.leaders.get(&term.0).copied().map(node)
}
