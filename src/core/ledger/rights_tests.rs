//! The promises about users and images: no view too many, none lost, and nobody in without a right.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::id::{NodeId, RequestId, UserKeyId};
use crate::protocol::codec;
use crate::protocol::ledger::Caller;
use crate::protocol::rights::{ImageAction, ImageDone, MOST_RIGHTS, MOST_VIEWS, Right, WrapTerms, first_link};
use crate::protocol::user::{Admission, InvitationId, PublicKey, SIGNED_WITHIN_MS, Signed, UserCommand, UserKeys};

/// Everybody's clock.
const NOW: u64 = 1_700_000_000_000;
const IMAGE: ImageId = ImageId([9; 32]);

fn keys(number: u8) -> UserKeys {
    UserKeys { signing: PublicKey([number; 32]), agreement: PublicKey([number + 100; 32]) }
}

fn user(number: u8) -> UserId {
    keys(number).user()
}

const ALICE: u8 = 1;
const BOB: u8 = 2;
const CAROL: u8 = 3;
const MALLORY: u8 = 4;

struct World {
    ledger: Ledger,
    commit: u64,
    now: u64,
    terms: WrapTerms,
}

impl World {
    /// Alice has sealed for bob (3 views) and carol (1).
    fn new(expires: Option<u64>) -> World {
        let rights = BTreeMap::from([(user(BOB), 3), (user(CAROL), 1)]);
        let expires = expires.map(Date);
        let terms = WrapTerms { owner: user(ALICE), rights, expires, leases_returnable: false };
        let mut world = World { ledger: Ledger::default(), commit: 0, now: NOW, terms };
        for (number, name) in [(ALICE, "alice"), (BOB, "bob"), (CAROL, "carol"), (MALLORY, "mallory")] {
            assert_eq!(world.register(number, name, Admission::Open), Ok(()));
        }
        world
    }

    fn apply(&mut self, write: &Write) -> Answer {
        self.commit += 1;
        self.ledger.advance(Stamp(self.now), Date(self.now));
        self.ledger.apply(self.commit, write)
    }

    fn user_command(&mut self, caller: Caller, signed: Option<Signed>, command: UserCommand) -> Result<(), RefusedWhy> {
        let request = Request::User { signed, command };
        let id = RequestId(u128::from(self.commit + 1).to_be_bytes());
        self.apply(&Write { caller, id, request }).outcome.map(|_| ()).map_err(|refused| refused.why)
    }

    fn register(&mut self, number: u8, name: &str, admission: Admission) -> Result<(), RefusedWhy> {
        let (keys, signed) = (keys(number), self.signed(number));
        let command = UserCommand::Register { name: name.to_owned(), keys, admission };
        self.user_command(Caller::User(keys.user()), Some(signed), command)
    }

    fn signed(&self, number: u8) -> Signed {
        Signed { key: keys(number).id(), at: Date(self.now) }
    }

    fn write(&self, by: u8, id: u128, action: ImageAction) -> Write {
        let terms = Some(self.terms.clone());
        let command = ImageCommand { image: IMAGE, terms, node: NodeId(1), signed: self.signed(by), action };
        let request = Request::Image(Box::new(command));
        Write { caller: Caller::User(user(by)), id: RequestId(id.to_be_bytes()), request }
    }

    fn ask_as(&mut self, by: u8, id: u128, action: ImageAction) -> Result<ImageDone, RefusedWhy> {
        let write = self.write(by, id, action);
        self.outcome(&write)
    }

    fn outcome(&mut self, write: &Write) -> Result<ImageDone, RefusedWhy> {
        match self.apply(write).outcome {
            Ok(Done::Image(done)) => Ok(done),
            Ok(other) => panic!("{other:?}"),
            Err(refused) => Err(refused.why),
        }
    }

    fn ask(&mut self, by: u8, action: ImageAction) -> Result<ImageDone, RefusedWhy> {
        let id = 1_000_000 + u128::from(self.commit);
        self.ask_as(by, id, action)
    }

