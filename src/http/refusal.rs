//! Refusals as `application/problem+json`.

use std::fmt;
use std::time::Duration;

use actix_web::error::{JsonPayloadError, PayloadError, QueryPayloadError};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse, ResponseError};

use super::outgoing;
use super::service::NotHere;
use crate::protocol::job::route;
use crate::protocol::problem::{Problem, ProblemCode};

/// A [`Problem`] as an answer of actix-web.
#[derive(Debug)]
pub struct Refusal(pub Problem);

impl Refusal {
    /// A refusal with a code and its one line.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Refusal(Problem::new(code, detail))
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Refusal(problem)
    }
}

impl From<Refusal> for NotHere {
    fn from(Refusal(problem): Refusal) -> Self {
        NotHere::Refused(problem)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        if let Some(milliseconds) = self.0.retry_after_ms {
            response.insert_header((RETRY_AFTER, milliseconds.div_ceil(1000).to_string()));
        }
        if self.0.code == ProblemCode::Unauthorized {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        response.body(serde_json::to_vec(&self.0).unwrap_or_default())
    }
}

/// Sends the caller on to the leader, or tells why nobody can answer.
pub fn elsewhere(not_here: NotHere, request: &HttpRequest) -> Result<HttpResponse, Refusal> {
    match not_here {
        NotHere::Refused(problem) => Err(problem.into()),
        NotHere::Leader { node, base } => {
            let there = format!("{base}{}", request.uri());
            let detail = format!("node {node} leads: ask {there}");
            let problem = Problem { leader: Some(base), ..Problem::new(ProblemCode::NotLeader, detail) };
            Ok(HttpResponse::TemporaryRedirect()
                .insert_header((LOCATION, there))
                .content_type("application/problem+json")
                .body(serde_json::to_vec(&problem).unwrap_or_default()))
        }
    }
}

/// Answers as JSON, refuses, or sends to the leader.
pub fn answer<T: serde::Serialize>(result: Result<T, NotHere>, request: &HttpRequest) -> Result<HttpResponse, Refusal> {
    match result {
        Ok(answer) => outgoing::json(&answer, request),
        Err(not_here) => elsewhere(not_here, request),
    }
}

/// The body is not the JSON that the route takes.
pub fn bad_json(error: JsonPayloadError, _request: &HttpRequest) -> actix_web::Error {
    let code = match error {
        JsonPayloadError::OverflowKnownLength { .. } | JsonPayloadError::Overflow { .. } => ProblemCode::TooLarge,
        _ => ProblemCode::BadRequest,
    };
    Refusal::new(code, format!("the body is not what this route takes: {error}")).into()
}

/// The query string is not what the route takes.
pub fn bad_query(error: QueryPayloadError, request: &HttpRequest) -> actix_web::Error {
    Refusal::new(ProblemCode::BadRequest, format!("the query of {} is not right: {error}", request.path())).into()
}

/// The body is too large for the route, or broke off.
pub fn bad_body(error: &PayloadError, limit: usize) -> Refusal {
    match error {
        PayloadError::Overflow => {
            let detail = format!("the body has more than the {limit} bytes that this route takes");
            let mut refusal = Refusal::new(ProblemCode::TooLarge, detail);
            refusal.0.have = Some(limit as u64);
            refusal
        }
        other => Refusal::new(ProblemCode::BadRequest, format!("the upload broke off: {other}")),
    }
}

/// The body did not arrive in time.
pub fn too_slow(limit: Duration) -> Refusal {
    let detail = format!("the upload took longer than {} s (http.upload_s)", limit.as_secs_f64());
    Refusal::new(ProblemCode::TooSlow, detail)
}

/// No such route.
pub async fn no_such_route(request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let detail =
        format!("there is no {} {}; GET {} lists the routes", request.method(), request.path(), route::OPENAPI);
    Err(Refusal::new(ProblemCode::NotFound, detail))
}

/// The route is there, but not for this method.
pub async fn no_such_method(request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let detail =
        format!("{} does not take {}; GET {} lists the routes", request.path(), request.method(), route::OPENAPI);
    Err(Refusal::new(ProblemCode::MethodNotAllowed, detail))
}
