//! What travels on a connection between two nodes, inside TLS.
//!
//! Each side opens with the six bytes of the [`preamble`]; then come frames: a length (`u32`, big endian, at most
//! [`LIMIT_BYTES`](crate::protocol::codec::LIMIT_BYTES)) and so many bytes in the form of [`codec`](crate::protocol::codec).
//! The first frame of the caller is a [`Hello`], the first frame of the answerer a [`Welcome`], every other one a [`NodeFrame`].

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::id::{Incarnation, MemberId, NodeId};
use crate::protocol::election::{ElectionMessage, Heartbeat};
use crate::protocol::membership::Introduction;
use crate::protocol::sync::{StateSync, StateSyncResponse};

/// The first four bytes of every connection, in both directions.
pub const MAGIC: [u8; 4] = *b"ICNP";

/// Version of the node protocol. Nodes of two versions do not talk to each other.
pub const VERSION: u16 = 5;

/// Size of the preamble in bytes.
pub const PREAMBLE_BYTES: usize = 6;

/// The most bytes of a [`Hello`] or a [`Welcome`]: a stranger makes nobody buffer more.
pub const HELLO_LIMIT_BYTES: usize = 256;

/// The preamble that this program sends.
pub fn preamble() -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..].copy_from_slice(&VERSION.to_be_bytes());
    bytes
}

/// Why the first bytes of a connection are not ours.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PreambleError {
    /// Somebody speaks another protocol.
    #[error(
        "the other side does not speak the node protocol (its first bytes are \"{}\"): \
         is this the HTTP port, or an HTTP request to the node port?",
        .found.escape_ascii()
    )]
    ForeignProtocol {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A node of another version.
    #[error(
        "the other side speaks version {theirs} of the node protocol, this program version {VERSION}: run the same release on all nodes"
    )]
    Version {
        /// Its version.
        theirs: u16,
    },
}

/// Checks a preamble.
///
/// # Errors
/// [`PreambleError`] if it is not exactly [`preamble`].
pub fn check_preamble(bytes: [u8; PREAMBLE_BYTES]) -> Result<(), PreambleError> {
    let [a, b, c, d, high, low] = bytes;
    if [a, b, c, d] != MAGIC {
        return Err(PreambleError::ForeignProtocol { found: [a, b, c, d] });
    }
    match u16::from_be_bytes([high, low]) {
        VERSION => Ok(()),
        theirs => Err(PreambleError::Version { theirs }),
    }
}

/// What a connection is for: one purpose each, so that none waits behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// A one-way stream of heartbeats; its end says that the sender is gone.
    Heartbeat,
    /// Election messages and state sync.
    Control,
    /// Raft's requests and responses.
    Raft(Lane),
    /// Nothing but the greeting: the leader wants to know who answers there, before it takes it in as a member.
    Admission,
}

impl Purpose {
    /// Whether the connection is opened before it is needed: neither an election nor the first entry of a new leader can wait for it.
    pub const fn is_kept_open(self) -> bool {
        match self {
            Purpose::Heartbeat | Purpose::Control | Purpose::Raft(Lane::Vote | Lane::Append | Lane::Lease) => true,
            Purpose::Raft(Lane::Snapshot | Lane::Write) | Purpose::Admission => false,
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Purpose::Heartbeat => "heartbeat",
            Purpose::Control => "control",
            Purpose::Admission => "admission",
            Purpose::Raft(Lane::Vote) => "raft vote",
            Purpose::Raft(Lane::Append) => "raft append",
            Purpose::Raft(Lane::Lease) => "raft lease",
            Purpose::Raft(Lane::Snapshot) => "raft snapshot",
            Purpose::Raft(Lane::Write) => "raft write",
        })
    }
}

/// Raft's connections to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Votes, pre-votes and leadership transfer.
    Vote,
    /// Log entries.
    Append,
    /// Empty appends, which keep the leader's lease.
    Lease,
    /// Snapshots in chunks.
    Snapshot,
    /// Writes that another member was asked for.
    Write,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Lane; 5] = [Lane::Vote, Lane::Append, Lane::Lease, Lane::Snapshot, Lane::Write];
}

/// The first frame of the node that connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Who connects.
    pub member: MemberId,
    /// Whom it means to reach.
    pub to: NodeId,
    /// In which life; none while the caller knows of no membership.
    pub life: Option<Incarnation>,
    /// What for.
    pub purpose: Purpose,
}

