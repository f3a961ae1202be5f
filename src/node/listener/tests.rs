//! What a stranger, a neighbour's mistake and a slow line cost: one connection, one line in the log, bounded memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::id::{Incarnation, Load, LogPosition};
use crate::protocol::fault::LinkFault;
use crate::protocol::frame::Lane;
use crate::protocol::status::NodeState;
use crate::transport::dial::{DialError, dial};

const DEADLINE: Duration = Duration::from_secs(10);

/// Tells the test what arrived.
struct Ear(mpsc::UnboundedSender<String>);

impl Ear {
    fn say(&self, what: String) {
        // The test may have ended.
        let _ = self.0.send(what);
    }
}

impl Inbound for Ear {
    fn heartbeat(&self, heartbeat: Heartbeat) {
        self.say(format!("heartbeat {}", heartbeat.sequence));
    }

    fn closed(&self, member: MemberId) {
        self.say(format!("closed {}", member.node));
    }

    fn election(&self, from: MemberId, _: ElectionMessage) {
        self.say(format!("election from {}", from.node));
    }

    async fn state_sync(&self, request: StateSync) -> StateSyncResponse {
        StateSyncResponse { node: request.node, active: false, coordinator: None, placements: Vec::new(), commit: 0 }
    }

    async fn raft(&self, request: Vec<u8>) -> Vec<u8> {
        request
    }
}

struct Served {
    address: SocketAddr,
    faults: Faults,
    ear: mpsc::UnboundedReceiver<String>,
    _task: tokio::task::JoinSet<()>,
}

fn member(node: u16) -> MemberId {
    MemberId { node: NodeId(node), incarnation: Incarnation(7) }
}

async fn serve_node_1(connections: usize) -> Served {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let settings = ListenerSettings {
        me: member(1),
        nodes: vec![NodeId(1), NodeId(2), NodeId(3)],
        connections,
        greeting_timeout: Duration::from_millis(300),
    };
    let (sender, ear) = mpsc::unbounded_channel();
    let mut task = tokio::task::JoinSet::new();
    let faults = Faults::new([NodeId(2), NodeId(3)], 1);
    task.spawn(serve(socket, settings, Gate::default(), faults.clone(), Arc::new(Ear(sender))));
    Served { address, faults, ear, _task: task }
}

impl Served {
    async fn hears(&mut self) -> String {
        tokio::time::timeout(DEADLINE, self.ear.recv()).await.expect("something arrives").unwrap()
    }
}

/// Everything that the node answers until it closes the connection.
async fn until_closed(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the node closes it");
    // A reset is a close, too.
    let _ = read;
    answer
}

