//! Who somebody is to the cluster: a user's keys, requests that are signed with them, and what is sealed to one reader alone. No I/O
//! and no clock; sealing draws a key of its own.

mod keys;
mod sealed;
mod signed;

pub use keys::{SIGNATURE_BYTES, Signature, UserSecret};
pub use sealed::{ClusterReader, Released, SealedFor, open, seal};
pub use signed::{Authorization, AuthorizationError, SCHEME, SignedRequest};
