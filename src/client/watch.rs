//! Watching keys: a stream of changes that goes on at another node when one is lost, without a gap and without a repetition.

use std::collections::VecDeque;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Response;
use tokio::time::timeout;

use super::cluster::Cluster;
use super::error::{AttemptError, ClientError};
use super::exchange;
use crate::protocol::kv::{Changed, route};
use crate::protocol::problem::ProblemCode;

/// Twice the nodes' pause between two signs of life, and more: silence that long means that the node is lost.
const SILENCE: Duration = Duration::from_secs(25);

/// Longest event in bytes.
const EVENT_LIMIT: usize = 4 << 20;

/// A stream of changes.
pub struct Watch {
    cluster: Cluster,
    prefix: String,
    /// The last revision of which everything has come.
    seen: Option<u64>,
    node: usize,
    open: Option<Response>,
    rest: Vec<u8>,
    /// Changes of a revision that may have more: they are given out together, so that a lost connection neither hides nor repeats any.
    begun: Vec<Changed>,
    ready: VecDeque<Changed>,
}

impl Cluster {
    /// Watches keys that begin with `prefix`: what changes after the revision `after`, or from now on.
    pub fn watch(&self, prefix: &str, after: Option<u64>) -> Watch {
        let prefix = prefix.to_owned();
        let (cluster, rest, begun, ready) = (self.clone(), Vec::new(), Vec::new(), VecDeque::new());
        Watch { cluster, prefix, seen: after, node: 0, open: None, rest, begun, ready }
    }
}

impl Watch {
    /// The next change; waits for it as long as it takes.
    ///
    /// # Errors
    /// No node answers, or none keeps changes that old: [`ProblemCode::Forgotten`]; or what comes is no change, or too long for one:
    /// another node would say the same.
    pub async fn next(&mut self) -> Result<Changed, ClientError> {
        loop {
            if let Some(changed) = self.ready.pop_front() {
                return Ok(changed);
            }
            if self.open.is_none() {
                self.connect().await?;
            }
            let Some(response) = &mut self.open else { continue };
            match timeout(SILENCE, response.chunk()).await {
                Ok(Ok(Some(piece))) => {
                    self.rest.extend_from_slice(&piece);
                    if let Err(source) = self.take_events() {
                        let address = self.address();
                        self.leave();
                        return Err(ClientError::Exchange { address, source });
                    }
                }
                // The node is gone or silent: another one goes on after the last revision.
                _ => self.leave(),
            }
        }
    }

    fn leave(&mut self) {
        self.open = None;
        self.rest.clear();
        self.begun.clear();
        self.node += 1;
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        for _ in 0..self.cluster.shared.views.len() {
            let address = self.address();
            let after = self.seen.map_or(String::new(), |seen| format!("&after={seen}"));
            let prefix = utf8_percent_encode(&self.prefix, NON_ALPHANUMERIC);
            let request =
                self.cluster.shared.connections.get(format!("{address}{}?prefix={prefix}{after}", route::WATCH));
            match timeout(self.cluster.shared.settings.query_timeout, exchange::send(request)).await {
                Ok(Ok(response)) => {
                    self.open = Some(response);
                    return Ok(());
                }
                Ok(Err(AttemptError::Refused(problem))) if problem.code == ProblemCode::Forgotten => {
                    let source = AttemptError::Refused(problem);
                    return Err(ClientError::Exchange { address, source });
                }
                Ok(Err(error)) => log::debug!("watch at {address}: {error}"),
                Err(_) => log::debug!("watch at {address}: no answer"),
            }
            self.node += 1;
        }
        Err(self.cluster.nobody_answers())
    }

    fn address(&self) -> String {
        let views = &self.cluster.shared.views;
        views[self.node % views.len()].url.clone()
    }

    /// Takes whole events out of what has come.
    fn take_events(&mut self) -> Result<(), AttemptError> {
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.rest.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&event);
            let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
            if let Some(data) = field("data: ") {
                let changed = serde_json::from_str(data);
                self.begun.push(changed.map_err(|error| AttemptError::BadAnswer(format!("no change: {error}")))?);
            }
            // Everything up to this revision has come.
            if let Some(revision) = field("id: ").and_then(|id| id.parse().ok()) {
                self.seen = Some(revision);
                self.ready.extend(self.begun.drain(..));
            }
        }
        let (have, limit) = (self.rest.len() as u64, EVENT_LIMIT as u64);
        if have > limit { Err(AttemptError::AnswerTooLarge { have, limit }) } else { Ok(()) }
    }
}
