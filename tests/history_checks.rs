//! The checkers of histories, checked: what a true store answers passes, and each planted fault is found, by commit index and by
//! search. Without this, a green run of `linearizability` or `raft_simulation` would prove nothing.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod history;

use std::time::Duration;

use bytes::Bytes;
use history::model::Model;
use history::{Answer, Call, NEVER, NotLinearizable, Question, Told, by_index, by_search};
use image_cloud::protocol::ledger::{Expectation, KvOperation, KvResult};
use image_cloud::time;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const COUNTER: &str = "counter";
const KEYS: [&str; 3] = ["a", "b", "c"];
/// Microseconds between two entries of the log.
const TICK: u64 = 100;

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// A read is answered from a state that was replaced before it began.
    StaleRead,
    /// A decrement is done a second time, later, as if its request id had been forgotten.
    DoubleDecrement,
    /// A write is acknowledged and forgotten.
    LostWrite,
}

struct Shape {
    clients: usize,
    calls: usize,
    /// Probability that a client does not learn what became of its write.
    unknown: f64,
}

const SMALL: Shape = Shape { clients: 4, calls: 60, unknown: 0.04 };

struct Waiting {
    call: usize,
    /// When it is done, in ticks; never, if the write is lost on its way.
    due: Option<u64>,
    /// Whether its caller waits for the answer.
    hears: bool,
}

/// What callers of a store see that has an entry of its log each tick. The last call reads everything. None if the fault found no
/// occasion.
fn store(seed: u64, shape: &Shape, fault: Fault) -> Option<Vec<Call>> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut states = vec![Model::default()];
    let mut calls: Vec<Call> = Vec::new();
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut free_at = vec![0; shape.clients];
    let mut again: Option<(u64, Vec<KvOperation>)> = None;
    let mut planted = fault == Fault::Nothing;
    let plant_from = shape.calls / 4;
    while calls.len() < shape.calls || !waiting.is_empty() || again.is_some() {
        let commit = states.len() as u64;
        let tick = commit * TICK;
        #[expect(clippy::needless_range_loop, reason = "the client's number is what counts")]
        for client in 0..shape.clients {
            if free_at[client] >= tick || calls.len() >= shape.calls || rng.random_bool(0.3) {
                continue;
            }
            let began = free_at[client].max(tick - TICK) + rng.random_range(1..TICK);
            let mut question = question(&mut rng, calls.len());
            if fault == Fault::LostWrite && matches!(&question, Question::Write(operations) if is_delete(operations)) {
                // A delete behind the lost write would hide that it was lost.
                question = Question::Get(Bytes::from(COUNTER));
            }
            let is_write = matches!(question, Question::Write(_));
            let unknown = is_write && rng.random_bool(shape.unknown);
            let arrives = !unknown || rng.random_bool(0.5);
            let late = rng.random_range(1..if unknown { 20 } else { 4 });
            waiting.push(Waiting { call: calls.len(), due: arrives.then_some(commit + late), hears: !unknown });
            calls.push(Call { client, began, ended: NEVER, question, answer: None });
            // Whoever hears nothing gives up and goes on, as somebody else.
            free_at[client] = if unknown { tick + 10 * TICK } else { NEVER };
        }
        let mut state = states.last().unwrap().clone();
        let (due, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|waiting| waiting.due == Some(commit));
        let (writes, reads): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|waiting| matches!(calls[waiting.call].question, Question::Write(_)));
        waiting = later.into_iter().filter(|waiting| waiting.due.is_some()).collect();
        if let Some((_, operations)) = again.take_if(|(due, _)| *due <= commit) {
            planted |= state.write(&operations).is_ok();
        }
        for Waiting { call, hears, .. } in writes.into_iter().chain(reads) {
            let Call { question, began, .. } = &calls[call];
            let before = state.clone();
            let told = state.answer(question);
            let mut said = Answer { commit, revision: state.revision, told };
            let changes = said.told.is_a_change();
            if let (false, true, Question::Write(operations)) = (planted, hears && call > plant_from, question) {
                let decrements = matches!(operations[..], [KvOperation::Add { by: ..0, .. }]);
                match fault {
                    Fault::DoubleDecrement if changes && decrements && again.is_none() => {
                        again = Some((commit + 5, operations.clone()));
                    }
                    Fault::LostWrite if changes && matches!(operations[..], [KvOperation::Put { .. }]) => {
                        (state, planted) = (before, true);
                    }
                    _ => {}
                }
            }
            if let (Fault::StaleRead, false, Question::Get(key)) = (fault, planted, question) {
                // What had been answered by then: answers take up to three entries. Versions only grow between two makings of a key, so no order explains an older one of the same making.
                let answered = (began / TICK).saturating_sub(4) as usize;
                let making = |state: &Model| state.clone().answer(&Question::Get(key.clone()));
                let Told::Found(now) = making(&states[answered]) else { continue };
                let old = (1..answered).rev().find_map(|commit| match making(&states[commit]) {
                    Told::Found(old) if is_older(&old, &now) => Some((commit as u64, Told::Found(old))),
                    _ => None,
                });
                if let Some((at, told)) = old {
                    let honest = rng.random_bool(0.5);
                    let (commit, revision) =
                        if honest { (at, states[at as usize].revision) } else { (commit, said.revision) };
                    (said, planted) = (Answer { commit, revision, told }, true);
                }
            }
            let Call { client, answer, ended, .. } = &mut calls[call];
            if hears {
                *answer = Some(said);
                *ended = tick + rng.random_range(1..3 * TICK);
                free_at[*client] = *ended;
            }
        }
        states.push(state);
    }
    let commit = states.len() as u64;
    let mut state = states.last().unwrap().clone();
    let answer = Some(Answer { commit, revision: state.revision, told: state.answer(&Question::List) });
    let began = (commit + 100) * TICK;
    calls.push(Call { client: 0, began, ended: began + 1, question: Question::List, answer });
    planted.then_some(calls)
}

