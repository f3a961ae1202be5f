//! Raft's directory under a real kill: a process of its own is ended by SIGKILL while it commits, and what it acknowledged is there.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]
#![expect(clippy::disallowed_methods, reason = "deadlines of tests are real time")]

mod alone;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alone::Nobody;
use bytes::Bytes;
use futures::future::join_all;
use image_cloud::id::{MemberId, NodeId, RequestId, Term};
use image_cloud::node::data_dir::DataDir;
use image_cloud::protocol::election::{Cause, ElectionResult};
use image_cloud::protocol::ledger::{KvOperation, Write};
use image_cloud::protocol::status::Leadership;
use image_cloud::raft::state::ELECTIONS_LIMIT;
use image_cloud::raft::{Command, RaftError, RaftNode, RaftSettings};

const DEADLINE: Duration = Duration::from_secs(20);
const DIRECTORY: &str = "RAFT_STORAGE_TEST_DIRECTORY";

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
    alone::lead(settings(data.member(), data.raft())).await
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

/// Bytes of all files below a directory. Files may go while it is read.
fn size_of(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().filter_map(Result::ok);
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Puts that many values of that size, `at_once` at a time, to eight keys; gives the most bytes that the directory had meanwhile.
async fn put(raft: &RaftNode, directory: &Path, count: usize, size: usize, at_once: usize) -> u64 {
    let mut most = 0;
    for first in (0..count).step_by(at_once) {
        let put = async |number: usize| {
            let (key, value) = (Bytes::from((number % 8).to_string()), Bytes::from(vec![number as u8; size]));
            let id = RequestId(((size as u128) << 64 | number as u128).to_be_bytes());
            let operations = vec![KvOperation::Put { key, value, expires_in_ms: None }];
            raft.write(Write::kv(id, operations)).await.unwrap();
        };
        join_all((first..first + at_once).map(put)).await;
        most = most.max(size_of(directory));
        // What is written while a snapshot is made counts as well: at most 100 MB a second here.
        tokio::time::sleep(Duration::from_millis((at_once * size / 100_000) as u64)).await;
    }
    most
}

const MIB: u64 = 1 << 20;

/// However much is written, and in whatever pieces, the disk holds the log up to its limit and two snapshots.
#[test]
fn disk_use_stays_bounded_by_the_size_of_the_log() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let data = DataDir::open(root.path(), NodeId(1)).unwrap();
        let mut settings = RaftSettings::new(data.member(), data.raft());
        settings.snapshot_after = u64::MAX;
        settings.snapshot_after_bytes = 4 * MIB;
        settings.keep_bytes = MIB;
        settings.segment_bytes = 256 << 10;
        settings.waiting_writes = 1024;
        let raft = alone::lead(settings).await;
        // Eight keys: the state has 8 MiB, so that is the limit of the log; two snapshots, and what is written while one is made.
        let large = put(&raft, &data.raft(), 150, MIB as usize, 1).await;
        assert!(large < 48 * MIB, "{large} bytes on disk after 150 MiB were written");
        // The kept answers are part of the state, too: 60,000 of them.
        let small = put(&raft, &data.raft(), 60_000, 200, 200).await;
        println!("the most on disk: {} KiB with values of 1 MiB, {} KiB with small ones", large >> 10, small >> 10);
        let end = Instant::now() + DEADLINE;
        while size_of(&data.raft().join("log")) > 8 * MIB {
            assert!(Instant::now() < end, "the log stays at {}", size_of(&data.raft().join("log")));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(small < 48 * MIB, "{small} bytes on disk after 60,000 writes");
        raft.shutdown().await;
    });
}

/// Room that keys which are due took is there again as fast as entries are committed, without any write.
#[test]
fn keys_that_are_due_leave_at_once_however_many() {
    const BATCHES: usize = 20;
    const KEYS: usize = 512;
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let data = DataDir::open(root.path(), NodeId(1)).unwrap();
        let raft = lead(&data).await;
        for batch in 0..BATCHES {
            let put = |number: usize| {
                let key = Bytes::from(format!("{batch}/{number}"));
                KvOperation::Put { key, value: Bytes::from("x"), expires_in_ms: Some(300) }
            };
            let (id, operations) = (RequestId((batch as u128).to_be_bytes()), (0..KEYS).map(put).collect());
            raft.write(Write::kv(id, operations)).await.unwrap();
        }
        let written = Instant::now();
        let (before, _) = raft.read(|_| ());
        loop {
            let (after, held) = raft.read(|ledger| ledger.footprint_bytes());
            if held == 0 {
                assert!(after - before < 40, "{} entries", after - before);
                break;
            }
            assert!(written.elapsed() < Duration::from_secs(5), "{held} bytes are held");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        raft.shutdown().await;
    });
}

/// A log that hardly grows is folded into a snapshot in time.
#[test]
fn an_old_log_is_folded_into_a_snapshot() {
    let root = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let data = DataDir::open(root.path(), NodeId(1)).unwrap();
        let mut settings = RaftSettings::new(data.member(), data.raft());
        settings.snapshot_after_time = Duration::from_millis(200);
        let raft = alone::lead(settings).await;
        put(&raft, &data.raft(), 1, 10, 1).await;
        let deadline = Instant::now() + DEADLINE;
        while !data.raft().join("snapshot/snapshot").exists() {
            assert!(Instant::now() < deadline, "no snapshot");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        raft.shutdown().await;
    });
}
