//! Who gets in and who does not, with real processes: strangers, other clusters, old certificates, and callers without the token.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;
mod people;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{TestCluster, picture, wait_for};
use image_cloud::config::secrets::{AdminToken, Authority, Credentials, Validity, read_certificates};
use image_cloud::id::{Incarnation, MemberId, NodeId};
use image_cloud::identity::UserSecret;
use image_cloud::protocol::frame::Purpose;
use image_cloud::protocol::job::route;
use image_cloud::protocol::problem::{Problem, ProblemCode};
use image_cloud::protocol::sharing::{self, Invitation, Registration, UserChanged};
use image_cloud::time::unix_millis;
use image_cloud::transport::NodeTls;
use image_cloud::transport::dial::{Target, dial};
use people::Person;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const FAILURE: &str = "{\"duration_ms\":200}";

fn client(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_client")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn cloud_node(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloud-node")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Bundles from `cloud-node init` for the nodes of a configuration.
fn init(cluster: &TestCluster, name: &str) -> PathBuf {
    let (out, config) = (cluster.directory().join(name), cluster.directory().join("cluster.toml"));
    let made = cloud_node(&["init", "--out", text(&out), "--config", text(&config)]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    out
}

/// A node that waits for its peer in vain, with a certificate by that authority.
fn node_2(authority: &Authority, valid: Validity) -> NodeTls {
    let issued = authority.issue(NodeId(2), &[], valid).unwrap();
    let (certificate, key) = (&issued.certificate_pem, &issued.key_pem);
    let credentials = Credentials::new(NodeId(2), authority.certificate_pem(), certificate, key, valid.from_s + 1);
    NodeTls::new(&credentials.unwrap()).unwrap()
}

async fn call(tls: &NodeTls, cluster: &TestCluster) -> String {
    let member = MemberId { node: NodeId(2), incarnation: Incarnation(1) };
    let address = cluster.peer_address(1);
    let dialled =
        dial(tls, member, Target { node: NodeId(1), life: None, address }, Purpose::Control, Duration::from_secs(10))
            .await;
    dialled.expect_err("it is refused").to_string()
}

async fn log_says(cluster: &TestCluster, id: u16, words: &str) {
    wait_for(&format!("node {id} logs {words:?}"), async || cluster.log(id).contains(words).then_some(())).await;
}

/// Each caller who is no member is refused, with a line of its own in the log, and the node goes on.
#[tokio::test(flavor = "multi_thread")]
async fn callers_who_are_no_members_are_refused_each_with_its_own_line() {
    let mut cluster = TestCluster::configure(3, "");
    cluster.spawn(1);
    log_says(&cluster, 1, "http://127.0.0.1").await;
    let now = unix_millis() / 1000;

    // HTTP in clear at the node port.
    let mut plain = TcpStream::connect(cluster.peer_address(1)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _ = plain.read_to_end(&mut Vec::new()).await;
    log_says(&cluster, 1, "it does not speak TLS (its first bytes are \"GET \")").await;

    // A node of another cluster sees by itself that it is wrong here.
    let other = Authority::fresh(Validity::of_authority(now)).unwrap();
    let error = call(&node_2(&other, Validity::of_node(now)), &cluster).await;
    assert!(error.contains("a node of another cluster") && error.contains(other.cluster()), "{error}");
    log_says(&cluster, 1, "it refuses this node's certificate").await;

    // The secrets of this very cluster, as if they had been made long ago.
    let own = Authority::open(&cluster.directory().join("data/cluster")).unwrap();
    let error = call(&node_2(&own, Validity { from_s: now - 2000, until_s: now - 1000 }), &cluster).await;
    assert!(error.contains("refuses this node's certificate (CertificateExpired)"), "{error}");
    log_says(&cluster, 1, "its certificate has expired").await;

    // A member under another member's name.
    let member = MemberId { node: NodeId(3), incarnation: Incarnation(1) };
    let tls = node_2(&own, Validity::of_node(now));
    let address = cluster.peer_address(1);
    let dialled =
        dial(&tls, member, Target { node: NodeId(1), life: None, address }, Purpose::Control, Duration::from_secs(10))
            .await;
    let error = dialled.expect_err("it is refused").to_string();
    assert!(error.contains("node 3 showed the certificate of node 2"), "{error}");

    // With its own name it is let in.
    let member = MemberId { node: NodeId(2), incarnation: Incarnation(1) };
    dial(&tls, member, Target { node: NodeId(1), life: None, address }, Purpose::Control, Duration::from_secs(10))
        .await
        .unwrap();
}

/// Two clusters that were configured onto each other's addresses say so, and neither hears the other.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_two_clusters_do_not_mix() {
    let mut one = TestCluster::configure(2, "");
    let two = one.directory().join("other");
    one.spawn(1);
    log_says(&one, 1, "http://127.0.0.1").await;
    // The same configuration, another data directory: other secrets.
    one.spawn_with(2, &["--data", text(&two)]);
    log_says(&one, 2, "no heartbeat connection to node 1").await;
    log_says(&one, 2, "it is a node of another cluster").await;
    log_says(&one, 1, "it is a node of another cluster").await;
    assert!(one.status(1).await.unwrap().peers.iter().all(|peer| peer.last_seen_ms.is_none()));
}

/// A replaced certificate file is found at the start, by its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_with_the_bundle_of_another() {
    let cluster = TestCluster::configure(3, "");
    let (out, config) = (init(&cluster, "secrets"), cluster.directory().join("cluster.toml"));
    let start =
        |id: &str, bundle: &str| cloud_node(&[id, "--config", text(&config), "--secrets", text(&out.join(bundle))]);
    let output = start("1", "node-2");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("node-1.pem") && said.contains("node-N"), "{said}");

    fs::set_permissions(out.join("node-1/node-1.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = start("1", "node-1");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("chmod 600") && said.contains("node-1.key"), "{said}");

    // A second init would make another cluster over the first.
    let again = cloud_node(&["init", "--out", text(&out), "--config", text(&config)]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--renew"));
}

/// On loopback only what administers needs the token: missing, wrong, right; also however the path is written.
#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_administrative_calls_need_the_token() {
    let cluster = TestCluster::start(1, "").await;
    let http = reqwest::Client::new();
    let fail = |path: &str| http.post(cluster.url(1) + path).header("content-type", "application/json").body(FAILURE);
    let refused = async |request: reqwest::RequestBuilder| {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let challenge = response.headers().contains_key("www-authenticate");
        let problem: Problem = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        (problem, challenge)
    };
    let (missing, challenge) = refused(fail(route::FAIL)).await;
    assert_eq!((missing.code, missing.status, challenge), (ProblemCode::Unauthorized, 401, true));
    let file = cluster.directory().join("data/cluster/admin.token");
    assert!(missing.detail.contains("--admin-token-file") && missing.detail.contains(text(&file)), "{missing:?}");

    let other = AdminToken::fresh().unwrap();
    for wrong in [other.secret(), "0"] {
        let (wrong, _) = refused(fail(route::FAIL).bearer_auth(wrong)).await;
        assert_eq!((wrong.code, wrong.status), (ProblemCode::Forbidden, 403));
    }
    for path in ["/api/v1/node/f%61il", "/%61pi/v1/node/fail", "/api/v1/node//fail", "/api/v1/node/fail/"] {
        let status = fail(path).send().await.unwrap().status().as_u16();
        assert!([401, 404].contains(&status), "{path}: {status}");
    }
    assert!(cluster.status(1).await.is_some(), "nothing of it made the node fail");
    // What does not administer needs none.
    assert!(cluster.post(1, route::SEAL, picture(1)).await.unwrap().status().is_success());

    // The program finds the token by itself, or takes the named file.
    let config = cluster.directory().join("cluster.toml");
    let with = |more: &[&str]| client(&[&["fail", "1", "--for", "200ms"], more].concat());
    let found = with(&["--config", text(&config)]);
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    cluster.settled().await;
    let wrong = cluster.directory().join("wrong.token");
    fs::write(&wrong, format!("{}\n", other.secret())).unwrap();
    let open = with(&["--nodes", &cluster.url(1), "--admin-token-file", text(&wrong)]);
    assert_eq!(open.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&open.stderr).contains("chmod 600"));
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).unwrap();
    let denied = with(&["--nodes", &cluster.url(1), "--admin-token-file", text(&wrong)]);
    assert_eq!(denied.status.code(), Some(5), "{}", String::from_utf8_lossy(&denied.stderr));
    let right = with(&["--nodes", &cluster.url(1), "--admin-token-file", text(&file)]);
    assert!(right.status.success(), "{}", String::from_utf8_lossy(&right.stderr));
}

