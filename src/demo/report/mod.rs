//! The report: one struct, from which every printer writes; **pure**.
//!
//! `report.json` is this struct. `docs/report.schema.json` describes it, and `tests/demo_report.rs` holds both together; the
//! block `metrics` keeps its names and meanings in every later version.

pub mod hdr;
pub mod html;
pub mod json;
mod svg;
pub mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::demo::outages::{Election, Failure};
use crate::demo::share::proof::RightsProof;
use crate::demo::statistics::{Decisions, Latencies, Metrics, Second, Statistics};
use crate::demo::threshold::Threshold;
use crate::id::{Load, NodeId};
use crate::protocol::status::NodeState;

/// Version of the form of `report.json`; raised when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything that a run has to say.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The program.
    pub tool: Tool,
    /// The machine.
    pub host: Host,
    /// What was run.
    pub run: Run,
    /// The stable block.
    pub metrics: Metrics,
    /// Counts of the whole run.
    pub totals: Totals,
    /// Who chose the nodes.
    pub load_balancing: LoadBalancing,
    /// Latencies of right answers by operation.
    pub by_operation: BTreeMap<String, Latencies>,
    /// Latencies of right answers by node.
    pub by_node: BTreeMap<NodeId, Latencies>,
    /// Right answers without the wait for a free place: another figure in the open model only.
    pub service_time: Latencies,
    /// Requests that failed: how long they took to do so.
    pub failed_requests: Latencies,
    /// Failed requests by reason.
    pub errors: BTreeMap<String, u64>,
    /// The first failures in words.
    pub error_examples: Vec<String>,
    /// Attempts and why some of them failed.
    pub attempts: Attempts,
    /// The pictures that were sent.
    pub pictures: Vec<PictureRow>,
    /// What the checks found and cost.
    pub verification: Verification,
    /// What was proved about users' rights; none but with `--op share`.
    pub rights: Option<RightsProof>,
    /// Limits that the run had to keep.
    pub thresholds: Vec<ThresholdRow>,
    /// Each election, oldest first.
    pub elections: Vec<Election>,
    /// Each failure with its window, its requests and its recovery.
    pub failures: Vec<Failure>,
    /// Each node.
    pub nodes: Vec<NodeRow>,
    /// The demo itself, which shares the machine with its nodes.
    pub demo_process: Usage,
    /// Second by second.
    pub timeline: Vec<Second>,
    /// What the reader should know.
    pub notes: Vec<String>,
    /// Files of the run directory.
    pub files: Vec<String>,
}

/// The program.
#[derive(Clone, Debug, Serialize)]
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// `release build` or `debug build`.
    pub profile: &'static str,
}

impl Tool {
    /// This program.
    pub const fn this() -> Tool {
        let profile = if cfg!(debug_assertions) { "debug build" } else { "release build" };
        Tool { name: "image-cloud demo", version: env!("CARGO_PKG_VERSION"), profile }
    }
}

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// Cores that the process may use.
    pub cores: usize,
    /// Main memory in bytes.
    pub memory_bytes: u64,
    /// Operating system.
    pub os: &'static str,
}

/// What was run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Name of the run, also in its request ids.
    pub id: String,
    /// When the load began, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// The seed.
    pub seed: u64,
    /// `closed`: a client sends when its last answer is there; `open`: by the clock.
    pub model: &'static str,
    /// Requests a second, in the open model.
    pub rate: Option<f64>,
    /// Client actors.
    pub clients: u32,
    /// Requests of each.
    pub requests_each: u32,
    /// `seal`, `label`, `mix` or `share`.
    pub operation: String,
    /// `none`, `scenario` or `random`.
    pub failures: String,
    /// `all`, `none` or a number.
    pub verify: String,
    /// Number of nodes.
    pub nodes: usize,
    /// Image workers of each node of an own cluster.
    pub workers_per_node: Option<usize>,
    /// Addresses of an attached cluster.
    pub attached: Vec<String>,
    /// Whether the run was interrupted.
    pub partial: bool,
}

/// Counts of the whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Totals {
    /// From the first send to the last result.
    pub duration_s: f64,
    /// Requests with a result, and those that were due and not sent.
    pub requests: u64,
    /// Requests that were planned; more than `requests` in a partial run only.
    pub planned: u64,
    /// Right answers.
    pub successful: u64,
    /// All others.
    pub failed: u64,
    /// Answers found wrong (among `failed`).
    pub wrong: u64,
    /// Requests of the open model that never got a place (among `failed`).
    pub not_sent: u64,
    /// Bytes of pictures in answered requests.
    pub bytes_in: u64,
    /// Bytes of right answers.
    pub bytes_out: u64,
}

/// Who chose the nodes.
#[derive(Clone, Debug, Serialize)]
pub struct LoadBalancing {
    /// Counts.
    #[serde(flatten)]
    pub decisions: Decisions,
    /// Jain's index of the answers by node: 1 when all did as many, 1/n when one did all.
    pub jain_index: Option<f64>,
}

