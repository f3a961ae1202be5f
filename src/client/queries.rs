//! Status, events, and the commands: to fail, and what is wrong with the links.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::PoisonError;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::cluster::Cluster;
use super::error::{AttemptError, ClientError};
use super::exchange;
use crate::id::NodeId;
use crate::protocol::election::ElectionResult;
use crate::protocol::event::Event;
use crate::protocol::fault::LinkFault;
use crate::protocol::job::route;
use crate::protocol::status::{Leadership, NodeStatus};
use crate::protocol::sync::FailCommand;

/// What one address said when it was asked for its status.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// The node's URL.
    pub address: String,
    /// Its id, as far as configured or learned.
    pub node: Option<NodeId>,
    /// Its status, or why there is none, in one line.
    pub result: Result<NodeStatus, String>,
}

/// Who shall fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailTarget {
    /// This node.
    Node(NodeId),
    /// Whoever is the confirmed coordinator now.
    Coordinator,
}

impl FromStr for FailTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "coordinator" | "leader" => Ok(FailTarget::Coordinator),
            _ => text.parse().map(FailTarget::Node).map_err(|error: String| format!("{error}, or \"coordinator\"")),
        }
    }
}

impl fmt::Display for FailTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailTarget::Node(node) => write!(formatter, "node {node}"),
            FailTarget::Coordinator => formatter.write_str("the coordinator"),
        }
    }
}

/// The coordinator of the highest term that any node names, unless that node itself says that no majority confirms it any more: those who
/// hear it do not know.
pub fn confirmed_coordinator(statuses: &[&NodeStatus]) -> Option<Leadership> {
    let named = statuses.iter().filter_map(|status| status.coordinator).max()?;
    let denies = |status: &&NodeStatus| status.node == named.node && status.without_quorum_ms.is_some();
    (!statuses.iter().any(denies)).then_some(named)
}

impl Cluster {
    /// Asks all nodes at once for their status: those of the settings in their order, then those that they name and that were not
    /// asked.
    pub async fn status(&self) -> Vec<NodeReport> {
        let mut reports = self.status_of_configured().await;
        let mut others = BTreeMap::new();
        // A node that does not answer where it is configured may have been replaced by one elsewhere.
        let asked: BTreeSet<NodeId> =
            reports.iter().filter(|report| report.result.is_ok()).filter_map(|report| report.node).collect();
        for report in &reports {
            // All nodes of a cluster speak as the one that names them does.
            let scheme = report.address.split("://").next().unwrap_or("http");
            let peers = report.result.as_ref().map_or(&[][..], |status| &status.peers);
            for peer in peers.iter().filter(|peer| !asked.contains(&peer.node)) {
                if let Some(address) = &peer.address {
                    others.entry(peer.node).or_insert_with(|| format!("{scheme}://{address}"));
                }
            }
        }
        let ask = async |(node, address): (NodeId, String)| {
            let result = self.get::<NodeStatus>(&address, route::STATUS).await.map_err(|error| error.to_string());
            NodeReport { address, node: Some(node), result }
        };
        let tried: BTreeSet<String> = reports.iter().map(|report| report.address.clone()).collect();
        let others = others.into_iter().filter(|(_, address)| !tried.contains(address));
        let found = join_all(others.map(ask)).await;
        let is_elsewhere = |report: &NodeReport| {
            let same = |other: &NodeReport| other.node == report.node && other.result.is_ok();
            report.result.is_err() && report.node.is_some() && found.iter().any(same)
        };
        reports.retain(|report| !is_elsewhere(report));
        for report in found {
            if let (Some(node), Ok(_)) = (report.node, &report.result) {
                self.shared.moved.lock().unwrap_or_else(PoisonError::into_inner).insert(node, report.address.clone());
            }
            reports.push(report);
        }
        reports
    }

    async fn status_of_configured(&self) -> Vec<NodeReport> {
        let ask = async |view: &super::view::NodeView| {
            let result = self.get::<NodeStatus>(&view.url, route::STATUS).await;
            if let Ok(status) = &result {
                view.learn_id(status.node);
            }
            NodeReport { address: view.url.clone(), node: view.id(), result: result.map_err(|error| error.to_string()) }
        };
        join_all(self.shared.views.iter().map(|view| ask(view))).await
    }

    /// Returns as soon as one node has answered anything.
    ///
    /// # Errors
    /// [`ClientError::NobodyAnswers`] if none does.
    pub async fn anyone_answers(&self) -> Result<(), ClientError> {
        let mut asking: FuturesUnordered<_> =
            self.shared.views.iter().map(|view| self.get::<NodeStatus>(&view.url, route::STATUS)).collect();
        while let Some(result) = asking.next().await {
            if matches!(result, Ok(_) | Err(AttemptError::Refused(_))) {
                return Ok(());
            }
        }
        Err(self.nobody_answers())
    }

    /// Makes a node fail for `duration`, and says which.
    ///
    /// # Errors
    /// No such node, no coordinator, no answer, or a refusal.
    pub async fn fail(&self, target: FailTarget, duration: Duration) -> Result<NodeId, ClientError> {
        let node = match target {
            FailTarget::Node(node) => node,
            FailTarget::Coordinator => self.coordinator().await?.node,
        };
        let command = FailCommand { duration_ms: duration.as_millis() as u64 };
        self.command(node, route::FAIL, &command).await?;
        Ok(node)
    }

