//! The client library against fake nodes: which promise each test keeps is its name.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

#[path = "client/fake.rs"]
mod fake;
#[path = "client/program.rs"]
mod program;
#[path = "common/wait.rs"]
mod wait;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fake::{Announcing, FakeNode, Uploading, finished};
use futures::future::join_all;
use image_cloud::client::{
    Answer, AttemptError, ClientError, ClientSettings, Cluster, Consistency, FailTarget, Job, NodeAddress, PlacedBy,
    Work,
};
use image_cloud::id::{NodeId, RequestId};
use image_cloud::protocol::job::{Label, SealForm};
use image_cloud::protocol::kv::{Batch, BatchOperation, Changed};
use image_cloud::protocol::problem::{Problem, ProblemCode};
use image_cloud::protocol::status::NodeState;
use image_cloud::time::now;
use wait::wait_for;

const SEED: u64 = 42;

/// A job with `number` as its id.
fn job(number: u128) -> Job {
    Job {
        id: RequestId(number.to_be_bytes()),
        image: Bytes::from_static(b"a picture"),
        name: "cat.png".into(),
        work: Work::Seal(SealForm::Compact),
    }
}

fn nodes<const N: usize>() -> [FakeNode; N] {
    println!("seed {SEED}");
    std::array::from_fn(|index| FakeNode::start(index as u16 + 1))
}

fn settings(nodes: &[FakeNode]) -> ClientSettings {
    ClientSettings::new(nodes.iter().map(FakeNode::address).collect(), SEED)
}

fn cluster(nodes: &[FakeNode]) -> Cluster {
    Cluster::new(settings(nodes)).unwrap()
}

/// An address where nobody listens.
fn nobody() -> NodeAddress {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    NodeAddress { node: None, url: format!("http://{}", listener.local_addr().unwrap()) }
}

fn failures(answer: &Answer) -> Vec<&str> {
    answer.attempts.iter().map(|attempt| attempt.failure.as_deref().unwrap_or("ok")).collect()
}

fn all_know_coordinator(nodes: &[FakeNode], coordinator: u16, placement: u16) {
    for node in nodes {
        node.set(|script| {
            script.coordinator = Some((4, coordinator));
            script.placement = (node.id.0 == coordinator).then_some(placement);
        });
    }
}

