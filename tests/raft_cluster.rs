//! Raft over TCP and disk: three nodes in this process, each on a runtime of its own that can be killed.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]
#![expect(clippy::disallowed_methods, reason = "deadlines of tests are real time")]

mod cluster;

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cluster::{Cluster, DEADLINE, eventually, heartbeat};
use futures::future::join_all;
use image_cloud::core::liveness::ProbeOutcome;
use image_cloud::id::{NodeId, RequestId, Term};
use image_cloud::protocol::election::{Campaign, ElectionMessage, RoundId};
use image_cloud::protocol::ledger::{KvOperation, KvResult, Write as LedgerWrite};
use image_cloud::protocol::status::Leadership;
use image_cloud::protocol::sync::StateSync;
use image_cloud::raft::{CampaignError, HandOverError, ProposeError, RaftNode};
use image_cloud::transport::{CallError, probe};

/// Campaigns as the election core does: again after every refusal, until the node leads.
fn campaign_until_led(cluster: &Cluster, node: u16, campaign: Campaign, vacancy: Option<Leadership>) -> Term {
    let running = cluster.node(node);
    eventually("the campaign is won", || {
        // What comes back is no news: success shows in the view, and a refusal is tried again.
        let _ = running.run(running.raft.campaign(campaign, vacancy));
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_millis(50) {
            if running.view().leader == Some(NodeId(node)) {
                return Some(running.view().term);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    })
}

fn leadership(term: Term, node: u16) -> Option<Leadership> {
    Some(Leadership { term, node: NodeId(node) })
}

#[test]
fn initialise_confirms_one_leader_and_names_the_cluster() {
    let cluster = Cluster::begun(3);
    cluster.commit(1, 7);
    cluster.all_recorded(&[7]);

    let id = cluster.node(1).raft.cluster_id().expect("the first membership is applied");
    assert!(cluster.nodes.values().all(|node| node.raft.cluster_id() == Some(id)));
    let view = eventually("the leader knows where the others are", || {
        let view = cluster.node(1).view();
        (view.matched.values().filter(|position| **position == view.last_log).count() == 3).then_some(view)
    });
    assert_eq!(view.voters.len(), 3);
    assert_eq!(view.commit, view.last_log.length);
    assert!(cluster.node(2).raft.last_append().is_some());

    // To begin once more is refused by name.
    let members = cluster.first_members();
    let again = cluster.node(2).run(cluster.node(2).raft.initialise(members));
    assert!(matches!(again, Err(CampaignError::AlreadyInitialised { .. })), "{again:?}");
}

#[test]
fn two_nodes_that_begin_with_the_same_members_end_up_with_one_leader() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    let members = cluster.first_members();
    for node in [1, 2] {
        // The second may find that it has begun already.
        let _ = cluster.node(node).run(cluster.node(node).raft.initialise(members.clone()));
    }
    let leader = eventually("one leader that all know", || {
        let leader = cluster.node(3).view().leader?;
        cluster.nodes.values().all(|node| node.view().leader == Some(leader)).then_some(leader)
    });
    cluster.commit(leader.0, 1);
    cluster.all_recorded(&[1]);
}

#[test]
fn an_agreed_death_is_confirmed_at_once_and_nothing_is_lost() {
    let mut cluster = Cluster::begun(3);
    let term = cluster.led_by(1);
    cluster.commit(1, 1);
    cluster.all_recorded(&[1]);
    cluster.kill(1);

    let killed = Instant::now();
    cluster.node(2).run(cluster.node(2).raft.campaign(Campaign::AgreedDeath, leadership(term, 1))).unwrap();
    let after = cluster.led_by(2);
    println!("confirmed after {:?}", killed.elapsed());
    assert_eq!(after, Term(term.0 + 1), "one campaign, one term");
    let votes = cluster.node(2).view().votes;
    assert_eq!(votes, [NodeId(2), NodeId(3)], "the winner knows who voted for it");

    cluster.commit(2, 2);
    cluster.start(1);
    cluster.all_recorded(&[1, 2]);
    assert_eq!(cluster.led_by(2), after, "the old leader follows");
}

/// A leader that dies after its first heartbeat and before its first append is succeeded like any other. (It once took the
/// dead-man switch, 3 s later.)
#[test]
fn a_leader_that_never_appended_anything_is_succeeded_at_once() {
    let mut cluster = Cluster::begun(3);
    let first = cluster.led_by(1);
    cluster.commit(1, 1);
    cluster.all_recorded(&[1]);
    cluster.loses_appends.store(true, Ordering::Relaxed);
    cluster.kill(1);
    let second = campaign_until_led(&cluster, 2, Campaign::AgreedDeath, leadership(first, 1));
    assert_eq!(cluster.led_by(2), second, "node 3 knows it from a heartbeat");
    let heard = cluster.node(3).raft.last_append();
    eventually("node 3 hears a heartbeat of node 2", || (cluster.node(3).raft.last_append() > heard).then_some(()));
    cluster.kill(2);
    cluster.start(1);

    let vacancy = leadership(second, 2);
    let asked = cluster.node(3).run(cluster.node(3).raft.campaign(Campaign::AgreedDeath, vacancy));
    assert_eq!(asked, Ok(()));
    campaign_until_led(&cluster, 3, Campaign::PreVote, vacancy);
    cluster.loses_appends.store(false, Ordering::Relaxed);
    cluster.commit(3, 2);
    cluster.all_recorded(&[1, 2]);
}

#[test]
fn an_agreement_about_an_older_term_counts_for_nothing() {
    let cluster = Cluster::begun(3);
    let term = cluster.led_by(1);
    let node = cluster.node(2);
    for vacancy in [leadership(Term(term.0 - 1), 1), leadership(term, 3), leadership(Term(term.0 + 1), 1)] {
        let refused = node.run(node.raft.campaign(Campaign::AgreedDeath, vacancy));
        assert!(matches!(refused, Err(CampaignError::Moved { .. })), "{vacancy:?}: {refused:?}");
    }
    let refused = node.run(node.raft.campaign(Campaign::AgreedDeath, None));
    assert_eq!(refused, Err(CampaignError::NoVacancy));
    assert_eq!(cluster.led_by(1), term);
}

#[test]
fn an_agreed_death_does_not_bypass_the_check_of_the_log() {
    let mut cluster = Cluster::begun(3);
    let term = cluster.led_by(1);
    cluster.commit(1, 1);
    cluster.all_recorded(&[1]);
    cluster.node(3).gate.shut();
    cluster.commit(1, 2);
    eventually("node 2 has the entry", || (cluster.node(2).recorded() == [1, 2]).then_some(()));
    cluster.kill(1);
    cluster.node(3).gate.open();

    // Node 3 lacks a committed entry: however often it asks, node 2 must not vote for it.
    for _ in 0..5 {
        let _ = cluster.node(3).run(cluster.node(3).raft.campaign(Campaign::AgreedDeath, leadership(term, 1)));
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_millis(50) {
            assert_ne!(cluster.node(3).view().leader, Some(NodeId(3)));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    campaign_until_led(&cluster, 2, Campaign::PreVote, None);
    cluster.commit(2, 3);
    cluster.all_recorded(&[1, 2, 3]);
}

#[test]
fn a_pre_vote_does_not_depose_a_healthy_leader() {
    let cluster = Cluster::begun(3);
    let term = cluster.led_by(1);
    let until = Instant::now() + Duration::from_secs(1);
    let mut commits = Vec::new();
    while Instant::now() < until {
        cluster.node(2).run(cluster.node(2).raft.campaign(Campaign::PreVote, None)).unwrap();
        // On a busy machine the leader's own lease may be stale for a moment; it commits again in the same term.
        cluster.commit(1, commits.len() as u64);
        commits.push(commits.len() as u64);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(cluster.led_by(1), term);
}

#[test]
fn silence_is_answered_by_a_pre_vote_after_the_lease() {
    let mut cluster = Cluster::begun(3);
    let term = cluster.led_by(1);
    cluster.kill(1);
    let killed = Instant::now();
    let after = campaign_until_led(&cluster, 3, Campaign::PreVote, None);
    println!("confirmed after {:?}", killed.elapsed());
    assert_eq!(after, Term(term.0 + 1), "refused pre-votes cost no term");
}

#[test]
fn leadership_is_handed_over_to_a_ready_node_only() {
    let mut cluster = Cluster::begun(3);
    let term = cluster.led_by(1);
    cluster.commit(1, 1);
    cluster.all_recorded(&[1]);
    let (two, three) = (cluster.node(2).member, cluster.node(3).member);

    let leader = cluster.node(1);
    assert_eq!(leader.run(leader.raft.hand_over(leader.member)), Err(HandOverError::NotAVoter { to: leader.member }));
    assert_eq!(cluster.node(2).run(cluster.node(2).raft.hand_over(three)), Err(HandOverError::NotLeader));

    cluster.kill(3);
    let leader = cluster.node(1);
    let refused = leader.run(leader.raft.hand_over(three));
    assert!(matches!(refused, Err(HandOverError::NotReady { .. })), "{refused:?}");
    cluster.commit(1, 2);
    eventually("node 2 is caught up", || (cluster.node(2).recorded() == [1, 2]).then_some(()));

    let leader = cluster.node(1);
    leader.run(leader.raft.hand_over(two)).unwrap();
    assert_eq!(cluster.led_by(2), Term(term.0 + 1));
    cluster.commit(2, 3);
    cluster.start(3);
    cluster.all_recorded(&[1, 2, 3]);
}

/// E4's guard after: a transfer that gets lost leaves a leader that refuses every write. Another node's pre-vote ends that, once the
/// lease has run out, which such a leader does not renew.
#[test]
fn a_lost_hand_over_is_repaired_by_a_pre_vote_of_another_node() {
    let cluster = Cluster::begun(3);
    let term = cluster.led_by(1);
    cluster.commit(1, 1);
    cluster.all_recorded(&[1]);
    // The question where the target's log ends arrives, and nothing after it.
    cluster.votes_left.store(1, Ordering::Relaxed);
    let leader = cluster.node(1);
    leader.run(leader.raft.hand_over(cluster.node(2).member)).unwrap();
    eventually("the leader refuses writes", || leader.propose(2).err());
    assert_eq!(leader.view().leader, Some(NodeId(1)), "it holds that it leads");
    // It refuses writes before the transfer is on its way, and tells both others: neither message must be in time for the votes that
    // arrive again.
    eventually("the transfer is lost", || (cluster.votes_lost.load(Ordering::Relaxed) >= 2).then_some(()));
    cluster.votes_left.store(u64::MAX, Ordering::Relaxed);
    let after = campaign_until_led(&cluster, 3, Campaign::PreVote, None);
    assert_eq!((cluster.led_by(3), after), (after, Term(term.0 + 1)));
    cluster.commit(3, 3);
    cluster.all_recorded(&[1, 3]);
}

/// A rolling restart hands over to a node that has just come back and got nothing new since.
#[test]
fn leadership_is_handed_over_to_a_node_that_has_just_come_back() {
    let mut cluster = Cluster::begun(3);
    let term = cluster.led_by(1);
    cluster.commit(1, 1);
    cluster.all_recorded(&[1]);
    cluster.kill(2);
    cluster.start(2);
    assert_eq!(cluster.led_by(1), term);
    let leader = cluster.node(1);
    let to = cluster.node(2).member;
    eventually("node 2 is ready", || leader.run(leader.raft.hand_over(to)).ok());
    assert_eq!(cluster.led_by(2), Term(term.0 + 1));
}

/// Under load the last entries are always on their way: the target waits for them, and no acknowledged write is lost.
#[test]
fn leadership_is_handed_over_under_load() {
    let cluster = Cluster::begun(3);
    for round in 0..6 {
        let from = eventually("somebody leads", || cluster.node(1).view().leader);
        let to = NodeId(from.0 % 3 + 1);
        let leader = cluster.node(from.0);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                // Some of these meet the hand-over and are refused.
                scope.spawn(move || {
                    (0..30).for_each(|number| drop(leader.propose(1000 * round + 100 * writer + number)));
                });
            }
            std::thread::sleep(Duration::from_millis(10));
            let member = cluster.node(to.0).member;
            eventually("the hand-over is begun", || leader.run(leader.raft.hand_over(member)).ok());
            cluster.led_by(to.0);
        });
        cluster.commit(to.0, 9000 + round);
    }
}

/// Adds one to the writer's own counter; the same id is the same write.
async fn add(raft: &RaftNode, writer: u64, number: u64) -> Result<i64, ProposeError> {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&writer.to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    let operation = KvOperation::Add { key: writer.to_string().into(), by: 1, floor: None };
    let answer = raft.write(LedgerWrite::kv(RequestId(id), vec![operation])).await?;
    match answer.kv().unwrap() {
        [KvResult::Sum(sum)] => Ok(*sum),
        other => panic!("an addition gives a sum, not {other:?}"),
    }
}

/// So many writers that two entries are under way at a time: each write is answered, in its writer's order, and done once. Without a
/// quorum those that come behind the stalled entries are told so and not taken; what became of the others shows when their ids are
/// sent again.
#[test]
fn hundreds_of_writers_are_answered_once_each_and_told_when_there_is_no_quorum() {
    const WRITERS: u64 = 300;
    const WRITES: u64 = 10;
    let cluster = Cluster::begun(3);
    let leader = cluster.node(1);
    leader.run(async {
        let before = leader.raft.ledger().0;
        let each = |writer| async move {
            for number in 0..WRITES {
                assert_eq!(add(&leader.raft, writer, number).await.unwrap(), number as i64 + 1, "in order, and once");
            }
        };
        join_all((0..WRITERS).map(each)).await;
        let entries = leader.raft.ledger().0 - before;
        assert!(entries < WRITERS * WRITES / 20, "they share entries: {entries}");

        cluster.loses_appends.store(true, Ordering::Relaxed);
        let stalled = join_all((0..WRITERS).map(|writer| add(&leader.raft, writer, WRITES)));
        let behind = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let begun = Instant::now();
            let refused = join_all((WRITERS..2 * WRITERS).map(|writer| add(&leader.raft, writer, 0))).await;
            (refused, begun.elapsed())
        };
        let (stalled, (refused, took)) = futures::join!(stalled, behind);
        for answer in &refused {
            assert_eq!(*answer, Err(ProposeError::NoQuorum), "it came behind the stalled entries, which took {took:?}");
        }
        for answer in &stalled {
            assert!(matches!(answer, Err(ProposeError::Unknown(_) | ProposeError::NoQuorum)), "{answer:?}");
        }

        cluster.loses_appends.store(false, Ordering::Relaxed);
        let deadline = Instant::now() + DEADLINE;
        for writer in 0..WRITERS {
            let value = loop {
                match add(&leader.raft, writer, WRITES).await {
                    Ok(value) => break value,
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
            };
            assert_eq!(value, WRITES as i64 + 1, "done once, whenever");
        }
        for writer in WRITERS..2 * WRITERS {
            assert_eq!(add(&leader.raft, writer, 0).await.unwrap(), 1);
        }
    });
}

#[test]
fn native_elections_find_a_leader_when_they_are_on() {
    let mut cluster = Cluster::begun(3);
    cluster.kill(1);
    for node in cluster.nodes.values() {
        node.raft.set_native_elections(true);
    }
    let leader = eventually("a leader by itself", || cluster.node(2).view().leader.filter(|leader| leader.0 != 1));
    cluster.commit(leader.0, 1);
}

#[test]
fn everything_survives_a_restart_of_one_and_of_all() {
    let mut cluster = Cluster::begun(3);
    cluster.commit(1, 1);
    let cluster_id = cluster.node(1).raft.cluster_id();
    cluster.kill(3);
    cluster.commit(1, 2);
    cluster.start(3);
    cluster.all_recorded(&[1, 2]);

    let term = cluster.led_by(1);
    for node in 1..=3 {
        cluster.kill(node);
    }
    cluster.start_all();
    for node in cluster.nodes.values() {
        let view = node.view();
        assert!(view.term >= term, "a vote that was synced is not forgotten");
    }
    assert_ne!(cluster.node(1).view().leader, Some(NodeId(1)), "nobody leads without a new election");
    let after = campaign_until_led(&cluster, 2, Campaign::PreVote, None);
    assert!(after > term);
    cluster.commit(2, 3);
    cluster.all_recorded(&[1, 2, 3]);
    assert!(cluster.nodes.values().all(|node| node.raft.cluster_id() == cluster_id));
}

#[test]
fn a_node_that_lags_behind_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.snapshot_after = 20;
    cluster.keep_after_snapshot = 0;
    cluster.start_all();
    cluster.begin();
    // The leader keeps what it is just sending to node 3, so one absence may be bridged by the log alone.
    let mut expected: Vec<u64> = Vec::new();
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < DEADLINE, "no snapshot was sent");
        cluster.kill(3);
        for _ in 0..60 {
            expected.push(expected.len() as u64);
            cluster.commit(1, expected.len() as u64 - 1);
        }
        cluster.start(3);
        cluster.all_recorded(&expected);
        if cluster.snapshot_chunks.load(Ordering::Relaxed) > 0 {
            break;
        }
    }

    // And the snapshot carries it over a restart, too.
    cluster.kill(3);
    cluster.start(3);
    cluster.all_recorded(&expected);
    assert_eq!(cluster.node(3).raft.cluster_id(), cluster.node(1).raft.cluster_id());
}

