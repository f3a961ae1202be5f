//! `--threshold 'p95<250ms'`: a metric, a comparison, a limit; a run that misses one exits with 99.

use std::fmt;
use std::str::FromStr;

use crate::demo::statistics::Metrics;

/// What a threshold looks at: the fields of the report's `metrics` block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Right answers / all requests, from 0 to 1.
    SuccessRate,
    /// Right answers per second.
    RequestsPerSecond,
    /// A latency in milliseconds.
    Latency(LatencyFigure),
}

/// One figure of `latency_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named as in the report")]
pub enum LatencyFigure {
    Min,
    Mean,
    P50,
    P90,
    P95,
    P99,
    P999,
    Max,
}

/// How value and limit are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the operator of its name")]
pub enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// One threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// As the user wrote it.
    pub expression: String,
    /// What is looked at.
    pub metric: Metric,
    /// How.
    pub comparison: Comparison,
    /// The limit: a share, a rate, or milliseconds.
    pub limit: f64,
}

impl Threshold {
    /// The value that the run reached; none where nothing was measured.
    pub fn value(&self, metrics: &Metrics) -> Option<f64> {
        match self.metric {
            Metric::SuccessRate => Some(metrics.success_rate),
            Metric::RequestsPerSecond => Some(metrics.requests_per_sec),
            Metric::Latency(figure) => metrics.latency_ms.as_ref().map(|latency| match figure {
                LatencyFigure::Min => latency.min,
                LatencyFigure::Mean => latency.mean,
                LatencyFigure::P50 => latency.p50,
                LatencyFigure::P90 => latency.p90,
                LatencyFigure::P95 => latency.p95,
                LatencyFigure::P99 => latency.p99,
                LatencyFigure::P999 => latency.p999,
                LatencyFigure::Max => latency.max,
            }),
        }
    }

    /// Whether the run keeps it. A latency of which there is no sample is missed.
    pub fn is_kept(&self, metrics: &Metrics) -> bool {
        self.value(metrics).is_some_and(|value| match self.comparison {
            Comparison::Less => value < self.limit,
            Comparison::LessOrEqual => value <= self.limit,
            Comparison::Greater => value > self.limit,
            Comparison::GreaterOrEqual => value >= self.limit,
        })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.expression)
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let position = text
            .find(['<', '>'])
            .ok_or_else(|| format!("\"{text}\" compares nothing: write METRIC<LIMIT, as in 'p95<250ms'"))?;
        let (name, rest) = text.split_at(position);
        let (comparison, limit) = if let Some(limit) = rest.strip_prefix("<=") {
            (Comparison::LessOrEqual, limit)
        } else if let Some(limit) = rest.strip_prefix(">=") {
            (Comparison::GreaterOrEqual, limit)
        } else if let Some(limit) = rest.strip_prefix('<') {
            (Comparison::Less, limit)
        } else {
            (Comparison::Greater, &rest[1..])
        };
        let metric = metric(name.trim())?;
        let limit = limit_of(metric, limit.trim())?;
        Ok(Threshold { expression: text.trim().to_owned(), metric, comparison, limit })
    }
}

fn metric(name: &str) -> Result<Metric, String> {
    Ok(match name {
        "success_rate" => Metric::SuccessRate,
        "requests_per_sec" => Metric::RequestsPerSecond,
        "min" => Metric::Latency(LatencyFigure::Min),
        "mean" => Metric::Latency(LatencyFigure::Mean),
        "p50" => Metric::Latency(LatencyFigure::P50),
        "p90" => Metric::Latency(LatencyFigure::P90),
        "p95" => Metric::Latency(LatencyFigure::P95),
        "p99" => Metric::Latency(LatencyFigure::P99),
        "p999" => Metric::Latency(LatencyFigure::P999),
        "max" => Metric::Latency(LatencyFigure::Max),
        _ => {
            return Err(format!(
                "\"{name}\" is not a metric: use success_rate, requests_per_sec, min, mean, p50, p90, p95, p99, p999 or max"
            ));
        }
    })
}

