//! Histograms with a bucket for each power of two.
//!
//! The Raft library counts the sizes of its batches in histograms of the published crate of this name, whose first use computes the
//! tables of every precision it offers: 26 MiB in each node, a third of its memory, for figures that Image Cloud does not show.
//! `[patch.crates-io]` in the workspace's Cargo.toml puts this crate in its place. It has what the library calls, counts truly, and is
//! coarser: a value is told to within a factor of two. It goes when a release of the library does without the tables.

use std::fmt;
use std::marker::PhantomData;

/// Values from 2^63 on share the last bucket; zero has the first to itself.
const BUCKETS: usize = 65;

/// How often each magnitude was recorded. `T` is what the published crate attaches to a period; nothing is attached here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    of: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], of: PhantomData }
    }

    /// Counts `value` once.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `value` `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
    }

    /// How many values were recorded.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The least value of the bucket in which the share `share` (0 to 1) of all values is reached; 0 when there are none.
    #[must_use]
    pub fn percentile(&self, share: f64) -> u64 {
        let rank = (share.clamp(0.0, 1.0) * self.total() as f64).ceil().max(1.0) as u64;
        let mut seen = 0u64;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if seen >= rank {
                return if bucket == 0 { 0 } else { 1 << (bucket - 1) };
            }
        }
        0
    }

    /// The percentiles that the library prints.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.10),
            p50: self.percentile(0.50),
            p90: self.percentile(0.90),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles of a histogram, in the unit of what was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "p0_1 is the percentile 0.1, p99_9 the percentile 99.9")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, p99_9, .. } = self;
        write!(f, "n={samples} p50={p50} p90={p90} p99={p99} p99.9={p99_9}")
    }
}

/// Several histograms under their names, shown as a line of percentiles each.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// A chart of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This chart with one histogram more.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram) -> Self {
        self.lines.push((name.to_owned(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, stats) in &self.lines {
            writeln!(f, "{name}: {stats}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: percentiles are right to within a factor of two, from zero to the greatest value.
    #[test]
    fn percentiles_are_the_lower_ends_of_powers_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!((histogram.total(), histogram.percentile(0.5)), (0, 0));
        histogram.record_n(0, 10);
        histogram.record_n(5, 80);
        histogram.record(1_000);
        histogram.record_n(u64::MAX, 9);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p5, stats.p50, stats.p90, stats.p99), (100, 0, 4, 4, 1 << 63));
        assert_eq!(histogram.percentile(0.91), 512);
    }
}
