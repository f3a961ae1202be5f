//! No acknowledged write is lost in a power cut, and no vote is forgotten.
//!
//! A process is recorded at the system's boundary (`tests/interposer/`): every write, sync and change of a name, in order, together with
//! what the process was told is done. Each place in a recording is a crash point: what was synced by then stays; what was not is
//! lost, cut off, blank, or there. The directory that this leaves is opened again, and must hold what was acknowledged and nothing that
//! was never written. Then the next process goes on from such a directory, or from that of a killed one, whose unsynced writes are
//! still seen but not safe.
//!
//! `CRASH_POINTS=5000 cargo test --release --test crash_points -- --nocapture` gives the full figure.
#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]
#![expect(clippy::disallowed_methods, reason = "deadlines of tests are real time")]

#[path = "../alone/mod.rs"]
mod alone;
mod disk;
#[path = "../interposer/mod.rs"]
mod interposer;
mod model;
mod node;
mod recording;
mod script;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use disk::{Disk, Fate, Files, is_blank};
use model::{Mark, Possible};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use recording::Event;

const ROOT: &str = "CRASH_POINTS_ROOT";
const SEED: &str = "CRASH_POINTS_SEED";

/// Crash points of one recording.
const POINTS: usize = 120;

/// Recordings of which each goes on where the one before it was ended.
const LIVES: usize = 3;

/// So many operations does a recorded process do.
const OPERATIONS: usize = 120;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn number(name: &str, default: u64) -> u64 {
    let parse = |text: String| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number"));
    std::env::var(name).map_or(default, parse)
}

/// Not tests of their own: the processes that are recorded.
#[test]
fn the_recorded_log() {
    let Ok(root) = std::env::var(ROOT) else { return };
    runtime().block_on(script::run(Path::new(&root), number(SEED, 0), OPERATIONS));
}

#[test]
fn the_recorded_node() {
    let Ok(root) = std::env::var(ROOT) else { return };
    runtime().block_on(node::run(Path::new(&root), number(SEED, 0), OPERATIONS));
}

/// What is known of what must be found.
#[derive(Clone)]
enum Known {
    Log(Possible),
    Node(Vec<String>),
}

impl Known {
    fn test(&self) -> &'static str {
        match self {
            Known::Log(_) => "the_recorded_log",
            Known::Node(_) => "the_recorded_node",
        }
    }

    fn directories(&self) -> &'static [&'static str] {
        match self {
            Known::Log(_) => &script::DIRECTORIES,
            Known::Node(_) => &node::DIRECTORIES,
        }
    }

    /// After a process has written these marks, too.
    fn after(&self, marks: &[&String]) -> Known {
        match self {
            Known::Log(before) => {
                let marks: Vec<Mark> = marks.iter().map(|mark| serde_json::from_str(mark).unwrap()).collect();
                Known::Log(Possible::after(before, &marks))
            }
            Known::Node(before) => Known::Node(before.iter().chain(marks.iter().copied()).cloned().collect()),
        }
    }

    /// Opens the directory and compares.
    async fn check(&self, root: &Path) -> Result<(), String> {
        match self {
            Known::Log(possible) => {
                let (_store, _snapshots, log, snapshot) = script::open(root).await?;
                possible.check(&log, snapshot)
            }
            Known::Node(marks) => node::check(root, marks).await,
        }
    }

    /// Goes on from there.
    async fn go_on(&self, root: &Path) {
        match self {
            Known::Log(_) => {
                let (mut store, _, log, _) = script::open(root).await.unwrap();
                let next = log.last().map_or(0, |id| id.1 + 1);
                let term = log.vote.max(log.last().map(|id| id.0)).unwrap_or(0) + 1;
                store.save_vote(&image_cloud::raft::types::Vote::new(term, script::member())).await.unwrap();
                store.blocking_append([script::entry((term, next))]).await.unwrap();
                drop(store);
                let (_, _, log, _) = script::open(root).await.unwrap();
                assert_eq!((log.vote, log.last()), (Some(term), Some((term, next))));
            }
            Known::Node(_) => node::lead(root).await.shutdown().await,
        }
    }
}

/// A recorded process, from the disk that it found.
struct Life {
    found: Disk,
    before: Known,
    events: Vec<Event>,
}

impl Life {
    fn record(found: Disk, before: Known, seed: u64) -> Life {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().canonicalize().unwrap().join("root");
        disk::write(&root, &found.seen(), before.directories());
        let environment = [(ROOT, root.display().to_string()), (SEED, seed.to_string())];
        let events = recording::record(before.test(), &root, &environment);
        Life { found, before, events }
    }

