//! Overload: ten times what a node admits is in flight, and it must go on: `cargo bench --bench overload -- --help`.
//!
//! First the capacity: clients that ask without pause, no more than are admitted. Then an open model, in which no answer delays the next
//! request: ten times the limit at once, and from then on new requests at a multiple of the capacity, each sent once. A latency
//! counts from the moment at which the request was due, so a client that comes late shows it. Client and nodes share the cores.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop")]

#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use common::{TestCluster, picture, wait_for};
use image_cloud::protocol::job::route;
use image_cloud::protocol::kv::{Listed, route as kv};
use image_cloud::time::{Moment, now};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{argument, helped, machine, memory_mib, quantile, verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

const HELP: &str = "\
Overload: ten times what is admitted in flight, open model.

cargo bench --bench overload [-- OPTIONS]
  --what LIST     of writes, jobs (both)
  --seconds S     measured time of each part (5)
  --rate R        new requests per second, as a multiple of the capacity (2)
  --limit LIST    writes that may wait for their answers (limits.waiting_writes), one run for each (256, the default of a node, and 128)
  --clients N     clients that measure the capacity of writes (as many as the limit)";

/// Image workers of a node, and jobs that may wait for each: the limit of jobs is all of them.
const WORKERS: usize = 2;
const WAITING: usize = 32;

/// How many times the limit is in flight.
const TIMES: usize = 10;

const VALUE_BYTES: usize = 256;

/// How long what is still in flight at the end may take.
const REST: Duration = Duration::from_secs(20);

fn main() {
    if helped(HELP) {
        return;
    }
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }).unwrap();
    println!("{}; 3 nodes, all requests to the leader, no TLS to the client", machine());
    let what: String = argument("--what", "writes,jobs".to_owned());
    let limits: String = argument("--limit", "256,128".to_owned());
    let limits: Vec<usize> = limits.split(',').map(|limit| limit.parse().unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for kind in what.split(',') {
        let kinds: Vec<Kind> = match kind {
            "writes" => limits.iter().map(|limit| Kind::writes(*limit)).collect(),
            "jobs" => vec![Kind::jobs()],
            other => panic!("--what {other}: writes or jobs"),
        };
        for kind in kinds {
            LocalSet::new().block_on(&runtime, overload(&kind));
        }
    }
}

/// What is asked for.
struct Kind {
    name: &'static str,
    /// How many are admitted at a time.
    limit: usize,
    /// Clients that measure the capacity.
    clients: usize,
    /// The image of each job; none for writes.
    image: Option<Vec<u8>>,
}

impl Kind {
    fn writes(limit: usize) -> Kind {
        Kind { name: "writes", limit, clients: argument("--clients", limit), image: None }
    }

    fn jobs() -> Kind {
        Kind { name: "jobs", limit: WORKERS * (1 + WAITING), clients: 2 * WORKERS, image: Some(picture(1)) }
    }

    fn request(&self, host: &str, number: u64) -> Vec<u8> {
        let mut head = String::new();
        let (method, path, body) = match &self.image {
            None => ("PUT", format!("{}/{number:09}", kv::KV), &[b'v'; VALUE_BYTES][..]),
            Some(image) => ("POST", route::SEAL.to_owned(), &image[..]),
        };
        let length = body.len();
        write!(head, "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n").unwrap();
        [head.as_bytes(), body].concat()
    }
}

/// A kept-alive connection: one request, one status.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The last answer said so: whoever refuses an image does not read the rest of it.
    is_closed: bool,
}

impl Connection {
    async fn open(address: &str) -> Connection {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream, buffer: Vec::new(), is_closed: false }
    }

    async fn call(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some(head) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.buffer[..head]).map_err(io::Error::other)?;
            let status = text.get(9..12).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
            let header = |name: &str| {
                let mut headers = text.lines().filter_map(|line| line.split_once(": "));
                headers.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            };
            self.is_closed = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            let length = header("content-length").and_then(|value| value.parse().ok());
            let mut rest = (head + 4 + length.unwrap_or(0usize)).saturating_sub(self.buffer.len());
            while rest > 0 {
                self.buffer.clear();
                let read = self.stream.read_buf(&mut self.buffer).await?;
                rest = rest.checked_sub(read).filter(|_| read > 0).ok_or(io::ErrorKind::UnexpectedEof)?;
            }
            return Ok(status);
        }
    }
}

