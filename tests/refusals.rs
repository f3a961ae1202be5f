//! What bad input gets: each its own line, a documented exit code, no panic, nothing lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{TestCluster, picture};
use image_cloud::protocol::job::route;
use image_cloud::protocol::problem::{Problem, ProblemCode};

fn cloud_node(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloud-node")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The program must end with that code, with one line that names each of the words, and without a panic.
fn check(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in {text}");
    }
}

#[test]
fn a_wrong_node_id_is_told_which_ids_there_are() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("c.toml");
    fs::write(&config, "").unwrap();
    check(&cloud_node(&["7", "--config", config.to_str().unwrap()]), 2, &["node 7", "1, 2, 3"]);
    check(&cloud_node(&["zero"]), 2, &["zero", "cloud-node 1"]);
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_changes_it() {
    let cluster = TestCluster::configure(1, "");
    let port = cluster.url(1).rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let _held = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let config = cluster.directory().join("cluster.toml");
    check(&cloud_node(&["1", "--config", config.to_str().unwrap()]), 1, &[&port.to_string(), "--listen"]);
}

#[test]
fn an_address_that_is_not_loopback_is_told_what_is_missing() {
    let cluster = TestCluster::configure(1, "");
    let config = cluster.directory().join("cluster.toml");
    let output = cloud_node(&["1", "--config", config.to_str().unwrap(), "--listen", "0.0.0.0:18001"]);
    check(&output, 2, &["0.0.0.0:18001", "cloud-node init", "--secrets"]);
}

#[test]
fn an_unknown_key_and_a_missing_file_are_usage_errors() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("c.toml");
    fs::write(&config, "[jobs]\nworker = 3\n").unwrap();
    check(&cloud_node(&["1", "--config", config.to_str().unwrap()]), 2, &["c.toml", "line 2", "worker"]);
    check(&cloud_node(&["1", "--config", "no/such/file.toml"]), 2, &["no/such/file.toml"]);
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    let cluster = TestCluster::configure(1, "");
    let secrets = cluster.directory().join("data/cluster");
    fs::create_dir_all(&secrets).unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o755)).unwrap();
    let config = cluster.directory().join("cluster.toml");
    check(&cloud_node(&["1", "--config", config.to_str().unwrap()]), 1, &["data/cluster", "chmod 700"]);
}

