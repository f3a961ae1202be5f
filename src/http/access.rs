//! Who may call what: the rules of a node's HTTP side, and the check of the admin token.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::{Error, web};

use super::refusal::Refusal;
use crate::config::secrets::AdminToken;
use crate::protocol::job::route;
use crate::protocol::problem::ProblemCode;

/// What is answered to everybody, wherever the node listens.
pub const PUBLIC: [&str; 3] = [route::LIVEZ, route::READYZ, route::OPENAPI];

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
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    access.check(&request)?;
    next.call(request).await
}

/// For all routes: where every call needs the token, only the questions for health and the description of the routes pass without it.
pub async fn as_the_address_demands(
    access: web::Data<Access>,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    // The path as it was sent: however else one of these could be written, it would only be refused.
    let is_open = PUBLIC.contains(&request.path());
    if access.every_call && !is_open {
        access.check(&request)?;
    }
    next.call(request).await
}
