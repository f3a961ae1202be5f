//! The run directory: its name, its files, and `runs/latest`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::demo::record::Record;
use crate::demo::report::{Report, hdr, html, json, text};
use crate::demo::statistics::Statistics;
use crate::protocol::event::Event;

/// Where runs go that are not given a directory.
const RUNS: &str = "runs";

/// The files of every complete or partial report, in the order in which they are listed.
pub const FILES: [&str; 6] = ["report.html", "report.txt", "report.json", "latency.hgrm", "run.hlog", "events.jsonl"];

/// The name of a run: when it began (UTC) and four digits that tell runs of one second apart.
pub fn run_id(unix_ms: u64, process: u32) -> String {
    let digest = blake3::hash(format!("{unix_ms} {process}").as_bytes()).to_hex();
    let (year, month, day) = civil_from_days(unix_ms / 86_400_000);
    let seconds = unix_ms / 1000 % 86_400;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}-{}", &digest[..4])
}

/// A moment as people read it, in UTC.
pub fn moment(unix_ms: u64) -> String {
    let (year, month, day) = civil_from_days(unix_ms / 86_400_000);
    let (seconds, millis) = (unix_ms / 1000 % 86_400, unix_ms % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03} UTC")
}

/// Days since 1970 as a date of the Gregorian calendar, by Howard Hinnant's "chrono-compatible low-level date algorithms".
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Makes the directory of a run: the named one, or one of its own under `runs/`, to which `runs/latest` then points.
///
/// # Errors
/// It cannot be made; the text names it and the flag.
pub fn create(named: Option<&Path>, run_id: &str) -> Result<PathBuf> {
    let directory = named.map_or_else(|| Path::new(RUNS).join(run_id), Path::to_path_buf);
    fs::create_dir_all(&directory).with_context(|| {
        format!("cannot make the run directory {}; choose another with --out DIR", directory.display())
    })?;
    if named.is_none() {
        point_latest(Path::new(RUNS), run_id);
    }
    Ok(directory)
}

/// Replaces the link in one step, so that there is one at any time. A file system without links goes without it.
fn point_latest(runs: &Path, run_id: &str) {
    let fresh = runs.join(format!(".latest-{run_id}"));
    let made = std::os::unix::fs::symlink(run_id, &fresh).and_then(|()| fs::rename(&fresh, runs.join("latest")));
    if let Err(error) = made {
        log::warn!("cannot point {}/latest at this run: {error}", runs.display());
        let _ = fs::remove_file(fresh);
    }
}

/// Writes all files of the report.
///
/// # Errors
/// A file cannot be written; the text names it.
pub fn write(
    directory: &Path,
    report: &Report,
    statistics: &Statistics,
    records: &[Record],
    events: &[Event],
) -> Result<()> {
    let hlog = hdr::hlog(records, report.run.started_unix_ms).map_err(anyhow::Error::msg).context("run.hlog")?;
    let mut lines = String::new();
    for event in events {
        writeln!(lines, "{}", serde_json::to_string(event)?)?;
    }
    let contents: [Vec<u8>; FILES.len()] = [
        html::html(report).into(),
        text::page(report).into(),
        json::json(report).into(),
        hdr::hgrm(&statistics.all).into(),
        hlog,
        lines.into(),
    ];
    for (name, content) in FILES.iter().zip(contents) {
        let path = directory.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_after_its_moment_in_utc() {
        let named = |unix_ms| run_id(unix_ms, 1)[..15].to_owned();
        assert_eq!(named(0), "19700101-000000");
        assert_eq!(named(951_782_399_000), "20000228-235959");
        assert_eq!(named(951_782_400_000), "20000229-000000");
        assert_eq!(named(1_795_230_886_000), "20261121-031446");
        assert_ne!(run_id(0, 1), run_id(0, 2));
        assert_eq!(moment(1_795_230_886_007), "2026-11-21 03:14:46.007 UTC");
    }

    #[test]
    fn latest_points_at_the_last_run_and_moves() {
        let runs = tempfile::tempdir().unwrap();
        for id in ["a", "b"] {
            fs::create_dir(runs.path().join(id)).unwrap();
            point_latest(runs.path(), id);
            assert_eq!(fs::read_link(runs.path().join("latest")).unwrap(), Path::new(id));
        }
        assert_eq!(fs::read_dir(runs.path()).unwrap().count(), 3, "no temporary link stays");
    }
}
