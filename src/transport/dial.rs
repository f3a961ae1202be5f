//! Opening a connection: TCP, TLS, preamble, hello, and a look at who answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use thiserror::Error;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;

use crate::core::liveness::ProbeOutcome;
use crate::id::{Incarnation, MemberId, NodeId};
use crate::protocol::frame::{self, HELLO_LIMIT_BYTES, Hello, Purpose, Refusal, Welcome};
use crate::protocol::membership::Introduction;
use crate::transport::tls::{NodeTls, PeerStream};
use crate::transport::wire::{FrameReader, WireError, encode_frame, write_within};

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    /// Nothing listens there.
    #[error("{address} refuses connections: no node runs there")]
    Refused {
        /// The address.
        address: SocketAddr,
    },
    /// No answer in time: the machine, the process or the network is silent.
    #[error("{address} did not answer within {} ms", .limit.as_millis())]
    Silent {
        /// The address.
        address: SocketAddr,
        /// The time it had.
        limit: Duration,
    },
    /// The node there does not want us.
    #[error("{address}: {refusal}")]
    Unwelcome {
        /// The address.
        address: SocketAddr,
        /// Its reason.
        refusal: Refusal,
    },
    /// What answers is no node of this version.
    #[error("{address}: {error}")]
    Wire {
        /// The address.
        address: SocketAddr,
        /// What is wrong.
        error: WireError,
    },
}

impl DialError {
    /// Whether a person has to do something about it: the configuration or a program is wrong.
    pub fn is_misconfiguration(&self) -> bool {
        match self {
            // Both pass when the membership is known everywhere.
            DialError::Unwelcome { refusal: Refusal::NotAMember { .. } | Refusal::AnotherLife { .. }, .. } => false,
            DialError::Unwelcome { .. } => true,
            DialError::Wire { error, .. } => matches!(error, WireError::Preamble(_) | WireError::Tls(_)),
            DialError::Refused { .. } | DialError::Silent { .. } => false,
        }
    }
}

/// A connection that has been greeted.
#[derive(Debug)]
pub struct Connection {
    /// From the peer.
    pub reader: FrameReader<ReadHalf<PeerStream>>,
    /// To the peer.
    pub writer: WriteHalf<PeerStream>,
    /// Who answers.
    pub introduction: Introduction,
}

/// Whom to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The node.
    pub node: NodeId,
    /// In which life; none for any.
    pub life: Option<Incarnation>,
    /// Where it listens for other nodes.
    pub address: SocketAddr,
}

/// When the peer's machine has not acknowledged something for so long, the connection ends, in milliseconds. Left to itself TCP would go on
/// for many minutes with a connection that a power cut or a firewall has ended, and after a long partition try again as late as that lasted.
const UNHEARD_MS: u32 = 2_000;

/// Connects and greets, within `limit`.
///
/// # Errors
/// [`DialError`].
pub async fn dial(
    tls: &NodeTls,
    me: MemberId,
    to: Target,
    purpose: Purpose,
    limit: Duration,
) -> Result<Connection, DialError> {
    match tokio::time::timeout(limit, greet(tls, me, to, purpose, limit)).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Silent { address: to.address, limit }),
    }
}

async fn greet(
    tls: &NodeTls,
    me: MemberId,
    to: Target,
    purpose: Purpose,
    limit: Duration,
) -> Result<Connection, DialError> {
    let Target { node, life, address } = to;
    let wire = |error: WireError| DialError::Wire { address, error };
    let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused { address },
        _ => wire(error.into()),
    })?;
    stream.set_nodelay(true).map_err(|error| wire(error.into()))?;
    sockopt::set_tcp_user_timeout(&stream, UNHEARD_MS).map_err(|error| wire(io::Error::from(error).into()))?;
    let stream = tls.connect(node, stream).await.map_err(|error| wire(error.into()))?;
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = FrameReader::new(reader);

    let mut opening = frame::preamble().to_vec();
    opening.extend(encode_frame(&Hello { member: me, to: node, life, purpose }).map_err(|error| wire(error.into()))?);
    write_within(&mut writer, &opening, limit).await.map_err(|error| wire(error.into()))?;
    if !reader.preamble().await.map_err(wire)? {
        return Err(wire(WireError::Truncated));
    }
    match reader.message(HELLO_LIMIT_BYTES).await.map_err(wire)? {
        Some(Welcome::Accepted(introduction)) => {
            let here = introduction.member;
            let asked = life.map(|incarnation| MemberId { node, incarnation });
            match asked.filter(|asked| *asked != here) {
                _ if here.node != node => {
                    Err(DialError::Unwelcome { address, refusal: Refusal::WrongNode { asked: node, here: here.node } })
                }
                Some(asked) => Err(DialError::Unwelcome { address, refusal: Refusal::AnotherLife { asked, here } }),
                None => Ok(Connection { reader, writer, introduction }),
            }
        }
        Some(Welcome::Refused(refusal)) => Err(DialError::Unwelcome { address, refusal }),
        None => Err(wire(WireError::Truncated)),
    }
}

/// Looks whether anything listens at `address`; sends nothing.
pub async fn probe(address: SocketAddr, limit: Duration) -> ProbeOutcome {
    match tokio::time::timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(_)) => ProbeOutcome::Connected,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => ProbeOutcome::Refused,
        Ok(Err(_)) | Err(_) => ProbeOutcome::NoAnswer,
    }
}