    fn left(&self, who: u8) -> u64 {
        self.ledger.image(IMAGE).unwrap().rights[&user(who)].left
    }

    /// Every link follows from the one before, and no view was made up or lost.
    fn check(&self) {
        let Some(record) = self.ledger.image(IMAGE) else { return };
        for (user, right) in &record.rights {
            assert!(right.is_conserved(), "{user}: {right:?}");
        }
        let mut link = first_link(IMAGE, &record.terms);
        for entry in self.ledger.audit(IMAGE, 0, usize::MAX) {
            assert_eq!(entry.link, entry.link_behind(link));
            link = entry.link;
        }
        assert_eq!(link, record.link);
    }
}

#[test]
fn exactly_the_granted_views_are_spent() {
    let mut world = World::new(None);
    for left in [2, 1, 0] {
        let right = world.ask(BOB, ImageAction::View).unwrap().right.unwrap();
        assert_eq!((right.left, right.granted), (left, 3));
    }
    assert_eq!(world.ask(BOB, ImageAction::View), Err(RefusedWhy::NoneLeft));
    assert_eq!(world.ask(ALICE, ImageAction::Grant { user: user(BOB), views: 1 }).unwrap().right.unwrap().left, 1);
    assert!(world.ask(BOB, ImageAction::View).is_ok());
    assert_eq!(world.ask(BOB, ImageAction::View), Err(RefusedWhy::NoneLeft));
    world.check();
}

#[test]
fn a_repeated_request_spends_nothing_for_as_long_as_the_record_lives() {
    let mut world = World::new(None);
    let first = world.ask_as(BOB, 7, ImageAction::View).unwrap();
    assert!(world.ask(BOB, ImageAction::View).is_ok());
    world.now += 365 * 24 * 3_600_000;
    assert_eq!(world.ask_as(BOB, 7, ImageAction::View), Ok(first), "signed anew, a year later");
    assert_eq!(world.left(BOB), 1);
    assert_eq!(world.ask_as(BOB, 7, ImageAction::Burn), Err(RefusedWhy::IdReused));
    assert!(world.ask_as(CAROL, 7, ImageAction::View).is_ok(), "ids of different users do not meet");
    world.check();
}

#[test]
fn a_request_that_was_signed_long_ago_is_neither_done_nor_answered() {
    let mut world = World::new(None);
    let view = world.write(BOB, 7, ImageAction::View);
    world.now += SIGNED_WITHIN_MS;
    assert!(world.outcome(&view).is_ok());
    world.now += 1;
    assert_eq!(world.outcome(&view), Err(RefusedWhy::NotOfThisTime { now_unix_ms: world.now }));
    world.now = NOW - SIGNED_WITHIN_MS - 1;
    assert_eq!(world.outcome(&view), Err(RefusedWhy::NotOfThisTime { now_unix_ms: world.now }), "from the future");
    assert_eq!(world.left(BOB), 2);
}

#[test]
fn a_leader_whose_clock_was_ahead_does_not_shut_everybody_out() {
    let mut world = World::new(None);
    world.now += 24 * 3_600_000;
    world.ledger.advance(Stamp(0), Date(world.now));
    world.now = NOW + 5;
    assert!(world.ask(BOB, ImageAction::View).is_ok(), "the next leader's clock is right");
}

