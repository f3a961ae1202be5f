//! Links that are cut, slow or lossy: what a caller notices of them, and what it must not notice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;

use super::*;
use crate::config::secrets::Authority;
use crate::core::liveness::ProbeOutcome;
use crate::id::{Incarnation, LogPosition, MemberId};
use crate::protocol::codec::LIMIT_BYTES;
use crate::protocol::frame::{self, HELLO_LIMIT_BYTES, Hello, Lane, NodeFrame, Welcome};
use crate::protocol::membership::{Introduction, Place};
use crate::transport::tls::for_tests::{authority, tls_of};
use crate::transport::tls::{Accepted, NodeTls};
use crate::transport::wire::{FrameReader, encode_frame, write_within};
use crate::transport::{CallError, Gate, LinkSettings, Links};

const DEADLINE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(100);
const TWO: NodeId = NodeId(2);

/// The credentials of a node; all nodes of this file have one authority.
fn tls(node: u16) -> NodeTls {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    tls_of(AUTHORITY.get_or_init(authority), node)
}

fn member(node: u16) -> MemberId {
    MemberId { node: NodeId(node), incarnation: Incarnation(1) }
}

/// Node 2, which gives Raft's requests back as they are, and counts its connections.
struct Echo {
    address: SocketAddr,
    greeted: Arc<AtomicUsize>,
    _tasks: tokio::task::JoinSet<()>,
}

fn introduction() -> Introduction {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    Introduction { member: member(2), place: Place::new(address, address), last_log: LogPosition::default() }
}

