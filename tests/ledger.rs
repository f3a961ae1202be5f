//! The key-value store on real processes: what users type, leaders that die, majorities that are lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::TestCluster;
use image_cloud::client::{ClientError, ClientSettings, Cluster, Consistency};
use image_cloud::id::RequestId;
use image_cloud::protocol::kv::{Batch, BatchOperation, Written, route, text_or_base64};
use image_cloud::protocol::ledger::KvResult;
use image_cloud::protocol::problem::{Problem, ProblemCode};

/// Runs `client` on the cluster.
fn client(cluster: &TestCluster, arguments: &[&str]) -> Output {
    let config = cluster.directory().join("cluster.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.args(arguments).arg("--config").arg(config).stdin(Stdio::null()).output().unwrap()
}

/// The program must end with that code and print that line.
#[track_caller]
fn check(output: &Output, code: i32, stdout: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), stdout, "{error}");
}

/// The client library on these nodes.
fn library(cluster: &TestCluster, nodes: &[u16]) -> Cluster {
    let addresses = nodes.iter().map(|node| cluster.url(*node).parse().unwrap()).collect();
    Cluster::new(ClientSettings::new(addresses, 7)).unwrap()
}

fn put(key: &str, value: &str) -> Batch {
    let (key, value) = (key.to_owned(), Some(value.to_owned()));
    Batch { operations: vec![BatchOperation::Put { key, value, value_base64: None, expires_in_ms: None }] }
}

fn add(key: &str, by: i64, floor: i64) -> Batch {
    Batch { operations: vec![BatchOperation::Add { key: key.to_owned(), by, floor: Some(floor) }] }
}

fn id(number: u64) -> RequestId {
    RequestId(u128::from(number).to_be_bytes())
}

fn code(error: &ClientError) -> Option<ProblemCode> {
    match error {
        ClientError::Exchange { source: image_cloud::client::AttemptError::Refused(problem), .. } => Some(problem.code),
        _ => None,
    }
}

