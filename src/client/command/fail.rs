//! `client fail`: make a node fail for a while.

use std::time::Duration;

use super::args::duration;
use super::exit::CommandError;
use super::target::TargetArguments;
use crate::client::FailTarget;
use crate::protocol::sync::FailCommand;

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client fail coordinator --for 5s
  client fail 2 --for 500ms

A failed node ignores all communication, keeps its connections open, and recovers by itself.")]
pub struct Arguments {
    /// A node's number, or `coordinator`
    #[arg(value_name = "NODE")]
    pub node: FailTarget,
    /// How long, as in 5s, 500ms or 2m; at most 10m
    #[arg(long = "for", value_name = "TIME", value_parser = failure_time)]
    pub duration: Duration,
}

/// What the nodes accept: from 1 ms to 10 minutes.
fn failure_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let limits = Duration::from_millis(1)..=FailCommand::LONGEST;
    if limits.contains(&time) { Ok(time) } else { Err(format!("a failure lasts from 1ms to 10m, not {text}")) }
}

pub async fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let node = target.open(None)?.cluster.fail(arguments.node, arguments.duration).await?;
    eprintln!("node {node} fails for {} ms", arguments.duration.as_millis());
    Ok(())
}
