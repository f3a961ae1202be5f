//! What HTTP needs of a node for users and rights.

use std::collections::BTreeMap;

use futures::future::BoxFuture;

use super::service::NotHere;
use crate::id::{ImageId, RequestId, UserId};
use crate::identity::Authorization;
use crate::protocol::problem::Problem;
use crate::protocol::rights::ImageAction;
use crate::protocol::sharing::{
    ClusterIdentity, HeaderAnswer, HeaderRequest, Images, Invitation, Look, Registration, RightsAnswer, UserChanged,
    Users,
};
use crate::protocol::user::{Signed, UserKeys};

/// A request that says who signed it. Nothing of it is believed yet, the hash of the body apart, which whoever reads the body compares.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The signature and who is said to have made it.
    pub authorization: Authorization,
    /// The request.
    pub id: RequestId,
    /// Its method.
    pub method: String,
    /// Path and query, as they came.
    pub path: String,
}

/// Whose signature a node has checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// The user.
    pub user: UserId,
    /// What of the signature goes into the log, where it is compared with the keys and the clock of that moment.
    pub signed: Signed,
    /// The request.
    pub id: RequestId,
}

/// Which users are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhichUsers {
    /// The one of that name.
    Named(String),
    /// This one.
    Id(UserId),
    /// Those behind one, in the order of their ids: a page of them.
    After(Option<UserId>),
}

/// What is asked about an image that somebody has.
#[derive(Clone, Debug)]
pub struct SignedHeader {
    /// Who asks.
    pub signer: Authenticated,
    /// The image's header.
    pub header: Vec<u8>,
}

/// What came of a call, or why this node does not answer it.
pub type Called<T> = BoxFuture<'static, Result<T, NotHere>>;

/// A node's users and images, as HTTP sees them.
pub trait RightsService: Send + Sync + 'static {
    /// What a client must know before it can sign.
    fn identity(&self) -> Result<ClusterIdentity, Problem>;
    /// Checks a signature.
    fn authenticate(&self, claim: Claim) -> Called<Authenticated>;
    /// Makes somebody a user, who has signed with the keys in the body.
    fn register(&self, claim: Claim, registration: Registration) -> Called<UserChanged>;
    /// Puts other keys in the place of the signer's.
    fn rotate(&self, signer: Authenticated, to: UserKeys) -> Called<UserChanged>;
    /// Makes an invitation.
    fn invite(&self, id: RequestId, for_ms: u64) -> Called<Invitation>;
    /// Ends a user.
    fn expel(&self, id: RequestId, user: UserId) -> Called<UserChanged>;
    /// Users.
    fn users(&self, which: WhichUsers) -> Called<Users>;
    /// Names and ids as ids, from what this node knows: sealing needs no quorum.
    fn resolve(&self, rights: Vec<(String, u64)>) -> Result<BTreeMap<UserId, u64>, Problem>;
    /// Spends, grants, revokes.
    fn act(&self, about: SignedHeader, action: ImageAction) -> Called<RightsAnswer>;
    /// Looks at an image's rights, and at what was done with them behind that number.
    fn look(&self, about: SignedHeader, after: u64) -> Called<Look>;
    /// The signer's own images behind one.
    fn images(&self, signer: Authenticated, after: Option<ImageId>) -> Called<Images>;
    /// Wraps for a client that seals by itself.
    fn wrap(&self, signer: Authenticated, request: HeaderRequest) -> Called<HeaderAnswer>;
}