/// The first frame of the node that is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// The connection stands.
    Accepted(Introduction),
    /// The connection will be closed.
    Refused(Refusal),
}

/// Why a node does not take a connection.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refusal {
    /// It was dialled by itself, or by another process under its id.
    #[error(
        "node {node} was called by a node with the same id: stop the one that should not be; each node has an id and an address of its \
         own: before the first start correct config/cluster.toml, later `client members replace {node} ADDRESS`"
    )]
    SameNode {
        /// The id of both.
        node: NodeId,
    },
    /// The caller is not in its configuration, which counts while there is no membership.
    #[error("node {here} knows no node {caller}: add it to config/cluster.toml of every node")]
    UnknownNode {
        /// Who answers.
        here: NodeId,
        /// Who called.
        caller: NodeId,
    },
    /// The caller was a member and is none any more: it stops.
    #[error("node {} was removed from the cluster in this life ({caller}): this data directory will not be a member again", .caller.node)]
    Removed {
        /// Who called.
        caller: MemberId,
    },
    /// The caller is no member as far as the answerer knows, who may not have heard of it yet.
    #[error(
        "{caller} is no member of this cluster: `client members add {} ADDRESS` lets a new node in, `client members replace {} ADDRESS` \
         a node with an empty disk", .caller.node, .caller.node
    )]
    NotAMember {
        /// Who called.
        caller: MemberId,
    },
    /// At this address lives another incarnation of the node.
    #[error("node {asked} was expected at this address, node {here} answers: another life of its data directory")]
    AnotherLife {
        /// Whom the caller meant.
        asked: MemberId,
        /// Who answers.
        here: MemberId,
    },
    /// Somebody else lives at this address.
    #[error(
        "node {asked} was expected at this address, node {here} answers: before the first start correct config/cluster.toml, later \
         `client members replace {asked} ADDRESS`"
    )]
    WrongNode {
        /// Whom the caller meant.
        asked: NodeId,
        /// Who answers.
        here: NodeId,
    },
    /// It greets under another name than stands in its certificate.
    #[error(
        "node {claimed} showed the certificate of node {certified}: give each node the secrets that were made for it"
    )]
    NotCertified {
        /// The name of the greeting.
        claimed: NodeId,
        /// The name in the certificate.
        certified: NodeId,
    },
}

/// Everything after the greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeFrame {
    /// On [`Purpose::Heartbeat`].
    Heartbeat(Heartbeat),
    /// On [`Purpose::Control`]; never answered as such.
    Election(ElectionMessage),
    /// On [`Purpose::Control`].
    StateSync {
        /// Pairs the response with it.
        id: u64,
        /// The question.
        request: StateSync,
    },
    /// The answer to [`NodeFrame::StateSync`].
    StateSyncResponse {
        /// The id of the request.
        id: u64,
        /// The answer.
        response: StateSyncResponse,
    },
    /// On [`Purpose::Raft`].
    Raft {
        /// Pairs the response with it.
        id: u64,
        /// A request that only the Raft adapter understands.
        request: Opaque,
    },
    /// The answer to [`NodeFrame::Raft`].
    RaftResponse {
        /// The id of the request.
        id: u64,
        /// A response that only the Raft adapter understands.
        response: Opaque,
    },
}

/// Bytes that are carried, not read.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Opaque(pub Vec<u8>);

impl fmt::Debug for Opaque {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.0.len())
    }
}

impl Serialize for Opaque {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Opaque;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Opaque, E> {
                Ok(Opaque(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Opaque, E> {
                Ok(Opaque(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec;

    #[test]
    fn a_foreign_protocol_and_a_foreign_version_are_told_apart() {
        assert_eq!(check_preamble(preamble()), Ok(()));
        let error = check_preamble(*b"GET / ").unwrap_err();
        assert!(error.to_string().contains("\"GET \""), "{error}");
        assert_eq!(check_preamble(*b"ICNP\x00\x09"), Err(PreambleError::Version { theirs: 9 }));
    }

    #[test]
    fn opaque_bytes_cost_their_own_size() {
        let frame = NodeFrame::Raft { id: 1, request: Opaque(vec![200; 1000]) };
        let bytes = codec::encode(&frame).unwrap();
        assert!(bytes.len() < 1010, "{}", bytes.len());
        assert_eq!(codec::decode::<NodeFrame>(&bytes).unwrap(), frame);
    }
}
