//! `client 1 5`: client 1 sends 5 requests, one after another, with pictures that it makes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::exit::{CommandError, Exit};
use super::files::{Existing, Sink};
use super::output::{print_line, size};
use super::picture;
use super::request::{DeadlineArguments, FormArgument};
use super::target::{Target, TargetArguments};
use crate::client::{Answer, Job, RequestFailed, Work};
use crate::id::NodeId;
use crate::time::now;

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client 1 5                   client 1 sends 5 requests; results in results/client-1/
  client send 2 100 --out /tmp/sealed --form stored

Results of an earlier run of the same client are replaced.")]
pub struct Arguments {
    /// Number of the client
    #[arg(value_name = "CLIENT", value_parser = clap::value_parser!(u32).range(1..))]
    pub client: u32,
    /// How many requests it sends
    #[arg(value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub requests: u32,
    /// Directory of the results [default: results/client-CLIENT]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How the results are written
    #[arg(long, value_enum, default_value_t)]
    pub form: FormArgument,
    #[command(flatten)]
    pub deadline: DeadlineArguments,
}

pub async fn run(arguments: Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let Arguments { client, requests, .. } = arguments;
    let mut target = target.open(Some(arguments.deadline.deadline))?;
    target.cluster.anyone_answers().await?;
    let directory = arguments.out.unwrap_or_else(|| PathBuf::from(format!("results/client-{client}")));
    std::fs::create_dir_all(&directory).map_err(|error| {
        CommandError::file(
            format!("cannot make {}", directory.display()),
            &error,
            "choose another directory with --out",
        )
    })?;

    let start = now();
    let mut by_node: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut last_failure = None;
    for number in 1..=requests {
        match send_one(&mut target, client, number, arguments.form, &directory).await? {
            Ok((line, node)) => {
                *by_node.entry(node).or_default() += 1;
                print_line(&format!("request {number}/{requests}: {line}"))?;
            }
            Err(failure) => {
                print_line(&format!("request {number}/{requests}: failed: {failure}"))?;
                last_failure = Some(failure);
            }
        }
    }
    let answered: u32 = by_node.values().sum();
    let shares: Vec<String> = by_node.iter().map(|(node, jobs)| format!("node {node}: {jobs}")).collect();
    print_line(&format!(
        "client {client}: {answered} of {requests} answered in {:.2} s ({}); results in {}",
        now().since(start).as_secs_f64(),
        if shares.is_empty() { "no node".into() } else { shares.join(", ") },
        directory.display()
    ))?;
    match last_failure {
        None => Ok(()),
        // With nothing answered the reason of the last failure says how the program ends; otherwise it failed in part.
        Some(failure) if answered == 0 => Err(CommandError { text: None, ..failure.into() }),
        Some(_) => Err(CommandError::quiet(Exit::Failed)),
    }
}

/// Sends one request and writes its result. The inner error is that of the request, after which the next one is sent.
async fn send_one(
    target: &mut Target,
    client: u32,
    number: u32,
    form: FormArgument,
    directory: &Path,
) -> Result<Result<(String, NodeId), RequestFailed>, CommandError> {
    let picture = picture::make(client, number)
        .map_err(|error| CommandError::new(Exit::Failed, format!("cannot make a picture: {error}")))?;
    let description = format!("{} ({})", picture.name, size(picture.file.len()));
    let work = Work::Seal(form.into());
    let job = Job { id: target.fresh_id(), image: picture.file.into(), name: picture.name, work };
    let start = now();
    let answer = match target.cluster.run(job).await {
        Ok(answer) => answer,
        Err(failure) => return Ok(Err(failure)),
    };
    let took = now().since(start);
    let path = directory.join(format!("request-{number}.png"));
    Sink::check(&path, Existing::Replace)?.write(&answer.image)?;
    let line = format!(
        "{description} -> {} ({}), node {}, {}, {:.1} ms",
        path.display(),
        size(answer.image.len()),
        answer.node,
        how(&answer),
        took.as_secs_f64() * 1e3
    );
    Ok(Ok((line, answer.node)))
}

/// Who placed the request, and what went before: "placed by the coordinator after busy, timeout".
fn how(answer: &Answer) -> String {
    let placed_by = answer.attempts.last().map_or("client", |attempt| attempt.placed_by.as_str());
    let failures: Vec<&str> = answer.attempts.iter().filter_map(|attempt| attempt.failure.as_deref()).collect();
    match failures.is_empty() {
        true => format!("placed by the {placed_by}"),
        false => format!("placed by the {placed_by} after {}", failures.join(", ")),
    }
}
