//! Views that were paid in advance, to be spent where no node is reached. Each image has one file, sealed to the user's own keys. This
//! stops accidents and thieves, not the user: whoever keeps a copy of the file and turns back the clock spends a view twice.

use std::fs::File;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Identity;
use crate::config::secrets::{SecretDirectory, SecretsError, read_secret};
use crate::id::{ImageId, RequestId};
use crate::identity::{Released, SealedFor, UserSecret, open, seal};
use crate::protocol::codec;
use crate::protocol::user::{Date, PublicKey};

/// The leases of one user.
pub struct LeaseStore<'a> {
    directory: SecretDirectory,
    identity: &'a Identity,
}

/// Why a lease cannot be used.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// The store itself.
    #[error(transparent)]
    Store(#[from] SecretsError),
    /// A file does not open under the user's keys.
    #[error(
        "the lease of image {image} was altered, or is not for these keys: lease anew, or view where a node is reached"
    )]
    Unreadable {
        /// The image.
        image: ImageId,
    },
    /// Nothing was leased.
    #[error("no views of this image are leased here: `client lease IMAGE --views 2 --for 24h` pays some in advance")]
    None,
    /// All leases are over.
    #[error("the lease is over since {} s: lease anew, or view where a node is reached", .since_ms / 1000)]
    Expired {
        /// Since when, in milliseconds.
        since_ms: u64,
    },
    /// Another program has put other keys in the place of those that this one knows.
    #[error("the keys of {name} were changed meanwhile: call once more")]
    KeysReplaced {
        /// Whose.
        name: String,
    },
    /// All leased views are spent.
    #[error("all leased views of this image are spent: lease more, or view where a node is reached")]
    Spent,
    /// More is to be given back than there is.
    #[error("{left} views of this lease are left, not {asked}")]
    NotSoMany {
        /// How many there are.
        left: u64,
        /// How many were to be given back.
        asked: u64,
    },
}

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The request that made it.
    pub id: RequestId,
    /// How many views were leased.
    pub views: u64,
    /// How many are left.
    pub left: u64,
    /// Until when it may be used.
    pub until: Date,
    /// Views on their way back, and the request for it.
    pub returning: Option<(RequestId, u64)>,
}

/// The leases of one image.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased {
    /// What opens the image.
    pub released: Released,
    /// Each one, the oldest first.
    pub leases: Vec<Lease>,
}

impl<'a> LeaseStore<'a> {
    /// The leases of that user.
    ///
    /// # Errors
    /// The store cannot be made, or lets others in.
    pub fn of(identity: &'a Identity) -> Result<LeaseStore<'a>, SecretsError> {
        Ok(LeaseStore { directory: identity.directory.child("leases")?, identity })
    }

    /// Keeps a lease; one that is kept already stays as it is.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn add(&self, image: ImageId, released: Released, lease: Lease) -> Result<(), LeaseError> {
        let _lock = self.directory.lock()?;
        let mut leased = self.read(image)?.unwrap_or(Leased { released, leases: Vec::new() });
        if leased.leases.iter().any(|known| known.id == lease.id) {
            return Ok(());
        }
        leased.leases.push(lease);
        self.write(image, &leased)
    }

