//! Keys and ids of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::id::hexadecimal_id;
pub use crate::id::{ClusterId, KeyId, UserId};
use crate::image::error::ImageError;
use crate::image::header::{Header, Wrap};

/// The secret under which a cluster wraps data keys. Its debug form shows the key id only.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; 32]);

impl ClusterKey {
    /// The key of these bytes, which must be random.
    pub const fn new(bytes: [u8; 32]) -> Self {
        ClusterKey(bytes)
    }

    /// The name of the key: eight bytes that tell nothing about it.
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.0)
    }

    /// The key itself, to be written where only its owner can read.
    pub const fn secret_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClusterKey(id {})", self.id())
    }
}

/// The keys of a cluster: what is sealed now is sealed under the current one, the old ones still open what they sealed, and the retired
/// ones are known by name only.
#[derive(Clone, Debug)]
pub struct KeyRing {
    current: ClusterKey,
    old: BTreeMap<KeyId, ClusterKey>,
    retired: BTreeSet<KeyId>,
}

impl KeyRing {
    /// A ring of these keys. A key that is retired opens nothing, even if it is among the old ones, or the current one.
    pub fn new(current: ClusterKey, old: impl IntoIterator<Item = ClusterKey>, retired: BTreeSet<KeyId>) -> KeyRing {
        let old = old.into_iter().map(|key| (key.id(), key)).filter(|(id, _)| !retired.contains(id)).collect();
        KeyRing { current, old, retired }
    }

    /// The key under which new images are sealed.
    pub const fn current(&self) -> &ClusterKey {
        &self.current
    }

    /// All keys that open something: the current one first.
    pub fn keys(&self) -> impl Iterator<Item = &ClusterKey> {
        let all = std::iter::once(&self.current).chain(self.old.values().filter(|key| **key != self.current));
        all.filter(|key| !self.retired.contains(&key.id()))
    }

    /// The key of this name.
    ///
    /// # Errors
    /// [`ImageError::RetiredKey`], and [`ImageError::WrongKey`] for one that was never of this ring.
    pub fn key(&self, id: KeyId) -> Result<&ClusterKey, ImageError> {
        if self.retired.contains(&id) {
            return Err(ImageError::RetiredKey { key: id });
        }
        let own = self.current.id();
        let found = if id == own { Some(&self.current) } else { self.old.get(&id) };
        found.ok_or(ImageError::WrongKey { file: id, own })
    }

    /// Opens the wrap of a header, under the key that the header names.
    ///
    /// # Errors
    /// As [`Self::key`], and [`ImageError::Tampered`] if it does not open under that key.
    pub fn open(&self, header: &Header) -> Result<Wrap, ImageError> {
        header.open(self.key(header.public.key_id)?)
    }
}

impl From<ClusterKey> for KeyRing {
    fn from(current: ClusterKey) -> KeyRing {
        KeyRing { current, old: BTreeMap::new(), retired: BTreeSet::new() }
    }
}

hexadecimal_id!(
    /// The 32 random bytes of one wrap; public.
    ImageNonce, 32, "an image nonce", "^[0-9A-Fa-f]{64}$"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::header::{DataKey, Terms};
    use crate::image::limits::Limits;

    fn key(seed: u8) -> ClusterKey {
        ClusterKey::new([seed; 32])
    }

    fn header(key: &ClusterKey) -> Header {
        let wrap =
            Wrap { data_key: DataKey([9; 32]), terms: Terms::default(), media_type: String::new(), name: "cat".into() };
        let (cluster, nonce) = (ClusterId([1; 32]), ImageNonce([2; 32]));
        Header::create(&wrap, key, cluster, nonce, 5, &Limits::default()).unwrap()
    }

    #[test]
    fn old_keys_open_and_retired_ones_are_refused_by_name() {
        let ring = KeyRing::new(key(3), [key(2), key(1)], [key(1).id(), key(7).id()].into());
        for seed in [3, 2] {
            assert_eq!(ring.open(&header(&key(seed))).unwrap().name, "cat", "key {seed}");
        }
        for seed in [1, 7] {
            let error = ring.open(&header(&key(seed))).unwrap_err();
            assert_eq!(error, ImageError::RetiredKey { key: key(seed).id() });
            assert!(error.to_string().contains(&format!("{}, which was retired", key(seed).id())), "{error}");
        }
        let stranger = ring.open(&header(&key(8))).unwrap_err();
        assert_eq!(stranger, ImageError::WrongKey { file: key(8).id(), own: key(3).id() });
        let opening: Vec<KeyId> = ring.keys().map(ClusterKey::id).collect();
        assert_eq!(opening, [key(3).id(), key(2).id()]);
    }

    #[test]
    fn a_retired_key_opens_nothing_even_as_the_current_one() {
        let ring = KeyRing::new(key(3), [key(3)], [key(3).id()].into());
        assert_eq!(ring.open(&header(&key(3))), Err(ImageError::RetiredKey { key: key(3).id() }));
        assert_eq!(ring.keys().count(), 0);
    }
}
