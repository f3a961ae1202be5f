//! `client members`: who belongs to the cluster, and changing that while it runs.

use std::net::SocketAddr;
use std::time::Duration;

use super::args::duration;
use super::exit::{CommandError, Exit};
use super::output::{Format, json_line, new_table, print_line};
use super::target::TargetArguments;
use crate::client::Cluster;
use crate::id::NodeId;
use crate::protocol::membership::{Change, ChangeRequest, LONGEST_WAIT_MS, MemberRole, MemberStatus, Members};
use crate::time;

/// Between two looks how far a new member has come.
const LOOK: Duration = Duration::from_secs(1);

/// What a change takes besides the time in which a new member catches up.
const SLACK: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    before_help = "\
Examples:
  client members                                  who belongs to the cluster, and since when
  client members add 4 127.0.0.1:8004             after: cloud-node 4 --listen 127.0.0.1:8004 --join
  client members replace 2 127.0.0.1:8012         after: cloud-node 2 --listen 127.0.0.1:8012 --data DIR --join
  client members remove 2

A new member gets the log as a learner and becomes a voter when it has caught up; the cluster answers all the while. The node that is
replaced or removed is told so, and stops with exit code 5. Changes need the admin token. Exit code 1 if the change may not be made
now, with the reason; 3 if there is no such node; 4 without a quorum."
)]
pub struct Arguments {
    #[command(subcommand)]
    pub change: Option<Command>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub output: Format,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Take a new node in
    Add(NewMember),
    /// Put another disk or machine in the place of a node, running or dead; or tell that it has moved with its disk
    Replace(NewMember),
    /// Let a node go
    Remove {
        /// Which node
        #[arg(value_name = "NODE")]
        node: NodeId,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub struct NewMember {
    /// Which node
    #[arg(value_name = "NODE")]
    pub node: NodeId,
    /// Where it answers people and programs
    #[arg(value_name = "IP:PORT")]
    pub address: SocketAddr,
    /// Where it answers other nodes [default: the same, port + 1000]
    #[arg(long, value_name = "IP:PORT")]
    pub peer: Option<SocketAddr>,
    /// How long it may take to catch up with the log; after that it stays a learner
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = waiting_time)]
    pub wait: Duration,
}

/// What a leader accepts.
fn waiting_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let longest = Duration::from_millis(LONGEST_WAIT_MS);
    if time <= longest { Ok(time) } else { Err(format!("a change waits for at most 1h, not {text}")) }
}

pub async fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let Some(command) = &arguments.change else {
        let members = target.open(None)?.cluster.members().await?;
        return show(&members, arguments.output);
    };
    let request = request(command);
    let wait = Duration::from_millis(request.wait_ms.unwrap_or_default());
    let cluster = target.open(Some(wait + SLACK))?.cluster;
    let changed = tokio::select! {
        changed = cluster.change_members(&request) => changed?,
        never = tell_progress(&cluster, request.node) => match never {},
    };
    eprintln!("{}", changed.done);
    for warning in &changed.members.warnings {
        eprintln!("warning: {warning}");
    }
    show(&changed.members, arguments.output)
}

fn request(command: &Command) -> ChangeRequest {
    let of = |change, new: &NewMember| ChangeRequest {
        change,
        node: new.node,
        address: Some(new.address),
        peer_address: new.peer,
        wait_ms: Some(new.wait.as_millis() as u64),
    };
    match command {
        Command::Add(new) => of(Change::Add, new),
        Command::Replace(new) => of(Change::Replace, new),
        Command::Remove { node } => {
            ChangeRequest { change: Change::Remove, node: *node, address: None, peer_address: None, wait_ms: None }
        }
    }
}

/// Says now and then how far the new member has come.
async fn tell_progress(cluster: &Cluster, node: NodeId) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(members) = cluster.members().await else { continue };
        let learner = members.members.iter().find(|member| member.node == node && member.role == MemberRole::Learner);
        if let Some(entries) = learner.and_then(|learner| learner.entries) {
            eprintln!("node {node} is a learner and has {entries} of {} entries", members.entries);
        }
    }
}

fn show(members: &Members, format: Format) -> Result<(), CommandError> {
    if format == Format::Json {
        return print_line(&json_line(members)?);
    }
    if members.members.is_empty() {
        let text = "the cluster has not begun yet: it waits until all configured nodes answer one another";
        return Err(CommandError::new(Exit::Unavailable, text));
    }
    let mut table = new_table();
    table.set_header(["NODE", "INCARNATION", "ROLE", "ADDRESS", "NODE ADDRESS", "SINCE", "LAST SEEN", "ENTRIES"]);
    for member in &members.members {
        table.add_row(cells(member, members));
    }
    print_line(&table.to_string())?;
    if members.is_changing {
        print_line("a change of the voters is under way")?;
    }
    if !members.leads {
        let text = format!("as node {} knows it, which does not lead", members.node);
        eprintln!("{text}");
    }
    Ok(())
}

/// How long ago that was, in the largest unit that fits.
fn age(now_ms: u64, since_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(since_ms) / 1000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

fn cells(member: &MemberStatus, members: &Members) -> Vec<String> {
    let ago = |milliseconds: u64| format!("{:.1} s ago", milliseconds as f64 / 1000.0);
    let last_seen = match member.last_seen_ms {
        Some(milliseconds) => ago(milliseconds),
        None if member.node == members.node && member.entries.is_some() => "now".to_owned(),
        None => "-".to_owned(),
    };
    vec![
        member.node.to_string(),
        member.incarnation.to_string(),
        member.role.to_string(),
        member.address.clone(),
        member.peer_address.clone(),
        member.since_unix_ms.map_or_else(|| "the beginning".to_owned(), |since| age(time::unix_millis(), since)),
        last_seen,
        member.entries.map_or_else(|| "-".to_owned(), |entries| entries.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_the_largest_unit_that_fits() {
        let ages = [5_000, 150_000, 7_200_000, 200_000_000].map(|now| age(now, 0));
        assert_eq!(ages, ["5 s ago", "2 min ago", "2 h ago", "2 days ago"]);
        assert_eq!(age(0, 5_000), "0 s ago", "clocks differ");
    }
}
