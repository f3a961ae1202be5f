//! Checks an image's audit chain by doing everything in it once more: from what the wrap granted, entry by entry, to what the cluster
//! says now. A copy of the rules on purpose: what checks the ledger must not be the ledger.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::id::{ImageId, RequestId, UserId};
use crate::protocol::rights::{AuditEntry, ImageAction, Link, Right, WrapTerms, first_link};
use crate::protocol::user::Date;

/// What the cluster says of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The image.
    pub image: ImageId,
    /// What its wrap says.
    pub terms: WrapTerms,
    /// When the rights end now.
    pub expires: Option<Date>,
    /// Everybody's right now.
    pub rights: BTreeMap<UserId, Right>,
    /// Whether views of a lease may be given back now.
    pub leases_returnable: bool,
    /// All entries of the chain.
    pub audit: Vec<AuditEntry>,
    /// How many there are.
    pub entries: u64,
    /// The last link.
    pub link: Link,
}

/// What is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuditFault {
    /// An entry is missing, or out of its place.
    #[error("entry {wanted} is missing: entry {found} stands in its place")]
    LeftOut {
        /// The number that belongs there.
        wanted: u64,
        /// The number that stands there.
        found: u64,
    },
    /// There are fewer entries than the cluster says, or more.
    #[error("the chain has {found} entries, but the cluster speaks of {told}")]
    Entries {
        /// How many there are.
        found: u64,
        /// How many there should be.
        told: u64,
    },
    /// An entry was altered, or one before it.
    #[error("entry {number} does not follow from the one before: it was altered, or something was left out")]
    Broken {
        /// The entry.
        number: u64,
    },
    /// An entry says something that could not be done.
    #[error("entry {number} could not be done: {why}")]
    NotAllowed {
        /// The entry.
        number: u64,
        /// Why not.
        why: &'static str,
    },
    /// An entry's right is not what follows from the entries before.
    #[error("entry {number} tells a right that does not follow from the entries before")]
    WrongRight {
        /// The entry.
        number: u64,
    },
    /// Some views were lost, or made up.
    #[error("user {user}: granted is not left + spent + revoked + burnt + leased")]
    NotConserved {
        /// Whose.
        user: UserId,
    },
    /// The rights that the cluster tells do not follow from the chain.
    #[error("the rights that the cluster tells do not follow from the chain{}", .user.map_or(String::new(), |user| format!(": user {user}")))]
    WrongEnd {
        /// Whose, if it is somebody's.
        user: Option<UserId>,
    },
    /// The last link is another one.
    #[error("the last link is not the one that the cluster tells")]
    WrongLink,
}

/// Checks a chain.
///
/// # Errors
/// The first fault that is found.
pub fn verify(told: &Told) -> Result<(), AuditFault> {
    let mut replay = Replay::new(&told.terms);
    let mut link = first_link(told.image, &told.terms);
    let mut commit = 0;
    for (place, entry) in told.audit.iter().enumerate() {
        let number = place as u64 + 1;
        if entry.number != number {
            return Err(AuditFault::LeftOut { wanted: number, found: entry.number });
        }
        if entry.link != entry.link_behind(link) {
            return Err(AuditFault::Broken { number });
        }
        link = entry.link;
        if entry.commit < commit {
            return Err(AuditFault::NotAllowed { number, why: "it stands before an earlier one in the log" });
        }
        commit = entry.commit;
        let right = replay.perform(entry).map_err(|why| AuditFault::NotAllowed { number, why })?;
        if right != entry.right {
            return Err(AuditFault::WrongRight { number });
        }
    }
    let found = told.audit.len() as u64;
    if found != told.entries {
        return Err(AuditFault::Entries { found, told: told.entries });
    }
    if link != told.link {
        return Err(AuditFault::WrongLink);
    }
    let broken = replay.rights.iter().chain(&told.rights).find(|(_, right)| !right.is_conserved());
    if let Some((user, _)) = broken {
        return Err(AuditFault::NotConserved { user: *user });
    }
    let users = replay.rights.keys().chain(told.rights.keys());
    if let Some(user) = users.into_iter().find(|user| replay.rights.get(user) != told.rights.get(user)) {
        return Err(AuditFault::WrongEnd { user: Some(*user) });
    }
    if (replay.expires, replay.leases_returnable) != (told.expires, told.leases_returnable) {
        return Err(AuditFault::WrongEnd { user: None });
    }
    Ok(())
}

/// A record as it grows.
struct Replay {
    owner: UserId,
    rights: BTreeMap<UserId, Right>,
    expires: Option<Date>,
    leases_returnable: bool,
    leases: BTreeMap<(UserId, RequestId), Leased>,
}