/// What has come back.
#[derive(Default)]
struct Seen {
    /// Numbers of the requests that were done.
    done: Vec<u64>,
    done_ms: Vec<f64>,
    /// Done within the measured time.
    in_time: usize,
    /// Refused, with the latency of each.
    refused: Vec<u64>,
    refused_ms: Vec<f64>,
    /// Any other answer, or none.
    other: usize,
    /// Due, but all connections were in use.
    unsent: usize,
    in_flight: usize,
    most_in_flight: usize,
}

async fn overload(kind: &Kind) {
    let more = format!(
        "[limits]\nwaiting_writes = {}\n[jobs]\nworkers = {WORKERS}\nwaiting_per_worker = {WAITING}\n",
        kind.limit
    );
    let cluster = TestCluster::start(3, &more).await;
    let leader = cluster.settled().await.node.0;
    let address = cluster.http_address(leader).to_string();
    let seconds = Duration::from_secs_f64(argument("--seconds", 5.0));

    capacity(kind, &address, Duration::from_secs(1), 0).await;
    let (capacity, turned_away, first) = capacity(kind, &address, seconds, 100_000_000).await;
    let pids = cluster.pids();
    let before = pids.iter().map(|pid| memory_mib(*pid)).fold(0.0, f64::max);
    let rate = capacity * argument("--rate", 2.0);
    let (seen, most) = open_model(kind, &address, rate, seconds, first, &pids).await;

    let goodput = seen.in_time as f64 / seconds.as_secs_f64();
    let connections = TIMES * kind.limit;
    println!(
        "\n{}: limit {}, {connections} at once, then {rate:.0}/s, {:.1} times what {} clients get done",
        kind.name,
        kind.limit,
        rate / capacity,
        kind.clients
    );
    println!(
        "  capacity {capacity:.0}/s ({turned_away} refused), goodput {goodput:.0}/s: ratio {:.2}, {}",
        goodput / capacity,
        verdict(">= 0.8", || goodput >= 0.8 * capacity)
    );
    let at = |latencies: &[f64], share| if latencies.is_empty() { 0.0 } else { quantile(latencies, share) };
    let refused = |share| at(&seen.refused_ms, share);
    println!(
        "  refused {} (p50 {:.1}, p99 {:.1}, worst {:.1} ms), {}",
        seen.refused.len(),
        refused(0.5),
        refused(0.99),
        refused(1.0),
        // Where nobody is refused although more comes than is done, they wait, and that is worse.
        verdict("p99 <= 50 ms", || refused(0.99) <= 50.0 && !(seen.refused.is_empty() && seen.unsent > 0))
    );
    println!(
        "  done {} (p50 {:.1}, p99 {:.1} ms); other answers {}; not sent, as all connections were in use, {}; most in flight {}",
        seen.done.len(),
        at(&seen.done_ms, 0.5),
        at(&seen.done_ms, 0.99),
        seen.other,
        seen.unsent,
        seen.most_in_flight
    );
    println!("  memory of the largest node {before:.0} MiB before, {most:.0} MiB at most");
    if kind.image.is_none() {
        nothing_is_lost(&cluster, leader, &seen).await;
        println!("  every acknowledged write is there, no refused one is");
    }
}