#[test]
fn the_futures_can_be_spawned_and_the_cluster_shared() {
    fn check(cluster: Cluster) {
        fn sendable(_: impl Send) {}
        sendable(cluster.run(job(1)));
        sendable(cluster.status());
        sendable(cluster.fail(FailTarget::Coordinator, Duration::ZERO));
        sendable(cluster.events(NodeId(1), 0));
        sendable(cluster.coordinator());
    }
    let _ = check;
    fn shareable<T: Send + Sync + Clone + 'static>() {}
    shareable::<Cluster>();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinators_placement_is_followed_although_another_node_has_less_load() {
    let nodes: [FakeNode; 3] = nodes();
    all_know_coordinator(&nodes, 2, 3);
    nodes[2].set(|script| script.load = 9.0);
    let cluster = cluster(&nodes);
    // The ids are learned from the first answers, so the second request at the latest can be placed by id.
    for number in 0..10 {
        let answer = cluster.run(job(number)).await.unwrap();
        assert_eq!(answer.node, NodeId(3));
        assert_eq!(answer.image, finished(b"a picture"));
        assert_eq!(answer.job_time, Duration::from_micros(1500));
        assert_eq!(answer.attempts[0].placed_by, PlacedBy::Coordinator);
        assert_eq!(failures(&answer), ["ok"]);
    }
    let is_whole = |query: &str, size| query == "form=compact&name=cat.png" && size == 9;
    assert!(nodes[2].seen().uploads.iter().all(|(_, query, size)| is_whole(query, *size)));
    for node in &nodes[..2] {
        assert!(node.seen().uploads.is_empty(), "the image travels once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_goes_to_its_own_route_with_names_and_quota() {
    let nodes: [FakeNode; 1] = nodes();
    let work = Work::Label(Label { usernames: vec!["alice".into(), "bob".into()], quota: 5 });
    cluster(&nodes).run(Job { work, ..job(1) }).await.unwrap();
    assert_eq!(nodes[0].seen().uploads[0].1, "to=alice%2Cbob&quota=5");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_coordinator_the_client_takes_the_lowest_load_at_once() {
    let nodes: [FakeNode; 3] = nodes();
    nodes[0].set(|script| script.load = 1.0);
    nodes[1].set(|script| script.load = 0.5);
    nodes[2].set(|script| script.state = NodeState::Recovering);
    let answer = cluster(&nodes).run(job(1)).await.unwrap();
    assert_eq!((answer.node, answer.attempts[0].placed_by), (NodeId(2), PlacedBy::Client));
    assert_eq!(nodes[1].seen().uploads.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_hangs_is_waited_for_100_ms_and_then_no_more() {
    let nodes: [FakeNode; 3] = nodes();
    all_know_coordinator(&nodes, 1, 2);
    nodes[0].set(|script| script.announcing = Announcing::Hang);
    let cluster = cluster(&nodes);
    let first = cluster.run(job(1)).await.unwrap();
    assert_eq!(first.attempts[0].placed_by, PlacedBy::Client);
    assert!(first.attempts[0].announce >= Duration::from_millis(95), "{:?}", first.attempts);
    assert!(first.attempts[0].took < Duration::from_millis(600), "{:?}", first.attempts);

    // From then on it is late, then silent, and delays nobody: 20 requests one after another, no 20 × 100 ms.
    let mut announcing = Duration::ZERO;
    for number in 2..22 {
        announcing += cluster.run(job(number)).await.unwrap().attempts[0].announce;
    }
    assert!(announcing < Duration::from_millis(1000), "{announcing:?}");

    // Back in as soon as it answers.
    nodes[0].set(|script| script.announcing = Announcing::Answer);
    let start = now();
    let mut number = 100;
    while cluster.run(job(number)).await.unwrap().attempts[0].placed_by != PlacedBy::Coordinator {
        number += 1;
        assert!(now().since(start) < Duration::from_secs(3), "the coordinator was never asked again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_probed_at_a_gentle_pace() {
    let nodes: [FakeNode; 2] = nodes();
    nodes[0].set(|script| script.announcing = Announcing::Hang);
    let cluster = cluster(&nodes);
    let start = now();
    let mut number = 0;
    while now().since(start) < Duration::from_millis(1500) {
        cluster.run(job(number)).await.unwrap();
        number += 1;
    }
    let posts = nodes[0].seen().posts;
    // Hanging 500 ms each, then a pause of up to 200 ms between two tries.
    assert!((2..=4).contains(&posts), "{posts} announcements to a node that hangs, for {number} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_node_is_waited_for_if_it_is_the_only_hope() {
    let nodes: [FakeNode; 1] = nodes();
    nodes[0].set(|script| script.announcing = Announcing::AnswerAfter(Duration::from_millis(250)));
    let cluster = cluster(&nodes);
    for number in 0..3 {
        assert_eq!(failures(&cluster.run(job(number)).await.unwrap()), ["ok"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_talk_nonsense_or_do_not_exist_are_passed_over() {
    let nodes: [FakeNode; 2] = nodes();
    nodes[0].set(|script| script.announcing = Announcing::WrongJson);
    let mut settings = settings(&nodes);
    settings.nodes.push(nobody());
    let answer = Cluster::new(settings).unwrap().run(job(1)).await.unwrap();
    assert_eq!((answer.node, failures(&answer)), (NodeId(2), vec!["ok"]));
    assert!(answer.attempts[0].announce < Duration::from_millis(95), "an error is an answer: nobody waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_is_retried_with_the_same_id_after_what_the_node_asked_for() {
    let nodes: [FakeNode; 1] = nodes();
    let busy = Problem { retry_after_ms: Some(60), ..Problem::new(ProblemCode::Busy, "32 jobs wait") };
    let busy = Uploading::Refuse(Box::new(busy));
    nodes[0].set(|script| script.uploads = [busy.clone(), busy].into());
    let start = now();
    let answer = cluster(&nodes).run(job(77)).await.unwrap();
    assert_eq!(failures(&answer), ["busy", "busy", "ok"]);
    assert!(now().since(start) >= Duration::from_millis(120));
    let seen = nodes[0].seen();
    assert_eq!(seen.uploads.iter().map(|upload| upload.0).collect::<Vec<_>>(), [job(77).id; 3]);
    assert_eq!(seen.announced, [job(77).id; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_hangs_is_given_up_and_goes_to_another_node() {
    let nodes: [FakeNode; 2] = nodes();
    all_know_coordinator(&nodes, 1, 2);
    nodes[1].set(|script| script.uploads = [Uploading::Hang].into());
    let cluster =
        Cluster::new(ClientSettings { attempt_timeout: Duration::from_millis(300), ..settings(&nodes) }).unwrap();
    let answer = cluster.run(job(5)).await.unwrap();
    assert_eq!(failures(&answer), ["timeout", "ok"]);
    let path: Vec<_> = answer.attempts.iter().map(|attempt| (attempt.node, attempt.placed_by)).collect();
    assert_eq!(
        path,
        [(Some(NodeId(2)), PlacedBy::Coordinator), (Some(NodeId(1)), PlacedBy::Client)],
        "the coordinator does not know yet that node 2 hangs, the client does"
    );
    assert!(answer.attempts[0].took >= Duration::from_millis(300));
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_jobs_get_the_time_they_need() {
    let nodes: [FakeNode; 1] = nodes();
    let slow = Uploading::OkAfter(Duration::from_millis(700));
    nodes[0].set(|script| script.uploads = std::iter::repeat_n(slow, 20).collect());
    let cluster =
        Cluster::new(ClientSettings { attempt_timeout: Duration::from_millis(200), ..settings(&nodes) }).unwrap();
    let answer = cluster.run(job(1)).await.unwrap();
    assert_eq!(failures(&answer), ["timeout", "timeout", "ok"], "200 ms, 400 ms, 800 ms");
    assert_eq!(failures(&cluster.run(job(2)).await.unwrap()), ["ok"], "the next one knows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_no_retry_mends_ends_at_once() {
    let nodes: [FakeNode; 2] = nodes();
    for node in &nodes {
        let problem = Problem::new(ProblemCode::BadImage, "not an image that can be read");
        node.set(|script| script.uploads = [Uploading::Refuse(Box::new(problem))].into());
    }
    let error = cluster(&nodes).run(job(1)).await.unwrap_err();
    assert!(matches!(&error.last, AttemptError::Refused(problem) if problem.code == ProblemCode::BadImage));
    assert_eq!(error.attempts.len(), 1);
    assert_eq!(error.attempts[0].failure.as_deref(), Some("bad_image"));
    assert_eq!(nodes.iter().map(|node| node.seen().uploads.len()).sum::<usize>(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_without_a_reason_is_retried_only_if_it_is_the_servers() {
    let nodes: [FakeNode; 1] = nodes();
    nodes[0].set(|script| script.uploads = [Uploading::Status(502), Uploading::Status(418)].into());
    let error = cluster(&nodes).run(job(1)).await.unwrap_err();
    let codes: Vec<_> = error.attempts.iter().map(|attempt| attempt.failure.as_deref().unwrap()).collect();
    assert_eq!(codes, ["http_502", "http_418"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_is_cut_off_at_the_limit() {
    let nodes: [FakeNode; 1] = nodes();
    nodes[0].set(|script| script.uploads = [Uploading::Endless].into());
    let cluster = Cluster::new(ClientSettings { answer_limit: 100_000, ..settings(&nodes) }).unwrap();
    let error = cluster.run(job(1)).await.unwrap_err();
    assert!(matches!(error.last, AttemptError::AnswerTooLarge { limit: 100_000, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_ends_a_request_with_all_its_attempts() {
    let nodes: [FakeNode; 1] = nodes();
    nodes[0].set(|script| script.state = NodeState::Recovering);
    let mut settings = settings(&nodes);
    settings.nodes.push(nobody());
    settings.request_deadline = Duration::from_millis(400);
    let start = now();
    let error = Cluster::new(settings).unwrap().run(job(1)).await.unwrap_err();
    let took = now().since(start);
    assert!(took < Duration::from_millis(900), "{took:?}");
    assert!(error.attempts.len() >= 2, "{error:?}");
    assert!(error.attempts.iter().all(|attempt| attempt.node.is_none()));
    assert!(matches!(error.last, AttemptError::NoNode), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_is_used_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nodes = vec![NodeAddress { node: None, url: format!("http://{}", listener.local_addr().unwrap()) }];
    let cluster = Cluster::new(ClientSettings::new(nodes, SEED)).unwrap();
    let running = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.run(job(1)).await }
    });
    // First it accepts connections and drops them, as a dying process does; then it is a node.
    let listener = tokio::task::spawn_blocking(move || {
        drop(listener.accept().unwrap());
        listener
    });
    let _node = FakeNode::start_on(1, listener.await.unwrap());
    let answer = running.await.unwrap().unwrap();
    let failures = failures(&answer);
    assert!(failures.len() > 1 && failures[0] == "no_node" && failures.ends_with(&["ok"]), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn announcements_are_gathered_and_every_request_reaches_every_node() {
    const REQUESTS: usize = 400;
    let nodes: [FakeNode; 3] = nodes();
    for node in &nodes {
        node.set(|script| script.announcing = Announcing::AnswerAfter(Duration::from_millis(5)));
    }
    let cluster = cluster(&nodes);
    let answers = join_all((0..REQUESTS as u128).map(|number| cluster.run(job(number)))).await;
    assert!(answers.iter().all(Result::is_ok));
    let has_all = |node: &FakeNode| node.seen().announced.into_iter().collect::<BTreeSet<_>>().len() == REQUESTS;
    wait_for("every request is announced to every node", async || nodes.iter().all(has_all).then_some(())).await;
    let posts: usize = nodes.iter().map(|node| node.seen().posts).sum();
    assert!(posts <= REQUESTS * 3 / 20, "{posts} announcements for {REQUESTS} requests to 3 nodes");
    println!("{posts} announcements for {REQUESTS} requests to 3 nodes");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_requests_without_a_coordinator_do_not_herd() {
    let nodes: [FakeNode; 3] = nodes();
    for (node, load) in nodes.iter().zip([0.0, 0.5, 0.5]) {
        node.set(|script| script.load = load);
    }
    let cluster = cluster(&nodes);
    let answers = join_all((0..50).map(|number| cluster.run(job(number)))).await;
    assert!(answers.iter().all(Result::is_ok));
    // By the answered loads alone, node 1 would get everything.
    let shares: Vec<usize> = nodes.iter().map(|node| node.seen().uploads.len()).collect();
    assert_eq!(shares.iter().sum::<usize>(), 50);
    assert!(shares.iter().all(|&share| share >= 10), "{shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_has_a_row_for_every_node_and_commands_find_theirs() {
    let nodes: [FakeNode; 3] = nodes();
    all_know_coordinator(&nodes, 2, 1);
    nodes[2].set(|script| script.announcing = Announcing::Hang);
    let mut settings = settings(&nodes);
    settings.query_timeout = Duration::from_millis(300);
    settings.nodes.push(nobody());
    let cluster = Cluster::new(settings).unwrap();

    let reports = cluster.status().await;
    let ids: Vec<_> = reports.iter().map(|report| report.result.as_ref().map(|status| status.node).ok()).collect();
    assert_eq!(ids, [Some(NodeId(1)), Some(NodeId(2)), None, None]);
    assert!(reports[2].result.as_ref().unwrap_err().contains("300 ms"));
    assert!(reports[3].result.as_ref().unwrap_err().contains("refused"), "{:?}", reports[3]);

    assert_eq!(cluster.fail(FailTarget::Coordinator, Duration::from_secs(5)).await.unwrap(), NodeId(2));
    assert_eq!(nodes[1].seen().failed_for, [5000]);
    assert_eq!(cluster.fail(FailTarget::Node(NodeId(1)), Duration::from_secs(1)).await.unwrap(), NodeId(1));
    let error = cluster.fail(FailTarget::Node(NodeId(9)), Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, ClientError::UnknownNode { .. }), "{error}");

    let events = cluster.events(NodeId(1), 2).await.unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_nodes_or_with_a_wrong_address_is_refused() {
    assert!(matches!(Cluster::new(ClientSettings::new(Vec::new(), SEED)), Err(ClientError::NoNodes)));
    let wrong = vec![NodeAddress { node: None, url: "ftp://x".into() }];
    assert!(matches!(Cluster::new(ClientSettings::new(wrong, SEED)), Err(ClientError::BadAddress { .. })));
}

/// The token goes wherever TLS is: no node can lead the client from one scheme to the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_another_scheme_is_not_followed() {
    let nodes = vec![node_that_says(Some(redirection("https://127.0.0.1:1"))).await.0];
    let cluster = Cluster::new(ClientSettings::new(nodes, SEED)).unwrap();
    let refused = cluster.get_key("color", Consistency::Linearizable).await.unwrap_err().to_string();
    assert!(refused.contains("https://127.0.0.1:1, which is not http: that is not followed"), "{refused}");
}

/// "No quorum" says that nothing was done, but of one attempt only: the one before broke off when it had been sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_may_have_been_done_is_not_reported_as_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let problem = Problem::new(ProblemCode::NoQuorum, "no quorum");
    let answer = http_answer("503 Service Unavailable", &serde_json::to_string(&problem).unwrap());
    // Breaks off so many connections when it has read from them, and refuses the others.
    let node = async |breaks_off: usize| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = answer.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let _ = stream.read(&mut [0; 4096]).await;
                if number >= breaks_off {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        url.parse::<NodeAddress>().unwrap()
    };
    let batch = Batch { operations: vec![BatchOperation::Add { key: "views".into(), by: 1, floor: None }] };
    for (breaks_off, expected) in [(0, ProblemCode::NoQuorum), (1, ProblemCode::OutcomeUnknown)] {
        let nodes = vec![node(breaks_off).await, node(0).await];
        let cluster = Cluster::new(ClientSettings::new(nodes, SEED)).unwrap();
        let id = RequestId([7; 16]);
        let failed = cluster.write(id, &batch).await.unwrap_err();
        assert_eq!(failed.refusal(), Some(expected), "{failed}");
        assert_eq!(failed.to_string().contains(&id.to_string()), breaks_off > 0, "{failed}");
    }
}

/// Answers each connection with these bytes, or with nothing for ever; counts them.
async fn node_that_says(answer: Option<String>) -> (NodeAddress, Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 4096]).await;
            match &answer {
                Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                None => silent.push(stream),
            }
        }
    });
    (url.parse().unwrap(), asked)
}

fn http_answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// What a node says that follows the one at `leader`.
fn redirection(leader: &str) -> String {
    let problem = Problem { leader: Some(leader.to_owned()), ..Problem::new(ProblemCode::NotLeader, "node 2 leads") };
    http_answer("307 Temporary Redirect", &serde_json::to_string(&problem).unwrap())
}

/// The promise: a leader that is silent, and is still said to lead, holds a request up once before everybody else is asked.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_is_not_asked_again_before_the_others() {
    let (silent, asked) = node_that_says(None).await;
    let follower = redirection(&silent.url);
    let written = http_answer("200 OK", r#"{"commit":1,"revision":1,"results":[]}"#);
    let nodes = vec![node_that_says(Some(follower)).await.0, silent, node_that_says(Some(written)).await.0];
    let cluster = Cluster::new(ClientSettings::new(nodes, SEED)).unwrap();
    cluster.write(RequestId([7; 16]), &Batch { operations: Vec::new() }).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// A write that nobody has answered may have been done: who repeats it needs its id.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_an_answer_says_that_it_may_have_been_done() {
    let nodes = vec![node_that_says(None).await.0];
    let settings = ClientSettings { request_deadline: Duration::from_millis(300), ..ClientSettings::new(nodes, SEED) };
    let id = RequestId([7; 16]);
    let failed = Cluster::new(settings).unwrap().write(id, &Batch { operations: Vec::new() }).await.unwrap_err();
    assert_eq!(failed.refusal(), Some(ProblemCode::OutcomeUnknown), "{failed}");
    assert!(failed.to_string().contains(&format!("repeat it with --request-id {id}")), "{failed}");
}

/// Answers one request with these bytes and leaves; gives back the first line of the request.
fn answer_once(text: String) -> (NodeAddress, std::thread::JoinHandle<String>) {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(|line| line.unwrap());
        let asked = lines.next().unwrap();
        lines.find(String::is_empty).expect("the head ends");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        // A client that has enough leaves before the end.
        let _ = stream.write_all(format!("{head}{text}").as_bytes());
        asked
    });
    (NodeAddress { node: None, url }, thread)
}

fn change(revision: u64, key: &str) -> String {
    let changed = Changed { revision, key: key.to_owned(), item: None };
    format!("data: {}\n\n", serde_json::to_string(&changed).unwrap())
}

/// The connection breaks between two changes of one revision, before any revision was complete: the watch goes on from where it began, and
/// gives each of them out once.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_breaks_within_a_revision_misses_nothing_and_repeats_nothing() {
    let (first, one) = answer_once(format!("id: 5\n: watching\n\n{}", change(6, "a")));
    let rest = format!("id: 5\n: watching\n\n{}id: 6\n{}id: 7\n{}", change(6, "a"), change(6, "b"), change(7, "c"));
    let (second, two) = answer_once(rest);
    let mut watch = Cluster::new(ClientSettings::new(vec![first, second], SEED)).unwrap().watch("", None);
    let mut keys = Vec::new();
    for _ in 0..3 {
        let changed = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("it is told").unwrap();
        keys.push((changed.revision, changed.key));
    }
    assert_eq!(keys, [(6, "a".to_owned()), (6, "b".to_owned()), (7, "c".to_owned())]);
    assert!(!one.join().unwrap().contains("after="));
    assert!(two.join().unwrap().contains("after=5"));
}

/// What no node would tell otherwise is an error, and not asked for again for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_end_and_one_that_is_no_change_are_errors() {
    for event in [format!("data: {}", "x".repeat(5 << 20)), "data: {}\n\n".to_owned()] {
        let (node, thread) = answer_once(event);
        let mut watch = Cluster::new(ClientSettings::new(vec![node], SEED)).unwrap().watch("", None);
        let error = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("it is told").unwrap_err();
        let ClientError::Exchange { source, .. } = &error else { panic!("{error}") };
        assert!(matches!(source, AttemptError::AnswerTooLarge { .. } | AttemptError::BadAnswer(_)), "{error}");
        thread.join().unwrap();
    }
}
