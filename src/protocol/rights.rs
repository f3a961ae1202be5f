//! The conversation about sealed images: who may open them how often, and what has become of that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{ImageId, NodeId, RequestId, UserId};
use crate::protocol::ledger::RefusedWhy;
use crate::protocol::user::{Date, Signed};

/// The most users with a right to one image.
pub const MOST_RIGHTS: usize = 64;

/// The most views that a user is ever granted of one image.
pub const MOST_VIEWS: u64 = 1_000_000;

/// What the wrap of an image says about who may open it. Only a node that has opened the wrap writes this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WrapTerms {
    /// Who may change the rights.
    pub owner: UserId,
    /// How many views each user has.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub rights: BTreeMap<UserId, u64>,
    /// When the rights end.
    pub expires: Option<Date>,
    /// Whether views of a lease may be given back.
    pub leases_returnable: bool,
}

/// Whether these are rights that an image may have.
///
/// # Errors
/// [`RefusedWhy::TooManyRights`], [`RefusedWhy::TooManyViews`].
pub fn check_rights(rights: &BTreeMap<UserId, u64>) -> Result<(), RefusedWhy> {
    if rights.len() > MOST_RIGHTS {
        return Err(RefusedWhy::TooManyRights);
    }
    if rights.values().any(|views| !(1..=MOST_VIEWS).contains(views)) {
        return Err(RefusedWhy::TooManyViews);
    }
    Ok(())
}

/// A command on one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageCommand {
    /// The image.
    pub image: ImageId,
    /// What its wrap says: the first permitted command makes the record from it. None from a node that has seen a record, in which it
    /// stands.
    pub terms: Option<WrapTerms>,
    /// The node that was asked.
    pub node: NodeId,
    /// The user's signature.
    pub signed: Signed,
    /// What shall be done.
    pub action: ImageAction,
}

impl ImageCommand {
    /// Rights that it carries.
    pub fn rights(&self) -> usize {
        self.terms.as_ref().map_or(0, |terms| terms.rights.len())
    }
}

/// What is done with an image. New ones go to the end: their number is their form on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageAction {
    /// The caller spends a view. The owner's are not counted.
    View,
    /// The owner adds views.
    Grant {
        /// For whom.
        user: UserId,
        /// How many.
        views: u64,
    },
    /// The owner says how many views a user has left.
    SetQuota {
        /// Who.
        user: UserId,
        /// How many.
        left: u64,
    },
    /// The owner takes all that is left.
    Revoke {
        /// From whom.
        user: UserId,
    },
    /// The owner says when the rights end; none: they do not.
    Expire {
        /// When.
        at: Option<Date>,
    },
    /// The caller gives up what he has left.
    Burn,
    /// The caller pays views in advance, to spend them where no node is reached.
    Lease {
        /// How many.
        views: u64,
        /// How long the lease may be used, in milliseconds.
        for_ms: u64,
    },
    /// The caller says that so many views of a lease were not used.
    Return {
        /// The request that made the lease.
        lease: RequestId,
        /// How many.
        views: u64,
    },
    /// The owner says whether views of a lease may be given back.
    AllowReturns {
        /// Whether.
        allowed: bool,
    },
}

impl ImageAction {
    /// Whether only the owner may do it.
    pub const fn is_the_owners(&self) -> bool {
        match self {
            ImageAction::Grant { .. }
            | ImageAction::SetQuota { .. }
            | ImageAction::Revoke { .. }
            | ImageAction::Expire { .. }
            | ImageAction::AllowReturns { .. } => true,
            ImageAction::View | ImageAction::Burn | ImageAction::Lease { .. } | ImageAction::Return { .. } => false,
        }
    }

    /// Whether its id may be asked with again after a refusal: the reader's program keeps that of a view until the picture is there.
    pub const fn is_decided_anew(&self) -> bool {
        matches!(self, ImageAction::View)
    }

    /// Whether it is done also while what came of many others has to be remembered: views, whose outcome is not, and what an owner does
    /// against whoever fills that memory.
    pub const fn passes_a_full_memory(&self) -> bool {
        self.is_decided_anew() || self.only_takes_away()
    }

    /// Whether it can only make rights smaller: done also when the ledger is full. As often as there is something to take.
    pub const fn only_takes_away(&self) -> bool {
        matches!(self, ImageAction::Revoke { .. } | ImageAction::Burn)
    }
}

/// What has become of the views that a user was granted: `granted = left + spent + revoked + burnt + leased`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Right {
    /// All that were ever granted.
    pub granted: u64,
    /// Those that may still be spent.
    pub left: u64,
    /// Those that were spent.
    pub spent: u64,
    /// Those that the owner took back.
    pub revoked: u64,
    /// Those that the user gave up.
    pub burnt: u64,
    /// Those that were paid in advance.
    pub leased: u64,
    /// Whether the owner has closed it, and not granted anything since.
    pub is_revoked: bool,
}