#[test]
fn replaced_keys_and_expelled_users_open_nothing() {
    let mut world = World::new(None);
    let signed = Some(world.signed(BOB));
    let old = world.write(BOB, 7, ImageAction::View);
    assert!(world.outcome(&old).is_ok());
    assert_eq!(world.user_command(Caller::User(user(BOB)), signed, UserCommand::Rotate { to: keys(50) }), Ok(()));
    assert_eq!(world.outcome(&old), Err(RefusedWhy::KeyReplaced), "not even the answer of before");
    let Request::Image(mut command) = old.request.clone() else { unreachable!() };
    command.signed.key = keys(50).id();
    assert!(world.outcome(&Write { request: Request::Image(command), ..old }).is_ok(), "the user is the same");
    assert_eq!(world.ledger.user(user(BOB)).unwrap().keys, keys(50));

    let expel = UserCommand::Expel { user: user(CAROL) };
    assert!(world.user_command(Caller::User(user(ALICE)), signed, expel.clone()).is_err(), "not anybody may");
    assert_eq!(world.user_command(Caller::Administrator, None, expel), Ok(()));
    assert_eq!(world.ask(CAROL, ImageAction::View), Err(RefusedWhy::UserExpelled));
    let grant = ImageAction::Grant { user: user(CAROL), views: 1 };
    assert_eq!(world.ask(ALICE, grant), Err(RefusedWhy::NoSuchUser));
}

#[test]
fn what_is_refused_leaves_nothing() {
    let mut world = World::new(None);
    let before = world.ledger.clone();
    for action in [
        ImageAction::View,
        ImageAction::Burn,
        ImageAction::Revoke { user: user(BOB) },
        ImageAction::Grant { user: user(MALLORY), views: 5 },
        ImageAction::Expire { at: None },
        ImageAction::Lease { views: 1, for_ms: 1 },
    ] {
        assert_eq!(world.ask(MALLORY, action), Err(RefusedWhy::NoRight), "{action:?}");
    }
    assert_eq!(world.ask(BOB, ImageAction::Grant { user: user(BOB), views: 5 }), Err(RefusedWhy::NotTheOwner));
    assert_eq!(world.ask(BOB, ImageAction::Lease { views: 4, for_ms: 1 }), Err(RefusedWhy::NotSoMany { left: 3 }));
    assert_eq!(world.ledger.images, before.images);
}

/// Whoever says the same for ever fills no ledger, and the full one takes back what there is to take.
#[test]
fn what_changes_nothing_leaves_nothing() {
    let mut world = World::new(None);
    assert!(world.ask(BOB, ImageAction::Burn).is_ok());
    let before = world.ledger.images.clone();
    for _ in 0..10 {
        assert!(world.ask(BOB, ImageAction::Burn).is_ok(), "nothing is left to burn");
        assert!(world.ask(ALICE, ImageAction::Expire { at: None }).is_ok());
        assert!(world.ask(ALICE, ImageAction::AllowReturns { allowed: false }).is_ok());
        assert!(world.ask(ALICE, ImageAction::SetQuota { user: user(CAROL), left: 1 }).is_ok());
    }
    assert_eq!(world.ledger.images, before);
    let revoke = world.write(ALICE, 1, ImageAction::Revoke { user: user(CAROL) });
    let view = world.write(CAROL, 2, ImageAction::View);
    assert!(world.ledger.has_room(&revoke, 0) && !world.ledger.has_room(&view, 0));
    assert!(world.outcome(&view).is_ok());
    assert!(world.ledger.has_room(&view, 0), "it was done already");
    let own = world.write(ALICE, 3, ImageAction::View);
    assert!(world.ledger.has_room(&own, 0), "the owner's view leaves nothing");
    assert!(!world.ledger.has_room(&world.write(ALICE, 4, ImageAction::Expire { at: Some(Date(1)) }), 0));
}

/// A leader whose clock is wrong closes what expires, but writes no dates that the next leader must repeat.
#[test]
fn what_is_written_down_has_the_clock_of_its_own_leader() {
    let mut world = World::new(None);
    world.ledger.advance(Stamp(0), Date(NOW + 70 * 365 * 24 * 3_600_000));
    let lease = world.ask(BOB, ImageAction::Lease { views: 1, for_ms: 1_000 }).unwrap();
    assert_eq!(lease.until, Some(Date(NOW + 1_000)));
    assert_eq!(world.ledger.audit(IMAGE, 0, 1)[0].at, Date(NOW));
}

