//! A node's data directory: one process at a time, one node for its whole life, and a random incarnation.
//!
//! ```text
//! data/node-1/
//!   lock        held by the running process; its process id
//!   node.toml   format, node id, incarnation
//!   raft/       the Raft adapter's own
//!   raft.begun  this node has voted: a log that is empty now was lost
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{Incarnation, MemberId, NodeId};

/// The layout that this program reads and writes.
const FORMAT: u32 = 5;

const LOCK_FILE: &str = "lock";
const IDENTITY_FILE: &str = "node.toml";
const RAFT_DIRECTORY: &str = "raft";

/// Everything that a node puts into its directory.
const OWN_ENTRIES: [&str; 5] = [LOCK_FILE, IDENTITY_FILE, "node.toml.new", RAFT_DIRECTORY, "raft.begun"];

/// An open data directory. The lock is released when it is dropped, or when the process ends in whatever way.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    member: MemberId,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error("{path} is in use by process {pid}: stop that node first, or start this one with another data directory")]
    AlreadyRunning {
        /// The directory.
        path: PathBuf,
        /// The other process, or `?` where it has not said.
        pid: String,
    },
    /// It was made for another node.
    #[error("{path} belongs to node {id}: start node {id} with it, or give this node a directory of its own")]
    BelongsTo {
        /// The directory.
        path: PathBuf,
        /// Its node.
        id: NodeId,
    },
    /// Something else than a node made it.
    #[error("{path} is not the data directory of a node: it has no {IDENTITY_FILE}; name the right one with --data")]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// There is something in it that no node put there.
    #[error("{path} holds {name}, which is not a node's: move it elsewhere first")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        name: String,
    },
    /// A newer program wrote it.
    #[error(
        "{path} has format {found}, this program knows formats up to {FORMAT}: use the release that wrote it, or a newer one"
    )]
    FormatTooNew {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// An older program wrote it.
    #[error(
        "{path} has format {found}, which this program does not read any more (it reads {FORMAT}): use the release that wrote it, or move \
         the directory away and begin with an empty one"
    )]
    FormatTooOld {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A file is damaged or missing.
    #[error(
        "{path} is damaged ({what}): restore it from a backup, or move the whole directory away and replace this member by a new one"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file system refused.
    #[error("cannot {what} {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// The system gave no random bytes.
    #[error("the system's random generator gave no bytes for the incarnation of {path}")]
    NoRandomness {
        /// The directory.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    node: u16,
    incarnation: String,
}

/// Read before the rest, so that a newer format is not taken for damage.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl DataDir {
    /// Opens the directory of `node`, or makes it. A new directory gets a random incarnation, which is on disk, with the
    /// entries that lead to it, before this returns.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(path: &Path, node: NodeId) -> Result<DataDir, DataDirError> {
        create_directory(path)?;
        let lock = lock(path)?;
        let identity_path = path.join(IDENTITY_FILE);
        let member = match fs::read_to_string(&identity_path) {
            Ok(text) => read_identity(path, &identity_path, &text, node)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.join(RAFT_DIRECTORY).exists() {
                    // A log without an identity must not vote under a new one, nor be deleted.
                    return Err(DataDirError::Corrupt { path: identity_path, what: "it is missing".to_owned() });
                }
                create_identity(path, node)?
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(DataDirError::Corrupt { path: identity_path, what: "it is not text".to_owned() });
            }
            Err(error) => return Err(DataDirError::Io { what: "read", path: identity_path, error }),
        };
        Ok(DataDir { path: path.to_owned(), member, _lock: lock })
    }

    /// Opens the directory of `node` if there is one, and changes nothing in it but the lock.
    ///
    /// # Errors
    /// [`DataDirError`]; [`DataDirError::NotOurs`] without a node's identity in it.
    pub fn open_existing(path: &Path, node: NodeId) -> Result<Option<DataDir>, DataDirError> {
        if !path.try_exists().map_err(|error| DataDirError::Io { what: "look for", path: path.to_owned(), error })? {
            return Ok(None);
        }
        if !path.join(IDENTITY_FILE).is_file() {
            return Err(DataDirError::NotOurs { path: path.to_owned() });
        }
        DataDir::open(path, node).map(Some)
    }

    /// Bytes of all files in it.
    ///
    /// # Errors
    /// [`DataDirError::Io`], [`DataDirError::Foreign`].
    pub fn size_bytes(&self) -> Result<u64, DataDirError> {
        let io = |error| DataDirError::Io { what: "read", path: self.path.clone(), error };
        for entry in fs::read_dir(&self.path).map_err(io)? {
            let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            if !OWN_ENTRIES.contains(&name.as_str()) {
                return Err(DataDirError::Foreign { path: self.path.clone(), name });
            }
        }
        size_of(&self.path).map_err(io)
    }

    /// Deletes the directory. It is out of the way at once and as a whole, so that no node starts on half of it.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn delete(self) -> Result<(), DataDirError> {
        let doomed = self.path.with_extension("deleted");
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |error| DataDirError::Io { what, path, error }
        };
        // An earlier one may have been interrupted.
        match fs::remove_dir_all(&doomed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("delete", &doomed)(error)),
            _ => {}
        }
        fs::rename(&self.path, &doomed).map_err(io("move away", &self.path))?;
        if let Some(parent) = self.path.parent() {
            sync_directory(parent).map_err(io("sync the parent of", &self.path))?;
        }
        fs::remove_dir_all(&doomed).map_err(io("delete", &doomed))
    }

    /// The node in this life.
    pub fn member(&self) -> MemberId {
        self.member
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the Raft adapter keeps its log and snapshots.
    pub fn raft(&self) -> PathBuf {
        self.path.join(RAFT_DIRECTORY)
    }
}

