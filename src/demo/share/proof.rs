//! What the owners are told after the run, held against what the readers got: **pure**. One fault anywhere, and the run fails.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::client::audit::{self, Told};
use crate::id::{RequestId, UserId};
use crate::protocol::rights::ImageAction;

/// Most faults that are kept in words.
const FAULTS_IN_WORDS: usize = 10;

/// What became of one reader's requests for one image.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Those to which a key was released.
    pub released: BTreeSet<RequestId>,
    /// How many were denied.
    pub denied: u64,
    /// Those of which nobody knows.
    pub unknown: BTreeSet<RequestId>,
}

/// One image, as its owner meant it, as the readers met it and as the cluster tells it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its number in the run.
    pub number: u32,
    /// Whom the owner gave how many views.
    pub given: BTreeMap<UserId, u64>,
    /// What the readers met.
    pub asked: BTreeMap<UserId, Asked>,
    /// What the cluster says; or why it does not.
    pub told: Result<Told, String>,
}

/// What was proved, summed over all images. `granted = left + spent + revoked + burnt + leased`, or views were lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RightsProof {
    /// Images that owners sealed.
    pub images: u64,
    /// Views that were ever granted.
    pub granted: u64,
    /// Those that may still be spent.
    pub left: u64,
    /// Those that were spent.
    pub spent: u64,
    /// Those that owners took back.
    pub revoked: u64,
    /// Those that readers gave up.
    pub burnt: u64,
    /// Those that were paid in advance.
    pub leased: u64,
    /// Keys that readers got, each for a request of its own.
    pub keys_released: u64,
    /// Views that were denied.
    pub refused: u64,
    /// Keys beyond what was granted, or without an entry in the audit chain. Must be 0.
    pub overspent: u64,
    /// Views that are in no part of the sum, or that were spent without a key for anybody. Must be 0.
    pub lost: u64,
    /// Readers who were denied an image of which they have views left. Must be 0.
    pub refused_wrongly: u64,
    /// Requests whose outcome nobody knows, and images of which the cluster told nothing. Must be 0.
    pub unanswered: u64,
    /// Images whose audit chain does not hold, or whose first rights are not those that the owner gave. Must be 0.
    pub broken_chains: u64,
    /// The first faults in words.
    pub faults: Vec<String>,
}

impl RightsProof {
    /// Adds up all accounts.
    pub fn of(accounts: &[Account]) -> RightsProof {
        let mut sum = RightsProof::default();
        accounts.iter().for_each(|account| sum.add(account));
        sum
    }

    /// Whether nothing is wrong anywhere.
    pub const fn hold(&self) -> bool {
        self.overspent == 0
            && self.lost == 0
            && self.refused_wrongly == 0
            && self.unanswered == 0
            && self.broken_chains == 0
    }

    fn fault(&mut self, image: u32, text: &str) {
        if self.faults.len() < FAULTS_IN_WORDS {
            self.faults.push(format!("image {}: {text}", image + 1));
        }
    }

    fn add(&mut self, account: &Account) {
        let number = account.number;
        self.images += 1;
        for asked in account.asked.values() {
            self.keys_released += asked.released.len() as u64;
            self.refused += asked.denied;
            self.unanswered += asked.unknown.len() as u64;
            if !asked.unknown.is_empty() {
                self.fault(number, &format!("{} requests have no known outcome", asked.unknown.len()));
            }
        }
        let told = match &account.told {
            Ok(told) => told,
            Err(why) => {
                self.unanswered += 1;
                return self.fault(number, &format!("the cluster does not tell its owner: {why}"));
            }
        };
        if let Err(fault) = audit::verify(told) {
            self.broken_chains += 1;
            self.fault(number, &fault.to_string());
        } else if told.terms.rights != account.given {
            self.broken_chains += 1;
            self.fault(number, "the first rights are not those that the owner gave");
        }
        let readers: BTreeSet<UserId> = told.rights.keys().chain(account.asked.keys()).copied().collect();
        for reader in readers {
            self.add_reader(account, told, reader);
        }
    }

