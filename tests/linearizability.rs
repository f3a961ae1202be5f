//! Whatever happens to the nodes, their ledger looks like one store: fifty callers write and read few keys on real processes while a
//! nemesis kills, pauses, fails and (where nodes know how) parts them; then every answer is checked by its commit index.
//!
//! `HISTORIES=200 OPERATIONS=10000 cargo test --release --test linearizability -- --nocapture` gives the full figures; `SEED=7`
//! repeats what the nemesis does, though not its exact moments.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod common;
mod history;
mod nemesis;

use std::time::Duration;

use bytes::Bytes;
use common::TestCluster;
use history::{Answer, Call, NEVER, Question, Seen, Told, by_index};
use image_cloud::client::{AttemptError, ClientError, ClientSettings, Cluster, Consistency};
use image_cloud::id::RequestId;
use image_cloud::protocol::kv::{Batch, BatchOperation};
use image_cloud::protocol::problem::ProblemCode;
use image_cloud::time;
use nemesis::Nemesis;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const CALLERS: usize = 50;
const KEYS: usize = 8;
const COUNTERS: usize = 2;

/// After this a call's outcome counts as unknown. One caller of ten has little: outcomes that stay unknown belong to a history.
const PATIENCE: Duration = Duration::from_secs(5);
const LITTLE_PATIENCE: Duration = Duration::from_millis(300);

/// One caller: its connections, and what it saw last, for its compare-and-swaps.
struct Caller {
    number: usize,
    users: Cluster,
    rng: SmallRng,
    last_seen: Option<(Bytes, Seen)>,
}

impl Caller {
    fn new(cluster: &TestCluster, nodes: u16, number: usize, seed: u64) -> Caller {
        let addresses = (1..=nodes).map(|node| cluster.url(node).parse().unwrap()).collect();
        let mut settings = ClientSettings::new(addresses, seed);
        settings.request_deadline = if number % 10 == 1 { LITTLE_PATIENCE } else { PATIENCE };
        let users = Cluster::new(settings).unwrap();
        Caller { number, users, rng: SmallRng::seed_from_u64(seed), last_seen: None }
    }

    async fn calls(mut self, count: usize) -> Vec<Call> {
        let mut calls = Vec::with_capacity(count);
        for round in 0..count {
            let call = self.call(round).await;
            if call.answer.is_none() {
                // Where nobody answers, calls would end at once, one after the other, and tell nothing.
                tokio::time::sleep(Duration::from_millis(self.rng.random_range(50..250))).await;
            }
            calls.push(call);
        }
        calls
    }

    async fn call(&mut self, round: usize) -> Call {
        let key = format!("k{}", self.rng.random_range(0..KEYS));
        let counter = format!("n{}", self.rng.random_range(0..COUNTERS));
        let kind = self.rng.random_range(0..20);
        let began = time::now().0;
        let (question, answer) = match kind {
            0..6 => self.get(key).await,
            6 => self.get(counter).await,
            7 => self.list().await,
            _ => {
                let operations = self.operations(kind, key, counter, round);
                self.write(round, operations).await
            }
        };
        let ended = if answer.is_some() { time::now().0 } else { NEVER };
        Call { client: self.number, began, ended, question, answer }
    }

    fn operations(&mut self, kind: u32, key: String, counter: String, round: usize) -> Vec<BatchOperation> {
        let value = format!("{}-{round}", self.number);
        let put = |key: String| BatchOperation::Put {
            key,
            value: Some(value.clone()),
            value_base64: None,
            expires_in_ms: None,
        };
        let require =
            |key: String, present, mod_revision, value| BatchOperation::Require { key, present, mod_revision, value };
        let by = self.rng.random_range(-5..=5);
        let add = BatchOperation::Add { key: counter, by, floor: Some(-20) };
        let (last_key, last) = match &self.last_seen {
            Some((key, seen)) => (String::from_utf8_lossy(key).into_owned(), Some(seen)),
            None => (key.clone(), None),
        };
        match (kind, last) {
            (8..11, _) => vec![put(key)],
            (11, _) => vec![BatchOperation::Delete { key }],
            (12, _) => vec![require(key.clone(), Some(false), None, None), put(key)],
            (13, Some(last)) => {
                vec![require(last_key.clone(), None, Some(last.mod_revision), None), put(last_key)]
            }
            (14, Some(last)) => {
                let value = String::from_utf8_lossy(&last.value).into_owned();
                vec![require(last_key.clone(), None, None, Some(value)), put(last_key)]
            }
            (15, _) => vec![put(key.clone()), add, BatchOperation::Delete { key: format!("{key}-gone") }],
            (16, _) => vec![put(key.clone()), require(key, Some(false), None, None)],
            _ => vec![add],
        }
    }

