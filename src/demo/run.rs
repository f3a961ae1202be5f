//! The order of it all: cluster, load, failures, checks, report, and what comes after.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::Actor;
use anyhow::{Context, Result};
use clap::Parser;
use tokio::sync::{mpsc, watch};

use crate::client::{Answer, ClientCredentials, ClientSettings, Cluster, Job, NodeAddress, RequestFailed};
use crate::config::FailureNumbers;
use crate::demo::checker::ImageChecker;
use crate::demo::clients::{Client, Counters, Load, Model, Refused, SendAll, Service};
use crate::demo::cluster::{ClusterPlan, Echo, NODE_ARGUMENT, OwnCluster, run_as_node};
use crate::demo::driver::{Driver, LOOK_EVERY, watch_nodes};
use crate::demo::interrupt::{self, Interrupt, Signals};
use crate::demo::machine::{OwnUsage, host};
use crate::demo::observer::{Observer, narrate};
use crate::demo::options::{Arguments, Command, FailureMode, Options, Target, WorkMix};
use crate::demo::pictures::{self, Picture};
use crate::demo::plan::Plan;
use crate::demo::progress::{Bar, Progress};
use crate::demo::record::{Outcome, Record};
use crate::demo::report::text::{self, Colour};
use crate::demo::report::{Host, PictureRow, Report, Run, Surroundings, Tool, Usage, Verification};
use crate::demo::scenario::{Ending, Scenario, Settings};
use crate::demo::share::plan::SharePlan;
use crate::demo::share::proof::RightsProof;
use crate::demo::share::{self, Share};
use crate::demo::statistics::Statistics;
use crate::demo::verify::Findings;
use crate::demo::{afterwards, outages, run_directory, tour, verify};
use crate::image::{ClusterKey, Limits};
use crate::scheduling;
use crate::time::{now, unix_millis};

/// How long the cluster may take to be ready, and the last failed node to come back.
const PATIENCE: Duration = Duration::from_secs(30);
const USAGE: u8 = 2;
const UNAVAILABLE: u8 = 4;
const THRESHOLD_MISSED: u8 = 99;

/// The program: arguments in, exit code out.
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if words.get(1).is_some_and(|word| word == NODE_ARGUMENT) {
        return run_as_node(&words[2..]);
    }
    let arguments = Arguments::parse();
    // Of the demo itself only what went wrong; the nodes log into the run directory.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_timestamp_millis()
        .init();
    // Short enough to be typed again.
    let fresh_seed = (unix_millis() ^ (u64::from(std::process::id()) << 8)) % 1_000_000;
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder
            .enable_all()
            .on_thread_start(scheduling::bulk)
            .build()
            .expect("a tokio runtime needs only threads, which the process can make at its start")
    };
    if let Some(Command::Tour(tour)) = arguments.command {
        return runtime().block_on(tour::run(tour));
    }
    let options = match Options::resolve(arguments, fresh_seed) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("demo: {error}");
            return ExitCode::from(USAGE);
        }
    };
    // The clients' actors live on this thread; what they send runs on the runtime's threads.
    let result = actix::System::with_tokio_rt(runtime).block_on(run(options));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::from(error.downcast_ref().map_or(1, Refusal::exit_code))
        }
    }
}

/// Why there is no run, where the exit code says so.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// What was asked for cannot be.
    #[error("{0}")]
    Usage(String),
    /// There is no cluster to send to.
    #[error("{0}")]
    Unavailable(String),
}

impl Refusal {
    const fn exit_code(&self) -> u8 {
        match self {
            Refusal::Usage(_) => USAGE,
            Refusal::Unavailable(_) => UNAVAILABLE,
        }
    }
}

/// What a run consists of before its load begins.
struct Prepared {
    options: Options,
    run_id: String,
    directory: PathBuf,
    host: Host,
    workers: Option<usize>,
    pictures: Vec<Picture>,
    notes: Vec<String>,
    own: Option<OwnCluster>,
    nodes: Vec<NodeAddress>,
    progress: Progress,
}

/// What the load left behind.
struct Loaded {
    records: Vec<Record>,
    findings: Findings,
    clients_waited: Duration,
    start_unix_ms: u64,
    demo_process: Usage,
    cut_short_by: Option<Interrupt>,
    notes: Vec<String>,
    /// Every node came back in time.
    all_back: bool,
    /// What was proved about the rights, with `--op share`.
    rights: Option<RightsProof>,
}