    /// What is known after so many events.
    fn known(&self, events: usize) -> Known {
        let marks = self.events[..events].iter().filter_map(|event| match event {
            Event::Mark(mark) => Some(mark),
            _ => None,
        });
        let marks: Vec<&String> = marks.collect();
        self.before.after(&marks)
    }

    /// The disk after so many events.
    fn disk(&self, events: usize) -> Disk {
        let mut disk = self.found.clone();
        self.events[..events].iter().for_each(|event| disk.apply(event));
        disk
    }
}

/// What became of the crash points.
#[derive(Default)]
struct Tally {
    points: usize,
    lives: usize,
    syncs: usize,
    fates: Vec<Fate>,
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |fate: Fate| self.fates.iter().filter(|other| **other == fate).count();
        write!(
            formatter,
            "{} crash points of {} recorded processes with {} syncs: {} with everything synced or lost, {} kept, {} cut, {} blank, {} with \
             a hole",
            self.points,
            self.lives,
            self.syncs,
            of(Fate::Lost),
            of(Fate::Kept),
            of(Fate::Cut),
            of(Fate::Blank),
            of(Fate::Hole)
        )
    }
}

fn directory(files: &Files, known: &Known) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("root");
    disk::write(&root, files, known.directories());
    (home, root)
}

/// Goes through crash points of one life, spread evenly; the first that is not survived is told.
fn crash(life: &Life, points: usize, rng: &mut SmallRng, tally: &mut Tally) -> Result<(), String> {
    const FATES: [Fate; 8] =
        [Fate::Lost, Fate::Cut, Fate::Blank, Fate::Lost, Fate::Cut, Fate::Blank, Fate::Hole, Fate::Kept];
    let runtime = runtime();
    tally.lives += 1;
    tally.syncs += life.events.iter().filter(|event| matches!(event, Event::Sync(_))).count();
    let mut last_synced = None;
    let mut disk = life.found.clone();
    let mut applied = 0;
    for point in 0..points {
        let events = (point + 1) * life.events.len() / points;
        life.events[applied..events].iter().for_each(|event| disk.apply(event));
        applied = events;
        let known = life.known(events);
        let fate = if disk.is_synced() { Fate::Lost } else { FATES[point % FATES.len()] };
        if disk.is_synced() && last_synced.replace(events) == Some(events) {
            continue;
        }
        let (_home, root) = directory(&disk.after_power_cut(fate, rng), &known);
        match runtime.block_on(known.check(&root)) {
            Err(error) => {
                let near = &life.events[events.saturating_sub(4)..events];
                let near: Vec<String> =
                    near.iter().map(|event| format!("{event:?}").chars().take(200).collect()).collect();
                return Err(format!("after event {events}, {fate:?}: {error}\nthe last events: {near:#?}"));
            }
            Ok(()) if point % 20 == 0 => runtime.block_on(known.go_on(&root)),
            Ok(()) => {}
        }
        tally.points += 1;
        tally.fates.push(fate);
    }
    Ok(())
}

/// Whatever is done, and wherever the power is cut, the next process finds what was acknowledged.
#[test]
fn what_was_acknowledged_is_found_after_every_crash() {
    let wanted = number("CRASH_POINTS", 1200) as usize;
    let seed = number("SEED", 1);
    let start = Instant::now();
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    for round in 0.. {
        let mut known = if round % 2 == 0 { Known::Log(Possible::nothing_yet()) } else { Known::Node(Vec::new()) };
        let mut found = Disk::default();
        for life in 0..LIVES {
            if tally.points >= wanted {
                println!("SEED={seed}: {tally}; {:.1?}", start.elapsed());
                return;
            }
            let number = seed * 1_000_000 + round * 1000 + life as u64;
            let life = Life::record(found, known, number);
            let points = POINTS.min(wanted - tally.points);
            if let Err(error) = crash(&life, points, &mut rng, &mut tally) {
                panic!("SEED={seed}, round {round}: {error}");
            }
            let end = rng.random_range(life.events.len() / 3..=life.events.len());
            (found, known) = (life.disk(end), life.known(end));
            if rng.random_bool(0.5) {
                found = Disk::holding(&found.after_power_cut(Fate::Cut, &mut rng));
            }
        }
    }
}

/// Syncs by their number and name, and events, with a name for those that are meant.
type Syncs<'a> = (&'static str, &'a dyn Fn(usize, &str) -> bool);
type Events<'a> = (&'static str, &'a dyn Fn(&Event) -> bool);

