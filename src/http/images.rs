//! Images in, finished PNGs out.

use std::collections::BTreeMap;

use actix_web::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::Deserialize;
use utoipa::IntoParams;

use super::caller::{self, request_id};
use super::openapi::OfJobs;
use super::outgoing::Outgoing;
use super::refusal::{self, Refusal, elsewhere};
use super::rights_service::Claim;
use super::service::{Done, JobOrder, NotHere, Reservation, Service, Work};
use crate::id::{NodeId, RequestId, UserId};
use crate::image::Terms;
use crate::protocol::job::{Label, SealForm, route};
use crate::protocol::problem::{Problem, ProblemCode};
use crate::protocol::sharing::parse_rights;
use crate::protocol::user::BodyHash;

/// Longest file name that is kept inside a seal, in bytes.
const NAME_LIMIT: usize = 255;
/// Most users that a label names.
const USER_LIMIT: usize = 1024;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SealQuery {
    /// How the result is written.
    #[serde(default)]
    #[param(inline)]
    form: SealForm,
    /// The file's name, kept inside the seal.
    #[serde(default)]
    #[param(max_length = 255)]
    name: String,
    /// Who may open it how often, besides the owner, as in `bob=3,carol=1`: names or ids. The owner is whoever signs the request;
    /// without a signature the image has none, and only the cluster's key opens it.
    to: Option<String>,
    /// When these rights end, in milliseconds since 1970.
    expires: Option<u64>,
    /// Whether views of a lease may be given back.
    #[serde(default)]
    leases_returnable: bool,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LabelQuery {
    /// Who may look: 1 to 1,024 names with commas between them.
    to: String,
    /// How often.
    quota: u64,
    /// How the result is written.
    #[serde(default)]
    #[param(inline)]
    form: SealForm,
}

/// Seal an image
///
/// The body is the image file (PNG, JPEG or WebP), with its `Content-Length`; the answer shows *Access Denied* and hides it.
#[utoipa::path(post, path = route::SEAL, operation_id = "images_seal", tag = "images",
    params(
        ("idempotency-key" = Option<RequestId>, Header, description = "The same in every attempt: one job"),
    ),
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 200, description = "The sealed PNG", body = [u8], content_type = "image/png", headers(
        ("x-node" = NodeId, description = "The node that did the job"),
        ("x-job-micros" = u64, description = "Time from admission to the finished answer, in microseconds"),
        ("x-repeated" = Option<bool>, description = "`true` if the id was answered before"),
    )), OfJobs))]
pub async fn seal(
    service: web::Data<Service>,
    request: HttpRequest,
    query: web::Query<SealQuery>,
    body: web::Payload,
) -> Result<HttpResponse, Refusal> {
    let SealQuery { form, name, to, expires, leases_returnable } = query.into_inner();
    if name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
        let detail = format!("the name must have at most {NAME_LIMIT} bytes and no control characters");
        return Err(Refusal::new(ProblemCode::BadRequest, detail));
    }
    let claim = caller::claim(&request)?;
    let terms = match &claim {
        None if to.is_some() || expires.is_some() || leases_returnable => {
            let detail = "rights are the owner's to give: sign the request, as `client encrypt --owner NAME` does";
            return Err(Refusal::new(ProblemCode::SignatureRefused, detail));
        }
        None => Terms::default(),
        Some(claim) => match terms(&service, &request, claim, to.as_deref()).await {
            Ok((owner, rights)) => Terms { owner: Some(owner), rights, expires_at_ms: expires, leases_returnable },
            Err(not_here) => return elsewhere(not_here, &request),
        },
    };
    perform(&service, &request, Work::Seal { form, name, terms }, claim.as_ref(), body).await
}

/// The owner, and who else may open the image how often.
async fn terms(
    service: &web::Data<Service>,
    request: &HttpRequest,
    claim: &Claim,
    to: Option<&str>,
) -> Result<(UserId, BTreeMap<UserId, u64>), NotHere> {
    caller::check_time(claim)?;
    let signer = caller::authenticated(service, request, claim.clone()).await?;
    let named = to.map_or(Ok(Vec::new()), parse_rights);
    let named = named.map_err(|why| Refusal::new(ProblemCode::BadRequest, format!("to={why}")))?;
    let rights = service.rights().resolve(named).map_err(NotHere::Refused)?;
    Ok((signer.user, rights))
}

/// Label an image
///
/// The body is the image file, with its `Content-Length`; the answer is the same picture as PNG, with names and quota in its lowest bits.
#[utoipa::path(post, path = route::LABEL, operation_id = "images_label", tag = "images",
    params(
        ("idempotency-key" = Option<RequestId>, Header, description = "The same in every attempt: one job"),
    ),
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 200, description = "The labelled PNG", body = [u8], content_type = "image/png", headers(
        ("x-node" = NodeId, description = "The node that did the job"),
        ("x-job-micros" = u64, description = "Time from admission to the finished answer, in microseconds"),
        ("x-repeated" = Option<bool>, description = "`true` if the id was answered before"),
    )), OfJobs))]
