//! Users and images as HTTP reaches them. This node checks signatures, opens wraps and seals keys to users; what the log must order goes
//! to the leader.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::FutureExt;

use super::ledger::Ledger;
use super::worker::{Tools, random_bytes};
use crate::http::{Authenticated, Called, Claim, NotHere, RightsService, SignedHeader, WhichUsers};
use crate::id::{ClusterId, ImageId, RequestId, UserId};
use crate::identity::{self, ClusterReader, Released, SealedFor, SignedRequest};
use crate::image::{self, DataKey, Header, ImageNonce, Terms, Wrap};
use crate::protocol::codec;
use crate::protocol::ledger::{Answer, Caller, Done, RefusedWhy, Request, Write};
use crate::protocol::problem::{Problem, ProblemCode};
use crate::protocol::rights::{ImageAction, ImageCommand, ImageRecord, WrapTerms, check_rights};
use crate::protocol::sharing::{
    ClusterIdentity, HeaderAnswer, HeaderRequest, Images, Invitation, Look, OwnedImage, OwnersLook, Registration,
    RightsAnswer, UserChanged, Users,
};
use crate::protocol::user::{
    Admission, Date, InvitationId, PublicKey, SIGNED_WITHIN_MS, Signed, User, UserCommand, UserKeys,
};
use crate::raft::{ProposeError, Written};
use crate::time;

/// Users in one answer at most.
const USERS_LIMIT: usize = 1000;

/// Images in one answer at most.
const IMAGES_LIMIT: usize = 200;

/// Audit entries in one answer at most.
const AUDIT_LIMIT: usize = 1000;

/// A signature from so far off this node's clock goes no further, in milliseconds: ten minutes.
const FAR_OFF_MS: u64 = 5 * SIGNED_WITHIN_MS;

/// Cluster keys to which a client may have sealed: the present one, and others while a rotation spreads.
const READERS: usize = 4;

/// Media types of what can be sealed.
const MEDIA_TYPES: [&str; 3] = ["image/png", "image/jpeg", "image/webp"];

/// The longest lease, in milliseconds: a year.
const LEASE_LIMIT_MS: u64 = 365 * 24 * 3_600_000;

/// Users and images at this node. Clones share them.
#[derive(Clone)]
pub struct RightsDesk {
    /// Where commands go, and where they are read.
    pub ledger: Ledger,
    /// The cluster's key and name.
    pub tools: Arc<Tools>,
    /// Whether whoever registers needs an invitation: wherever every call needs a token or a signature.
    pub needs_invitation: bool,
}

/// The name of an invitation's secret.
fn invitation_id(secret: &str) -> InvitationId {
    InvitationId(blake3::derive_key("image-cloud 2026 invitation v1", secret.trim().as_bytes()))
}

fn refused(code: ProblemCode, detail: impl Into<String>) -> NotHere {
    NotHere::Refused(Problem::new(code, detail))
}

/// A refusal of the ledger in the words of HTTP.
fn not_done(why: RefusedWhy, id: RequestId) -> NotHere {
    let code = match why {
        RefusedWhy::IdReused => return NotHere::Refused(Problem::reused_id(id)),
        RefusedWhy::NotOfThisTime { .. }
        | RefusedWhy::KeyReplaced
        | RefusedWhy::UnknownCaller
        | RefusedWhy::UserExpelled => ProblemCode::SignatureRefused,
        RefusedWhy::NotInvited
        | RefusedWhy::NoRight
        | RefusedWhy::NoneLeft
        | RefusedWhy::RightRevoked
        | RefusedWhy::Expired
        | RefusedWhy::NotTheOwner
        | RefusedWhy::NotAnAdministrator => ProblemCode::Denied,
        RefusedWhy::NoSuchUser | RefusedWhy::NotNamed => ProblemCode::NotFound,
        _ => ProblemCode::Conflict,
    };
    refused(code, why.to_string())
}

fn random<const N: usize>() -> Result<[u8; N], NotHere> {
    random_bytes().map_err(NotHere::Refused)
}

/// A header that belongs to this cluster, and what its wrap says.
struct OpenedHeader {
    image: ImageId,
    terms: WrapTerms,
    wrap: Wrap,
}

