//! Clients that ask without pause, and what they measure.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use image_cloud::id::{ClusterId, ImageId};
use image_cloud::identity::{self, SealedFor, UserSecret};
use image_cloud::protocol::rights::{ImageAction, MOST_VIEWS};
use image_cloud::protocol::sharing::route;
use image_cloud::time::now;

use crate::common::{TestCluster, picture};
use crate::grpc::{Channel, Current};
use crate::http1;
use crate::people::{Person, fresh_id, header_of, rights_request};
use crate::servers::{Servers, own_cpu_seconds};
use crate::support::quantile;
use crate::zookeeper;

pub const VALUE_BYTES: usize = 256;

/// Keys that are written and read at random.
const KEYS: u64 = 10_000;

/// Where the hot counter starts, so that it does not come to its floor while it is measured.
const PLENTY: i64 = 1_000_000_000;

/// Where it starts when it shall come to its floor.
const FEW: i64 = 200;

const COUNTER: &str = "counter";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A durable write of a random key.
    Put,
    /// Minus one on one counter, never below zero.
    Decrement,
    /// A linearizable read of a random key.
    Read,
    /// A view of one hot image: signed, checked, spent, its key sealed to the reader. etcd, which knows no such thing, takes one from a
    /// counter.
    View,
}

/// One row of one system in one round.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub operations: u64,
    /// Attempts per operation that was done: more than one where clients meet in a compare-and-swap.
    pub tries: f64,
    pub server_cpu: f64,
    pub client_cpu: f64,
    pub memory_mib: f64,
}

impl Figures {
    pub fn cpu_per_10k(&self) -> f64 {
        self.server_cpu / self.operations.max(1) as f64 * 10_000.0
    }

    /// The client's part of all processor time.
    pub fn client_share(&self) -> f64 {
        self.client_cpu / (self.client_cpu + self.server_cpu)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {:.2} tries, {:.3} CPU s per 10k, client's share {:.0} %, {:.0} MiB",
            self.per_second,
            self.p50_ms,
            self.p99_ms,
            self.tries,
            self.cpu_per_10k(),
            100.0 * self.client_share(),
            self.memory_mib
        )
    }
}

/// A client and its way to the leader.
enum Session {
    Ours(http1::Connection),
    Reader { connection: http1::Connection, reader: Box<Person>, body: Vec<u8> },
    Etcd { channel: Channel, counter: Option<Current> },
    ZooKeeper(zookeeper::Connection),
}

/// Clients with their connections.
pub struct Load {
    operation: Operation,
    sessions: Vec<Session>,
    /// Decrements that were acknowledged.
    decrements: i64,
}

/// What one client has seen.
#[derive(Default)]
struct Seen {
    latencies_ms: Vec<f64>,
    tries: u64,
}

impl Load {
    pub async fn connect(servers: &Servers, operation: Operation, clients: usize) -> Load {
        let address = servers.leader();
        let mut sessions = Vec::new();
        let mut channels: Vec<Channel> = Vec::new();
        for number in 0..clients {
            sessions.push(match servers {
                Servers::Ours { .. } => {
                    // Ids of this run: the time makes them differ from those of the rows before.
                    let client = image_cloud::time::unix_millis() << 16 | number as u64;
                    Session::Ours(http1::Connection::open(&address, client).await.unwrap())
                }
                Servers::Etcd { .. } => {
                    if channels.len() < (clients / 16).max(1) {
                        channels.push(Channel::open(&address).await.unwrap());
                    }
                    Session::Etcd { channel: channels[number % channels.len()].clone(), counter: None }
                }
                Servers::ZooKeeper(_) => Session::ZooKeeper(zookeeper::Connection::open(&address).await.unwrap()),
            });
        }
        if let (Operation::View, Servers::Ours { cluster, .. }) = (operation, servers) {
            sessions = readers(cluster, sessions).await;
        }
        let mut load = Load { operation, sessions, decrements: 0 };
        match operation {
            // Each key once, since the first write of one costs ZooKeeper two.
            Operation::Put if matches!(servers, Servers::ZooKeeper(_)) => load.fill().await,
            Operation::Put => {}
            Operation::View if matches!(servers, Servers::Ours { .. }) => {}
            Operation::View | Operation::Decrement => {
                load.sessions[0].put(COUNTER, PLENTY.to_string().as_bytes()).await.unwrap();
            }
            Operation::Read => load.fill().await,
        }
        load
    }

