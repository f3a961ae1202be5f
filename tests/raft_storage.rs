//! Raft's directory under a real kill: a process of its own is ended by SIGKILL while it commits, and what it acknowledged is there.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]
#![expect(clippy::disallowed_methods, reason = "deadlines of tests are real time")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use image_cloud::id::{MemberId, NodeId, Term};
use image_cloud::node::data_dir::DataDir;
use image_cloud::protocol::election::{Campaign, Cause, ElectionResult};
use image_cloud::protocol::frame::Lane;
use image_cloud::protocol::status::Leadership;
use image_cloud::raft::state::ELECTIONS_LIMIT;
use image_cloud::raft::{Command, RaftError, RaftNode, RaftSettings, RaftTransport, TransportError};

const DEADLINE: Duration = Duration::from_secs(20);
const DIRECTORY: &str = "RAFT_STORAGE_TEST_DIRECTORY";

/// A cluster of one calls nobody.
struct Nobody;

impl RaftTransport for Nobody {
    fn call(
        &self,
        _: MemberId,
        _: Lane,
        _: Vec<u8>,
        _: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        Box::pin(std::future::ready(Err(TransportError::Timeout)))
    }
}

fn record(number: u64) -> Command {
    Command::RecordElection(ElectionResult {
        coordinator: Leadership { term: Term(0), node: NodeId(1) },
        vacancy: None,
        caller: None,
        cause: Cause::FirstStart,
        standings: Vec::new(),
        campaign: None,
        votes: Vec::new(),
        voters: 1,
        took_micros: number,
        handed_over_to: None,
    })
}

fn settings(member: MemberId, directory: PathBuf) -> RaftSettings {
    let mut settings = RaftSettings::new(member, directory);
    settings.snapshot_after = 50;
    settings.keep_after_snapshot = 10;
    settings
}

/// Opens the node and makes it leader of its cluster of one.
async fn lead(data: &DataDir) -> RaftNode {
    let raft = RaftNode::open(settings(data.member(), data.raft()), Arc::new(Nobody)).await.unwrap();
    let mut views = raft.views();
    let deadline = Instant::now() + DEADLINE;
    while views.borrow_and_update().leader.is_none() {
        assert!(Instant::now() < deadline, "it leads nobody: {:?}", raft.views().borrow());
        if raft.views().borrow().voters.is_empty() {
            raft.initialise(vec![data.member()]).await.unwrap();
        } else {
            raft.campaign(Campaign::PreVote, None).await.unwrap();
        }
        // A refused campaign changes nothing, so the wait is bounded.
        let _ = tokio::time::timeout(Duration::from_millis(50), views.changed()).await;
    }
    raft
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Not a test of its own: the process that is killed. It prints each number after it is acknowledged.
#[test]
fn the_process_that_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    runtime().block_on(async {
        let data = DataDir::open(Path::new(&directory), NodeId(1)).unwrap();
        let raft = lead(&data).await;
        let first = raft.elections().last().map_or(0, |result| result.took_micros + 1);
        for number in first.. {
            raft.propose(record(number)).await.unwrap();
            println!("\nacknowledged {number}");
        }
    });
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("node-1");
    let mut cluster_id = None;
    let mut term = Term(0);
    // 9, 60 and 150 acknowledgements: before the first snapshot, behind it, and with the log purged.
    for acknowledgements in [9, 60, 150, 3] {
        let mut process = Process::new(std::env::current_exe().unwrap())
            .args(["the_process_that_is_killed", "--exact", "--nocapture"])
            .env(DIRECTORY, &directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let numbers = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("acknowledged ").map(|number| number.parse::<u64>().unwrap()));
        let last = numbers.take(acknowledgements).last().expect("it acknowledged something");
        process.kill().unwrap();
        process.wait().unwrap();

        runtime().block_on(async {
            let data = DataDir::open(&directory, NodeId(1)).unwrap();
            let raft = lead(&data).await;
            raft.propose(record(u64::MAX)).await.unwrap();
            let kept: Vec<u64> = raft.elections().iter().map(|result| result.took_micros).collect();
            let upto = kept[kept.len() - 2];
            assert!(upto >= last, "{last} was acknowledged, {upto} is the last one kept");
            let count = kept.iter().filter(|number| **number != u64::MAX).count() as u64;
            assert!(count == upto + 1 || kept.len() == ELECTIONS_LIMIT, "holes: {kept:?}");
            let now = raft.views().borrow().term;
            assert!(now > term, "a leader that comes back stands for election again");
            term = now;
            assert_eq!(*cluster_id.get_or_insert(raft.cluster_id()), raft.cluster_id());
            // So that the next process goes on counting behind what it wrote.
            raft.propose(record(upto)).await.unwrap();
            raft.shutdown().await;
        });
    }
    assert!(cluster_id.flatten().is_some());
}

#[test]
fn a_damaged_snapshot_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let data = DataDir::open(root.path(), NodeId(1)).unwrap();
        let raft = lead(&data).await;
        for number in 0..120 {
            raft.propose(record(number)).await.unwrap();
        }
        let path = data.raft().join("snapshot/snapshot");
        let deadline = Instant::now() + DEADLINE;
        while !path.exists() {
            assert!(Instant::now() < deadline, "no snapshot");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        raft.shutdown().await;
        std::fs::write(&path, b"not a snapshot").unwrap();
        let refused = RaftNode::open(settings(data.member(), data.raft()), Arc::new(Nobody)).await.err();
        match refused {
            Some(RaftError::Corrupt { error, .. }) => assert!(error.contains("not a snapshot"), "{error}"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn impossible_timing_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let data = DataDir::open(root.path(), NodeId(1)).unwrap();
        let mut settings = settings(data.member(), data.raft());
        settings.election_max = settings.election_min;
        let refused = RaftNode::open(settings, Arc::new(Nobody)).await.err();
        assert!(matches!(refused, Some(RaftError::Settings { .. })), "{refused:?}");
    });
}