impl RightsDesk {
    fn cluster(&self) -> Result<ClusterId, Problem> {
        self.tools.cluster_id.get().copied().ok_or_else(|| {
            let detail = "this node has not learned the cluster id yet: it checks signatures after the first election";
            Problem::new(ProblemCode::NoClusterId, detail)
        })
    }

    /// Does a write wherever it is done.
    async fn write(&self, write: Write) -> Result<Written, NotHere> {
        let id = write.id;
        let attempt = async || {
            if self.ledger.raft_is_behind() {
                return Err(ProposeError::NotLeader { leader: None });
            }
            self.ledger.raft.write_anywhere(write.clone()).await
        };
        let written = self.ledger.as_leader(write.size_bytes(), attempt).await?;
        match written.answer.outcome {
            Ok(_) => Ok(written),
            Err(refused) => Err(not_done(refused.why, id)),
        }
    }

    async fn change_users(
        &self,
        caller: Caller,
        id: RequestId,
        signed: Option<Signed>,
        command: UserCommand,
    ) -> Result<u64, NotHere> {
        let request = Request::User { signed, command };
        Ok(self.write(Write { caller, id, request }).await?.answer.commit)
    }

    /// As leader: what is read afterwards is the latest.
    async fn latest(&self) -> Result<(), NotHere> {
        self.ledger.read_barrier().await
    }

    fn user(&self, user: UserId) -> Option<User> {
        self.ledger.raft.read(|ledger| ledger.user(user)).1
    }

    /// The key that a claim must be signed with. What is not known here may be known to the leader.
    async fn key_of(&self, claim: &Claim) -> Result<PublicKey, NotHere> {
        let (user, key) = (claim.authorization.user, claim.authorization.key);
        let is_current = |found: &User| found.keys.id() == key && !found.is_expelled;
        if let Some(found) = self.user(user).filter(is_current) {
            return Ok(found.keys.signing);
        }
        self.latest().await?;
        match self.user(user) {
            Some(found) if is_current(&found) => Ok(found.keys.signing),
            Some(found) if found.is_expelled => Err(not_done(RefusedWhy::UserExpelled, claim.id)),
            Some(_) => Err(not_done(RefusedWhy::KeyReplaced, claim.id)),
            None => Err(not_done(RefusedWhy::UnknownCaller, claim.id)),
        }
    }

    fn check_signature(&self, claim: &Claim, key: &PublicKey) -> Result<Authenticated, NotHere> {
        let cluster = self.cluster().map_err(NotHere::Refused)?;
        let Claim { authorization, id, method, path } = claim;
        let identity::Authorization { user, key: key_id, at, body, signature } = *authorization;
        let request = SignedRequest { cluster, user, key: key_id, method, path, body, at, id: *id };
        if !request.is_signed_by(key, &signature) {
            let detail = "the signature does not fit the request: it was made for another request, another cluster, or with other keys";
            return Err(refused(ProblemCode::SignatureRefused, detail));
        }
        // The leader's clock decides. What no clock that is nearly right could let pass is not worth an entry of the log.
        let now = Date(time::unix_millis());
        if at.0.abs_diff(now.0) > FAR_OFF_MS {
            return Err(not_done(RefusedWhy::NotOfThisTime { now_unix_ms: now.0 }, *id));
        }
        Ok(Authenticated { user, signed: Signed { key: key_id, at }, id: *id })
    }

    /// Opens a header, and refuses one that belongs elsewhere before anything is proposed.
    fn open(&self, header: &[u8]) -> Result<OpenedHeader, NotHere> {
        let cluster = self.cluster().map_err(NotHere::Refused)?;
        let wrong = |error: image::ImageError| NotHere::Refused(error.problem());
        let read = Header::read(header, &self.tools.limits).map_err(wrong)?;
        if read.as_bytes().len() != header.len() {
            return Err(wrong(image::ImageError::Tampered { part: "header" }));
        }
        if read.public.cluster_id != cluster {
            let detail = format!("this image belongs to the cluster {}, this is {cluster}", read.public.cluster_id);
            return Err(refused(ProblemCode::WrongCluster, detail));
        }
        let wrap = self.tools.keys.ring().open(&read).map_err(wrong)?;
        let Terms { owner, rights, expires_at_ms, leases_returnable } = wrap.terms.clone();
        let Some(owner) = owner else {
            let detail = "this image has no owner: it opens only where the cluster's key is, with `client decrypt`";
            return Err(refused(ProblemCode::Denied, detail));
        };
        let terms = WrapTerms { owner, rights, expires: expires_at_ms.map(Date), leases_returnable };
        Ok(OpenedHeader { image: read.image_id(), terms, wrap })
    }

