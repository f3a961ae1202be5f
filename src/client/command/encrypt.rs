//! `client encrypt`: lock a picture.

use std::path::{Path, PathBuf};

use super::exit::CommandError;
use super::request::{DeadlineArguments, FormArgument, OutputArguments, perform};
use super::target::TargetArguments;
use crate::client::Work;

const DEFAULT_OUTPUT: &str = "encrypted_lsb_image.png";

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client encrypt --input cat.jpg                  writes encrypted_lsb_image.png
  client encrypt --input cat.jpg -o locked.png --form stored
  client encrypt --input - -o - < cat.jpg > locked.png")]
pub struct Arguments {
    /// The picture: PNG, JPEG or WebP; `-` for stdin
    #[arg(short, long, value_name = "IMG")]
    pub input: PathBuf,
    #[command(flatten)]
    pub output: OutputArguments,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    pub form: FormArgument,
    #[command(flatten)]
    pub deadline: DeadlineArguments,
}

pub async fn run(arguments: Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let sink = arguments.output.sink(Path::new(DEFAULT_OUTPUT))?;
    let work = Work::Seal(arguments.form.into());
    perform(&arguments.input, work, sink, &arguments.deadline, target, "locked").await
}
