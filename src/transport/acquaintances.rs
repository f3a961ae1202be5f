//! What the greetings have taught: who answered for each node, and whether this node was told that it is no member.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::id::{MemberId, NodeId};
use crate::protocol::frame::Refusal;
use crate::protocol::membership::Place;
use crate::transport::dial::{Connection, DialError};

/// What others say of whether this node is a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nobody has said otherwise.
    #[default]
    Undisputed,
    /// A member does not know this life of the node. It may not have heard of it yet.
    Unknown,
    /// This life of the node was removed: it will not be a member again.
    Removed,
}

/// Shared by all links of a node.
#[derive(Clone, Debug)]
pub(crate) struct Acquaintances {
    met: Arc<Mutex<BTreeMap<NodeId, (MemberId, Place)>>>,
    standing: watch::Sender<Standing>,
}

impl Default for Acquaintances {
    fn default() -> Self {
        Acquaintances { met: Arc::default(), standing: watch::Sender::new(Standing::default()) }
    }
}

impl Acquaintances {
    /// Takes note of how a greeting ended.
    pub fn note(&self, node: NodeId, result: &Result<Connection, DialError>) {
        match result {
            Ok(connection) => {
                let met = (connection.introduction.member, connection.introduction.place);
                self.met.lock().unwrap_or_else(PoisonError::into_inner).insert(node, met);
            }
            Err(DialError::Unwelcome { refusal: Refusal::NotAMember { .. }, .. }) => self.told(Standing::Unknown),
            Err(DialError::Unwelcome { refusal: Refusal::Removed { .. }, .. }) => self.told(Standing::Removed),
            Err(_) => {}
        }
    }

    fn told(&self, standing: Standing) {
        self.standing.send_if_modified(|known| {
            let is_news = standing > *known;
            *known = standing.max(*known);
            is_news
        });
    }

    /// Who answered last for that node, and where it says that it is found.
    pub fn met(&self, node: NodeId) -> Option<(MemberId, Place)> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }

    /// Changes when this node is told that it is no member.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }
}
