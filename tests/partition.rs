//! Real processes whose links are cut, slow or lossy, by the `client` program. Each test says which promise it keeps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;

use std::time::Duration;

use common::{TestCluster, picture, wait_for};
use image_cloud::protocol::event::EventKind;
use image_cloud::protocol::job::route;
use image_cloud::protocol::status::Leadership;
use image_cloud::time;

/// Ten times the default timings, but for the dead-man switch: a busy machine that stands still for half a second must not be taken
/// for a fault of a link.
const PATIENT: &str = "[election]\nheartbeat_ms = 200\nsuspicion_ms = 1500\nraft_heartbeat_ms = 500\nraft_election_min_ms = 2000\n\
    raft_election_max_ms = 3000\nround_timeout_ms = 600\nnominee_timeout_ms = 1500\n";

/// The coordinator and the two others.
fn sides(cluster: &TestCluster, coordinator: Leadership) -> (u16, [u16; 2]) {
    let others: Vec<u16> = cluster.running().into_iter().filter(|id| *id != coordinator.node.0).collect();
    (coordinator.node.0, others.try_into().unwrap())
}

/// Waits until these nodes name one coordinator of a later term than `before`.
async fn replaced(cluster: &TestCluster, before: Leadership, nodes: [u16; 2]) -> Leadership {
    wait_for("the majority confirms another coordinator", async || {
        let a = cluster.status(nodes[0]).await?.coordinator?;
        let b = cluster.status(nodes[1]).await?.coordinator?;
        (a == b && a.is_later_than(Some(before))).then_some(a)
    })
    .await
}

