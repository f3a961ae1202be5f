//! What the connections to one peer have in common: whom, what for, the pause between attempts, and what is said in the log.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::id::{Incarnation, MemberId, NodeId};
use crate::protocol::frame::Purpose;
use crate::time::{self, Moment};
use crate::transport::acquaintances::Acquaintances;
use crate::transport::dial::{Connection, DialError, Target, dial};
use crate::transport::faults::{Faults, Outlet};
use crate::transport::tls::NodeTls;

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// One (peer, purpose).
#[derive(Debug)]
pub(crate) struct Link {
    pub to: NodeId,
    pub purpose: Purpose,
    pub faults: Faults,
    caller: Caller,
    address: std::net::SocketAddr,
    /// The peer's life, once a membership tells it.
    life: Arc<OnceLock<Incarnation>>,
    failures: u32,
    next_attempt: Moment,
    /// What was said last, so that each change is said once and a repeated failure is not.
    said: Option<String>,
}

/// What all connections of a node have in common.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub me: MemberId,
    pub connect_timeout: Duration,
    pub tls: NodeTls,
    pub acquaintances: Acquaintances,
}

/// Whom a link is to.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub node: NodeId,
    pub address: std::net::SocketAddr,
    pub life: Arc<OnceLock<Incarnation>>,
}

impl Link {
    pub fn new(caller: &Caller, to: &Peer, purpose: Purpose, faults: Faults) -> Self {
        let (node, address, life) = (to.node, to.address, to.life.clone());
        Link {
            to: node,
            purpose,
            faults,
            caller: caller.clone(),
            address,
            life,
            failures: 0,
            next_attempt: Moment(0),
            said: None,
        }
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
        let Caller { me, connect_timeout, ref tls, ref acquaintances } = self.caller;
        let result = if self.faults.is_cut(self.to) {
            tokio::time::sleep(connect_timeout).await;
            Err(DialError::Silent { address: self.address, limit: connect_timeout })
        } else {
            let target = Target { node: self.to, life: self.life.get().copied(), address: self.address };
            dial(tls, me, target, self.purpose, connect_timeout).await
        };
        acquaintances.note(self.to, &result);
        match &result {
            Ok(connection) => {
                self.failures = 0;
                if self.said.take().is_some() {
                    let peer = connection.introduction.member;
                    log::debug!("node {}: connected to node {peer} for {}", me.node, self.purpose);
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
            Purpose::Control | Purpose::Raft(_) | Purpose::Admission => log::Level::Debug,
        };
        log::log!(level, "node {}: no {} connection to node {}: {text}", self.caller.me.node, self.purpose, self.to);
        self.said = Some(text);
    }
}