    async fn act_on(self, about: SignedHeader, action: ImageAction) -> Result<RightsAnswer, NotHere> {
        let Authenticated { user, signed, id } = about.signer;
        if let ImageAction::Lease { for_ms, .. } = action
            && !(1..=LEASE_LIMIT_MS).contains(&for_ms)
        {
            return Err(refused(
                ProblemCode::BadRequest,
                format!("a lease lasts 1 to {LEASE_LIMIT_MS} ms, not {for_ms}"),
            ));
        }
        let OpenedHeader { image, terms, wrap } = self.open(&about.header)?;
        // A record has them already: most views are of images that were viewed before.
        let terms = if self.ledger.raft.read(|ledger| ledger.has_image(image)).1 { None } else { Some(terms) };
        let command = ImageCommand { image, terms, node: self.ledger.shared.node(), signed, action };
        let request = Request::Image(Box::new(command));
        let Written { answer, keys } = self.write(Write { caller: Caller::User(user), id, request }).await?;
        let Answer { commit, outcome: Ok(Done::Image(done)), .. } = answer else {
            return Err(refused(ProblemCode::Internal, "the ledger answered something else than was asked"));
        };
        let releases = matches!(action, ImageAction::View | ImageAction::Lease { .. });
        let key = if releases { Some(self.release(image, user, id, &wrap, keys)?) } else { None };
        Ok(RightsAnswer { commit, image, right: done.right, until: done.until, key })
    }

    /// The image's key, for nobody but the user, under the keys that are the user's now.
    fn release(
        &self,
        image: ImageId,
        user: UserId,
        id: RequestId,
        wrap: &Wrap,
        keys: Option<UserKeys>,
    ) -> Result<String, NotHere> {
        let cluster = self.cluster().map_err(NotHere::Refused)?;
        let internal = |detail: &str| refused(ProblemCode::Internal, detail);
        let keys = keys.ok_or_else(|| internal("the ledger did not tell the keys of the user who asked"))?;
        let Wrap { data_key, media_type, name, .. } = wrap;
        let released = Released { data_key: data_key.0, media_type: media_type.clone(), name: name.clone() };
        let plain = codec::encode(&released).map_err(|error| internal(&error.to_string()))?;
        let purpose = SealedFor::Release { cluster, image, user, id };
        let sealed = identity::seal(&plain, &keys.agreement, &purpose);
        let sealed = sealed.ok_or_else(|| internal("nothing can be sealed to the user's key: make other keys"))?;
        Ok(BASE64_STANDARD.encode(sealed))
    }

    async fn look_at(self, about: SignedHeader, after: u64) -> Result<Look, NotHere> {
        let OpenedHeader { image, terms, .. } = self.open(&about.header)?;
        self.latest().await?;
        let user = about.signer.user;
        let is_owner = terms.owner == user;
        let (commit, ledger) = self.ledger.raft.ledger();
        let audit = if is_owner { ledger.audit(image, after, AUDIT_LIMIT) } else { Vec::new() };
        let record = ledger.look(image, &terms, user).map_err(|why| not_done(why, about.signer.id))?;
        let right = record.rights.get(&user).copied();
        let ImageRecord { terms, expires, rights, leases_returnable, entries, link } = record;
        let owner = terms.owner;
        let owned = is_owner.then_some(OwnersLook { rights, terms, leases_returnable, audit, entries, link });
        Ok(Look { commit, image, owner, expires, right, owned })
    }

    async fn images_of(self, signer: Authenticated, after: Option<ImageId>) -> Result<Images, NotHere> {
        self.latest().await?;
        let (commit, ledger) = self.ledger.raft.ledger();
        let mut images = ledger.images_of(signer.user, after, IMAGES_LIMIT + 1);
        let more = images.len() > IMAGES_LIMIT;
        images.truncate(IMAGES_LIMIT);
        let owned = |(image, record): (ImageId, ImageRecord)| {
            let ImageRecord { expires, rights, entries, .. } = record;
            OwnedImage { image, expires, rights, entries }
        };
        Ok(Images { commit, images: images.into_iter().map(owned).collect(), more })
    }

