//! What a node takes on disk stays bounded on real processes, also while a follower that would need the log is down.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;

use std::fs;
use std::path::Path;

use common::TestCluster;
use image_cloud::client::{AttemptError, ClientError, ClientSettings, Cluster};
use image_cloud::id::RequestId;
use image_cloud::protocol::kv::{Batch, BatchOperation};
use image_cloud::protocol::problem::ProblemCode;

const MIB: usize = 1 << 20;

/// Bytes of all files below a directory. Files may go while it is read.
fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().filter_map(Result::ok);
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// 200 MiB are written to four keys, first by three nodes, then by two; the third comes back and gets a snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn disk_use_stays_bounded_while_a_follower_is_down() {
    let mut cluster = TestCluster::start(3, "[log]\nsnapshot_mib = 4\nkeep_mib = 1\n").await;
    let leader = cluster.settled().await.node.0;
    let down = leader % 3 + 1;
    let addresses = (1..=3).map(|node| cluster.url(node).parse().unwrap()).collect();
    let users = Cluster::new(ClientSettings::new(addresses, 7)).unwrap();
    let mut most = 0;
    for number in 0..200u128 {
        if number == 40 {
            cluster.kill(down);
        }
        let (key, value) = ((number % 4).to_string(), Some("v".repeat(MIB)));
        let put = BatchOperation::Put { key, value, value_base64: None, expires_in_ms: None };
        users.write(RequestId(number.to_be_bytes()), &Batch { operations: vec![put] }).await.unwrap();
        let sizes = (1..=3).map(|node| size_of(&cluster.directory().join(format!("data/node-{node}/raft"))));
        most = sizes.fold(most, u64::max);
    }
    println!("the most on disk: {} MiB", most as usize / MIB);
    // Two snapshots of 4 MiB, the log up to 4 MiB and what is written while a snapshot is made, files of 8 MiB.
    assert!(most < 64 * MIB as u64, "{} MiB on disk", most as usize / MIB);
    cluster.spawn(down);
    cluster.settled().await;
    cluster.replicas_are_equal(&[1, 2, 3]).await;
}

/// A store that is full says so, and goes on: what was done is answered again, what is deleted makes room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_to_grow_and_nothing_else() {
    let cluster = TestCluster::start(1, "[limits]\nledger_mib = 1\n").await;
    let users = Cluster::new(ClientSettings::new(vec![cluster.url(1).parse().unwrap()], 7)).unwrap();
    let put = async |number: u128| {
        let (key, value) = (number.to_string(), Some("v".repeat(MIB * 6 / 10)));
        let put = BatchOperation::Put { key, value, value_base64: None, expires_in_ms: None };
        users.write(RequestId(number.to_be_bytes()), &Batch { operations: vec![put] }).await
    };
    let is_full = |error: &ClientError| match error {
        ClientError::Exchange { source: AttemptError::Refused(problem), .. } => {
            problem.code == ProblemCode::StorageFull
        }
        _ => false,
    };
    let first = put(1).await.unwrap();
    let refused = put(2).await.unwrap_err();
    assert!(is_full(&refused), "{refused}");
    assert_eq!(put(1).await.unwrap(), first, "it was done already");
    let delete = Batch { operations: vec![BatchOperation::Delete { key: "1".to_owned() }] };
    users.write(RequestId(99u128.to_be_bytes()), &delete).await.unwrap();
    put(2).await.unwrap();
}
