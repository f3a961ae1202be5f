//! Requests on the node's own thread, where Raft is: they must not keep it for long, and only those for one key of the store stay there.

use std::cell::Cell;

use actix_http::ConnectionType;
use actix_web::dev::ServiceResponse;
use tokio::task::yield_now;

use crate::protocol::kv::route;

/// Requests in a row before everything else on the thread has its turn. A connection may send as many small ones at once as fit its
/// buffer, some thousands, and the library serves all that need not wait in one go.
const IN_A_ROW: u32 = 8;

/// Whether a path is that of one key of the store.
pub fn is_of_a_key(path: &[u8]) -> bool {
    path.strip_prefix(route::KV.as_bytes()).is_some_and(|rest| rest.len() > 1 && rest[0] == b'/')
}

/// What the requests that a thread serves owe its other work: nothing, unless it is the node's own.
pub struct Turns {
    is_near: bool,
    in_a_row: Cell<u32>,
}

impl Turns {
    pub fn new(is_near: bool) -> Self {
        Turns { is_near, in_a_row: Cell::new(0) }
    }

    /// Counts a request, and lets the thread's other work go first if there were many.
    pub async fn take(&self) {
        let in_a_row = (self.in_a_row.get() + 1) % IN_A_ROW;
        self.in_a_row.set(in_a_row);
        if self.is_near && in_a_row == 0 {
            yield_now().await;
        }
    }

    /// Ends a connection that was for keys at first and is for something else now, as one that a proxy uses for all its callers: the next
    /// one goes where it belongs.
    pub fn keep_for_keys_alone<B>(&self, response: &mut ServiceResponse<B>) {
        if self.is_near && !is_of_a_key(response.request().path().as_bytes()) {
            response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::HttpResponse;
    use actix_web::test::TestRequest;
    use futures::FutureExt;

    use super::*;

    /// The promise: on the node's own thread no run of requests is longer than eight, whoever sends them; on the others all go on.
    #[test]
    fn many_requests_in_a_row_give_the_nodes_thread_back() {
        let gave_back = |is_near| {
            let turns = Turns::new(is_near);
            (0..3 * IN_A_ROW).filter(|_| turns.take().now_or_never().is_none()).count()
        };
        assert_eq!(gave_back(true), 3);
        assert_eq!(gave_back(false), 0);
    }

    /// The promise: a connection that was let near for a key and brings something else goes elsewhere the next time.
    #[test]
    fn only_connections_for_keys_stay_near() {
        let closes = |is_near, path| {
            let mut response = TestRequest::with_uri(path).to_srv_response(HttpResponse::Ok().finish());
            Turns::new(is_near).keep_for_keys_alone(&mut response);
            response.response().head().connection_type() == ConnectionType::Close
        };
        for path in ["/api/v1/images", "/api/v1/kv", "/api/v1/kv?prefix=a", "/api/v1/kv/"] {
            assert!(closes(true, path) && !closes(false, path), "{path}");
        }
        assert!(!closes(true, "/api/v1/kv/color?stale=true"));
    }
}
