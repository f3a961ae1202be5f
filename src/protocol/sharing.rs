//! Users and rights over HTTP: bodies, answers and routes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{ClusterId, ImageId, UserId};
use crate::protocol::rights::{AuditEntry, ImageAction, Link, Right, WrapTerms};
use crate::protocol::user::{Date, PublicKey, User, UserKeys};

/// Answer of `GET /api/v1/cluster/identity`: what a client must know before it can sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterIdentity {
    /// The cluster's ledger.
    pub cluster_id: ClusterId,
    /// The key that images are wrapped under now, by its name.
    pub key_id: String,
    /// What a client seals data keys to when it seals an image by itself.
    pub public_key: PublicKey,
    /// The node's clock: one that differs by more than two minutes from the leader's signs in vain.
    pub now: Date,
    /// Whether whoever registers needs an invitation.
    pub needs_invitation: bool,
}

/// Body of `POST /api/v1/users`, signed with the keys in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The name.
    pub name: String,
    /// The first keys.
    pub keys: UserKeys,
    /// The secret of an invitation; not needed on loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invitation: Option<String>,
}

/// Body of `POST /api/v1/users/keys`, signed with the old keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// The new keys.
    pub to: UserKeys,
}

/// Body of `POST /api/v1/users/invitations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InvitationRequest {
    /// How long it may be used, in milliseconds.
    pub for_ms: u64,
}

/// Answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// The secret, which is kept nowhere: whoever shows it may register, once.
    pub invitation: String,
    /// Until when.
    pub until: Date,
}

/// Answer to a command on the table of users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserChanged {
    /// Entries of the log up to and including it.
    pub commit: u64,
    /// Who it was about.
    pub user: UserId,
}

/// Answer of `GET /api/v1/users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Users {
    /// Entries of the log that the answer comes from.
    pub commit: u64,
    /// In the order of their ids.
    pub users: Vec<User>,
    /// Whether there are more: ask again with `after=` the last id.
    pub more: bool,
}

/// Body of `POST /api/v1/images/rights`, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RightsRequest {
    /// The whole header of the sealed image, in base64.
    pub header: String,
    /// What shall be done.
    pub action: ImageAction,
}

/// Answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RightsAnswer {
    /// Entries of the log up to and including what was done.
    pub commit: u64,
    /// The image.
    pub image: ImageId,
    /// The right that it was about as it was then; none for the owner's own views and for what is about the whole image.
    pub right: Option<Right>,
    /// Until when a lease may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Date>,
    /// For a view or a lease: the key of the image, sealed to the user's present key, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Body of `POST /api/v1/images/look`, signed. It spends nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LookRequest {
    /// The whole header of the sealed image, in base64.
    pub header: String,
    /// Audit entries behind this number; for the owner.
    #[serde(default)]
    pub after: u64,
}

/// Answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Look {
    /// Entries of the log that the answer comes from.
    pub commit: u64,
    /// The image.
    pub image: ImageId,
    /// Its owner.
    pub owner: UserId,
    /// When the rights end.
    pub expires: Option<Date>,
    /// The caller's own right; none for an owner who is not named.
    pub right: Option<Right>,
    /// For the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned: Option<OwnersLook>,
}

/// What only the owner of an image sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnersLook {
    /// Everybody's right.
    #[schema(value_type = BTreeMap<String, Right>)]
    pub rights: BTreeMap<UserId, Right>,
    /// What the wrap says.
    pub terms: WrapTerms,
    /// Whether views of a lease may be given back now.
    pub leases_returnable: bool,
    /// Audit entries behind the number that was asked for.
    pub audit: Vec<AuditEntry>,
    /// How many there are in all.
    pub entries: u64,
    /// The last link of the chain.
    pub link: Link,
}

/// Answer of `GET /api/v1/images`, signed: the caller's own images of which the ledger knows anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Images {
    /// Entries of the log that the answer comes from.
    pub commit: u64,
    /// In the order of their ids.
    pub images: Vec<OwnedImage>,
    /// Whether there are more: ask again with `after=` the last id.
    pub more: bool,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnedImage {
    /// The image.
    pub image: ImageId,
    /// When the rights end.
    pub expires: Option<Date>,
    /// Everybody's right.
    #[schema(value_type = BTreeMap<String, Right>)]
    pub rights: BTreeMap<UserId, Right>,
    /// Entries of its audit chain.
    pub entries: u64,
}