/// The checks can fail: when a sync is left out of a recording, a crash point finds it.
#[test]
fn a_sync_that_is_left_out_is_found() {
    let life = Life::record(Disk::default(), Known::Log(Possible::nothing_yet()), 7);
    let is_log = |name: &str| name.ends_with(".wal");
    let left_out: [Syncs<'_>; 5] = [
        ("those of the log", &|_, name| is_log(name)),
        ("every fifth of the log", &|place, name| is_log(name) && place % 5 == 0),
        ("those of a new snapshot's content", &|_, name| name == "snapshot/snapshot.new"),
        ("those of a new snapshot's name", &|_, name| name == "snapshot"),
        ("those of the names of new files", &|_, name| name == "log"),
    ];
    for (what, is_left_out) in left_out {
        let mut place = 0;
        let keep = |event: &&Event| {
            let Event::Sync(name) = event else { return true };
            place += 1;
            !is_left_out(place, name)
        };
        let events = life.events.iter().filter(keep).cloned().collect::<Vec<_>>();
        assert!(events.len() < life.events.len(), "there are none: {what}");
        let faulty = Life { found: Disk::default(), before: life.before.clone(), events };
        let found = crash(&faulty, 800, &mut SmallRng::seed_from_u64(1), &mut Tally::default());
        let found = found.expect_err(&format!("nobody missed the syncs: {what}"));
        println!("without {what}: {}", found.lines().next().unwrap());
    }
}

/// A killed process leaves writes that its successor sees though they were never synced. Before it relies on them it must sync them: a
/// vote that is there already is not written again. Without those syncs a power cut takes back what the successor has found.
#[test]
fn what_a_killed_process_left_unsynced_is_synced_before_it_is_relied_on() {
    let first = Life::record(Disk::default(), Known::Log(Possible::nothing_yet()), 13);
    // A frame with an entry: what only says how far the log is committed may be lost, a head is at the beginning, and zeros are no frame.
    let is_log = |event: &Event| match event {
        Event::Write { name, offset, bytes } => {
            name.ends_with(".wal") && *offset > 0 && bytes.len() > 300 && !is_blank(bytes)
        }
        _ => false,
    };
    let is_snapshot = |event: &Event| matches!(event, Event::Rename(..));
    let moments: [Events<'_>; 2] = [("the log", &is_log), ("the snapshot", &is_snapshot)];
    for (what, is_unsynced) in moments {
        let killed_after = first.events.iter().rposition(is_unsynced).unwrap() + 1;
        let second = Life::record(first.disk(killed_after), first.known(killed_after), 14);
        let mut rng = SmallRng::seed_from_u64(1);
        crash(&second, 400, &mut rng, &mut Tally::default()).unwrap();

        let mut has_begun = false;
        let is_kept = |event: &&Event| {
            has_begun |= matches!(event, Event::Mark(_));
            has_begun || !matches!(event, Event::Sync(_))
        };
        // The first sync of the same file makes up for the one that was left out: what comes later shows nothing.
        let events = second.events.iter().filter(is_kept).take(16).cloned().collect();
        let faulty = Life { events, ..second };
        let found = crash(&faulty, 400, &mut rng, &mut Tally::default());
        let found = found.expect_err(&format!("nobody missed the sync of {what}"));
        println!("without the sync of {what}: {}", found.lines().next().unwrap());
    }
}

/// Damage that no crash makes, with a later frame behind it, is refused by name; the file stays as it is.
#[test]
fn damage_in_the_middle_of_the_log_is_refused_and_left_alone() {
    let life = Life::record(Disk::default(), Known::Log(Possible::nothing_yet()), 11);
    let known = life.known(life.events.len());
    let files = life.disk(life.events.len()).seen();
    // The last write to each file, but for zeros ahead of the next frame, is a frame; that one stays whole.
    let mut ends: std::collections::BTreeMap<&String, usize> = Default::default();
    for event in &life.events {
        if let Event::Write { name, offset, bytes } = event
            && files.contains_key(name)
            && name.ends_with(".wal")
            && !is_blank(bytes)
        {
            ends.insert(name, *offset);
        }
    }
    let mut rng = SmallRng::seed_from_u64(3);
    let runtime = runtime();
    let mut damaged = 0;
    for (name, end) in ends.into_iter().filter(|(_, end)| *end > 0) {
        for _ in 0..100 {
            let mut files = files.clone();
            let at = rng.random_range(0..end);
            let content = files.get_mut(name).unwrap();
            content[at] ^= rng.random_range(1..=255u8);
            let content = content.clone();
            let (_home, root) = directory(&files, &known);
            let error = runtime.block_on(script::open(&root)).err();
            let error = error.unwrap_or_else(|| panic!("{name} is damaged at {at}, and was opened"));
            assert!(std::fs::read(root.join(name)).unwrap() == content, "{name}, byte {at}: {error}");
            damaged += 1;
        }
    }
    assert!(damaged >= 200, "{damaged}");
}
