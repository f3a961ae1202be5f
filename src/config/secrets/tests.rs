//! Secrets are shared by who starts together, refused when others can read them, and never replaced when damaged.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::bundles::{self, Occasion};
use super::*;
use crate::config::ClusterConfig;

const NODE: NodeId = NodeId(1);

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn files_of(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn whoever_comes_first_makes_the_secrets_and_all_share_them() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("data/cluster");
    let secrets: Vec<NodeSecrets> = std::thread::scope(|scope| {
        let start = |node| {
            let directory = &directory;
            scope.spawn(move || of_one_machine(directory, NodeId(node)).unwrap())
        };
        let threads: Vec<_> = (1..=8).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for own in &secrets {
        assert_eq!(own.cluster_key, secrets[0].cluster_key);
        assert_eq!(own.credentials.authority, secrets[0].credentials.authority);
        assert!(own.admin_token.is(secrets[0].admin_token.secret()));
    }
    assert_ne!(secrets[0].credentials.certificate, secrets[1].credentials.certificate);
    for name in files_of(&directory) {
        assert_eq!(fs::metadata(directory.join(&name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
    let again = of_one_machine(&directory, NodeId(8)).unwrap();
    assert_eq!(again.credentials.certificate, secrets[7].credentials.certificate, "nothing is made twice");
}

/// A log or a panic message may print them.
#[test]
fn secrets_are_never_printed() {
    let home = tempfile::tempdir().unwrap();
    let secrets = of_one_machine(&home.path().join("cluster"), NODE).unwrap();
    let printed = format!("{secrets:?}");
    assert!(printed.contains("KeyBytes(secret)") && printed.contains("AdminToken(secret)"), "{printed}");
    assert!(!printed.contains(secrets.admin_token.secret()));
    let key = format!("{:?}", secrets.credentials.key.secret_der());
    assert!(!printed.contains(&key));
}

#[test]
fn looser_modes_are_refused_with_the_command_that_mends_them() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("cluster");
    of_one_machine(&directory, NODE).unwrap();
    for name in files_of(&directory).into_iter().filter(|name| !["lock", "ca.key"].contains(&name.as_str())) {
        let path = directory.join(&name);
        set_mode(&path, 0o640);
        let error = of_one_machine(&directory, NODE).unwrap_err().to_string();
        assert!(error.contains(&name) && error.contains("chmod 600"), "{error}");
        set_mode(&path, 0o600);
    }
    set_mode(&directory, 0o755);
    let error = of_one_machine(&directory, NODE).unwrap_err().to_string();
    assert!(error.contains("chmod 700"), "{error}");
}

#[test]
fn damaged_secrets_are_named_and_never_replaced() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("cluster");
    of_one_machine(&directory, NODE).unwrap();
    for name in [CLUSTER_KEY_FILE, ADMIN_TOKEN_FILE, AUTHORITY_FILE, "node-1.pem", "node-1.key"] {
        let path = directory.join(name);
        let good = fs::read_to_string(&path).unwrap();
        fs::write(&path, "image-cloud cluster key 1\nabc\n").unwrap();
        let error = of_one_machine(&directory, NODE).unwrap_err().to_string();
        assert!(error.contains("restore it from a copy"), "{name}: {error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "image-cloud cluster key 1\nabc\n", "{name}");
        fs::write(&path, good).unwrap();
    }
    of_one_machine(&directory, NODE).unwrap();
}

#[test]
fn an_expired_certificate_of_one_machine_is_made_anew_and_one_of_a_bundle_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("cluster");
    let before = of_one_machine(&directory, NODE).unwrap();
    let secret = SecretDirectory::open(&directory).unwrap();
    let past = Validity { from_s: now_s() - 20 * authority::DAY_S, until_s: now_s() - 10 * authority::DAY_S };
    Authority::load(&secret).unwrap().issue(NODE, &[], past).unwrap().store(&secret, NODE).unwrap();

    let error = of_bundle(&directory, NODE).unwrap_err().to_string();
    assert!(error.contains("expired 10 days ago") && error.contains("init --renew"), "{error}");
    let after = of_one_machine(&directory, NODE).unwrap();
    assert_ne!(after.credentials.certificate, before.credentials.certificate);
    assert_eq!(after.credentials.authority, before.credentials.authority);
    of_bundle(&directory, NODE).unwrap();
}

#[test]
fn a_bundle_is_for_its_node_and_must_be_whole() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("secrets");
    let config = ClusterConfig::default();
    let made = bundles::make(&out, &config.nodes, Occasion::Create).unwrap();
    let (first, second) = (&made.nodes[0].1, &made.nodes[1].1);
    assert_eq!(files_of(first), ["admin.token", "ca.pem", "cluster.key", "node-1.key", "node-1.pem"]);
    assert_eq!(files_of(&made.operator), ["admin.token", "ca.key", "ca.pem", "cluster.key"]);

    let one = of_bundle(first, NODE).unwrap();
    let two = of_bundle(second, NodeId(2)).unwrap();
    assert_eq!((&one.cluster_key, &one.credentials.cluster), (&two.cluster_key, &two.credentials.cluster));
    let error = of_bundle(second, NODE).unwrap_err().to_string();
    assert!(error.contains("node-1.pem") && error.contains("--secrets"), "{error}");

    // A file of another node under this one's name, and one of another cluster.
    fs::copy(second.join("node-2.pem"), first.join("node-1.pem")).unwrap();
    let error = of_bundle(first, NODE).unwrap_err().to_string();
    assert!(error.contains("node-2") && error.contains("node-1"), "{error}");
    let other = bundles::make(&home.path().join("other"), &config.nodes, Occasion::Create).unwrap();
    fs::copy(other.nodes[1].1.join("ca.pem"), second.join("ca.pem")).unwrap();
    assert!(of_bundle(second, NodeId(2)).is_err());
}

#[test]
fn renewing_gives_new_certificates_of_the_same_cluster_and_bundles_to_added_nodes() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("secrets");
    let nodes = ClusterConfig::default().nodes;
    assert!(bundles::make(&out, &nodes, Occasion::Renew).is_err(), "there is no cluster yet");
    let made = bundles::make(&out, &nodes[..2], Occasion::Create).unwrap();
    let before = of_bundle(&made.nodes[0].1, NODE).unwrap();
    assert!(matches!(bundles::make(&out, &nodes, Occasion::Create), Err(SecretsError::Exists { .. })));

    let renewed = bundles::make(&out, &nodes, Occasion::Renew).unwrap();
    let after = of_bundle(&renewed.nodes[0].1, NODE).unwrap();
    assert_ne!(after.credentials.certificate, before.credentials.certificate);
    assert_eq!(after.credentials.authority, before.credentials.authority);
    assert!(after.admin_token.is(before.admin_token.secret()));
    of_bundle(&renewed.nodes[2].1, NodeId(3)).unwrap();
}

#[test]
fn only_the_very_token_is_the_token() {
    let token = AdminToken::fresh().unwrap();
    assert!(token.is(token.secret()));
    let longer = format!("{}0", token.secret());
    for shown in ["", &token.secret()[1..], &longer, AdminToken::fresh().unwrap().secret()] {
        assert!(!token.is(shown));
    }
}

#[test]
fn names_in_certificates_are_read_as_they_are_written() {
    assert_eq!(node_of_name(&node_name(NodeId(12), "0a1b2c")), Some((NodeId(12), "0a1b2c")));
    for name in [
        "localhost",
        "node-0.x.image-cloud",
        "node-1.image-cloud",
        "node-1.x.image-cloud.evil.example",
        "1.x.image-cloud",
    ] {
        assert_eq!(node_of_name(name), None, "{name}");
    }
}
