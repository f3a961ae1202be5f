//! Users with keys of their own, who speak to a cluster byte by byte, so that each byte can be a wrong one.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image_cloud::id::{ClusterId, ImageId, RequestId, UserId};
use image_cloud::identity::{self, Authorization, Released, SealedFor, SignedRequest, UserSecret};
use image_cloud::image::{self, DataKey, Limits};
use image_cloud::protocol::codec;
use image_cloud::protocol::problem::{Problem, ProblemCode};
use image_cloud::protocol::rights::ImageAction;
use image_cloud::protocol::sharing::{
    ClusterIdentity, Look, LookRequest, Registration, RightsAnswer, RightsRequest, UserChanged, route,
};
use image_cloud::protocol::user::{BodyHash, Date};
use image_cloud::time;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::common::{TestCluster, wait_for};

/// A request id that no other request of this process has.
pub fn fresh_id() -> RequestId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let start = u128::from(std::process::id()) << 64;
    RequestId((start + u128::from(number)).to_be_bytes())
}

/// A user.
#[derive(Clone)]
pub struct Person {
    pub name: String,
    pub secret: UserSecret,
    /// Who it is, whatever the keys are now.
    pub user: UserId,
    pub cluster: ClusterId,
    pub http: reqwest::Client,
}

/// One request, each part of which may be changed before it is sent.
pub struct Asked {
    pub method: &'static str,
    pub path: String,
    pub body: Vec<u8>,
    pub id: RequestId,
    pub authorization: Authorization,
    pub headers: Vec<(&'static str, String)>,
}

impl Person {
    /// A user that this cluster knows.
    pub async fn register(cluster: &TestCluster, name: &str, number: u8) -> Person {
        let identity = cluster_identity(cluster).await;
        let secret = UserSecret::from_bytes(&[number; 64]);
        let user = secret.public().user();
        // A redirection that the library follows by itself goes without the signature.
        let none = reqwest::redirect::Policy::none();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).redirect(none).build().unwrap();
        let person = Person { name: name.to_owned(), secret, user, cluster: identity.cluster_id, http };
        let keys = person.secret.public();
        let body = Registration { name: name.to_owned(), keys, invitation: None };
        let _: UserChanged = person.done(cluster, "POST", route::USERS, &body, fresh_id()).await;
        person
    }

    /// A request as this user signs it now.
    pub fn ask(&self, method: &'static str, path: &str, body: Vec<u8>, id: RequestId) -> Asked {
        self.ask_at(method, path, body, id, time::unix_millis())
    }

    /// A request that is signed with that time.
    pub fn ask_at(&self, method: &'static str, path: &str, body: Vec<u8>, id: RequestId, at: u64) -> Asked {
        let request = SignedRequest {
            cluster: self.cluster,
            user: self.user,
            key: self.secret.public().id(),
            method,
            path,
            body: BodyHash::of(&body),
            at: Date(at),
            id,
        };
        let authorization = request.sign(&self.secret);
        Asked { method, path: path.to_owned(), body, id, authorization, headers: Vec::new() }
    }

    pub fn ask_json(&self, path: &str, body: &impl Serialize, id: RequestId) -> Asked {
        self.ask("POST", path, serde_json::to_vec(body).unwrap(), id)
    }

    /// Sends it to one node, and follows to the leader.
    pub async fn send<T: DeserializeOwned>(&self, base: &str, asked: &Asked) -> Result<T, Problem> {
        let bytes = self.send_for_bytes(base, asked).await?;
        Ok(serde_json::from_slice(&bytes).unwrap())
    }

    pub async fn send_for_bytes(&self, base: &str, asked: &Asked) -> Result<Vec<u8>, Problem> {
        let mut request = self
            .http
            .request(asked.method.parse().unwrap(), format!("{base}{}", asked.path))
            .header("authorization", asked.authorization.to_string())
            .header("idempotency-key", asked.id.to_string())
            .body(asked.body.clone());
        for (name, value) in &asked.headers {
            request = request.header(*name, value);
        }
        let unavailable = |error: &dyn std::fmt::Display| Problem::new(ProblemCode::Dropped, error.to_string());
        let response = request.send().await.map_err(|error| unavailable(&error))?;
        let is_done = response.status().is_success();
        let bytes = response.bytes().await.map_err(|error| unavailable(&error))?;
        if is_done { Ok(bytes.to_vec()) } else { Err(serde_json::from_slice(&bytes).unwrap()) }
    }

