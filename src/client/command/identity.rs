//! Who acts: the keys of a user on this machine, for the cluster that is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::{CommandError, Exit};
use super::target::{Target, TargetArguments};
use crate::client::keys::{Identity, KeyStore};
use crate::config::secrets::{Passphrase, SecretsError, read_secret};
use crate::id::{ClusterId, UserId};
use crate::protocol::problem::ProblemCode;
use crate::protocol::sharing::ClusterIdentity;
use crate::time::unix_millis;

/// A clock that differs by this much from a node's is spoken of, in milliseconds: half of what is allowed.
const CLOCK_WARNING_MS: u64 = 60_000;

/// Where keys are, and what they lie under.
#[derive(Clone, Debug, clap::Args)]
pub struct KeyArguments {
    /// The directory of your keys [default: image-cloud in $XDG_DATA_HOME, else ~/.local/share/image-cloud]
    #[arg(long, env = "CLOUD_KEYS", value_name = "DIR", help_heading = "Keys")]
    pub keys: Option<PathBuf>,
    /// Read the passphrase of the keys from this file (mode 0600) instead of the terminal
    #[arg(long, value_name = "FILE", help_heading = "Keys")]
    pub passphrase_file: Option<PathBuf>,
}

/// Who acts.
#[derive(Clone, Debug, clap::Args)]
pub struct UserArguments {
    /// Whose keys are used [default: the only ones on this machine for this cluster]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    #[command(flatten)]
    pub keys: KeyArguments,
}

impl KeyArguments {
    pub fn store(&self) -> Result<KeyStore, CommandError> {
        Ok(KeyStore::open(&self.directory()?)?)
    }

    fn directory(&self) -> Result<PathBuf, CommandError> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let shared = || set("XDG_DATA_HOME").filter(|path| path.is_absolute());
        let data = || shared().or_else(|| Some(set("HOME")?.join(".local/share")));
        let directory = self.keys.clone().or_else(|| Some(data()?.join("image-cloud")));
        directory.ok_or_else(|| CommandError::new(Exit::Usage, "where are the keys? Name the directory with --keys"))
    }

    /// The passphrase of somebody's keys: from the file, else from the terminal.
    pub fn passphrase(&self, name: &str) -> Result<Passphrase, SecretsError> {
        if let Some(path) = &self.passphrase_file {
            return of_file(path, name);
        }
        let typed = rpassword::prompt_password(format!("Passphrase of {name}'s keys: "));
        typed.map(Passphrase).map_err(|_| SecretsError::NeedsPassphrase { name: name.to_owned() })
    }

    /// A passphrase for new keys: typed twice.
    pub fn new_passphrase(&self, name: &str) -> Result<Passphrase, CommandError> {
        let passphrase = self.passphrase(name)?;
        if passphrase.0.is_empty() {
            return Err(CommandError::new(Exit::Usage, "an empty passphrase protects nothing; leave out --passphrase"));
        }
        if self.passphrase_file.is_none() {
            let again = rpassword::prompt_password("The same once more: ").map(Passphrase);
            if again.ok().as_ref() != Some(&passphrase) {
                return Err(CommandError::new(Exit::Usage, "the two passphrases differ; nothing was done"));
            }
        }
        Ok(passphrase)
    }

    /// The keys of a user, whatever the case of the name.
    pub fn load(&self, cluster: ClusterId, user: Option<&str>) -> Result<Identity, CommandError> {
        let store = self.store()?;
        let mut names = store.names(cluster)?;
        let register = |text: String| {
            CommandError::new(
                Exit::NotFound,
                format!("{text}: `client register NAME` makes keys, `client keys import` takes them"),
            )
        };
        let name = match user {
            Some(user) => {
                let found = names.iter().position(|name| name.to_lowercase() == user.to_lowercase());
                let Some(place) = found else {
                    return Err(register(format!("{} has no keys for this cluster here", user.escape_debug())));
                };
                names.swap_remove(place)
            }
            None if names.len() > 1 => {
                let text = format!("there are keys of {} here: say whose to use with --user", names.join(", "));
                return Err(CommandError::new(Exit::Usage, text));
            }
            None => names.pop().ok_or_else(|| register("there are no keys for this cluster here".to_owned()))?,
        };
        Ok(store.load(cluster, &name, &|name| self.passphrase(name))?)
    }
}