async fn problem(response: reqwest::Response) -> Problem {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// The README's key-value commands do what it says, each with its exit code.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_that_users_type() {
    let cluster = TestCluster::start(3, "").await;
    check(&client(&cluster, &["set", "color", "blue"]), 0, "");
    check(&client(&cluster, &["get", "color"]), 0, "blue");
    check(&client(&cluster, &["cas", "color", "blue", "red"]), 0, "");
    check(&client(&cluster, &["cas", "color", "blue", "green"]), 1, "");
    check(&client(&cluster, &["read", "color", "--raw"]), 0, "red");
    check(&client(&cluster, &["incr", "views", "2"]), 0, "2");
    check(&client(&cluster, &["incr", "views", "-1", "--floor", "0"]), 0, "1");
    check(&client(&cluster, &["incr", "views", "-2", "--floor", "0"]), 1, "");
    check(&client(&cluster, &["set", "color", "x", "--if-absent"]), 1, "");
    check(&client(&cluster, &["delete", "color"]), 0, "");
    check(&client(&cluster, &["delete", "color"]), 3, "");
    check(&client(&cluster, &["get", "color"]), 3, "");
    let listed = client(&cluster, &["list", "-o", "json"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(r#""key":"views","value":"1""#), "{listed:?}");
    let leader = cluster.settled().await;
    check(&client(&cluster, &["leader"]), 0, &format!("node {} in term {}", leader.node, leader.term));
    let hash = client(&cluster, &["hash"]);
    assert!(hash.status.success() && String::from_utf8_lossy(&hash.stdout).contains("equal"), "{hash:?}");
}

/// curl works, too: any node sends the caller to the leader, and a key that cannot be is refused by its own line.
#[tokio::test(flavor = "multi_thread")]
async fn every_node_answers_or_names_the_leader_and_bad_keys_are_refused() {
    let cluster = TestCluster::start(3, "").await;
    let leader = cluster.settled().await.node.0;
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    let http = reqwest::Client::new();
    let url = |node: u16, key: &str| format!("{}{}/{key}", cluster.url(node), route::KV);
    let value = vec![0xff, 0, 7];
    let written = http.put(url(follower, "a%2Fb")).body(value.clone()).send().await.unwrap();
    assert!(written.status().is_success(), "the redirection is followed: {:?}", problem(written).await);
    let read = reqwest::get(url(follower, "a/b")).await.unwrap();
    assert_eq!(read.headers()[route::VERSION], "1");
    assert_eq!(read.bytes().await.unwrap(), value);

    let long = "k".repeat(4097);
    let large = vec![0; (1 << 20) + 1];
    let cases = [
        (url(leader, ""), vec![1], ProblemCode::BadRequest, "empty"),
        (url(leader, "%ff"), vec![1], ProblemCode::BadRequest, "UTF-8"),
        (url(leader, &long), vec![1], ProblemCode::TooLarge, "4097"),
        (url(leader, "k?expires_in_ms=0"), vec![1], ProblemCode::BadRequest, "at least 1"),
        (url(leader, "k"), large, ProblemCode::TooLarge, "1048577"),
        (url(leader, "k?expires=5"), vec![1], ProblemCode::BadRequest, "expires"),
    ];
    for (url, body, code, word) in cases {
        let problem = problem(http.put(&url).body(body).send().await.unwrap()).await;
        assert_eq!(problem.code, code, "{problem:?}");
        assert!(problem.detail.contains(word), "{problem:?}");
    }
    let limit = vec![5; 1 << 20];
    let at_limit = http.put(url(leader, &long[..4096])).body(limit).send().await.unwrap();
    assert!(at_limit.status().is_success(), "what is allowed fits: {:?}", problem(at_limit).await);
    cluster.replicas_are_equal(&[1, 2, 3]).await;
}

/// An acknowledged write survives the leader's kill -9, and a request that comes again at the next leader is not done again.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_the_leader_and_repeated_ids_are_done_once() {
    let mut cluster = TestCluster::start(3, "").await;
    let users = library(&cluster, &[1, 2, 3]);
    let first = users.write(id(1), &add("views", 5, 0)).await.unwrap();
    let mut term = 0;
    for round in 0..3 {
        let leader = cluster.settled_after(term).await;
        term = leader.term.0;
        cluster.kill(leader.node.0);
        assert_eq!(users.write(id(1), &add("views", 5, 0)).await.unwrap(), first, "the answer of the first time");
        users.write(id(10 + round), &add("views", -1, 0)).await.unwrap();
        cluster.spawn(leader.node.0);
    }
    let views = users.get_key("views", Consistency::Linearizable).await.unwrap().unwrap();
    assert_eq!(&views.bytes[..], b"2");
    let other = users.write(id(1), &add("views", 6, 0)).await.unwrap_err();
    assert_eq!(code(&other), Some(ProblemCode::BadRequest), "{other}");
    cluster.replicas_are_equal(&[1, 2, 3]).await;
}

/// Without a majority nothing is written and nothing is said to be; when it is back, everything is there.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_there_is_no_answer_but_no_quorum() {
    let mut cluster = TestCluster::start(5, "").await;
    let users = library(&cluster, &[1, 2, 3, 4, 5]);
    users.write(id(1), &put("color", "blue")).await.unwrap();
    let leader = cluster.settled().await.node.0;
    let others: Vec<u16> = (1..=5).filter(|node| *node != leader).collect();
    cluster.kill(others[0]);
    cluster.kill(others[1]);
    users.write(id(2), &put("color", "red")).await.unwrap();

    // The leader stays, with one follower: it still believes that it leads, and may have taken the write into its log.
    cluster.kill(others[2]);
    let refused = users.write(id(3), &put("color", "lost")).await.unwrap_err();
    assert!(matches!(code(&refused), Some(ProblemCode::NoQuorum | ProblemCode::OutcomeUnknown)), "{refused}");
    assert!(refused.to_string().contains("no quorum"), "{refused}");
    let refused = users.get_key("color", Consistency::Linearizable).await.unwrap_err();
    assert_eq!(code(&refused), Some(ProblemCode::NoQuorum), "{refused}");
    check(&client(&cluster, &["set", "color", "lost"]), 4, "");
    let stale = users.get_key("color", Consistency::Stale).await.unwrap().unwrap();
    assert_eq!(&stale.bytes[..], b"red", "what is known can still be read");

    for node in &others[..3] {
        cluster.spawn(*node);
    }
    cluster.settled().await;
    users.write(id(4), &put("shape", "round")).await.unwrap();
    cluster.replicas_are_equal(&[1, 2, 3, 4, 5]).await;
}

/// A follower that is cut off does not send callers to the leader that it cannot hear: it says that there is no quorum.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_misses_its_leader_sends_nobody_there() {
    let cluster = TestCluster::start(3, "").await;
    let leader = cluster.settled().await.node.0;
    let lonely = (1..=3).find(|node| *node != leader).unwrap();
    let others: Vec<String> = (1..=3).filter(|node| *node != lonely).map(|node| node.to_string()).collect();
    cluster.done(&format!("partition {}/{lonely}", others.join(","))).await;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let url = format!("{}{}/color", cluster.url(lonely), route::KV);
    common::wait_for("it says that there is no quorum", async || {
        let written = problem(http.put(&url).body("lost").send().await.unwrap()).await;
        let read = problem(http.get(&url).send().await.unwrap()).await;
        (written.code == ProblemCode::NoQuorum && read.code == ProblemCode::NoQuorum).then_some(())
    })
    .await;
    cluster.done("heal").await;
    cluster.settled().await;
    cluster.replicas_are_equal(&[1, 2, 3]).await;
}

