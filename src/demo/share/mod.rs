//! `--op share`: owners seal pictures for a few readers with small quotas, and the readers race for the views while nodes fail.
//!
//! Every client is a user. A reader keeps several requests under way, as if asking from several devices at once, and asks for more
//! than there is; a refusal is then the right answer. Whoever may open what stands in [`plan`]; what must come out, in [`proof`].

pub mod plan;
pub mod proof;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::watch;

use crate::client::{Attempt, Cluster, PlacedBy, SealedFile, Signer, Work};
use crate::demo::clients::Refused;
use crate::demo::people::{self, ViewError, Viewed};
use crate::demo::pictures::Picture;
use crate::demo::plan::Planned;
use crate::demo::record::Kind;
use crate::demo::verify::same_bytes;
use crate::id::{NodeId, RequestId, UserId};
use crate::identity::Released;
use crate::image::{DataKey, Limits};
use crate::protocol::job::SealForm;
use crate::time::now;

use plan::{SharePlan, Shelf};
use proof::{Account, Asked, RightsProof};

/// Requests that a client keeps under way at the same time.
pub const LANES: u32 = 4;
/// Users that are registered, and owners that are asked, at the same time.
const AT_ONCE: usize = 16;
/// How long a reader waits for the first picture that is not his own.
const FIRST_PICTURE: Duration = Duration::from_secs(30);
/// How long a request of unknown outcome is asked again after the run.
const SETTLING: Duration = Duration::from_secs(30);
const SETTLING_PAUSE: Duration = Duration::from_millis(200);

/// What all clients of such a run share.
pub struct Share {
    plan: SharePlan,
    cluster: Cluster,
    /// One for each client.
    users: Vec<Arc<Signer>>,
    pictures: Vec<Picture>,
    state: Mutex<State>,
    /// How many images there are; readers without one wait for it.
    sealed: watch::Sender<usize>,
}

struct State {
    shelf: Shelf,
    images: BTreeMap<u32, Arc<Image>>,
    asked: BTreeMap<u32, BTreeMap<u32, Asked>>,
}

/// A sealed image.
struct Image {
    file: SealedFile,
    picture: Picture,
}

/// The answer to one request.
pub struct Answered {
    /// What it came to.
    pub kind: Kind,
    /// The node that answered.
    pub node: NodeId,
    /// The node's own time; zero where it does not say so.
    pub job_time: Duration,
    /// Bytes that were sent.
    pub bytes_in: u64,
    /// Bytes that came back.
    pub bytes_out: u64,
    /// Every attempt.
    pub attempts: Vec<Attempt>,
    /// What can be checked; none for a refusal.
    pub check: Option<ToCheck>,
}

/// A sealed picture and what must be in it.
pub struct ToCheck {
    /// The sealed picture.
    pub sealed: Bytes,
    /// The original.
    pub picture: Picture,
    /// What was asked for.
    pub work: Work,
    /// The key that was released; none for a seal, which the cluster's key opens.
    pub key: Option<DataKey>,
}

