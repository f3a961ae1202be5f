//! Members that come, go and are replaced while the cluster runs, with real processes under load. Each test says which promise it keeps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{TestCluster, picture, wait_for};
use image_cloud::client::{ClientSettings, Cluster, Consistency, Job, Work};
use image_cloud::id::RequestId;
use image_cloud::protocol::election::Cause;
use image_cloud::protocol::event::EventKind;
use image_cloud::protocol::job::{SealForm, route as job_route};
use image_cloud::protocol::kv::{Batch, BatchOperation};
use image_cloud::protocol::membership::{MemberRole, Members, route};
use image_cloud::protocol::status::NodeState;
use image_cloud::time;
use tokio::task::JoinHandle;

const WRITERS: u64 = 3;

/// Writers and one that seals, on a cluster whose members change. Not one call may fail.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<Done, String>>>,
    users: Cluster,
}

/// What one caller has had done, and its longest wait.
struct Done {
    keys: Vec<String>,
    longest: Duration,
}

impl Load {
    /// Calls at these nodes, as they are configured: the callers never learn another configuration.
    fn start(cluster: &TestCluster, nodes: &[u16], seed: u64) -> Load {
        println!("seed {seed}");
        let addresses: Vec<_> = nodes.iter().map(|node| cluster.url(*node).parse().unwrap()).collect();
        let users = |seed| Cluster::new(ClientSettings::new(addresses.clone(), seed)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks: Vec<_> =
            (0..WRITERS).map(|writer| tokio::spawn(write(users(seed + writer), writer, stop.clone()))).collect();
        tasks.push(tokio::spawn(seal(users(seed + WRITERS), stop.clone())));
        Load { stop, tasks, users: users(seed + 100) }
    }

    /// Ends the load; every call was answered, and everything that was acknowledged is there.
    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut calls, mut longest) = (0, Duration::ZERO);
        for task in self.tasks {
            let done = task.await.unwrap().unwrap();
            assert!(!done.keys.is_empty(), "a caller had hardly anything done");
            calls += done.keys.len();
            longest = longest.max(done.longest);
            for key in done.keys.iter().filter(|key| key.starts_with("w/")) {
                let found = self.users.get_key(key, Consistency::Linearizable).await.unwrap();
                assert_eq!(found.map(|value| value.bytes), Some(Bytes::from(key.clone())), "{key} was acknowledged");
            }
        }
        println!("{calls} calls, none failed, the longest took {} ms", longest.as_millis());
    }
}

