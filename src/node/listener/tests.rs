//! What a stranger, a neighbour's mistake and a slow line cost: one connection, one line in the log, bounded memory.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::config::secrets::{Authority, Validity};
use crate::id::{Incarnation, Load, LogPosition};
use crate::protocol::fault::LinkFault;
use crate::protocol::frame::Lane;
use crate::protocol::status::NodeState;
use crate::transport::dial::{Connection, DialError, Target, dial};
use crate::transport::tls::for_tests::{authority, now_s, tls_of, tls_valid};
use crate::transport::tls::{HandshakeError, TlsFault};

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

    fn last_log(&self) -> LogPosition {
        LogPosition::default()
    }

    async fn raft(&self, _: MemberId, request: Vec<u8>) -> Vec<u8> {
        request
    }
}

struct Served {
    address: SocketAddr,
    faults: Faults,
    roster: watch::Sender<Roster>,
    /// Makes the certificates of the nodes that call.
    authority: Authority,
    ear: mpsc::UnboundedReceiver<String>,
    _task: tokio::task::JoinSet<()>,
}

fn member(node: u16) -> MemberId {
    MemberId { node: NodeId(node), incarnation: Incarnation(7) }
}

fn place(node: u16) -> Place {
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    Place::new(address(8000 + node), address(9000 + node))
}

fn introduction() -> Introduction {
    Introduction { member: member(1), place: place(1), last_log: LogPosition::default() }
}

async fn serve_node_1(connections: usize) -> Served {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let authority = authority();
    let (roster, rosters) = watch::channel(Roster::default());
    let settings = ListenerSettings {
        me: member(1),
        place: place(1),
        nodes: vec![NodeId(1), NodeId(2), NodeId(3)],
        roster: rosters,
        connections,
        greeting_timeout: Duration::from_millis(300),
        tls: tls_of(&authority, 1),
    };
    let (sender, ear) = mpsc::unbounded_channel();
    let mut task = tokio::task::JoinSet::new();
    let faults = Faults::new([NodeId(2), NodeId(3)], 1);
    task.spawn(serve(socket, settings, Gate::default(), faults.clone(), Arc::new(Ear(sender))));
    Served { address, faults, roster, authority, ear, _task: task }
}

impl Served {
    async fn hears(&mut self) -> String {
        tokio::time::timeout(DEADLINE, self.ear.recv()).await.expect("something arrives").unwrap()
    }
}

impl Served {
    /// TLS as node 2, and these bytes.
    async fn secured(&self, bytes: &[u8]) -> PeerStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut stream = tls_of(&self.authority, 2).connect(NodeId(1), stream).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    async fn greeted(&self, purpose: Purpose) -> PeerStream {
        let mut stream = self.secured(&hello(1, purpose)).await;
        let mut answer = frame::preamble().to_vec();
        answer.extend(encode_frame(&Welcome::Accepted(introduction())).unwrap());
        let mut read = vec![0; answer.len()];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(read, answer);
        stream
    }

    /// Calls with these credentials, as the node of this number.
    async fn dial(&self, tls: &NodeTls, from: u16, to: u16) -> Result<Connection, DialError> {
        self.dial_as(tls, member(from), to, None, Purpose::Control).await
    }

    fn target(&self) -> Target {
        Target { node: NodeId(1), life: None, address: self.address }
    }

    async fn dial_as(
        &self,
        tls: &NodeTls,
        from: MemberId,
        to: u16,
        life: Option<Incarnation>,
        purpose: Purpose,
    ) -> Result<Connection, DialError> {
        let target = Target { node: NodeId(to), life, address: self.address };
        dial(tls, from, target, purpose, DEADLINE).await
    }
}

