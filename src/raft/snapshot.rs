//! Snapshots on disk: one file, replaced as a whole, synced before the log that it covers may go.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The first bytes of a snapshot file; the last one is its version.
const MAGIC: [u8; 8] = *b"ICSNAP\0\x01";
const HASH_BYTES: usize = 32;

/// Where the latest snapshot is kept.
pub trait SnapshotStore: Send + Sync + 'static {
    /// Replaces the latest snapshot; it survives a power cut once this returns.
    ///
    /// # Errors
    /// The system's.
    fn save(&self, bytes: &[u8]) -> io::Result<()>;

    /// The latest snapshot.
    ///
    /// # Errors
    /// The system's, or `InvalidData` if it is damaged.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;
}

/// A snapshot file in a directory.
#[derive(Debug)]
pub struct FileSnapshots {
    directory: PathBuf,
}

impl FileSnapshots {
    /// Uses an existing directory.
    pub fn new(directory: &Path) -> Self {
        FileSnapshots { directory: directory.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("snapshot")
    }
}

impl SnapshotStore for FileSnapshots {
    fn save(&self, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.directory.join("snapshot.new");
        let mut file = File::create(&temporary)?;
        file.write_all(&MAGIC)?;
        file.write_all(blake3::hash(bytes).as_bytes())?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, self.path())?;
        File::open(&self.directory)?.sync_all()
    }

    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = match fs::read(self.path()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", self.path().display()));
        let header = MAGIC.len() + HASH_BYTES;
        if bytes.len() < header || bytes[..MAGIC.len()] != MAGIC {
            return Err(damaged("not a snapshot of this version"));
        }
        let payload = bytes.split_off(header);
        if blake3::hash(&payload).as_bytes() != &bytes[MAGIC.len()..] {
            return Err(damaged("its checksum is wrong"));
        }
        Ok(Some(payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_replaced_as_a_whole_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileSnapshots::new(directory.path());
        assert_eq!(store.load().unwrap(), None);
        store.save(b"first").unwrap();
        store.save(b"second").unwrap();
        // A crash while the next one was written leaves this behind.
        fs::write(directory.path().join("snapshot.new"), b"half").unwrap();
        assert_eq!(store.load().unwrap().as_deref(), Some(&b"second"[..]));

        let mut bytes = fs::read(store.path()).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            fs::write(store.path(), &bytes).unwrap();
            assert_eq!(store.load().unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
            bytes[at] ^= 1;
        }
    }
}
