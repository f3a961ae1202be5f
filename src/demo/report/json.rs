//! The report for programs.

use crate::demo::report::Report;

/// `report.json`: the report as it is, indented.
pub fn json(report: &Report) -> String {
    // Every map has string-like keys and no field refuses, so this cannot fail; an empty file would show if it did.
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::report::tests::fixed;

    #[test]
    fn the_metrics_block_has_exactly_its_promised_names() {
        let value: serde_json::Value = serde_json::from_str(&json(&fixed())).unwrap();
        let keys = |value: &serde_json::Value| {
            let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys.join(" ")
        };
        assert_eq!(keys(&value["metrics"]), "latency_ms requests_per_sec success_rate");
        assert_eq!(keys(&value["metrics"]["latency_ms"]), "max mean min p50 p90 p95 p99 p999");
        assert_eq!(value["by_node"]["2"]["count"], 20);
        assert_eq!(value["elections"][1]["standings"][0]["load"], 0.25);
    }
}
