//! `client hash` and `client leader`: are all replicas equal, and who leads.

use std::time::Duration;

use serde::Serialize;

use super::args::duration;
use super::exit::{CommandError, Exit};
use super::output::{Format, json_line, new_table, print_line, print_values};
use super::target::TargetArguments;

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client hash
  client hash -o json | jq .equal

Asks every node for a hash of everything that it has applied, until all that answer have applied the same entries. Exit code 0 if the
hashes are equal, 6 if they are not, 4 if fewer than two nodes answer.")]
pub struct HashArguments {
    /// How long to wait until all have applied the same entries
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client leader
  client leader -o json")]
pub struct LeaderArguments {
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Serialize)]
struct Comparison {
    equal: bool,
    nodes: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    address: String,
    commit: Option<u64>,
    hash: Option<String>,
    problem: Option<String>,
}

pub async fn hash(arguments: &HashArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let cluster = target.open(None)?.cluster;
    let start = crate::time::now();
    let nodes = loop {
        let answers = cluster.state_hashes().await;
        let rows: Vec<Row> = answers
            .into_iter()
            .map(|(address, result)| match result {
                Ok(found) => Row { address, commit: Some(found.commit), hash: Some(found.hash), problem: None },
                Err(problem) => Row { address, commit: None, hash: None, problem: Some(problem) },
            })
            .collect();
        let mut commits = rows.iter().filter_map(|row| row.commit);
        let first = commits.next();
        if commits.all(|commit| Some(commit) == first) || crate::time::now().since(start) > arguments.timeout {
            break rows;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let answered: Vec<_> = nodes.iter().filter_map(|row| row.commit.zip(row.hash.as_ref())).collect();
    let several = answered.len() > 1;
    let equal = several && answered.windows(2).all(|pair| pair[0] == pair[1]);
    let comparison = Comparison { equal, nodes };
    match arguments.output {
        Format::Json => print_line(&json_line(&comparison)?)?,
        Format::Table => {
            let mut table = new_table();
            table.set_header(["NODE", "COMMIT", "HASH"]);
            for row in &comparison.nodes {
                let commit = row.commit.map_or_else(|| "-".to_owned(), |commit| commit.to_string());
                let hash = row.hash.clone().or_else(|| row.problem.clone()).unwrap_or_default();
                table.add_row([row.address.clone(), commit, hash]);
            }
            print_line(&table.to_string())?;
            if several {
                let verdict = if equal { "equal" } else { "not equal" };
                let (answer, all) =
                    (comparison.nodes.iter().filter(|row| row.hash.is_some()).count(), comparison.nodes.len());
                let of_how_many =
                    if answer < all { format!(", {answer} of {all} nodes answer") } else { String::new() };
                print_line(&format!("{verdict}{of_how_many}"))?;
            }
        }
    }
    match (equal, several) {
        (true, _) => Ok(()),
        (false, true) => Err(CommandError::new(Exit::Damaged, "the replicas are not equal")),
        (false, false) => Err(CommandError::new(Exit::Unavailable, "fewer than two nodes answer")),
    }
}

pub async fn leader(arguments: &LeaderArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let leadership = target.open(None)?.cluster.coordinator().await?;
    match arguments.output {
        Format::Table => print_line(&format!("node {} in term {}", leadership.node, leadership.term)),
        Format::Json => print_values(&leadership, Format::Json),
    }
}
