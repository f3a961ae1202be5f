//! What can go wrong for a client: with one exchange, with one request, with the cluster as a whole.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::Attempt;
use crate::id::{NodeId, RequestId};
use crate::protocol::problem::{Problem, ProblemCode};

/// Why one exchange with a node failed.
#[derive(Clone, Debug, Error)]
pub enum AttemptError {
    /// No node that takes jobs answered the announcement.
    #[error("no active node answered the announcement; `client status` shows the nodes")]
    NoNode,
    /// The node refused, with its reason.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Nothing came in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection could not be made.
    #[error("connection failed: {0}")]
    Connection(String),
    /// The connection broke off: the request may have arrived.
    #[error("connection broke off: {0}")]
    Broken(String),
    /// An error status without a reason: not one of our nodes, or a proxy between.
    #[error("HTTP status {0} without a reason: is that address a cloud node?")]
    Status(u16),
    /// What came is not what the route answers.
    #[error("unexpected answer: {0}")]
    BadAnswer(String),
    /// The answer is larger than the client accepts.
    #[error("the answer has {have} bytes, at most {limit} are accepted")]
    AnswerTooLarge {
        /// Its size as far as known, in bytes.
        have: u64,
        /// The limit in bytes.
        limit: u64,
    },
}

impl AttemptError {
    /// The failure in one word, for counters: `busy`, `timeout`, `connection`, `not_active`, `no_node`, ...
    pub fn code(&self) -> String {
        match self {
            AttemptError::NoNode => "no_node".into(),
            AttemptError::Refused(problem) => problem.code.name(),
            AttemptError::Timeout(_) => "timeout".into(),
            AttemptError::Connection(_) | AttemptError::Broken(_) => "connection".into(),
            AttemptError::Status(status) => format!("http_{status}"),
            AttemptError::BadAnswer(_) => "bad_answer".into(),
            AttemptError::AnswerTooLarge { .. } => "answer_too_large".into(),
        }
    }

    /// Whether the same request may succeed at another node or at another time.
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            AttemptError::Refused(problem) => problem.code.is_worth_a_retry(),
            AttemptError::Status(status) => *status >= 500,
            AttemptError::AnswerTooLarge { .. } => false,
            _ => true,
        }
    }

    /// Whether what was asked for may have been done all the same.
    pub(super) fn leaves_open(&self) -> bool {
        match self {
            AttemptError::Refused(problem) => {
                matches!(problem.code, ProblemCode::OutcomeUnknown | ProblemCode::Dropped | ProblemCode::Internal)
            }
            AttemptError::NoNode | AttemptError::Connection(_) => false,
            _ => true,
        }
    }

    /// The code of the node's refusal, if that is what it is.
    pub(super) fn refusal(&self) -> Option<ProblemCode> {
        if let AttemptError::Refused(problem) = self { Some(problem.code) } else { None }
    }

    /// How long the node asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            AttemptError::Refused(problem) => problem.retry_after_ms.map(Duration::from_millis),
            _ => None,
        }
    }

    /// Whether the node does not serve at present, so that another one is the better choice for the next attempt.
    pub(super) fn speaks_against_the_node(&self) -> bool {
        match self {
            AttemptError::Refused(problem) => !matches!(problem.code, ProblemCode::Busy),
            AttemptError::NoNode => false,
            _ => true,
        }
    }

    pub(super) fn from_transport(error: &reqwest::Error) -> Self {
        let cause = root_cause(error);
        let hint = if cause.contains("UnknownIssuer") { ": is --ca the ca.pem of that cluster?" } else { "" };
        let what = format!("{cause}{hint}");
        if error.is_connect() { AttemptError::Connection(what) } else { AttemptError::Broken(what) }
    }
}

/// The innermost reason: "Connection refused (os error 111)" rather than "error sending request".
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A request that has no result: refused for good, or not answered before its deadline.
#[derive(Clone, Debug)]
pub struct RequestFailed {
    /// The request.
    pub id: RequestId,
    /// Every attempt, the last one last; at least one.
    pub attempts: Vec<Attempt>,
    /// Why the last attempt failed.
    pub last: AttemptError,
    /// From the first announcement to giving up.
    pub took: Duration,
}

