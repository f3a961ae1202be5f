//! The composition root: ports, data directory, secrets, Raft, cores, actor, HTTP; and the way to stop.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use actix::{Actor, Addr, System};
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use super::actor::{FailureEnded, Node, Parts};
use super::data_dir::DataDir;
use super::desk::Desk;
use super::exposure;
use super::inbound::Entrance;
use super::keys::Keys;
use super::ledger::{KEPT_PERMITS, Ledger};
use super::listener::{self, ListenerSettings};
use super::members::Membership;
use super::open_files;
use super::options::{NodeError, NodeOptions, bind};
use super::rights::RightsDesk;
use super::service::Counter;
use super::shared::Shared;
use super::stopping::Stopping;
use super::worker::{self, Tools};
use crate::config::secrets::{self, ADMIN_TOKEN_FILE, NodeSecrets};
use crate::config::{ClusterConfig, ConfiguredNode, LimitNumbers, StrategyName};
use crate::core::election::{Election, FirstStart, Strategy};
use crate::core::liveness::Liveness;
use crate::core::membership::Roster;
use crate::core::{election, failure, jobs, liveness, placement, recovery};
use crate::http;
use crate::id::{Load, MemberId, NodeId};
use crate::image::{Cover, Limits};
use crate::protocol::election::Heartbeat;
use crate::protocol::frame::Lane;
use crate::protocol::membership::Place;
use crate::raft::{RaftError, RaftNode, RaftSettings, RaftTransport, TransportError};
use crate::time;
use crate::transport::{CallError, Faults, Gate, LinkSettings, Links, NodeTls, Standing};

const MIB: u64 = 1 << 20;

/// The line on a child's standard input that ends its failure.
pub const END_OF_FAILURE: &str = "recover";

/// Runs a node until Ctrl-C, SIGTERM or the end of its parent.
///
/// # Errors
/// Everything that keeps it from starting, and a fault of its disk while it runs.
pub fn run(options: NodeOptions) -> Result<(), NodeError> {
    let configured = options.config.node(options.id)?.clone();
    let exposed = exposure::check(&options.config, &configured)?;
    for warning in exposed.into_iter().chain(options.config.warning_of_size()) {
        log::warn!("node {}: {warning}", options.id);
    }
    crate::config::secrets::leave_no_core_dump();
    let http_socket = bind(configured.http, "--listen")?;
    let peer_socket = bind(configured.peer_address(), "--peer-listen")?;
    let directory = DataDir::open(&options.config.node_directory(options.id), options.id)?;
    let secrets = match &options.secrets_from {
        Some(cluster) => secrets::of_cluster_here(cluster, &options.config.secrets_directory(), options.id)?,
        None => options.config.node_secrets(options.id)?,
    };
    let tools = Arc::new(tools(&options.config, Keys::open(&options.config.secrets_directory())?)?);
    let doors =
        Doors { tls: NodeTls::new(&secrets.credentials)?, http: http_door(&options.config, &configured, secrets)? };

    // One thread for the actor, Raft and the connections to peers: none of them computes for long, and each message from one to the
    // other would wake a thread. Images and most of HTTP have threads of their own.
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a tokio runtime needs only what the process can have at its start")
    };
    let system = System::with_tokio_rt(runtime);
    // As a task of its own: what the system itself runs is looked at whenever any actor is woken.
    let serving = async { actix::spawn(serve(options, directory, tools, doors, http_socket, peer_socket)).await };
    system.block_on(serving).unwrap_or_else(|ended| Err(NodeError::System(ended.to_string())))
}

/// Who may come in, and how, at each of the two ports.
struct Doors {
    tls: NodeTls,
    http: http::Door,
}

fn http_door(config: &ClusterConfig, node: &ConfiguredNode, secrets: NodeSecrets) -> Result<http::Door, NodeError> {
    let is_tls = config.http.is_tls(node.http);
    let tls = is_tls.then(|| http::server_config(&secrets.credentials)).transpose()?;
    // On its own machine a path helps; to callers from elsewhere it would be wrong and none of their business.
    let token_file = match config.secrets {
        None => config.secrets_directory().join(ADMIN_TOKEN_FILE).display().to_string(),
        Some(_) => format!("operator/{ADMIN_TOKEN_FILE}"),
    };
    let every_call = config.http.needs_token(node.http);
    let hosts = config.http.hosts.clone();
    let connections = open_files::connections(config.http.connections);
    let access = http::Access { token: secrets.admin_token, token_file, every_call, hosts };
    Ok(http::Door { access, tls, connections })
}

