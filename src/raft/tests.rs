//! The library's own conformance suite on our stores, and what it does not check.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::StorageError;
use openraft::raft::AppendEntriesRequest;
use openraft::testing::log::{StoreBuilder, Suite};

use crate::core::membership::Roster;
use crate::id::{Incarnation, MemberId, NodeId, RequestId};
use crate::protocol::codec;
use crate::protocol::frame::Lane;
use crate::protocol::ledger::{KvOperation, Write};
use crate::protocol::membership::Place;
use crate::raft::log_store::{LogStore, SEGMENT_BYTES};
use crate::raft::machine::Machine;
use crate::raft::network::{Envelope, Request, Response};
use crate::raft::snapshot::FileSnapshots;
use crate::raft::state::State;
use crate::raft::types::{Command, Tokio, Types, Vote};
use crate::raft::{HashError, ProposeError, RaftNode, RaftSettings, RaftTransport, TransportError};
use crate::time;

/// The suite makes node ids from numbers.
impl From<u64> for MemberId {
    fn from(number: u64) -> Self {
        MemberId { node: NodeId(number as u16), incarnation: Incarnation(number) }
    }
}

/// And places from nothing.
impl Default for Place {
    fn default() -> Self {
        let address = ([127, 0, 0, 1], 1).into();
        Place::new(address, address)
    }
}

fn open(directory: &Path) -> io::Result<LogStore> {
    LogStore::open(directory, &directory.join("begun"), SEGMENT_BYTES, MemberId::from(1))
}

struct Stores;

impl StoreBuilder<Types<Tokio>, LogStore, Machine, tempfile::TempDir> for Stores {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<Types<Tokio>>> {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path()).unwrap();
        let snapshots = directory.path().join("snapshots");
        std::fs::create_dir(&snapshots).unwrap();
        let machine = Machine::load(Arc::new(FileSnapshots::open(&snapshots).unwrap())).unwrap();
        Ok((directory, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_keep_the_contract_of_the_library() {
    Suite::test_all(Stores).await.unwrap();
}

/// It calls nobody.
struct Nobody;

impl RaftTransport for Nobody {
    fn call(
        &self,
        _: MemberId,
        _: Lane,
        _: Vec<u8>,
        _: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        std::future::ready(Err(TransportError::Unreachable("nobody".to_owned()))).boxed()
    }
}

/// An empty append in the name of `leader`, sent by `from`, of a term that is higher than any.
fn forged_append(from: MemberId, leader: MemberId, to: MemberId) -> Vec<u8> {
    let vote = Vote::new_committed(1000, leader);
    let append = AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
    codec::encode(&Envelope::<Tokio> { from, to, request: Request::Append(append) }).unwrap()
}

/// A removed node still has its certificate, and may call under any incarnation: nothing that it sends may depose the leader or cut its log.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_appends_nothing_under_whatever_incarnation() {
    let root = tempfile::tempdir().unwrap();
    let (me, two, place) = (MemberId::from(1), MemberId::from(2), Place::default());
    let raft = RaftNode::open(RaftSettings::new(me, root.path().join("raft")), Arc::new(Nobody)).await.unwrap();
    raft.initialise([(me, place)].into()).await.unwrap();
    let leads = async |wanted: fn(&Roster) -> bool| {
        let (mut views, mut rosters) = (raft.views(), raft.rosters());
        let both = async {
            views.wait_for(|view| view.leader == Some(NodeId(1))).await.unwrap();
            rosters.wait_for(wanted).await.unwrap().clone()
        };
        tokio::time::timeout(Duration::from_secs(10), both).await.expect("node 1 leads")
    };
    let roster = leads(|roster| roster.places.len() == 1).await;
    // A change waits for the first membership to be committed.
    raft.propose(Command::ProveLeadership).await.unwrap();
    raft.take_in(&roster, two, place).await.unwrap();
    let roster = leads(|roster| roster.places.len() == 2).await;
    let term = raft.views().borrow().term;

    let refusal = async |caller: MemberId, request: Vec<u8>| {
        let answer = raft.receive(caller, request).await;
        match codec::decode::<Response<Tokio>>(&answer).unwrap() {
            Response::Refused(why) => why,
            _ => panic!("it was carried out"),
        }
    };
    // In the name of somebody else, as sender or as leader, not even a member sends anything.
    let three = MemberId::from(3);
    assert!(refusal(two, forged_append(three, three, me)).await.contains("its connection"));
    assert!(refusal(two, forged_append(two, me, me)).await.contains("sends the vote of"));

    raft.change_voters(&roster, None, &[two].into()).await.unwrap();
    leads(|roster| roster.places.len() == 1).await;
    for life in [two, MemberId { incarnation: Incarnation(77), ..two }] {
        assert!(refusal(life, forged_append(life, life, me)).await.contains("was removed"), "{life}");
    }
    assert_eq!(raft.views().borrow().term, term);
    raft.propose(Command::ProveLeadership).await.expect("node 1 still leads");
}

/// When there is no memory for more answers, only time makes room, and keys end on time: it goes on however often a client comes again.
#[tokio::test(flavor = "multi_thread")]
async fn time_goes_on_while_every_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (me, place) = (MemberId::from(1), Place::default());
    let settings = RaftSettings { answers_bytes: 300, ..RaftSettings::new(me, directory.path().join("raft")) };
    let raft = RaftNode::open(settings, Arc::new(Nobody)).await.unwrap();
    raft.initialise([(me, place)].into()).await.unwrap();
    let mut views = raft.views();
    views.wait_for(|view| view.leader == Some(NodeId(1))).await.unwrap();
    let put = async |number: u8| {
        let value = Bytes::from_static(b"v");
        let put = KvOperation::Put { key: Bytes::from(vec![number]), value, expires_in_ms: Some(500) };
        raft.write(Write::kv(RequestId([number; 16]), vec![put])).await
    };
    let mut numbers = 0..u8::MAX;
    while put(numbers.next().unwrap()).await.is_ok() {}
    assert!(raft.read(|ledger| ledger.get(&[0]).is_some()).1);

    let deadline = time::now() + Duration::from_secs(20);
    while raft.read(|ledger| ledger.get(&[0]).is_some()).1 {
        assert!(time::now() < deadline, "the key is still there");
        assert_eq!(put(u8::MAX).await, Err(ProposeError::Overloaded));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    raft.shutdown().await;
}

/// Whoever asks while the state is hashed for somebody else is told so, and costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_hashed_for_one_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let settings = RaftSettings::new(MemberId::from(1), directory.path().join("raft"));
    let raft = RaftNode::open(settings, Arc::new(Nobody)).await.unwrap();
    {
        let _somebody = raft.hashing.lock().unwrap();
        assert!(matches!(raft.state_hash(), Err(HashError::Busy)));
    }
    let empty = codec::encode(&State::default()).unwrap();
    assert_eq!(raft.state_hash().unwrap(), (0, *blake3::hash(&empty).as_bytes()));
    raft.shutdown().await;
}