fn create_directory(path: &Path) -> Result<(), DataDirError> {
    let io = |what| move |error| DataDirError::Io { what, path: path.to_owned(), error };
    fs::create_dir_all(path).map_err(io("create"))?;
    // Also if it is there: whoever made it may have been killed before it was synced.
    for ancestor in path.ancestors().skip(1).filter(|ancestor| ancestor.is_dir()) {
        sync_directory(ancestor).map_err(io("sync the parent of"))?;
    }
    Ok(())
}

fn size_of(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let file_path = path.join(LOCK_FILE);
    let io = |what| {
        let path = file_path.clone();
        move |error| DataDirError::Io { what, path, error }
    };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file_path).map_err(io("open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // What the holder wrote is for people only; that it holds the lock is what counts.
            let _ = Read::by_ref(&mut file).take(16).read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "?".to_owned() } else { pid.trim().to_owned() };
            return Err(DataDirError::AlreadyRunning { path: path.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
    }
    file.set_len(0).map_err(io("write"))?;
    writeln!(file, "{}", std::process::id()).map_err(io("write"))?;
    Ok(file)
}

fn read_identity(path: &Path, identity_path: &Path, text: &str, node: NodeId) -> Result<MemberId, DataDirError> {
    let corrupt = |what: String| DataDirError::Corrupt { path: identity_path.to_owned(), what };
    let Format { format } =
        toml::from_str(&lines_of_format(text)).map_err(|_| corrupt("it has no format".to_owned()))?;
    if format > FORMAT {
        return Err(DataDirError::FormatTooNew { path: path.to_owned(), found: format });
    }
    if format < FORMAT {
        return Err(DataDirError::FormatTooOld { path: path.to_owned(), found: format });
    }
    let identity: Identity = toml::from_str(text).map_err(|error| corrupt(error.message().to_owned()))?;
    let incarnation = identity.incarnation.parse().map_err(corrupt)?;
    if NodeId(identity.node) != node {
        return Err(DataDirError::BelongsTo { path: path.to_owned(), id: NodeId(identity.node) });
    }
    Ok(MemberId { node, incarnation })
}

/// Only the line of the format, whatever a newer program put beside it.
fn lines_of_format(text: &str) -> String {
    text.lines().filter(|line| line.trim_start().starts_with("format")).take(1).collect()
}

fn create_identity(path: &Path, node: NodeId) -> Result<MemberId, DataDirError> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| DataDirError::NoRandomness { path: path.to_owned() })?;
    let incarnation = Incarnation(u64::from_be_bytes(random));
    let text = format!(
        "# Written once, when this directory was made. The incarnation tells this life of the disk from an earlier one.\n\
         format = {FORMAT}\nnode = {node}\nincarnation = \"{incarnation}\"\n"
    );
    let temporary = path.join("node.toml.new");
    let target = path.join(IDENTITY_FILE);
    let io = |error| DataDirError::Io { what: "write", path: target.clone(), error };
    let mut file = File::create(&temporary).map_err(io)?;
    file.write_all(text.as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)?;
    fs::rename(&temporary, &target).map_err(io)?;
    sync_directory(path).map_err(io)?;
    Ok(MemberId { node, incarnation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_node_and_its_incarnation() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data/node-1");
        let first = DataDir::open(&path, NodeId(1)).unwrap().member();
        assert_eq!(DataDir::open(&path, NodeId(1)).unwrap().member(), first);
        let error = DataDir::open(&path, NodeId(2)).unwrap_err();
        assert!(matches!(error, DataDirError::BelongsTo { id: NodeId(1), .. }), "{error}");
        fs::remove_dir_all(&path).unwrap();
        assert_ne!(DataDir::open(&path, NodeId(1)).unwrap().member(), first);
    }

    #[test]
    fn two_processes_do_not_share_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let _held = DataDir::open(root.path(), NodeId(1)).unwrap();
        match DataDir::open(root.path(), NodeId(1)) {
            Err(DataDirError::AlreadyRunning { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn damage_is_named_and_nothing_is_made_anew_over_it() {
        let root = tempfile::tempdir().unwrap();
        let identity = root.path().join(IDENTITY_FILE);
        DataDir::open(root.path(), NodeId(1)).unwrap();

        for (text, expected) in [
            ("format = 9\nsomething = \"new\"\n", "format 9"),
            ("format = 1\nnode = 1\n", "format 1, which this program does not read"),
            ("format = 5\nnode = 1\n", "damaged"),
            ("format = 5\nnode = 1\nincarnation = \"xyz\"\n", "not an incarnation"),
            ("", "no format"),
        ] {
            fs::write(&identity, text).unwrap();
            let error = DataDir::open(root.path(), NodeId(1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }

        fs::remove_file(&identity).unwrap();
        fs::create_dir(root.path().join(RAFT_DIRECTORY)).unwrap();
        let error = DataDir::open(root.path(), NodeId(1)).unwrap_err();
        assert!(matches!(error, DataDirError::Corrupt { .. }), "{error}");
    }
}