async fn write(users: Cluster, writer: u64, stop: Arc<AtomicBool>) -> Result<Done, String> {
    let mut done = Done { keys: Vec::new(), longest: Duration::ZERO };
    while !stop.load(Ordering::Relaxed) {
        let key = format!("w/{writer}/{}", done.keys.len());
        let (value, value_base64, expires_in_ms) = (Some(key.clone()), None, None);
        let put = BatchOperation::Put { key: key.clone(), value, value_base64, expires_in_ms };
        let id = RequestId((u128::from(writer + 1) << 64 | done.keys.len() as u128).to_be_bytes());
        let began = time::now();
        let written = users.write(id, &Batch { operations: vec![put] }).await;
        written.map_err(|error| format!("a write failed: {error}"))?;
        done.longest = done.longest.max(time::now().since(began));
        done.keys.push(key);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(done)
}

async fn seal(users: Cluster, stop: Arc<AtomicBool>) -> Result<Done, String> {
    let mut done = Done { keys: Vec::new(), longest: Duration::ZERO };
    while !stop.load(Ordering::Relaxed) {
        let number = done.keys.len();
        let id = RequestId((1u128 << 100 | number as u128).to_be_bytes());
        let (image, work) = (Bytes::from(picture(number as u8)), Work::Seal(SealForm::Compact));
        let began = time::now();
        let sealed = users.run(Job { id, image, name: "p.png".to_owned(), work }).await;
        sealed.map_err(|error| format!("a seal failed: {error}"))?;
        done.longest = done.longest.max(time::now().since(began));
        done.keys.push(format!("s/{number}"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(done)
}

/// The members as the leader shows them.
async fn members(cluster: &TestCluster) -> Members {
    wait_for("the leader shows the members", async || {
        let (code, stdout, _) = cluster.client("members -o json").await;
        let members: Members = serde_json::from_str(&stdout).ok().filter(|_| code == 0)?;
        members.leads.then_some(members)
    })
    .await
}

async fn voters(cluster: &TestCluster) -> Vec<(u16, String)> {
    let of = |members: Members| {
        let voters = members.members.into_iter().filter(|member| member.role == MemberRole::Voter);
        voters.map(|member| (member.node.0, member.address)).collect()
    };
    of(members(cluster).await)
}

/// Waits until the process waits to be taken in.
async fn waits(cluster: &TestCluster, id: u16) {
    wait_for("the new node answers", async || cluster.status(id).await).await;
}

/// A process that was told that it is no member any more has stopped, with its own exit code and a line that says why.
async fn has_stopped_as_removed(cluster: &mut TestCluster, id: u16) {
    assert_eq!(cluster.ended(id).await.code(), Some(5), "{}", cluster.log(id));
    let lines = cluster.log(id);
    let line = format!("cloud-node: node {} was removed from the cluster", cluster.node(id));
    assert_eq!(lines.matches(&line).count(), 1, "{lines}");
}

/// A follower of three or more, by the name of its process.
async fn follower(cluster: &TestCluster) -> u16 {
    let leader = cluster.settled().await.node.0;
    cluster.running().into_iter().find(|id| cluster.node(*id) != leader).unwrap()
}

/// Three nodes become four and five under load: nobody is kept waiting for long, nothing is lost, all replicas are equal.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_added_to_a_running_cluster_without_a_failed_call() {
    let mut cluster = TestCluster::start(3, "").await;
    let load = Load::start(&cluster, &[1, 2, 3], 1);
    for (id, warning) in [(4, Some("4 voters survive the loss of 1")), (5, None)] {
        cluster.join(id, id);
        waits(&cluster, id).await;
        let (code, _, stderr) = cluster.client(&cluster.change("add", id)).await;
        assert_eq!(code, 0, "{stderr}");
        assert!(stderr.contains(&format!("node {id} is added")), "{stderr}");
        assert_eq!(stderr.contains("warning: "), warning.is_some(), "{stderr}");
        assert!(stderr.contains(warning.unwrap_or_default()), "{stderr}");
    }
    cluster.settled().await;
    load.end().await;
    assert_eq!(voters(&cluster).await.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    cluster.replicas_are_equal(&[1, 2, 3, 4, 5]).await;
    // The newcomers count: with two of the first three gone, the majority is theirs.
    let leader = cluster.settled().await;
    cluster.kill(1);
    cluster.kill(2);
    let next = if leader.node.0 < 3 { cluster.settled_after(leader.term.0).await } else { cluster.settled().await };
    assert!([3, 4, 5].contains(&next.node.0));
    let at_the_new = format!("set after all --nodes {},{}", cluster.http_address(4), cluster.http_address(5));
    cluster.done(&at_the_new).await;
}

/// The acceptance: a running node 2 is replaced by another with an empty directory, elsewhere. No call fails; the old one is told and
/// stops; and with the old configuration everything comes back after a restart of all.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_is_replaced_and_everything_comes_back_with_the_old_configuration() {
    let mut cluster = TestCluster::start(3, "").await;
    let load = Load::start(&cluster, &[1, 2, 3], 2);
    cluster.join(12, 2);
    waits(&cluster, 12).await;
    cluster.done(&cluster.change("replace", 12)).await;
    has_stopped_as_removed(&mut cluster, 2).await;
    cluster.settled().await;
    load.end().await;
    let elsewhere = cluster.http_address(12).to_string();
    assert_eq!(voters(&cluster).await[1], (2, elsewhere.clone()));
    cluster.replicas_are_equal(&[1, 3, 12]).await;
    let (_, stdout, _) = cluster.client("status").await;
    assert!(stdout.contains(&elsewhere), "clients find it: {stdout}");

    // The old life is told again whenever it is started.
    cluster.spawn(2);
    has_stopped_as_removed_again(&mut cluster, 2).await;
    for id in [1, 3, 12] {
        cluster.kill(id);
    }
    cluster.spawn(1);
    cluster.spawn(3);
    cluster.spawn_elsewhere(12, &[]);
    cluster.settled().await;
    cluster.done("set after restart").await;
    cluster.replicas_are_equal(&[1, 3, 12]).await;
    assert_eq!(voters(&cluster).await[1], (2, elsewhere));
}

async fn has_stopped_as_removed_again(cluster: &mut TestCluster, id: u16) {
    assert_eq!(cluster.ended(id).await.code(), Some(5), "{}", cluster.log(id));
}

/// A dead node is replaced, first by a process elsewhere, then one whose disk was wiped in its old place, which was started without
/// --join and kept out until then.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_replaced_elsewhere_and_a_wiped_one_in_its_place() {
    let mut cluster = TestCluster::start(3, "").await;
    let load = Load::start(&cluster, &[1, 2, 3], 3);
    let dead = follower(&cluster).await;
    cluster.kill(dead);
    cluster.join(20 + dead, dead);
    waits(&cluster, 20 + dead).await;
    cluster.done(&cluster.change("replace", 20 + dead)).await;
    cluster.settled().await;

    let leader = cluster.settled().await.node.0;
    let wiped = [1, 2, 3].into_iter().find(|id| ![dead, leader].contains(id)).unwrap();
    cluster.kill(wiped);
    cluster.wipe(wiped);
    cluster.spawn(wiped);
    wait_for("it says what is needed", async || {
        cluster.log(wiped).contains(&format!("members replace {wiped}")).then_some(())
    })
    .await;
    cluster.done(&cluster.change("replace", wiped)).await;
    cluster.settled().await;
    load.end().await;
    let running = cluster.running();
    assert_eq!(running.len(), 3);
    cluster.replicas_are_equal(&running).await;
}

/// A follower leaves, then the leader, which hands over first and says why: no call fails, and whoever left is told and stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_and_the_leader_are_removed() {
    let mut cluster = TestCluster::start(5, "").await;
    let load = Load::start(&cluster, &[1, 2, 3, 4, 5], 4);
    let first = cluster.settled().await;
    let leaves = follower(&cluster).await;
    cluster.done(&format!("members remove {leaves}")).await;
    has_stopped_as_removed(&mut cluster, leaves).await;

    let (code, _, stderr) = cluster.client(&format!("members remove {}", first.node)).await;
    assert_eq!(code, 0, "{stderr}");
    has_stopped_as_removed(&mut cluster, first.node.0).await;
    let second = cluster.settled_after(first.term.0).await;
    load.end().await;
    let running = cluster.running();
    assert_eq!(voters(&cluster).await.into_iter().map(|(node, _)| node).collect::<Vec<_>>(), running);
    cluster.replicas_are_equal(&running).await;
    let causes: Vec<Cause> = cluster
        .events(second.node.0)
        .await
        .into_iter()
        .filter_map(|event| match event.what {
            EventKind::Elected(result) => Some(result.cause),
            _ => None,
        })
        .collect();
    assert_eq!(causes.last(), Some(&Cause::MembershipChange), "{causes:?}");
}

/// The leader itself is replaced: it hands over, the next one makes the change.
#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_replaced() {
    let mut cluster = TestCluster::start(3, "").await;
    let load = Load::start(&cluster, &[1, 2, 3], 5);
    let leader = cluster.settled().await.node.0;
    cluster.join(10 + leader, leader);
    waits(&cluster, 10 + leader).await;
    cluster.done(&cluster.change("replace", 10 + leader)).await;
    has_stopped_as_removed(&mut cluster, leader).await;
    cluster.settled().await;
    load.end().await;
    cluster.replicas_are_equal(&cluster.running()).await;
}

