//! Writes of the ledger on their way into the log: everything that waits while one entry is committed goes into the next, and who is to
//! be expected besides; of very many writers, two entries are under way at a time ([`Gathering`]).
//!
//! So a write alone is proposed at once, and hundreds share an entry, its sync and its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::TypeConfigExt;
use openraft::{AsyncRuntime, Instant, ServerState};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::core::gathering::Gathering;
use crate::core::ledger::{IDLE_MS, LeaderClock, Ledger};
use crate::id::Term;
use crate::protocol::ledger::{Answer, Request, Stamp, Write};
use crate::protocol::user::{Date, NAME_LIMIT};
use crate::raft::Applied;
use crate::raft::error::ProposeError;
use crate::raft::group::Group;
use crate::raft::types::{Command, Outcome, Types};
use crate::time;

/// Bytes of writes that may wait for their answers, 64 MiB.
const WAITING_BYTES_LIMIT: u64 = 64 << 20;

/// Writes in one entry at most.
const ENTRY_WRITES: usize = 512;

/// Bytes of writes in one entry at most, unless one write alone has more: an entry must fit a node frame.
const ENTRY_BYTES: u64 = 512 << 10;

/// Bytes of kept answers to commands on images that left no trace, over which new ones are refused, 64 MiB: some 400,000 in four minutes.
const WITHOUT_TRACE_LIMIT_BYTES: u64 = 64 << 20;

/// When an entry is not committed for so long, those that wait behind it are told that there is no quorum: they were not taken.
const STALLED_AFTER: Duration = Duration::from_millis(500);

/// How often the leader looks whether a key is due that no write lets expire.
const EXPIRY_CHECK: Duration = Duration::from_millis(100);

/// How often it is looked whether all writes are answered, by a node that is to stop.
const ANSWERED_CHECK: Duration = Duration::from_millis(1);

/// The way into the log. Clones share it.
#[derive(Clone)]
pub(crate) struct Proposals {
    queue: mpsc::Sender<Waiting>,
    places: Arc<Semaphore>,
    bytes: Arc<AtomicU64>,
}

struct Waiting {
    write: Write,
    place: Place,
    answer: oneshot::Sender<Result<Answer, ProposeError>>,
}

/// The place of one write among those that may be there, and its bytes, until it is answered.
struct Place {
    bytes: u64,
    all: Arc<AtomicU64>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Proposals {
    /// Starts the batcher; it ends when the last clone is gone. Of the writes that are not answered yet, the one after `limit` is refused,
    /// and all new ones while more than `answers_bytes` of answers are kept.
    pub fn start<R: AsyncRuntime>(group: Group<R>, limit: usize, answers_bytes: u64) -> Proposals {
        let (queue, waiting) = mpsc::channel(limit);
        drop(R::spawn(Batcher::new(group, waiting, answers_bytes).run()));
        Proposals { queue, places: Arc::new(Semaphore::new(limit)), bytes: Arc::default() }
    }

    /// Whether as many writes wait for their answers as may wait.
    pub fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// Resolves when every write that was taken is answered.
    pub async fn all_answered(&self) {
        while self.bytes.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(ANSWERED_CHECK).await;
        }
    }

    /// Commits and applies a write.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn write(&self, write: Write) -> Result<Answer, ProposeError> {
        let permit = self.places.clone().try_acquire_owned().map_err(|_| ProposeError::Overloaded)?;
        let bytes = encoded_at_most(&write);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = Place { bytes, all: self.bytes.clone(), _permit: permit };
        if before > 0 && before + bytes > WAITING_BYTES_LIMIT {
            return Err(ProposeError::Overloaded);
        }
        let (answer, answered) = oneshot::channel();
        // The queue has room for whoever has a place; if it is closed, nobody answers.
        let _ = self.queue.try_send(Waiting { write, place, answer });
        answered.await.unwrap_or_else(|_| Err(ProposeError::Unknown("raft is stopping".to_owned())))
    }
}

/// What a write takes in the log at most: keys and values, and around each operation its tag, two lengths and two numbers of at most
/// 9 bytes, around all of them the id, the caller and a length. A command on users or images has less than 512 bytes, but for a name
/// and what a wrap says, of which each right has less than 64.
fn encoded_at_most(write: &Write) -> u64 {
    let operations = write.operations().iter().map(|operation| operation.size_bytes() as u64 + 32);
    let others = match &write.request {
        Request::Kv(_) => 0,
        Request::User { .. } => 512 + NAME_LIMIT as u64,
        Request::Image(command) => 512 + 64 * command.rights() as u64,
    };
    64 + operations.sum::<u64>() + others
}

