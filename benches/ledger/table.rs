//! Medians of all rounds side by side, the ratio to etcd beside its target. A ratio of two systems is the median of the rounds' ratios:
//! what a machine is worth changes from minute to minute where others share it, for both sides of one round alike.

use std::collections::BTreeMap;
use std::fmt;

use crate::load::Figures;
use crate::servers::System;
use crate::support::{quantile, verdict};

/// A line: row, its words, the figure, and how ours must stand to theirs, as must and as goal.
type Line = (&'static str, &'static str, fn(&Figures) -> f64, Option<Target>);

enum Target {
    AtLeast(f64, f64),
    AtMost(f64, f64),
}

use Target::{AtLeast, AtMost};

const LINES: [Line; 21] = [
    ("put-1", "durable puts/s, 1 client", per_second, None),
    ("put-16", "durable puts/s, 16 clients", per_second, None),
    ("put-64", "durable puts/s, 64 clients", per_second, Some(AtLeast(2.0, 3.0))),
    ("put-256", "durable puts/s, 256 clients", per_second, Some(AtLeast(2.0, 3.0))),
    ("put-1", "p50 of a put in ms, 1 client", p50, Some(AtMost(0.7, 0.5))),
    ("put-16", "p50 of a put in ms, 16 clients", p50, None),
    ("put-64", "p50 of a put in ms, 64 clients", p50, None),
    ("put-256", "p50 of a put in ms, 256 clients", p50, None),
    ("put-1", "server CPU s per 10,000 puts, 1 client", Figures::cpu_per_10k, Some(AtMost(1.0 / 3.0, 0.25))),
    ("put-16", "server CPU s per 10,000 puts, 16 clients", Figures::cpu_per_10k, Some(AtMost(1.0 / 3.0, 0.25))),
    ("put-64", "server CPU s per 10,000 puts, 64 clients", Figures::cpu_per_10k, Some(AtMost(0.5, 1.0 / 3.0))),
    ("put-256", "server CPU s per 10,000 puts, 256 clients", Figures::cpu_per_10k, Some(AtMost(0.5, 1.0 / 3.0))),
    ("put-256", "MiB per node (the largest), loaded", |figures| figures.memory_mib, Some(AtMost(1.0 / 3.0, 0.25))),
    ("hot-16", "decrements/s of one counter, 16 clients", per_second, Some(AtLeast(30.0, 30.0))),
    ("hot-64", "decrements/s of one counter, 64 clients", per_second, Some(AtLeast(100.0, 100.0))),
    ("hot-64", "tries per decrement, 64 clients", |figures| figures.tries, None),
    ("read-64", "linearizable reads/s, 64 clients", per_second, Some(AtLeast(2.0, 3.0))),
    ("read-64", "server CPU s per 10,000 reads, 64 clients", Figures::cpu_per_10k, None),
    ("view-64", "views/s of one image, 64 readers", per_second, Some(AtLeast(20.0, 20.0))),
    ("view-64", "server CPU s per 10,000 views, 64 readers", Figures::cpu_per_10k, None),
    ("put-256", "client's share of the CPU, 256 clients", Figures::client_share, None),
];

fn per_second(figures: &Figures) -> f64 {
    figures.per_second
}

fn p50(figures: &Figures) -> f64 {
    figures.p50_ms
}

/// All figures of all rounds.
pub struct Table {
    names: Vec<&'static str>,
    /// By system and row, then by round.
    figures: BTreeMap<(usize, &'static str), BTreeMap<usize, Figures>>,
}

impl Table {
    pub fn new(systems: &[System]) -> Table {
        Table { names: systems.iter().map(System::name).collect(), figures: BTreeMap::new() }
    }

    pub fn add(&mut self, round: usize, system: usize, row: &'static str, figures: Figures) {
        self.figures.entry((system, row)).or_default().insert(round, figures);
    }

    /// How our writes stand to ZooKeeper's, where both were measured.
    pub fn print_zookeeper(&self) {
        let Some(zookeeper) = self.names.iter().position(|name| *name == "ZooKeeper") else { return };
        let Some(ratio) = self.ratio(zookeeper, "put-256", per_second) else { return };
        println!("durable puts/s, 256 clients: {ratio:.2} times ZooKeeper's  {}", AtLeast(1.0, 1.3).verdict(ratio));
    }

    /// What a view costs beside a plain write and its public-key work, where both rows were measured. From medians: that work is measured
    /// once.
    pub fn print_view(&self, bare: f64) {
        let cost = |row| self.cell(0, row, Figures::cpu_per_10k).map(|(median, _)| median);
        let (Some(view), Some(put)) = (cost("view-64"), cost("put-64")) else { return };
        let ratio = view / (put + bare);
        println!(
            "server CPU of a view, 64 readers: {ratio:.2} times a plain write ({put:.2}) with one signature check and one key seal \
             ({bare:.2} s per 10,000)  {}",
            AtMost(1.3, 1.3).verdict(ratio)
        );
    }

    /// The median, and the least and the greatest in brackets.
    fn cell(&self, system: usize, row: &'static str, figure: fn(&Figures) -> f64) -> Option<(f64, String)> {
        let rounds: Vec<f64> = self.figures.get(&(system, row))?.values().map(figure).collect();
        let [least, median, greatest] = [0.0, 0.5, 1.0].map(|share| quantile(&rounds, share));
        let text = format!("{} [{}-{}]", short(median), short(least), short(greatest));
        Some((median, text))
    }

    /// How ours stands to that of another system: the median of the rounds in which both were measured.
    fn ratio(&self, system: usize, row: &'static str, figure: fn(&Figures) -> f64) -> Option<f64> {
        let (ours, theirs) = (self.figures.get(&(0, row))?, self.figures.get(&(system, row))?);
        let both = ours.iter().filter_map(|(round, ours)| Some(figure(ours) / figure(theirs.get(round)?)));
        let ratios: Vec<f64> = both.collect();
        (!ratios.is_empty()).then(|| quantile(&ratios, 0.5))
    }
}

fn short(number: f64) -> String {
    match number {
        number if number >= 100.0 => format!("{number:.0}"),
        number if number >= 10.0 => format!("{number:.1}"),
        number => format!("{number:.2}"),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:<42} {:>24}", "", self.names[0])?;
        for name in &self.names[1..] {
            write!(formatter, " {name:>24} {:>7}", "ratio")?;
        }
        writeln!(formatter)?;
        for (row, words, figure, target) in &LINES {
            let Some((_, our_text)) = self.cell(0, row, *figure) else { continue };
            write!(formatter, "{words:<42} {our_text:>24}")?;
            let mut judged = None;
            for (system, name) in self.names.iter().enumerate().skip(1) {
                let their_text = self.cell(system, row, *figure).map(|(_, text)| text).unwrap_or_default();
                match self.ratio(system, row, *figure) {
                    Some(ratio) => {
                        write!(formatter, " {their_text:>24} {ratio:>7.2}")?;
                        if *name == "etcd" {
                            judged = target.as_ref().map(|target| target.verdict(ratio));
                        }
                    }
                    None => write!(formatter, " {their_text:>24} {:>7}", "")?,
                }
            }
            writeln!(formatter, "  {}", judged.unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Target {
    fn verdict(&self, ratio: f64) -> String {
        let (sign, must, goal, is_met) = match *self {
            AtLeast(must, goal) => (">=", must, goal, ratio >= must),
            AtMost(must, goal) => ("<=", must, goal, ratio <= must),
        };
        verdict(&format!("{sign} {must:.2} (goal {goal:.2})"), || is_met)
    }
}