/// Attempts and why some of them failed.
#[derive(Clone, Debug, Serialize)]
pub struct Attempts {
    /// All attempts of all requests.
    pub total: u64,
    /// Attempts beyond the first of each request.
    pub retries: u64,
    /// Failed attempts by reason.
    pub failed_by_reason: BTreeMap<String, u64>,
}

/// One of the pictures.
#[derive(Clone, Debug, Serialize)]
pub struct PictureRow {
    /// File name.
    pub name: String,
    /// Format.
    pub format: &'static str,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Size of the file.
    pub bytes: u64,
    /// Right answers.
    pub answers: u64,
    /// Mean size of an answer.
    pub mean_answer_bytes: Option<u64>,
}

/// What the checks found and cost.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verification {
    /// Answers that were checked.
    pub checked: u64,
    /// Answers that were wrong.
    pub wrong: u64,
    /// Time that the workers spent on it, in seconds.
    pub work_s: f64,
    /// Time that clients waited because the workers were behind, in seconds, all clients together. It is in no latency.
    pub clients_waited_s: f64,
    /// Checking workers.
    pub workers: usize,
}

/// A limit and whether it was kept.
#[derive(Clone, Debug, Serialize)]
pub struct ThresholdRow {
    /// As given.
    pub expression: String,
    /// What the run reached; none where nothing was measured.
    pub value: Option<f64>,
    /// Kept.
    pub ok: bool,
}

impl ThresholdRow {
    /// Holds the run against its limits.
    pub fn all(thresholds: &[Threshold], metrics: &Metrics) -> Vec<ThresholdRow> {
        let row = |threshold: &Threshold| ThresholdRow {
            expression: threshold.expression.clone(),
            value: threshold.value(metrics),
            ok: threshold.is_kept(metrics),
        };
        thresholds.iter().map(row).collect()
    }
}

/// Processor time and memory of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Processor time during the load, in milliseconds.
    pub cpu_ms: u64,
    /// Share of one core during the load: 1.5 is one core and a half.
    pub cpu_cores: f64,
    /// Largest resident memory that was seen, in bytes.
    pub memory_max_bytes: u64,
}

/// One node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeRow {
    /// The node.
    pub node: NodeId,
    /// Its HTTP address.
    pub address: String,
    /// Its state at the end; none if it did not answer.
    pub state: Option<NodeState>,
    /// Whether it coordinates at the end.
    pub is_coordinator: bool,
    /// Right answers that came from it.
    pub answers: u64,
    /// Jobs that it did during the run, as it counts them; more than `answers` where an answer was lost.
    pub jobs_done: u64,
    /// Jobs that it refused as Busy.
    pub jobs_refused: u64,
    /// Answers from its cache of repeated request ids.
    pub repeats_answered: u64,
    /// Placements that it made as coordinator.
    pub placements: u64,
    /// Mean load that was seen.
    pub load_mean: f64,
    /// Largest load that was seen.
    pub load_max: Load,
    /// Processor time and memory.
    pub usage: Usage,
}

/// What the statistics do not know, and the report needs.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The machine.
    pub host: Host,
    /// What was run.
    pub run: Run,
    /// Planned requests.
    pub planned: u64,
    /// The pictures, without their counts.
    pub pictures: Vec<PictureRow>,
    /// The checks.
    pub verification: Verification,
    /// The limits.
    pub thresholds: Vec<Threshold>,
    /// Elections.
    pub elections: Vec<Election>,
    /// Failures.
    pub failures: Vec<Failure>,
    /// The nodes, without their answers.
    pub nodes: Vec<NodeRow>,
    /// The demo itself.
    pub demo_process: Usage,
    /// What was proved about users' rights.
    pub rights: Option<RightsProof>,
    /// What the reader should know.
    pub notes: Vec<String>,
    /// Files of the run directory.
    pub files: Vec<String>,
}