/// Several machines, as far as one can play them: bundles, all addresses open, TLS for people and programs, the token for every call.
#[tokio::test(flavor = "multi_thread")]
async fn with_bundles_nodes_serve_all_addresses_with_tls_and_demand_the_token() {
    let mut cluster = TestCluster::configure(3, "");
    let out = init(&cluster, "secrets");
    for id in 1..=3u16 {
        let everywhere = |address: std::net::SocketAddr| format!("0.0.0.0:{}", address.port());
        let (http, peer) = (everywhere(cluster.http_address(id)), everywhere(cluster.peer_address(id)));
        let bundle = out.join(format!("node-{id}"));
        cluster.spawn_with(id, &["--secrets", text(&bundle), "--listen", &http, "--peer-listen", &peer]);
        log_says(&cluster, id, "https://0.0.0.0").await;
    }
    let (ca, token) = (out.join("operator/ca.pem"), out.join("operator/admin.token"));
    let nodes: Vec<String> = (1..=3).map(|id| format!("https://{}", cluster.http_address(id))).collect();
    let nodes = nodes.join(",");
    let with = |arguments: &[&str]| client(&[arguments, &["--nodes", &nodes]].concat());
    let named = ["--ca", text(&ca), "--admin-token-file", text(&token)];
    wait_for("a coordinator is confirmed", async || {
        let output = with(&[&["status", "-o", "json"], &named[..]].concat());
        let view: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let active = view["nodes"].as_array()?.iter().filter(|node| node["state"] == "active").count();
        (active == 3 && !view["coordinator"].is_null()).then_some(())
    })
    .await;
    let sent = with(&[&["1", "3", "--out", text(&cluster.directory().join("results"))], &named[..]].concat());
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let failed = with(&[&["fail", "2", "--for", "200ms"], &named[..]].concat());
    assert!(failed.status.success(), "{}", String::from_utf8_lossy(&failed.stderr));

    // Without the authority, with another one, and without the token.
    let home = cluster.directory();
    let elsewhere = home.join("elsewhere.toml");
    fs::write(&elsewhere, format!("data = {:?}\n", home.join("nothing"))).unwrap();
    let nowhere = ["--config", text(&elsewhere)];
    let output = with(&[&["status"], &nowhere[..]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--ca"));
    let other = init(&cluster, "other").join("operator/ca.pem");
    let output = with(&[&["status"], &nowhere[..], &["--ca", text(&other)]].concat());
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stdout).contains("is --ca the ca.pem of that cluster?"));
    let copy = home.join("ca.pem");
    fs::copy(&ca, &copy).unwrap();
    let output = with(&[&["fail", "2", "--for", "1s"], &nowhere[..], &["--ca", text(&copy)]].concat());
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));

    // Only the questions for health pass without the token; nothing passes in clear.
    let authority = reqwest::Certificate::from_der(&read_certificates(&ca).unwrap()[0]).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let ask = async |path: &str| http.get(format!("https://{}{path}", cluster.http_address(1))).send().await.unwrap();
    assert_eq!(ask(route::LIVEZ).await.status().as_u16(), 200);
    assert_ne!(ask(route::READYZ).await.status().as_u16(), 401);
    for path in [route::STATUS, route::EVENTS, "/api/v1/nothing", "/livez/", "//livez", "/"] {
        assert_eq!(ask(path).await.status().as_u16(), 401, "{path}");
    }
    assert!(reqwest::get(cluster.url(1) + route::LIVEZ).await.is_err(), "HTTP in clear was answered");
}