/// Where writes become entries.
struct Batcher<R: AsyncRuntime> {
    group: Group<R>,
    queue: mpsc::Receiver<Waiting>,
    answers_bytes: u64,
    clock: LeaderClock,
    gathering: Gathering,
    /// One write that did not fit the entry before.
    left_over: Option<Waiting>,
    under_way: FuturesUnordered<BoxFuture<'static, Finished>>,
    writes_under_way: usize,
    /// No entry was applied for [`STALLED_AFTER`] while some were under way.
    is_stalled: bool,
    /// An entry without writes was just applied: more may be due.
    is_expiring: bool,
}

/// An entry that was committed and applied, or what became of it instead.
struct Finished {
    waiters: Vec<(oneshot::Sender<Result<Answer, ProposeError>>, Place)>,
    applied: Result<Applied, ProposeError>,
    took: Duration,
}

/// What ends a wait of the batcher.
enum Event {
    Came(Waiting),
    Finished(Finished),
    /// The pause is over.
    Silence,
    /// Nobody can send a write any more.
    Closed,
}

impl<R: AsyncRuntime> Batcher<R> {
    fn new(group: Group<R>, queue: mpsc::Receiver<Waiting>, answers_bytes: u64) -> Self {
        Batcher {
            group,
            queue,
            answers_bytes,
            clock: LeaderClock::default(),
            gathering: Gathering::default(),
            left_over: None,
            under_way: FuturesUnordered::new(),
            writes_under_way: 0,
            is_stalled: false,
            is_expiring: false,
        }
    }

    /// Makes entries until nobody can send a write any more.
    async fn run(mut self) {
        loop {
            let at_once = if self.is_stalled { 1 } else { self.gathering.entries_at_once() };
            if self.under_way.len() >= at_once {
                match Types::<R>::timeout(STALLED_AFTER, self.under_way.next()).await {
                    Ok(finished) => self.settle(finished.expect("an entry is under way"), 0),
                    Err(_) => self.refuse_who_waits(),
                }
                continue;
            }
            let pause = match (self.under_way.is_empty(), self.is_expiring) {
                (true, true) => Duration::ZERO,
                (true, false) => EXPIRY_CHECK,
                (false, _) => STALLED_AFTER,
            };
            match self.next(pause).await {
                Event::Came(first) => {
                    let mut taken = self.gather(first).await;
                    let stamp = self.stamp(&mut taken);
                    if !taken.is_empty() {
                        self.propose(stamp, taken);
                    } else if self.under_way.is_empty() {
                        // Nothing was taken because there is no memory for answers, and only time makes room.
                        self.let_time_go_on();
                    }
                }
                Event::Finished(finished) => self.settle(finished, 0),
                Event::Silence if self.under_way.is_empty() => self.let_time_go_on(),
                Event::Silence => self.is_stalled = true,
                Event::Closed => return,
            }
        }
    }

    /// Waits so long at most for the next write, or until an entry is done.
    async fn next(&mut self, pause: Duration) -> Event {
        // Also sends an entry that was just made on its way, before the next one is gathered.
        if let Some(Some(finished)) = self.under_way.next().now_or_never() {
            return Event::Finished(finished);
        }
        if let Some(waiting) = self.left_over.take().or_else(|| self.queue.try_recv().ok()) {
            return Event::Came(waiting);
        }
        tokio::select! {
            biased;
            Some(finished) = self.under_way.next() => Event::Finished(finished),
            came = self.queue.recv() => came.map_or(Event::Closed, Event::Came),
            () = Types::<R>::sleep(pause) => Event::Silence,
        }
    }

    /// The writes of the next entry: the first one, those that wait, and those that are to be expected.
    async fn gather(&mut self, first: Waiting) -> Vec<Waiting> {
        let mut bytes = first.place.bytes;
        let mut taken = vec![first];
        let begun = Types::<R>::now();
        while taken.len() < ENTRY_WRITES && bytes < ENTRY_BYTES {
            let wait = self.gathering.wait(taken.len(), self.writes_under_way, begun.elapsed());
            let next = match (self.queue.try_recv(), wait) {
                (Ok(next), _) => next,
                (Err(_), Some(wait)) => match self.next(wait).await {
                    Event::Came(next) => next,
                    Event::Finished(finished) => {
                        self.settle(finished, taken.len());
                        continue;
                    }
                    Event::Silence | Event::Closed => break,
                },
                (Err(_), None) => break,
            };
            bytes += next.place.bytes;
            if bytes > ENTRY_BYTES {
                self.left_over = Some(next);
                break;
            }
            taken.push(next);
        }
        taken
    }

