//! Raft on a deterministic runtime: same seed, same run.
//!
//! Real: the library, and of ours `raft::group` (campaigns, hand-over, proposals), `raft::network` (requests as bytes, snapshots
//! in chunks), the state machine. Simulated: clock and scheduler, the transport (delay, loss, one-way cuts), the disk (late
//! syncs, crashes that forget what was not synced). Members come, go and lose their disks by the rules of `core::membership`. The nominator is a stand-in for the election core: it nominates the longest
//! log among the running nodes, and on top of that anybody campaigns at random, on false agreements too, because Raft must
//! stay safe whatever nominates. Callers write and read the ledger meanwhile; afterwards their history is checked, by search and by
//! commit index. Raft's five promises and the ledger's have names: `simulation::invariants`.
//!
//! `RAFT_SIMULATION_SEED=17 cargo test --test raft_simulation` repeats one seed; `RAFT_SIMULATION_COUNT=1000` runs more of them.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod history;
mod simulation {
    pub mod callers;
    pub mod disk;
    pub mod invariants;
    pub mod world;
}

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use image_cloud::protocol::election::Campaign;
use image_cloud::protocol::membership::Change;
use image_cloud::raft::group::Group;
use image_cloud::raft::{CampaignError, HandOverError};
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use rand::RngExt;

use history::{Question, by_index, by_search};
use simulation::callers::{CALLERS, Callers, Fault};
use simulation::disk::Honesty;
use simulation::invariants::{Invariant, Violation};
use simulation::world::{NODES, SLOTS, World, member, members};

const TICK: Duration = Duration::from_millis(5);
const CHAOS_TICKS: u64 = 800;
/// How long the healed cluster may take until it has committed again everywhere.
const HEAL_TICKS: u64 = 2_000;

/// What a run was like.
#[derive(Debug, PartialEq)]
struct Run {
    trace: u64,
    acknowledged: usize,
    terms: u64,
    /// Changes of the membership.
    changes: usize,
    /// Calls of the ledger, those without an answer among them, and writes of unknown outcome that were done all the same.
    calls: usize,
    unknown: usize,
    unknown_done: usize,
}

fn simulate(seed: u64, honesty: Honesty, fault: Fault) -> Result<Run, Violation> {
    let mut runtime = SimRuntime::with_seed(seed);
    runtime.record_trace(true);
    let world = World::new(seed, honesty);
    let result = runtime.block_on(run(world.clone(), fault));
    let mut hasher = DefaultHasher::new();
    runtime.take_trace().hash(&mut hasher);
    let (terms, callers) = result?;
    let calls = callers.history();
    let not_linearizable = |why: history::NotLinearizable| Violation::new(Invariant::Linearizability, why.0);
    by_search::check(&calls).map_err(not_linearizable)?;
    let summary = by_index::check(&calls).map_err(not_linearizable)?;
    Ok(Run {
        trace: hasher.finish(),
        acknowledged: world.acknowledged().len(),
        terms,
        changes: world.changes(),
        calls: calls.len(),
        unknown: summary.unknown,
        unknown_done: summary.unknown_done,
    })
}

async fn run(world: World, fault: Fault) -> Result<(u64, Callers), Violation> {
    begin(&world).await?;
    let callers = Callers::start(&world, fault);

    let mut number = 0;
    for _ in 0..CHAOS_TICKS {
        SimRuntime::sleep(TICK).await;
        disturb(&world).await;
        nominate(&world);
        if let Some((leader, _)) = world.leader() {
            number += 1;
            world.propose(leader, number);
        }
        world.check()?;
    }

    world.heal_network();
    world.set_loss(0.0);
    for index in 0..SLOTS {
        if world.belongs(index) && world.running(index).is_none() {
            world.start(index).await;
        }
        world.check()?;
        if let Some((group, _)) = world.running(index) {
            group.set_native_elections(false);
        }
    }
    let last = number + 1;
    for _ in 0..HEAL_TICKS {
        SimRuntime::sleep(TICK).await;
        nominate(&world);
        world.finish_changes();
        world.check()?;
        if !world.acknowledged().contains_key(&last) {
            if let Some((leader, _)) = world.leader() {
                world.propose(leader, last);
            }
        } else if callers.have_finished()
            && world.check_end().is_ok()
            && callers.ask(&world, CALLERS, u64::MAX, Question::List, fault).await
        {
            return Ok((world.leader().map_or(0, |(_, leadership)| leadership.term.0), callers));
        }
    }
    world.check_end()?;
    let seen = format!("none after everything was healed:\n{}", world.describe());
    Err(Violation::new(Invariant::Progress, seen))
}

