//! The second recorded process: a whole Raft node, which leads a cluster of one, writes, makes snapshots and purges its log.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use image_cloud::id::RequestId;
use image_cloud::protocol::ledger::{KvOperation, Write};
use image_cloud::raft::log_store::LogStore;
use image_cloud::raft::machine::Machine;
use image_cloud::raft::snapshot::FileSnapshots;
use image_cloud::raft::{RaftNode, RaftSettings};
use openraft::EntryPayload;
use openraft::storage::RaftLogReader;

use crate::alone;
use crate::script::{Marks, SEGMENT_BYTES, member};

/// What the directory must hold beforehand.
pub const DIRECTORIES: [&str; 2] = ["raft/log", "raft/snapshot"];

/// Starts the node and lets it lead.
pub async fn lead(root: &Path) -> RaftNode {
    let mut settings = RaftSettings::new(member(), root.join("raft"));
    settings.snapshot_after = 40;
    settings.keep_after_snapshot = 5;
    settings.segment_bytes = SEGMENT_BYTES;
    alone::lead(settings).await
}

fn value(key: &str) -> Bytes {
    let bytes = key.bytes().fold(7, |sum: usize, byte| sum * 31 % 2000 + usize::from(byte));
    Bytes::from(key.as_bytes().repeat(bytes / key.len()))
}

/// Writes keys from several sides at once and marks which were begun and which acknowledged. Keys of different lives differ by `seed`.
pub async fn run(root: &Path, seed: u64, operations: usize) {
    let raft = lead(root).await;
    let marks = Marks::new(root);
    marks.put(&format!("term {}", raft.views().borrow().term));
    let write = async |writer: usize| {
        for number in 0..operations / 4 {
            let key = format!("{seed}/{writer}/{number}");
            marks.put(&format!("begun {key}"));
            let operations =
                vec![KvOperation::Put { key: key.clone().into(), value: value(&key), expires_in_ms: None }];
            let id = RequestId((u128::from(seed) << 64 | (writer * 1_000_000 + number) as u128).to_be_bytes());
            raft.write(Write::kv(id, operations)).await.unwrap();
            marks.put(&format!("acknowledged {key}"));
        }
    };
    join_all((0..4).map(write)).await;
    raft.shutdown().await;
}

/// Checks the directory against the marks of all lives so far: every acknowledged key is there with its value, no key that nobody
/// wrote, and no vote is forgotten.
pub async fn check(root: &Path, marks: &[String]) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let raft = root.join("raft");
    let snapshots = FileSnapshots::open(&raft.join("snapshot")).map_err(text)?;
    let machine = Machine::load(Arc::new(snapshots)).map_err(text)?;
    let mut log =
        LogStore::open(&raft.join("log"), &raft.with_extension("begun"), SEGMENT_BYTES, member()).map_err(text)?;
    let (last, mut state) = {
        let applied = machine.applied();
        (applied.last, applied.state.clone())
    };
    let mut next = last.map_or(0, |id| id.index() + 1);
    for entry in log.try_get_log_entries(next..).await.map_err(text)? {
        if entry.log_id.index() != next {
            return Err(format!("the snapshot covers {last:?}, entry {next} is missing before {}", entry.log_id));
        }
        next += 1;
        if let EntryPayload::Normal(command) = entry.payload {
            state.apply(next, command, &mut Vec::new());
        }
    }
    let of =
        |word: &str| marks.iter().filter_map(|mark| mark.strip_prefix(word)).map(str::to_owned).collect::<Vec<_>>();
    let term = of("term ").last().map_or(0, |term| term.parse().unwrap());
    let vote = log.read_vote().await.map_err(text)?.map_or(0, |vote| vote.leader_id().term);
    if vote < term {
        return Err(format!("it voted in term {term}, and knows of {vote}"));
    }
    for key in of("acknowledged ") {
        if state.ledger().get(key.as_bytes()).map(|found| found.value) != Some(value(&key)) {
            return Err(format!("{key} was acknowledged and is not there"));
        }
    }
    let begun: BTreeSet<String> = of("begun ").into_iter().collect();
    let found = state.ledger().list(b"", None, usize::MAX);
    let strange = found.items.iter().find(|item| !begun.contains(std::str::from_utf8(&item.key).unwrap()));
    strange.map_or(Ok(()), |item| Err(format!("nobody wrote {:?}", item.key)))
}