    async fn write(&mut self, round: usize, operations: Vec<BatchOperation>) -> (Question, Option<Answer>) {
        let batch = Batch { operations };
        let asked = batch.operations.iter().map(|operation| operation.clone().into_operation().unwrap()).collect();
        let id = RequestId(((self.number as u128 + 1) << 64 | round as u128).to_be_bytes());
        let answer = match self.users.write(id, &batch).await {
            Ok(written) => {
                let told = Told::Done(written.results);
                Some(Answer { commit: written.commit, revision: written.revision, told })
            }
            Err(ClientError::Exchange { source: AttemptError::Refused(problem), .. }) => match problem.code {
                ProblemCode::Conflict => Some(Answer {
                    commit: problem.commit.expect("a refusal of the ledger has its place"),
                    revision: problem.revision.expect("a refusal of the ledger has its place"),
                    told: Told::Refused(problem.detail),
                }),
                ProblemCode::BadRequest | ProblemCode::TooLarge => panic!("{problem:?} to {batch:?}"),
                _ => None,
            },
            Err(_) => None,
        };
        (Question::Write(asked), answer)
    }

    async fn get(&mut self, key: String) -> (Question, Option<Answer>) {
        let found = self.users.look_up(&key, Consistency::Linearizable).await.ok();
        let key = Bytes::from(key);
        let answer = found.map(|found| {
            let seen = found.value.map(|value| Seen {
                value: value.bytes,
                create_revision: value.create_revision,
                mod_revision: value.mod_revision,
                version: value.version,
            });
            self.last_seen = seen.clone().map(|seen| (key.clone(), seen)).or(self.last_seen.take());
            Answer { commit: found.commit, revision: found.revision, told: Told::found(&key, seen) }
        });
        (Question::Get(key), answer)
    }

    async fn list(&mut self) -> (Question, Option<Answer>) {
        let listed = self.users.list_keys("", None, 1000, Consistency::Linearizable).await.ok();
        let answer = listed.map(|listed| {
            let seen = |item: image_cloud::protocol::kv::Item| {
                let value = Bytes::from(item.bytes().unwrap());
                let (create_revision, mod_revision) = (item.create_revision, item.mod_revision);
                (Bytes::from(item.key), Seen { value, create_revision, mod_revision, version: item.version })
            };
            let told = Told::Found(listed.items.into_iter().map(seen).collect());
            Answer { commit: listed.commit, revision: listed.revision, told }
        });
        (Question::List, answer)
    }
}

/// Runs one history, and checks it.
async fn one(seed: u64, nodes: u16, operations: usize) {
    println!("SEED={seed}: {nodes} nodes, {operations} calls of {CALLERS} callers");
    let start = time::now();
    let mut cluster = TestCluster::start(nodes, "").await;
    let mut nemesis = Nemesis::new(seed, &cluster).await;
    let each = operations.div_ceil(CALLERS);
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let caller = Caller::new(&cluster, nodes, number, seed.wrapping_mul(1000) + number as u64);
            tokio::spawn(caller.calls(each))
        })
        .collect();
    while !callers.iter().all(|caller| caller.is_finished()) {
        nemesis.rest().await;
        nemesis.strike(&mut cluster).await;
    }
    let mut calls: Vec<Call> = Vec::new();
    for caller in callers {
        calls.extend(caller.await.unwrap());
    }
    cluster.settled().await;
    let mut last = Caller::new(&cluster, nodes, CALLERS, seed);
    calls.push(
        common::wait_for("a last list", async || {
            let began = time::now().0;
            let (question, answer) = last.list().await;
            answer.as_ref()?;
            Some(Call { client: CALLERS, began, ended: time::now().0, question, answer })
        })
        .await,
    );
    cluster.replicas_are_equal(&(1..=nodes).collect::<Vec<_>>()).await;
    let took = time::now().since(start);
    let check = time::now();
    let summary = by_index::check(&calls).unwrap_or_else(|why| panic!("SEED={seed}: {why}"));
    let checked = time::now().since(check);
    println!("{took:.1?}, checked in {checked:.1?}: {summary:?}, {:?}", nemesis.done);
    let answered = summary.changes + summary.refusals + summary.reads;
    assert!(answered * 10 > operations * 7, "hardly anything was answered: {summary:?}");
}

/// The outcome of every call on a cluster that is killed, paused and parted is that of one store, in an order that respects time; and
/// all replicas are equal afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn histories_under_a_nemesis_are_linearizable() {
    let histories = common::from_environment("HISTORIES", 2);
    let operations = common::from_environment("OPERATIONS", 2_000) as usize;
    let seed = common::from_environment("SEED", time::unix_millis());
    for history in 0..histories {
        one(seed + history, if history % 2 == 0 { 3 } else { 5 }, operations).await;
    }
}
