//! Files that only their owner may read, written so that a crash leaves the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use data_encoding::HEXLOWER;

use super::SecretsError;

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Largest secret that is read, in bytes.
const FILE_LIMIT: u64 = 64 << 10;

/// A directory of secrets: mode 0700, its files 0600.
#[derive(Debug)]
pub struct SecretDirectory(PathBuf);

impl SecretDirectory {
    /// One that must be there.
    ///
    /// # Errors
    /// It is missing, unusable or too open.
    pub fn open(path: &Path) -> Result<Self, SecretsError> {
        let metadata = fs::metadata(path).map_err(unusable(path))?;
        refuse_if_open(path, &metadata, DIRECTORY_MODE)?;
        Ok(SecretDirectory(path.to_owned()))
    }

    /// One that is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made, or is too open.
    pub fn create(path: &Path) -> Result<Self, SecretsError> {
        fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(unusable(path))?;
        SecretDirectory::open(path)
    }

    /// A directory in this one, made durably if it is not there.
    ///
    /// # Errors
    /// It cannot be made, or is too open.
    pub fn child(&self, name: &str) -> Result<Self, SecretsError> {
        let child = SecretDirectory::create(&self.path(name))?;
        self.sync()?;
        Ok(child)
    }

    /// Held until the file is dropped; waits for who holds it now.
    ///
    /// # Errors
    /// The lock file cannot be used.
    pub fn lock(&self) -> Result<File, SecretsError> {
        let path = self.path("lock");
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(FILE_MODE).open(&path);
        let file = file.map_err(unusable(&path))?;
        file.lock().map_err(unusable(&path))?;
        Ok(file)
    }

    /// Where a file of this directory is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Whether there is such a file.
    pub fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The path of a file that a whole directory has.
    ///
    /// # Errors
    /// It is missing.
    pub fn existing(&self, name: &str) -> Result<PathBuf, SecretsError> {
        let path = self.path(name);
        if path.exists() { Ok(path) } else { Err(SecretsError::Missing { path }) }
    }

    /// Writes a file, durably: it is there, with its whole content, or it is as it was.
    ///
    /// # Errors
    /// The system refuses.
    pub fn write(&self, name: &str, text: &str) -> Result<(), SecretsError> {
        let path = self.path(name);
        let temporary = self.path(&format!("{name}.new"));
        let write = || {
            if let Err(error) = fs::remove_file(&temporary)
                && error.kind() != ErrorKind::NotFound
            {
                return Err(error);
            }
            let mut file = OpenOptions::new().create_new(true).write(true).mode(FILE_MODE).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(unusable(&path))
    }

    /// Gives a file another name, durably; whatever had that name before is gone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), SecretsError> {
        let from = self.path(from);
        fs::rename(&from, self.path(to)).map_err(unusable(&from))?;
        self.sync()
    }

    /// Removes a file, durably, if it is there.
    ///
    /// # Errors
    /// The system refuses.
    pub fn remove(&self, name: &str) -> Result<(), SecretsError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(unusable(&path)(error)),
            _ => self.sync(),
        }
    }

    /// Names of the files and directories in it, sorted.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn names(&self) -> Result<Vec<String>, SecretsError> {
        let entries = fs::read_dir(&self.0).map_err(unusable(&self.0))?;
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// Opens a file to read and write it, made if it is not there, and waits until nobody else has locked it. It may have been removed
    /// meanwhile by who had: then a new one is taken.
    ///
    /// # Errors
    /// The system refuses, or the file is too open.
    pub fn open_locked(&self, name: &str) -> Result<File, SecretsError> {
        let path = self.path(name);
        loop {
            let mut options = OpenOptions::new();
            let options = options.create(true).truncate(false).read(true).write(true).mode(FILE_MODE);
            let file = options.open(&path).map_err(unusable(&path))?;
            file.lock().map_err(unusable(&path))?;
            let metadata = file.metadata().map_err(unusable(&path))?;
            refuse_if_open(&path, &metadata, FILE_MODE)?;
            let is_still_there = fs::metadata(&path).is_ok_and(|there| there.ino() == metadata.ino());
            if is_still_there {
                self.sync()?;
                return Ok(file);
            }
        }
    }

    fn sync(&self) -> Result<(), SecretsError> {
        File::open(&self.0).and_then(|directory| directory.sync_all()).map_err(unusable(&self.0))
    }
}

/// The text of a secret of mode 0600; none if it is not text or far too long.
///
/// # Errors
/// It is missing, unusable or too open.
pub fn read(path: &Path) -> Result<Option<String>, SecretsError> {
    let file = File::open(path).map_err(unusable(path))?;
    refuse_if_open(path, &file.metadata().map_err(unusable(path))?, FILE_MODE)?;
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT).read_to_end(&mut bytes).map_err(unusable(path))?;
    Ok(String::from_utf8(bytes).ok())
}

/// `N` fresh random bytes.
///
/// # Errors
/// The system has none.
pub fn random<const N: usize>() -> Result<[u8; N], SecretsError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SecretsError::NoRandomness)?;
    Ok(bytes)
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

pub(super) fn unusable(path: &Path) -> impl FnOnce(std::io::Error) -> SecretsError {
    let path = path.to_owned();
    |source| SecretsError::Unusable { path, source }
}

fn refuse_if_open(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), SecretsError> {
    let mode = metadata.mode() & 0o7777;
    if mode & !wanted == 0 { Ok(()) } else { Err(SecretsError::TooOpen { path: path.to_owned(), mode, wanted }) }
}