#[test]
fn the_owners_own_views_are_not_counted() {
    let mut world = World::new(Some(NOW + 10));
    world.now += 100;
    assert_eq!(world.ask(ALICE, ImageAction::View), Ok(ImageDone { right: None, until: None }), "expired or not");
    assert!(world.ledger.image(IMAGE).is_none());
}

#[test]
fn revocation_holds_until_views_are_granted_anew() {
    let mut world = World::new(None);
    assert!(world.ask(BOB, ImageAction::View).is_ok());
    let right = world.ask(ALICE, ImageAction::Revoke { user: user(BOB) }).unwrap().right.unwrap();
    assert_eq!((right.left, right.revoked, right.spent), (0, 2, 1));
    assert_eq!(world.ask(BOB, ImageAction::View), Err(RefusedWhy::RightRevoked));
    assert_eq!(world.ask(ALICE, ImageAction::Revoke { user: user(MALLORY) }), Err(RefusedWhy::NotNamed));
    assert!(world.ask(ALICE, ImageAction::SetQuota { user: user(BOB), left: 1 }).is_ok());
    assert!(world.ask(BOB, ImageAction::View).is_ok());
    assert_eq!(world.ask(BOB, ImageAction::View), Err(RefusedWhy::NoneLeft));
    world.check();
}

#[test]
fn rights_and_views_have_limits() {
    let mut world = World::new(None);
    for views in [MOST_VIEWS, u64::MAX] {
        assert_eq!(world.ask(ALICE, ImageAction::Grant { user: user(BOB), views }), Err(RefusedWhy::TooManyViews));
        let left = views.saturating_add(3);
        assert_eq!(world.ask(ALICE, ImageAction::SetQuota { user: user(BOB), left }), Err(RefusedWhy::TooManyViews));
    }
    for number in 10..10 + MOST_RIGHTS as u8 - 2 {
        world.register(number, &format!("user{number}"), Admission::Open).unwrap();
        assert!(world.ask(ALICE, ImageAction::Grant { user: user(number), views: 1 }).is_ok());
    }
    let one_more = ImageAction::Grant { user: user(MALLORY), views: 1 };
    assert_eq!(world.ask(ALICE, one_more), Err(RefusedWhy::TooManyRights));
    world.terms.rights = (0..=MOST_RIGHTS as u8).map(|number| (UserId([number; 32]), 1)).collect();
    world.ledger = World::new(None).ledger;
    assert_eq!(world.ask(ALICE, ImageAction::Expire { at: None }), Err(RefusedWhy::TooManyRights), "a wrap of 65");
}

/// Spent views must not come back with the wrap, however the expiry was changed.
#[test]
fn an_expired_image_stays_closed_after_its_record_is_gone() {
    let mut world = World::new(Some(NOW + 1_000_000));
    assert!(world.ask(BOB, ImageAction::View).is_ok());
    assert!(world.ask(ALICE, ImageAction::Expire { at: Some(Date(NOW + 10)) }).is_ok());
    world.now += 20;
    assert_eq!(world.ask(BOB, ImageAction::View), Err(RefusedWhy::Expired));
    assert!(world.ledger.image(IMAGE).is_some(), "the wrap would still open");
    world.now = NOW + 1_000_000;
    assert!(world.ledger.has_images_due(Date(world.now)));
    assert_eq!(world.ask(BOB, ImageAction::View), Err(RefusedWhy::Expired));
    assert!(world.ledger.image(IMAGE).is_none());
    let extend = ImageAction::Expire { at: None };
    assert_eq!(world.ask(ALICE, extend), Err(RefusedWhy::Expired), "nobody makes it anew");
    assert_eq!(world.ask(MALLORY, ImageAction::View), Err(RefusedWhy::NoRight), "and strangers learn nothing");
}