    fn header_for(&self, signer: Authenticated, asked: HeaderRequest) -> Result<HeaderAnswer, NotHere> {
        let HeaderRequest { payload_bytes, media_type, name, rights, expires, leases_returnable, data_key } = asked;
        let bad = |detail: String| refused(ProblemCode::BadRequest, detail);
        check_rights(&rights).map_err(|why| bad(why.to_string()))?;
        if !MEDIA_TYPES.contains(&media_type.as_str()) {
            return Err(bad(format!("media_type: one of {} is expected", MEDIA_TYPES.join(", "))));
        }
        if name.chars().any(|letter| letter.is_control() || matches!(letter, '/' | '\\')) {
            return Err(bad("name: a file name without folders and control characters is expected".to_owned()));
        }
        let limit = self.tools.limits.original_bytes;
        if payload_bytes > limit {
            let detail = format!("the original has {payload_bytes} bytes, at most {limit} are accepted");
            return Err(refused(ProblemCode::TooLarge, detail));
        }
        let unknown = rights.keys().find(|user| self.user(**user).is_none_or(|user| user.is_expelled));
        if let Some(user) = unknown {
            return Err(refused(ProblemCode::NotFound, format!("there is no user {user}")));
        }
        let cluster = self.cluster().map_err(NotHere::Refused)?;
        let purpose = SealedFor::LocalSeal { cluster, user: signer.user, id: signer.id };
        let data_key = BASE64_STANDARD.decode(data_key).map_err(|error| bad(format!("data_key: {error}")))?;
        let ring = self.tools.keys.ring();
        // It may have been sealed just before a rotation.
        let mut readers = ring.keys().take(READERS).map(|key| ClusterReader::new(key.secret_bytes()));
        let data_key = readers.find_map(|reader| reader.open(&data_key, &purpose));
        let data_key: Option<[u8; 32]> = data_key.and_then(|key| key.try_into().ok());
        let data_key =
            data_key.ok_or_else(|| bad("data_key does not open: seal it to the cluster's present key".into()))?;
        let expires_at_ms = expires.map(|date| date.0);
        let terms = Terms { owner: Some(signer.user), rights, expires_at_ms, leases_returnable };
        let wrap = Wrap { data_key: DataKey(data_key), terms, media_type, name };
        let nonce = ImageNonce(random()?);
        let header = Header::create(&wrap, ring.current(), cluster, nonce, payload_bytes, &self.tools.limits);
        let header = header.map_err(|error| NotHere::Refused(error.problem()))?;
        Ok(HeaderAnswer { header: BASE64_STANDARD.encode(header.as_bytes()) })
    }

    async fn find_users(self, which: WhichUsers) -> Result<Users, NotHere> {
        self.latest().await?;
        let (commit, ledger) = self.ledger.raft.ledger();
        let mut users = match &which {
            WhichUsers::Named(name) => ledger.user_named(name).into_iter().collect(),
            WhichUsers::Id(id) => ledger.user(*id).into_iter().collect(),
            WhichUsers::After(after) => ledger.users(*after, USERS_LIMIT + 1),
        };
        let more = users.len() > USERS_LIMIT;
        users.truncate(USERS_LIMIT);
        Ok(Users { commit, users, more })
    }
}

/// Refuses keys to which nothing can be sealed: views would be spent in vain.
fn check_keys(keys: &UserKeys) -> Result<(), NotHere> {
    if keys.agreement.takes_seals() {
        return Ok(());
    }
    Err(refused(ProblemCode::BadRequest, "nothing can be sealed to this key for agreement: make other keys"))
}

impl RightsService for RightsDesk {
    fn identity(&self) -> Result<ClusterIdentity, Problem> {
        let cluster_key = self.tools.keys.current();
        let reader = ClusterReader::new(cluster_key.secret_bytes());
        Ok(ClusterIdentity {
            cluster_id: self.cluster()?,
            key_id: cluster_key.id().to_string(),
            public_key: reader.public(),
            now: Date(time::unix_millis()),
            needs_invitation: self.needs_invitation,
        })
    }

    fn authenticate(&self, claim: Claim) -> Called<Authenticated> {
        let rights = self.clone();
        async move {
            let key = rights.key_of(&claim).await?;
            rights.check_signature(&claim, &key)
        }
        .boxed()
    }

