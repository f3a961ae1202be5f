//! The keys of users on this machine: `CLUSTER/NAME/` below one directory, with `identity.toml`, the journal of what was asked and
//! not answered yet, and the leases.
//!
//! New keys are on disk before anybody is told of them, under another name (`registering.toml`, `rotating.toml`), and get their
//! place when the cluster has them. So no crash leaves a user without keys; which of two count, the cluster says.

mod journal;
mod leases;

use std::path::Path;

pub use journal::Journalled;
pub use leases::{Lease, LeaseError, LeaseStore, Leased};

use super::signer::Signer;
use crate::config::secrets::{
    IdentityFile, Passphrase, SECRET_BYTES, SecretDirectory, SecretsError, random, read_secret,
};
use crate::id::{ClusterId, UserId};
use crate::identity::UserSecret;
use crate::protocol::user::UserKeys;

const IDENTITY: &str = "identity.toml";
const REGISTERING: &str = "registering.toml";
const ROTATING: &str = "rotating.toml";

/// Digits of the cluster id in the name of its directory.
const CLUSTER_DIGITS: usize = 16;

/// Where the keys of all users of this machine's account are.
#[derive(Debug)]
pub struct KeyStore(SecretDirectory);

/// Asks for the passphrase of somebody's keys.
pub type AskPassphrase<'a> = &'a dyn Fn(&str) -> Result<Passphrase, SecretsError>;

/// One user's keys.
#[derive(Debug)]
pub struct Identity {
    directory: SecretDirectory,
    file: IdentityFile,
    signer: Signer,
    passphrase: Option<Passphrase>,
    next: Option<UserSecret>,
}

impl KeyStore {
    /// The store in that directory, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made, or lets others in.
    pub fn open(directory: &Path) -> Result<KeyStore, SecretsError> {
        Ok(KeyStore(SecretDirectory::create(directory)?))
    }

    fn cluster_name(cluster: ClusterId) -> String {
        cluster.to_string()[..CLUSTER_DIGITS].to_owned()
    }

    fn directory(&self, cluster: ClusterId, name: &str) -> Result<SecretDirectory, SecretsError> {
        // A user may be called "..", a directory may not.
        let is_dots = name.chars().all(|letter| letter == '.');
        let name = if is_dots { format!("dots-{}", name.len()) } else { name.replace('/', "_") };
        self.0.child(&KeyStore::cluster_name(cluster))?.child(&name)
    }

    /// The users with keys for that cluster.
    ///
    /// # Errors
    /// The store cannot be read, or lets others in.
    pub fn names(&self, cluster: ClusterId) -> Result<Vec<String>, SecretsError> {
        let name = KeyStore::cluster_name(cluster);
        if !self.0.has(&name) {
            return Ok(Vec::new());
        }
        let directory = self.0.child(&name)?;
        let mut names = Vec::new();
        for entry in directory.names()? {
            let path = directory.path(&entry).join(IDENTITY);
            if path.exists() {
                names.push(read_file(&path)?.name);
            }
        }
        Ok(names)
    }

    /// The keys of a user, and those that are to take their place, if a rotation was begun.
    ///
    /// # Errors
    /// There are none, they cannot be read, or the passphrase is wrong.
    pub fn load(&self, cluster: ClusterId, name: &str, ask: AskPassphrase<'_>) -> Result<Identity, SecretsError> {
        let directory = self.directory(cluster, name)?;
        let file = read_file(&directory.path(IDENTITY))?;
        let identity = Identity::unlock(directory, file, ask)?;
        if identity.signer.cluster != cluster {
            return Err(SecretsError::NoIdentity { path: identity.directory.path(IDENTITY) });
        }
        Ok(identity)
    }

    /// Keys for a new user: those of an attempt that was not finished, else new ones, on disk.
    ///
    /// # Errors
    /// There are keys of that name already; else as [`load`](KeyStore::load).
    pub fn prepare(
        &self,
        cluster: ClusterId,
        name: &str,
        passphrase: Option<&Passphrase>,
        ask: AskPassphrase<'_>,
    ) -> Result<Identity, SecretsError> {
        let directory = self.directory(cluster, name)?;
        let _lock = directory.lock()?;
        if directory.has(IDENTITY) {
            return Err(SecretsError::KeysExist { path: directory.path(IDENTITY) });
        }
        if directory.has(REGISTERING) {
            let file = read_file(&directory.path(REGISTERING))?;
            return Identity::unlock(directory, file, ask);
        }
        let bytes = zeroize::Zeroizing::new(random::<SECRET_BYTES>()?);
        let secret = UserSecret::from_bytes(&bytes);
        let user = secret.public().user();
        let file = IdentityFile::new(cluster, user, name, &bytes, passphrase)?;
        directory.write(REGISTERING, &file.text())?;
        let signer = Signer::new(cluster, user, secret);
        Ok(Identity { directory, file, signer, passphrase: passphrase.cloned(), next: None })
    }

