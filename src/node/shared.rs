//! What other threads may know of the node actor: its view of the cluster, its events, whether it is Failed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::events::Events;
use crate::id::{MemberId, NodeId, Term};
use crate::protocol::event::EventKind;
use crate::protocol::membership::Place;
use crate::protocol::status::{Leadership, NodeState};
use crate::time::{self, Moment};

/// The node's own view, published by the actor whenever it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// As clients see it.
    pub state: NodeState,
    /// Its term.
    pub term: Term,
    /// The confirmed coordinator that it knows.
    pub coordinator: Option<Leadership>,
}

/// What other threads may know and do.
#[derive(Debug)]
pub struct Shared {
    /// The node in this life.
    pub member: MemberId,
    /// Its HTTP address.
    pub address: SocketAddr,
    /// Where it says that it is found: what stands in the membership if it is among the first members.
    pub place: Place,
    /// Its last events.
    pub events: Events,
    view: watch::Sender<View>,
    failures: AtomicU64,
    /// Since when no coordinator is known, in microseconds + 1; 0 while one is.
    leaderless_since: AtomicU64,
}

impl Shared {
    /// A node that starts.
    pub fn new(member: MemberId, address: SocketAddr, place: Place) -> Self {
        let view = View { state: NodeState::Recovering, term: Term(0), coordinator: None };
        let events = Events::new(member.node);
        let leaderless_since = AtomicU64::new(time::now().0 + 1);
        Shared {
            member,
            address,
            place,
            events,
            view: watch::Sender::new(view),
            failures: AtomicU64::new(0),
            leaderless_since,
        }
    }

    /// The node's id.
    pub fn node(&self) -> NodeId {
        self.member.node
    }

    /// The present view.
    pub fn view(&self) -> View {
        *self.view.borrow()
    }

    /// The view as it changes.
    pub fn views(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Publishes a new view.
    pub fn publish(&self, view: View) {
        self.view.send_if_modified(|old| {
            let fails = view.state == NodeState::Failed && old.state != NodeState::Failed;
            if fails {
                self.failures.fetch_add(1, Ordering::Release);
            }
            if view.coordinator.is_some() {
                self.leaderless_since.store(0, Ordering::Release);
            } else if old.coordinator.is_some() {
                self.leaderless_since.store(time::now().0 + 1, Ordering::Release);
            }
            let changed = *old != view;
            *old = view;
            changed
        });
    }

    /// Since when no coordinator is known, if none is.
    pub fn leaderless_since(&self) -> Option<Moment> {
        self.leaderless_since.load(Ordering::Acquire).checked_sub(1).map(Moment)
    }

    /// How often the node has failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// While the node is Failed: resolves when it no longer is.
    pub fn silence(&self) -> Option<BoxFuture<'static, ()>> {
        if self.view().state != NodeState::Failed {
            return None;
        }
        let mut views = self.view.subscribe();
        Some(
            async move {
                // An error means that the node is stopping, which ends the silence as well.
                let _ = views.wait_for(|view| view.state != NodeState::Failed).await;
            }
            .boxed(),
        )
    }

    /// Adds an event, with term and state of this moment.
    pub fn record(&self, what: EventKind) {
        let view = self.view();
        self.events.push(view.term, view.state, what);
    }
}
