//! What the benchmarks of whole programs share: their numbers from the command line, order statistics, the machine's state.

use std::str::FromStr;

/// The value after `--name` on the command line, or the default.
pub fn argument<T: FromStr>(name: &str, default: T) -> T {
    let Some(text) = std::env::args().skip_while(|word| word != name).nth(1) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name} \"{text}\" is not a number"))
}

/// Prints the help if it was asked for; says whether it was.
pub fn helped(help: &str) -> bool {
    let asked = std::env::args().any(|word| word == "--help" || word == "-h");
    if asked {
        println!("{help}");
    }
    asked
}

/// The value below which this share of the samples lies (nearest rank).
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((share * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1]
}

/// A target and whether it was met.
pub fn verdict(target: &str, is_met: impl FnOnce() -> bool) -> String {
    format!("target {target}: {}", if is_met() { "ok" } else { "MISSED" })
}

/// Resident memory of a process.
#[allow(dead_code, reason = "not every benchmark looks at memory")]
pub fn memory_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// One line about the machine, because other work on it makes every figure worse.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{cores} cores, load before: {}", load.split(' ').next().unwrap_or("unknown"))
}
