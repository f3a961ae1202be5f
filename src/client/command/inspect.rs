//! `client inspect`: what a locked picture tells to everyone.

use std::path::PathBuf;

use super::exit::CommandError;
use super::output::{Format, print_values};
use super::{files, local};

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The locked picture; `-` for stdin
    #[arg(value_name = "FILE")]
    pub input: PathBuf,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    print_values(&local::inspect(&files::read(&arguments.input)?)?, arguments.output)
}
