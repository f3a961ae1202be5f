//! The cluster's keys beside the current one: `old-keys.toml`.
//!
//! A rotation writes it *before* `cluster.key`, and whoever reads takes `cluster.key` first: so nobody misses a key that was current a
//! moment ago. A retirement moves the key to `retired-ID.key`, which no program reads, so that a mistaken one can be undone by hand.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cluster_key::{self, CLUSTER_KEY_FILE, KeyBytes};
use super::files::{self, SecretDirectory};
use super::{SecretsError, read_cluster_key};
use crate::id::KeyId;
use crate::time::unix_millis;

/// The file of the old and retired keys.
pub const OLD_KEYS_FILE: &str = "old-keys.toml";

const VERSION: u32 = 1;
/// The most keys that are remembered: so many fit into the largest secret that is read.
const MOST_KEYS: usize = 256;

/// The keys of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterKeys {
    /// Seals what is sealed now.
    pub current: KeyBytes,
    /// Those that still open what they sealed.
    pub old: Vec<KeyBytes>,
    /// Those that do not.
    pub retired: BTreeSet<KeyId>,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its name.
    pub id: KeyId,
    /// Whether and for what it is used.
    pub state: KeyState,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
}

/// Whether and for what a key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It seals and opens.
    Current,
    /// It opens only.
    Old,
    /// It does neither, since this time in milliseconds since 1970.
    Retired(u64),
}

/// What a retirement did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// The key is out of use, and lies in this file.
    Done(PathBuf),
    /// It was before.
    Before,
}

/// Reads the current key from `path`, and the others from beside it.
///
/// # Errors
/// A file that is missing, too open or damaged; a current key that was retired.
pub fn read_cluster_keys(path: &Path) -> Result<ClusterKeys, SecretsError> {
    let current = read_cluster_key(path)?;
    let Record { keys, .. } = Record::read(&path.with_file_name(OLD_KEYS_FILE))?;
    let retired: BTreeSet<KeyId> = keys.iter().filter(|key| key.retired_ms.is_some()).map(|key| key.id).collect();
    if retired.contains(&current.id()) {
        return Err(SecretsError::CurrentRetired { path: path.to_owned(), id: current.id() });
    }
    let old = keys.into_iter().filter_map(|key| key.secret).map(|secret| secret.0);
    Ok(ClusterKeys { old: old.filter(|key| *key != current).collect(), current, retired })
}

/// Makes a new current key; the one before opens what it sealed. Returns the new one's name.
///
/// # Errors
/// No cluster key there, a file that is too open, damaged or unusable, or as many keys as are remembered.
pub fn rotate(directory: &Path) -> Result<KeyId, SecretsError> {
    let directory = SecretDirectory::open(directory)?;
    let _lock = directory.lock()?;
    let path = directory.existing(CLUSTER_KEY_FILE)?;
    let before = read_cluster_key(&path)?;
    let mut record = Record::read(&directory.path(OLD_KEYS_FILE))?;
    // A rotation that was interrupted has left the name of a key that never was.
    record.keys.retain(|key| key.secret.is_some() || key.retired_ms.is_some() || key.id == before.id());
    let entry = record.entry(before.id(), made_ms(&path)?);
    if entry.retired_ms.is_none() {
        entry.secret = Some(Secret(before));
    }
    let new = KeyBytes(files::random()?);
    record.entry(new.id(), unix_millis());
    if record.keys.len() > MOST_KEYS {
        return Err(SecretsError::TooManyKeys { path: directory.path(OLD_KEYS_FILE), limit: MOST_KEYS });
    }
    record.write(&directory)?;
    directory.write(CLUSTER_KEY_FILE, &cluster_key::render(&new.0))?;
    Ok(new.id())
}

/// Takes an old key out of use, and remembers its name.
///
/// # Errors
/// It is the current one, or none of this cluster; a file that is too open, damaged or unusable.
pub fn retire(directory: &Path, id: KeyId) -> Result<Retirement, SecretsError> {
    let path = directory;
    let directory = SecretDirectory::open(path)?;
    let _lock = directory.lock()?;
    if read_cluster_key(&directory.existing(CLUSTER_KEY_FILE)?)?.id() == id {
        return Err(SecretsError::IsCurrent { id });
    }
    let mut record = Record::read(&directory.path(OLD_KEYS_FILE))?;
    let key = record.keys.iter_mut().find(|key| key.id == id && (key.secret.is_some() || key.retired_ms.is_some()));
    let key = key.ok_or_else(|| SecretsError::NoSuchKey { path: path.to_owned(), id })?;
    let Some(secret) = key.secret.take() else { return Ok(Retirement::Before) };
    key.retired_ms = Some(unix_millis());
    let name = format!("retired-{id}.key");
    directory.write(&name, &cluster_key::render(&secret.0.0))?;
    record.write(&directory)?;
    Ok(Retirement::Done(directory.path(&name)))
}

