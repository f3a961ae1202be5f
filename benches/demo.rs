//! The demo beside its floor: `cargo bench --bench demo -- --help`.
//!
//! The floor is the time of what nobody can leave out, in the same run and on all cores: (a) the same pictures sealed in a bare
//! loop, and (b) the same bytes moved through a bare actix-web handler and reqwest, as many at a time as there are clients.
//! *Ratio* is (a + b) / load duration of the demo: 1 would mean that announcing, placing, electing, admitting, caching and
//! counting cost nothing, and that three nodes fill the cores as well as one loop does.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use bytes::{Bytes, BytesMut};
use image_cloud::demo::options::WorkMix;
use image_cloud::demo::pictures::{self, Picture};
use image_cloud::demo::plan::Plan;
use image_cloud::image::{ClusterId, ClusterKey, DataKey, ImageNonce, Limits, Scratch, SealKeys, SealOptions, seal};
use image_cloud::time::now;
use support::{argument, helped, machine, quantile, verdict};

const HELP: &str = "\
The demo beside its floor: the same seals in a bare loop, and the same bytes through a bare server.

cargo bench --bench demo [-- OPTIONS]
  --rounds N      (3)
  --clients N     (50)
  --requests N    of each client (200)";

const SEED: u64 = 42;
const TARGET: f64 = 0.7;

fn main() {
    if helped(HELP) {
        return;
    }
    let (rounds, clients, requests) = (argument("--rounds", 3), argument("--clients", 50), argument("--requests", 200));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let pictures = pictures::make(SEED).unwrap();
    let plan = Plan {
        seed: SEED,
        run_id: String::new(),
        clients,
        requests_each: requests,
        mix: WorkMix::Seal,
        pictures: pictures.len(),
    };
    let jobs: Vec<usize> = (0..requests)
        .flat_map(|turn| (0..clients).map(move |client| (client, turn)))
        .map(|(client, turn)| plan.request(client, turn).picture)
        .collect();
    println!("{}; {} seals by {clients} clients, {rounds} rounds, seed {SEED}", machine(), jobs.len());

    let directory = tempfile::tempdir().unwrap();
    let sizes: Vec<usize> = pictures.iter().map(|picture| seal_one(picture, &mut Scratch::default()).len()).collect();
    let exchange = Exchange::start(cores, sizes.iter().copied().max().unwrap());
    let (mut loads, mut seals, mut transfers, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let load = demo(&directory.path().join(round.to_string()), clients, requests);
        let sealing = seal_all(&pictures, &jobs, cores);
        let transfer = exchange.transfer_all(&pictures, &sizes, &jobs, clients as usize);
        let ratio = (sealing + transfer) / load;
        println!(
            "round {round}: demo {load:.2} s ({:.0} requests/s), seals {sealing:.2} s, transfers {transfer:.2} s, ratio {ratio:.2}",
            jobs.len() as f64 / load
        );
        loads.push(load);
        seals.push(sealing);
        transfers.push(transfer);
        ratios.push(ratio);
    }
    exchange.stop();
    println!("demo, s                  {}", spread(&loads));
    println!("(a) seals alone, s       {}", spread(&seals));
    println!("(b) transfers alone, s   {}", spread(&transfers));
    let median = quantile(&ratios, 0.5);
    println!("ratio (a + b) / demo     {}  {}", spread(&ratios), verdict(&format!("≥ {TARGET}"), || median >= TARGET));
}

/// `median [least–most]`.
fn spread(samples: &[f64]) -> String {
    format!("{:.2} [{:.2}–{:.2}]", quantile(samples, 0.5), quantile(samples, 0.0), quantile(samples, 1.0))
}

// ---- the demo --------------------------------------------------------------------------------------------------------

/// Runs the demo and returns the duration of its load in seconds.
fn demo(out: &Path, clients: u32, requests: u32) -> f64 {
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["--failures", "none", "--verify", "none", "--exit", "--no-progress", "--op", "seal"])
        .args(["--seed", &SEED.to_string(), "--clients", &clients.to_string(), "--requests", &requests.to_string()])
        .arg("--out")
        .arg(out)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the demo ended with {}:\n{text}", output.status);
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(report["metrics"]["success_rate"], 1.0, "{text}");
    report["totals"]["duration_s"].as_f64().unwrap()
}