    /// The time of an entry of these writes; those whose answers there is no memory to keep are refused.
    fn stamp(&mut self, taken: &mut Vec<Waiting>) -> Stamp {
        read(&self.group, &mut self.clock, |ledger, stamp, leads| {
            let is_full = ledger.answers_bytes() > self.answers_bytes;
            let is_full_without_trace = ledger.without_trace_bytes() > WITHOUT_TRACE_LIMIT_BYTES;
            if leads && (is_full || is_full_without_trace) {
                refuse_new(taken, |write| {
                    let would_be_kept = match &write.request {
                        Request::Kv(_) => is_full,
                        Request::User { .. } => false,
                        Request::Image(command) => is_full_without_trace && !command.action.passes_a_full_memory(),
                    };
                    !would_be_kept || ledger.has_answered(write)
                });
            }
            stamp
        })
    }

    /// Sends an entry on its way; without writes, only the ledger's time goes on.
    fn propose(&mut self, stamp: Stamp, taken: Vec<Waiting>) {
        let (writes, waiters): (Vec<_>, Vec<_>) =
            taken.into_iter().map(|waiting| (waiting.write, (waiting.answer, waiting.place))).unzip();
        self.writes_under_way += writes.len();
        let group = self.group.clone();
        self.under_way.push(Box::pin(async move {
            let begun = Types::<R>::now();
            let command = Command::Ledger { stamp, date: Date(time::unix_millis()), writes: writes.into() };
            let applied = group.propose(command).await;
            Finished { waiters, applied, took: begun.elapsed() }
        }));
    }

    /// Hands out the answers of an entry, while so many writes are gathered for the next.
    fn settle(&mut self, finished: Finished, gathered: usize) {
        let Finished { waiters, applied, took } = finished;
        // An entry that was given up tells nothing of the others.
        self.is_stalled &= applied.is_err();
        self.is_expiring = waiters.is_empty() && applied.is_ok();
        self.writes_under_way -= waiters.len();
        if !waiters.is_empty() {
            let others = self.writes_under_way + gathered + self.queue.len() + usize::from(self.left_over.is_some());
            self.gathering.is_done(waiters.len(), took, others);
        }
        match applied.map(|applied| applied.outcome) {
            Ok(Outcome::Answered(answers)) => {
                for ((waiter, _), answer) in waiters.into_iter().zip(answers) {
                    // Whoever does not listen any more has given up.
                    let _ = waiter.send(Ok(answer));
                }
            }
            Ok(Outcome::Recorded) => log::error!("node {}: writes were taken for something else", self.group.me()),
            Err(error) => {
                for (waiter, _) in waiters {
                    let _ = waiter.send(Err(error.clone()));
                }
            }
        }
    }

    /// The entries under way are stalled: those behind them were not taken.
    fn refuse_who_waits(&mut self) {
        self.is_stalled = true;
        let why = self.group.must_lead().err().unwrap_or(ProposeError::NoQuorum);
        while let Some(behind) = self.left_over.take().or_else(|| self.queue.try_recv().ok()) {
            // Whoever does not listen any more has given up.
            let _ = behind.answer.send(Err(why.clone()));
        }
    }

    /// No write is there to take the time with it. What is due goes at once, however much it is; writes that come meanwhile take it with
    /// them.
    fn let_time_go_on(&mut self) {
        // Whoever wrote a while ago is not expected now.
        self.gathering = Gathering::default();
        self.is_expiring = false;
        if let Some(stamp) = time_must_go_on(&self.group, &mut self.clock) {
            self.propose(stamp, Vec::new());
        }
    }
}

/// Refuses those whose answers would have to be kept as well.
fn refuse_new(taken: &mut Vec<Waiting>, needs_no_room: impl Fn(&Write) -> bool) {
    let (known, new): (Vec<_>, Vec<_>) = taken.drain(..).partition(|waiting| needs_no_room(&waiting.write));
    *taken = known;
    for waiting in new {
        // Whoever does not listen any more has given up.
        let _ = waiting.answer.send(Err(ProposeError::Overloaded));
    }
}