    /// Writes every key once.
    async fn fill(&mut self) {
        let share = KEYS.div_ceil(self.sessions.len() as u64);
        self.each(move |number, mut session| async move {
            for key in (number * share..(number + 1) * share).filter(|key| *key < KEYS) {
                session.put(&name(key), &[b'v'; VALUE_BYTES]).await?;
            }
            Ok((session, ()))
        })
        .await;
    }

    /// All clients ask without pause for this time.
    pub async fn run(&mut self, time: Duration) -> Figures {
        let operation = self.operation;
        let start = now();
        let end = start + time;
        let seen = self
            .each(move |number, mut session| async move {
                let mut random = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ start.0;
                let mut seen = Seen::default();
                loop {
                    let begun = now();
                    if begun >= end {
                        return Ok((session, seen));
                    }
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    seen.tries += match operation {
                        Operation::Put => session.put(&name(random % KEYS), &[b'v'; VALUE_BYTES]).await.map(|()| 1)?,
                        Operation::Read => session.read(&name(random % KEYS)).await.map(|()| 1)?,
                        Operation::View => session.view().await?,
                        Operation::Decrement => {
                            let (done, tries) = session.decrement().await?;
                            assert!(done, "the counter was at its floor");
                            tries
                        }
                    };
                    seen.latencies_ms.push(now().since(begun).as_secs_f64() * 1000.0);
                }
            })
            .await;
        let seconds = now().since(start).as_secs_f64();
        let tries: u64 = seen.iter().map(|seen| seen.tries).sum();
        let latencies: Vec<f64> = seen.into_iter().flat_map(|seen| seen.latencies_ms).collect();
        let operations = latencies.len() as u64;
        if operation == Operation::Decrement {
            self.decrements += operations as i64;
        }
        Figures {
            per_second: operations as f64 / seconds,
            p50_ms: quantile(&latencies, 0.5),
            p99_ms: quantile(&latencies, 0.99),
            operations,
            tries: tries as f64 / operations as f64,
            ..Figures::default()
        }
    }

    /// Each acknowledged decrement has taken one, and with few left exactly those are taken: never below zero.
    pub async fn check_floor(&mut self, servers: &Servers) {
        assert_eq!(
            self.sessions[0].value().await.unwrap(),
            PLENTY - self.decrements,
            "decrements were lost or done twice"
        );
        let few = self.sessions.len() as i64 + FEW;
        self.sessions[0].put(COUNTER, few.to_string().as_bytes()).await.unwrap();
        let taken = self
            .each(move |_, mut session| async move {
                let mut taken = 0;
                while session.decrement().await?.0 {
                    taken += 1;
                }
                Ok((session, taken))
            })
            .await;
        assert_eq!(taken.iter().sum::<i64>(), few, "{}: more was given than there was, or less", servers.leader());
        assert_eq!(self.sessions[0].value().await.unwrap(), 0);
    }

    /// Runs all clients at the same time.
    async fn each<T, F>(&mut self, work: impl Fn(u64, Session) -> F) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = io::Result<(Session, T)>> + 'static,
    {
        let local = tokio::task::LocalSet::new();
        let sessions = std::mem::take(&mut self.sessions);
        let tasks: Vec<_> = sessions
            .into_iter()
            .enumerate()
            .map(|(number, session)| local.spawn_local(work(number as u64, session)))
            .collect();
        let mut results = Vec::new();
        local
            .run_until(async {
                for task in tasks {
                    let (session, result) = task.await.unwrap().unwrap();
                    self.sessions.push(session);
                    results.push(result);
                }
            })
            .await;
        results
    }
}

/// One image, and many programs of one user who may open it very often.
async fn readers(cluster: &TestCluster, sessions: Vec<Session>) -> Vec<Session> {
    let alice = Person::register(cluster, "alice", 1).await;
    let bob = Person::register(cluster, "bob", 2).await;
    let url = cluster.url(cluster.running()[0]);
    let sealed = alice.seal(&url, &picture(1), &format!("&to=bob%3D{MOST_VIEWS}")).await.unwrap();
    let body = serde_json::to_vec(&rights_request(&header_of(&sealed), ImageAction::View)).unwrap();
    let reader = |session| match session {
        Session::Ours(connection) => Session::Reader { connection, reader: Box::new(bob.clone()), body: body.clone() },
        other => other,
    };
    sessions.into_iter().map(reader).collect()
}