impl Report {
    /// Puts the report together.
    pub fn of(statistics: &Statistics, mut around: Surroundings) -> Report {
        for (number, picture) in around.pictures.iter_mut().enumerate() {
            let (answers, bytes) = statistics.by_picture.get(&number).copied().unwrap_or_default();
            picture.answers = answers;
            picture.mean_answer_bytes = bytes.checked_div(answers);
        }
        for row in &mut around.nodes {
            row.answers = statistics.by_node.get(&row.node).map_or(0, |latencies| latencies.count());
        }
        let metrics = statistics.metrics();
        let by_operation = statistics.by_operation.iter();
        let sent = statistics.requests - statistics.not_sent;
        Report {
            schema_version: SCHEMA_VERSION,
            tool: Tool::this(),
            host: around.host,
            totals: Totals {
                duration_s: statistics.duration.as_secs_f64(),
                requests: statistics.requests,
                planned: around.planned,
                successful: statistics.successful,
                failed: statistics.requests - statistics.successful,
                wrong: statistics.wrong,
                not_sent: statistics.not_sent,
                bytes_in: statistics.bytes_in,
                bytes_out: statistics.bytes_out,
            },
            load_balancing: LoadBalancing {
                decisions: statistics.decisions.clone(),
                jain_index: statistics.balance(around.nodes.len()),
            },
            by_operation: by_operation.map(|(name, latencies)| ((*name).to_owned(), latencies.into())).collect(),
            by_node: statistics.by_node.iter().map(|(node, latencies)| (*node, latencies.into())).collect(),
            service_time: (&statistics.service).into(),
            failed_requests: (&statistics.failed).into(),
            errors: statistics.failures.clone(),
            error_examples: statistics.failure_examples.clone(),
            attempts: Attempts {
                total: statistics.attempts,
                retries: statistics.attempts.saturating_sub(sent),
                failed_by_reason: statistics.retries.clone(),
            },
            pictures: around.pictures,
            verification: around.verification,
            rights: around.rights,
            thresholds: ThresholdRow::all(&around.thresholds, &metrics),
            elections: around.elections,
            failures: around.failures,
            nodes: around.nodes,
            demo_process: around.demo_process,
            timeline: statistics.seconds.clone(),
            notes: around.notes,
            files: around.files,
            run: around.run,
            metrics,
        }
    }

    /// Latencies of all right answers with their count.
    pub fn all_latencies(&self) -> Latencies {
        Latencies { count: self.totals.successful, latency_ms: self.metrics.latency_ms.clone() }
    }

    /// Whether every threshold was kept.
    pub fn keeps_thresholds(&self) -> bool {
        self.thresholds.iter().all(|threshold| threshold.ok)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::demo::{fixture, outages};

    /// A report from fixed input: two elections, a failure, three nodes, two pictures.
    pub fn fixed() -> Report {
        let mut records: Vec<_> = (0..60)
            .map(|turn| fixture::answered(turn, 1 + (turn % 3) as u16, turn * 100, turn * 100 + 40 + turn % 7))
            .collect();
        records[25]
            .attempts
            .insert(0, fixture::attempt(Some(1), crate::client::PlacedBy::Coordinator, Some("timeout")));
        records.push(fixture::failed(60, "timeout", 2000, 4500));
        let events = fixture::events();
        let statistics = Statistics::of(&records);
        let node = |id: u16| NodeRow {
            node: NodeId(id),
            address: format!("127.0.0.1:800{id}"),
            state: Some(NodeState::Active),
            is_coordinator: id == 2,
            answers: 0,
            jobs_done: 20,
            jobs_refused: 0,
            repeats_answered: 0,
            placements: if id == 2 { 30 } else { 0 },
            load_mean: 0.5,
            load_max: Load::from_hundredths(125),
            usage: Usage { cpu_ms: 3000, cpu_cores: 0.5, memory_max_bytes: 88 << 20 },
        };
        let picture = |name: &str, format: &'static str| PictureRow {
            name: name.to_owned(),
            format,
            width: 640,
            height: 480,
            bytes: 100_000,
            answers: 0,
            mean_answer_bytes: None,
        };
        let around = Surroundings {
            host: Host { cores: 2, memory_bytes: 8 << 30, os: "linux" },
            run: Run {
                id: "20261121-031446-7f3a".to_owned(),
                started_unix_ms: fixture::START_UNIX_MS,
                seed: 42,
                model: "closed",
                rate: None,
                clients: 50,
                requests_each: 2,
                operation: "seal".to_owned(),
                failures: "scenario".to_owned(),
                verify: "all".to_owned(),
                nodes: 3,
                workers_per_node: Some(1),
                attached: vec![],
                partial: false,
            },
            planned: 61,
            pictures: vec![picture("demo-1.jpg", "jpeg"), picture("demo-2.png", "png")],
            verification: Verification { checked: 60, wrong: 0, work_s: 0.31, clients_waited_s: 0.0, workers: 1 },
            thresholds: vec!["p95<250ms".parse().unwrap(), "success_rate>=1".parse().unwrap()],
            elections: outages::elections(&events, fixture::START_UNIX_MS),
            failures: outages::failures(&events, &records, fixture::START_UNIX_MS),
            nodes: (1..=3).map(node).collect(),
            demo_process: Usage { cpu_ms: 900, cpu_cores: 0.15, memory_max_bytes: 60 << 20 },
            rights: None,
            notes: vec!["the demo and its nodes share the machine".to_owned()],
            files: vec!["runs/x/report.json".to_owned()],
        };
        let mut report = Report::of(&statistics, around);
        report.tool = Tool { name: "image-cloud demo", version: "0.1.0", profile: "debug build" };
        report
    }
}