/// A key with an expiry is gone in time although nobody writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_expires_although_nobody_writes() {
    let cluster = TestCluster::start(1, "").await;
    let users = library(&cluster, &[1]);
    let operations = vec![BatchOperation::Put {
        key: "session".into(),
        value: Some("alice".into()),
        value_base64: None,
        expires_in_ms: Some(300),
    }];
    users.write(id(1), &Batch { operations }).await.unwrap();
    common::wait_for("the key is gone", async || {
        users.get_key("session", Consistency::Linearizable).await.unwrap().is_none().then_some(())
    })
    .await;
}

/// A restart with 100,000 keys in log and snapshots finds them all.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_log_and_snapshot() {
    let mut cluster = TestCluster::start(1, "").await;
    let users = library(&cluster, &[1]);
    // Many in flight, so that they share entries and syncs.
    let writers = (0..64u64).map(|writer| {
        let users = users.clone();
        async move {
            for round in 0..8u64 {
                let number = writer * 8 + round;
                let put = |index: u64| BatchOperation::Put {
                    key: format!("key-{number}-{index}"),
                    value: Some("x".repeat(16)),
                    value_base64: None,
                    expires_in_ms: None,
                };
                let batch = Batch { operations: (0..200).map(put).collect() };
                let written: Written = users.write(id(1000 + number), &batch).await.unwrap();
                assert_eq!(written.results, vec![KvResult::Put; 200]);
            }
        }
    });
    futures::future::join_all(writers).await;
    let before = users.state_hashes().await[0].1.clone().unwrap();
    cluster.kill(1);
    cluster.spawn(1);
    let settled = cluster.settled().await;
    assert_eq!(settled.node.0, 1);
    for key in ["key-0-0", "key-511-199"] {
        assert!(users.get_key(key, Consistency::Linearizable).await.unwrap().is_some(), "{key}");
    }
    let after = users.state_hashes().await[0].1.clone().unwrap();
    assert!(after.commit >= before.commit);
    check(&client(&cluster, &["incr", "visits"]), 0, "1");
}

/// Ten times what may wait is shed at once, by name, and what was taken is answered.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_writes_are_refused_at_once() {
    let cluster = TestCluster::start(1, "").await;
    let url = format!("{}{}/load", cluster.url(1), route::KV);
    let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
    let writes = (0..400).map(|_| http.put(&url).body(vec![7; 1 << 20]).send());
    let mut done = 0;
    for response in futures::future::join_all(writes).await {
        let response = response.unwrap();
        match response.status().as_u16() {
            200 => done += 1,
            _ => {
                let problem = problem(response).await;
                assert_eq!(problem.code, ProblemCode::Overloaded, "{problem:?}");
                assert!(problem.retry_after_ms.is_some(), "{problem:?}");
            }
        }
    }
    assert!(done > 0, "what was taken is answered");
}

/// Over the limit of waiting writes each further one is refused by name, with the time to wait: what was acknowledged is there, what
/// was refused is not.
#[tokio::test(flavor = "multi_thread")]
async fn writes_over_the_limit_are_shed_and_none_is_lost() {
    let cluster = TestCluster::start(3, "[limits]\nwaiting_writes = 8\n").await;
    let leader = cluster.settled().await.node.0;
    let http = reqwest::Client::new();
    let (mut done, mut shed) = (BTreeSet::new(), 0);
    for round in 0..100 {
        let writes = (0..80).map(async |number| {
            let key = format!("{round:03}-{number:02}");
            let url = format!("{}{}/{key}", cluster.url(leader), route::KV);
            (key, http.put(url).body("x").send().await.unwrap())
        });
        for (key, response) in futures::future::join_all(writes).await {
            if response.status().is_success() {
                done.insert(key);
                continue;
            }
            let pause: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            let problem = problem(response).await;
            assert_eq!((problem.code, problem.status), (ProblemCode::Overloaded, 503), "{problem:?}");
            assert!(problem.retry_after_ms.unwrap().div_ceil(1000) == pause && pause > 0, "{problem:?}");
            shed += 1;
        }
        if round >= 2 && shed > 0 {
            break;
        }
    }
    assert!(shed > 0, "nothing was shed of {} writes", done.len());
    let users = library(&cluster, &[1, 2, 3]);
    let (mut found, mut after) = (BTreeSet::new(), None);
    loop {
        let page = users.list_keys("", after.as_deref(), 1000, Consistency::Linearizable).await.unwrap();
        found.extend(page.items.into_iter().map(|item| item.key));
        if !page.more {
            break;
        }
        after = found.last().cloned();
    }
    assert_eq!(found, done);
}

