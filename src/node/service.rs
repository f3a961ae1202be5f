//! The node as HTTP sees it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Addr;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::actor::{Announced, FailCommanded, Node, StatusAsked};
use super::desk::Desk;
use super::ledger::Ledger;
use super::members::Membership;
use super::rights::RightsDesk;
use super::shared::Shared;
use crate::http::{Found, JobOrder, Limits, NodeService, NotHere, Question, Reservation, RightsService, Sending};
use crate::id::{NodeId, RequestId};
use crate::protocol::election::ElectionResult;
use crate::protocol::event::{Event, EventKind};
use crate::protocol::fault::{self, LinkFault};
use crate::protocol::job::{Announcement, EncryptionResponse};
use crate::protocol::ledger::{Answer, Change, Write};
use crate::protocol::membership::{ChangeRequest, Changed, Members};
use crate::protocol::problem::{Problem, ProblemCode};
use crate::protocol::status::{NodeState, NodeStatus};
use crate::raft::HashError;
use crate::transport::Faults;

/// When a node that is not Active may be asked again: by then the client knows which other node to ask.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// When a caller may ask again for a hash of the state, of which one at a time is made.
const HASH_PAUSE: Duration = Duration::from_millis(200);

/// The node behind its HTTP side.
pub struct Counter {
    /// The actor.
    pub node: Addr<Node>,
    /// Where jobs are taken.
    pub desk: Desk,
    /// What is known of the node.
    pub shared: Arc<Shared>,
    /// The faults of the node's links.
    pub faults: Faults,
    /// Limits of uploads.
    pub limits: Limits,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Who belongs to the cluster.
    pub membership: Membership,
    /// Users and images.
    pub rights: RightsDesk,
    /// For callers that name no request id, if the system's randomness fails.
    pub random: Mutex<SmallRng>,
}

fn stopping(error: actix::MailboxError) -> Problem {
    Problem::new(ProblemCode::Internal, format!("the node is stopping: {error}"))
}

fn not_active(state: NodeState) -> Problem {
    let advice = match state {
        NodeState::Stopping => "it finishes its jobs and takes no new ones; send the request to another node",
        _ => "it takes jobs when it is Active",
    };
    let retry_after_ms = Some(RETRY_AFTER.as_millis() as u64);
    Problem { retry_after_ms, ..Problem::new(ProblemCode::NotActive, format!("this node is {state}: {advice}")) }
}

impl NodeService for Counter {
    fn rights(&self) -> &dyn RightsService {
        &self.rights
    }

    fn node(&self) -> NodeId {
        self.shared.node()
    }

    fn address(&self) -> SocketAddr {
        self.shared.address
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn fresh_id(&self) -> RequestId {
        // What a seed gives comes again with the next start, and a repeated id gets the answer of its first request.
        let mut bytes = [0; 16];
        if aws_lc_rs::rand::fill(&mut bytes).is_err() {
            self.random.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut bytes);
        }
        RequestId(bytes)
    }

    fn announce(&self, announcement: Announcement) -> BoxFuture<'static, Result<Vec<EncryptionResponse>, Problem>> {
        let answer = self.node.send(Announced(announcement));
        async move { answer.await.map_err(stopping) }.boxed()
    }

    fn reserve(&self, order: JobOrder) -> BoxFuture<'static, Result<Reservation, Problem>> {
        let (desk, state) = (self.desk.clone(), self.shared.view().state);
        async move {
            match state {
                NodeState::Active => desk.reserve(order).await,
                state => Err(not_active(state)),
            }
        }
        .boxed()
    }

    fn sending(&self, bytes: usize) -> Sending {
        Box::new(self.desk.sending(bytes as u64))
    }

    fn status(&self) -> BoxFuture<'static, Result<NodeStatus, Problem>> {
        let answer = self.node.send(StatusAsked);
        async move { answer.await.map(|status| *status).map_err(stopping) }.boxed()
    }

    fn events(&self, since: u64) -> Vec<Event> {
        self.shared.events.since(since)
    }

    fn elections(&self) -> Vec<ElectionResult> {
        self.ledger.raft.elections()
    }

    fn fail(&self, duration: Duration) -> BoxFuture<'static, Result<(), Problem>> {
        let command = self.node.send(FailCommanded(duration));
        async move { command.await.map_err(stopping) }.boxed()
    }

    fn refuses_writes(&self) -> Option<Problem> {
        self.ledger.refuses_writes()
    }

    fn write(&self, write: Write) -> BoxFuture<'static, Result<Answer, NotHere>> {
        self.ledger.clone().write(write).boxed()
    }

    fn read(&self, question: Question, stale: bool) -> BoxFuture<'static, Result<Found, NotHere>> {
        self.ledger.clone().read(question, stale).boxed()
    }

    fn revision(&self) -> u64 {
        self.ledger.raft.read(|ledger| ledger.revision()).1
    }

    fn changes_after(&self, revision: u64, prefix: &[u8], limit: usize) -> Result<(Vec<Change>, u64), Problem> {
        let changes = self.ledger.raft.changes_after(revision, prefix, limit);
        changes.map_err(|forgotten| Problem::new(ProblemCode::Forgotten, forgotten.to_string()))
    }

    fn revision_after(&self, revision: u64) -> BoxFuture<'static, ()> {
        let mut revisions = self.ledger.raft.ledger_revision();
        async move {
            // An error means that the node is stopping, which ends the wait as well.
            let _ = revisions.wait_for(|latest| *latest > revision).await;
        }
        .boxed()
    }

    fn state_hash(&self) -> BoxFuture<'static, Result<(u64, [u8; 32]), Problem>> {
        let raft = self.ledger.raft.clone();
        async move {
            let internal = |error: String| Problem::new(ProblemCode::Internal, error);
            let hashed = tokio::task::spawn_blocking(move || raft.state_hash()).await;
            match hashed.map_err(|error| internal(error.to_string()))? {
                Err(busy @ HashError::Busy) => {
                    let retry_after_ms = Some(HASH_PAUSE.as_millis() as u64);
                    Err(Problem { retry_after_ms, ..Problem::new(ProblemCode::Overloaded, busy.to_string()) })
                }
                hashed => hashed.map_err(|error| internal(error.to_string())),
            }
        }
        .boxed()
    }

    fn members(&self) -> BoxFuture<'static, Result<Members, Problem>> {
        self.membership.clone().list().boxed()
    }

    fn change_members(&self, change: ChangeRequest) -> BoxFuture<'static, Result<Changed, NotHere>> {
        self.membership.clone().change(change).boxed()
    }

    fn faults(&self) -> Vec<LinkFault> {
        self.faults.standing()
    }

    fn set_faults(&self, faults: &[LinkFault]) -> Result<(), Problem> {
        self.faults.replace(faults).map_err(|error| Problem::new(ProblemCode::BadRequest, error.to_string()))?;
        let faults = self.faults.standing();
        let view = self.shared.view();
        log::warn!("node {} term {} {}: {}", self.shared.node(), view.term, view.state, fault::in_words(&faults));
        self.shared.record(EventKind::LinkFaults { faults });
        Ok(())
    }

    fn not_ready(&self) -> Option<Problem> {
        let view = self.shared.view();
        (view.state != NodeState::Active).then(|| not_active(view.state))
    }

    fn failures(&self) -> u64 {
        self.shared.failures()
    }

    fn silence(&self) -> Option<BoxFuture<'static, ()>> {
        self.shared.silence()
    }
}
