//! A planned stop: no new jobs, the lead to another node, the accepted jobs to their end. Then the process may go.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;

use super::actor::{Node, StopCommanded};
use super::desk::Desk;
use super::shared::Shared;
use crate::protocol::status::NodeState;
use crate::raft::RaftNode;

/// How long the hand-over before a stop may take. It takes a few milliseconds; without it the others elect when this node is gone.
const HAND_OVER_LIMIT: Duration = Duration::from_millis(300);

/// How long writes that were taken before the hand-over may take to be answered. The node must still hear the next leader for that.
const WRITES_LIMIT: Duration = Duration::from_millis(300);

/// What a node needs to leave.
pub struct Stopping {
    /// The actor.
    pub node: Addr<Node>,
    /// Where jobs are taken.
    pub desk: Desk,
    /// What is known of the node.
    pub shared: Arc<Shared>,
    /// Raft: it goes on voting while jobs are finished.
    pub raft: RaftNode,
}

impl Stopping {
    /// Leaves: bounded by 300 ms for the hand-over, as many for the writes that were taken, and by `finish` for the jobs.
    pub async fn leave(self, why: &'static str, finish: Duration) {
        if self.shared.view().state == NodeState::Failed {
            return;
        }
        let me = self.shared.node();
        let mut views = self.raft.views();
        let handing_over = async {
            // A node whose mailbox is closed leads nobody; nor does one whose Raft has ended.
            if self.node.send(StopCommanded(why)).await.unwrap_or(false) {
                let _ = views.wait_for(|view| view.leader.is_some_and(|leader| leader != me)).await;
            }
        };
        if tokio::time::timeout(HAND_OVER_LIMIT, handing_over).await.is_err() {
            log::warn!("node {me}: nobody took over within {} ms: stops as leader", HAND_OVER_LIMIT.as_millis());
        }
        if tokio::time::timeout(WRITES_LIMIT, self.raft.writes_answered()).await.is_err() {
            log::warn!(
                "node {me}: writes are not answered after {} ms: whoever sent them asks the next leader",
                WRITES_LIMIT.as_millis()
            );
        }
        if tokio::time::timeout(finish, self.desk.idle()).await.is_err() {
            log::warn!("node {me}: jobs are left after {} s (jobs.finish_s): they are dropped", finish.as_secs_f64());
        }
    }
}
