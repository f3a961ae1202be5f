//! Who signs: requests of a user are signed anew for each attempt, since a signature is believed for two minutes only.

use crate::id::{ClusterId, RequestId, UserId};
use crate::identity::{SignedRequest, UserSecret};
use crate::protocol::user::{BodyHash, Date, UserKeys};
use crate::time::unix_millis;

/// A user of one cluster, with the secret keys. The debug form does not show these.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The cluster.
    pub cluster: ClusterId,
    /// The user.
    pub user: UserId,
    secret: UserSecret,
}

impl Signer {
    /// The user with these keys.
    pub fn new(cluster: ClusterId, user: UserId, secret: UserSecret) -> Signer {
        Signer { cluster, user, secret }
    }

    /// The public halves.
    pub fn keys(&self) -> UserKeys {
        self.secret.public()
    }

    /// The secret halves.
    pub fn secret(&self) -> &UserSecret {
        &self.secret
    }

    /// The value of the `Authorization` header for this request, signed now. `path` is path and query as they travel.
    pub fn authorization(&self, method: &str, path: &str, body: BodyHash, id: RequestId) -> String {
        let Signer { cluster, user, secret } = self;
        let (key, at) = (secret.public().id(), Date(unix_millis()));
        let request = SignedRequest { cluster: *cluster, user: *user, key, method, path, body, at, id };
        request.sign(secret).to_string()
    }
}