#[test]
fn a_wiped_node_neither_votes_nor_appends() {
    let mut cluster = Cluster::begun(3);
    let term = cluster.led_by(1);
    cluster.commit(1, 1);
    cluster.all_recorded(&[1]);
    let old = cluster.node(3).member;
    cluster.kill(3);
    cluster.wipe(3);
    cluster.start(3);
    assert_ne!(cluster.node(3).member, old);

    // It gets no entry ...
    cluster.commit(1, 2);
    eventually("node 2 has the entry", || (cluster.node(2).recorded() == [1, 2]).then_some(()));
    assert_eq!(cluster.node(3).view().last_log.length, 0);
    // ... and with node 1 gone, its vote does not make node 2 leader: two of the three voters are gone.
    cluster.kill(1);
    let until = Instant::now() + Duration::from_millis(800);
    while Instant::now() < until {
        let node = cluster.node(2);
        let _ = node.run(node.raft.campaign(Campaign::AgreedDeath, leadership(term, 1)));
        let _ = node.run(node.raft.campaign(Campaign::PreVote, None));
        assert_ne!(node.view().leader, Some(NodeId(2)), "a wiped voter voted twice");
        std::thread::sleep(Duration::from_millis(10));
    }
    let view = cluster.node(3).view();
    assert_eq!((view.term, view.last_log.length), (Term(0), 0));
    cluster.start(1);
    campaign_until_led(&cluster, 2, Campaign::PreVote, None);
}

