//! A user's two secret keys: one signs (Ed25519, RFC 8032), one opens what is sealed to the user (X25519, RFC 7748). Two, since
//! neither proof nor library covers one key for both.

use std::fmt;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::protocol::user::{PublicKey, UserKeys};

/// Bytes of a [`Signature`].
pub const SIGNATURE_BYTES: usize = 64;

/// An Ed25519 signature.
pub type Signature = [u8; SIGNATURE_BYTES];

/// The secret halves of a user's keys. The debug form does not show them; they are wiped when this is dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct UserSecret {
    signing: [u8; 32],
    agreement: [u8; 32],
}

impl fmt::Debug for UserSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("UserSecret(…)")
    }
}

impl UserSecret {
    /// Bytes of the secret.
    pub const BYTES: usize = 64;

    /// The keys of these bytes, which must be random: 32 for the key that signs, 32 for the one that opens.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> UserSecret {
        let (mut signing, mut agreement) = ([0; 32], [0; 32]);
        signing.copy_from_slice(&bytes[..32]);
        agreement.copy_from_slice(&bytes[32..]);
        UserSecret { signing, agreement }
    }

    /// The secret itself, to be written where only its owner can read.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..32].copy_from_slice(&self.signing);
        bytes[32..].copy_from_slice(&self.agreement);
        bytes
    }

    /// The public halves.
    pub fn public(&self) -> UserKeys {
        let mut signing = [0; 32];
        signing.copy_from_slice(self.pair().public_key().as_ref());
        UserKeys { signing: PublicKey(signing), agreement: PublicKey::of_agreement(&self.agreement) }
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.pair().sign(message);
        signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.signing).expect("any 32 bytes are a seed")
    }

    pub(super) fn opening_key(&self) -> &[u8; 32] {
        &self.agreement
    }
}

impl PublicKey {
    /// The public half of a secret X25519 key.
    pub(super) fn of_agreement(secret: &[u8; 32]) -> PublicKey {
        let secret = PrivateKey::from_private_key(&X25519, secret).expect("any 32 bytes are an X25519 key");
        let public = secret.compute_public_key().expect("an X25519 key has a public half");
        PublicKey(public.as_ref().try_into().expect("which has 32 bytes"))
    }

    /// Whether the owner of this key has signed the message.
    pub fn has_signed(&self, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_is_believed() {
        let (alice, bob) = (UserSecret::from_bytes(&[1; 64]), UserSecret::from_bytes(&[2; 64]));
        let signature = alice.sign(b"message");
        assert!(alice.public().signing.has_signed(b"message", &signature));
        assert!(!alice.public().signing.has_signed(b"massage", &signature));
        assert!(!bob.public().signing.has_signed(b"message", &signature));
        for byte in 0..SIGNATURE_BYTES {
            let mut altered = signature;
            altered[byte] ^= 1;
            assert!(!alice.public().signing.has_signed(b"message", &altered), "byte {byte}");
        }
        assert!(!PublicKey([0; 32]).has_signed(b"message", &[0; 64]), "a weak key signs nothing");
    }

    #[test]
    fn a_secret_is_not_shown_and_comes_back_from_its_bytes() {
        let secret = UserSecret::from_bytes(&[7; 64]);
        assert_eq!(format!("{secret:?}"), "UserSecret(…)");
        assert_eq!(UserSecret::from_bytes(&secret.to_bytes()), secret);
        assert_ne!(secret.public().signing.0, secret.public().agreement.0);
    }
}
