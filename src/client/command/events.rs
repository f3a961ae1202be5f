//! `client events` and `client explain-election`: what happened, and why this node leads.

use std::collections::BTreeMap;
use std::time::Duration;

use super::exit::{CommandError, Exit};
use super::output::{Format, json_line, print_line};
use super::target::TargetArguments;
use crate::client::Cluster;
use crate::id::NodeId;
use crate::protocol::event::Event;

/// Pause between two looks with `--follow`.
const EVERY: Duration = Duration::from_millis(250);

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client events                                   the last events of all nodes, in order of time
  client events --follow                          and what happens next, until Ctrl-C
  client events -o json | jq 'select(.kind == \"elected\")'")]
pub struct EventsArguments {
    /// Go on until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only of this node
    #[arg(long, value_name = "NODE")]
    pub node: Option<NodeId>,
    /// Form of the result; JSON has one event on each line
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client explain-election                         the last one: who called it and why, every load, the votes
  client explain-election 7                       how the coordinator of term 7 was found
  client explain-election -o json

The cluster remembers its last 64 elections. Exit code 3 if it does not remember that term.")]
pub struct ExplainArguments {
    /// The term [default: the latest]
    pub term: Option<u64>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

pub async fn events(arguments: &EventsArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let cluster = target.open(None)?.cluster;
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        let events = news(&cluster, arguments.node, &mut next).await?;
        for event in &events {
            print_line(&match arguments.output {
                Format::Json => json_line(event)?,
                Format::Table => line(event),
            })?;
        }
        if !arguments.follow {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What is new at each node, in order of time.
async fn news(
    cluster: &Cluster,
    only: Option<NodeId>,
    next: &mut BTreeMap<String, u64>,
) -> Result<Vec<Event>, CommandError> {
    let reports = cluster.status().await;
    if reports.iter().all(|report| report.result.is_err()) && next.is_empty() {
        return Err(CommandError::new(Exit::Unavailable, cluster.nobody_answers().to_string()));
    }
    if let Some(node) = only.filter(|node| !reports.iter().any(|report| report.node == Some(*node))) {
        return Err(CommandError::new(Exit::NotFound, format!("there is no node {node}")));
    }
    let mut all = Vec::new();
    for report in reports.iter().filter(|report| report.result.is_ok() && (only.is_none() || report.node == only)) {
        let since = next.get(&report.address).copied().unwrap_or(1);
        let Ok(mut events) = cluster.events_at(&report.address, since).await else { continue };
        if events.is_empty() && since > 1 {
            // A node that was started again counts from 1.
            let from_start = cluster.events_at(&report.address, 1).await.unwrap_or_default();
            if from_start.last().is_some_and(|last| last.seq + 1 < since) {
                events = from_start;
            }
        }
        if let Some(last) = events.last() {
            next.insert(report.address.clone(), last.seq + 1);
        }
        all.extend(events);
    }
    all.sort_by_key(|event| (event.at_unix_ms, event.node, event.seq));
    Ok(all)
}

/// `12:34:56.789  node 2  term 4  Active      suspects node 1 (no heartbeat)`, in UTC.
fn line(event: &Event) -> String {
    let of_day = event.at_unix_ms % 86_400_000;
    let (hours, minutes) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (seconds, millis) = (of_day / 1000 % 60, of_day % 1000);
    let time = format!("{hours:02}:{minutes:02}:{seconds:02}.{millis:03}");
    format!("{time}  node {:<3} term {:<4} {:<10}  {}", event.node, event.term, event.state, event.what)
}

pub async fn explain(arguments: &ExplainArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let elections = target.open(None)?.cluster.elections().await?;
    let found = match arguments.term {
        None => elections.last(),
        Some(term) => elections.iter().find(|result| result.coordinator.term.0 == term),
    };
    let Some(result) = found else {
        if elections.is_empty() {
            return Err(CommandError::new(Exit::NotFound, "no election is remembered: the cluster has not begun yet"));
        }
        let known: Vec<String> = elections.iter().map(|result| result.coordinator.term.to_string()).collect();
        let term = arguments.term.map_or(String::new(), |term| format!(" of term {term}"));
        let text = format!("no election{term} is remembered; there are those of terms {}", known.join(", "));
        return Err(CommandError::new(Exit::NotFound, text));
    };
    print_line(&match arguments.output {
        Format::Json => json_line(result)?,
        Format::Table => result.to_string().trim_end().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Term;
    use crate::protocol::event::EventKind;
    use crate::protocol::status::NodeState;

    #[test]
    fn an_event_is_one_line() {
        let what =
            EventKind::StateChanged { from: NodeState::Recovering, to: NodeState::Active, why: "in sync".into() };
        let event =
            Event { seq: 1, at_unix_ms: 3_723_004, node: NodeId(2), term: Term(4), state: NodeState::Active, what };
        assert_eq!(line(&event), "01:02:03.004  node 2   term 4    Active      Recovering → Active: in sync");
    }
}
