//! The inbound side of the node protocol: whoever connects proves which node it is, within a deadline, or is closed with one line
//! in the log.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use thiserror::Error;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::core::membership::Roster;
use crate::core::membership::admission::{Here, is_shut_out};
use crate::id::{LogPosition, MemberId, NodeId};
use crate::node::warnings::Warnings;
use crate::protocol::codec::LIMIT_BYTES;
use crate::protocol::election::{ElectionMessage, Heartbeat};
use crate::protocol::frame::{self, HELLO_LIMIT_BYTES, Hello, NodeFrame, Opaque, Purpose, Refusal, Welcome};
use crate::protocol::membership::{Introduction, Place};
use crate::protocol::sync::{StateSync, StateSyncResponse};
use crate::time::{self, Moment};
use crate::transport::Gate;
use crate::transport::faults::{Faults, Outlet};
use crate::transport::tls::{Accepted, NodeTls, PeerStream};
use crate::transport::wire::{FrameReader, WireError, encode_frame, write_within};

/// Requests of one connection that may be worked on at the same time; further ones wait in the socket.
const REQUESTS_LIMIT: usize = 16;

/// How long an answer may take to be written before the connection is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after the system refused a connection, for example because it has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the node does with what arrives. Nothing here may block.
pub trait Inbound: Send + Sync + 'static {
    /// A peer's heartbeat.
    fn heartbeat(&self, heartbeat: Heartbeat);

    /// The heartbeat connection of that peer ended, and it has no newer one.
    fn closed(&self, member: MemberId);

    /// An election message.
    fn election(&self, from: MemberId, message: ElectionMessage);

    /// A recovering node asks.
    fn state_sync(&self, request: StateSync) -> impl Future<Output = StateSyncResponse> + Send;

    /// Where this node's log ends: whoever asks before it takes the node in wants to know that it is empty.
    fn last_log(&self) -> LogPosition;

    /// A request for the Raft adapter, on a connection of that member.
    fn raft(&self, from: MemberId, request: Vec<u8>) -> impl Future<Output = Vec<u8>> + Send;
}

/// Whom to let in.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// This node.
    pub me: MemberId,
    /// Where this node is found.
    pub place: Place,
    /// Every configured node, this one included: they are let in until there is a membership. Empty for a node that is to join, which
    /// knows nobody: any node of the cluster.
    pub nodes: Vec<NodeId>,
    /// The membership.
    pub roster: watch::Receiver<Roster>,
    /// Connections at the same time (256); further ones wait in the system's queue.
    pub connections: usize,
    /// How long a caller may take to say who it is, TLS included (1 s).
    pub greeting_timeout: Duration,
    /// What this node shows to callers, and whom it believes.
    pub tls: NodeTls,
}

type Reader = FrameReader<ReadHalf<PeerStream>>;
type Writer = WriteHalf<PeerStream>;

/// Why a connection was closed.
#[derive(Debug, Error)]
enum Closed {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("it did not say who it is within {} ms", .0.as_millis())]
    Mute(Duration),
    #[error("{0}")]
    Refused(Refusal),
    #[error("it sent a {found} on its {purpose} connection")]
    Misplaced { found: &'static str, purpose: Purpose },
    #[error("the link to node {0} is cut")]
    Cut(NodeId),
    #[error("it is no member any more")]
    ShutOut,
    #[error("its heartbeat is in the name of {claimed}, its connection in the name of {greeted}")]
    Impostor { claimed: MemberId, greeted: MemberId },
}

struct Listener<I> {
    settings: ListenerSettings,
    gate: Gate,
    faults: Faults,
    inbound: Arc<I>,
    /// Each peer has one connection of a purpose. The next one ends it: a peer that lost a connection knows it before this node
    /// does, and one caller must not fill all places.
    seats: Mutex<BTreeMap<(MemberId, Purpose), Seat>>,
    /// Of those who have proven who they are. Others must not crowd them out.
    warnings: Warnings,
    strangers: Warnings,
}

/// Held by the listener for the latest connection of a peer and purpose; that one ends when it is dropped.
struct Seat {
    number: u64,
    _held: oneshot::Sender<()>,
}

