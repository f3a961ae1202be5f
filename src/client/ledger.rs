//! The ledger as a client uses it: finds the leader, follows a changed one, repeats with the same id until the deadline.

use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::RequestBuilder;
use reqwest::header::HeaderMap;
use tokio::time::timeout;

use super::asking::{Asking, End, Patience};
use super::cluster::Cluster;
use super::error::{AttemptError, ClientError};
use super::exchange;
use crate::id::RequestId;
use crate::protocol::job::route as job_route;
use crate::protocol::kv::{Batch, Listed, MOST_VALUE_BYTES, StateHash, Written, route};
use crate::protocol::ledger::Stamp;
use crate::protocol::problem::ProblemCode;
use crate::time::now;

/// How long one attempt may take: a leader answers within a second, or says that it cannot.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The patience of most requests. Most nodes that are silent for half a second will be for longer, and a new leader is there by then.
const PATIENCE: Patience = Patience { first: Duration::from_millis(500), later: ATTEMPT };

/// The longest that the client adds to the pause that a node asked for, so that clients do not come back all at once.
const PAUSE: Duration = Duration::from_millis(20);

/// From the second redirection on: a node that has not heard yet that its leader is gone sends everybody there.
const FOLLOW_PAUSE: Duration = Duration::from_millis(1);

/// Whether an answer must be the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// As if there were one store: everything that was acknowledged before is in it.
    #[default]
    Linearizable,
    /// As the node that answers knows it; it may lag behind.
    Stale,
}

/// One value, with its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The bytes.
    pub bytes: Bytes,
    /// Entries of the log that the answer comes from.
    pub commit: u64,
    /// The ledger's revision there.
    pub revision: u64,
    /// Revision in which the key was made.
    pub create_revision: u64,
    /// Revision of its last change.
    pub mod_revision: u64,
    /// Changes since it was made.
    pub version: u64,
    /// When it is gone.
    pub expires: Option<Stamp>,
}

/// A value, or that there is none, and since when that has been so at the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookedUp {
    /// Entries of the log that the answer comes from.
    pub commit: u64,
    /// The ledger's revision there.
    pub revision: u64,
    /// The value, if the key is there.
    pub value: Option<Value>,
}

impl Cluster {
    /// Does the operations of a batch, all together or not at all. The id is the same in every attempt, so they are done once.
    ///
    /// # Errors
    /// [`ClientError`]; [`ProblemCode::Conflict`] if an operation was refused; [`ProblemCode::OutcomeUnknown`] if no attempt succeeded, and
    /// one may have been carried out all the same.
    pub async fn write(&self, id: RequestId, batch: &Batch) -> Result<Written, ClientError> {
        let body = serde_json::to_vec(batch).map_err(|error| ClientError::Setup(error.to_string()))?;
        let build = |base: &str| {
            let request = self.shared.connections.post(format!("{base}{}", route::KV));
            let request = request.header("content-type", "application/json");
            request.header(job_route::REQUEST_ID, id.to_string()).body(body.clone())
        };
        let outcome = self.at_leader_within(PATIENCE, build, exchange::send_for_json).await;
        outcome
            .map_err(|Unanswered { error, left_open }| if left_open { error.after_an_open_attempt(id) } else { error })
    }

