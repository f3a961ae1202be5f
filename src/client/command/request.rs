//! What `encrypt` and `label` share: read a picture, send it, write the result.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::args::duration;
use super::exit::CommandError;
use super::files::{self, Existing, Force, Sink};
use super::output::size;
use super::status::ClusterView;
use super::target::{Target, TargetArguments};
use crate::client::{Cluster, Job, Work};
use crate::protocol::job::SealForm;
use crate::time::now;

/// After this time people wonder what is going on.
const SLOW: Duration = Duration::from_secs(3);

/// The flags of commands that write one image.
#[derive(Clone, Debug, clap::Args)]
pub struct OutputArguments {
    /// Where the result goes; `-` for stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub force: Force,
}

impl OutputArguments {
    /// The output, checked before any work is done.
    pub fn sink(&self, default: &Path) -> Result<Sink, CommandError> {
        Sink::check(self.output.as_deref().unwrap_or(default), Existing::from(self.force))
    }
}

/// The flags of commands that send requests.
#[derive(Clone, Debug, clap::Args)]
pub struct DeadlineArguments {
    /// Give up after this time, all attempts of a request included
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub deadline: Duration,
}

/// How a sealed image is written, on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FormArgument {
    /// About 1.04 times the original
    #[default]
    Compact,
    /// Twice the original, several times as fast
    Stored,
}

impl From<FormArgument> for SealForm {
    fn from(form: FormArgument) -> SealForm {
        match form {
            FormArgument::Compact => SealForm::Compact,
            FormArgument::Stored => SealForm::Stored,
        }
    }
}

/// Sends the picture at `input` and writes the result; `done` says what was done with it, as in "locked".
pub async fn perform(
    input: &Path,
    work: Work,
    sink: Sink,
    deadline: &DeadlineArguments,
    target: &TargetArguments,
    done: &str,
) -> Result<(), CommandError> {
    let image = files::read(input, target.limits().file_bytes())?;
    let mut target = target.open(Some(deadline.deadline))?;
    target.cluster.anyone_answers().await?;
    send(input, image, work, &sink, &mut target, done).await
}

/// Says once that it takes long, and what the cluster says of itself, which may be why.
async fn tell_if_slow(cluster: &Cluster) -> Infallible {
    tokio::time::sleep(SLOW).await;
    let reports = cluster.status().await;
    let says = match reports.iter().any(|report| report.result.is_ok()) {
        true => format!(" ({})", ClusterView::of(&reports).heading()),
        false => String::new(),
    };
    eprintln!("no answer yet, waiting until the --deadline{says}");
    std::future::pending().await
}

/// The name of a picture, as it is kept inside a seal.
pub fn file_name(input: &Path) -> String {
    input.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Sends a picture that was read from `input`, and writes the result.
pub async fn send(
    input: &Path,
    image: Bytes,
    work: Work,
    sink: &Sink,
    target: &mut Target,
    done: &str,
) -> Result<(), CommandError> {
    let name = file_name(input);
    let start = now();
    let before = size(image.len());
    let job = Job { id: target.fresh_id(), image, name, work };
    let answer = tokio::select! {
        answer = target.cluster.run(job) => answer?,
        never = tell_if_slow(&target.cluster) => match never {},
    };
    let took = now().since(start);
    sink.write(&answer.image)?;
    eprintln!(
        "{done} {} ({before}) on node {} in {} ms: {} ({})",
        input.display(),
        answer.node,
        took.as_millis(),
        sink.name(),
        size(answer.image.len())
    );
    Ok(())
}