fn tools(config: &ClusterConfig, keys: Keys) -> Result<Tools, NodeError> {
    let limits = image_limits(&config.limits);
    let cover = match &config.jobs.cover {
        None => Cover::access_denied(),
        Some(path) => {
            let wrong = |reason: String| NodeError::Cover { path: path.clone(), reason };
            let file = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            Cover::from_file(&file, &limits).map_err(|error| wrong(error.to_string()))?
        }
    };
    let simulated_delay = Duration::from_millis(config.jobs.simulated_delay_ms);
    Ok(Tools { keys, cluster_id: OnceLock::new(), cover, limits, simulated_delay })
}

fn image_limits(numbers: &LimitNumbers) -> Limits {
    Limits::configured(numbers.original_mib, numbers.sealed_mib, numbers.megapixels, numbers.side)
}

async fn serve(
    options: NodeOptions,
    directory: DataDir,
    tools: Arc<Tools>,
    doors: Doors,
    http_socket: TcpListener,
    peer_socket: TcpListener,
) -> Result<(), NodeError> {
    let system_error = |error: std::io::Error| NodeError::System(error.to_string());
    // Where strangers come by, be it through a proxy, nobody becomes a user uninvited.
    let needs_invitation = doors.http.access.every_call;
    let NodeOptions { id, config, seed, .. } = &options;
    let member = directory.member();
    let address = http_socket.local_addr().map_err(system_error)?;
    let scheme = if doors.http.tls.is_some() { "https" } else { "http" };
    log::info!("node {id}: {scheme}://{address}, incarnation {}, seed {seed}", member.incarnation);

    let shared = Arc::new(Shared::new(member, address, options.place));
    let gate = Gate::default();
    // A node that joins knows nobody: it is called, and learns of the others when it is taken in.
    let knows_others = options.first_start != FirstStart::Never;
    let configured: Vec<&ConfiguredNode> = config.nodes.iter().filter(|_| knows_others).collect();
    let others = configured.iter().filter(|node| node.id != *id);
    let peers: BTreeMap<NodeId, SocketAddr> = others.map(|node| (node.id, node.peer_address())).collect();
    let link_settings = LinkSettings {
        me: member,
        peers: peers.clone(),
        connect_timeout: Duration::from_millis(200),
        tls: doors.tls.clone(),
    };
    let faults = Faults::new(peers.keys().copied(), seed.wrapping_add(3));
    let links = Links::open(&link_settings, gate.clone(), faults.clone());
    let raft = RaftNode::open(raft_settings(config, member, &directory), Arc::new(Carrier(links.clone()))).await?;
    // What stands in the log is newer than the configuration.
    links.follow(&raft.roster());
    say_where_it_is_found(&raft.roster(), member, options.place);
    if !knows_others && raft.roster().is_empty() {
        let http = options.place.http;
        log::info!(
            "node {id}: waits to be taken in by `client members add {id} {http}`, or `replace` if there was a node {id} before"
        );
    }

    let workers = if config.jobs.workers > 0 { config.jobs.workers } else { cores() };
    let desk = desk(config, workers, &tools);
    let parts = Parts {
        shared: shared.clone(),
        tools: tools.clone(),
        desk: desk.clone(),
        links: links.clone(),
        gate: gate.clone(),
        raft: raft.clone(),
        configured: configured.iter().map(|node| (node.id, node.http)).collect(),
        workers,
        tick: Duration::from_millis(config.election.tick_ms),
        election: Election::new(election_settings(&options, member), *seed),
        liveness: Liveness::new(liveness_settings(config, *id)),
        placement: placement::Placement::new(placement::Settings::default()),
        recovery: recovery::Recovery::new(recovery_settings(config, *id), time::now()),
        failures: failure::Failures::new(failure_settings(config), seed.wrapping_add(1), time::now()),
    };
    let node = Node::new(parts).start();

    peer_socket.set_nonblocking(true).map_err(system_error)?;
    let peer_socket = tokio::net::TcpListener::from_std(peer_socket).map_err(system_error)?;
    let listener_settings = ListenerSettings {
        me: member,
        place: options.place,
        nodes: configured.iter().map(|node| node.id).collect(),
        roster: raft.rosters(),
        connections: 256,
        greeting_timeout: Duration::from_secs(1),
        tls: doors.tls,
    };
    let entrance = Arc::new(Entrance { node: node.clone(), raft: raft.clone(), shared: shared.clone() });
    let listening = tokio::spawn(listener::serve(peer_socket, listener_settings, gate, faults.clone(), entrance));
    let beat = Duration::from_millis(config.election.heartbeat_ms);
    let beating = tokio::spawn(heartbeats(beat, workers, shared.clone(), desk.clone(), links.clone(), raft.clone()));

    let limits = http::Limits {
        original_bytes: config.limits.original_mib * MIB,
        upload_time: Duration::from_secs_f64(config.http.upload_s),
        key_bytes: config.limits.key_bytes as usize,
        value_bytes: (config.limits.value_kib as usize) << 10,
    };
    let random = Mutex::new(SmallRng::seed_from_u64(seed.wrapping_add(2) ^ member.incarnation.0));
    let parented = node.clone();
    let rules = Arc::new(config.http.clone());
    let kept = Arc::new(Semaphore::new(KEPT_PERMITS));
    let ledger = Ledger { raft: raft.clone(), shared: shared.clone(), rules, kept };
    let changing = Arc::default();
    let membership = Membership { node: node.clone(), ledger: ledger.clone(), links: links.clone(), changing };
    let stopping = Stopping { node: node.clone(), desk: desk.clone(), shared: shared.clone(), raft: raft.clone() };
    let rights = RightsDesk { ledger: ledger.clone(), tools, needs_invitation };
    let ledger = Arc::new(ledger);
    let counter = Counter { node, desk, shared, faults, limits, ledger, membership, rights, random };
    let server =
        http::serve(http_socket, doors.http, Arc::new(counter), (cores() as usize / 2).max(1)).map_err(system_error)?;

    let finish = Duration::from_secs_f64(config.jobs.finish_s);
    let outcome = tokio::select! {
        () = was_removed(&links, &raft, member) => {
            log::error!("node {id}: it was removed from the cluster in this life ({member}): stops for good");
            stopping.leave("removed from the cluster", finish).await;
            Err(NodeError::Removed { member, directory: directory.path().to_owned() })
        }
        why = told_to_stop(options.exit_with_parent.then_some(parented)) => {
            log::info!("node {id}: {why}, stopping");
            tokio::select! {
                () = stopping.leave(why, finish) => Ok(()),
                _ = told_to_stop(None) => {
                    log::info!("node {id}: told so again, stops without finishing its jobs");
                    Ok(())
                }
                fault = fault_of(&raft) => Err(fault.into()),
            }
        }
        fault = fault_of(&raft) => Err(fault.into()),
    };
    // Peers must see at once that the node is gone.
    listening.abort();
    beating.abort();
    server.stop().await;
    raft.shutdown().await;
    outcome
}