/// Something happens, or nothing.
async fn disturb(world: &World) {
    let (dice, index, coin) =
        world.random(|rng| (rng.random_range(0..1_000), rng.random_range(0..SLOTS), rng.random_bool(0.5)));
    match dice {
        0..8 => world.crash(index),
        8..12 => (0..SLOTS).for_each(|index| world.crash(index)),
        12..42 if world.running(index).is_none() && world.belongs(index) => world.start(index).await,
        12..42 => {}
        42..50 => world.isolate(index, coin),
        50..60 => world.heal_network(),
        60..64 => world.set_loss(0.1),
        64..70 => world.set_loss(0.0),
        // A false agreement: the leader is alive, or it is about another term.
        70..80 => world.campaign(index, Campaign::AgreedDeath, world.known_leadership((index + 1) % SLOTS)),
        80..95 => world.campaign(index, Campaign::PreVote, None),
        95..105 => {
            if let Some((leader, _)) = world.leader() {
                world.hand_over(leader, world.member(index));
            }
        }
        105..108 => {
            if let Some((group, _)) = world.running(index) {
                group.set_native_elections(coin);
            }
        }
        108..128 => {
            let kind = [Change::Add, Change::Remove, Change::Replace][dice as usize % 3];
            let world = world.clone();
            SimRuntime::spawn(async move { world.change_members(kind, index).await });
        }
        128..140 => world.finish_changes(),
        _ => {}
    }
}

