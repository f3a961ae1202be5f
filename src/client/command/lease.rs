//! `client lease`: pay views in advance, for where no node is reached; and give them back.

use std::path::PathBuf;
use std::time::Duration;

use super::args::duration;
use super::exit::{CommandError, Exit};
use super::identity::{Session, UserArguments};
use super::output::{Format, date, json_line, print_line};
use super::sealed::SealedFile;
use super::target::TargetArguments;
use super::view::{left, released};
use crate::client::ClientError;
use crate::client::keys::{Journalled, Lease, LeaseStore};
use crate::protocol::problem::ProblemCode;
use crate::protocol::rights::{ImageAction, MOST_VIEWS};
use crate::protocol::user::Date;
use crate::time::unix_millis;

#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(before_help = "\
Examples:
  client lease sealed.png --views 2 --for 24h --user bob
  client view --input sealed.png --user bob --offline         spends one of them
  client lease return sealed.png --views 1 --user bob         where the owner allows it

Leased views are spent for the cluster at once, and stay spent when the lease is over. That they are counted here
stops accidents and thieves; whoever leases has the key, so it does not stop the reader himself.")]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    // Required, but not beside a command of its own: hence the options.
    /// The sealed picture
    #[arg(value_name = "IMAGE", required = true)]
    pub image: Option<PathBuf>,
    /// How many views
    #[arg(long, value_name = "N", required = true, value_parser = clap::value_parser!(u64).range(1..=MOST_VIEWS))]
    pub views: Option<u64>,
    /// How long they may be used
    #[arg(long = "for", value_name = "TIME", required = true, value_parser = duration)]
    pub time: Option<Duration>,
    #[command(flatten)]
    pub user: UserArguments,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Give leased views back that were not used
    Return {
        /// The sealed picture
        #[arg(value_name = "IMAGE")]
        image: PathBuf,
        /// How many views
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_VIEWS))]
        views: u64,
        #[command(flatten)]
        user: UserArguments,
    },
}

pub async fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let Arguments { command, image, views, time, user, output } = arguments;
    if let Some(Command::Return { image, views, user }) = command {
        return give_back(image, *views, user, target).await;
    }
    let (Some(image), Some(views), Some(time)) = (image, views, time) else {
        return Err(CommandError::new(Exit::Usage, "use client lease sealed.png --views 2 --for 24h"));
    };
    let file = SealedFile::read(image, target)?;
    let Session { mut target, identity, .. } = user.open(target, None).await?;
    // Whatever cannot be stored must not be paid for.
    let store = LeaseStore::of(&identity)?;
    let for_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let action = ImageAction::Lease { views: *views, for_ms };
    let entry = Journalled::take(&identity, file.image, action, target.fresh_id())?;
    if entry.action != action {
        let ImageAction::Lease { views, for_ms } = entry.action else {
            return Err(CommandError::new(Exit::Damaged, "the journal speaks of something else than a lease"));
        };
        let text = format!(
            "a lease of this image has no answer yet: finish it first, with --views {views} --for {for_ms}ms; it is not paid twice"
        );
        return Err(CommandError::new(Exit::Usage, text));
    }
    let answer = match target.cluster.act(identity.signer(), entry.id, &file.request(action)).await {
        Ok(answer) => answer,
        Err(error) => {
            if is_final(&error) {
                entry.close()?;
            }
            return Err(error.into());
        }
    };
    let released = released(&identity, &file, entry.id, &answer)?;
    let until = answer.until.unwrap_or_else(|| super::rights::from_now(*time));
    let lease = Lease { id: entry.id, views: *views, left: *views, until, returning: None };
    store.add(file.image, released, lease)?;
    entry.close()?;
    if *output == Format::Json {
        return print_line(&json_line(&serde_json::json!({
            "image": file.image, "views": views, "until": until, "right": answer.right, "commit": answer.commit
        }))?);
    }
    eprintln!("leased {views} views until {}: {}", date(until), left(answer.right));
    Ok(())
}

async fn give_back(
    image: &std::path::Path,
    views: u64,
    user: &UserArguments,
    target: &TargetArguments,
) -> Result<(), CommandError> {
    let file = SealedFile::read(image, target)?;
    let Session { mut target, identity, .. } = user.open(target, None).await?;
    let store = LeaseStore::of(&identity)?;
    // They are gone from here before the cluster has them again, so that nobody spends them twice.
    let (lease, id, returned) = store.begin_return(file.image, views, Date(unix_millis()), target.fresh_id())?;
    let action = ImageAction::Return { lease: lease.id, views: returned };
    match target.cluster.act(identity.signer(), id, &file.request(action)).await {
        Ok(answer) => {
            store.end_return(file.image, id, true)?;
            eprintln!("gave back {returned} views: {}", left(answer.right));
            Ok(())
        }
        Err(error) => {
            // Nothing else says that the cluster has not taken them back before.
            if error.refusal() == Some(ProblemCode::Conflict) {
                store.end_return(file.image, id, false)?;
            }
            Err(error.into())
        }
    }
}

/// Whether the ledger itself has refused, rather than a node that may lack a key or lag behind.
fn is_final(error: &ClientError) -> bool {
    use ProblemCode::{BadRequest, Conflict, Denied, NotFound};
    matches!(error.refusal(), Some(BadRequest | Conflict | Denied | NotFound))
}
