//! `client heal`: make all links whole again.

use super::exit::CommandError;
use super::links::{Faults, Present, names};
use super::target::TargetArguments;

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client heal

Takes every cut, delay and loss away, at every node that answers. Exit code 4 if one did not.")]
pub struct Arguments {}

pub async fn run(target: &TargetArguments) -> Result<(), CommandError> {
    let cluster = target.open(None)?.cluster;
    let mut present = Present::look(&cluster).await?;
    present.faults = Faults::default();
    let nodes = present.nodes();
    present.tell(&cluster, &nodes, "the healing").await?;
    eprintln!("healed: all links of nodes {}", names(&nodes));
    Ok(())
}
