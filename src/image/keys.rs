//! Keys and ids of a cluster.

use std::fmt;

use crate::id::hexadecimal_id;
pub use crate::id::{ClusterId, UserId};

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
        let hash = blake3::derive_key("image-cloud 2026 cluster key id v1", &self.0);
        KeyId(*hash.first_chunk().expect("a hash has 32 bytes"))
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

hexadecimal_id!(
    /// The name of a [`ClusterKey`].
    KeyId, 8, "a key id"
);
hexadecimal_id!(
    /// The 32 random bytes of one wrap; public.
    ImageNonce, 32, "an image nonce"
);