/// A proxy on the same machine: HTTP in clear, with a warning, and the token for every call although it is loopback.
#[tokio::test(flavor = "multi_thread")]
async fn insecure_http_warns_and_demands_the_token_for_every_call() {
    let mut cluster = TestCluster::configure(1, "[http]\nhosts = [\"cloud.example\"]\n");
    cluster.spawn_with(1, &["--insecure-http"]);
    log_says(&cluster, 1, "is not encrypted").await;
    let token =
        wait_for("the token", async || AdminToken::read(&cluster.directory().join("data/cluster/admin.token")).ok())
            .await;
    let http = reqwest::Client::new();
    let ask = async |host: &str, token: Option<&AdminToken>| {
        let mut request = http.get(cluster.url(1) + route::STATUS).header("host", host);
        if let Some(token) = token {
            request = request.bearer_auth(token.secret());
        }
        wait_for("an answer", async || Some(request.try_clone()?.send().await.ok()?.status().as_u16())).await
    };
    assert_eq!(ask("cloud.example", None).await, 401);
    assert_eq!(ask("cloud.example", Some(&token)).await, 200);
    assert_eq!(ask("evil.example", Some(&token)).await, 403);
}

/// Where strangers come by, users are who was invited, and their signatures stand in for the token, but not where the node is administered.
#[tokio::test(flavor = "multi_thread")]
async fn where_every_call_needs_a_token_users_are_invited_and_then_sign() {
    let mut cluster = TestCluster::configure(1, "");
    cluster.spawn_with(1, &["--insecure-http"]);
    let identity = people::cluster_identity(&cluster).await;
    assert!(identity.needs_invitation);
    let (url, http, token) = (cluster.url(1), reqwest::Client::new(), cluster.admin_token());
    let person = |number: u8| {
        let secret = UserSecret::from_bytes(&[number; 64]);
        let user = secret.public().user();
        Person { name: format!("user{number}"), secret, user, cluster: identity.cluster_id, http: http.clone() }
    };
    let register = async |person: &Person, invitation: Option<String>| {
        let body = Registration { name: person.name.clone(), keys: person.secret.public(), invitation };
        person.until_decided::<UserChanged>(&cluster, sharing::route::USERS, &body, people::fresh_id()).await
    };
    let (alice, mallory) = (person(1), person(2));
    assert_eq!(register(&alice, None).await.unwrap_err().code, ProblemCode::Denied);
    assert_eq!(register(&alice, Some("guessed".into())).await.unwrap_err().code, ProblemCode::Denied);

    let invite = |request: reqwest::RequestBuilder| {
        request.header("content-type", "application/json").body(r#"{"for_ms":60000}"#)
    };
    let invitations = format!("{url}{}", sharing::route::INVITATIONS);
    assert_eq!(invite(http.post(&invitations)).send().await.unwrap().status(), 401);
    let invited = invite(http.post(&invitations).bearer_auth(token.secret())).send().await.unwrap();
    let invited: Invitation = serde_json::from_slice(&invited.bytes().await.unwrap()).unwrap();
    assert!(register(&alice, Some(invited.invitation.clone())).await.is_ok());
    assert_eq!(register(&mallory, Some(invited.invitation)).await.unwrap_err().code, ProblemCode::Denied, "used");

    let get = |person: &Person, path: &str| person.ask("GET", path, Vec::new(), people::fresh_id());
    assert!(alice.send_for_bytes(&url, &get(&alice, sharing::route::USERS)).await.is_ok());
    let store = alice.send_for_bytes(&url, &get(&alice, "/api/v1/kv")).await.unwrap_err();
    assert_eq!(store.code, ProblemCode::Unauthorized, "the store is not for every user");
    let stranger = mallory.send_for_bytes(&url, &get(&mallory, sharing::route::USERS)).await.unwrap_err();
    assert_eq!(stranger.code, ProblemCode::SignatureRefused);
    let old = alice.ask_at("GET", sharing::route::USERS, Vec::new(), people::fresh_id(), unix_millis() - 600_000);
    assert_eq!(alice.send_for_bytes(&url, &old).await.unwrap_err().code, ProblemCode::SignatureRefused, "overheard");
    let fail = alice.ask("POST", route::FAIL, br#"{"duration_ms":5}"#.to_vec(), people::fresh_id());
    let refused = alice.send_for_bytes(&url, &fail).await.unwrap_err();
    assert!(matches!(refused.code, ProblemCode::Unauthorized | ProblemCode::Forbidden), "{refused:?}");
}

/// Bounded time: whoever begins TLS and does not go on, or says nothing, is closed at the greeting's deadline.
#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_the_greeting_covers_tls() {
    let mut cluster = TestCluster::configure(1, "");
    cluster.spawn(1);
    log_says(&cluster, 1, "http://127.0.0.1").await;
    // The first bytes of a ClientHello of 512 bytes.
    let mut begun = TcpStream::connect(cluster.peer_address(1)).await.unwrap();
    begun.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(10), begun.read(&mut [0; 16])).await.expect("it is closed");
    assert!(matches!(closed, Ok(0) | Err(_)));
    log_says(&cluster, 1, "it did not say who it is within").await;
    assert!(cluster.status(1).await.is_some());
}

/// The listener of another program at a node's address is named by the node that dials it.
#[tokio::test(flavor = "multi_thread")]
async fn another_program_at_a_nodes_address_is_named() {
    let mut cluster = TestCluster::configure(2, "");
    let foreign = TcpListener::bind(cluster.peer_address(2)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = foreign.accept().await {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
            let _ = stream.read(&mut [0; 512]).await;
        }
    });
    cluster.spawn(1);
    log_says(&cluster, 1, "no heartbeat connection to node 2").await;
    log_says(&cluster, 1, "is no TLS").await;
}
