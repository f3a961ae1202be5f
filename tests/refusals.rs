//! What bad input gets: each its own line, a documented exit code, no panic, nothing lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

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
