//! Outbound node connections: to each peer one TLS connection per purpose, opened before it is needed if that cannot wait, and kept.

pub mod dial;
pub mod faults;
pub mod gate;
pub mod tls;
pub mod wire;

mod acquaintances;
mod beat;
mod calls;
mod link;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

pub use self::acquaintances::Standing;
pub use self::calls::CallError;
pub use self::dial::{DialError, probe};
pub use self::faults::Faults;
pub use self::gate::Gate;
pub use self::tls::NodeTls;

use self::acquaintances::Acquaintances;
use self::calls::{Outgoing, QUEUE_LIMIT};
use self::dial::{Target, dial};
use self::link::{Caller, Link, Peer};
use crate::core::faults::Verdict;
use crate::core::liveness::ProbeOutcome;
use crate::core::membership::Roster;
use crate::id::{Incarnation, MemberId, NodeId};
use crate::protocol::election::{ElectionMessage, Heartbeat};
use crate::protocol::frame::{Lane, NodeFrame, Opaque, Purpose};
use crate::protocol::membership::{Introduction, Place};
use crate::protocol::sync::{StateSync, StateSyncResponse};
use crate::time;

/// How long a one-way message may take to be written.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);

/// Whom to reach, and how patiently.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// This node.
    pub me: MemberId,
    /// The node-protocol address of every other node, as configured: where to look until there is a membership.
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
    faults: Faults,
    caller: Caller,
    heartbeat: watch::Sender<Option<Heartbeat>>,
    peers: RwLock<Peers>,
    next_id: AtomicU64,
}

/// Each member has connections of its own: while a node is replaced, both of its lives have.
#[derive(Debug, Default)]
struct Peers {
    /// By node and life; without a life while there is no membership.
    connected: BTreeMap<Key, Connected>,
    /// Who is meant when only the node is named.
    named: BTreeMap<NodeId, Key>,
}

type Key = (NodeId, Option<Incarnation>);

/// The connections to one peer; they end when this is dropped.
#[derive(Debug)]
struct Connected {
    peer: Peer,
    queues: BTreeMap<Purpose, mpsc::Sender<Outgoing>>,
    /// The task of the heartbeats waits for the next heartbeat only; the others end with their queue.
    beat: tokio::task::AbortHandle,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.beat.abort();
    }
}

impl Shared {
    fn connect(&self, node: NodeId, life: Option<Incarnation>, address: SocketAddr) -> Connected {
        let peer = Peer { node, address, life: Arc::new(life.map_or_else(OnceLock::new, OnceLock::from)) };
        let link = |purpose| Link::new(&self.caller, &peer, purpose, self.faults.clone());
        let beat = beat::run(link(Purpose::Heartbeat), self.gate.clone(), self.heartbeat.subscribe());
        let beat = tokio::spawn(beat).abort_handle();
        let mut queues = BTreeMap::new();
        for purpose in Lane::ALL.map(Purpose::Raft).into_iter().chain([Purpose::Control]) {
            let (sender, receiver) = mpsc::channel(QUEUE_LIMIT);
            tokio::spawn(calls::run(link(purpose), self.gate.clone(), receiver));
            queues.insert(purpose, sender);
        }
        Connected { peer, queues, beat }
    }

    fn peers(&self) -> RwLockReadGuard<'_, Peers> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links {
    /// Starts the connections to the configured nodes, on the tokio runtime that this is called in.
    pub fn open(settings: &LinkSettings, gate: Gate, faults: Faults) -> Links {
        let LinkSettings { me, connect_timeout, .. } = *settings;
        let caller = Caller { me, connect_timeout, tls: settings.tls.clone(), acquaintances: Acquaintances::default() };
        let (heartbeat, next_id) = (watch::Sender::new(None), AtomicU64::new(1));
        let shared = Shared { gate, faults, caller, heartbeat, peers: RwLock::default(), next_id };
        let keys = settings.peers.keys().map(|node| (*node, (*node, None)));
        let connected =
            settings.peers.iter().map(|(node, address)| ((*node, None), shared.connect(*node, None, *address)));
        let peers = Peers { named: keys.collect(), connected: connected.collect() };
        *shared.peers.write().unwrap_or_else(PoisonError::into_inner) = peers;
        Links { shared: Arc::new(shared) }
    }

