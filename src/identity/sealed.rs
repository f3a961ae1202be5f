//! What one reader alone can open: HPKE in base mode (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM. The
//! result is the encapsulated key (32 bytes) and behind it what was sealed, with its tag (16 bytes).

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::keys::UserSecret;
use crate::id::{ClusterId, ImageId, RequestId, UserId};
use crate::protocol::user::PublicKey;

/// Bytes of an encapsulated key.
const ENCAPSULATED_BYTES: usize = 32;

/// What is sealed for what: it opens for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedFor {
    /// The key of an image, for the user who has spent a view.
    Release {
        /// The cluster.
        cluster: ClusterId,
        /// The image.
        image: ImageId,
        /// The user.
        user: UserId,
        /// The request.
        id: RequestId,
    },
    /// The key that a client has drawn for an image which it seals itself, for the cluster.
    LocalSeal {
        /// The cluster.
        cluster: ClusterId,
        /// The owner.
        user: UserId,
        /// The request.
        id: RequestId,
    },
    /// A lease in the store of the user who leased.
    Lease {
        /// The cluster.
        cluster: ClusterId,
        /// The image.
        image: ImageId,
        /// The user.
        user: UserId,
    },
}

impl SealedFor {
    fn info(&self) -> &'static [u8] {
        match self {
            SealedFor::Release { .. } => b"image-cloud release v1",
            SealedFor::LocalSeal { .. } => b"image-cloud local seal v1",
            SealedFor::Lease { .. } => b"image-cloud lease v1",
        }
    }

    fn associated(&self) -> Vec<u8> {
        match self {
            SealedFor::Release { cluster, image, user, id } => [&cluster.0[..], &image.0, &user.0, &id.0].concat(),
            SealedFor::LocalSeal { cluster, user, id } => [&cluster.0[..], &user.0, &id.0].concat(),
            SealedFor::Lease { cluster, image, user } => [&cluster.0[..], &image.0, &user.0].concat(),
        }
    }
}

/// What a user gets for a view.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The key of the image.
    pub data_key: [u8; 32],
    /// Media type of the original.
    pub media_type: String,
    /// Its file name.
    pub name: String,
}

impl PublicKey {
    /// Whether something can be sealed to this key: not if it shares its secret with everybody.
    pub fn takes_seals(&self) -> bool {
        SUITE.setup_sealer(&[], &HpkePublicKey(self.0.to_vec())).is_ok()
    }
}

/// Seals to whoever owns the other half of the key. None if the key is one that shares its secret with everybody.
pub fn seal(plain: &[u8], to: &PublicKey, purpose: &SealedFor) -> Option<Vec<u8>> {
    let to = HpkePublicKey(to.0.to_vec());
    let (encapsulated, sealed) = SUITE.seal(purpose.info(), &purpose.associated(), plain, &to).ok()?;
    Some([encapsulated.0, sealed].concat())
}

/// Opens what was sealed to this user. None if it is for somebody else, for something else, or altered.
pub fn open(sealed: &[u8], secret: &UserSecret, purpose: &SealedFor) -> Option<Vec<u8>> {
    open_with(sealed, secret.opening_key(), purpose)
}

fn open_with(sealed: &[u8], secret: &[u8; 32], purpose: &SealedFor) -> Option<Vec<u8>> {
    let (encapsulated, sealed) = sealed.split_at_checked(ENCAPSULATED_BYTES)?;
    let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
    let secret = HpkePrivateKey::from(secret.to_vec());
    SUITE.open(&encapsulated, purpose.info(), &purpose.associated(), sealed, &secret).ok()
}

/// The cluster as a reader: its keys follow from the cluster key, so that every node has them.
pub struct ClusterReader {
    secret: [u8; 32],
    public: PublicKey,
}

impl Drop for ClusterReader {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl ClusterReader {
    /// The reader that belongs to a cluster key.
    pub fn new(cluster_key: &[u8; 32]) -> ClusterReader {
        let secret = blake3::derive_key("image-cloud 2026 cluster reader v1", cluster_key);
        ClusterReader { secret, public: PublicKey::of_agreement(&secret) }
    }

    /// What everybody may seal to.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Opens what was sealed to the cluster. None if it is for somebody else, for something else, or altered.
    pub fn open(&self, sealed: &[u8], purpose: &SealedFor) -> Option<Vec<u8>> {
        open_with(sealed, &self.secret, purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: SealedFor = SealedFor::Release {
        cluster: ClusterId([1; 32]),
        image: ImageId([2; 32]),
        user: UserId([3; 32]),
        id: RequestId([4; 16]),
    };

    #[test]
    fn only_the_reader_opens_it_and_only_for_its_purpose() {
        let (alice, bob) = (UserSecret::from_bytes(&[1; 64]), UserSecret::from_bytes(&[2; 64]));
        let sealed = seal(b"key", &alice.public().agreement, &RELEASE).unwrap();
        assert_eq!(open(&sealed, &alice, &RELEASE).as_deref(), Some(&b"key"[..]));
        assert_eq!(open(&sealed, &bob, &RELEASE), None);
        let SealedFor::Release { cluster, image, user, id } = RELEASE else { unreachable!() };
        for other in [
            SealedFor::Release { cluster: ClusterId([5; 32]), image, user, id },
            SealedFor::Release { cluster, image: ImageId([5; 32]), user, id },
            SealedFor::Release { cluster, image, user: UserId([5; 32]), id },
            SealedFor::Release { cluster, image, user, id: RequestId([5; 16]) },
            SealedFor::Lease { cluster, image, user },
            SealedFor::LocalSeal { cluster, user, id },
        ] {
            assert_eq!(open(&sealed, &alice, &other), None, "{other:?}");
        }
        for byte in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[byte] ^= 1;
            assert_eq!(open(&altered, &alice, &RELEASE), None, "byte {byte}");
        }
        for length in 0..sealed.len() {
            assert_eq!(open(&sealed[..length], &alice, &RELEASE), None, "{length} bytes");
        }
    }

    /// Made by another implementation of RFC 9180 (the crate hpke 0.15): the same suite, byte for byte.
    #[test]
    fn what_another_implementation_has_sealed_opens() {
        let sealed =
            "b13c9414c881fefd7341f59aa86d2282696bafa87b85e6b40fde70562e635d0b80c2b821050db6712818f9e4f07174904f3c08";
        let sealed = data_encoding::HEXLOWER.decode(sealed.as_bytes()).unwrap();
        assert_eq!(open(&sealed, &UserSecret::from_bytes(&[1; 64]), &RELEASE).as_deref(), Some(&b"key"[..]));
    }

    #[test]
    fn every_node_has_the_clusters_keys() {
        let (one, two) = (ClusterReader::new(&[7; 32]), ClusterReader::new(&[7; 32]));
        assert_eq!(one.public(), two.public());
        let sealed = seal(b"key", &one.public(), &RELEASE).unwrap();
        assert_eq!(two.open(&sealed, &RELEASE).as_deref(), Some(&b"key"[..]));
        assert_eq!(ClusterReader::new(&[8; 32]).open(&sealed, &RELEASE), None);
    }

    #[test]
    fn nothing_is_sealed_to_a_key_that_everybody_shares() {
        assert_eq!(seal(b"key", &PublicKey([0; 32]), &RELEASE), None);
        assert!(!PublicKey([0; 32]).takes_seals());
        assert!(UserSecret::from_bytes(&[1; 64]).public().agreement.takes_seals());
    }
}
