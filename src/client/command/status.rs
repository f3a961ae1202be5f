//! `client status`: all nodes, those that do not answer included.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Color};
use serde::Serialize;

use super::args::duration;
use super::exit::{CommandError, Exit};
use super::output::{Format, json_line, new_table, print_line};
use super::target::TargetArguments;
use crate::client::{NodeReport, confirmed_coordinator};
use crate::id::{Load, NodeId};
use crate::protocol::election::Cause;
use crate::protocol::fault;
use crate::protocol::status::{Leadership, NodeState, NodeStatus, PeerStatus};

/// Clears the terminal and goes to its upper left corner.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client status
  client status --watch
  client status -o json | jq '.nodes[] | select(.answers)'

LAG is how many committed entries a node has not applied yet. For a node that does not answer, state, load and LAST SEEN are
what the others last heard of it. Links that are cut, slow or lossy stand below the table. Exit code 4 if no node answers.")]
pub struct Arguments {
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Again and again, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration, requires = "watch")]
    pub every: Duration,
}

pub async fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let cluster = target.open(None)?.cluster;
    loop {
        let view = ClusterView::of(&cluster.status().await);
        let clear = arguments.watch && arguments.output == Format::Table && io::stdout().is_terminal();
        let text = match arguments.output {
            Format::Json => json_line(&view)?,
            Format::Table => view.table(),
        };
        print_line(&format!("{}{text}", if clear { CLEAR } else { "" }))?;
        if !arguments.watch {
            return match view.nodes.iter().any(|row| row.answers) {
                true => Ok(()),
                false => Err(CommandError::new(Exit::Unavailable, cluster.nobody_answers().to_string())),
            };
        }
        tokio::time::sleep(arguments.every.max(Duration::from_millis(50))).await;
    }
}

/// The cluster as the client sees it.
#[derive(Debug, Serialize)]
pub struct ClusterView {
    /// The confirmed coordinator of the highest term that any node knows.
    coordinator: Option<Leadership>,
    /// Why that one was elected, if a node that answers knows.
    cause: Option<Cause>,
    nodes: Vec<Row>,
}

/// One node.
#[derive(Debug, Serialize)]
struct Row {
    node: Option<NodeId>,
    address: Option<String>,
    answers: bool,
    /// By its own word, or by what the others last heard.
    state: Option<NodeState>,
    load: Option<Load>,
    /// Milliseconds since any other node heard it last; none if it answers, or was never heard.
    last_seen_ms: Option<u64>,
    /// Committed entries of the cluster that it has not applied.
    lag: Option<u64>,
    /// Why it does not answer.
    problem: Option<String>,
    /// Everything that it says of itself.
    status: Option<NodeStatus>,
}

impl ClusterView {
    pub fn of(reports: &[NodeReport]) -> ClusterView {
        let statuses: Vec<&NodeStatus> = reports.iter().filter_map(|report| report.result.as_ref().ok()).collect();
        let commit = statuses.iter().map(|status| status.commit).max().unwrap_or_default();
        let mut nodes: Vec<Row> = reports.iter().map(|report| Row::of(report, &statuses, commit)).collect();
        // Nodes that the others know and that were not asked, for example because --nodes named only some.
        let asked: BTreeSet<NodeId> = nodes.iter().filter_map(|row| row.node).collect();
        let heard: BTreeSet<NodeId> = statuses.iter().flat_map(|status| &status.peers).map(|peer| peer.node).collect();
        nodes.extend(heard.difference(&asked).map(|&node| Row::hearsay(Some(node), None, &statuses)));
        nodes.sort_by_key(|row| (row.node.is_none(), row.node));
        let coordinator = confirmed_coordinator(&statuses);
        let agreeing = statuses.iter().filter(|status| coordinator.is_some() && status.coordinator == coordinator);
        ClusterView { coordinator, cause: agreeing.filter_map(|status| status.cause).next(), nodes }
    }

