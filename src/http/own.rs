//! The node's own affairs: announcements, status, events, the failure command, health.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

use super::body::Json;
use super::openapi::{Always, OfCommands, OfQueries, Unready};
use super::refusal::Refusal;
use super::service::Service;
use crate::protocol::election::ElectionResult;
use crate::protocol::event::Event;
use crate::protocol::fault::LinkFault;
use crate::protocol::job::{Announcement, EncryptionResponse, route};
use crate::protocol::problem::ProblemCode;
use crate::protocol::status::NodeStatus;
use crate::protocol::sync::FailCommand;

/// Announce image jobs
///
/// Each node answers with its load; the coordinator also with the node that shall do the job. At most 256 in one announcement.
#[utoipa::path(post, path = route::ANNOUNCEMENTS, operation_id = "announce", tag = "images",
    responses((status = 200, description = "An answer for each, in the same order", body = [EncryptionResponse]), OfCommands))]
pub async fn announcements(
    service: web::Data<Service>,
    announcement: Json<Announcement>,
) -> Result<HttpResponse, Refusal> {
    let announcement = announcement.0;
    if announcement.requests.len() > Announcement::LIMIT {
        let detail = format!(
            "{} requests in one announcement, at most {} are allowed",
            announcement.requests.len(),
            Announcement::LIMIT
        );
        return Err(Refusal::new(ProblemCode::TooLarge, detail));
    }
    Ok(HttpResponse::Ok().json(service.announce(announcement).await?))
}

/// The node by its own word
#[utoipa::path(get, path = route::STATUS, operation_id = "status", tag = "node",
    responses((status = 200, description = "State, load, log, peers", body = NodeStatus), Always))]
pub async fn status(service: web::Data<Service>) -> Result<HttpResponse, Refusal> {
    Ok(HttpResponse::Ok().json(service.status().await?))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Events from this number on.
    #[serde(default)]
    since: u64,
}

/// What happened at the node
#[utoipa::path(get, path = route::EVENTS, operation_id = "events", tag = "node",
    responses((status = 200, description = "Its last events, at most 1,024, the oldest first", body = [Event]), OfQueries))]
pub async fn events(service: web::Data<Service>, query: web::Query<EventsQuery>) -> HttpResponse {
    HttpResponse::Ok().json(service.events(query.since))
}

/// The elections that stand in the log
#[utoipa::path(get, path = route::ELECTIONS, operation_id = "cluster_elections", tag = "cluster",
    responses((status = 200, description = "At most 64, the oldest first", body = [ElectionResult]), Always))]
pub async fn elections(service: web::Data<Service>) -> HttpResponse {
    HttpResponse::Ok().json(service.elections())
}

/// Make the node fail
///
/// It ignores all communication for that long, and recovers then.
#[utoipa::path(post, path = route::FAIL, operation_id = "node_fail", tag = "node", security(("admin_token" = [])),
    responses((status = 202, description = "It fails now", body = FailCommand), OfCommands))]
pub async fn fail(service: web::Data<Service>, command: Json<FailCommand>) -> Result<HttpResponse, Refusal> {
    let command = command.0;
    let milliseconds = command.duration_ms;
    let longest = FailCommand::LONGEST.as_millis() as u64;
    if milliseconds == 0 || milliseconds > longest {
        let detail = format!("duration_ms is {milliseconds}; a failure lasts from 1 to {longest} ms");
        return Err(Refusal::new(ProblemCode::BadRequest, detail));
    }
    service.fail(Duration::from_millis(milliseconds)).await?;
    Ok(HttpResponse::Accepted().json(command))
}

/// The simulated faults of the node's links
#[utoipa::path(get, path = route::FAULTS, operation_id = "faults", tag = "node",
    responses((status = 200, description = "All that stand", body = [LinkFault]), Always))]
pub async fn faults(service: web::Data<Service>) -> HttpResponse {
    HttpResponse::Ok().json(service.faults())
}

/// Set the faults of the node's links
///
/// The new list replaces the old one; an empty one heals all links.
#[utoipa::path(post, path = route::FAULTS, operation_id = "set_faults", tag = "node", security(("admin_token" = [])),
    responses((status = 200, description = "All that stand now", body = [LinkFault]), OfCommands))]
pub async fn set_faults(service: web::Data<Service>, faults: Json<Vec<LinkFault>>) -> Result<HttpResponse, Refusal> {
    service.set_faults(&faults.0)?;
    Ok(HttpResponse::Ok().json(service.faults()))
}

/// The process runs
///
/// Never depends on a quorum.
#[utoipa::path(get, path = route::LIVEZ, operation_id = "livez", tag = "health", security(()),
    responses((status = 200, description = "It does", body = String, content_type = "text/plain; charset=utf-8"), Always))]
pub async fn livez() -> &'static str {
    "live\n"
}

/// The node takes jobs
#[utoipa::path(get, path = route::READYZ, operation_id = "readyz", tag = "health", security(()),
    responses((status = 200, description = "It does", body = String, content_type = "text/plain; charset=utf-8"), Unready))]
pub async fn readyz(service: web::Data<Service>) -> Result<&'static str, Refusal> {
    match service.not_ready() {
        None => Ok("ready\n"),
        Some(problem) => Err(problem.into()),
    }
}
