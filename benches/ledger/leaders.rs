//! What writers notice when the leader changes: it is told to stop (SIGTERM), so it hands over, or it is killed with -9. Clients are
//! those of the library: each write has an id, is repeated under it, and goes to whoever leads.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use image_cloud::client::{ClientSettings, Cluster};
use image_cloud::id::RequestId;
use image_cloud::protocol::kv::{Batch, BatchOperation};
use image_cloud::time::{Moment, now};
use rustix::process::Signal;
use tokio::task::LocalSet;

use crate::common::TestCluster;
use crate::load::VALUE_BYTES;
use crate::support::{argument, machine, quantile, verdict};

const NODES: u16 = 3;
/// Between two writes of the probe.
const STEP: Duration = Duration::from_millis(5);
/// Writers without pause.
const WRITERS: usize = 16;
/// How long is written before the change and after it.
const AROUND: Duration = Duration::from_millis(300);

/// A change of the leader.
#[derive(Clone, Copy)]
enum Change {
    HandOver,
    Kill,
}

/// Writes as they were acknowledged.
#[derive(Default)]
struct Seen {
    acknowledged: RefCell<Vec<Moment>>,
    longest_ms: Cell<f64>,
    failed: Cell<usize>,
    number: Cell<u128>,
    ends: Cell<bool>,
}

/// Prints how long nothing is acknowledged, for each kind of change and of writers.
pub fn run() {
    let trials = argument("--trials", 20);
    println!("{}; {NODES} nodes, values of {VALUE_BYTES} bytes, {trials} changes each", machine());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let mut cluster = TestCluster::start(NODES, "").await;
        for (change, name, target_ms) in [(Change::HandOver, "hand-over", 10.0), (Change::Kill, "kill -9", 60.0)] {
            let (mut gaps, mut calls, mut failed) = (Vec::new(), Vec::new(), 0);
            for writers in [1, WRITERS] {
                for _ in 0..trials {
                    let seen = observed(&mut cluster, change, writers).await;
                    failed += seen.failed.get();
                    if writers == 1 { gaps.push(gap_ms(&seen)) } else { calls.push(seen.longest_ms.get()) }
                }
            }
            let of = |samples: &[f64]| {
                format!(
                    "median {:.1}, p90 {:.1}, worst {:.1} ms",
                    quantile(samples, 0.5),
                    quantile(samples, 0.9),
                    quantile(samples, 1.0)
                )
            };
            println!(
                "{name}, one write each {} ms: longest time without an acknowledged one {}",
                STEP.as_millis(),
                of(&gaps)
            );
            println!("  {}", verdict(&format!("median <= {target_ms} ms"), || quantile(&gaps, 0.5) <= target_ms));
            println!("{name}, {WRITERS} writers without pause: longest call {}", of(&calls));
            if matches!(change, Change::HandOver) {
                println!("  {}", verdict("median <= 25 ms", || quantile(&calls, 0.5) <= 25.0));
            }
            println!("  {failed} calls failed, {}", verdict("0", || failed == 0));
        }
    });
}

/// One change of the leader while it is written.
async fn observed(cluster: &mut TestCluster, change: Change, writers: usize) -> Rc<Seen> {
    let before = cluster.settled().await;
    let leader = before.node.0;
    let addresses = (1..=NODES).map(|node| cluster.url(node).parse().unwrap()).collect();
    let client = Cluster::new(ClientSettings::new(addresses, before.term.0)).unwrap();
    let seen = Rc::new(Seen { number: Cell::new(u128::from(before.term.0) << 64), ..Seen::default() });
    let tasks: Vec<_> =
        (0..writers).map(|_| tokio::task::spawn_local(write(client.clone(), seen.clone(), writers == 1))).collect();
    tokio::time::sleep(AROUND).await;
    match change {
        Change::HandOver => {
            cluster.signal(leader, Signal::TERM);
            cluster.ended(leader).await;
        }
        Change::Kill => cluster.kill(leader),
    }
    tokio::time::sleep(AROUND).await;
    seen.ends.set(true);
    for task in tasks {
        task.await.unwrap();
    }
    cluster.spawn(leader);
    cluster.settled_after(before.term.0).await;
    seen
}

/// Writes until it is told to end: each [`STEP`], whatever became of the writes before, or one after the other.
async fn write(client: Cluster, seen: Rc<Seen>, is_probe: bool) {
    let mut next = now();
    let mut under_way = Vec::new();
    while !seen.ends.get() {
        if is_probe {
            under_way.push(tokio::task::spawn_local(call(client.clone(), seen.clone())));
            next = next + STEP;
            tokio::time::sleep(next.since(now())).await;
        } else {
            call(client.clone(), seen.clone()).await;
        }
    }
    for call in under_way {
        call.await.unwrap();
    }
}

async fn call(client: Cluster, seen: Rc<Seen>) {
    let number = seen.number.get() + 1;
    seen.number.set(number);
    let (key, value) = (format!("k{}", number % 1000), Some("v".repeat(VALUE_BYTES)));
    let put = BatchOperation::Put { key, value, value_base64: None, expires_in_ms: None };
    let begun = now();
    match client.write(RequestId(number.to_be_bytes()), &Batch { operations: vec![put] }).await {
        Ok(_) => seen.acknowledged.borrow_mut().push(now()),
        Err(error) => {
            eprintln!("a call failed: {error}");
            seen.failed.set(seen.failed.get() + 1);
        }
    }
    seen.longest_ms.set(seen.longest_ms.get().max(now().since(begun).as_secs_f64() * 1000.0));
}

/// The longest time between two acknowledgements.
fn gap_ms(seen: &Seen) -> f64 {
    let acknowledged = seen.acknowledged.borrow();
    let gaps = acknowledged.windows(2).map(|pair| pair[1].since(pair[0]).as_secs_f64() * 1000.0);
    gaps.fold(0.0, f64::max)
}