/// Processor time of what a view costs beside the log, per 10,000: one check of a signature, one key sealed to a user.
pub fn bare_view_cpu() -> f64 {
    const TIMES: u32 = 2_000;
    let secret = UserSecret::from_bytes(&[1; 64]);
    let (keys, message) = (secret.public(), [7; 300]);
    let signature = secret.sign(&message);
    let (cluster, image, user, id) = (ClusterId([1; 32]), ImageId([2; 32]), keys.user(), fresh_id());
    let purpose = SealedFor::Release { cluster, image, user, id };
    let before = own_cpu_seconds();
    for _ in 0..TIMES {
        assert!(keys.signing.has_signed(&message, &signature));
        assert!(identity::seal(&[3; 64], &keys.agreement, &purpose).is_some());
    }
    (own_cpu_seconds() - before) / f64::from(TIMES) * 10_000.0
}

fn name(key: u64) -> String {
    format!("k{key}")
}

impl Session {
    async fn put(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        match self {
            Session::Ours(connection) | Session::Reader { connection, .. } => {
                expect(&connection.call("PUT", key, "", value).await?)
            }
            Session::Etcd { channel, .. } => channel.put(key, value).await,
            Session::ZooKeeper(connection) => connection.put(key, value).await,
        }
    }

    async fn read(&mut self, key: &str) -> io::Result<()> {
        let length = match self {
            Session::Ours(connection) | Session::Reader { connection, .. } => {
                let answer = connection.call("GET", key, "", b"").await?;
                expect(&answer)?;
                answer.body.len()
            }
            Session::Etcd { channel, .. } => channel.get(key).await?.map_or(0, |current| current.value.len()),
            Session::ZooKeeper(_) => return Err(writes_alone()),
        };
        if length == VALUE_BYTES { Ok(()) } else { Err(io::Error::other(format!("a value of {length} bytes"))) }
    }

    async fn value(&mut self) -> io::Result<i64> {
        let text = match self {
            Session::Ours(connection) | Session::Reader { connection, .. } => {
                Bytes::copy_from_slice(connection.call("GET", COUNTER, "", b"").await?.body)
            }
            Session::Etcd { channel, .. } => channel.get(COUNTER).await?.unwrap_or_default().value,
            Session::ZooKeeper(_) => return Err(writes_alone()),
        };
        parse(&text)
    }

    /// Opens the image; says in how many tries.
    async fn view(&mut self) -> io::Result<u64> {
        let Session::Reader { connection, reader, body } = self else {
            let (done, tries) = self.decrement().await?;
            assert!(done, "the counter was at its floor");
            return Ok(tries);
        };
        let asked = reader.ask("POST", route::RIGHTS, body.clone(), fresh_id());
        expect(&connection.signed(&asked).await?).map(|()| 1)
    }

    /// Takes one, if there is one; says whether it did, and in how many tries.
    async fn decrement(&mut self) -> io::Result<(bool, u64)> {
        match self {
            Session::Ours(connection) | Session::Reader { connection, .. } => {
                let answer = connection.call("POST", COUNTER, "?add=-1&floor=0", b"").await?;
                if answer.status == 409 {
                    return Ok((false, 1));
                }
                expect(&answer).map(|()| (true, 1))
            }
            Session::Etcd { channel, counter } => {
                for tries in 1.. {
                    let known = match counter.take() {
                        Some(known) => known,
                        None => channel.get(COUNTER).await?.unwrap_or_default(),
                    };
                    let value = parse(&known.value)?;
                    if value == 0 {
                        // What is known may be old: only what is there now counts.
                        let current = channel.get(COUNTER).await?.unwrap_or_default();
                        if parse(&current.value)? == 0 {
                            return Ok((false, tries));
                        }
                        *counter = Some(current);
                        continue;
                    }
                    let next = (value - 1).to_string();
                    match channel.swap(COUNTER, known.mod_revision, next.as_bytes()).await? {
                        Ok(mod_revision) => {
                            *counter = Some(Current { value: next.into(), mod_revision });
                            return Ok((true, tries));
                        }
                        Err(current) => *counter = current,
                    }
                }
                Err(io::Error::other("the tries have run out"))
            }
            Session::ZooKeeper(_) => Err(writes_alone()),
        }
    }
}

fn writes_alone() -> io::Error {
    io::Error::other("ZooKeeper is measured by its writes alone")
}

fn expect(answer: &http1::Answer<'_>) -> io::Result<()> {
    if answer.status == 200 {
        return Ok(());
    }
    Err(io::Error::other(format!("status {}: {}", answer.status, String::from_utf8_lossy(answer.body))))
}

fn parse(value: &[u8]) -> io::Result<i64> {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(|| io::Error::other("no number"))
}
