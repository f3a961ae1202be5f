//! Views on real processes: no view too many and none lost, whoever races and whatever dies.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;
mod people;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{TestCluster, from_environment, picture};
use futures::future::join_all;
use image_cloud::protocol::problem::ProblemCode;
use image_cloud::protocol::rights::{AuditEntry, ImageAction, WrapTerms, first_link};
use image_cloud::protocol::sharing::{Look, RightsAnswer, route};
use people::{Person, fresh_id, header_of, image_id};

/// Every right adds up, and every link of the audit chain follows from the one before. Gives what was done.
fn check(look: &Look) -> &[AuditEntry] {
    let owned = look.owned.as_ref().expect("the owner sees it all");
    for (user, right) in &owned.rights {
        assert!(right.is_conserved(), "{user}: {right:?}");
    }
    let terms = WrapTerms { owner: look.owner, rights: owned.first.clone(), expires: owned.first_expires };
    let mut link = first_link(look.image, &terms);
    for entry in &owned.audit {
        assert_eq!(entry.link, entry.link_behind(link));
        link = entry.link;
    }
    assert_eq!(link, owned.link);
    &owned.audit
}

/// The story of the README: bob opens it as often as he may, and what alice changes counts at once.
#[tokio::test(flavor = "multi_thread")]
async fn named_people_open_it_as_often_as_they_may() {
    let cluster = TestCluster::start(3, "").await;
    let alice = Person::register(&cluster, "alice", 1).await;
    let bob = Person::register(&cluster, "bob", 2).await;
    let carol = Person::register(&cluster, "carol", 3).await;
    let original = picture(1);
    let sealed = alice.seal(&cluster.url(1), &original, "&to=bob%3D2,Carol%3D1").await.unwrap();
    let header = header_of(&sealed);

    assert_eq!(bob.view(&cluster, &sealed).await.unwrap(), original, "bit for bit");
    assert_eq!(bob.view(&cluster, &sealed).await.unwrap(), original);
    assert_eq!(bob.view(&cluster, &sealed).await.unwrap_err().code, ProblemCode::Denied);
    assert_eq!(alice.view(&cluster, &sealed).await.unwrap(), original, "her own views are not counted");

    let grant = ImageAction::Grant { user: bob.user, views: 1 };
    alice.act(&cluster, &header, grant, fresh_id()).await.unwrap();
    assert_eq!(bob.view(&cluster, &sealed).await.unwrap(), original);
    alice.act(&cluster, &header, ImageAction::Revoke { user: carol.user }, fresh_id()).await.unwrap();
    let refused = carol.view(&cluster, &sealed).await.unwrap_err();
    assert!(refused.detail.contains("taken"), "{refused:?}");

    let look = bob.look(&cluster, &header).await.unwrap();
    assert_eq!((look.right.unwrap().left, look.right.unwrap().spent), (0, 3));
    assert!(look.owned.is_none(), "who else may open it is not bob's business");
    let look = alice.look(&cluster, &header).await.unwrap();
    assert_eq!(check(&look).len(), 5);
    cluster.replicas_are_equal(&[1, 2, 3]).await;
}

/// Keys that are planted are nowhere to be found: not in logs, not in Raft's log, not in snapshots; and no crash writes them out.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_a_log_or_on_a_nodes_disk() {
    let mut cluster = TestCluster::start(3, "").await;
    let alice = Person::register(&cluster, "alice", 1).await;
    let bob = Person::register(&cluster, "bob", 2).await;
    let sealed = alice.seal(&cluster.url(1), &picture(1), "&to=bob%3D2").await.unwrap();
    let (header, id) = (header_of(&sealed), fresh_id());
    let answer = bob.act(&cluster, &header, ImageAction::View, id).await.unwrap();
    let data_key = bob.key_in(&answer, id).unwrap().data_key;
    bob.act(&cluster, &header, ImageAction::Lease { views: 1, for_ms: 60_000 }, fresh_id()).await.unwrap();
    let cluster_key = std::fs::read_to_string(cluster.directory().join("data/cluster/cluster.key")).unwrap();
    let token = cluster.admin_token();
    for pid in cluster.pids() {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
    }
    // At a stop whatever is held goes to the disk.
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes();
    let base64 = |bytes: &[u8]| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes).into_bytes();
    let secrets = [("alice's", alice.secret.to_bytes()), ("bob's", bob.secret.to_bytes())];
    let mut canaries = vec![
        ("the data key", data_key.to_vec()),
        ("the data key", hexadecimal(&data_key)),
        ("the data key", base64(&data_key)),
        ("the cluster key", cluster_key.trim().as_bytes().to_vec()),
        ("the admin token", token.secret().as_bytes().to_vec()),
    ];
    for (whose, secret) in secrets {
        canaries.extend([
            (whose, secret[..32].to_vec()),
            (whose, hexadecimal(&secret[..32])),
            (whose, base64(&secret)),
        ]);
    }
    let mut searched = 0;
    let mut places = vec![cluster.directory()];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // Where they belong.
                places.extend((!path.ends_with("data/cluster")).then_some(path));
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            searched += bytes.len();
            for (whose, canary) in &canaries {
                let found = bytes.windows(canary.len()).any(|window| window == canary);
                assert!(!found, "{whose} key is in {}", path.display());
            }
        }
    }
    assert!(searched > 10_000, "hardly anything was searched: {searched} bytes");
}

