//! The report for people: plain text, at most 100 columns, colour only where the caller asks for it.

use std::fmt::Write;

use crate::demo::outages::{Election, Failure};
use crate::demo::report::{Host, Report, Run, Tool};
use crate::demo::share::proof::RightsProof;
use crate::demo::statistics::{Latencies, LatencyMs};

/// Whether escape sequences are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// For a terminal.
    On,
    /// For files and pipes.
    Off,
}

struct Page {
    text: String,
    colour: Colour,
}

impl Page {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref().trim_end());
        self.text.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        self.text.push('\n');
        let heading = paint(heading, Style::Bold, self.colour);
        self.line(heading);
    }

    fn wrapped(&mut self, prefix: &str, text: &str) {
        let indent = " ".repeat(prefix.chars().count());
        if prefix.chars().count() + text.chars().count() <= 98 {
            return self.line(format!("{prefix}{text}"));
        }
        let mut line = prefix.to_owned();
        for word in text.split_whitespace() {
            if line.chars().count() + word.chars().count() > 98 && line.trim() != prefix.trim() {
                self.line(&line);
                line.clone_from(&indent);
            }
            line.push_str(word);
            line.push(' ');
        }
        self.line(line);
    }
}

#[derive(Clone, Copy)]
enum Style {
    Bold,
    Good,
    Bad,
}

