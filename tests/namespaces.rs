//! Three nodes with a network each: namespaces, joined by cables and a bridge, HTTP and node traffic off loopback with the bundles of
//! `cloud-node init`. What is cut here is cut for the kernel, not for the program.
//!
//! The test runs itself again inside namespaces for networks, mounts and processes, as root or as a user who may make them. The
//! kernel takes all of them back with their last process, so nothing stays on the machine. Where it is not allowed, it says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::wait_for;
use serde_json::Value;

/// Set in the process that runs inside.
const INSIDE: &str = "CLOUD_TEST_INSIDE_NAMESPACES";
const NAME: &str = "a_cut_cable_leaves_a_minority_that_says_so_and_is_healed";

const NODES: [u16; 3] = [1, 2, 3];

/// For root, and for other users where the system lets them be root among themselves.
const WAYS: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];
const NAMESPACES: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// All that the test needs of the kernel and of the tools.
const TRIAL: &str = "mount -t tmpfs none /run && ip netns add trial && ip link add bridge type bridge \
                     && ip link add cable type veth peer name end netns trial && ip -n trial link set lo up";

fn unshare(way: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(way).args(NAMESPACES).stdin(Stdio::null());
    command
}

/// How this user can have namespaces, or why not.
fn way_in() -> Result<&'static [&'static str], String> {
    let mut why = Vec::new();
    for way in WAYS {
        match unshare(way).args(["sh", "-c", TRIAL]).output() {
            Ok(output) if output.status.success() => return Ok(way),
            Ok(output) => why.push(String::from_utf8_lossy(&output.stderr).trim().replace('\n', ", ")),
            Err(error) => why.push(format!("cannot run unshare: {error}")),
        }
    }
    Err(why.join("; "))
}

/// A minority behind a cut cable answers "no quorum" and never success; the majority goes on; after healing all replicas are equal.
#[test]
fn a_cut_cable_leaves_a_minority_that_says_so_and_is_healed() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        return runtime.block_on(inside());
    }
    match way_in() {
        Ok(way) => {
            let own = std::env::current_exe().unwrap();
            let again = unshare(way).arg(own).args([NAME, "--exact", "--nocapture"]).env(INSIDE, "1").output().unwrap();
            let said = [again.stdout, again.stderr].concat();
            assert!(again.status.success(), "{}", String::from_utf8_lossy(&said));
        }
        // Not by a macro: the harness keeps what those print in a test that passes.
        Err(why) => writeln!(std::io::stderr(), "{NAME}: SKIPPED, no namespaces for this user ({why})").unwrap(),
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Three machines, as far as one can play them.
struct Machines {
    home: tempfile::TempDir,
    nodes: Vec<Child>,
}

impl Machines {
    fn start() -> Machines {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "none", "/run"]).status().unwrap();
        assert!(mounted.success());
        ip("link set lo up");
        ip("link add cloud type bridge");
        ip("addr add 10.77.0.254/24 dev cloud");
        ip("link set cloud up");
        let home = tempfile::tempdir().unwrap();
        let mut config = format!("data = {:?}\n", home.path().join("data"));
        for node in NODES {
            ip(&format!("netns add machine{node}"));
            ip(&format!("link add cable{node} type veth peer name eth0 netns machine{node}"));
            ip(&format!("link set cable{node} master cloud up"));
            ip(&format!("-n machine{node} addr add 10.77.0.{node}/24 dev eth0"));
            ip(&format!("-n machine{node} link set eth0 up"));
            ip(&format!("-n machine{node} link set lo up"));
            config += &format!("[[nodes]]\nid = {node}\nhttp = \"10.77.0.{node}:8001\"\n");
        }
        fs::write(home.path().join("cluster.toml"), config).unwrap();
        let mut machines = Machines { home, nodes: Vec::new() };
        let mut init = Command::new(env!("CARGO_BIN_EXE_cloud-node"));
        init.args(["init", "--out"]).arg(machines.path("secrets")).arg("--config").arg(machines.path("cluster.toml"));
        let made = init.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for node in NODES {
            let log = File::create(machines.log(node)).unwrap();
            let mut command = on(node, env!("CARGO_BIN_EXE_cloud-node"));
            command.arg(node.to_string()).arg("--config").arg(machines.path("cluster.toml"));
            command.arg("--secrets").arg(machines.path("secrets").join(format!("node-{node}")));
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            machines.nodes.push(command.spawn().unwrap());
        }
        machines
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn log(&self, node: u16) -> PathBuf {
        self.path(&format!("node-{node}.log"))
    }

    /// The client at the bridge, which knows all nodes.
    fn client(&self, arguments: &[&str]) -> Output {
        self.run(Command::new(env!("CARGO_BIN_EXE_client")), arguments, &NODES)
    }

    /// The client on that machine, which knows the node there alone.
    fn client_on(&self, node: u16, arguments: &[&str]) -> Output {
        self.run(on(node, env!("CARGO_BIN_EXE_client")), arguments, &[node])
    }

    fn run(&self, mut client: Command, arguments: &[&str], nodes: &[u16]) -> Output {
        let nodes: Vec<String> = nodes.iter().map(|node| format!("https://10.77.0.{node}:8001")).collect();
        let operator = self.path("secrets/operator");
        client.args(arguments).args(["--nodes", &nodes.join(",")]).arg("--ca").arg(operator.join("ca.pem"));
        client.arg("--admin-token-file").arg(operator.join("admin.token"));
        client.env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap()
    }

    /// Waits until all three are Active and follow the same coordinator.
    async fn settled(&self) -> u16 {
        wait_for("all nodes are active", async || {
            let status: Value = serde_json::from_slice(&self.client(&["status", "-o", "json"]).stdout).ok()?;
            let coordinator = &status["coordinator"];
            let agrees = |node: &Value| node["state"] == "active" && node["status"]["coordinator"] == *coordinator;
            let leader = coordinator["node"].as_u64()? as u16;
            status["nodes"].as_array()?.iter().all(agrees).then_some(leader)
        })
        .await
    }

    /// Waits until the client is told that there is no quorum; it must never be told anything better.
    async fn no_quorum(&self, client: impl Fn() -> Output) {
        wait_for("it says that there is no quorum", async || {
            let output = client();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_ne!(output.status.code(), Some(0), "a minority said that it had done it: {said}");
            (output.status.code() == Some(4) && said.contains("no quorum")).then_some(())
        })
        .await;
    }

    async fn replicas_are_equal(&self) {
        wait_for("all replicas are equal", async || {
            let hash: Value = serde_json::from_slice(&self.client(&["hash", "-o", "json"]).stdout).ok()?;
            let all = hash["nodes"].as_array()?.iter().all(|node| node["hash"].is_string());
            (all && hash["equal"] == true).then_some(())
        })
        .await;
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for (node, child) in NODES.into_iter().zip(&mut self.nodes) {
            let _ = child.kill();
            let _ = child.wait();
            if std::thread::panicking() {
                let log = fs::read_to_string(self.home.path().join(format!("node-{node}.log")));
                eprintln!("--- node {node}\n{}", log.unwrap_or_default());
            }
        }
    }
}

