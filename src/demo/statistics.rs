//! From records to figures: **pure**. Latencies are kept in hdrhistogram in microseconds with three significant digits.
//!
//! A percentile is the value at the nearest rank ⌈p·n⌉ (so the P95 of 100 samples is the 95th), at the upper edge of its
//! bucket, which is less than 0.1 % above the true value; minimum, mean and maximum are exact. Percentiles are never averaged:
//! samples are merged, then asked.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::client::PlacedBy;
use crate::demo::record::{Outcome, Record};
use crate::id::NodeId;

/// The largest latency that a histogram keeps apart; what is longer counts as this (and is still the exact maximum).
const LONGEST_MICROS: u64 = 3_600_000_000;

/// Latencies and what can be asked of them.
#[derive(Clone, Debug)]
pub struct Distribution {
    histogram: Histogram<u64>,
    sum_micros: u128,
    min_micros: u64,
    max_micros: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_MICROS, 3)
            .expect("1 µs to 1 h at three digits are bounds that the library takes");
        Distribution { histogram, sum_micros: 0, min_micros: u64::MAX, max_micros: 0 }
    }
}

impl Distribution {
    /// Adds a sample.
    pub fn record(&mut self, latency: Duration) {
        let micros = latency.as_micros() as u64;
        self.histogram.saturating_record(micros);
        self.sum_micros += u128::from(micros);
        self.min_micros = self.min_micros.min(micros);
        self.max_micros = self.max_micros.max(micros);
    }

    /// Number of samples.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The histogram itself, for the files.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// The value in microseconds below or at which `per_100_000` of 100,000 samples lie; none without samples.
    pub fn percentile_micros(&self, per_100_000: u64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (u128::from(count) * u128::from(per_100_000)).div_ceil(100_000).max(1);
        // Asked at the middle of the rank, so that rounding cannot slip to the next one.
        let quantile = (rank as f64 - 0.5) / count as f64;
        Some(self.histogram.value_at_quantile(quantile).clamp(self.min_micros, self.max_micros))
    }

    /// The usual figures; none without samples.
    pub fn summary(&self) -> Option<LatencyMs> {
        let count = self.count();
        let percentile = |per_100_000| self.percentile_micros(per_100_000).map(millis);
        Some(LatencyMs {
            min: millis(self.min_micros),
            mean: if count == 0 { return None } else { self.sum_micros as f64 / count as f64 / 1000.0 },
            p50: percentile(50_000)?,
            p90: percentile(90_000)?,
            p95: percentile(95_000)?,
            p99: percentile(99_000)?,
            p999: percentile(99_900)?,
            max: millis(self.max_micros),
        })
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// The block of figures that programs may rely on; its names and meanings do not change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Right answers / all requests of the run, from 0 to 1.
    pub success_rate: f64,
    /// Right answers per second, from the first send to the last result.
    pub requests_per_sec: f64,
    /// Latency of the right answers; none if there is no right answer.
    pub latency_ms: Option<LatencyMs>,
}

/// Latencies in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "each is the statistic of its name")]
pub struct LatencyMs {
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// Latencies with the number of samples that they rest on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latencies {
    /// Samples.
    pub count: u64,
    /// Figures; none without samples.
    pub latency_ms: Option<LatencyMs>,
}

impl From<&Distribution> for Latencies {
    fn from(distribution: &Distribution) -> Self {
        Latencies { count: distribution.count(), latency_ms: distribution.summary() }
    }
}

/// Placements: who chose the node of each attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Decisions {
    /// All.
    pub total: u64,
    /// The coordinator placed it.
    pub by_coordinator: u64,
    /// The client took the lowest load itself, because no coordinator answered in time.
    pub by_clients: u64,
}

/// One second of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Second {
    /// Seconds since the load began, at the start of this one.
    pub t: u64,
    /// Right answers.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Right answers by node.
    pub by_node: BTreeMap<NodeId, u64>,
    /// Median latency in milliseconds of what was answered in this second.
    pub p50: Option<f64>,
    /// 99th percentile in milliseconds.
    pub p99: Option<f64>,
    /// Longest in milliseconds.
    pub max: Option<f64>,
}

/// Everything that is counted from the records.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Requests with a record.
    pub requests: u64,
    /// Right answers.
    pub successful: u64,
    /// Answers that were found wrong.
    pub wrong: u64,
    /// Requests that were never sent.
    pub not_sent: u64,
    /// From the first (intended) send to the last result.
    pub duration: Duration,
    /// Latency of the right answers, from the intended send.
    pub all: Distribution,
    /// The same without the wait for a free place: equal to `all` in the closed model.
    pub service: Distribution,
    /// Time until the failures of the requests that failed.
    pub failed: Distribution,
    /// Right answers by operation.
    pub by_operation: BTreeMap<&'static str, Distribution>,
    /// Right answers by node.
    pub by_node: BTreeMap<NodeId, Distribution>,
    /// Failed requests by reason.
    pub failures: BTreeMap<String, u64>,
    /// Details of the first failures, for people.
    pub failure_examples: Vec<String>,
    /// Placements.
    pub decisions: Decisions,
    /// Attempts of all requests.
    pub attempts: u64,
    /// Failed attempts by reason.
    pub retries: BTreeMap<String, u64>,
    /// Bytes of the pictures in the answered requests.
    pub bytes_in: u64,
    /// Bytes of the right answers.
    pub bytes_out: u64,
    /// By picture: right answers and the bytes of them.
    pub by_picture: BTreeMap<usize, (u64, u64)>,
    /// Second by second.
    pub seconds: Vec<Second>,
}