fn is_delete(operations: &[KvOperation]) -> bool {
    matches!(operations, [KvOperation::Delete { .. }])
}

fn is_older(old: &[(Bytes, history::Seen)], now: &[(Bytes, history::Seen)]) -> bool {
    match (old, now) {
        ([(_, old)], [(_, now)]) => old.create_revision == now.create_revision && old.version < now.version,
        _ => false,
    }
}

fn question(rng: &mut SmallRng, number: usize) -> Question {
    let key = Bytes::from(KEYS[rng.random_range(0..KEYS.len())]);
    let value = Bytes::from(format!("v{number}"));
    let counter = Bytes::from(COUNTER);
    let put = KvOperation::Put { key: key.clone(), value, expires_in_ms: None };
    let by = -(number as i64 + 1);
    match rng.random_range(0..20) {
        0..6 => Question::Get(key),
        6..7 => Question::List,
        7..11 => Question::Write(vec![put]),
        11..12 => Question::Write(vec![KvOperation::Delete { key }]),
        12..14 => Question::Write(vec![KvOperation::Require { key, expect: Expectation::Absent }, put]),
        14..17 => Question::Write(vec![KvOperation::Add { key: counter, by, floor: None }]),
        17..18 => Question::Write(vec![KvOperation::Add { key: counter, by, floor: Some(-300) }]),
        18..19 => Question::Write(vec![put, KvOperation::Add { key: counter, by, floor: None }]),
        _ => Question::Get(counter),
    }
}

fn both(calls: &[Call]) -> [Result<(), NotLinearizable>; 2] {
    [by_index::check(calls).map(drop), by_search::check(calls)]
}

/// A true store passes both checks, also if some callers never learn what became of their writes.
#[test]
fn what_a_true_store_answers_passes() {
    let mut unknown_done = 0;
    for seed in 0..300 {
        let calls = store(seed, &SMALL, Fault::Nothing).unwrap();
        let summary = by_index::check(&calls).unwrap_or_else(|why| panic!("seed {seed} by index: {why}"));
        by_search::check(&calls).unwrap_or_else(|why| panic!("seed {seed} by search: {why}"));
        unknown_done += summary.unknown_done;
    }
    assert!(unknown_done > 100, "the histories hardly had an unknown outcome that shows: {unknown_done}");
}

