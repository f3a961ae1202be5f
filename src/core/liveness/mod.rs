//! Who is alive, by what this node sees itself: heartbeats, closed connections, refused ports and Raft's appends.
//!
//! The traps, all measured: a killed process closes its connections before its port, so one probe is
//! not enough; a pause of this process looks like everybody's death, so a late tick judges nobody; and a node whose Raft hangs goes
//! on sending heartbeats.

mod peer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::NodeId;
use crate::protocol::election::{Cause, Finding, RoundId};
use crate::time::Moment;

use peer::{Peer, Probing};

/// The numbers of the failure detector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The other nodes, as configured. Once there is a membership, [`Input::Peers`] tells.
    pub peers: Vec<NodeId>,
    /// Silence longer than this on two ticks in a row is suspicious (150 ms).
    pub suspicion: Duration,
    /// How often a tick is due (5 ms).
    pub tick: Duration,
    /// How long Raft's leader may append nothing (Raft's election_timeout_max, 300 ms).
    pub lease: Duration,
    /// How often a port is probed after its connection closed (4).
    pub probes: u32,
    /// The pause between these probes (2 ms).
    pub probe_gap: Duration,
    /// How long one attempt to connect may take (10 ms): less than `patience`, so that silence is found before that is over.
    pub probe_limit: Duration,
    /// How long an asked finding may take (15 ms); after that, a node that was not seen to be gone counts as alive.
    pub patience: Duration,
}

impl Settings {
    /// The defaults, those of `config/cluster.toml`: the longest gap between two heartbeats that was seen with 24 busy threads on
    /// two cores was 51 ms, so a suspicion after 150 ms is not an overloaded machine.
    pub fn new(peers: Vec<NodeId>) -> Self {
        Settings {
            peers,
            suspicion: Duration::from_millis(150),
            tick: Duration::from_millis(5),
            lease: Duration::from_millis(300),
            probes: 4,
            probe_gap: Duration::from_millis(2),
            probe_limit: Duration::from_millis(10),
            patience: Duration::from_millis(15),
        }
    }
}

/// Everything that can happen to the failure detector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time passes.
    Tick,
    /// A heartbeat of that node came.
    Heard {
        /// Whose.
        node: NodeId,
    },
    /// The connection on which that node's heartbeats came was closed.
    Closed {
        /// Whose.
        node: NodeId,
    },
    /// The answer to [`Effect::Probe`].
    Probed {
        /// Whom.
        node: NodeId,
        /// What came of it.
        outcome: ProbeOutcome,
    },
    /// This node was deaf until now (a simulated failure): the silence before this moment says nothing about the others.
    Resumed,
    /// The election wants to know, for a round, whether that node is gone.
    Asked {
        /// For this round.
        round: RoundId,
        /// Whom.
        node: NodeId,
    },
    /// These are the other nodes from now on: the membership has changed.
    Peers(BTreeSet<NodeId>),
    /// Raft follows that leader from now on, or none.
    Follows {
        /// The leader.
        leader: Option<NodeId>,
    },
    /// The leader that Raft follows has appended something (its own heartbeats count).
    Appended,
}

/// What came of an attempt to connect to a node's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeOutcome {
    /// It accepts connections. A hung or failed one does, too.
    Connected,
    /// Nothing listens there.
    Refused,
    /// Neither came in time.
    NoAnswer,
}

/// Everything that the failure detector may want done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Try to connect to that node's port after this pause, and report [`Input::Probed`].
    Probe {
        /// Whom.
        node: NodeId,
        /// When.
        after: Duration,
        /// How long the attempt may take.
        limit: Duration,
    },
    /// That node is taken for lost.
    Suspected {
        /// Whom.
        node: NodeId,
        /// How it showed.
        cause: Cause,
    },
    /// That node is heard again.
    Trusted {
        /// Whom.
        node: NodeId,
    },
    /// The answer to [`Input::Asked`].
    Found {
        /// For this round.
        round: RoundId,
        /// Whom.
        node: NodeId,
        /// What this node sees.
        finding: Finding,
    },
}

/// The failure detector of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Liveness {
    settings: Settings,
    peers: BTreeMap<NodeId, Peer>,
    raft: Option<Followed>,
    started: Option<Moment>,
    last_tick: Option<Moment>,
    last_tick_was_late: bool,
}

