//! `report.html`: one file, without scripts and without the network, for light and dark, to show to others.

use crate::demo::report::Report;
use crate::demo::report::svg::chart;
pub use crate::demo::report::svg::escape;
use crate::demo::report::text;

const STYLE: &str = include_str!("report.css");

/// The page.
pub fn html(report: &Report) -> String {
    let title = format!("Image Cloud run {}", report.run.id);
    let text = escape(&text::page(report));
    // "</" would end the element that holds the data.
    let data = super::json::json(report).replace("</", "<\\/");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n<p class=\"sub\">{subtitle}</p>\n<ul class=\"tiles\">\n{tiles}</ul>\n<figure>\n{chart}</figure>\n\
         <details open><summary>The whole report</summary><pre>{text}</pre></details>\n</main>\n\
         <script type=\"application/json\" id=\"report\">{data}</script>\n</body>\n</html>\n",
        title = escape(&title),
        subtitle = escape(
            &text::header(&report.tool, &report.host, &report.run).lines().skip(1).collect::<Vec<_>>().join(" · ")
        ),
        tiles = tiles(report),
        chart = chart(report),
    )
}

fn tiles(report: &Report) -> String {
    let latency = |pick: fn(&crate::demo::statistics::LatencyMs) -> f64| {
        report.metrics.latency_ms.as_ref().map_or_else(|| "–".to_owned(), |figures| format!("{:.1} ms", pick(figures)))
    };
    let longest_window = report
        .failures
        .iter()
        .filter_map(|failure| failure.cluster_window_ms)
        .fold(None, |longest: Option<f64>, window| Some(longest.map_or(window, |so_far| so_far.max(window))));
    let answered = format!("{} of {}", report.totals.successful, report.totals.planned);
    let verdict = if report.run.partial {
        "partial run"
    } else if report.totals.successful == report.totals.planned {
        "answered, all of them right"
    } else {
        "answered rightly"
    };
    let mut tiles = vec![
        (answered, verdict.to_owned()),
        (format!("{:.0} /s", report.metrics.requests_per_sec), "right answers per second".to_owned()),
        (latency(|figures| figures.p95), "P95".to_owned()),
        (latency(|figures| figures.p999), "P99.9".to_owned()),
        (latency(|figures| figures.max), "longest".to_owned()),
        (report.elections.len().to_string(), "elections".to_owned()),
        (report.failures.len().to_string(), "failures".to_owned()),
    ];
    if let Some(window) = longest_window {
        tiles.push((format!("{window:.0} ms"), "longest time without any answer in a failure".to_owned()));
    }
    if let Some(rights) = &report.rights {
        let counts = format!("{} overspent, {} lost", rights.overspent, rights.lost);
        tiles.push((counts, text::rights_in_short(rights)));
    }
    for threshold in &report.thresholds {
        let verdict = if threshold.ok { "threshold kept" } else { "threshold MISSED" };
        tiles.push((threshold.expression.clone(), verdict.to_owned()));
    }
    tiles
        .iter()
        .map(|(value, name)| format!("<li><b>{}</b> <span>{}</span></li>\n", escape(value), escape(name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::report::tests::fixed;

    #[test]
    fn the_page_needs_no_script_and_no_network_and_carries_its_data() {
        let mut report = fixed();
        report.notes.push("a picture named </script><b>x</b>.png".to_owned());
        let page = html(&report);
        let without_namespace = page.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !without_namespace.contains("http://") && !without_namespace.contains("https://"),
            "a reference to the network"
        );
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("</script>").count(), 1, "text from outside ended the data element");
        assert!(!page.contains("<b>x</b>.png</pre>") && page.contains("61"));
        let start = page.find("id=\"report\">").unwrap() + "id=\"report\">".len();
        let data = &page[start..start + page[start..].find("</script>").unwrap()];
        let value: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(value["run"]["seed"], 42);
    }
}
