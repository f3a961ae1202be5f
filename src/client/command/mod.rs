//! The `client` program: one file per command; here what they share from the arguments to the exit code.

mod args;
mod capacity;
mod decrypt;
mod encrypt;
mod events;
mod exit;
mod fail;
mod files;
mod hash;
mod heal;
mod identity;
mod inspect;
mod keys;
mod kv;
mod label;
mod lease;
mod links;
mod local;
mod members;
mod output;
mod partition;
mod picture;
mod read_label;
mod register;
mod request;
mod rights;
mod sealed;
mod send;
mod slow;
mod status;
mod target;
mod users;
mod view;
mod views;
mod whoami;

use std::ffi::OsString;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use args::{Cli, Command};
use exit::{CommandError, Exit};

/// Runs the program with the arguments of the process, program name first, and returns its exit code:
/// 0 done, 1 failed, 2 usage, 3 not found, 4 unavailable, 5 denied, 6 damaged, 130 and 143 interrupted.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::config::secrets::leave_no_core_dump();
    let cli = match args::parse(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with 0, wrong usage to stderr with 2; a closed pipe is nobody's loss.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let result = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime.block_on(until_interrupted(cli)),
        Err(error) => Err(CommandError::new(Exit::Failed, format!("cannot start: {error}"))),
    };
    match result {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            if let Some(text) = &error.text {
                eprintln!("client: {text}");
            }
            error.exit.into()
        }
    }
}

async fn until_interrupted(cli: Cli) -> Result<(), CommandError> {
    let cannot_watch = |error| CommandError::new(Exit::Failed, format!("cannot watch for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_watch)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot_watch)?;
    let ends_by_interrupt = match &cli.command {
        Command::Status(status) => status.watch,
        Command::Events(events) => events.follow,
        Command::Watch(_) => true,
        _ => false,
    };
    tokio::select! {
        result = run(cli) => result,
        _ = interrupt.recv() => if ends_by_interrupt { Ok(()) } else { Err(CommandError::quiet(Exit::Interrupted)) },
        _ = terminate.recv() => Err(CommandError::quiet(Exit::Terminated)),
    }
}

async fn run(cli: Cli) -> Result<(), CommandError> {
    let target = &cli.target;
    match cli.command {
        Command::Send(arguments) => send::run(arguments, target).await,
        Command::Encrypt(arguments) => encrypt::run(arguments, target).await,
        Command::Label(arguments) => label::run(arguments, target).await,
        Command::Decrypt(arguments) => decrypt::run(&arguments, target),
        Command::Inspect(arguments) => inspect::run(&arguments, target),
        Command::ReadLabel(arguments) => read_label::run(&arguments, target),
        Command::Capacity(arguments) => capacity::run(&arguments, target),
        Command::Status(arguments) => status::run(&arguments, target).await,
        Command::Fail(arguments) => fail::run(&arguments, target).await,
        Command::Set(arguments) => kv::set(arguments, target).await,
        Command::Get(arguments) => kv::get(arguments, target).await,
        Command::Delete(arguments) => kv::delete(arguments, target).await,
        Command::List(arguments) => kv::list(arguments, target).await,
        Command::Cas(arguments) => kv::cas(arguments, target).await,
        Command::Incr(arguments) => kv::incr(arguments, target).await,
        Command::Leader(arguments) => hash::leader(&arguments, target).await,
        Command::Watch(arguments) => kv::watch(&arguments, target).await,
        Command::Events(arguments) => events::events(&arguments, target).await,
        Command::ExplainElection(arguments) => events::explain(&arguments, target).await,
        Command::Hash(arguments) => hash::hash(&arguments, target).await,
        Command::Members(arguments) => members::run(&arguments, target).await,
        Command::Partition(arguments) => partition::run(&arguments, target).await,
        Command::Slow(arguments) => slow::run(&arguments, target).await,
        Command::Register(arguments) => register::run(&arguments, target).await,
        Command::Whoami(arguments) => whoami::run(&arguments, target).await,
        Command::Users(arguments) => users::users(&arguments, target).await,
        Command::Invite(arguments) => users::invite(&arguments, target).await,
        Command::Expel(arguments) => users::expel(&arguments, target).await,
        Command::Keys(arguments) => keys::run(&arguments, target).await,
        Command::View(arguments) => view::run(&arguments, target).await,
        Command::Rights(arguments) => rights::rights(&arguments, target).await,
        Command::Grant(arguments) => rights::grant(&arguments, target).await,
        Command::Quota(arguments) => rights::quota(&arguments, target).await,
        Command::Revoke(arguments) => rights::revoke(&arguments, target).await,
        Command::Expire(arguments) => rights::expire(&arguments, target).await,
        Command::Returns(arguments) => rights::returns(&arguments, target).await,
        Command::Burn(arguments) => rights::burn(&arguments, target).await,
        Command::Views(arguments) => views::views(&arguments, target).await,
        Command::Images(arguments) => views::images(&arguments, target).await,
        Command::Audit(arguments) => views::audit(&arguments, target).await,
        Command::Lease(arguments) => lease::run(&arguments, target).await,
        Command::Heal(heal::Arguments {}) => heal::run(target).await,
    }
}
