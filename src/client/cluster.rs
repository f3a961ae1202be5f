//! One request from start to end: announce to all, upload to one, try again until there is one result or no time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::announcer::{Announcer, WAITING_LIMIT, Waiting};
use super::back_off::back_off;
use super::error::{AttemptError, ClientError, RequestFailed};
use super::latency::MovingPercentile;
use super::round::{Candidate, Clock, Index, Knowledge, Round, Verdict, Word, least_loaded};
use super::settings::ClientSettings;
use super::upload::{self, Finished};
use super::view::{Health, NodeView};
use super::{Answer, Attempt, Job, PlacedBy, exchange};
use crate::id::NodeId;
use crate::protocol::job::EncryptionRequest;
use crate::time::{Moment, now};

/// The nodes, as a client uses them. Clones share connections, announcements and what was learned.
#[derive(Clone)]
pub struct Cluster {
    pub(super) shared: Arc<Shared>,
    /// One inbox per node; the announcers end when the last clone is dropped.
    announcers: Arc<[mpsc::Sender<Waiting>]>,
}

pub(super) struct Shared {
    pub settings: Arc<ClientSettings>,
    pub connections: reqwest::Client,
    pub views: Vec<Arc<NodeView>>,
    uploads: Semaphore,
    attempts: Mutex<MovingPercentile>,
    generator: Mutex<StdRng>,
    /// Nodes that answer elsewhere than configured, or are not configured: as the others told.
    pub moved: Mutex<BTreeMap<NodeId, String>>,
    /// Where the ledger's leader answered last.
    pub leader: Mutex<Option<String>>,
}

/// What one attempt knows about the nodes besides their answers.
struct AttemptKnowledge<'a> {
    shared: &'a Shared,
    /// The node that failed this request's last attempt.
    failed: Option<Index>,
}

impl Knowledge for AttemptKnowledge<'_> {
    fn index_of(&self, node: NodeId) -> Option<Index> {
        self.shared.views.iter().position(|view| view.id() == Some(node))
    }

    fn is_doubtful(&self, index: Index) -> bool {
        self.failed == Some(index) || self.shared.views[index].health() == Health::Silent
    }
}

impl Cluster {
    /// Starts one announcer per node on the present tokio runtime. Nothing is sent yet.
    ///
    /// # Errors
    /// No node, an address that is none, or no runtime.
    pub fn new(settings: ClientSettings) -> Result<Cluster, ClientError> {
        if settings.nodes.is_empty() {
            return Err(ClientError::NoNodes);
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| ClientError::NoRuntime)?;
        let connections = exchange::connections(&settings)?;
        let mut views = Vec::new();
        for node in &settings.nodes {
            let checked: super::NodeAddress = node.url.parse()?;
            if checked.url.starts_with("https:") && settings.credentials.authorities.is_empty() {
                return Err(ClientError::NoAuthority { address: checked.url });
            }
            views.push(Arc::new(NodeView::new(checked.url, node.node)));
        }
        let settings = Arc::new(settings);
        let start = |(index, view): (Index, &Arc<NodeView>)| {
            let (sender, inbox) = mpsc::channel(WAITING_LIMIT);
            let (connections, settings) = (connections.clone(), settings.clone());
            runtime.spawn(Announcer { index, view: view.clone(), connections, settings, inbox }.run());
            sender
        };
        let announcers = views.iter().enumerate().map(start).collect();
        let shared = Shared {
            uploads: Semaphore::new(settings.upload_limit.max(1)),
            attempts: Mutex::default(),
            generator: Mutex::new(StdRng::seed_from_u64(settings.seed)),
            moved: Mutex::default(),
            leader: Mutex::default(),
            settings,
            connections,
            views,
        };
        Ok(Cluster { shared: Arc::new(shared), announcers })
    }

    /// Does one job: exactly one result, however many attempts it takes.
    ///
    /// # Errors
    /// A refusal that no retry mends, or no good answer before the deadline; with all attempts.
    pub async fn run(&self, job: Job) -> Result<Answer, RequestFailed> {
        let settings = &*self.shared.settings;
        let start = now();
        let mut attempts: Vec<Attempt> = Vec::new();
        let failed = |attempts, last| RequestFailed { id: job.id, attempts, last, took: now().since(start) };
        upload::check(&job.work).map_err(|error| failed(Vec::new(), error))?;
        let mut failed_node = None;
        loop {
            let began = now();
            let deadline = settings.request_deadline.saturating_sub(began.since(start));
            let (chosen, placed_by) = self.announce(&job, failed_node, deadline).await;
            let announce = now().since(began);
            let outcome = match chosen {
                Some(index) => self.attempt(&job, index, deadline.saturating_sub(announce)).await,
                None => Err(AttemptError::NoNode),
            };
            let mut attempt = Attempt {
                node: chosen.and_then(|index| self.shared.views[index].id()),
                placed_by,
                took: now().since(began),
                announce,
                failure: None,
            };
            let error = match outcome {
                Ok(finished) => {
                    let node = finished.node.or(attempt.node).unwrap_or_default();
                    attempt.node = Some(node);
                    attempts.push(attempt);
                    let Finished { image, job_time, repeated, .. } = finished;
                    return Ok(Answer { image, node, job_time, repeated, attempts });
                }
                Err(error) => error,
            };
            log::debug!("request {} attempt {} failed: {error}", job.id, attempts.len() + 1);
            attempt.failure = Some(error.code());
            attempts.push(attempt);
            let wait = back_off(settings, attempts.len(), error.retry_after(), self.shared.random());
            if !error.is_worth_a_retry() || now().since(start) + wait >= settings.request_deadline {
                return Err(failed(attempts, error));
            }
            failed_node = chosen.filter(|_| error.speaks_against_the_node());
            tokio::time::sleep(wait).await;
        }
    }

