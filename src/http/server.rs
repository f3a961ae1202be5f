//! The threads that serve connections, and which of them gets a new one.
//!
//! Most are *far*: they go to threads for HTTP alone, so that no picture holds up the node. A few that begin with a key of the store are
//! *near*: the node's own thread serves them, where Raft is. A write of a single client is mostly changes of thread, and this saves two.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::iter;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Arbiter;
use actix_service::boxed::BoxService;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::shared_thread;
use crate::scheduling;

/// Connections that the node's own thread serves at any time, at most.
const NEAR_CONNECTIONS: usize = 4;

/// How long the first bytes may take that tell whether a connection asks for a key.
const FIRST_BYTES_TIME: Duration = Duration::from_secs(1);

/// How long nobody is let in after the system has refused a connection, for example because there are too many open files.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);

/// How long finished answers may take to leave after the server was told to stop.
const SHUTDOWN_TIME: Duration = Duration::from_secs(2);

/// What a thread does with a connection, until it is over.
pub(super) type Connections = BoxService<TcpStream, (), ()>;

/// Becomes true when connections shall end with the answers that are under way.
pub(super) type Stopping = watch::Receiver<bool>;

/// A running server, which ends when it is stopped.
pub struct Server {
    stopping: watch::Sender<bool>,
    /// A place for each connection and one for the port.
    places: Arc<Semaphore>,
    connections: u32,
    threads: Vec<Arbiter>,
}

impl Server {
    /// Serves the connections to a listener, so many at any time, on so many threads and on the calling one, which has an actor system;
    /// one more lets them in.
    ///
    /// Each thread makes with `served` what it does with a connection, and is told whether it is the calling one. Where connections are
    /// not `readable` as they come, because there is TLS around them, the calling thread serves none.
    ///
    /// # Errors
    /// The system refused the listener or a thread.
    pub(super) fn start<M, F>(
        listener: TcpListener,
        connections: u32,
        readable: bool,
        threads: usize,
        served: M,
    ) -> io::Result<Server>
    where
        M: Fn(bool, Stopping) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Connections, ()>> + 'static,
    {
        listener.set_nonblocking(true)?;
        let stopping = watch::Sender::new(false);
        // The port has a place of its own, so that all places are free when it is closed too.
        let places = Arc::new(Semaphore::new(connections as usize + 1));
        let port = places.clone().try_acquire_owned().map_err(io::Error::other)?;
        let mut threads: Vec<Arbiter> =
            iter::repeat_with(Arbiter::try_new).take(threads.max(1)).collect::<io::Result<_>>()?;
        let queue = || mpsc::channel(connections as usize);
        let mut far = Vec::new();
        for thread in &threads {
            let (queue, arrivals) = queue();
            let (served, stopping) = (served.clone(), stopping.subscribe());
            thread.spawn_fn(move || {
                scheduling::bulk();
                actix::spawn(serve(arrivals, served(false, stopping)));
            });
            far.push(queue);
        }
        let (near, arrivals) = queue();
        if readable {
            actix::spawn(serve(arrivals, served(true, stopping.subscribe())));
        }
        let acceptor = Arbiter::try_new()?;
        let (all, ended) = (places.clone(), stopping.subscribe());
        acceptor.spawn_fn(move || {
            let near_places = Arc::new(Semaphore::new(if readable { NEAR_CONNECTIONS } else { 0 }));
            let dispatcher =
                Rc::new(Dispatcher { stopping: ended.clone(), near, near_places, far, next: Cell::new(0) });
            actix::spawn(async move {
                accept(listener, all, dispatcher, ended).await;
                drop(port);
            });
        });
        threads.push(acceptor);
        Ok(Server { stopping, places, connections, threads })
    }

    /// Closes the port, and waits until the answers that are under way have left, for two seconds at most.
    pub async fn stop(self) {
        self.stopping.send_replace(true);
        // An error means that they take too long: their connections end with the threads, here or when the program ends.
        let _ = timeout(SHUTDOWN_TIME, self.places.acquire_many(self.connections + 1)).await;
        for thread in &self.threads {
            thread.stop();
        }
    }
}

/// A connection that was let in, with its place among all, and among the near ones if it has one.
struct Arrival<S> {
    stream: S,
    place: OwnedSemaphorePermit,
    near_place: Option<OwnedSemaphorePermit>,
}

/// The way to a thread. A runtime watches each connection, and every thread has its own.
type Queue = mpsc::Sender<Arrival<std::net::TcpStream>>;

