//! The ledger as HTTP reaches it: writes and reads at the leader, or the way there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::shared::Shared;
use crate::config::HttpRules;
use crate::core::ledger::Page;
use crate::http::{Found, NotHere, Question};
use crate::id::MemberId;
use crate::protocol::ledger::{Answer, Write};
use crate::protocol::problem::{Problem, ProblemCode};
use crate::raft::{ProposeError, RaftNode};
use crate::time;

/// Without a leader for so long a caller is told that there is no quorum; before that an election may be under way.
const NO_QUORUM_AFTER: Duration = Duration::from_secs(1);

/// What a caller waits who was kept in vain, in milliseconds.
const ELECTION_PAUSE_MS: u64 = 20;

/// How long a caller is kept while the lead changes hands, before it is told that nobody leads. Longer than a hand-over and than most
/// elections: who is sent away comes back late, and who is kept is answered at the moment that it can be.
const KEPT: Duration = Duration::from_millis(200);

/// How many callers are kept at a time.
pub const KEPT_CALLERS: usize = 1024;

/// After what time it is first tried again for a caller who is kept, besides at each change: a new leader takes writes when a majority has
/// answered its first message, and an old one when it is heard again.
const KEPT_FIRST_STEP: Duration = Duration::from_millis(1);

/// Each such time is twice the one before, up to this.
const KEPT_STEP: Duration = Duration::from_millis(20);

/// What a caller waits who comes when too many are waiting, in milliseconds.
const OVERLOAD_PAUSE_MS: u64 = 50;

/// The ledger of this node. Clones share it.
#[derive(Clone)]
pub struct Ledger {
    /// Raft.
    pub raft: RaftNode,
    /// What is known of the node.
    pub shared: Arc<Shared>,
    /// Which addresses are served with TLS.
    pub rules: Arc<HttpRules>,
    /// Room for callers who are kept while the lead changes hands.
    pub kept: Arc<Semaphore>,
}

impl Ledger {
    /// Why no write is taken at this moment, if as many wait as may wait: told before anything else is done about it.
    pub fn refuses_writes(&self) -> Option<Problem> {
        self.raft.is_full_of_writes().then(overloaded)
    }

    /// Does a write, if this node leads.
    ///
    /// # Errors
    /// [`NotHere`].
    pub async fn write(self: Arc<Self>, write: Write) -> Result<Answer, NotHere> {
        self.as_leader(|| self.raft.write(write.clone())).await
    }

    /// Waits until what is read afterwards is the latest, if this node leads.
    ///
    /// # Errors
    /// [`NotHere`].
    pub async fn read_barrier(&self) -> Result<(), NotHere> {
        self.as_leader(|| self.raft.read_barrier()).await
    }

    /// Does what a leader does. A caller who comes while the lead changes hands is kept until it has a new place: within [`KEPT`] it is tried
    /// again.
    ///
    /// # Errors
    /// [`NotHere`].
    pub async fn as_leader<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, NotHere>
    where
        F: Future<Output = Result<T, ProposeError>>,
    {
        let mut error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let Ok(_room) = self.kept.try_acquire() else { return Err(self.not_here(error)) };
        let (begun, mut step) = (time::now(), KEPT_FIRST_STEP);
        let mut views = self.shared.views();
        while matches!(error, ProposeError::NotLeader { .. }) && self.is_unsettled() && time::now().since(begun) < KEPT
        {
            // Either a change, or time to look again; the sender lives as long as `shared`.
            let _ = timeout(step, views.changed()).await;
            step = KEPT_STEP.min(2 * step);
            error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
        }
        Err(self.not_here(error))
    }

    /// Who leads by what this node has heard, which can be sooner than by the refusal of its own Raft.
    fn other_coordinator(&self) -> Option<MemberId> {
        let node = self.shared.view().coordinator?.node;
        (node != self.shared.node()).then(|| self.raft.roster().stands_for(node)).flatten()
    }

    /// Whether it is not known at this moment who leads: nobody, not for long yet, or this node by what it has heard so far.
    fn is_unsettled(&self) -> bool {
        let coordinator = self.shared.view().coordinator;
        coordinator.is_none_or(|coordinator| coordinator.node == self.shared.node()) && self.quiet() < NO_QUORUM_AFTER
    }

