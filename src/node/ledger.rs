//! The ledger as HTTP reaches it: writes and reads at the leader, or the way there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::shared::Shared;
use crate::config::HttpRules;
use crate::core::ledger::Page;
use crate::core::way::Known;
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

/// How long a caller is kept while the lead changes hands, before it is told that nobody leads: no attempt begins later. Longer than a
/// hand-over and than most elections: who is sent away comes back late, and who is kept is answered at the moment that it can be.
const KEPT: Duration = Duration::from_millis(200);

/// What may be kept at a time, in permits: 1,024 callers, 16 MiB of writes.
pub const KEPT_PERMITS: usize = 1024;

/// What one permit lets a caller keep.
const KEPT_PERMIT_BYTES: usize = 16 << 10;

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
    /// Why this leader takes no write at this moment, if as many wait as may wait: told before anything else is done about it.
    pub fn refuses_writes(&self) -> Option<Problem> {
        (self.raft.is_full_of_writes() && self.raft.leads()).then(|| self.overloaded())
    }

    /// Does a write, if this node leads.
    ///
    /// # Errors
    /// [`NotHere`].
    pub async fn write(self: Arc<Self>, write: Write) -> Result<Answer, NotHere> {
        self.as_leader(write.size_bytes(), || self.raft.write(write.clone())).await
    }

    /// Waits until what is read afterwards is the latest, if this node leads.
    ///
    /// # Errors
    /// [`NotHere`].
    pub async fn read_barrier(&self) -> Result<(), NotHere> {
        self.as_leader(0, || self.raft.read_barrier()).await
    }

    /// Does what a leader does. A caller who comes while the lead changes hands is kept until it is known who leads, within [`KEPT`], with
    /// the `bytes` of its request: meanwhile it is tried again, also when too many come to a new leader at once.
    ///
    /// # Errors
    /// [`NotHere`].
    pub async fn as_leader<T, F>(&self, bytes: usize, attempt: impl Fn() -> F) -> Result<T, NotHere>
    where
        F: Future<Output = Result<T, ProposeError>>,
    {
        let mut not_here = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => self.not_here(error),
        };
        if !is_refused(&not_here, ProblemCode::NoLeader) {
            return Err(not_here);
        }
        let permits = 1 + bytes / KEPT_PERMIT_BYTES;
        let Ok(_room) = self.kept.try_acquire_many(permits as u32) else { return Err(not_here) };
        let (until, mut step) = (time::now() + KEPT, KEPT_FIRST_STEP);
        let mut views = self.shared.views();
        // All who were kept come to a new leader at one moment, and may be more than may wait there.
        while is_refused(&not_here, ProblemCode::NoLeader) || is_refused(&not_here, ProblemCode::Overloaded) {
            let left = until.since(time::now());
            if left.is_zero() {
                break;
            }
            // Either a change, or time to look again; the sender lives as long as `shared`.
            let _ = timeout(step.min(left), views.changed()).await;
            step = KEPT_STEP.min(2 * step);
            not_here = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => self.not_here(error),
            };
        }
        Err(not_here)
    }

    /// Whether whom Raft names leads no more: nothing is handed on to it.
    pub fn raft_is_behind(&self) -> bool {
        self.known().raft_is_behind()
    }

    fn known(&self) -> Known {
        let views = self.raft.views();
        let view = views.borrow();
        let coordinator = self.shared.view().coordinator;
        Known { me: self.shared.node(), coordinator, term: view.term, leader: view.leader }
    }

    /// Who leads, after a refusal that has named a leader or none.
    fn leader_after(&self, named: Option<MemberId>) -> Option<MemberId> {
        let node = self.known().leader_after(named.map(|named| named.node))?;
        named.filter(|named| named.node == node).or_else(|| self.raft.roster().stands_for(node))
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
    pub fn at(&self, leader: MemberId) -> NotHere {
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
            ProposeError::NotLeader { leader } => match self.leader_after(leader) {
                Some(leader) => return self.at(leader),
                None => self.nobody_leads(),
            },
            // A majority is there, but writes take long: the disk, or the processors.
            ProposeError::NoQuorum | ProposeError::Overloaded => self.overloaded(),
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

    fn nobody_leads(&self) -> Problem {
        if let Some(quiet) = without_quorum(&self.shared, &self.raft) {
            let detail =
                format!("no quorum: no majority of the nodes has confirmed a leader for {:.1} s", quiet.as_secs_f64());
            return Problem::new(ProblemCode::NoQuorum, detail);
        }
        let detail = "no leader is confirmed at this moment: nothing was done, try again";
        Problem { retry_after_ms: Some(ELECTION_PAUSE_MS), ..Problem::new(ProblemCode::NoLeader, detail) }
    }

    /// Too many wait: for their turn, or for a majority.
    fn overloaded(&self) -> Problem {
        if without_quorum(&self.shared, &self.raft).is_some() {
            return self.nobody_leads();
        }
        let detail = "too many writes wait already: nothing was done, try again";
        Problem { retry_after_ms: Some(OVERLOAD_PAUSE_MS), ..Problem::new(ProblemCode::Overloaded, detail) }
    }
}

/// How long no majority has confirmed a leader, as far as a node knows; none if one has within the last second. A leader that is cut off
/// still believes that it leads: then it is its majority that counts.
pub fn without_quorum(shared: &Shared, raft: &RaftNode) -> Option<Duration> {
    let quiet = match shared.leaderless_since() {
        Some(since) => time::now().since(since),
        None => raft.quorum_age()?,
    };
    (quiet >= NO_QUORUM_AFTER).then_some(quiet)
}

fn is_refused(not_here: &NotHere, code: ProblemCode) -> bool {
    matches!(not_here, NotHere::Refused(problem) if problem.code == code)
}
