use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::id::{ImageId, RequestId};
use crate::identity::Released;
use crate::protocol::rights::ImageAction;
use crate::protocol::user::Date;

const CLUSTER: ClusterId = ClusterId([0xab; 32]);
const IMAGE: ImageId = ImageId([5; 32]);

fn nobody_asks(name: &str) -> Result<Passphrase, SecretsError> {
    panic!("asked for the passphrase of {name}")
}

fn store() -> (tempfile::TempDir, KeyStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = KeyStore::open(&directory.path().join("keys")).unwrap();
    (directory, store)
}

fn registered(store: &KeyStore, name: &str) -> Identity {
    let identity = store.prepare(CLUSTER, name, None, &nobody_asks).unwrap();
    identity.finish_registration().unwrap();
    identity
}

#[test]
fn keys_are_for_their_owner_alone_and_never_overwritten() {
    let (directory, store) = store();
    let alice = registered(&store, "alice");
    assert_eq!(store.names(CLUSTER).unwrap(), ["alice"]);
    let back = store.load(CLUSTER, "alice", &nobody_asks).unwrap();
    assert_eq!((back.user(), back.signer().keys()), (alice.user(), alice.signer().keys()));
    let again = store.prepare(CLUSTER, "alice", None, &nobody_asks).unwrap_err();
    assert!(matches!(again, SecretsError::KeysExist { .. }), "{again}");

    let place = directory.path().join("keys/abababababababab/alice");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&place), mode(&place.join(IDENTITY))), (0o700, 0o600));
    fs::set_permissions(place.join(IDENTITY), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(store.load(CLUSTER, "alice", &nobody_asks), Err(SecretsError::TooOpen { .. })));
    fs::set_permissions(place.join(IDENTITY), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(store.load(CLUSTER, "alice", &nobody_asks), Err(SecretsError::TooOpen { .. })));
}

#[test]
fn an_unfinished_registration_goes_on_with_the_same_keys() {
    let (_directory, store) = store();
    let first = store.prepare(CLUSTER, "alice", None, &nobody_asks).unwrap();
    assert!(store.names(CLUSTER).unwrap().is_empty(), "not before the cluster knows");
    let second = store.prepare(CLUSTER, "alice", None, &nobody_asks).unwrap();
    assert_eq!(first.user(), second.user());
    second.abandon_registration().unwrap();
    assert_ne!(store.prepare(CLUSTER, "alice", None, &nobody_asks).unwrap().user(), first.user());
}

