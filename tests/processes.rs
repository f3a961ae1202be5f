//! Real processes on loopback: killed, paused, failed, restarted. Each test says which promise it keeps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;

use std::time::Duration;

use common::{TestCluster, picture, wait_for};
use image_cloud::config::secrets::read_cluster_key;
use image_cloud::image::{self, ClusterKey, Limits};
use image_cloud::protocol::event::EventKind;
use image_cloud::protocol::job::route;
use image_cloud::protocol::status::NodeState;
use rustix::process::Signal;

/// Seals at one node and opens the result with the cluster key, bit for bit.
async fn seals(cluster: &TestCluster, id: u16) {
    let original = picture(id as u8);
    let response = cluster.post(id, &format!("{}?name=p.png", route::SEAL), original.clone()).await.unwrap();
    let status = response.status();
    let body = response.bytes().await.unwrap();
    assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    let key = read_cluster_key(&cluster.directory().join("data/cluster/cluster.key")).unwrap();
    let opened = image::unseal(&body, &ClusterKey::new(key.0), &Limits::default()).unwrap();
    assert!(opened.original == original && opened.name == "p.png");
}

/// E2: the coordinator is killed with kill -9; another is confirmed in a later term; the killed node comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_is_replaced_and_comes_back() {
    let mut cluster = TestCluster::start(3, "").await;
    let first = cluster.settled().await;
    for id in 1..=3 {
        seals(&cluster, id).await;
    }
    cluster.kill(first.node.0);
    let second = cluster.settled_after(first.term.0).await;
    assert_ne!(first.node, second.node);
    for id in cluster.running() {
        seals(&cluster, id).await;
    }
    cluster.spawn(first.node.0);
    let third = cluster.settled().await;
    assert_eq!(third, second, "a node that comes back deposes nobody");
    cluster.won_terms(&[1, 2, 3]).await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
}

/// E3: a coordinator that hangs (SIGSTOP) is replaced; when it goes on, it follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_coordinator_is_replaced_and_follows_when_it_goes_on() {
    let mut cluster = TestCluster::start(3, "").await;
    let first = cluster.settled().await;
    cluster.signal(first.node.0, Signal::STOP);
    let others: Vec<u16> = cluster.running().into_iter().filter(|id| *id != first.node.0).collect();
    let second = wait_for("both others confirm another coordinator", async || {
        let a = cluster.status(others[0]).await?.coordinator?;
        let b = cluster.status(others[1]).await?.coordinator?;
        (a == b && a.term > first.term).then_some(a)
    })
    .await;
    cluster.signal(first.node.0, Signal::CONT);
    assert_eq!(cluster.settled_after(first.term.0).await, second);
    cluster.won_terms(&[1, 2, 3]).await;
    cluster.stop(first.node.0).await;
}

/// E1, E7: with unequal real jobs the lowest load wins, and the printed list shows every load with the winner marked.
#[tokio::test(flavor = "multi_thread")]
async fn the_lowest_load_wins_and_the_printed_list_shows_it() {
    let mut cluster = TestCluster::start(3, "[jobs]\nworkers = 1\nsimulated_delay_ms = 60000\n").await;
    let first = cluster.settled().await;
    let others: Vec<u16> = cluster.running().into_iter().filter(|id| *id != first.node.0).collect();
    let (busy, idle) = (others[0], others[1]);
    // The node with the lower id gets the work, so that a tie-break by id cannot look like a decision by load.
    let work: Vec<_> = (0..4)
        .map(|seed| {
            let (url, image) = (cluster.url(busy) + route::SEAL, picture(seed));
            tokio::spawn(async move { reqwest::Client::new().post(url).body(image).send().await })
        })
        .collect();
    wait_for("the busy node's load is above 2", async || {
        (f64::from(cluster.status(busy).await?.load) > 2.0).then_some(())
    })
    .await;
    cluster.kill(first.node.0);
    let second = cluster.settled_after(first.term.0).await;
    assert_eq!(second.node.0, idle);
    let log = cluster.log(idle);
    let printed = log.split(&format!("Election result, term {}", second.term)).nth(1).expect("the result is printed");
    let lines: Vec<&str> = printed.lines().filter(|line| line.trim_start().starts_with("node ")).collect();
    assert!(lines[0].contains(&format!("node {idle}")) && lines[0].contains("[COORDINATOR]"), "{lines:?}");
    assert!(lines[1].contains(&format!("node {busy}")) && !lines[1].contains("[COORDINATOR]"), "{lines:?}");
    for task in work {
        task.abort();
    }
}