/// Where connections go.
struct Dispatcher {
    stopping: Stopping,
    near: Queue,
    near_places: Arc<Semaphore>,
    far: Vec<Queue>,
    next: Cell<usize>,
}

impl Dispatcher {
    fn dispatch(self: &Rc<Self>, stream: TcpStream, place: OwnedSemaphorePermit) {
        match self.near_places.clone().try_acquire_owned() {
            Ok(near) => drop(actix::spawn(self.clone().choose(Arrival { stream, place, near_place: Some(near) }))),
            Err(_) => self.go_far(Arrival { stream, place, near_place: None }),
        }
    }

    /// Looks at the first bytes, which stay there for whoever serves the connection.
    async fn choose(self: Rc<Self>, arrival: Arrival<TcpStream>) {
        let (mut first, mut stopping) = ([0; 64], self.stopping.clone());
        let seen = tokio::select! {
            seen = timeout(FIRST_BYTES_TIME, arrival.stream.peek(&mut first)) => seen,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match seen {
            Ok(Ok(read)) if asks_for_a_key(&first[..read]) => {
                let Some(arrival) = arrival.ready_to_move() else { return };
                // It comes back if the thread serves no more.
                if let Err(back) = self.near.try_send(arrival) {
                    self.send_far(back.into_inner());
                }
            }
            _ => self.go_far(arrival),
        }
    }

    fn go_far(&self, arrival: Arrival<TcpStream>) {
        if let Some(arrival) = arrival.ready_to_move() {
            self.send_far(arrival);
        }
    }

    /// Threads take turns; one that serves no more is passed over.
    fn send_far(&self, arrival: Arrival<std::net::TcpStream>) {
        let mut arrival = Arrival { near_place: None, ..arrival };
        for _ in 0..self.far.len() {
            let thread = self.next.get();
            self.next.set((thread + 1) % self.far.len());
            // There is room for as many as there are places.
            match self.far[thread].try_send(arrival) {
                Ok(()) => return,
                Err(back) => arrival = back.into_inner(),
            }
        }
        log::error!("no thread is left that serves HTTP: restart the node");
    }
}

impl Arrival<TcpStream> {
    /// Free of this thread's runtime. If the system refuses, the connection is closed.
    fn ready_to_move(self) -> Option<Arrival<std::net::TcpStream>> {
        let stream = self.stream.into_std().ok()?;
        Some(Arrival { stream, place: self.place, near_place: self.near_place })
    }
}

/// Whether a request that begins like this is for one key of the store.
fn asks_for_a_key(first: &[u8]) -> bool {
    let mut words = first.split(|byte| *byte == b' ');
    shared_thread::is_of_a_key(words.nth(1).unwrap_or_default())
}

async fn accept(listener: TcpListener, places: Arc<Semaphore>, dispatcher: Rc<Dispatcher>, mut stopping: Stopping) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return log::error!("the HTTP port is not served: {error}"),
    };
    loop {
        let arrived = async {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            Ok::<_, io::Error>((stream, place))
        };
        let arrived = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            arrived = arrived => arrived,
        };
        match arrived {
            Ok((stream, place)) => dispatcher.dispatch(stream, place),
            // The other side has given it up already, which must not keep anybody else out.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                log::warn!("a connection could not be accepted: {error}");
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

/// Serves the connections that come, on this thread.
async fn serve(
    mut arrivals: mpsc::Receiver<Arrival<std::net::TcpStream>>,
    served: impl Future<Output = Result<Connections, ()>>,
) {
    let Ok(served) = served.await else { return log::error!("a thread for HTTP could not begin") };
    while let Some(arrival) = arrivals.recv().await {
        let Ok(stream) = TcpStream::from_std(arrival.stream) else { continue };
        // Without it a short answer in two pieces takes a round trip more.
        let _ = stream.set_nodelay(true);
        // With TLS this waits while too many connections shake hands.
        if poll_fn(|context| served.poll_ready(context)).await.is_err() {
            return log::error!("a thread for HTTP serves no more connections");
        }
        let connection = served.call(stream);
        let places = (arrival.place, arrival.near_place);
        actix::spawn(async move {
            // How it ended is of no account: the other side may have gone at any time.
            let _ = connection.await;
            drop(places);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use actix_service::{boxed, fn_service};
    use tokio::io::AsyncWriteExt;

    use super::*;

    type Client = std::net::TcpStream;

    /// The promise: only what asks for one key goes to the node's own thread; lists, batches, pictures and TLS do not.
    #[test]
    fn only_requests_for_one_key_are_near() {
        let near = ["PUT /api/v1/kv/color HTTP/1.1", "GET /api/v1/kv/a%2Fb?stale=true HTTP/1.1", "POST /api/v1/kv/n"];
        assert!(near.iter().all(|first| asks_for_a_key(first.as_bytes())));
        let far = [
            "",
            "GET",
            "GET /",
            "POST /api/v1/kv HTTP/1.1",
            "GET /api/v1/kv?prefix=a",
            "GET /api/v1/kv/",
            "\u{16}\u{3}",
        ];
        assert!(!far.iter().any(|first| asks_for_a_key(first.as_bytes())));
    }

    /// Where each of the connections is served that begin like this, until they are closed.
    fn served(address: SocketAddr, firsts: &[&str]) -> Vec<(Client, String)> {
        let connect = |first: &&str| {
            let mut stream = Client::connect(address).unwrap();
            stream.write_all(first.as_bytes()).unwrap();
            let mut place = [0; 4];
            stream.read_exact(&mut place).unwrap();
            (stream, String::from_utf8(place.to_vec()).unwrap())
        };
        firsts.iter().map(connect).collect()
    }

    /// The promise: at most four connections are near, a silent one takes no place for long, those that are over make room, and nobody is
    /// let in any more when the server stops.
    #[test]
    fn few_connections_are_near_and_none_after_the_stop() {
        actix::System::new().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let here = thread::current().id();
            let served_where = move |_, _| async move {
                Ok(boxed::service(fn_service(move |mut stream: TcpStream| async move {
                    let place = if thread::current().id() == here { b"near" } else { b"far " };
                    stream.write_all(place).await.map_err(drop)?;
                    // Until the other side closes it.
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                    Ok(())
                })))
            };
            let server = Server::start(listener, 64, true, 1, served_where).unwrap();
            let asked = tokio::task::spawn_blocking(move || {
                let (key, picture) = ("PUT /api/v1/kv/a HTTP/1.1", "POST /api/v1/images HTTP/1.1");
                let first = served(address, &[picture, key, key, key, key, key, picture]);
                let places: Vec<&str> = first.iter().map(|(_, place)| place.as_str()).collect();
                assert_eq!(places, ["far ", "near", "near", "near", "near", "far ", "far "]);
                drop(first);
                // Nobody tells when a connection that was closed has given its place back.
                let deadline = crate::time::now() + Duration::from_secs(10);
                while served(address, &[key])[0].1 != "near" {
                    assert!(crate::time::now() < deadline, "no place was given back");
                }
                let silent = served(address, &[""]);
                assert_eq!(silent[0].1, "far ");
                let keys = served(address, &[key; 4]);
                assert!(keys.iter().all(|(_, place)| place == "near"), "the silent one keeps a place");
            });
            asked.await.unwrap();
            server.stop().await;
            assert!(Client::connect(address).is_err(), "the port is still open");
        });
    }

    /// The promise: a thread that cannot serve takes no connection with it.
    #[test]
    fn a_thread_that_does_not_serve_is_passed_over() {
        actix::System::new().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let made = Arc::new(AtomicUsize::new(0));
            let one_in_three = move |is_near: bool, _| {
                let serves = !is_near && made.fetch_add(1, Ordering::Relaxed) == 1;
                async move {
                    let service =
                        fn_service(
                            |mut stream: TcpStream| async move { stream.write_all(b"here").await.map_err(drop) },
                        );
                    if serves { Ok(boxed::service(service)) } else { Err(()) }
                }
            };
            let server = Server::start(listener, 64, true, 2, one_in_three).unwrap();
            // What came before a thread gave up goes with it.
            let asked = move || {
                let deadline = crate::time::now() + Duration::from_secs(10);
                let mut in_a_row = 0;
                while in_a_row < 12 {
                    let first = ["PUT /api/v1/kv/a HTTP/1.1", "GET / HTTP/1.1"][in_a_row % 2];
                    let mut stream = Client::connect(address).unwrap();
                    stream.write_all(first.as_bytes()).unwrap();
                    in_a_row = if stream.read_exact(&mut [0; 4]).is_ok() { in_a_row + 1 } else { 0 };
                    assert!(crate::time::now() < deadline, "connections still go where nobody serves them");
                }
            };
            tokio::task::spawn_blocking(asked).await.unwrap();
            server.stop().await;
        });
    }
}
