//! Users and rights as a client asks for them: signed calls that follow the leader and keep their id in every attempt.

use std::sync::{Mutex, PoisonError};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cluster::Cluster;
use super::error::ClientError;
use super::exchange;
use super::signer::Signer;
use crate::id::{ImageId, NodeId, RequestId, UserId};
use crate::protocol::job::route::REQUEST_ID;
use crate::protocol::problem::ProblemCode;
use crate::protocol::sharing::{
    ClusterIdentity, HeaderAnswer, HeaderRequest, Images, Invitation, InvitationRequest, Look, LookRequest, OwnedImage,
    Registration, RightsAnswer, RightsRequest, Rotation, UserChanged, Users, route,
};
use crate::protocol::user::{BodyHash, User, UserKeys};

impl Cluster {
    /// What must be known of the cluster before anything can be signed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn identity(&self) -> Result<ClusterIdentity, ClientError> {
        let build = |base: &str| self.shared.connections.get(format!("{base}{}", route::IDENTITY));
        self.at_leader(build, exchange::send_for_json).await
    }

    /// All users, in the order of their ids.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn users(&self, signer: Option<&Signer>, id: RequestId) -> Result<Vec<User>, ClientError> {
        let mut users: Vec<User> = Vec::new();
        loop {
            let after = users.last().map_or(String::new(), |last| format!("?after={}", last.id));
            let page = self.some_users(signer, id, &after).await?;
            let is_last = !page.more || page.users.is_empty();
            users.extend(page.users);
            if is_last {
                return Ok(users);
            }
        }
    }

    /// The user of that name, or with that id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn user(
        &self,
        signer: Option<&Signer>,
        id: RequestId,
        name_or_id: &str,
    ) -> Result<Option<User>, ClientError> {
        let query = match name_or_id.parse::<UserId>() {
            Ok(user) => format!("?id={user}"),
            Err(_) => format!("?name={}", utf8_percent_encode(name_or_id, NON_ALPHANUMERIC)),
        };
        match self.some_users(signer, id, &query).await {
            Ok(found) => Ok(found.users.into_iter().next()),
            Err(error) if error.refusal() == Some(ProblemCode::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn some_users(&self, signer: Option<&Signer>, id: RequestId, query: &str) -> Result<Users, ClientError> {
        let path = format!("{}{query}", route::USERS);
        match signer {
            Some(signer) => self.signed(signer, id, Method::GET, &path, Vec::new()).await,
            None => {
                let build = |base: &str| self.shared.connections.get(format!("{base}{path}"));
                self.at_leader(build, exchange::send_for_json).await
            }
        }
    }

    /// Makes the owner of new keys a user.
    ///
    /// # Errors
    /// [`ClientError`]; [`ProblemCode::Conflict`] if the name is taken.
    pub async fn register(
        &self,
        signer: &Signer,
        id: RequestId,
        registration: &Registration,
    ) -> Result<UserChanged, ClientError> {
        self.post_signed(signer, id, route::USERS, registration).await
    }

    /// Puts other keys in the place of the signer's.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rotate_keys(&self, signer: &Signer, id: RequestId, to: UserKeys) -> Result<UserChanged, ClientError> {
        self.post_signed(signer, id, route::KEYS, &Rotation { to }).await
    }

    /// Draws an invitation; for who administers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn invite(&self, id: RequestId, for_ms: u64) -> Result<Invitation, ClientError> {
        let body = to_json(&InvitationRequest { for_ms })?;
        let build = |base: &str| {
            let request = self.administrative(base, route::INVITATIONS).header(REQUEST_ID, id.to_string());
            request.header("content-type", "application/json").body(body.clone())
        };
        self.at_leader(build, exchange::send_for_json).await
    }

    /// Ends a user; for who administers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn expel(&self, id: RequestId, user: UserId) -> Result<UserChanged, ClientError> {
        let path = route::USER.replace("{user}", &user.to_string());
        let build = |base: &str| {
            let request = self.shared.connections.delete(format!("{base}{path}"));
            self.with_token(base, request).header(REQUEST_ID, id.to_string())
        };
        self.at_leader(build, exchange::send_for_json).await
    }

    /// Does something with the rights of an image.
    ///
    /// # Errors
    /// [`ClientError`]; [`ProblemCode::Denied`] without the right to it.
    pub async fn act(
        &self,
        signer: &Signer,
        id: RequestId,
        request: &RightsRequest,
    ) -> Result<RightsAnswer, ClientError> {
        self.post_signed(signer, id, route::RIGHTS, request).await
    }

    /// The same, with the nodes that were asked, in order: the last one has answered, the ones before sent on or did not. None for one
    /// whose id is not known.
    pub async fn act_along(
        &self,
        signer: &Signer,
        id: RequestId,
        request: &RightsRequest,
    ) -> (Vec<Option<NodeId>>, Result<RightsAnswer, ClientError>) {
        let asked = Mutex::new(Vec::new());
        let body = match to_json(request) {
            Ok(body) => body,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let note = |base: &str| asked.lock().unwrap_or_else(PoisonError::into_inner).push(base.to_owned());
        let result = self.signed_noting(signer, id, (Method::POST, route::RIGHTS), body, note).await;
        let asked = asked.into_inner().unwrap_or_else(PoisonError::into_inner);
        let node = |url: &String| self.shared.views.iter().find(|view| view.url == *url).and_then(|view| view.id());
        (asked.iter().map(node).collect(), result)
    }

    /// Looks at the rights of an image, which spends nothing.
    ///
    /// # Errors
    /// [`ClientError`]; [`ProblemCode::Denied`] without any right to it.
    pub async fn look(&self, signer: &Signer, id: RequestId, request: &LookRequest) -> Result<Look, ClientError> {
        self.post_signed(signer, id, route::LOOK, request).await
    }

    /// The signer's own images of which the ledger knows anything.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn images(&self, signer: &Signer, id: RequestId) -> Result<Vec<OwnedImage>, ClientError> {
        let mut images: Vec<OwnedImage> = Vec::new();
        loop {
            let after = images.last().map(|last| last.image);
            let after = after.map_or(String::new(), |after: ImageId| format!("?after={after}"));
            let path = format!("{}{after}", route::IMAGES);
            let page: Images = self.signed(signer, id, Method::GET, &path, Vec::new()).await?;
            let is_last = !page.more || page.images.is_empty();
            images.extend(page.images);
            if is_last {
                return Ok(images);
            }
        }
    }

    /// The header for an image that the client seals by itself.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn header(
        &self,
        signer: &Signer,
        id: RequestId,
        request: &HeaderRequest,
    ) -> Result<HeaderAnswer, ClientError> {
        self.post_signed(signer, id, route::HEADER, request).await
    }

    async fn post_signed<T: DeserializeOwned>(
        &self,
        signer: &Signer,
        id: RequestId,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.signed(signer, id, Method::POST, path, to_json(body)?).await
    }

    /// One request: the same id in every attempt, each attempt signed for itself.
    async fn signed<T: DeserializeOwned>(
        &self,
        signer: &Signer,
        id: RequestId,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        self.signed_noting(signer, id, (method, path), body, |_| {}).await
    }

    async fn signed_noting<T: DeserializeOwned>(
        &self,
        signer: &Signer,
        id: RequestId,
        (method, path): (Method, &str),
        body: Vec<u8>,
        note: impl Fn(&str),
    ) -> Result<T, ClientError> {
        let hash = BodyHash::of(&body);
        let build = |base: &str| -> RequestBuilder {
            note(base);
            let request = self.shared.connections.request(method.clone(), format!("{base}{path}"));
            let request = request
                .header("authorization", signer.authorization(method.as_str(), path, hash, id))
                .header(REQUEST_ID, id.to_string());
            if body.is_empty() {
                request
            } else {
                request.header("content-type", "application/json").body(body.clone())
            }
        };
        self.at_leader(build, exchange::send_for_json).await
    }
}

fn to_json(body: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(body).map_err(|error| ClientError::Setup(error.to_string()))
}
