//! The ledger beside etcd and ZooKeeper, in one run: `cargo bench --bench ledger -- --help`. And how long a restart takes, by itself.
//!
//! Three nodes each, as processes with directories of their own, every write synced by a majority before it is acknowledged. The
//! client is this one process, with one thread, on the public API over kept-alive connections: HTTP/1.1 to our leader, one
//! connection per client; gRPC over HTTP/2 to etcd's leader, one connection per 16 clients, which is etcd's best; ZooKeeper's own
//! protocol to its leader, one connection per client, on keys that are there already. It shares the
//! cores with the servers, so it is lean, and its share is told. In each round every system is started anew, does all rows and is
//! stopped, so that none runs beside another; the order changes from round to round. A figure is the median of the rounds, a ratio of
//! two systems that of the rounds' ratios.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop")]

#[path = "../tests/alone/mod.rs"]
mod alone;
#[path = "../tests/common/mod.rs"]
mod common;
#[path = "ledger/grpc.rs"]
mod grpc;
#[path = "ledger/http1.rs"]
mod http1;
#[path = "ledger/leaders.rs"]
mod leaders;
#[path = "ledger/load.rs"]
mod load;
#[path = "../tests/people/mod.rs"]
mod people;
#[path = "ledger/restart.rs"]
mod restart;
#[path = "ledger/servers.rs"]
mod servers;
#[path = "ledger/table.rs"]
mod table;
#[path = "ledger/zookeeper.rs"]
mod zookeeper;

mod support;

use std::path::PathBuf;
use std::time::Duration;

use load::{Figures, Load, Operation};
use servers::{Servers, System};
use support::{argument, helped, machine};
use table::Table;
use tokio::time::timeout;

const HELP: &str = "\
The ledger beside etcd and ZooKeeper: durable writes, one hot counter, linearizable reads, views of one image, processor time, memory.

cargo bench --bench ledger [-- OPTIONS]
cargo bench --bench ledger -- leaders      what writers notice of a hand-over and of kill -9; with --trials N (20); nothing else
cargo bench --bench ledger -- restart      how long a node takes that starts on a snapshot and 100,000 entries; nothing else
  --rounds N      rounds, each with new clusters of every system (3)
  --seconds S     measured time of each row (3)
  --rows LIST     of put-1, put-16, put-64, put-256, hot-16, hot-64, read-64, view-64 (all, in this order)
  --against WHAT  `peers` (etcd and ZooKeeper, as far as they are installed), `etcd`, `nothing`, or the path of another build of cloud-node, to
                  compare two builds of ours (peers)
  --program PATH  our build (the one of this checkout)

etcd: Debian's package `etcd-server` (or `etcd`); ZooKeeper, for the rows of puts: `zookeeper`. TMPDIR must be on a real disk.";

/// The rows: name, operation, clients.
const ROWS: [(&str, Operation, usize); 8] = [
    ("put-1", Operation::Put, 1),
    ("put-16", Operation::Put, 16),
    ("put-64", Operation::Put, 64),
    ("put-256", Operation::Put, 256),
    ("hot-16", Operation::Decrement, 16),
    ("hot-64", Operation::Decrement, 64),
    ("read-64", Operation::Read, 64),
    ("view-64", Operation::View, 64),
];

/// How long a row may take beside its measured time: every key written once, and the warm-up.
const ROW_LIMIT: Duration = Duration::from_secs(60);

/// Runs before each row without being counted.
const WARM_UP: Duration = Duration::from_millis(700);

fn main() {
    if helped(HELP) {
        return;
    }
    if std::env::args().any(|word| word == "restart") {
        return restart::run();
    }
    if std::env::args().any(|word| word == "leaders") {
        return leaders::run();
    }
    let seconds = Duration::from_secs_f64(argument("--seconds", 3.0));
    let rows: String = argument("--rows", ROWS.map(|row| row.0).join(","));
    let rows: Vec<_> = ROWS.into_iter().filter(|row| rows.split(',').any(|name| name == row.0)).collect();
    let program: PathBuf = argument("--program", env!("CARGO_BIN_EXE_cloud-node").into());
    let systems = systems(program);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{}; 3 nodes each, values of {} bytes, {} s a row", machine(), load::VALUE_BYTES, seconds.as_secs_f64());
    for system in &systems {
        println!("{}: {}", system.name(), system.describe());
    }

    let mut table = Table::new(&systems);
    for round in 0..argument("--rounds", 3) {
        for turn in 0..systems.len() {
            let number = (round + turn) % systems.len();
            runtime.block_on(async {
                let servers = Servers::start(&systems[number]).await;
                let measured = |operation| !matches!(systems[number], System::ZooKeeper) || operation == Operation::Put;
                for &(name, operation, clients) in rows.iter().filter(|row| measured(row.1)) {
                    let what = format!("round {}, {}, {name}", round + 1, systems[number].name());
                    match timeout(ROW_LIMIT + seconds, row(&servers, operation, clients, seconds)).await {
                        Ok(figures) => {
                            eprintln!("{what}: {figures}");
                            table.add(round, number, name, figures);
                        }
                        // ZooKeeper was seen to leave a write without an answer for minutes.
                        Err(_) => {
                            println!("{what}: hangs, and is left out with what would follow it in this round");
                            break;
                        }
                    }
                }
            });
        }
    }
    println!("{table}");
    table.print_zookeeper();
    table.print_view(load::bare_view_cpu());
}

fn systems(program: PathBuf) -> Vec<System> {
    let ours = System::Ours { name: "ours", program };
    let against: String = argument("--against", "peers".to_owned());
    match against.as_str() {
        "nothing" => vec![ours],
        "peers" | "etcd" => {
            let mut systems = vec![ours];
            if servers::has_etcd() {
                systems.push(System::Etcd);
            } else {
                println!("there is no etcd on this machine (Debian: etcd-server)");
            }
            if against == "etcd" {
                return systems;
            }
            if servers::has_zookeeper() {
                systems.push(System::ZooKeeper);
            } else {
                println!("there is no ZooKeeper on this machine (Debian: zookeeper)");
            }
            systems
        }
        path => vec![ours, System::Ours { name: "other", program: path.into() }],
    }
}

/// One row on one system: a warm-up, then the measured time.
async fn row(servers: &Servers, operation: Operation, clients: usize, time: Duration) -> Figures {
    let mut load = Load::connect(servers, operation, clients).await;
    load.run(WARM_UP).await;
    let (cpu, own) = (servers.cpu_seconds(), servers::own_cpu_seconds());
    let mut figures = load.run(time).await;
    figures.server_cpu = servers.cpu_seconds() - cpu;
    figures.client_cpu = servers::own_cpu_seconds() - own;
    figures.memory_mib = servers.memory_mib();
    if operation == Operation::Decrement {
        load.check_floor(servers).await;
    }
    figures
}
