//! What the ledger promises, operation by operation.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::kv::EXPIRED_AT_ONCE;
use super::*;
use crate::id::RequestId;
use crate::protocol::codec;
use crate::protocol::ledger::{Expectation, KvOperation, KvResult};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> KvOperation {
    KvOperation::Put { key: bytes(key), value: bytes(value), expires_in_ms: None }
}

fn short_lived(key: &str, after: u64) -> KvOperation {
    KvOperation::Put { key: bytes(key), value: bytes("soon gone"), expires_in_ms: Some(after) }
}

fn delete(key: &str) -> KvOperation {
    KvOperation::Delete { key: bytes(key) }
}

fn require(key: &str, expect: Expectation) -> KvOperation {
    KvOperation::Require { key: bytes(key), expect }
}

fn add(key: &str, by: i64, floor: Option<i64>) -> KvOperation {
    KvOperation::Add { key: bytes(key), by, floor }
}

/// A ledger and its log: each write has an id and a commit number of its own.
#[derive(Default)]
struct Log {
    ledger: Ledger,
    commit: u64,
}

impl Log {
    fn write(&mut self, operations: Vec<KvOperation>) -> Answer {
        let id = RequestId(u128::from(self.commit + 1).to_be_bytes());
        self.write_as(id, operations)
    }

    fn write_as(&mut self, id: RequestId, operations: Vec<KvOperation>) -> Answer {
        self.commit += 1;
        self.ledger.apply(self.commit, &Write::kv(id, operations))
    }

    fn refused(&mut self, operations: Vec<KvOperation>) -> (u32, RefusedWhy) {
        let refused = self.write(operations).outcome.expect_err("it must be refused");
        (refused.operation, refused.why)
    }

    fn value(&self, key: &str) -> Option<String> {
        self.ledger.get(key.as_bytes()).map(|found| String::from_utf8(found.value.to_vec()).unwrap())
    }
}

#[test]
fn revisions_count_changes_as_etcd_counts_them() {
    let mut log = Log::default();
    assert_eq!(log.write(vec![put("color", "blue")]).revision, 1);
    assert_eq!(log.write(vec![put("shape", "round"), put("color", "red")]).revision, 2, "one command, one revision");
    let color = log.ledger.get(b"color").unwrap();
    assert_eq!((color.create_revision, color.mod_revision, color.version), (1, 2, 2));

    let gone = log.write(vec![delete("color")]);
    assert_eq!((gone.revision, gone.kv()), (3, Ok(&[KvResult::Deleted(true)][..])));
    let nothing = log.write(vec![delete("color")]);
    assert_eq!((nothing.revision, nothing.kv()), (3, Ok(&[KvResult::Deleted(false)][..])), "nothing changed");
    log.write(vec![put("color", "green")]);
    let color = log.ledger.get(b"color").unwrap();
    assert_eq!((color.create_revision, color.mod_revision, color.version), (4, 4, 1), "a new life");
}

#[test]
fn a_command_is_done_as_a_whole_or_not_at_all() {
    let mut log = Log::default();
    log.write(vec![put("a", "1")]);
    let before = log.ledger.clone();
    let why = log.refused(vec![put("a", "2"), delete("a"), short_lived("b", 5), require("c", Expectation::Present)]);
    assert_eq!(why, (3, RefusedWhy::NotAsExpected { mod_revision: None }));
    assert_eq!((log.value("a").as_deref(), log.value("b")), (Some("1"), None));
    assert_eq!((log.ledger.revision(), log.ledger.size_bytes()), (before.revision(), before.size_bytes()));
    assert!(!log.ledger.is_due(Stamp(u64::MAX)), "the refused key does not expire later");
}

#[test]
fn compare_and_swap_takes_only_what_it_expects() {
    let mut log = Log::default();
    let swap = |expect, value: &str| vec![require("k", expect), put("k", value)];
    assert!(log.write(swap(Expectation::Absent, "1")).outcome.is_ok());
    assert_eq!(log.refused(swap(Expectation::Absent, "2")).1, RefusedWhy::NotAsExpected { mod_revision: Some(1) });
    assert!(log.write(swap(Expectation::Value(bytes("1")), "2")).outcome.is_ok());
    assert!(log.write(swap(Expectation::ModRevision(1), "3")).outcome.is_err());
    assert!(log.write(swap(Expectation::ModRevision(2), "3")).outcome.is_ok());
    assert!(log.write(swap(Expectation::Present, "4")).outcome.is_ok());
    assert_eq!(log.value("k").as_deref(), Some("4"));
}