/// What is known of the keys in a directory: the current one first, then from the newest to the oldest.
///
/// # Errors
/// No cluster key there, or a file that is too open, damaged or unusable.
pub fn list(directory: &Path) -> Result<Vec<KeyRecord>, SecretsError> {
    let directory = SecretDirectory::open(directory)?;
    let path = directory.existing(CLUSTER_KEY_FILE)?;
    let current = read_cluster_key(&path)?.id();
    let mut record = Record::read(&directory.path(OLD_KEYS_FILE))?;
    record.entry(current, made_ms(&path)?);
    let state = |key: &Key| match (key.retired_ms, &key.secret) {
        (Some(at), _) => Some(KeyState::Retired(at)),
        _ if key.id == current => Some(KeyState::Current),
        (None, secret) => secret.is_some().then_some(KeyState::Old),
    };
    let known = record.keys.iter().filter_map(|key| Some((key, state(key)?)));
    let mut known: Vec<_> = known.map(|(key, state)| KeyRecord { id: key.id, state, made_ms: key.made_ms }).collect();
    known.sort_by_key(|key| (key.state != KeyState::Current, std::cmp::Reverse(key.made_ms), key.id));
    Ok(known)
}

/// The date of the file: a key of before there were rings has no other.
fn made_ms(path: &Path) -> Result<u64, SecretsError> {
    let metadata = fs::metadata(path).map_err(files::unusable(path))?;
    Ok(u64::try_from(metadata.mtime()).unwrap_or(0).saturating_mul(1000))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    #[serde(default, rename = "key", skip_serializing_if = "Vec::is_empty")]
    keys: Vec<Key>,
}

/// A key: old with its secret, retired with the time of that, and the current one with neither.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    id: KeyId,
    made_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Secret>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Secret(KeyBytes);

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        cluster_key::from_hex(&digits).map(|key| Secret(KeyBytes(key))).ok_or("not 64 hexadecimal digits")
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> String {
        files::hex(&secret.0.0)
    }
}

impl Record {
    /// What the file says; no file says nothing. The parser's own words may hold a line of the file, so they are not repeated.
    fn read(path: &Path) -> Result<Record, SecretsError> {
        if !path.exists() {
            return Ok(Record { version: VERSION, keys: Vec::new() });
        }
        let record = files::read(path)?.and_then(|text| toml::from_str::<Record>(&text).ok());
        record.filter(Record::is_sound).ok_or_else(|| SecretsError::DamagedRing { path: path.to_owned() })
    }

    fn is_sound(&self) -> bool {
        let ids: BTreeSet<KeyId> = self.keys.iter().map(|key| key.id).collect();
        let is_sound = |key: &Key| {
            let is_its_own = key.secret.as_ref().is_none_or(|secret| secret.0.id() == key.id);
            is_its_own && !(key.secret.is_some() && key.retired_ms.is_some())
        };
        self.version == VERSION
            && self.keys.len() <= MOST_KEYS
            && ids.len() == self.keys.len()
            && self.keys.iter().all(is_sound)
    }

    fn entry(&mut self, id: KeyId, made_ms: u64) -> &mut Key {
        let at = self.keys.iter().position(|key| key.id == id).unwrap_or_else(|| {
            self.keys.push(Key { id, made_ms, retired_ms: None, secret: None });
            self.keys.len() - 1
        });
        &mut self.keys[at]
    }

