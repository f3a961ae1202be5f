//! Every route, once: where it is, who may call it, what answers. Place and method are those that the handler's description
//! names, so what is served and what is documented cannot part.

use actix_web::http::Method;
use actix_web::middleware::from_fn;
use actix_web::{FromRequest, Handler, Responder, Route, web};
use utoipa::openapi::HttpMethod;

use super::{access, images, kv, members, openapi, own, refusal, sharing, users, watch};

/// One method of one path.
pub struct Served {
    /// As the document writes it, with `{name}` where a part varies.
    pub path: String,
    /// The method.
    pub method: HttpMethod,
    /// What whoever calls it must show, wherever the node listens.
    pub needs: Needs,
    route: Route,
}

/// What a caller must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing, on loopback; elsewhere the admin token, unless the route is public.
    Nothing,
    /// The admin token.
    AdminToken,
    /// A user's signature, which the route itself checks; then no token is needed anywhere.
    Signature,
}

/// All routes; those of one path stand together.
pub fn all() -> Vec<Served> {
    vec![
        on::<kv::__path_get, _, _>(kv::get),
        on::<kv::__path_put, _, _>(kv::put),
        on::<kv::__path_delete, _, _>(kv::delete),
        on::<kv::__path_add, _, _>(kv::add),
        on::<kv::__path_list, _, _>(kv::list),
        on::<kv::__path_batch, _, _>(kv::batch),
        on::<watch::__path_watch, _, _>(watch::watch),
        on::<own::__path_announcements, _, _>(own::announcements),
        on::<users::__path_identity, _, _>(users::identity),
        on::<users::__path_list, _, _>(users::list),
        signed(on::<users::__path_register, _, _>(users::register)),
        signed(on::<users::__path_rotate, _, _>(users::rotate)),
        administrative(on::<users::__path_invite, _, _>(users::invite)),
        administrative(on::<users::__path_expel, _, _>(users::expel)),
        signed(on::<sharing::__path_images, _, _>(sharing::images)),
        signed(on::<sharing::__path_rights, _, _>(sharing::rights)),
        signed(on::<sharing::__path_look, _, _>(sharing::look)),
        signed(on::<sharing::__path_header, _, _>(sharing::header)),
        on::<images::__path_seal, _, _>(images::seal),
        on::<images::__path_label, _, _>(images::label),
        on::<kv::__path_hash, _, _>(kv::hash),
        on::<own::__path_elections, _, _>(own::elections),
        on::<members::__path_members, _, _>(members::members),
        administrative(on::<members::__path_change, _, _>(members::change)),
        on::<own::__path_status, _, _>(own::status),
        on::<own::__path_events, _, _>(own::events),
        on::<own::__path_faults, _, _>(own::faults),
        administrative(on::<own::__path_set_faults, _, _>(own::set_faults)),
        administrative(on::<own::__path_fail, _, _>(own::fail)),
        on::<openapi::__path_document, _, _>(openapi::document),
        on::<own::__path_livez, _, _>(own::livez),
        on::<own::__path_readyz, _, _>(own::readyz),
    ]
}

/// A handler at the place that its description `D` names.
fn on<D, H, A>(handler: H) -> Served
where
    D: utoipa::Path,
    H: Handler<A>,
    A: FromRequest + 'static,
    H::Output: Responder + 'static,
{
    let method = D::methods().into_iter().next().unwrap_or(HttpMethod::Get);
    Served { path: D::path(), method, needs: Needs::Nothing, route: Route::new().to(handler) }
}

fn administrative(served: Served) -> Served {
    Served { needs: Needs::AdminToken, ..served }
}

fn signed(served: Served) -> Served {
    Served { needs: Needs::Signature, ..served }
}

impl Served {
    fn into_route(self) -> Route {
        let route = self.route.method(in_actix(&self.method));
        match self.needs {
            Needs::AdminToken => route.wrap(from_fn(access::administrators_only)),
            Needs::Nothing | Needs::Signature => route,
        }
    }
}

/// Adds all routes; another method of one of the paths is told that it is wrong there.
pub fn register(config: &mut web::ServiceConfig) {
    let mut routes = all().into_iter().peekable();
    while let Some(first) = routes.next() {
        let path = first.path.clone();
        // A key may have slashes.
        let mut resource = web::resource(path.replace("{key}", "{key:.*}")).route(first.into_route());
        while let Some(next) = routes.next_if(|next| next.path == path) {
            resource = resource.route(next.into_route());
        }
        config.service(resource.default_service(web::to(refusal::no_such_method)));
    }
}

fn in_actix(method: &HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Options => Method::OPTIONS,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Trace => Method::TRACE,
    }
}