    /// Announces to all nodes and waits until it is clear where the job goes; none if no node takes jobs.
    async fn announce(&self, job: &Job, failed_node: Option<Index>, deadline: Duration) -> (Option<Index>, PlacedBy) {
        let shared = &*self.shared;
        let mut round = Round::new(shared.views.len());
        let request = EncryptionRequest {
            request_id: job.id,
            operation: job.work.operation(),
            size_bytes: job.image.len() as u64,
        };
        // Each node says at most that it is late and then its answer.
        let (words, mut heard) = mpsc::channel(2 * shared.views.len());
        for (index, announcer) in self.announcers.iter().enumerate() {
            if shared.views[index].health() != Health::Answers {
                round.hear(index, Word::Late);
            }
            if announcer.try_send(Waiting { request: request.clone(), words: words.clone() }).is_err() {
                round.hear(index, Word::NoAnswer);
            }
        }
        drop(words);
        let knowledge = AttemptKnowledge { shared, failed: failed_node };
        let start = now();
        loop {
            let limit = if round.has_active_answer() {
                shared.settings.announce_timeout
            } else {
                shared.settings.attempt_timeout
            };
            let rest = limit.min(deadline).saturating_sub(now().since(start));
            let clock = if rest.is_zero() { Clock::TimeIsUp } else { Clock::Running };
            match round.verdict(&knowledge, clock) {
                Verdict::Wait => match timeout(rest, heard.recv()).await {
                    Ok(Some((index, word))) => round.hear(index, word),
                    // All announcers are through with this request, or time is up: the next verdict is the last.
                    Ok(None) => round.close(),
                    Err(_) => {}
                },
                Verdict::Nobody => return (None, PlacedBy::Client),
                Verdict::Choose(candidates) => return (shared.choose(&candidates), PlacedBy::Client),
                Verdict::Placed(index) => {
                    shared.count(index);
                    return (Some(index), PlacedBy::Coordinator);
                }
            }
        }
    }

    /// Uploads once, within the attempt's time.
    async fn attempt(&self, job: &Job, index: Index, deadline: Duration) -> Result<Finished, AttemptError> {
        let shared = &*self.shared;
        let start = now();
        let place = timeout(deadline, shared.uploads.acquire()).await;
        let Ok(Ok(_place)) = place else { return Err(AttemptError::Timeout(deadline)) };
        let limit = shared.attempt_limit().min(deadline.saturating_sub(now().since(start)));
        let view = &shared.views[index];
        let began = now();
        let upload = upload::upload(&shared.connections, &view.url, job, shared.settings.answer_limit);
        let result = timeout(limit, upload).await.unwrap_or(Err(AttemptError::Timeout(limit)));
        shared.observe(&result, view, began);
        result
    }
}

impl Shared {
    /// A random number in [0, 1).
    pub fn random(&self) -> f64 {
        self.generator.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    /// Counts a job of that node at once.
    fn count(&self, index: Index) {
        self.views[index].place(now());
    }

    /// The least-loaded candidate, ties at random; counted under the same lock, so that simultaneous choices see one another.
    fn choose(&self, candidates: &[Candidate]) -> Option<Index> {
        let mut generator = self.generator.lock().unwrap_or_else(PoisonError::into_inner);
        let lowest = least_loaded(candidates, |candidate| self.views[candidate.index].uncovered(candidate.asked));
        let index = *lowest.choose(&mut *generator)?;
        self.count(index);
        Some(index)
    }

    /// How long an attempt may take now: twice the moving 99th percentile, within bounds.
    fn attempt_limit(&self) -> Duration {
        let settings = &self.settings;
        let p99 = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).p99().unwrap_or_default();
        (2 * p99).min(settings.request_deadline / 2).max(settings.attempt_timeout)
    }

    /// A success says how long attempts take. So does a timeout at a node that answers announcements: its jobs are slow, and
    /// if nobody learned from that, no job would ever get the time it needs. A timeout at a silent node says nothing.
    fn observe(&self, result: &Result<Finished, AttemptError>, view: &NodeView, began: Moment) {
        let slow_but_there = matches!(result, Err(AttemptError::Timeout(_))) && view.health() == Health::Answers;
        if result.is_ok() || slow_but_there {
            self.attempts.lock().unwrap_or_else(PoisonError::into_inner).record(now().since(began));
        }
    }
}
