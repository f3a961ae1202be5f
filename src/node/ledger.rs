//! The ledger as HTTP reaches it: writes and reads at the leader, or the way there.

use std::sync::Arc;
use std::time::Duration;

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

/// What a caller waits who comes during an election, in milliseconds.
const ELECTION_PAUSE_MS: u64 = 20;

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
        match self.raft.write(write).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.not_here(error)),
        }
    }

    /// Reads: linearizable if this node leads, or what it has applied so far (`stale`).
    ///
    /// # Errors
    /// [`NotHere`].
    pub async fn read(self: Arc<Self>, question: Question, stale: bool) -> Result<Found, NotHere> {
        if !stale && let Err(error) = self.raft.read_barrier().await {
            return Err(self.not_here(error));
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

    /// Why this node does not do it, or who does.
    pub fn not_here(&self, error: ProposeError) -> NotHere {
        let problem = match error {
            // Raft names its last leader for as long as there is no other, also while this node misses it: nobody is sent there.
            ProposeError::NotLeader { .. } if self.shared.leaderless_since().is_some() => self.nobody_leads(),
            ProposeError::NotLeader { leader: Some(leader) } => match self.base(leader) {
                Some(base) => return NotHere::Leader { node: leader.node, base },
                None => Problem::new(ProblemCode::Internal, format!("node {} leads, at no known address", leader.node)),
            },
            ProposeError::NotLeader { leader: None } => self.nobody_leads(),
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