    fn register(&self, claim: Claim, registration: Registration) -> Called<UserChanged> {
        let rights = self.clone();
        async move {
            let Registration { name, keys, invitation } = registration;
            let Authenticated { user, signed, id } = rights.check_signature(&claim, &keys.signing)?;
            if user != keys.user() || signed.key != keys.id() {
                return Err(refused(ProblemCode::SignatureRefused, "the signature is in the name of other keys"));
            }
            check_keys(&keys)?;
            let admission = match invitation {
                Some(secret) => {
                    let invitation = invitation_id(&secret);
                    let is_invited = || rights.ledger.raft.read(|ledger| ledger.is_invited(invitation)).1;
                    let is_user = rights.user(user).is_some();
                    // A guess must not cost an entry of the log.
                    if !is_user && !is_invited() {
                        rights.latest().await?;
                        if !is_invited() {
                            return Err(not_done(RefusedWhy::NotInvited, id));
                        }
                    }
                    Admission::Invited(invitation)
                }
                None if rights.needs_invitation => return Err(not_done(RefusedWhy::NotInvited, id)),
                None => Admission::Open,
            };
            let command = UserCommand::Register { name, keys, admission };
            let commit = rights.change_users(Caller::User(user), id, Some(signed), command).await?;
            Ok(UserChanged { commit, user })
        }
        .boxed()
    }

    fn rotate(&self, signer: Authenticated, to: UserKeys) -> Called<UserChanged> {
        let rights = self.clone();
        async move {
            check_keys(&to)?;
            let Authenticated { user, signed, id } = signer;
            let command = UserCommand::Rotate { to };
            let commit = rights.change_users(Caller::User(user), id, Some(signed), command).await?;
            Ok(UserChanged { commit, user })
        }
        .boxed()
    }

    fn invite(&self, id: RequestId, for_ms: u64) -> Called<Invitation> {
        let rights = self.clone();
        async move {
            let invitation = BASE64_STANDARD.encode(random::<24>()?);
            let until = Date(time::unix_millis().saturating_add(for_ms));
            let command = UserCommand::Invite { invitation: invitation_id(&invitation), until };
            rights.change_users(Caller::Administrator, id, None, command).await?;
            Ok(Invitation { invitation, until })
        }
        .boxed()
    }

    fn expel(&self, id: RequestId, user: UserId) -> Called<UserChanged> {
        let rights = self.clone();
        async move {
            let commit = rights.change_users(Caller::Administrator, id, None, UserCommand::Expel { user }).await?;
            Ok(UserChanged { commit, user })
        }
        .boxed()
    }

    fn users(&self, which: WhichUsers) -> Called<Users> {
        self.clone().find_users(which).boxed()
    }

    fn resolve(&self, rights: Vec<(String, u64)>) -> Result<BTreeMap<UserId, u64>, Problem> {
        let mut resolved = BTreeMap::new();
        for (name, views) in rights {
            let found = match name.parse() {
                Ok(id) => self.user(id),
                Err(_) => self.ledger.raft.read(|ledger| ledger.user_named(&name)).1,
            };
            let Some(user) = found.filter(|user| !user.is_expelled) else {
                let shown = name.escape_debug();
                let detail = format!("there is no user {shown}: ask them to run `client register {shown}`");
                return Err(Problem::new(ProblemCode::NotFound, detail));
            };
            if resolved.insert(user.id, views).is_some() {
                let detail = format!("{} is named twice", user.name);
                return Err(Problem::new(ProblemCode::BadRequest, detail));
            }
        }
        Ok(resolved)
    }

    fn act(&self, about: SignedHeader, action: ImageAction) -> Called<RightsAnswer> {
        self.clone().act_on(about, action).boxed()
    }

    fn look(&self, about: SignedHeader, after: u64) -> Called<Look> {
        self.clone().look_at(about, after).boxed()
    }

    fn images(&self, signer: Authenticated, after: Option<ImageId>) -> Called<Images> {
        self.clone().images_of(signer, after).boxed()
    }

    fn wrap(&self, signer: Authenticated, request: HeaderRequest) -> Called<HeaderAnswer> {
        let rights = self.clone();
        async move { rights.header_for(signer, request) }.boxed()
    }
}
