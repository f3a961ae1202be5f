//! The files of the HdrHistogram tools: the percentile spectrum (`.hgrm`) and the interval log (`.hlog`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::demo::record::Record;
use crate::demo::statistics::Distribution;

/// The percentile spectrum in milliseconds, in the form that the HdrHistogram plotter reads.
pub fn hgrm(latencies: &Distribution) -> String {
    let histogram = latencies.histogram();
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    for step in histogram.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / 1000.0;
        let quantile = step.quantile_iterated_to();
        let _ = write!(text, "{value:>12.3} {quantile:>14.12} {total:>10}");
        let _ = if quantile < 1.0 { writeln!(text, " {:>14.2}", 1.0 / (1.0 - quantile)) } else { writeln!(text) };
    }
    let (mean, deviation) = (histogram.mean() / 1000.0, histogram.stdev() / 1000.0);
    let _ = writeln!(text, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]");
    let maximum = histogram.max() as f64 / 1000.0;
    let _ = writeln!(text, "#[Max     = {maximum:>12.3}, Total count    = {:>12}]", histogram.len());
    let _ = writeln!(text, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", histogram.buckets(), 2048);
    text
}

/// The interval log: for each second one histogram of all right answers, one by operation and one by node, in microseconds.
///
/// # Errors
/// What the serializer says, as text; a histogram of latencies gives it no reason to.
pub fn hlog(records: &[Record], start_unix_ms: u64) -> Result<Vec<u8>, String> {
    let mut intervals: BTreeMap<(u64, String), Histogram<u64>> = BTreeMap::new();
    for record in records {
        let Some(node) = record.answered_by() else { continue };
        let micros = record.latency().as_micros() as u64;
        let second = record.finished.as_secs();
        for tag in [String::new(), record.kind.name().to_owned(), format!("node{node}")] {
            let histogram = match intervals.entry((second, tag)) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(Histogram::new(3).map_err(|error| error.to_string())?)
                }
            };
            histogram.record(micros).map_err(|error| error.to_string())?;
        }
    }
    let start = UNIX_EPOCH + Duration::from_millis(start_unix_ms);
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("latency of right answers in microseconds, by second; tags: operation and node")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(1000.0)
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| error.to_string())?;
    for ((second, tag), histogram) in &intervals {
        let tag = if tag.is_empty() { None } else { Tag::new(tag) };
        log.write_histogram(histogram, Duration::from_secs(*second), Duration::from_secs(1), tag)
            .map_err(|error| format!("{error:?}"))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::demo::fixture;
    use crate::demo::statistics::Statistics;

    #[test]
    fn the_interval_log_reads_back_with_a_line_per_second_and_tag() {
        let records =
            [fixture::answered(0, 1, 0, 500), fixture::answered(1, 2, 0, 700), fixture::answered(2, 2, 2000, 2400)];
        let bytes = hlog(&records, fixture::START_UNIX_MS).unwrap();
        let lines: Vec<(u64, String, f64)> = IntervalLogIterator::new(&bytes)
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(line) => {
                    let tag = line.tag().map_or_else(String::new, |tag| tag.as_str().to_owned());
                    Some((line.start_timestamp().as_secs(), tag, line.max()))
                }
                _ => None,
            })
            .collect();
        let tags: Vec<String> = lines.iter().map(|(second, tag, _)| format!("{second}{tag}")).collect();
        assert_eq!(tags, ["0", "0node1", "0node2", "0seal", "2", "2node2", "2seal"]);
        assert!((lines[0].2 - 700.0).abs() < 1.0, "the largest value is given in milliseconds: {}", lines[0].2);
    }

    #[test]
    fn the_spectrum_ends_at_the_maximum_with_all_samples() {
        let records: Vec<_> = (1..=100).map(|turn| fixture::answered(turn, 1, 0, turn)).collect();
        let text = hgrm(&Statistics::of(&records).all);
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let fields: Vec<&str> = last.split_whitespace().collect();
        assert_eq!((fields[1], fields[2]), ("1.000000000000", "100"));
        assert!(text.contains("Total count    =          100"), "{text}");
    }
}