    /// Reads: linearizable if this node leads, or what it has applied so far (`stale`).
    ///
    /// # Errors
    /// [`NotHere`].
    pub async fn read(self: Arc<Self>, question: Question, stale: bool) -> Result<Found, NotHere> {
        if !stale {
            self.read_barrier().await?;
        }
        let (commit, (revision, page)) = match &question {
            Question::Key(key) => self.raft.read(|ledger| {
                let page = Page { items: ledger.get(key).into_iter().collect(), more: false };
                (ledger.revision(), page)
            }),
            // A page may take a while: what is applied does not wait for it.
            Question::Prefix { prefix, after, limit } => {
                let (commit, ledger) = self.raft.ledger();
                (commit, (ledger.revision(), ledger.list(prefix, after.as_deref(), *limit)))
            }
        };
        Ok(Found { commit, revision, items: page.items, more: page.more })
    }

    /// Where a member answers, as `http://host:port` or `https://…`.
    fn base(&self, member: MemberId) -> Option<String> {
        let address = self.raft.rosters().borrow().places.get(&member)?.http;
        Some(self.rules.url(address))
    }

    /// The way to a leader.
    fn at(&self, leader: MemberId) -> NotHere {
        match self.base(leader) {
            Some(base) => NotHere::Leader { node: leader.node, base },
            None => {
                let detail = format!("node {} leads, at no known address", leader.node);
                NotHere::Refused(Problem::new(ProblemCode::Internal, detail))
            }
        }
    }

    /// Why this node does not do it, or who does.
    pub fn not_here(&self, error: ProposeError) -> NotHere {
        let problem = match error {
            // Raft names its last leader for as long as there is no other, also while this node misses it: nobody is sent there.
            ProposeError::NotLeader { .. } if self.shared.leaderless_since().is_some() => self.nobody_leads(),
            ProposeError::NotLeader { leader } => match leader.or_else(|| self.other_coordinator()) {
                Some(leader) => return self.at(leader),
                None => self.nobody_leads(),
            },
            // A majority is there, but writes take long: the disk, or the processors.
            ProposeError::NoQuorum if self.quiet() < NO_QUORUM_AFTER => overloaded(),
            ProposeError::NoQuorum => self.nobody_leads(),
            ProposeError::Overloaded => overloaded(),
            ProposeError::Full { .. } => Problem::new(ProblemCode::StorageFull, error.to_string()),
            ProposeError::Unknown(why) => {
                let detail = format!(
                    "it may or may not be done later ({why}): repeat it with the same {}",
                    crate::protocol::job::route::REQUEST_ID
                );
                Problem::new(ProblemCode::OutcomeUnknown, detail)
            }
            ProposeError::Stopped(fault) => Problem::new(ProblemCode::Internal, fault.to_string()),
        };
        NotHere::Refused(problem)
    }

    /// How long no majority has confirmed a leader. One that is cut off still believes that it leads: then it is its majority that
    /// counts.
    fn quiet(&self) -> Duration {
        match self.shared.leaderless_since() {
            Some(since) => time::now().since(since),
            None => self.raft.quorum_age().unwrap_or_default(),
        }
    }

    fn nobody_leads(&self) -> Problem {
        let quiet = self.quiet();
        if quiet >= NO_QUORUM_AFTER {
            let detail =
                format!("no quorum: no majority of the nodes has confirmed a leader for {:.1} s", quiet.as_secs_f64());
            return Problem::new(ProblemCode::NoQuorum, detail);
        }
        let detail = "no leader is confirmed at this moment: nothing was done, try again";
        Problem { retry_after_ms: Some(ELECTION_PAUSE_MS), ..Problem::new(ProblemCode::NoLeader, detail) }
    }
}

fn overloaded() -> Problem {
    let detail = "too many writes wait already: nothing was done, try again";
    Problem { retry_after_ms: Some(OVERLOAD_PAUSE_MS), ..Problem::new(ProblemCode::Overloaded, detail) }
}