#[test]
fn heartbeats_election_messages_and_state_sync_arrive_and_an_end_is_reported() {
    let mut cluster = Cluster::new(2);
    cluster.start_all();
    let (one, two) = (cluster.node(1).member, cluster.node(2).member);
    let mut sequence = 0;
    eventually("a heartbeat arrives", || {
        sequence += 1;
        cluster.node(1).links.heartbeat(heartbeat(one, sequence));
        cluster.node(2).heard.lock().unwrap().heartbeats.last().filter(|heard| heard.member == one).map(drop)
    });
    let message = ElectionMessage::Ok { round: RoundId { caller: NodeId(1), number: 9 } };
    cluster.node(1).run(async { cluster.node(1).links.election(NodeId(2), message.clone()) }).unwrap();
    eventually("an election message arrives", || {
        (cluster.node(2).heard.lock().unwrap().elections == [(one, message.clone())]).then_some(())
    });
    let request = StateSync { node: NodeId(1), applied: 0 };
    let response = cluster.node(1).run(cluster.node(1).links.state_sync(NodeId(2), request, Duration::from_secs(5)));
    assert!(response.unwrap().active);

    // Node 2 connects back, and its end is reported at once.
    eventually("a heartbeat arrives", || {
        cluster.node(2).links.heartbeat(heartbeat(two, 1));
        (!cluster.node(1).heard.lock().unwrap().heartbeats.is_empty()).then_some(())
    });
    assert!(cluster.node(1).heard.lock().unwrap().closed.is_empty());
    cluster.kill(2);
    eventually("the end is reported", || (cluster.node(1).heard.lock().unwrap().closed == [two]).then_some(()));

    // It is heard again when it comes back, without anybody asking for it.
    cluster.start(2);
    let back = Instant::now();
    eventually("a heartbeat arrives", || {
        sequence += 1;
        cluster.node(1).links.heartbeat(heartbeat(one, sequence));
        (!cluster.node(2).heard.lock().unwrap().heartbeats.is_empty()).then_some(())
    });
    println!("heard after {:?}", back.elapsed());
}

