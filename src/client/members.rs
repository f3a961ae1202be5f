//! Who belongs to the cluster, as a client asks and changes it.

use std::time::Duration;

use super::asking::Patience;
use super::cluster::Cluster;
use super::error::{AttemptError, ClientError};
use super::exchange;
use crate::protocol::membership::{ChangeRequest, Changed, Members, WAIT_MS, route};
use crate::protocol::problem::ProblemCode;

/// What a change takes besides the time in which a new member catches up.
const SLACK: Duration = Duration::from_secs(20);

impl Cluster {
    /// The members as the leader knows them; without a leader, as the node does that knows the latest membership.
    ///
    /// # Errors
    /// No node answers.
    pub async fn members(&self) -> Result<Members, ClientError> {
        let answering = self.status().await.into_iter().filter(|report| report.result.is_ok());
        let ask = async |address: String| self.get::<Members>(&address, route::MEMBERS).await.ok();
        let answers = futures::future::join_all(answering.map(|report| ask(report.address))).await;
        let latest = answers.into_iter().flatten().max_by_key(|members| (members.leads, members.commit));
        latest.ok_or_else(|| self.nobody_answers())
    }

    /// Changes the members and waits until it is done. An answer that got lost does no harm: what was wanted may be there by then.
    ///
    /// # Errors
    /// [`ClientError`]; [`ProblemCode::Conflict`] if the change may not be made now.
    pub async fn change_members(&self, change: &ChangeRequest) -> Result<Changed, ClientError> {
        let before = self.members().await?;
        let body = serde_json::to_vec(change).map_err(|error| ClientError::Setup(error.to_string()))?;
        let build = |base: &str| {
            let request = self.administrative(base, route::MEMBERS);
            request.header("content-type", "application/json").body(body.clone())
        };
        let limit = Duration::from_millis(change.wait_ms.unwrap_or(WAIT_MS)) + SLACK;
        let error = match self
            .at_leader_within(Patience { first: limit, later: limit }, build, exchange::send_for_json)
            .await
        {
            Ok(changed) => return Ok(changed),
            Err(unanswered) => unanswered.error,
        };
        let is_refusal = matches!(&error, ClientError::Exchange { source: AttemptError::Refused(problem), .. }
            if matches!(problem.code, ProblemCode::Conflict | ProblemCode::NotFound));
        if is_refusal {
            let members = self.members().await?;
            if !change.is_done_in(&before) && change.is_done_in(&members) {
                return Ok(Changed { done: format!("{} node {}: done", change.change, change.node), members });
            }
        }
        Err(error)
    }
}
