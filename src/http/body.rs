//! Bodies of requests, images apart: bounded in size, in time and in all the memory that they take together.

use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::CONTENT_LENGTH;
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

/// The memory for bodies that arrive.
pub struct Arrivals(Arc<Semaphore>);

impl Default for Arrivals {
    fn default() -> Self {
        Arrivals(Arc::new(Semaphore::new(ALL_BODIES_BYTES as usize)))
    }
}

impl Arrivals {
    fn reserve(&self, request: &HttpRequest, limit: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        // In chunks it may have any length up to the limit; what announces more is refused by its size.
        let bytes = announced.unwrap_or(limit as u64).clamp(1, limit as u64) as u32;
        self.0.clone().try_acquire_many_owned(bytes).map_err(|_| {
            let detail = "too many large requests arrive at the same time: nothing was done, try again";
            let problem = Problem::new(ProblemCode::Overloaded, detail);
            Problem { retry_after_ms: Some(FULL_PAUSE_MS), ..problem }.into()
        })
    }
}

/// A body as JSON.
pub struct Json<T>(pub T);

/// A body as it is.
pub struct Bytes(pub bytes::Bytes);

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self, Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = arriving::<web::Json<T>>(request, payload, Limits::json_bytes);
        async move { Ok(Json(body?.await?.into_inner())) }.boxed_local()
    }
}

impl FromRequest for Bytes {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self, Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = arriving::<web::Bytes>(request, payload, Limits::request_bytes);
        async move { Ok(Bytes(body?.await?)) }.boxed_local()
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
    let body = T::from_request(request, payload);
    Ok(async move {
        let _permit = permit;
        let Ok(body) = timeout(limits.upload_time, body).await else {
            return Err(refusal::too_slow(limits.upload_time).into());
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