/// Everything that the node answers until it closes the connection.
async fn until_closed(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
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

async fn send(stream: &mut PeerStream, message: &NodeFrame) {
    stream.write_all(&encode_frame(message).unwrap()).await.unwrap();
    stream.flush().await.unwrap();
}

fn hello(to: u16, purpose: Purpose) -> Vec<u8> {
    let mut bytes = frame::preamble().to_vec();
    bytes.extend(encode_frame(&Hello { member: member(2), to: NodeId(to), life: None, purpose }).unwrap());
    bytes
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
    let other = served.secured(b"ICNP\x00\x63").await;
    assert_eq!(until_closed(other).await, frame::preamble());
}

#[tokio::test]
async fn who_says_nothing_or_drips_is_closed_at_the_deadline() {
    let served = serve_node_1(8).await;
    assert_eq!(until_closed(TcpStream::connect(served.address).await.unwrap()).await, b"");

    let mut dripping = TcpStream::connect(served.address).await.unwrap();
    let (mut reader, mut writer) = dripping.split();
    let drip = async {
        // The beginning of a TLS handshake, and no more than that.
        for byte in [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].into_iter().cycle() {
            if writer.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
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
    assert_eq!(until_closed(served.secured(&greeting).await).await, b"");
    // ... and afterwards it is 1 MiB; none of the announced bytes is ever sent.
    let mut stream = served.greeted(Purpose::Control).await;
    stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(until_closed(stream).await, b"");
}

#[tokio::test]
async fn nonsense_and_misplaced_messages_are_closed() {
    let served = serve_node_1(8).await;
    let mut nonsense = served.greeted(Purpose::Control).await;
    nonsense.write_all(&[0, 0, 0, 2, 250, 250]).await.unwrap();
    nonsense.flush().await.unwrap();
    assert_eq!(until_closed(nonsense).await, b"");

    for (purpose, message) in [
        (Purpose::Control, heartbeat(2, 1)),
        (Purpose::Raft(Lane::Vote), heartbeat(2, 1)),
        (Purpose::Heartbeat, NodeFrame::Raft { id: 1, request: Opaque(vec![1]) }),
        // In the name of somebody else.
        (Purpose::Heartbeat, heartbeat(3, 1)),
    ] {
        let mut stream = served.greeted(purpose).await;
        send(&mut stream, &message).await;
        assert_eq!(until_closed(stream).await, b"", "{message:?} on {purpose}");
    }
}

#[tokio::test]
async fn who_does_not_belong_here_is_told_why() {
    let served = serve_node_1(8).await;
    let call = async |from: u16, certified: u16| match served.dial(&tls_of(&served.authority, certified), from, 1).await
    {
        Err(DialError::Unwelcome { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(call(9, 9).await, Refusal::UnknownNode { here: NodeId(1), caller: NodeId(9) });
    assert_eq!(call(1, 1).await, Refusal::SameNode { node: NodeId(1) });
    // With the certificate of another node of the same cluster.
    assert_eq!(call(3, 2).await, Refusal::NotCertified { claimed: NodeId(3), certified: NodeId(2) });
}

/// Once there is a membership, only members are heard; whoever was removed is told so, also on a connection that it has, and another life
/// of this node is nobody that anybody means. Raft, and the question who is here, are open to all nodes of the cluster.
#[tokio::test]
async fn members_are_heard_strangers_wait_and_the_removed_are_told() {
    let served = serve_node_1(16).await;
    let life = |node, life| MemberId { node: NodeId(node), incarnation: Incarnation(life) };
    let call = async |from: MemberId, lives: Option<u64>, purpose| {
        let tls = tls_of(&served.authority, from.node.0);
        match served.dial_as(&tls, from, 1, lives.map(Incarnation), purpose).await {
            Err(DialError::Unwelcome { refusal, .. }) => Err(refusal),
            other => Ok(other.unwrap()),
        }
    };
    let before = call(member(3), None, Purpose::Control).await.unwrap();
    let places = [(member(1), place(1)), (member(2), place(2))].into();
    let removed = [member(3)].into();
    served.roster.send_replace(Roster { places, removed, length: 5, ..Roster::default() });
    let Connection { mut reader, .. } = before;
    assert!(!matches!(reader.message::<NodeFrame>(LIMIT_BYTES).await, Ok(Some(_))), "it is closed");

    for purpose in [Purpose::Control, Purpose::Heartbeat, Purpose::Raft(Lane::Vote), Purpose::Admission] {
        let refused = call(member(3), None, purpose).await.err();
        assert_eq!(refused, Some(Refusal::Removed { caller: member(3) }), "{purpose}");
        assert!(call(member(2), Some(7), purpose).await.is_ok(), "{purpose}");
        let other = call(member(2), Some(8), purpose).await.err();
        assert_eq!(other, Some(Refusal::AnotherLife { asked: life(1, 8), here: member(1) }), "{purpose}");
    }
    for stranger in [life(2, 9), life(4, 7), life(1, 9)] {
        for purpose in [Purpose::Control, Purpose::Heartbeat] {
            let refused = call(stranger, None, purpose).await.err();
            assert_eq!(refused, Some(Refusal::NotAMember { caller: stranger }), "{purpose}");
        }
        for purpose in [Purpose::Raft(Lane::Append), Purpose::Admission] {
            assert!(call(stranger, None, purpose).await.is_ok(), "{stranger} {purpose}");
        }
    }
    assert_eq!(call(member(2), None, Purpose::Admission).await.unwrap().introduction, introduction());
}

/// What a dialler is told by its own look at the certificate, or by the listener's.
async fn fault_of(served: &Served, tls: &NodeTls, to: u16) -> TlsFault {
    match served.dial(tls, 2, to).await {
        Err(error @ DialError::Wire { .. }) => {
            assert!(error.is_misconfiguration(), "{error}");
            let DialError::Wire { error: WireError::Tls(fault), .. } = error else { panic!("{error}") };
            fault
        }
        other => panic!("{other:?}"),
    }
}

/// The dialler believes nobody who is not the node that it means.
#[tokio::test]
async fn another_node_and_another_cluster_are_told_apart_by_who_calls() {
    let served = serve_node_1(8).await;
    assert_eq!(fault_of(&served, &tls_of(&served.authority, 2), 3).await, TlsFault::OtherNode(NodeId(1)));
    let other = authority();
    let (theirs, ours) = (served.authority.cluster().to_owned(), other.cluster().to_owned());
    assert_eq!(fault_of(&served, &tls_of(&other, 2), 1).await, TlsFault::OtherCluster { theirs, ours });
}

#[tokio::test]
async fn an_expired_and_a_future_certificate_are_refused_on_both_sides() {
    let served = serve_node_1(8).await;
    let now = now_s();
    let expired = tls_valid(&served.authority, 2, Validity { from_s: now - 200, until_s: now - 100 });
    assert_eq!(fault_of(&served, &expired, 1).await, TlsFault::RefusesUs("CertificateExpired".to_owned()));
    let future = tls_valid(&served.authority, 2, Validity { from_s: now + 1000, until_s: now + 2000 });
    assert!(matches!(fault_of(&served, &future, 1).await, TlsFault::RefusesUs(_)));
}

/// What the listener itself says of callers that no honest dialler would be.
#[tokio::test]
async fn the_listener_names_what_is_wrong_with_a_caller() {
    let (ours, other) = (authority(), authority());
    let now = now_s();
    let expired = Validity { from_s: now - 200, until_s: now - 100 };
    let stranger = rcgen::generate_simple_self_signed(["node.example".to_owned()]).unwrap();
    let stranger = (stranger.cert.pem(), stranger.signing_key.serialize_pem());
    let issued = |authority: &Authority, valid| {
        let issued = authority.issue(NodeId(2), &[], valid).unwrap();
        (issued.certificate_pem, issued.key_pem)
    };
    let (theirs, ours_name) = (other.cluster().to_owned(), ours.cluster().to_owned());
    for (shown, expected) in [
        (Some(stranger), TlsFault::Stranger),
        (Some(issued(&other, Validity::of_node(now))), TlsFault::OtherCluster { theirs, ours: ours_name }),
        (Some(issued(&ours, expired)), TlsFault::Expired),
        (None, TlsFault::NoCertificate),
    ] {
        assert_eq!(what_the_listener_says(&tls_of(&ours, 1), shown).await, expected);
    }
}

/// Lets somebody call who believes any certificate.
async fn what_the_listener_says(tls: &NodeTls, shown: Option<(String, String)>) -> TlsFault {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let caller = tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "anybody.example".try_into().unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(credulous(shown))).connect(name, stream).await;
        if let Ok(mut stream) = stream {
            let _ = stream.read_u8().await;
        }
    });
    let (stream, _) = socket.accept().await.unwrap();
    let refused = tls.accept(stream).await.err().expect("it is refused");
    let HandshakeError::Fault(fault) = refused.why else { panic!("{}", refused.why) };
    caller.abort();
    fault
}

/// TLS that believes everybody.
fn credulous(shown: Option<(String, String)>) -> rustls::ClientConfig {
    #[derive(Debug)]
    struct Anybody;

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    }
}

/// What somebody on the way does to the bytes that a node sends.
#[derive(Clone, Copy, Debug)]
enum OnTheWay {
    Nothing,
    FlipsABit,
    SendsThemTwice,
}

/// A peer's connection through somebody who leaves the greeting alone and then does that to one piece.
async fn through_somebody(served: &Served, what: OnTheWay) -> (Connection, oneshot::Sender<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, behind) = (socket.local_addr().unwrap(), served.address);
    let (begin, mut begun) = oneshot::channel();
    tokio::spawn(async move {
        let (caller, _) = socket.accept().await.unwrap();
        let node = TcpStream::connect(behind).await.unwrap();
        let (mut from_caller, mut to_caller) = caller.into_split();
        let (mut from_node, mut to_node) = node.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_node, &mut to_caller).await });
        let mut piece = [0; 4096];
        let mut done = false;
        while let Ok(read @ 1..) = from_caller.read(&mut piece).await {
            let acts = !done && begun.try_recv().is_ok();
            done |= acts;
            if acts && matches!(what, OnTheWay::FlipsABit) {
                piece[read - 1] ^= 1;
            }
            let times = if acts && matches!(what, OnTheWay::SendsThemTwice) { 2 } else { 1 };
            for _ in 0..times {
                if to_node.write_all(&piece[..read]).await.is_err() {
                    return;
                }
            }
        }
    });
    let tls = tls_of(&served.authority, 2);
    let connection =
        dial(&tls, member(2), Target { node: NodeId(1), life: None, address }, Purpose::Heartbeat, DEADLINE)
            .await
            .unwrap();
    (connection, begin)
}