/// A stale read, a double decrement and a lost write are found, each by both checks, in every history that has one.
#[test]
fn planted_faults_are_caught() {
    for fault in [Fault::StaleRead, Fault::DoubleDecrement, Fault::LostWrite] {
        let mut histories = 0;
        for seed in 0..200 {
            // An unknown write may happen to explain what a fault did: then it is none.
            let Some(calls) = store(seed, &Shape { unknown: 0.0, ..SMALL }, fault) else { continue };
            histories += 1;
            for (check, result) in ["by index", "by search"].iter().zip(both(&calls)) {
                assert!(result.is_err(), "seed {seed}: {fault:?} is not found {check}: {calls:#?}");
            }
        }
        assert!(histories > 100, "{fault:?} was planted in {histories} histories only");
    }
}

/// Long histories are checked in a moment, with unknown outcomes and without, and a fault among 10,000 calls is found.
#[test]
fn ten_thousand_calls_are_checked_in_milliseconds() {
    let shape = Shape { clients: 50, calls: 10_000, unknown: 0.005 };
    let calls = store(1, &shape, Fault::Nothing).unwrap();
    let summary = by_index::check(&calls).unwrap();
    let once = || {
        let start = time::now();
        by_index::check(&calls).unwrap();
        time::now().since(start)
    };
    // The best of some: the machine may be busy with something else.
    let took = (0..10).map(|_| once()).min().unwrap();
    println!("{took:?} for {summary:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(summary.unknown_done > 5, "{summary:?}");
    for fault in [Fault::StaleRead, Fault::DoubleDecrement, Fault::LostWrite] {
        let calls = store(2, &Shape { unknown: 0.0, ..shape }, fault).unwrap();
        println!("{}", by_index::check(&calls).unwrap_err());
    }
}

fn call(began: u64, ended: u64, question: Question, answer: Option<(u64, u64, Told)>) -> Call {
    let answer = answer.map(|(commit, revision, told)| Answer { commit, revision, told });
    Call { client: 0, began, ended, question, answer }
}

/// A write of unknown outcome may appear, at once or late, or never; but not before it was called, not twice and not in parts.
#[test]
fn a_write_of_unknown_outcome_is_done_once_or_not() {
    let key = Bytes::from("k");
    let (one, two) = (Bytes::from("1"), Bytes::from("2"));
    let other = Bytes::from("other");
    let put = |value: &Bytes| KvOperation::Put { key: key.clone(), value: value.clone(), expires_in_ms: None };
    let first = call(0, 1, Question::Write(vec![put(&one)]), Some((1, 1, Told::Done(vec![KvResult::Put]))));
    let both_keys = vec![put(&two), KvOperation::Put { key: other.clone(), value: two.clone(), expires_in_ms: None }];
    let lost = |began| call(began, NEVER, Question::Write(both_keys.clone()), None);
    let seen = |value: &Bytes, create_revision, mod_revision, version| history::Seen {
        value: value.clone(),
        create_revision,
        mod_revision,
        version,
    };
    let read = |began, commit, revision, found: Vec<(&Bytes, history::Seen)>| {
        let found = found.into_iter().map(|(key, seen)| (key.clone(), seen)).collect();
        call(began, began + 1, Question::List, Some((commit, revision, Told::Found(found))))
    };
    let before = |began| read(began, 1, 1, vec![(&key, seen(&one, 1, 1, 1))]);
    let after = |began| read(began, 2, 2, vec![(&key, seen(&two, 1, 2, 2)), (&other, seen(&two, 2, 2, 1))]);
    let half = |began| read(began, 2, 2, vec![(&key, seen(&two, 1, 2, 2))]);
    let twice = |began| read(began, 3, 3, vec![(&key, seen(&two, 1, 3, 3)), (&other, seen(&two, 2, 3, 2))]);
    let cases = [
        ("never", true, vec![first.clone(), lost(2), before(4), before(9)]),
        ("at once", true, vec![first.clone(), lost(2), after(4), after(9)]),
        ("late", true, vec![first.clone(), lost(2), before(4), after(9)]),
        ("there and gone", false, vec![first.clone(), lost(2), after(4), before(9)]),
        ("too early", false, vec![first.clone(), after(4), lost(7)]),
        ("in parts", false, vec![first.clone(), lost(2), half(4)]),
        ("twice", false, vec![first.clone(), lost(2), twice(4)]),
        ("by two calls", true, vec![first, lost(2), lost(3), twice(5)]),
    ];
    for (what, is_right, calls) in cases {
        for (check, result) in ["by index", "by search"].iter().zip(both(&calls)) {
            assert_eq!(result.is_ok(), is_right, "{what}, {check}: {result:?}");
        }
    }
}

/// Two of three nodes are killed and fifty callers give up at once; a third of their writes were done, in some order. The promise: that
/// order, or one as good, is found, and one write more than they asked for is not explained away.
#[test]
fn many_writes_of_unknown_outcome_at_once_are_placed() {
    for seed in 0..8 {
        by_index::check(&given_up_at_once(seed).0).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    // On other seeds it may take all tries to say so.
    let (_, more) = given_up_at_once(0);
    assert!(by_index::check(&more).is_err(), "a write that nobody asked for");
}

/// Calls of which fifty were given up at once; and the same as a store would answer that did one more write among them.
fn given_up_at_once(seed: u64) -> (Vec<Call>, Vec<Call>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let writes: Vec<_> = (0..50).map(|caller| busy_write(&mut rng, caller)).collect();
    let mut done: Vec<usize> = (0..50).collect();
    done.sort_by_cached_key(|_| rng.random::<u64>());
    done.truncate(rng.random_range(12..18));
    let later: Vec<_> = (50..150).map(|caller| busy_write(&mut rng, caller)).collect();
    let history = |nobodys: Option<Vec<KvOperation>>| {
        let mut model = Model::default();
        let mut calls: Vec<Call> = Vec::new();
        for operations in &writes {
            calls.push(call(1, NEVER, Question::Write(operations.clone()), None));
        }
        for operations in done.iter().map(|index| &writes[*index]).chain(&nobodys) {
            drop(model.write(operations));
        }
        let keys = (0..8).map(|number| format!("k{number}")).chain(["n0".to_owned(), "n1".to_owned()]);
        let reads = keys.map(|key| Question::Get(Bytes::from(key)));
        let asked = later.iter().map(|operations| Question::Write(operations.clone())).chain([Question::List]);
        for (place, question) in reads.chain(asked).enumerate() {
            let told = model.answer(&question);
            let commit = if matches!(question, Question::Get(_)) { 1 } else { 2 + place as u64 };
            let began = 1000 + place as u64 * 2;
            calls.push(call(began, began + 1, question, Some((commit, model.revision, told))));
        }
        calls
    };
    let nobodys = KvOperation::Put { key: Bytes::from("k0"), value: Bytes::from("nobody's"), expires_in_ms: None };
    (history(None), history(Some(vec![nobodys])))
}

/// What the callers of `linearizability` write.
fn busy_write(rng: &mut SmallRng, caller: usize) -> Vec<KvOperation> {
    let key = Bytes::from(format!("k{}", rng.random_range(0..8)));
    let value = Bytes::from(format!("{caller}-0"));
    let put = KvOperation::Put { key: key.clone(), value, expires_in_ms: None };
    let counter = Bytes::from(format!("n{}", rng.random_range(0..2)));
    let add = KvOperation::Add { key: counter, by: rng.random_range(-5..=5), floor: Some(-20) };
    match rng.random_range(8..20) {
        8..11 => vec![put],
        11 => vec![KvOperation::Delete { key }],
        12..15 => vec![KvOperation::Require { key, expect: Expectation::Absent }, put],
        15..17 => vec![put, add, KvOperation::Delete { key: Bytes::from(format!("{}-gone", caller % 8)) }],
        _ => vec![add],
    }
}
