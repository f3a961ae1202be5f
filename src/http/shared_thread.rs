//! Requests share their thread with those of other connections, and on the node's own thread with Raft. That one is for single keys of the
//! store: other requests wait for their turn there, and are the last ones of their connection. A watch that begins on such a connection
//! keeps its place until it ends.

use std::cell::Cell;
use std::net::SocketAddr;

use actix_http::ConnectionType;
use actix_web::dev::ServiceResponse;
use tokio::task::yield_now;

use crate::protocol::kv::route;

/// Requests of one connection in a row before everything else on the thread has its turn. The library serves all that need not wait in one
/// go, and a connection may send some thousands of small ones at once.
const IN_A_ROW: u32 = 8;

/// Whether a path is that of one key of the store.
pub fn is_of_a_key(path: &[u8]) -> bool {
    path.strip_prefix(route::KV.as_bytes()).is_some_and(|rest| rest.len() > 1 && rest[0] == b'/')
}

/// A thread that serves requests.
pub struct SharedThread {
    is_near: bool,
    /// Whose request came last, and how many of the same connection have come without another between.
    last: Cell<(Option<SocketAddr>, u32)>,
}

impl SharedThread {
    pub fn new(is_near: bool) -> Self {
        SharedThread { is_near, last: Cell::new((None, 0)) }
    }

    /// Lets the thread's other work go first, if many requests of this connection were served in a row, or if this one does not belong
    /// here.
    pub async fn take_turn(&self, connection: Option<SocketAddr>, path: &str) {
        let (last, in_a_row) = self.last.get();
        let in_a_row = if connection == last { in_a_row + 1 } else { 1 };
        self.last.set((connection, in_a_row % IN_A_ROW));
        if in_a_row == IN_A_ROW || self.is_misplaced(path) {
            // The library may poll a new request twice before it gives the thread back: the first one would be over by then.
            yield_now().await;
            yield_now().await;
        }
    }

    /// A page of a list, or an image, may take as long as hundreds of keys.
    fn is_misplaced(&self, path: &str) -> bool {
        self.is_near && !is_of_a_key(path.as_bytes())
    }

    /// Ends a connection to the node's thread that was for keys at first and is for something else now, as one that a proxy uses for all
    /// its callers: the next one goes where it belongs. What was sent before this answer came is still answered here.
    pub fn close_if_misplaced<B>(&self, response: &mut ServiceResponse<B>) {
        if self.is_misplaced(response.request().path()) {
            response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use actix_web::HttpResponse;
    use actix_web::test::TestRequest;
    use futures::FutureExt;

    use super::*;

    /// Whether the thread is given back although the library polls twice.
    fn waits(turn: impl Future<Output = ()>) -> bool {
        let mut turn = pin!(turn);
        (0..2).all(|_| turn.as_mut().now_or_never().is_none())
    }

    /// The promise: nobody who sends many requests at once keeps a thread from the others, be they clients or Raft; whoever is one of many
    /// is not held up, unless he brings Raft's thread what is not for it.
    #[test]
    fn many_requests_in_a_row_of_one_connection_let_the_others_go_first() {
        let from = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        let waited = |is_near, path, ports: [u16; 2]| {
            let thread = SharedThread::new(is_near);
            let requests = (0..3 * IN_A_ROW as usize).map(|number| from(ports[number % 2]));
            requests.filter(|connection| waits(thread.take_turn(*connection, path))).count()
        };
        let (key, list) = ("/api/v1/kv/color", "/api/v1/kv");
        assert_eq!([waited(true, key, [1, 1]), waited(false, list, [1, 1])], [3, 3]);
        assert_eq!([waited(true, key, [1, 2]), waited(false, list, [1, 2])], [0, 0]);
        assert_eq!(waited(true, list, [1, 2]), 3 * IN_A_ROW as usize);
    }

    /// The promise: a connection that was let near for a key and brings something else goes elsewhere the next time.
    #[test]
    fn only_connections_for_keys_stay_on_the_nodes_thread() {
        let closes = |is_near, path| {
            let mut response = TestRequest::with_uri(path).to_srv_response(HttpResponse::Ok().finish());
            SharedThread::new(is_near).close_if_misplaced(&mut response);
            response.response().head().connection_type() == ConnectionType::Close
        };
        for path in ["/api/v1/images", "/api/v1/kv", "/api/v1/kv?prefix=a", "/api/v1/kv/"] {
            assert!(closes(true, path) && !closes(false, path), "{path}");
        }
        assert!(!closes(true, "/api/v1/kv/color?stale=true"));
    }
}