/// Reads the ledger together with the time that this node stamps on the next entry, and whether it leads, so that it matters.
fn read<R: AsyncRuntime, T>(
    group: &Group<R>,
    clock: &mut LeaderClock,
    read: impl FnOnce(&Ledger, Stamp, bool) -> T,
) -> T {
    let (leads, term) = {
        let metrics = group.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        (metrics.state == ServerState::Leader, Term(metrics.vote.leader_id().term))
    };
    if !leads {
        // The next leadership begins anew, whatever term the metrics still tell then.
        *clock = LeaderClock::default();
    }
    let applied = group.machine().applied();
    let ledger = applied.state.ledger();
    let stamp = clock.stamp(term, time::now(), Stamp(time::unix_millis()), ledger.stamp());
    read(ledger, stamp, leads)
}

/// As leader: the time to stamp on an entry without writes, if a key is due that no write lets expire, or if nothing has been written
/// for long although something waits for its time.
fn time_must_go_on<R: AsyncRuntime>(group: &Group<R>, clock: &mut LeaderClock) -> Option<Stamp> {
    read(group, clock, |ledger, stamp, leads| {
        let is_idle = ledger.waits_for_time() && stamp.0 >= ledger.stamp().0 + IDLE_MS;
        let is_due = ledger.is_due(stamp) || ledger.has_images_due(Date(time::unix_millis()));
        (leads && (is_idle || is_due)).then_some(stamp)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::id::RequestId;
    use crate::protocol::codec;
    use crate::protocol::ledger::{Expectation, KvOperation};

    fn operation() -> impl Strategy<Value = KvOperation> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        let expect = prop_oneof![
            Just(Expectation::Absent),
            Just(Expectation::Present),
            any::<u64>().prop_map(Expectation::ModRevision),
            bytes().prop_map(Expectation::Value),
        ];
        prop_oneof![
            (bytes(), bytes(), any::<Option<u64>>()).prop_map(|(key, value, expires_in_ms)| KvOperation::Put {
                key,
                value,
                expires_in_ms
            }),
            bytes().prop_map(|key| KvOperation::Delete { key }),
            (bytes(), expect).prop_map(|(key, expect)| KvOperation::Require { key, expect }),
            (bytes(), any::<i64>(), any::<Option<i64>>()).prop_map(|(key, by, floor)| KvOperation::Add {
                key,
                by,
                floor
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_write_takes_no_more_than_it_is_counted(
            id in any::<[u8; 16]>(),
            operations in prop::collection::vec(operation(), 0..300),
        ) {
            let write = Write::kv(RequestId(id), operations);
            prop_assert!(codec::encode(&write).unwrap().len() as u64 <= encoded_at_most(&write));
        }
    }

    fn add() -> KvOperation {
        KvOperation::Add { key: Bytes::from_static(b"k"), by: 1, floor: None }
    }

    /// More than any entry holds, and still a follower and a restart can read it.
    #[test]
    fn many_small_operations_are_read_as_they_were_written() {
        let write = Write::kv(RequestId([1; 16]), vec![add(); 256]);
        let command =
            Command::Ledger { stamp: Stamp(u64::MAX), date: Date(u64::MAX), writes: vec![write; ENTRY_WRITES].into() };
        let bytes = codec::encode(&command).unwrap();
        assert_eq!(codec::decode::<Command>(&bytes).unwrap(), command);
    }

    #[test]
    fn over_the_limit_of_answers_only_what_was_answered_before_goes_on() {
        let (all, places) = (Arc::<AtomicU64>::default(), Arc::new(Semaphore::new(2)));
        let waiting = |id: u8| {
            let (answer, answered) = oneshot::channel();
            let write = Write::kv(RequestId([id; 16]), vec![add()]);
            let permit = places.clone().try_acquire_owned().unwrap();
            (Waiting { write, place: Place { bytes: 0, all: all.clone(), _permit: permit }, answer }, answered)
        };
        let ((known, _keep), (new, mut refused)) = (waiting(1), waiting(2));
        let mut taken = vec![new, known];
        refuse_new(&mut taken, |write| write.id == RequestId([1; 16]));
        assert_eq!(taken.len(), 1);
        assert_eq!(refused.try_recv().unwrap(), Err(ProposeError::Overloaded));
    }
}
