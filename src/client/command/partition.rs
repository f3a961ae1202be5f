//! `client partition`: cut links between nodes.

use super::exit::{CommandError, Exit};
use super::links::{Groups, Present, names};
use super::target::TargetArguments;

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client partition 1,2/3             nodes 1 and 2 on one side, node 3 on the other
  client partition 1/2/3             nobody hears anybody
  client partition --only 1/2        1 and 2 do not hear one another; both hear 3, and 3 hears both
  client partition --one-way 1/2     what 1 sends to 2 is lost, what 2 sends to 1 arrives
  client heal                        all links are whole again

Over a cut link nothing arrives and nobody is told: connections stay open and silent, new ones
are not answered. Clients still reach every node. Every node must be in one group; with --only and
--one-way, nodes that are not named keep all their links. A partition replaces the one before it;
delays and losses of `client slow` stay. A node that is restarted has forgotten its cuts.
Exit code 4 if a node could not be told: the partition is partial then.")]
pub struct Arguments {
    /// Nodes in groups: commas within a group, a slash between two
    #[arg(value_name = "GROUPS")]
    pub groups: Groups,
    /// Cut these links and leave the nodes that are not named alone
    #[arg(long)]
    pub only: bool,
    /// The same, and only what the first group sends to the second
    #[arg(long)]
    pub one_way: bool,
}

pub async fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let groups = &arguments.groups;
    if arguments.one_way && groups.count() != 2 {
        let text =
            format!("--one-way is from one group to another, as in 1/2, and \"{groups}\" has {}", groups.count());
        return Err(CommandError::new(Exit::Usage, text));
    }
    let cluster = target.open(None)?.cluster;
    let mut present = Present::look(&cluster).await?;
    present.check(&groups.nodes())?;
    let nodes = present.nodes();
    let mut unnamed = nodes.clone();
    unnamed.retain(|node| !groups.nodes().contains(node));
    if !arguments.only && !arguments.one_way && !unnamed.is_empty() {
        let text = format!("node {} is in no group: put every node into one, or use --only", names(&unnamed));
        return Err(CommandError::new(Exit::Usage, text));
    }
    present.faults.join();
    for (one, other) in groups.pairs() {
        present.faults.cut(one, other);
        if !arguments.one_way {
            present.faults.cut(other, one);
        }
    }
    present.tell(&cluster, &nodes, "the partition").await?;
    let how = if arguments.one_way { "cut one way" } else { "cut" };
    eprintln!("{how}: {groups}; `client heal` ends it");
    Ok(())
}
