//! Changing who belongs to the cluster, step by step, at the leader. What may be done is `core::membership`'s to say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::actor::{GiveUpLead, HeardAsked, Node};
use super::ledger::Ledger;
use crate::core::membership::{self, Order, Plan, Refusal, Roster, Situation};
use crate::http::NotHere;
use crate::id::{MemberId, NodeId};
use crate::protocol::membership::{
    Change, ChangeRequest, Changed, Introduction, MemberRole, MemberStatus, Members, Place, warning_of_size,
};
use crate::protocol::problem::{Problem, ProblemCode};
use crate::raft::{MembershipError, ProposeError};
use crate::time;
use crate::transport::Links;

/// How long a greeting may take of whoever is to be taken in.
const GREETING: Duration = Duration::from_secs(1);

/// How long the hand-over may take of a leader that is to leave. It takes a few milliseconds.
const HAND_OVER: Duration = Duration::from_secs(1);

/// For how long a leader that is to leave takes no lead again: long enough for the change at the next one.
const KEEPS_AWAY: Duration = Duration::from_secs(5);

/// The members as this node shows and changes them. Clones share it.
#[derive(Clone)]
pub struct Membership {
    /// The actor, which knows who was heard.
    pub node: Addr<Node>,
    /// Raft, and the way to the leader.
    pub ledger: Ledger,
    /// The way to whoever is to be taken in.
    pub links: Links,
    /// One change at a time.
    pub changing: Arc<Mutex<()>>,
}

impl Membership {
    /// The members as this node knows them.
    ///
    /// # Errors
    /// The node is stopping.
    pub async fn list(self) -> Result<Members, Problem> {
        let raft = &self.ledger.raft;
        let (heard, roster) = (self.heard().await?, raft.rosters().borrow().clone());
        let me = self.ledger.shared.member;
        let (leads, entries) = {
            let view = raft.views().borrow().clone();
            (view.leader == Some(me.node), view.last_log.length)
        };
        let status = |(member, place): (&MemberId, &Place)| MemberStatus {
            node: member.node,
            incarnation: member.incarnation,
            role: roster.role(*member).unwrap_or(MemberRole::Learner),
            address: place.http.to_string(),
            peer_address: place.peer.to_string(),
            since_unix_ms: place.since_unix_ms,
            last_seen_ms: heard.get(member).map(|age| age.as_millis() as u64),
            entries: if *member == me { leads.then_some(entries) } else { raft.progress(*member).map(|(has, _)| has) },
        };
        Ok(Members {
            node: me.node,
            leads,
            commit: roster.length,
            entries,
            is_changing: roster.is_changing(),
            members: roster.places.iter().map(status).collect(),
            warnings: warning_of_size(roster.next_voters.len()).into_iter().collect(),
        })
    }

    /// Makes a change, if this node leads. It goes on when the caller leaves: half of a change helps nobody.
    ///
    /// # Errors
    /// [`NotHere`].
    pub async fn change(self, request: ChangeRequest) -> Result<Changed, NotHere> {
        let order = Order::of(&request).map_err(|wrong| refused(ProblemCode::BadRequest, wrong.to_string()))?;
        let lost = |error: tokio::task::JoinError| refused(ProblemCode::Internal, error.to_string());
        tokio::spawn(async move { self.perform(order).await }).await.unwrap_or_else(|error| Err(lost(error)))
    }

    async fn perform(&self, order: Order) -> Result<Changed, NotHere> {
        // Nobody but a leader with a majority knows what the membership is.
        self.ledger.read_barrier().await?;
        let _one_at_a_time = self.begin()?;
        let me = self.ledger.shared.node();
        let done = match order {
            Order::Remove { node } => self.remove(node).await?,
            Order::Admit { change, node, place, wait } => self.admit(change, node, place, wait).await?,
        };
        let view = self.ledger.raft.views().borrow().clone();
        log::info!("node {me} term {}: members: {done}", view.term);
        let members = self.clone().list().await.map_err(NotHere::Refused)?;
        Ok(Changed { done, members })
    }

    fn begin(&self) -> Result<OwnedMutexGuard<()>, NotHere> {
        self.changing.clone().try_lock_owned().map_err(|_| self.refusal(Refusal::Unfinished))
    }

    async fn remove(&self, node: NodeId) -> Result<String, NotHere> {
        let roster = self.ledger.raft.roster();
        let plan = membership::plan_removal(self.situation(&roster, &self.live(&roster).await), node);
        match plan.map_err(|refusal| self.refusal(refusal))? {
            Plan::Remove { leaves } => {
                self.ledger.raft.change_voters(&roster, None, &leaves).await.map_err(|error| self.failed(error))?;
                Ok(format!("node {node} is removed"))
            }
            _ => Err(self.hand_over().await),
        }
    }

