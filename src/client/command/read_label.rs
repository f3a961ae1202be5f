//! `client read-label`: the label of a labelled picture, as the JSON that stands in it.

use std::path::PathBuf;

use super::exit::CommandError;
use super::output::{json_line, print_line};
use super::target::TargetArguments;
use super::{files, local};

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The labelled picture; `-` for stdin
    #[arg(value_name = "FILE")]
    pub input: PathBuf,
}

pub fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let limits = target.limits();
    let file = files::read(&arguments.input, limits.file_bytes())?;
    print_line(&json_line(&local::read_label(&file, &limits)?)?)
}