#[test]
fn an_image_without_expiry_is_remembered_for_ever() {
    let mut world = World::new(None);
    assert!(world.ask(BOB, ImageAction::View).is_ok());
    assert!(world.ask(ALICE, ImageAction::Expire { at: Some(Date(NOW + 10)) }).is_ok());
    world.now += 100 * 365 * 24 * 3_600_000;
    assert_eq!(world.ask(BOB, ImageAction::View), Err(RefusedWhy::Expired));
    assert!(world.ledger.image(IMAGE).is_some());
}

#[test]
fn a_lease_is_paid_in_advance_and_only_given_back_where_the_owner_allows_it() {
    let mut world = World::new(None);
    let lease = RequestId(7_u128.to_be_bytes());
    let paid = world.ask_as(BOB, 7, ImageAction::Lease { views: 2, for_ms: 1_000 }).unwrap();
    assert_eq!((paid.right.unwrap().left, paid.right.unwrap().leased), (1, 2));
    assert_eq!(paid.until, Some(Date(world.now + 1_000)));
    let back = |views| ImageAction::Return { lease, views };
    assert_eq!(world.ask(BOB, back(1)), Err(RefusedWhy::NotReturnable));
    assert!(world.ask(ALICE, ImageAction::AllowReturns { allowed: true }).is_ok());
    assert_eq!(world.ask(CAROL, back(1)), Err(RefusedWhy::NotReturnable), "another's");
    assert!(world.ask(BOB, back(1)).is_ok());
    assert_eq!(world.ask(BOB, back(2)), Err(RefusedWhy::NotSoMany { left: 1 }));
    assert_eq!(world.left(BOB), 2);
    world.now += 1_000;
    assert_eq!(world.ask(BOB, back(1)), Err(RefusedWhy::NotReturnable), "an expired lease stays spent");
    world.check();

    let mut world = World::new(None);
    world.terms.leases_returnable = true;
    assert!(world.ask_as(BOB, 7, ImageAction::Lease { views: 2, for_ms: 1_000 }).is_ok());
    assert!(world.ask(BOB, back(1)).is_ok(), "sealed so");
    assert!(world.ask(ALICE, ImageAction::AllowReturns { allowed: false }).is_ok());
    assert_eq!(world.ask(BOB, back(1)), Err(RefusedWhy::NotReturnable), "she may change it");
    world.check();
}

/// Views that were on a journey when the owner closed the right do not open it again.
#[test]
fn what_comes_back_to_a_closed_right_is_taken_back_too() {
    let mut world = World::new(None);
    world.terms.leases_returnable = true;
    assert!(world.ask_as(BOB, 7, ImageAction::Lease { views: 2, for_ms: 1_000 }).is_ok());
    assert!(world.ask(ALICE, ImageAction::Revoke { user: user(BOB) }).is_ok());
    let back = ImageAction::Return { lease: RequestId(7_u128.to_be_bytes()), views: 2 };
    let right = world.ask(BOB, back).unwrap().right.unwrap();
    assert_eq!((right.left, right.leased, right.revoked), (0, 0, 3));
    assert_eq!(world.ask(BOB, ImageAction::View), Err(RefusedWhy::RightRevoked));
    world.check();
}

