//! Admission: how much work a node takes, what it says when it has enough, and how a repeated request is answered once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::id::{Load, RequestId};
use crate::time::Moment;

/// The numbers of the admission.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Image workers.
    pub workers: u32,
    /// Jobs that may wait per worker.
    pub waiting_per_worker: u32,
    /// Memory for images, in bytes: from their admission to the end of their job, and for answers that are being sent.
    pub transfer_bytes: u64,
    /// Answers kept for repeated request ids, in bytes.
    pub repeat_bytes: u64,
    /// Load added to the node's own, in jobs per worker: simulated I/O.
    pub simulated_load: f64,
    /// Time constant of the smoothed load.
    pub smoothing: Duration,
}

/// Why a job is not taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// How long to wait before the next attempt.
    pub retry_after: Duration,
    /// Which bound was reached, for people.
    pub bound: &'static str,
}

/// What a node does with a job that is offered to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission<A> {
    /// Take it.
    Admitted,
    /// The same request is being done: wait for its answer.
    InProgress,
    /// The same request was done: here is its answer, no second job.
    Repeated(A),
    /// Not now.
    Busy(Busy),
}

/// Jobs of one node. `A` is an answer, shared cheaply.
#[derive(Debug)]
pub struct Jobs<A> {
    settings: Settings,
    queued: u32,
    running: u32,
    reserved_bytes: u64,
    accepted: u64,
    done: u64,
    refused: u64,
    repeated: u64,
    smoothed: f64,
    smoothed_at: Moment,
    mean_job: Duration,
    in_progress: BTreeSet<RequestId>,
    answers: BTreeMap<RequestId, (A, u64)>,
    oldest_first: VecDeque<RequestId>,
    answer_bytes: u64,
}

/// Counters for the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs that wait.
    pub queued: u32,
    /// Jobs that a worker is doing.
    pub running: u32,
    /// Jobs accepted since the start.
    pub accepted: u64,
    /// Jobs done since the start.
    pub done: u64,
    /// Jobs refused since the start.
    pub refused: u64,
    /// Answers from the cache since the start.
    pub repeated: u64,
}

impl<A: Clone> Jobs<A> {
    /// An idle node.
    pub fn new(settings: Settings, now: Moment) -> Self {
        Jobs {
            smoothed: settings.simulated_load,
            settings,
            queued: 0,
            running: 0,
            reserved_bytes: 0,
            accepted: 0,
            done: 0,
            refused: 0,
            repeated: 0,
            smoothed_at: now,
            mean_job: Duration::from_millis(10),
            in_progress: BTreeSet::new(),
            answers: BTreeMap::new(),
            oldest_first: VecDeque::new(),
            answer_bytes: 0,
        }
    }

    /// Offers a job whose image has `bytes` bytes. An admitted one ends with exactly one [`Jobs::finish`].
    pub fn offer(&mut self, now: Moment, id: RequestId, bytes: u64) -> Admission<A> {
        if let Some((answer, _)) = self.answers.get(&id) {
            self.repeated += 1;
            return Admission::Repeated(answer.clone());
        }
        if self.in_progress.contains(&id) {
            return Admission::InProgress;
        }
        let limit = self.settings.workers * (1 + self.settings.waiting_per_worker);
        let full = self.queued + self.running >= limit;
        // A job alone is always taken: the limit of one original is checked elsewhere.
        let over = self.reserved_bytes > 0 && self.reserved_bytes + bytes > self.settings.transfer_bytes;
        if full || over {
            self.refused += 1;
            let bound = if full { "jobs waiting" } else { "memory for images" };
            return Admission::Busy(Busy { retry_after: self.drain_time(), bound });
        }
        self.observe(now);
        self.in_progress.insert(id);
        self.queued += 1;
        self.accepted += 1;
        self.reserved_bytes += bytes;
        Admission::Admitted
    }

    /// A worker takes a queued job.
    pub fn start(&mut self, now: Moment) {
        self.observe(now);
        self.queued = self.queued.saturating_sub(1);
        self.running += 1;
    }

    /// An admitted job of `bytes` bytes ends: `phase` says where it stood, and an answer of `size` bytes is kept for
    /// repetitions.
    pub fn finish(&mut self, now: Moment, id: RequestId, bytes: u64, phase: Phase, answer: Option<(A, u64)>) {
        self.observe(now);
        self.in_progress.remove(&id);
        self.reserved_bytes = self.reserved_bytes.saturating_sub(bytes);
        match phase {
            Phase::Queued => self.queued = self.queued.saturating_sub(1),
            Phase::Running { took } => {
                self.running = self.running.saturating_sub(1);
                self.mean_job = (self.mean_job * 15 + took) / 16;
            }
        }
        if let Some((answer, size)) = answer {
            self.done += 1;
            self.keep(id, answer, size);
        }
    }

    /// An answer of `bytes` bytes begins to leave. It was admitted already, so it is counted, not refused: what counts against
    /// the bound is what comes after it.
    pub fn begin_sending(&mut self, bytes: u64) {
        self.reserved_bytes += bytes;
    }

    /// That answer has left, or its reader has gone.
    pub fn end_sending(&mut self, bytes: u64) {
        self.reserved_bytes = self.reserved_bytes.saturating_sub(bytes);
    }

    /// The load at this instant, in jobs per worker.
    pub fn pressure(&self) -> Load {
        Load::from(self.instant_load())
    }

    /// The smoothed load, in jobs per worker.
    pub fn load(&mut self, now: Moment) -> Load {
        self.observe(now);
        Load::from(self.smoothed)
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        Counters {
            queued: self.queued,
            running: self.running,
            accepted: self.accepted,
            done: self.done,
            refused: self.refused,
            repeated: self.repeated,
        }
    }

