//! What happens in the tour, one function a step.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;

use super::story::Story;
use super::until_settled;
use crate::client::audit::{self, Told};
use crate::client::keys::{Identity, Journalled, KeyStore, Lease, LeaseError, LeaseStore};
use crate::client::{Cluster, SealedFile, Signer};
use crate::demo::cluster::OwnCluster;
use crate::demo::observer::Observer;
use crate::demo::people::{self, Viewed, fresh_id};
use crate::demo::pictures::{self, Picture};
use crate::demo::report::text::{plural, size};
use crate::demo::run_directory::moment;
use crate::id::{ClusterId, NodeId, UserId};
use crate::identity::Released;
use crate::image::{self, ImageError, Limits};
use crate::protocol::problem::ProblemCode;
use crate::protocol::rights::{ImageAction, Right};
use crate::protocol::user::Date;
use crate::time::{now, unix_millis};

const BOBS_VIEWS: u64 = 3;
const CAROLS_VIEWS: u64 = 1;
const MORE_VIEWS: u64 = 2;
const LEASED_FOR: Duration = Duration::from_secs(3600);
/// How long replicas may take to have applied the same entries.
const CATCHING_UP: Duration = Duration::from_secs(20);
const CATCHING_UP_PAUSE: Duration = Duration::from_millis(50);
/// A byte of the header within what the cluster has closed: behind the public part, in the first user's number of views.
const CHANGED_BYTE: usize = 140;

/// Where it happens.
pub struct Stage<'a> {
    own: OwnCluster,
    cluster: Cluster,
    observer: Observer,
    keys: KeyStore,
    story: &'a mut Story,
}

/// Who acts.
struct People {
    alice: Identity,
    bob: Identity,
    carol: Identity,
    /// A user like the others, to whom alice has given nothing.
    mallory: Identity,
}

/// Alice's photograph, before and after.
struct Photo {
    picture: Picture,
    sealed: SealedFile,
}

impl People {
    fn name_of(&self, user: UserId) -> &str {
        let all = [&self.alice, &self.bob, &self.carol, &self.mallory];
        all.into_iter().find(|person| person.user() == user).map_or("a stranger", Identity::name)
    }
}