    async fn admit(&self, change: Change, node: NodeId, place: Place, wait: Duration) -> Result<String, NotHere> {
        let raft = &self.ledger.raft;
        let roster = raft.roster();
        let live = self.live(&roster).await;
        membership::check(self.situation(&roster, &live), change, node, Some(place))
            .map_err(|refusal| self.refusal(refusal))?;
        let found = self.introduction(node, place).await?;
        let plan = membership::plan_admission(self.situation(&roster, &live), change, node, place, found);
        match plan.map_err(|refusal| self.refusal(refusal))? {
            Plan::TakeIn { member, place, leaves } => {
                let place = roster.dated(member, place, time::unix_millis());
                raft.take_in(&roster, member, place).await.map_err(|error| self.failed(error))?;
                log::info!("node {}: {member} at {} is a learner now", self.ledger.shared.node(), place.http);
                raft.wait_until_caught_up(member, wait).await.map_err(|error| self.failed(error))?;
                self.promote(change, node, place, found, &leaves).await?;
                let verb = if change == Change::Add { "added" } else { "replaced" };
                Ok(format!("node {node} is {verb}: {member} at {} is a voter", place.http))
            }
            Plan::Move { member, place } => {
                raft.take_in(&roster, member, place).await.map_err(|error| self.failed(error))?;
                Ok(format!("node {node} ({member}) is found at {} from now on", place.http))
            }
            Plan::HandOverFirst | Plan::Remove { .. } => Err(self.hand_over().await),
        }
    }

    /// While it caught up the world went on: what was planned must still be right.
    async fn promote(
        &self,
        change: Change,
        node: NodeId,
        place: Place,
        found: Introduction,
        leaves: &BTreeSet<MemberId>,
    ) -> Result<(), NotHere> {
        let roster = self.ledger.raft.roster();
        let live = self.live(&roster).await;
        let again = membership::plan_admission(self.situation(&roster, &live), change, node, place, found);
        match again.map_err(|refusal| self.refusal(refusal))? {
            Plan::TakeIn { member, leaves: now, .. } if now == *leaves => {
                let changed = self.ledger.raft.change_voters(&roster, Some(member), leaves).await;
                changed.map_err(|error| self.failed(error))
            }
            _ => Err(self.failed(MembershipError::Changed)),
        }
    }

    /// Who answers at that place.
    async fn introduction(&self, node: NodeId, place: Place) -> Result<Introduction, NotHere> {
        let me = self.ledger.shared.member;
        if (self.ledger.shared.place.http, self.ledger.shared.place.peer) == (place.http, place.peer) {
            let last_log = self.ledger.raft.views().borrow().last_log;
            return Ok(Introduction { member: me, place, last_log });
        }
        self.links.introduce(node, place.peer, GREETING).await.map_err(|error| {
            let text = format!(
                "no node {node} of this cluster answers there ({error}): start it first, with an empty directory and \
                 `cloud-node {node} --listen {} --join`; --peer names its address for other nodes, if that is another than {}",
                place.http, place.peer
            );
            refused(ProblemCode::Conflict, text)
        })
    }

    /// A leader that is to leave gives the lead away: the caller is sent to the next one.
    async fn hand_over(&self) -> NotHere {
        let me = self.ledger.shared.node();
        let mut views = self.ledger.raft.views();
        if self.node.send(GiveUpLead(KEEPS_AWAY)).await.is_err() {
            return refused(ProblemCode::Internal, "the node is stopping".to_owned());
        }
        let other = |leader: &Option<NodeId>| leader.filter(|leader| *leader != me);
        let waiting = views.wait_for(|view| other(&view.leader).is_some());
        let leader = match tokio::time::timeout(HAND_OVER, waiting).await {
            Ok(Ok(view)) => other(&view.leader),
            _ => None,
        };
        let Some(leader) = leader else {
            let text = format!("node {me} leads and could hand over to nobody: nothing was done, try again");
            return refused(ProblemCode::Conflict, text);
        };
        match self.ledger.raft.roster().stands_for(leader) {
            Some(leader) => self.ledger.at(leader),
            None => self.ledger.not_here(ProposeError::NotLeader { leader: None }),
        }
    }

    fn situation<'a>(&self, roster: &'a Roster, live: &'a BTreeSet<MemberId>) -> Situation<'a> {
        Situation { roster, me: self.ledger.shared.member, live }
    }

    async fn heard(&self) -> Result<BTreeMap<MemberId, Duration>, Problem> {
        let stopping = |error| Problem::new(ProblemCode::Internal, format!("the node is stopping: {error}"));
        self.node.send(HeardAsked).await.map_err(stopping)
    }

    /// Voters that answer at this moment, this one included.
    async fn live(&self, roster: &Roster) -> BTreeSet<MemberId> {
        self.ledger.raft.answering(&roster.voters).await
    }

    fn refusal(&self, refusal: Refusal) -> NotHere {
        let code = match refusal {
            Refusal::UnknownNode { .. } => ProblemCode::NotFound,
            Refusal::OneAddress { .. } => ProblemCode::BadRequest,
            _ => ProblemCode::Conflict,
        };
        refused(code, refusal.to_string())
    }

    fn failed(&self, error: MembershipError) -> NotHere {
        match error {
            MembershipError::NotLeader { leader } => self.ledger.not_here(ProposeError::NotLeader { leader }),
            MembershipError::Changed | MembershipError::Behind { .. } => {
                refused(ProblemCode::Conflict, error.to_string())
            }
            MembershipError::Unknown(_) => refused(ProblemCode::OutcomeUnknown, error.to_string()),
            MembershipError::Stopped(fault) => refused(ProblemCode::Internal, fault.to_string()),
        }
    }
}

fn refused(code: ProblemCode, text: String) -> NotHere {
    NotHere::Refused(Problem::new(code, text))
}
