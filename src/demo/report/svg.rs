//! The run as a picture: throughput by node, P99 and maximum, and the life of each node, over one time axis with bands for
//! failures and marks for elections. Colours are those of Okabe and Ito, which most colour-blind people tell apart; failures are
//! also hatched and everything is labelled. The page's style sheet gives text and lines their colour in light and dark.

use std::fmt::Write;

use crate::demo::report::Report;
use crate::id::NodeId;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 944.0;
const THROUGHPUT: Panel = Panel { top: 46.0, bottom: 216.0 };
const LATENCY: Panel = Panel { top: 262.0, bottom: 392.0 };
const LANES_TOP: f64 = 438.0;
const LANE: f64 = 24.0;
const NODE_COLOURS: [&str; 6] = ["#0072B2", "#56B4E9", "#009E73", "#E69F00", "#CC79A7", "#999933"];

struct Panel {
    top: f64,
    bottom: f64,
}

impl Panel {
    /// From 0 at the bottom to 1 at the top.
    fn y(&self, share: f64) -> f64 {
        self.bottom - share.clamp(0.0, 1.0) * (self.bottom - self.top)
    }
}

struct Chart<'a> {
    report: &'a Report,
    end_s: f64,
    svg: String,
}

/// The colour of a node in every figure.
pub fn node_colour(position: usize) -> &'static str {
    NODE_COLOURS[position % NODE_COLOURS.len()]
}

/// The whole `<svg>` element.
pub fn chart(report: &Report) -> String {
    let last_recovery = report.failures.iter().filter_map(|failure| failure.active_again_s).fold(0.0, f64::max);
    let end_s = (report.timeline.len() as f64).max(last_recovery).max(1.0);
    let mut chart = Chart { report, end_s, svg: String::new() };
    chart.draw();
    chart.svg
}