/// One voter becomes three and goes back to one, with a word about what it survives each time; and the last one stays.
#[tokio::test(flavor = "multi_thread")]
async fn one_node_becomes_three_and_one_again() {
    let mut cluster = TestCluster::start(1, "").await;
    wait_for("the single node says what it survives", async || {
        cluster.log(1).contains("one voter survives no loss").then_some(())
    })
    .await;
    for id in [2, 3] {
        cluster.join(id, id);
        waits(&cluster, id).await;
        cluster.done(&cluster.change("add", id)).await;
    }
    cluster.settled().await;
    for id in [2, 3] {
        cluster.done(&format!("members remove {id}")).await;
        has_stopped_as_removed(&mut cluster, id).await;
    }
    let (code, _, stderr) = cluster.client("members remove 1").await;
    assert_eq!(code, 1);
    assert!(stderr.contains("node 1 is the last voter"), "{stderr}");
    cluster.done("set still here").await;
}

/// A node that waits to be taken in learns nothing, takes no jobs and calls nobody; and one that nobody takes in stays so.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_waits_learns_nothing_and_takes_nothing() {
    let mut cluster = TestCluster::start(3, "").await;
    cluster.done("set secret word").await;
    cluster.join(4, 4);
    waits(&cluster, 4).await;
    // Longer than the time after which a node takes jobs without a coordinator.
    let waited = time::now();
    wait_for("a while has passed", async || {
        let status = cluster.status(4).await?;
        assert_eq!((status.state, status.last_log.length), (NodeState::Recovering, 0));
        assert!(status.peers.is_empty() && status.cluster_id.is_none(), "{status:?}");
        (time::now().since(waited) > Duration::from_millis(2_500)).then_some(())
    })
    .await;
    let refused = cluster.post(4, job_route::SEAL, picture(1)).await.unwrap();
    assert_eq!(refused.status().as_u16(), 503);
    let read = reqwest::get(cluster.url(4) + "/api/v1/kv/secret?stale=true").await.unwrap();
    assert_eq!(read.status().as_u16(), 404);
    assert!(!cluster.log(1).contains("node 4"), "it called nobody: {}", cluster.log(1));
    assert_eq!(cluster.status(1).await.unwrap().peers.len(), 2);
}

