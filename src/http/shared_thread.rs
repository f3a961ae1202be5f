//! Requests share their thread with those of other connections; on the node's own thread with Raft too, and there only connections for
//! single keys of the store stay.

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
    is_the_nodes: bool,
    /// Whose request came last, and how many of the same connection have come without another between.
    last: Cell<(Option<SocketAddr>, u32)>,
}

impl SharedThread {
    pub fn new(is_the_nodes: bool) -> Self {
        SharedThread { is_the_nodes, last: Cell::new((None, 0)) }
    }

    /// Lets the thread's other work go first, if many requests of this connection were served in a row.
    pub async fn take_turn(&self, connection: Option<SocketAddr>) {
        let (last, in_a_row) = self.last.get();
        let in_a_row = if connection == last { in_a_row + 1 } else { 1 };
        self.last.set((connection, in_a_row % IN_A_ROW));
        if in_a_row == IN_A_ROW {
            yield_now().await;
        }
    }

    /// Ends a connection to the node's thread that was for keys at first and is for something else now, as one that a proxy uses for all its
    /// callers: the next one goes where it belongs.
    pub fn keep_for_keys<B>(&self, response: &mut ServiceResponse<B>) {
        if self.is_the_nodes && !is_of_a_key(response.request().path().as_bytes()) {
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

    /// The promise: nobody who sends many requests at once keeps a thread from the others, be they clients or Raft; whoever is one of many
    /// is not held up.
    #[test]
    fn many_requests_in_a_row_of_one_connection_let_the_others_go_first() {
        let from = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        let waited = |ports: [u16; 2]| {
            let thread = SharedThread::new(false);
            let requests = (0..3 * IN_A_ROW as usize).map(|number| from(ports[number % 2]));
            requests.filter(|connection| thread.take_turn(*connection).now_or_never().is_none()).count()
        };
        assert_eq!(waited([1, 1]), 3);
        assert_eq!(waited([1, 2]), 0);
    }

    /// The promise: a connection that was let near for a key and brings something else goes elsewhere the next time.
    #[test]
    fn only_connections_for_keys_stay_on_the_nodes_thread() {
        let closes = |is_the_nodes, path| {
            let mut response = TestRequest::with_uri(path).to_srv_response(HttpResponse::Ok().finish());
            SharedThread::new(is_the_nodes).keep_for_keys(&mut response);
            response.response().head().connection_type() == ConnectionType::Close
        };
        for path in ["/api/v1/images", "/api/v1/kv", "/api/v1/kv?prefix=a", "/api/v1/kv/"] {
            assert!(closes(true, path) && !closes(false, path), "{path}");
        }
        assert!(!closes(true, "/api/v1/kv/color?stale=true"));
    }
}
