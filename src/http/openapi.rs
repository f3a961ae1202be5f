//! The description of all routes (OpenAPI 3.1), generated from the handlers and their types.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use actix_web::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Header, OpenApi as Description, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi};

use super::{images, kv, members, own, sharing, users, watch};
use crate::protocol::job::route;
use crate::protocol::kv::Changed;
use crate::protocol::problem::{Problem, ProblemCode};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Image Cloud",
        description = "A cluster that locks images to the people you name, with a replicated key-value store. Every node answers; what \
                       only the leader can do is redirected to it (307). Refusals are problems (RFC 9457) with a `code` that programs may \
                       rely on, and `Retry-After` where another attempt is worth while."
    ),
    paths(
        kv::list, kv::batch, kv::get, kv::put, kv::delete, kv::add, kv::hash, watch::watch,
        images::seal, images::label, own::announcements,
        users::identity, users::list, users::register, users::rotate, users::invite, users::expel,
        sharing::rights, sharing::look, sharing::images, sharing::header,
        members::members, members::change,
        own::elections, own::status, own::events, own::faults, own::set_faults, own::fail,
        document, own::livez, own::readyz,
    ),
    components(schemas(Problem, Changed)),
    security((), ("admin_token" = [])),
    tags(
        (name = "kv", description = "The key-value store"),
        (name = "images", description = "Sealing and labelling"),
        (name = "users", description = "Users and their keys"),
        (name = "cluster", description = "The cluster as the log knows it"),
        (name = "node", description = "One node's own affairs"),
        (name = "health", description = "For whoever restarts and routes"),
    ),
    modifiers(&AdminToken),
)]
struct Document;

struct AdminToken;

impl Modify for AdminToken {
    fn modify(&self, description: &mut Description) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "The admin token of the cluster. Calls that administer need it everywhere; off loopback every call does, but for those \
             that say that they need nothing.",
        ));
        let signature = ApiKey::Header(ApiKeyValue::with_description(
            "authorization",
            "`Image-Cloud user=…,key=…,time=…,body=…,signature=…`: an Ed25519 signature over cluster id, user id, key id, method, path with \
             query, BLAKE3-256 of the body, time and request id; ARCHITECTURE.md has the exact text.",
        ));
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("signature", SecurityScheme::ApiKey(signature));
        components.add_security_scheme("admin_token", SecurityScheme::Http(scheme.build()));
    }
}

/// The document, as pretty JSON.
pub fn openapi_json() -> String {
    Document::openapi().to_pretty_json().expect("a document of strings and numbers can be written as JSON")
}

struct Written {
    json: String,
    tag: String,
}

static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let json = openapi_json();
    let tag = format!("\"{}\"", &blake3::hash(json.as_bytes()).to_hex()[..32]);
    Written { json, tag }
});

/// This document
#[utoipa::path(get, path = route::OPENAPI, operation_id = "openapi", tag = "node", security(()),
    responses(
        (status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json", headers(
            ("etag" = String, description = "Changes with the document"),
            ("cache-control" = String, description = "It may be kept for an hour"),
        )),
        (status = 304, description = "It is the one that `if-none-match` names"),
        Always,
    ))]
pub async fn document(request: HttpRequest) -> HttpResponse {
    let Written { json, tag } = &*WRITTEN;
    let known = request.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag));
    let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((ETAG, tag.as_str())).insert_header((CACHE_CONTROL, "public, max-age=3600"));
    if is_known { response.finish() } else { response.content_type("application/json").body(json.as_str()) }
}

/// Refusals that any call may get: its `Host`, its `Origin` or its token is wrong, or the node fails meanwhile.
const OF_ALL: [ProblemCode; 4] =
    [ProblemCode::Unauthorized, ProblemCode::Forbidden, ProblemCode::Dropped, ProblemCode::Internal];

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident [$($code:ident),*];)+) => {$(
        $(#[$doc])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                described(&[$(ProblemCode::$code),*])
            }
        }
    )+};
}

