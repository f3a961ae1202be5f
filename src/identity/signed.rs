//! Signed requests: what is signed, and how it travels.
//!
//! ```text
//! authorization: Image-Cloud user=USER,key=KEY,time=UNIX_MS,body=BLAKE3,signature=BASE64
//! idempotency-key: REQUEST_ID
//! ```
//! The signature is over these lines, each ended by a line feed. A path that holds one is never believed.
//! ```text
//! image-cloud request v1
//! cluster=CLUSTER_ID
//! user=USER_ID
//! key=KEY_ID
//! method=POST
//! path=/api/v1/images/rights
//! body=BLAKE3-256 of the body
//! time=milliseconds since 1970
//! id=REQUEST_ID
//! ```

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use thiserror::Error;

use super::keys::{SIGNATURE_BYTES, Signature, UserSecret};
use crate::id::{ClusterId, RequestId, UserId, UserKeyId};
use crate::protocol::user::{BodyHash, Date, PublicKey};

/// The scheme in the header.
pub const SCHEME: &str = "Image-Cloud";

/// Everything that a signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedRequest<'a> {
    /// The cluster that is asked.
    pub cluster: ClusterId,
    /// Who asks.
    pub user: UserId,
    /// With which keys.
    pub key: UserKeyId,
    /// The method of HTTP.
    pub method: &'a str,
    /// Path and query, as they travel.
    pub path: &'a str,
    /// BLAKE3-256 of the body.
    pub body: BodyHash,
    /// When it was signed, by the signer's clock.
    pub at: Date,
    /// The request.
    pub id: RequestId,
}

impl SignedRequest<'_> {
    fn message(&self) -> Vec<u8> {
        let SignedRequest { cluster, user, key, method, path, body, at, id } = self;
        format!(
            "image-cloud request v1\ncluster={cluster}\nuser={user}\nkey={key}\nmethod={method}\npath={path}\nbody={body}\n\
             time={}\nid={id}\n",
            at.0
        )
        .into_bytes()
    }

    /// Signs it.
    pub fn sign(&self, secret: &UserSecret) -> Authorization {
        let SignedRequest { user, key, body, at, .. } = *self;
        Authorization { user, key, at, body, signature: secret.sign(&self.message()) }
    }

    /// Whether the owner of that key has signed it.
    pub fn is_signed_by(&self, signing: &PublicKey, signature: &Signature) -> bool {
        !self.path.contains('\n') && signing.has_signed(&self.message(), signature)
    }
}

/// What of a signed request travels in its `Authorization` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Who asks.
    pub user: UserId,
    /// With which keys.
    pub key: UserKeyId,
    /// When it was signed.
    pub at: Date,
    /// BLAKE3-256 of the body.
    pub body: BodyHash,
    /// The signature.
    pub signature: Signature,
}

/// A header that is none of ours, or a damaged one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the Authorization header is not of the form {SCHEME} user=…,key=…,time=…,body=…,signature=…: {why}")]
pub struct AuthorizationError {
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Authorization {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Authorization { user, key, at, body, signature } = self;
        let signature = BASE64_STANDARD.encode(signature);
        write!(formatter, "{SCHEME} user={user},key={key},time={},body={body},signature={signature}", at.0)
    }
}

impl Authorization {
    /// Reads what stands behind the scheme.
    ///
    /// # Errors
    /// [`AuthorizationError`].
    pub fn parse(parameters: &str) -> Result<Authorization, AuthorizationError> {
        let error = |why: &dyn fmt::Display| AuthorizationError { why: why.to_string() };
        let mut parts = parameters.split(',');
        let mut next = |name: &str| {
            let part = parts.next().and_then(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
            part.ok_or_else(|| AuthorizationError { why: format!("{name}= is missing, or not in its place") })
        };
        let user = next("user")?.parse().map_err(|why: String| error(&why))?;
        let key = next("key")?.parse().map_err(|why: String| error(&why))?;
        let at = next("time")?.parse().map(Date).map_err(|why| error(&why))?;
        let body = next("body")?.parse().map_err(|why: String| error(&why))?;
        let signature = BASE64_STANDARD.decode(next("signature")?).map_err(|why| error(&why))?;
        let signature = signature.try_into().map_err(|_| error(&format!("a signature has {SIGNATURE_BYTES} bytes")))?;
        if parts.next().is_some() {
            return Err(error(&"there is more behind the signature"));
        }
        Ok(Authorization { user, key, at, body, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(number: u8) -> UserSecret {
        UserSecret::from_bytes(&[number; 64])
    }

    fn request() -> SignedRequest<'static> {
        let keys = secret(1).public();
        SignedRequest {
            cluster: ClusterId([1; 32]),
            user: keys.user(),
            key: keys.id(),
            method: "POST",
            path: "/api/v1/images/rights?a=b",
            body: BodyHash::of(b"body"),
            at: Date(1_700_000_000_000),
            id: RequestId([3; 16]),
        }
    }

    #[test]
    fn a_signature_covers_everything_that_is_asked() {
        let request = request();
        let (key, signature) = (secret(1).public().signing, request.sign(&secret(1)).signature);
        assert!(request.is_signed_by(&key, &signature));
        let altered = [
            SignedRequest { cluster: ClusterId([2; 32]), ..request },
            SignedRequest { user: UserId([2; 32]), ..request },
            SignedRequest { key: UserKeyId([2; 8]), ..request },
            SignedRequest { method: "PUT", ..request },
            SignedRequest { path: "/api/v1/images/rights?a=c", ..request },
            SignedRequest { path: "/api/v1/images/rights?a=b\nbody=", ..request },
            SignedRequest { body: BodyHash::of(b"Body"), ..request },
            SignedRequest { at: Date(1_700_000_000_001), ..request },
            SignedRequest { id: RequestId([4; 16]), ..request },
        ];
        for altered in altered {
            assert!(!altered.is_signed_by(&key, &signature), "{altered:?}");
        }
        assert!(!request.is_signed_by(&secret(2).public().signing, &signature));
    }

    /// Whoever writes a client of another kind signs this.
    #[test]
    fn the_signed_text_is_the_documented_one() {
        let SignedRequest { cluster, user, key, body, .. } = request();
        let text = format!(
            "image-cloud request v1\ncluster={cluster}\nuser={user}\nkey={key}\nmethod=POST\npath=/api/v1/images/rights?a=b\n\
             body={body}\ntime=1700000000000\nid=03030303030303030303030303030303\n"
        );
        assert_eq!(String::from_utf8(request().message()).unwrap(), text);
    }

    #[test]
    fn the_header_comes_back_and_anything_else_is_refused() {
        let authorization = request().sign(&secret(1));
        let text = authorization.to_string();
        let (scheme, parameters) = text.split_once(' ').unwrap();
        assert_eq!(scheme, SCHEME);
        assert_eq!(Authorization::parse(parameters), Ok(authorization));
        for wrong in
            ["", "user=1", &parameters[1..], &format!("{parameters},x=1"), &parameters.replace("time=", "time=-")]
        {
            assert!(Authorization::parse(wrong).is_err(), "{wrong}");
        }
    }
}