/// A lease, and what was given back of it.
struct Leased {
    at: Date,
    for_ms: u64,
    out: u64,
}

type Outcome = Result<Option<Right>, &'static str>;

impl Replay {
    fn new(terms: &WrapTerms) -> Replay {
        let right = |views: u64| Right { granted: views, left: views, ..Right::default() };
        Replay {
            owner: terms.owner,
            rights: terms.rights.iter().map(|(user, views)| (*user, right(*views))).collect(),
            expires: terms.expires,
            leases_returnable: terms.leases_returnable,
            leases: BTreeMap::new(),
        }
    }

    fn perform(&mut self, entry: &AuditEntry) -> Outcome {
        let by = entry.by;
        if entry.action.is_the_owners() && by != self.owner {
            return Err("only the owner may do it");
        }
        let right = match entry.action {
            ImageAction::View => self.spend(entry, 1, |right| right.spent += 1)?,
            ImageAction::Lease { views, for_ms } => {
                self.leases.insert((by, entry.id), Leased { at: entry.at, for_ms, out: views });
                self.spend(entry, views, |right| right.leased = right.leased.saturating_add(views))?
            }
            ImageAction::Burn => {
                let right = self.right_of(by)?;
                right.burnt += std::mem::take(&mut right.left);
                *right
            }
            ImageAction::Return { lease, views } => self.give_back(entry, lease, views)?,
            ImageAction::Grant { user, views } => {
                let left = self.rights.get(&user).map_or(0, |right| right.left);
                self.set_left(user, left.checked_add(views).ok_or("more views than there can be")?)?
            }
            ImageAction::SetQuota { user, left } => self.set_left(user, left)?,
            ImageAction::Revoke { user } => {
                let right = self.right_of(user)?;
                right.revoked += std::mem::take(&mut right.left);
                right.is_revoked = true;
                *right
            }
            ImageAction::Expire { at } => {
                self.expires = at;
                return Ok(None);
            }
            ImageAction::AllowReturns { allowed } => {
                self.leases_returnable = allowed;
                return Ok(None);
            }
        };
        Ok(Some(right))
    }

