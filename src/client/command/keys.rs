//! `client keys`: other keys, a copy of them, keys from elsewhere.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::exit::CommandError;
use super::identity::{KeyArguments, Session, UserArguments, has_rotated};
use super::target::TargetArguments;

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client keys rotate --user alice                 new keys; what is signed with the old ones is refused from then on
  client keys export --user alice -o alice.toml   a copy for another machine, or for a safe place
  client keys import alice.toml")]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Make new keys and put them in the place of the old ones
    Rotate(UserArguments),
    /// Write a copy of the keys, under their passphrase if they have one
    Export {
        /// Where the copy goes: a new file, which only you may read
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        user: UserArguments,
    },
    /// Take keys that were exported elsewhere
    Import {
        /// The copy
        #[arg(value_name = "FILE")]
        input: PathBuf,
        #[command(flatten)]
        keys: KeyArguments,
    },
}

pub async fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    match &arguments.command {
        Command::Rotate(user) => rotate(user, target).await,
        Command::Export { output, user } => {
            let Session { identity, .. } = user.open(target, None).await?;
            write_new(output, &identity.file().text())?;
            let warning = if identity.file().is_locked() { "" } else { "; whoever reads it is you, so keep it well" };
            eprintln!("wrote the keys of {} to {}{warning}", identity.name(), output.display());
            Ok(())
        }
        Command::Import { input, keys } => {
            let file = keys.store()?.import(input)?;
            eprintln!("took the keys of {} (user {}) for cluster {}", file.name, file.user, file.cluster);
            Ok(())
        }
    }
}

async fn rotate(user: &UserArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let Session { mut target, mut identity, .. } = user.open(target, None).await?;
    let to = identity.prepare_rotation()?;
    let id = target.fresh_id();
    if let Err(error) = target.cluster.rotate_keys(identity.signer(), id, to).await {
        // An attempt whose answer was lost may have been done: then what the next one was signed with counts no more.
        if !has_rotated(&mut target, &identity).await? {
            return Err(error.into());
        }
    }
    identity.finish_rotation()?;
    eprintln!("{} has new keys: {}", identity.name(), to.id());
    Ok(())
}

fn write_new(path: &PathBuf, text: &str) -> Result<(), CommandError> {
    let write = || {
        let mut file: File = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| {
        CommandError::file(format!("cannot write {}", path.display()), &error, "name a new file with -o")
    })
}