// ---- floor (a): seals ------------------------------------------------------------------------------------------------

fn seal_one(picture: &Picture, scratch: &mut Scratch) -> Vec<u8> {
    let keys = SealKeys {
        cluster_key: ClusterKey::new([1; 32]),
        cluster_id: ClusterId([2; 32]),
        image_nonce: ImageNonce([3; 32]),
        data_key: DataKey([4; 32]),
    };
    seal(&picture.bytes, &picture.name, &keys, &SealOptions::default(), &Limits::default(), scratch).unwrap()
}

/// Seals all jobs on all cores and returns the seconds.
fn seal_all(pictures: &[Picture], jobs: &[usize], cores: usize) -> f64 {
    let next = AtomicUsize::new(0);
    let start = now();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut scratch = Scratch::default();
                while let Some(&job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let file = seal_one(&pictures[job], &mut scratch);
                    scratch.give_back(file);
                }
            });
        }
    });
    now().since(start).as_secs_f64()
}

// ---- floor (b): transfers --------------------------------------------------------------------------------------------

/// A server that reads a body and answers with as many bytes as the query says, and clients of it, in this process.
struct Exchange {
    url: String,
    server: ServerHandle,
    clients: tokio::runtime::Runtime,
}

#[derive(serde::Deserialize)]
struct Wanted {
    bytes: usize,
}

impl Exchange {
    fn start(cores: usize, longest: usize) -> Exchange {
        let answer = Bytes::from(vec![7; longest]);
        let (sender, started) = mpsc::channel();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let handler = move |wanted: web::Query<Wanted>, body: Bytes| {
                    let answer = answer.slice(..wanted.bytes);
                    async move {
                        assert!(!body.is_empty());
                        HttpResponse::Ok().body(answer)
                    }
                };
                let app = move || {
                    App::new().app_data(web::PayloadConfig::new(64 << 20)).route("/", web::post().to(handler.clone()))
                };
                let server = HttpServer::new(app).workers(cores).disable_signals().bind("127.0.0.1:0").unwrap();
                let url = format!("http://{}/", server.addrs()[0]);
                let server = server.run();
                sender.send((url, server.handle())).unwrap();
                server.await.unwrap();
            });
        });
        let (url, server) = started.recv().unwrap();
        let clients = tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_all().build().unwrap();
        Exchange { url, server, clients }
    }

    /// Moves the bytes of all jobs, `in_flight` at a time, and returns the seconds.
    fn transfer_all(&self, pictures: &[Picture], sizes: &[usize], jobs: &[usize], in_flight: usize) -> f64 {
        let jobs: Arc<[(Bytes, String, usize)]> = jobs
            .iter()
            .map(|&job| (pictures[job].bytes.clone(), format!("{}?bytes={}", self.url, sizes[job]), sizes[job]))
            .collect();
        // The settings of the client library.
        let connections = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .tcp_nodelay(true)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(128)
            .build()
            .unwrap();
        let next = Arc::new(AtomicUsize::new(0));
        self.clients.block_on(async {
            let start = now();
            let mut workers = tokio::task::JoinSet::new();
            for _ in 0..in_flight {
                let (jobs, next, connections) = (jobs.clone(), next.clone(), connections.clone());
                workers.spawn(async move {
                    while let Some((image, url, size)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut response = connections.post(url).body(image.clone()).send().await.unwrap();
                        let mut body = BytesMut::with_capacity(*size);
                        while let Some(chunk) = response.chunk().await.unwrap() {
                            body.extend_from_slice(&chunk);
                        }
                        assert_eq!(body.len(), *size);
                    }
                });
            }
            while let Some(worker) = workers.join_next().await {
                worker.unwrap();
            }
            now().since(start).as_secs_f64()
        })
    }

    fn stop(self) {
        self.clients.block_on(self.server.stop(false));
    }
}
