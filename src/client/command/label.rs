//! `client label`: write names and a quota into a picture.

use std::path::{Path, PathBuf};

use super::exit::CommandError;
use super::request::{DeadlineArguments, OutputArguments, perform};
use super::target::TargetArguments;
use crate::client::Work;
use crate::protocol::job::Label;

const DEFAULT_OUTPUT: &str = "labelled_image.png";

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client label cat.jpg --to alice,bob --quota 5   writes labelled_image.png
  client read-label labelled_image.png            {\"usernames\":[\"alice\",\"bob\"],\"quota\":5}")]
pub struct Arguments {
    /// The picture: PNG, JPEG or WebP; `-` for stdin
    #[arg(value_name = "IMG")]
    pub input: PathBuf,
    /// Who may look, with commas between the names
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    pub to: Vec<String>,
    /// How often each of them may look
    #[arg(long, value_name = "N")]
    pub quota: u64,
    #[command(flatten)]
    pub output: OutputArguments,
    #[command(flatten)]
    pub deadline: DeadlineArguments,
}

pub async fn run(arguments: Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let sink = arguments.output.sink(Path::new(DEFAULT_OUTPUT))?;
    let usernames = arguments.to.iter().map(|name| name.trim().to_owned()).collect();
    let work = Work::Label(Label { usernames, quota: arguments.quota });
    perform(&arguments.input, work, sink, &arguments.deadline, target, "labelled").await
}