/// What its sender was told is so already, or is refused, is not done by a copy that comes late.
#[test]
fn a_late_copy_of_a_command_that_left_no_trace_does_nothing() {
    let mut world = World::new(None);
    let quota = ImageAction::SetQuota { user: user(BOB), left: 3 };
    assert!(world.ask_as(ALICE, 1, quota).is_ok(), "so already");
    let lease = ImageAction::Lease { views: 4, for_ms: 1_000 };
    assert_eq!(world.ask_as(BOB, 2, lease), Err(RefusedWhy::NotSoMany { left: 3 }));
    assert!(world.ask(BOB, ImageAction::View).is_ok());
    assert!(world.ask_as(ALICE, 1, quota).is_ok());
    assert_eq!(world.left(BOB), 2, "the view stays spent");
    assert!(world.ask(ALICE, ImageAction::Grant { user: user(BOB), views: 5 }).is_ok());
    assert_eq!(world.ask_as(BOB, 2, lease), Err(RefusedWhy::NotSoMany { left: 3 }));
    assert_eq!(world.ask_as(BOB, 2, ImageAction::Burn), Err(RefusedWhy::IdReused));
    assert_eq!(world.left(BOB), 7);
    // As long as its signature counts by any clock that is believed, and a view is decided anew.
    assert_eq!(world.ask_as(MALLORY, 3, ImageAction::View), Err(RefusedWhy::NoRight));
    assert!(world.ask(ALICE, ImageAction::Grant { user: user(MALLORY), views: 1 }).is_ok());
    assert!(world.ask_as(MALLORY, 3, ImageAction::View).is_ok());
    world.now += 2 * SIGNED_WITHIN_MS;
    assert!(world.ask_as(ALICE, 1, quota).is_ok());
    assert_eq!(world.left(BOB), 7);
    let bytes = codec::encode(&world.ledger).unwrap();
    assert_eq!(codec::decode::<Ledger>(&bytes).unwrap(), world.ledger, "also from a snapshot");
    world.now += 2 * SIGNED_WITHIN_MS;
    world.ledger.advance(Stamp(world.now), Date(world.now));
    assert_eq!(world.ledger.answers(), 0, "and not for ever");
    world.check();
}

/// A lease that goes and comes back costs no view: it must not be a way to make a record grow, and every command on it slow.
#[test]
fn leases_come_back_only_so_often() {
    let mut world = World::new(None);
    world.terms.leases_returnable = true;
    let mut rounds = 0;
    loop {
        let id = 1_000 + rounds;
        assert!(world.ask_as(BOB, id, ImageAction::Lease { views: 1, for_ms: 1_000_000 }).is_ok());
        let back = ImageAction::Return { lease: RequestId(id.to_be_bytes()), views: 1 };
        if world.ask(BOB, back) == Err(RefusedWhy::NotReturnable) {
            break;
        }
        rounds += 1;
    }
    assert_eq!(rounds, 64);
    assert!(world.ask_as(CAROL, 1_000, ImageAction::Lease { views: 1, for_ms: 1_000_000 }).is_ok());
    let back = ImageAction::Return { lease: RequestId(1_000_u128.to_be_bytes()), views: 1 };
    assert!(world.ask(CAROL, back).is_ok(), "another reader's are his own, also those with the same id");
    world.check();
}

/// Ids are each user's own: what one gives back of a lease is nothing to another's lease of that id.
#[test]
fn leases_of_one_id_are_two_leases() {
    let mut world = World::new(None);
    world.terms.leases_returnable = true;
    let lease = |views| ImageAction::Lease { views, for_ms: 1_000_000 };
    let back = |views| ImageAction::Return { lease: RequestId(7_u128.to_be_bytes()), views };
    assert!(world.ask_as(CAROL, 7, lease(1)).is_ok());
    assert!(world.ask_as(BOB, 7, lease(2)).is_ok());
    assert!(world.ask(BOB, back(2)).is_ok());
    assert_eq!(world.ask(CAROL, back(1_000_000)), Err(RefusedWhy::NotSoMany { left: 1 }));
    assert!(world.ask(CAROL, back(1)).is_ok());
    assert_eq!(world.ask(CAROL, back(1)), Err(RefusedWhy::NotSoMany { left: 0 }));
    world.check();
}

