//! Outbound node connections: to each peer one TCP connection per purpose, opened when needed and kept.

pub mod dial;
pub mod faults;
pub mod gate;
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
pub use self::faults::Faults;
pub use self::gate::Gate;

use self::calls::{Outgoing, QUEUE_LIMIT};
use self::link::Link;
use crate::core::faults::Verdict;
use crate::id::{MemberId, NodeId};
use crate::protocol::election::{ElectionMessage, Heartbeat};
use crate::protocol::frame::{Lane, NodeFrame, Opaque, Purpose};
use crate::protocol::sync::{StateSync, StateSyncResponse};
use crate::time;

/// How long a one-way message may take to be written.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);

/// Whom to reach, and how patiently.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// This node.
    pub me: MemberId,
    /// The node-protocol address of every other node.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// How long opening a connection, greeting included, may take (100 ms).
    pub connect_timeout: Duration,
}

/// All outbound connections of a node. Clones share them; they close when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Links {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gate: Gate,
    faults: Faults,
    peers: BTreeMap<NodeId, SocketAddr>,
    heartbeat: watch::Sender<Option<Heartbeat>>,
    queues: BTreeMap<(NodeId, Purpose), mpsc::Sender<Outgoing>>,
    next_id: AtomicU64,
}

impl Links {
    /// Starts the connections, on the tokio runtime that this is called in.
    pub fn open(settings: &LinkSettings, gate: Gate, faults: Faults) -> Links {
        let heartbeat = watch::Sender::new(None);
        let mut queues = BTreeMap::new();
        for (&to, &address) in &settings.peers {
            let link = |purpose| Link::new(settings.me, to, address, purpose, settings.connect_timeout, faults.clone());
            tokio::spawn(beat::run(link(Purpose::Heartbeat), gate.clone(), heartbeat.subscribe()));
            for purpose in Lane::ALL.map(Purpose::Raft).into_iter().chain([Purpose::Control]) {
                let (sender, receiver) = mpsc::channel(QUEUE_LIMIT);
                tokio::spawn(calls::run(link(purpose), gate.clone(), receiver));
                queues.insert((to, purpose), sender);
            }
        }
        let (peers, next_id) = (settings.peers.clone(), AtomicU64::new(1));
        Links { shared: Arc::new(Shared { gate, faults, peers, heartbeat, queues, next_id }) }
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

    /// Looks whether anything listens at a peer's port; sends nothing. Over a cut link that is silence, whatever is there.
    pub async fn probe(&self, to: NodeId, limit: Duration) -> ProbeOutcome {
        let Some(&address) = self.shared.peers.get(&to) else { return ProbeOutcome::Silent };
        let faults = &self.shared.faults;
        let now = time::now();
        let delay = match faults.verdict(now, to) {
            _ if faults.is_cut(to) => limit,
            Verdict::Drop => limit,
            Verdict::Late { due } => due.since(now).min(limit),
            Verdict::Pass => Duration::ZERO,
        };
        tokio::time::sleep(delay).await;
        match limit - delay {
            Duration::ZERO => ProbeOutcome::Silent,
            left => probe(address, left).await,
        }
    }

    /// The faults of the links.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
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
            if self.shared.gate.is_shut() || self.shared.faults.is_cut(to) {
                // A node that fails, or whose link is cut, must not learn by a quick error what is there. An answer that came
                // over a link that is cut by now is as good as one that came too late.
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
