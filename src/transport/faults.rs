//! The faults of a running node's links, and what one connection sends under them.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::faults::{self as core, Direction, Verdict};
use crate::id::NodeId;
use crate::protocol::fault::{FaultError, LinkFault};
use crate::time::{self, Moment};

/// Frames of one connection that may be delayed at a time; a further one is lost, as in the queue of a router. Heartbeats every
/// 20 ms fill it in 20 s, the longest delay with its jitter.
const DELAYED_FRAMES: usize = 1024;

/// The same in bytes.
const DELAYED_BYTES: usize = 8 << 20;

/// The faults of a node's links. Clones share one state; without any fault, looking costs one atomic load. Delay and loss are of
/// messages: opening a connection is neither delayed nor lost, only cut.
#[derive(Clone, Debug)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    any: AtomicBool,
    core: Mutex<core::Faults>,
}

impl Faults {
    /// Links to these peers, without a fault. The seed decides losses and jitter.
    pub fn new(peers: impl IntoIterator<Item = NodeId>, seed: u64) -> Self {
        let core = Mutex::new(core::Faults::new(peers, seed));
        Faults { shared: Arc::new(Shared { any: AtomicBool::new(false), core }) }
    }

    /// These are the peers from now on: the membership has changed.
    pub fn know(&self, peers: impl IntoIterator<Item = NodeId>) {
        let mut core = self.core();
        core.know(peers);
        self.shared.any.store(!core.standing().is_empty(), Ordering::Release);
    }

    /// Replaces all faults by these; an empty list heals. After an error nothing has changed.
    ///
    /// # Errors
    /// [`FaultError`].
    pub fn replace(&self, faults: &[LinkFault]) -> Result<(), FaultError> {
        let mut core = self.core();
        core.replace(faults)?;
        self.shared.any.store(!core.standing().is_empty(), Ordering::Release);
        Ok(())
    }

    /// The faults that stand.
    pub fn standing(&self) -> Vec<LinkFault> {
        self.core().standing()
    }

    /// Whether what the peer sends must not be looked at.
    pub fn cut_in(&self, peer: NodeId) -> bool {
        self.any() && self.core().cuts(peer, Direction::In)
    }

    /// Whether nothing may leave for the peer.
    pub fn cut_out(&self, peer: NodeId) -> bool {
        self.any() && self.core().cuts(peer, Direction::Out)
    }

    /// Whether the link is cut at least one way: then no new connection comes about, and no question has an answer.
    pub fn is_cut(&self, peer: NodeId) -> bool {
        self.cut_in(peer) || self.cut_out(peer)
    }

    /// What becomes of a message to the peer.
    pub(crate) fn verdict(&self, now: Moment, peer: NodeId) -> Verdict {
        if self.any() { self.core().verdict(now, peer, Direction::Out) } else { Verdict::Pass }
    }

    fn any(&self) -> bool {
        self.shared.any.load(Ordering::Acquire)
    }

    fn core(&self) -> MutexGuard<'_, core::Faults> {
        self.shared.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one connection to a peer sends: each frame at once, later or never. The order stays, as on a TCP connection.
#[derive(Debug)]
pub struct Outlet {
    faults: Faults,
    peer: NodeId,
    delayed: VecDeque<(Moment, Vec<u8>)>,
    bytes: usize,
}

impl Outlet {
    /// The outlet of a new connection to that peer.
    pub fn new(faults: Faults, peer: NodeId) -> Self {
        Outlet { faults, peer, delayed: VecDeque::new(), bytes: 0 }
    }

    /// Takes a frame; gives it back if it is to be written now.
    pub fn take(&mut self, frame: Vec<u8>) -> Option<Vec<u8>> {
        if self.delayed.is_empty() && !self.faults.any() {
            return Some(frame);
        }
        let now = time::now();
        let due = match self.faults.verdict(now, self.peer) {
            Verdict::Pass if self.delayed.is_empty() => return Some(frame),
            Verdict::Pass => now,
            Verdict::Late { due } => due,
            Verdict::Drop => return None,
        };
        if self.delayed.len() < DELAYED_FRAMES && self.bytes + frame.len() <= DELAYED_BYTES {
            self.bytes += frame.len();
            self.delayed.push_back((due, frame));
        }
        None
    }

    /// The next delayed frame when its time has come; waits for ever while there is none. The wait may be dropped.
    pub async fn due(&mut self) -> Vec<u8> {
        loop {
            let Some(due) = self.delayed.front().map(|(due, _)| *due) else { return std::future::pending().await };
            tokio::time::sleep(due.since(time::now())).await;
            if let Some((_, frame)) = self.delayed.pop_front() {
                self.bytes -= frame.len();
                // What is under way when the link is cut never arrives.
                if !self.faults.cut_out(self.peer) {
                    return frame;
                }
            }
        }
    }

    /// The connection is gone, and what was under way with it.
    pub fn clear(&mut self) {
        self.delayed.clear();
        self.bytes = 0;
    }
}
