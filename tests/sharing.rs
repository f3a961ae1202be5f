//! The promise: what the README says of users and rights holds for the `client` program on real nodes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use common::{DEADLINE, TestCluster, picture};
use image_cloud::id::{ImageId, RequestId};
use image_cloud::image::{Limits, header_of};
use image_cloud::time::now;
use rustix::process::Signal;

/// A cluster, and a directory with the keys and pictures of the people in the story.
struct Story {
    cluster: TestCluster,
    directory: tempfile::TempDir,
    original: Vec<u8>,
}

impl Story {
    async fn begin(people: &[&str]) -> Story {
        let cluster = TestCluster::start(3, "").await;
        let directory = tempfile::tempdir().unwrap();
        let original = picture(7);
        fs::write(directory.path().join("photo.png"), &original).unwrap();
        let story = Story { cluster, directory, original };
        for name in people {
            story.done(&format!("register {name}")).await;
        }
        story
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// `@` in a word stands for the directory of the story.
    fn words(&self, arguments: &str) -> String {
        let here = format!("{}/", self.directory.path().display());
        format!("{} --keys {}", arguments.replace('@', &here), self.path("keys").display())
    }

    /// Runs `client`.
    async fn client(&self, arguments: &str) -> (i32, String, String) {
        self.cluster.client(&self.words(arguments)).await
    }

    /// The same, and it must work; gives both outputs.
    async fn done(&self, arguments: &str) -> String {
        let (code, stdout, stderr) = self.client(arguments).await;
        assert_eq!(code, 0, "client {arguments}: {stderr}");
        stdout + &stderr
    }

    /// The same, and it must end with this code.
    async fn ends(&self, code: i32, arguments: &str) -> String {
        let (found, stdout, stderr) = self.client(arguments).await;
        assert_eq!(found, code, "client {arguments}: {stdout}{stderr}");
        stderr
    }

    fn journal(&self, name: &str) -> PathBuf {
        let image = self.image();
        let cluster = fs::read_dir(self.path("keys")).unwrap().next().unwrap().unwrap().path();
        cluster.join(name).join("journal").join(image.to_string())
    }

    fn image(&self) -> ImageId {
        let header = header_of(&self.read("sealed.png"), &Limits::default()).unwrap();
        ImageId(*blake3::hash(header.as_bytes()).as_bytes())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bob_opens_it_as_often_as_alice_says() {
    let story = Story::begin(&["alice", "bob"]).await;
    story.done("encrypt --input @photo.png --owner alice --to bob=2 -o @sealed.png").await;
    let said = story.done("view --input @sealed.png --user bob -o @a.png").await;
    assert!(said.contains("1 of 2 views left"), "{said}");
    story.done("view --input @sealed.png --user bob -o @b.png").await;
    assert!(story.read("a.png") == story.original && story.read("b.png") == story.original, "bit for bit");
    story.ends(5, "view --input @sealed.png --user bob -o @c.jpg").await;
    assert_eq!(story.read("c.png"), story.read("sealed.png"), "the Access Denied picture, as a .png");
    assert!(!story.path("c.jpg").exists());
    story.ends(5, "view --input @sealed.png --user bob -o @denied.png").await;
    assert_eq!(story.read("denied.png"), story.read("sealed.png"), "the same where the picture would have been");

    story.done("grant @sealed.png bob --views 1 --user alice").await;
    story.ends(1, "view --input @sealed.png --user bob -o @a.png").await;
    let rights = story.done("rights @sealed.png --user bob").await;
    assert!(rights.contains("bob") && rights.contains("alice"), "{rights}");
    story.done("view --input @sealed.png --user bob -o @d.png").await;
    assert_eq!(story.read("d.png"), story.original, "what could not be written was not spent");

    story.done("grant @sealed.png bob --views 5 --user alice").await;
    story.ends(5, "grant @sealed.png bob --views 5 --user bob").await;
    story.done("revoke @sealed.png bob --user alice").await;
    story.ends(5, "view --input @sealed.png --user bob -o @e.png").await;
    story.done("view --input @sealed.png --user alice -o @f.png").await;
    assert_eq!(story.read("f.png"), story.original, "the owner's views are not counted");

    let views = story.done("views @sealed.png --user alice").await;
    assert_eq!(views.matches("viewed").count(), 3, "{views}");
    assert!(story.done("images --user alice").await.contains(&story.image().to_string()));
    let audit = story.done("audit verify @sealed.png --user alice").await;
    assert!(audit.contains("the chain is whole: 6 entries"), "{audit}");
    story.ends(5, "audit verify @sealed.png --user bob").await;
}

/// What the README tells can be typed as it stands, line by line.
#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_story_can_be_typed_as_it_stands() {
    let readme = include_str!("../README.md");
    let section = readme.split("### Pictures for named people").nth(1).unwrap();
    let section = section.split("\n### ").next().unwrap();
    let blocks = section.split("```").filter_map(|block| block.strip_prefix("sh\n"));
    let may_end_with = |line: &str| match line.split_once("exit code ") {
        Some((command, code)) => {
            let command = command.split('#').next().unwrap();
            format!("{command} && exit 99 || test $? = {}", code.chars().next().unwrap())
        }
        None => line.to_owned(),
    };
    let lines: Vec<String> = blocks.flat_map(str::lines).map(may_end_with).collect();
    assert!(lines.len() > 15 && lines.iter().any(|line| line.ends_with("= 5")), "{lines:#?}");

    let cluster = TestCluster::start(3, "").await;
    let directory = tempfile::tempdir().unwrap();
    let mut photo = std::io::Cursor::new(Vec::new());
    let decoded = image::load_from_memory(&picture(7)).unwrap();
    decoded.write_to(&mut photo, image::ImageFormat::Jpeg).unwrap();
    fs::write(directory.path().join("photo.jpg"), photo.into_inner()).unwrap();
    let client = format!(
        "client() {{ {} \"$@\" --config {}/cluster.toml; }}",
        env!("CARGO_BIN_EXE_client"),
        cluster.directory().display()
    );
    let script = format!("set -ex\n{client}\n{}\n", lines.join("\n"));
    let mut shell = tokio::process::Command::new("bash");
    shell.arg("-c").arg(script).current_dir(directory.path()).env("CLOUD_KEYS", directory.path().join("keys"));
    let output = shell.env_remove("CLOUD_NODES").output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The journal is written before anything is sent: whatever is lost afterwards, the same request is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_whose_answer_was_lost_is_not_spent_twice() {
    let story = Story::begin(&["alice", "bob"]).await;
    story.done("encrypt --input @photo.png --owner alice --to bob=2 -o @sealed.png").await;
    story.done("view --input @sealed.png --user bob -o @a.png").await;
    assert!(!story.journal("bob").exists(), "complete");

    // As if the program had died between the answer and the picture: the entry of that view is still there.
    let look = story.done("views @sealed.png --user alice -o json").await;
    let entries: serde_json::Value = serde_json::from_str(look.lines().next().unwrap()).unwrap();
    let id: RequestId = entries[0]["id"].as_str().unwrap().parse().unwrap();
    fs::write(story.journal("bob"), format!("{{\"id\":\"{id}\",\"action\":\"view\"}}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(story.journal("bob"), mode).unwrap();
    let said = story.done("view --input @sealed.png --user bob -o @b.png").await;
    assert!(said.contains("1 of 2 views left"), "{said}");
    assert_eq!(story.read("b.png"), story.original);
    let said = story.done("view --input @sealed.png --user bob -o @c.png").await;
    assert!(said.contains("0 of 2 views left"), "{said}");
}

/// Killed at any moment between asking and the finished picture, the program gets its picture with the view that it has paid for.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_on_its_way_pays_no_second_view() {
    const VIEWS: u64 = 12;
    let story = Story::begin(&["alice", "bob"]).await;
    story.done(&format!("encrypt --input @photo.png --owner alice --to bob={VIEWS} -o @sealed.png")).await;
    let (mut killed_on_the_way, mut for_nothing) = (0, 0);
    let coordinator = story.cluster.settled().await.node;
    let followers = |signal| {
        for id in story.cluster.running().into_iter().filter(|id| *id != coordinator.0) {
            story.cluster.signal(id, signal);
        }
    };
    for number in 0..VIEWS {
        let view = format!("view --input @sealed.png --user bob -o @{number}.png");
        // The first one is surely killed on its way, since its view cannot be committed; the others are as far as they have come.
        if number == 0 {
            followers(Signal::STOP);
        }
        let mut client = story.cluster.client_command(&story.words(&view));
        let mut client = client.stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        // The whole way takes a few milliseconds, so this looks more often than `wait_for` does.
        let deadline = now() + DEADLINE;
        while !story.journal("bob").exists() && client.try_wait().unwrap().is_none() {
            assert!(now() < deadline, "view {number} neither asks nor ends");
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(number)).await;
        client.kill().await.unwrap();
        if number == 0 {
            followers(Signal::CONT);
        }
        let (has_entry, has_picture) = (story.journal("bob").exists(), story.path(&format!("{number}.png")).exists());
        killed_on_the_way += u64::from(has_entry && !has_picture);
        // The entry goes last: whoever is killed between the picture and that may look once more with the same view.
        for_nothing += u64::from(has_entry && has_picture);
        if !has_picture {
            story.done(&view).await;
        }
        assert!(story.read(&format!("{number}.png")) == story.original, "view {number}");
    }
    println!("{killed_on_the_way} of {VIEWS} were killed on the way");
    assert!(killed_on_the_way > 0, "never killed on the way");
    let rights = story.done("rights @sealed.png --user bob -o json").await;
    let rights: serde_json::Value = serde_json::from_str(rights.lines().next().unwrap()).unwrap();
    assert_eq!(rights["right"]["spent"], VIEWS - for_nothing, "{rights}");
}

/// A damaged copy costs the view that it was asked for, but no second one.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_told_and_the_good_one_opens_with_the_same_view() {
    let story = Story::begin(&["alice", "bob"]).await;
    story.done("encrypt --input @photo.png --owner alice --to bob=1 --form stored -o @sealed.png").await;
    let mut damaged = story.read("sealed.png");
    let place = damaged.len() - 2000;
    damaged[place] ^= 1;
    fs::write(story.path("damaged.png"), damaged).unwrap();
    story.ends(6, "view --input @damaged.png --user bob -o @a.png").await;
    assert!(!story.path("a.png").exists());
    story.done("view --input @sealed.png --user bob -o @a.png").await;
    assert_eq!(story.read("a.png"), story.original);
    story.ends(5, "view --input @sealed.png --user bob -o @b.png").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leased_views_open_without_any_node_and_go_back_where_the_owner_allows_it() {
    let mut story = Story::begin(&["alice", "bob"]).await;
    story.done("encrypt --input @photo.png --owner alice --to bob=3 --local -o @sealed.png").await;
    story.ends(1, "lease @sealed.png --views 4 --for 1h --user bob").await;
    story.done("lease @sealed.png --views 3 --for 1h --user bob").await;
    story.ends(5, "view --input @sealed.png --user bob -o @no.png").await;
    story.ends(1, "lease return @sealed.png --views 1 --user bob").await;
    story.done("returns @sealed.png --allow --user alice").await;
    story.done("lease return @sealed.png --views 1 --user bob").await;
    let said = story.done("view --input @sealed.png --user bob -o @a.png").await;
    assert!(said.contains("0 of 3 views left"), "{said}");
    story.done("audit verify @sealed.png --user alice").await;

    // She may also say so when she seals, at a node or by herself.
    for (where_, to) in [("", "returned-1.png"), ("--local", "returned-2.png")] {
        let seal = format!("encrypt --input @photo.png --owner alice --to bob=1 --leases-returnable {where_} -o @{to}");
        story.done(&seal).await;
        story.done(&format!("lease @{to} --views 1 --for 1h --user bob")).await;
        story.done(&format!("lease return @{to} --views 1 --user bob")).await;
        story.done(&format!("returns @{to} --user alice --forbid")).await;
        story.done(&format!("audit verify @{to} --user alice")).await;
        story.done(&format!("view --input @{to} --user bob -o @back-{to}")).await;
    }
    story.ends(2, "encrypt --input @photo.png --leases-returnable -o @no.png").await;
    for node in 1..=3 {
        story.cluster.kill(node);
    }
    let said = story.done("view --input @sealed.png --user bob --offline -o @b.png").await;
    assert!(said.contains("1 leased views left"), "{said}");
    story.done("view --input @sealed.png --user bob --offline -o @c.png").await;
    assert!([story.read("a.png"), story.read("b.png"), story.read("c.png")].iter().all(|file| *file == story.original));
    story.ends(5, "view --input @sealed.png --user bob --offline -o @d.png").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_open_what_was_sealed_before_and_a_name_is_taken_once() {
    let story = Story::begin(&["alice", "bob"]).await;
    story.done("encrypt --input @photo.png --owner alice --to bob=2 -o @sealed.png").await;
    story.done("keys export --user bob -o @old.toml").await;
    story.done("keys rotate --user bob").await;
    story.done("view --input @sealed.png --user bob -o @a.png").await;
    assert_eq!(story.read("a.png"), story.original);
    let whoami = story.done("whoami --user bob -o json").await;
    assert!(whoami.contains("\"key_is_current\":true"), "{whoami}");

    // Whoever has the old keys has nothing.
    let old = story.path("elsewhere");
    story.cluster.done(&format!("keys import {} --keys {}", story.path("old.toml").display(), old.display())).await;
    let view = format!("view --input {} --user bob --keys {}", story.path("sealed.png").display(), old.display());
    let (code, _, stderr) = story.cluster.client(&format!("{view} -o {}", story.path("b.png").display())).await;
    assert!(code == 5 && stderr.contains("replaced"), "{code}: {stderr}");

    let (code, ..) = story.cluster.client(&format!("register Bob --keys {}", story.path("third").display())).await;
    assert_eq!(code, 1, "the name is taken");
    let stranger = story.ends(3, "encrypt --input @photo.png --owner alice --to dave=1 -o @other.png").await;
    assert!(stranger.contains("client register dave"), "{stranger}");
    let users = story.cluster.client("users").await.1;
    assert!(users.contains("alice") && users.contains("bob"), "{users}");
    story.cluster.done("expel bob").await;
    story.ends(5, "view --input @sealed.png --user bob -o @c.png").await;
}