impl Right {
    /// A right of so many views, none of them used.
    pub fn of(views: u64) -> Right {
        Right { granted: views, left: views, ..Right::default() }
    }

    /// Whether none was lost and none made up.
    pub fn is_conserved(&self) -> bool {
        let parts = [self.left, self.spent, self.revoked, self.burnt, self.leased];
        parts.into_iter().try_fold(0_u64, u64::checked_add) == Some(self.granted)
    }
}

/// What came of a command on an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDone {
    /// The right that it was about as it is now; none for the owner's own views and for what is about the whole image.
    pub right: Option<Right>,
    /// Until when a lease may be used.
    pub until: Option<Date>,
}

/// One thing that was done with an image. Each is linked to the one before, so that none can be left out or changed without a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its place among those of the image, from 1.
    pub number: u64,
    /// Entries of the log up to and including it.
    pub commit: u64,
    /// When, by the leader's clock.
    pub at: Date,
    /// Who did it.
    pub by: UserId,
    /// The node that was asked.
    pub node: NodeId,
    /// The request.
    pub id: RequestId,
    /// What was done.
    pub action: ImageAction,
    /// The right that it was about, afterwards.
    pub right: Option<Right>,
    /// The hash of all of this and of the link before.
    pub link: Link,
}

crate::id::hexadecimal_id!(
    /// A link of an image's audit chain: BLAKE3-256.
    Link, 32, "a link of an audit chain", "^[0-9A-Fa-f]{64}$"
);

impl AuditEntry {
    /// What its link must be behind that one. The first is behind the [`first_link`] of the image.
    pub fn link_behind(&self, before: Link) -> Link {
        let AuditEntry { number, commit, at, by, node, id, action, right, link: _ } = self;
        let mut hasher = blake3::Hasher::new_derive_key("image-cloud 2026 audit entry v1");
        hasher.update(&before.0);
        for number in [*number, *commit, at.0, u64::from(node.0)] {
            hasher.update(&number.to_be_bytes());
        }
        hasher.update(&by.0).update(&id.0);
        action.hash_into(&mut hasher);
        let right = right.map_or([u64::MAX; 7], |right| {
            let Right { granted, left, spent, revoked, burnt, leased, is_revoked } = right;
            [granted, left, spent, revoked, burnt, leased, u64::from(is_revoked)]
        });
        right.iter().for_each(|number| {
            hasher.update(&number.to_be_bytes());
        });
        Link(*hasher.finalize().as_bytes())
    }
}

impl ImageAction {
    /// Adds a number for the kind of action, then its fields, each of a fixed length.
    pub fn hash_into(&self, hasher: &mut blake3::Hasher) {
        let mut add = |kind: u8, fields: &[&[u8]]| {
            hasher.update(&[kind]);
            fields.iter().for_each(|field| {
                hasher.update(field);
            });
        };
        match self {
            ImageAction::View => add(0, &[]),
            ImageAction::Grant { user, views } => add(1, &[&user.0, &views.to_be_bytes()]),
            ImageAction::SetQuota { user, left } => add(2, &[&user.0, &left.to_be_bytes()]),
            ImageAction::Revoke { user } => add(3, &[&user.0]),
            ImageAction::Expire { at: None } => add(4, &[]),
            ImageAction::Expire { at: Some(at) } => add(5, &[&at.0.to_be_bytes()]),
            ImageAction::Burn => add(6, &[]),
            ImageAction::Lease { views, for_ms } => add(7, &[&views.to_be_bytes(), &for_ms.to_be_bytes()]),
            ImageAction::Return { lease, views } => add(8, &[&lease.0, &views.to_be_bytes()]),
            ImageAction::AllowReturns { allowed } => add(9, &[&[u8::from(*allowed)]]),
        }
    }
}

/// The link before the first entry: it names the image and what its wrap says.
pub fn first_link(image: ImageId, terms: &WrapTerms) -> Link {
    let mut hasher = blake3::Hasher::new_derive_key("image-cloud 2026 audit chain v1");
    hasher.update(&image.0).update(&terms.owner.0);
    let expires = terms.expires.map_or(0, |date| date.0.saturating_add(1));
    hasher.update(&expires.to_be_bytes()).update(&[u8::from(terms.leases_returnable)]);
    for (user, views) in &terms.rights {
        hasher.update(&user.0).update(&views.to_be_bytes());
    }
    Link(*hasher.finalize().as_bytes())
}

/// An image as its owner sees it: the terms of its wrap, and what the ledger knows beyond them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// What its wrap says.
    pub terms: WrapTerms,
    /// When the rights end now.
    pub expires: Option<Date>,
    /// Everybody's right.
    pub rights: BTreeMap<UserId, Right>,
    /// Whether views of a lease may be given back now.
    pub leases_returnable: bool,
    /// The entries of its audit chain.
    pub entries: u64,
    /// The last link.
    pub link: Link,
}