impl fmt::Display for RequestFailed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.last.fmt(formatter)?;
        if let Some(node) = self.attempts.last().and_then(|attempt| attempt.node) {
            write!(formatter, " (node {node})")?;
        }
        if self.attempts.len() > 1 {
            write!(formatter, ", {} attempts in {:.1} s", self.attempts.len(), self.took.as_secs_f64())?;
        }
        Ok(())
    }
}

impl Error for RequestFailed {}

/// Why the client cannot do what it was asked, apart from requests.
#[derive(Clone, Debug, Error)]
pub enum ClientError {
    /// The list of nodes is empty.
    #[error("no node is named: use --nodes 127.0.0.1:8001,127.0.0.1:8002, CLOUD_NODES or config/cluster.toml")]
    NoNodes,
    /// A node address that is none.
    #[error(
        "\"{address}\" is not a node address ({reason}): use http://HOST:PORT or https://HOST:PORT, as in http://127.0.0.1:8001"
    )]
    BadAddress {
        /// The text.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An address with TLS, and nothing by which to know the node.
    #[error(
        "{address} is served with TLS: name the cluster's ca.pem with --ca, CLOUD_CA or secrets in the configuration"
    )]
    NoAuthority {
        /// The address.
        address: String,
    },
    /// `Cluster::new` was called outside a tokio runtime, where its announcers could not run.
    #[error("the client must be made inside a tokio runtime")]
    NoRuntime,
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Setup(String),
    /// No node has that id.
    #[error("no node {node} is known; the nodes that answer or are configured are {known}")]
    UnknownNode {
        /// The node.
        node: NodeId,
        /// The ids that are known.
        known: String,
    },
    /// Nobody knows a confirmed coordinator.
    #[error("no confirmed coordinator at present: `client status` shows the nodes, and why")]
    NoCoordinator,
    /// No node answered at all.
    #[error("no node answered at {addresses}: start them with ./run_nodes.sh, or cloud-node 1")]
    NobodyAnswers {
        /// Where the client asked.
        addresses: String,
    },
    /// One node did not answer, or refused.
    #[error("node at {address}: {source}")]
    Exchange {
        /// The node's address.
        address: String,
        /// The reason.
        source: AttemptError,
    },
}

impl ClientError {
    /// The failure in one word, for counters, as [`AttemptError::code`].
    pub fn code(&self) -> String {
        match self {
            ClientError::Exchange { source, .. } => source.code(),
            ClientError::NobodyAnswers { .. } | ClientError::NoCoordinator => "no_node".into(),
            _ => "client".into(),
        }
    }

    /// The code of a node's refusal, if that is what it is.
    pub fn refusal(&self) -> Option<ProblemCode> {
        match self {
            ClientError::Exchange { source, .. } => source.refusal(),
            _ => None,
        }
    }

    /// The same of a request of which an attempt may have been carried out: who refuses now speaks of the last one alone.
    pub(super) fn after_an_open_attempt(self, id: RequestId) -> Self {
        let (address, said) = match self {
            ClientError::Exchange { address, source }
                if source.is_worth_a_retry() && source.refusal() != Some(ProblemCode::OutcomeUnknown) =>
            {
                (address, source.to_string())
            }
            ClientError::NobodyAnswers { addresses } => (addresses, "no node answered".to_owned()),
            other => return other,
        };
        let detail = format!("{said}; the request may have been done all the same: repeat it with --request-id {id}");
        let source = AttemptError::Refused(Box::new(Problem::new(ProblemCode::OutcomeUnknown, detail)));
        ClientError::Exchange { address, source }
    }

    /// What a node said in its refusal, without its address; else the whole error.
    pub fn reason(&self) -> String {
        match self {
            ClientError::Exchange { source: AttemptError::Refused(problem), .. } => problem.detail.clone(),
            other => other.to_string(),
        }
    }
}
