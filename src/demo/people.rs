//! What users do, as the tour and `--op share` need it: they register, seal, view and look with the client library.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::client::audit::Told;
use crate::client::{
    Answer, AttemptError, ClientError, Cluster, Job, Ownership, RequestFailed, SealedFile, Signer, Work,
};
use crate::config::secrets::{SecretsError, random};
use crate::demo::pictures::Picture;
use crate::id::{ClusterId, NodeId, RequestId};
use crate::identity::{Released, UserSecret};
use crate::protocol::job::SealForm;
use crate::protocol::problem::ProblemCode;
use crate::protocol::rights::ImageAction;
use crate::protocol::sharing::{Registration, RightsAnswer};
use crate::protocol::user::BodyHash;
use crate::time::now;

/// How long a node may take to learn of a user whom the leader knows, and how often it is asked meanwhile.
const LEARNING: Duration = Duration::from_secs(5);
const LEARNING_PAUSE: Duration = Duration::from_millis(50);
/// How long an invitation for one of the demo's users may be used.
const INVITED_FOR_MS: u64 = 60_000;

/// A request id that nobody else has.
///
/// # Errors
/// The system has no randomness.
pub fn fresh_id() -> Result<RequestId, SecretsError> {
    random().map(RequestId)
}

/// New keys, in memory only.
///
/// # Errors
/// The system has no randomness.
pub fn fresh_signer(cluster: ClusterId) -> Result<Signer, SecretsError> {
    let secret = UserSecret::from_bytes(&random()?);
    Ok(Signer::new(cluster, secret.public().user(), secret))
}

/// Makes the signer a user. Where a cluster takes only who is invited, an invitation is drawn with the admin token.
///
/// # Errors
/// As [`Cluster::register`] and [`Cluster::invite`].
pub async fn register(cluster: &Cluster, signer: &Signer, name: &str, needs_invitation: bool) -> anyhow::Result<()> {
    let invitation = match needs_invitation {
        true => Some(cluster.invite(fresh_id()?, INVITED_FOR_MS).await?.invitation),
        false => None,
    };
    let registration = Registration { name: name.to_owned(), keys: signer.keys(), invitation };
    cluster.register(signer, fresh_id()?, &registration).await?;
    Ok(())
}

/// Seals a picture for an owner and those whom the owner names. A node that has not heard of the last users yet is asked again.
///
/// # Errors
/// As [`Cluster::run`].
pub async fn seal(
    cluster: &Cluster,
    owner: &Arc<Signer>,
    picture: &Picture,
    to: &[(String, u64)],
    id: RequestId,
) -> Result<Answer, RequestFailed> {
    let owned = Ownership {
        signer: owner.clone(),
        to: to.to_vec(),
        expires: None,
        leases_returnable: false,
        body: BodyHash::of(&picture.bytes),
    };
    let work = Work::SealOwned(SealForm::Compact, owned);
    let start = now();
    loop {
        let job = Job { id, image: picture.bytes.clone(), name: picture.name.clone(), work: work.clone() };
        let failed = match cluster.run(job).await {
            Err(failed) => failed,
            done => return done,
        };
        let is_unknown = matches!(&failed.last, AttemptError::Refused(problem)
            if matches!(problem.code, ProblemCode::NotFound | ProblemCode::SignatureRefused));
        if !is_unknown || now().since(start) > LEARNING {
            return Err(failed);
        }
        tokio::time::sleep(LEARNING_PAUSE).await;
    }
}

/// What became of a view.
pub enum Viewed {
    /// The key was released.
    Released(RightsAnswer, Released),
    /// There is no right to it; what the cluster says.
    Denied(String),
}

/// Why there is neither a key nor a refusal.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The cluster did not answer, or refused for another reason.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A key that does not open under the reader's own.
    #[error("the answer holds no key for this user and this image")]
    NoKey,
}

/// Spends a view, if there is one. Says which nodes were asked, the one that answered last.
///
/// With an error the view may have been spent, and the same id asks for it again.
pub async fn view(
    cluster: &Cluster,
    reader: &Signer,
    file: &SealedFile,
    id: RequestId,
) -> (Vec<Option<NodeId>>, Result<Viewed, ViewError>) {
    let (asked, result) = cluster.act_along(reader, id, &file.request(ImageAction::View)).await;
    let viewed = match result {
        Ok(answer) => match file.released(reader, std::iter::once(reader.secret()), id, &answer) {
            Some(released) => Ok(Viewed::Released(answer, released)),
            None => Err(ViewError::NoKey),
        },
        Err(error) if error.refusal() == Some(ProblemCode::Denied) => Ok(Viewed::Denied(error.reason())),
        Err(error) => Err(error.into()),
    };
    (asked, viewed)
}

/// All that the cluster tells the owner of an image.
///
/// # Errors
/// As [`Cluster::told`]; or it does not know the signer as the owner.
pub async fn told(cluster: &Cluster, owner: &Signer, file: &SealedFile) -> anyhow::Result<Told> {
    // Each page of the answer is a request of its own.
    let mut number = u128::from_be_bytes(fresh_id()?.0);
    let next_id = || {
        number = number.wrapping_add(1);
        RequestId(number.to_be_bytes())
    };
    cluster.told(owner, file, next_id).await?.context("the cluster does not know the signer as the owner")
}