#[test]
fn no_name_leads_out_of_the_store() {
    let (directory, store) = store();
    for name in [".", "..", "..."] {
        registered(&store, name);
    }
    assert_eq!(store.names(CLUSTER).unwrap(), [".", "..", "..."]);
    assert!(!directory.path().join("keys").join(IDENTITY).exists());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_rotation_that_was_cut_short_has_both_keys_and_ends_with_the_new_ones() {
    let (_directory, store) = store();
    let mut alice = registered(&store, "alice");
    let old = alice.signer().keys();
    keep(&alice, 7, 2, Date(1000));
    let new = alice.prepare_rotation().unwrap();
    assert_ne!(old, new);

    // The process dies here; whether the cluster has heard of it is open.
    let mut alice = store.load(CLUSTER, "alice", &nobody_asks).unwrap();
    assert_eq!((alice.signer().keys(), alice.next()), (old, Some(new)));
    assert_eq!(alice.prepare_rotation().unwrap(), new, "no third pair");
    alice.finish_rotation().unwrap();

    let alice = store.load(CLUSTER, "alice", &nobody_asks).unwrap();
    assert_eq!((alice.signer().keys(), alice.next()), (new, None));
    assert_eq!(alice.user(), old.user(), "it is still the same user");
    let leased = LeaseStore::of(&alice).unwrap().get(IMAGE).unwrap().unwrap();
    assert_eq!(leased.leases[0].left, 2, "leases open under the new keys");
}

#[test]
fn a_passphrase_is_asked_for_and_kept_by_rotations() {
    let (_directory, store) = store();
    let passphrase = Passphrase("correct horse".into());
    let ask = |_: &str| Ok(Passphrase("correct horse".into()));
    let alice = store.prepare(CLUSTER, "alice", Some(&passphrase), &nobody_asks).unwrap();
    alice.finish_registration().unwrap();
    let wrong = store.load(CLUSTER, "alice", &|_| Ok(Passphrase("wrong".into()))).unwrap_err();
    assert!(matches!(wrong, SecretsError::WrongPassphrase { .. }), "{wrong}");
    let mut alice = store.load(CLUSTER, "alice", &ask).unwrap();
    alice.prepare_rotation().unwrap();
    alice.finish_rotation().unwrap();
    assert!(store.load(CLUSTER, "alice", &ask).unwrap().file().is_locked());
}

#[test]
fn exported_keys_are_taken_elsewhere_once() {
    let ((directory, here), (_other, there)) = (store(), store());
    let alice = registered(&here, "alice");
    let copy = directory.path().join("copy.toml");
    fs::write(&copy, alice.file().text()).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
    there.import(&copy).unwrap();
    assert_eq!(there.load(CLUSTER, "alice", &nobody_asks).unwrap().user(), alice.user());
    assert!(matches!(there.import(&copy), Err(SecretsError::KeysExist { .. })));
    fs::write(&copy, "nonsense").unwrap();
    assert!(matches!(there.import(&copy), Err(SecretsError::NoIdentity { .. })));
}

#[test]
fn a_view_without_an_answer_is_asked_for_with_the_same_id_until_it_is_complete() {
    let (directory, store) = store();
    let bob = registered(&store, "bob");
    let take = |number: u8| Journalled::take(&bob, IMAGE, ImageAction::View, RequestId([number; 16])).unwrap();
    let first = take(1);
    assert!(!first.is_repeated);
    drop(first);
    let second = take(2);
    assert_eq!((second.id, second.is_repeated), (RequestId([1; 16]), true));
    second.close().unwrap();
    let third = take(3);
    assert_eq!((third.id, third.is_repeated), (RequestId([3; 16]), false));
    drop(third);

    // A crash while the entry was written: nothing was asked with it.
    let entry = directory.path().join(format!("keys/abababababababab/bob/journal/{IMAGE}"));
    let text = fs::read_to_string(&entry).unwrap();
    for cut in 0..text.len() {
        fs::write(&entry, &text[..cut]).unwrap();
        assert_eq!(take(4).id, RequestId([4; 16]), "{cut} bytes");
    }
}

#[test]
fn two_processes_of_one_user_ask_one_after_the_other() {
    let (directory, store) = store();
    let bob = registered(&store, "bob");
    let take = |number: u8| Journalled::take(&bob, IMAGE, ImageAction::View, RequestId([number; 16])).unwrap();
    let first = take(1);
    let entry = directory.path().join(format!("keys/abababababababab/bob/journal/{IMAGE}"));
    let held = fs::File::open(entry).unwrap().try_lock();
    assert!(matches!(held, Err(fs::TryLockError::WouldBlock)), "{held:?}");
    let second = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| take(2).id);
        first.close().unwrap();
        waiting.join().unwrap()
    });
    assert_eq!(second, RequestId([2; 16]), "each has a view of its own");
}

fn released() -> Released {
    Released { data_key: [7; 32], media_type: "image/jpeg".into(), name: "cat.jpg".into() }
}

fn keep(identity: &Identity, number: u8, views: u64, until: Date) {
    let lease = Lease { id: RequestId([number; 16]), views, left: views, until, returning: None };
    LeaseStore::of(identity).unwrap().add(IMAGE, released(), lease).unwrap();
}

fn spend(store: &LeaseStore<'_>, now: u64) -> Result<u64, LeaseError> {
    store.spend(IMAGE, Date(now), |released| Ok::<_, LeaseError>(released.data_key)).map(|(_, left)| left)
}

/// A program that knows only the keys of before must not seal anything to them: nobody could open it.
#[test]
fn nothing_is_sealed_to_keys_that_were_replaced_meanwhile() {
    let (_directory, store) = store();
    let before = registered(&store, "bob");
    keep(&before, 1, 2, Date(1_000));
    let mut after = store.load(CLUSTER, "bob", &nobody_asks).unwrap();
    after.prepare_rotation().unwrap();
    let mut during = store.load(CLUSTER, "bob", &nobody_asks).unwrap();
    after.finish_rotation().unwrap();
    assert!(matches!(during.finish_rotation(), Err(LeaseError::KeysReplaced { .. })), "it is done");
    after.prepare_rotation().unwrap();
    assert!(matches!(during.finish_rotation(), Err(LeaseError::KeysReplaced { .. })), "those are others");
    let after = store.load(CLUSTER, "bob", &nobody_asks).unwrap();
    let lease = Lease { id: RequestId([2; 16]), views: 1, left: 1, until: Date(1_000), returning: None };
    for old in [&before, &during] {
        let leases = LeaseStore::of(old).unwrap();
        assert!(leases.add(IMAGE, released(), lease.clone()).is_err());
        assert!(spend(&leases, 1).is_err());
    }
    assert_eq!(spend(&LeaseStore::of(&after).unwrap(), 1).unwrap(), 1, "nothing was lost");
}

