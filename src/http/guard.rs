//! What every request passes: its turn on the thread, the silence of a Failed node, the check of `Host` and `Origin`, who may call
//! (`access.rs`), and the shedding of writes.

use std::net::IpAddr;
use std::time::Duration;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HOST, HeaderName, ORIGIN};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, web};
use tokio::time::timeout;

use super::access::{self, Access};
use super::refusal::Refusal;
use super::service::Service;
use super::shared_thread::SharedThread;
use crate::protocol::job::route;
use crate::protocol::kv;
use crate::protocol::problem::ProblemCode;

/// A refused write whose body is longer, in bytes, or takes longer to arrive, loses its connection.
const SHED_BYTES: usize = 64 << 10;
const SHED_TIME: Duration = Duration::from_secs(1);

/// All of it, in this order. It is one middleware because each one of the library's costs every request a microsecond or two.
pub async fn at_the_door(
    service: web::Data<Service>,
    access: web::Data<Access>,
    thread: web::Data<SharedThread>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    thread.take_turn(request.peer_addr(), request.path()).await;
    let mut response = unless_failed(&service, &access, request, next).await?;
    thread.close_if_misplaced(&mut response);
    Ok(response)
}

/// A Failed node answers nobody: what arrives waits until the failure is over and is then told that it was dropped, and so
/// are the answers of jobs that were running when the failure began. By then the caller has long gone elsewhere.
async fn unless_failed<B: MessageBody + 'static>(
    service: &web::Data<Service>,
    access: &web::Data<Access>,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let dropped =
        || Refusal::new(ProblemCode::Dropped, "the node failed meanwhile; send the request again with its id");
    if let Some(over) = service.silence() {
        over.await;
        return Ok(request.error_response(dropped()).map_into_right_body());
    }
    let failures_before = service.failures();
    // The command to fail is the one request that is answered although the node has failed.
    let commands_failure = request.path() == route::FAIL;
    let response = match pass(service, access, &mut request).await {
        Ok(None) => next.call(request).await?.map_into_left_body(),
        Ok(Some(response)) => request.into_response(response).map_into_right_body(),
        Err(refusal) => request.error_response(refusal).map_into_right_body(),
    };
    if !commands_failure && service.failures() != failures_before {
        if let Some(over) = service.silence() {
            over.await;
        }
        return Ok(response.error_response(dropped()).map_into_right_body());
    }
    Ok(response)
}

/// Whether a request goes on to its handler; if it does not, what it is answered.
async fn pass(
    service: &web::Data<Service>,
    access: &web::Data<Access>,
    request: &mut ServiceRequest,
) -> Result<Option<HttpResponse>, Error> {
    only_known_hosts(service, access, request)?;
    if let Some(response) = access::as_the_address_demands(access, service, request).await? {
        return Ok(Some(response));
    }
    shed_writes(service, request).await.map(|()| None)
}

/// Refuses a foreign `Host` (a name that was pointed at loopback) and, where something would change, a foreign `Origin` (a
/// page of another site).
fn only_known_hosts(service: &Service, access: &Access, request: &ServiceRequest) -> Result<(), Refusal> {
    let own = service.address();
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let host = header(HOST).unwrap_or_default();
    if !is_own_host(host, own.ip(), &access.hosts) {
        let detail =
            format!("this node is not \"{host}\": use {own}, or name the host in [http] hosts of the configuration");
        return Err(Refusal::new(ProblemCode::Forbidden, detail));
    }
    if !request.method().is_safe()
        && let Some(origin) = header(ORIGIN)
        && origin.strip_prefix("https://").or(origin.strip_prefix("http://")) != Some(host)
    {
        let detail = format!("pages of {origin} may not change anything here");
        return Err(Refusal::new(ProblemCode::Forbidden, detail));
    }
    Ok(())
}

/// Sheds writes of the store while too many wait, before anything else is done about them: what a refusal costs is taken from those that
/// are answered. The body is read and forgotten, so that the connection can be used again.
async fn shed_writes(service: &Service, request: &mut ServiceRequest) -> Result<(), Error> {
    if request.method().is_safe() || !request.path().starts_with(kv::route::KV) {
        return Ok(());
    }
    let Some(problem) = service.refuses_writes() else { return Ok(()) };
    let body = request.extract::<web::Payload>().await?;
    // A longer or slower one ends the connection.
    drop(timeout(SHED_TIME, body.to_bytes_limited(SHED_BYTES)).await);
    Err(Refusal::from(problem).into())
}

/// Whether a `Host` header names this node: its own address, a loopback name or one of the configuration, with any port. A node
/// that listens on all addresses is named by any address: it is names that can be pointed elsewhere.
fn is_own_host(host: &str, own: IpAddr, configured: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(address) => address == own || address.is_loopback() || own.is_unspecified(),
        Err(_) => ["localhost"]
            .into_iter()
            .chain(configured.iter().map(String::as_str))
            .any(|own| own.eq_ignore_ascii_case(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_pass_and_foreign_ones_do_not() {
        let own: IpAddr = [127, 0, 0, 1].into();
        for host in ["127.0.0.1:8001", "localhost", "LOCALHOST:8001", "[::1]:8001", "127.0.0.1"] {
            assert!(is_own_host(host, own, &[]), "{host}");
        }
        for host in ["", "evil.example:8001", "localhost.evil.example", "10.0.0.7:8001"] {
            assert!(!is_own_host(host, own, &[]), "{host}");
        }
        let everywhere: IpAddr = [0, 0, 0, 0].into();
        assert!(is_own_host("10.0.0.7:8001", everywhere, &[]) && !is_own_host("evil.example", everywhere, &[]));
        assert!(is_own_host("Cloud.example", own, &["cloud.example".to_owned()]));
    }
}
