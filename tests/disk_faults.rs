//! A disk that fails while a node runs: full, failing, read-only. The node ends with one line and exit code 1, what it acknowledged is there
//! when it starts again, and the others go on. The faults are made at the system's boundary (`tests/interposer/`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;
mod interposer;

use std::fs;

use common::{TestCluster, wait_for};
use image_cloud::client::{ClientSettings, Cluster, Consistency};
use image_cloud::id::RequestId;
use image_cloud::protocol::kv::{Batch, BatchOperation};
use rustix::io::Errno;

/// Writes one key after the other, through whichever node leads.
struct Writer {
    users: Cluster,
    acknowledged: Vec<String>,
}

impl Writer {
    fn new(cluster: &TestCluster) -> Writer {
        let addresses = (1..=3).map(|node| cluster.url(node).parse().unwrap()).collect();
        Writer { users: Cluster::new(ClientSettings::new(addresses, 7)).unwrap(), acknowledged: Vec::new() }
    }

    /// Until so many more are acknowledged.
    async fn write(&mut self, more: usize) {
        let end = self.acknowledged.len() + more;
        wait_for("so many writes are acknowledged", async || {
            let key = format!("key-{}", self.acknowledged.len());
            let (value, value_base64, expires_in_ms) = (Some("v".repeat(5000)), None, None);
            let put = BatchOperation::Put { key: key.clone(), value, value_base64, expires_in_ms };
            let id = RequestId((self.acknowledged.len() as u128).to_be_bytes());
            if self.users.write(id, &Batch { operations: vec![put] }).await.is_ok() {
                self.acknowledged.push(key);
            }
            (self.acknowledged.len() >= end).then_some(())
        })
        .await;
    }

    async fn everything_is_there(&self) {
        for key in &self.acknowledged {
            let found =
                wait_for("an answer", async || self.users.get_key(key, Consistency::Linearizable).await.ok()).await;
            assert!(found.is_some(), "{key} was acknowledged");
        }
    }
}

/// The leader's disk fails with `error`; it must end, and say so with these words.
async fn survive(error: Errno, words: &[&str]) {
    let mut cluster = TestCluster::configure(3, "");
    let fault = cluster.directory().join("fault");
    for id in 1..=3 {
        let watched = cluster.directory().canonicalize().unwrap().join(format!("data/node-{id}/raft"));
        let faults = cluster.directory().join(format!("fault-{id}"));
        cluster
            .spawn_in(id, &[("LD_PRELOAD", interposer::library()), ("WATCHED_ROOT", watched), ("FAULT_FROM", faults)]);
    }
    let first = cluster.settled().await;
    let leader = first.node.0;
    let mut writer = Writer::new(&cluster);
    writer.write(20).await;

    fs::write(&fault, error.raw_os_error().to_string()).unwrap();
    fs::rename(&fault, cluster.directory().join(format!("fault-{leader}"))).unwrap();
    writer.write(20).await;
    assert_eq!(cluster.ended(leader).await.code(), Some(1));
    let log = cluster.log(leader);
    let last = log.lines().last().unwrap();
    for word in words.iter().chain(&["cloud-node: ", "its disk has failed", &format!("node {leader}")]) {
        assert!(last.contains(word), "{word:?} is missing in the last line of:\n{log}");
    }
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains("LogId"), "that is for whoever wrote the program:\n{log}");
    assert!(cluster.settled_after(first.term.0).await.node.0 != leader);

    // There is space again, or another disk with the same files.
    let _ = fs::remove_file(cluster.directory().join(format!("fault-{leader}")));
    cluster.spawn(leader);
    cluster.settled().await;
    if error == Errno::NOSPC {
        assert!(
            cluster.log(leader).contains("cutting off"),
            "a part of a record was written:\n{}",
            cluster.log(leader)
        );
    }
    writer.write(5).await;
    writer.everything_is_there().await;
    cluster.replicas_are_equal(&[1, 2, 3]).await;
}

/// Invariant 10: one failed sync is the end, though the next one would succeed: what it lost would never be written.
#[tokio::test(flavor = "multi_thread")]
async fn one_failed_sync_ends_the_node_and_is_not_tried_again() {
    survive(Errno::IO, &["os error 5"]).await;
}

/// A full disk, which takes a part of the last write, ends the node; it starts again when there is space.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_node_until_there_is_space() {
    survive(Errno::NOSPC, &["No space left on device"]).await;
}

/// So does a disk that has become read-only, as ext4 does after a fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_became_read_only_ends_the_node() {
    survive(Errno::ROFS, &["Read-only file system"]).await;
}