impl Chart<'_> {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (seconds.clamp(0.0, self.end_s) / self.end_s) * (RIGHT - LEFT)
    }

    /// A `String` takes every write, so there is no error to hand on.
    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = self.svg.write_fmt(element);
        self.svg.push('\n');
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.add(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(text)));
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(format_args!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"));
    }

    fn rectangle(&mut self, corners: [f64; 4], attributes: &str, title: &str) {
        let [left, top, right, bottom] = corners;
        let (width, height) = ((right - left).max(0.0), (bottom - top).max(0.0));
        self.add(format_args!(
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" {attributes}><title>{}</title></rect>",
            escape(title)
        ));
    }

    fn lanes_bottom(&self) -> f64 {
        LANES_TOP + LANE * self.report.nodes.len() as f64
    }

    fn draw(&mut self) {
        let height = self.lanes_bottom() + 44.0;
        let failures = self.report.failures.len();
        let elections = self.report.elections.len();
        let end_s = self.end_s;
        self.add(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
             aria-label=\"Throughput, latency and node states over {end_s:.0} seconds, with {failures} failures and {elections} elections\">"
        ));
        self.add(format_args!(
            "<defs><pattern id=\"hatch\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
             <rect width=\"7\" height=\"7\" class=\"failed-ground\"/><line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"7\" class=\"failed-line\"/>\
             </pattern></defs>"
        ));
        self.throughput();
        self.latency();
        self.lanes();
        self.bands();
        self.marks();
        self.time_axis();
        self.svg.push_str("</svg>\n");
    }

    fn bands(&mut self) {
        for failure in self.report.failures.clone() {
            let (from, until) = (failure.from_s, failure.until_s.unwrap_or(self.end_s));
            let role = if failure.was_coordinator { ", the coordinator," } else { "" };
            let title = format!("node {}{role} failed from {from:.2} s to {until:.2} s", failure.node);
            let corners = [self.x(from), THROUGHPUT.top - 16.0, self.x(until), self.lanes_bottom()];
            self.rectangle(corners, "class=\"band\"", &title);
            self.text(
                self.x(from) + 4.0,
                THROUGHPUT.top - 4.0,
                "failure-label",
                &format!("node {} failed", failure.node),
            );
        }
    }

    fn throughput(&mut self) {
        let timeline = self.report.timeline.clone();
        let highest = timeline.iter().map(|second| second.completed).max().unwrap_or(0).max(1);
        // A little room above, for the labels of the elections.
        let top = nice_ceiling(highest as f64 * 1.15);
        self.text(LEFT, THROUGHPUT.top - 26.0, "title", "right answers per second, by node");
        for step in 0..=4 {
            let share = f64::from(step) / 4.0;
            let y = THROUGHPUT.y(share);
            self.line((LEFT, y), (RIGHT, y), "grid");
            self.text(LEFT - 6.0, y + 4.0, "tick end", &short(top * share));
        }
        let nodes: Vec<NodeId> = self.report.nodes.iter().map(|row| row.node).collect();
        for second in &timeline {
            let (left, right) = (self.x(second.t as f64) + 0.5, self.x(second.t as f64 + 1.0) - 0.5);
            let mut below = 0.0;
            for (position, node) in nodes.iter().enumerate() {
                let count = second.by_node.get(node).copied().unwrap_or(0) as f64;
                if count > 0.0 {
                    let (low, high) = (THROUGHPUT.y(below / top), THROUGHPUT.y((below + count) / top));
                    let title = format!("second {}: node {node} answered {count}", second.t);
                    self.rectangle([left, high, right, low], &format!("fill=\"{}\"", node_colour(position)), &title);
                    below += count;
                }
            }
            if second.failed > 0 {
                let title = format!("second {}: {} requests failed", second.t, second.failed);
                self.rectangle(
                    [left, THROUGHPUT.bottom, right, THROUGHPUT.bottom + 5.0],
                    "class=\"failed-requests\"",
                    &title,
                );
            }
        }
        for (position, node) in nodes.iter().enumerate() {
            let x = RIGHT - 70.0 * (nodes.len() - position) as f64;
            let y = THROUGHPUT.top - 36.0;
            self.rectangle([x, y, x + 11.0, y + 11.0], &format!("fill=\"{}\"", node_colour(position)), "");
            self.text(x + 16.0, y + 10.0, "tick", &format!("node {node}"));
        }
    }

    fn latency(&mut self) {
        let timeline = self.report.timeline.clone();
        let highest = timeline.iter().filter_map(|second| second.max).fold(10.0, f64::max);
        let lowest = timeline.iter().filter_map(|second| second.p50).fold(highest, f64::min);
        let (low, high) = (lowest.max(0.1).log10().floor(), highest.log10().ceil());
        let share = |ms: f64| (ms.max(0.1).log10() - low) / (high - low).max(1.0);
        self.text(LEFT, LATENCY.top - 14.0, "title", "latency of each second in ms (logarithmic)");
        for decade in low as i32..=high as i32 {
            let y = LATENCY.y((f64::from(decade) - low) / (high - low).max(1.0));
            self.line((LEFT, y), (RIGHT, y), "grid");
            self.text(LEFT - 6.0, y + 4.0, "tick end", &short(10f64.powi(decade)));
        }
        type Pick = fn(&crate::demo::statistics::Second) -> Option<f64>;
        let curves: [(Pick, &str, &str); 3] = [
            (|second| second.max, "curve longest", "longest"),
            (|second| second.p50, "curve median", "median"),
            (|second| second.p99, "curve p99", "P99"),
        ];
        for (position, (pick, class, name)) in curves.into_iter().enumerate() {
            // A second without an answer breaks the line: there is nothing to draw through it.
            for stretch in timeline.split(|second| pick(second).is_none()).filter(|stretch| !stretch.is_empty()) {
                let points: Vec<String> = stretch
                    .iter()
                    .filter_map(|second| {
                        let x = self.x(second.t as f64 + 0.5);
                        pick(second).map(|ms| format!("{x:.1},{:.1}", LATENCY.y(share(ms))))
                    })
                    .collect();
                self.add(format_args!("<polyline points=\"{}\" class=\"{class}\"/>", points.join(" ")));
                if let [single] = points.as_slice()
                    && let Some((x, y)) = single.split_once(',')
                {
                    self.add(format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"2.5\" class=\"{class} dot\"/>"));
                }
            }
            let x = RIGHT - 70.0 * (curves.len() - position) as f64;
            let y = LATENCY.top - 18.0;
            self.add(format_args!("<polyline points=\"{x:.1},{y:.1} {:.1},{y:.1}\" class=\"{class}\"/>", x + 14.0));
            self.text(x + 19.0, y + 4.0, "tick", name);
        }
    }

    fn lanes(&mut self) {
        self.text(
            LEFT,
            LANES_TOP - 12.0,
            "title",
            "nodes: active, failed (hatched), recovering; the thick line is the coordinator",
        );
        let nodes: Vec<NodeId> = self.report.nodes.iter().map(|row| row.node).collect();
        for (position, node) in nodes.iter().enumerate() {
            let top = LANES_TOP + LANE * position as f64;
            let (upper, lower) = (top + 3.0, top + LANE - 5.0);
            self.text(LEFT - 6.0, top + 15.0, "tick end", &format!("node {node}"));
            let whole = [LEFT, upper, RIGHT, lower];
            self.rectangle(
                whole,
                &format!("fill=\"{}\" opacity=\"0.35\"", node_colour(position)),
                &format!("node {node} active"),
            );
            for failure in self.report.failures.clone().iter().filter(|failure| failure.node == *node) {
                let until = failure.until_s.unwrap_or(self.end_s);
                let active = failure.active_again_s.unwrap_or(self.end_s);
                let failed = [self.x(failure.from_s), upper, self.x(until), lower];
                self.rectangle(
                    failed,
                    "fill=\"url(#hatch)\"",
                    &format!("node {node} failed for {:.2} s", until - failure.from_s),
                );
                let recovering = [self.x(until), upper, self.x(active).max(self.x(until) + 1.5), lower];
                let title = format!("node {node} recovering for {:.0} ms", (active - until) * 1000.0);
                self.rectangle(recovering, "class=\"recovering\"", &title);
            }
            for (from, until) in self.reigns(*node) {
                let (left, right) = (self.x(from), self.x(until));
                self.rectangle(
                    [left, lower - 4.0, right, lower],
                    "class=\"reign\"",
                    &format!("node {node} coordinates"),
                );
            }
        }
    }

    /// When a node coordinated: from each election that it won to the next one, or to its own failure.
    fn reigns(&self, node: NodeId) -> Vec<(f64, f64)> {
        let elections = &self.report.elections;
        let won = elections.iter().enumerate().filter(|(_, election)| election.coordinator() == node);
        won.map(|(position, election)| {
            let next = elections.get(position + 1).map_or(self.end_s, |next| next.at_s);
            let own =
                self.report.failures.iter().filter(|failure| failure.node == node && failure.from_s >= election.at_s);
            (election.at_s, own.map(|failure| failure.from_s).fold(next, f64::min))
        })
        .collect()
    }

    fn marks(&mut self) {
        for election in self.report.elections.clone().iter().filter(|election| election.at_s >= 0.0) {
            let x = self.x(election.at_s);
            self.line((x, THROUGHPUT.top - 2.0), (x, self.lanes_bottom()), "election");
            let label = format!("term {}: node {}", election.result.coordinator.term, election.coordinator());
            // Near the right edge the label stands on the left of its line.
            let (at, class) =
                if x > RIGHT - 110.0 { (x - 4.0, "election-label end") } else { (x + 4.0, "election-label") };
            self.text(at, THROUGHPUT.top + 10.0, class, &label);
        }
    }

    fn time_axis(&mut self) {
        let bottom = self.lanes_bottom();
        let step = nice_ceiling(self.end_s / 12.0).max(1.0);
        let mut at = 0.0;
        while at <= self.end_s {
            let x = self.x(at);
            self.line((x, bottom), (x, bottom + 5.0), "axis");
            self.text(x, bottom + 19.0, "tick middle", &short(at));
            at += step;
        }
        self.line((LEFT, bottom), (RIGHT, bottom), "axis");
        self.text((LEFT + RIGHT) / 2.0, bottom + 36.0, "tick middle", "seconds since the load began");
    }
}

