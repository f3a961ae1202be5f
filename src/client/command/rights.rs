//! `client rights`, and what changes them: `grant`, `quota`, `revoke`, `expire`, `returns`, `burn`.

use std::path::PathBuf;
use std::time::Duration;

use super::args::duration;
use super::exit::CommandError;
use super::identity::{Session, UserArguments};
use super::output::{Format, date, json_line, new_table, print_line};
use super::sealed::SealedFile;
use super::target::TargetArguments;
use super::view::left;
use crate::id::{RequestId, UserId};
use crate::protocol::rights::{ImageAction, MOST_VIEWS, Right};
use crate::protocol::user::Date;
use crate::time::unix_millis;

/// What all of these take.
#[derive(Clone, Debug, clap::Args)]
pub struct ActionArguments {
    #[command(flatten)]
    pub user: UserArguments,
    /// The request's id, 32 hexadecimal digits: the same id is done once, however often it is sent [default: a fresh one]
    #[arg(long, value_name = "ID")]
    pub request_id: Option<RequestId>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client rights sealed.png --user bob             what bob has left
  client rights sealed.png --user alice           for the owner: what everybody has left

Looking spends nothing.")]
pub struct RightsArguments {
    /// The sealed picture
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    #[command(flatten)]
    pub user: UserArguments,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client grant sealed.png bob --views 2 --user alice")]
pub struct GrantArguments {
    /// The sealed picture
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// Name or id of whoever gets the views
    #[arg(value_name = "USER")]
    pub to: String,
    /// How many views are added
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_VIEWS))]
    pub views: u64,
    #[command(flatten)]
    pub action: ActionArguments,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client quota sealed.png bob --views 1 --user alice          bob has one view left, whatever there was")]
