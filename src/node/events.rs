//! The last events of this node: numbered, bounded, readable from any thread.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::id::{NodeId, Term};
use crate::protocol::event::{Event, EventKind};
use crate::protocol::status::NodeState;
use crate::time;

/// Events that are kept; older ones are dropped, which their numbers show.
const KEPT: usize = 1024;

/// The ring of events.
#[derive(Debug)]
pub struct Events {
    node: NodeId,
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    next: u64,
    kept: VecDeque<Event>,
}

impl Events {
    /// An empty ring of one node.
    pub fn new(node: NodeId) -> Self {
        Events { node, ring: Mutex::new(Ring { next: 1, kept: VecDeque::new() }) }
    }

    /// Adds an event.
    pub fn push(&self, term: Term, state: NodeState, what: EventKind) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event { seq: ring.next, at_unix_ms: time::unix_millis(), node: self.node, term, state, what };
        ring.next += 1;
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(event);
    }

    /// The kept events from number `since` on, oldest first.
    pub fn since(&self, since: u64) -> Vec<Event> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.kept.iter().filter(|event| event.seq >= since).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_and_its_numbers_tell_what_was_dropped() {
        let events = Events::new(NodeId(1));
        for number in 0..KEPT + 5 {
            events.push(Term(1), NodeState::Active, EventKind::Alarm { text: number.to_string() });
        }
        let kept = events.since(0);
        assert_eq!((kept.len(), kept[0].seq), (KEPT, 6));
        assert_eq!(events.since(KEPT as u64 + 5).len(), 1);
    }
}
