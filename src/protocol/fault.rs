//! Simulated faults of the links between nodes, as an operator sets them and as a node tells them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::id::NodeId;

/// What is wrong with the link between the node that is told and one peer. Body of `POST /api/v1/faults`: a list of these, which
/// replaces the one before; an empty list heals everything. Delay and loss are of what the node *sends*: for both ways, tell both.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkFault {
    /// The other end.
    pub peer: NodeId,
    /// Nothing that the peer sends arrives.
    #[serde(default)]
    pub cut_in: bool,
    /// Nothing leaves for the peer.
    #[serde(default)]
    pub cut_out: bool,
    /// How much later each message to the peer arrives, in milliseconds: at most [`LinkFault::LONGEST_DELAY_MS`].
    #[serde(default)]
    pub delay_ms: u64,
    /// By how much that varies, up and down, in milliseconds: at most `delay_ms`.
    #[serde(default)]
    pub jitter_ms: u64,
    /// Probability from 0 to 1 that a message to the peer is lost.
    #[serde(default)]
    pub loss: f64,
}

/// A fault that no link can have.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FaultError {
    /// A delay over the limit.
    #[error("node {peer}: delay_ms is {have}, at most {} are allowed", LinkFault::LONGEST_DELAY_MS)]
    TooLong {
        /// The other end.
        peer: NodeId,
        /// What was asked for, in milliseconds.
        have: u64,
    },
    /// A message would arrive before it was sent.
    #[error("node {peer}: jitter_ms is {jitter_ms}, which is more than delay_ms, {delay_ms}")]
    JitterOverDelay {
        /// The other end.
        peer: NodeId,
        /// The jitter in milliseconds.
        jitter_ms: u64,
        /// The delay in milliseconds.
        delay_ms: u64,
    },
    /// Not a probability.
    #[error("node {peer}: loss is {loss}; it is a probability from 0 to 1")]
    NoProbability {
        /// The other end.
        peer: NodeId,
        /// What was given.
        loss: f64,
    },
    /// The list names a peer twice.
    #[error("node {peer} is named twice: one entry for each peer")]
    Twice {
        /// The peer.
        peer: NodeId,
    },
    /// There is no such link.
    #[error("this node has no link to a node {peer}: its peers are {known}")]
    UnknownPeer {
        /// The node that was named.
        peer: NodeId,
        /// The peers.
        known: String,
    },
}

impl LinkFault {
    /// The longest delay in milliseconds: 10 s, longer than any deadline between nodes.
    pub const LONGEST_DELAY_MS: u64 = 10_000;

    /// A link to `peer` without a fault.
    pub const fn none(peer: NodeId) -> Self {
        LinkFault { peer, cut_in: false, cut_out: false, delay_ms: 0, jitter_ms: 0, loss: 0.0 }
    }

    /// Whether the link is as good as new.
    pub fn is_none(&self) -> bool {
        *self == LinkFault::none(self.peer)
    }

    /// Checks the bounds of the numbers.
    ///
    /// # Errors
    /// [`FaultError`], with the field and the value.
    pub fn check(&self) -> Result<(), FaultError> {
        let LinkFault { peer, delay_ms, jitter_ms, loss, .. } = *self;
        if delay_ms > Self::LONGEST_DELAY_MS {
            return Err(FaultError::TooLong { peer, have: delay_ms });
        }
        if jitter_ms > delay_ms {
            return Err(FaultError::JitterOverDelay { peer, jitter_ms, delay_ms });
        }
        if !(0.0..=1.0).contains(&loss) {
            return Err(FaultError::NoProbability { peer, loss });
        }
        Ok(())
    }

    /// The shortest and the longest delay of a message.
    pub fn delays(&self) -> (Duration, Duration) {
        let shortest = self.delay_ms.saturating_sub(self.jitter_ms);
        (Duration::from_millis(shortest), Duration::from_millis(self.delay_ms.saturating_add(self.jitter_ms)))
    }
}

impl fmt::Display for LinkFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "link to node {}:", self.peer)?;
        let mut separator = " ";
        let mut part = |text: String| {
            let written = write!(formatter, "{separator}{text}");
            separator = ", ";
            written
        };
        match (self.cut_out, self.cut_in) {
            (true, true) => part("cut both ways".to_owned())?,
            (true, false) => part("cut outbound".to_owned())?,
            (false, true) => part("cut inbound".to_owned())?,
            (false, false) => {}
        }
        if self.delay_ms > 0 {
            let jitter = if self.jitter_ms > 0 { format!(" ± {}", self.jitter_ms) } else { String::new() };
            part(format!("delay {}{jitter} ms", self.delay_ms))?;
        }
        if self.loss > 0.0 {
            part(format!("loss {} %", (self.loss * 1e4).round() / 1e2))?;
        }
        if self.is_none() {
            part("no fault".to_owned())?;
        }
        Ok(())
    }
}

/// The faults of a node in one line.
pub fn in_words(faults: &[LinkFault]) -> String {
    let words: Vec<String> = faults.iter().map(LinkFault::to_string).collect();
    if words.is_empty() { "all links are healed".to_owned() } else { words.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_in_words_says_what_an_operator_would() {
        let fault = LinkFault { cut_in: true, cut_out: true, ..LinkFault::none(NodeId(2)) };
        let slow = LinkFault { delay_ms: 50, jitter_ms: 10, loss: 0.125, ..LinkFault::none(NodeId(3)) };
        let words = "link to node 2: cut both ways; link to node 3: delay 50 ± 10 ms, loss 12.5 %";
        assert_eq!(in_words(&[fault, slow]), words);
        assert_eq!(in_words(&[]), "all links are healed");
        assert_eq!(LinkFault::none(NodeId(4)).to_string(), "link to node 4: no fault");
    }

    /// Bounded values: each wrong number is refused with the number, and an unknown key by its name.
    #[test]
    fn every_number_is_bounded() {
        let peer = NodeId(2);
        let none = LinkFault::none(peer);
        let of = |fault: LinkFault| fault.check().map_err(|error| error.to_string());
        assert_eq!(of(LinkFault { delay_ms: 10_000, jitter_ms: 10_000, loss: 1.0, ..none }), Ok(()));
        let too_long = of(LinkFault { delay_ms: 10_001, ..none }).unwrap_err();
        assert_eq!(too_long, "node 2: delay_ms is 10001, at most 10000 are allowed");
        assert!(of(LinkFault { delay_ms: 1, jitter_ms: 2, ..none }).unwrap_err().contains("jitter_ms is 2"));
        for loss in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(of(LinkFault { loss, ..none }).unwrap_err().contains("probability"), "{loss}");
        }
        assert!(
            serde_json::from_str::<LinkFault>("{\"peer\":2,\"cut\":true}").unwrap_err().to_string().contains("cut")
        );
        assert_eq!(serde_json::from_str::<LinkFault>("{\"peer\":2}").unwrap(), none);
    }
}