#[test]
fn a_counter_never_goes_below_its_floor() {
    let mut log = Log::default();
    assert_eq!(log.write(vec![add("views", 2, None)]).kv(), Ok(&[KvResult::Sum(2)][..]));
    for left in [1, 0] {
        assert_eq!(log.write(vec![add("views", -1, Some(0))]).kv(), Ok(&[KvResult::Sum(left)][..]));
    }
    assert_eq!(log.refused(vec![add("views", -1, Some(0))]).1, RefusedWhy::BelowFloor { value: 0, floor: 0 });
    assert_eq!(log.value("views").as_deref(), Some("0"));

    log.write(vec![put("text", "blue"), put("large", &i64::MAX.to_string())]);
    assert_eq!(log.refused(vec![add("text", 1, None)]).1, RefusedWhy::NotANumber);
    assert_eq!(log.refused(vec![add("large", 1, None)]).1, RefusedWhy::Overflow);
}

#[test]
fn the_same_id_gets_the_same_answer_and_other_content_under_it_is_refused() {
    let mut log = Log::default();
    let id = RequestId([9; 16]);
    log.write(vec![put("n", "5")]);
    let first = log.write_as(id, vec![add("n", -1, Some(0))]);
    log.write(vec![put("n", "100")]);
    assert_eq!(log.write_as(id, vec![add("n", -1, Some(0))]), first, "commit and revision included");
    assert_eq!(log.value("n").as_deref(), Some("100"), "nothing was done again");

    let other = log.write_as(id, vec![add("n", -2, Some(0))]);
    assert_eq!(other.outcome.unwrap_err().why, RefusedWhy::IdReused);

    let restored: Ledger = codec::decode(&codec::encode(&log.ledger).unwrap()).unwrap();
    assert_eq!(restored, log.ledger);
    log.ledger = restored;
    assert_eq!(log.write_as(id, vec![add("n", -1, Some(0))]), first, "also from a snapshot");
}

/// A refusal is an answer, too: the condition may hold by the time the request comes again.
#[test]
fn a_refusal_is_kept_like_any_answer() {
    let mut log = Log::default();
    let id = RequestId([3; 16]);
    let refused = log.write_as(id, vec![require("k", Expectation::Present)]);
    log.write(vec![put("k", "there now")]);
    assert_eq!(log.write_as(id, vec![require("k", Expectation::Present)]), refused);
}

#[test]
fn answers_are_kept_for_their_time_and_not_for_ever() {
    let mut log = Log::default();
    let id = RequestId([7; 16]);
    log.ledger.advance(Stamp(1_000), Date(0));
    let first = log.write_as(id, vec![put("k", "1")]);
    for second in 1..=60 {
        log.ledger.advance(Stamp(1_000 + second * 1_000), Date(0));
        log.write(vec![put("other", "x")]);
    }
    assert_eq!(log.write_as(id, vec![put("k", "1")]), first, "kept for {ANSWERS_KEPT_MS} ms");
    log.ledger.advance(Stamp(1_000 + 3 * ANSWERS_KEPT_MS), Date(0));
    assert_eq!(log.ledger.answers(), 0);
}