pub async fn label(
    service: web::Data<Service>,
    request: HttpRequest,
    query: web::Query<LabelQuery>,
    body: web::Payload,
) -> Result<HttpResponse, Refusal> {
    let LabelQuery { to, quota, form } = query.into_inner();
    let usernames: Vec<String> = to.split(',').map(|name| name.trim().to_owned()).collect();
    if usernames.len() > USER_LIMIT
        || usernames.iter().any(|name| name.is_empty() || name.chars().any(char::is_control))
    {
        let detail = format!("to= takes 1 to {USER_LIMIT} names with commas between them, as in to=alice,bob");
        return Err(Refusal::new(ProblemCode::BadRequest, detail));
    }
    perform(&service, &request, Work::Label { label: Label { usernames, quota }, form }, None, body).await
}

async fn perform(
    service: &web::Data<Service>,
    request: &HttpRequest,
    work: Work,
    claim: Option<&Claim>,
    body: web::Payload,
) -> Result<HttpResponse, Refusal> {
    let id = request_id(service, request)?;
    let bytes = content_length(service, request)?;
    let (done, repeated) = match service.reserve(JobOrder { id, work, bytes }).await? {
        Reservation::Repeated { done, checksum } => {
            if checksum_of_body(service, body, bytes, claim).await? != checksum {
                return Err(Problem::reused_id(id).into());
            }
            (done, true)
        }
        Reservation::Admitted(promise) => {
            let image = read_body(service, body, bytes, claim).await?;
            (promise(image).await?, false)
        }
    };
    Ok(answer(service, done, repeated))
}

fn answer(service: &web::Data<Service>, done: Done, repeated: bool) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response
        .content_type("image/png")
        .insert_header((route::NODE, service.node().to_string()))
        .insert_header((route::JOB_MICROS, done.took.as_micros().to_string()));
    if repeated {
        response.insert_header((route::REPEATED, "true"));
    }
    let sending = service.sending(done.image.len());
    response.body(Outgoing::image(done.image, sending))
}

fn content_length(service: &web::Data<Service>, request: &HttpRequest) -> Result<u64, Refusal> {
    // A body of unknown length would need memory that cannot be reserved before it is read.
    if request.headers().contains_key(TRANSFER_ENCODING) {
        return Err(Refusal::new(ProblemCode::BadRequest, "send the image with its Content-Length, not in chunks"));
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let length = length.unwrap_or(0);
    let limit = service.limits().original_bytes;
    if length > limit {
        let mut refusal = Refusal::new(
            ProblemCode::TooLarge,
            format!("the image has {length} bytes, at most {limit} are accepted (limits.original_mib)"),
        );
        (refusal.0.need, refusal.0.have) = (Some(length), Some(limit));
        return Err(refusal);
    }
    Ok(length)
}

/// Reads the body into one buffer of the announced size.
async fn read_body(
    service: &web::Data<Service>,
    body: web::Payload,
    bytes: u64,
    claim: Option<&Claim>,
) -> Result<Bytes, Refusal> {
    let mut image = BytesMut::with_capacity(bytes as usize);
    for_each_chunk(service, body, bytes, claim, |chunk| image.extend_from_slice(chunk)).await?;
    Ok(image.freeze())
}

/// Reads the body for its CRC-32 alone.
async fn checksum_of_body(
    service: &web::Data<Service>,
    body: web::Payload,
    bytes: u64,
    claim: Option<&Claim>,
) -> Result<u32, Refusal> {
    let mut hasher = crc32fast::Hasher::new();
    for_each_chunk(service, body, bytes, claim, |chunk| hasher.update(chunk)).await?;
    Ok(hasher.finalize())
}

/// Takes a body of the announced length, within the upload time; if it was signed, it must be the one that was.
async fn for_each_chunk(
    service: &web::Data<Service>,
    mut body: web::Payload,
    bytes: u64,
    claim: Option<&Claim>,
    mut take: impl FnMut(&[u8]),
) -> Result<(), Refusal> {
    let read = async {
        let mut length = 0;
        let mut hasher = claim.map(|_| blake3::Hasher::new());
        while let Some(chunk) = body.next().await {
            let chunk = chunk
                .map_err(|error| Refusal::new(ProblemCode::BadRequest, format!("the upload broke off: {error}")))?;
            length += chunk.len() as u64;
            // An `Upgrade` makes the server pass on whatever comes, past the length that was reserved.
            if length > bytes {
                let detail = format!("the upload is longer than its Content-Length of {bytes} bytes");
                return Err(Refusal::new(ProblemCode::BadRequest, detail));
            }
            take(&chunk);
            if let Some(hasher) = &mut hasher {
                hasher.update(&chunk);
            }
        }
        match (claim, hasher) {
            (Some(claim), Some(hasher)) => caller::check_hash(claim, BodyHash(*hasher.finalize().as_bytes())),
            _ => Ok(()),
        }
    };
    let limit = service.limits().upload_time;
    tokio::time::timeout(limit, read).await.unwrap_or_else(|_| Err(refusal::too_slow(limit)))
}