impl Statistics {
    /// How many failures are kept in words.
    const EXAMPLES: usize = 5;

    /// Counts the records.
    pub fn of(records: &[Record]) -> Statistics {
        let mut counted = Statistics::default();
        for record in records {
            counted.add(record);
        }
        let first = records.iter().map(|record| record.intended).min().unwrap_or_default();
        let last = records.iter().map(|record| record.finished).max().unwrap_or_default();
        counted.duration = last.saturating_sub(first);
        counted.seconds = seconds(records);
        counted
    }

    fn add(&mut self, record: &Record) {
        self.requests += 1;
        for attempt in &record.attempts {
            self.attempts += 1;
            if attempt.node.is_some() && record.kind.is_job() {
                self.decisions.total += 1;
                match attempt.placed_by {
                    PlacedBy::Coordinator => self.decisions.by_coordinator += 1,
                    PlacedBy::Client => self.decisions.by_clients += 1,
                }
            }
            if let Some(reason) = &attempt.failure {
                *self.retries.entry(reason.clone()).or_default() += 1;
            }
        }
        if let Some(reason) = record.failure() {
            *self.failures.entry(reason.to_owned()).or_default() += 1;
            self.failed.record(record.latency());
            if self.failure_examples.len() < Self::EXAMPLES
                && let Some(example) = example(record)
            {
                self.failure_examples.push(example);
            }
        }
        match &record.outcome {
            Outcome::Answered { node, bytes_out, .. } => {
                self.successful += 1;
                self.all.record(record.latency());
                self.service.record(record.service_time());
                self.by_operation.entry(record.kind.name()).or_default().record(record.latency());
                self.by_node.entry(*node).or_default().record(record.latency());
                self.bytes_in += record.bytes_in;
                self.bytes_out += bytes_out;
                if record.kind.is_job() {
                    let picture = self.by_picture.entry(record.picture).or_default();
                    *picture = (picture.0 + 1, picture.1 + bytes_out);
                }
            }
            Outcome::Wrong { .. } => self.wrong += 1,
            Outcome::NotSent => self.not_sent += 1,
            Outcome::Failed { .. } => {}
        }
    }

    /// The stable block.
    pub fn metrics(&self) -> Metrics {
        let seconds = self.duration.as_secs_f64();
        Metrics {
            success_rate: if self.requests == 0 { 0.0 } else { self.successful as f64 / self.requests as f64 },
            requests_per_sec: if seconds > 0.0 { self.successful as f64 / seconds } else { 0.0 },
            latency_ms: self.all.summary(),
        }
    }

    /// How evenly the nodes shared the answers, by Jain's index: 1 when each answered as many, 1/n when one did all.
    pub fn balance(&self, nodes: usize) -> Option<f64> {
        let counts: Vec<f64> = self.by_node.values().map(|latencies| latencies.count() as f64).collect();
        let squares: f64 = counts.iter().map(|count| count * count).sum();
        let sum: f64 = counts.iter().sum();
        (squares > 0.0 && nodes > 0).then(|| sum * sum / (nodes as f64 * squares))
    }
}

fn example(record: &Record) -> Option<String> {
    let number = record.index + 1;
    match &record.outcome {
        Outcome::Wrong { node, why } => Some(format!("request {number}: node {node} answered wrongly: {why}")),
        Outcome::Failed { reason, detail } => Some(format!("request {number}: {reason}: {detail}")),
        Outcome::Answered { .. } | Outcome::NotSent => None,
    }
}