pub struct QuotaArguments {
    /// The sealed picture
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// Name or id
    #[arg(value_name = "USER")]
    pub of: String,
    /// How many views are left from now on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=MOST_VIEWS))]
    pub views: u64,
    #[command(flatten)]
    pub action: ActionArguments,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client revoke sealed.png carol --user alice

It holds for every view after it. What carol has opened before she may have kept.")]
pub struct RevokeArguments {
    /// The sealed picture
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// Name or id
    #[arg(value_name = "USER")]
    pub from: String,
    #[command(flatten)]
    pub action: ActionArguments,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client expire sealed.png --in 7d --user alice
  client expire sealed.png --in 0s --user alice   nobody opens it any more, but the owner
  client expire sealed.png --never --user alice")]
#[command(group(clap::ArgGroup::new("when").required(true).args(["within", "never"])))]
pub struct ExpireArguments {
    /// The sealed picture
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// After how long the rights end
    #[arg(long = "in", id = "within", value_name = "TIME", value_parser = duration)]
    pub within: Option<Duration>,
    /// The rights do not end
    #[arg(long)]
    pub never: bool,
    #[command(flatten)]
    pub action: ActionArguments,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client returns sealed.png --allow --user alice
  client returns sealed.png --forbid --user alice

Whether leased views may be given back. That they were not used is the word of the reader's client.")]
#[command(group(clap::ArgGroup::new("whether").required(true).args(["allow", "forbid"])))]
pub struct ReturnsArguments {
    /// The sealed picture
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// They may
    #[arg(long)]
    pub allow: bool,
    /// They may not
    #[arg(long)]
    pub forbid: bool,
    #[command(flatten)]
    pub action: ActionArguments,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client burn sealed.png --user bob               bob gives up the views that he has left")]
pub struct BurnArguments {
    /// The sealed picture
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    #[command(flatten)]
    pub action: ActionArguments,
}

pub async fn grant(arguments: &GrantArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let GrantArguments { image, to, views, action } = arguments;
    let mut session = action.user.open(target, None).await?;
    let user = session.user(to).await?;
    let done = format!("granted {to} {views} more");
    act(session, image, ImageAction::Grant { user, views: *views }, action, target, &done).await
}

pub async fn quota(arguments: &QuotaArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let QuotaArguments { image, of, views, action } = arguments;
    let mut session = action.user.open(target, None).await?;
    let user = session.user(of).await?;
    let done = format!("set what {of} has left");
    act(session, image, ImageAction::SetQuota { user, left: *views }, action, target, &done).await
}

pub async fn revoke(arguments: &RevokeArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let RevokeArguments { image, from, action } = arguments;
    let mut session = action.user.open(target, None).await?;
    let user = session.user(from).await?;
    act(session, image, ImageAction::Revoke { user }, action, target, &format!("revoked {from}'s right")).await
}

pub async fn expire(arguments: &ExpireArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let ExpireArguments { image, within, action, .. } = arguments;
    let session = action.user.open(target, None).await?;
    let at = within.map(from_now);
    let done = at.map_or_else(|| "the rights do not end".to_owned(), |at| format!("the rights end at {}", date(at)));
    act(session, image, ImageAction::Expire { at }, action, target, &done).await
}

pub async fn returns(arguments: &ReturnsArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let ReturnsArguments { image, allow, action, .. } = arguments;
    let session = action.user.open(target, None).await?;
    let done = format!("leased views may {}be given back", if *allow { "" } else { "not " });
    act(session, image, ImageAction::AllowReturns { allowed: *allow }, action, target, &done).await
}

pub async fn burn(arguments: &BurnArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let BurnArguments { image, action } = arguments;
    let session = action.user.open(target, None).await?;
    act(session, image, ImageAction::Burn, action, target, "gave up what was left").await
}

/// A date so long from now, by this machine's clock.
pub fn from_now(time: Duration) -> Date {
    Date(unix_millis().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

async fn act(
    session: Session,
    image: &std::path::Path,
    what: ImageAction,
    arguments: &ActionArguments,
    target: &TargetArguments,
    done: &str,
) -> Result<(), CommandError> {
    let file = SealedFile::read(image, target)?;
    let Session { mut target, identity, .. } = session;
    let id = arguments.request_id.unwrap_or_else(|| target.fresh_id());
    let answer = target.cluster.act(identity.signer(), id, &file.request(what)).await.map_err(|error| {
        let is_open = error.refusal().is_none_or(|code| code.is_worth_a_retry());
        let mut error = CommandError::from(error);
        if is_open && let Some(text) = &mut error.text {
            *text += &format!("; whether it was done is open: repeat it with --request-id {id}");
        }
        error
    })?;
    if arguments.output == Format::Json {
        return print_line(&json_line(&answer)?);
    }
    let right = answer.right.map_or_else(String::new, |right| format!(": {}", left(Some(right))));
    eprintln!("{done}{right}");
    Ok(())
}

pub async fn rights(arguments: &RightsArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let file = SealedFile::read(&arguments.image, target)?;
    let mut session = arguments.user.open(target, None).await?;
    let id = session.target.fresh_id();
    let mut look = session.target.cluster.look(session.identity.signer(), id, &file.look(u64::MAX)).await?;
    if arguments.output == Format::Json {
        if let Some(owned) = &mut look.owned {
            owned.audit.clear();
        }
        return print_line(&json_line(&look)?);
    }
    let own = look.right.map(|right| (session.identity.user(), right));
    let rights: Vec<(UserId, Right)> = match &look.owned {
        Some(owned) => owned.rights.iter().map(|(user, right)| (*user, *right)).collect(),
        None => own.into_iter().collect(),
    };
    let users = rights.iter().map(|(user, _)| *user).chain([look.owner]);
    let names = session.names(users).await?;
    let mut table = new_table();
    table.set_header(["USER", "LEFT", "GRANTED", "SPENT", "LEASED", "REVOKED", "BURNT", ""]);
    for (user, right) in rights {
        let Right { granted, left, spent, revoked, burnt, leased, is_revoked } = right;
        let numbers = [left, granted, spent, leased, revoked, burnt].map(|number| number.to_string());
        let state = if is_revoked { "revoked" } else { "" };
        table.add_row([vec![names.of(user)], numbers.to_vec(), vec![state.to_owned()]].concat());
    }
    print_line(&table.to_string())?;
    let ends = look.expires.map_or_else(|| "do not end".to_owned(), |at| format!("end at {}", date(at)));
    eprintln!("owned by {}, who opens it uncounted; the rights {ends}", names.of(look.owner));
    Ok(())
}
