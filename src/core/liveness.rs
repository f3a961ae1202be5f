//! Who is heard and who is lost, by what this node sees itself (temporary form).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::NodeId;
use crate::protocol::election::{Cause, Finding, RoundId};
use crate::time::Moment;

/// The numbers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Peers.
    pub peers: Vec<NodeId>,
    /// Suspicion.
    pub suspicion: Duration,
    /// Lease.
    pub lease: Duration,
    /// Tick.
    pub tick: Duration,
}

/// Input.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time.
    Tick,
    /// Heard.
    Heard {
        /// Whom.
        node: NodeId,
    },
    /// Closed.
    Closed {
        /// Whom.
        node: NodeId,
    },
    /// Probe result.
    Probed {
        /// Whom.
        node: NodeId,
        /// Refused.
        refused: bool,
    },
    /// Raft appended.
    RaftAppended {
        /// When.
        at: Moment,
    },
    /// The election wants a finding.
    FindingWanted {
        /// Round.
        round: RoundId,
        /// Node.
        node: NodeId,
    },
}

/// Effect.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Probe.
    Probe {
        /// Whom.
        node: NodeId,
        /// Attempts.
        attempts: u32,
        /// Pause.
        pause: Duration,
    },
    /// Found.
    Found {
        /// Round.
        round: RoundId,
        /// Node.
        node: NodeId,
        /// Finding.
        finding: Finding,
    },
    /// Suspected.
    Suspected {
        /// Whom.
        node: NodeId,
        /// Why.
        cause: Cause,
    },
    /// Trusted.
    Trusted {
        /// Whom.
        node: NodeId,
    },
}

#[derive(Clone, Debug, Default)]
struct Peer {
    heard: Option<Moment>,
    suspected: bool,
    late_ticks: u32,
    rounds: Vec<RoundId>,
    probing: bool,
}

/// Liveness.
#[derive(Clone, Debug)]
pub struct Liveness {
    settings: Settings,
    peers: BTreeMap<NodeId, Peer>,
    last_tick: Moment,
    appended: Option<Moment>,
}

impl Liveness {
    /// New.
    pub fn new(settings: Settings, now: Moment) -> Self {
        let peers = settings.peers.iter().map(|p| (*p, Peer::default())).collect();
        Liveness { settings, peers, last_tick: now, appended: None }
    }

    /// Step.
    pub fn step(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        let s = self.settings.clone();
        match input {
            Input::Tick => {
                let paused = now.since(self.last_tick) > s.tick + s.suspicion / 3;
                self.last_tick = now;
                for (node, peer) in &mut self.peers {
                    let silent = peer.heard.is_some_and(|h| now.since(h) > s.suspicion);
                    peer.late_ticks = if silent && !paused { peer.late_ticks + 1 } else { 0 };
                    if peer.late_ticks >= 2 && !peer.suspected {
                        peer.suspected = true;
                        effects.push(Effect::Suspected { node: *node, cause: Cause::Silence });
                    }
                }
            }
            Input::Heard { node } => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.late_ticks = 0;
                    if peer.heard.is_none() || peer.suspected {
                        effects.push(Effect::Trusted { node });
                    }
                    peer.suspected = false;
                    peer.heard = Some(now);
                }
            }
            Input::Closed { node } => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    if !peer.probing {
                        peer.probing = true;
                        effects.push(Effect::Probe { node, attempts: 4, pause: Duration::from_millis(2) });
                    }
                }
            }
            Input::Probed { node, refused } => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.probing = false;
                    if refused && !peer.suspected {
                        peer.suspected = true;
                        effects.push(Effect::Suspected { node, cause: Cause::ConnectionRefused });
                    }
                    let silent = peer.heard.is_none_or(|h| now.since(h) > s.suspicion);
                    for round in std::mem::take(&mut peer.rounds) {
                        let finding = if refused || silent { Finding::Gone } else { Finding::Alive };
                        effects.push(Effect::Found { round, node, finding });
                    }
                }
            }
            Input::RaftAppended { at } => self.appended = Some(at),
            Input::FindingWanted { round, node } => match self.peers.get_mut(&node) {
                None => effects.push(Effect::Found { round, node, finding: Finding::Alive }),
                Some(peer) => {
                    if peer.heard.is_none_or(|h| now.since(h) > s.suspicion) {
                        effects.push(Effect::Found { round, node, finding: Finding::Gone });
                    } else {
                        peer.rounds.push(round);
                        if !peer.probing {
                            peer.probing = true;
                            effects.push(Effect::Probe { node, attempts: 4, pause: Duration::from_millis(2) });
                        }
                    }
                }
            },
        }
        effects
    }
}
