//! The key-value store: reads and writes of the ledger by curl and by `client`.

use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::images::request_id;
use super::refusal::Refusal;
use super::service::{Found, NotHere, Question, Service};
use crate::protocol::kv::{
    Batch, Item, KEY_LIMIT_BYTES, Listed, OPERATIONS_LIMIT, REQUEST_LIMIT_BYTES, StateHash, VALUE_LIMIT_BYTES, Written,
    route,
};
use crate::protocol::ledger::{Answer, Caller, Expectation, KvOperation, RefusedWhy, Write};
use crate::protocol::problem::{Problem, ProblemCode};

/// Keys in one list, if the query names no other number.
const LIST_DEFAULT: usize = 100;
/// Keys in one list at most.
const LIST_LIMIT: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadQuery {
    /// Answer from this node's own state, which may lag behind.
    #[serde(default)]
    stale: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    stale: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutQuery {
    expires_in_ms: Option<u64>,
    if_present: Option<bool>,
    if_mod_revision: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddQuery {
    add: i64,
    floor: Option<i64>,
}

pub async fn get(
    service: web::Data<Service>,
    request: HttpRequest,
    query: web::Query<ReadQuery>,
) -> Result<HttpResponse, Refusal> {
    let key = key_of(&request)?;
    let found = match service.read(Question::Key(key.clone()), query.stale).await {
        Ok(found) => found,
        Err(not_here) => return elsewhere(not_here, &request),
    };
    let Some(item) = found.items.into_iter().next() else {
        let detail = format!("there is no key {:?}", String::from_utf8_lossy(&key));
        let mut refusal = Refusal::new(ProblemCode::NotFound, detail);
        (refusal.0.commit, refusal.0.revision) = (Some(found.commit), Some(found.revision));
        return Err(refusal);
    };
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .insert_header((route::COMMIT, found.commit.to_string()))
        .insert_header((route::REVISION, found.revision.to_string()))
        .insert_header((route::CREATE_REVISION, item.create_revision.to_string()))
        .insert_header((route::MOD_REVISION, item.mod_revision.to_string()))
        .insert_header((route::VERSION, item.version.to_string()))
        .body(item.value))
}

pub async fn list(
    service: web::Data<Service>,
    request: HttpRequest,
    query: web::Query<ListQuery>,
) -> Result<HttpResponse, Refusal> {
    let ListQuery { prefix, after, limit, stale } = query.into_inner();
    let limit = limit.unwrap_or(LIST_DEFAULT);
    if limit == 0 || limit > LIST_LIMIT {
        let detail = format!("limit={limit}: a list has 1 to {LIST_LIMIT} keys; ask on with after=");
        return Err(Refusal::new(ProblemCode::BadRequest, detail));
    }
    let question = Question::Prefix { prefix: prefix.into(), after: after.map(Bytes::from), limit };
    match service.read(question, stale).await {
        Ok(Found { commit, revision, items, more }) => {
            let items = items.into_iter().map(Item::from).collect();
            Ok(HttpResponse::Ok().json(Listed { commit, revision, items, more }))
        }
        Err(not_here) => elsewhere(not_here, &request),
    }
}

pub async fn put(
    service: web::Data<Service>,
    request: HttpRequest,
    query: web::Query<PutQuery>,
    value: web::Bytes,
) -> Result<HttpResponse, Refusal> {
    let key = key_of(&request)?;
    let PutQuery { expires_in_ms, if_present, if_mod_revision } = query.into_inner();
    let conditions = [
        if_present.map(|present| if present { Expectation::Present } else { Expectation::Absent }),
        if_mod_revision.map(Expectation::ModRevision),
    ];
    let mut operations: Vec<KvOperation> =
        conditions.into_iter().flatten().map(|expect| KvOperation::Require { key: key.clone(), expect }).collect();
    // What arrives is a piece of the connection's buffer, and would keep the whole of it in memory for as long as the value lives.
    let value = Bytes::copy_from_slice(&value);
    operations.push(KvOperation::Put { key, value, expires_in_ms });
    write(&service, &request, operations).await
}

pub async fn delete(service: web::Data<Service>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let key = key_of(&request)?;
    write(&service, &request, vec![KvOperation::Delete { key }]).await
}

pub async fn add(
    service: web::Data<Service>,
    request: HttpRequest,
    query: web::Query<AddQuery>,
) -> Result<HttpResponse, Refusal> {
    let key = key_of(&request)?;
    let AddQuery { add, floor } = query.into_inner();
    write(&service, &request, vec![KvOperation::Add { key, by: add, floor }]).await
}

pub async fn batch(
    service: web::Data<Service>,
    request: HttpRequest,
    batch: web::Json<Batch>,
) -> Result<HttpResponse, Refusal> {
    let operations = batch.into_inner().operations;
    if operations.is_empty() || operations.len() > OPERATIONS_LIMIT {
        let detail = format!("{} operations in one request, 1 to {OPERATIONS_LIMIT} are allowed", operations.len());
        return Err(Refusal::new(ProblemCode::BadRequest, detail));
    }
    let operations = operations.into_iter().map(|operation| operation.into_operation()).collect::<Result<Vec<_>, _>>();
    let operations = operations.map_err(|detail| Refusal::new(ProblemCode::BadRequest, detail))?;
    write(&service, &request, operations).await
}

pub async fn hash(service: web::Data<Service>) -> Result<HttpResponse, Refusal> {
    let (commit, hash) = service.state_hash().await?;
    let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(HttpResponse::Ok().json(StateHash { commit, hash }))
}

async fn write(
    service: &web::Data<Service>,
    request: &HttpRequest,
    operations: Vec<KvOperation>,
) -> Result<HttpResponse, Refusal> {
    check(&operations)?;
    let id = request_id(service, request)?;
    let answer = match service.write(Write { caller: Caller::Anyone, id, operations }).await {
        Ok(answer) => answer,
        Err(not_here) => return elsewhere(not_here, request),
    };
    let Answer { commit, revision, outcome } = answer;
    match outcome {
        Ok(results) => Ok(HttpResponse::Ok().json(Written { commit, revision, results })),
        Err(refused) => {
            let mut problem = match refused.why {
                RefusedWhy::IdReused => Problem::reused_id(id),
                why => Problem::new(ProblemCode::Conflict, why.to_string()),
            };
            (problem.commit, problem.revision) = (Some(commit), Some(revision));
            Err(problem.into())
        }
    }
}

/// Refuses what must not get into the log.
fn check(operations: &[KvOperation]) -> Result<(), Refusal> {
    for operation in operations {
        check_key(operation.key())?;
        let have = operation.size_bytes() - operation.key().len();
        if have > VALUE_LIMIT_BYTES {
            return Err(too_large("the value", have, VALUE_LIMIT_BYTES));
        }
    }
    let all = operations.iter().map(KvOperation::size_bytes).sum();
    if all > REQUEST_LIMIT_BYTES {
        return Err(too_large("the request", all, REQUEST_LIMIT_BYTES));
    }
    Ok(())
}

fn check_key(key: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::new(ProblemCode::BadRequest, "the key is empty: name one, as in /api/v1/kv/color"));
    }
    if key.len() > KEY_LIMIT_BYTES {
        return Err(too_large("the key", key.len(), KEY_LIMIT_BYTES));
    }
    Ok(())
}

fn too_large(what: &str, have: usize, limit: usize) -> Refusal {
    let detail = format!("{what} has {have} bytes, at most {limit} are allowed");
    let mut refusal = Refusal::new(ProblemCode::TooLarge, detail);
    (refusal.0.need, refusal.0.have) = (Some(have as u64), Some(limit as u64));
    refusal
}

/// The key as it stands in the path, behind the route.
fn key_of(request: &HttpRequest) -> Result<Bytes, Refusal> {
    let coded = request.uri().path().strip_prefix(route::KV).unwrap_or_default().trim_start_matches('/');
    let key = percent_decode_str(coded).decode_utf8().map_err(|_| {
        let detail = format!("the key {coded} is not UTF-8 when its percent signs are decoded");
        Refusal::new(ProblemCode::BadRequest, detail)
    })?;
    check_key(key.as_bytes())?;
    Ok(Bytes::copy_from_slice(key.as_bytes()))
}

/// Sends the caller on to the leader, or tells why nobody can answer.
fn elsewhere(not_here: NotHere, request: &HttpRequest) -> Result<HttpResponse, Refusal> {
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
