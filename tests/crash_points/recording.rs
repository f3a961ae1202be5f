//! A recording of what a process did to its files, made by the library in `tests/interposer/`.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::interposer;

/// The file into which the recorded process writes what it is about to do, and what it was told.
pub const MARKS: &str = "marks";

/// What the process did next. Names are below the recorded root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Create(String),
    Write {
        name: String,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        name: String,
        length: usize,
    },
    Sync(String),
    Rename(String, String),
    Remove(String),
    /// A line of the process itself.
    Mark(String),
}

/// Runs a test of this program as a process of its own and records what it does below `root`.
pub fn record(test: &str, root: &Path, environment: &[(&str, String)]) -> Vec<Event> {
    let to = root.with_extension("recording");
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("LD_PRELOAD", interposer::library())
        .env("WATCHED_ROOT", root)
        .env("RECORD_TO", &to)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = || String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the recorded process failed:\n{}", said());
    let events = parse(&std::fs::read(&to).unwrap());
    assert!(!events.is_empty(), "nothing was recorded:\n{}", said());
    events
}

fn parse(mut recording: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while !recording.is_empty() {
        let end = recording.iter().position(|byte| *byte == b'\n').unwrap();
        let line = std::str::from_utf8(&recording[..end]).unwrap();
        recording = &recording[end + 1..];
        let words: Vec<&str> = line.split(' ').collect();
        let name = words[1].to_owned();
        let number = |place: usize| words[place].parse::<usize>().unwrap();
        if words[0] == "write" {
            let (bytes, rest) = recording.split_at(number(3));
            recording = rest;
            events.push(if name == MARKS {
                Event::Mark(std::str::from_utf8(bytes).unwrap().trim_end().to_owned())
            } else {
                Event::Write { name, offset: number(2), bytes: bytes.to_vec() }
            });
            continue;
        }
        if name == MARKS {
            continue;
        }
        events.push(match words[0] {
            "create" => Event::Create(name),
            "truncate" => Event::Truncate { name, length: number(2) },
            "sync" => Event::Sync(name),
            "rename" => Event::Rename(name, words[2].to_owned()),
            "remove" => Event::Remove(name),
            other => panic!("{other}"),
        });
    }
    events
}
