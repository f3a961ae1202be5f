//! Requests and answers over kept-alive HTTP connections, every body bounded.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, Response};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;

use super::error::{AttemptError, ClientError};
use super::settings::ClientSettings;
use crate::protocol::problem::Problem;

/// Largest answer that is no image, in bytes.
const JSON_LIMIT: u64 = 8 * 1024 * 1024;
/// Largest refusal, in bytes.
const PROBLEM_LIMIT: u64 = 64 * 1024;

/// The connections of all requests. Idle ones are closed before the node would (75 s), and not hoarded.
///
/// If all nodes are reached with TLS, every request shows the admin token.
pub(super) fn connections(settings: &ClientSettings) -> Result<Client, ClientError> {
    let setup = |error: &dyn std::fmt::Display| ClientError::Setup(error.to_string());
    let mut headers = HeaderMap::new();
    if let Some(token) = &settings.credentials.token
        && settings.nodes.iter().all(|node| node.url.starts_with("https:"))
    {
        let mut shown: HeaderValue = format!("Bearer {}", token.secret()).parse().map_err(|error| setup(&error))?;
        shown.set_sensitive(true);
        headers.insert(AUTHORIZATION, shown);
    }
    Client::builder()
        .tls_backend_preconfigured(tls(&settings.credentials.authorities).map_err(|error| setup(&error))?)
        .default_headers(headers)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .connect_timeout(settings.query_timeout)
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(128)
        .build()
        .map_err(|error| setup(&error))
}

/// TLS that believes these authorities and nobody else.
fn tls(authorities: &[CertificateDer<'static>]) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

/// Sends, and returns the answer if it is a success. A dropped or timed-out exchange closes its connection.
pub(super) async fn send(request: RequestBuilder) -> Result<Response, AttemptError> {
    let response = request.send().await.map_err(|error| AttemptError::from_transport(&error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = read_body(response, PROBLEM_LIMIT).await?;
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(AttemptError::Refused(Box::new(problem))),
        Err(_) => Err(AttemptError::Status(status.as_u16())),
    }
}

/// Sends, and reads the answer as JSON.
pub(super) async fn send_for_json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, AttemptError> {
    let body = read_body(send(request).await?, JSON_LIMIT).await?;
    serde_json::from_slice(&body).map_err(|error| AttemptError::BadAnswer(error.to_string()))
}

/// Reads a body into one buffer of its announced size.
pub(super) async fn read_body(mut response: Response, limit: u64) -> Result<Bytes, AttemptError> {
    let announced = response.content_length();
    let refuse_over_limit =
        |have| if have > limit { Err(AttemptError::AnswerTooLarge { have, limit }) } else { Ok(()) };
    refuse_over_limit(announced.unwrap_or_default())?;
    let mut body = BytesMut::with_capacity(announced.unwrap_or_default() as usize);
    while let Some(chunk) = response.chunk().await.map_err(|error| AttemptError::from_transport(&error))? {
        refuse_over_limit(body.len() as u64 + chunk.len() as u64)?;
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
