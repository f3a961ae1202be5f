//! `client users`, `invite`, `expel`: who there is, who may come, who must go.

use std::time::Duration;

use super::args::duration;
use super::exit::CommandError;
use super::identity::{UserArguments, identity_of, no_such_user};
use super::output::{Format, date, json_line, new_table, print_line};
use super::target::TargetArguments;
use crate::client::keys::Identity;

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client users
  client users -o json")]
pub struct UsersArguments {
    #[command(flatten)]
    pub user: UserArguments,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  (umask 077; client invite > invitation.txt)     whoever has the file may register, once
  client invite --for 1d

Needs the admin token.")]
pub struct InviteArguments {
    /// How long the invitation may be used
    #[arg(long = "for", value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub time: Duration,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client expel mallory

No request of that user is done any more, for good. Needs the admin token.")]
pub struct ExpelArguments {
    /// Name or id
    #[arg(value_name = "USER")]
    pub user: String,
}

pub async fn users(arguments: &UsersArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let mut target = target.open(None)?;
    let id = target.fresh_id();
    let about = identity_of(&target).await?;
    // Where nobody is let in uninvited, nobody is answered unsigned; elsewhere no keys are needed to look.
    let UserArguments { user, keys } = &arguments.user;
    let is_signed = about.needs_invitation || user.is_some();
    let identity = if is_signed { Some(keys.load(about.cluster_id, user.as_deref())?) } else { None };
    let users = target.cluster.users(identity.as_ref().map(Identity::signer), id).await?;
    if arguments.output == Format::Json {
        return print_line(&json_line(&users)?);
    }
    let mut table = new_table();
    table.set_header(["NAME", "USER", "KEY", ""]);
    for user in users {
        let state = if user.is_expelled { "expelled" } else { "" };
        table.add_row([user.name, user.id.to_string(), user.keys.id().to_string(), state.to_owned()]);
    }
    print_line(&table.to_string())
}

pub async fn invite(arguments: &InviteArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let mut target = target.open(None)?;
    let id = target.fresh_id();
    let invitation = target.cluster.invite(id, arguments.time.as_millis() as u64).await?;
    if arguments.output == Format::Json {
        return print_line(&json_line(&invitation)?);
    }
    print_line(&invitation.invitation)?;
    eprintln!(
        "whoever shows this may register once, until {}; give it to one person, in a file of mode 0600",
        date(invitation.until)
    );
    Ok(())
}

pub async fn expel(arguments: &ExpelArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let mut target = target.open(None)?;
    let id = target.fresh_id();
    let user = target.cluster.user(None, id, &arguments.user).await?.ok_or_else(|| no_such_user(&arguments.user))?;
    let id = target.fresh_id();
    target.cluster.expel(id, user.id).await?;
    eprintln!("expelled {} (user {})", user.name, user.id);
    Ok(())
}
