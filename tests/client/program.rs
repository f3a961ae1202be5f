//! The `client` program as a process: what it writes, and its exit codes.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use image_cloud::config::secrets;
use image_cloud::image::{ClusterId, ClusterKey, DataKey, ImageNonce, Limits, Scratch, SealKeys};
use image_cloud::protocol::job::{Label, SealForm};
use image_cloud::protocol::problem::{Problem, ProblemCode};
use image_cloud::time::now;

use crate::fake::{Announcing, FakeNode, Uploading, finished};
use crate::wait::eventually;

/// `client` with `arguments`, in `directory`, for these nodes.
fn client(directory: &Path, nodes: &[&FakeNode], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    let urls: Vec<&str> = nodes.iter().map(|node| node.url.as_str()).collect();
    command.current_dir(directory).args(arguments).env("CLOUD_NODES", urls.join(",")).env_remove("RUST_LOG");
    command
}

fn run(directory: &Path, nodes: &[&FakeNode], arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = client(directory, nodes, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn the_seeds_form_sends_its_requests_and_names_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let node = FakeNode::start(1);
    let (code, stdout, stderr) = run(directory.path(), &[&node], &["1", "5"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 6, "{stdout}");
    assert!(lines[4].starts_with("request 5/5: picture-1-5.png"), "{stdout}");
    assert!(lines[5].contains("5 of 5 answered") && lines[5].ends_with("results in results/client-1"), "{stdout}");
    let results = std::fs::read_dir(directory.path().join("results/client-1")).unwrap().count();
    assert_eq!(results, 5);
    let ids: std::collections::BTreeSet<_> = node.seen().uploads.iter().map(|upload| upload.0).collect();
    assert_eq!(ids.len(), 5);
    // The same again: other ids, so that no answer comes from a cache; the results are replaced.
    assert_eq!(run(directory.path(), &[&node], &["1", "5"]).0, 0);
    assert!(node.seen().uploads.iter().skip(5).all(|upload| !ids.contains(&upload.0)));
}

#[test]
fn encrypt_writes_the_default_name_and_overwrites_only_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let node = FakeNode::start(1);
    std::fs::write(directory.path().join("cat.jpg"), b"meow").unwrap();
    let encrypt = ["encrypt", "--input", "cat.jpg"];
    let (code, stdout, stderr) = run(directory.path(), &[&node], &encrypt);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    let output = directory.path().join("encrypted_lsb_image.png");
    assert_eq!(std::fs::read(&output).unwrap(), finished(b"meow"));

    let (code, _, stderr) = run(directory.path(), &[&node], &encrypt);
    assert_eq!(code, 1);
    assert!(stderr.contains("encrypted_lsb_image.png exists") && stderr.contains("--force"), "{stderr}");
    assert_eq!(node.seen().uploads.len(), 1, "refused before any work is done");
    assert_eq!(run(directory.path(), &[&node], &[&encrypt[..], &["--force"]].concat()).0, 0);

    let (code, stdout, _) =
        run(directory.path(), &[&node], &["label", "cat.jpg", "--to", "a,b", "--quota", "2", "-o", "-"]);
    assert_eq!((code, stdout.as_bytes()), (0, &*finished(b"meow")));
}

#[test]
fn each_kind_of_error_is_one_line_with_its_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("cat.jpg"), b"meow").unwrap();
    let node = FakeNode::start(1);
    let refuse = |code| {
        let problem = Problem::new(code, "refused by the test");
        node.set(|script| script.uploads = [Uploading::Refuse(Box::new(problem))].into());
    };
    let check = |arguments: &[&str], expected: i32, part: &str| {
        let (code, stdout, stderr) = run(directory.path(), &[&node], arguments);
        assert_eq!(code, expected, "{arguments:?}: {stderr}");
        assert!(stderr.contains(part) && stderr.lines().count() == 1 && stdout.is_empty(), "{arguments:?}: {stderr}");
    };
    let encrypt = ["encrypt", "--input", "cat.jpg"];
    check(&["encrypt", "--input", "dog.jpg"], 3, "dog.jpg");
    check(&["status", "--config", "no.toml", "--nodes", "x y"], 2, "x y");
    check(&["fail", "9", "--for", "1s"], 3, "node 9");
    check(&["fail", "coordinator", "--for", "1s"], 4, "no confirmed coordinator");
    refuse(ProblemCode::BadImage);
    check(&encrypt, 6, "refused by the test");
    refuse(ProblemCode::TooLarge);
    check(&encrypt, 1, "refused by the test");
    refuse(ProblemCode::Forbidden);
    check(&encrypt, 5, "refused by the test");
    check(&["label", "cat.jpg", "--to", "a,,b", "--quota", "1"], 2, "user name");
    check(&["decrypt", "cat.jpg", "--cluster-key", "no.key"], 3, "no.key");
    assert!(!directory.path().join("encrypted_lsb_image.png").exists());
}

#[test]
fn a_cluster_that_is_not_there_is_unavailable_at_once_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("cat.jpg"), b"meow").unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for arguments in
        [&["encrypt", "--input", "cat.jpg"][..], &["1", "5"], &["fail", "coordinator", "--for", "1s"], &["status"]]
    {
        let start = now();
        let (code, _, stderr) = run(directory.path(), &[], &[arguments, &["--nodes", &address]].concat());
        assert_eq!(code, 4, "{arguments:?}: {stderr}");
        assert!(stderr.contains(&address) && stderr.contains("./run_nodes.sh"), "{stderr}");
        assert!(now().since(start) < Duration::from_secs(5));
    }
}