/// What cannot be is refused by name, changes nothing, and needs the token even to be asked.
#[tokio::test(flavor = "multi_thread")]
async fn every_change_that_cannot_be_is_refused_by_name() {
    let mut cluster = TestCluster::start(3, "").await;
    cluster.join(4, 4);
    waits(&cluster, 4).await;
    let before = voters(&cluster).await;
    let refused = async |cluster: &TestCluster, arguments: &str, code: i32, words: &str| {
        let (found, _, stderr) = cluster.client(arguments).await;
        assert_eq!(found, code, "{arguments}: {stderr}");
        assert!(stderr.contains(words), "{arguments}: {stderr}");
    };
    let (four, free) = (cluster.http_address(4), "127.0.0.1:9");
    refused(&cluster, &format!("members replace 7 {four}"), 3, "there is no node 7").await;
    refused(&cluster, "members remove 7", 3, "there is no node 7").await;
    refused(&cluster, &cluster.change("replace", 1), 1, "node 1 is a member already").await;
    refused(&cluster, &format!("members add 2 {four}"), 1, "node 2 is a member already").await;
    refused(&cluster, &format!("members add 4 {}", cluster.http_address(3)), 1, "overlaps with node 3").await;
    let at_three = format!("members add 4 {four} --peer {}", cluster.peer_address(3));
    refused(&cluster, &at_three, 1, "overlaps with node 3").await;
    refused(&cluster, &format!("members add 4 {free} --peer {free}"), 2, "at the same time").await;
    refused(&cluster, &format!("members add 4 {free}"), 1, "no node 4 of this cluster answers there").await;
    refused(&cluster, "members add 4 0.0.0.0:8004", 2, "no address at which others can reach").await;
    // Node 4 is there, and would be node 5.
    let as_five = format!("members add 5 {four} --peer {}", cluster.peer_address(4));
    refused(&cluster, &as_five, 1, "node 4").await;
    let nobody = format!("members add 4 {four} --admin-token-file {}/none", cluster.directory().display());
    refused(&cluster, &nobody, 3, "none").await;
    let post = reqwest::Client::new().post(cluster.url(1) + route::MEMBERS).header("content-type", "application/json");
    let unasked = post.body("{\"change\":\"remove\",\"node\":2}").send().await.unwrap();
    assert_eq!(unasked.status().as_u16(), 401);

    // One of three is gone: another must not go, nor may a fourth come that is not there; the dead one may.
    cluster.kill(4);
    let dead = follower(&cluster).await;
    cluster.kill(dead);
    let leader = cluster.settled().await.node.0;
    let other = [1, 2, 3].into_iter().find(|id| ![dead, leader].contains(id)).unwrap();
    let words =
        format!("would lose the quorum: of the 2 voters that there would be 1 answer now, 2 must; start node {dead}");
    wait_for("the dead one is missed", async || {
        let (code, _, stderr) = cluster.client(&format!("members remove {other}")).await;
        assert_eq!(code, 1, "{stderr}");
        stderr.contains(&words).then_some(())
    })
    .await;
    assert_eq!(voters(&cluster).await, before, "nothing was changed");
    cluster.done(&format!("members remove {dead}")).await;
}

