//! One announcer per node: it tells the node of every request, with one POST in flight. Whatever arrives meanwhile goes into
//! the next, so that fifty clients cost no more than a few announcements, and a node that hangs delays nobody else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::error::AttemptError;
use super::exchange;
use super::round::{Index, Word};
use super::settings::ClientSettings;
use super::view::{Health, NodeView};
use crate::protocol::job::{Announcement, EncryptionRequest, EncryptionResponse, route};
use crate::time::{Moment, now};

/// Most requests that wait for one announcer; beyond that the node counts as not answering.
pub(super) const WAITING_LIMIT: usize = 4096;

/// Least time from one announcement to the next while several requests travel together: under load each exchange costs more than
/// the few requests that it carries, and nobody waits for it who would not wait for a worker anyway.
const GATHERING: Duration = Duration::from_millis(5);

/// A request that waits to be announced, and whom to tell the answer.
pub(super) struct Waiting {
    pub request: EncryptionRequest,
    pub words: mpsc::Sender<(Index, Word)>,
}

/// The task behind one node; it ends when the last `Cluster` is dropped.
pub(super) struct Announcer {
    pub index: Index,
    pub view: Arc<NodeView>,
    pub connections: reqwest::Client,
    pub settings: Arc<ClientSettings>,
    pub inbox: mpsc::Receiver<Waiting>,
}

impl Announcer {
    pub async fn run(mut self) {
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        let mut last_try = Moment::default();
        let mut last_batch = 0;
        loop {
            if waiting.is_empty() {
                match self.inbox.recv().await {
                    Some(first) => waiting.push_back(first),
                    None => return,
                }
            }
            if self.view.health() == Health::Silent {
                tokio::time::sleep(self.settings.probe_interval.saturating_sub(now().since(last_try))).await;
            }
            // A client that sends one request after the other never waits here.
            if last_batch > 1 {
                tokio::time::sleep(GATHERING.saturating_sub(now().since(last_try))).await;
            }
            while let Ok(next) = self.inbox.try_recv() {
                waiting.push_back(next);
            }
            // Every request is announced to every node that answers, even if it has been placed meanwhile. To one that was
            // away it would be stale news: a coordinator would count a job that never comes. If nothing else is left, an
            // empty announcement finds out whether the node answers again.
            if self.view.health() != Health::Answers {
                waiting.retain(|one| !one.words.is_closed());
            }
            let batch: Vec<Waiting> = waiting.drain(..waiting.len().min(Announcement::LIMIT)).collect();
            last_try = now();
            last_batch = batch.len();
            self.announce(batch).await;
        }
    }

    async fn announce(&self, batch: Vec<Waiting>) {
        let asked = now();
        let result = self.exchange(&batch).await;
        self.view.set_health(match &result {
            Err(AttemptError::Timeout(_) | AttemptError::Connection(_) | AttemptError::Broken(_)) => Health::Silent,
            _ => Health::Answers,
        });
        match result {
            Ok(responses) => {
                if let Some(response) = responses.first() {
                    self.view.learn_id(response.node);
                }
                for (one, response) in batch.into_iter().zip(responses) {
                    tell(&one, self.index, Word::Answer { response, asked });
                }
            }
            Err(error) => {
                log::debug!("announcement to {}: {error}", self.view.url);
                batch.iter().for_each(|one| tell(one, self.index, Word::NoAnswer));
            }
        }
    }

    /// One POST. After the announce timeout those who wait are told not to; the connection is dropped when it hangs.
    async fn exchange(&self, batch: &[Waiting]) -> Result<Vec<EncryptionResponse>, AttemptError> {
        let requests: Vec<EncryptionRequest> = batch.iter().map(|one| one.request.clone()).collect();
        let body = serde_json::to_vec(&Announcement { requests })
            .map_err(|error| AttemptError::BadAnswer(format!("the announcement cannot be written: {error}")))?;
        let post = exchange::send_for_json::<Vec<EncryptionResponse>>(
            self.connections
                .post(format!("{}{}", self.view.url, route::ANNOUNCEMENTS))
                .header("content-type", "application/json")
                .body(body),
        );
        tokio::pin!(post);
        let in_time = self.settings.announce_timeout;
        let responses = match timeout(in_time, &mut post).await {
            Ok(result) => result?,
            Err(_) => {
                if self.view.health() == Health::Answers {
                    self.view.set_health(Health::Late);
                }
                batch.iter().for_each(|one| tell(one, self.index, Word::Late));
                let rest: Duration = self.settings.announce_hang.saturating_sub(in_time);
                timeout(rest, post).await.map_err(|_| AttemptError::Timeout(self.settings.announce_hang))??
            }
        };
        let asked = batch.iter().map(|one| one.request.request_id);
        if !responses.iter().map(|response| response.request_id).eq(asked) {
            return Err(AttemptError::BadAnswer("other requests were answered than were announced".into()));
        }
        Ok(responses)
    }
}

/// The channel has room for all that is ever said about one request; whoever has gone elsewhere is not told.
fn tell(one: &Waiting, index: Index, word: Word) {
    let _ = one.words.try_send((index, word));
}