/// One owner's records may fill what one owner has, and nothing of anybody else's.
#[test]
fn an_owner_fills_only_what_one_owner_has() {
    let mut world = World::new(None);
    let toggle = |allowed| ImageAction::AllowReturns { allowed };
    let full = (0..1_000_000).find_map(|round| world.ask(ALICE, toggle(round % 2 == 0)).err());
    assert_eq!(full, Some(RefusedWhy::OwnerIsFull));
    assert!(world.ledger.images.footprint_bytes() <= 64 << 20);
    assert_eq!(world.ask(BOB, ImageAction::View), Err(RefusedWhy::OwnerIsFull));
    assert!(world.ask(ALICE, ImageAction::Revoke { user: user(BOB) }).is_ok(), "what takes away is done");
    assert!(world.ask(CAROL, ImageAction::Burn).is_ok());
    world.terms.owner = user(MALLORY);
    let other = ImageId([77; 32]);
    let mut write = world.write(BOB, 5, ImageAction::View);
    let Request::Image(command) = &mut write.request else { unreachable!() };
    command.image = other;
    assert!(world.outcome(&write).is_ok(), "another owner's");
}

/// A node that has seen the record leaves the terms out; what is gone by then is not made anew, and strangers learn nothing.
#[test]
fn a_record_needs_no_terms_and_without_either_there_is_no_right() {
    let mut world = World::new(None);
    let mut write = world.write(BOB, 1, ImageAction::View);
    let Request::Image(command) = &mut write.request else { unreachable!() };
    command.terms = None;
    assert_eq!(world.outcome(&write), Err(RefusedWhy::NoRight));
    assert!(world.ask(BOB, ImageAction::View).is_ok());
    assert!(world.outcome(&write).is_ok());
    assert_eq!(world.left(BOB), 1);
    assert!(world.ledger.has_answered(&write));
    world.check();
}

/// In a full ledger a right can be taken away, but no record made of a header for that.
#[test]
fn a_full_ledger_takes_rights_away_and_makes_no_records() {
    let mut world = World::new(None);
    let revoke = world.write(ALICE, 1, ImageAction::Revoke { user: user(BOB) });
    assert!(!world.ledger.has_room(&revoke, 0));
    assert!(world.ask(BOB, ImageAction::View).is_ok());
    assert!(world.ledger.has_room(&revoke, 0));
    assert!(!world.ledger.has_room(&world.write(BOB, 2, ImageAction::View), 0));
}

#[test]
fn names_go_to_the_first_and_invitations_are_used_once() {
    let mut world = World::new(None);
    assert_eq!(world.register(10, "Alice", Admission::Open), Err(RefusedWhy::NameTaken));
    assert_eq!(world.register(ALICE, "alice", Admission::Open), Ok(()), "the same again is done already");
    assert_eq!(world.register(ALICE, "alicia", Admission::Open), Err(RefusedWhy::KeysTaken));
    let invitation = InvitationId([5; 32]);
    let invited = Admission::Invited(invitation);
    assert_eq!(world.register(10, "dave", invited), Err(RefusedWhy::NotInvited));
    assert_eq!(world.register(10, "alice", invited), Err(RefusedWhy::NotInvited), "which names there are is not told");
    let invite = UserCommand::Invite { invitation, until: Date(NOW + 10) };
    assert!(world.user_command(Caller::Anyone, None, invite.clone()).is_err());
    assert_eq!(world.user_command(Caller::Administrator, None, invite.clone()), Ok(()));
    assert_eq!(world.register(10, "dave", invited), Ok(()));
    assert_eq!(world.register(11, "erin", invited), Err(RefusedWhy::NotInvited), "used");
    assert_eq!(world.user_command(Caller::Administrator, None, invite), Ok(()));
    world.now += 10;
    assert_eq!(world.register(11, "erin", invited), Err(RefusedWhy::NotInvited), "over");
    let other = UserCommand::Register { name: "eve".into(), keys: keys(12), admission: Admission::Open };
    let signed = Some(world.signed(MALLORY));
    assert_eq!(world.user_command(Caller::User(user(12)), signed, other), Err(RefusedWhy::KeyReplaced), "whose keys?");
}

