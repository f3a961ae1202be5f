//! The node's own affairs: announcements, status, events, the failure command, health.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::Deserialize;

use super::refusal::Refusal;
use super::service::Service;
use crate::protocol::fault::LinkFault;
use crate::protocol::job::Announcement;
use crate::protocol::problem::ProblemCode;
use crate::protocol::sync::FailCommand;

pub async fn announcements(
    service: web::Data<Service>,
    announcement: web::Json<Announcement>,
) -> Result<HttpResponse, Refusal> {
    let announcement = announcement.into_inner();
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

pub async fn status(service: web::Data<Service>) -> Result<HttpResponse, Refusal> {
    Ok(HttpResponse::Ok().json(service.status().await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    #[serde(default)]
    since: u64,
}

pub async fn events(service: web::Data<Service>, query: web::Query<EventsQuery>) -> HttpResponse {
    HttpResponse::Ok().json(service.events(query.since))
}

pub async fn elections(service: web::Data<Service>) -> HttpResponse {
    HttpResponse::Ok().json(service.elections())
}

pub async fn fail(service: web::Data<Service>, command: web::Json<FailCommand>) -> Result<HttpResponse, Refusal> {
    let milliseconds = command.duration_ms;
    let longest = FailCommand::LONGEST.as_millis() as u64;
    if milliseconds == 0 || milliseconds > longest {
        let detail = format!("duration_ms is {milliseconds}; a failure lasts from 1 to {longest} ms");
        return Err(Refusal::new(ProblemCode::BadRequest, detail));
    }
    service.fail(Duration::from_millis(milliseconds)).await?;
    Ok(HttpResponse::Accepted().json(command.into_inner()))
}

pub async fn faults(service: web::Data<Service>) -> HttpResponse {
    HttpResponse::Ok().json(service.faults())
}

pub async fn set_faults(
    service: web::Data<Service>,
    faults: web::Json<Vec<LinkFault>>,
) -> Result<HttpResponse, Refusal> {
    service.set_faults(&faults)?;
    Ok(HttpResponse::Ok().json(service.faults()))
}

pub async fn livez() -> &'static str {
    "live\n"
}

pub async fn readyz(service: web::Data<Service>) -> Result<&'static str, Refusal> {
    match service.not_ready() {
        None => Ok("ready\n"),
        Some(problem) => Err(problem.into()),
    }
}