#[test]
fn leased_views_are_spent_one_by_one_and_not_after_their_time() {
    let (_directory, store) = store();
    let bob = registered(&store, "bob");
    let leases = LeaseStore::of(&bob).unwrap();
    assert!(matches!(spend(&leases, 0), Err(LeaseError::None)));
    keep(&bob, 1, 2, Date(1000));
    keep(&bob, 1, 2, Date(1000));
    assert_eq!(spend(&leases, 0).unwrap(), 1, "the same lease was kept once");
    let failed = leases.spend(IMAGE, Date(0), |_| Err::<(), _>(LeaseError::Spent));
    assert!(failed.is_err(), "what was not opened");
    assert_eq!(leases.get(IMAGE).unwrap().unwrap().leases[0].left, 1, "is not spent");
    assert!(matches!(spend(&leases, 1000), Err(LeaseError::Expired { since_ms: 0 })));
    keep(&bob, 2, 1, Date(3000));
    assert_eq!(spend(&leases, 2000).unwrap(), 0, "from the one that is not over");
    assert!(matches!(spend(&leases, 2000), Err(LeaseError::Expired { .. })));
    assert_eq!(spend(&leases, 999).unwrap(), 0);
    assert!(matches!(spend(&leases, 999), Err(LeaseError::Spent)));
}

#[test]
fn a_lease_opens_for_nobody_else_and_not_when_it_was_altered() {
    let (directory, store) = store();
    let (bob, mallory) = (registered(&store, "bob"), registered(&store, "mallory"));
    keep(&bob, 1, 2, Date(1000));
    let place = |name: &str| directory.path().join(format!("keys/abababababababab/{name}/leases/{IMAGE}"));
    LeaseStore::of(&mallory).unwrap();
    fs::copy(place("bob"), place("mallory")).unwrap();
    let stolen = LeaseStore::of(&mallory).unwrap().get(IMAGE);
    assert!(matches!(stolen, Err(LeaseError::Unreadable { .. })));
    let mut text = fs::read_to_string(place("bob")).unwrap().into_bytes();
    text[80] = if text[80] == b'A' { b'B' } else { b'A' };
    fs::write(place("bob"), text).unwrap();
    assert!(matches!(LeaseStore::of(&bob).unwrap().get(IMAGE), Err(LeaseError::Unreadable { .. })));
}

#[test]
fn what_is_given_back_cannot_be_spent_here_and_comes_back_if_it_is_refused() {
    let (_directory, store) = store();
    let bob = registered(&store, "bob");
    let leases = LeaseStore::of(&bob).unwrap();
    keep(&bob, 1, 3, Date(1000));
    let begin = |views, id: u8| leases.begin_return(IMAGE, views, Date(0), RequestId([id; 16]));
    assert!(matches!(begin(4, 8), Err(LeaseError::NotSoMany { left: 3, asked: 4 })));
    let (lease, request, views) = begin(2, 8).unwrap();
    assert_eq!((lease.id, request, views), (RequestId([1; 16]), RequestId([8; 16]), 2));
    assert_eq!(spend(&leases, 0).unwrap(), 0);
    let (_, request, views) = begin(1, 9).unwrap();
    assert_eq!((request, views), (RequestId([8; 16]), 2), "one that has no answer yet goes first");
    leases.end_return(IMAGE, request, false).unwrap();
    assert_eq!(leases.get(IMAGE).unwrap().unwrap().leases[0].left, 2);
    let (_, request, _) = begin(2, 9).unwrap();
    leases.end_return(IMAGE, request, true).unwrap();
    assert!(matches!(spend(&leases, 0), Err(LeaseError::Spent)));
}