#[test]
fn the_tables_come_back_from_a_snapshot() {
    let mut world = World::new(Some(NOW + 1_000_000));
    assert!(world.ask(BOB, ImageAction::View).is_ok());
    assert!(world.ask(CAROL, ImageAction::Burn).is_ok());
    let bytes = codec::encode(&world.ledger).unwrap();
    let mut again: Ledger = codec::decode(&bytes).unwrap();
    assert_eq!(again, world.ledger);
    assert_eq!(again.user_named("ALICE").unwrap().id, user(ALICE));
    assert_eq!(again.images_of(user(ALICE), None, 10).len(), 1);
    again.advance(Stamp(0), Date(NOW + 1_000_000));
    assert!(again.image(IMAGE).is_none());
    assert_eq!(again.images.footprint_bytes(), 0);
}

#[test]
fn an_audit_chain_shows_what_was_changed() {
    let mut world = World::new(None);
    assert!(world.ask(BOB, ImageAction::View).is_ok());
    assert!(world.ask(ALICE, ImageAction::Grant { user: user(BOB), views: 2 }).is_ok());
    let entries = world.ledger.audit(IMAGE, 0, 10);
    let first = first_link(IMAGE, &world.terms);
    let mut altered = entries[0].clone();
    altered.by = user(CAROL);
    assert_ne!(altered.link_behind(first), entries[0].link);
    assert_ne!(entries[1].link_behind(first), entries[1].link, "one left out");
    assert_ne!(first_link(IMAGE, &WrapTerms { expires: Some(Date(0)), ..world.terms.clone() }), first);
    assert_ne!(first_link(IMAGE, &WrapTerms { leases_returnable: true, ..world.terms.clone() }), first);
    assert_eq!(world.ledger.audit(IMAGE, 1, 10), entries[1..]);
}

fn action() -> impl Strategy<Value = ImageAction> {
    let who = || prop_oneof![Just(BOB), Just(CAROL), Just(MALLORY)].prop_map(user);
    prop_oneof![
        4 => Just(ImageAction::View),
        1 => (who(), 0_u64..4).prop_map(|(user, views)| ImageAction::Grant { user, views }),
        1 => (who(), 0_u64..4).prop_map(|(user, left)| ImageAction::SetQuota { user, left }),
        1 => who().prop_map(|user| ImageAction::Revoke { user }),
        1 => Just(ImageAction::Burn),
        1 => (0_u64..3, 0_u64..50).prop_map(|(views, for_ms)| ImageAction::Lease { views, for_ms }),
        1 => (0_u128..20, 0_u64..3).prop_map(|(id, views)| ImageAction::Return { lease: RequestId(id.to_be_bytes()), views }),
        1 => any::<bool>().prop_map(|allowed| ImageAction::AllowReturns { allowed }),
        1 => prop::option::of(NOW..NOW + 100).prop_map(|at| ImageAction::Expire { at: at.map(Date) }),
    ]
}

proptest! {
    /// Whatever is asked by whomever, in whatever order, with ids that repeat: nothing is made up, nothing lost, every link holds,
    /// and the views that were answered are those that are written down as spent.
    #[test]
    fn views_are_conserved(asked in prop::collection::vec((ALICE..=MALLORY, 0_u128..20, action(), 0_u64..5), 1..80)) {
        let mut world = World::new(Some(NOW + 150));
        let mut opened = std::collections::BTreeSet::new();
        for (by, id, action, passed) in asked {
            world.now += passed;
            let answer = world.ask_as(by, id, action);
            world.check();
            if answer.is_ok() && action == ImageAction::View && by != ALICE {
                opened.insert((by, id));
            }
        }
        if let Some(record) = world.ledger.image(IMAGE) {
            for who in [BOB, CAROL, MALLORY] {
                let spent = record.rights.get(&user(who)).map_or(0, |right: &Right| right.spent);
                prop_assert_eq!(spent, opened.iter().filter(|(by, _)| *by == who).count() as u64);
            }
        }
    }
}

#[test]
fn keys_of_a_user_have_two_names_that_are_not_the_same() {
    let id: UserKeyId = keys(1).id();
    assert_ne!(id.0[..], keys(1).user().0[..8]);
}