/// `reset` says what it would delete, deletes nothing under a running node, and nothing without `--yes`.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_must_be_meant_and_spares_a_running_node() {
    let mut cluster = TestCluster::start(1, "").await;
    let config = cluster.directory().join("cluster.toml");
    let reset = |more: &[&str]| cloud_node(&[&["reset", "1", "--config", config.to_str().unwrap()], more].concat());
    check(&reset(&["--yes"]), 1, &["data/node-1", "in use by process"]);
    cluster.stop(1).await;
    check(&reset(&[]), 2, &["would delete", "data/node-1", "--yes"]);
    assert!(cluster.directory().join("data/node-1/raft/log").is_dir());
    let output = reset(&["--yes"]);
    check(&output, 0, &[]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("members replace 1"), "{output:?}");
    assert!(!cluster.directory().join("data/node-1").exists());
    assert!(cluster.directory().join("data/cluster/cluster.key").exists(), "secrets stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_data_directory_are_refused() {
    let cluster = TestCluster::start(1, "").await;
    let other = TestCluster::configure(1, "");
    let data = cluster.directory().join("data");
    let config = other.directory().join("cluster.toml");
    let output = cloud_node(&["1", "--config", config.to_str().unwrap(), "--data", data.to_str().unwrap()]);
    check(&output, 1, &["node-1"]);
    assert!(cluster.status(1).await.is_some(), "the first node goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_images_and_requests_are_problems_with_a_code() {
    let cluster = TestCluster::start(1, "[limits]\noriginal_mib = 1\n").await;
    let label = format!("{}?to=alice,bob&quota=5", route::LABEL);
    let mut truncated = picture(1);
    truncated.truncate(truncated.len() / 2);
    let tiny = {
        let mut file = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(4, 4).write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    };
    let cases: [(&str, Vec<u8>, ProblemCode); 7] = [
        (route::SEAL, b"hello".to_vec(), ProblemCode::BadImage),
        (route::SEAL, Vec::new(), ProblemCode::BadImage),
        (&label, truncated, ProblemCode::BadImage),
        (&label, tiny, ProblemCode::CarrierTooSmall),
        (route::SEAL, vec![0; (1 << 20) + 1], ProblemCode::TooLarge),
        (route::LABEL, picture(2), ProblemCode::BadRequest),
        ("/api/v1/nothing", Vec::new(), ProblemCode::NotFound),
    ];
    for (path, body, code) in cases {
        let response = cluster.post(1, path, body).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        let status = response.status().as_u16();
        let problem: Problem = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!((problem.code, problem.status), (code, status), "{path}: {problem:?}");
        assert_eq!(problem.need.is_some(), matches!(code, ProblemCode::CarrierTooSmall | ProblemCode::TooLarge));
    }
    let wrong_method = reqwest::get(cluster.url(1) + route::SEAL).await.unwrap();
    assert_eq!(wrong_method.status().as_u16(), ProblemCode::MethodNotAllowed.status());
    assert!(cluster.status(1).await.is_some());
}

/// An `Upgrade` turns off the server's own count of the body: the node must hold to the length that it reserved memory for.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_past_its_content_length_is_refused_at_once() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let cluster = TestCluster::start(1, "").await;
    let address = cluster.url(1).trim_start_matches("http://").to_owned();
    for length in ["", "Content-Length: 5\r\n"] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{length}\r\n",
            route::SEAL
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[0; 4096]).await.unwrap();
        let mut answer = [0; 512];
        let read = tokio::time::timeout(common::DEADLINE / 3, stream.read(&mut answer)).await;
        let read = read.expect("the node went on reading").unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(answer.starts_with("HTTP/1.1 4"), "{length:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_used_for_another_request_is_refused() {
    let cluster = TestCluster::start(1, "").await;
    let send = async |path: &str, image: Vec<u8>| {
        let request = reqwest::Client::new().post(cluster.url(1) + path).header(route::REQUEST_ID, "ab".repeat(16));
        request.body(image).send().await.unwrap()
    };
    let first = send(route::SEAL, picture(1)).await;
    assert_eq!(first.status().as_u16(), 200);
    let first = first.bytes().await.unwrap();
    assert_eq!(send(route::SEAL, picture(1)).await.bytes().await.unwrap(), first, "repeated");
    let mut longer = picture(1);
    longer.push(0);
    let mut altered = picture(1);
    *altered.last_mut().unwrap() ^= 1;
    let label = format!("{}?to=alice&quota=5", route::LABEL);
    for (path, image) in [(label.as_str(), picture(1)), (route::SEAL, longer), (route::SEAL, altered)] {
        let response = send(path, image).await;
        let problem: Problem = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(problem.code, ProblemCode::BadRequest, "{path}: {problem:?}");
    }
}

/// Invariant 9: the node draws a nonce of its own for every wrap, whatever the client sends.
#[tokio::test(flavor = "multi_thread")]
async fn every_seal_has_a_nonce_of_its_own() {
    let cluster = TestCluster::start(1, "").await;
    let mut nonces = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let sealed = cluster.post(1, route::SEAL, picture(1)).await.unwrap().bytes().await.unwrap();
        let header = image_cloud::image::header_of(&sealed, &image_cloud::image::Limits::default()).unwrap();
        assert!(nonces.insert(header.public.image_nonce.0), "a nonce came twice");
    }
    let chosen = format!("{}?image_nonce={}", route::SEAL, "00".repeat(32));
    assert_eq!(cluster.post(1, &chosen, picture(1)).await.unwrap().status().as_u16(), 400);
}

/// What comes back until the node closes the connection, to which one byte is sent every 100 ms.
async fn drip(address: SocketAddr, head: String) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (mut reader, mut writer) = tokio::net::TcpStream::connect(address).await.unwrap().into_split();
    writer.write_all(head.as_bytes()).await.unwrap();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut answer = Vec::new();
    // The end may be a reset: the node does not wait for the rest.
    let read = tokio::time::timeout(common::DEADLINE, reader.read_to_end(&mut answer)).await;
    dripping.abort();
    assert!(read.is_ok(), "after {:?} the node still waits for {head:?}", common::DEADLINE);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Bounded time: a head or a body that drips is given up, the body by name; whoever says nothing is closed.