/// Body of `POST /api/v1/images/header`, signed: a client seals by itself and asks for the header alone. No picture comes here.
/// What draws a nonce is the node; a request that brings one is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderRequest {
    /// Bytes of the original.
    pub payload_bytes: u64,
    /// Media type of the original.
    pub media_type: String,
    /// Its file name.
    pub name: String,
    /// Who may open it how often; the owner is the caller.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub rights: BTreeMap<UserId, u64>,
    /// When the rights end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Date>,
    /// Whether views of a lease may be given back.
    #[serde(default)]
    pub leases_returnable: bool,
    /// The key that the client has drawn, sealed to the cluster, in base64.
    pub data_key: String,
}

/// Answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeaderAnswer {
    /// The finished header, in base64.
    pub header: String,
}

/// Routes and queries of users and rights, in one place for both sides.
pub mod route {
    /// `GET`: a [`ClusterIdentity`](super::ClusterIdentity).
    pub const IDENTITY: &str = "/api/v1/cluster/identity";
    /// `GET` lists [`Users`](super::Users) (`after=`, or one by `name=` or `id=`); `POST` takes a
    /// [`Registration`](super::Registration).
    pub const USERS: &str = "/api/v1/users";
    /// `POST`: a [`Rotation`](super::Rotation).
    pub const KEYS: &str = "/api/v1/users/keys";
    /// `POST`: an [`InvitationRequest`](super::InvitationRequest).
    pub const INVITATIONS: &str = "/api/v1/users/invitations";
    /// `DELETE`: the user is expelled.
    pub const USER: &str = "/api/v1/users/{user}";
    /// `GET`: one's own [`Images`](super::Images).
    pub const IMAGES: &str = "/api/v1/images";
    /// `POST`: a [`RightsRequest`](super::RightsRequest).
    pub const RIGHTS: &str = "/api/v1/images/rights";
    /// `POST`: a [`LookRequest`](super::LookRequest).
    pub const LOOK: &str = "/api/v1/images/look";
    /// `POST`: a [`HeaderRequest`](super::HeaderRequest).
    pub const HEADER: &str = "/api/v1/images/header";
}

/// Who may open an image how often, as it stands in the query of a seal: `to=bob=3,carol=1`, by name or id.
///
/// # Errors
/// One line that says what is wrong.
pub fn parse_rights(text: &str) -> Result<Vec<(String, u64)>, String> {
    use crate::protocol::rights::{MOST_RIGHTS, MOST_VIEWS};
    let mut rights: Vec<(String, u64)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if rights.len() == MOST_RIGHTS {
            return Err(format!("more than {MOST_RIGHTS} users are named, at most {MOST_RIGHTS} can be"));
        }
        let shown = part.escape_debug();
        let (name, views) =
            part.split_once('=').ok_or_else(|| format!("\"{shown}\" lacks a number of views, as in bob=3"))?;
        if name.parse::<UserId>().is_err() {
            super::user::check_name(name)?;
        }
        let views = views.parse().ok().filter(|views| (1..=MOST_VIEWS).contains(views));
        let views = views.ok_or_else(|| format!("\"{shown}\": between 1 and {MOST_VIEWS} views can be granted"))?;
        if rights.iter().any(|(known, _)| known.to_lowercase() == name.to_lowercase()) {
            return Err(format!("\"{}\" is named twice", name.escape_debug()));
        }
        rights.push((name.to_owned(), views));
    }
    match rights.len() {
        0 => Err("nobody is named: give at least one user, as in bob=3,carol=1".to_owned()),
        _ => Ok(rights),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_and_senseless_ones_refused() {
        let rights = parse_rights("bob=3, carol=1").unwrap();
        assert_eq!(rights, [("bob".to_owned(), 3), ("carol".to_owned(), 1)]);
        assert!(parse_rights(&format!("{}=1", "0".repeat(64))).is_ok(), "an id");
        let many = (0..65).map(|number| format!("user{number}=1")).collect::<Vec<_>>().join(",");
        for wrong in [
            "",
            ",",
            "bob",
            "bob=",
            "bob=0",
            "bob=-1",
            "bob=18446744073709551615",
            "b b=1",
            "bob=1,Bob=2",
            "b\u{1b}=1",
            &many,
        ] {
            assert!(parse_rights(wrong).is_err(), "{wrong:?}");
        }
    }

    /// A client that seals by itself must not be able to choose the nonce of the wrap.
    #[test]
    fn a_request_for_a_header_cannot_bring_a_nonce() {
        let body =
            r#"{"payload_bytes":1,"media_type":"image/png","name":"a","rights":{},"data_key":"","image_nonce":"00"}"#;
        let error = serde_json::from_str::<HeaderRequest>(body).unwrap_err().to_string();
        assert!(error.contains("unknown field `image_nonce`"), "{error}");
    }
}