async fn echo() -> Echo {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, greeted) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let (counter, mut tasks) = (greeted.clone(), tokio::task::JoinSet::new());
    tasks.spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let counter = counter.clone();
            connections.spawn(async move {
                // A probe says nothing.
                let Ok(Some(Accepted { stream, .. })) = tls(2).accept(stream).await else { return };
                let (reader, mut writer) = tokio::io::split(stream);
                let mut reader = FrameReader::new(reader);
                assert!(reader.preamble().await.unwrap());
                let _: Option<Hello> = reader.message(HELLO_LIMIT_BYTES).await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                let mut answer = frame::preamble().to_vec();
                answer.extend(encode_frame(&Welcome::Accepted(introduction())).unwrap());
                write_within(&mut writer, &answer, DEADLINE).await.unwrap();
                while let Ok(Some(frame)) = reader.message::<NodeFrame>(LIMIT_BYTES).await {
                    let NodeFrame::Raft { id, request: response } = frame else { continue };
                    let answer = encode_frame(&NodeFrame::RaftResponse { id, response }).unwrap();
                    if write_within(&mut writer, &answer, DEADLINE).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Echo { address, greeted, _tasks: tasks }
}

/// Node 1's links to node 2 at that address, with these faults from the beginning.
fn links(address: SocketAddr, faults: &[LinkFault]) -> (Links, Faults) {
    let handle = Faults::new([TWO], 7);
    handle.replace(faults).unwrap();
    let peers = BTreeMap::from([(TWO, address)]);
    let settings = LinkSettings { me: member(1), peers, connect_timeout: SHORT, tls: tls(1) };
    (Links::open(&settings, Gate::default(), handle.clone()), handle)
}

fn cuts() -> [LinkFault; 3] {
    let none = LinkFault::none(TWO);
    [
        LinkFault { cut_out: true, ..none },
        LinkFault { cut_in: true, ..none },
        LinkFault { cut_in: true, cut_out: true, ..none },
    ]
}

/// A request over a cut link, whichever way, is neither answered nor refused: it times out. Healed, the same connection serves.
#[tokio::test]
async fn a_request_over_a_cut_link_times_out_and_its_connection_stays() {
    let echo = echo().await;
    let (links, faults) = links(echo.address, &[]);
    let ask = async |limit| links.raft(member(2), Lane::Append, vec![1], limit).await;
    assert_eq!(ask(DEADLINE).await.unwrap(), [1]);
    // The connections that are kept open, this one among them.
    let all_greeted = async {
        while echo.greeted.load(Ordering::Relaxed) < 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, all_greeted).await.expect("five connections are greeted");
    for cut in cuts() {
        faults.replace(&[cut]).unwrap();
        let answer = ask(SHORT).await;
        assert!(matches!(answer, Err(CallError::Timeout(_))), "{cut}: {answer:?}");
        faults.replace(&[]).unwrap();
        assert_eq!(ask(DEADLINE).await.unwrap(), [1], "after {cut}");
    }
    assert_eq!(echo.greeted.load(Ordering::Relaxed), 5);
}

/// Over a cut link no connection comes about, and not even an absent peer is found out by a quick refusal.
#[tokio::test]
async fn over_a_cut_link_no_connection_comes_about_and_nothing_is_refused() {
    let vacant = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let echo = echo().await;
    for cut in cuts() {
        for address in [vacant, echo.address] {
            let (links, _) = links(address, &[cut]);
            let answer = links.raft(member(2), Lane::Vote, vec![1], SHORT).await;
            assert!(matches!(answer, Err(CallError::Timeout(_))), "{cut}: {answer:?}");
        }
    }
    assert_eq!(echo.greeted.load(Ordering::Relaxed), 0);
}

/// Over a cut link a probe finds silence: neither life nor refusal.
#[tokio::test]
async fn over_a_cut_link_a_probe_finds_silence() {
    let vacant = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let echo = echo().await;
    for (address, found) in [(vacant, ProbeOutcome::Refused), (echo.address, ProbeOutcome::Connected)] {
        let (links, faults) = links(address, &[]);
        assert_eq!(links.probe(TWO, DEADLINE).await, found);
        for cut in cuts() {
            faults.replace(&[cut]).unwrap();
            assert_eq!(links.probe(TWO, Duration::from_millis(10)).await, ProbeOutcome::NoAnswer, "{cut}");
        }
        faults.replace(&[LinkFault { delay_ms: 50, ..LinkFault::none(TWO) }]).unwrap();
        assert_eq!(links.probe(TWO, Duration::from_millis(10)).await, ProbeOutcome::NoAnswer, "slower than its limit");
        assert_eq!(links.probe(TWO, DEADLINE).await, found);
    }
}

/// A delay is one of time, not of throughput: many requests are under way together.
#[tokio::test]
async fn a_delayed_request_arrives_late_and_holds_up_no_other() {
    let echo = echo().await;
    let (links, faults) = links(echo.address, &[]);
    links.raft(member(2), Lane::Append, vec![0], DEADLINE).await.unwrap();
    faults.replace(&[LinkFault { delay_ms: 200, jitter_ms: 50, ..LinkFault::none(TWO) }]).unwrap();
    let begun = time::now();
    let calls = (0..30).map(|number| links.raft(member(2), Lane::Append, vec![number], DEADLINE));
    let answers = futures::future::join_all(calls).await;
    let took = time::now().since(begun);
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), [number as u8]);
    }
    assert!((Duration::from_millis(150)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

/// A lost request is not answered, and its sender learns it only by the clock.
#[tokio::test]
async fn a_lost_request_times_out() {
    let echo = echo().await;
    let (links, faults) = links(echo.address, &[LinkFault { loss: 1.0, ..LinkFault::none(TWO) }]);
    let answer = links.raft(member(2), Lane::Append, vec![1], SHORT).await;
    assert!(matches!(answer, Err(CallError::Timeout(_))), "{answer:?}");
    faults.replace(&[]).unwrap();
    assert_eq!(links.raft(member(2), Lane::Append, vec![1], DEADLINE).await.unwrap(), [1]);
}

/// Whatever the jitter, a connection keeps its order, also when the delay ends; what is under way when the link is cut is lost.
#[tokio::test]
async fn a_connection_keeps_its_order_and_a_cut_loses_what_is_under_way() {
    let faults = Faults::new([TWO], 7);
    let mut outlet = Outlet::new(faults.clone(), TWO);
    assert_eq!(outlet.take(vec![0]), Some(vec![0]));
    faults.replace(&[LinkFault { delay_ms: 10, jitter_ms: 10, ..LinkFault::none(TWO) }]).unwrap();
    for number in 1..50 {
        assert_eq!(outlet.take(vec![number]), None);
    }
    faults.replace(&[]).unwrap();
    assert_eq!(outlet.take(vec![50]), None, "it must not overtake the others");
    for number in 1..=50 {
        assert_eq!(outlet.due().await, [number]);
    }
    assert_eq!(outlet.take(vec![51]), Some(vec![51]));

    faults.replace(&[LinkFault { delay_ms: 5, ..LinkFault::none(TWO) }]).unwrap();
    assert_eq!(outlet.take(vec![52]), None);
    faults.replace(&[LinkFault { cut_out: true, ..LinkFault::none(TWO) }]).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), outlet.due()).await.is_err());
}

/// What a slow link holds is bounded in frames and in bytes.
#[tokio::test]
async fn delayed_frames_are_bounded() {
    let faults = Faults::new([TWO], 7);
    faults.replace(&[LinkFault { delay_ms: 10_000, ..LinkFault::none(TWO) }]).unwrap();
    let mut outlet = Outlet::new(faults, TWO);
    for _ in 0..2 * DELAYED_FRAMES {
        assert_eq!(outlet.take(vec![1]), None);
    }
    assert_eq!(outlet.delayed.len(), DELAYED_FRAMES);
    outlet.clear();
    for _ in 0..32 {
        outlet.take(vec![0; 1 << 20]);
    }
    assert_eq!(outlet.bytes, DELAYED_BYTES);
}
