//! Where a job goes: to the least-loaded Active node, counting at once what was just placed there.
//!
//! Load reports are always a little old. Whoever places 50 jobs of one millisecond by them alone sends all 50 to the node that
//! was idle when it last reported (Mitzenmacher, "How Useful Is Old Information?", 2000). So each placement counts as a job
//! of that node until a report covers it: reports carry the number of jobs that the node has accepted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::id::{Load, NodeId};
use crate::protocol::status::NodeState;
use crate::protocol::sync::PlacementEntry;
use crate::time::Moment;

/// The numbers of the placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A placement whose job has not arrived by then is dropped: its client went elsewhere.
    pub arrival_limit: Duration,
    /// Most placements of one node that are counted and not covered.
    pub uncovered_limit: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { arrival_limit: Duration::from_secs(1), uncovered_limit: 4096 }
    }
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A node reports.
    Report {
        /// Which.
        node: NodeId,
        /// Its state; only an Active node gets jobs.
        state: NodeState,
        /// Its present load, not smoothed.
        load: Load,
        /// Its image workers.
        workers: u32,
        /// Jobs that it has accepted since its start.
        jobs_accepted: u64,
    },
    /// These are the nodes from now on, this one included.
    Nodes(BTreeSet<NodeId>),
    /// A node is taken for lost.
    Lost(NodeId),
    /// A job is announced.
    Place,
    /// Another coordinator's table, from a `StateSync`: its uncovered placements are placements still.
    Adopt(Vec<PlacementEntry>),
}

/// What is to be done: at most one placement answers each [`Input::Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The job goes there.
    Placed(NodeId),
    /// No node is Active.
    NoActiveNode,
}

#[derive(Clone, Debug, Default)]
struct Row {
    active: bool,
    load: Load,
    workers: u32,
    jobs_accepted: u64,
    uncovered: VecDeque<Moment>,
    last_placed: Moment,
}

impl Row {
    /// Load in hundredths with what was placed since the last report.
    fn expected_load(&self) -> u64 {
        u64::from(self.load.hundredths()) + self.uncovered.len() as u64 * 100 / u64::from(self.workers.max(1))
    }
}

/// The placement table.
#[derive(Clone, Debug)]
pub struct Placement {
    settings: Settings,
    rows: BTreeMap<NodeId, Row>,
}

impl Placement {
    /// An empty table; it fills from the nodes' reports.
    pub fn new(settings: Settings) -> Self {
        Placement { settings, rows: BTreeMap::new() }
    }

    /// Takes one input.
    pub fn step(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        match input {
            Input::Report { node, state, load, workers, jobs_accepted } => {
                let row = self.rows.entry(node).or_default();
                // A smaller count is a restarted node: nothing that was placed on its former life will arrive.
                let covered =
                    if jobs_accepted < row.jobs_accepted { u64::MAX } else { jobs_accepted - row.jobs_accepted };
                let covered = (covered.min(row.uncovered.len() as u64)) as usize;
                row.uncovered.drain(..covered);
                (row.active, row.load, row.workers, row.jobs_accepted) =
                    (state == NodeState::Active, load, workers, jobs_accepted);
                Vec::new()
            }
            Input::Nodes(nodes) => {
                self.rows.retain(|node, _| nodes.contains(node));
                Vec::new()
            }
            Input::Lost(node) => {
                if let Some(row) = self.rows.get_mut(&node) {
                    row.active = false;
                    row.uncovered.clear();
                }
                Vec::new()
            }
            Input::Adopt(entries) => {
                for entry in entries {
                    let row = self.rows.entry(entry.node).or_default();
                    let uncovered = (entry.uncovered as usize).min(self.settings.uncovered_limit);
                    row.load = entry.load;
                    row.uncovered = std::iter::repeat_n(now, uncovered).collect();
                }
                Vec::new()
            }
            Input::Place => vec![self.place(now)],
        }
    }

    /// The table as a recovering node asks for it.
    pub fn entries(&self) -> Vec<PlacementEntry> {
        let entry = |(node, row): (&NodeId, &Row)| PlacementEntry {
            node: *node,
            load: row.load,
            uncovered: row.uncovered.len() as u32,
        };
        self.rows.iter().map(entry).collect()
    }

