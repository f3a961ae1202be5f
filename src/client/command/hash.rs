//! `client hash` and `client leader`: are all replicas equal, and who leads.

use std::collections::BTreeMap;
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
hashes are equal, 6 if they are not, 4 if they cannot be compared: fewer than two nodes answer, or one stays behind.")]
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
    /// Null where they cannot be compared.
    equal: Option<bool>,
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
    let verdict = Verdict::of(&nodes);
    let comparison = Comparison { equal: verdict.is_equal(), nodes };
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
            if let Some(said) = verdict.in_words() {
                let (answer, all) =
                    (comparison.nodes.iter().filter(|row| row.hash.is_some()).count(), comparison.nodes.len());
                let of_how_many =
                    if answer < all { format!(", {answer} of {all} nodes answer") } else { String::new() };
                print_line(&format!("{said}{of_how_many}"))?;
            }
        }
    }
    match verdict {
        Verdict::Equal => Ok(()),
        Verdict::Different => Err(CommandError::new(Exit::Damaged, "the replicas are not equal")),
        Verdict::Behind => {
            let what = format!(
                "not all nodes have applied the same entries within {} s: `client status` shows who is behind",
                arguments.timeout.as_secs_f64()
            );
            Err(CommandError::new(Exit::Unavailable, what))
        }
        Verdict::TooFew => Err(CommandError::new(Exit::Unavailable, "fewer than two nodes answer")),
    }
}

/// What the hashes say of the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Equal,
    /// Two that have applied the same entries have different states.
    Different,
    /// Those that have applied the same are equal, but not all have.
    Behind,
    TooFew,
}

impl Verdict {
    fn of(rows: &[Row]) -> Verdict {
        let mut hashes = BTreeMap::new();
        let answered = || rows.iter().filter_map(|row| row.commit.zip(row.hash.as_ref()));
        for (commit, hash) in answered() {
            if hashes.insert(commit, hash).is_some_and(|other| other != hash) {
                return Verdict::Different;
            }
        }
        match (answered().count(), hashes.len()) {
            (0 | 1, _) => Verdict::TooFew,
            (_, 1) => Verdict::Equal,
            _ => Verdict::Behind,
        }
    }

    const fn is_equal(self) -> Option<bool> {
        match self {
            Verdict::Equal => Some(true),
            Verdict::Different => Some(false),
            Verdict::Behind | Verdict::TooFew => None,
        }
    }

    /// The line below the table; the error alone speaks of too few.
    const fn in_words(self) -> Option<&'static str> {
        match self {
            Verdict::Equal => Some("equal"),
            Verdict::Different => Some("not equal"),
            Verdict::Behind => Some("not comparable: one is behind"),
            Verdict::TooFew => None,
        }
    }
}

pub async fn leader(arguments: &LeaderArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let leadership = target.open(None)?.cluster.coordinator().await?;
    match arguments.output {
        Format::Table => print_line(&format!("node {} in term {}", leadership.node, leadership.term)),
        Format::Json => print_values(&leadership, Format::Json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: damage is said of replicas that have applied the same, never of one that is merely behind.
    #[test]
    fn only_what_has_applied_the_same_is_compared() {
        let verdict = |nodes: &[Option<(u64, &str)>]| {
            let row = |found: &Option<(u64, &str)>| Row {
                address: String::new(),
                commit: found.map(|(commit, _)| commit),
                hash: found.map(|(_, hash)| hash.to_owned()),
                problem: None,
            };
            Verdict::of(&nodes.iter().map(row).collect::<Vec<_>>())
        };
        assert_eq!(verdict(&[Some((5, "a")), None, Some((5, "a"))]), Verdict::Equal);
        assert_eq!(verdict(&[Some((5, "a")), Some((5, "a")), Some((4, "b"))]), Verdict::Behind);
        assert_eq!(verdict(&[Some((5, "a")), Some((4, "b")), Some((5, "c"))]), Verdict::Different);
        assert_eq!(verdict(&[Some((5, "a")), None, None]), Verdict::TooFew);
    }
}