refusals! {
    /// What any call may get.
    Always [];
    /// What a call with a query may get.
    OfQueries [BadRequest];
    /// What a call with a JSON body may get.
    OfCommands [BadRequest, TooLarge, TooSlow, Overloaded];
    /// What a read of the store may get.
    OfReads [BadRequest, NotLeader, NotFound, TooLarge, NoLeader, NoQuorum, Overloaded, OutcomeUnknown];
    /// What a write may get.
    OfWrites [BadRequest, NotLeader, TooLarge, TooSlow, Conflict, NoLeader, NoQuorum, Overloaded, StorageFull, OutcomeUnknown];
    /// What a question about the cluster's keys may get.
    OfIdentity [NoClusterId];
    /// What a signed question may get.
    OfSignedReads [BadRequest, SignatureRefused, Denied, WrongCluster, BadImage, NotLeader, TooLarge, TooSlow, NoLeader, NoQuorum,
        Overloaded, OutcomeUnknown, NoClusterId];
    /// What a signed write may get.
    OfSignedWrites [BadRequest, SignatureRefused, Denied, WrongCluster, BadImage, NotFound, NotLeader, TooLarge, TooSlow, Conflict,
        NoLeader, NoQuorum, Overloaded, StorageFull, OutcomeUnknown, NoClusterId];
    /// What a change of members may get.
    OfChanges [BadRequest, NotLeader, NotFound, TooLarge, TooSlow, Conflict, NoLeader, NoQuorum, Overloaded, OutcomeUnknown];
    /// What a watcher may get.
    OfWatches [BadRequest, Forgotten, Overloaded];
    /// What an image job may get.
    OfJobs [SignatureRefused, NotFound, BadRequest, TooLarge, TooSlow, BadImage, CarrierTooSmall, Busy, NotActive, NoClusterId];
    /// What the question for the hash of the state may get.
    OfHashes [Overloaded];
    /// What the question for readiness may get.
    Unready [NotActive];
}

/// One response for each status, which says the codes that come with it.
fn described(codes: &[ProblemCode]) -> BTreeMap<String, RefOr<Response>> {
    let mut names: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for code in codes.iter().chain(&OF_ALL) {
        names.entry(code.status()).or_default().push(format!("`{}`", code.name()));
    }
    names
        .into_iter()
        .map(|(status, names)| (status.to_string(), RefOr::T(refused(status, &names.join(", ")))))
        .collect()
}

fn refused(status: u16, codes: &str) -> Response {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new().description(codes).content("application/problem+json", problem);
    let header = |words: &str| {
        let mut header = Header::default();
        header.description = Some(words.to_owned());
        header
    };
    match status {
        307 => response.header("location", header("The same call at the leader")),
        401 => response.header("www-authenticate", header("`Bearer`")),
        503 => response.header("retry-after", header("Seconds to wait, where another attempt is worth while")),
        _ => response,
    }
    .build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::access::PUBLIC;
    use super::super::routes::{self, Needs};
    use super::*;

    fn document() -> Value {
        serde_json::from_str(&openapi_json()).unwrap()
    }

    /// Each operation as path, method and what its `security` says.
    fn operations(document: &Value) -> BTreeSet<(String, String, Option<String>)> {
        let paths = document["paths"].as_object().unwrap();
        let of_path = |(path, item): (&String, &Value)| {
            let methods = item.as_object().unwrap().iter();
            let of = |(method, operation): (&String, &Value)| {
                (path.clone(), method.clone(), operation.get("security").map(Value::to_string))
            };
            methods.map(of).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of_path).collect()
    }

    /// The promise: what is served is what is documented, with the token asked for where the document says.
    #[test]
    fn each_route_stands_in_the_document_and_each_operation_is_served() {
        let served = routes::all().into_iter().map(|route| {
            let method = serde_json::to_value(&route.method).unwrap().as_str().unwrap().to_owned();
            let security = match route.needs {
                Needs::AdminToken => Some("[{\"admin_token\":[]}]".to_owned()),
                Needs::Signature => Some("[{\"signature\":[]}]".to_owned()),
                Needs::Nothing => PUBLIC.contains(&route.path.as_str()).then(|| "[{}]".to_owned()),
            };
            (route.path, method, security)
        });
        assert_eq!(served.collect::<BTreeSet<_>>(), operations(&document()));
    }

    /// The promise: people and programs can read it: a version, a summary and an id of its own for each operation.
    #[test]
    fn each_operation_is_described() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut ids = BTreeSet::new();
        for (path, method, _) in operations(&document) {
            let operation = &document["paths"][&path][&method];
            assert!(operation["summary"].as_str().is_some_and(|words| !words.is_empty()), "{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert_ne!(response["description"], "", "{method} {path} {status}");
            }
        }
    }

    /// Every reference in the document leads somewhere, so generators of clients can read it.
    #[test]
    fn no_reference_leads_nowhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    fields.values().for_each(|field| references(field, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{}", found.len());
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}
