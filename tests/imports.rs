//! The promise: imports point downwards only, each framework is named in one place, and the cores stay pure.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which of the crate's own top-level modules each may import besides itself.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let bottom = vec!["id", "time"];
    let with = |lower: &[&'static str], more: &[&'static str]| [lower, more].concat();
    let pure = with(&bottom, &["protocol"]);
    let middle = with(&pure, &["core", "image", "identity", "config", "scheduling"]);
    let node = with(&middle, &["http", "transport", "raft"]);
    let client = middle.clone();
    let demo = with(&node, &["node", "client"]);
    BTreeMap::from([
        ("id", vec![]),
        ("time", vec![]),
        ("scheduling", vec![]),
        ("protocol", bottom),
        ("core", pure.clone()),
        ("image", pure.clone()),
        ("identity", pure.clone()),
        ("config", pure),
        ("raft", middle.clone()),
        ("transport", middle.clone()),
        ("http", middle),
        ("node", node),
        ("client", client),
        ("demo", demo),
    ])
}

/// Crates and calls that belong in one place, with the places.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("openraft::", &["raft"]),
    ("bincode::", &["protocol/codec.rs"]),
    ("actix_web::", &["http"]),
    ("actix_http::", &["http"]),
    ("actix_service::", &["http"]),
    ("actix::", &["node", "demo", "http"]),
    ("reqwest::", &["client"]),
    ("rcgen::", &["config/secrets/authority.rs"]),
    ("tokio_rustls::", &["transport/tls.rs"]),
    ("indicatif::", &["client", "demo"]),
    ("hdrhistogram::", &["demo"]),
    ("sysinfo::", &["node", "demo"]),
    ("thread_priority::", &["scheduling.rs"]),
    ("toml::", &["config", "demo", "node/data_dir.rs"]),
    ("png::", &["image"]),
    ("rustls::crypto::hpke", &["identity"]),
    ("Instant::now", &["time.rs"]),
    ("SystemTime::now", &["time.rs"]),
];

/// What no core, image or protocol code may name: clocks, runtimes, frameworks, the file system, the network.
const IMPURE: &[&str] = &[
    "tokio",
    "actix",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "rand::rng",
    "SysRng",
    "aws_lc_rs::rand",
    "crate::time::now",
];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Path below `src/`, and the code without comments, doc comments and what follows the test module.
fn code() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    assert!(files.len() > 20, "the sources were not found below {}", root.display());
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code = before_tests.lines().map(|line| line.split("//").next().unwrap());
        (name, code.collect::<Vec<_>>().join("\n"))
    };
    let is_test = |name: &str| name.ends_with("tests.rs") || name.contains("/tests/");
    files.into_iter().map(read).filter(|(name, _)| !is_test(name)).collect()
}

fn module_of(name: &str) -> &str {
    name.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Every `crate::module` in the code, also inside `use crate::{a, b::c}`.
fn own_imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in code.split("crate::").skip(1) {
        if let Some(list) = part.strip_prefix('{') {
            let mut depth = 1;
            let mut name = String::new();
            for character in list.chars() {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                if depth == 1 && character == ',' {
                    found.push(std::mem::take(&mut name));
                } else if depth == 1 {
                    name.push(character);
                }
            }
            found.push(name);
        } else {
            found.push(part.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect());
        }
    }
    let first = |name: String| name.trim().split("::").next().unwrap_or_default().to_owned();
    found.into_iter().map(first).filter(|name| !name.is_empty()).collect()
}

fn names(code: &str, word: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back().is_some_and(is_word);
        let after = code[start + word.len()..].chars().next().is_some_and(is_word);
        !before && (word.ends_with(':') || !after)
    })
}

#[test]
fn imports_point_downwards_only() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for (name, code) in code() {
        let module = module_of(&name);
        if module == "lib" || module == "bin" {
            continue;
        }
        let lower = allowed.get(module).unwrap_or_else(|| panic!("{module} is not in the table of tests/imports.rs"));
        for import in own_imports(&code) {
            if import != module && allowed.contains_key(import.as_str()) && !lower.contains(&import.as_str()) {
                wrong.push(format!("src/{name} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point upwards or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn cores_do_not_import_one_another() {
    let mut wrong = Vec::new();
    let core_of = |name: &str| Some(module_of(name.strip_prefix("core/")?).to_owned());
    let cores: BTreeSet<String> = code().iter().filter_map(|(name, _)| core_of(name)).collect();
    assert!(cores.contains("election") && cores.contains("membership"), "{cores:?}");
    for (name, code) in code() {
        let Some(own) = core_of(&name) else { continue };
        for other in code.split("core::").skip(1) {
            let other: String =
                other.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect();
            if cores.contains(&other) && other != own {
                wrong.push(format!("src/{name} imports core::{other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn frameworks_and_clocks_are_named_in_one_place_each() {
    let mut wrong = Vec::new();
    for (name, code) in code() {
        for (word, places) in ONLY_IN {
            let at_home = places.iter().any(|place| name == *place || name.starts_with(&format!("{place}/")));
            if !at_home && !name.starts_with("bin/") && names(&code, word) {
                wrong.push(format!("src/{name} names {word}, which belongs in {}", places.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn cores_images_and_protocol_are_pure() {
    let mut wrong = Vec::new();
    for (name, code) in code() {
        if ["core", "image", "identity", "protocol"].contains(&module_of(&name)) {
            wrong
                .extend(IMPURE.iter().filter(|word| names(&code, word)).map(|word| format!("src/{name} names {word}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// People cite invariants and rules by their numbers, so each number is one.
#[test]
fn each_invariant_has_a_number_of_its_own() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let section = page.split("\n## Invariants\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let numbers: Vec<usize> =
        section.lines().filter_map(|line| line.split_once(". ").and_then(|(number, _)| number.parse().ok())).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
    assert!(numbers.len() > 20, "{}", numbers.len());
}

/// The test itself must be able to fail.
#[test]
fn the_reader_of_imports_sees_what_it_should() {
    let code = "use crate::{id::NodeId, raft::{self, RaftNode}};\nuse crate::time;\nlet x = crate::node::run();";
    assert_eq!(own_imports(code), ["id", "raft", "time", "node"]);
    assert!(names("use tokio::sync", "tokio") && !names("openraft_rt_tokio", "tokio"));
}
