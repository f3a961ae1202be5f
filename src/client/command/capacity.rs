//! `client capacity`: how long a label a picture can carry.

use std::path::PathBuf;

use super::exit::CommandError;
use super::output::{Format, print_values};
use super::target::TargetArguments;
use super::{files, local};

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The picture: PNG, JPEG or WebP; `-` for stdin
    #[arg(value_name = "FILE")]
    pub input: PathBuf,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

pub fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let limits = target.limits();
    let file = files::read(&arguments.input, limits.file_bytes())?;
    print_values(&local::capacity(&file, &limits)?, arguments.output)
}