/// A node that does not lead does the public-key work and hands the command on: nobody is sent elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn any_node_answers_a_view_while_the_leader_orders() {
    let cluster = TestCluster::start(3, "").await;
    let leader = cluster.settled().await.node.0;
    let alice = Person::register(&cluster, "alice", 1).await;
    let bob = Person::register(&cluster, "bob", 2).await;
    let sealed = alice.seal(&cluster.url(1), &picture(1), "&to=bob%3D10").await.unwrap();
    let header = header_of(&sealed);
    for node in 1..=3 {
        let id = fresh_id();
        let body = people::rights_request(&header, ImageAction::View);
        let answer = common::wait_for("the node knows bob", async || {
            let asked = bob.ask_json(route::RIGHTS, &body, id);
            match bob.send::<RightsAnswer>(&cluster.url(node), &asked).await {
                // It has not applied the registration yet.
                Err(problem) if problem.code == ProblemCode::NotLeader => None,
                answer => Some(answer),
            }
        });
        let answer = answer.await.unwrap();
        assert!(bob.key_in(&answer, id).is_some());
        assert_eq!(answer.right.unwrap().left, 10 - u64::from(node), "node {node}; {leader} leads");
    }
    let look = alice.look(&cluster, &header).await.unwrap();
    let nodes: BTreeSet<u16> = check(&look).iter().map(|entry| entry.node.0).collect();
    assert_eq!(nodes, BTreeSet::from([1, 2, 3]), "the audit says who was asked");
}

/// 64 readers race for 10 views while the leader is killed: exactly 10 keys are released, each for a view that is written down.
/// `VIEW_RACES` sets how many races (2).
#[tokio::test(flavor = "multi_thread")]
async fn readers_who_race_get_exactly_the_views_there_are() {
    let races = from_environment("VIEW_RACES", 2);
    let mut cluster = TestCluster::start(3, "").await;
    let alice = Person::register(&cluster, "alice", 1).await;
    let bob = Person::register(&cluster, "bob", 2).await;
    for race in 0..races {
        let leader = cluster.settled().await;
        let sealed = alice.seal(&cluster.url(leader.node.0), &picture(1), "&to=bob%3D10").await.unwrap();
        let header = header_of(&sealed);
        let urls = cluster.urls();
        let read = async |reader: usize| {
            let (mut urls, id) = (urls.clone(), fresh_id());
            urls.rotate_left(reader % 3);
            let body = people::rights_request(&header, ImageAction::View);
            (id, bob.until_decided_at::<RightsAnswer>(&urls, route::RIGHTS, &body, id).await)
        };
        let kill = async {
            // Another moment in each race.
            tokio::time::sleep(Duration::from_millis(race * 3 % 40)).await;
            cluster.kill(leader.node.0);
        };
        let (decided, ()) = tokio::join!(join_all((0..64).map(read)), kill);
        let (mut opened, mut refused) = (BTreeSet::new(), 0);
        for (id, decided) in decided {
            match decided {
                Ok(answer) => {
                    assert!(bob.key_in(&answer, id).is_some());
                    assert!(opened.insert(id));
                }
                Err(problem) => {
                    assert_eq!(problem.code, ProblemCode::Denied, "{problem:?}");
                    refused += 1;
                }
            }
        }
        assert_eq!((opened.len(), refused), (10, 54), "race {race}");
        cluster.spawn(leader.node.0);
        let look = alice.look(&cluster, &header).await.unwrap();
        let written: BTreeSet<_> = check(&look).iter().map(|entry| entry.id).collect();
        assert_eq!(written, opened, "race {race}");
        assert_eq!(look.image, image_id(&header));
    }
    cluster.settled().await;
    cluster.replicas_are_equal(&[1, 2, 3]).await;
}

/// Revocation is decided by its place in the log: no view that was committed after it, every one before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_parts_the_views_before_it_from_those_after_it() {
    let cluster = TestCluster::start(3, "").await;
    let alice = Person::register(&cluster, "alice", 1).await;
    let bob = Person::register(&cluster, "bob", 2).await;
    for _ in 0..5 {
        let sealed = alice.seal(&cluster.url(1), &picture(1), "&to=bob%3D64").await.unwrap();
        let header = header_of(&sealed);
        let body = people::rights_request(&header, ImageAction::View);
        let read = async |_| bob.until_decided::<RightsAnswer>(&cluster, route::RIGHTS, &body, fresh_id()).await;
        let revoke = alice.act(&cluster, &header, ImageAction::Revoke { user: bob.user }, fresh_id());
        let (decided, revoked) = tokio::join!(join_all((0..32).map(read)), revoke);
        let (revoked, mut opened) = (revoked.unwrap(), 0);
        for answer in decided.into_iter().flatten() {
            assert!(answer.commit <= revoked.commit, "a view after the revocation");
            opened += 1;
        }
        let look = alice.look(&cluster, &header).await.unwrap();
        let entries = check(&look);
        let place = entries.iter().position(|entry| matches!(entry.action, ImageAction::Revoke { .. })).unwrap();
        assert_eq!((place, entries.len()), (opened, opened + 1), "all views stand before it");
        assert_eq!(revoked.right.unwrap().spent, opened as u64);
    }
}
