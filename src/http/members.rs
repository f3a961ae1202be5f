//! Who belongs to the cluster: shown to everybody, changed with the admin token.

use actix_web::{HttpRequest, HttpResponse, web};

use super::body::Json;
use super::openapi::{Always, OfChanges};
use super::refusal::{Refusal, elsewhere};
use super::service::Service;
use crate::protocol::membership::{ChangeRequest, Changed, Members, route};

/// Who belongs to the cluster, as this node knows it
#[utoipa::path(get, path = route::MEMBERS, operation_id = "members", tag = "cluster",
    responses((status = 200, description = "The members", body = Members), Always))]
pub async fn members(service: web::Data<Service>) -> Result<HttpResponse, Refusal> {
    Ok(HttpResponse::Ok().json(service.members().await?))
}

/// Add, replace or remove a member
///
/// It is answered when it is done: a new member has caught up by then.
#[utoipa::path(post, path = route::MEMBERS, operation_id = "change_members", tag = "cluster", security(("admin_token" = [])),
    responses((status = 200, description = "It is done", body = Changed), OfChanges))]
pub async fn change(
    service: web::Data<Service>,
    request: HttpRequest,
    change: Json<ChangeRequest>,
) -> Result<HttpResponse, Refusal> {
    match service.change_members(change.0).await {
        Ok(changed) => Ok(HttpResponse::Ok().json(changed)),
        Err(not_here) => elsewhere(not_here, &request),
    }
}