/// The limits of keys and values are the configuration's: smaller ones are refused by their names, larger ones travel between nodes.
#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_keys_and_values_can_be_configured() {
    let cluster = TestCluster::start(3, "[limits]\nkey_bytes = 8\nvalue_kib = 1536\n").await;
    let leader = cluster.settled().await.node.0;
    let url = |key: &str| format!("{}{}/{key}", cluster.url(leader), route::KV);
    let http = reqwest::Client::new();
    let value = vec![7; 1536 << 10];
    assert!(http.put(url("12345678")).body(value.clone()).send().await.unwrap().status().is_success());
    let users = library(&cluster, &[1, 2, 3]);
    assert_eq!(users.get_key("12345678", Consistency::Linearizable).await.unwrap().unwrap().bytes.len(), value.len());
    for (key, body, limit) in
        [("123456789", value.clone(), "limits.key_bytes"), ("k", [value, vec![7]].concat(), "limits.value_kib")]
    {
        let refused = problem(http.put(url(key)).body(body).send().await.unwrap()).await;
        assert_eq!(refused.code, ProblemCode::TooLarge);
        assert!(refused.detail.contains(limit), "{refused:?}");
    }
    cluster.replicas_are_equal(&[1, 2, 3]).await;
}

/// A watcher sees every change once and in order, also when the node that it watches at is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_another_node_without_a_gap() {
    let mut cluster = TestCluster::start(3, "").await;
    let leader = cluster.settled().await.node.0;
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    let users = library(&cluster, &[leader]);
    let first = users.write(id(1), &put("seen/0", "0")).await.unwrap();
    let mut watch = library(&cluster, &[follower, leader]).watch("seen/", Some(first.revision - 1));
    assert_eq!(watch.next().await.unwrap().key, "seen/0", "what was before is asked for by its revision");
    for number in 1..=20u64 {
        if number == 10 {
            cluster.kill(follower);
        }
        users.write(id(100 + number), &put("other", "x")).await.unwrap();
        let written = users.write(id(1 + number), &put(&format!("seen/{number}"), "x")).await.unwrap();
        let changed = tokio::time::timeout(common::DEADLINE, watch.next()).await.expect("it is told").unwrap();
        assert_eq!((changed.key, changed.revision), (format!("seen/{number}"), written.revision));
    }
    users.write(id(1000), &Batch { operations: vec![BatchOperation::Delete { key: "seen/1".into() }] }).await.unwrap();
    assert_eq!(watch.next().await.unwrap().item, None);
}

/// What `set` writes, `get` reads and `delete` removes, whatever the key looks like in an address.
#[tokio::test(flavor = "multi_thread")]
async fn any_key_is_set_read_and_removed() {
    let cluster = TestCluster::start(1, "").await;
    let users = library(&cluster, &[1]);
    let keys = [
        "foo", "/foo", "//foo", "foo/", "a/../b", "b", "a/./b", "a//b", ".", "..", "../a", "%2e%2e", "a%2fb",
        "a b?c#d", "\\",
    ];
    for (number, key) in (1..).zip(keys) {
        users.write(id(number), &put(key, key)).await.unwrap();
    }
    for (number, key) in (100..).zip(keys) {
        let found = users.get_key(key, Consistency::Linearizable).await.unwrap();
        assert_eq!(found.expect(key).bytes, key.as_bytes(), "{key:?}");
        let delete = Batch { operations: vec![BatchOperation::Delete { key: key.into() }] };
        users.write(id(number), &delete).await.unwrap();
        assert_eq!(users.get_key(key, Consistency::Linearizable).await.unwrap(), None, "{key:?}");
    }
}

/// A value that JSON would blow up to six times its size is read, listed and watched like any other; and a watcher learns where it begins
/// before anything has changed.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_values_are_listed_and_watched() {
    let cluster = TestCluster::start(1, "").await;
    let users = library(&cluster, &[1]);
    let zeros = vec![0u8; 1 << 20];
    let (value, value_base64) = text_or_base64(&zeros);
    let mut revisions = Vec::new();
    for number in 1..=3u64 {
        let (value, value_base64) = (value.clone(), value_base64.clone());
        let operation = BatchOperation::Put { key: format!("k{number}"), value, value_base64, expires_in_ms: None };
        revisions.push(users.write(id(number), &Batch { operations: vec![operation] }).await.unwrap().revision);
    }
    let page = users.list_keys("k", None, 1000, Consistency::Linearizable).await.unwrap();
    assert_eq!((page.items.len(), page.more), (1, true), "a page is bounded");
    assert_eq!(page.items[0].bytes().unwrap(), zeros);
    let mut watch = users.watch("k", Some(revisions[0] - 1));
    for revision in revisions {
        let changed = tokio::time::timeout(common::DEADLINE, watch.next()).await.expect("it is told").unwrap();
        assert_eq!((changed.revision, changed.item.unwrap().bytes().unwrap().len()), (revision, zeros.len()));
    }
}