async fn raw(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

fn hello(to: u16, purpose: Purpose) -> Vec<u8> {
    let mut bytes = frame::preamble().to_vec();
    bytes.extend(encode_frame(&Hello { member: member(2), to: NodeId(to), purpose }).unwrap());
    bytes
}

async fn greeted(address: SocketAddr, purpose: Purpose) -> TcpStream {
    let mut stream = raw(address, &hello(1, purpose)).await;
    let mut answer = frame::preamble().to_vec();
    answer.extend(encode_frame(&Welcome::Accepted { member: member(1) }).unwrap());
    let mut read = vec![0; answer.len()];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(read, answer);
    stream
}

fn heartbeat(node: u16, sequence: u64) -> NodeFrame {
    NodeFrame::Heartbeat(Heartbeat {
        member: member(node),
        sequence,
        state: NodeState::Active,
        load: Load::default(),
        pressure: Load::default(),
        workers: 1,
        jobs_accepted: 0,
        disk_waits_ms: 0,
        last_log: LogPosition::default(),
        coordinator: None,
    })
}

#[tokio::test]
async fn a_foreign_protocol_is_closed_without_an_answer() {
    let served = serve_node_1(8).await;
    let request = raw(served.address, b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(until_closed(request).await, b"");
}

#[tokio::test]
async fn another_version_is_told_ours() {
    let served = serve_node_1(8).await;
    let other = raw(served.address, b"ICNP\x00\x63").await;
    assert_eq!(until_closed(other).await, frame::preamble());
}

#[tokio::test]
async fn who_says_nothing_or_drips_is_closed_at_the_deadline() {
    let served = serve_node_1(8).await;
    assert_eq!(until_closed(TcpStream::connect(served.address).await.unwrap()).await, b"");

    let mut dripping = TcpStream::connect(served.address).await.unwrap();
    let (mut reader, mut writer) = dripping.split();
    let drip = async {
        for byte in hello(1, Purpose::Control) {
            if writer.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        panic!("it listened to the very end");
    };
    let closed = async { while matches!(reader.read(&mut [0; 8]).await, Ok(read) if read > 0) {} };
    tokio::select! {
        () = drip => {}
        () = closed => {}
        () = tokio::time::sleep(DEADLINE) => panic!("it is still open"),
    }
}

#[tokio::test]
async fn an_oversize_frame_is_closed_by_its_length_alone() {
    let served = serve_node_1(8).await;
    // In the greeting the limit is small ...
    let mut greeting = frame::preamble().to_vec();
    greeting.extend(1000u32.to_be_bytes());
    assert_eq!(until_closed(raw(served.address, &greeting).await).await, b"");
    // ... and afterwards it is 1 MiB; none of the announced bytes is ever sent.
    let mut stream = greeted(served.address, Purpose::Control).await;
    stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    assert_eq!(until_closed(stream).await, b"");
}

#[tokio::test]
async fn nonsense_and_misplaced_messages_are_closed() {
    let served = serve_node_1(8).await;
    let mut nonsense = greeted(served.address, Purpose::Control).await;
    nonsense.write_all(&[0, 0, 0, 2, 250, 250]).await.unwrap();
    assert_eq!(until_closed(nonsense).await, b"");

    for (purpose, message) in [
        (Purpose::Control, heartbeat(2, 1)),
        (Purpose::Raft(Lane::Vote), heartbeat(2, 1)),
        (Purpose::Heartbeat, NodeFrame::Raft { id: 1, request: Opaque(vec![1]) }),
        // In the name of somebody else.
        (Purpose::Heartbeat, heartbeat(3, 1)),
    ] {
        let mut stream = greeted(served.address, purpose).await;
        stream.write_all(&encode_frame(&message).unwrap()).await.unwrap();
        assert_eq!(until_closed(stream).await, b"", "{message:?} on {purpose}");
    }
}

#[tokio::test]
async fn who_does_not_belong_here_is_told_why() {
    let served = serve_node_1(8).await;
    let call = |from: u16, to: u16| async move {
        match dial(member(from), NodeId(to), served.address, Purpose::Control, DEADLINE).await {
            Err(DialError::Unwelcome { refusal, .. }) => refusal,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(call(9, 1).await, Refusal::UnknownNode { here: NodeId(1), caller: NodeId(9) });
    assert_eq!(call(1, 1).await, Refusal::SameNode { node: NodeId(1) });
    assert_eq!(call(2, 3).await, Refusal::WrongNode { asked: NodeId(3), here: NodeId(1) });
}

#[tokio::test]
async fn the_end_of_an_older_heartbeat_connection_says_nothing() {
    let mut served = serve_node_1(8).await;
    let mut older = greeted(served.address, Purpose::Heartbeat).await;
    older.write_all(&encode_frame(&heartbeat(2, 1)).unwrap()).await.unwrap();
    assert_eq!(served.hears().await, "heartbeat 1");
    let mut newer = greeted(served.address, Purpose::Heartbeat).await;
    newer.write_all(&encode_frame(&heartbeat(2, 2)).unwrap()).await.unwrap();
    assert_eq!(served.hears().await, "heartbeat 2");

    drop(older);
    newer.write_all(&encode_frame(&heartbeat(2, 3)).unwrap()).await.unwrap();
    assert_eq!(served.hears().await, "heartbeat 3");
    drop(newer);
    assert_eq!(served.hears().await, "closed 2");
}

#[tokio::test]
async fn connections_are_bounded_and_a_free_place_is_used() {
    let served = serve_node_1(2).await;
    let first = greeted(served.address, Purpose::Control).await;
    let _second = greeted(served.address, Purpose::Heartbeat).await;
    let mut third = raw(served.address, &hello(1, Purpose::Raft(Lane::Vote))).await;
    let early = tokio::time::timeout(Duration::from_millis(100), third.read_u8()).await;
    assert!(early.is_err(), "the third waits");
    drop(first);
    let byte = tokio::time::timeout(DEADLINE, third.read_u8()).await.expect("its turn comes").unwrap();
    assert_eq!(byte, frame::MAGIC[0]);
}

/// A peer that opens connections and says nothing on them must not fill all places.
#[tokio::test]
async fn a_peer_has_one_connection_of_a_purpose_and_the_newer_one_counts() {
    let served = serve_node_1(3).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(greeted(served.address, Purpose::Control).await);
    }
    let latest = silent.pop().unwrap();
    for older in silent {
        assert_eq!(until_closed(older).await, b"");
    }
    let mut other = greeted(served.address, Purpose::Raft(Lane::Append)).await;
    other.write_all(&encode_frame(&NodeFrame::Raft { id: 1, request: Opaque(vec![1]) }).unwrap()).await.unwrap();
    let mut byte = [0];
    tokio::time::timeout(DEADLINE, other.read_exact(&mut byte)).await.expect("it is served").unwrap();
    drop(latest);
}

#[tokio::test]
async fn requests_are_answered_out_of_one_another_s_way() {
    let served = serve_node_1(8).await;
    let mut stream = greeted(served.address, Purpose::Raft(Lane::Append)).await;
    let (reader, mut writer) = stream.split();
    for id in 0..100 {
        let request = NodeFrame::Raft { id, request: Opaque(vec![id as u8; 1000]) };
        writer.write_all(&encode_frame(&request).unwrap()).await.unwrap();
    }
    let mut reader = FrameReader::new(reader);
    let mut seen = Vec::new();
    while seen.len() < 100 {
        match reader.message(LIMIT_BYTES).await.unwrap() {
            Some(NodeFrame::RaftResponse { id, response }) => {
                assert_eq!(response.0, vec![id as u8; 1000]);
                seen.push(id);
            }
            other => panic!("{other:?}"),
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<u64>>());
}

fn cut(cut_in: bool, cut_out: bool) -> [LinkFault; 1] {
    [LinkFault { cut_in, cut_out, ..LinkFault::none(NodeId(2)) }]
}

/// A frame from a peer whose inbound link is cut is read and dropped; the connection stays open and serves again when healed.
#[tokio::test]
async fn over_a_cut_link_frames_are_dropped_and_the_connection_stays() {
    let mut served = serve_node_1(8).await;
    let mut beats = greeted(served.address, Purpose::Heartbeat).await;
    beats.write_all(&encode_frame(&heartbeat(2, 1)).unwrap()).await.unwrap();
    assert_eq!(served.hears().await, "heartbeat 1");

    served.faults.replace(&cut(true, false)).unwrap();
    beats.write_all(&encode_frame(&heartbeat(2, 2)).unwrap()).await.unwrap();
    // Long enough to be read.
    assert!(tokio::time::timeout(Duration::from_millis(100), served.ear.recv()).await.is_err());
    served.faults.replace(&[]).unwrap();
    beats.write_all(&encode_frame(&heartbeat(2, 3)).unwrap()).await.unwrap();
    assert_eq!(served.hears().await, "heartbeat 3");
}

/// Nothing leaves over a link whose outbound way is cut, not even the answer to a question that arrived.
#[tokio::test]
async fn over_a_cut_link_no_question_is_answered() {
    let served = serve_node_1(8).await;
    let stream = greeted(served.address, Purpose::Raft(Lane::Vote)).await;
    let (reader, mut writer) = stream.into_split();
    let mut reader = FrameReader::new(reader);
    let ask = |id| encode_frame(&NodeFrame::Raft { id, request: Opaque(vec![1]) }).unwrap();
    for cut in [cut(false, true), cut(true, false)] {
        served.faults.replace(&cut).unwrap();
        writer.write_all(&ask(1)).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), reader.message::<NodeFrame>(LIMIT_BYTES)).await;
        assert!(early.is_err(), "{early:?}");
        served.faults.replace(&[]).unwrap();
        writer.write_all(&ask(2)).await.unwrap();
        let answer = tokio::time::timeout(DEADLINE, reader.message::<NodeFrame>(LIMIT_BYTES)).await.unwrap();
        assert!(matches!(answer, Ok(Some(NodeFrame::RaftResponse { id: 2, .. }))), "{answer:?}");
    }
}

/// A new connection of a cut peer is left silent, the end of an old one is not seen, and other peers notice nothing.
#[tokio::test]
async fn over_a_cut_link_connections_neither_begin_nor_end() {
    let mut served = serve_node_1(8).await;
    let beats = greeted(served.address, Purpose::Heartbeat).await;
    for cut in [cut(true, false), cut(false, true)] {
        served.faults.replace(&cut).unwrap();
        let silent = dial(member(2), NodeId(1), served.address, Purpose::Control, Duration::from_millis(100)).await;
        assert!(matches!(silent, Err(DialError::Silent { .. })), "{silent:?}");
        let other = dial(member(3), NodeId(1), served.address, Purpose::Control, DEADLINE).await;
        assert!(other.is_ok(), "{other:?}");
    }
    drop(beats);
    assert!(tokio::time::timeout(Duration::from_millis(100), served.ear.recv()).await.is_err());
    served.faults.replace(&[]).unwrap();
    drop(greeted(served.address, Purpose::Heartbeat).await);
    assert_eq!(served.hears().await, "closed 2");
}
