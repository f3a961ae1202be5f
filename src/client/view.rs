//! What all requests of a client know about one node.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::id::NodeId;
use crate::time::Moment;

/// How long a placed job may take to show up in the node's load.
const ON_ITS_WAY: Duration = Duration::from_millis(50);
/// How long placements are remembered: longer than any announcement may hang.
const PLACED_SPAN: Duration = Duration::from_secs(2);
/// Most placements that are remembered.
const PLACED_LIMIT: usize = 4096;

/// How a node answers announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Health {
    /// In time.
    Answers = 0,
    /// The present announcement takes longer than the announce timeout.
    Late = 1,
    /// The last announcement hung or its connection failed.
    Silent = 2,
}

/// What all requests know about one node.
pub(super) struct NodeView {
    pub url: String,
    id: AtomicU64,
    health: AtomicU8,
    /// When this client placed jobs on it lately, oldest first.
    placed: Mutex<VecDeque<Moment>>,
}

impl NodeView {
    pub fn new(url: String, id: Option<NodeId>) -> Self {
        let id = AtomicU64::new(id.map_or(0, |id| u64::from(id.0)));
        NodeView { url, id, health: AtomicU8::new(Health::Answers as u8), placed: Mutex::default() }
    }

    /// The node's id, configured or learned from its answers.
    pub fn id(&self) -> Option<NodeId> {
        match self.id.load(Ordering::Relaxed) {
            0 => None,
            id => Some(NodeId(id as u16)),
        }
    }

    pub fn learn_id(&self, id: NodeId) {
        self.id.store(u64::from(id.0), Ordering::Relaxed);
    }

    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Answers,
            1 => Health::Late,
            _ => Health::Silent,
        }
    }

    pub fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Relaxed);
    }

    /// A job is placed on the node at `moment`.
    pub fn place(&self, moment: Moment) {
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        while placed.len() >= PLACED_LIMIT || placed.front().is_some_and(|&first| moment.since(first) > PLACED_SPAN) {
            placed.pop_front();
        }
        placed.push_back(moment);
    }

    /// Jobs of this client that the load which the node answered to a question of the moment `asked` cannot show: those
    /// placed since then, and those that were on their way.
    pub fn uncovered(&self, asked: Moment) -> u64 {
        let placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        let since = asked - ON_ITS_WAY;
        placed.iter().rev().take_while(|&&moment| moment >= since).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_count_until_an_answer_can_have_seen_them() {
        let view = NodeView::new("http://127.0.0.1:1".into(), None);
        for milliseconds in [1000, 1090, 1100, 1200] {
            view.place(Moment::from_millis(milliseconds));
        }
        assert_eq!(view.uncovered(Moment::from_millis(1000)), 4);
        assert_eq!(view.uncovered(Moment::from_millis(1130)), 3, "placed 40 ms before: on its way");
        assert_eq!(view.uncovered(Moment::from_millis(1300)), 0);
    }

    #[test]
    fn what_was_placed_long_ago_takes_no_memory() {
        let view = NodeView::new("http://127.0.0.1:1".into(), None);
        (0..100_000).for_each(|_| view.place(Moment::from_millis(5)));
        assert_eq!(view.uncovered(Moment::default()), PLACED_LIMIT as u64);
        view.place(Moment::from_millis(60_000));
        assert_eq!(view.uncovered(Moment::default()), 1);
    }
}