fn limit_of(metric: Metric, text: &str) -> Result<f64, String> {
    let number = |digits: &str| {
        digits
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite() && *value >= 0.0)
            .ok_or_else(|| format!("\"{text}\" is not a limit: a number of 0 or more is expected"))
    };
    match metric {
        Metric::SuccessRate => {
            let share = match text.strip_suffix('%') {
                Some(percent) => number(percent)? / 100.0,
                None => number(text)?,
            };
            if share > 1.0 {
                return Err(format!(
                    "success_rate goes from 0 to 1, so \"{text}\" cannot be its limit; for per cent write 99%"
                ));
            }
            Ok(share)
        }
        Metric::RequestsPerSecond => number(text),
        Metric::Latency(_) => match (text.strip_suffix("ms"), text.strip_suffix('s')) {
            (Some(milliseconds), _) => number(milliseconds),
            (None, Some(seconds)) => Ok(number(seconds)? * 1000.0),
            (None, None) => Err(format!("\"{text}\" has no unit: a latency limit is written as 250ms or 1.5s")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::statistics::LatencyMs;

    #[test]
    fn the_grammar_reads_every_metric_comparison_and_unit() {
        let table = [
            ("p95<250ms", Metric::Latency(LatencyFigure::P95), Comparison::Less, 250.0),
            ("p999 <= 1.5s", Metric::Latency(LatencyFigure::P999), Comparison::LessOrEqual, 1500.0),
            ("max<2s", Metric::Latency(LatencyFigure::Max), Comparison::Less, 2000.0),
            ("min>0ms", Metric::Latency(LatencyFigure::Min), Comparison::Greater, 0.0),
            ("success_rate>=1", Metric::SuccessRate, Comparison::GreaterOrEqual, 1.0),
            ("success_rate >= 99.5%", Metric::SuccessRate, Comparison::GreaterOrEqual, 0.995),
            ("requests_per_sec>300", Metric::RequestsPerSecond, Comparison::Greater, 300.0),
        ];
        for (text, metric, comparison, limit) in table {
            let threshold: Threshold = text.parse().unwrap();
            assert_eq!((threshold.metric, threshold.comparison), (metric, comparison), "{text}");
            assert!((threshold.limit - limit).abs() < 1e-9, "{text}: {}", threshold.limit);
        }
    }

    #[test]
    fn what_is_no_threshold_is_told_why() {
        let table = [
            ("p95", "compares nothing"),
            ("p95<250", "no unit"),
            ("p95<fast", "no unit"),
            ("p95<xms", "not a limit"),
            ("p95=<3ms", "not a metric"),
            ("p42<3ms", "not a metric"),
            ("success_rate>=99", "99%"),
            ("requests_per_sec>-1", "not a limit"),
            ("requests_per_sec>NaN", "not a limit"),
        ];
        for (text, reason) in table {
            let error = text.parse::<Threshold>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_threshold_is_kept_or_missed_at_its_very_limit_and_missed_without_samples() {
        let latency =
            LatencyMs { min: 1.0, mean: 2.0, p50: 2.0, p90: 3.0, p95: 250.0, p99: 300.0, p999: 301.0, max: 302.0 };
        let metrics = Metrics { success_rate: 1.0, requests_per_sec: 10.0, latency_ms: Some(latency) };
        let kept = |text: &str, metrics: &Metrics| text.parse::<Threshold>().unwrap().is_kept(metrics);
        assert!(kept("p95<=250ms", &metrics));
        assert!(!kept("p95<250ms", &metrics));
        assert!(kept("success_rate>=100%", &metrics));
        let empty = Metrics { success_rate: 0.0, requests_per_sec: 0.0, latency_ms: None };
        assert!(!kept("p95<250ms", &empty));
    }
}
