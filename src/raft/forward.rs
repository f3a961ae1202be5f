//! Writes that are handed on to the leader: a user may ask any node, which does the public-key work; the leader only orders.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::RaftNode;
use crate::protocol::frame::Lane;
use crate::protocol::ledger::{Answer, Caller, Write};
use crate::protocol::user::UserKeys;
use crate::raft::error::ProposeError;
use crate::raft::network::{self, CallError, Request, Response};
use crate::raft::types::Tokio;

/// How long the leader may take: a little longer than it waits for a majority itself.
const LEADER_WAIT: Duration = Duration::from_millis(5_500);

/// An answer, and the caller's keys as they were at that moment at the latest: what is for the user is sealed to them and no others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The answer.
    pub answer: Answer,
    /// The keys of the user who asked, if it was one.
    pub keys: Option<UserKeys>,
}

/// Why the leader did not do it: a [`ProposeError`] as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotWritten {
    /// Another node leads, or nobody.
    NotLeader,
    /// No majority answers.
    NoQuorum,
    /// Too much waits already.
    Overloaded,
    /// The ledger holds as much as it may.
    Full {
        /// How much it may hold, in bytes.
        limit: u64,
    },
    /// It may or may not be done later.
    Unknown(String),
}

impl From<ProposeError> for NotWritten {
    fn from(error: ProposeError) -> NotWritten {
        match error {
            ProposeError::NotLeader { .. } => NotWritten::NotLeader,
            ProposeError::NoQuorum => NotWritten::NoQuorum,
            ProposeError::Overloaded => NotWritten::Overloaded,
            ProposeError::Full { limit } => NotWritten::Full { limit },
            ProposeError::Unknown(why) => NotWritten::Unknown(why),
            ProposeError::Stopped(why) => NotWritten::Unknown(why.to_string()),
        }
    }
}

impl From<NotWritten> for ProposeError {
    fn from(error: NotWritten) -> ProposeError {
        match error {
            // Where it leads now, neither of the two knows.
            NotWritten::NotLeader => ProposeError::NotLeader { leader: None },
            NotWritten::NoQuorum => ProposeError::NoQuorum,
            NotWritten::Overloaded => ProposeError::Overloaded,
            NotWritten::Full { limit } => ProposeError::Full { limit },
            NotWritten::Unknown(why) => ProposeError::Unknown(why),
        }
    }
}

/// Does a write wherever it is done.
pub(super) async fn write(node: &RaftNode, write: Write) -> Result<Written, ProposeError> {
    let group = &node.group;
    let leader = match group.must_lead() {
        Err(ProposeError::NotLeader { leader: Some(leader) }) => leader,
        _ => return here(node, write).await,
    };
    let request = Request::<Tokio>::Write(Box::new(write));
    match network::call(group.transport(), group.me(), leader, Lane::Write, request, LEADER_WAIT).await {
        Ok(Response::Written(written)) => Ok(written?),
        Err(CallError::Refused { .. }) => Err(ProposeError::NotLeader { leader: None }),
        Ok(_) => Err(ProposeError::Unknown(CallError::WrongAnswer { to: leader }.to_string())),
        Err(error) => Err(ProposeError::Unknown(error.to_string())),
    }
}

/// As leader: does what another member hands on.
pub(super) fn take(node: &RaftNode, write: Write) -> BoxFuture<'static, Result<Written, NotWritten>> {
    let node = node.clone();
    async move { here(&node, write).await.map_err(NotWritten::from) }.boxed()
}

async fn here(node: &RaftNode, write: Write) -> Result<Written, ProposeError> {
    let caller = write.caller;
    let answer = node.write(write).await?;
    let keys = match caller {
        Caller::User(user) => node.read(|ledger| ledger.user(user)).1.map(|user| user.keys),
        Caller::Anyone | Caller::Administrator => None,
    };
    Ok(Written { answer, keys })
}
