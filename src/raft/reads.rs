//! Reads of the ledger on their way past the majority: everything that arrives while one question is under way shares the next.
//!
//! A question that was sent before a read arrived says nothing about it, so each read waits for one that begins after it.

use openraft::AsyncRuntime;
use tokio::sync::{mpsc, oneshot};

use crate::raft::error::ProposeError;
use crate::raft::group::Group;

/// Reads that may wait; the next one is refused at once.
const WAITING_LIMIT: usize = 4096;

/// The way past the majority. Clones share it.
#[derive(Clone)]
pub(crate) struct Reads {
    queue: mpsc::Sender<Waiting>,
}

type Waiting = oneshot::Sender<Result<(), ProposeError>>;

impl Reads {
    /// Starts the task that gathers; it ends when the last clone is gone.
    pub fn start<R: AsyncRuntime>(group: Group<R>) -> Reads {
        let (queue, waiting) = mpsc::channel(WAITING_LIMIT);
        drop(R::spawn(gather(group, waiting)));
        Reads { queue }
    }

    /// As [`Group::read_barrier`], shared with others that wait.
    ///
    /// # Errors
    /// Those of [`Group::read_barrier`], and [`ProposeError::Overloaded`].
    pub async fn barrier(&self) -> Result<(), ProposeError> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(answer).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::NoQuorum,
        })?;
        answered.await.unwrap_or(Err(ProposeError::NoQuorum))
    }
}

async fn gather<R: AsyncRuntime>(group: Group<R>, mut queue: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, WAITING_LIMIT).await > 0 {
        let result = group.read_barrier().await;
        for waiter in waiting.drain(..) {
            // Whoever does not listen any more has given up.
            let _ = waiter.send(result.clone());
        }
    }
}
