//! Callers of the simulated ledger: a few at a time, each with one call under way, on few keys. Every answer goes into a history.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use image_cloud::id::RequestId;
use image_cloud::protocol::ledger::{Expectation, KvOperation, Stamp, Write};
use image_cloud::protocol::user::Date;
use image_cloud::raft::Command;
use image_cloud::raft::types::{Outcome, position};
use openraft::AsyncRuntime;
use openraft_rt_sim::{SimInstant, SimRuntime};
use rand::RngExt;
use rand::rngs::SmallRng;

use super::world::{SLOTS, World};
use crate::history::{Answer, Call, NEVER, Question, Seen, Told};

pub const CALLERS: usize = 4;
const CALLS: usize = 14;

/// How long a caller tries before it gives up and its call's outcome is unknown.
const PATIENCE: Duration = Duration::from_millis(1_200);
/// How long it waits for one node.
const ATTEMPT: Duration = Duration::from_millis(300);

const KEYS: [&str; 2] = ["a", "b"];
const COUNTER: &str = "counter";

/// What is wrong with the callers, so that the checks have something to find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    Nothing,
    /// Reads ask nobody whether the node still leads.
    StaleReads,
    /// An attempt that got no answer is repeated under another request id.
    ForgottenIds,
}

/// What the callers have seen. Clones share it.
#[derive(Clone, Default)]
pub struct Callers {
    calls: Arc<Mutex<Vec<Call>>>,
    finished: Arc<Mutex<usize>>,
}

impl Callers {
    pub fn start(world: &World, fault: Fault) -> Callers {
        let callers = Callers::default();
        for caller in 0..CALLERS {
            SimRuntime::spawn(callers.clone().call(world.clone(), caller, fault));
        }
        callers
    }

    pub fn have_finished(&self) -> bool {
        *self.finished.lock().unwrap() == CALLERS
    }

    pub fn history(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    async fn call(self, world: World, caller: usize, fault: Fault) {
        for round in 0..CALLS {
            SimRuntime::sleep(Duration::from_micros(world.random(|rng| rng.random_range(0..250_000)))).await;
            let number = (caller * CALLS + round) as u64 + 1;
            let question = world.random(|rng| question(rng, number));
            self.ask(&world, caller, number, question, fault).await;
        }
        *self.finished.lock().unwrap() += 1;
    }

    /// Asks until there is an answer or no patience, and remembers it; false without an answer.
    pub async fn ask(&self, world: &World, client: usize, number: u64, question: Question, fault: Fault) -> bool {
        let began = virtual_micros();
        let mut attempts = 0;
        let answer = loop {
            attempts += 1;
            let id = if fault == Fault::ForgottenIds { number << 32 | attempts } else { number };
            if let Ok(Some(answer)) = SimRuntime::timeout(ATTEMPT, attempt(world, id, &question, fault)).await {
                break Some(answer);
            }
            if virtual_micros() - began > PATIENCE.as_micros() as u64 {
                break None;
            }
            SimRuntime::sleep(Duration::from_micros(world.random(|rng| rng.random_range(5_000..30_000)))).await;
        };
        let ended = if answer.is_some() { virtual_micros() } else { NEVER };
        let answered = answer.is_some();
        self.calls.lock().unwrap().push(Call { client, began, ended, question, answer });
        answered
    }
}

/// One attempt at one node: mostly at one that believes that it leads.
async fn attempt(world: &World, id: u64, question: &Question, fault: Fault) -> Option<Answer> {
    let (any, astray, twice) =
        world.random(|rng| (rng.random_range(0..SLOTS), rng.random_bool(0.25), rng.random_bool(0.1)));
    let index = world.leader().map(|(leader, _)| leader).filter(|_| !astray).unwrap_or(any);
    let (group, life) = world.running(index)?;
    on_the_way(world).await;
    let answer = match question {
        Question::Write(operations) => {
            let id = RequestId(u128::from(id).to_be_bytes());
            let write = Write::kv(id, operations.clone());
            // The same request can stand in one entry twice, when a caller was impatient.
            let writes = vec![write; if twice { 2 } else { 1 }].into();
            let stamp = Stamp(virtual_micros() / 1000);
            let applied = group.propose(Command::Ledger { stamp, date: Date(stamp.0), writes }).await.ok()?;
            let Outcome::Answered(answers) = applied.outcome else { return None };
            let answer = answers.into_iter().last()?;
            let told = Told::written(answer.kv().map(<[_]>::to_vec).map_err(|refused| refused.why));
            Answer { commit: answer.commit, revision: answer.revision, told }
        }
        Question::Get(_) | Question::List => {
            if fault != Fault::StaleReads {
                group.read_barrier().await.ok()?;
            }
            let applied = group.machine().applied();
            let ledger = applied.state.ledger();
            let found = match question {
                Question::Get(key) => ledger.get(key).into_iter().collect(),
                _ => ledger.list(b"", None, usize::MAX).items,
            };
            let seen = |found: image_cloud::protocol::ledger::KeyValue| {
                let (create_revision, mod_revision) = (found.create_revision, found.mod_revision);
                (found.key, Seen { value: found.value, create_revision, mod_revision, version: found.version })
            };
            let told = Told::Found(found.into_iter().map(seen).collect());
            Answer { commit: position(applied.last).length, revision: ledger.revision(), told }
        }
    };
    // A node that was killed meanwhile answers nobody.
    let lives = world.running(index).is_some_and(|(_, now)| now == life);
    on_the_way(world).await;
    lives.then_some(answer)
}

async fn on_the_way(world: &World) {
    SimRuntime::sleep(Duration::from_micros(world.random(|rng| rng.random_range(50..1_000)))).await;
}

fn virtual_micros() -> u64 {
    SimInstant::try_now().map_or(0, |now| now.elapsed_since_start().as_micros() as u64)
}

fn question(rng: &mut SmallRng, number: u64) -> Question {
    let key = Bytes::from(KEYS[rng.random_range(0..KEYS.len())]);
    let counter = Bytes::from(COUNTER);
    let put = KvOperation::Put { key: key.clone(), value: Bytes::from(format!("v{number}")), expires_in_ms: None };
    let by = if rng.random_bool(0.5) { 1 } else { -1 };
    Question::Write(match rng.random_range(0..20) {
        0..5 => return Question::Get(key),
        5..7 => return Question::Get(counter),
        7..8 => return Question::List,
        8..11 => vec![put],
        11..12 => vec![KvOperation::Delete { key }],
        12..14 => vec![KvOperation::Require { key, expect: Expectation::Absent }, put],
        14..18 => vec![KvOperation::Add { key: counter, by, floor: Some(-2) }],
        18..19 => vec![put, KvOperation::Add { key: counter, by, floor: None }],
        _ => vec![KvOperation::Require { key: key.clone(), expect: Expectation::Present }, KvOperation::Delete { key }],
    })
}
