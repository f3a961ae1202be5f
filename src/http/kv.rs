//! The key-value store: reads and writes of the ledger by curl and by `client`.

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::Deserialize;
use utoipa::IntoParams;

use super::body::{self, Arrivals, LargeJson};
use super::caller::request_id;
use super::openapi::{OfHashes, OfReads, OfWrites};
use super::outgoing::{self, Outgoing};
use super::refusal::{Refusal, elsewhere};
use super::service::{Found, Limits, Question, Service};
use crate::id::RequestId;
use crate::protocol::kv::{Batch, Item, Listed, OPERATIONS_LIMIT, StateHash, Written, route};
use crate::protocol::ledger::{Answer, Expectation, KeyValue, KvOperation, RefusedWhy, Write};
use crate::protocol::problem::{Problem, ProblemCode};

/// Keys in one list, if the query names no other number.
const LIST_DEFAULT: usize = 100;
/// Keys in one list at most.
const LIST_LIMIT: usize = 1000;
/// Keys and values of one list in bytes, unless a single value has more.
const PAGE_BYTES: usize = 1 << 20;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadQuery {
    /// Answer from this node's own state, which may lag behind.
    #[serde(default)]
    stale: bool,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// How the keys begin; all keys without it.
    #[serde(default)]
    prefix: String,
    /// Keys behind this one.
    after: Option<String>,
    /// How many keys at most; 100 without it.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Answer from this node's own state, which may lag behind.
    #[serde(default)]
    stale: bool,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PutQuery {
    /// Time after which the key is gone, in milliseconds.
    expires_in_ms: Option<u64>,
    /// Only if the key is there (true), or not (false).
    if_present: Option<bool>,
    /// Only if the key was last changed in this revision.
    if_mod_revision: Option<u64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AddQuery {
    /// What is added; negative to subtract.
    add: i64,
    /// The least sum; below it nothing is changed.
    floor: Option<i64>,
}

/// The value of a key
///
/// Linearizable unless `stale` is asked for. A key may have slashes; other characters that a path cannot have come with percent signs.
#[utoipa::path(get, path = route::KEY, operation_id = "kv_get", tag = "kv",
    params(("key" = String, Path, description = "The key, UTF-8")),
    responses(
        (status = 200, description = "The value's bytes", body = [u8], content_type = "application/octet-stream", headers(
            ("x-commit" = u64, description = "Entries of the log that the answer comes from"),
            ("x-revision" = u64, description = "The ledger's revision"),
            ("x-create-revision" = u64, description = "Revision in which the key was made"),
            ("x-mod-revision" = u64, description = "Revision of its last change"),
            ("x-version" = u64, description = "Changes since it was made"),
            ("x-expires-unix-ms" = Option<u64>, description = "When it is gone, in milliseconds since 1970, if ever"),
        )),
        OfReads,
    ))]
pub async fn get(
    service: web::Data<Service>,
    arrivals: web::Data<Arrivals>,
    request: HttpRequest,
    query: web::Query<ReadQuery>,
) -> Result<HttpResponse, Refusal> {
    let key = key_of(&request, &service.limits())?;
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
    let mut response = HttpResponse::Ok();
    if let Some(expires) = item.expires {
        response.insert_header((route::EXPIRES, expires.0.to_string()));
    }
    Ok(response
        .content_type("application/octet-stream")
        .insert_header((route::COMMIT, found.commit.to_string()))
        .insert_header((route::REVISION, found.revision.to_string()))
        .insert_header((route::CREATE_REVISION, item.create_revision.to_string()))
        .insert_header((route::MOD_REVISION, item.mod_revision.to_string()))
        .insert_header((route::VERSION, item.version.to_string()))
        .body(Outgoing::new(item.value, &arrivals)?))
}

