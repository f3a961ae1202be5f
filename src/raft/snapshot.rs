//! Snapshots on disk: one file, replaced as a whole, synced before the log that it covers may go.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The first bytes of a snapshot file; the last one is its version. Behind them stand the BLAKE3-256 of what follows, the length of
/// the description (`u32`, big endian), the description and the state.
const MAGIC: [u8; 8] = *b"ICSNAP\0\x03";
const HASH_BYTES: usize = 32;
const LENGTH_BYTES: usize = 4;

/// A snapshot as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// What it covers.
    pub description: Vec<u8>,
    /// The state.
    pub state: Vec<u8>,
}

/// Where the latest snapshot is kept.
pub trait SnapshotStore: Send + Sync + 'static {
    /// Replaces the latest snapshot; it survives a power cut once this returns.
    ///
    /// # Errors
    /// The system's.
    fn save(&self, description: &[u8], state: &[u8]) -> io::Result<()>;

    /// The latest snapshot.
    ///
    /// # Errors
    /// The system's, or `InvalidData` if it is damaged.
    fn load(&self) -> io::Result<Option<StoredSnapshot>>;
}

/// A snapshot file in a directory.
#[derive(Debug)]
pub struct FileSnapshots {
    directory: PathBuf,
}

impl FileSnapshots {
    /// Uses an existing directory, and brings it in order after a crash.
    ///
    /// # Errors
    /// The system's.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let snapshots = FileSnapshots { directory: directory.to_owned() };
        // Half of a snapshot would only take space.
        match fs::remove_file(snapshots.unfinished()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A process that was killed may have put a snapshot in place without syncing that; from now on the log relies on it.
        File::open(directory)?.sync_all()?;
        Ok(snapshots)
    }

    fn path(&self) -> PathBuf {
        self.directory.join("snapshot")
    }

    /// The next one while it is being written.
    fn unfinished(&self) -> PathBuf {
        self.directory.join("snapshot.new")
    }
}

impl SnapshotStore for FileSnapshots {
    fn save(&self, description: &[u8], state: &[u8]) -> io::Result<()> {
        let length = u32::try_from(description.len()).map_err(io::Error::other)?.to_be_bytes();
        let parts = [&length, description, state];
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        let mut file = File::create(self.unfinished())?;
        file.write_all(&MAGIC)?;
        file.write_all(hasher.finalize().as_bytes())?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        fs::rename(self.unfinished(), self.path())?;
        File::open(&self.directory)?.sync_all()
    }

    fn load(&self) -> io::Result<Option<StoredSnapshot>> {
        let mut file = match File::open(self.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", self.path().display()));
        let mut magic = [0; MAGIC.len()];
        if file.read_exact(&mut magic).is_err() || magic != MAGIC {
            return Err(damaged("not a snapshot of this version"));
        }
        let mut head = [0; HASH_BYTES + LENGTH_BYTES];
        file.read_exact(&mut head).map_err(|_| damaged("it ends too early"))?;
        let (hash, length) = head.split_at(HASH_BYTES);
        let mut hasher = blake3::Hasher::new();
        hasher.update(length);
        let length = length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        // Read to the end in two parts, so that no length is believed before the hash is checked.
        let mut description = Vec::new();
        (&file).take(length).read_to_end(&mut description)?;
        let mut state = Vec::new();
        file.read_to_end(&mut state)?;
        if hasher.update(&description).update(&state).finalize().as_bytes() != hash {
            return Err(damaged("its checksum is wrong"));
        }
        Ok(Some(StoredSnapshot { description, state }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_replaced_as_a_whole_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileSnapshots::open(directory.path()).unwrap();
        assert_eq!(store.load().unwrap(), None);
        store.save(b"one", b"first").unwrap();
        store.save(b"two", b"second").unwrap();
        // A crash while the next one was written leaves this behind.
        fs::write(store.unfinished(), b"half").unwrap();
        let store = FileSnapshots::open(directory.path()).unwrap();
        let second = StoredSnapshot { description: b"two".to_vec(), state: b"second".to_vec() };
        assert_eq!(store.load().unwrap(), Some(second));
        assert!(!store.unfinished().exists(), "what a crash has left takes no space");

        let mut bytes = fs::read(store.path()).unwrap();
        let refused = |bytes: &[u8], what: &str| {
            fs::write(store.path(), bytes).unwrap();
            assert_eq!(store.load().unwrap_err().kind(), io::ErrorKind::InvalidData, "{what}");
        };
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            refused(&bytes, &format!("byte {at}"));
            bytes[at] ^= 1;
            refused(&bytes[..at], &format!("cut at {at}"));
        }
    }
}
