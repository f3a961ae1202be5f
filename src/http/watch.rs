//! Watching keys: server-sent events, one for each change, in order of their revisions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures::{Stream, stream};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::IntoParams;

use super::openapi::OfWatches;
use super::refusal::Refusal;
use super::service::Service;
use crate::protocol::kv::{Changed, Item, route};
use crate::protocol::problem::{Problem, ProblemCode};

/// Watchers of one node at any time.
const WATCHERS: usize = 256;

/// Changes in one piece.
const PIECE: usize = 256;

/// A sign of life when nothing changes, so that both sides notice a dead connection.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// How long a watcher that comes when there is no place is asked to wait, in milliseconds.
const FULL_PAUSE_MS: u64 = 1000;

/// The places of the watchers.
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Places(Arc::new(Semaphore::new(WATCHERS)))
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WatchQuery {
    /// How the keys begin; all keys without it.
    #[serde(default)]
    prefix: String,
    /// Changes after this revision; without it, those that come from now on.
    after: Option<u64>,
}

struct Watcher {
    service: Service,
    prefix: Bytes,
    seen: u64,
    /// A failure ends the stream: what a Failed node would have said is lost, and the watcher asks again.
    failures: u64,
    _place: OwnedSemaphorePermit,
}

/// Changes as they happen
///
/// Server-sent events: `id` is the revision, `data` a `Changed` as JSON. A line that begins with a colon comes when nothing changes.
#[utoipa::path(get, path = route::WATCH, operation_id = "kv_watch", tag = "kv",
    responses((status = 200, description = "A stream without end", body = String, content_type = "text/event-stream"), OfWatches))]
pub async fn watch(
    service: web::Data<Service>,
    places: web::Data<Places>,
    query: web::Query<WatchQuery>,
) -> Result<HttpResponse, Refusal> {
    let WatchQuery { prefix, after } = query.into_inner();
    let seen = after.unwrap_or_else(|| service.revision());
    service.changes_after(seen, prefix.as_bytes(), 1)?;
    let Ok(place) = places.0.clone().try_acquire_owned() else {
        let detail = format!("{WATCHERS} watchers are here already: try another node, or later");
        let problem = Problem::new(ProblemCode::Overloaded, detail);
        return Err(Problem { retry_after_ms: Some(FULL_PAUSE_MS), ..problem }.into());
    };
    let service = service.get_ref().clone();
    let failures = service.failures();
    let watcher = Watcher { service, prefix: prefix.into(), seen, failures, _place: place };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("cache-control", "no-store"))
        .streaming(events(watcher)))
}

fn events(watcher: Watcher) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let begun = stream::iter([Ok(Bytes::from_static(b": watching\n\n"))]);
    let rest = stream::unfold(watcher, |mut watcher| async {
        let piece = watcher.next().await?;
        Some((Ok(piece), watcher))
    });
    futures::StreamExt::chain(begun, rest)
}

impl Watcher {
    /// The next changes, or a sign of life; none when the stream must end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.service.failures() != self.failures {
                return None;
            }
            // Who is so slow that changes were forgotten must begin again; its next question says so.
            let (changes, seen) = self.service.changes_after(self.seen, &self.prefix, PIECE).ok()?;
            self.seen = seen;
            if !changes.is_empty() {
                let mut piece = String::new();
                for change in changes {
                    let changed = Changed {
                        revision: change.revision,
                        key: String::from_utf8_lossy(&change.key).into_owned(),
                        item: change.now.map(Item::from),
                    };
                    let json = serde_json::to_string(&changed).ok()?;
                    piece += &format!("id: {}\ndata: {json}\n\n", changed.revision);
                }
                return Some(Bytes::from(piece));
            }
            if tokio::time::timeout(SIGN_OF_LIFE, self.service.revision_after(seen)).await.is_err() {
                return Some(Bytes::from_static(b": still here\n\n"));
            }
        }
    }
}