/// Keys and values in order
///
/// A page ends after 1 MiB of them, whatever `limit` says.
#[utoipa::path(get, path = route::KV, operation_id = "kv_list", tag = "kv",
    responses((status = 200, description = "A page; `more` says whether there are others behind it", body = Listed), OfReads))]
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
        Ok(Found { commit, revision, mut items, more }) => {
            let fitting = fitting(&items);
            let more = more || fitting < items.len();
            items.truncate(fitting);
            let items = items.into_iter().map(Item::from).collect();
            outgoing::json(&Listed { commit, revision, items, more }, &request)
        }
        Err(not_here) => elsewhere(not_here, &request),
    }
}

/// How many of the items go into one page: at least one, and no more than [`PAGE_BYTES`].
fn fitting(items: &[KeyValue]) -> usize {
    let mut bytes = 0;
    let fits = |item: &&KeyValue| {
        bytes += item.key.len() + item.value.len();
        bytes <= PAGE_BYTES
    };
    items.iter().take_while(fits).count().max(1).min(items.len())
}

/// Set a key
///
/// The body is the value. Done once for one `idempotency-key`, also if it is sent again to another leader.
#[utoipa::path(put, path = route::KEY, operation_id = "kv_put", tag = "kv",
    params(
        ("key" = String, Path, description = "The key, UTF-8"),
        ("idempotency-key" = Option<RequestId>, Header, description = "The same in every attempt"),
    ),
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 200, description = "On the disks of a majority", body = Written), OfWrites))]
pub async fn put(
    service: web::Data<Service>,
    request: HttpRequest,
    query: web::Query<PutQuery>,
    value: body::Bytes,
) -> Result<HttpResponse, Refusal> {
    let key = key_of(&request, &service.limits())?;
    let PutQuery { expires_in_ms, if_present, if_mod_revision } = query.into_inner();
    let conditions = [
        if_present.map(|present| if present { Expectation::Present } else { Expectation::Absent }),
        if_mod_revision.map(Expectation::ModRevision),
    ];
    let mut operations: Vec<KvOperation> =
        conditions.into_iter().flatten().map(|expect| KvOperation::Require { key: key.clone(), expect }).collect();
    operations.push(KvOperation::Put { key, value: value.0, expires_in_ms });
    write(&service, &request, operations).await
}

/// Remove a key
#[utoipa::path(delete, path = route::KEY, operation_id = "kv_delete", tag = "kv",
    params(
        ("key" = String, Path, description = "The key, UTF-8"),
        ("idempotency-key" = Option<RequestId>, Header, description = "The same in every attempt"),
    ),
    responses((status = 200, description = "Whether it was there", body = Written), OfWrites))]
pub async fn delete(service: web::Data<Service>, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let key = key_of(&request, &service.limits())?;
    write(&service, &request, vec![KvOperation::Delete { key }]).await
}

/// Add to a number
///
/// Numbers are decimal digits; a key that is not there counts as 0.
#[utoipa::path(post, path = route::KEY, operation_id = "kv_add", tag = "kv",
    params(
        ("key" = String, Path, description = "The key, UTF-8"),
        ("idempotency-key" = Option<RequestId>, Header, description = "The same in every attempt"),
    ),
    responses((status = 200, description = "The sum", body = Written), OfWrites))]
pub async fn add(
    service: web::Data<Service>,
    request: HttpRequest,
    query: web::Query<AddQuery>,
) -> Result<HttpResponse, Refusal> {
    let key = key_of(&request, &service.limits())?;
    let AddQuery { add, floor } = query.into_inner();
    write(&service, &request, vec![KvOperation::Add { key, by: add, floor }]).await
}

/// Several operations, all together or not at all
#[utoipa::path(post, path = route::KV, operation_id = "kv_batch", tag = "kv",
    params(("idempotency-key" = Option<RequestId>, Header, description = "The same in every attempt")),
    request_body = Batch,
    responses((status = 200, description = "What came of each operation", body = Written), OfWrites))]