/// TLS excludes altered and replayed frames: the connection ends, and nobody hears of the frame (or not twice).
#[tokio::test]
async fn a_byte_that_is_altered_or_sent_again_on_the_way_ends_the_connection() {
    for (what, expected) in
        [(OnTheWay::Nothing, "heartbeat 2"), (OnTheWay::FlipsABit, "closed 2"), (OnTheWay::SendsThemTwice, "closed 2")]
    {
        let mut served = serve_node_1(8).await;
        let (mut connection, begin) = through_somebody(&served, what).await;
        let mut beat = async |sequence| {
            let frame = encode_frame(&heartbeat(2, sequence)).unwrap();
            write_within(&mut connection.writer, &frame, DEADLINE).await.unwrap();
        };
        beat(1).await;
        assert_eq!(served.hears().await, "heartbeat 1");
        begin.send(()).unwrap();
        beat(2).await;
        let mut heard = served.hears().await;
        if matches!(what, OnTheWay::SendsThemTwice) && heard == "heartbeat 2" {
            // The first of the two may have been read before the second came.
            heard = served.hears().await;
        }
        assert_eq!(heard, expected, "{what:?}");
    }
}

/// A later connection of the same caller resumes the session, and is bound to the same node.
#[tokio::test]
async fn a_resumed_session_is_still_that_of_its_node() {
    let served = serve_node_1(8).await;
    let tls = tls_of(&served.authority, 2);
    for _ in 0..3 {
        let connection = served.dial(&tls, 2, 1).await.unwrap();
        drop(connection);
        match served.dial(&tls, 3, 1).await {
            Err(DialError::Unwelcome { refusal: Refusal::NotCertified { certified, .. }, .. }) => {
                assert_eq!(certified, NodeId(2));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_end_of_an_older_heartbeat_connection_says_nothing() {
    let mut served = serve_node_1(8).await;
    let mut older = served.greeted(Purpose::Heartbeat).await;
    send(&mut older, &heartbeat(2, 1)).await;
    assert_eq!(served.hears().await, "heartbeat 1");
    let mut newer = served.greeted(Purpose::Heartbeat).await;
    send(&mut newer, &heartbeat(2, 2)).await;
    assert_eq!(served.hears().await, "heartbeat 2");

    drop(older);
    send(&mut newer, &heartbeat(2, 3)).await;
    assert_eq!(served.hears().await, "heartbeat 3");
    drop(newer);
    assert_eq!(served.hears().await, "closed 2");
}

#[tokio::test]
async fn connections_are_bounded_and_a_free_place_is_used() {
    let served = serve_node_1(2).await;
    let first = served.greeted(Purpose::Control).await;
    let _second = served.greeted(Purpose::Heartbeat).await;
    let third = served.greeted(Purpose::Raft(Lane::Vote));
    tokio::pin!(third);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut third).await;
    assert!(early.is_err(), "the third waits");
    drop(first);
    tokio::time::timeout(DEADLINE, third).await.expect("its turn comes");
}

/// A peer that opens connections and says nothing on them must not fill all places.
#[tokio::test]
async fn a_peer_has_one_connection_of_a_purpose_and_the_newer_one_counts() {
    let served = serve_node_1(3).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(served.greeted(Purpose::Control).await);
    }
    let latest = silent.pop().unwrap();
    for older in silent {
        assert_eq!(until_closed(older).await, b"");
    }
    let mut other = served.greeted(Purpose::Raft(Lane::Append)).await;
    send(&mut other, &NodeFrame::Raft { id: 1, request: Opaque(vec![1]) }).await;
    let mut byte = [0];
    tokio::time::timeout(DEADLINE, other.read_exact(&mut byte)).await.expect("it is served").unwrap();
    drop(latest);
}

#[tokio::test]
async fn requests_are_answered_out_of_one_another_s_way() {
    let served = serve_node_1(8).await;
    let stream = served.greeted(Purpose::Raft(Lane::Append)).await;
    let (reader, mut writer) = tokio::io::split(stream);
    for id in 0..100 {
        let request = NodeFrame::Raft { id, request: Opaque(vec![id as u8; 1000]) };
        writer.write_all(&encode_frame(&request).unwrap()).await.unwrap();
    }
    writer.flush().await.unwrap();
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
    let mut beats = served.greeted(Purpose::Heartbeat).await;
    send(&mut beats, &heartbeat(2, 1)).await;
    assert_eq!(served.hears().await, "heartbeat 1");

    served.faults.replace(&cut(true, false)).unwrap();
    send(&mut beats, &heartbeat(2, 2)).await;
    // Long enough to be read.
    assert!(tokio::time::timeout(Duration::from_millis(100), served.ear.recv()).await.is_err());
    served.faults.replace(&[]).unwrap();
    send(&mut beats, &heartbeat(2, 3)).await;
    assert_eq!(served.hears().await, "heartbeat 3");
}

/// Nothing leaves over a link whose outbound way is cut, not even the answer to a question that arrived.
#[tokio::test]
async fn over_a_cut_link_no_question_is_answered() {
    let served = serve_node_1(8).await;
    let stream = served.greeted(Purpose::Raft(Lane::Vote)).await;
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = FrameReader::new(reader);
    let ask = |id| encode_frame(&NodeFrame::Raft { id, request: Opaque(vec![1]) }).unwrap();
    for cut in [cut(false, true), cut(true, false)] {
        served.faults.replace(&cut).unwrap();
        writer.write_all(&ask(1)).await.unwrap();
        writer.flush().await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), reader.message::<NodeFrame>(LIMIT_BYTES)).await;
        assert!(early.is_err(), "{early:?}");
        served.faults.replace(&[]).unwrap();
        writer.write_all(&ask(2)).await.unwrap();
        writer.flush().await.unwrap();
        let answer = tokio::time::timeout(DEADLINE, reader.message::<NodeFrame>(LIMIT_BYTES)).await.unwrap();
        assert!(matches!(answer, Ok(Some(NodeFrame::RaftResponse { id: 2, .. }))), "{answer:?}");
    }
}