/// What clients get done in a second that ask without pause, how many they were refused; and a number for the next request.
async fn capacity(kind: &Kind, address: &str, time: Duration, first: u64) -> (f64, usize, u64) {
    let end = now() + time;
    let clients = (0..kind.clients as u64).map(async |client| {
        let mut connection = Connection::open(address).await;
        let (mut done, mut refused) = (0u64, 0);
        while now() < end {
            let request = kind.request(address, first + client * 100_000 + done);
            match connection.call(&request).await.unwrap() {
                200 => done += 1,
                503 => refused += 1,
                other => panic!("an answer {other}"),
            }
            if connection.is_closed {
                connection = Connection::open(address).await;
            }
        }
        (done, refused)
    });
    let (done, refused): (Vec<u64>, Vec<usize>) = futures::future::join_all(clients).await.into_iter().unzip();
    (done.iter().sum::<u64>() as f64 / time.as_secs_f64(), refused.iter().sum(), first + 100_000_000)
}

/// Requests that are due at their times, whatever has become of the ones before; and the most memory of any node meanwhile.
async fn open_model(kind: &Kind, address: &str, rate: f64, time: Duration, first: u64, pids: &[u32]) -> (Seen, f64) {
    let mut free = Vec::new();
    for _ in 0..TIMES * kind.limit {
        let mut connection = Connection::open(address).await;
        // A connection that says nothing would be closed after a while.
        connection.call(format!("GET /livez HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await.unwrap();
        free.push(connection);
    }
    let (free, seen) = (Rc::new(RefCell::new(free)), Rc::new(RefCell::new(Seen::default())));
    let start = now();
    let end = start + time;
    let send = |number: u64, due: Moment| {
        let Some(mut connection) = free.borrow_mut().pop() else {
            seen.borrow_mut().unsent += 1;
            return;
        };
        let request = kind.request(address, first + number);
        let (free, seen, address) = (free.clone(), seen.clone(), address.to_owned());
        {
            let mut seen = seen.borrow_mut();
            seen.in_flight += 1;
            seen.most_in_flight = seen.most_in_flight.max(seen.in_flight);
        }
        tokio::task::spawn_local(async move {
            let answer = connection.call(&request).await;
            let took = now().since(due).as_secs_f64() * 1000.0;
            if connection.is_closed || answer.is_err() {
                connection = Connection::open(&address).await;
            }
            let mut seen = seen.borrow_mut();
            seen.in_flight -= 1;
            match answer {
                Ok(200) => {
                    seen.done.push(first + number);
                    seen.done_ms.push(took);
                    seen.in_time += usize::from(now() <= end);
                }
                Ok(503) => {
                    seen.refused.push(first + number);
                    seen.refused_ms.push(took);
                }
                _ => seen.other += 1,
            }
            free.borrow_mut().push(connection);
        });
    };
    let burst = (TIMES * kind.limit) as u64;
    (0..burst).for_each(|number| send(number, start));
    let mut sent = 0;
    let mut most: f64 = 0.0;
    let mut looked = start;
    while now() < end {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let due = (now().since(start).as_secs_f64() * rate) as u64;
        while sent < due {
            send(burst + sent, start + Duration::from_secs_f64(sent as f64 / rate));
            sent += 1;
        }
        if now().since(looked) > Duration::from_millis(200) {
            looked = now();
            most = pids.iter().map(|pid| memory_mib(*pid)).fold(most, f64::max);
        }
    }
    tokio::time::timeout(REST, async {
        wait_for("all are answered", async || (seen.borrow().in_flight == 0).then_some(())).await;
    })
    .await
    .unwrap();
    (seen.take(), most)
}

/// Reads all keys.
async fn nothing_is_lost(cluster: &TestCluster, leader: u16, seen: &Seen) {
    let http = reqwest::Client::new();
    let (mut found, mut after) = (BTreeSet::new(), String::new());
    loop {
        let url = format!("{}{}?limit=1000&after={after}", cluster.url(leader), kv::KV);
        let page: Listed = serde_json::from_slice(&http.get(url).send().await.unwrap().bytes().await.unwrap()).unwrap();
        found.extend(page.items.iter().map(|item| item.key.parse::<u64>().unwrap()));
        let Some(last) = page.items.last().filter(|_| page.more) else { break };
        after = last.key.clone();
    }
    assert!(seen.done.iter().all(|number| found.contains(number)), "an acknowledged write is not there");
    assert!(!seen.refused.iter().any(|number| found.contains(number)), "a refused write was done");
}
