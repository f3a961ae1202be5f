//! Changing who belongs to the Raft group. What may be done when is `core::membership`'s to say; here it is done, one step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError as ApiError};
use openraft::type_config::TypeConfigExt;
use openraft::{AsyncRuntime, ChangeMembers, Precondition, ServerState};
use thiserror::Error;

use crate::core::membership::Roster;
use crate::id::MemberId;
use crate::protocol::membership::Place;
use crate::raft::error::RaftError;
use crate::raft::group::Group;
use crate::raft::types::{StoredMembership, Types, position};

/// A new member is made a voter when it lacks so few entries: under load the last ones are always on their way.
const NEARLY: u64 = 128;

/// How long a change may take to be committed before its outcome counts as unknown.
const CHANGE_WAIT: Duration = Duration::from_secs(5);

/// Between two looks whether a new member has caught up.
const LOOK: Duration = Duration::from_millis(20);

/// Why the membership was not changed, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MembershipError {
    /// Another node leads, or nobody. Nothing was done.
    #[error("{}", .leader.map_or_else(|| "no node leads now".to_owned(), |leader| format!("node {leader} leads")))]
    NotLeader {
        /// The leader, if known.
        leader: Option<MemberId>,
    },
    /// Somebody else changed it meanwhile. Nothing was done.
    #[error("the membership has changed meanwhile: nothing was done, look at it and try again")]
    Changed,
    /// The new member does not keep up.
    #[error(
        "node {member} has {has} of {of} entries after {} s: it stays a learner and goes on; repeat the command to wait on, or \
         `client members remove {}` gives it up", .limit.as_secs(), .member.node
    )]
    Behind {
        /// Who.
        member: MemberId,
        /// Entries that it has.
        has: u64,
        /// Entries of the leader.
        of: u64,
        /// How long it had.
        limit: Duration,
    },
    /// It may or may not be committed.
    #[error("the outcome is unknown: {0}; `client members` shows the membership")]
    Unknown(String),
    /// Raft has stopped.
    #[error(transparent)]
    Stopped(#[from] RaftError),
}

impl<R: AsyncRuntime> Group<R> {
    /// The membership as this node knows it.
    pub fn roster(&self) -> Roster {
        let server = self.raft().server_metrics().borrow_watched().clone();
        let effective = &server.membership_config;
        let committed = &server.committed_membership_config;
        let configs = effective.get_joint_config();
        let places = committed.nodes().chain(effective.nodes()).map(|(member, place)| (*member, *place)).collect();
        Roster {
            places,
            voters: effective.voter_ids().collect(),
            next_voters: configs.last().cloned().unwrap_or_default(),
            removed: self.machine().applied().state.removed().collect(),
            length: position(*effective.log_id()).length,
        }
    }

    /// Which memberships the roster comes from: the latest of the log, the last committed and the last applied one, as lengths.
    pub(crate) fn known_memberships(&self) -> [u64; 3] {
        let server = self.raft().server_metrics().borrow_watched().clone();
        let applied = *self.machine().applied().membership.log_id();
        [*server.membership_config.log_id(), *server.committed_membership_config.log_id(), applied]
            .map(|id| position(id).length)
    }

    /// As leader: how many entries that member is known to have, and how many there are.
    pub fn progress(&self, member: MemberId) -> Option<(u64, u64)> {
        let data = self.raft().data_metrics().borrow_watched().clone();
        let matched = data.replication.as_ref()?.get(&member)?;
        Some((position(*matched).length, position(data.last_log).length))
    }

    /// As leader: takes a member in as a learner, which gets the log and does not vote.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn take_in(&self, roster: &Roster, member: MemberId, place: Place) -> Result<(), MembershipError> {
        if roster.places.get(&member) == Some(&place) {
            return Ok(());
        }
        // One that is there keeps what it is; only where it is found changes.
        self.change(roster, ChangeMembers::SetNodes(BTreeMap::from([(member, place)]))).await
    }

    /// As leader: waits until that member has nearly everything.
    ///
    /// # Errors
    /// [`MembershipError::Behind`], [`MembershipError::NotLeader`].
    pub async fn wait_until_caught_up(&self, member: MemberId, limit: Duration) -> Result<(), MembershipError> {
        let mut has_of = (0, 0);
        let catching_up = async {
            loop {
                let server = self.raft().server_metrics().borrow_watched().clone();
                if server.state != ServerState::Leader {
                    let leader = server.current_leader.filter(|leader| *leader != self.me());
                    return Err(MembershipError::NotLeader { leader });
                }
                has_of = self.progress(member).unwrap_or(has_of);
                let (has, of) = has_of;
                if has > 0 && has + NEARLY >= of {
                    return Ok(());
                }
                Types::<R>::sleep(LOOK).await;
            }
        };
        match Types::<R>::timeout(limit, catching_up).await {
            Ok(result) => result,
            Err(_) => Err(MembershipError::Behind { member, has: has_of.0, of: has_of.1, limit }),
        }
    }

    /// As leader: one member becomes a voter and others leave, in one step; the majorities before and after overlap all the while.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn change_voters(
        &self,
        roster: &Roster,
        comes: Option<MemberId>,
        leaves: &BTreeSet<MemberId>,
    ) -> Result<(), MembershipError> {
        let (voters, learners): (BTreeSet<MemberId>, BTreeSet<MemberId>) =
            leaves.iter().partition(|member| roster.voters.contains(member));
        let mut changes = Vec::new();
        if !learners.is_empty() {
            changes.push(ChangeMembers::RemoveNodes(learners));
        }
        if comes.is_some() || !voters.is_empty() {
            changes.push(ChangeMembers::AddVoterIds(comes.into_iter().collect()));
            changes.push(ChangeMembers::RemoveVoters(voters));
        }
        self.change(roster, ChangeMembers::Batch(changes)).await
    }

    /// As leader: finishes a change of voters that whoever led before has begun.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn finish_change(&self, roster: &Roster) -> Result<(), MembershipError> {
        self.change(roster, ChangeMembers::AddVoterIds(BTreeSet::new())).await
    }

    async fn change(&self, roster: &Roster, changes: ChangeMembers<MemberId, Place>) -> Result<(), MembershipError> {
        let known: StoredMembership = {
            let server = self.raft().server_metrics().borrow_watched().clone();
            server.membership_config.as_ref().clone()
        };
        // What was decided by another membership than the present one must not be done to this one.
        if position(*known.log_id()).length != roster.length {
            return Err(MembershipError::Changed);
        }
        let unchanged = Precondition::LastMembershipLogId { last_membership_log_id: *known.log_id() };
        let changing = self.raft().change_membership_if(changes, false, [unchanged]);
        match Types::<R>::timeout(CHANGE_WAIT, changing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(ApiError::Fatal(fatal))) => Err(self.stopped(&fatal).into()),
            Ok(Err(ApiError::APIError(error))) => Err(self.not_changed(error)),
            Err(_) => Err(MembershipError::Unknown(format!("no answer within {} s", CHANGE_WAIT.as_secs()))),
        }
    }

    fn not_changed(&self, error: ClientWriteError<Types<R>>) -> MembershipError {
        match error {
            ClientWriteError::ForwardToLeader(forward) => {
                MembershipError::NotLeader { leader: self.leader_of(&forward) }
            }
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))
            | ClientWriteError::PreconditionFailed(_) => MembershipError::Changed,
            other => MembershipError::Unknown(other.to_string()),
        }
    }
}
