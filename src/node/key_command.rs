//! `cloud-node key`: the cluster's keys on disk, and what to do after a change of them.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use ::time::OffsetDateTime;

use super::options::NodeError;
use crate::config::secrets::bundles;
use crate::config::secrets::key_ring::{self, KeyState, Retirement};
use crate::id::KeyId;

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// One directory of secrets, which the nodes of one machine share.
    Directory(PathBuf),
    /// What `cloud-node init --out` made: the operator's directory, and a bundle for each node.
    Bundles(PathBuf),
}

impl KeyPlace {
    fn directory(&self) -> PathBuf {
        match self {
            KeyPlace::Directory(path) => path.clone(),
            KeyPlace::Bundles(out) => bundles::operator(out),
        }
    }
}

/// Makes a new current key; says what to do next.
///
/// # Errors
/// There is no key to rotate, or a file cannot be used.
pub fn rotate(place: &KeyPlace) -> Result<String, NodeError> {
    let new = key_ring::rotate(&place.directory())?;
    let mut text =
        format!("Made the cluster key {new}: images are locked under it from now on. Old images still open.\n");
    text += &give_to_nodes(place, "it refuses images under a key that it does not have")?;
    Ok(text)
}

/// Takes an old key out of use; says what to do next.
///
/// # Errors
/// The key is the current one or none of this cluster's, or a file cannot be used.
pub fn retire(place: &KeyPlace, id: KeyId) -> Result<String, NodeError> {
    let done = key_ring::retire(&place.directory(), id)?;
    let mut text = match done {
        Retirement::Done(kept) => format!(
            "Retired the cluster key {id}: no image that is locked under it opens any more.\n\
             The key itself is now {}, which no node reads: keep it elsewhere, or delete it to make that final.\n",
            kept.display()
        ),
        Retirement::Before => format!("The cluster key {id} was retired before.\n"),
    };
    // Copies may be missing even so: a repeated command ends what an interrupted one began.
    text += &give_to_nodes(place, "it still opens images under the retired key, and locks new ones under its own")?;
    Ok(text)
}

/// The keys, one to a line: id, state, dates.
///
/// # Errors
/// There are none, or a file cannot be used.
pub fn list(place: &KeyPlace) -> Result<String, NodeError> {
    let mut text = String::from("key               state    made                  retired\n");
    for key in key_ring::list(&place.directory())? {
        let (id, made) = (key.id, date(key.made_ms));
        let _ = match key.state {
            KeyState::Current => writeln!(text, "{id}  current  {made}"),
            KeyState::Old => writeln!(text, "{id}  old      {made}"),
            KeyState::Retired(at) => writeln!(text, "{id}  retired  {made}  {}", date(at)),
        };
    }
    Ok(text)
}

fn give_to_nodes(place: &KeyPlace, meanwhile: &str) -> Result<String, NodeError> {
    Ok(match place {
        KeyPlace::Directory(path) => format!(
            "Nodes that have their secrets in {} follow by themselves, with the next image. Give old-keys.toml and then cluster.key to \
             each node that has a directory of its own (--data or --secrets); until then {meanwhile}.\n",
            path.display()
        ),
        KeyPlace::Bundles(out) => {
            let given = bundles::spread_keys(out)?;
            let mut text =
                String::from("Copy old-keys.toml and then cluster.key of each bundle to its machine, in this order:\n");
            for bundle in given {
                let _ = writeln!(text, "  {}", on_its_machine(&bundle));
            }
            let _ = writeln!(
                text,
                "Each node follows by itself, with the next image; until its copy has come {meanwhile}."
            );
            text
        }
    })
}

fn on_its_machine(bundle: &Path) -> String {
    let name = bundle.file_name().unwrap_or_default().to_string_lossy();
    format!("{}  to the directory {name} of its machine", bundle.display())
}

/// `2026-11-21 17:49 UTC`.
fn date(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_or_else(
        |_| "unknown".to_owned(),
        |at| {
            format!("{}-{:02}-{:02} {:02}:{:02} UTC", at.year(), u8::from(at.month()), at.day(), at.hour(), at.minute())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClusterConfig;
    use crate::config::secrets::bundles::Occasion;
    use crate::config::secrets::{of_bundle, read_cluster_keys};

    #[test]
    fn bundles_get_the_keys_and_the_text_says_where_they_go() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("secrets");
        let nodes = ClusterConfig::default().nodes;
        bundles::make(&out, &nodes, Occasion::Create).unwrap();
        let first = of_bundle(&out.join("node-2"), crate::id::NodeId(2)).unwrap().cluster_key;
        let place = KeyPlace::Bundles(out.clone());
        let text = rotate(&place).unwrap();
        assert!(
            text.contains("Old images still open") && text.contains("secrets/node-3  to the directory node-3"),
            "{text}"
        );
        for node in ["operator", "node-1", "node-2", "node-3"] {
            let keys = read_cluster_keys(&out.join(node).join("cluster.key")).unwrap();
            assert_eq!(keys.old, std::slice::from_ref(&first), "{node}");
        }
        let text = retire(&place, first.id()).unwrap();
        assert!(text.contains("operator/retired-") && text.contains("delete it"), "{text}");
        let keys = read_cluster_keys(&out.join("node-3/cluster.key")).unwrap();
        assert_eq!((keys.old.len(), keys.retired), (0, [first.id()].into()));
        assert!(retire(&place, first.id()).unwrap().contains("was retired before"));
        assert!(retire(&place, keys.current.id()).unwrap_err().is_usage());

        // A bundle that is made later has them too.
        bundles::make(&out, &nodes[..1], Occasion::Add).unwrap();
        assert!(out.join("node-1/old-keys.toml").exists());
        let text = list(&place).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with(&format!("{}  current  2", keys.current.id())), "{text}");
        assert!(lines[2].starts_with(&format!("{}  retired  2", first.id())) && lines[2].ends_with("UTC"), "{text}");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(1_795_283_340_000), "2026-11-21 17:49 UTC");
        assert_eq!(date(u64::MAX), "unknown");
    }
}