    fn right_of(&mut self, user: UserId) -> Result<&mut Right, &'static str> {
        self.rights.get_mut(&user).ok_or("the user has no right")
    }

    fn spend(&mut self, entry: &AuditEntry, views: u64, take: impl FnOnce(&mut Right)) -> Result<Right, &'static str> {
        if self.expires.is_some_and(|expires| expires <= entry.at) {
            return Err("the rights had ended");
        }
        let right = self.right_of(entry.by)?;
        if views == 0 || views > right.left {
            return Err("not so many views were left");
        }
        right.left -= views;
        take(right);
        Ok(*right)
    }

    fn give_back(&mut self, entry: &AuditEntry, lease: RequestId, views: u64) -> Result<Right, &'static str> {
        if !self.leases_returnable {
            return Err("leases could not be given back");
        }
        let expires = self.expires;
        let leased = self.leases.get_mut(&(entry.by, lease)).ok_or("there was no such lease")?;
        let until = Date(leased.at.0.saturating_add(leased.for_ms));
        if expires.map_or(until, |expires| expires.min(until)) <= entry.at {
            return Err("the lease was over");
        }
        if views == 0 || views > leased.out {
            return Err("not so many views were leased");
        }
        leased.out -= views;
        let right = self.right_of(entry.by)?;
        right.leased = right.leased.checked_sub(views).ok_or("not so many views were leased")?;
        let place = if right.is_revoked { &mut right.revoked } else { &mut right.left };
        *place = place.saturating_add(views);
        Ok(*right)
    }

    fn set_left(&mut self, user: UserId, left: u64) -> Result<Right, &'static str> {
        let right = self.rights.entry(user).or_default();
        let more = left.saturating_sub(right.left);
        right.granted = right.granted.checked_add(more).ok_or("more views than there can be")?;
        right.revoked = right.revoked.saturating_add(right.left.saturating_sub(left));
        right.left = left;
        right.is_revoked = right.is_revoked && more == 0;
        Ok(*right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    const OWNER: UserId = UserId([1; 32]);
    const BOB: UserId = UserId([2; 32]);
    const CAROL: UserId = UserId([3; 32]);
    const IMAGE: ImageId = ImageId([9; 32]);

    fn terms() -> WrapTerms {
        let rights = BTreeMap::from([(BOB, 3), (CAROL, 1)]);
        WrapTerms { owner: OWNER, rights, expires: None, leases_returnable: false }
    }

    /// A true chain of these actions, each a second after the one before.
    fn told(actions: &[(UserId, ImageAction)]) -> Told {
        let terms = terms();
        let mut replay = Replay::new(&terms);
        let mut link = first_link(IMAGE, &terms);
        let mut audit = Vec::new();
        for (place, (by, action)) in actions.iter().enumerate() {
            let number = place as u64 + 1;
            let mut entry = AuditEntry {
                number,
                commit: 10 + number,
                at: Date(1000 * number),
                by: *by,
                node: NodeId(1),
                id: RequestId([number as u8; 16]),
                action: *action,
                right: None,
                link,
            };
            entry.right = replay.perform(&entry).unwrap();
            entry.link = entry.link_behind(link);
            link = entry.link;
            audit.push(entry);
        }
        let Replay { rights, expires, leases_returnable, .. } = replay;
        let entries = audit.len() as u64;
        Told { image: IMAGE, terms, expires, rights, leases_returnable, audit, entries, link }
    }

    fn story() -> Told {
        told(&[
            (BOB, ImageAction::View),
            (OWNER, ImageAction::Grant { user: BOB, views: 2 }),
            (BOB, ImageAction::Lease { views: 2, for_ms: 60_000 }),
            (OWNER, ImageAction::AllowReturns { allowed: true }),
            (BOB, ImageAction::Return { lease: RequestId([3; 16]), views: 1 }),
            (OWNER, ImageAction::SetQuota { user: CAROL, left: 5 }),
            (OWNER, ImageAction::Revoke { user: CAROL }),
            (OWNER, ImageAction::Expire { at: Some(Date(1_000_000)) }),
            (BOB, ImageAction::View),
            (BOB, ImageAction::Burn),
        ])
    }

    /// Links everything anew, as whoever holds the ledger could.
    fn relinked(mut told: Told) -> Told {
        let mut link = first_link(IMAGE, &told.terms);
        for entry in &mut told.audit {
            entry.link = entry.link_behind(link);
            link = entry.link;
        }
        told.entries = told.audit.len() as u64;
        told.link = link;
        told
    }

    #[test]
    fn a_true_chain_is_whole_and_so_is_an_empty_one() {
        assert_eq!(verify(&told(&[])), Ok(()));
        let story = story();
        assert_eq!(verify(&story), Ok(()));
        assert_eq!(story.rights[&BOB], Right { granted: 5, spent: 2, burnt: 2, leased: 1, ..Right::default() });
    }

    #[test]
    fn whatever_is_altered_or_left_out_is_found() {
        let story = story();
        for place in 0..story.audit.len() {
            let mut without = story.clone();
            without.audit.remove(place);
            assert!(verify(&without).is_err(), "entry {} left out", place + 1);
            let mut altered = story.clone();
            altered.audit[place].at.0 += 1;
            assert_eq!(verify(&altered), Err(AuditFault::Broken { number: place as u64 + 1 }));
            let mut altered = story.clone();
            altered.audit[place].by = UserId([7; 32]);
            assert_eq!(verify(&altered), Err(AuditFault::Broken { number: place as u64 + 1 }));
        }
        let mut shorter = story.clone();
        shorter.audit.pop();
        shorter.entries -= 1;
        assert_eq!(verify(&shorter), Err(AuditFault::WrongLink));
        let mut other_terms = story.clone();
        other_terms.terms.rights.insert(BOB, 4);
        assert_eq!(verify(&other_terms), Err(AuditFault::Broken { number: 1 }));
        let mut other_expiry = story;
        other_expiry.expires = None;
        assert_eq!(verify(&other_expiry), Err(AuditFault::WrongEnd { user: None }));
    }

    /// A chain that is linked well and still tells something impossible.
    #[test]
    fn a_well_linked_chain_must_also_be_possible() {
        let mut made_up = story();
        made_up.audit[1].action = ImageAction::Grant { user: BOB, views: 3 };
        assert_eq!(verify(&relinked(made_up)), Err(AuditFault::WrongRight { number: 2 }));
        let mut not_the_owner = story();
        not_the_owner.audit[1].by = BOB;
        assert!(matches!(verify(&relinked(not_the_owner)), Err(AuditFault::NotAllowed { number: 2, .. })));
        let mut too_many = told(&[(CAROL, ImageAction::View)]);
        too_many.audit.push(AuditEntry { number: 2, ..too_many.audit[0].clone() });
        assert!(matches!(verify(&relinked(too_many)), Err(AuditFault::NotAllowed { number: 2, .. })));
        let mut lost = story();
        lost.rights.get_mut(&BOB).unwrap().left = 1;
        assert_eq!(verify(&lost), Err(AuditFault::NotConserved { user: BOB }));
        let mut moved = story();
        let bob = moved.rights.get_mut(&BOB).unwrap();
        (bob.left, bob.spent) = (1, 1);
        assert_eq!(verify(&moved), Err(AuditFault::WrongEnd { user: Some(BOB) }));
    }
}
