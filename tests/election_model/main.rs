//! The election core, model-checked: three real cores against an abstract Raft (ARCHITECTURE.md, rules E0 to E6, E4's hand-over included). A search counts only if it is complete.
//!
//! `MODEL=full cargo test --release --test election_model` adds the searches that take minutes.

mod hashed;
mod history;
mod raft;
mod world;

use std::time::{Duration, Instant};

use image_cloud::core::election::Rule;
use stateright::{Checker, HasDiscoveries, Model};

use history::{Promise, Sight};
use world::{Coordinator, Scenario, Views};

/// No search may need longer; `is_done` is true after a timeout too, so the time is compared.
const CAP: Duration = Duration::from_secs(1800);

/// The coordinator, node 1, is dead; nodes 2 and 3 have this many steps of time, and Raft may decide two campaigns.
fn coordinator_dead(name: &'static str, steps: [u8; 2]) -> Scenario {
    Scenario {
        name,
        loads: [10, 20, 30],
        logs: [5, 5, 5],
        coordinator: Coordinator::Dead,
        steps: [0, steps[0], steps[1]],
        crashes: 0,
        restarts: 0,
        load_changes: 0,
        duplicates: 0,
        false_suspicions: 0,
        campaigns: 2,
        appends: 1,
        hand_overs: 0,
        views: Views::AtOnce,
        broken: None,
        sights: &[Sight::Confirmed, Sight::LeastLoadedLed],
    }
}

/// The coordinator, node 1, lives and has a much higher load than the others.
fn much_more_loaded(name: &'static str) -> Scenario {
    Scenario {
        loads: [300, 10, 20],
        coordinator: Coordinator::Alive,
        steps: [2, 1, 1],
        hand_overs: 2,
        sights: &[Sight::Confirmed, Sight::HandedOver],
        ..coordinator_dead(name, [1, 1])
    }
}

const ALL_SIGHTS: &[Sight] = &[Sight::Confirmed, Sight::RefusedThenConfirmed, Sight::LeastLoadedLed];

/// The searches of every commit.
fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { loads: [0, 0, 0], sights: ALL_SIGHTS, ..coordinator_dead("equal loads", [2, 1]) },
        Scenario { load_changes: 1, sights: ALL_SIGHTS, ..coordinator_dead("a load changes", [2, 1]) },
        Scenario {
            duplicates: 1,
            load_changes: 1,
            ..coordinator_dead("a message comes twice and a load changes", [1, 1])
        },
        Scenario {
            logs: [6, 5, 6],
            sights: &[Sight::Confirmed],
            ..coordinator_dead("the least-loaded is behind", [2, 2])
        },
        Scenario { views: Views::LateAndInAnyOrder, ..coordinator_dead("Raft's word comes late", [1, 1]) },
        Scenario {
            coordinator: Coordinator::Alive,
            false_suspicions: 1,
            sights: &[],
            ..coordinator_dead("one false suspicion", [3, 3])
        },
        Scenario {
            coordinator: Coordinator::Alive,
            false_suspicions: 2,
            campaigns: 1,
            sights: &[Sight::Confirmed],
            ..coordinator_dead("two false suspicions", [0, 0])
        },
        Scenario { coordinator: Coordinator::Alive, crashes: 1, ..coordinator_dead("anybody crashes", [1, 1]) },
        Scenario { crashes: 1, restarts: 1, ..coordinator_dead("anybody crashes and restarts", [0, 0]) },
        Scenario {
            logs: [6, 5, 6],
            sights: &[Sight::Confirmed, Sight::HandedOver],
            ..much_more_loaded("a live coordinator hands over, the least-loaded is behind")
        },
        Scenario {
            crashes: 1,
            steps: [1, 0, 0],
            campaigns: 1,
            ..much_more_loaded("anybody crashes while the coordinator hands over")
        },
    ]
}

