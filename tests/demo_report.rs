//! The demo as people and programs use it: it runs, its report has the promised form, its exit codes are the documented ones, and
//! whatever happens to it, no node and no directory stays behind.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "common/wait.rs"]
mod wait;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use wait::eventually_within;

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("tmp")).unwrap();
        Place { directory }
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    /// A demo whose temporary directory and working directory lie in this place.
    fn demo(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(&["--seed", "7"]);
        command.args(arguments);
        command
    }

    /// The tour, in this place.
    fn tour(&self) -> Command {
        self.program(&["tour"])
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command
            .args(arguments)
            .arg("--out")
            .arg(self.out())
            .env("TMPDIR", self.directory.path().join("tmp"))
            .env_remove("RUST_LOG")
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn report(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.out().join("report.json")).unwrap()).unwrap()
    }

    /// The secrets of the cluster that runs here.
    fn secrets(&self) -> Vec<String> {
        let cluster = fs::read_dir(self.directory.path().join("tmp")).unwrap().next().unwrap().unwrap().path();
        let read = |name| fs::read_to_string(cluster.join("data/cluster").join(name)).unwrap();
        let last_line = |text: String| text.lines().last().unwrap().to_owned();
        let secrets: Vec<String> = ["cluster.key", "admin.token"].map(|name| last_line(read(name))).into();
        assert!(secrets.iter().all(|secret| secret.len() >= 32));
        secrets
    }

    /// Node processes whose command line names this place.
    fn nodes(&self) -> usize {
        let mark = self.directory.path().display().to_string();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.contains("__node") && line.contains(&mark)).count()
    }

    fn assert_nothing_is_left(&self) {
        wait_for("every node ends", || self.nodes() == 0);
        let directory = self.directory.path().join("tmp");
        wait_for("the temporary directory is removed", || fs::read_dir(&directory).unwrap().count() == 0);
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_within(DEADLINE, what, || condition().then_some(()));
}

