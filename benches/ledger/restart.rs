//! How long a restart takes: a cluster of one with a snapshot of 100,000 keys and 100,000 entries behind it, from the start of the
//! process to the first linearizable read. Raft itself writes the directory, with entries of one write each, which is the worst case.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use image_cloud::id::{NodeId, RequestId};
use image_cloud::node::data_dir::DataDir;
use image_cloud::protocol::kv::route;
use image_cloud::protocol::ledger::{KvOperation, Stamp, Write};
use image_cloud::protocol::user::Date;
use image_cloud::raft::{Command, RaftNode, RaftSettings};
use image_cloud::time;

use crate::alone::{Nobody, nowhere};
use crate::common::{TestCluster, wait_for};
use crate::load::VALUE_BYTES;
use crate::support::{machine, verdict};

const ENTRIES: u64 = 100_000;
const ROUNDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(2);

/// Prepares the directory, restarts on it several times and prints the times.
pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut cluster = TestCluster::configure(1, "");
        let (data, kept) = (cluster.directory().join("data/node-1"), cluster.directory().join("kept"));
        prepare(&kept).await;
        let size = |path: &str| fs::metadata(kept.join(path)).map_or(0, |file| file.len() >> 10);
        let log: u64 =
            fs::read_dir(kept.join("raft/log")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        println!(
            "{}; a snapshot of {} KiB and {} KiB of log with {ENTRIES} entries behind it",
            machine(),
            size("raft/snapshot/snapshot"),
            log >> 10
        );
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            copy(&kept, &data);
            let begun = time::now();
            cluster.spawn(1);
            let url = format!("{}{}/{}", cluster.url(1), route::KV, ENTRIES - 1);
            let answer = wait_for("the first answer", async || {
                let response = reqwest::get(&url).await.ok()?;
                if response.status().is_success() { response.bytes().await.ok() } else { None }
            });
            assert_eq!(answer.await, value(1), "the last entry is applied");
            let took = time::now().since(begun);
            println!("answers after {} ms", took.as_millis());
            times.push(took);
            cluster.kill(1);
            fs::remove_dir_all(&data).unwrap();
        }
        times.sort();
        let (median, worst) = (times[ROUNDS / 2], times[ROUNDS - 1]);
        let verdict = verdict("<= 2000 ms", || worst <= LIMIT);
        println!("median {} ms, worst {} ms; {verdict}", median.as_millis(), worst.as_millis());
    });
}

fn value(round: u8) -> Bytes {
    Bytes::from(vec![b'a' + round; VALUE_BYTES])
}

/// Writes all keys, waits for the snapshot, and writes all of them again.
async fn prepare(path: &Path) {
    let data = DataDir::open(path, NodeId(1)).unwrap();
    for (round, snapshot_after) in [(0, ENTRIES), (1, u64::MAX)] {
        let mut settings = RaftSettings::new(data.member(), data.raft());
        settings.native_elections = true;
        settings.snapshot_after = snapshot_after;
        settings.snapshot_after_bytes = u64::MAX;
        settings.keep_after_snapshot = 0;
        let raft = RaftNode::open(settings, Arc::new(Nobody)).await.unwrap();
        if round == 0 {
            raft.initialise([(data.member(), nowhere())].into()).await.unwrap();
        }
        wait_for("it leads", async || raft.views().borrow().leader.map(|_| ())).await;
        for first in (0..ENTRIES).step_by(500) {
            join_all((first..first + 500).map(|key| write(&raft, round, key))).await;
        }
        wait_for("the snapshot", async || data.raft().join("snapshot/snapshot").exists().then_some(())).await;
        raft.shutdown().await;
    }
}

async fn write(raft: &RaftNode, round: u8, key: u64) {
    let operations =
        vec![KvOperation::Put { key: Bytes::from(key.to_string()), value: value(round), expires_in_ms: None }];
    let id = RequestId((u128::from(round) << 64 | u128::from(key)).to_be_bytes());
    let writes = [Write::kv(id, operations)].into();
    raft.propose(Command::Ledger { stamp: Stamp(time::unix_millis()), date: Date(time::unix_millis()), writes })
        .await
        .unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
