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
mod server;
mod service;
mod shared_thread;
mod sharing;
mod tls;
mod users;
mod watch;

use std::fmt::Debug;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_http::h1::{ExpectHandler, UpgradeHandler};
use actix_http::{HttpServiceBuilder, Request, Response};
use actix_service::{ServiceFactory, ServiceFactoryExt, boxed, map_config};
use actix_web::body::BoxBody;
use actix_web::dev::AppConfig;
use actix_web::middleware::from_fn;
use actix_web::{App, web};

pub use access::Access;
pub use openapi::openapi_json;
pub use rights_service::{Authenticated, Called, Claim, RightsService, SignedHeader, WhichUsers};
pub use server::Server;
pub use service::{Done, Found, JobOrder, Limits, NodeService, NotHere, Question, Reservation, Sending, Service, Work};

pub use tls::server_config;

use server::Stopping;
use shared_thread::SharedThread;

/// How long a new connection may stay silent, and the head of its first request may take to arrive. The library has no such limit for
/// those of the next ones.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// How long a connection may stay idle between two requests.
const IDLE_TIME: Duration = Duration::from_secs(75);

/// How long the other side may take to close a connection that is over.
const DISCONNECT_TIME: Duration = Duration::from_secs(1);

/// Who may come in, and how.
#[derive(Clone, Debug)]
pub struct Door {
    /// Who may call what.
    pub access: Access,
    /// The server's side of TLS; none for HTTP in clear.
    pub tls: Option<rustls::ServerConfig>,
    /// Connections at any time; further ones wait in the listener's backlog.
    pub connections: u32,
}

/// Serves HTTP on a bound listener, on so many threads and a little on the calling one, which has an actor system, until the returned server
/// is stopped.
///
/// # Errors
/// The system refused the listener.
pub fn serve(listener: TcpListener, door: Door, service: Service, threads: usize) -> std::io::Result<Server> {
    let shared = web::Data::from(Arc::new(service.clone()));
    let places = web::Data::new(watch::Places::default());
    let arrivals = web::Data::new(body::Arrivals::default());
    let Door { access, tls, connections } = door;
    let access = web::Data::new(access);
    let limits = service.limits();
    let app = move |is_near| {
        let app = App::new()
            .app_data(web::Data::new(SharedThread::new(is_near)))
            .app_data(shared.clone())
            .app_data(access.clone())
            .app_data(places.clone())
            .app_data(arrivals.clone())
            .app_data(web::PayloadConfig::new(limits.request_bytes()))
            .app_data(web::JsonConfig::default().limit(limits.json_bytes()).error_handler(refusal::bad_json))
            .app_data(web::QueryConfig::default().error_handler(refusal::bad_query))
            .wrap(from_fn(guard::at_the_door))
            .configure(routes::register)
            .default_service(web::to(refusal::no_such_route));
        map_config(app, |()| AppConfig::default())
    };
    let readable = tls.is_none();
    let served = move |is_near, stopping| {
        let app = app(is_near);
        let factory = match tls.clone() {
            None => boxed::factory(settings(stopping).h1(app).tcp().map_err(drop)),
            Some(tls) => boxed::factory(settings(stopping).h1(app).rustls_0_23(tls).map_err(drop)),
        };
        async move { factory.new_service(()).await }
    };
    Server::start(listener, connections, readable, threads, served)
}

/// What a connection may take, and how it ends.
fn settings<T, S>(stopping: Stopping) -> HttpServiceBuilder<T, S, ExpectHandler, UpgradeHandler>
where
    S: ServiceFactory<Request, Config = ()>,
    S::Error: Into<Response<BoxBody>> + 'static,
    S::InitError: Debug,
    <S::Service as actix_service::Service<Request>>::Future: 'static,
{
    let stopped = move || {
        let mut stopping = stopping.clone();
        async move {
            // An error means that nobody can tell it to stop any more.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    };
    HttpServiceBuilder::default()
        .graceful_shutdown_signal(stopped)
        .keep_alive(IDLE_TIME)
        .client_request_timeout(HEAD_TIME)
        .client_disconnect_timeout(DISCONNECT_TIME)
}
