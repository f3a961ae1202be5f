//! The conversation about users: who they are, and what their signed requests look like in the log.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{UserId, UserKeyId, hexadecimal_id};

/// The longest user name, in bytes.
pub const NAME_LIMIT: usize = 64;

/// How far the time of a signed request may be from the leader's clock, in milliseconds: two minutes.
pub const SIGNED_WITHIN_MS: u64 = 120_000;

hexadecimal_id!(
    /// The public half of a key.
    PublicKey, 32, "a public key", "^[0-9A-Fa-f]{64}$"
);
hexadecimal_id!(
    /// The hash of an invitation's secret: only who was given the secret can show what it is the hash of.
    InvitationId, 32, "the hash of an invitation", "^[0-9A-Fa-f]{64}$"
);

hexadecimal_id!(
    /// BLAKE3-256 of the body of a signed request.
    BodyHash, 32, "the hash of a body", "^[0-9A-Fa-f]{64}$"
);

impl BodyHash {
    /// That of this body.
    pub fn of(body: &[u8]) -> BodyHash {
        BodyHash(*blake3::hash(body).as_bytes())
    }
}

/// Milliseconds since 1970 by some wall clock; the field says whose. Expiry and signed requests are about dates, which the ledger's [`Stamp`](crate::protocol::ledger::Stamp), made for spans of time, is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Date(pub u64);

/// The public halves of a user's two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct UserKeys {
    /// Ed25519 (RFC 8032): checks what the user has signed.
    pub signing: PublicKey,
    /// X25519 (RFC 7748): what is for the user alone is sealed to it.
    pub agreement: PublicKey,
}

impl UserKeys {
    /// The user whose first keys these are.
    pub fn user(&self) -> UserId {
        UserId(self.hash("image-cloud 2026 user id v1"))
    }

    /// Their name.
    pub fn id(&self) -> UserKeyId {
        let hash = self.hash("image-cloud 2026 user key id v1");
        UserKeyId(*hash.first_chunk().expect("a hash has 32 bytes"))
    }

    fn hash(&self, context: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.signing.0).update(&self.agreement.0);
        *hasher.finalize().as_bytes()
    }
}

/// What of a signature goes into the log: the node that was asked has checked it, `apply` checks that these keys are the user's at
/// that moment, and that the request is not old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The keys that it was made with.
    pub key: UserKeyId,
    /// When it was made, by its maker's clock.
    pub at: Date,
}

/// Why somebody may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// The node that was asked listens on loopback, where everybody may.
    Open,
    /// An invitation, which is used up by it.
    Invited(InvitationId),
}

/// A command on the table of users. New ones go to the end: their number is their form on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserCommand {
    /// Makes the caller a user. Signed with the keys that it brings.
    Register {
        /// The name, which goes to the first who takes it.
        name: String,
        /// The first keys.
        keys: UserKeys,
        /// Why it is allowed.
        admission: Admission,
    },
    /// Puts other keys in the place of the caller's. Signed with the old ones.
    Rotate {
        /// The new keys.
        to: UserKeys,
    },
    /// Lets whoever knows the secret register, once. Only for who administers.
    Invite {
        /// The hash of the secret.
        invitation: InvitationId,
        /// Until when.
        until: Date,
    },
    /// Ends a user: no request of that user is done any more. Only for who administers.
    Expel {
        /// Who.
        user: UserId,
    },
}

/// A user as everybody may see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// Who it is, whatever the keys are.
    pub id: UserId,
    /// The name.
    pub name: String,
    /// The present keys.
    pub keys: UserKeys,
    /// Whether the user was expelled.
    pub is_expelled: bool,
}

/// Why this text cannot be a user's name.
///
/// # Errors
/// One line that says what to do.
pub fn check_name(name: &str) -> Result<(), String> {
    // Other alphabets have letters that look like these, or like nothing at all.
    let is_usual = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-' | '@' | '+');
    let shown = name.escape_debug();
    if name.is_empty() || name.len() > NAME_LIMIT {
        return Err(format!("a user name has 1 to {NAME_LIMIT} bytes, \"{shown}\" has {}", name.len()));
    }
    if let Some(letter) = name.chars().find(|letter| !is_usual(*letter)) {
        return Err(format!(
            "a user name has the letters a to z, digits and . _ - @ +, but \"{shown}\" has \"{}\"",
            letter.escape_debug()
        ));
    }
    if !name.starts_with(|letter: char| letter.is_ascii_alphanumeric()) {
        return Err(format!("a user name begins with a letter or a digit, \"{shown}\" does not"));
    }
    if name.parse::<UserId>().is_ok() {
        return Err(format!("\"{shown}\" is a user id: take a name that cannot be mistaken for one"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_mislead_are_refused() {
        for name in ["alice", "Bob7", "a.b-c_d@e+f"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "a b",
            "a=1",
            "a,b",
            "a\n",
            "\u{202e}ecila",
            "a/b",
            "José",
            "\u{430}lice",
            "alice\u{3164}",
            "..",
            "-a",
            &"a".repeat(65),
            &"0".repeat(64),
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
