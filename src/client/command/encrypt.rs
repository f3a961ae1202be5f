//! `client encrypt`: lock a picture, for everybody's nodes to see and a few people to open.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use zeroize::Zeroizing;

use super::args::duration;
use super::exit::{CommandError, Exit};
use super::files::{self, PictureArgument, Sink};
use super::identity::{KeyArguments, Session};
use super::output::size;
use super::request::{DeadlineArguments, FormArgument, OutputArguments, file_name, perform, send};
use super::rights::from_now;
use super::target::TargetArguments;
use crate::client::{Ownership, Work};
use crate::config::secrets::random;
use crate::identity::{SealedFor, seal};
use crate::image::{self, DataKey, Header, ImageError, Limits, Scratch, SealOptions};
use crate::protocol::sharing::{HeaderRequest, parse_rights};
use crate::protocol::user::{BodyHash, Date};
use crate::time::now;

/// How long a node may take to learn of a user whom the leader knows, and how often it is asked meanwhile.
const LEARNING: Duration = Duration::from_secs(2);
const LEARNING_PAUSE: Duration = Duration::from_millis(50);

const DEFAULT_OUTPUT: &str = "encrypted_lsb_image.png";

#[derive(Clone, Debug, clap::Args)]
#[command(before_help = "\
Examples:
  client encrypt --input cat.jpg --owner alice --to bob=3,carol=1
                                                  bob may open it three times, carol once, alice always
  client encrypt --input cat.jpg --owner alice --to bob=3 --expires 7d --local
                                                  the picture does not leave this machine
  client encrypt --input cat.jpg                  for whoever has the cluster's key; writes encrypted_lsb_image.png
  client encrypt --input cat.jpg -o locked.png --form stored
  client encrypt --input - -o - < cat.jpg > locked.png

The picture is a PNG, JPEG or WebP file. `client encrypt cat.jpg` is the same as with --input.")]
pub struct Arguments {
    #[command(flatten)]
    pub picture: PictureArgument,
    /// Whose picture it is: that user opens it at any time and says who else may
    #[arg(long, visible_alias = "user", value_name = "NAME")]
    pub owner: Option<String>,
    /// Who may open it how often, by name or id, as in bob=3,carol=1 [default: the owner alone]
    #[arg(long, value_name = "USER=VIEWS,…", requires = "owner", value_parser = rights)]
    pub to: Option<Readers>,
    /// After how long nobody but the owner opens it, as in 7d: for good, and what was done with it is forgotten then
    #[arg(long, value_name = "TIME", requires = "owner", value_parser = duration)]
    pub expires: Option<Duration>,
    /// Who leases views may give back those that are not used; `client returns` changes it later
    #[arg(long, requires = "owner")]
    pub leases_returnable: bool,
    /// Seal here: a node gets the key to wrap, but never the picture
    #[arg(long, requires = "owner")]
    pub local: bool,
    #[command(flatten)]
    pub output: OutputArguments,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    pub form: FormArgument,
    #[command(flatten)]
    pub deadline: DeadlineArguments,
    #[command(flatten)]
    pub keys: KeyArguments,
}

/// Who may open a picture how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readers(Vec<(String, u64)>);

fn rights(text: &str) -> Result<Readers, String> {
    parse_rights(text).map(Readers)
}