/// A directory with a log is not taken in, not even that of a node that was removed; one that was emptied is.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_life_never_comes_back() {
    let mut cluster = TestCluster::start(3, "").await;
    cluster.join(4, 4);
    waits(&cluster, 4).await;
    cluster.done(&cluster.change("add", 4)).await;
    cluster.done("members remove 4").await;
    has_stopped_as_removed(&mut cluster, 4).await;
    cluster.spawn_elsewhere(4, &["--join"]);
    assert_eq!(cluster.ended(4).await.code(), Some(5), "it knows the others by its log, and is told");
    std::fs::remove_dir_all(cluster.directory().join("elsewhere-4/node-4")).unwrap();
    cluster.spawn_elsewhere(4, &["--join"]);
    waits(&cluster, 4).await;
    cluster.done(&cluster.change("add", 4)).await;
    cluster.settled().await;
    cluster.replicas_are_equal(&[1, 2, 3, 4]).await;
}

/// A member that was away while others changed learns of it, though it knows none of those who are there now by its own log.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_learns_who_the_others_are() {
    let mut cluster = TestCluster::start(3, "").await;
    let away = follower(&cluster).await;
    cluster.kill(away);
    let others: Vec<u16> = cluster.running();
    for id in &others {
        cluster.join(10 + id, *id);
        waits(&cluster, 10 + id).await;
        cluster.done(&cluster.change("replace", 10 + id)).await;
        has_stopped_as_removed(&mut cluster, *id).await;
    }
    cluster.spawn(away);
    cluster.settled().await;
    cluster.replicas_are_equal(&cluster.running()).await;
}

/// Two changes at once: one is made, the other is told to try again, or made after it.
#[tokio::test(flavor = "multi_thread")]
async fn one_change_at_a_time() {
    let mut cluster = TestCluster::start(3, "").await;
    for id in [4, 5] {
        cluster.join(id, id);
        waits(&cluster, id).await;
    }
    let changes = [cluster.change("add", 4), cluster.change("add", 5)];
    let (one, other) = tokio::join!(cluster.client(&changes[0]), cluster.client(&changes[1]));
    for (code, _, stderr) in [&one, &other] {
        assert!(*code == 0 || stderr.contains("another change of the members is not finished yet"), "{stderr}");
    }
    assert!([one.0, other.0].contains(&0));
    for (id, (code, ..)) in [4, 5].into_iter().zip([one, other]) {
        if code != 0 {
            cluster.done(&cluster.change("add", id)).await;
        }
    }
    assert_eq!(voters(&cluster).await.len(), 5);
    cluster.settled().await;
}