pub async fn batch(
    service: web::Data<Service>,
    request: HttpRequest,
    batch: LargeJson<Batch>,
) -> Result<HttpResponse, Refusal> {
    let operations = batch.0.operations;
    if operations.is_empty() || operations.len() > OPERATIONS_LIMIT {
        let detail = format!("{} operations in one request, 1 to {OPERATIONS_LIMIT} are allowed", operations.len());
        return Err(Refusal::new(ProblemCode::BadRequest, detail));
    }
    let operations = operations.into_iter().map(|operation| operation.into_operation()).collect::<Result<Vec<_>, _>>();
    let operations = operations.map_err(|detail| Refusal::new(ProblemCode::BadRequest, detail))?;
    write(&service, &request, operations).await
}

/// Hash of everything that the node has applied
///
/// Equal on all nodes that have applied the same number of entries.
#[utoipa::path(get, path = route::HASH, operation_id = "cluster_hash", tag = "cluster",
    responses((status = 200, description = "How much, and its BLAKE3-256", body = StateHash), OfHashes))]
pub async fn hash(service: web::Data<Service>) -> Result<HttpResponse, Refusal> {
    let (commit, hash) = service.state_hash().await?;
    let hash = HEXLOWER.encode(&hash);
    Ok(HttpResponse::Ok().json(StateHash { commit, hash }))
}

async fn write(
    service: &web::Data<Service>,
    request: &HttpRequest,
    operations: Vec<KvOperation>,
) -> Result<HttpResponse, Refusal> {
    check(&operations, &service.limits())?;
    let id = request_id(service, request)?;
    let answer = match service.write(Write::kv(id, operations)).await {
        Ok(answer) => answer,
        Err(not_here) => return elsewhere(not_here, request),
    };
    let Answer { commit, revision, .. } = answer;
    match answer.kv() {
        Ok(results) => Ok(HttpResponse::Ok().json(Written { commit, revision, results: results.to_vec() })),
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
fn check(operations: &[KvOperation], limits: &Limits) -> Result<(), Refusal> {
    for operation in operations {
        check_key(operation.key(), limits)?;
        let have = operation.size_bytes() - operation.key().len();
        if have > limits.value_bytes {
            return Err(too_large("the value", have, limits.value_bytes, " (limits.value_kib)"));
        }
        if let KvOperation::Put { expires_in_ms: Some(0), .. } = operation {
            let detail = "expires_in_ms is 0, and the key would be gone at once: give at least 1, or leave it out";
            return Err(Refusal::new(ProblemCode::BadRequest, detail));
        }
    }
    let all = operations.iter().map(KvOperation::size_bytes).sum();
    if all > limits.request_bytes() {
        return Err(too_large("the request", all, limits.request_bytes(), ""));
    }
    Ok(())
}

fn check_key(key: &[u8], limits: &Limits) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::new(ProblemCode::BadRequest, "the key is empty: name one, as in /api/v1/kv/color"));
    }
    if key.len() > limits.key_bytes {
        return Err(too_large("the key", key.len(), limits.key_bytes, " (limits.key_bytes)"));
    }
    Ok(())
}

fn too_large(what: &str, have: usize, limit: usize, which: &str) -> Refusal {
    let detail = format!("{what} has {have} bytes, at most {limit} are allowed{which}");
    let mut refusal = Refusal::new(ProblemCode::TooLarge, detail);
    (refusal.0.need, refusal.0.have) = (Some(have as u64), Some(limit as u64));
    refusal
}

/// The key as it stands in the path, behind the route.
fn key_of(request: &HttpRequest, limits: &Limits) -> Result<Bytes, Refusal> {
    let path = request.uri().path();
    let key = route::key_of(path).map_err(|_| {
        let detail = format!("the key of {path} is not UTF-8 when its percent signs are decoded");
        Refusal::new(ProblemCode::BadRequest, detail)
    })?;
    check_key(key.as_bytes(), limits)?;
    Ok(Bytes::copy_from_slice(key.as_bytes()))
}
