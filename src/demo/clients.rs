//! The clients: one actor each. In the closed model a client sends when its last answer is there; in the open model by the
//! clock, and its latency counts from the planned send.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::client::{Answer, Attempt, Job};
use crate::demo::options::Verify;
use crate::demo::pictures::Picture;
use crate::demo::plan::{Plan, Planned};
use crate::demo::record::{AttemptRecord, Outcome, Record};
use crate::demo::share::{self, Answered, Share, ToCheck};
use crate::demo::verify::{Check, Queue};
use crate::time::{Moment, now};

/// What the clients send to: the cluster, or a stand-in for it in tests.
pub trait Service: Send + Sync + 'static {
    /// One logical request with all its attempts.
    fn run(&self, job: Job) -> impl Future<Output = Result<Answer, Refused>> + Send;
}

/// A request that got no answer.
#[derive(Clone, Debug)]
pub struct Refused {
    /// A short word for the counts.
    pub reason: String,
    /// One line for people.
    pub detail: String,
    /// Every attempt.
    pub attempts: Vec<Attempt>,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Model {
    /// After the last answer.
    Closed,
    /// By the clock.
    Open {
        /// Requests a second of all clients together.
        rate: f64,
    },
}

/// In the open model a client waits with a request that is due while it has so many under way.
pub const IN_FLIGHT_PER_CLIENT: usize = 8;
/// A request of the open model that is so late is not sent any more.
pub const NOT_SENT_AFTER: Duration = Duration::from_secs(30);

/// What is counted while the run goes on.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests with a result.
    pub done: AtomicU64,
    /// Those of them without an answer.
    pub failed: AtomicU64,
    /// Microseconds that clients waited for the checks.
    pub waited_for_checks_micros: AtomicU64,
}

/// What all clients share.
pub struct Load<S> {
    /// What they send to.
    pub service: Arc<S>,
    /// What they send.
    pub plan: Plan,
    /// The pictures of the plan.
    pub pictures: Vec<Picture>,
    /// When.
    pub model: Model,
    /// Which answers are checked.
    pub verify: Verify,
    /// Where they are checked.
    pub queue: Queue,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Becomes true when no further request shall be sent.
    pub stop: watch::Receiver<bool>,
    /// Takes the records.
    pub records: mpsc::Sender<Record>,
    /// When the load began.
    pub start: Moment,
    /// With `--op share`, what the clients do instead of sending the plan's jobs.
    pub share: Option<Arc<Share>>,
}

/// One client.
pub struct Client<S> {
    number: u32,
    load: Arc<Load<S>>,
}

impl<S: Service> Client<S> {
    /// The client of this number, from 0.
    pub fn new(number: u32, load: Arc<Load<S>>) -> Self {
        Client { number, load }
    }
}

impl<S: Service> Actor for Client<S> {
    type Context = Context<Self>;
}

/// Tells a client to send all its requests; the answer comes when every one has its result.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SendAll;

impl<S: Service> Handler<SendAll> for Client<S> {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: SendAll, _: &mut Self::Context) -> Self::Result {
        let (load, number) = (self.load.clone(), self.number);
        Box::pin(async move {
            match load.model {
                Model::Closed => closed(load, number).await,
                Model::Open { rate } => open(load, number, rate).await,
            }
        })
    }
}

/// A client has one request under way, or a few where readers race.
async fn closed<S: Service>(load: Arc<Load<S>>, number: u32) {
    let lanes = if load.share.is_some() { share::LANES } else { 1 };
    futures::future::join_all((0..lanes).map(|lane| one_by_one(load.clone(), number, lane, lanes))).await;
}

/// Sends every request whose turn is `first`, `first + step`, …
async fn one_by_one<S: Service>(load: Arc<Load<S>>, number: u32, first: u32, step: u32) {
    for turn in (first..load.plan.requests_each).step_by(step as usize) {
        if *load.stop.borrow() {
            return;
        }
        let planned = load.plan.request(number, turn);
        // On the pool of threads, so that the thread of the actors never copies pictures.
        let sent = tokio::spawn(load.clone().send(planned, turn, None));
        let abort = sent.abort_handle();
        until_done_or_stopped(&load, async { drop(sent.await) }).await;
        abort.abort();
    }
}

async fn open<S: Service>(load: Arc<Load<S>>, number: u32, rate: f64) {
    let mut under_way = JoinSet::new();
    for turn in 0..load.plan.requests_each {
        let planned = load.plan.request(number, turn);
        let intended = load.start + Duration::from_secs_f64(planned.index as f64 / rate);
        let mut stop = load.stop.clone();
        let is_stopped = tokio::select! {
            () = tokio::time::sleep(intended.since(now())) => *load.stop.borrow(),
            _ = stop.wait_for(|stopped| *stopped) => true,
        };
        if is_stopped {
            break;
        }
        while under_way.len() >= IN_FLIGHT_PER_CLIENT && !*load.stop.borrow() {
            let patience = (intended + NOT_SENT_AFTER).since(now());
            if tokio::time::timeout(patience, under_way.join_next()).await.is_err() {
                break;
            }
        }
        if under_way.len() >= IN_FLIGHT_PER_CLIENT || now().since(intended) > NOT_SENT_AFTER {
            load.give_up(&planned, intended).await;
        } else {
            under_way.spawn(load.clone().send(planned, turn, Some(intended)));
        }
    }
    until_done_or_stopped(&load, async { while under_way.join_next().await.is_some() {} }).await;
}

