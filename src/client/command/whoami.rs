//! `client whoami`: whose keys are here, and whether they count.

use serde::Serialize;

use super::exit::CommandError;
use super::identity::{Session, UserArguments};
use super::output::{Format, print_values};
use super::target::TargetArguments;
use crate::id::{ClusterId, UserId, UserKeyId};

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client whoami
  client whoami --user alice -o json")]
pub struct Arguments {
    #[command(flatten)]
    pub user: UserArguments,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Serialize)]
struct Shown {
    name: String,
    user: UserId,
    key: UserKeyId,
    cluster: ClusterId,
    /// Whether the cluster has these keys for the user.
    key_is_current: bool,
    is_expelled: bool,
    has_passphrase: bool,
}

pub async fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let Session { mut target, about, identity } = arguments.user.open(target, None).await?;
    let id = target.fresh_id();
    let known = target.cluster.user(Some(identity.signer()), id, &identity.user().to_string()).await?;
    let keys = identity.signer().keys();
    let shown = Shown {
        name: identity.name().to_owned(),
        user: identity.user(),
        key: keys.id(),
        cluster: about.cluster_id,
        key_is_current: known.as_ref().is_some_and(|known| known.keys == keys),
        is_expelled: known.is_some_and(|known| known.is_expelled),
        has_passphrase: identity.file().is_locked(),
    };
    print_values(&shown, arguments.output)
}
