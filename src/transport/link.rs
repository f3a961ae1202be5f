//! What the connections to one peer have in common: whom, what for, the pause between attempts, and what is said in the log.

use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{MemberId, NodeId};
use crate::protocol::frame::Purpose;
use crate::time::{self, Moment};
use crate::transport::dial::{Connection, DialError, dial};
use crate::transport::faults::{Faults, Outlet};

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// One (peer, purpose).
#[derive(Debug)]
pub(crate) struct Link {
    pub me: MemberId,
    pub to: NodeId,
    pub address: SocketAddr,
    pub purpose: Purpose,
    pub connect_timeout: Duration,
    pub faults: Faults,
    failures: u32,
    next_attempt: Moment,
    /// What was said last, so that each change is said once and a repeated failure is not.
    said: Option<String>,
}

impl Link {
    pub fn new(
        me: MemberId,
        to: NodeId,
        address: SocketAddr,
        purpose: Purpose,
        connect_timeout: Duration,
        faults: Faults,
    ) -> Self {
        Link { me, to, address, purpose, connect_timeout, faults, failures: 0, next_attempt: Moment(0), said: None }
    }

    /// What leaves on a connection of this link.
    pub fn outlet(&self) -> Outlet {
        Outlet::new(self.faults.clone(), self.to)
    }

    /// How long to wait before the next attempt.
    pub fn pause(&self) -> Duration {
        self.next_attempt.since(time::now())
    }

    /// Tries once.
    pub async fn connect(&mut self) -> Result<Connection, DialError> {
        let result = if self.faults.is_cut(self.to) {
            tokio::time::sleep(self.connect_timeout).await;
            Err(DialError::Silent { address: self.address, limit: self.connect_timeout })
        } else {
            dial(self.me, self.to, self.address, self.purpose, self.connect_timeout).await
        };
        match &result {
            Ok(connection) => {
                self.failures = 0;
                if self.said.take().is_some() {
                    log::debug!("node {}: connected to node {} for {}", self.me.node, connection.member, self.purpose);
                }
            }
            Err(error) => {
                let pause = PAUSE_MIN * (1 << self.failures.min(8));
                self.failures = self.failures.saturating_add(1);
                self.next_attempt = time::now() + pause.min(PAUSE_MAX);
                self.say(error);
            }
        }
        result
    }

    fn say(&mut self, error: &DialError) {
        let text = error.to_string();
        if self.said.as_ref() == Some(&text) {
            return;
        }
        // The heartbeat connection speaks for all connections to that peer.
        let level = match self.purpose {
            Purpose::Heartbeat if error.is_misconfiguration() => log::Level::Warn,
            Purpose::Heartbeat => log::Level::Info,
            Purpose::Control | Purpose::Raft(_) => log::Level::Debug,
        };
        log::log!(level, "node {}: no {} connection to node {}: {text}", self.me.node, self.purpose, self.to);
        self.said = Some(text);
    }
}
