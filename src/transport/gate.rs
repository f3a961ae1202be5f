//! The gate between a node and the network: shut while the node simulates a failure.

use std::sync::Arc;

use tokio::sync::watch;

/// While the gate is shut, nothing leaves the node and nothing that arrives is looked at; connections stay open and silent.
/// Clones share one state.
#[derive(Clone, Debug)]
pub struct Gate {
    shut: Arc<watch::Sender<bool>>,
}

impl Default for Gate {
    fn default() -> Self {
        Gate { shut: Arc::new(watch::Sender::new(false)) }
    }
}

impl Gate {
    /// Cuts the node off from the network.
    pub fn shut(&self) {
        self.shut.send_replace(true);
    }

    /// Connects it again.
    pub fn open(&self) {
        self.shut.send_replace(false);
    }

    /// Whether the node is cut off.
    pub fn is_shut(&self) -> bool {
        *self.shut.borrow()
    }

    /// Waits until the gate is open.
    pub async fn opened(&self) {
        // The sender lives in `self`, so the wait can only end because the gate is open.
        let _ = self.shut.subscribe().wait_for(|shut| !*shut).await;
    }
}