    fn table(&self) -> String {
        let mut table = new_table();
        table.set_header([
            "NODE",
            "ADDRESS",
            "STATE",
            "ROLE",
            "TERM",
            "LOAD",
            "QUEUE",
            "DONE",
            "COMMIT",
            "LAG",
            "LAST SEEN",
        ]);
        for row in &self.nodes {
            table.add_row(row.cells(self.coordinator));
        }
        for column in table.column_iter_mut().skip(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let problems = self.nodes.iter().filter_map(|row| {
            let (address, problem) = (row.address.as_ref()?, row.problem.as_ref()?);
            Some(format!("\n{address}: {problem}"))
        });
        let faults = self.nodes.iter().filter_map(|row| {
            let status = row.status.as_ref().filter(|status| !status.faults.is_empty())?;
            Some(format!("\nnode {}: {}", status.node, fault::in_words(&status.faults)))
        });
        let outsiders = self.nodes.iter().filter_map(|row| {
            let NodeStatus { node, address, .. } = row.status.as_ref().filter(|status| status.is_outsider)?;
            Some(format!(
                "\nnode {node}: its data directory is no voter: `client members add {node} {address}` lets a new node in, \
                 `client members replace {node} {address}` one whose data is lost"
            ))
        });
        format!("{}\n{table}{}", self.heading(), problems.chain(faults).chain(outsiders).collect::<String>())
    }

    /// Who coordinates and since when, or why nobody does.
    pub fn heading(&self) -> String {
        match self.coordinator {
            Some(Leadership { term, node }) => {
                let cause = match self.cause {
                    None => String::new(),
                    Some(cause @ (Cause::FirstStart | Cause::NoCoordinator)) => format!(" ({cause})"),
                    Some(cause) => format!(" (the one before: {cause})"),
                };
                format!("coordinator: node {node} since term {term}{cause}")
            }
            None => format!("coordinator: none{}", self.why_none()),
        }
    }

    /// Behind "coordinator: none".
    fn why_none(&self) -> String {
        let statuses: Vec<&NodeStatus> = self.nodes.iter().filter_map(|row| row.status.as_ref()).collect();
        if !statuses.is_empty() && statuses.iter().all(|status| status.term.0 == 0) {
            return ", and no node that answers knows of any: a cluster begins when all configured nodes answer one another"
                .to_owned();
        }
        match statuses.iter().filter_map(|status| status.without_quorum_ms).min() {
            Some(quiet) => format!(" confirmed, no quorum for {:.1} s", quiet as f64 / 1000.0),
            None => " confirmed".to_owned(),
        }
    }
}

impl Row {
    fn of(report: &NodeReport, statuses: &[&NodeStatus], commit: u64) -> Row {
        let address = Some(report.address.clone());
        match &report.result {
            Ok(status) => Row {
                node: Some(status.node),
                address,
                answers: true,
                state: Some(status.state),
                load: Some(status.load),
                last_seen_ms: None,
                lag: Some(commit.saturating_sub(status.applied)),
                problem: None,
                status: Some(status.clone()),
            },
            Err(problem) => Row { problem: Some(problem.clone()), ..Row::hearsay(report.node, address, statuses) },
        }
    }

    /// What the others last heard of a node: the freshest word counts.
    fn hearsay(node: Option<NodeId>, address: Option<String>, statuses: &[&NodeStatus]) -> Row {
        let heard = statuses.iter().flat_map(|status| &status.peers).filter(|peer| Some(peer.node) == node);
        let freshest: Option<&PeerStatus> =
            heard.filter(|peer| peer.last_seen_ms.is_some()).min_by_key(|peer| peer.last_seen_ms);
        Row {
            node,
            address,
            answers: false,
            state: freshest.map(|peer| peer.state),
            load: freshest.map(|peer| peer.load),
            last_seen_ms: freshest.and_then(|peer| peer.last_seen_ms),
            lag: None,
            problem: None,
            status: None,
        }
    }

    fn cells(&self, coordinator: Option<Leadership>) -> Vec<Cell> {
        let dash = || "-".to_owned();
        let own = |value: fn(&NodeStatus) -> String| self.status.as_ref().map_or_else(dash, value);
        let state = self.state.map_or_else(dash, |state| state.to_string());
        let (state, color) = match (self.answers, self.state) {
            (true, Some(NodeState::Active)) => (state, Color::Green),
            (true, Some(NodeState::Recovering | NodeState::Stopping)) => (state, Color::Yellow),
            (true, _) => (state, Color::Red),
            (false, Some(_)) => (format!("no answer (was {state})"), Color::Red),
            (false, None) => ("no answer".to_owned(), Color::Red),
        };
        let leads = self.node.is_some() && coordinator.map(|leadership| leadership.node) == self.node;
        let role = own(|status| status.role.to_string()) + if leads && self.answers { " [COORDINATOR]" } else { "" };
        let last_seen = match (self.answers, self.last_seen_ms) {
            (true, _) => "now".to_owned(),
            (false, Some(milliseconds)) => format!("{:.1} s ago", milliseconds as f64 / 1000.0),
            (false, None) => "never".to_owned(),
        };
        vec![
            Cell::new(self.node.map_or_else(dash, |node| node.to_string())),
            Cell::new(self.address.as_deref().map_or("-", |address| address.trim_start_matches("http://"))),
            Cell::new(state).fg(color),
            Cell::new(role),
            Cell::new(own(|status| status.term.to_string())),
            Cell::new(self.load.map_or_else(dash, |load| load.to_string())),
            Cell::new(own(|status| format!("{}+{}", status.running, status.queued))),
            Cell::new(own(|status| status.jobs_done.to_string())),
            Cell::new(own(|status| status.commit.to_string())),
            Cell::new(self.lag.map_or_else(dash, |lag| lag.to_string())),
            Cell::new(last_seen),
        ]
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
