//! No acknowledged write is lost: kill -9 at random moments of clusters of three and five nodes, single nodes, two at a time, all at
//! once, while writers write; afterwards everything that was acknowledged is there, and what was done once was done once.
//!
//! `KILLS=300 cargo test --release --test kills -- --nocapture` gives the full figure.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod common;
mod nemesis;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::TestCluster;
use image_cloud::client::{ClientSettings, Cluster, Consistency};
use image_cloud::id::RequestId;
use image_cloud::protocol::kv::{Batch, BatchOperation};
use image_cloud::time;
use nemesis::Nemesis;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const WRITERS: u64 = 8;
const COUNTER: &str = "counter";

/// What a writer was told.
#[derive(Default)]
struct Told {
    acknowledged: Vec<String>,
    unknown: usize,
}

/// Writes one key after the other, each together with one more on the counter, until it shall stop.
async fn write(users: Cluster, writer: u64, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("{writer}/{number}");
        let (value, value_base64, expires_in_ms) = (Some(key.clone()), None, None);
        let put = BatchOperation::Put { key: key.clone(), value, value_base64, expires_in_ms };
        let add = BatchOperation::Add { key: COUNTER.to_owned(), by: 1, floor: None };
        let id = RequestId((u128::from(writer + 1) << 64 | u128::from(number)).to_be_bytes());
        match users.write(id, &Batch { operations: vec![put, add] }).await {
            Ok(_) => told.acknowledged.push(key),
            Err(_) => told.unknown += 1,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    told
}

async fn everything(users: &Cluster) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut after = None;
    loop {
        let page = common::wait_for("a page of the list", async || {
            users.list_keys("", after.as_deref(), 1000, Consistency::Linearizable).await.ok()
        });
        let page = page.await;
        after = page.items.last().map(|item| item.key.clone());
        found.extend(page.items.into_iter().map(|item| (item.key, item.value.unwrap_or_default())));
        if !page.more {
            return found;
        }
    }
}

async fn survive(nodes: u16, kills: u64, seed: u64) {
    println!("SEED={seed}: {kills} kills among {nodes} nodes");
    let start = time::now();
    let mut cluster = TestCluster::start(nodes, "").await;
    let mut nemesis = Nemesis::new(seed, &cluster).await;
    let mut rng = SmallRng::seed_from_u64(seed + 1);
    let addresses: Vec<_> = (1..=nodes).map(|node| cluster.url(node).parse().unwrap()).collect();
    let users = |seed| Cluster::new(ClientSettings::new(addresses.clone(), seed)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(write(users(seed + writer), writer, stop.clone()))).collect();
    let mut killed = 0;
    while killed < kills {
        nemesis.rest().await;
        let mut victims = vec![nemesis.victim(&cluster).await];
        match rng.random_range(0..10) {
            0 => victims = (1..=nodes).collect(),
            1..3 => victims.push(victims[0] % nodes + 1),
            _ => {}
        }
        killed += victims.len() as u64;
        nemesis.kill(&mut cluster, &victims).await;
    }
    cluster.settled().await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = 0;
    let mut unknown = 0;
    let mut keys = Vec::new();
    for writer in writers {
        let told = writer.await.unwrap();
        acknowledged += told.acknowledged.len();
        unknown += told.unknown;
        keys.extend(told.acknowledged);
    }
    let found = everything(&users(seed + 100)).await;
    for key in &keys {
        assert_eq!(found.get(key), Some(key), "SEED={seed}: {key} was acknowledged");
    }
    let counter: usize = found[COUNTER].parse().unwrap();
    assert_eq!(counter, found.len() - 1, "SEED={seed}: each key was written together with one more on the counter");
    assert!(
        (acknowledged..=acknowledged + unknown).contains(&counter),
        "SEED={seed}: {acknowledged} {unknown} {counter}"
    );
    cluster.replicas_are_equal(&(1..=nodes).collect::<Vec<_>>()).await;
    let took = time::now().since(start);
    println!("{killed} kills in {took:.1?}: {acknowledged} writes acknowledged, {unknown} unknown, {counter} there");
    assert!(acknowledged as u64 > kills, "hardly anything was acknowledged: {acknowledged}");
}

/// Whatever is killed and when, a write that was acknowledged stays, and is there once.
#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost() {
    let kills = common::from_environment("KILLS", 10);
    let seed = common::from_environment("SEED", time::unix_millis());
    survive(3, kills.div_ceil(2), seed).await;
    survive(5, kills / 2, seed + 1).await;
}
