//! The file of a user's keys: TOML, with the secret in base64 as it is, or under a passphrase.
//!
//! Under a passphrase: Argon2id (RFC 9106) makes a key of it, which AES-256-GCM seals the secret with; cluster, user and name are
//! associated data. The salt is drawn anew for each file, so neither key nor nonce repeats.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{SecretsError, random};
use crate::id::{ClusterId, UserId};

/// Bytes of a user's secret.
pub const SECRET_BYTES: usize = 64;

const FORMAT: u32 = 1;
const SALT_BYTES: usize = 16;

/// What one guess of a passphrase costs: 64 MiB and three passes over them, the second choice of RFC 9106.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 1;

/// The most that a file may ask for: whoever alters it must not take the machine's memory.
const MOST_MEMORY_KIB: u32 = 1 << 20;
const MOST_PASSES: u32 = 32;
const MOST_LANES: u32 = 16;

/// A passphrase. It is never shown, and wiped when it is dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Passphrase(pub String);

impl fmt::Debug for Passphrase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Passphrase(…)")
    }
}

/// The keys of a user at one cluster, as they lie on disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFile {
    format: u32,
    /// The cluster.
    pub cluster: ClusterId,
    /// Who the user is.
    pub user: UserId,
    /// The name, as it was registered.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locked: Option<Locked>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Locked {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    sealed: String,
}

impl fmt::Debug for IdentityFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "IdentityFile({})", self.name)
    }
}

impl IdentityFile {
    /// The file of these keys.
    ///
    /// # Errors
    /// The system has no random bytes, or no memory for a passphrase.
    pub fn new(
        cluster: ClusterId,
        user: UserId,
        name: &str,
        secret: &[u8; SECRET_BYTES],
        passphrase: Option<&Passphrase>,
    ) -> Result<IdentityFile, SecretsError> {
        let mut file =
            IdentityFile { format: FORMAT, cluster, user, name: name.to_owned(), secret: None, locked: None };
        match passphrase {
            None => file.secret = Some(BASE64_STANDARD.encode(secret)),
            Some(passphrase) => file.locked = Some(file.lock(secret, passphrase)?),
        }
        Ok(file)
    }

    /// Reads its text; none if it is no such file.
    pub fn parse(text: &str) -> Option<IdentityFile> {
        let file: IdentityFile = toml::from_str(text).ok()?;
        (file.format == FORMAT && file.secret.is_some() != file.locked.is_some()).then_some(file)
    }

    /// Its text.
    pub fn text(&self) -> String {
        toml::to_string(self).expect("texts and numbers below 2^63 are TOML")
    }

    /// Whether it lies under a passphrase.
    pub fn is_locked(&self) -> bool {
        self.locked.is_some()
    }

    /// The secret; the passphrase is needed if [`is_locked`](IdentityFile::is_locked).
    ///
    /// # Errors
    /// No passphrase, another one, or an altered file.
    pub fn secret(&self, passphrase: Option<&Passphrase>) -> Result<Zeroizing<[u8; SECRET_BYTES]>, SecretsError> {
        let wrong = || SecretsError::WrongPassphrase { name: self.name.clone() };
        let bytes = match (&self.secret, &self.locked) {
            (_, Some(locked)) => {
                let needed = || SecretsError::NeedsPassphrase { name: self.name.clone() };
                Zeroizing::new(self.unlock(locked, passphrase.ok_or_else(needed)?).ok_or_else(wrong)?)
            }
            (Some(secret), None) => Zeroizing::new(BASE64_STANDARD.decode(secret).map_err(|_| wrong())?),
            (None, None) => return Err(wrong()),
        };
        Ok(Zeroizing::new(bytes.as_slice().try_into().map_err(|_| wrong())?))
    }