impl<'a> Stage<'a> {
    pub fn new(
        own: OwnCluster,
        cluster: Cluster,
        observer: Observer,
        keys: KeyStore,
        story: &'a mut Story,
    ) -> Stage<'a> {
        Stage { own, cluster, observer, keys, story }
    }

    /// The whole story.
    pub async fn perform(&mut self, seed: u64) -> Result<()> {
        self.a_cluster_begins().await?;
        let people = self.they_register().await?;
        let photo = self.alice_seals(&people, seed).await?;
        self.bob_opens_three_times(&people, &photo).await?;
        self.a_fourth_time_is_denied(&people, &photo).await?;
        self.alice_sees_when(&people, &photo).await?;
        self.alice_adds_views(&people, &photo).await?;
        let killed = self.the_coordinator_is_killed(&people, &photo).await?;
        self.alice_revokes_carol(&people, &photo).await?;
        self.a_stranger_is_denied(&people, &photo).await?;
        self.a_changed_header_is_refused(&people, &photo).await?;
        self.the_killed_node_comes_back(killed).await?;
        self.bob_leases(&people, &photo).await?;
        self.the_audit_chain_holds(&people, &photo).await?;
        self.the_replicas_are_equal().await?;
        self.bob_opens_without_a_node(&people, &photo)
    }

    async fn a_cluster_begins(&mut self) -> Result<()> {
        self.story.step("Three nodes start and elect a coordinator");
        let snapshot = until_settled(&mut self.own, &self.observer).await?;
        let leadership = snapshot.coordinator.context("nobody coordinates")?;
        self.story.say(format!(
            "{} run as processes on this machine, and node {} coordinates in term {}. They keep who may open what in a log \
             that a majority has on disk before anything counts.",
            plural(snapshot.nodes.len() as u64, "node"),
            leadership.node,
            leadership.term
        ));
        Ok(())
    }

    async fn they_register(&mut self) -> Result<People> {
        self.story.step("Alice, bob and carol register");
        let about = self.cluster.identity().await?;
        let mut registered = Vec::new();
        for name in ["alice", "bob", "carol", "mallory"] {
            let person = self.register(about.cluster_id, name, about.needs_invitation).await?;
            let user = person.user().to_string();
            if name != "mallory" {
                self.story.say(format!("{name} is user {}…", &user[..16]));
            }
            registered.push(person);
        }
        self.story.say(
            "Each made a pair of keys; the secret halves never leave their directory. From now on everything that they ask is signed.",
        );
        let known = self.cluster.users(Some(registered[0].signer()), fresh_id()?).await?.len();
        ensure!(known == registered.len(), "the cluster knows {known} users, not {}", registered.len());
        let mut people = registered.into_iter();
        let mut next = || people.next().context("four people were registered");
        Ok(People { alice: next()?, bob: next()?, carol: next()?, mallory: next()? })
    }

    async fn register(&self, cluster: ClusterId, name: &str, needs_invitation: bool) -> Result<Identity> {
        let no_passphrase = |_: &str| unreachable!("keys that were made without a passphrase need none");
        let person = self.keys.prepare(cluster, name, None, &no_passphrase)?;
        people::register(&self.cluster, person.signer(), name, needs_invitation).await?;
        person.finish_registration()?;
        Ok(person)
    }

    async fn alice_seals(&mut self, people: &People, seed: u64) -> Result<Photo> {
        self.story.step("Alice seals a photograph: three views for bob, one for carol");
        let made = tokio::task::spawn_blocking(move || pictures::make(seed)).await.context("no photograph was made")?;
        let mut picture = made?.swap_remove(0);
        "photo.jpg".clone_into(&mut picture.name);
        let file = size(picture.bytes.len() as u64);
        self.story.picture("photo.jpg", &picture.bytes, &format!("Alice's photograph, {file}"))?;
        let owner: Arc<Signer> = Arc::new(people.alice.signer().clone());
        let to = [("bob".to_owned(), BOBS_VIEWS), ("carol".to_owned(), CAROLS_VIEWS)];
        let answer = people::seal(&self.cluster, &owner, &picture, &to, fresh_id()?).await?;
        let sealed = SealedFile::of(answer.image.clone(), Limits::default())?;
        let seen = image::inspect(&answer.image, &sealed.limits)?;
        ensure!(
            seen.public.payload_bytes == picture.bytes.len() as u64,
            "the seal holds {} bytes, not the photograph's {}",
            seen.public.payload_bytes,
            picture.bytes.len()
        );
        self.story.say(format!(
            "Node {} sealed it in {:.0} ms: a PNG of {} × {} pixels, {}. Everybody may have this file.",
            answer.node,
            answer.job_time.as_secs_f64() * 1000.0,
            seen.width,
            seen.height,
            size(answer.image.len() as u64)
        ));
        // A copy that a chat program would make has lost what is hidden, and keeps the cover: by that it is known.
        let copy = recompressed(&answer.image)?;
        let refusal = SealedFile::of(copy, Limits::default()).err().context("a recompressed copy is still sealed")?;
        ensure!(refusal == ImageError::ChangedCopy, "a recompressed copy does not show the cover: {refusal}");
        self.story.say(format!(
            "Were it recompressed on its way, as chat programs do, it would still show the cover: {refusal}."
        ));
        self.story.picture("sealed.png", &answer.image, "What everybody sees: Access Denied")?;
        Ok(Photo { picture, sealed })
    }

    /// Views as the `client` program does: the id is on disk before it is sent.
    async fn view(&self, reader: &Identity, file: &SealedFile) -> Result<Viewed> {
        let entry = Journalled::take(reader, file.image, ImageAction::View, fresh_id()?)?;
        let viewed = people::view(&self.cluster, reader.signer(), file, entry.id).await.1?;
        entry.close()?;
        Ok(viewed)
    }

    /// A view that must succeed, with the original as alice sealed it.
    async fn must_open(&self, reader: &Identity, photo: &Photo, wanted: Right) -> Result<Vec<u8>> {
        let (answer, released) = match self.view(reader, &photo.sealed).await? {
            Viewed::Released(answer, released) => (answer, released),
            Viewed::Denied(why) => anyhow::bail!("{} was denied: {why}", reader.name()),
        };
        let right = answer.right.context("the cluster does not say what is left")?;
        ensure!(right == wanted, "the right is {right:?} instead of {wanted:?}");
        original(photo, &released)
    }

    /// A view that must be denied; says why it was.
    async fn must_be_denied(&self, reader: &Identity, photo: &Photo) -> Result<String> {
        match self.view(reader, &photo.sealed).await? {
            Viewed::Denied(why) => Ok(why),
            Viewed::Released(..) => anyhow::bail!("{} got the key", reader.name()),
        }
    }

    async fn bob_opens_three_times(&mut self, people: &People, photo: &Photo) -> Result<()> {
        self.story.step("Bob opens it three times");
        let mut right = Right { granted: BOBS_VIEWS, left: BOBS_VIEWS, ..Right::default() };
        let mut opened = Vec::new();
        for _ in 0..BOBS_VIEWS {
            (right.left, right.spent) = (right.left - 1, right.spent + 1);
            let began = now();
            opened = self.must_open(&people.bob, photo, right).await?;
            self.story.say(format!(
                "View {}: {:.0} ms, {} of {} views left; the picture is the original, byte for byte.",
                right.spent,
                now().since(began).as_secs_f64() * 1000.0,
                right.left,
                right.granted
            ));
        }
        let header = photo.sealed.header.as_bytes().len();
        self.story.say(format!(
            "Bob's machine sent {header} bytes of header each time, and got the key sealed to his own; the picture did not travel."
        ));
        self.story.picture("bob-opens.jpg", &opened, "What bob sees")
    }

    async fn a_fourth_time_is_denied(&mut self, people: &People, photo: &Photo) -> Result<()> {
        self.story.step("Bob does not open it a fourth time");
        let why = self.must_be_denied(&people.bob, photo).await?;
        self.story.say(format!("The cluster says: {why}."));
        self.story.picture("bob-denied.png", &photo.sealed.bytes, "What bob's program saves instead")
    }

    async fn told(&self, people: &People, photo: &Photo) -> Result<Told> {
        people::told(&self.cluster, people.alice.signer(), &photo.sealed).await
    }

    async fn alice_sees_when(&mut self, people: &People, photo: &Photo) -> Result<()> {
        self.story.step("Alice sees who opened it when");
        let told = self.told(people, photo).await?;
        let views = told.audit.iter().filter(|entry| entry.action == ImageAction::View);
        let by_bob = views.filter(|entry| entry.by == people.bob.user()).count() as u64;
        ensure!(
            by_bob == BOBS_VIEWS && told.entries == BOBS_VIEWS,
            "the chain has {} entries, {by_bob} of them views by bob",
            told.entries
        );
        for entry in &told.audit {
            let left = entry.right.context("an entry of a view has no right")?.left;
            let (at, who) = (moment(entry.at.0), people.name_of(entry.by));
            self.story.say(format!("{}. {at}: {who} viewed it at node {}, {left} left", entry.number, entry.node));
        }
        Ok(())
    }

    async fn alice_adds_views(&mut self, people: &People, photo: &Photo) -> Result<()> {
        self.story.step("Alice adds two views");
        let action = ImageAction::Grant { user: people.bob.user(), views: MORE_VIEWS };
        let right = self.alice_does(people, photo, action).await?;
        let granted = BOBS_VIEWS + MORE_VIEWS;
        let wanted = Right { granted, left: MORE_VIEWS, spent: BOBS_VIEWS, ..Right::default() };
        ensure!(right == wanted, "bob's right is {right:?} instead of {wanted:?}");
        self.story.say(format!(
            "Bob has {} of {} views left. The file did not change, and nobody had to send it again.",
            right.left, right.granted
        ));
        Ok(())
    }

    async fn alice_does(&self, people: &People, photo: &Photo, action: ImageAction) -> Result<Right> {
        let request = photo.sealed.request(action);
        let answer = self.cluster.act(people.alice.signer(), fresh_id()?, &request).await?;
        answer.right.context("the cluster does not say what the right is now")
    }

    async fn the_coordinator_is_killed(&mut self, people: &People, photo: &Photo) -> Result<NodeId> {
        self.story.step("The coordinator is killed, and bob opens it all the same");
        let before = self.cluster.coordinator().await?;
        let began = now();
        self.own.kill(before.node)?;
        let (granted, spent) = (BOBS_VIEWS + MORE_VIEWS, BOBS_VIEWS + 1);
        let right = Right { granted, left: granted - spent, spent, ..Right::default() };
        let opened = self.must_open(&people.bob, photo, right).await?;
        let took = now().since(began).as_secs_f64() * 1000.0;
        let after = self.cluster.coordinator().await?;
        ensure!(after > before, "node {} still coordinates in term {}", after.node, after.term);
        self.story.say(format!(
            "Node {} coordinated in term {} and was killed (kill -9). {took:.0} ms later bob had the picture: the others had \
             elected node {} in term {}, and {} of his {} views was left.",
            before.node, before.term, after.node, after.term, right.left, right.granted
        ));
        self.story.picture("bob-opens-again.jpg", &opened, "What bob sees, with one node dead")?;
        Ok(before.node)
    }

    async fn alice_revokes_carol(&mut self, people: &People, photo: &Photo) -> Result<()> {
        self.story.step("Alice revokes carol");
        let right = self.alice_does(people, photo, ImageAction::Revoke { user: people.carol.user() }).await?;
        let wanted = Right { granted: CAROLS_VIEWS, revoked: CAROLS_VIEWS, is_revoked: true, ..Right::default() };
        ensure!(right == wanted, "carol's right is {right:?} instead of {wanted:?}");
        let why = self.must_be_denied(&people.carol, photo).await?;
        self.story.say(format!(
            "{} taken back before carol had looked. Carol tries, and the cluster says: {why}.",
            plural(right.revoked, "view")
        ));
        self.story.picture("carol-denied.png", &photo.sealed.bytes, "What carol's program saves")
    }

    async fn a_stranger_is_denied(&mut self, people: &People, photo: &Photo) -> Result<()> {
        self.story.step("A stranger is denied");
        let why = self.must_be_denied(&people.mallory, photo).await?;
        self.story.say(format!(
            "Mallory is a user like the others, has the file, and asks with a signature of his own. The cluster says: {why}."
        ));
        self.story.picture("mallory-denied.png", &photo.sealed.bytes, "What mallory's program saves")
    }

    async fn a_changed_header_is_refused(&mut self, people: &People, photo: &Photo) -> Result<()> {
        self.story.step("One byte of the header is changed");
        let changed = with_changed_header(&photo.sealed)?;
        let file = SealedFile::of(changed.clone(), Limits::default())?;
        let (old, new) = (photo.sealed.header.as_bytes(), file.header.as_bytes());
        let differing: Vec<usize> = (0..old.len().max(new.len())).filter(|at| old.get(*at) != new.get(*at)).collect();
        ensure!(differing == [CHANGED_BYTE], "the bytes {differing:?} of the header differ");
        let request = file.request(ImageAction::View);
        let refused = self.cluster.act(people.bob.signer(), fresh_id()?, &request).await;
        let error = match refused {
            Ok(_) => anyhow::bail!("the cluster released a key for a changed header"),
            Err(error) => error,
        };
        ensure!(error.refusal() == Some(ProblemCode::BadImage), "it was refused for another reason: {error}");
        self.story.say(format!(
            "Byte {CHANGED_BYTE} of {} was {} and is {}; the picture looks as before. Bob, who has a view left, asks with it, and the \
             cluster says: {}.",
            old.len(),
            old[CHANGED_BYTE],
            new[CHANGED_BYTE],
            error.reason()
        ));
        self.story.picture("changed.png", &changed, "The same cover, one byte of the header changed")
    }

    async fn the_killed_node_comes_back(&mut self, killed: NodeId) -> Result<()> {
        self.story.step("The killed node comes back");
        let began = now();
        self.own.restart(killed)?;
        let snapshot = until_settled(&mut self.own, &self.observer).await?;
        self.story.say(format!(
            "Node {killed} was Active again {:.0} ms after its start: {}.",
            now().since(began).as_secs_f64() * 1000.0,
            snapshot.line().replace("  ", ", ").replace('*', " (coordinator)")
        ));
        Ok(())
    }

    async fn bob_leases(&mut self, people: &People, photo: &Photo) -> Result<()> {
        self.story.step("Bob leases his last view for a journey");
        let bob = &people.bob;
        let store = LeaseStore::of(bob)?;
        let action = ImageAction::Lease { views: 1, for_ms: LEASED_FOR.as_millis() as u64 };
        let entry = Journalled::take(bob, photo.sealed.image, action, fresh_id()?)?;
        let answer = self.cluster.act(bob.signer(), entry.id, &photo.sealed.request(action)).await?;
        let released = photo.sealed.released(bob.signer(), bob.secrets(), entry.id, &answer);
        let released = released.context("the lease holds no key for bob")?;
        let until = answer.until.context("the lease has no end")?;
        store.add(photo.sealed.image, released, Lease { id: entry.id, views: 1, left: 1, until, returning: None })?;
        entry.close()?;
        let right = answer.right.context("the cluster does not say what is left")?;
        let (granted, spent) = (BOBS_VIEWS + MORE_VIEWS, BOBS_VIEWS + 1);
        let wanted = Right { granted, spent, leased: 1, ..Right::default() };
        ensure!(right == wanted, "bob's right is {right:?} instead of {wanted:?}");
        self.story.say(format!(
            "One view is paid in advance, until {}: {} of {} left, {} spent, {} leased.",
            moment(until.0),
            right.left,
            right.granted,
            right.spent,
            right.leased
        ));
        Ok(())
    }

    async fn the_audit_chain_holds(&mut self, people: &People, photo: &Photo) -> Result<()> {
        self.story.step("Alice verifies the audit chain");
        let told = self.told(people, photo).await?;
        audit::verify(&told).context("the audit chain does not hold")?;
        let link = told.link.to_string();
        self.story.say(format!(
            "{} hang together, each with the hash of the one before; doing them all once more ends where the cluster says, at {}….",
            plural(told.entries, "entry").replace("entrys", "entries"),
            &link[..16]
        ));
        for (user, right) in &told.rights {
            let Right { granted, left, spent, revoked, burnt, leased, .. } = right;
            ensure!(right.is_conserved(), "views of {} were lost or made up: {right:?}", people.name_of(*user));
            self.story.say(format!(
                "{}: {granted} granted = {left} left + {spent} spent + {revoked} revoked + {burnt} burnt + {leased} leased",
                people.name_of(*user)
            ));
        }
        // One byte of any entry breaks it.
        let mut altered = told;
        if let Some(entry) = altered.audit.first_mut() {
            entry.at = Date(entry.at.0 + 1);
        }
        let fault = audit::verify(&altered).err().context("a changed entry was not noticed")?;
        self.story.say(format!("Had somebody moved the first view by a millisecond: {fault}."));
        Ok(())
    }

    async fn the_replicas_are_equal(&mut self) -> Result<()> {
        self.story.step("The replicas are equal");
        let deadline = now() + CATCHING_UP;
        loop {
            let answers = self.cluster.state_hashes().await;
            let nodes = answers.len();
            let hashes: Vec<_> = answers.into_iter().filter_map(|(_, answer)| answer.ok()).collect();
            let is_same = hashes.windows(2).all(|pair| pair[0].commit == pair[1].commit);
            if hashes.len() == nodes && is_same {
                let first = hashes.first().context("no node answers")?;
                ensure!(
                    hashes.iter().all(|found| found.hash == first.hash),
                    "after {} entries the replicas differ: {hashes:?}",
                    first.commit
                );
                self.story.say(format!(
                    "{} have applied {} entries each, and all they know has one hash: {}….",
                    plural(nodes as u64, "node"),
                    first.commit,
                    &first.hash[..16]
                ));
                return Ok(());
            }
            ensure!(now() < deadline, "the nodes have not applied the same entries: {hashes:?}");
            tokio::time::sleep(CATCHING_UP_PAUSE).await;
        }
    }

    fn bob_opens_without_a_node(&mut self, people: &People, photo: &Photo) -> Result<()> {
        self.story.step("Every node is stopped, and bob opens it with the leased view");
        self.own.end_nodes();
        let store = LeaseStore::of(&people.bob)?;
        let spend = || store.spend(photo.sealed.image, Date(unix_millis()), |released| original(photo, released));
        let (opened, left) = spend()?;
        self.story.say(format!(
            "No node runs any more. Bob's machine had the key under his own, and opened the picture; {} left.",
            plural(left, "leased view")
        ));
        let again = spend().err().context("a spent lease opened once more")?;
        let is_spent = again.downcast_ref().is_some_and(|error| matches!(error, LeaseError::Spent));
        ensure!(is_spent, "the lease was refused for another reason: {again:#}");
        self.story.say(format!("Once more: {again}."));
        self.story.picture("bob-offline.jpg", &opened, "What bob sees with no node reached")
    }
}