/// The next of 1, 2, 4, 5, 8, 10 times a power of ten.
fn nice_ceiling(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    steps.iter().map(|step| step * power).find(|nice| *nice >= value * 0.999_999).unwrap_or(power * 10.0)
}

fn short(value: f64) -> String {
    if value.fract().abs() < 1e-9 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Text as it may stand in HTML and SVG, in attributes too.
pub fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::report::tests::fixed;

    #[test]
    fn the_picture_has_a_band_per_failure_a_mark_per_election_and_closed_elements() {
        let svg = chart(&fixed());
        assert_eq!(svg.matches("class=\"band\"").count(), 1);
        assert_eq!(svg.matches("class=\"election\"").count(), 1, "the first election lies before the load");
        assert!(svg.contains(">node 1 failed</text>") && svg.contains(">term 2: node 2</text>"));
        for element in ["rect", "text", "svg", "pattern"] {
            let opened = svg.matches(&format!("<{element} ")).count();
            let closed = svg.matches(&format!("</{element}>")).count();
            // The one rectangle inside the pattern closes itself.
            let closes_itself = usize::from(element == "rect");
            assert_eq!(opened, closed + closes_itself, "{element}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn a_run_without_an_answer_still_gives_a_picture() {
        let mut report = fixed();
        (report.timeline, report.failures, report.elections) = (vec![], vec![], vec![]);
        assert!(!chart(&report).contains("NaN"));
    }

    #[test]
    fn the_axis_steps_are_round() {
        assert_eq!([0.0, 0.7, 1.0, 1.3, 2.2, 310.0, 999.0].map(nice_ceiling), [1.0, 0.8, 1.0, 2.0, 4.0, 400.0, 1000.0]);
    }
}
