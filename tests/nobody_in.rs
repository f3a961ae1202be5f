//! Everybody who has no right stays out, and is told so by name: forged, altered, old, moved and minted things, one by one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod common;
mod people;

use std::collections::BTreeMap;

use common::{TestCluster, picture};
use image_cloud::id::ClusterId;
use image_cloud::identity::{self, SealedFor, UserSecret};
use image_cloud::image::{
    self, ClusterKey, DataKey, Header, ImageError, ImageNonce, Limits, Scratch, SealOptions, Terms, Wrap,
};
use image_cloud::protocol::problem::{Problem, ProblemCode};
use image_cloud::protocol::rights::{ImageAction, MOST_VIEWS};
use image_cloud::protocol::sharing::{
    HeaderAnswer, HeaderRequest, LookRequest, Registration, RightsAnswer, Rotation, UserChanged, route,
};
use image_cloud::protocol::user::SIGNED_WITHIN_MS;
use image_cloud::time;
use people::{Person, cluster_identity, fresh_id, header_of, rights_request};

/// Bytes of the public part of a header, and where its key id stands.
const PUBLIC_BYTES: usize = 93;
const KEY_ID: std::ops::Range<usize> = 41..49;

struct World {
    cluster: TestCluster,
    alice: Person,
    bob: Person,
    mallory: Person,
    sealed: Vec<u8>,
    header: Vec<u8>,
}

impl World {
    /// Alice has sealed a picture for bob, who may open it twice.
    async fn new() -> World {
        let cluster = TestCluster::start(1, "").await;
        let alice = Person::register(&cluster, "alice", 1).await;
        let bob = Person::register(&cluster, "bob", 2).await;
        let mallory = Person::register(&cluster, "mallory", 3).await;
        let sealed = alice.seal(&cluster.url(1), &picture(1), "&to=bob%3D2").await.unwrap();
        let header = header_of(&sealed);
        World { cluster, alice, bob, mallory, sealed, header }
    }

    fn url(&self) -> String {
        self.cluster.url(1)
    }

    async fn view(&self, who: &Person, header: &[u8]) -> Result<RightsAnswer, Problem> {
        let asked = who.ask_json(route::RIGHTS, &rights_request(header, ImageAction::View), fresh_id());
        who.send(&self.url(), &asked).await
    }

    /// Bob's right as it is.
    async fn left(&self) -> u64 {
        self.bob.look(&self.cluster, &self.header).await.unwrap().right.unwrap().left
    }

