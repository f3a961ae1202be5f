//! The cluster's keys change while its nodes run: old images still open, and those under a retired key are refused by its name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;

use std::process::{Command, Output, Stdio};

use common::{TestCluster, picture};
use image_cloud::image::{Limits, inspect};
use image_cloud::protocol::job::route;

fn run(program: &str, cluster: &TestCluster, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(program);
    command.current_dir(cluster.directory()).args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG");
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn key(cluster: &TestCluster, arguments: &[&str]) -> (i32, String, String) {
    run(env!("CARGO_BIN_EXE_cloud-node"), cluster, &[&["key"], arguments, &["--config", "cluster.toml"]].concat())
}

fn decrypt(cluster: &TestCluster, file: &str) -> (i32, String, String) {
    let arguments = ["decrypt", file, "--cluster-key", "data/cluster/cluster.key", "-o", "opened.png", "--force"];
    run(env!("CARGO_BIN_EXE_client"), cluster, &arguments)
}

/// Seals a picture at a running node, keeps it as `name`, and returns the key's id.
async fn sealed(cluster: &TestCluster, name: &str) -> String {
    let response = cluster.post(1, route::SEAL, picture(1)).await.unwrap();
    assert_eq!(response.status(), 200);
    let file = response.bytes().await.unwrap();
    std::fs::write(cluster.directory().join(name), &file).unwrap();
    inspect(&file, &Limits::default()).unwrap().public.key_id.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_still_opens_and_a_retired_one_is_refused_by_name_while_the_node_runs() {
    let mut cluster = TestCluster::start(1, "").await;
    cluster.settled().await;
    let first = sealed(&cluster, "old.png").await;
    let (code, said, error) = key(&cluster, &["rotate"]);
    assert_eq!(code, 0, "{error}");
    let second = sealed(&cluster, "new.png").await;
    assert_ne!(first, second);
    assert!(said.contains(&format!("Made the cluster key {second}")), "{said}");
    for name in ["old.png", "new.png"] {
        let (code, _, error) = decrypt(&cluster, name);
        assert_eq!(code, 0, "{error}");
        assert_eq!(std::fs::read(cluster.directory().join("opened.png")).unwrap(), picture(1));
    }

    let (code, _, error) = key(&cluster, &["retire", &second]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains(&format!("{second} is the current cluster key")), "{error}");
    let (code, said, error) = key(&cluster, &["retire", &first]);
    assert_eq!(code, 0, "{error}");
    assert!(said.contains(&format!("Retired the cluster key {first}")), "{said}");
    let (code, _, error) = decrypt(&cluster, "old.png");
    assert_eq!(code, 5, "{error}");
    assert!(
        error.contains(&format!("this image is locked under the cluster key {first}, which was retired")),
        "{error}"
    );
    assert_eq!(decrypt(&cluster, "new.png").0, 0);
    assert_eq!(sealed(&cluster, "newer.png").await, second);

    let (_, listed, _) = key(&cluster, &["list"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[1].starts_with(&format!("{second}  current")), "{listed}");
    assert!(lines[2].starts_with(&format!("{first}  retired")), "{listed}");
    // A restart reads the same.
    cluster.stop(1).await;
    cluster.spawn(1);
    cluster.settled().await;
    assert_eq!(sealed(&cluster, "newest.png").await, second);
}