/// A failed coordinator answers nobody, is replaced, recovers by StateSync and is Active again.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_node_is_silent_and_recovers_by_state_sync() {
    let cluster = TestCluster::start(3, "").await;
    let first = cluster.settled().await;
    let failed = first.node.0;
    cluster.fail(failed, Duration::from_secs(2)).await;
    assert!(cluster.status(failed).await.is_none(), "a Failed node answered");
    let other = cluster.running().into_iter().find(|id| *id != failed).unwrap();
    let second = wait_for("the others confirm a new coordinator", async || {
        let coordinator = cluster.status(other).await?.coordinator?;
        (coordinator.term > first.term).then_some(coordinator)
    })
    .await;
    seals(&cluster, other).await;
    assert_eq!(cluster.settled_after(first.term.0).await, second, "the returning node deposes nobody");
    let transitions: Vec<(NodeState, NodeState)> = cluster
        .events(failed)
        .await
        .into_iter()
        .filter_map(|event| match event.what {
            EventKind::StateChanged { from, to, .. } => Some((from, to)),
            _ => None,
        })
        .collect();
    use NodeState::{Active, Failed, Recovering};
    assert_eq!(transitions[1..], [(Active, Failed), (Failed, Recovering), (Recovering, Active)]);
    let synced_by = cluster.events(failed).await.into_iter().rev().find_map(|event| match event.what {
        EventKind::Recovered { from, entries, .. } => Some((from, entries)),
        _ => None,
    });
    let (from, entries) = synced_by.unwrap();
    assert!(from.is_some_and(|from| from.0 != failed) && entries > 0, "{synced_by:?}");
}

/// `StateSync` decides: while nobody answers it, the node stays Recovering and takes no job.
#[tokio::test(flavor = "multi_thread")]
async fn while_state_sync_is_held_back_the_node_stays_recovering_without_jobs() {
    let cluster = TestCluster::start(3, "[recovery]\njobs_only_after_ms = 600000\n").await;
    let coordinator = cluster.settled().await.node.0;
    let failed = cluster.running().into_iter().find(|id| *id != coordinator).unwrap();
    let others: Vec<u16> = cluster.running().into_iter().filter(|id| *id != failed).collect();
    cluster.fail(failed, Duration::from_millis(500)).await;
    // Paused processes accept the question and do not answer it.
    for id in &others {
        cluster.signal(*id, Signal::STOP);
    }
    wait_for("the failure is over", async || {
        (cluster.status(failed).await?.state == NodeState::Recovering).then_some(())
    })
    .await;
    let end = image_cloud::time::now() + Duration::from_secs(3);
    while image_cloud::time::now() < end {
        let response = cluster.post(failed, route::SEAL, picture(1)).await.unwrap();
        assert_eq!(response.status().as_u16(), 503);
        let status = cluster.status(failed).await.unwrap();
        assert_eq!((status.state, status.jobs_done), (NodeState::Recovering, 0));
    }
    for id in &others {
        cluster.signal(*id, Signal::CONT);
    }
    cluster.settled().await;
    seals(&cluster, failed).await;
}

/// Jobs need no ledger: with the majority lost, sealing goes on and nobody is confirmed as coordinator.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_sealing_goes_on_and_no_coordinator_is_confirmed() {
    let mut cluster = TestCluster::start(3, "").await;
    let first = cluster.settled().await;
    let survivor = cluster.running().into_iter().find(|id| *id != first.node.0).unwrap();
    // Both at once: one after the other, the survivor could be elected by the second before that ends.
    let lost: Vec<u16> = cluster.running().into_iter().filter(|id| *id != survivor).collect();
    lost.iter().for_each(|id| cluster.signal(*id, Signal::KILL));
    lost.iter().for_each(|id| cluster.kill(*id));
    wait_for("the survivor knows no coordinator", async || {
        cluster.status(survivor).await?.coordinator.is_none().then_some(())
    })
    .await;
    // Longer than the dead-man switch waits: Raft's own elections are on as well, and still elect nobody.
    let end = image_cloud::time::now() + Duration::from_secs(5);
    while image_cloud::time::now() < end {
        seals(&cluster, survivor).await;
        assert_eq!(cluster.status(survivor).await.unwrap().coordinator, None);
    }
    cluster.spawn(first.node.0);
    cluster.settled_after(first.term.0).await;
}

/// E5: two of three fail and recover together; neither waits for the other for ever.
#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_failed_and_recovering_together_find_a_coordinator() {
    let cluster = TestCluster::start(3, "").await;
    let first = cluster.settled().await;
    let other = cluster.running().into_iter().find(|id| *id != first.node.0).unwrap();
    cluster.fail(first.node.0, Duration::from_secs(1)).await;
    cluster.fail(other, Duration::from_secs(1)).await;
    // The former coordinator may be the one again, in its old term: nobody else could be elected meanwhile.
    assert!(cluster.settled().await.term >= first.term);
    cluster.won_terms(&[1, 2, 3]).await;
}