/// A program on one of the machines.
fn on(node: u16, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &format!("machine{node}")]).arg(program.as_ref());
    command
}

#[track_caller]
fn done(output: &Output, stdout: &str) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), stdout);
}

async fn inside() {
    let machines = Machines::start();
    let leader = machines.settled().await;
    done(&machines.client(&["set", "color", "blue"]), "");
    let others: Vec<u16> = NODES.into_iter().filter(|node| *node != leader).collect();

    // The leader's cable: it is alone, the other two elect one of them and go on.
    ip(&format!("link set cable{leader} down"));
    machines.no_quorum(|| machines.client_on(leader, &["set", "color", "lost"])).await;
    machines.no_quorum(|| machines.client_on(leader, &["get", "color"])).await;
    done(&machines.client_on(leader, &["get", "color", "--stale"]), "blue");
    wait_for("the majority goes on", async || machines.client(&["set", "color", "red"]).status.success().then_some(()))
        .await;
    done(&machines.client(&["get", "color"]), "red");
    ip(&format!("link set cable{leader} up"));
    machines.settled().await;
    machines.replicas_are_equal().await;
    done(&machines.client(&["get", "color"]), "red");

    // Two cables: nobody has a majority, and nobody says that he has done anything.
    for node in &others {
        ip(&format!("link set cable{node} down"));
    }
    machines.no_quorum(|| machines.client(&["set", "color", "lost"])).await;
    for node in &others {
        machines.no_quorum(|| machines.client_on(*node, &["set", "color", "lost"])).await;
        ip(&format!("link set cable{node} up"));
    }
    machines.settled().await;
    done(&machines.client(&["set", "shape", "round"]), "");
    done(&machines.client(&["get", "color"]), "red");
    machines.replicas_are_equal().await;
}
