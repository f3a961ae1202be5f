//! The secrets of one machine: a directory of mode 0700 with files of mode 0600, made by whichever node comes first.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

const FIRST_LINE: &str = "image-cloud cluster key 1";
const KEY_FILE: &str = "cluster.key";

/// Why secrets cannot be used. No message holds a secret.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// The system refused.
    #[error("cannot use the secrets in {path}: {source}")]
    Unusable {
        /// File or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Others than the owner may get at it.
    #[error("{path} has mode {mode:04o}, which lets others in: run chmod {wanted:o} {path}")]
    TooOpen {
        /// File or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it must have at most.
        wanted: u32,
    },
    /// The file is not a cluster key.
    #[error(
        "{path} is not a cluster key of version 1; restore it from a copy, or name another file with --cluster-key"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system has no random bytes.
    #[error("the system gave no random bytes for a new cluster key")]
    NoRandomness,
}

/// The 32 secret bytes of a cluster key. They are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBytes(pub [u8; 32]);

impl fmt::Debug for KeyBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyBytes(secret)")
    }
}

/// Opens the cluster key in `directory`; whoever comes first makes directory and key, under a lock file, so that nodes which
/// start together share one key.
///
/// # Errors
/// A directory or file that is too open, damaged or unusable.
pub fn open_or_create_cluster_key(directory: &Path) -> Result<KeyBytes, SecretsError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| SecretsError::Unusable { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable(directory))?;
    refuse_if_open(directory, 0o700)?;
    let lock_path = directory.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(unusable(&lock_path))?;
    lock.lock().map_err(unusable(&lock_path))?;

    let path = directory.join(KEY_FILE);
    if path.exists() {
        return read_cluster_key(&path);
    }
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).map_err(|_| SecretsError::NoRandomness)?;
    write_durably(directory, &path, &render(&key)).map_err(unusable(&path))?;
    Ok(KeyBytes(key))
}

/// Reads a cluster key file.
///
/// # Errors
/// A file that is missing, too open or not a cluster key.
pub fn read_cluster_key(path: &Path) -> Result<KeyBytes, SecretsError> {
    let unusable = |source| SecretsError::Unusable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unusable)?;
    refuse_if_open(path, 0o600)?;
    let mut text = String::new();
    let damaged = || SecretsError::Damaged { path: path.to_owned() };
    file.take(4096).read_to_string(&mut text).map_err(|_| damaged())?;
    parse(&text).map(KeyBytes).ok_or_else(damaged)
}

fn refuse_if_open(path: &Path, wanted: u32) -> Result<(), SecretsError> {
    let metadata = fs::metadata(path).map_err(|source| SecretsError::Unusable { path: path.to_owned(), source })?;
    let mode = metadata.mode() & 0o7777;
    if mode & !wanted == 0 { Ok(()) } else { Err(SecretsError::TooOpen { path: path.to_owned(), mode, wanted }) }
}

fn write_durably(directory: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

fn render(key: &[u8; 32]) -> String {
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{FIRST_LINE}\n{digits}\n")
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(FIRST_LINE)?.trim();
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn whoever_comes_first_makes_the_key_and_all_share_it() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("data/cluster");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| open_or_create_cluster_key(&directory).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(fs::metadata(directory.join(KEY_FILE)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        assert_eq!(format!("{:?}", keys[0]), "KeyBytes(secret)");
    }

    #[test]
    fn looser_modes_are_refused_with_the_command_that_mends_them() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("cluster");
        open_or_create_cluster_key(&directory).unwrap();
        let key = directory.join(KEY_FILE);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read_cluster_key(&key).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let error = open_or_create_cluster_key(&directory).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn a_damaged_key_is_never_replaced() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("cluster");
        open_or_create_cluster_key(&directory).unwrap();
        let key = directory.join(KEY_FILE);
        fs::write(&key, "image-cloud cluster key 1\nabc\n").unwrap();
        assert!(matches!(open_or_create_cluster_key(&directory), Err(SecretsError::Damaged { .. })));
        assert_eq!(fs::read_to_string(&key).unwrap(), "image-cloud cluster key 1\nabc\n");
    }
}
