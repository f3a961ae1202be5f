//! The desk where jobs are taken: the admission core behind a lock, the workers, the answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::Addr;
use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};

use super::worker::{Order, Worker};
use crate::core::jobs::{Admission, Busy, Counters, Jobs, Phase, Settings};
use crate::http::{Done, JobOrder, Reservation, Work};
use crate::id::{Load, RequestId};
use crate::image::Limits;
use crate::protocol::problem::{Problem, ProblemCode};
use crate::time::{self, Moment};

/// Unit of the decode permits: tokio counts permits in 32 bits.
const PERMIT_BYTES: u64 = 1024;

/// The desk of one node, shared with the HTTP side.
#[derive(Clone)]
pub struct Desk {
    jobs: Arc<Mutex<Jobs<Answer>>>,
    finished: Arc<Notify>,
    decode_memory: Arc<Semaphore>,
    decode_bytes: u64,
    workers: Addr<Worker>,
    limits: Limits,
}

impl Desk {
    /// A desk in front of started workers. `decode_bytes` bounds the memory of all decoded pictures together.
    pub fn new(settings: Settings, decode_bytes: u64, limits: Limits, workers: Addr<Worker>) -> Self {
        Desk {
            jobs: Arc::new(Mutex::new(Jobs::new(settings, time::now()))),
            finished: Arc::new(Notify::new()),
            decode_memory: Arc::new(Semaphore::new((decode_bytes / PERMIT_BYTES) as usize)),
            decode_bytes,
            workers,
            limits,
        }
    }

    /// Smoothed load, present load and counters.
    pub fn load(&self) -> (Load, Load, Counters) {
        let mut jobs = self.jobs();
        (jobs.load(time::now()), jobs.pressure(), jobs.counters())
    }

    /// Admits a job, answers a repeated one, or refuses it.
    ///
    /// # Errors
    /// `Busy` with the time to wait.
    pub async fn reserve(&self, order: JobOrder) -> Result<Reservation, Problem> {
        loop {
            // Listen before looking, so that an end between the two is not missed.
            let finished = self.finished.notified();
            let admission = self.jobs().offer(time::now(), order.id, order.bytes);
            match admission {
                Admission::Admitted => break,
                Admission::Repeated(Answer { done, work, bytes, checksum })
                    if work == order.work && bytes == order.bytes =>
                {
                    return Ok(Reservation::Repeated { done, checksum });
                }
                Admission::Repeated(_) => return Err(Problem::reused_id(order.id)),
                Admission::Busy(busy) => return Err(refusal(busy)),
                Admission::InProgress => finished.await,
            }
        }
        let ticket = Ticket::new(self.clone(), &order);
        let desk = self.clone();
        Ok(Reservation::Admitted(Box::new(move |image| Box::pin(desk.perform(ticket, order, image)))))
    }

    async fn perform(self, ticket: Ticket, order: JobOrder, image: Bytes) -> Result<Done, Problem> {
        let decoded = match order.work {
            Work::Seal { .. } => crate::image::sealing_bytes(image.len() as u64),
            Work::Label { .. } => crate::image::decoded_bytes(&image, &self.limits).map_err(|error| error.problem())?,
        };
        if decoded > self.decode_bytes {
            let detail = format!(
                "this picture takes {decoded} bytes of memory, this node has {} for all (limits.decode_memory_mib)",
                self.decode_bytes
            );
            return Err(Problem::new(ProblemCode::TooLarge, detail));
        }
        let permits = decoded.div_ceil(PERMIT_BYTES) as u32;
        let permit = self.decode_memory.clone().acquire_many_owned(permits).await;
        let permit = permit.map_err(|_| Problem::new(ProblemCode::Dropped, "the node is stopping"))?;
        let order = Order { ticket, work: order.work, image, permit };
        match self.workers.send(order).await {
            Ok(result) => result,
            Err(error) => Err(Problem::new(ProblemCode::Dropped, format!("no worker took the job: {error}"))),
        }
    }

    /// Resolves when no accepted job is left.
    pub async fn idle(&self) {
        loop {
            // Listen before looking, so that an end between the two is not missed.
            let finished = self.finished.notified();
            let counters = self.jobs().counters();
            if counters.queued + counters.running == 0 {
                return;
            }
            finished.await;
        }
    }

    /// Counts the memory of an answer until the returned value is dropped.
    pub fn sending(&self, bytes: u64) -> Leaving {
        self.jobs().begin_sending(bytes);
        Leaving { desk: self.clone(), bytes }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs<Answer>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is being sent.
pub struct Leaving {
    desk: Desk,
    bytes: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.desk.jobs().end_sending(self.bytes);
    }
}

/// The place of one admitted job. It is given back when the ticket is dropped, wherever that happens: at the end of the job, in
/// the worker's queue, or when the client goes away.
pub struct Ticket {
    desk: Desk,
    id: RequestId,
    bytes: u64,
    admitted: Moment,
    started: Option<Moment>,
    answer: Option<Answer>,
}

impl Ticket {
    fn new(desk: Desk, order: &JobOrder) -> Self {
        Ticket { desk, id: order.id, bytes: order.bytes, admitted: time::now(), started: None, answer: None }
    }

    /// A worker begins.
    pub fn start(&mut self) {
        let now = time::now();
        self.started = Some(now);
        self.desk.jobs().start(now);
    }

    /// The finished image: counted as done, kept for repetitions with the same original.
    pub fn finish(mut self, image: Bytes, work: Work, original: &[u8]) -> Done {
        let done = Done { image, took: time::now().since(self.admitted) };
        let checksum = crc32fast::hash(original);
        self.answer = Some(Answer { done: done.clone(), work, bytes: self.bytes, checksum });
        done
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = time::now();
        let phase = self.started.map_or(Phase::Queued, |started| Phase::Running { took: now.since(started) });
        let answer = self.answer.take().map(|answer| {
            let size = answer.done.image.len() as u64;
            (answer, size)
        });
        self.desk.jobs().finish(now, self.id, self.bytes, phase, answer);
        self.desk.finished.notify_waiters();
    }
}

/// A finished image, and what was asked for: an id that comes back with another request must not get this one's answer.
#[derive(Clone)]
struct Answer {
    done: Done,
    work: Work,
    bytes: u64,
    checksum: u32,
}

fn refusal(busy: Busy) -> Problem {
    let milliseconds = busy.retry_after.as_millis() as u64;
    let detail =
        format!("busy: the bound on {} is reached; try again in {milliseconds} ms, or at another node", busy.bound);
    Problem { retry_after_ms: Some(milliseconds), ..Problem::new(ProblemCode::Busy, detail) }
}
