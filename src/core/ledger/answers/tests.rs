//! What is kept is found for as long as it must be, in whatever form it is held, and every replica holds the same.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::protocol::codec;

/// What happens to the answers of a ledger.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Milliseconds pass.
    Pass(u64),
    /// A caller asks with an id, about something.
    Ask(u8, u8, Content),
    /// This replica gets all of it from a snapshot.
    Restore,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => (0..9_000u64).prop_map(Event::Pass),
        12 => (0..3u8, 0..60u8, 0..2 as Content).prop_map(|(caller, id, content)| Event::Ask(caller, id, content)),
        1 => Just(Event::Restore),
    ];
    proptest::collection::vec(event, 1..400)
}

fn caller(number: u8) -> Caller {
    match number {
        0 => Caller::Anyone,
        1 => Caller::Administrator,
        _ => Caller::User(crate::id::UserId([7; 32])),
    }
}

/// An answer that no other request gets.
fn answer(commit: u64) -> Answer {
    let results = (0..commit % 3).map(|number| KvResult::Sum(number as i64)).collect();
    Answer { commit, revision: commit, outcome: Ok(Done::Kv(results)) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn answers_are_found_for_their_time_and_replicas_stay_equal(events in events()) {
        let mut answers = Answers::default();
        // A replica that never gets a snapshot.
        let mut other = Answers::default();
        let mut known: HashMap<(u8, u8), (u64, Content, u64)> = HashMap::new();
        let mut now = 0;
        for (event, commit) in events.into_iter().zip(1..) {
            match event {
                Event::Pass(milliseconds) => {
                    now += milliseconds;
                    for replica in [&mut answers, &mut other] {
                        replica.forget(Stamp(now), ANSWERS_KEPT_MS);
                    }
                }
                Event::Ask(by, number, content) => {
                    let (who, id) = (caller(by), RequestId([number; 16]));
                    let before = known.get(&(by, number)).copied();
                    match answers.find(who, id, content) {
                        Known::New => {
                            prop_assert!(before.is_none_or(|(at, ..)| now > at + ANSWERS_KEPT_MS), "forgotten too early");
                            for replica in [&mut answers, &mut other] {
                                replica.keep(Stamp(now), who, id, content, &answer(commit));
                            }
                            known.insert((by, number), (now, content, commit));
                        }
                        Known::Answered(found) => {
                            prop_assert_eq!(before.map(|(_, content, first)| (content, answer(first))), Some((content, found)));
                        }
                        Known::OtherContent => prop_assert!(before.is_some_and(|(_, other, _)| other != content)),
                    }
                }
                Event::Restore => answers = codec::decode(&codec::encode(&answers).unwrap()).unwrap(),
            }
            prop_assert_eq!(answers.size_bytes(), other.size_bytes());
            prop_assert_eq!(answers.len(), other.len());
        }
        prop_assert!(answers == other, "replicas differ");
        prop_assert_eq!(codec::encode(&answers).unwrap(), codec::encode(&other).unwrap());
        answers.forget(Stamp(now + 2 * ANSWERS_KEPT_MS), ANSWERS_KEPT_MS);
        prop_assert_eq!((answers.len(), answers.size_bytes()), (0, 0));
    }
}

/// A snapshot that was altered must not make a list in which ids are not found.
#[test]
fn answers_out_of_order_are_refused() {
    let mut answers = Answers::default();
    for number in 1..=2u8 {
        answers.keep(Stamp(1), Caller::Anyone, RequestId([number; 16]), 0, &answer(1));
    }
    let mut bytes = codec::encode(&answers).unwrap();
    let second = bytes.windows(16).position(|window| window == [2; 16]).unwrap();
    bytes[second..second + 16].fill(1);
    assert!(codec::decode::<Answers>(&bytes).is_err());
}

/// Many answers, held in runs and behind a clone, stand in a snapshot as one map of ids: the form that snapshots have always had.
#[test]
fn runs_are_written_as_one_map() {
    let (mut kepts, mut map) = (Kepts::default(), std::collections::BTreeMap::new());
    let mut clone = Kepts::default();
    for number in 0..1_000u64 {
        let id: Id = blake3::hash(&number.to_be_bytes()).as_bytes()[..16].try_into().unwrap();
        kepts.insert(id, Kept::new(number, &answer(number)));
        map.insert(id, Kept::new(number, &answer(number)));
        if number % 100 == 2 {
            clone = kepts.clone();
        }
    }
    assert_eq!(codec::encode(&kepts).unwrap(), codec::encode(&map).unwrap());
    assert_eq!(clone.len(), 903);
    assert!(map.iter().all(|(id, kept)| kepts.get(id, Hash::of(id)).as_ref() == Some(kept)));
}

/// The price of finding that a request is new does not grow with the number of answers: the groups of runs are as many as the ones in
/// the number of runs as binary digits, and one when nothing more is added.
#[test]
fn many_runs_are_few_groups() {
    let mut kepts = Kepts::default();
    for number in 1..=400u64 {
        kepts.insert(u128::from(number).to_be_bytes(), Kept::new(number, &answer(number)));
        let runs = number as usize / 4;
        assert_eq!(kepts.groups_and_runs(), (runs.count_ones() as usize, runs));
    }
    kepts.close();
    assert_eq!(kepts.groups_and_runs(), (1, 100));
    assert_eq!(kepts.len(), 400);
}