/// A new connection of a cut peer is left silent, the end of an old one is not seen, and other peers notice nothing.
#[tokio::test]
async fn over_a_cut_link_connections_neither_begin_nor_end() {
    let mut served = serve_node_1(8).await;
    let beats = served.greeted(Purpose::Heartbeat).await;
    for cut in [cut(true, false), cut(false, true)] {
        served.faults.replace(&cut).unwrap();
        let short = Duration::from_millis(300);
        let silent = dial(&tls_of(&served.authority, 2), member(2), served.target(), Purpose::Control, short).await;
        assert!(matches!(silent, Err(DialError::Silent { .. })), "{silent:?}");
        let other = served.dial(&tls_of(&served.authority, 3), 3, 1).await;
        assert!(other.is_ok(), "{other:?}");
    }
    drop(beats);
    assert!(tokio::time::timeout(Duration::from_millis(100), served.ear.recv()).await.is_err());
    served.faults.replace(&[]).unwrap();
    drop(served.greeted(Purpose::Heartbeat).await);
    assert_eq!(served.hears().await, "closed 2");
}

/// A session that both sides remember does not outlive the certificate with which it began.
#[tokio::test]
async fn an_expired_certificate_ends_its_sessions() {
    let served = serve_node_1(8).await;
    let until_s = now_s() + 3;
    let tls = tls_valid(&served.authority, 2, Validity { from_s: now_s() - 60, until_s });
    let mut was_welcome = false;
    let refused = tokio::time::timeout(DEADLINE, async {
        loop {
            match served.dial(&tls, 2, 1).await {
                Ok(_) => was_welcome = true,
                Err(error) => return error,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let refused = refused.await.expect("it is refused when its time is over");
    assert!(was_welcome && now_s() >= until_s, "{refused}");
}