    /// Takes keys that were exported elsewhere.
    ///
    /// # Errors
    /// The file holds none, or there are keys of that name already.
    pub fn import(&self, path: &Path) -> Result<IdentityFile, SecretsError> {
        let file = read_file(path)?;
        if crate::protocol::user::check_name(&file.name).is_err() {
            return Err(SecretsError::NoIdentity { path: path.to_owned() });
        }
        let directory = self.directory(file.cluster, &file.name)?;
        let _lock = directory.lock()?;
        if directory.has(IDENTITY) {
            return Err(SecretsError::KeysExist { path: directory.path(IDENTITY) });
        }
        directory.write(IDENTITY, &file.text())?;
        Ok(file)
    }
}

impl Identity {
    fn unlock(
        directory: SecretDirectory,
        file: IdentityFile,
        ask: AskPassphrase<'_>,
    ) -> Result<Identity, SecretsError> {
        let passphrase = file.is_locked().then(|| ask(&file.name)).transpose()?;
        let open = |file: &IdentityFile| Ok(UserSecret::from_bytes(&*file.secret(passphrase.as_ref())?));
        let next = match directory.has(ROTATING) {
            true => Some(open(&read_file(&directory.path(ROTATING))?)?),
            false => None,
        };
        let signer = Signer::new(file.cluster, file.user, open(&file)?);
        Ok(Identity { directory, file, signer, passphrase, next })
    }

    /// Who signs.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Who it is.
    pub fn user(&self) -> UserId {
        self.signer.user
    }

    /// The name, as it was registered.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// The file as it lies on disk, for a copy elsewhere.
    pub fn file(&self) -> &IdentityFile {
        &self.file
    }

    /// The keys that are to take the place of these.
    pub fn next(&self) -> Option<UserKeys> {
        self.next.as_ref().map(UserSecret::public)
    }

    /// The same user, signing with those.
    pub fn next_signer(&self) -> Option<Signer> {
        Some(Signer::new(self.signer.cluster, self.signer.user, self.next.clone()?))
    }

    /// Whether these are the keys on disk still.
    pub(super) fn is_present(&self) -> Result<bool, SecretsError> {
        Ok(read_file(&self.directory.path(IDENTITY))? == self.file)
    }

    /// The keys that something may be sealed to that comes now: two of them while they are changed.
    pub fn secrets(&self) -> impl Iterator<Item = &UserSecret> {
        std::iter::once(self.signer.secret()).chain(&self.next)
    }

    /// The cluster knows the new user: the keys get their place.
    ///
    /// # Errors
    /// The system refuses, or somebody else took the place.
    pub fn finish_registration(&self) -> Result<(), SecretsError> {
        let _lock = self.directory.lock()?;
        if self.directory.has(IDENTITY) {
            return Err(SecretsError::KeysExist { path: self.directory.path(IDENTITY) });
        }
        self.directory.rename(REGISTERING, IDENTITY)
    }

    /// The cluster will never know this user: nobody needs the keys.
    ///
    /// # Errors
    /// The system refuses.
    pub fn abandon_registration(&self) -> Result<(), SecretsError> {
        self.directory.remove(REGISTERING)
    }

    /// New keys, on disk beside the present ones; those of a rotation that was begun before, if there is one: the cluster may know
    /// of them by now.
    ///
    /// # Errors
    /// The system refuses.
    pub fn prepare_rotation(&mut self) -> Result<UserKeys, SecretsError> {
        if let Some(next) = self.next() {
            return Ok(next);
        }
        let _lock = self.directory.lock()?;
        if self.directory.has(ROTATING) {
            return Err(SecretsError::KeysExist { path: self.directory.path(ROTATING) });
        }
        let bytes = zeroize::Zeroizing::new(random::<SECRET_BYTES>()?);
        let IdentityFile { cluster, user, name, .. } = &self.file;
        let file = IdentityFile::new(*cluster, *user, name, &bytes, self.passphrase.as_ref())?;
        self.directory.write(ROTATING, &file.text())?;
        let next = UserSecret::from_bytes(&bytes);
        let keys = next.public();
        self.next = Some(next);
        Ok(keys)
    }

    /// The cluster has the new keys: what lies under the old ones is sealed anew, and the new ones get their place.
    ///
    /// # Errors
    /// The system refuses, or a lease cannot be read.
    pub fn finish_rotation(&mut self) -> Result<(), LeaseError> {
        let Some(next) = self.next.clone() else { return Ok(()) };
        let _lock = self.directory.lock()?;
        // Another program may have finished this rotation, and begun the next one.
        let replaced = || LeaseError::KeysReplaced { name: self.file.name.clone() };
        if !self.is_present()? || !self.directory.has(ROTATING) {
            return Err(replaced());
        }
        let file = read_file(&self.directory.path(ROTATING))?;
        if UserSecret::from_bytes(&*file.secret(self.passphrase.as_ref())?) != next {
            return Err(replaced());
        }
        let _leases = LeaseStore::of(self)?.seal_anew(&next.public().agreement)?;
        self.directory.rename(ROTATING, IDENTITY)?;
        self.signer = Signer::new(file.cluster, file.user, next);
        (self.file, self.next) = (file, None);
        Ok(())
    }
}

fn read_file(path: &Path) -> Result<IdentityFile, SecretsError> {
    let file = read_secret(path)?.and_then(|text| IdentityFile::parse(&text));
    file.ok_or_else(|| SecretsError::NoIdentity { path: path.to_owned() })
}

#[cfg(test)]
mod tests;