    /// Asks until it is done or refused for good, signed anew each time.
    pub async fn until_decided<T: DeserializeOwned>(
        &self,
        cluster: &TestCluster,
        path: &str,
        body: &impl Serialize,
        id: RequestId,
    ) -> Result<T, Problem> {
        self.until_decided_at(&cluster.urls(), path, body, id).await
    }

    /// The same, at these nodes.
    pub async fn until_decided_at<T: DeserializeOwned>(
        &self,
        urls: &[String],
        path: &str,
        body: &impl Serialize,
        id: RequestId,
    ) -> Result<T, Problem> {
        let mut bases = urls.to_vec();
        wait_for("it is decided", async || {
            bases.truncate(urls.len());
            let base = bases[0].clone();
            bases.rotate_left(1);
            match self.send(&base, &self.ask_json(path, body, id)).await {
                Err(Problem { leader: Some(leader), .. }) => {
                    bases.insert(0, leader);
                    None
                }
                Err(problem) if problem.code.is_worth_a_retry() => None,
                decided => Some(decided),
            }
        })
        .await
    }

    async fn done<T: DeserializeOwned>(
        &self,
        cluster: &TestCluster,
        _method: &'static str,
        path: &str,
        body: &impl Serialize,
        id: RequestId,
    ) -> T {
        self.until_decided(cluster, path, body, id).await.unwrap()
    }

    /// Seals at a node, with rights as the query has them.
    pub async fn seal(&self, base: &str, original: &[u8], query: &str) -> Result<Vec<u8>, Problem> {
        let path = format!("/api/v1/images/seal?name=photo.png{query}");
        wait_for("the node seals", async || {
            let asked = self.ask("POST", &path, original.to_vec(), fresh_id());
            match self.send_for_bytes(base, &asked).await {
                Err(problem) if problem.code.is_worth_a_retry() => None,
                decided => Some(decided),
            }
        })
        .await
    }

    /// Does something with an image.
    pub async fn act(
        &self,
        cluster: &TestCluster,
        header: &[u8],
        action: ImageAction,
        id: RequestId,
    ) -> Result<RightsAnswer, Problem> {
        self.until_decided(cluster, route::RIGHTS, &rights_request(header, action), id).await
    }

    pub async fn look(&self, cluster: &TestCluster, header: &[u8]) -> Result<Look, Problem> {
        let body = LookRequest { header: BASE64_STANDARD.encode(header), after: 0 };
        self.until_decided(cluster, route::LOOK, &body, fresh_id()).await
    }

    /// The key that was released to this user.
    pub fn key_in(&self, answer: &RightsAnswer, id: RequestId) -> Option<Released> {
        let sealed = BASE64_STANDARD.decode(answer.key.as_ref()?).unwrap();
        let purpose = SealedFor::Release { cluster: self.cluster, image: answer.image, user: self.user, id };
        codec::decode(&identity::open(&sealed, &self.secret, &purpose)?).ok()
    }

    /// Spends a view and opens the picture.
    pub async fn view(&self, cluster: &TestCluster, sealed: &[u8]) -> Result<Vec<u8>, Problem> {
        let id = fresh_id();
        let answer = self.act(cluster, &header_of(sealed), ImageAction::View, id).await?;
        let released = self.key_in(&answer, id).expect("the key is for this user");
        Ok(image::unseal_with(sealed, &DataKey(released.data_key), &Limits::default()).unwrap())
    }
}

pub fn rights_request(header: &[u8], action: ImageAction) -> RightsRequest {
    RightsRequest { header: BASE64_STANDARD.encode(header), action }
}

pub async fn cluster_identity(cluster: &TestCluster) -> ClusterIdentity {
    wait_for("the cluster has a name", async || {
        let url = format!("{}{}", cluster.url(cluster.running()[0]), route::IDENTITY);
        let response = reqwest::get(url).await.ok()?;
        serde_json::from_slice(&response.bytes().await.ok()?).ok()
    })
    .await
}

/// The header of a sealed picture.
pub fn header_of(sealed: &[u8]) -> Vec<u8> {
    image::header_of(sealed, &Limits::default()).unwrap().as_bytes().to_vec()
}

pub fn image_id(header: &[u8]) -> ImageId {
    ImageId(*blake3::hash(header).as_bytes())
}
