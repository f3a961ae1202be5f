//! Users and images as HTTP reaches them. This node checks signatures, opens wraps and seals keys to users; what the log must order goes
//! to the leader.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::FutureExt;

use super::ledger::Ledger;
use super::worker::{Tools, random_bytes};
use crate::http::{About, Called, Claim, NotHere, RightsService, Signer, WhichUsers};
use crate::id::{ClusterId, ImageId, RequestId, UserId};
use crate::identity::{self, ClusterReader, Purpose, Released, SignedRequest};
use crate::image::{self, DataKey, Header, ImageNonce, Terms, Wrap};
use crate::protocol::codec;
use crate::protocol::ledger::{Answer, Caller, Done, RefusedWhy, Request, Write};
use crate::protocol::problem::{Problem, ProblemCode};
use crate::protocol::rights::{ImageAction, ImageCommand, ImageRecord, MOST_RIGHTS, MOST_VIEWS, Right, WrapTerms};
use crate::protocol::sharing::{
    ClusterIdentity, HeaderAnswer, HeaderRequest, Images, Invitation, Look, Owned, OwnedImage, Registration,
    RightsAnswer, UserChanged, Users,
};
use crate::protocol::user::{Admission, Date, InvitationId, PublicKey, Signed, User, UserCommand, UserKeys};
use crate::raft::{ProposeError, Written};
use crate::time;

/// Images in one answer at most.
const IMAGES_LIMIT: usize = 200;

/// Audit entries in one answer at most.
const AUDIT_LIMIT: usize = 1000;

/// Cluster keys to which a client may have sealed: the present one, and others while a rotation spreads.
const READERS: usize = 4;

/// Media types of what can be sealed.
const MEDIA_TYPES: [&str; 3] = ["image/png", "image/jpeg", "image/webp"];

/// The longest lease, in milliseconds: a year.
const LEASE_LIMIT_MS: u64 = 365 * 24 * 3_600_000;

/// Users and images at this node. Clones share them.
#[derive(Clone)]
pub struct Rights {
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
        | RefusedWhy::NotTheOwner => ProblemCode::Denied,
        RefusedWhy::NoSuchUser | RefusedWhy::NotNamed => ProblemCode::NotFound,
        _ => ProblemCode::Conflict,
    };
    refused(code, why.to_string())
}

fn random<const N: usize>() -> Result<[u8; N], NotHere> {
    random_bytes().map_err(NotHere::Refused)
}

/// A header that belongs to this cluster, and what its wrap says.
struct Opened {
    image: ImageId,
    terms: WrapTerms,
    wrap: Wrap,
}

impl Rights {
    fn cluster(&self) -> Result<ClusterId, Problem> {
        self.tools.cluster_id.get().copied().ok_or_else(|| {
            let detail = "this node has not learned the cluster id yet: it checks signatures after the first election";
            Problem::new(ProblemCode::NoClusterId, detail)
        })
    }