/// Resolves when Raft has stopped by itself, for example because the disk does not sync.
async fn fault_of(raft: &RaftNode) -> RaftError {
    let mut fault = raft.fault();
    match fault.wait_for(Option::is_some).await {
        Ok(fault) => fault.clone().expect("the wait ends when there is one"),
        Err(_) => std::future::pending().await,
    }
}

/// Resolves when this life of the node is known to be removed: by its own log, or by the word of a member.
async fn was_removed(links: &Links, raft: &RaftNode, me: MemberId) {
    let (mut standing, mut rosters) = (links.standing(), raft.rosters());
    let told = standing.wait_for(|standing| *standing == Standing::Removed);
    let seen = rosters.wait_for(|roster| roster.removed.contains(&me));
    // An error means that links or Raft have ended, which others notice.
    let is_so = tokio::select! { told = told => told.is_ok(), seen = seen => seen.is_ok() };
    if !is_so {
        std::future::pending::<()>().await;
    }
}

/// The membership wins over the configuration. Who listens elsewhere than the others look is told what to do.
fn say_where_it_is_found(roster: &Roster, me: MemberId, place: Place) {
    if let Some(known) = roster.places.get(&me)
        && (known.http, known.peer) != (place.http, place.peer)
    {
        log::warn!(
            "node {}: the members look for it at {} and {}, it says that it is found at {} and {}: start it there, or tell them with \
             `client members replace {} {} --peer {}`",
            me.node,
            known.http,
            known.peer,
            place.http,
            place.peer,
            me.node,
            place.http,
            place.peer
        );
    }
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
}