fn told(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A demo that is ended with the test.
struct Running(Option<Child>);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(Some(command.spawn().unwrap()))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.0.as_ref().unwrap()), signal).unwrap();
    }

    fn output(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_run_answers_everything_reports_in_the_form_of_the_schema_and_leaves_nothing_behind() {
    let place = Place::new();
    let more = ["--clients", "8", "--requests", "60", "--op", "mix", "--threshold", "success_rate>=1"];
    let output = place.demo(&more).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("seed 7 "), "the seed is printed first: {text}");
    for line in
        ["Total requests                       480", "Successful requests                  480", "[COORDINATOR]"]
    {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    assert!(fs::read_to_string(place.out().join("report.txt")).unwrap() == text, "report.txt is what was printed");

    let report = place.report();
    let faults = faults(&report_schema(), &report);
    assert!(faults.is_empty(), "{}", faults.join("\n"));

    assert_eq!(report["metrics"]["success_rate"], 1.0);
    assert_eq!(report["verification"]["checked"], 480);
    assert_eq!(report["by_operation"]["seal"]["count"], 240);
    assert_eq!(report["failures"][0]["was_coordinator"], true);
    assert!(
        report["failures"][0]["recovery"].is_object(),
        "the run waits for the last recovery: {}",
        report["failures"]
    );
    assert!(report["elections"].as_array().unwrap().len() >= 2, "{}", report["elections"]);
    for name in ["report.html", "latency.hgrm", "run.hlog", "events.jsonl", "node-1.log"] {
        assert!(fs::metadata(place.out().join(name)).unwrap().len() > 0, "{name}");
    }
    place.assert_nothing_is_left();
}

#[test]
fn readers_who_race_through_failures_overspend_nothing_and_lose_nothing() {
    let place = Place::new();
    let output = place.demo(&["--clients", "8", "--requests", "60", "--op", "share"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let report = place.report();
    let faults = faults(&report_schema(), &report);
    assert!(faults.is_empty(), "{}", faults.join("\n"));

    let rights = |name: &str| report["rights"][name].as_u64().unwrap();
    for name in ["overspent", "lost", "refused_wrongly", "unanswered", "broken_chains", "revoked", "burnt", "leased"] {
        assert_eq!(rights(name), 0, "{name}: {}", report["rights"]);
    }
    assert_eq!(rights("images"), 12, "two owners, six images each");
    assert_eq!(rights("granted"), rights("left") + rights("spent"));
    assert!(rights("spent") > 0 && rights("refused") > 0, "{}", report["rights"]);
    let count = |name: &str| report["by_operation"][name]["count"].as_u64().unwrap();
    assert_eq!((count("seal"), count("view"), count("refusal")), (12, rights("spent"), rights("refused")));
    assert_eq!(count("seal") + count("view") + count("refusal"), 480);
    assert_eq!(report["verification"]["checked"], 12 + rights("spent"), "every released key has opened its picture");
    assert_eq!(report["failures"][0]["was_coordinator"], true);
    assert!(text.contains("Rights: 12 images, ") && text.contains(" 0 overspent, 0 lost; "), "{text}");
    assert!(fs::read_to_string(place.out().join("report.html")).unwrap().contains("0 overspent, 0 lost"));
    place.assert_nothing_is_left();
}

#[test]
fn the_tour_tells_its_story_with_pictures_and_leaves_nothing_behind() {
    let place = Place::new();
    let output = place.tour().output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let picture = |name: &str| fs::read(place.out().join(name)).unwrap();
    for opened in ["3-bob-opens.jpg", "5-bob-opens-again.jpg", "9-bob-offline.jpg"] {
        assert!(picture(opened) == picture("1-photo.jpg"), "{opened} is the photograph, byte for byte");
    }
    for denied in ["4-bob-denied.png", "6-carol-denied.png", "7-mallory-denied.png"] {
        assert!(picture(denied) == picture("2-sealed.png"), "{denied} is what everybody sees");
    }
    assert!(picture("8-changed.png") != picture("2-sealed.png"));
    let text = String::from_utf8(output.stdout).unwrap();
    let page = fs::read_to_string(place.out().join("index.html")).unwrap();
    let pictures = ["1-photo.jpg", "2-sealed.png", "3-bob-opens.jpg", "8-changed.png", "9-bob-offline.jpg"];
    for told in [text, page] {
        let places = pictures.map(|name| told.find(name).unwrap_or_else(|| panic!("{name} is missing in\n{told}")));
        assert!(places.is_sorted(), "{told}");
        assert!(told.contains("all views of this image are spent") && told.contains("header was altered"), "{told}");
    }
    place.assert_nothing_is_left();
}

#[test]
fn a_tour_that_is_killed_or_interrupted_leaves_no_node_no_key_and_no_directory() {
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let place = Place::new();
        let tour = Running::start(&mut place.tour());
        wait_for("nodes start", || place.nodes() > 0);
        tour.signal(signal);
        let output = tour.output();
        assert_eq!(output.status.code(), code, "{}", told(&output));
        place.assert_nothing_is_left();
    }
}

#[test]
fn the_validator_finds_faults() {
    let schema = serde_json::json!({"$ref": "#/$defs/metrics", "$defs": report_schema()["$defs"]});
    let faults = |metrics: Value| faults(&schema, &metrics).len();
    let right = serde_json::json!({"success_rate": 1, "requests_per_sec": 2.5, "latency_ms": null});
    assert_eq!(faults(right.clone()), 0);
    for (key, value) in [("success_rate", Value::from(1.5)), ("latency_ms", Value::from(3)), ("more", Value::from(1))] {
        let mut wrong = right.clone();
        wrong[key] = value;
        assert_eq!(faults(wrong), 1, "{key}");
    }
    assert_eq!(faults(serde_json::json!({"success_rate": 1})), 2);
}

#[test]
fn a_missed_threshold_exits_with_99_and_keeps_the_report() {
    let place = Place::new();
    let more =
        ["--clients", "2", "--requests", "3", "--failures", "none", "--verify", "2", "--threshold", "max<0.001ms"];
    let output = place.demo(&more).output().unwrap();
    assert_eq!(output.status.code(), Some(99), "{}", told(&output));
    let report = place.report();
    assert_eq!((&report["thresholds"][0]["ok"], &report["verification"]["checked"]), (&false.into(), &2.into()));
    place.assert_nothing_is_left();
}

#[test]
fn ctrl_c_during_the_load_ends_with_130_and_a_partial_report() {
    let place = Place::new();
    let demo = Running::start(&mut place.demo(&["--failures", "none", "--requests", "100000", "--op", "label"]));
    wait_for("nodes start", || place.nodes() == 3);
    let log = place.out().join("node-1.log");
    wait_for("the load begins", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("Active")
    });
    demo.signal(Signal::INT);
    let output = demo.output();
    // Between the first election and the first request an interrupt leaves nothing to report.
    assert_eq!(output.status.code(), Some(130), "{}", told(&output));
    if place.out().join("report.json").exists() {
        assert_eq!(place.report()["run"]["partial"], true);
    }
    place.assert_nothing_is_left();
}

#[test]
fn a_demo_that_is_killed_leaves_no_node_and_no_directory() {
    let place = Place::new();
    let demo = Running::start(&mut place.demo(&["--failures", "none"]));
    wait_for("nodes start", || place.nodes() == 3);
    demo.signal(Signal::KILL);
    assert!(!demo.output().status.success());
    place.assert_nothing_is_left();
}

#[test]
fn a_second_demo_attaches_to_the_cluster_that_the_first_one_keeps() {
    let (first_place, second_place) = (Place::new(), Place::new());
    let more = ["--clients", "2", "--requests", "2", "--failures", "none", "--keep-running"];
    let first = Running::start(&mut first_place.demo(&more));
    wait_for("the first report is written", || first_place.out().join("events.jsonl").exists());
    let report = first_place.report();
    let addresses: Vec<&str> =
        report["nodes"].as_array().unwrap().iter().map(|node| node["address"].as_str().unwrap()).collect();

    let attach = addresses.join(",");
    let more = ["--attach", &attach, "--clients", "3", "--requests", "5", "--op", "label"];
    let output = second_place.demo(&more).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let second = second_place.report();
    assert_eq!(second["totals"]["successful"], 15);
    assert_eq!(second["run"]["failures"], "none", "an attached cluster is never failed unasked");
    let repeats: u64 =
        second["nodes"].as_array().unwrap().iter().map(|node| node["repeats_answered"].as_u64().unwrap()).sum();
    assert_eq!(repeats, 0, "one seed in two runs must not meet the cache of request ids");

    // What is reported may be shown to anybody: no secret of the cluster is in it.
    let secrets = first_place.secrets();
    for out in [first_place.out(), second_place.out()] {
        for file in fs::read_dir(out).unwrap() {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let found =
                secrets.iter().any(|secret| bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
            assert!(!found, "a secret is in {}", path.display());
        }
    }

    first.signal(Signal::INT);
    let output = first.output();
    assert_eq!(output.status.code(), Some(0), "Ctrl-C after the report is the normal end: {}", told(&output));
    first_place.assert_nothing_is_left();
}

#[test]
fn what_cannot_work_is_told_on_one_line_with_its_exit_code() {
    let table: [(&[&str], i32, &str); 5] = [
        (&["--threshold", "p95<250"], 2, "no unit"),
        (&["--attach", "127.0.0.1:9", "--cluster-key", "no/such.key"], 2, "--cluster-key"),
        (&["--images", "no/such/directory"], 2, "--images no/such/directory"),
        (&["--rate", "0"], 2, "--rate 0"),
        (&["--keep-running", "--exit"], 2, "--exit"),
    ];
    for (arguments, code, reason) in table {
        let place = Place::new();
        let output = place.demo(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", told(&output));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(reason) && !error.contains("panicked"), "{arguments:?}: {error}");
        place.assert_nothing_is_left();
    }
}

fn report_schema() -> Value {
    serde_json::from_str(include_str!("../docs/report.schema.json")).unwrap()
}

/// What is wrong with a value.
fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let validator = jsonschema::draft202012::new(schema).unwrap();
    validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}

/// The schema's own file is where the documentation says.
#[test]
fn the_schema_promises_the_stable_block() {
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/report.schema.json").exists());
    let schema: Value = serde_json::from_str(include_str!("../docs/report.schema.json")).unwrap();
    let required = |pointer: &str| {
        let mut names: Vec<String> = serde_json::from_value(schema.pointer(pointer).unwrap().clone()).unwrap();
        names.sort();
        names.join(" ")
    };
    assert_eq!(required("/$defs/metrics/required"), "latency_ms requests_per_sec success_rate");
    assert_eq!(required("/$defs/latency_ms/required"), "max mean min p50 p90 p95 p99 p999");
}
