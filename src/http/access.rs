//! Who may call what: the rules of a node's HTTP side, and the check of the admin token.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, web};

use super::caller;
use super::refusal::{Refusal, elsewhere};
use super::service::Service;
use crate::config::secrets::AdminToken;
use crate::protocol::job::route;
use crate::protocol::problem::ProblemCode;
use crate::protocol::sharing;

/// What is answered to everybody, wherever the node listens.
pub const PUBLIC: [&str; 4] = [route::LIVEZ, route::READYZ, route::OPENAPI, sharing::route::IDENTITY];

/// Who may call what.
#[derive(Clone, Debug)]
pub struct Access {
    /// What whoever administers shows.
    pub token: AdminToken,
    /// Where its file is, for people.
    pub token_file: String,
    /// Whether every call needs it, the public ones excepted, or only those that administer.
    pub every_call: bool,
    /// Names that `Host` may say besides addresses and `localhost`.
    pub hosts: Vec<String>,
}

impl Access {
    /// Refuses whoever does not show the token.
    fn check(&self, request: &ServiceRequest) -> Result<(), Refusal> {
        let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown =
            shown.and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let file = &self.token_file;
        match shown {
            Some((_, token)) if self.token.is(token.trim()) => Ok(()),
            Some(_) => {
                let detail = format!(
                    "this is not the admin token of this cluster, which is in {file}: pass that file with --admin-token-file"
                );
                Err(Refusal::new(ProblemCode::Forbidden, detail))
            }
            None => {
                let detail = format!(
                    "this call needs the cluster's admin token: pass its file, {file}, with --admin-token-file; \
                     with curl: -H \"Authorization: Bearer $(cat {file})\""
                );
                Err(Refusal::new(ProblemCode::Unauthorized, detail))
            }
        }
    }
}

/// For the routes that administer: nobody passes without the token.
pub async fn administrators_only(
    access: web::Data<Access>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    match access.check(&request) {
        Ok(()) => next.call(request).await.map(ServiceResponse::map_into_left_body),
        // An answer like any other: an error would pass by what the guard does with it.
        Err(refusal) => Ok(request.error_response(refusal).map_into_right_body()),
    }
}

/// For all routes: where every call needs the token or a user's signature, only the public routes pass without it, and registration. Whoever
/// is unknown here is sent to the leader, who may know more.
pub async fn as_the_address_demands(
    access: &Access,
    service: &web::Data<Service>,
    request: &ServiceRequest,
) -> Result<Option<HttpResponse>, Error> {
    // The path as it was sent: however else one of these could be written, it would only be refused.
    let is_open = PUBLIC.contains(&request.path());
    // Whoever registers is no user yet, and shows an invitation instead.
    let registers = request.path() == sharing::route::USERS && request.method() == Method::POST;
    if !access.every_call || is_open || registers {
        return Ok(None);
    }
    match caller::claim(request.request())? {
        Some(claim) if is_for_users(request) => {
            // What the log orders is compared with the leader's clock, there.
            if ![sharing::route::RIGHTS, sharing::route::KEYS].contains(&request.path()) {
                caller::check_time(&claim)?;
            }
            match service.rights().authenticate(claim).await {
                Ok(signer) => request.extensions_mut().insert(signer),
                Err(not_here) => return Ok(Some(elsewhere(not_here, request.request())?)),
            };
        }
        _ => access.check(request)?,
    }
    Ok(None)
}

/// What a user's signature is enough for: what users sign, and what they must ask before. Everything else is for who administers.
fn is_for_users(request: &ServiceRequest) -> bool {
    use sharing::route::{HEADER, IMAGES, KEYS, LOOK, RIGHTS, USERS};
    [RIGHTS, LOOK, HEADER, IMAGES, KEYS, USERS, route::SEAL, route::ANNOUNCEMENTS].contains(&request.path())
}
