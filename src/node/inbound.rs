//! What arrives on the node protocol, handed to the actor or straight to Raft.

use std::sync::Arc;

use actix::Addr;

use super::actor::{ElectionArrived, HeartbeatArrived, Node, PeerClosed, SyncAsked};
use super::listener::Inbound;
use super::shared::Shared;
use crate::id::{LogPosition, MemberId};
use crate::protocol::election::{ElectionMessage, Heartbeat};
use crate::protocol::sync::{StateSync, StateSyncResponse};
use crate::raft::RaftNode;
use crate::time;

/// The way in. Raft's requests do not pass through the actor's mailbox.
pub struct Entrance {
    /// The node actor.
    pub node: Addr<Node>,
    /// Raft.
    pub raft: RaftNode,
    /// What is known of the node.
    pub shared: Arc<Shared>,
}

impl Entrance {
    /// A full mailbox drops the message, as the network might have done: all senders repeat themselves.
    fn dropped(&self, what: &str) {
        log::warn!("node {}: overloaded, {what} is dropped", self.shared.node());
    }
}

impl Inbound for Entrance {
    fn heartbeat(&self, heartbeat: Heartbeat) {
        if self.node.try_send(HeartbeatArrived { heartbeat, at: time::now() }).is_err() {
            self.dropped("a heartbeat");
        }
    }

    fn closed(&self, member: MemberId) {
        if self.node.try_send(PeerClosed(member)).is_err() {
            self.dropped("the end of a connection");
        }
    }

    fn election(&self, from: MemberId, message: ElectionMessage) {
        if self.node.try_send(ElectionArrived { from, message }).is_err() {
            self.dropped("an election message");
        }
    }

    async fn state_sync(&self, request: StateSync) -> StateSyncResponse {
        match self.node.send(SyncAsked(request)).await {
            Ok(response) => response,
            // The node is stopping: the asker's own deadline ends its wait.
            Err(_) => std::future::pending().await,
        }
    }

    fn last_log(&self) -> LogPosition {
        self.raft.views().borrow().last_log
    }

    async fn raft(&self, from: MemberId, request: Vec<u8>) -> Vec<u8> {
        self.raft.receive(from, request).await
    }
}