/// Polls for so long that no later term begins at these nodes, and that they name that coordinator or, for a moment, none.
async fn stays(cluster: &TestCluster, coordinator: Leadership, nodes: &[u16], duration: Duration) {
    let end = time::now() + duration;
    while time::now() < end {
        for id in nodes {
            let Some(status) = cluster.status(*id).await else { continue };
            assert_eq!(status.term, coordinator.term, "at node {id}");
            assert!(
                status.coordinator.is_none_or(|known| known == coordinator),
                "{:?} at node {id}",
                status.coordinator
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// After healing: one coordinator in the latest term, every node agrees, every log is equally long, no term was won twice.
async fn heals(cluster: &TestCluster) -> Leadership {
    cluster.done("heal").await;
    let coordinator = wait_for("all agree and have caught up", async || {
        let mut views = Vec::new();
        for id in cluster.running() {
            let status = cluster.status(id).await?;
            assert!(status.faults.is_empty(), "{:?}", status.faults);
            views.push((status.coordinator?, status.last_log, status.commit, status.applied));
        }
        let first = views[0];
        (views.iter().all(|view| *view == first) && first.2 == first.3).then_some(first.0)
    })
    .await;
    cluster.won_terms(&cluster.running()).await;
    coordinator
}

/// E2, and the table of planes: the majority confirms a new coordinator; the old one, alone, commits nothing and goes on sealing;
/// after healing there is one, and all agree.
#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_in_the_minority_is_replaced_and_follows_after_healing() {
    let cluster = TestCluster::start(3, PATIENT).await;
    let first = cluster.settled().await;
    let (old, majority) = sides(&cluster, first);
    let [a, b] = majority;
    cluster.done(&format!("partition {old}/{a},{b}")).await;
    let second = replaced(&cluster, first, majority).await;
    assert_ne!(second.node, first.node);

    // By its own word the old one may go on coordinating its old term: it has not heard of another. It never names a later term,
    // and nothing that it would decide is committed.
    let before = cluster.status(old).await.unwrap();
    let end = time::now() + Duration::from_secs(4);
    while time::now() < end {
        let status = cluster.status(old).await.unwrap();
        assert!(status.coordinator.is_none_or(|coordinator| coordinator == first), "{:?}", status.coordinator);
        assert_eq!(status.commit, before.commit, "a minority committed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let response = cluster.post(old, route::SEAL, picture(1)).await.unwrap();
    assert!(response.status().is_success(), "sealing needs no majority: {}", response.status());
    let (_, table, _) = cluster.client("status").await;
    assert!(table.contains(&format!("coordinator: node {} since term {}", second.node, second.term)), "{table}");
    assert!(table.contains(&format!("node {a}: link to node {old}: cut both ways")), "{table}");

    assert_eq!(heals(&cluster).await, second, "the returning node deposes nobody");
}

/// A coordinator whose messages are lost is replaced although it hears everybody, and it follows the new one at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_not_heard_is_replaced_and_follows() {
    let cluster = TestCluster::start(3, PATIENT).await;
    let first = cluster.settled().await;
    let (old, [a, b]) = sides(&cluster, first);
    cluster.done(&format!("partition --one-way {old}/{a},{b}")).await;
    let second = cluster.settled_after(first.term.0).await;
    assert_ne!(second.node, first.node);
    assert_eq!(heals(&cluster).await, second);
}

/// E3: a follower that nobody hears deposes nobody, nor does one that hears nobody; not even when its dead-man switch is on.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_mute_or_deaf_does_not_depose_a_healthy_coordinator() {
    let cluster = TestCluster::start(3, PATIENT).await;
    let first = cluster.settled().await;
    let (coordinator, [cut, other]) = sides(&cluster, first);
    cluster.done(&format!("partition --one-way {cut}/{coordinator},{other}")).await;
    stays(&cluster, first, &[1, 2, 3], Duration::from_secs(4)).await;
    cluster.done(&format!("partition --one-way {coordinator},{other}/{cut}")).await;
    stays(&cluster, first, &[coordinator, other], Duration::from_secs(9)).await;
    assert_eq!(heals(&cluster).await, first, "a returning node raises no term");
}

/// E3: with one link cut, a follower misses the coordinator and the other one does not: one against two deposes nobody.
#[tokio::test(flavor = "multi_thread")]
async fn one_cut_link_to_a_coordinator_that_the_other_hears_deposes_nobody() {
    let cluster = TestCluster::start(3, PATIENT).await;
    let first = cluster.settled().await;
    let (coordinator, [cut, other]) = sides(&cluster, first);
    cluster.done(&format!("partition --only {coordinator}/{cut}")).await;
    stays(&cluster, first, &[coordinator, other], Duration::from_secs(9)).await;
    assert_eq!(heals(&cluster).await, first);
}

/// A third of the suspicion time on every link, each way (50 ms with the default timings), is no reason for an election.
#[tokio::test(flavor = "multi_thread")]
async fn slow_links_cause_no_election() {
    let cluster = TestCluster::start(3, PATIENT).await;
    let first = cluster.settled().await;
    cluster.done("slow 1/2/3 --delay 500ms").await;
    stays(&cluster, first, &[1, 2, 3], Duration::from_secs(5)).await;
    for id in 1..=3 {
        let events = cluster.events(id).await;
        let suspicions = events.iter().filter(|event| matches!(event.what, EventKind::Suspected { .. })).count();
        assert_eq!(suspicions, 0, "at node {id}");
        assert!(matches!(&events.last().unwrap().what, EventKind::LinkFaults { faults } if faults.len() == 2));
    }
    assert_eq!(heals(&cluster).await, first);
}

/// Elections repeat what is lost: with one message in ten lost on every link, a killed coordinator is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_tenth_of_all_messages_lost_a_killed_coordinator_is_replaced() {
    let mut cluster = TestCluster::start(3, PATIENT).await;
    let first = cluster.settled().await;
    let (old, others) = sides(&cluster, first);
    cluster.done("slow 1/2/3 --delay 5ms --jitter 5ms --loss 10%").await;
    cluster.kill(old);
    replaced(&cluster, first, others).await;
    cluster.spawn(old);
    let (code, _, stderr) = cluster.client("heal").await;
    // The node that has just been started may not answer yet; it has no faults.
    assert!(code == 0 || code == 4, "{stderr}");
    heals(&cluster).await;
}

/// A majority that is cut into pieces confirms nobody new; healed, the cluster goes on.
#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_hears_anybody_no_coordinator_is_confirmed() {
    let cluster = TestCluster::start(3, PATIENT).await;
    let first = cluster.settled().await;
    let (old, [a, b]) = sides(&cluster, first);
    cluster.done("partition 1/2/3").await;
    wait_for("the followers know no coordinator", async || {
        let (a, b) = (cluster.status(a).await?, cluster.status(b).await?);
        (a.coordinator.is_none() && b.coordinator.is_none()).then_some(())
    })
    .await;
    // Longer than the dead-man switch and Raft's own elections wait.
    let end = time::now() + Duration::from_secs(8);
    while time::now() < end {
        for id in [old, a, b] {
            let known = cluster.status(id).await.unwrap().coordinator;
            assert!(known.is_none_or(|known| known == first && id == old), "node {id} names {known:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    heals(&cluster).await;
}

/// Every wrong call has an error and an exit code of its own, and a partition that could not be told to all is called partial.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_partial_partitions_say_so() {
    let mut cluster = TestCluster::start(3, PATIENT).await;
    cluster.settled().await;
    for (arguments, expected, part) in [
        ("partition 1,2/9", 3, "no node 9 is known"),
        ("partition 1/2", 2, "node 3 is in no group"),
        ("partition 1,2,3", 2, "is one group"),
        ("partition 1,2/2,3", 2, "node 2 is named twice"),
        ("partition --one-way 1/2/3", 2, "--one-way is from one group to another"),
        ("slow 1/9 --loss 5%", 3, "no node 9 is known"),
        ("slow 1/2 --delay 5ms --jitter 6ms", 2, "--jitter is 6 ms"),
        ("slow 1/2 --delay 11s", 2, "--delay is 11000 ms"),
    ] {
        let (code, _, stderr) = cluster.client(arguments).await;
        assert!(code == expected && stderr.contains(part), "{arguments}: {code} {stderr}");
        for id in 1..=3 {
            assert!(cluster.status(id).await.unwrap().faults.is_empty(), "{arguments} changed node {id}");
        }
    }
    for (faults, part) in [
        ("[{\"peer\":9,\"cut_in\":true}]", "no link to a node 9: its peers are 2, 3"),
        ("[{\"peer\":2,\"loss\":2}]", "loss is 2"),
        ("[{\"peer\":2,\"cut\":true}]", "unknown field `cut`"),
    ] {
        let refused = cluster.post_json(1, route::FAULTS, faults).await;
        let (status, text) = (refused.status().as_u16(), refused.text().await.unwrap());
        assert!(status == 400 && text.contains(part), "{faults}: {status} {text}");
    }
    cluster.kill(3);
    let (code, _, stderr) = cluster.client("partition 1,2/3").await;
    assert!(code == 4 && stderr.contains("is partial") && stderr.contains("node 3:"), "{code} {stderr}");
    assert_eq!(cluster.status(1).await.unwrap().faults.len(), 1, "the others were told");
    let (code, _, stderr) = cluster.client("heal").await;
    assert!(code == 4 && stderr.contains("node 3:"), "{code} {stderr}");
    assert!(cluster.status(1).await.unwrap().faults.is_empty());
}