/// The leader that this node's Raft follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Followed {
    leader: NodeId,
    last_append: Moment,
    overdue_ticks: u8,
}

/// Ticks in a row on which a silence must show.
const OVERDUE_TICKS: u8 = 2;

impl Liveness {
    /// A failure detector that has heard nobody yet. A peer that was never heard is not lost.
    pub fn new(settings: Settings) -> Self {
        let peers = settings.peers.iter().map(|node| (*node, Peer::default())).collect();
        Liveness { settings, peers, raft: None, started: None, last_tick: None, last_tick_was_late: false }
    }

    /// Takes one input at `now` and returns what is to be done, in order. Nodes that are no peers are ignored.
    pub fn step(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.started.get_or_insert(now);
        match input {
            Input::Tick => self.tick(now, &mut effects),
            Input::Heard { node } => self.heard(now, node, &mut effects),
            Input::Closed { node } => self.closed(node, &mut effects),
            Input::Probed { node, outcome } => self.probed(now, node, outcome, &mut effects),
            Input::Resumed => self.resumed(now, &mut effects),
            Input::Asked { round, node } => self.asked(now, round, node, &mut effects),
            Input::Peers(peers) => self.know(peers),
            Input::Follows { leader } => self.follow(now, leader, &mut effects),
            Input::Appended => self.appended(now, &mut effects),
        }
        effects
    }

    /// Nodes that are taken for lost now.
    #[cfg(test)]
    pub fn suspected(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().filter(|(_, peer)| peer.suspicion.is_some()).map(|(node, _)| *node)
    }

    /// When that node was heard last.
    pub fn last_heard(&self, node: NodeId) -> Option<Moment> {
        self.peers.get(&node)?.heard
    }

    /// Keeps what is known of those who stay.
    fn know(&mut self, peers: BTreeSet<NodeId>) {
        self.peers.retain(|node, _| peers.contains(node));
        for node in peers {
            self.peers.entry(node).or_default();
        }
    }

    fn heard(&mut self, now: Moment, node: NodeId, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.hear(now);
        if peer.suspicion.is_some_and(|cause| cause != Cause::RaftSilence) {
            peer.suspicion = None;
            effects.push(Effect::Trusted { node });
        }
    }

