//! Bodies of requests, images apart, and large answers of the ledger: bounded in size, in time and in all the memory that they take
//! together.

use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::JsonBody;
use actix_web::{Error, FromRequest, HttpRequest, web};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::refusal::{self, Refusal};
use super::service::{Limits, Service};
use crate::protocol::problem::{Problem, ProblemCode};

/// Memory for all bodies that arrive at the same time, in bytes: 64 MiB.
const ALL_BODIES_BYTES: u32 = 64 << 20;

/// How long whoever comes when it is taken is asked to wait, in milliseconds.
const FULL_PAUSE_MS: u64 = 100;

/// A body with orders for the node itself, or an announcement, in bytes. They need no place among the large ones: a node that is
/// being flooded still hears them.
const SMALL_BYTES: usize = 64 << 10;

/// What any body has before its rate counts.
const START_TIME: Duration = Duration::from_secs(2);

/// The least rate at which a body must arrive, in bytes per second: one that drips keeps its place from others.
const LEAST_RATE: usize = 64 << 10;

/// The memory for bodies that arrive, and for large answers that leave.
pub struct Arrivals {
    arriving: Arc<Semaphore>,
    leaving: Arc<Semaphore>,
}

impl Default for Arrivals {
    fn default() -> Self {
        let all = || Arc::new(Semaphore::new(ALL_BODIES_BYTES as usize));
        Arrivals { arriving: all(), leaving: all() }
    }
}

impl Arrivals {
    /// Takes the memory for an answer that its reader may take slowly.
    ///
    /// # Errors
    /// Overloaded.
    pub fn leaving(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let bytes = bytes.clamp(1, ALL_BODIES_BYTES as usize) as u32;
        self.leaving.clone().try_acquire_many_owned(bytes).map_err(|_| {
            let detail = "too many large answers are on their way to slow readers: try again, or at another node";
            let problem = Problem::new(ProblemCode::Overloaded, detail);
            Problem { retry_after_ms: Some(FULL_PAUSE_MS), ..problem }.into()
        })
    }

    fn reserve(&self, request: &HttpRequest, limit: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        // In chunks it may have any length up to the limit; what announces more is refused by its size.
        let bytes = announced.unwrap_or(limit as u64).clamp(1, limit as u64) as u32;
        self.arriving.clone().try_acquire_many_owned(bytes).map_err(|_| {
            let detail = "too many large requests arrive at the same time: nothing was done, try again";
            let problem = Problem::new(ProblemCode::Overloaded, detail);
            Problem { retry_after_ms: Some(FULL_PAUSE_MS), ..problem }.into()
        })
    }
}

/// A small body as JSON.
pub struct Json<T>(pub T);

/// A small body as it came: a signature is over its bytes.
pub struct Small(pub bytes::Bytes);

/// A body as JSON that may carry values of the ledger.
pub struct LargeJson<T>(pub T);

/// A body as it is.
pub struct Bytes(pub bytes::Bytes);

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self, Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let upload_time = request.app_data::<web::Data<Service>>().map(|service| service.limits().upload_time);
        let body = JsonBody::new(request, payload, None, true).limit(SMALL_BYTES);
        let request = request.clone();
        async move {
            let limit = time_for(SMALL_BYTES, upload_time.unwrap_or(START_TIME));
            match timeout(limit, body).await {
                Ok(body) => body.map(Json).map_err(|error| refusal::bad_json(error, &request)),
                Err(_) => Err(too_slow(limit).into()),
            }
        }
        .boxed_local()
    }
}

impl FromRequest for Small {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self, Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let upload_time = request.app_data::<web::Data<Service>>().map(|service| service.limits().upload_time);
        let body = web::Payload::from_request(request, payload).into_inner();
        async move {
            let body = body?.to_bytes_limited(SMALL_BYTES);
            let limit = time_for(SMALL_BYTES, upload_time.unwrap_or(START_TIME));
            match timeout(limit, body).await {
                Ok(Ok(body)) => body.map(Small),
                Ok(Err(_)) => Err(refusal::bad_body(&PayloadError::Overflow, SMALL_BYTES).into()),
                Err(_) => Err(too_slow(limit).into()),
            }
        }
        .boxed_local()
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for LargeJson<T> {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self, Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = arriving::<web::Json<T>>(request, payload, Limits::json_bytes);
        async move { Ok(LargeJson(body?.await?.into_inner())) }.boxed_local()
    }
}

impl FromRequest for Bytes {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self, Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = arriving::<web::Bytes>(request, payload, Limits::request_bytes);
        // It arrives in a buffer of 8 KiB or more, which would stay in memory for as long as the body lives.
        async move { Ok(Bytes(bytes::Bytes::copy_from_slice(&body?.await?))) }.boxed_local()
    }
}

/// A body on its way in, if there is memory for it; it counts until it is here.
fn arriving<T>(
    request: &HttpRequest,
    payload: &mut Payload,
    limit: fn(&Limits) -> usize,
) -> Result<impl Future<Output = Result<T, Error>> + use<T>, Error>
where
    T: FromRequest,
    T::Future: 'static,
{
    let (Some(service), Some(arrivals)) =
        (request.app_data::<web::Data<Service>>(), request.app_data::<web::Data<Arrivals>>())
    else {
        return Err(Refusal::new(ProblemCode::Internal, "the server was put together without its service").into());
    };
    let limits = service.limits();
    let bytes = limit(&limits);
    let permit = arrivals.reserve(request, bytes)?;
    let limit = time_for(permit.num_permits(), limits.upload_time);
    let body = T::from_request(request, payload);
    Ok(async move {
        let _permit = permit;
        let Ok(body) = timeout(limit, body).await else {
            return Err(too_slow(limit).into());
        };
        body.map_err(|error| {
            let error = error.into();
            match error.as_error::<PayloadError>() {
                Some(fault) => refusal::bad_body(fault, bytes).into(),
                None => error,
            }
        })
    })
}

/// How long a body of so many bytes may take, and no longer than any upload.
fn time_for(bytes: usize, upload_time: Duration) -> Duration {
    (START_TIME + Duration::from_secs_f64(bytes as f64 / LEAST_RATE as f64)).min(upload_time)
}

fn too_slow(limit: Duration) -> Refusal {
    let detail = format!(
        "the body took longer than {} s: it must arrive at {} KiB/s at least, within http.upload_s",
        limit.as_secs_f64(),
        LEAST_RATE >> 10
    );
    Refusal::new(ProblemCode::TooSlow, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_as_long_as_its_size_needs_and_no_longer_than_any() {
        let upload_time = Duration::from_secs(30);
        for (bytes, seconds) in [(1, 2), (64 << 10, 3), (1 << 20, 18), (4 << 20, 30)] {
            assert_eq!(time_for(bytes, upload_time).as_secs(), seconds, "{bytes}");
        }
    }
}
