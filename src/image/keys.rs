//! Keys and ids of a cluster.

use std::fmt;

use serde::{Serialize, Serializer};

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

macro_rules! hexadecimal_id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

hexadecimal_id!(
    /// The name of a [`ClusterKey`].
    KeyId, 8
);
hexadecimal_id!(
    /// The name of a cluster's ledger: BLAKE3-256 of its initial membership, random incarnations included.
    ClusterId, 32
);
hexadecimal_id!(
    /// The 32 random bytes of one wrap; public.
    ImageNonce, 32
);
hexadecimal_id!(
    /// A user: the hash of the first public key that was registered.
    UserId, 32
);