/// The photograph as it comes out, which must be as it went in.
fn original(photo: &Photo, released: &Released) -> Result<Vec<u8>> {
    let opened = photo.sealed.open(released)?;
    crate::demo::verify::same_bytes(&opened, &photo.picture.bytes).map_err(anyhow::Error::msg)?;
    ensure!(released.name == photo.picture.name, "the seal holds \"{}\"", released.name);
    Ok(opened)
}

/// The sealed picture as a chat program would send it on: a JPEG.
fn recompressed(sealed: &[u8]) -> Result<Bytes> {
    let mut file = std::io::Cursor::new(Vec::new());
    ::image::load_from_memory(sealed)?.to_rgb8().write_to(&mut file, ::image::ImageFormat::Jpeg)?;
    Ok(file.into_inner().into())
}

/// The sealed picture with one bit of its header changed, written anew without loss.
fn with_changed_header(sealed: &SealedFile) -> Result<Bytes> {
    let banner_rows = image::inspect(&sealed.bytes, &sealed.limits)?.banner_rows as usize;
    let mut pixels = ::image::load_from_memory_with_format(&sealed.bytes, ::image::ImageFormat::Png)?.to_rgb8();
    // Below the banner each sample carries four bits, the upper half of a byte first.
    let sample = banner_rows * pixels.width() as usize * 3 + 2 * CHANGED_BYTE;
    *pixels.get_mut(sample).context("the sealed picture has no such sample")? ^= 1;
    let mut file = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut file, ::image::ImageFormat::Png)?;
    Ok(file.into_inner().into())
}