    fn instant_load(&self) -> f64 {
        f64::from(self.queued + self.running) / f64::from(self.settings.workers.max(1)) + self.settings.simulated_load
    }

    /// Exponential smoothing over the time that the present load has lasted.
    fn observe(&mut self, now: Moment) {
        let elapsed = now.since(self.smoothed_at).as_secs_f64();
        let weight = 1.0 - (-elapsed / self.settings.smoothing.as_secs_f64().max(1e-6)).exp();
        self.smoothed += (self.instant_load() - self.smoothed) * weight;
        self.smoothed_at = now;
    }

    /// How long the work at hand will take, between 10 ms and 1 s.
    fn drain_time(&self) -> Duration {
        let waiting = self.mean_job * (self.queued + self.running) / self.settings.workers.max(1);
        (waiting / 2).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    fn keep(&mut self, id: RequestId, answer: A, size: u64) {
        if size > self.settings.repeat_bytes {
            return;
        }
        self.answers.insert(id, (answer, size));
        self.oldest_first.push_back(id);
        self.answer_bytes += size;
        while self.answer_bytes > self.settings.repeat_bytes {
            let Some(oldest) = self.oldest_first.pop_front() else { break };
            if let Some((_, size)) = self.answers.remove(&oldest) {
                self.answer_bytes -= size;
            }
        }
    }
}

/// Where an admitted job stood when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No worker had taken it: the client went away, or the upload failed.
    Queued,
    /// A worker had it.
    Running {
        /// The worker's time.
        took: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs() -> Jobs<&'static str> {
        let settings = Settings {
            workers: 2,
            waiting_per_worker: 1,
            transfer_bytes: 1000,
            repeat_bytes: 100,
            simulated_load: 0.0,
            smoothing: Duration::from_millis(500),
        };
        Jobs::new(settings, Moment(0))
    }

    fn id(number: u8) -> RequestId {
        RequestId([number; 16])
    }

    const TOOK: Phase = Phase::Running { took: Duration::from_millis(10) };

    #[test]
    fn over_the_limit_it_says_busy_at_once_and_counts_it() {
        let mut jobs = jobs();
        for number in 0..4 {
            assert_eq!(jobs.offer(Moment(0), id(number), 10), Admission::Admitted);
        }
        let Admission::Busy(busy) = jobs.offer(Moment(0), id(9), 10) else { panic!("a fifth job was admitted") };
        assert!(busy.retry_after >= Duration::from_millis(10) && busy.bound == "jobs waiting");
        jobs.finish(Moment(1), id(0), 10, Phase::Queued, None);
        assert_eq!(jobs.offer(Moment(1), id(9), 10), Admission::Admitted);
        assert_eq!(jobs.counters().refused, 1);
    }

    #[test]
    fn memory_is_reserved_before_anything_is_read_but_one_job_alone_always_fits() {
        let mut jobs = jobs();
        assert_eq!(jobs.offer(Moment(0), id(1), 5000), Admission::Admitted);
        assert!(matches!(jobs.offer(Moment(0), id(2), 1), Admission::Busy(Busy { bound: "memory for images", .. })));
        jobs.finish(Moment(1), id(1), 5000, Phase::Queued, None);
        assert_eq!(jobs.offer(Moment(1), id(2), 1), Admission::Admitted);
    }

    #[test]
    fn answers_that_slow_readers_do_not_take_count_until_they_are_gone() {
        let mut jobs = jobs();
        jobs.begin_sending(1000);
        assert!(matches!(jobs.offer(Moment(0), id(1), 1), Admission::Busy(Busy { bound: "memory for images", .. })));
        jobs.end_sending(1000);
        assert_eq!(jobs.offer(Moment(1), id(1), 1), Admission::Admitted);
    }

    #[test]
    fn a_repeated_id_gets_the_same_answer_and_no_second_job() {
        let mut jobs = jobs();
        assert_eq!(jobs.offer(Moment(0), id(1), 1), Admission::Admitted);
        assert_eq!(jobs.offer(Moment(0), id(1), 1), Admission::InProgress);
        jobs.start(Moment(1));
        jobs.finish(Moment(2), id(1), 1, TOOK, Some(("first", 60)));
        assert_eq!(jobs.offer(Moment(3), id(1), 1), Admission::Repeated("first"));
        assert_eq!(jobs.counters().done, 1);
    }

    #[test]
    fn kept_answers_are_bounded_and_the_oldest_goes_first() {
        let mut jobs = jobs();
        for number in 1..=2 {
            jobs.offer(Moment(0), id(number), 1);
            jobs.start(Moment(0));
            jobs.finish(Moment(0), id(number), 1, TOOK, Some(("kept", 60)));
        }
        assert_eq!(jobs.offer(Moment(1), id(1), 1), Admission::Admitted);
        assert_eq!(jobs.offer(Moment(1), id(2), 1), Admission::Repeated("kept"));
    }

    #[test]
    fn the_load_is_jobs_per_worker_smoothed_over_half_a_second() {
        let mut jobs = jobs();
        jobs.offer(Moment(0), id(1), 1);
        jobs.start(Moment(0));
        assert_eq!(jobs.pressure().to_string(), "0.50");
        assert_eq!(jobs.load(Moment(0)).to_string(), "0.00");
        assert_eq!(jobs.load(Moment::from_millis(500)).to_string(), "0.32");
        assert_eq!(jobs.load(Moment::from_millis(10_000)).to_string(), "0.50");
    }
}