    fn write(&self, directory: &SecretDirectory) -> Result<(), SecretsError> {
        let text = toml::to_string(self).expect("a record of numbers and digits can be written");
        directory.write(OLD_KEYS_FILE, &format!("# Written by `cloud-node key`. It holds secrets: mode 0600.\n{text}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory with a first key.
    fn cluster() -> (tempfile::TempDir, PathBuf, KeyBytes) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("cluster");
        let directory = SecretDirectory::create(&path).unwrap();
        directory.write(CLUSTER_KEY_FILE, &cluster_key::fresh().unwrap()).unwrap();
        let key = cluster_key::read(&directory).unwrap();
        (home, path, key)
    }

    fn keys(directory: &Path) -> ClusterKeys {
        read_cluster_keys(&directory.join(CLUSTER_KEY_FILE)).unwrap()
    }

    #[test]
    fn a_rotation_keeps_what_was_and_a_retirement_takes_one_out_by_name() {
        let (_home, directory, first) = cluster();
        assert_eq!(keys(&directory), ClusterKeys { current: first.clone(), old: vec![], retired: BTreeSet::new() });
        let second = rotate(&directory).unwrap();
        let third = rotate(&directory).unwrap();
        let after = keys(&directory);
        assert_eq!(after.current.id(), third);
        assert_eq!(after.old.iter().map(KeyBytes::id).collect::<Vec<_>>(), [first.id(), second]);
        assert!(after.old.contains(&first));

        assert!(matches!(retire(&directory, third), Err(SecretsError::IsCurrent { .. })));
        assert!(matches!(retire(&directory, KeyId([1; 8])), Err(SecretsError::NoSuchKey { .. })));
        let Retirement::Done(kept) = retire(&directory, first.id()).unwrap() else { panic!("it was in use") };
        assert_eq!(read_cluster_key(&kept).unwrap(), first, "a mistake can be undone");
        assert_eq!(retire(&directory, first.id()).unwrap(), Retirement::Before);
        let after = keys(&directory);
        assert_eq!((after.old.len(), after.retired), (1, [first.id()].into()));
        let record = fs::read_to_string(directory.join(OLD_KEYS_FILE)).unwrap();
        assert!(!record.contains(&files::hex(&first.0)), "the secret is gone from what is copied to nodes");

        let states: Vec<_> = list(&directory).unwrap().into_iter().map(|key| (key.id, key.state)).collect();
        assert_eq!(states[..2], [(third, KeyState::Current), (second, KeyState::Old)]);
        assert!(matches!(states[2], (id, KeyState::Retired(_)) if id == first.id()));
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        }
    }

    #[test]
    fn a_retired_key_that_comes_back_as_the_current_one_is_refused_until_the_next_rotation() {
        let (_home, directory, first) = cluster();
        rotate(&directory).unwrap();
        retire(&directory, first.id()).unwrap();
        fs::write(directory.join(CLUSTER_KEY_FILE), cluster_key::render(&first.0)).unwrap();
        let error = read_cluster_keys(&directory.join(CLUSTER_KEY_FILE)).unwrap_err();
        assert!(matches!(error, SecretsError::CurrentRetired { id, .. } if id == first.id()), "{error}");
        let new = rotate(&directory).unwrap();
        let after = keys(&directory);
        assert_eq!((after.current.id(), after.retired.contains(&first.id())), (new, true));
        assert!(!after.old.contains(&first));
    }

    /// The record is written first: between the two writes both files together still hold every key.
    #[test]
    fn an_interrupted_rotation_loses_no_key() {
        let (_home, directory, first) = cluster();
        let before = fs::read_to_string(directory.join(CLUSTER_KEY_FILE)).unwrap();
        rotate(&directory).unwrap();
        fs::write(directory.join(CLUSTER_KEY_FILE), before).unwrap();
        assert_eq!(keys(&directory), ClusterKeys { current: first.clone(), old: vec![], retired: BTreeSet::new() });
        assert_eq!(list(&directory).unwrap().len(), 1);
        let new = rotate(&directory).unwrap();
        assert_eq!((keys(&directory).current.id(), keys(&directory).old), (new, vec![first]));
        assert_eq!(list(&directory).unwrap().len(), 2);
    }

    #[test]
    fn a_damaged_or_open_record_is_refused_and_its_secrets_are_not_repeated() {
        let (_home, directory, first) = cluster();
        rotate(&directory).unwrap();
        let path = directory.join(OLD_KEYS_FILE);
        let good = fs::read_to_string(&path).unwrap();
        let digits = files::hex(&first.0);
        for bad in [
            good.replace("version = 1", "version = 2"),
            good.replace(&digits, &digits[1..]),
            good.replace(&digits, &files::hex(&[7; 32])),
            good.replace("made_ms", "mode_ms"),
            format!("{good}\n[[key]]\nid = \"{}\"\nmade_ms = 1\n", first.id()),
            String::new(),
        ] {
            fs::write(&path, bad).unwrap();
            for error in [rotate(&directory).unwrap_err(), list(&directory).unwrap_err()] {
                assert!(matches!(error, SecretsError::DamagedRing { .. }), "{error}");
                assert!(!error.to_string().contains(&digits[1..]));
            }
        }
        fs::write(&path, good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(list(&directory), Err(SecretsError::TooOpen { .. })));
    }
}
