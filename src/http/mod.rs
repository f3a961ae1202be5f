//! Inbound HTTP for people and programs: images, announcements, the node's own affairs.
//!
//! The node stands behind one trait, [`NodeService`], which `node` implements.

mod guard;
mod images;
mod kv;
mod own;
mod refusal;
mod service;
mod watch;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, Resource, Route, web};

pub use service::{Done, Found, JobOrder, Limits, NodeService, NotHere, Question, Reservation, Sending, Service, Work};

use crate::protocol::job::route;
use crate::protocol::kv::{REQUEST_LIMIT_BYTES, route as kv_route};

/// Most connections at any time; further ones wait in the listener's backlog.
const CONNECTION_LIMIT: usize = 1024;

/// A batch as JSON, in bytes: base64 and the names of its fields take more than what they carry.
const BATCH_LIMIT_BYTES: usize = 2 * REQUEST_LIMIT_BYTES;

/// How long finished answers may take to leave after the server was told to stop, in seconds.
const SHUTDOWN_SECONDS: u64 = 2;

/// Serves HTTP on a bound listener until the returned server is stopped.
///
/// # Errors
/// The system refused the listener.
pub fn serve(listener: TcpListener, service: Service, workers: usize) -> std::io::Result<Server> {
    let shared = web::Data::from(Arc::new(service.clone()));
    let places = web::Data::new(watch::Places::default());
    let app = move || {
        App::new()
            .app_data(shared.clone())
            .app_data(places.clone())
            .app_data(web::PayloadConfig::new(REQUEST_LIMIT_BYTES))
            .app_data(web::JsonConfig::default().limit(256 * 1024).error_handler(refusal::bad_json))
            .app_data(web::QueryConfig::default().error_handler(refusal::bad_query))
            .wrap(from_fn(guard::only_known_hosts))
            .wrap(from_fn(guard::silent_while_failed))
            .service(at(route::ANNOUNCEMENTS, web::post().to(own::announcements)))
            .service(at(route::SEAL, web::post().to(images::seal)))
            .service(at(route::LABEL, web::post().to(images::label)))
            .service(
                web::resource(kv_route::KV)
                    .app_data(web::JsonConfig::default().limit(BATCH_LIMIT_BYTES).error_handler(refusal::bad_json))
                    .route(web::get().to(kv::list))
                    .route(web::post().to(kv::batch))
                    .default_service(web::to(refusal::no_such_method)),
            )
            .service(
                web::resource(format!("{}/{{key:.*}}", kv_route::KV))
                    .route(web::get().to(kv::get))
                    .route(web::put().to(kv::put))
                    .route(web::delete().to(kv::delete))
                    .route(web::post().to(kv::add))
                    .default_service(web::to(refusal::no_such_method)),
            )
            .service(at(kv_route::WATCH, web::get().to(watch::watch)))
            .service(at(kv_route::HASH, web::get().to(kv::hash)))
            .service(at(route::STATUS, web::get().to(own::status)))
            .service(at(route::EVENTS, web::get().to(own::events)))
            .service(at(route::ELECTIONS, web::get().to(own::elections)))
            .service(at(route::FAIL, web::post().to(own::fail)))
            .service(at(route::FAULTS, web::get().to(own::faults)).route(web::post().to(own::set_faults)))
            .service(at(route::LIVEZ, web::get().to(own::livez)))
            .service(at(route::READYZ, web::get().to(own::readyz)))
            .default_service(web::to(refusal::no_such_route))
    };
    let server = HttpServer::new(app)
        .workers(workers)
        .max_connections(CONNECTION_LIMIT)
        .client_request_timeout(Duration::from_secs(5))
        .keep_alive(Duration::from_secs(75))
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .disable_signals()
        .listen(listener)?
        .run();
    Ok(server)
}

/// One route; another method is told that it is wrong here.
fn at(path: &str, route: Route) -> Resource {
    web::resource(path).route(route).default_service(web::to(refusal::no_such_method))
}