fn seconds(records: &[Record]) -> Vec<Second> {
    let last = records.iter().map(|record| record.finished.as_secs()).max();
    let Some(last) = last else { return Vec::new() };
    let mut seconds: Vec<Second> = (0..=last).map(|t| Second { t, ..Second::default() }).collect();
    let mut latencies: Vec<Vec<u64>> = vec![Vec::new(); seconds.len()];
    for record in records {
        let slot = record.finished.as_secs() as usize;
        match record.answered_by() {
            Some(node) => {
                seconds[slot].completed += 1;
                *seconds[slot].by_node.entry(node).or_default() += 1;
                latencies[slot].push(record.latency().as_micros() as u64);
            }
            None => seconds[slot].failed += 1,
        }
    }
    for (second, mut sorted) in seconds.iter_mut().zip(latencies) {
        sorted.sort_unstable();
        let at = |per_cent: usize| {
            let rank = (sorted.len() * per_cent).div_ceil(100).max(1);
            sorted.get(rank - 1).map(|micros| millis(*micros))
        };
        (second.p50, second.p99, second.max) = (at(50), at(99), at(100));
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::fixture;

    fn percentiles_of(count: u64) -> [u64; 6] {
        let mut distribution = Distribution::default();
        // Recorded in falling order: order must not matter.
        (1..=count).rev().for_each(|micros| distribution.record(Duration::from_micros(micros)));
        [50_000, 90_000, 95_000, 99_000, 99_900, 100_000].map(|share| distribution.percentile_micros(share).unwrap())
    }

    #[test]
    fn percentiles_are_the_nearest_rank_on_1_2_20_and_100_samples() {
        // The n-th sample is n µs, so a percentile is its own rank: p50, p90, p95, p99, p99.9, max.
        assert_eq!(percentiles_of(1), [1, 1, 1, 1, 1, 1]);
        assert_eq!(percentiles_of(2), [1, 2, 2, 2, 2, 2]);
        assert_eq!(percentiles_of(20), [10, 18, 19, 20, 20, 20]);
        assert_eq!(percentiles_of(100), [50, 90, 95, 99, 100, 100]);
    }

    #[test]
    fn without_samples_there_is_no_latency_instead_of_a_zero() {
        assert_eq!(Distribution::default().summary(), None);
        let metrics = Statistics::of(&[]).metrics();
        assert_eq!(metrics, Metrics { success_rate: 0.0, requests_per_sec: 0.0, latency_ms: None });
    }

    #[test]
    fn large_values_are_within_a_thousandth_and_their_maximum_is_exact() {
        let mut distribution = Distribution::default();
        for millis in [100u64, 200, 7_654_321] {
            distribution.record(Duration::from_millis(millis));
        }
        let summary = distribution.summary().unwrap();
        assert!((summary.p50 - 200.0).abs() <= 0.2, "{}", summary.p50);
        assert_eq!((summary.min, summary.max), (100.0, 7_654_321.0));
    }

    #[test]
    fn only_right_answers_count_as_success_and_throughput() {
        let records = [
            fixture::answered(0, 1, 0, 500),
            fixture::answered(1, 2, 0, 1000),
            fixture::failed(2, "timeout", 0, 2000),
            fixture::wrong(3, 1, 0, 700),
        ];
        let counted = Statistics::of(&records);
        let metrics = counted.metrics();
        assert_eq!((metrics.success_rate, metrics.requests_per_sec), (0.5, 1.0));
        assert_eq!(metrics.latency_ms.unwrap().max, 1000.0);
        assert_eq!(counted.failures, [("timeout".to_owned(), 1), ("wrong_answer".to_owned(), 1)].into());
        assert_eq!(counted.failed.count(), 2);
        assert!(counted.failure_examples[1].contains("request 4: node 1 answered wrongly"));
    }

    #[test]
    fn in_the_open_model_latency_counts_from_the_intended_send() {
        let mut record = fixture::answered(0, 1, 900, 1000);
        record.intended = Duration::from_millis(100);
        let counted = Statistics::of(&[record]);
        assert_eq!(counted.all.summary().unwrap().max, 900.0);
        assert_eq!(counted.service.summary().unwrap().max, 100.0);
    }

    #[test]
    fn every_placed_attempt_is_a_decision_and_every_failed_one_a_retry_reason() {
        let mut record = fixture::answered(0, 2, 0, 300);
        record.attempts.insert(0, fixture::attempt(Some(1), PlacedBy::Client, Some("timeout")));
        record.attempts.insert(0, fixture::attempt(None, PlacedBy::Client, Some("no_node")));
        let counted = Statistics::of(&[record]);
        assert_eq!(counted.decisions, Decisions { total: 2, by_coordinator: 1, by_clients: 1 });
        assert_eq!(counted.attempts, 3);
        assert_eq!(counted.retries, [("no_node".to_owned(), 1), ("timeout".to_owned(), 1)].into());
    }

    #[test]
    fn seconds_without_an_answer_are_in_the_series() {
        let records = [fixture::answered(0, 1, 0, 500), fixture::answered(1, 2, 2000, 2400)];
        let seconds = Statistics::of(&records).seconds;
        assert_eq!(
            seconds.iter().map(|second| (second.t, second.completed)).collect::<Vec<_>>(),
            [(0, 1), (1, 0), (2, 1)]
        );
        assert_eq!((seconds[1].p99, seconds[2].p99), (None, Some(400.0)));
    }

    #[test]
    fn the_balance_is_one_when_all_share_alike_and_a_third_when_one_of_three_does_all() {
        let records = [fixture::answered(0, 1, 0, 1), fixture::answered(1, 2, 0, 1), fixture::answered(2, 3, 0, 1)];
        assert_eq!(Statistics::of(&records).balance(3), Some(1.0));
        assert_eq!(Statistics::of(&records[..1]).balance(3), Some(1.0 / 3.0));
    }
}
