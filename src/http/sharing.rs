//! Rights to sealed images: views, grants, leases. The image itself never comes here, its header does.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

use super::body;
use super::caller;
use super::openapi::{OfSignedReads, OfSignedWrites};
use super::refusal::{Refusal, answer};
use super::service::Service;
use crate::id::{ImageId, RequestId};
use crate::protocol::sharing::{
    HeaderAnswer, HeaderRequest, Images, Look, LookRequest, RightsAnswer, RightsRequest, route,
};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImagesQuery {
    /// Images behind this one.
    after: Option<ImageId>,
}

/// Spend a view, or change who may
///
/// A view or a lease is answered with the key of the image, sealed to the caller. The same id is answered again and spends nothing, for
/// as long as anything is known of the image.
#[utoipa::path(post, path = route::RIGHTS, operation_id = "images_rights", tag = "images",
    params(("idempotency-key" = RequestId, Header, description = "The same in every attempt")),
    request_body = RightsRequest, security(("signature" = [])),
    responses((status = 200, description = "On the disks of a majority", body = RightsAnswer), OfSignedWrites))]
pub async fn rights(
    service: web::Data<Service>,
    request: HttpRequest,
    body: body::Small,
) -> Result<HttpResponse, Refusal> {
    let result = async {
        let (signer, RightsRequest { header, action }) = caller::signed_command(&service, &request, &body).await?;
        service.rights().act(caller::signed_header(signer, &header)?, action).await
    };
    answer(result.await, &request)
}

/// Look at the rights to an image
///
/// Spends nothing. The owner sees everybody's right, and the audit chain.
#[utoipa::path(post, path = route::LOOK, operation_id = "images_look", tag = "images",
    params(("idempotency-key" = RequestId, Header, description = "Of this request")),
    request_body = LookRequest, security(("signature" = [])),
    responses((status = 200, description = "The caller's right", body = Look), OfSignedReads))]
pub async fn look(
    service: web::Data<Service>,
    request: HttpRequest,
    body: body::Small,
) -> Result<HttpResponse, Refusal> {
    let result = async {
        let (signer, LookRequest { header, after }) = caller::signed_question(&service, &request, &body).await?;
        service.rights().look(caller::signed_header(signer, &header)?, after).await
    };
    answer(result.await, &request)
}

/// One's own images
///
/// Those of which anything is known: with the first view or grant.
#[utoipa::path(get, path = route::IMAGES, operation_id = "images_list", tag = "images",
    params(("idempotency-key" = RequestId, Header, description = "Of this request")),
    security(("signature" = [])),
    responses((status = 200, description = "A page; `more` says whether there are others behind it", body = Images), OfSignedReads))]
pub async fn images(
    service: web::Data<Service>,
    request: HttpRequest,
    query: web::Query<ImagesQuery>,
) -> Result<HttpResponse, Refusal> {
    let result = async {
        let claim = caller::required_claim(&request)?;
        caller::check_body(&claim, &[])?;
        caller::check_time(&claim)?;
        let signer = caller::authenticated(&service, &request, claim).await?;
        service.rights().images(signer, query.after).await
    };
    answer(result.await, &request)
}

/// Get a header for an image that one seals by oneself
///
/// No picture comes to the cluster. The node draws the nonce; the key comes sealed to the cluster's public key.
#[utoipa::path(post, path = route::HEADER, operation_id = "images_header", tag = "images",
    params(("idempotency-key" = RequestId, Header, description = "Of this request")),
    request_body = HeaderRequest, security(("signature" = [])),
    responses((status = 200, description = "The finished header", body = HeaderAnswer), OfSignedReads))]
pub async fn header(
    service: web::Data<Service>,
    request: HttpRequest,
    body: body::Small,
) -> Result<HttpResponse, Refusal> {
    let result = async {
        let (signer, asked) = caller::signed_question::<HeaderRequest>(&service, &request, &body).await?;
        service.rights().wrap(signer, asked).await
    };
    answer(result.await, &request)
}
