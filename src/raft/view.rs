//! Raft as the election core sees it.

use std::collections::BTreeMap;

use openraft::metrics::{RaftDataMetrics, RaftServerMetrics};
use openraft::{AsyncRuntime, ServerState};

use crate::core::election::RaftView;
use crate::id::{MemberId, NodeId, Term};
use crate::raft::group::Group;
use crate::raft::types::{Types, position};

/// Translates the library's metrics.
pub(crate) fn translate<R: AsyncRuntime>(
    group: &Group<R>,
    term: u64,
    data: &RaftDataMetrics<Types<R>>,
    server: &RaftServerMetrics<Types<R>>,
) -> RaftView {
    let term = Term(term);
    let voters: Vec<_> = server.membership_config.voter_ids().collect();
    let leads = server.state == ServerState::Leader && server.vote.is_committed();
    // The vote that is told here is the synced one; the term may be ahead of it. A leader that has come back from its disk
    // still holds the vote that confirmed it, but does not lead.
    let confirmed = server.vote.is_committed() && server.vote.leader_id().term == term.0;
    // Nor is another life of this very node a leader to speak of: by its name it could not be told from this one. While it leads,
    // this one is a learner at most, which needs no leader's name.
    let has_own_name = |leader: MemberId| leader.node == server.id.node;
    let leader = Some(server.vote.leader_id().voted_for)
        .filter(|leader| confirmed && (!has_own_name(*leader) || (*leader == server.id && leads)));
    let leads = leader == Some(server.id);

    let mut votes: Vec<NodeId> = Vec::new();
    let mut matched = BTreeMap::new();
    if leads {
        votes = group.ballot().of(term).into_iter().chain([server.id.node]).collect();
        votes.sort_unstable();
        for (member, progress) in data.replication.iter().flatten() {
            if voters.contains(member) {
                matched.insert(*member, position(*progress));
            }
        }
        matched.insert(server.id, position(data.last_log));
    }
    RaftView {
        term,
        leader: leader.map(|leader| leader.node),
        last_log: position(data.last_log),
        voters,
        commit: position(data.cluster_committed.max(data.local_committed)).length,
        applied: position(data.last_applied).length,
        votes,
        matched,
    }
}