    fn lock(&self, secret: &[u8; SECRET_BYTES], passphrase: &Passphrase) -> Result<Locked, SecretsError> {
        let salt: [u8; SALT_BYTES] = random()?;
        let locked = Locked {
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: BASE64_STANDARD.encode(salt),
            sealed: String::new(),
        };
        let (key, nonce) = locked.key(passphrase).ok_or(SecretsError::NoRandomness)?;
        let mut sealed = secret.to_vec();
        key.seal_in_place_append_tag(nonce, Aad::from(self.associated()), &mut sealed)
            .expect("AES-GCM seals anything shorter than 64 GiB");
        Ok(Locked { sealed: BASE64_STANDARD.encode(sealed), ..locked })
    }

    fn unlock(&self, locked: &Locked, passphrase: &Passphrase) -> Option<Vec<u8>> {
        let (key, nonce) = locked.key(passphrase)?;
        let mut sealed = BASE64_STANDARD.decode(&locked.sealed).ok()?;
        let length = key.open_in_place(nonce, Aad::from(self.associated()), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }

    fn associated(&self) -> Vec<u8> {
        [&b"image-cloud identity v1"[..], &self.cluster.0, &self.user.0, self.name.as_bytes()].concat()
    }
}

impl Locked {
    /// Key and nonce; none if the numbers are not such as may be asked for.
    fn key(&self, passphrase: &Passphrase) -> Option<(LessSafeKey, Nonce)> {
        if self.memory_kib > MOST_MEMORY_KIB || self.passes > MOST_PASSES || self.lanes > MOST_LANES {
            return None;
        }
        let salt = BASE64_STANDARD.decode(&self.salt).ok()?;
        let mut output = Zeroizing::new([0; 32 + NONCE_LEN]);
        let parameters = Params::new(self.memory_kib, self.passes, self.lanes, Some(output.len())).ok()?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
        argon2.hash_password_into(passphrase.0.as_bytes(), &salt, output.as_mut_slice()).ok()?;
        let (key, nonce) = output.split_at(32);
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some((LessSafeKey::new(key), Nonce::try_assume_unique_for_key(nonce).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; SECRET_BYTES] = [9; SECRET_BYTES];

    fn file(passphrase: Option<&str>) -> IdentityFile {
        let passphrase = passphrase.map(|text| Passphrase(text.to_owned()));
        IdentityFile::new(ClusterId([1; 32]), UserId([2; 32]), "alice", &SECRET, passphrase.as_ref()).unwrap()
    }

    #[test]
    fn keys_come_back_from_their_text_and_are_not_shown() {
        let back = IdentityFile::parse(&file(None).text()).unwrap();
        assert_eq!(*back.secret(None).unwrap(), SECRET);
        assert_eq!(format!("{back:?}"), "IdentityFile(alice)");
        for wrong in ["", "format = 1", &file(None).text().replace("format = 1", "format = 2")] {
            assert!(IdentityFile::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_passphrase_and_an_unaltered_file_are_needed() {
        let locked = IdentityFile::parse(&file(Some("correct horse")).text()).unwrap();
        let right = Passphrase("correct horse".into());
        assert!(locked.is_locked() && !locked.text().contains(&BASE64_STANDARD.encode(SECRET)));
        assert_eq!(*locked.secret(Some(&right)).unwrap(), SECRET);
        assert!(matches!(locked.secret(None), Err(SecretsError::NeedsPassphrase { .. })));
        let wrong = Passphrase("correct hors".into());
        assert!(matches!(locked.secret(Some(&wrong)), Err(SecretsError::WrongPassphrase { .. })));
        let renamed = IdentityFile { name: "mallory".into(), ..locked.clone() };
        assert!(matches!(renamed.secret(Some(&right)), Err(SecretsError::WrongPassphrase { .. })));
        let mut greedy = locked;
        greedy.locked.as_mut().unwrap().memory_kib = u32::MAX;
        assert!(matches!(greedy.secret(Some(&right)), Err(SecretsError::WrongPassphrase { .. })));
    }
}