    fn resumed(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let known: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| peer.heard.is_some()).map(|(node, _)| *node).collect();
        for node in known {
            self.heard(now, node, effects);
        }
        self.raft_is_heard(effects);
        self.appended(now, effects);
    }

    fn closed(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        let tries = self.settings.probes;
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.heard.is_some()) else { return };
        let is_under_way = peer.probing.is_some();
        peer.close(tries);
        if !is_under_way {
            effects.push(self.probe(node, Duration::ZERO));
        }
    }

    fn probe(&self, node: NodeId, after: Duration) -> Effect {
        Effect::Probe { node, after, limit: self.settings.probe_limit }
    }

    fn probed(&mut self, now: Moment, node: NodeId, outcome: ProbeOutcome, effects: &mut Vec<Effect>) {
        let is_silent = self.is_silent(now, node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let Some(Probing { tries_left, .. }) = &mut peer.probing else { return };
        *tries_left = tries_left.saturating_sub(1);
        let may_retry = *tries_left > 0;
        match outcome {
            ProbeOutcome::Refused if !peer.was_heard_since_the_probe() => {
                if peer.heard.is_some() && peer.suspicion.is_none() {
                    peer.suspicion = Some(Cause::ConnectionRefused);
                    effects.push(Effect::Suspected { node, cause: Cause::ConnectionRefused });
                }
                peer.conclude(node, Finding::Gone, effects);
            }
            ProbeOutcome::NoAnswer if is_silent => peer.conclude(node, Finding::Gone, effects),
            // A killed process closes its connections before its port.
            ProbeOutcome::Connected | ProbeOutcome::Refused if may_retry => {
                peer.begin_probe();
                effects.push(self.probe(node, self.settings.probe_gap));
            }
            ProbeOutcome::Connected | ProbeOutcome::Refused | ProbeOutcome::NoAnswer => {
                self.conclude_alive(now, node, effects);
            }
        }
    }

    fn asked(&mut self, now: Moment, round: RoundId, node: NodeId, effects: &mut Vec<Effect>) {
        let is_gone = self.last_heard(node).is_some() && self.is_silent(now, node) && !self.was_paused(now);
        let tries = self.settings.probes;
        match self.peers.get_mut(&node) {
            None => effects.push(Effect::Found { round, node, finding: Finding::Alive }),
            Some(_) if is_gone => effects.push(Effect::Found { round, node, finding: Finding::Gone }),
            Some(peer) => {
                if peer.ask(now, round, tries) {
                    effects.push(self.probe(node, Duration::ZERO));
                }
            }
        }
    }

    fn follow(&mut self, now: Moment, leader: Option<NodeId>, effects: &mut Vec<Effect>) {
        if self.raft.map(|raft| raft.leader) != leader {
            self.raft_is_heard(effects);
            self.raft = leader.map(|leader| Followed { leader, last_append: now, overdue_ticks: 0 });
        }
    }

    fn appended(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if let Some(raft) = &mut self.raft {
            (raft.last_append, raft.overdue_ticks) = (now, 0);
        }
        self.raft_is_heard(effects);
    }

    fn raft_is_heard(&mut self, effects: &mut Vec<Effect>) {
        let Some(node) = self.raft.map(|raft| raft.leader) else { return };
        // Of a leader that was never heard, its appends are all that can be missed.
        let silent = |peer: &&mut Peer| {
            peer.suspicion == Some(Cause::RaftSilence) || (peer.suspicion.is_some() && peer.heard.is_none())
        };
        if let Some(peer) = self.peers.get_mut(&node).filter(silent) {
            peer.suspicion = None;
            effects.push(Effect::Trusted { node });
        }
    }

    fn tick(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let was_paused = self.is_late(now);
        self.last_tick = Some(now);
        self.last_tick_was_late = was_paused;
        let patience = self.settings.patience;
        let awaited = |(node, peer): (&NodeId, &Peer)| peer.is_awaited(now, patience).then_some(*node);
        let awaited: Vec<NodeId> = self.peers.iter().filter_map(awaited).collect();
        for node in awaited {
            self.conclude_alive(now, node, effects);
        }
        if was_paused {
            // Look again at the next tick.
            self.peers.values_mut().for_each(|peer| peer.overdue_ticks = 0);
            self.raft.iter_mut().for_each(|raft| raft.overdue_ticks = 0);
            return;
        }
        for (node, peer) in &mut self.peers {
            if peer.is_overdue(now, self.settings.suspicion)
                && peer.suspicion.is_none_or(|cause| cause == Cause::RaftSilence)
            {
                peer.suspicion = Some(Cause::Silence);
                effects.push(Effect::Suspected { node: *node, cause: Cause::Silence });
            }
        }
        if let Some(raft) = &mut self.raft
            && let Some(peer) = self.peers.get_mut(&raft.leader)
        {
            let is_late = now.since(raft.last_append) > self.settings.lease;
            raft.overdue_ticks = if is_late { raft.overdue_ticks.saturating_add(1) } else { 0 };
            if raft.overdue_ticks >= OVERDUE_TICKS && peer.suspicion.is_none() {
                // A leader that this node knows from its log alone, and has never heard, is silent in every way.
                let cause = if peer.heard.is_some() { Cause::RaftSilence } else { Cause::Silence };
                peer.suspicion = Some(cause);
                effects.push(Effect::Suspected { node: raft.leader, cause });
            }
        }
    }

    /// Whether the tick that is due now comes so late that this process itself stood still.
    fn is_late(&self, now: Moment) -> bool {
        self.last_tick.is_some_and(|last| now.since(last) > self.settings.tick + self.settings.suspicion / 3)
    }

    /// Whether what was sent during a pause of this process may still be unread.
    fn was_paused(&self, now: Moment) -> bool {
        self.last_tick_was_late || self.is_late(now)
    }

    /// No heartbeat for the suspicion time; of a node that was never heard, since this one started.
    fn is_silent(&self, now: Moment, node: NodeId) -> bool {
        self.last_heard(node).or(self.started).is_some_and(|since| now.since(since) > self.settings.suspicion)
    }

    fn conclude_alive(&mut self, now: Moment, node: NodeId, effects: &mut Vec<Effect>) {
        let raft_is_silent =
            self.raft.is_some_and(|raft| raft.leader == node && now.since(raft.last_append) > self.settings.lease);
        let finding = if raft_is_silent { Finding::RaftSilent } else { Finding::Alive };
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.conclude(node, finding, effects);
        }
    }
}
