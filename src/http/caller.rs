//! Who signed a request: read from its head, checked by the node, and held against its body.

use actix_web::http::header::AUTHORIZATION;
use actix_web::{HttpMessage, HttpRequest, web};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;

use super::body;
use super::refusal::Refusal;
use super::rights_service::{Authenticated, Claim, SignedHeader};
use super::service::{NotHere, Service};
use crate::id::RequestId;
use crate::identity::{Authorization, SCHEME};
use crate::protocol::job::route;
use crate::protocol::ledger::RefusedWhy;
use crate::protocol::problem::ProblemCode;
use crate::protocol::user::{BodyHash, SIGNED_WITHIN_MS};

/// The id of a request; a fresh one where it names none.
pub fn request_id(service: &web::Data<Service>, request: &HttpRequest) -> Result<RequestId, Refusal> {
    let Some(value) = request.headers().get(route::REQUEST_ID) else { return Ok(service.fresh_id()) };
    let text = value.to_str().unwrap_or("(not text)");
    text.parse().map_err(|error| Refusal::new(ProblemCode::BadRequest, format!("{}: {error}", route::REQUEST_ID)))
}

/// What the head says, if it says that a user has signed.
///
/// # Errors
/// It says so in words that cannot be read, or without a request id.
pub fn claim(request: &HttpRequest) -> Result<Option<Claim>, Refusal> {
    let refused = |detail: String| Refusal::new(ProblemCode::SignatureRefused, detail);
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((_, parameters)) = header.and_then(|text| text.split_once(' ')).filter(|(scheme, _)| *scheme == SCHEME)
    else {
        return Ok(None);
    };
    let authorization = Authorization::parse(parameters).map_err(|error| refused(error.to_string()))?;
    let id = request.headers().get(route::REQUEST_ID).and_then(|value| value.to_str().ok()?.parse().ok());
    let id = id.ok_or_else(|| refused(format!("a signed request has an id of its own in {}", route::REQUEST_ID)))?;
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    Ok(Some(Claim { authorization, id, method: request.method().to_string(), path }))
}

/// The same, for calls that nobody may make without a signature.
pub fn required_claim(request: &HttpRequest) -> Result<Claim, Refusal> {
    claim(request)?.ok_or_else(|| {
        let detail = format!(
            "{} {} needs a user's signature: `client` signs with the keys that `client register NAME` makes",
            request.method(),
            request.path()
        );
        Refusal::new(ProblemCode::SignatureRefused, detail)
    })
}

/// Refuses a body that is not the one that was signed.
pub fn check_body(claim: &Claim, body: &[u8]) -> Result<(), Refusal> {
    check_hash(claim, BodyHash::of(body))
}

/// The same, for a body that was hashed while it arrived.
pub fn check_hash(claim: &Claim, body: BodyHash) -> Result<(), Refusal> {
    if claim.authorization.body == body {
        return Ok(());
    }
    Err(Refusal::new(ProblemCode::SignatureRefused, "the body is not the one that was signed"))
}

/// A signed body as JSON.
pub async fn signed_command<T: DeserializeOwned>(
    service: &web::Data<Service>,
    request: &HttpRequest,
    body: &body::Small,
) -> Result<(Authenticated, T), NotHere> {
    believed(service, request, body, required_claim(request)?).await
}

/// The same for a question, which no log orders: it must have been signed about now by this node's clock.
pub async fn signed_question<T: DeserializeOwned>(
    service: &web::Data<Service>,
    request: &HttpRequest,
    body: &body::Small,
) -> Result<(Authenticated, T), NotHere> {
    let claim = required_claim(request)?;
    check_time(&claim)?;
    believed(service, request, body, claim).await
}

async fn believed<T: DeserializeOwned>(
    service: &web::Data<Service>,
    request: &HttpRequest,
    body: &body::Small,
    claim: Claim,
) -> Result<(Authenticated, T), NotHere> {
    check_body(&claim, &body.0)?;
    // Nothing of it is read before it is known whose it is.
    let signer = authenticated(service, request, claim).await?;
    Ok((signer, json(&body.0)?))
}

/// Who signed it, if that is true.
pub async fn authenticated(
    service: &web::Data<Service>,
    request: &HttpRequest,
    claim: Claim,
) -> Result<Authenticated, NotHere> {
    // Where every call needs a signature it was checked before.
    let known = request.extensions().get::<Authenticated>().copied();
    match known {
        Some(signer) => Ok(signer),
        None => service.rights().authenticate(claim).await,
    }
}

/// Refuses what was not signed about now, by this node's clock: for what no log orders.
pub fn check_time(claim: &Claim) -> Result<(), Refusal> {
    let (at, now) = (claim.authorization.at.0, crate::time::unix_millis());
    if at.abs_diff(now) <= SIGNED_WITHIN_MS {
        return Ok(());
    }
    let why = RefusedWhy::NotOfThisTime { now_unix_ms: now };
    Err(Refusal::new(ProblemCode::SignatureRefused, why.to_string()))
}

/// JSON as the route takes it.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(ProblemCode::BadRequest, format!("the body is not what this route takes: {error}"))
    })
}

/// A header as it travels.
pub fn signed_header(signer: Authenticated, header: &str) -> Result<SignedHeader, Refusal> {
    let header = BASE64_STANDARD.decode(header).map_err(|error| {
        Refusal::new(ProblemCode::BadRequest, format!("the header of the image is not base64: {error}"))
    })?;
    Ok(SignedHeader { signer, header })
}