/// Older answers are held in another form than the latest: each is found, in the state and in a snapshot of it.
#[test]
fn answers_of_every_age_are_found_and_a_snapshot_restores_the_same_state() {
    let mut log = Log::default();
    let mut answered = Vec::new();
    for second in 0..50u64 {
        log.ledger.advance(Stamp(1_000 + second * 1_000), Date(0));
        for number in 0..20u64 {
            let mut id = [0; 16];
            // Not in the order in which they come.
            id[..8].copy_from_slice(&(second * 20 + number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            let value = format!("{second}.{number}");
            answered.push((RequestId(id), value.clone(), log.write_as(RequestId(id), vec![put("k", &value)])));
        }
    }
    let bytes = codec::encode(&log.ledger).unwrap();
    let restored: Ledger = codec::decode(&bytes).unwrap();
    assert!(restored == log.ledger, "a snapshot's state is another");
    assert_eq!(codec::encode(&restored).unwrap(), bytes);
    for ledger in [log.ledger, restored] {
        assert_eq!(ledger.answers(), answered.len());
        let mut log = Log { ledger, commit: 0 };
        for (id, value, first) in &answered {
            assert_eq!(log.write_as(*id, vec![put("k", value)]), *first);
        }
    }
}

#[test]
fn a_key_that_is_due_is_gone_for_everybody_and_the_time_never_goes_back() {
    let mut log = Log::default();
    log.ledger.advance(Stamp(1_000), Date(0));
    log.write(vec![short_lived("k", 500), short_lived("counter", 500), put("stays", "1")]);
    log.ledger.advance(Stamp(900), Date(0));
    assert_eq!(log.ledger.stamp(), Stamp(1_000));
    log.ledger.advance(Stamp(1_499), Date(0));
    assert!(log.value("k").is_some() && !log.ledger.is_due(Stamp(1_499)));
    assert!(log.ledger.is_due(Stamp(1_500)));

    let before = log.ledger.revision();
    log.ledger.advance(Stamp(1_500), Date(0));
    assert_eq!(log.value("k"), None);
    assert_eq!(log.ledger.revision(), before + 1, "it is a change like any other");
    assert_eq!(log.ledger.list(b"", None, 10).items.len(), 1);
    assert_eq!(log.write(vec![require("k", Expectation::Absent), put("k", "anew")]).kv().unwrap().len(), 2);
}

#[test]
fn so_much_that_is_due_at_once_is_out_of_sight_at_once_and_removed_step_by_step() {
    let mut log = Log::default();
    log.write((0..2_500).map(|number| short_lived(&format!("k{number}"), 5)).collect());
    log.ledger.advance(Stamp(5), Date(0));
    assert!(log.ledger.list(b"", None, 1_000).items.is_empty());
    assert!(log.ledger.is_due(Stamp(5)), "more than one command takes");
    let mut steps = 1;
    while log.ledger.is_due(Stamp(5)) {
        log.ledger.advance(Stamp(5), Date(0));
        steps += 1;
    }
    assert_eq!((log.ledger.size_bytes(), steps), (0, 3));
}

/// Those who watch it learn that it is gone, whoever asks for what first.
#[test]
fn a_key_that_is_due_goes_by_expiry_though_somebody_deletes_it() {
    let mut log = Log::default();
    log.write((0..EXPIRED_AT_ONCE + 1).map(|number| short_lived(&format!("k{number:05}"), 5)).collect());
    log.ledger.advance(Stamp(5), Date(0));
    let last = format!("k{EXPIRED_AT_ONCE:05}");
    assert_eq!(log.write(vec![delete(&last)]).kv(), Ok(&[KvResult::Deleted(false)][..]));
    let told: Vec<Bytes> = log.ledger.advance(Stamp(5), Date(0)).iter().map(|change| change.key().clone()).collect();
    assert_eq!(told, [bytes(&last)]);
}

#[test]
fn a_key_that_expires_counts_twice_as_it_is_held_twice() {
    let mut log = Log::default();
    log.write(vec![put("key", "value")]);
    let once = log.ledger.footprint_bytes();
    log.write(vec![KvOperation::Put { key: bytes("key"), value: bytes("value"), expires_in_ms: Some(5) }]);
    assert_eq!(log.ledger.footprint_bytes(), once + 3 + BESIDE_A_KEY);
    let restored: Ledger = codec::decode(&codec::encode(&log.ledger).unwrap()).unwrap();
    assert_eq!(restored, log.ledger);
    log.write(vec![put("key", "value")]);
    assert_eq!(log.ledger.footprint_bytes(), once);
    log.write(vec![delete("key")]);
    assert_eq!(log.ledger.footprint_bytes(), 0);
}

#[test]
fn answers_are_counted_in_bytes_until_they_are_forgotten() {
    let mut log = Log::default();
    log.write(vec![put("a", "1")]);
    let one = log.ledger.answers_bytes();
    log.write((0..100).map(|_| put("a", "1")).collect());
    log.refused(vec![require("a", Expectation::Absent)]);
    assert!(log.ledger.answers_bytes() > 3 * one + 100);
    let restored: Ledger = codec::decode(&codec::encode(&log.ledger).unwrap()).unwrap();
    assert_eq!(restored.answers_bytes(), log.ledger.answers_bytes());
    log.ledger.advance(Stamp(3 * ANSWERS_KEPT_MS), Date(0));
    assert_eq!(log.ledger.answers_bytes(), 0);
    assert!(!log.ledger.waits_for_time());
}

/// The maps' own reading would take memory for as many elements as a length says.
#[test]
fn a_snapshot_with_a_lying_length_is_refused_and_costs_nothing() {
    let mut log = Log::default();
    log.write(vec![short_lived("key", 5)]);
    let whole = codec::encode_snapshot(&log.ledger).unwrap();
    for at in 0..whole.len() {
        // Marker 253: a length of 8 bytes follows.
        let mut lying = whole[..at].to_vec();
        lying.push(253);
        lying.extend_from_slice(&(1u64 << 60).to_le_bytes());
        lying.extend_from_slice(&whole[at + 1..]);
        let _ = codec::decode_snapshot::<Ledger>(&lying);
        assert!(codec::decode_snapshot::<Ledger>(&whole[..at]).is_err());
    }
}

#[test]
fn lists_come_in_order_and_in_pages() {
    let mut log = Log::default();
    for key in ["b/2", "a", "b/1", "b", "c", "b/3"] {
        log.write(vec![put(key, "x")]);
    }
    let keys = |page: &Page| page.items.iter().map(|item| item.key.clone()).collect::<Vec<_>>();
    let first = log.ledger.list(b"b", None, 2);
    assert_eq!((keys(&first), first.more), (vec![bytes("b"), bytes("b/1")], true));
    let rest = log.ledger.list(b"b", Some(b"b/1"), 10);
    assert_eq!((keys(&rest), rest.more), (vec![bytes("b/2"), bytes("b/3")], false));
    assert_eq!(log.ledger.list(b"b", Some(b"a"), 10).items.len(), 4, "what comes before the prefix hides nothing");

    let large = "v".repeat(PAGE_LIMIT * 2 / 3);
    log.write(vec![put("x1", &large), put("x2", &large)]);
    let page = log.ledger.list(b"x", None, 10);
    assert_eq!((page.items.len(), page.more), (1, true), "a page is bounded in bytes, too");
}

/// One of the operations on few keys, so that they meet.
fn operation() -> impl Strategy<Value = KvOperation> {
    let key = prop::sample::select(vec!["a", "b", "c"]);
    let number = -3i64..4;
    prop_oneof![
        (key.clone(), number.clone()).prop_map(|(key, value)| put(key, &value.to_string())),
        key.clone().prop_map(delete),
        (key.clone(), number.clone())
            .prop_map(|(key, value)| require(key, Expectation::Value(bytes(&value.to_string())))),
        key.clone().prop_map(|key| require(key, Expectation::Absent)),
        (key, number, prop::option::of(-1i64..2)).prop_map(|(key, by, floor)| add(key, by, floor)),
    ]
}

/// The obvious store, without history and expiry.
fn obvious(store: &BTreeMap<Bytes, i64>, operations: &[KvOperation]) -> Option<BTreeMap<Bytes, i64>> {
    let mut store = store.clone();
    let parse = |value: &Bytes| std::str::from_utf8(value).unwrap().parse::<i64>().unwrap();
    for operation in operations {
        match operation {
            KvOperation::Put { key, value, .. } => drop(store.insert(key.clone(), parse(value))),
            KvOperation::Delete { key } => drop(store.remove(key)),
            KvOperation::Require { key, expect: Expectation::Value(value) } => {
                (store.get(key) == Some(&parse(value))).then_some(())?;
            }
            KvOperation::Require { key, .. } => (!store.contains_key(key)).then_some(())?,
            KvOperation::Add { key, by, floor } => {
                let sum = store.get(key).copied().unwrap_or(0) + by;
                floor.is_none_or(|floor| sum >= floor).then_some(())?;
                store.insert(key.clone(), sum);
            }
        }
    }
    Some(store)
}

proptest! {
    #[test]
    fn it_does_what_the_obvious_store_does(commands in prop::collection::vec(prop::collection::vec(operation(), 1..5), 1..60)) {
        let mut log = Log::default();
        let mut store = BTreeMap::new();
        for operations in commands {
            let expected = obvious(&store, &operations);
            let answer = log.write(operations);
            prop_assert_eq!(answer.outcome.is_ok(), expected.is_some());
            store = expected.unwrap_or(store);
            let held: BTreeMap<Bytes, i64> = log.ledger.list(b"", None, 100).items.into_iter()
                .map(|item| (item.key, std::str::from_utf8(&item.value).unwrap().parse().unwrap())).collect();
            prop_assert_eq!(&held, &store);
            let size: usize = store.iter().map(|(key, value)| key.len() + value.to_string().len()).sum();
            prop_assert_eq!(log.ledger.size_bytes(), size as u64);
        }
    }
}

/// A full ledger takes no more, but for what only deletes, and what was done already: its answer is known.
#[test]
fn a_full_ledger_has_room_for_deletes_and_for_what_was_done() {
    let mut log = Log::default();
    let write = |id, operations| Write::kv(RequestId([id; 16]), operations);
    let done = write(7, vec![put("key", "value")]);
    log.write_as(done.id, done.operations().to_vec());
    let full = log.ledger.footprint_bytes();
    let has_room = |write: &Write, limit| log.ledger.has_room(write, limit);
    let five_bytes = write(8, vec![put("ab", "cde")]);
    assert_eq!(five_bytes.size_bytes(), 5);
    assert!(has_room(&five_bytes, full + 5) && !has_room(&five_bytes, full + 4));
    assert!(has_room(&write(9, vec![delete("key"), delete("other")]), full));
    assert!(!has_room(&write(9, vec![delete("key"), put("a", "b")]), full));
    assert!(has_room(&done, full), "an attempt that is repeated gets its answer");
}