impl Share {
    /// Registers a user for each client.
    ///
    /// # Errors
    /// A user cannot be registered.
    pub async fn begin(plan: SharePlan, cluster: Cluster, pictures: Vec<Picture>, run_id: &str) -> Result<Share> {
        let about = cluster.identity().await.context("the cluster does not say who it is")?;
        let registering = (0..plan.clients).map(async |number| {
            let signer = people::fresh_signer(about.cluster_id)?;
            let name = format!("demo-{run_id}-{}", number + 1);
            people::register(&cluster, &signer, &name, about.needs_invitation)
                .await
                .with_context(|| format!("cannot register user {name}"))?;
            anyhow::Ok(Arc::new(signer))
        });
        let users: Vec<_> = futures::stream::iter(registering).buffered(AT_ONCE).collect().await;
        let users = users.into_iter().collect::<Result<Vec<_>>>()?;
        let state = State { shelf: Shelf::new(plan), images: BTreeMap::new(), asked: BTreeMap::new() };
        Ok(Share { plan, cluster, users, pictures, state: Mutex::new(state), sealed: watch::Sender::new(0) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image that this request seals, or asks for; waits until there is one.
    ///
    /// # Errors
    /// Nobody has sealed anything in time.
    pub async fn next(&self, client: u32, turn: u32) -> Result<Next, Refused> {
        if let Some(image) = self.plan.sealed_by(client, turn) {
            return Ok(Next::Seal(image));
        }
        let mut sealed = self.sealed.subscribe();
        let waiting = async {
            loop {
                sealed.mark_unchanged();
                if let Some(image) = self.state().shelf.next(client, turn) {
                    return image;
                }
                // The sender is ours, so it is there.
                let _ = sealed.changed().await;
            }
        };
        let image = tokio::time::timeout(FIRST_PICTURE, waiting).await.map_err(|_| Refused {
            reason: "no_picture".to_owned(),
            detail: format!("nobody had sealed a picture for it within {} s", FIRST_PICTURE.as_secs()),
            attempts: Vec::new(),
        })?;
        Ok(Next::View(image))
    }

    /// Does what [`next`](Share::next) has said.
    ///
    /// # Errors
    /// It got no answer, or one that cannot be.
    pub async fn send(&self, next: Next, planned: &Planned) -> Result<Answered, Refused> {
        match next {
            Next::Seal(image) => self.seal(image, planned).await,
            Next::View(image) => self.view(image, planned).await,
        }
    }

    async fn seal(&self, number: u32, planned: &Planned) -> Result<Answered, Refused> {
        let picture = &self.pictures[planned.picture];
        let owner = &self.users[self.plan.owner(number) as usize];
        let rights = self.plan.rights(number);
        let to: Vec<(String, u64)> =
            rights.iter().map(|(reader, views)| (self.user(*reader).to_string(), *views)).collect();
        let answer = people::seal(&self.cluster, owner, picture, &to, planned.id).await.map_err(Refused::from)?;
        let file = SealedFile::of(answer.image.clone(), Limits::default()).map_err(|error| Refused {
            reason: "bad_answer".to_owned(),
            detail: format!("the sealed picture has no header: {error}"),
            attempts: answer.attempts.clone(),
        })?;
        {
            let mut state = self.state();
            state.images.insert(number, Arc::new(Image { file, picture: picture.clone() }));
            state.shelf.add(number);
        }
        self.sealed.send_modify(|count| *count += 1);
        Ok(Answered {
            kind: Kind::Seal,
            node: answer.node,
            job_time: answer.job_time,
            bytes_in: picture.bytes.len() as u64,
            bytes_out: answer.image.len() as u64,
            attempts: answer.attempts,
            check: Some(ToCheck {
                sealed: answer.image,
                picture: picture.clone(),
                work: Work::Seal(SealForm::Compact),
                key: None,
            }),
        })
    }

    async fn view(&self, number: u32, planned: &Planned) -> Result<Answered, Refused> {
        let Some(image) = self.state().images.get(&number).cloned() else {
            unreachable!("an image is on the shelf only when it is here")
        };
        self.note(number, planned.client, |asked| {
            asked.unknown.insert(planned.id);
        });
        let reader = &self.users[planned.client as usize];
        let began = now();
        let (route, result) = people::view(&self.cluster, reader, &image.file, planned.id).await;
        let took = now().since(began);
        let node = route.last().copied().flatten();
        let attempts = attempts(&route, took);
        let refused = |reason: String, detail: String| Refused { reason, detail, attempts: attempts.clone() };
        let header_bytes = image.file.header.as_bytes().len() as u64;
        let (kind, bytes_out, check) = match result {
            Ok(Viewed::Released(answer, released)) => {
                self.note_release(number, planned.client, planned.id);
                if released.name != image.picture.name {
                    return Err(refused("wrong_answer".to_owned(), "the key came with another name".to_owned()));
                }
                (Kind::View, answer.key.map_or(0, |key| key.len() as u64), Some(to_check(&image, &released)))
            }
            Ok(Viewed::Denied(why)) => {
                self.note_denial(number, planned.client, planned.id);
                (Kind::Refusal, why.len() as u64, None)
            }
            // It stays unknown, and is asked for again after the run.
            Err(error) => return Err(refused(error.code(), error.to_string())),
        };
        let node =
            node.ok_or_else(|| refused("bad_answer".to_owned(), "no node is known by that address".to_owned()))?;
        Ok(Answered { kind, node, job_time: Duration::ZERO, bytes_in: header_bytes, bytes_out, attempts, check })
    }

    fn user(&self, client: u32) -> UserId {
        self.users[client as usize].user
    }

    fn note(&self, image: u32, client: u32, change: impl FnOnce(&mut Asked)) {
        change(self.state().asked.entry(image).or_default().entry(client).or_default());
    }

    fn note_release(&self, image: u32, client: u32, id: RequestId) {
        self.note(image, client, |asked| {
            asked.unknown.remove(&id);
            asked.released.insert(id);
        });
    }

    fn note_denial(&self, image: u32, client: u32, id: RequestId) {
        self.note(image, client, |asked| {
            asked.unknown.remove(&id);
            asked.denied += 1;
        });
    }

    /// Asks again for what has no known outcome, with the same ids: the log knows which of them were done.
    async fn settle(&self) {
        let unknown: Vec<(u32, u32, RequestId)> = {
            let state = self.state();
            let of_image = |(image, readers): (&u32, &BTreeMap<u32, Asked>)| {
                let image = *image;
                let of_reader = move |(client, asked): (&u32, &Asked)| {
                    asked.unknown.iter().map(|id| (image, *client, *id)).collect::<Vec<_>>()
                };
                readers.iter().flat_map(of_reader).collect::<Vec<_>>()
            };
            state.asked.iter().flat_map(of_image).collect()
        };
        let end = now() + SETTLING;
        let settling = unknown.into_iter().map(async |(number, client, id)| {
            let Some(image) = self.state().images.get(&number).cloned() else { return };
            let reader = &self.users[client as usize];
            loop {
                match people::view(&self.cluster, reader, &image.file, id).await.1 {
                    Ok(Viewed::Released(_, released)) => {
                        // Whoever gets a key that opens nothing got none.
                        let open = tokio::task::spawn_blocking(move || {
                            let opened = image.file.open(&released).map_err(|error| error.to_string())?;
                            same_bytes(&opened, &image.picture.bytes)
                        });
                        if matches!(open.await, Ok(Ok(()))) {
                            self.note_release(number, client, id);
                        }
                        return;
                    }
                    Ok(Viewed::Denied(_)) => return self.note_denial(number, client, id),
                    Err(_) if now() < end => tokio::time::sleep(SETTLING_PAUSE).await,
                    Err(_) => return,
                }
            }
        });
        futures::stream::iter(settling).buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    /// Asks every owner what the cluster says of each image, and holds it against what the readers got.
    pub async fn prove(&self) -> RightsProof {
        self.settle().await;
        let (images, mut asked) = {
            let mut state = self.state();
            (state.images.clone(), std::mem::take(&mut state.asked))
        };
        let telling = images.into_iter().map(async |(number, image)| {
            let owner = &self.users[self.plan.owner(number) as usize];
            (number, people::told(&self.cluster, owner, &image.file).await.map_err(|error| format!("{error:#}")))
        });
        let told: Vec<_> = futures::stream::iter(telling).buffered(AT_ONCE).collect().await;
        let accounts: Vec<Account> = told
            .into_iter()
            .map(|(number, told)| {
                let by_user = |(client, asked)| (self.user(client), asked);
                let given = self.plan.rights(number).into_iter().map(|(client, views)| (self.user(client), views));
                let asked = asked.remove(&number).unwrap_or_default();
                Account { number, given: given.collect(), asked: asked.into_iter().map(by_user).collect(), told }
            })
            .collect();
        RightsProof::of(&accounts)
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This image is sealed.
    Seal(u32),
    /// A view of this image is asked for.
    View(u32),
}

fn to_check(image: &Image, released: &Released) -> ToCheck {
    ToCheck {
        sealed: image.file.bytes.clone(),
        picture: image.picture.clone(),
        work: Work::Seal(SealForm::Compact),
        key: Some(DataKey(released.data_key)),
    }
}

/// The nodes that were asked, as attempts: the last one has answered, those before sent on or did not.
fn attempts(route: &[Option<NodeId>], took: Duration) -> Vec<Attempt> {
    let last = route.len().saturating_sub(1);
    let attempt = |(place, node): (usize, &Option<NodeId>)| Attempt {
        node: *node,
        placed_by: PlacedBy::Client,
        took: if place == last { took } else { Duration::ZERO },
        announce: Duration::ZERO,
        failure: (place < last).then(|| "asked_again".to_owned()),
    };
    route.iter().enumerate().map(attempt).collect()
}

impl ViewError {
    /// A short word for the counts.
    fn code(&self) -> String {
        match self {
            ViewError::Client(error) => error.code(),
            ViewError::NoKey => "no_key".to_owned(),
        }
    }
}