    /// Follows the membership: its members and their addresses take the place of the configured ones. What stays as it is keeps its
    /// connections. On the tokio runtime that this is called in.
    pub fn follow(&self, roster: &Roster) {
        if roster.is_empty() {
            return;
        }
        let shared = &self.shared;
        let me = shared.caller.me;
        let mut peers = shared.peers.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut peers.connected);
        for (member, place) in roster.places.iter().filter(|(member, _)| **member != me) {
            let key = (member.node, Some(member.incarnation));
            let is_there = |connected: &Connected| connected.peer.address == place.peer;
            let connected = match before.remove(&key).filter(is_there) {
                Some(connected) => connected,
                None => {
                    // The connections from before the first start, if they are to this very member.
                    let is_it = shared.caller.acquaintances.met(member.node).is_none_or(|(met, _)| met == *member);
                    let unnamed = before.remove(&(member.node, None)).filter(|known| is_it && is_there(known));
                    let adopted = unnamed.filter(|known| known.peer.life.set(member.incarnation).is_ok());
                    adopted.unwrap_or_else(|| shared.connect(member.node, key.1, place.peer))
                }
            };
            peers.connected.insert(key, connected);
        }
        let name = |node: NodeId| roster.stands_for(node).map(|member| (node, (node, Some(member.incarnation))));
        peers.named = roster.nodes().into_iter().filter_map(name).collect();
        shared.faults.know(roster.nodes().into_iter().filter(|node| *node != me.node));
    }

    /// Asks who answers at an address as node `to`; tells that node nothing but who asks.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn introduce(&self, to: NodeId, address: SocketAddr, limit: Duration) -> Result<Introduction, DialError> {
        let Caller { me, tls, .. } = &self.shared.caller;
        let target = Target { node: to, life: None, address };
        dial(tls, *me, target, Purpose::Admission, limit).await.map(|connection| connection.introduction)
    }

    /// Who answered last for that node, and where it says that it is found.
    pub fn met(&self, node: NodeId) -> Option<(MemberId, Place)> {
        self.shared.caller.acquaintances.met(node)
    }

    /// Changes when this node is told that it is no member.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.caller.acquaintances.standing()
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
        self.queue(To::Node(to), Purpose::Control, Outgoing { frame, waiter: None, limit: SEND_TIMEOUT })
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
        match self.call(To::Node(to), Purpose::Control, |id| NodeFrame::StateSync { id, request }, limit).await? {
            NodeFrame::StateSyncResponse { response, .. } => Ok(response),
            _ => Err(CallError::WrongAnswer),
        }
    }

    /// Carries a request of the Raft adapter.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn raft(
        &self,
        to: MemberId,
        lane: Lane,
        request: Vec<u8>,
        limit: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let frame = |id| NodeFrame::Raft { id, request: Opaque(request) };
        match self.call(To::Member(to), Purpose::Raft(lane), frame, limit).await? {
            NodeFrame::RaftResponse { response, .. } => Ok(response.0),
            _ => Err(CallError::WrongAnswer),
        }
    }

    /// Looks whether anything listens at a peer's port; sends nothing. Over a cut link that is silence, whatever is there.
    pub async fn probe(&self, to: NodeId, limit: Duration) -> ProbeOutcome {
        let address = {
            let peers = self.shared.peers();
            let key = peers.key(To::Node(to));
            peers.connected.get(&key).map(|connected| connected.peer.address)
        };
        let Some(address) = address else { return ProbeOutcome::NoAnswer };
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
            Duration::ZERO => ProbeOutcome::NoAnswer,
            left => probe(address, left).await,
        }
    }

    /// The faults of the links.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    async fn call(
        &self,
        to: To,
        purpose: Purpose,
        frame: impl FnOnce(u64) -> NodeFrame,
        limit: Duration,
    ) -> Result<NodeFrame, CallError> {
        let attempt = async {
            let result = self.attempt(to, purpose, frame, limit).await;
            if self.shared.gate.is_shut() || self.shared.faults.is_cut(to.node()) {
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
        to: To,
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

    fn queue(&self, to: To, purpose: Purpose, outgoing: Outgoing) -> Result<(), CallError> {
        let peers = self.shared.peers();
        let connected = peers.connected.get(&peers.key(to)).ok_or(CallError::UnknownNode)?;
        let queue = connected.queues.get(&purpose).ok_or(CallError::UnknownNode)?;
        queue.try_send(outgoing).map_err(|_| CallError::Busy)
    }
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug)]
enum To {
    /// Whoever stands for that node now.
    Node(NodeId),
    /// This life of a node and no other.
    Member(MemberId),
}

impl To {
    fn node(self) -> NodeId {
        match self {
            To::Node(node) => node,
            To::Member(member) => member.node,
        }
    }
}

impl Peers {
    /// The connections for a message. Before there is a membership a node has one life that anybody knows of.
    fn key(&self, to: To) -> Key {
        match to {
            To::Node(node) => self.named.get(&node).copied().unwrap_or((node, None)),
            To::Member(member) => {
                let key = (member.node, Some(member.incarnation));
                if self.connected.contains_key(&key) { key } else { (member.node, None) }
            }
        }
    }
}