    fn place(&mut self, now: Moment) -> Effect {
        let expired = now - self.settings.arrival_limit;
        for row in self.rows.values_mut() {
            while row.uncovered.front().is_some_and(|placed| *placed < expired) {
                row.uncovered.pop_front();
            }
        }
        // Among equals the one that was chosen longest ago, so that idle nodes take turns.
        let rank = |(node, row): &(&NodeId, &mut Row)| (row.expected_load(), row.last_placed, **node);
        let Some((node, row)) = self.rows.iter_mut().filter(|(_, row)| row.active).min_by_key(rank) else {
            return Effect::NoActiveNode;
        };
        if row.uncovered.len() == self.settings.uncovered_limit {
            row.uncovered.pop_front();
        }
        row.uncovered.push_back(now);
        row.last_placed = now.max(Moment(row.last_placed.0 + 1));
        Effect::Placed(*node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: u16, load: f64, jobs_accepted: u64) -> Input {
        let (state, workers) = (NodeState::Active, 2);
        Input::Report { node: NodeId(node), state, load: Load::from(load), workers, jobs_accepted }
    }

    fn table(reports: impl IntoIterator<Item = Input>) -> Placement {
        let mut placement = Placement::new(Settings::default());
        for input in reports {
            placement.step(Moment(0), input);
        }
        placement
    }

    fn place(placement: &mut Placement, count: usize) -> BTreeMap<u16, usize> {
        let mut placed = BTreeMap::new();
        for _ in 0..count {
            match placement.step(Moment(5), Input::Place)[..] {
                [Effect::Placed(node)] => *placed.entry(node.0).or_default() += 1,
                ref other => panic!("{other:?}"),
            }
        }
        placed
    }

    #[test]
    fn fifty_announcements_in_one_millisecond_do_not_herd() {
        let mut placement = table([report(1, 0.0, 0), report(2, 0.0, 0), report(3, 0.0, 0)]);
        let placed = place(&mut placement, 48);
        assert_eq!(placed, BTreeMap::from([(1, 16), (2, 16), (3, 16)]));
    }

    #[test]
    fn the_least_loaded_node_gets_the_difference_first() {
        let mut placement = table([report(1, 4.0, 0), report(2, 0.0, 0)]);
        // Node 2 has two workers: 4.00 jobs per worker are eight jobs.
        assert_eq!(place(&mut placement, 8), BTreeMap::from([(2, 8)]));
        assert_eq!(place(&mut placement, 4), BTreeMap::from([(1, 2), (2, 2)]));
    }

    #[test]
    fn a_report_covers_as_many_placements_as_jobs_arrived() {
        let mut placement = table([report(1, 0.0, 10), report(2, 0.0, 0)]);
        place(&mut placement, 8);
        placement.step(Moment(6), report(1, 0.5, 13));
        assert_eq!(placement.entries()[0].uncovered, 1);
        placement.step(Moment(7), report(1, 0.5, 0));
        assert_eq!(placement.entries()[0].uncovered, 0, "a restarted node begins anew");
    }

    #[test]
    fn a_placement_that_never_arrives_is_forgotten() {
        let mut placement = table([report(1, 0.0, 0)]);
        place(&mut placement, 3);
        placement.step(Moment::from_millis(1100), Input::Place);
        assert_eq!(placement.entries()[0].uncovered, 1);
    }

    #[test]
    fn lost_and_recovering_nodes_get_nothing() {
        let mut placement = table([report(1, 0.0, 0), report(2, 9.0, 0)]);
        placement.step(Moment(1), Input::Lost(NodeId(1)));
        assert_eq!(placement.step(Moment(1), Input::Place), [Effect::Placed(NodeId(2))]);
        let recovering = Input::Report {
            node: NodeId(2),
            state: NodeState::Recovering,
            load: Load::default(),
            workers: 1,
            jobs_accepted: 0,
        };
        placement.step(Moment(2), recovering);
        assert_eq!(placement.step(Moment(2), Input::Place), [Effect::NoActiveNode]);
    }

    #[test]
    fn an_adopted_table_goes_on_counting() {
        let mut first = table([report(1, 0.0, 0), report(2, 0.0, 0)]);
        place(&mut first, 4);
        let mut second = table([report(1, 0.0, 0), report(2, 0.0, 0), report(3, 0.0, 0)]);
        second.step(Moment(5), Input::Adopt(first.entries()));
        assert_eq!(place(&mut second, 2), BTreeMap::from([(3, 2)]));
    }
}