/// The stand-in for the election core: now and then the longest log is nominated, among the running nodes that do not lead.
fn nominate(world: &World) {
    let (now, agreed, rarely) = world.random(|rng| (rng.random_bool(0.1), rng.random_bool(0.5), rng.random_bool(0.5)));
    let leader = world.leader();
    if !now || leader.is_some() && !rarely {
        return;
    }
    // A leader that is asked to campaign does nothing; and one whose hand-over went wrong leads on and refuses every write,
    // without a word to its followers. Only another node can end that, after the lease, as after any silence of Raft.
    let candidates =
        (0..SLOTS).filter(|index| world.is_voter(*index) && leader.is_none_or(|(leader, _)| leader != *index));
    let Some(nominee) = candidates.max_by_key(|index| world.last_log(*index)) else { return };
    let campaign = if agreed && leader.is_none() { Campaign::AgreedDeath } else { Campaign::PreVote };
    world.campaign(nominee, campaign, world.known_leadership(nominee));
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn explore(part: u64, parts: u64) {
    let count = from_environment("RAFT_SIMULATION_COUNT").unwrap_or(60);
    let seeds: Vec<u64> = match from_environment("RAFT_SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => (0..count).filter(|seed| seed % parts == part).collect(),
    };
    let mut acknowledged = 0;
    let mut terms = 0;
    let mut changes = 0;
    let mut calls = 0;
    let mut unknown = (0, 0);
    for &seed in &seeds {
        match simulate(seed, Honesty::Honest, Fault::Nothing) {
            Ok(run) => {
                acknowledged += run.acknowledged;
                terms += run.terms;
                changes += run.changes;
                calls += run.calls;
                unknown = (unknown.0 + run.unknown, unknown.1 + run.unknown_done);
            }
            Err(violation) => panic!("RAFT_SIMULATION_SEED={seed}: {violation}"),
        }
    }
    println!(
        "{} seeds, {acknowledged} commands acknowledged, {terms} terms, {changes} changes of members",
        seeds.len()
    );
    println!("{calls} calls of the ledger, {} of unknown outcome, {} of those done", unknown.0, unknown.1);
    assert!(acknowledged > seeds.len() * 50, "the runs hardly committed anything: {acknowledged}");
    assert!(changes > seeds.len() / 2, "the members hardly changed: {changes}");
    assert!(terms > seeds.len() as u64 * 3, "the runs hardly elected anybody: {terms}");
}

#[test]
fn whatever_nominates_raft_stays_safe_and_recovers() {
    explore(0, 2);
}

#[test]
fn whatever_nominates_raft_stays_safe_and_recovers_on_the_other_seeds() {
    explore(1, 2);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1_000..1_003 {
        println!("seed {seed}");
        let first = simulate(seed, Honesty::Honest, Fault::Nothing).unwrap();
        assert_eq!(simulate(seed, Honesty::Honest, Fault::Nothing).unwrap(), first);
        assert_ne!(simulate(seed + 100, Honesty::Honest, Fault::Nothing).unwrap().trace, first.trace);
    }
}

/// Proves that the checks can fail: a disk that forgets what it said it had synced is found out.
#[test]
fn a_lying_disk_is_caught() {
    let found = (0..40).find_map(|seed| {
        let lying = || simulate(seed, Honesty::Lying, Fault::Nothing).map_err(|violation| violation.to_string());
        std::panic::catch_unwind(lying).map_or(Some("a panic".to_owned()), Result::err)
    });
    println!("{}", found.expect("no seed showed the loss"));
}

/// Proves that the histories can show it: reads that ask no majority, and requests that are repeated under another id.
#[test]
fn stale_reads_and_forgotten_ids_are_caught() {
    for fault in [Fault::StaleReads, Fault::ForgottenIds] {
        let found = (0..60).find_map(|seed| simulate(seed, Honesty::Honest, fault).err());
        let violation = found.unwrap_or_else(|| panic!("no seed showed {fault:?}"));
        assert_eq!(violation.invariant, Invariant::Linearizability, "{violation}");
    }
}

/// A leader whose disk stalls can still give its lead away: the others go on, and nothing is lost when the disk works again. What
/// its own election asks of its Raft meanwhile, which hangs, is answered in time.
#[test]
fn a_leader_whose_disk_stalls_can_hand_over() {
    for seed in 0..20 {
        plays(seed, stall);
    }
}

async fn stall(world: World) -> Result<(), Violation> {
    let first = begin(&world).await?;
    let mut number = 0;
    commits(&world, &mut number).await?;

    world.set_stalled(0, true);
    // Some entries are on their way to the stalled disk.
    for _ in 0..20 {
        number += 1;
        world.propose(0, number);
        SimRuntime::sleep(TICK).await;
    }
    first.hand_over(member(1)).await.map_err(no_progress)?;
    let mut ticks = 0;
    // The old leader cannot even note that it leads no more: its vote waits for its disk.
    while world.leader().is_none_or(|(leader, _)| leader != 1) {
        ticks += 1;
        if ticks > 40 {
            return Err(no_progress("200 ms after the hand-over node 2 does not lead"));
        }
        SimRuntime::sleep(TICK).await;
    }
    // This one is left with its Raft, and waits for nothing.
    world.bounded(1, first.campaign(Campaign::PreVote, None)).await.transpose().map_err(no_progress)?;
    let hung = world.bounded(1, first.campaign(Campaign::AgreedDeath, world.known_leadership(0))).await;
    assert!(matches!(hung, Some(Err(CampaignError::Hung(_)))), "its Raft hangs: {hung:?}");
    let hung = world.bounded(1, first.hand_over(member(2))).await;
    assert!(matches!(hung, Some(Err(HandOverError::Hung(_)))), "its Raft hangs: {hung:?}");
    commits(&world, &mut number).await?;

    world.set_stalled(0, false);
    ends_well(&world).await
}

/// Of three nodes two are a majority: the other two are sent fewer messages than one each for a write, and get everything.
#[test]
fn beyond_a_majority_entries_travel_together() {
    for seed in 0..10 {
        plays(seed, thrifty);
    }
}

async fn thrifty(world: World) -> Result<(), Violation> {
    const WRITES: usize = 200;
    begin(&world).await?;
    commits(&world, &mut 0).await?;

    // A new leader sends everything to everybody for a second.
    SimRuntime::sleep(Duration::from_secs(2)).await;
    world.take_appends();
    for number in 0..WRITES {
        world.write(0, 1_000 + number as u64).await.map_err(no_progress)?;
        world.check()?;
    }
    let appends = world.take_appends();
    println!("messages for {WRITES} writes: {appends:?}");
    // Which of the two is prompt changes when one is slow for once.
    let sent: usize = appends.values().sum();
    assert!(sent * 100 < 2 * WRITES * 95, "nobody waits for the third node: {appends:?}");
    ends_well(&world).await
}

/// A story in an honest world ends without a violation.
fn plays<F: Future<Output = Result<(), Violation>>>(seed: u64, story: impl FnOnce(World) -> F) {
    let world = World::new(seed, Honesty::Honest);
    let told = SimRuntime::with_seed(seed).block_on(async {
        let end = story(world.clone()).await;
        end.map_err(|violation| format!("{violation}\n{}", world.describe()))
    });
    told.unwrap_or_else(|seen| panic!("seed {seed}: {seen}"));
}

/// Starts the first nodes and begins the cluster at the one that is given.
async fn begin(world: &World) -> Result<Group<SimRuntime>, Violation> {
    for index in 0..NODES {
        world.start(index).await;
    }
    let (first, _) = world.running(0).expect("it was started");
    first.initialise(members()).await.map_err(no_progress)?;
    Ok(first)
}

/// Soon everybody has everything.
async fn ends_well(world: &World) -> Result<(), Violation> {
    for _ in 0..HEAL_TICKS {
        SimRuntime::sleep(TICK).await;
        world.check()?;
        if world.check_end().is_ok() {
            return Ok(());
        }
    }
    world.check_end()
}

/// Some commands are acknowledged.
async fn commits(world: &World, number: &mut u64) -> Result<(), Violation> {
    let before = world.acknowledged().len();
    for _ in 0..HEAL_TICKS {
        if let Some((leader, _)) = world.leader() {
            *number += 1;
            world.propose(leader, *number);
        }
        SimRuntime::sleep(TICK).await;
        world.check()?;
        if world.acknowledged().len() > before + 10 {
            return Ok(());
        }
    }
    Err(no_progress("nothing is committed"))
}

fn no_progress(seen: impl std::fmt::Display) -> Violation {
    Violation::new(Invariant::Progress, seen.to_string())
}