/// Searches that take minutes.
fn large_scenarios() -> Vec<Scenario> {
    vec![
        Scenario { sights: ALL_SIGHTS, ..coordinator_dead("more time", [3, 3]) },
        Scenario {
            coordinator: Coordinator::Alive,
            crashes: 1,
            restarts: 1,
            ..coordinator_dead("anybody crashes and restarts, with time", [1, 0])
        },
    ]
}

#[expect(clippy::disallowed_methods, reason = "the search itself is timed, nothing in it")]
fn check(scenario: Scenario) -> usize {
    let name = scenario.name;
    let started = Instant::now();
    // Depth first: breadth first keeps millions of waiting worlds, some gigabytes of them, and finds the same.
    let checker = scenario.checker().threads(2).timeout(CAP).spawn_dfs().join();
    let (elapsed, states) = (started.elapsed(), checker.unique_state_count());
    println!("{name}: {states} states, depth {}, {:.1} s", checker.max_depth(), elapsed.as_secs_f64());
    assert!(elapsed < CAP, "{name}: the search was cut after {states} states");
    checker.assert_properties();
    states
}

/// Every promise holds in every state, every sight is seen, every search is complete.
#[test]
fn the_election_keeps_its_promises() {
    let only = std::env::var("SCENARIO").ok();
    let mut scenarios = scenarios();
    if std::env::var("MODEL").is_ok_and(|model| model == "full") {
        scenarios.extend(large_scenarios());
    }
    scenarios.retain(|scenario| only.as_ref().is_none_or(|only| scenario.name == only));
    let largest = scenarios.into_iter().map(check).max();
    assert!(only.is_some() || largest >= Some(1_000_000), "the largest search had {largest:?} states");
}

/// Each rule of the core that is broken on purpose is noticed, by the promise that it serves.
#[test]
fn every_broken_rule_is_noticed() {
    let dead = |rule| Scenario { broken: Some(rule), sights: &[], ..coordinator_dead("mutant", [2, 2]) };
    let alive = |rule| Scenario { coordinator: Coordinator::Alive, false_suspicions: 1, ..dead(rule) };
    let mutants = [
        (Rule::AnnounceConfirmed, Promise::AnnouncedOnlyConfirmedAndLatest, dead(Rule::AnnounceConfirmed)),
        (
            Rule::CompareTerms,
            Promise::LateNewsChangesNothing,
            Scenario { views: Views::LateAndInAnyOrder, ..dead(Rule::CompareTerms) },
        ),
        (
            Rule::CheckLogs,
            Promise::BehindIsNeverNominatedTwice,
            Scenario { logs: [6, 5, 6], steps: [0, 5, 0], ..dead(Rule::CheckLogs) },
        ),
        (
            Rule::FreezeLoads,
            Promise::NomineeIsFirstByFrozenLoads,
            Scenario { load_changes: 1, ..dead(Rule::FreezeLoads) },
        ),
        (Rule::BackOff, Promise::CampaignsAreABackOffApart, dead(Rule::BackOff)),
        (Rule::AgreeOnDeath, Promise::NoNominationOnOneWord, alive(Rule::AgreeOnDeath)),
        (Rule::ThisLeadership, Promise::OlderAgreementCountsForNothing, dead(Rule::ThisLeadership)),
        (
            Rule::HandOverToCaughtUp,
            Promise::HandedOverOnlyToTheCaughtUp,
            Scenario {
                broken: Some(Rule::HandOverToCaughtUp),
                logs: [6, 5, 6],
                sights: &[],
                ..much_more_loaded("mutant")
            },
        ),
    ];
    for (rule, promise, scenario) in mutants {
        let noticed = HasDiscoveries::AnyOf([promise.text()].into());
        let checker = scenario.checker().threads(2).timeout(CAP).finish_when(noticed).spawn_bfs().join();
        let states = checker.unique_state_count();
        let path = checker.discovery(promise.text());
        assert!(path.is_some(), "{rule:?} is broken, and nobody noticed in {states} states");
        println!("{rule:?} broken: noticed after {states} states");
    }
}
