//! A connection of requests and responses to one peer. It is opened before it is needed, or by the first message, and kept.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::protocol::codec::{CodecError, LIMIT_BYTES};
use crate::protocol::frame::NodeFrame;
use crate::transport::dial::Connection;
use crate::transport::faults::Outlet;
use crate::transport::gate::Gate;
use crate::transport::link::Link;
use crate::transport::wire::{WireError, write_within};

/// Messages that may wait for one connection.
pub(crate) const QUEUE_LIMIT: usize = 64;

/// Least pause between two looks whether a connection that is kept open can be opened.
const REOPEN_PAUSE: Duration = Duration::from_millis(20);

/// How long a frame that was delayed by a fault may take to be written.
const DELAYED_WRITE_TIMEOUT: Duration = Duration::from_millis(500);

/// Why a message was not delivered or a request not answered. After all but `Busy` and `TooLong` the peer may still have seen it.
#[derive(Debug, Error)]
pub enum CallError {
    /// No member, and before the first start nobody in the configuration.
    #[error("there is no such node in the cluster")]
    UnknownNode,
    /// Too many messages wait for the connection already.
    #[error("{QUEUE_LIMIT} messages wait for this connection already")]
    Busy,
    /// There is no connection, or it ended before the answer.
    #[error("not connected: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The message does not fit a frame.
    #[error(transparent)]
    TooLong(#[from] CodecError),
    /// The peer answered with something else.
    #[error("the answer is of another kind than the question")]
    WrongAnswer,
}

/// A frame for the peer, and who waits for the answer.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub frame: Vec<u8>,
    pub waiter: Option<(u64, Waiter)>,
    pub limit: Duration,
}

pub(crate) type Waiter = oneshot::Sender<Result<NodeFrame, String>>;

/// Runs until the sender of `queue` is dropped.
pub(crate) async fn run(mut link: Link, gate: Gate, mut queue: mpsc::Receiver<Outgoing>) {
    let mut connection: Option<Connection> = None;
    let mut waiters: BTreeMap<u64, Waiter> = BTreeMap::new();
    let mut outlet = link.outlet();
    loop {
        // The connections of an election and of a new leader are there before: opening one takes time that a vacancy does not have.
        let waits_for_peer = connection.is_none() && link.purpose.is_kept_open();
        if waits_for_peer && link.pause().is_zero() && !gate.is_shut() {
            connection = link.connect().await.ok();
        }
        let lost = tokio::select! {
            () = tokio::time::sleep(link.pause().max(REOPEN_PAUSE)), if connection.is_none() && waits_for_peer => None,
            outgoing = queue.recv() => {
                let Some(outgoing) = outgoing else { return };
                send(&mut link, &gate, &mut outlet, &mut connection, &mut waiters, outgoing).await
            }
            delayed = outlet.due() => match &mut connection {
                Some(connection) if !gate.is_shut() => write(connection, &delayed, DELAYED_WRITE_TIMEOUT).await,
                _ => None,
            },
            answer = next_answer(&mut connection) => deliver(&link, &gate, &mut waiters, answer),
        };
        if let Some(why) = lost {
            connection = None;
            outlet.clear();
            fail_all(&mut waiters, &why);
        }
    }
}

/// The next frame of the peer; waits for ever while there is no connection.
async fn next_answer(connection: &mut Option<Connection>) -> Result<Option<NodeFrame>, WireError> {
    match connection {
        Some(connection) => connection.reader.message(LIMIT_BYTES).await,
        None => std::future::pending().await,
    }
}

/// Sends one frame, or lets a fault of the link delay or lose it; says why if the connection is lost.
async fn send(
    link: &mut Link,
    gate: &Gate,
    outlet: &mut Outlet,
    connection: &mut Option<Connection>,
    waiters: &mut BTreeMap<u64, Waiter>,
    outgoing: Outgoing,
) -> Option<String> {
    waiters.retain(|_, waiter| !waiter.is_closed());
    let abandoned = outgoing.waiter.as_ref().is_some_and(|(_, waiter)| waiter.is_closed());
    if gate.is_shut() || abandoned {
        return None;
    }
    if link.faults.cut_out(link.to) {
        // Who waits goes on waiting until its time is up.
        waiters.extend(outgoing.waiter);
        return None;
    }
    if connection.is_none() {
        if !link.pause().is_zero() {
            refuse(outgoing, "the last attempt failed just now");
            return None;
        }
        match link.connect().await {
            Ok(opened) => *connection = Some(opened),
            Err(error) => {
                refuse(outgoing, &error.to_string());
                return None;
            }
        }
    }
    let Some(connection) = connection else { return None };
    waiters.extend(outgoing.waiter);
    let frame = outlet.take(outgoing.frame)?;
    write(connection, &frame, outgoing.limit).await
}

/// Writes one frame; says why if the connection is lost.
async fn write(connection: &mut Connection, frame: &[u8], limit: Duration) -> Option<String> {
    write_within(&mut connection.writer, frame, limit).await.err().map(|error| error.to_string())
}

fn refuse(outgoing: Outgoing, why: &str) {
    if let Some((_, waiter)) = outgoing.waiter {
        // Nobody listens any more: the caller's own time is up.
        let _ = waiter.send(Err(why.to_owned()));
    }
}

/// Hands an answer to its waiter; says why if the connection is lost.
fn deliver(
    link: &Link,
    gate: &Gate,
    waiters: &mut BTreeMap<u64, Waiter>,
    answer: Result<Option<NodeFrame>, WireError>,
) -> Option<String> {
    let frame = match answer {
        Ok(Some(frame)) => frame,
        Ok(None) => return Some("the peer closed the connection".to_owned()),
        Err(error) => return Some(error.to_string()),
    };
    if link.faults.cut_in(link.to) {
        return None;
    }
    let (NodeFrame::StateSyncResponse { id, .. } | NodeFrame::RaftResponse { id, .. }) = &frame else {
        return Some("the peer asks where it should answer".to_owned());
    };
    if let Some(waiter) = waiters.remove(id).filter(|_| !gate.is_shut()) {
        let _ = waiter.send(Ok(frame));
    }
    None
}

fn fail_all(waiters: &mut BTreeMap<u64, Waiter>, why: &str) {
    for (_, waiter) in std::mem::take(waiters) {
        let _ = waiter.send(Err(why.to_owned()));
    }
}