#[test]
fn status_shows_all_nodes_as_a_table_and_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let nodes = [1, 2, 3].map(FakeNode::start);
    nodes[0].set(|script| script.coordinator = Some((4, 2)));
    nodes[2].set(|script| script.announcing = Announcing::Hang);
    let all = [&nodes[0], &nodes[1], &nodes[2]];
    let (code, table, _) = run(directory.path(), &all, &["status"]);
    assert_eq!(code, 0);
    for part in ["coordinator: node 2 since term 4", "[COORDINATOR]", "no answer", "1.2 s ago"] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    let (_, json, _) = run(directory.path(), &all, &["status", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["coordinator"]["node"], 2);
    assert_eq!(json["nodes"].as_array().unwrap().len(), 4, "the silent address, and node 3 by hearsay: {json}");
}

#[test]
fn an_interrupt_keeps_what_was_done_and_exits_with_130() {
    let directory = tempfile::tempdir().unwrap();
    let node = FakeNode::start(1);
    node.set(|script| script.uploads = [Uploading::Ok, Uploading::Ok, Uploading::Hang].into());
    let child = client(directory.path(), &[&node], &["1", "5"]).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the third request comes", || (node.seen().uploads.len() == 3).then_some(()));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
    assert_eq!(std::fs::read_dir(directory.path().join("results/client-1")).unwrap().count(), 2);
}

#[test]
fn what_is_sealed_opens_here_with_the_key_and_tells_a_stranger_only_its_public_part() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let key = secrets::of_one_machine(&at("cluster"), image_cloud::id::NodeId(1)).unwrap().cluster_key;
    let original = picture();
    let keys = SealKeys {
        cluster_key: ClusterKey::new(key.0),
        cluster_id: ClusterId([1; 32]),
        image_nonce: ImageNonce([2; 32]),
        data_key: DataKey([3; 32]),
    };
    let sealed = image_cloud::image::encrypt_image(&original, "cat.png", &keys, &Limits::default()).unwrap();
    std::fs::write(at("sealed.png"), &sealed).unwrap();

    let decrypt = ["decrypt", "sealed.png", "--cluster-key", "cluster/cluster.key"];
    assert_eq!(run(directory.path(), &[], &decrypt).0, 0);
    assert_eq!(std::fs::read(at("decrypted_cat.png")).unwrap(), original, "bit for bit");
    assert_eq!(run(directory.path(), &[], &decrypt).0, 1, "not twice into the same file");

    let (code, json, _) = run(directory.path(), &[], &["inspect", "sealed.png", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["payload_bytes"]), (0, &serde_json::json!(original.len())));
    let (_, table, _) = run(directory.path(), &[], &["inspect", "sealed.png"]);
    assert!(table.contains("payload bytes") && !table.contains("cat.png"), "{table}");

    let other_key = secrets::of_one_machine(&at("other"), image_cloud::id::NodeId(1)).unwrap().cluster_key;
    assert_ne!(other_key, key);
    let exit_of = |arguments: &[&str]| run(directory.path(), &[], arguments).0;
    assert_eq!(exit_of(&["decrypt", "sealed.png", "--cluster-key", "other/cluster.key"]), 5);
    std::fs::write(at("original.png"), &original).unwrap();
    assert_eq!(exit_of(&["inspect", "original.png"]), 3);
    let recompressed = image::load_from_memory(&sealed).unwrap().into_rgb8();
    recompressed.save_with_format(at("chat.jpg"), image::ImageFormat::Jpeg).unwrap();
    let (code, _, error) = run(directory.path(), &[], &["inspect", "chat.jpg"]);
    assert_eq!(code, 6, "{error}");
    assert!(
        error.contains("this copy was changed on its way") && error.contains("ask for the original file"),
        "{error}"
    );
    std::fs::write(at("text.png"), b"no picture").unwrap();
    assert_eq!(exit_of(&["inspect", "text.png"]), 6);
    std::fs::write(at("torn.png"), &sealed[..sealed.len() / 2]).unwrap();
    assert_eq!(exit_of(&["decrypt", "torn.png", "--cluster-key", "cluster/cluster.key"]), 6);
}

#[test]
fn a_label_is_read_back_as_its_json() {
    let directory = tempfile::tempdir().unwrap();
    let label = Label { usernames: vec!["alice".into(), "bob".into()], quota: 5 };
    let limits = Limits::default();
    let (form, mut scratch) = (SealForm::Compact, Scratch::new(0));
    let labelled = image_cloud::image::label(&picture(), &label, &limits, form, &mut scratch).unwrap();
    std::fs::write(directory.path().join("labelled.png"), labelled).unwrap();
    std::fs::write(directory.path().join("plain.png"), picture()).unwrap();
    let (code, stdout, _) = run(directory.path(), &[], &["read-label", "labelled.png"]);
    assert_eq!((code, stdout.as_str()), (0, "{\"usernames\":[\"alice\",\"bob\"],\"quota\":5}\n"));
    assert_eq!(run(directory.path(), &[], &["read-label", "plain.png"]).0, 3);
    let (code, stdout, _) = run(directory.path(), &[], &["capacity", "plain.png", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    // 64 × 64 pixels of three samples, one bit each, less the 32 bits of the length.
    assert_eq!((code, &json["label_bytes"]), (0, &serde_json::json!(64 * 64 * 3 / 8 - 4)));
}

/// A PNG of 64 × 64 pixels.
fn picture() -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let pixels = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8, y as u8, 7]));
    pixels.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}
