//! One peer as this node sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::NodeId;
use crate::protocol::election::{Cause, Finding, RoundId};
use crate::time::Moment;

use super::{Effect, OVERDUE_TICKS};

/// What is known of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    /// Its last heartbeat; none before the first.
    pub heard: Option<Moment>,
    /// Ticks in a row on which it was silent for too long.
    pub overdue_ticks: u8,
    pub suspicion: Option<Cause>,
    pub probing: Option<Probing>,
    connection: Connection,
    /// Who waits for a finding, and since when: the last round of each caller, so never more than there are nodes.
    asked: BTreeMap<NodeId, (RoundId, Moment)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Connection {
    #[default]
    Open,
    Closed,
}

/// A series of probes under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Probing {
    /// This one included.
    pub tries_left: u32,
    heard_since: HeardSince,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum HeardSince {
    Nothing,
    Heartbeat,
}

impl Peer {
    pub fn hear(&mut self, now: Moment) {
        self.heard = Some(now);
        self.connection = Connection::Open;
        if let Some(probing) = &mut self.probing {
            probing.heard_since = HeardSince::Heartbeat;
        }
    }

    /// Its connection closed: whatever is being probed, it is probed anew.
    pub fn close(&mut self, tries: u32) {
        self.connection = Connection::Closed;
        self.probing = Some(Probing { tries_left: tries, heard_since: HeardSince::Nothing });
    }

    /// Somebody waits for a finding. Returns whether a probe must be sent.
    pub fn ask(&mut self, now: Moment, round: RoundId, tries: u32) -> bool {
        self.asked.insert(round.caller, (round, now));
        let is_under_way = self.probing.is_some();
        if !is_under_way {
            // While its connection is open, one look is enough: the death of this moment shows at the next one.
            let tries_left = if self.connection == Connection::Closed { tries } else { 1 };
            self.probing = Some(Probing { tries_left, heard_since: HeardSince::Nothing });
        }
        !is_under_way
    }

    /// Whether somebody has waited for a finding for so long.
    pub fn is_awaited(&self, now: Moment, patience: Duration) -> bool {
        self.asked.values().any(|(_, since)| now.since(*since) >= patience)
    }

    pub fn begin_probe(&mut self) {
        if let Some(probing) = &mut self.probing {
            probing.heard_since = HeardSince::Nothing;
        }
    }

    /// A heartbeat that came after the probe was sent outweighs a refusal: the node may just have come back.
    pub fn was_heard_since_the_probe(&self) -> bool {
        self.probing.is_some_and(|probing| probing.heard_since == HeardSince::Heartbeat)
    }

    /// Ends the series of probes and tells all who asked.
    pub fn conclude(&mut self, node: NodeId, finding: Finding, effects: &mut Vec<Effect>) {
        self.probing = None;
        for (round, _) in std::mem::take(&mut self.asked).into_values() {
            effects.push(Effect::Found { round, node, finding });
        }
    }

    /// Counts a tick; true when the peer has been silent on enough of them in a row.
    pub fn is_overdue(&mut self, now: Moment, suspicion: Duration) -> bool {
        let is_silent = self.heard.is_some_and(|heard| now.since(heard) > suspicion);
        self.overdue_ticks = if is_silent { self.overdue_ticks.saturating_add(1).min(OVERDUE_TICKS) } else { 0 };
        self.overdue_ticks >= OVERDUE_TICKS
    }
}
