//! The life of a node: Active → Failed → Recovering → Active, and Stopping at the end. It starts in Recovering.
//!
//! `StateSync` decides when a node is back: the answer names the coordinator, the placement table and the index to reach.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::NodeId;
use crate::protocol::status::{Leadership, NodeState};
use crate::protocol::sync::StateSyncResponse;
use crate::time::Moment;

/// The numbers of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This node.
    pub me: NodeId,
    /// How long to wait for an answer before the next peer is asked.
    pub answer_limit: Duration,
    /// Pause after an answer that could not be used.
    pub pause: Duration,
    /// Without a coordinator for this long a node takes jobs again, though out of sync: sealing needs no ledger.
    pub jobs_only_after: Duration,
    /// How long load is measured before jobs are taken.
    pub warm_up: Duration,
}

impl Settings {
    /// The defaults for one node.
    pub fn new(me: NodeId) -> Self {
        Settings {
            me,
            answer_limit: Duration::from_millis(200),
            pause: Duration::from_millis(20),
            jobs_only_after: Duration::from_secs(2),
            warm_up: Duration::from_millis(50),
        }
    }
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time passes.
    Tick,
    /// Whether the node waits to be taken in as a member: until then it has nothing to recover, and takes no jobs.
    Outsider(bool),
    /// The simulated failure begins.
    Failed {
        /// Why, for people.
        why: String,
    },
    /// The simulated failure is over.
    FailureOver,
    /// The node is told to stop. A Failed one stays so: it hears nobody and has nobody to tell.
    Stop {
        /// Why, for people.
        why: String,
    },
    /// The confirmed coordinator that this node knows, or none.
    Coordinator(Option<Leadership>),
    /// The peers that are heard and Active.
    ActivePeers(BTreeSet<NodeId>),
    /// An answer to [`Effect::AskStateSync`].
    Synced(StateSyncResponse),
    /// Raft's progress.
    Applied {
        /// Entries applied.
        applied: u64,
        /// Whether an entry of this node's own term as leader is among them.
        own_term: bool,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Log and publish the transition.
    StateChanged {
        /// Before.
        from: NodeState,
        /// After.
        to: NodeState,
        /// Why, for people.
        why: String,
    },
    /// Ask that peer; the answer comes as [`Input::Synced`].
    AskStateSync {
        /// Whom.
        peer: NodeId,
        /// Entries that this node has applied.
        applied: u64,
        /// After that its answer is of no use.
        limit: Duration,
    },
    /// Take over what the answer says.
    Adopt(StateSyncResponse),
    /// This node believes that it leads: have an entry committed, which only a leader with a majority can.
    ProveLeadership,
    /// In sync again.
    Recovered {
        /// Who answered.
        from: Option<NodeId>,
        /// Entries that were missing.
        entries: u64,
        /// Time since the failure ended, or since the start.
        took: Duration,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Sync {
    /// In sync.
    Done,
    /// Looking for somebody to ask, or waiting for the answer.
    Asking { asked: Option<(NodeId, Moment)>, tried: BTreeSet<NodeId>, not_before: Moment },
    /// The answer is here; Raft has to catch up to it.
    CatchingUp { answer: StateSyncResponse },
}

/// The life of one node.
#[derive(Clone, Debug)]
pub struct Recovery {
    settings: Settings,
    state: NodeState,
    sync: Sync,
    /// Start of the present recovery, and what was applied then.
    since: Moment,
    applied_then: u64,
    applied: u64,
    own_term: bool,
    coordinator: Option<Leadership>,
    leaderless_since: Option<Moment>,
    active_peers: BTreeSet<NodeId>,
    is_outsider: bool,
}

impl Recovery {
    /// A node that starts: Recovering.
    pub fn new(settings: Settings, now: Moment) -> Self {
        Recovery {
            settings,
            state: NodeState::Recovering,
            sync: Sync::Asking { asked: None, tried: BTreeSet::new(), not_before: now },
            since: now,
            applied_then: 0,
            applied: 0,
            own_term: false,
            coordinator: None,
            leaderless_since: Some(now),
            active_peers: BTreeSet::new(),
            is_outsider: false,
        }
    }

    /// The state as clients see it: whether the node takes jobs.
    pub fn state(&self) -> NodeState {
        self.state
    }

    /// The state as elections see it: a node that takes jobs though out of sync counts as Recovering (E5).
    pub fn state_for_elections(&self) -> NodeState {
        if self.state == NodeState::Active && self.sync != Sync::Done { NodeState::Recovering } else { self.state }
    }

    /// Takes one input.
    pub fn step(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Failed { why } if matches!(self.state, NodeState::Active | NodeState::Recovering) => {
                self.change_to(NodeState::Failed, why, &mut effects);
            }
            Input::FailureOver if self.state == NodeState::Failed => {
                self.begin(now);
                self.change_to(NodeState::Recovering, "the failure is over".into(), &mut effects);
            }
            Input::Coordinator(coordinator) => {
                if let Sync::Asking { asked, .. } = &mut self.sync
                    && self.coordinator != coordinator
                {
                    *asked = None;
                }
                self.coordinator = coordinator;
                self.leaderless_since = if coordinator.is_some() { None } else { self.leaderless_since.or(Some(now)) };
            }
            Input::Stop { why } if matches!(self.state, NodeState::Active | NodeState::Recovering) => {
                self.change_to(NodeState::Stopping, why, &mut effects);
            }
            Input::ActivePeers(peers) => self.active_peers = peers,
            Input::Outsider(is_outsider) => self.is_outsider = is_outsider,
            Input::Synced(answer) if self.state != NodeState::Failed => self.take_answer(now, answer, &mut effects),
            Input::Applied { applied, own_term } => {
                (self.applied, self.own_term) = (applied, own_term);
            }
            Input::Tick | Input::Failed { .. } | Input::FailureOver | Input::Stop { .. } | Input::Synced(_) => {}
        }
        if self.state != NodeState::Failed && !self.is_outsider {
            self.go_on(now, &mut effects);
        }
        effects
    }

    fn begin(&mut self, now: Moment) {
        self.sync = Sync::Asking { asked: None, tried: BTreeSet::new(), not_before: now };
        self.since = now;
        self.applied_then = self.applied;
        self.leaderless_since = if self.coordinator.is_some() { None } else { Some(now) };
    }

    fn take_answer(&mut self, now: Moment, answer: StateSyncResponse, effects: &mut Vec<Effect>) {
        let Sync::Asking { asked, tried, not_before } = &mut self.sync else { return };
        // Only the peer that was asked last may answer, and only an Active one knows.
        if asked.is_none_or(|(peer, _)| peer != answer.node) {
            return;
        }
        if !answer.active {
            tried.insert(answer.node);
            *asked = None;
            *not_before = now + self.settings.pause;
            return;
        }
        effects.push(Effect::Adopt(answer.clone()));
        self.sync = Sync::CatchingUp { answer };
    }

    /// Whether this node leads, and something was committed in its term since the recovery began: belief alone counts for nothing,
    /// because a node that was deaf has not heard of its successor.
    fn has_proved_leadership(&self) -> bool {
        let leads = self.coordinator.is_some_and(|coordinator| coordinator.node == self.settings.me);
        leads && self.own_term && self.applied > self.applied_then
    }

    fn go_on(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.has_proved_leadership() {
            return self.finish(now, Some(self.settings.me), "confirmed as coordinator", effects);
        }
        match &self.sync {
            Sync::Done => {}
            Sync::CatchingUp { answer } => {
                let caught_up = self.applied >= answer.commit;
                let warm = now.since(self.since) >= self.settings.warm_up;
                if caught_up && warm {
                    let from = answer.node;
                    self.finish(now, Some(from), &format!("in sync with node {from}"), effects);
                }
            }
            Sync::Asking { .. } => {
                self.ask(now, effects);
                let leaderless = self.leaderless_since.map_or(Duration::ZERO, |since| now.since(since));
                if self.state == NodeState::Recovering && leaderless >= self.settings.jobs_only_after {
                    let seconds = self.settings.jobs_only_after.as_secs_f64();
                    let why = format!("no coordinator for {seconds} s: takes jobs, will sync when one is confirmed");
                    self.change_to(NodeState::Active, why, effects);
                }
            }
        }
    }

    /// Asks the coordinator first, then any Active peer; whoever does not answer in time is asked again after the others.
    fn ask(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Sync::Asking { asked, tried, not_before } = &mut self.sync else { return };
        if now < *not_before {
            return;
        }
        if let Some((peer, at)) = *asked {
            if now.since(at) < self.settings.answer_limit {
                return;
            }
            tried.insert(peer);
        }
        let me = self.settings.me;
        let coordinator = self.coordinator.map(|coordinator| coordinator.node);
        let candidates: Vec<NodeId> =
            coordinator.into_iter().chain(self.active_peers.iter().copied()).filter(|node| *node != me).collect();
        let next = candidates.iter().find(|node| !tried.contains(node)).or_else(|| {
            tried.clear();
            candidates.first()
        });
        // A node that leads needs nobody's answer but the majority's.
        *asked = match next {
            _ if coordinator == Some(me) => {
                // The first time it waits for the entry with which every leader begins its term.
                if asked.is_some() {
                    effects.push(Effect::ProveLeadership);
                }
                Some((me, now))
            }
            Some(peer) => {
                // An answer that comes too late still counts if the same peer, the only one, has been asked once more.
                let limit = 2 * self.settings.answer_limit;
                effects.push(Effect::AskStateSync { peer: *peer, applied: self.applied, limit });
                Some((*peer, now))
            }
            None => None,
        };
    }

    fn finish(&mut self, now: Moment, from: Option<NodeId>, why: &str, effects: &mut Vec<Effect>) {
        if self.sync == Sync::Done || self.state == NodeState::Failed {
            return;
        }
        self.sync = Sync::Done;
        if self.state == NodeState::Recovering {
            self.change_to(NodeState::Active, why.into(), effects);
        }
        let entries = self.applied.saturating_sub(self.applied_then);
        effects.push(Effect::Recovered { from, entries, took: now.since(self.since) });
    }

    fn change_to(&mut self, to: NodeState, why: String, effects: &mut Vec<Effect>) {
        effects.push(Effect::StateChanged { from: self.state, to, why });
        self.state = to;
    }
}

#[cfg(test)]
mod tests;
