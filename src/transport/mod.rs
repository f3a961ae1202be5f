//! Outbound node connections: to each peer one TLS connection per purpose, opened when needed and kept.

pub mod dial;
pub mod gate;
pub mod tls;
pub mod wire;

mod beat;
mod calls;
mod link;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

pub use self::calls::CallError;
pub use self::dial::{ProbeOutcome, probe};
pub use self::gate::Gate;
pub use self::tls::NodeTls;

use self::calls::{Outgoing, QUEUE_LIMIT};
use self::link::Link;
use crate::id::{MemberId, NodeId};
use crate::protocol::election::{ElectionMessage, Heartbeat};
use crate::protocol::frame::{Lane, NodeFrame, Opaque, Purpose};
use crate::protocol::sync::{StateSync, StateSyncResponse};

/// How long a one-way message may take to be written.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);

/// Whom to reach, and how patiently.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// This node.
    pub me: MemberId,
    /// The node-protocol address of every other node.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// How long opening a connection, TLS and greeting included, may take (200 ms).
    pub connect_timeout: Duration,
    /// What this node shows to the others, and whom it believes.
    pub tls: NodeTls,
}

/// All outbound connections of a node. Clones share them; they close when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Links {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gate: Gate,
    heartbeat: watch::Sender<Option<Heartbeat>>,
    queues: BTreeMap<(NodeId, Purpose), mpsc::Sender<Outgoing>>,
    next_id: AtomicU64,
}

impl Links {
    /// Starts the connections, on the tokio runtime that this is called in.
    pub fn open(settings: &LinkSettings, gate: Gate) -> Links {
        let heartbeat = watch::Sender::new(None);
        let mut queues = BTreeMap::new();
        for (&to, &address) in &settings.peers {
            let link = |purpose| Link::new(settings, to, address, purpose);
            tokio::spawn(beat::run(link(Purpose::Heartbeat), gate.clone(), heartbeat.subscribe()));
            for purpose in Lane::ALL.map(Purpose::Raft).into_iter().chain([Purpose::Control]) {
                let (sender, receiver) = mpsc::channel(QUEUE_LIMIT);
                tokio::spawn(calls::run(link(purpose), gate.clone(), receiver));
                queues.insert((to, purpose), sender);
            }
        }
        Links { shared: Arc::new(Shared { gate, heartbeat, queues, next_id: AtomicU64::new(1) }) }
    }

    /// Sends a heartbeat to every peer. A peer that is slow gets the latest one only.
    pub fn heartbeat(&self, heartbeat: Heartbeat) {
        self.shared.heartbeat.send_replace(Some(heartbeat));
    }

    /// Sends an election message, without waiting and without knowing whether it arrives.
    ///
    /// # Errors
    /// [`CallError::Busy`], [`CallError::UnknownNode`], [`CallError::TooLong`].
    pub fn election(&self, to: NodeId, message: ElectionMessage) -> Result<(), CallError> {
        if self.shared.gate.is_shut() {
            return Ok(());
        }
        let frame = wire::encode_frame(&NodeFrame::Election(message))?;
        self.queue(to, Purpose::Control, Outgoing { frame, waiter: None, limit: SEND_TIMEOUT })
    }

    /// Asks a peer what this node missed.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn state_sync(
        &self,
        to: NodeId,
        request: StateSync,
        limit: Duration,
    ) -> Result<StateSyncResponse, CallError> {
        match self.call(to, Purpose::Control, |id| NodeFrame::StateSync { id, request }, limit).await? {
            NodeFrame::StateSyncResponse { response, .. } => Ok(response),
            _ => Err(CallError::WrongAnswer),
        }
    }

    /// Carries a request of the Raft adapter.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn raft(&self, to: NodeId, lane: Lane, request: Vec<u8>, limit: Duration) -> Result<Vec<u8>, CallError> {
        let frame = |id| NodeFrame::Raft { id, request: Opaque(request) };
        match self.call(to, Purpose::Raft(lane), frame, limit).await? {
            NodeFrame::RaftResponse { response, .. } => Ok(response.0),
            _ => Err(CallError::WrongAnswer),
        }
    }

    async fn call(
        &self,
        to: NodeId,
        purpose: Purpose,
        frame: impl FnOnce(u64) -> NodeFrame,
        limit: Duration,
    ) -> Result<NodeFrame, CallError> {
        let attempt = async {
            let result = self.attempt(to, purpose, frame, limit).await;
            if self.shared.gate.is_shut() {
                // A node that fails must not learn by a quick error that it is its own gate.
                std::future::pending::<()>().await;
            }
            result
        };
        tokio::time::timeout(limit, attempt).await.unwrap_or(Err(CallError::Timeout(limit)))
    }

    async fn attempt(
        &self,
        to: NodeId,
        purpose: Purpose,
        frame: impl FnOnce(u64) -> NodeFrame,
        limit: Duration,
    ) -> Result<NodeFrame, CallError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        let frame = wire::encode_frame(&frame(id))?;
        self.queue(to, purpose, Outgoing { frame, waiter: Some((id, sender)), limit })?;
        match receiver.await {
            Ok(result) => result.map_err(CallError::Unreachable),
            Err(_) => Err(CallError::Unreachable("the message was dropped".to_owned())),
        }
    }

    fn queue(&self, to: NodeId, purpose: Purpose, outgoing: Outgoing) -> Result<(), CallError> {
        let queue = self.shared.queues.get(&(to, purpose)).ok_or(CallError::UnknownNode)?;
        queue.try_send(outgoing).map_err(|_| CallError::Busy)
    }
}
