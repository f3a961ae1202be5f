//! `client`: locks and labels images on a cluster. Arguments, one call, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    image_cloud::client::command::main(std::env::args_os())
}