fn desk(config: &ClusterConfig, workers: u32, tools: &Arc<Tools>) -> Desk {
    let settings = jobs::Settings {
        workers,
        waiting_per_worker: config.jobs.waiting_per_worker,
        transfer_bytes: config.limits.transfer_memory_mib * MIB,
        repeat_bytes: config.jobs.repeats_mib * MIB,
        simulated_load: config.jobs.simulated_load,
        smoothing: Duration::from_millis(500),
    };
    let decode_bytes = config.limits.decode_memory_mib * MIB;
    Desk::new(settings, decode_bytes, tools.limits.clone(), worker::start(workers, tools))
}

fn election_settings(options: &NodeOptions, me: MemberId) -> election::Settings {
    let numbers = &options.config.election;
    let nodes = options.config.nodes.iter().map(|node| node.id).collect();
    election::Settings {
        strategy: match numbers.strategy {
            StrategyName::Bully => Strategy::Bully,
            StrategyName::Raft => Strategy::Raft,
        },
        first_start: options.first_start,
        round_timeout: Duration::from_millis(numbers.round_timeout_ms),
        nominee_timeout: Duration::from_millis(numbers.nominee_timeout_ms),
        lease: Duration::from_millis(numbers.raft_election_max_ms),
        back_off: Duration::from_millis(numbers.back_off_ms),
        dead_man: Duration::from_millis(numbers.dead_man_ms),
        hand_over: Duration::from_millis(2 * numbers.raft_election_min_ms),
        prefer: numbers.prefer.clone(),
        hand_over_margin: Load::from(numbers.hand_over_margin),
        hand_over_cost: Load::from(numbers.hand_over_cost),
        hand_over_hold: Duration::from_secs_f64(numbers.hand_over_hold_s),
        hand_over_cool_down: Duration::from_secs_f64(numbers.hand_over_cooldown_s),
        disk_stall: Duration::from_millis(numbers.disk_stall_ms),
        ..election::Settings::new(me, nodes)
    }
}

fn liveness_settings(config: &ClusterConfig, me: NodeId) -> liveness::Settings {
    let numbers = &config.election;
    let peers = config.nodes.iter().map(|node| node.id).filter(|node| *node != me).collect();
    liveness::Settings {
        suspicion: Duration::from_millis(numbers.suspicion_ms),
        lease: Duration::from_millis(numbers.raft_election_max_ms),
        tick: Duration::from_millis(numbers.tick_ms),
        ..liveness::Settings::new(peers)
    }
}

fn failure_settings(config: &ClusterConfig) -> failure::Settings {
    let numbers = &config.failures;
    failure::Settings {
        random: numbers.random,
        every: Duration::from_secs_f64(numbers.every_s),
        probability: numbers.probability,
        shortest: Duration::from_secs_f64(numbers.min_s),
        longest: Duration::from_secs_f64(numbers.max_s),
    }
}

fn recovery_settings(config: &ClusterConfig, me: NodeId) -> recovery::Settings {
    recovery::Settings {
        answer_limit: Duration::from_millis(config.recovery.answer_limit_ms),
        jobs_only_after: Duration::from_millis(config.recovery.jobs_only_after_ms),
        ..recovery::Settings::new(me)
    }
}