    /// Replaces the faults of a node's links; an empty list heals them.
    ///
    /// # Errors
    /// No such node, no answer, or a refusal.
    pub async fn set_faults(&self, node: NodeId, faults: &[LinkFault]) -> Result<(), ClientError> {
        self.command(node, route::FAULTS, faults).await
    }

    /// Posts a command to one node.
    async fn command<T: Serialize + ?Sized>(&self, node: NodeId, route: &str, command: &T) -> Result<(), ClientError> {
        let url = self.url_of(node).await?;
        let refused = |source| ClientError::Exchange { address: url.clone(), source };
        let body = serde_json::to_vec(command)
            .map_err(|error| refused(AttemptError::BadAnswer(format!("the command cannot be written: {error}"))))?;
        let request = self.administrative(&url, route).header("content-type", "application/json").body(body);
        self.within_query_timeout(exchange::send(request)).await.map_err(refused)?;
        Ok(())
    }

    /// The events of one node from number `since` on, oldest first, at most 1,024: ask again from the last number + 1.
    ///
    /// # Errors
    /// No such node, no answer, or a refusal.
    pub async fn events(&self, node: NodeId, since: u64) -> Result<Vec<Event>, ClientError> {
        let url = self.url_of(node).await?;
        self.get(&url, &format!("{}?since={since}", route::EVENTS))
            .await
            .map_err(|source| ClientError::Exchange { address: url, source })
    }

    /// The confirmed coordinator of the highest term that any node knows.
    ///
    /// # Errors
    /// No node answers, or none knows a coordinator.
    pub async fn coordinator(&self) -> Result<Leadership, ClientError> {
        let reports = self.status().await;
        if reports.iter().all(|report| report.result.is_err()) {
            return Err(self.nobody_answers());
        }
        let statuses: Vec<&NodeStatus> = reports.iter().filter_map(|report| report.result.as_ref().ok()).collect();
        confirmed_coordinator(&statuses).ok_or(ClientError::NoCoordinator)
    }

    /// The elections that the cluster remembers, the oldest first.
    ///
    /// # Errors
    /// No node answers.
    pub async fn elections(&self) -> Result<Vec<ElectionResult>, ClientError> {
        let mut longest: Option<Vec<ElectionResult>> = None;
        for view in &self.shared.views {
            if let Ok(known) = self.get::<Vec<ElectionResult>>(&view.url, route::ELECTIONS).await {
                let last = |list: &[ElectionResult]| list.last().map(|result| result.coordinator.term);
                if longest.as_ref().is_none_or(|longest| last(longest) < last(&known)) {
                    longest = Some(known);
                }
            }
        }
        longest.ok_or_else(|| self.nobody_answers())
    }

    /// The events of the node at `address` from number `since` on; as [`Cluster::events`].
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn events_at(&self, address: &str, since: u64) -> Result<Vec<Event>, AttemptError> {
        self.get(address, &format!("{}?since={since}", route::EVENTS)).await
    }

    /// The error that names all addresses.
    pub fn nobody_answers(&self) -> ClientError {
        let addresses: Vec<&str> = self.shared.views.iter().map(|view| view.url.as_str()).collect();
        ClientError::NobodyAnswers { addresses: addresses.join(", ") }
    }

    /// Where a node is; asks all nodes for their ids if it is not known.
    async fn url_of(&self, node: NodeId) -> Result<String, ClientError> {
        let find = || {
            let moved = self.shared.moved.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned();
            moved.or_else(|| self.shared.views.iter().find(|view| view.id() == Some(node)).map(|view| view.url.clone()))
        };
        if let Some(url) = find() {
            return Ok(url);
        }
        let reports = self.status().await;
        if let Some(url) = find() {
            return Ok(url);
        }
        if reports.iter().all(|report| report.result.is_err()) {
            return Err(self.nobody_answers());
        }
        let mut known: Vec<NodeId> = self.shared.views.iter().filter_map(|view| view.id()).collect();
        known.sort();
        let known = known.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        Err(ClientError::UnknownNode { node, known })
    }

    /// A call that administers: it shows the admin token where that stays secret.
    pub(super) fn administrative(&self, url: &str, route: &str) -> reqwest::RequestBuilder {
        self.with_token(url, self.shared.connections.post(format!("{url}{route}")))
    }

    /// The same for a request of any method.
    pub(super) fn with_token(&self, url: &str, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self.shared.settings.credentials.token_for(url) {
            Some(token) => request.bearer_auth(token.secret()),
            None => request,
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, url: &str, route: &str) -> Result<T, AttemptError> {
        let request = self.shared.connections.get(format!("{url}{route}"));
        self.within_query_timeout(exchange::send_for_json(request)).await
    }

    async fn within_query_timeout<T>(
        &self,
        exchange: impl Future<Output = Result<T, AttemptError>>,
    ) -> Result<T, AttemptError> {
        let limit = self.shared.settings.query_timeout;
        timeout(limit, exchange).await.unwrap_or(Err(AttemptError::Timeout(limit)))
    }
}