    /// The leases of an image.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn get(&self, image: ImageId) -> Result<Option<Leased>, LeaseError> {
        let _lock = self.directory.lock()?;
        self.read(image)
    }

    /// Spends a leased view for what `use_it` makes of the key: only when that has gone well, and durably before this returns. Says how
    /// many are left.
    ///
    /// # Errors
    /// [`LeaseError`], or that of `use_it`.
    pub fn spend<T, E: From<LeaseError>>(
        &self,
        image: ImageId,
        now: Date,
        use_it: impl FnOnce(&Released) -> Result<T, E>,
    ) -> Result<(T, u64), E> {
        let _lock = self.directory.lock().map_err(LeaseError::Store)?;
        self.check_keys()?;
        let mut leased = self.read(image)?.ok_or(LeaseError::None)?;
        let place = usable(&leased.leases, now)?;
        let used = use_it(&leased.released)?;
        leased.leases[place].left -= 1;
        self.write(image, &leased)?;
        let is_valid = |lease: &&Lease| lease.until > now;
        Ok((used, leased.leases.iter().filter(is_valid).map(|lease| lease.left).sum()))
    }

    /// Takes views out of a lease to give them back, durably, and says with which request: a return that was begun before goes on with
    /// its own number of views.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn begin_return(
        &self,
        image: ImageId,
        views: u64,
        now: Date,
        fresh: RequestId,
    ) -> Result<(Lease, RequestId, u64), LeaseError> {
        let _lock = self.directory.lock()?;
        let mut leased = self.read(image)?.ok_or(LeaseError::None)?;
        if let Some(lease) = leased.leases.iter().find(|lease| lease.returning.is_some())
            && let Some((id, views)) = lease.returning
        {
            return Ok((lease.clone(), id, views));
        }
        let place = usable(&leased.leases, now)?;
        let lease = &mut leased.leases[place];
        if views == 0 || views > lease.left {
            return Err(LeaseError::NotSoMany { left: lease.left, asked: views });
        }
        lease.left -= views;
        lease.returning = Some((fresh, views));
        let lease = lease.clone();
        self.write(image, &leased)?;
        Ok((lease, fresh, views))
    }

    /// The views are back with the cluster; or it refused, and they are here again.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn end_return(&self, image: ImageId, request: RequestId, is_done: bool) -> Result<(), LeaseError> {
        let _lock = self.directory.lock()?;
        let Some(mut leased) = self.read(image)? else { return Ok(()) };
        for lease in &mut leased.leases {
            if let Some((_, views)) = lease.returning.take_if(|(id, _)| *id == request)
                && !is_done
            {
                lease.left += views;
            }
        }
        self.write(image, &leased)
    }

    /// Seals everything to another key of the same user. Until what this gives is dropped, nobody seals anything to the old one.
    pub(super) fn seal_anew(&self, to: &PublicKey) -> Result<File, LeaseError> {
        let lock = self.directory.lock()?;
        for image in self.directory.names()?.iter().filter_map(|name| name.parse().ok()) {
            match self.read(image) {
                Ok(Some(leased)) => self.write_to(image, &leased, to)?,
                Ok(None) => {}
                // It opens nothing as it is, and must not stop a user whose keys are in danger.
                Err(error @ LeaseError::Unreadable { .. }) => log::warn!("{error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(lock)
    }

    fn purpose(&self, image: ImageId) -> SealedFor {
        let signer = self.identity.signer();
        SealedFor::Lease { cluster: signer.cluster, image, user: signer.user }
    }

    fn read(&self, image: ImageId) -> Result<Option<Leased>, LeaseError> {
        let name = image.to_string();
        if !self.directory.has(&name) {
            return Ok(None);
        }
        let text = read_secret(&self.directory.path(&name))?;
        let sealed = text.and_then(|text| BASE64_STANDARD.decode(text.trim()).ok());
        let open = |secret: &UserSecret| open(sealed.as_deref()?, secret, &self.purpose(image));
        let plain = self.identity.secrets().find_map(open).map(zeroize::Zeroizing::new);
        let leased = plain.and_then(|plain| codec::decode(&plain).ok());
        leased.map(Some).ok_or(LeaseError::Unreadable { image })
    }

    /// Refuses to go on with keys that are not the user's any more.
    fn check_keys(&self) -> Result<(), LeaseError> {
        if self.identity.is_present()? {
            return Ok(());
        }
        Err(LeaseError::KeysReplaced { name: self.identity.name().to_owned() })
    }

    fn write(&self, image: ImageId, leased: &Leased) -> Result<(), LeaseError> {
        self.check_keys()?;
        self.write_to(image, leased, &self.identity.signer().keys().agreement)
    }

    fn write_to(&self, image: ImageId, leased: &Leased, to: &PublicKey) -> Result<(), LeaseError> {
        let unreadable = || LeaseError::Unreadable { image };
        let plain = zeroize::Zeroizing::new(codec::encode(leased).map_err(|_| unreadable())?);
        let sealed = seal(&plain, to, &self.purpose(image)).ok_or_else(unreadable)?;
        Ok(self.directory.write(&image.to_string(), &BASE64_STANDARD.encode(sealed))?)
    }
}

/// The lease to spend from: of those that have views left, the one that ends first.
fn usable(leases: &[Lease], now: Date) -> Result<usize, LeaseError> {
    let with_views = || leases.iter().enumerate().filter(|(_, lease)| lease.left > 0);
    let valid = with_views().filter(|(_, lease)| lease.until > now).min_by_key(|(_, lease)| lease.until);
    if let Some((place, _)) = valid {
        return Ok(place);
    }
    match with_views().map(|(_, lease)| lease.until).max() {
        Some(until) => Err(LeaseError::Expired { since_ms: now.0.saturating_sub(until.0) }),
        None => Err(LeaseError::Spent),
    }
}