pub async fn run(arguments: Arguments, target: &TargetArguments) -> Result<(), CommandError> {
    let sink = arguments.output.sink(Path::new(DEFAULT_OUTPUT))?;
    let Some(owner) = &arguments.owner else {
        let work = Work::Seal(arguments.form.into());
        return perform(arguments.picture.path(), work, sink, &arguments.deadline, target, "locked").await;
    };
    let limits = target.limits();
    let picture = files::read(arguments.picture.path(), limits.file_bytes())?;
    let deadline = arguments.deadline.deadline;
    let mut session = arguments.keys.open(Some(owner), target, Some(deadline)).await?;
    let to = arguments.to.clone().map(|Readers(to)| to).unwrap_or_default();
    let expires = arguments.expires.map(from_now);
    if arguments.local {
        return here(&arguments, session, picture, &to, expires, &sink, &limits).await;
    }
    // The leader knows everybody who has registered; the node that seals may learn of the last ones a moment later.
    for (user, _) in &to {
        session.user(user).await?;
    }
    let signer = Arc::new(session.identity.signer().clone());
    let leases_returnable = arguments.leases_returnable;
    let owned = Ownership { signer, to, expires, leases_returnable, body: BodyHash::of(&picture) };
    let work = Work::SealOwned(arguments.form.into(), owned);
    let (start, mut target) = (now(), session.target);
    loop {
        match send(arguments.picture.path(), picture.clone(), work.clone(), &sink, &mut target, "locked").await {
            Err(error) if error.exit == Exit::NotFound && now().since(start) < deadline.min(LEARNING) => {
                tokio::time::sleep(LEARNING_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Seals on this machine. A node wraps the key that is drawn here, and answers with the header.
async fn here(
    arguments: &Arguments,
    mut session: Session,
    picture: Bytes,
    to: &[(String, u64)],
    expires: Option<Date>,
    sink: &Sink,
    limits: &Limits,
) -> Result<(), CommandError> {
    limits.check_original(picture.len())?;
    let media_type = image::probe(&picture, limits)?.format.media_type().to_owned();
    let name = image::seal::file_name(&file_name(arguments.picture.path()));
    let mut rights = BTreeMap::new();
    for (user, views) in to {
        if rights.insert(session.user(user).await?, *views).is_some() {
            return Err(CommandError::new(Exit::Usage, format!("{user} is named twice, by name and by id")));
        }
    }
    let id = session.target.fresh_id();
    let (cluster, user) = (session.about.cluster_id, session.identity.user());
    let data_key = Zeroizing::new(random::<32>()?);
    let purpose = SealedFor::LocalSeal { cluster, user, id };
    let sealed = seal(&data_key[..], &session.about.public_key, &purpose).ok_or_else(|| {
        CommandError::new(Exit::Failed, "the cluster's public key is none that a secret can be sealed to")
    })?;
    let payload_bytes = picture.len() as u64;
    let data_key_sealed = BASE64_STANDARD.encode(sealed);
    let leases_returnable = arguments.leases_returnable;
    let request = HeaderRequest {
        payload_bytes,
        media_type,
        name,
        rights,
        expires,
        leases_returnable,
        data_key: data_key_sealed,
    };
    let answer = session.target.cluster.header(session.identity.signer(), id, &request).await?;
    let header = BASE64_STANDARD.decode(answer.header).unwrap_or_default();
    let header = checked(&header, cluster, payload_bytes, limits)?;
    let options = SealOptions { form: arguments.form.into(), ..SealOptions::default() };
    let file = image::seal_under(&picture, &header, &DataKey(*data_key), &options, limits, &mut Scratch::new(0))?;
    sink.write(&file)?;
    let (input, name) = (arguments.picture.path().display(), sink.name());
    eprintln!("locked {input} ({}) here: {name} ({})", size(picture.len()), size(file.len()));
    Ok(())
}

/// The header as the node must have made it: for this cluster and this picture, and nothing behind it.
fn checked(
    bytes: &[u8],
    cluster: crate::id::ClusterId,
    payload_bytes: u64,
    limits: &Limits,
) -> Result<Header, ImageError> {
    let header = Header::read(bytes, limits)?;
    let public = &header.public;
    let fits = public.cluster_id == cluster
        && public.payload_bytes == payload_bytes
        && public.header_bytes as usize == bytes.len();
    if fits { Ok(header) } else { Err(ImageError::Tampered { part: "header" }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClusterId;
    use crate::image::{ClusterKey, ImageNonce, Terms, Wrap};

    #[test]
    fn a_header_of_another_cluster_or_picture_is_not_used() {
        let limits = Limits::default();
        let wrap = Wrap {
            data_key: DataKey([1; 32]),
            terms: Terms::default(),
            media_type: "image/png".into(),
            name: "a.png".into(),
        };
        let (key, here) = (ClusterKey::new([2; 32]), ClusterId([3; 32]));
        let header = Header::create(&wrap, &key, here, ImageNonce([4; 32]), 100, &limits).unwrap();
        let bytes = header.as_bytes();
        assert_eq!(checked(bytes, here, 100, &limits), Ok(header.clone()));
        assert!(checked(bytes, ClusterId([4; 32]), 100, &limits).is_err());
        assert!(checked(bytes, here, 101, &limits).is_err());
        assert!(checked(&[bytes, b"x"].concat(), here, 100, &limits).is_err());
        assert!(checked(&bytes[..bytes.len() - 1], here, 100, &limits).is_err());
    }
}