    /// Does a write wherever it is done.
    async fn write(&self, write: Write) -> Result<Written, NotHere> {
        let id = write.id;
        if self.ledger.shared.leaderless_since().is_some() {
            return Err(self.ledger.not_here(ProposeError::NotLeader { leader: None }));
        }
        let written = self.ledger.raft.write_anywhere(write).await.map_err(|error| self.ledger.not_here(error))?;
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
        self.ledger.raft.read_barrier().await.map_err(|error| self.ledger.not_here(error))
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

    fn check_signature(&self, claim: &Claim, key: &PublicKey) -> Result<Signer, NotHere> {
        let cluster = self.cluster().map_err(NotHere::Refused)?;
        let Claim { authorization, id, method, path } = claim;
        let identity::Authorization { user, key: key_id, at, body, signature } = *authorization;
        let request = SignedRequest { cluster, user, key: key_id, method, path, body, at, id: *id };
        if !request.is_signed_by(key, &signature) {
            let detail = "the signature does not fit the request: it was made for another request, another cluster, or with other keys";
            return Err(refused(ProblemCode::SignatureRefused, detail));
        }
        Ok(Signer { user, signed: Signed { key: key_id, at }, id: *id })
    }

    /// Opens a header, and refuses one that belongs elsewhere before anything is proposed.
    fn open(&self, header: &[u8]) -> Result<Opened, NotHere> {
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
        let Terms { owner, rights, expires_at_ms } = wrap.terms.clone();
        let Some(owner) = owner else {
            let detail = "this image has no owner: it opens only where the cluster's key is, with `client decrypt`";
            return Err(refused(ProblemCode::Denied, detail));
        };
        let terms = WrapTerms { owner, rights, expires: expires_at_ms.map(Date) };
        Ok(Opened { image: ImageId(*blake3::hash(header).as_bytes()), terms, wrap })
    }

    async fn act_on(self, about: About, action: ImageAction) -> Result<RightsAnswer, NotHere> {
        let Signer { user, signed, id } = about.signer;
        if let ImageAction::Lease { for_ms, .. } = action
            && !(1..=LEASE_LIMIT_MS).contains(&for_ms)
        {
            return Err(refused(
                ProblemCode::BadRequest,
                format!("a lease lasts 1 to {LEASE_LIMIT_MS} ms, not {for_ms}"),
            ));
        }
        let Opened { image, terms, wrap } = self.open(&about.header)?;
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
        let purpose = Purpose::Release { cluster, image, user, id };
        let sealed = identity::seal(&plain, &keys.agreement, &purpose, random()?);
        let sealed = sealed.ok_or_else(|| internal("nothing can be sealed to the user's key: make other keys"))?;
        Ok(BASE64_STANDARD.encode(sealed))
    }

    async fn look_at(self, about: About, after: u64) -> Result<Look, NotHere> {
        let Opened { image, terms, .. } = self.open(&about.header)?;
        self.latest().await?;
        let user = about.signer.user;
        let (commit, (record, audit, date)) = self.ledger.raft.read(|ledger| {
            let record = ledger.image(image);
            let is_owner = terms.owner == user;
            let audit = if is_owner { ledger.audit(image, after, AUDIT_LIMIT) } else { Vec::new() };
            (record, audit, ledger.date())
        });
        if record.is_none() && terms.expires.is_some_and(|expires| expires <= date) {
            let may = terms.owner == user || terms.rights.contains_key(&user);
            let why = if may { RefusedWhy::Expired } else { RefusedWhy::NoRight };
            return Err(not_done(why, about.signer.id));
        }
        let record = record.unwrap_or_else(|| untouched(image, &terms));
        let right = record.rights.get(&user).copied();
        let ImageRecord { terms, expires, rights, leases_returnable, entries, link } = record;
        let owner = terms.owner;
        if owner != user && right.is_none() {
            return Err(not_done(RefusedWhy::NoRight, about.signer.id));
        }
        let (first, first_expires) = (terms.rights, terms.expires);
        let owned =
            (owner == user).then_some(Owned { rights, first, first_expires, leases_returnable, audit, entries, link });
        Ok(Look { commit, image, owner, expires, right, owned })
    }

    async fn images_of(self, signer: Signer, after: Option<ImageId>) -> Result<Images, NotHere> {
        self.latest().await?;
        let (commit, mut images) =
            self.ledger.raft.read(|ledger| ledger.images_of(signer.user, after, IMAGES_LIMIT + 1));
        let more = images.len() > IMAGES_LIMIT;
        images.truncate(IMAGES_LIMIT);
        let owned = |(image, record): (ImageId, ImageRecord)| {
            let ImageRecord { expires, rights, entries, .. } = record;
            OwnedImage { image, expires, rights, entries }
        };
        Ok(Images { commit, images: images.into_iter().map(owned).collect(), more })
    }

    fn header_for(&self, signer: Signer, asked: HeaderRequest) -> Result<HeaderAnswer, NotHere> {
        let HeaderRequest { payload_bytes, media_type, name, rights, expires, data_key } = asked;
        let bad = |detail: String| refused(ProblemCode::BadRequest, detail);
        if rights.len() > MOST_RIGHTS || rights.values().any(|views| !(1..=MOST_VIEWS).contains(views)) {
            return Err(bad(format!("an image has at most {MOST_RIGHTS} users with 1 to {MOST_VIEWS} views each")));
        }
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
        let purpose = Purpose::LocalSeal { cluster, user: signer.user, id: signer.id };
        let data_key = BASE64_STANDARD.decode(data_key).map_err(|error| bad(format!("data_key: {error}")))?;
        let ring = self.tools.keys.ring();
        // It may have been sealed just before a rotation.
        let mut readers = ring.keys().take(READERS).map(|key| ClusterReader::new(key.secret_bytes()));
        let data_key = readers.find_map(|reader| reader.open(&data_key, &purpose));
        let data_key: Option<[u8; 32]> = data_key.and_then(|key| key.try_into().ok());
        let data_key =
            data_key.ok_or_else(|| bad("data_key does not open: seal it to the cluster's present key".into()))?;
        let terms = Terms { owner: Some(signer.user), rights, expires_at_ms: expires.map(|date| date.0) };
        let wrap = Wrap { data_key: DataKey(data_key), terms, media_type, name };
        let nonce = ImageNonce(random()?);
        let header = Header::create(&wrap, ring.current(), cluster, nonce, payload_bytes, &self.tools.limits);
        let header = header.map_err(|error| NotHere::Refused(error.problem()))?;
        Ok(HeaderAnswer { header: BASE64_STANDARD.encode(header.as_bytes()) })
    }

    async fn find_users(self, which: WhichUsers) -> Result<Users, NotHere> {
        self.latest().await?;
        let (commit, (mut users, limit)) = self.ledger.raft.read(|ledger| match &which {
            WhichUsers::Named(name) => (ledger.user_named(name).into_iter().collect(), usize::MAX),
            WhichUsers::Id(id) => (ledger.user(*id).into_iter().collect::<Vec<_>>(), usize::MAX),
            WhichUsers::After(after, limit) => (ledger.users(*after, limit + 1), *limit),
        });
        let more = users.len() > limit;
        users.truncate(limit);
        Ok(Users { commit, users, more })
    }
}

/// Refuses keys to which nothing can be sealed: views would be spent in vain.
fn check_keys(keys: &UserKeys) -> Result<(), NotHere> {
    let purpose = Purpose::LocalSeal { cluster: ClusterId([0; 32]), user: keys.user(), id: RequestId([0; 16]) };
    if identity::seal(&[], &keys.agreement, &purpose, [0; 32]).is_none() {
        return Err(refused(
            ProblemCode::BadRequest,
            "nothing can be sealed to this key for agreement: make other keys",
        ));
    }
    Ok(())
}

/// The record of an image of which nothing is known yet.
fn untouched(image: ImageId, terms: &WrapTerms) -> ImageRecord {
    ImageRecord {
        terms: terms.clone(),
        expires: terms.expires,
        rights: terms.rights.iter().map(|(user, views)| (*user, Right::of(*views))).collect(),
        leases_returnable: false,
        entries: 0,
        link: crate::protocol::rights::first_link(image, terms),
    }
}

impl RightsService for Rights {
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

    fn authenticate(&self, claim: Claim) -> Called<Signer> {
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
            let Signer { user, signed, id } = rights.check_signature(&claim, &keys.signing)?;
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

    fn rotate(&self, signer: Signer, to: UserKeys) -> Called<UserChanged> {
        let rights = self.clone();
        async move {
            check_keys(&to)?;
            let Signer { user, signed, id } = signer;
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

    fn act(&self, about: About, action: ImageAction) -> Called<RightsAnswer> {
        self.clone().act_on(about, action).boxed()
    }

    fn look(&self, about: About, after: u64) -> Called<Look> {
        self.clone().look_at(about, after).boxed()
    }

    fn images(&self, signer: Signer, after: Option<ImageId>) -> Called<Images> {
        self.clone().images_of(signer, after).boxed()
    }

    fn wrap(&self, signer: Signer, request: HeaderRequest) -> Called<HeaderAnswer> {
        let rights = self.clone();
        async move { rights.header_for(signer, request) }.boxed()
    }
}
