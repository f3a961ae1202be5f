//! One node: thin actors around the pure cores, and the place where everything is put together.

mod actor;
pub mod data_dir;
mod desk;
mod events;
mod exposure;
mod inbound;
pub mod init;
pub mod key_command;
mod keys;
mod ledger;
pub mod listener;
mod members;
mod open_files;
mod options;
pub mod reset;
pub mod resources;
mod rights;
mod service;
mod shared;
mod start;
mod stopping;
mod warnings;
mod worker;

pub use options::{NodeError, NodeOptions};
pub use start::{END_OF_FAILURE, run};

/// Logs to standard error as `RUST_LOG` says; by default what an operator wants to see, and little of the libraries.
pub fn init_logging() {
    // What strangers send to a port is no error of this node, and must not fill its log. What goes wrong in Raft is told by `raft`.
    let default = "info,openraft=off,actix_server=warn,actix_http=off,tracing::span=off";
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(default))
        .format_timestamp_millis()
        .init();
}
