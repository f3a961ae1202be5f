//! The dead-man switch (E6): without a coordinator for some seconds, Raft elects by itself; and under the strategy `raft` always.

use std::time::Duration;

use crate::protocol::status::Leadership;
use crate::time::Moment;

use super::{Effect, Election, NativeElections, Strategy};

/// How long no coordinator has been known, and which way the switch stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct DeadMan {
    without_since: Option<Moment>,
    switched_on_at: Option<Moment>,
}

impl DeadMan {
    pub fn note(&mut self, now: Moment, coordinator: Option<Leadership>) {
        self.without_since = match coordinator {
            Some(_) => None,
            None => self.without_since.or(Some(now)),
        };
    }

    /// A node that took part in nothing knows nothing of that time.
    pub fn begin_anew(&mut self) {
        self.without_since = None;
    }

    pub fn lasted(&self, now: Moment) -> Duration {
        self.without_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    pub fn has_lasted(&self, now: Moment, duration: Duration) -> bool {
        self.without_since.is_some_and(|since| now.since(since) >= duration)
    }

    pub fn native(&self) -> NativeElections {
        if self.switched_on_at.is_some() { NativeElections::On } else { NativeElections::Off }
    }

    /// Whether there was a coordinator since the switch was thrown. Before that, Raft's own elections are left the time they need.
    fn has_served(&self) -> bool {
        self.switched_on_at.is_some_and(|switched| self.without_since.is_none_or(|since| since > switched))
    }
}

impl Election {
    pub(super) fn watch_dead_man(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let is_wanted = match self.settings.strategy {
            Strategy::Raft => true,
            Strategy::Bully => {
                self.is_voter() && self.takes_part() && self.dead_man.has_lasted(now, self.settings.dead_man)
            }
        };
        if is_wanted && self.dead_man.switched_on_at.is_none() {
            self.dead_man.switched_on_at = Some(now);
            effects.push(Effect::NativeElections(NativeElections::On));
        }
    }

    /// A majority answered a round: the Bully election works.
    pub(super) fn relieve_dead_man(&mut self, effects: &mut Vec<Effect>) {
        if self.dead_man.has_served() {
            self.dead_man.switched_on_at = None;
            effects.push(Effect::NativeElections(NativeElections::Off));
        }
    }
}
