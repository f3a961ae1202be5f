//! Writes of the ledger on their way into the log: everything that waits while one entry is committed goes into the next.
//!
//! So a write alone is proposed at once, and hundreds share an entry, its sync and its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::TypeConfigExt;
use openraft::{AsyncRuntime, ServerState};
use tokio::sync::{mpsc, oneshot};

use crate::protocol::ledger::{Answer, Stamp, Write};
use crate::raft::error::ProposeError;
use crate::raft::group::Group;
use crate::raft::types::{Command, Outcome, Types};
use crate::time;

/// Bytes of keys and values that may wait, 64 MiB.
const WAITING_BYTES_LIMIT: u64 = 64 << 20;

/// Writes in one entry at most.
const ENTRY_WRITES: usize = 512;

/// Bytes of keys and values in one entry at most, unless one write alone has more: an entry must fit a node frame.
const ENTRY_BYTES: usize = 512 << 10;

/// When an entry is not committed for so long, those that wait behind it are told that there is no quorum: they were not taken.
const STALLED_AFTER: Duration = Duration::from_millis(500);

/// How often the leader looks whether a key is due that no write lets expire.
const EXPIRY_CHECK: Duration = Duration::from_millis(100);

/// The way into the log. Clones share it.
#[derive(Clone)]
pub(crate) struct Proposals {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<AtomicU64>,
}

struct Waiting {
    write: Write,
    size: Size,
    answer: oneshot::Sender<Result<Answer, ProposeError>>,
}

/// Bytes that are counted while this lives.
struct Size {
    bytes: u64,
    all: Arc<AtomicU64>,
}

impl Drop for Size {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Proposals {
    /// Starts the task that gathers; it ends when the last clone is gone. Of the writes that wait, the one after `limit` is refused.
    pub fn start<R: AsyncRuntime>(group: Group<R>, limit: usize) -> Proposals {
        let (queue, waiting) = mpsc::channel(limit);
        drop(R::spawn(gather(group, waiting)));
        Proposals { queue, bytes: Arc::default() }
    }

    /// Commits and applies a write.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn write(&self, write: Write) -> Result<Answer, ProposeError> {
        let bytes = write.operations.iter().map(|operation| operation.size_bytes() as u64).sum();
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let size = Size { bytes, all: self.bytes.clone() };
        if before > 0 && before + bytes > WAITING_BYTES_LIMIT {
            return Err(ProposeError::Overloaded);
        }
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Waiting { write, size, answer }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Unknown("raft is stopping".to_owned()),
        })?;
        answered.await.unwrap_or_else(|_| Err(ProposeError::Unknown("raft is stopping".to_owned())))
    }
}

async fn gather<R: AsyncRuntime>(group: Group<R>, mut queue: mpsc::Receiver<Waiting>) {
    // One write that did not fit the entry before.
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(waiting) => waiting,
            None => match Types::<R>::timeout(EXPIRY_CHECK, queue.recv()).await {
                Ok(Some(waiting)) => waiting,
                Ok(None) => return,
                Err(_) => {
                    if something_is_due(&group) {
                        propose(&group, Vec::new(), &mut left_over, &mut queue).await;
                    }
                    continue;
                }
            },
        };
        let mut bytes = first.size.bytes as usize;
        let mut taken = vec![first];
        while taken.len() < ENTRY_WRITES {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.size.bytes as usize;
            if bytes > ENTRY_BYTES {
                left_over = Some(next);
                break;
            }
            taken.push(next);
        }
        propose(&group, taken, &mut left_over, &mut queue).await;
    }
}

/// Proposes one entry and hands out its answers; without writes, only the ledger's time goes on. While it is stalled, those behind it
/// are refused.
async fn propose<R: AsyncRuntime>(
    group: &Group<R>,
    taken: Vec<Waiting>,
    left_over: &mut Option<Waiting>,
    queue: &mut mpsc::Receiver<Waiting>,
) {
    let (writes, waiters): (Vec<_>, Vec<_>) =
        taken.into_iter().map(|waiting| (waiting.write, (waiting.answer, waiting.size))).unzip();
    let proposal = group.propose(Command::Ledger { stamp: Stamp(time::unix_millis()), writes });
    let mut proposal = std::pin::pin!(proposal);
    let applied = loop {
        match Types::<R>::timeout(STALLED_AFTER, proposal.as_mut()).await {
            Ok(applied) => break applied,
            Err(_) => {
                while let Some(behind) = left_over.take().or_else(|| queue.try_recv().ok()) {
                    // Whoever does not listen any more has given up.
                    let _ = behind.answer.send(Err(ProposeError::NoQuorum));
                }
            }
        }
    };
    match applied.map(|applied| applied.outcome) {
        Ok(Outcome::Answered(answers)) => {
            for ((waiter, _), answer) in waiters.into_iter().zip(answers) {
                let _ = waiter.send(Ok(answer));
            }
        }
        Ok(Outcome::Recorded) => log::error!("node {}: writes were taken for something else", group.me()),
        Err(error) => {
            for (waiter, _) in waiters {
                let _ = waiter.send(Err(error.clone()));
            }
        }
    }
}

/// Whether this node leads and a key is due that no write lets expire.
fn something_is_due<R: AsyncRuntime>(group: &Group<R>) -> bool {
    let leads = group.raft().server_metrics().borrow_watched().state == ServerState::Leader;
    leads && group.machine().applied().state.ledger().is_due(Stamp(time::unix_millis()))
}