    async fn commit(&self) -> u64 {
        self.cluster.status(1).await.unwrap().commit
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Problem>, code: ProblemCode, word: &str) {
    let problem = result.unwrap_err();
    assert!(problem.code == code && problem.detail.contains(word), "{problem:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_signs_for_somebody_else() {
    let world = World::new().await;
    let World { bob, mallory, .. } = &world;
    let body = rights_request(&world.header, ImageAction::View);

    let in_bobs_name = Person { user: bob.user, ..mallory.clone() };
    let asked = in_bobs_name.ask_json(route::RIGHTS, &body, fresh_id());
    refused(mallory.send::<RightsAnswer>(&world.url(), &asked).await, ProblemCode::SignatureRefused, "replaced");
    let mut asked = in_bobs_name.ask_json(route::RIGHTS, &body, fresh_id());
    asked.authorization.key = bob.secret.public().id();
    refused(mallory.send::<RightsAnswer>(&world.url(), &asked).await, ProblemCode::SignatureRefused, "does not fit");

    let stranger = Person { secret: UserSecret::from_bytes(&[9; 64]), ..mallory.clone() };
    let stranger = Person { user: stranger.secret.public().user(), ..stranger };
    refused(world.view(&stranger, &world.header).await, ProblemCode::SignatureRefused, "client register");

    let unsigned = reqwest::Client::new().post(format!("{}{}", world.url(), route::RIGHTS));
    let unsigned = unsigned.body(serde_json::to_vec(&body).unwrap()).send().await.unwrap();
    assert_eq!(unsigned.status(), 401);

    refused(world.view(mallory, &world.header).await, ProblemCode::Denied, "no right");
    assert_eq!(world.left().await, 2, "nothing was spent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_for_one_request_of_one_time() {
    let world = World::new().await;
    let World { bob, mallory, .. } = &world;
    let body = rights_request(&world.header, ImageAction::View);

    // Replayed: the same answer, spent once, and of no use to whoever has overheard it.
    let asked = bob.ask_json(route::RIGHTS, &body, fresh_id());
    let first: RightsAnswer = bob.send(&world.url(), &asked).await.unwrap();
    let again: RightsAnswer = mallory.send(&world.url(), &asked).await.unwrap();
    assert_eq!((again.commit, again.right), (first.commit, first.right));
    assert!(mallory.key_in(&again, asked.id).is_none());
    assert_eq!(world.left().await, 1);

    // Old, and from the future, by two minutes: refused, although it was answered before.
    for at in [time::unix_millis() - SIGNED_WITHIN_MS - 1_000, time::unix_millis() + SIGNED_WITHIN_MS + 1_000] {
        let old = bob.ask_at("POST", route::RIGHTS, serde_json::to_vec(&body).unwrap(), asked.id, at);
        refused(bob.send::<RightsAnswer>(&world.url(), &old).await, ProblemCode::SignatureRefused, "clock");
        let look = LookRequest { header: body.header.clone(), after: 0 };
        let old = bob.ask_at("POST", route::LOOK, serde_json::to_vec(&look).unwrap(), asked.id, at);
        refused(bob.send::<RightsAnswer>(&world.url(), &old).await, ProblemCode::SignatureRefused, "clock");
    }

    // Re-dated, under another id, with another body, for another route, for another cluster.
    let alter = async |change: &dyn Fn(&mut people::Asked)| {
        let mut asked = bob.ask_json(route::RIGHTS, &body, fresh_id());
        change(&mut asked);
        refused(bob.send::<RightsAnswer>(&world.url(), &asked).await, ProblemCode::SignatureRefused, "sign");
    };
    alter(&|asked| asked.authorization.at.0 += 1).await;
    alter(&|asked| asked.id = fresh_id()).await;
    alter(&|asked| asked.body.push(b' ')).await;
    alter(&|asked| asked.path = route::LOOK.to_owned()).await;
    alter(&|asked| asked.path.push_str("?x=y")).await;
    let elsewhere = Person { cluster: ClusterId([7; 32]), ..bob.clone() };
    refused(world.view(&elsewhere, &world.header).await, ProblemCode::SignatureRefused, "another cluster");
    assert_eq!(world.left().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_rotated_away_signs_nothing() {
    let world = World::new().await;
    let World { cluster, bob, .. } = &world;
    let id = fresh_id();
    let body = rights_request(&world.header, ImageAction::View);
    let first: RightsAnswer = bob.until_decided(cluster, route::RIGHTS, &body, id).await.unwrap();
    let secret = UserSecret::from_bytes(&[50; 64]);
    let rotated: Result<UserChanged, Problem> =
        bob.until_decided(cluster, route::KEYS, &Rotation { to: secret.public() }, fresh_id()).await;
    assert_eq!(rotated.unwrap().user, bob.user);
    refused(world.view(bob, &world.header).await, ProblemCode::SignatureRefused, "replaced");

    let renewed = Person { secret, ..bob.clone() };
    let again: RightsAnswer = renewed.until_decided(cluster, route::RIGHTS, &body, id).await.unwrap();
    assert_eq!((again.commit, again.right), (first.commit, first.right), "the same request, signed anew");
    assert!(renewed.key_in(&again, id).is_some(), "its answer is sealed to the new key");
    assert!(bob.key_in(&again, id).is_none(), "and to no other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_is_believed_whole_or_not_at_all() {
    let world = World::new().await;
    let before = world.commit().await;
    for byte in 0..world.header.len() {
        let mut altered = world.header.clone();
        altered[byte] ^= 1;
        let problem = world.view(&world.bob, &altered).await.unwrap_err();
        let codes = [ProblemCode::BadImage, ProblemCode::WrongCluster, ProblemCode::TooLarge, ProblemCode::Denied];
        assert!(codes.contains(&problem.code), "byte {byte}: {problem:?}");
    }
    for header in [&world.header[..world.header.len() - 1], &[&world.header[..], b"x"].concat(), b"", b"IMGCLOUD"] {
        assert!(world.view(&world.bob, header).await.is_err());
    }
    // Alice's nonce with mallory's wrap, and the other way round.
    let hers = world.mallory.seal(&world.url(), &picture(1), "").await.unwrap();
    let hers = header_of(&hers);
    for (public, wrap) in [(&world.header, &hers), (&hers, &world.header)] {
        let mixed = [&public[..PUBLIC_BYTES], &wrap[PUBLIC_BYTES..]].concat();
        refused(world.view(&world.mallory, &mixed).await, ProblemCode::BadImage, "header");
    }
    assert_eq!(world.left().await, 2);
    assert!(world.commit().await <= before + 1, "nothing of it came into the log");
}

/// Whoever has no cluster key can make headers without end: none of them leaves anything in the ledger.
#[tokio::test(flavor = "multi_thread")]
async fn a_minted_header_leaves_nothing_in_the_ledger() {
    let world = World::new().await;
    let identity = cluster_identity(&world.cluster).await;
    let before = world.commit().await;
    for number in 0..50 {
        let terms = Terms { owner: Some(world.mallory.user), rights: BTreeMap::new(), ..Terms::default() };
        let wrap = Wrap { data_key: DataKey([1; 32]), terms, media_type: "image/png".into(), name: "x".into() };
        let (key, nonce) = (ClusterKey::new([number; 32]), ImageNonce([number; 32]));
        let minted = Header::create(&wrap, &key, identity.cluster_id, nonce, 100, &Limits::default()).unwrap();
        let mut minted = minted.as_bytes().to_vec();
        minted[KEY_ID].copy_from_slice(&world.header[KEY_ID]);
        refused(world.view(&world.mallory, &minted).await, ProblemCode::BadImage, "header");
    }
    assert!(world.commit().await <= before + 1, "nothing of it came into the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_another_cluster_and_one_without_owner_stay_shut() {
    let (world, other) = (World::new().await, World::new().await);
    refused(world.view(&world.bob, &other.header).await, ProblemCode::WrongCluster, "belongs to the cluster");
    let unowned = reqwest::Client::new().post(format!("{}/api/v1/images/seal", world.url())).body(picture(1));
    let unowned = unowned.send().await.unwrap().bytes().await.unwrap();
    refused(world.view(&world.bob, &header_of(&unowned)).await, ProblemCode::Denied, "no owner");
}

/// The key that bob gets opens the picture that it was released for and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrap_that_is_moved_to_another_payload_opens_nothing() {
    let world = World::new().await;
    let id = fresh_id();
    let answer = world.bob.act(&world.cluster, &world.header, ImageAction::View, id).await.unwrap();
    let key = DataKey(world.bob.key_in(&answer, id).unwrap().data_key);
    let (limits, original) = (Limits::default(), picture(1));
    assert_eq!(image::unseal_with(&world.sealed, &key, &limits).unwrap(), original);
    let header = Header::read(&world.header, &limits).unwrap();
    let moved = image::seal_under(
        &original,
        &header,
        &DataKey([5; 32]),
        &SealOptions::default(),
        &limits,
        &mut Scratch::default(),
    )
    .unwrap();
    let opened = image::unseal_with(&moved, &key, &limits);
    assert_eq!(opened, Err(ImageError::Tampered { part: "payload" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn senseless_rights_and_names_are_refused_by_name() {
    let world = World::new().await;
    let World { alice, .. } = &world;
    let seal = async |query: &str| {
        let asked = alice.ask("POST", &format!("/api/v1/images/seal?name=a.png{query}"), picture(1), fresh_id());
        alice.send_for_bytes(&world.url(), &asked).await
    };
    refused(seal("&to=bob%3D18446744073709551615").await, ProblemCode::BadRequest, "views can be granted");
    refused(seal("&to=bob%3D0").await, ProblemCode::BadRequest, "views can be granted");
    refused(seal("&to=eve%3D1").await, ProblemCode::NotFound, "client register eve");
    let many: Vec<String> = (0..65).map(|number| format!("user{number}%3D1")).collect();
    refused(seal(&format!("&to={}", many.join(","))).await, ProblemCode::BadRequest, "at most 64");
    for views in [u64::MAX, MOST_VIEWS] {
        let grant = ImageAction::Grant { user: world.bob.user, views };
        let asked = alice.ask_json(route::RIGHTS, &rights_request(&world.header, grant), fresh_id());
        refused(alice.send::<RightsAnswer>(&world.url(), &asked).await, ProblemCode::Conflict, "views");
    }
    for name in ["a\u{7}b", "a b", "", "\u{202e}ecila"] {
        let secret = UserSecret::from_bytes(&[60; 64]);
        let person = Person { user: secret.public().user(), secret, ..alice.clone() };
        let body = Registration { name: name.to_owned(), keys: person.secret.public(), invitation: None };
        let asked = person.ask_json(route::USERS, &body, fresh_id());
        refused(person.send::<UserChanged>(&world.url(), &asked).await, ProblemCode::BadRequest, "name");
    }
    let taken = Registration { name: "ALICE".into(), keys: world.bob.secret.public(), invitation: None };
    let asked = world.bob.ask_json(route::USERS, &taken, fresh_id());
    assert_eq!(world.bob.send::<UserChanged>(&world.url(), &asked).await.unwrap_err().code, ProblemCode::Conflict);
}

/// Who seals by oneself gets a header whose nonce the node has drawn, and cannot bring one.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_seals_by_itself_chooses_no_nonce() {
    let world = World::new().await;
    let World { alice, .. } = &world;
    let identity = cluster_identity(&world.cluster).await;
    let id = fresh_id();
    let purpose = SealedFor::LocalSeal { cluster: alice.cluster, user: alice.user, id };
    let data_key = identity::seal(&[8; 32], &identity.public_key, &purpose).unwrap();
    let data_key = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, data_key);
    let (media_type, name) = ("image/png".to_owned(), "local.png".to_owned());
    let rights = BTreeMap::from([(world.bob.user, 1)]);
    let original = picture(2);
    let payload_bytes = original.len() as u64;
    let body =
        HeaderRequest { payload_bytes, media_type, name, rights, expires: None, leases_returnable: false, data_key };

    let mut with_nonce = serde_json::to_value(&body).unwrap();
    with_nonce["image_nonce"] = "00".repeat(32).into();
    let asked = alice.ask_json(route::HEADER, &with_nonce, id);
    refused(alice.send::<HeaderAnswer>(&world.url(), &asked).await, ProblemCode::BadRequest, "image_nonce");

    let headers = async || {
        let answer: HeaderAnswer = alice.send(&world.url(), &alice.ask_json(route::HEADER, &body, id)).await.unwrap();
        base64::Engine::decode(&base64::prelude::BASE64_STANDARD, answer.header).unwrap()
    };
    let (header, again) = (headers().await, headers().await);
    let limits = Limits::default();
    let nonce = |header: &[u8]| Header::read(header, &limits).unwrap().public.image_nonce;
    assert_ne!(nonce(&header), nonce(&again), "drawn anew for every wrap");
    let header = Header::read(&header, &limits).unwrap();
    let key = DataKey([8; 32]);
    let sealed =
        image::seal_under(&original, &header, &key, &SealOptions::default(), &limits, &mut Scratch::default()).unwrap();
    assert_eq!(world.bob.view(&world.cluster, &sealed).await.unwrap(), original);

    let another = fresh_id();
    let asked = alice.ask_json(route::HEADER, &body, another);
    refused(alice.send::<HeaderAnswer>(&world.url(), &asked).await, ProblemCode::BadRequest, "does not open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_spends_nothing() {
    let world = World::new().await;
    let body = rights_request(&world.header, ImageAction::View);
    let mut asked = world.bob.ask_json(route::RIGHTS, &body, fresh_id());
    asked.headers.push(("origin", "https://example.org".to_owned()));
    refused(world.bob.send::<RightsAnswer>(&world.url(), &asked).await, ProblemCode::Forbidden, "pages of");
    assert_eq!(world.left().await, 2);
}
