//! Who somebody is to the cluster: a user's keys, requests that are signed with them, and what is sealed to one reader alone. Pure:
//! randomness comes in as bytes.

mod keys;
mod sealed;
mod signed;

pub use keys::{SIGNATURE_BYTES, Signature, UserSecret};
pub use sealed::{ClusterReader, ENTROPY_BYTES, Purpose, Released, open, seal};
pub use signed::{Authorization, AuthorizationError, SCHEME, SignedRequest};
