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
use crate::protocol::ledger::Change;
use crate::protocol::problem::{Problem, ProblemCode};

/// Watchers of one node at any time.
const WATCHERS: usize = 256;

/// Changes in one piece.
const PIECE: usize = 256;

/// A piece ends behind the revision with which it has so many bytes: whoever reads slowly keeps one piece in the connection's buffer.
const PIECE_BYTES: usize = 256 << 10;

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
/// Server-sent events: `data` is a `Changed` as JSON; an `id` is a revision up to which everything has been told, at the beginning, with
/// the last change of each revision, and now and then. A line that begins with a colon comes when nothing changes.
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
    let begun = stream::iter([Ok(Bytes::from(format!("id: {}\n: watching\n\n", watcher.seen)))]);
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
            if !changes.is_empty() {
                let (piece, told) = piece(changes)?;
                self.seen = told.unwrap_or(seen);
                return Some(Bytes::from(piece));
            }
            self.seen = seen;
            if tokio::time::timeout(SIGN_OF_LIFE, self.service.revision_after(seen)).await.is_err() {
                return Some(Bytes::from(format!("id: {seen}\n: still here\n\n")));
            }
        }
    }
}

/// Events of as many whole revisions as a piece holds, at least one; and if there are more, up to which revision these go.
///
/// Only the last change of a revision has its number as `id`: a watcher that lost the connection between two of them asks for both again.
fn piece(changes: Vec<Change>) -> Option<(String, Option<u64>)> {
    let mut piece = String::new();
    let mut changes = changes.into_iter().peekable();
    while let Some(change) = changes.next() {
        let revision = change.revision();
        let key = String::from_utf8_lossy(change.key()).into_owned();
        let item = match change {
            Change::Written(now) => Some(Item::from(now)),
            Change::Gone { .. } => None,
        };
        let changed = Changed { revision, key, item };
        let is_last = changes.peek().is_none_or(|next| next.revision() != revision);
        if is_last {
            piece += &format!("id: {revision}\n");
        }
        piece += &format!("data: {}\n\n", serde_json::to_string(&changed).ok()?);
        if is_last && piece.len() >= PIECE_BYTES && changes.peek().is_some() {
            return Some((piece, Some(revision)));
        }
    }
    Some((piece, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ledger::KeyValue;

    fn change(revision: u64, key: &str, bytes: usize) -> Change {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::from(vec![b'x'; bytes]));
        Change::Written(KeyValue { key, value, create_revision: 1, mod_revision: revision, version: 1, expires: None })
    }

    #[test]
    fn only_the_last_change_of_a_revision_says_that_it_is_complete() {
        let (text, told) = piece(vec![change(7, "a", 1), change(7, "b", 1), change(9, "c", 1)]).unwrap();
        let ids: Vec<bool> = text.split_terminator("\n\n").map(|event| event.starts_with("id: ")).collect();
        assert_eq!((ids, told), (vec![false, true, true], None));
    }

    #[test]
    fn a_piece_ends_behind_a_whole_revision() {
        let half = PIECE_BYTES / 2 + 1;
        let changes = vec![change(7, "a", half), change(7, "b", half), change(7, "c", half), change(9, "d", 1)];
        let (text, told) = piece(changes).unwrap();
        assert_eq!((text.matches("data: ").count(), told), (3, Some(7)));
    }
}