fn of_file(path: &Path, name: &str) -> Result<Passphrase, SecretsError> {
    let text = read_secret(path)?.ok_or_else(|| SecretsError::WrongPassphrase { name: name.to_owned() })?;
    Ok(Passphrase(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// A user at a cluster.
pub struct Session {
    pub target: Target,
    pub about: ClusterIdentity,
    pub identity: Identity,
}

impl UserArguments {
    /// Asks the cluster who it is, and takes the keys for it.
    pub async fn open(&self, target: &TargetArguments, deadline: Option<Duration>) -> Result<Session, CommandError> {
        self.keys.open(self.user.as_deref(), target, deadline).await
    }
}

impl KeyArguments {
    pub async fn open(
        &self,
        user: Option<&str>,
        target: &TargetArguments,
        deadline: Option<Duration>,
    ) -> Result<Session, CommandError> {
        let target = target.open(deadline)?;
        let about = identity_of(&target).await?;
        let identity = self.load(about.cluster_id, user)?;
        let mut session = Session { target, about, identity };
        session.end_rotation().await?;
        Ok(session)
    }
}

/// Which cluster answers. A clock that is far off is spoken of at once: nothing that it signs is believed.
pub async fn identity_of(target: &Target) -> Result<ClusterIdentity, CommandError> {
    let about = target.cluster.identity().await?;
    let off_ms = about.now.0.abs_diff(unix_millis());
    if off_ms > CLOCK_WARNING_MS {
        eprintln!(
            "warning: this clock differs by {} s from the cluster's; signatures are believed within 120 s",
            off_ms / 1000
        );
    }
    Ok(about)
}

impl Session {
    /// If new keys were on their way when a program ended, the cluster says whether they have arrived.
    async fn end_rotation(&mut self) -> Result<(), CommandError> {
        if has_rotated(&mut self.target, &self.identity).await? {
            self.identity.finish_rotation()?;
        }
        Ok(())
    }

    /// The id of a user, given by name or id.
    pub async fn user(&mut self, name_or_id: &str) -> Result<UserId, CommandError> {
        if let Ok(user) = name_or_id.parse() {
            return Ok(user);
        }
        let id = self.target.fresh_id();
        let found = self.target.cluster.user(Some(self.identity.signer()), id, name_or_id).await?;
        found.map(|user| user.id).ok_or_else(|| no_such_user(name_or_id))
    }

    /// The names of these users, as far as the cluster has them.
    pub async fn names(&mut self, users: impl IntoIterator<Item = UserId>) -> Result<Names, CommandError> {
        let mut names = BTreeMap::new();
        for user in users.into_iter().collect::<BTreeSet<_>>() {
            let id = self.target.fresh_id();
            let found = self.target.cluster.user(Some(self.identity.signer()), id, &user.to_string()).await?;
            names.extend(found.map(|found| (user, found.name)));
        }
        Ok(Names(names))
    }
}

/// Whether the cluster has the keys that are to take the place of the present ones.
pub async fn has_rotated(target: &mut Target, identity: &Identity) -> Result<bool, CommandError> {
    let Some(next) = identity.next_signer() else { return Ok(false) };
    let id = target.fresh_id();
    match target.cluster.user(Some(&next), id, &next.user.to_string()).await {
        Ok(known) => Ok(known.is_some_and(|known| known.keys == next.keys())),
        Err(error) if error.refusal() == Some(ProblemCode::SignatureRefused) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub fn no_such_user(name: &str) -> CommandError {
    let name = name.escape_debug();
    CommandError::new(Exit::NotFound, format!("there is no user {name}: ask them to run `client register {name}`"))
}

/// Names for people.
pub struct Names(BTreeMap<UserId, String>);

impl Names {
    pub fn of(&self, user: UserId) -> String {
        self.0.get(&user).cloned().unwrap_or_else(|| user.to_string())
    }
}