    fn add_reader(&mut self, account: &Account, told: &Told, reader: UserId) {
        let right = told.rights.get(&reader).copied().unwrap_or_default();
        let nothing = Asked::default();
        let asked = account.asked.get(&reader).unwrap_or(&nothing);
        self.granted += right.granted;
        self.left += right.left;
        self.spent += right.spent;
        self.revoked += right.revoked;
        self.burnt += right.burnt;
        self.leased += right.leased;

        let parts = right.left + right.spent + right.revoked + right.burnt + right.leased;
        let views = told.audit.iter().filter(|entry| entry.by == reader && entry.action == ImageAction::View);
        let spent: BTreeSet<RequestId> = views.map(|entry| entry.id).collect();
        let keys = asked.released.len() as u64;
        let without_entry = asked.released.difference(&spent).count() as u64;
        let overspent = without_entry.max(keys.saturating_sub(right.granted)).max(parts.saturating_sub(right.granted));
        let without_key = spent.difference(&asked.released).count() as u64;
        let miscounted = right.spent.abs_diff(spent.len() as u64);
        let lost = without_key.max(miscounted).max(right.granted.saturating_sub(parts));
        self.overspent += overspent;
        self.lost += lost;
        if overspent + lost > 0 {
            let entries = spent.len();
            self.fault(
                account.number,
                &format!("reader {reader} got {keys} keys, has {entries} entries, and {right:?}"),
            );
        }
        if asked.denied > 0 && right.left > 0 {
            self.refused_wrongly += 1;
            self.fault(account.number, &format!("reader {reader} was denied with {} views left", right.left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ImageId, NodeId};
    use crate::protocol::rights::{AuditEntry, Link, Right, WrapTerms, first_link};
    use crate::protocol::user::Date;

    const READER: UserId = UserId([2; 32]);

    fn id(number: u8) -> RequestId {
        RequestId([number; 16])
    }

    /// A reader with three views who spent two and was denied nothing.
    fn account() -> Account {
        let rights = [(READER, 3)].into();
        let terms = WrapTerms { owner: UserId([1; 32]), rights, expires: None, leases_returnable: false };
        let image = ImageId([9; 32]);
        let mut link = first_link(image, &terms);
        let mut right = Right { granted: 3, left: 3, ..Right::default() };
        let audit: Vec<AuditEntry> = (1..=2)
            .map(|number: u8| {
                (right.left, right.spent) = (right.left - 1, right.spent + 1);
                let mut entry = AuditEntry {
                    number: number.into(),
                    commit: number.into(),
                    at: Date(number.into()),
                    by: READER,
                    node: NodeId(1),
                    id: id(number),
                    action: ImageAction::View,
                    right: Some(right),
                    link: Link([0; 32]),
                };
                entry.link = entry.link_behind(link);
                link = entry.link;
                entry
            })
            .collect();
        let given = terms.rights.clone();
        let rights = [(READER, right)].into();
        let told = Told { image, terms, expires: None, rights, leases_returnable: false, audit, entries: 2, link };
        let asked = Asked { released: [id(1), id(2)].into(), ..Asked::default() };
        Account { number: 0, given, asked: [(READER, asked)].into(), told: Ok(told) }
    }

    fn asked(account: &mut Account) -> &mut Asked {
        account.asked.get_mut(&READER).unwrap()
    }

    #[test]
    fn accounts_that_agree_prove_that_nothing_was_overspent_or_lost() {
        let rights = RightsProof::of(&[account(), account()]);
        assert!(rights.hold(), "{rights:?}");
        assert_eq!((rights.images, rights.granted, rights.left, rights.spent, rights.keys_released), (2, 6, 2, 4, 4));
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        let with = |change: &dyn Fn(&mut Account)| {
            let mut changed = account();
            change(&mut changed);
            let rights = RightsProof::of(&[changed]);
            assert!(!rights.hold() && !rights.faults.is_empty(), "{rights:?}");
            [rights.overspent, rights.lost, rights.refused_wrongly, rights.unanswered, rights.broken_chains]
        };
        assert_eq!(with(&|it| _ = asked(it).released.insert(id(3))), [1, 0, 0, 0, 0], "a key without an entry");
        assert_eq!(with(&|it| _ = asked(it).released.remove(&id(1))), [0, 1, 0, 0, 0], "an entry without a key");
        assert_eq!(with(&|it| asked(it).denied = 1), [0, 0, 1, 0, 0], "denied with a view left");
        assert_eq!(with(&|it| _ = asked(it).unknown.insert(id(4))), [0, 0, 0, 1, 0], "an outcome that nobody knows");
        assert_eq!(with(&|it| it.told = Err("no quorum".into())), [0, 0, 0, 1, 0], "an owner who is told nothing");
        assert_eq!(with(&|it| _ = it.given.insert(READER, 4)), [0, 0, 0, 0, 1], "other rights than the owner gave");
        let lost = with(&|it| it.told.as_mut().unwrap().rights.get_mut(&READER).unwrap().left = 0);
        assert_eq!(lost, [0, 1, 0, 0, 1], "a view that is nowhere");
        let stranger = with(&|it| {
            let asked = Asked { released: [id(7)].into(), ..Asked::default() };
            it.asked.insert(UserId([5; 32]), asked);
        });
        assert_eq!(stranger, [1, 0, 0, 0, 0], "a key for somebody without a right");
    }
}
