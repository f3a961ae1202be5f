//! `client register`: become a user of the cluster.

use std::path::PathBuf;

use super::exit::{CommandError, Exit};
use super::identity::{KeyArguments, identity_of};
use super::target::TargetArguments;
use crate::config::secrets::read_secret;
use crate::protocol::problem::ProblemCode;
use crate::protocol::sharing::Registration;
use crate::protocol::user::check_name;

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client register alice
  client register alice --passphrase                         the keys lie under a passphrase, which is asked for
  client register alice --invitation-file invitation.txt     where the cluster is not on this machine

The keys are made here and never leave this machine; the cluster gets their public halves.")]
pub struct Arguments {
    /// The name, which goes to the first who takes it
    #[arg(value_name = "NAME", value_parser = name)]
    pub name: String,
    /// A file (mode 0600) with the secret that `client invite` printed
    #[arg(long, value_name = "FILE")]
    pub invitation_file: Option<PathBuf>,
    /// Put the keys under a passphrase
    #[arg(long)]
    pub passphrase: bool,
    #[command(flatten)]
    pub keys: KeyArguments,
}

pub fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

pub async fn run(arguments: &Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let Arguments { name, invitation_file, keys, .. } = arguments;
    let invitation = match invitation_file {
        None => None,
        Some(path) => Some(read_secret(path)?.map(|text| text.trim().to_owned()).unwrap_or_default()),
    };
    let mut target = target.open(None)?;
    let about = identity_of(&target).await?;
    if about.needs_invitation && invitation.is_none() {
        let text = "this cluster takes only who is invited: ask its administrator for `client invite`, and use --invitation-file";
        return Err(CommandError::new(Exit::Denied, text));
    }
    let store = keys.store()?;
    let passphrase = if arguments.passphrase { Some(keys.new_passphrase(name)?) } else { None };
    let ask = |name: &str| keys.passphrase(name);
    let identity = store.prepare(about.cluster_id, name, passphrase.as_ref(), &ask)?;
    let signer = identity.signer();
    let registration = Registration { name: name.clone(), keys: signer.keys(), invitation };
    let id = target.fresh_id();
    match target.cluster.register(signer, id, &registration).await {
        Ok(_) => identity.finish_registration()?,
        Err(error) => {
            // An attempt before may have been done, so keys go only when somebody else has the name and nobody has these keys.
            if error.refusal() == Some(ProblemCode::Conflict) {
                let id = target.fresh_id();
                let known = target.cluster.user(Some(signer), id, &identity.user().to_string()).await;
                let is_nobody = match &known {
                    Ok(user) => user.is_none(),
                    Err(error) => error.refusal() == Some(ProblemCode::SignatureRefused),
                };
                if is_nobody {
                    identity.abandon_registration()?;
                }
            }
            return Err(error.into());
        }
    }
    eprintln!("registered {name} as user {}", identity.user());
    Ok(())
}