async fn run(options: Options) -> Result<u8> {
    let mut signals = interrupt::listen().context("cannot listen to Ctrl-C")?;
    let mut prepared = tokio::select! {
        prepared = prepare(options) => prepared?,
        came = interrupt::came(&mut signals) => return Ok(came.exit_code()),
    };
    let mut settings = ClientSettings::new(prepared.nodes.clone(), prepared.options.seed);
    settings.credentials = match &prepared.own {
        Some(own) => ClientCredentials { authorities: Vec::new(), token: Some(own.token().clone()) },
        None => prepared.options.credentials.clone(),
    };
    let cluster = Cluster::new(settings.clone()).context("cannot set up the client")?;
    // A node that is away must not keep the others from being seen.
    let looking = ClientSettings { query_timeout: Duration::from_millis(300), ..settings };
    let observer = Arc::new(Observer::new(Cluster::new(looking).context("cannot set up the client")?));
    tokio::select! {
        ready = until_ready(&mut prepared, &observer) => ready?,
        came = interrupt::came(&mut signals) => return Ok(came.exit_code()),
    }
    let share = tokio::select! {
        share = begin_share(&prepared, &cluster) => share?,
        came = interrupt::came(&mut signals) => return Ok(came.exit_code()),
    };
    let loaded = load(&mut prepared, &cluster, &observer, share, signals.clone()).await?;
    let report = report(&prepared, &observer, loaded)?;
    prepared.progress.end();
    let on_terminal = std::io::stdout().is_terminal();
    let colour = if on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) {
        Colour::On
    } else {
        Colour::Off
    };
    print(&text::body(&report.report, colour));
    let code = exit_code(&prepared.options, &report);
    if report.cut_short_by.is_some() {
        return Ok(code);
    }
    let arguments = &prepared.options.arguments;
    if arguments.keep_running || (on_terminal && !arguments.exit) {
        let lines = prepared.own.as_ref().map(OwnCluster::lines);
        let may_fail = prepared.own.is_some() || arguments.failures.is_some_and(|mode| mode != FailureMode::None);
        let drives = may_fail && prepared.options.failures != FailureMode::Random;
        let failures = if drives { afterwards::Failures::ByTheDemo } else { afterwards::Failures::NotByTheDemo };
        let going_on = afterwards::keep_running(&cluster, lines, &observer, prepared.options.seed, failures);
        tokio::select! {
            () = going_on => {}
            _ = interrupt::came(&mut signals) => print("\nstopping\n"),
        }
    }
    Ok(code)
}

/// Standard output, flushed; one that is closed does not matter to the run.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

async fn prepare(options: Options) -> Result<Prepared> {
    let arguments = &options.arguments;
    let run_id = run_directory::run_id(unix_millis(), std::process::id());
    let host = host();
    let echo = if std::env::var_os("RUST_LOG").is_some() { Echo::On } else { Echo::Off };
    let bar = if arguments.no_progress || echo == Echo::On { Bar::Hidden } else { Bar::Shown };
    let progress = Progress::new(u64::from(arguments.clients) * u64::from(arguments.requests), bar);

    let (images, seed) = (arguments.images.clone(), options.seed);
    let needs_room =
        if matches!(arguments.op, WorkMix::Seal | WorkMix::Share) { 0 } else { pictures::LABEL_ROOM_BYTES };
    let mut notes = Vec::new();
    // In a thread of its own: the eight pictures take a second of work.
    let making = tokio::task::spawn_blocking(move || match images {
        Some(directory) => pictures::load(&directory, needs_room).map(|own| (own.pictures, own.skipped)),
        None => pictures::make(seed).map(|made| (made, Vec::new())),
    });
    let (pictures, skipped) =
        making.await.context("the pictures were not made")?.map_err(|error| Refusal::Usage(error.to_string()))?;
    if !skipped.is_empty() {
        let names = skipped.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
        notes.push(format!(
            "{} files in --images are no PNG, JPEG or WebP, or cannot hold a label, and were skipped: {names}",
            skipped.len()
        ));
        progress.say(&notes[0]);
    }
    let directory = run_directory::create(arguments.out.as_deref(), &run_id)?;
    let (own, nodes, workers) = match &options.target {
        Target::Own { nodes } => {
            let workers = (host.cores / usize::from(*nodes)).max(1);
            let random = options.failures == FailureMode::Random;
            let plan = ClusterPlan {
                nodes: *nodes,
                workers: workers as u32,
                failures: FailureNumbers { random, ..FailureNumbers::default() },
                seed,
                run_id: run_id.clone(),
                logs: directory.clone(),
                echo,
            };
            let own = OwnCluster::start(&plan).map_err(|error| Refusal::Unavailable(error.to_string()))?;
            let address = |(node, address)| NodeAddress { node: Some(node), url: format!("http://{address}") };
            let nodes = own.addresses().into_iter().map(address).collect();
            (Some(own), nodes, Some(workers))
        }
        Target::Attached { addresses } => {
            let nodes = addresses.iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
            (None, nodes, None)
        }
    };
    let prepared = Prepared { run_id, directory, host, workers, pictures, notes, own, nodes, progress, options };
    print(&text::header(&Tool::this(), &prepared.host, &description(&prepared, 0, false)));
    Ok(prepared)
}

