//! Frames byte by byte, and callers whose peer is absent, silent, foreign or slow.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::dial::{DialError, Target, dial, probe};
use super::tls::for_tests::{authority, tls_of};
use super::tls::{Accepted, TlsFault};
use super::wire::{FrameReader, WireError, encode_frame};
use super::{CallError, Faults, Gate, LinkSettings, Links};
use crate::core::liveness::ProbeOutcome;
use crate::id::{Incarnation, MemberId, NodeId};
use crate::protocol::codec::LIMIT_BYTES;
use crate::protocol::election::{ElectionMessage, RoundId};
use crate::protocol::frame::{self, Lane, PreambleError, Purpose};

const DEADLINE: Duration = Duration::from_secs(10);

fn member(node: u16) -> MemberId {
    MemberId { node: NodeId(node), incarnation: Incarnation(1) }
}

fn target(address: std::net::SocketAddr) -> Target {
    Target { node: NodeId(2), life: None, address }
}

fn links_to(address: std::net::SocketAddr) -> Links {
    let peers = BTreeMap::from([(NodeId(2), address)]);
    let connect_timeout = Duration::from_millis(200);
    let tls = tls_of(&authority(), 1);
    let settings = LinkSettings { me: member(1), peers, connect_timeout, tls };
    Links::open(&settings, Gate::default(), Faults::new([NodeId(2)], 1))
}

#[tokio::test]
async fn messages_survive_any_cut_and_a_dropped_wait() {
    let (mut writer, reader) = tokio::io::duplex(64);
    let messages: Vec<String> = (0..50).map(|number| "x".repeat(number * 7)).collect();
    let bytes: Vec<u8> = messages.iter().flat_map(|message| encode_frame(message).unwrap()).collect();
    tokio::spawn(async move {
        for piece in bytes.chunks(3) {
            writer.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let mut reader = FrameReader::new(reader);
    for expected in &messages {
        let message = loop {
            // Half of the waits are given up; nothing may get lost by that.
            tokio::select! {
                biased;
                message = reader.message::<String>(LIMIT_BYTES) => break message.unwrap().unwrap(),
                () = tokio::task::yield_now() => {}
            }
        };
        assert_eq!(&message, expected);
    }
    assert!(reader.message::<String>(LIMIT_BYTES).await.unwrap().is_none());
}

#[tokio::test]
async fn an_announced_length_allocates_nothing() {
    let (mut writer, reader) = tokio::io::duplex(64);
    let mut reader = FrameReader::new(reader);
    writer.write_all(&(LIMIT_BYTES as u32).to_be_bytes()).await.unwrap();
    writer.write_all(b"little").await.unwrap();
    drop(writer);
    assert!(matches!(reader.message::<String>(LIMIT_BYTES).await, Err(WireError::Truncated)));
    assert!(reader.capacity() <= 128 << 10, "{}", reader.capacity());
}

#[tokio::test]
async fn a_frame_that_is_never_finished_is_given_up() {
    let (mut writer, reader) = tokio::io::duplex(64);
    writer.write_all(&[0, 0]).await.unwrap();
    let mut reader = FrameReader::new(reader).with_frame_timeout(Duration::from_millis(30));
    assert!(matches!(reader.message::<String>(LIMIT_BYTES).await, Err(WireError::Slow { .. })));
}

#[tokio::test]
async fn an_absent_peer_is_known_at_once_and_is_not_hammered() {
    let vacant = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(probe(vacant, DEADLINE).await, ProbeOutcome::Refused);
    let links = links_to(vacant);
    let started = crate::time::now();
    for _ in 0..1_000 {
        let answer = links.raft(member(2), Lane::Vote, vec![1], DEADLINE).await;
        assert!(matches!(answer, Err(CallError::Unreachable(_))), "{answer:?}");
    }
    assert!(crate::time::now().since(started) < DEADLINE);
    let unknown = links.raft(member(9), Lane::Vote, vec![1], DEADLINE).await;
    assert!(matches!(unknown, Err(CallError::UnknownNode)), "{unknown:?}");
}

#[tokio::test]
async fn a_peer_that_never_answers_costs_the_time_limit_and_a_bounded_queue() {
    // It listens and accepts nothing: connections stand, bytes go nowhere.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap();
    assert_eq!(probe(address, DEADLINE).await, ProbeOutcome::Connected);
    let links = links_to(address);
    let answer = links.raft(member(2), Lane::Append, vec![1], Duration::from_millis(50)).await;
    assert!(matches!(answer, Err(CallError::Timeout(_))), "{answer:?}");

    let message = ElectionMessage::Ok { round: RoundId { caller: NodeId(1), number: 1 } };
    let refused = (0..1_000).filter(|_| links.election(NodeId(2), message.clone()).is_err()).count();
    assert!(refused > 900, "only {refused} of 1000 were refused");
}

#[tokio::test]
async fn an_answer_in_clear_is_named() {
    let foreign = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = foreign.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = foreign.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        FrameReader::new(stream).discard().await;
    });
    let tls = tls_of(&authority(), 1);
    match dial(&tls, member(1), target(address), Purpose::Control, DEADLINE).await {
        Err(error @ DialError::Wire { error: WireError::Tls(TlsFault::Altered(_)), .. }) => {
            assert!(error.is_misconfiguration() && error.to_string().contains("no TLS"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_foreign_answer_is_named() {
    let foreign = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = foreign.local_addr().unwrap();
    let authority = authority();
    let (tls, other) = (tls_of(&authority, 1), tls_of(&authority, 2));
    tokio::spawn(async move {
        for opening in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"ICNP\x00\x07"] {
            let (stream, _) = foreign.accept().await.unwrap();
            let Ok(Some(Accepted { mut stream, .. })) = other.accept(stream).await else { panic!("no handshake") };
            stream.write_all(opening).await.unwrap();
            stream.flush().await.unwrap();
            // Closing with unread bytes would reset the connection before the answer is read.
            let mut hello = [0; frame::PREAMBLE_BYTES];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut hello).await.unwrap();
            tokio::spawn(FrameReader::new(stream).discard());
        }
    });
    let call = || dial(&tls, member(1), target(address), Purpose::Control, DEADLINE);
    for expected in [PreambleError::ForeignProtocol { found: *b"HTTP" }, PreambleError::Version { theirs: 7 }] {
        match call().await {
            Err(error @ DialError::Wire { error: WireError::Preamble(_), .. }) => {
                assert!(error.is_misconfiguration());
                assert_eq!(error.to_string(), format!("{address}: {expected}"));
            }
            other => panic!("{other:?}"),
        }
    }
}