fn paint(text: &str, style: Style, colour: Colour) -> String {
    if colour == Colour::Off {
        return text.to_owned();
    }
    let code = match style {
        Style::Bold => "1",
        Style::Good => "32",
        Style::Bad => "1;31",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// The first lines: what runs, with the seed, printed before the load begins.
pub fn header(tool: &Tool, host: &Host, run: &Run) -> String {
    let mut page = Page { text: String::new(), colour: Colour::Off };
    page.line(format!("seed {}   {} {}   run {}", run.seed, tool.name, tool.version, run.id));
    let cluster = if run.attached.is_empty() {
        let workers = run.workers_per_node.map(|count| format!(", {} each", plural(count as u64, "image worker")));
        format!("{} of its own (processes, loopback{})", plural(run.nodes as u64, "node"), workers.unwrap_or_default())
    } else {
        format!("{} attached: {}", plural(run.nodes as u64, "node"), run.attached.join(", "))
    };
    page.line(format!("{cluster}   {}   {}", tool.profile, plural(host.cores as u64, "core")));
    let total = u64::from(run.clients) * u64::from(run.requests_each);
    let model = match run.rate {
        None => "closed model".to_owned(),
        Some(rate) => format!("open model at {rate} requests/s"),
    };
    page.line(format!(
        "{} clients × {} requests = {}   {model}   op {}   failures {}   verify {}",
        run.clients,
        run.requests_each,
        grouped(total),
        run.operation,
        run.failures,
        run.verify
    ));
    page.text
}

/// The whole report as it stands in `report.txt`.
pub fn page(report: &Report) -> String {
    header(&report.tool, &report.host, &report.run) + &body(report, Colour::Off)
}

/// Everything after the header.
pub fn body(report: &Report, colour: Colour) -> String {
    let mut page = Page { text: String::new(), colour };
    if report.run.partial {
        let note = format!(
            "PARTIAL: interrupted after {} of {} requests",
            grouped(report.totals.requests),
            grouped(report.totals.planned)
        );
        page.text.push('\n');
        page.line(paint(&note, Style::Bad, colour));
    }
    summary(&mut page, report);
    rights(&mut page, report);
    thresholds(&mut page, report);
    latencies(&mut page, report);
    errors_and_attempts(&mut page, report);
    pictures(&mut page, report);
    elections(&mut page, report);
    failures(&mut page, report);
    nodes(&mut page, report);
    closing(&mut page, report);
    page.text
}

fn summary(page: &mut Page, report: &Report) {
    let (totals, metrics) = (&report.totals, &report.metrics);
    page.heading("RESULT");
    let mut row = |name: &str, value: String, more: String| page.line(format!("{name:<26}{value:>14}   {more}"));
    let latency = |pick: fn(&LatencyMs) -> f64| {
        metrics.latency_ms.as_ref().map_or_else(|| "–".to_owned(), |figures| format!("{} ms", figure(pick(figures))))
    };
    row("Total duration", format!("{:.2} s", totals.duration_s), String::new());
    row("Total requests", grouped(totals.requests), String::new());
    row("Successful requests", grouped(totals.successful), String::new());
    let mut failed = Vec::new();
    if totals.wrong > 0 {
        failed.push(format!("{} wrong", grouped(totals.wrong)));
    }
    if totals.not_sent > 0 {
        failed.push(format!("{} not sent", grouped(totals.not_sent)));
    }
    row("Failed requests", grouped(totals.failed), failed.join(", "));
    row("Success rate", share(metrics.success_rate), String::new());
    row("Throughput", format!("{:.1}/s", metrics.requests_per_sec), "right answers per second".to_owned());
    row("Average latency", latency(|figures| figures.mean), String::new());
    row("P95 latency", latency(|figures| figures.p95), String::new());
    let decisions = &report.load_balancing.decisions;
    let (by_coordinator, by_clients) = (grouped(decisions.by_coordinator), grouped(decisions.by_clients));
    let who = format!("{by_coordinator} by the coordinator, {by_clients} by clients");
    row("Load-balancing decisions", grouped(decisions.total), who);
}

/// The one line that says what the run has proved about counted views.
pub fn rights_in_short(rights: &RightsProof) -> String {
    let RightsProof { images, granted, spent, overspent, lost, refused, refused_wrongly, .. } = rights;
    let (granted, spent) = (plural(*granted, "view"), grouped(*spent));
    let verdict = if *refused_wrongly == 0 {
        format!("{} refused as they must be", grouped(*refused))
    } else {
        format!("{} refused, {} of the readers WRONGLY", grouped(*refused), grouped(*refused_wrongly))
    };
    format!(
        "{}, {granted} granted, {spent} spent, {} overspent, {} lost; {verdict}",
        plural(*images, "image"),
        grouped(*overspent),
        grouped(*lost)
    )
}

fn rights(page: &mut Page, report: &Report) {
    let Some(rights) = &report.rights else { return };
    page.heading("RIGHTS, as the cluster tells the owners after the last recovery");
    let style = if rights.hold() { Style::Good } else { Style::Bad };
    let short = paint(&format!("Rights: {}", rights_in_short(rights)), style, page.colour);
    page.line(format!("  {short}"));
    let RightsProof { granted, left, spent, revoked, burnt, leased, keys_released, .. } = rights;
    let [granted, left, spent, revoked, burnt, leased] =
        [granted, left, spent, revoked, burnt, leased].map(|count| grouped(*count));
    page.line(format!(
        "  {granted} granted = {left} left + {spent} spent + {revoked} revoked + {burnt} burnt + {leased} leased"
    ));
    let chains = rights.images - rights.broken_chains.min(rights.images);
    page.wrapped(
        "  ",
        &format!(
            "readers got {}, each with an entry of its own request in an audit chain; {} of {} chains hold; {} without a known outcome",
            plural(*keys_released, "key"),
            grouped(chains),
            grouped(rights.images),
            grouped(rights.unanswered)
        ),
    );
    for fault in &rights.faults {
        page.wrapped("    ", fault);
    }
}

fn thresholds(page: &mut Page, report: &Report) {
    if report.thresholds.is_empty() {
        return;
    }
    page.heading("THRESHOLDS");
    for threshold in &report.thresholds {
        let verdict = if threshold.ok {
            paint("kept  ", Style::Good, page.colour)
        } else {
            paint("MISSED", Style::Bad, page.colour)
        };
        let measured = |value: f64| match threshold.expression.split(['<', '>', '=']).next().map(str::trim) {
            Some("success_rate") => format!("{value:.4}"),
            Some("requests_per_sec") => format!("{value:.1}/s"),
            _ => format!("{value:.1} ms"),
        };
        let value = threshold.value.map_or_else(|| "no sample".to_owned(), measured);
        page.line(format!("  {verdict}  {:<28} {value}", threshold.expression));
    }
}

/// The quantiles of the table with their complement, to say on how many samples each one rests.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.1), ("p95", 0.05), ("p99", 0.01), ("p99.9", 0.001)];

fn latencies(page: &mut Page, report: &Report) {
    page.heading("LATENCY OF RIGHT ANSWERS, ms");
    page.line(format!(
        "  {:<10}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "", "n", "min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"
    ));
    let all = report.all_latencies();
    latency_row(page, "all", &all);
    for (name, latencies) in report.by_operation.iter().filter(|_| report.by_operation.len() > 1) {
        latency_row(page, name, latencies);
    }
    for (node, latencies) in &report.by_node {
        latency_row(page, &format!("node {node}"), latencies);
    }
    if report.run.rate.is_some() {
        latency_row(page, "from send", &report.service_time);
    }
    if report.failed_requests.count > 0 {
        latency_row(page, "failed", &report.failed_requests);
    }
    if all.count > 0 {
        let beyond = |complement: f64| (all.count as f64 * complement).floor() as u64;
        let counts = QUANTILES.map(|(name, complement)| format!("{name} {}", grouped(beyond(complement))));
        page.line(format!("  samples above it: {}", counts.join(", ")));
        let thin: Vec<&str> =
            QUANTILES.iter().filter(|(_, complement)| beyond(*complement) < 10).map(|(name, _)| *name).collect();
        if !thin.is_empty() {
            page.line(format!("  fewer than 10 samples lie above {}: read it with care", thin.join(", ")));
        }
    }
    match report.run.rate {
        None => page.wrapped(
            "  ",
            "closed model: a client waits for its answer before it sends again, so a stall slows the senders and the percentiles \
             under-count it. For the user's view of a stall run with --rate R.",
        ),
        Some(_) => page.wrapped(
            "  ",
            "open model: latency counts from the planned send, so a stall is counted for everybody who would have met it; \
             \"from send\" is the same without the wait for a free place.",
        ),
    }
}

fn latency_row(page: &mut Page, name: &str, latencies: &Latencies) {
    let mut line = format!("  {name:<10}{:>9}", grouped(latencies.count));
    if let Some(ms) = &latencies.latency_ms {
        for value in [ms.min, ms.mean, ms.p50, ms.p90, ms.p95, ms.p99, ms.p999, ms.max] {
            // A String cannot refuse a write.
            let _ = write!(line, "{:>9}", figure(value));
        }
    }
    page.line(line);
}

fn errors_and_attempts(page: &mut Page, report: &Report) {
    page.heading("ATTEMPTS");
    let reasons = |counts: &std::collections::BTreeMap<String, u64>| {
        let mut sorted: Vec<_> = counts.iter().collect();
        sorted.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
        sorted.iter().map(|(name, count)| format!("{name} {}", grouped(**count))).collect::<Vec<_>>().join(", ")
    };
    let attempts = &report.attempts;
    let mut line = format!("{} attempts, {} of them retries", grouped(attempts.total), grouped(attempts.retries));
    if !attempts.failed_by_reason.is_empty() {
        line = format!("{line}; attempts that failed: {}", reasons(&attempts.failed_by_reason));
    }
    page.wrapped("  ", &line);
    if !report.errors.is_empty() {
        let failed = paint("requests that failed:", Style::Bad, page.colour);
        page.wrapped("  ", &format!("{failed} {}", reasons(&report.errors)));
        for example in &report.error_examples {
            page.wrapped("    ", example);
        }
    }
    let checks = &report.verification;
    page.wrapped(
        "  ",
        &if report.run.verify == "none" {
            "no answer was checked (--verify none)".to_owned()
        } else {
            format!(
                "{} answers checked, {} wrong; {} of their own took {:.2} s, and clients waited {:.2} s in all for that (in \
                 the throughput, but in no latency)",
                grouped(checks.checked),
                grouped(checks.wrong),
                plural(checks.workers as u64, "worker"),
                checks.work_s,
                checks.clients_waited_s
            )
        },
    );
}

fn pictures(page: &mut Page, report: &Report) {
    let totals = &report.totals;
    page.heading("PICTURES");
    let rate = |bytes: u64| if totals.duration_s > 0.0 { bytes as f64 / 1048576.0 / totals.duration_s } else { 0.0 };
    page.line(format!(
        "  in {} ({:.1} MiB/s)   out {} ({:.1} MiB/s)",
        size(totals.bytes_in),
        rate(totals.bytes_in),
        size(totals.bytes_out),
        rate(totals.bytes_out)
    ));
    page.line(format!("  {:<28}{:<6}{:>13}{:>12}{:>10}{:>14}", "", "", "pixels", "file", "answers", "mean answer"));
    const ROWS: usize = 20;
    for picture in report.pictures.iter().take(ROWS) {
        let name: String = picture.name.chars().take(27).collect();
        let pixels = format!("{} × {}", picture.width, picture.height);
        let answer = picture.mean_answer_bytes.map_or_else(|| "–".to_owned(), size);
        let (file, answers) = (size(picture.bytes), grouped(picture.answers));
        page.line(format!("  {name:<28}{:<6}{pixels:>13}{file:>12}{answers:>10}{answer:>14}", picture.format));
    }
    if report.pictures.len() > ROWS {
        page.line(format!("  and {} more, in report.json", report.pictures.len() - ROWS));
    }
}

fn elections(page: &mut Page, report: &Report) {
    page.heading(&format!("ELECTIONS ({})", report.elections.len()));
    for found in &report.elections {
        for line in election(found).lines() {
            page.line(format!("  {line}"));
        }
    }
}

/// An election as it is printed, in the report and while the run goes on.
pub fn election(election: &Election) -> String {
    format!("t={:+.2} s  {}", election.at_s, election.result)
}

fn failures(page: &mut Page, report: &Report) {
    page.heading(&format!("FAILURES AND RECOVERIES ({})", report.failures.len()));
    for found in &report.failures {
        for line in failure(found).lines() {
            page.wrapped(if line.starts_with("  ") { "      " } else { "  " }, line.trim_start());
        }
    }
}

fn failure(failure: &Failure) -> String {
    let role = if failure.was_coordinator { " (the coordinator)" } else { "" };
    let mut text = format!("t={:+.2} s  node {}{role} failed", failure.from_s, failure.node);
    let _ = match failure.until_s {
        Some(until) => writeln!(text, " for {:.2} s", until - failure.from_s),
        None => writeln!(text, " and was still away at the end"),
    };
    let _ = match failure.cluster_window_ms {
        Some(window) => writeln!(text, "  no answer at all for {} ms at most (cluster window)", figure(window)),
        None => writeln!(text, "  no request was answered after it: no window to measure"),
    };
    let wait = failure.longest_wait_ms.map_or_else(String::new, |wait| format!(", longest wait {} ms", figure(wait)));
    let requests = plural(failure.touched, "request");
    let _ =
        writeln!(text, "  {requests} touched, {} of them not answered in the end{wait}", failure.touched_and_failed);
    let _ = match (&failure.recovery, failure.active_again_s) {
        (Some(recovery), Some(at)) => {
            let from = match recovery.from {
                Some(node) if node == failure.node => "as the new coordinator itself".to_owned(),
                Some(node) => format!("by StateSync from node {node}"),
                None => "without a coordinator, for jobs only".to_owned(),
            };
            let (entries, took) = (recovery.entries, recovery.took_ms);
            writeln!(text, "  t={at:+.2} s  Active again {from}: {entries} log entries in {took} ms")
        }
        (_, Some(at)) => writeln!(text, "  t={at:+.2} s  Active again"),
        (_, None) => writeln!(text, "  not Active again before the end of the run"),
    };
    text
}

fn nodes(page: &mut Page, report: &Report) {
    page.heading("NODES");
    page.line(format!(
        "  {:<10}{:<12}{:>8}{:>7}{:>8}{:>9}{:>12}{:>14}{:>7}{:>10}",
        "", "state", "answers", "share", "jobs", "refused", "placements", "load avg/max", "cores", "memory"
    ));
    for row in &report.nodes {
        let name = format!("node {}{}", row.node, if row.is_coordinator { " *" } else { "" });
        let state = row.state.map_or_else(|| "no answer".to_owned(), |state| state.to_string());
        let part =
            if report.totals.successful == 0 { 0.0 } else { row.answers as f64 / report.totals.successful as f64 };
        let load = format!("{:.2}/{}", row.load_mean, row.load_max);
        page.line(format!(
            "  {name:<10}{state:<12}{:>8}{:>7}{:>8}{:>9}{:>12}{load:>14}{:>7.2}{:>10}",
            grouped(row.answers),
            format!("{:.0} %", part * 100.0),
            grouped(row.jobs_done),
            grouped(row.jobs_refused),
            grouped(row.placements),
            row.usage.cpu_cores,
            size(row.usage.memory_max_bytes)
        ));
    }
    let demo = &report.demo_process;
    page.line(format!(
        "  {:<10}{:<70}{:>7.2}{:>10}",
        "demo",
        "clients and checks",
        demo.cpu_cores,
        size(demo.memory_max_bytes)
    ));
    let balance =
        report.load_balancing.jain_index.map_or_else(String::new, |index| format!("   balance (Jain) {index:.3}"));
    page.line(format!("  * coordinator at the end   cores: mean used   memory: largest seen{balance}"));
}

fn closing(page: &mut Page, report: &Report) {
    if !report.notes.is_empty() {
        page.heading("NOTES");
        for note in &report.notes {
            page.wrapped("  ", note);
        }
    }
    page.heading("FILES");
    for file in &report.files {
        page.line(format!("  {file}"));
    }
    page.heading("NEXT");
    if let Some(html) = report.files.iter().find(|file| file.ends_with(".html")) {
        page.line(format!("  open {html} in a browser      the run as a picture"));
    }
    page.line(format!("  the same command with --seed {}    the same requests again", report.run.seed));
    page.line(
        "  ./run_demo.sh --failures none --verify none    speed alone
  ./run_demo.sh --rate 300    a user's view of a stall",
    );
}

/// Three significant digits, as far as they are measured.
fn figure(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A share in per cent; 100 % only if it is all.
fn share(part: f64) -> String {
    let per_cent = if part < 1.0 { (part * 10_000.0).floor() / 100.0 } else { 100.0 };
    format!("{per_cent:.2} %")
}

/// A size as people read it.
pub fn size(bytes: u64) -> String {
    let kib = bytes as f64 / 1024.0;
    match kib {
        kib if kib < 1000.0 => format!("{kib:.0} KiB"),
        kib if kib < 1000.0 * 1024.0 => format!("{:.1} MiB", kib / 1024.0),
        kib => format!("{:.2} GiB", kib / 1024.0 / 1024.0),
    }
}

/// A count with its thing: `1 node`, `3 nodes`.
pub fn plural(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A number with a comma between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::report::tests::fixed;

    #[test]
    fn the_text_of_a_fixed_run_is_this() {
        let report = fixed();
        let text = page(&report);
        let expected = include_str!("text_snapshot.txt");
        assert!(text == expected, "the report changed; if it should, this is the new text_snapshot.txt:\n{text}");
    }

    #[test]
    fn no_line_is_longer_than_100_columns_and_escapes_are_for_terminals_only() {
        let report = fixed();
        let plain = page(&report);
        for line in plain.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
        }
        assert!(!plain.contains('\u{1b}'));
        assert!(body(&report, Colour::On).contains("\u{1b}[1;31mMISSED"));
    }

    #[test]
    fn one_failure_in_many_is_not_rounded_to_100_per_cent() {
        assert_eq!((share(0.99999), share(1.0), share(0.5)), ("99.99 %".into(), "100.00 %".into(), "50.00 %".into()));
    }

    #[test]
    fn numbers_are_grouped_and_sizes_have_units() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([2048, 5 << 20, 3 << 30].map(size), ["2 KiB", "5.0 MiB", "3.00 GiB"]);
    }
}