/// Accepts connections until it is dropped; runs on the tokio runtime that polls it.
pub async fn serve<I: Inbound>(
    socket: TcpListener,
    settings: ListenerSettings,
    gate: Gate,
    faults: Faults,
    inbound: Arc<I>,
) {
    let permits = Arc::new(Semaphore::new(settings.connections));
    let listener = Arc::new(Listener {
        settings,
        gate,
        faults,
        inbound,
        seats: Mutex::default(),
        warnings: Warnings::default(),
        strangers: Warnings::default(),
    });
    // The tasks end with this set, that is, when the returned future is dropped.
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0.. {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        while tasks.try_join_next().is_some() {}
        match socket.accept().await {
            Ok((stream, from)) => {
                let listener = listener.clone();
                tasks.spawn(async move {
                    listener.connection(stream, from, number).await;
                    drop(permit);
                });
            }
            Err(error) => {
                log::warn!("node {}: cannot accept a node connection: {error}", listener.settings.me.node);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl<I: Inbound> Listener<I> {
    async fn connection(&self, stream: TcpStream, from: SocketAddr, number: u64) {
        let me = self.settings.me.node;
        if stream.set_nodelay(true).is_err() {
            return;
        }
        if self.gate.is_shut() {
            // A failed node takes the connection and never answers, not even later.
            return FrameReader::new(stream).discard().await;
        }
        let began = time::now();
        let Some(Accepted { stream, node }) = self.authenticate(stream, from).await else { return };
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = FrameReader::new(reader);
        let hello = match self.greet(node, began, &mut reader, &mut writer).await {
            Ok(Some(hello)) => hello,
            Ok(None) => return,
            Err(_) if self.gate.is_shut() => return reader.discard().await,
            // Over a cut link nothing is answered, not even a connection.
            Err(Closed::Cut(_)) => return reader.discard().await,
            Err(why) => {
                self.warnings.closed(me, from, why.to_string(), "a connection", &why);
                return;
            }
        };
        let key = (hello.member, hello.purpose);
        let (held, replaced) = oneshot::channel();
        self.seats().insert(key, Seat { number, _held: held });
        let ended = tokio::select! {
            ended = self.frames(&hello, reader, writer) => ended,
            _ = replaced => Ok(()),
            () = self.shut_out(&hello) => Err(Closed::ShutOut),
        };
        match ended {
            Ok(()) | Err(Closed::Wire(WireError::Io(_) | WireError::Truncated)) => {
                log::debug!("node {me}: node {} ended its {} connection", hello.member, hello.purpose);
            }
            Err(why) => {
                let connection = format!("the {} connection of node {}", hello.purpose, hello.member);
                self.warnings.closed(me, from, format!("{connection}: {why}"), &connection, &why);
            }
        }
        let is_latest = self.leave(key, number);
        // Over a cut link the end of a connection would not be seen either.
        let is_deaf = self.gate.is_shut() || self.faults.is_cut(hello.member.node);
        if hello.purpose == Purpose::Heartbeat && is_latest && !is_deaf {
            self.inbound.closed(hello.member);
        }
    }

    /// Gives the place back, unless a later connection has it: then the end of this one says nothing about the peer.
    fn leave(&self, key: (MemberId, Purpose), number: u64) -> bool {
        let mut seats = self.seats();
        let is_latest = seats.get(&key).is_some_and(|seat| seat.number == number);
        if is_latest {
            seats.remove(&key);
        }
        is_latest
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<(MemberId, Purpose), Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// TLS. None if the caller leaves without a word, as a probe does, or is not let in, of which the log speaks.
    async fn authenticate(&self, stream: TcpStream, from: SocketAddr) -> Option<Accepted> {
        let (limit, me) = (self.settings.greeting_timeout, self.settings.me.node);
        match tokio::time::timeout(limit, self.settings.tls.accept(stream)).await {
            Ok(Ok(accepted)) => return accepted,
            Ok(Err(refused)) => {
                self.strangers.closed(me, from, refused.why.kind(), "a connection", &refused.why);
                refused.leave(WRITE_TIMEOUT).await;
            }
            Err(_) => self.strangers.closed(me, from, "mute".to_owned(), "a connection", &Closed::Mute(limit)),
        }
        None
    }

    /// Preamble and hello in, preamble and welcome out; none if the caller leaves without a word.
    async fn greet(
        &self,
        certified: NodeId,
        began: Moment,
        reader: &mut Reader,
        writer: &mut Writer,
    ) -> Result<Option<Hello>, Closed> {
        let limit = self.settings.greeting_timeout;
        let hello = async {
            match reader.preamble().await {
                Ok(true) => Ok(reader.message::<Hello>(HELLO_LIMIT_BYTES).await?),
                Ok(false) => Ok(None),
                Err(error) => {
                    if let WireError::Preamble(frame::PreambleError::Version { .. }) = &error {
                        // So that the other side can name both versions, too.
                        let _ = write_within(writer, &frame::preamble(), WRITE_TIMEOUT).await;
                    }
                    Err(error)
                }
            }
        };
        let left = limit.saturating_sub(time::now().since(began));
        let hello = tokio::time::timeout(left, hello).await.map_err(|_| Closed::Mute(limit))??;
        let Some(hello) = hello else { return Ok(None) };

        if self.faults.is_cut(hello.member.node) {
            return Err(Closed::Cut(hello.member.node));
        }
        let refusal = self.refusal(&hello, certified);
        let welcome = match &refusal {
            None => Welcome::Accepted(Introduction {
                member: self.settings.me,
                place: self.settings.place,
                last_log: self.inbound.last_log(),
            }),
            Some(refusal) => Welcome::Refused(refusal.clone()),
        };
        let mut answer = frame::preamble().to_vec();
        answer.extend(encode_frame(&welcome).map_err(WireError::from)?);
        write_within(writer, &answer, WRITE_TIMEOUT).await.map_err(WireError::from)?;
        match refusal {
            None => Ok(Some(hello)),
            Some(refusal) => Err(Closed::Refused(refusal)),
        }
    }

    fn refusal(&self, hello: &Hello, certified: NodeId) -> Option<Refusal> {
        let ListenerSettings { me, nodes, roster, .. } = &self.settings;
        Here { me: *me, nodes, roster: &roster.borrow() }.refusal(hello, certified)
    }

    /// Resolves when the caller is not let in any more: whoever was removed must learn that, by its next attempt.
    async fn shut_out(&self, hello: &Hello) {
        let is_out = |roster: &Roster| is_shut_out(roster, hello);
        if self.settings.roster.clone().wait_for(is_out).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Works on frames until the peer ends the connection.
    async fn frames(&self, hello: &Hello, mut reader: Reader, mut writer: Writer) -> Result<(), Closed> {
        let peer = hello.member.node;
        let mut outlet = Outlet::new(self.faults.clone(), peer);
        let mut answers = FuturesUnordered::new();
        loop {
            let frame = tokio::select! {
                frame = reader.message::<NodeFrame>(LIMIT_BYTES), if answers.len() < REQUESTS_LIMIT => {
                    let Some(frame) = frame? else { return Ok(()) };
                    if self.gate.is_shut() || self.faults.cut_in(peer) {
                        continue;
                    }
                    if let Some(request) = self.take(hello, frame)? {
                        answers.push(self.answer(hello.member, request));
                    }
                    continue;
                }
                Some(answer) = answers.next() => outlet.take(encode_frame(&answer).map_err(WireError::from)?),
                delayed = outlet.due() => Some(delayed),
            };
            if let Some(frame) = frame.filter(|_| !self.gate.is_shut()) {
                write_within(&mut writer, &frame, WRITE_TIMEOUT).await.map_err(WireError::from)?;
            }
        }
    }

    /// Handles a one-way message; gives a request back.
    fn take(&self, hello: &Hello, frame: NodeFrame) -> Result<Option<Request>, Closed> {
        let purpose = hello.purpose;
        match (purpose, frame) {
            (Purpose::Heartbeat, NodeFrame::Heartbeat(heartbeat)) if heartbeat.member == hello.member => {
                self.inbound.heartbeat(heartbeat);
                Ok(None)
            }
            (Purpose::Heartbeat, NodeFrame::Heartbeat(heartbeat)) => {
                Err(Closed::Impostor { claimed: heartbeat.member, greeted: hello.member })
            }
            (Purpose::Control, NodeFrame::Election(message)) => {
                self.inbound.election(hello.member, message);
                Ok(None)
            }
            (Purpose::Control, NodeFrame::StateSync { id, request }) => Ok(Some(Request::StateSync { id, request })),
            (Purpose::Raft(_), NodeFrame::Raft { id, request }) => Ok(Some(Request::Raft { id, request: request.0 })),
            (_, frame) => Err(Closed::Misplaced { found: name(&frame), purpose }),
        }
    }

    async fn answer(&self, from: MemberId, request: Request) -> NodeFrame {
        match request {
            Request::StateSync { id, request } => {
                NodeFrame::StateSyncResponse { id, response: self.inbound.state_sync(request).await }
            }
            Request::Raft { id, request } => {
                NodeFrame::RaftResponse { id, response: Opaque(self.inbound.raft(from, request).await) }
            }
        }
    }
}

enum Request {
    StateSync { id: u64, request: StateSync },
    Raft { id: u64, request: Vec<u8> },
}

fn name(frame: &NodeFrame) -> &'static str {
    match frame {
        NodeFrame::Heartbeat(_) => "heartbeat",
        NodeFrame::Election(_) => "election message",
        NodeFrame::StateSync { .. } => "state sync",
        NodeFrame::StateSyncResponse { .. } => "state sync response",
        NodeFrame::Raft { .. } => "raft request",
        NodeFrame::RaftResponse { .. } => "raft response",
    }
}