/// All three are killed and started at once: the logs are there, a coordinator is confirmed in a later term.
#[tokio::test(flavor = "multi_thread")]
async fn all_three_restarted_at_once_find_a_coordinator() {
    let mut cluster = TestCluster::start(3, "").await;
    let first = cluster.settled().await;
    let cluster_id = cluster.status(1).await.unwrap().cluster_id;
    for id in 1..=3 {
        cluster.kill(id);
    }
    for id in 1..=3 {
        cluster.spawn(id);
    }
    cluster.settled_after(first.term.0).await;
    assert!(cluster_id.is_some());
    assert_eq!(cluster.status(2).await.unwrap().cluster_id, cluster_id, "the cluster keeps its name");
}

/// A cluster of one has nobody to ask, and still comes back from a failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_comes_back_from_a_failure() {
    let cluster = TestCluster::start(1, "").await;
    let first = cluster.settled().await;
    cluster.fail(1, Duration::from_millis(500)).await;
    assert_eq!(cluster.settled().await, first);
    seals(&cluster, 1).await;
}

/// E0: a node whose disk was wiped would vote twice under its old id; it keeps out and says what is needed.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_keeps_out_and_says_what_is_needed() {
    let mut cluster = TestCluster::start(3, "").await;
    let coordinator = cluster.settled().await;
    let wiped = cluster.running().into_iter().find(|id| *id != coordinator.node.0).unwrap();
    cluster.stop(wiped).await;
    std::fs::remove_dir_all(cluster.directory().join(format!("data/node-{wiped}"))).unwrap();
    cluster.spawn(wiped);
    let needed = format!("members replace {wiped}");
    wait_for("the wiped node says what is needed", async || cluster.log(wiped).contains(&needed).then_some(())).await;
    let status = cluster.status(wiped).await.unwrap();
    assert_eq!((status.state, status.last_log.length), (NodeState::Recovering, 0));
    assert_eq!(cluster.status(coordinator.node.0).await.unwrap().coordinator, Some(coordinator));
}

/// One code path for both strategies: with `raft`, Raft's own timeouts elect, and the rest is the same.
#[tokio::test(flavor = "multi_thread")]
async fn with_strategy_raft_a_killed_coordinator_is_replaced_too() {
    let mut cluster = TestCluster::start(3, "[election]\nstrategy = \"raft\"\n").await;
    let first = cluster.settled().await;
    cluster.kill(first.node.0);
    let second = cluster.settled_after(first.term.0).await;
    assert_ne!(first.node, second.node);
}

/// 100 starts with equal loads: exactly one confirmed coordinator each, and nobody wins a term twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_starts_with_equal_loads_confirm_one_coordinator_each() {
    for round in 0..100 {
        let cluster = TestCluster::start(3, "").await;
        let coordinator = cluster.settled().await;
        let won = cluster.won_terms(&[1, 2, 3]).await;
        assert_eq!(won.get(&coordinator.term.0), Some(&coordinator.node), "start {round}: {won:?}");
    }
}

/// The head of a file of the log.
const HEAD_BYTES: usize = 512;

/// Invariant 10: a node whose Raft has died does not stay behind as one that looks alive. Here a follower's disk has lost what it
/// had acknowledged, which the Raft library meets with a panic in the leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_ends_when_its_raft_panics() {
    let mut cluster = TestCluster::start(3, "").await;
    let first = cluster.settled().await;
    let leader = first.node.0;
    let follower = if leader == 1 { 2 } else { 1 };
    wait_for("the follower has the leader's log", async || {
        let (leader, follower) = (cluster.status(leader).await?, cluster.status(follower).await?);
        (leader.last_log == follower.last_log && leader.commit == follower.commit).then_some(())
    })
    .await;
    cluster.kill(follower);
    let log = cluster.directory().join(format!("data/node-{follower}/raft/log"));
    for file in std::fs::read_dir(log).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            let bytes = std::fs::read(&path).unwrap();
            let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            // Half of what stands behind the head.
            let kept = (HEAD_BYTES + written) / 2;
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(kept as u64).unwrap();
        }
    }
    cluster.spawn(follower);
    assert_eq!(cluster.ended(leader).await.code(), Some(1));
    assert!(cluster.log(leader).contains("raft has stopped"));
    cluster.settled_after(first.term.0).await;
    cluster.spawn(leader);
    cluster.settled_after(first.term.0).await;
}
