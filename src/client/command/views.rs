//! What an owner sees: `client views` (who did what when), `images`, `audit verify`.

use std::path::{Path, PathBuf};

use rand::RngExt;

use super::exit::{CommandError, Exit};
use super::identity::{Names, Session, UserArguments};
use super::output::{Format, date, json_line, new_table, print_line};
use super::sealed::SealedFile;
use super::target::{Target, TargetArguments};
use crate::client::audit::{Told, verify};
use crate::id::{RequestId, UserId};
use crate::protocol::rights::{AuditEntry, ImageAction};
use crate::protocol::sharing::OwnedImage;

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client views sealed.png --user alice            who opened it when, at which node, and every change of the rights
  client views sealed.png --user alice -o json")]
pub struct ViewsArguments {
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
  client images --user alice                      your images of which the cluster knows anything

An image is known from the first time that somebody opens it or its rights are changed.")]
pub struct ImagesArguments {
    #[command(flatten)]
    pub user: UserArguments,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client audit verify sealed.png --user alice     computes the whole chain anew; exit code 6 if it does not hold")]
pub struct AuditArguments {
    #[command(subcommand)]
    pub command: AuditCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Check that nothing was altered or left out, and that no view was lost or made up
    Verify(ViewsArguments),
}

pub async fn views(arguments: &ViewsArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let mut session = arguments.user.open(target, None).await?;
    let told = told(&mut session, &arguments.image, target).await?;
    if arguments.output == Format::Json {
        return print_line(&json_line(&told.audit)?);
    }
    let named = told.audit.iter().flat_map(|entry| [Some(entry.by), about(&entry.action)]).flatten();
    let names = session.names(named).await?;
    let mut table = new_table();
    table.set_header(["", "WHEN", "WHO", "NODE", "WHAT", "LEFT"]);
    for entry in &told.audit {
        table.add_row([
            entry.number.to_string(),
            date(entry.at),
            names.of(entry.by),
            entry.node.to_string(),
            what(entry, &names),
            entry.right.map_or_else(String::new, |right| format!("{} of {}", right.left, right.granted)),
        ]);
    }
    print_line(&table.to_string())
}

/// Whom an action is about.
const fn about(action: &ImageAction) -> Option<UserId> {
    match action {
        ImageAction::Grant { user, .. } | ImageAction::SetQuota { user, .. } | ImageAction::Revoke { user } => {
            Some(*user)
        }
        _ => None,
    }
}

fn what(entry: &AuditEntry, names: &Names) -> String {
    match &entry.action {
        ImageAction::View => "viewed".to_owned(),
        ImageAction::Grant { user, views } => format!("granted {} {views}", names.of(*user)),
        ImageAction::SetQuota { user, left } => format!("set what {} has left to {left}", names.of(*user)),
        ImageAction::Revoke { user } => format!("revoked {}", names.of(*user)),
        ImageAction::Expire { at: None } => "rights do not end".to_owned(),
        ImageAction::Expire { at: Some(at) } => format!("rights end at {}", date(*at)),
        ImageAction::Burn => "burnt".to_owned(),
        ImageAction::Lease { views, .. } => format!("leased {views}"),
        ImageAction::Return { views, .. } => format!("returned {views} (claimed by {}'s client)", names.of(entry.by)),
        ImageAction::AllowReturns { allowed: true } => "leases returnable".to_owned(),
        ImageAction::AllowReturns { allowed: false } => "leases not returnable".to_owned(),
    }
}

pub async fn images(arguments: &ImagesArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let mut session = arguments.user.open(target, None).await?;
    let id = session.target.fresh_id();
    let images = session.target.cluster.images(session.identity.signer(), id).await?;
    if arguments.output == Format::Json {
        return print_line(&json_line(&images)?);
    }
    let names = session.names(images.iter().flat_map(|image| image.rights.keys().copied())).await?;
    let mut table = new_table();
    table.set_header(["IMAGE", "VIEWS LEFT", "ENDS", "ENTRIES"]);
    for OwnedImage { image, expires, rights, entries } in images {
        let left = |(user, right): (&UserId, &crate::protocol::rights::Right)| {
            format!("{}: {} of {}", names.of(*user), right.left, right.granted)
        };
        let rights: Vec<String> = rights.iter().map(left).collect();
        let ends = expires.map_or_else(|| "never".to_owned(), date);
        table.add_row([image.to_string(), rights.join("\n"), ends, entries.to_string()]);
    }
    print_line(&table.to_string())
}

pub async fn audit(arguments: &AuditArguments, target: &TargetArguments) -> Result<(), CommandError> {
    let AuditCommand::Verify(arguments) = &arguments.command;
    let mut session = arguments.user.open(target, None).await?;
    let told = told(&mut session, &arguments.image, target).await?;
    verify(&told)
        .map_err(|fault| CommandError::new(Exit::Damaged, format!("the audit chain does not hold: {fault}")))?;
    if arguments.output == Format::Json {
        let whole = serde_json::json!({
            "image": told.image, "entries": told.entries, "users": told.rights.len(), "link": told.link, "whole": true
        });
        return print_line(&json_line(&whole)?);
    }
    let (entries, users) = (told.entries, told.rights.len());
    print_line(&format!(
        "the chain is whole: {entries} entries, {users} users, no view lost and none made up; last link {}",
        told.link
    ))
}

/// All that the cluster tells the owner.
async fn told(session: &mut Session, image: &Path, target: &TargetArguments) -> Result<Told, CommandError> {
    let file = SealedFile::read(image, target)?;
    let Session { target: Target { cluster, generator }, identity, .. } = session;
    let told = cluster.told(identity.signer(), &file, || RequestId(generator.random())).await?;
    told.ok_or_else(|| {
        CommandError::new(Exit::Denied, "only the owner of an image sees this; `client rights` tells your own")
    })
}