#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_bodies_are_given_up() {
    let cluster = TestCluster::start(1, "[http]\nupload_s = 0.5\n").await;
    let address = cluster.http_address(1);
    let body = |method: &str, path: &str| {
        let form = "Content-Type: application/json\r\nConnection: close";
        drip(address, format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{form}\r\nContent-Length: 5000\r\n\r\n"))
    };
    let (put, json, image, head, silent) = tokio::join!(
        body("PUT", "/api/v1/kv/slow"),
        body("POST", "/api/v1/kv"),
        body("POST", route::SEAL),
        drip(address, "GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_owned()),
        drip(address, String::new()),
    );
    for (what, answer) in [("a value", put), ("JSON", json), ("an image", image)] {
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"too_slow\""), "{what}: {answer}");
        assert!(answer.contains("upload_s"), "{what}: {answer}");
    }
    for answer in [head, silent] {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert!(cluster.status(1).await.is_some());
}

/// Bounded connections: many more than there are places, all silent, delay whoever comes with a request, and no more than that.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_idle_connections_keep_nobody_out() {
    let cluster = TestCluster::start(1, "[http]\nconnections = 16\n").await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(tokio::net::TcpStream::connect(cluster.http_address(1)).await.unwrap());
    }
    common::wait_for("a request is answered", async || cluster.status(1).await).await;
    drop(idle);
    let key = format!("{}/api/v1/kv/after", cluster.url(1));
    assert!(reqwest::Client::new().put(key).body("x").send().await.unwrap().status().is_success());
}

/// One node, or an even number, is allowed; what that survives is said at the start.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_one_or_two_is_told_what_it_survives() {
    for (nodes, words) in [(1, "survives no loss"), (2, "2 voters survive no loss")] {
        let cluster = TestCluster::start(nodes, "").await;
        assert!(cluster.log(1).contains(words), "{}", cluster.log(1));
    }
}

/// What a raw connection answers to requests that are sent at once, and whether the node closes it then.
async fn pipelined(cluster: &TestCluster, requests: &[String]) -> (String, bool) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = tokio::net::TcpStream::connect(cluster.http_address(1)).await.unwrap();
    let host = cluster.http_address(1);
    let all: String = requests.iter().map(|line| format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n")).collect();
    stream.write_all(all.as_bytes()).await.unwrap();
    let (mut answers, mut buffer) = (String::new(), [0; 4096]);
    let answered = |answers: &str| answers.matches("HTTP/1.1 ").count() == requests.len() && answers.ends_with('}');
    while !answered(&answers) {
        match tokio::time::timeout(common::DEADLINE, stream.read(&mut buffer)).await.unwrap().unwrap() {
            0 => return (answers, true),
            read => answers.push_str(&String::from_utf8_lossy(&buffer[..read])),
        }
    }
    let more = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut buffer)).await;
    (answers, matches!(more, Ok(Ok(0))))
}

/// The promise: a few connections for keys are served by Raft's own thread; those that bring anything else are told to come again, and
/// go elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn connections_for_keys_stay_and_others_leave_the_nodes_thread() {
    let cluster = TestCluster::start(1, "").await;
    cluster.settled().await;
    let key = "GET /api/v1/kv/color?stale=true".to_owned();
    let (answers, is_closed) = pipelined(&cluster, &vec![key.clone(); 100]).await;
    assert_eq!((answers.matches("HTTP/1.1 404").count(), is_closed), (100, false), "{answers}");
    assert!(!answers.contains("connection: close"), "{answers}");
    for other in ["GET /api/v1/kv", "GET /api/v1/status", "POST /api/v1/node/fail", "GET /nowhere"] {
        let (answers, is_closed) = pipelined(&cluster, &[key.clone(), other.to_owned()]).await;
        assert!(answers.contains("connection: close") && is_closed, "{other}: {answers}");
        let (answers, is_closed) = pipelined(&cluster, &[other.to_owned(), key.clone()]).await;
        assert!(!answers.contains("connection: close") && !is_closed, "{other}: {answers}");
    }
}
