//! What one reader alone can open: HPKE in base mode (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM. The
//! result is the encapsulated key (32 bytes) and behind it what was sealed, with its tag (16 bytes).

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal_with_rng};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::keys::UserSecret;
use crate::id::{ClusterId, ImageId, RequestId, UserId};
use crate::protocol::user::PublicKey;

/// Random bytes that sealing takes: new ones for each call.
pub const ENTROPY_BYTES: usize = 32;

/// Bytes of an encapsulated key.
const ENCAPSULATED_BYTES: usize = 32;

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;

/// What is sealed for what: it opens for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
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
    /// A lease in its owner's store.
    Lease {
        /// The cluster.
        cluster: ClusterId,
        /// The image.
        image: ImageId,
        /// The user.
        user: UserId,
    },
}

impl Purpose {
    fn info(&self) -> &'static [u8] {
        match self {
            Purpose::Release { .. } => b"image-cloud release v1",
            Purpose::LocalSeal { .. } => b"image-cloud local seal v1",
            Purpose::Lease { .. } => b"image-cloud lease v1",
        }
    }

    fn associated(&self) -> Vec<u8> {
        match self {
            Purpose::Release { cluster, image, user, id } => [&cluster.0[..], &image.0, &user.0, &id.0].concat(),
            Purpose::LocalSeal { cluster, user, id } => [&cluster.0[..], &user.0, &id.0].concat(),
            Purpose::Lease { cluster, image, user } => [&cluster.0[..], &image.0, &user.0].concat(),
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

/// Seals to whoever owns the other half of the key. None if the key is one that shares its secret with everybody.
pub fn seal(plain: &[u8], to: &PublicKey, purpose: &Purpose, entropy: [u8; ENTROPY_BYTES]) -> Option<Vec<u8>> {
    let to = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&to.0).ok()?;
    let mut random = StdRng::from_seed(entropy);
    let (encapsulated, sealed) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &to,
        purpose.info(),
        plain,
        &purpose.associated(),
        &mut random,
    )
    .ok()?;
    Some([&encapsulated.to_bytes()[..], &sealed].concat())
}

/// Opens what was sealed to this user. None if it is for somebody else, for something else, or altered.
pub fn open(sealed: &[u8], secret: &UserSecret, purpose: &Purpose) -> Option<Vec<u8>> {
    open_with(sealed, &secret.opening_key(), purpose)
}

fn open_with(sealed: &[u8], secret: &PrivateKey, purpose: &Purpose) -> Option<Vec<u8>> {
    let (encapsulated, sealed) = sealed.split_at_checked(ENCAPSULATED_BYTES)?;
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
    single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        secret,
        &encapsulated,
        purpose.info(),
        sealed,
        &purpose.associated(),
    )
    .ok()
}

/// The cluster as a reader: its keys follow from the cluster key, so that every node has them.
pub struct ClusterReader {
    secret: PrivateKey,
    public: PublicKey,
}

impl ClusterReader {
    /// The reader that belongs to a cluster key.
    pub fn new(cluster_key: &[u8; 32]) -> ClusterReader {
        let material = blake3::derive_key("image-cloud 2026 cluster reader v1", cluster_key);
        let (secret, public) = X25519HkdfSha256::derive_keypair(&material);
        let mut bytes = [0; 32];
        public.write_exact(&mut bytes);
        ClusterReader { secret, public: PublicKey(bytes) }
    }

    /// What everybody may seal to.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Opens what was sealed to the cluster. None if it is for somebody else, for something else, or altered.
    pub fn open(&self, sealed: &[u8], purpose: &Purpose) -> Option<Vec<u8>> {
        open_with(sealed, &self.secret, purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: Purpose = Purpose::Release {
        cluster: ClusterId([1; 32]),
        image: ImageId([2; 32]),
        user: UserId([3; 32]),
        id: RequestId([4; 16]),
    };

    #[test]
    fn only_the_reader_opens_it_and_only_for_its_purpose() {
        let (alice, bob) = (UserSecret::from_bytes(&[1; 64]), UserSecret::from_bytes(&[2; 64]));
        let sealed = seal(b"key", &alice.public().agreement, &RELEASE, [9; 32]).unwrap();
        assert_eq!(open(&sealed, &alice, &RELEASE).as_deref(), Some(&b"key"[..]));
        assert_eq!(open(&sealed, &bob, &RELEASE), None);
        let Purpose::Release { cluster, image, user, id } = RELEASE else { unreachable!() };
        for other in [
            Purpose::Release { cluster: ClusterId([5; 32]), image, user, id },
            Purpose::Release { cluster, image: ImageId([5; 32]), user, id },
            Purpose::Release { cluster, image, user: UserId([5; 32]), id },
            Purpose::Release { cluster, image, user, id: RequestId([5; 16]) },
            Purpose::Lease { cluster, image, user },
            Purpose::LocalSeal { cluster, user, id },
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

    #[test]
    fn every_node_has_the_clusters_keys() {
        let (one, two) = (ClusterReader::new(&[7; 32]), ClusterReader::new(&[7; 32]));
        assert_eq!(one.public(), two.public());
        let sealed = seal(b"key", &one.public(), &RELEASE, [9; 32]).unwrap();
        assert_eq!(two.open(&sealed, &RELEASE).as_deref(), Some(&b"key"[..]));
        assert_eq!(ClusterReader::new(&[8; 32]).open(&sealed, &RELEASE), None);
    }

    #[test]
    fn nothing_is_sealed_to_a_key_that_everybody_shares() {
        assert_eq!(seal(b"key", &PublicKey([0; 32]), &RELEASE, [9; 32]), None);
    }
}