/// After a stop, what is under way gets one more second.
async fn until_done_or_stopped<S>(load: &Load<S>, work: impl Future<Output = ()>) {
    let mut stop = load.stop.clone();
    let stopped = async {
        let _ = stop.wait_for(|stopped| *stopped).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        () = work => {}
        () = stopped => {}
    }
}

impl<S: Service> Load<S> {
    /// Sends one request, records its result and hands its answer to the checks. Without an intended moment it is due now.
    async fn send(self: Arc<Self>, planned: Planned, turn: u32, intended: Option<Moment>) {
        if let Some(share) = self.share.clone() {
            return self.send_to_share(&share, planned, turn, intended).await;
        }
        let picture = &self.pictures[planned.picture];
        let job = Job {
            id: planned.id,
            image: picture.bytes.clone(),
            name: picture.name.clone(),
            work: planned.work.clone(),
        };
        let sent = now();
        let result = self.service.run(job).await;
        let finished = now();
        let mut record = self.record(&planned, intended.unwrap_or(sent), sent, finished);
        let answer = match result {
            Ok(answer) => {
                record.attempts = answer.attempts.iter().map(attempt).collect();
                let bytes_out = answer.image.len() as u64;
                record.outcome = Outcome::Answered { node: answer.node, job_time: answer.job_time, bytes_out };
                Some(answer.image)
            }
            Err(refused) => {
                record.attempts = refused.attempts.iter().map(attempt).collect();
                record.outcome = Outcome::Failed { reason: refused.reason, detail: refused.detail };
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                None
            }
        };
        self.counters.done.fetch_add(1, Ordering::Relaxed);
        let _ = self.records.send(record).await;
        if let Some(answer) = answer
            && self.verify.includes(planned.index, self.plan.total())
        {
            let check = Check { index: planned.index, work: planned.work, picture: picture.clone(), answer, key: None };
            let waited = self.queue.submit(check).await;
            self.counters.waited_for_checks_micros.fetch_add(waited.as_micros() as u64, Ordering::Relaxed);
        }
    }

    /// The same for users and rights. The wait for the first picture is over when a request counts as sent.
    async fn send_to_share(&self, share: &Share, planned: Planned, turn: u32, intended: Option<Moment>) {
        let next = share.next(planned.client, turn).await;
        let sent = now();
        let result = match next {
            Ok(next) => share.send(next, &planned).await,
            Err(refused) => Err(refused),
        };
        let mut record = self.record(&planned, intended.unwrap_or(sent), sent, now());
        let mut to_check = None;
        match result {
            Ok(answered) => {
                let Answered { kind, node, job_time, bytes_in, bytes_out, attempts, check } = answered;
                (record.kind, record.bytes_in, to_check) = (kind, bytes_in, check);
                record.attempts = attempts.iter().map(attempt).collect();
                record.outcome = Outcome::Answered { node, job_time, bytes_out };
            }
            Err(refused) => {
                record.attempts = refused.attempts.iter().map(attempt).collect();
                record.outcome = Outcome::Failed { reason: refused.reason, detail: refused.detail };
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.counters.done.fetch_add(1, Ordering::Relaxed);
        let _ = self.records.send(record).await;
        if let Some(ToCheck { sealed, picture, work, key }) = to_check
            && self.verify.includes(planned.index, self.plan.total())
        {
            let check = Check { index: planned.index, work, picture, answer: sealed, key };
            let waited = self.queue.submit(check).await;
            self.counters.waited_for_checks_micros.fetch_add(waited.as_micros() as u64, Ordering::Relaxed);
        }
    }

    async fn give_up(&self, planned: &Planned, intended: Moment) {
        let at = now();
        self.counters.done.fetch_add(1, Ordering::Relaxed);
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        let _ = self.records.send(self.record(planned, intended, at, at)).await;
    }

    /// A record without attempts and with the outcome of a request that was not sent.
    fn record(&self, planned: &Planned, intended: Moment, sent: Moment, finished: Moment) -> Record {
        Record {
            index: planned.index,
            client: planned.client,
            kind: planned.work.operation().into(),
            picture: planned.picture,
            intended: intended.since(self.start),
            sent: sent.since(self.start),
            finished: finished.since(self.start),
            bytes_in: self.pictures[planned.picture].bytes.len() as u64,
            attempts: Vec::new(),
            outcome: Outcome::NotSent,
        }
    }
}

fn attempt(attempt: &Attempt) -> AttemptRecord {
    AttemptRecord {
        node: attempt.node,
        placed_by: attempt.placed_by,
        took: attempt.took,
        failure: attempt.failure.clone(),
    }
}

#[cfg(test)]
#[path = "clients_tests.rs"]
mod tests;