fn description(prepared: &Prepared, started_unix_ms: u64, partial: bool) -> Run {
    let options = &prepared.options;
    let arguments = &options.arguments;
    Run {
        id: prepared.run_id.clone(),
        started_unix_ms,
        seed: options.seed,
        model: if arguments.rate.is_some() { "open" } else { "closed" },
        rate: arguments.rate,
        clients: arguments.clients,
        requests_each: arguments.requests,
        operation: name_of(&arguments.op),
        failures: name_of(&options.failures),
        verify: arguments.verify.to_string(),
        nodes: prepared.nodes.len(),
        workers_per_node: prepared.workers,
        attached: if prepared.own.is_some() { Vec::new() } else { arguments.attach.clone() },
        partial,
    }
}

fn name_of(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Waits until every node is Active and one is confirmed as coordinator; of an attached cluster, until one node is Active.
async fn until_ready(prepared: &mut Prepared, observer: &Observer) -> Result<()> {
    let began = unix_millis();
    let deadline = now() + PATIENCE;
    prepared
        .progress
        .say(&format!("waiting for {} and their election", text::plural(prepared.nodes.len() as u64, "node")));
    loop {
        for event in observer.look().await {
            // Of an attached cluster's past nothing is told.
            if event.at_unix_ms >= began
                && let Some(text) = narrate(&event, began)
            {
                prepared.progress.say(&text);
            }
        }
        let snapshot = observer.snapshot();
        let is_ready = match &mut prepared.own {
            Some(own) => {
                own.check().map_err(|error| Refusal::Unavailable(error.to_string()))?;
                snapshot.is_settled(prepared.nodes.len())
            }
            None => snapshot.is_settled(1),
        };
        if is_ready {
            return Ok(());
        }
        if now() >= deadline {
            let seen = if snapshot.nodes.is_empty() { "no node answers".to_owned() } else { snapshot.line() };
            let hint = match &prepared.own {
                Some(_) => format!("the nodes' logs are in {}", prepared.directory.display()),
                None => "start them with ./run_nodes.sh, or leave --attach away".to_owned(),
            };
            return Err(Refusal::Unavailable(format!(
                "the cluster is not ready after {} s: {seen}; {hint}",
                PATIENCE.as_secs()
            ))
            .into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Service for Cluster {
    async fn run(&self, job: Job) -> Result<Answer, Refused> {
        Cluster::run(self, job).await.map_err(Refused::from)
    }
}

impl From<RequestFailed> for Refused {
    fn from(failed: RequestFailed) -> Refused {
        Refused { reason: failed.last.code(), detail: failed.to_string(), attempts: failed.attempts }
    }
}

/// With `--op share` every client is a user, registered before the load begins.
async fn begin_share(prepared: &Prepared, cluster: &Cluster) -> Result<Option<Arc<Share>>> {
    let Arguments { op, clients, requests, .. } = prepared.options.arguments;
    if op != WorkMix::Share {
        return Ok(None);
    }
    let plan = SharePlan { seed: prepared.options.seed, clients, requests_each: requests };
    let share = Share::begin(plan, cluster.clone(), prepared.pictures.clone(), &prepared.run_id).await?;
    let (images, owners) = (u64::from(plan.images()), u64::from(plan.owners()));
    prepared.progress.say(&format!(
        "{} registered; {} of them seal {}",
        text::plural(clients.into(), "user"),
        owners,
        text::plural(images, "image")
    ));
    Ok(Some(Arc::new(share)))
}

async fn load(
    prepared: &mut Prepared,
    cluster: &Cluster,
    observer: &Arc<Observer>,
    share: Option<Arc<Share>>,
    mut signals: Signals,
) -> Result<Loaded> {
    let options = &prepared.options;
    let plan = Plan {
        seed: options.seed,
        run_id: prepared.run_id.clone(),
        clients: options.arguments.clients,
        requests_each: options.arguments.requests,
        mix: options.arguments.op,
        pictures: prepared.pictures.len(),
    };
    let total = plan.total();
    let cluster_key = match &prepared.own {
        Some(own) => Some(own.key().clone()),
        None => options.cluster_key.clone(),
    };
    let checker =
        ImageChecker { cluster_key: cluster_key.map(|key| ClusterKey::new(key.0)), limits: Limits::default() };
    let (queue, workers) = verify::start(Arc::new(checker), checking_workers(&prepared.host))?;
    let (records, received) = mpsc::channel(1024);
    let collecting = tokio::spawn(collect(received));
    let (stopper, stop) = watch::channel(false);
    let counters = Arc::new(Counters::default());

    observer.look().await;
    observer.begin_load();
    let own_usage = OwnUsage::start();
    let (start, start_unix_ms) = (now(), unix_millis());
    let shared = Arc::new(Load {
        service: Arc::new(cluster.clone()),
        plan,
        pictures: prepared.pictures.clone(),
        model: options.arguments.rate.map_or(Model::Closed, |rate| Model::Open { rate }),
        verify: options.arguments.verify,
        queue,
        counters: counters.clone(),
        stop,
        records,
        start,
        share: share.clone(),
    });
    let clients: Vec<_> =
        (0..options.arguments.clients).map(|number| Client::new(number, shared.clone()).start()).collect();
    drop(shared);

    let lines = prepared.own.as_ref().map(OwnCluster::lines);
    let ending = if lines.is_some() { Ending::OnCommand } else { Ending::Estimated };
    let scenario = (options.failures == FailureMode::Scenario).then(|| Scenario::new(Settings { total, ending }));
    let mut driver = Driver {
        cluster: cluster.clone(),
        lines,
        observer: observer.clone(),
        counters: counters.clone(),
        progress: prepared.progress.clone(),
        scenario,
        start,
        troubles: Vec::new(),
        commanded: 0,
    };
    let watching = tokio::spawn(watch_nodes(observer.clone(), prepared.progress.clone(), start_unix_ms));
    let mut sending = Box::pin(futures::future::join_all(clients.iter().map(|client| client.send(SendAll))));
    let mut cut_short_by = None;
    tokio::select! {
        _ = &mut sending => {}
        () = driver.drive() => {}
        came = interrupt::came(&mut signals) => {
            prepared.progress.say("interrupted: waiting a second for what is under way (again: stop at once)");
            cut_short_by = Some(came);
            // The clients hold the other end, so somebody hears it.
            let _ = stopper.send(true);
            sending.await;
        }
    }
    drop(clients);
    let records = collecting.await.context("the records are lost")?;
    let demo_process = own_usage.usage();
    let all_back = tokio::select! {
        all_back = until_all_are_back(&mut driver, observer, options.failures, total) => all_back,
        came = interrupt::came(&mut signals) => {
            cut_short_by = Some(came);
            false
        }
    };
    let rights = match share {
        Some(share) if cut_short_by.is_none() => tokio::select! {
            rights = share.prove() => Some(rights),
            came = interrupt::came(&mut signals) => {
                cut_short_by = Some(came);
                None
            }
        },
        _ => None,
    };
    watching.abort();
    let findings = tokio::task::spawn_blocking(|| workers.finish()).await.context("the checks are lost")?;
    let mut notes = notes_of(&driver, prepared, total);
    if !all_back && cut_short_by.is_none() {
        notes.push(format!("not every node was Active again within {} s after the load", PATIENCE.as_secs()));
    }
    let clients_waited = Duration::from_micros(counters.waited_for_checks_micros.load(Ordering::Relaxed));
    Ok(Loaded { records, findings, clients_waited, start_unix_ms, demo_process, cut_short_by, notes, all_back, rights })
}

/// The nodes need the processors more than the checks do.
fn checking_workers(host: &Host) -> usize {
    (host.cores / 2).max(1)
}

async fn collect(mut received: mpsc::Receiver<Record>) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(record) = received.recv().await {
        records.push(record);
    }
    records
}

/// The last recovery belongs to the run.
async fn until_all_are_back(driver: &mut Driver, observer: &Observer, failures: FailureMode, total: u64) -> bool {
    if failures == FailureMode::None {
        observer.look().await;
        return true;
    }
    let deadline = now() + PATIENCE;
    loop {
        let snapshot = observer.snapshot();
        driver.step(total, &snapshot).await;
        if !driver.is_failing() && snapshot.is_settled(snapshot.nodes.len()) {
            // Once more, so that the last events are there.
            tokio::time::sleep(LOOK_EVERY).await;
            return true;
        }
        if now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn notes_of(driver: &Driver, prepared: &mut Prepared, total: u64) -> Vec<String> {
    let mut notes = std::mem::take(&mut prepared.notes);
    match &mut prepared.own {
        Some(own) => {
            let cores = prepared.host.cores;
            notes.push(format!(
                "the demo, its checks and its nodes share {cores} cores: each takes time from the others"
            ));
            notes.extend(own.check().err().map(|error| error.to_string()));
        }
        None => notes.push("times of events are by the clocks of the attached nodes".to_owned()),
    }
    let expected = if prepared.nodes.len() > 1 { 2 } else { 1 };
    if driver.scenario.is_some() && driver.commanded < expected {
        notes.push(format!(
            "{} of the scenario's {expected} failures took place: the {total} requests were done before every node was \
             Active again and a coordinator known; more requests leave room for it",
            driver.commanded
        ));
    }
    if prepared.options.arguments.op == WorkMix::Share {
        if prepared.options.arguments.rate.is_none() {
            notes.push(format!(
                "every client is a user who keeps {} requests under way, as if asking from several devices at once",
                share::LANES
            ));
        }
        notes.push("asked_again: a node sent a reader on to the coordinator, or did not answer".to_owned());
        if prepared.own.is_none() {
            notes.push(format!("the users demo-{}-N stay registered at the attached cluster", prepared.run_id));
        }
    }
    notes.extend(driver.troubles.iter().cloned());
    notes
}

/// A report with what the exit code needs besides.
struct Reported {
    report: Report,
    cut_short_by: Option<Interrupt>,
    all_back: bool,
}

fn report(prepared: &Prepared, observer: &Observer, mut loaded: Loaded) -> Result<Reported> {
    loaded.records.sort_by_key(|record| record.index);
    for (index, why) in &loaded.findings.wrong {
        if let Ok(position) = loaded.records.binary_search_by_key(index, |record| record.index)
            && let Outcome::Answered { node, .. } = loaded.records[position].outcome
        {
            loaded.records[position].outcome = Outcome::Wrong { node, why: why.clone() };
        }
    }
    let statistics = Statistics::of(&loaded.records);
    // An attached cluster has a past that is not this run's; an own one has its first election before the load.
    let since = if prepared.own.is_some() { 0 } else { loaded.start_unix_ms };
    let events: Vec<_> = observer.events().into_iter().filter(|event| event.at_unix_ms >= since).collect();
    let arguments = &prepared.options.arguments;
    let file = |name: &str| prepared.directory.join(name).display().to_string();
    let around = Surroundings {
        host: prepared.host.clone(),
        run: description(prepared, loaded.start_unix_ms, loaded.cut_short_by.is_some()),
        planned: u64::from(arguments.clients) * u64::from(arguments.requests),
        pictures: prepared.pictures.iter().map(picture_row).collect(),
        verification: Verification {
            checked: loaded.findings.checked,
            wrong: loaded.findings.wrong.len() as u64,
            work_s: loaded.findings.work.as_secs_f64(),
            clients_waited_s: loaded.clients_waited.as_secs_f64(),
            workers: checking_workers(&prepared.host),
        },
        thresholds: arguments.threshold.clone(),
        elections: outages::elections(&events, loaded.start_unix_ms),
        failures: outages::failures(&events, &loaded.records, loaded.start_unix_ms),
        nodes: observer.rows(),
        demo_process: loaded.demo_process,
        rights: loaded.rights,
        notes: loaded.notes,
        files: run_directory::FILES.iter().map(|name| file(name)).collect(),
    };
    let report = Report::of(&statistics, around);
    run_directory::write(&prepared.directory, &report, &statistics, &loaded.records, &events)?;
    Ok(Reported { report, cut_short_by: loaded.cut_short_by, all_back: loaded.all_back })
}

fn picture_row(picture: &Picture) -> PictureRow {
    PictureRow {
        name: picture.name.clone(),
        format: picture.format,
        width: picture.size.0,
        height: picture.size.1,
        bytes: picture.bytes.len() as u64,
        answers: 0,
        mean_answer_bytes: None,
    }
}

fn exit_code(options: &Options, reported: &Reported) -> u8 {
    let report = &reported.report;
    if let Some(came) = reported.cut_short_by {
        return came.exit_code();
    }
    if !report.keeps_thresholds() {
        return THRESHOLD_MISSED;
    }
    // Whoever names a success rate says how many failures are fine; a wrong answer never is.
    let tolerates_failures = options
        .arguments
        .threshold
        .iter()
        .any(|threshold| threshold.metric == crate::demo::threshold::Metric::SuccessRate);
    let is_complete = report.totals.failed == 0 || tolerates_failures;
    let rights_hold = report.rights.as_ref().is_none_or(RightsProof::hold);
    u8::from(!(rights_hold && is_complete && report.totals.wrong == 0 && reported.all_back))
}
