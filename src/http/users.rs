//! Users: who they are, and how one becomes one.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

use super::body;
use super::caller::{self, request_id};
use super::openapi::{OfReads, OfSignedWrites, OfWrites};
use super::refusal::{Refusal, answer};
use super::rights_service::WhichUsers;
use super::service::Service;
use crate::id::{RequestId, UserId};
use crate::protocol::problem::ProblemCode;
use crate::protocol::sharing::{
    ClusterIdentity, Invitation, InvitationRequest, Registration, Rotation, UserChanged, Users, route,
};
use crate::protocol::user::check_name;

/// The longest that an invitation may be open, in milliseconds: a year.
const INVITATION_LIMIT_MS: u64 = 365 * 24 * 3_600_000;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsersQuery {
    /// The user of this name; case does not matter.
    name: Option<String>,
    /// The user with this id.
    id: Option<UserId>,
    /// Users behind this one.
    after: Option<UserId>,
}

/// What a client must know before it can sign
#[utoipa::path(get, path = route::IDENTITY, operation_id = "cluster_identity", tag = "users", security(()),
    responses((status = 200, description = "The cluster's name and public key", body = ClusterIdentity),
        super::openapi::OfIdentity))]
pub async fn identity(service: web::Data<Service>) -> Result<HttpResponse, Refusal> {
    Ok(HttpResponse::Ok().json(service.rights().identity()?))
}

/// Users, in the order of their ids
#[utoipa::path(get, path = route::USERS, operation_id = "users_list", tag = "users",
    responses((status = 200, description = "A page; `more` says whether there are others behind it", body = Users), OfReads))]
pub async fn list(
    service: web::Data<Service>,
    request: HttpRequest,
    query: web::Query<UsersQuery>,
) -> Result<HttpResponse, Refusal> {
    let which = match query.into_inner() {
        UsersQuery { name: Some(name), id: None, after: None } => WhichUsers::Named(name),
        UsersQuery { name: None, id: Some(id), after: None } => WhichUsers::Id(id),
        UsersQuery { name: None, id: None, after } => WhichUsers::After(after),
        _ => return Err(Refusal::new(ProblemCode::BadRequest, "give at most one of name=, id= and after=")),
    };
    answer(service.rights().users(which).await, &request)
}

/// Become a user
///
/// Signed with the keys in the body. Off loopback it needs an invitation.
#[utoipa::path(post, path = route::USERS, operation_id = "users_register", tag = "users",
    params(("idempotency-key" = RequestId, Header, description = "The same in every attempt")),
    request_body = Registration, security(("signature" = [])),
    responses((status = 200, description = "On the disks of a majority", body = UserChanged), OfSignedWrites))]
pub async fn register(
    service: web::Data<Service>,
    request: HttpRequest,
    body: body::Small,
) -> Result<HttpResponse, Refusal> {
    let claim = caller::required_claim(&request)?;
    caller::check_body(&claim, &body.0)?;
    let registration: Registration = caller::json(&body.0)?;
    check_name(&registration.name).map_err(|why| Refusal::new(ProblemCode::BadRequest, why))?;
    answer(service.rights().register(claim, registration).await, &request)
}

/// Put other keys in the place of one's own
///
/// Signed with the old ones.
#[utoipa::path(post, path = route::KEYS, operation_id = "users_rotate", tag = "users",
    params(("idempotency-key" = RequestId, Header, description = "The same in every attempt")),
    request_body = Rotation, security(("signature" = [])),
    responses((status = 200, description = "On the disks of a majority", body = UserChanged), OfSignedWrites))]
pub async fn rotate(
    service: web::Data<Service>,
    request: HttpRequest,
    body: body::Small,
) -> Result<HttpResponse, Refusal> {
    let result = async {
        let (signer, Rotation { to }) = caller::signed_command(&service, &request, &body).await?;
        service.rights().rotate(signer, to).await
    };
    answer(result.await, &request)
}

/// Let somebody register, once
#[utoipa::path(post, path = route::INVITATIONS, operation_id = "users_invite", tag = "users",
    params(("idempotency-key" = Option<RequestId>, Header, description = "The same in every attempt")),
    request_body = InvitationRequest, security(("admin_token" = [])),
    responses((status = 200, description = "The secret to hand over", body = Invitation), OfWrites))]
pub async fn invite(
    service: web::Data<Service>,
    request: HttpRequest,
    asked: body::Json<InvitationRequest>,
) -> Result<HttpResponse, Refusal> {
    let InvitationRequest { for_ms } = asked.0;
    if for_ms == 0 || for_ms > INVITATION_LIMIT_MS {
        let detail = format!("an invitation is open for 1 to {INVITATION_LIMIT_MS} ms, not {for_ms}");
        return Err(Refusal::new(ProblemCode::BadRequest, detail));
    }
    let id = request_id(&service, &request)?;
    answer(service.rights().invite(id, for_ms).await, &request)
}

/// Expel a user
///
/// No request of that user is done any more; the name stays taken.
#[utoipa::path(delete, path = route::USER, operation_id = "users_expel", tag = "users",
    params(
        ("user" = UserId, Path, description = "The user's id"),
        ("idempotency-key" = Option<RequestId>, Header, description = "The same in every attempt"),
    ),
    security(("admin_token" = [])),
    responses((status = 200, description = "On the disks of a majority", body = UserChanged), OfSignedWrites))]
pub async fn expel(
    service: web::Data<Service>,
    request: HttpRequest,
    user: web::Path<String>,
) -> Result<HttpResponse, Refusal> {
    let user = user.parse().map_err(|why: String| Refusal::new(ProblemCode::BadRequest, why))?;
    let id = request_id(&service, &request)?;
    answer(service.rights().expel(id, user).await, &request)
}
