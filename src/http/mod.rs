//! Inbound HTTP for people and programs: images, users and rights, announcements, the key-value store and its watch, members, the node's own affairs.
//!
//! The node stands behind two traits, [`NodeService`] and [`RightsService`], which `node` implements.

mod access;
mod body;
mod caller;
mod guard;
mod images;
mod kv;
mod members;
mod openapi;
mod outgoing;
mod own;
mod refusal;
mod rights_service;
mod routes;
mod service;
mod sharing;
mod tls;
mod users;
mod watch;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};

pub use access::Access;
pub use openapi::openapi_json;
pub use rights_service::{Authenticated, Called, Claim, RightsService, SignedHeader, WhichUsers};
pub use service::{Done, Found, JobOrder, Limits, NodeService, NotHere, Question, Reservation, Sending, Service, Work};

pub use tls::server_config;

use crate::scheduling;

/// How long the head of a request may take to arrive, and a new connection may stay silent.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// How long a connection may stay idle between two requests.
const IDLE_TIME: Duration = Duration::from_secs(75);

/// How long finished answers may take to leave after the server was told to stop, in seconds.
const SHUTDOWN_SECONDS: u64 = 2;

/// Who may come in, and how.
#[derive(Clone, Debug)]
pub struct Door {
    /// Who may call what.
    pub access: Access,
    /// The server's side of TLS; none for HTTP in clear.
    pub tls: Option<rustls::ServerConfig>,
    /// Connections at any time; further ones wait in the listener's backlog.
    pub connections: usize,
}

/// Serves HTTP on a bound listener until the returned server is stopped.
///
/// # Errors
/// The system refused the listener.
pub fn serve(listener: TcpListener, door: Door, service: Service, workers: usize) -> std::io::Result<Server> {
    let shared = web::Data::from(Arc::new(service.clone()));
    let places = web::Data::new(watch::Places::default());
    let arrivals = web::Data::new(body::Arrivals::default());
    let access = web::Data::new(door.access);
    let limits = service.limits();
    let app = move || {
        // This runs once on each thread of the server.
        scheduling::bulk();
        App::new()
            .app_data(shared.clone())
            .app_data(access.clone())
            .app_data(places.clone())
            .app_data(arrivals.clone())
            .app_data(web::PayloadConfig::new(limits.request_bytes()))
            .app_data(web::JsonConfig::default().limit(limits.json_bytes()).error_handler(refusal::bad_json))
            .app_data(web::QueryConfig::default().error_handler(refusal::bad_query))
            .wrap(from_fn(guard::at_the_door))
            .configure(routes::register)
            .default_service(web::to(refusal::no_such_route))
    };
    let server = HttpServer::new(app)
        .workers(workers)
        .max_connections(door.connections.div_ceil(workers))
        .client_request_timeout(HEAD_TIME)
        .keep_alive(IDLE_TIME)
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .disable_signals();
    let server = match door.tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    Ok(server.run())
}