fn raft_settings(config: &ClusterConfig, member: MemberId, directory: &DataDir) -> RaftSettings {
    let (numbers, log) = (&config.election, &config.log);
    RaftSettings {
        heartbeat: Duration::from_millis(numbers.raft_heartbeat_ms),
        election_min: Duration::from_millis(numbers.raft_election_min_ms),
        election_max: Duration::from_millis(numbers.raft_election_max_ms),
        native_elections: numbers.strategy == StrategyName::Raft,
        snapshot_after: log.snapshot_entries,
        snapshot_after_bytes: log.snapshot_mib * MIB,
        snapshot_after_time: Duration::from_secs_f64(log.snapshot_s),
        keep_after_snapshot: log.keep_entries,
        keep_bytes: log.keep_mib * MIB,
        ledger_bytes: config.limits.ledger_mib * MIB,
        waiting_writes: config.limits.waiting_writes as usize,
        ..RaftSettings::new(member, directory.raft())
    }
}

/// Raft's requests over the node connections.
struct Carrier(Links);

impl RaftTransport for Carrier {
    fn call(
        &self,
        to: MemberId,
        lane: Lane,
        request: Vec<u8>,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let links = self.0.clone();
        async move {
            links.raft(to, lane, request, limit).await.map_err(|error| match error {
                CallError::Timeout(_) => TransportError::Timeout,
                other => TransportError::Unreachable(other.to_string()),
            })
        }
        .boxed()
    }
}

/// Sends a heartbeat to every peer, on a schedule of its own that the actor cannot delay.
async fn heartbeats(every: Duration, workers: u32, shared: Arc<Shared>, desk: Desk, links: Links, raft: RaftNode) {
    let views = raft.views();
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for sequence in 1.. {
        interval.tick().await;
        let (load, pressure, counters) = desk.load();
        let view = shared.view();
        let last_log = views.borrow().last_log;
        links.heartbeat(Heartbeat {
            member: shared.member,
            sequence,
            state: view.state,
            load,
            pressure,
            workers,
            jobs_accepted: counters.accepted,
            disk_waits_ms: u32::try_from(raft.disk_waits().as_millis()).unwrap_or(u32::MAX),
            last_log,
            coordinator: view.coordinator,
        });
    }
}

/// Resolves with the reason when the node shall stop.
///
/// A node that fails hears nobody over the network. A parent can still end its failure: with the line `recover` on the standard
/// input, whose end means that the parent is gone.
async fn told_to_stop(child: Option<Addr<Node>>) -> &'static str {
    let interrupt = async {
        match signal(SignalKind::interrupt()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    let orphaned = async {
        let Some(node) = child else { return std::future::pending().await };
        let mut lines = parents_lines();
        while let Some(line) = lines.recv().await {
            if line == END_OF_FAILURE {
                // A node whose mailbox is closed is stopping anyway.
                let _ = node.send(FailureEnded).await;
            }
        }
    };
    tokio::select! {
        _ = interrupt => "interrupted",
        _ = terminate => "told to stop",
        () = orphaned => "its parent is gone",
    }
}

/// The lines of the standard input until its end. A thread of its own reads them, and nobody waits for it: tokio's standard
/// input would keep the runtime from ending until another line comes.
fn parents_lines() -> tokio::sync::mpsc::Receiver<String> {
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Incarnation;

    /// The defaults of the cores are those of the configuration, so that a number stands for the same in docs, tests and nodes.
    #[test]
    fn the_defaults_of_the_cores_are_those_of_the_configuration() {
        let (config, id) = (ClusterConfig::default(), NodeId(1));
        let member = MemberId { node: id, incarnation: Incarnation(7) };
        let nodes: Vec<NodeId> = config.nodes.iter().map(|node| node.id).collect();
        let others = nodes.iter().copied().filter(|node| *node != id).collect();
        assert_eq!(liveness_settings(&config, id), liveness::Settings::new(others));
        let limits = image_limits(&config.limits);
        assert_eq!(limits, Limits::default());
        let place = config.nodes[0].place();
        let first_start = FirstStart::Everybody;
        let secrets_from = None;
        let options = NodeOptions { id, config, first_start, place, secrets_from, seed: 1, exit_with_parent: false };
        assert_eq!(election_settings(&options, member), election::Settings::new(member, nodes));
    }
}