#[test]
fn a_failed_node_is_silent_and_its_connections_stay_open() {
    let mut cluster = Cluster::new(2);
    cluster.start_all();
    let two = cluster.node(2).member;
    let request = || StateSync { node: NodeId(1), applied: 0 };
    // Heartbeats are numbered by when they were sent: 1 before the failure, 2 during it, 3 after it. Their count would
    // not do, for one that was sent before may still be on its way when the gate shuts.
    let heard = |cluster: &Cluster, sequence: u64| {
        cluster.node(1).heard.lock().unwrap().heartbeats.iter().any(|heard| heard.sequence == sequence)
    };
    let ask = |cluster: &Cluster, from: u16, to: u16, limit: u64| {
        let node = cluster.node(from);
        node.run(node.links.state_sync(NodeId(to), request(), Duration::from_millis(limit)))
    };
    ask(&cluster, 1, 2, 5_000).unwrap();
    eventually("a heartbeat arrives", || {
        cluster.node(2).links.heartbeat(heartbeat(two, 1));
        heard(&cluster, 1).then_some(())
    });

    cluster.node(2).gate.shut();
    let before = Instant::now();
    assert!(matches!(ask(&cluster, 1, 2, 100), Err(CallError::Timeout(_))), "the old connection is silent");
    assert!(matches!(ask(&cluster, 2, 1, 100), Err(CallError::Timeout(_))), "it sends nothing, and fails by time");
    assert!(before.elapsed() >= Duration::from_millis(200));
    cluster.node(2).links.heartbeat(heartbeat(two, 2));

    // New connections are taken and never answered.
    let found = cluster.node(1).run(probe(cluster.address(2), Duration::from_secs(1)));
    assert_eq!(found, ProbeOutcome::Connected);
    let mut stranger = std::net::TcpStream::connect(cluster.address(2)).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    stranger.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let silence = stranger.read(&mut [0; 16]).unwrap_err();
    assert!(matches!(silence.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{silence}");

    assert!(!heard(&cluster, 2), "a failed node sends no heartbeat");
    assert!(cluster.node(1).heard.lock().unwrap().closed.is_empty(), "connections stay open");

    cluster.node(2).gate.open();
    ask(&cluster, 1, 2, 5_000).unwrap();
    ask(&cluster, 2, 1, 5_000).unwrap();
    eventually("heartbeats go on", || {
        cluster.node(2).links.heartbeat(heartbeat(two, 3));
        heard(&cluster, 3).then_some(())
    });
    assert!(!heard(&cluster, 2), "what it would have sent while it was failed is lost");
}