    /// The value of a key, if it is there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_key(&self, key: &str, consistency: Consistency) -> Result<Option<Value>, ClientError> {
        Ok(self.look_up(key, consistency).await?.value)
    }

    /// The same, with the place in the log that the answer comes from, also if there is no such key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn look_up(&self, key: &str, consistency: Consistency) -> Result<LookedUp, ClientError> {
        let Some(path) = route::of_key(key) else { return self.look_up_in_list(key, consistency).await };
        let path = format!("{path}{}", stale_query(consistency, '?'));
        let build = |base: &str| self.shared.connections.get(format!("{base}{path}"));
        match self.at_leader(build, value_of).await {
            Ok(value) => Ok(LookedUp { commit: value.commit, revision: value.revision, value: Some(value) }),
            Err(ClientError::Exchange { source: AttemptError::Refused(problem), .. })
                if problem.code == ProblemCode::NotFound =>
            {
                let (commit, revision) = (problem.commit.unwrap_or_default(), problem.revision.unwrap_or_default());
                Ok(LookedUp { commit, revision, value: None })
            }
            Err(error) => Err(error),
        }
    }

    /// A key that no path can name: it is the first of those that begin with it.
    async fn look_up_in_list(&self, key: &str, consistency: Consistency) -> Result<LookedUp, ClientError> {
        let Listed { commit, revision, items, .. } = self.list_keys(key, None, 1, consistency).await?;
        let value = match items.into_iter().find(|item| item.key == key) {
            None => None,
            Some(item) => Some(Value {
                bytes: item.bytes().map_err(ClientError::Setup)?.into(),
                commit,
                revision,
                create_revision: item.create_revision,
                mod_revision: item.mod_revision,
                version: item.version,
                expires: item.expires_unix_ms.map(Stamp),
            }),
        };
        Ok(LookedUp { commit, revision, value })
    }

    /// Keys that begin with `prefix`, in order, behind `after`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        consistency: Consistency,
    ) -> Result<Listed, ClientError> {
        let coded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let after = after.map_or(String::new(), |after| format!("&after={}", coded(after)));
        let stale = stale_query(consistency, '&');
        let path = format!("{}?prefix={}&limit={limit}{after}{stale}", route::KV, coded(prefix));
        let build = |base: &str| self.shared.connections.get(format!("{base}{path}"));
        self.at_leader(build, exchange::send_for_json).await
    }

    /// What each node has applied, as a hash, of the settings and those that they name.
    pub async fn state_hashes(&self) -> Vec<(String, Result<StateHash, String>)> {
        let ask = async |url: &str| {
            let request = self.shared.connections.get(format!("{url}{}", route::HASH));
            let answer = timeout(ATTEMPT, exchange::send_for_json(request)).await;
            answer.unwrap_or(Err(AttemptError::Timeout(ATTEMPT))).map_err(|error| error.to_string())
        };
        let nodes = self.status().await.into_iter().map(|report| report.address);
        futures::future::join_all(nodes.map(async |address| (address.clone(), ask(&address).await))).await
    }

    /// Exchanges with whoever leads. A node that says that there is no quorum may be cut off from those that have one, so the others
    /// are asked before that is believed.
    pub(super) async fn at_leader<T>(
        &self,
        build: impl Fn(&str) -> RequestBuilder,
        exchange: impl AsyncFn(RequestBuilder) -> Result<T, AttemptError>,
    ) -> Result<T, ClientError> {
        self.at_leader_within(PATIENCE, build, exchange).await.map_err(|unanswered| unanswered.error)
    }

    /// The same, with another limit for each attempt.
    pub(super) async fn at_leader_within<T>(
        &self,
        patience: Patience,
        build: impl Fn(&str) -> RequestBuilder,
        exchange: impl AsyncFn(RequestBuilder) -> Result<T, AttemptError>,
    ) -> Result<T, Unanswered> {
        let shared = &self.shared;
        let start = now();
        let mut asking = Asking::new(shared.views.len(), patience);
        let (mut followed, mut left_open) = (0, false);
        loop {
            let address = self.leader_hint().unwrap_or_else(|| shared.views[asking.turn()].url.clone());
            let limit = asking.attempt().min(shared.settings.request_deadline.saturating_sub(now().since(start)));
            let outcome = timeout(limit, exchange(build(&address))).await;
            let mut error = match outcome.unwrap_or(Err(AttemptError::Timeout(limit))) {
                Ok(answer) => {
                    self.set_leader_hint(Some(address));
                    return Ok(answer);
                }
                Err(error) => error,
            };
            log::debug!("{address}: {error}");
            left_open |= error.leaves_open();
            let mut step = Step::after(&error, &address);
            if let Step::Follow(leader) = &step
                && scheme(leader) != scheme(&address)
            {
                // The token goes with every request: nobody may talk the client out of TLS.
                let why = format!("it sends to {leader}, which is not {}: that is not followed", scheme(&address));
                (step, error) = (Step::Stop, AttemptError::BadAnswer(why));
            }
            let index_of = |url: &str| shared.views.iter().position(|view| view.url == url);
            if let Step::Follow(leader) = &step
                && let Some(denied) = index_of(leader).and_then(|index| asking.follow(index))
            {
                (step, error) = (Step::Elsewhere, denied);
            }
            match (&step, &error) {
                (Step::Follow(leader), _) => self.set_leader_hint(Some(leader.clone())),
                // Who refuses for good has answered: nothing speaks against what is known of the leader.
                (Step::Stop, AttemptError::Refused(_)) => {}
                _ => self.forget_leader(&address),
            }
            if let Some(index) = index_of(&address) {
                asking.heard(index, matches!(step, Step::Elsewhere).then(|| error.clone()));
            }
            let failed = |address: &str, source| {
                let error = ClientError::Exchange { address: address.to_owned(), source };
                Unanswered { error, left_open }
            };
            if matches!(step, Step::Stop) {
                return Err(failed(&address, error));
            }
            match asking.end() {
                Some(End::Refused(index, source)) => return Err(failed(&shared.views[index].url, source)),
                Some(End::Silence) => return Err(Unanswered { error: self.nobody_answers(), left_open }),
                None => {}
            }
            let wait = match step {
                Step::Wait(at_least) => at_least + PAUSE.mul_f64(shared.random()),
                Step::Follow(_) => {
                    followed += 1;
                    if followed == 1 { Duration::ZERO } else { FOLLOW_PAUSE }
                }
                Step::Elsewhere | Step::Stop => Duration::ZERO,
            };
            if now().since(start) + wait >= shared.settings.request_deadline {
                return Err(failed(&address, error));
            }
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
    }

    fn leader_hint(&self) -> Option<String> {
        self.shared.leader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_leader_hint(&self, leader: Option<String>) {
        *self.shared.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
    }

    /// That node does not lead; another request may have found out meanwhile who does.
    fn forget_leader(&self, address: &str) {
        let mut leader = self.shared.leader.lock().unwrap_or_else(PoisonError::into_inner);
        leader.take_if(|known| known == address);
    }
}

/// A request without a result.
pub(super) struct Unanswered {
    pub error: ClientError,
    /// Whether an attempt may have been carried out all the same.
    pub left_open: bool,
}

/// What follows from a failed exchange.
enum Step {
    /// Another node leads, at this address.
    Follow(String),
    /// This node cannot answer; another one may.
    Elsewhere,
    /// Nobody can now; somebody may after a while.
    Wait(Duration),
    /// The request itself is refused.
    Stop,
}

impl Step {
    fn after(error: &AttemptError, address: &str) -> Step {
        let AttemptError::Refused(problem) = error else {
            return if error.is_worth_a_retry() { Step::Elsewhere } else { Step::Stop };
        };
        match (problem.code, &problem.leader) {
            (ProblemCode::NotLeader, Some(leader)) if leader != address => Step::Follow(leader.clone()),
            (ProblemCode::NoQuorum, _) => Step::Elsewhere,
            (
                ProblemCode::NotLeader | ProblemCode::NoLeader | ProblemCode::Overloaded | ProblemCode::OutcomeUnknown,
                _,
            ) => Step::Wait(error.retry_after().unwrap_or_default()),
            (code, _) if code.is_worth_a_retry() => Step::Wait(error.retry_after().unwrap_or_default()),
            _ => Step::Stop,
        }
    }
}

/// `http` or `https`.
fn scheme(address: &str) -> &str {
    address.split_once("://").map_or("", |(scheme, _)| scheme)
}

fn stale_query(consistency: Consistency, separator: char) -> String {
    match consistency {
        Consistency::Linearizable => String::new(),
        Consistency::Stale => format!("{separator}stale=true"),
    }
}

async fn value_of(request: RequestBuilder) -> Result<Value, AttemptError> {
    let response = exchange::send(request).await?;
    let headers = response.headers().clone();
    let bytes = exchange::read_body(response, MOST_VALUE_BYTES as u64).await?;
    Ok(Value {
        bytes,
        commit: number(&headers, route::COMMIT)?,
        revision: number(&headers, route::REVISION)?,
        create_revision: number(&headers, route::CREATE_REVISION)?,
        mod_revision: number(&headers, route::MOD_REVISION)?,
        version: number(&headers, route::VERSION)?,
        expires: headers.contains_key(route::EXPIRES).then(|| number(&headers, route::EXPIRES)).transpose()?.map(Stamp),
    })
}

fn number(headers: &HeaderMap, name: &str) -> Result<u64, AttemptError> {
    let value = headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok());
    value.ok_or_else(|| AttemptError::BadAnswer(format!("the header {name} is missing")))
}
