//! The table of images: who may still open what how often, and the audit chain of each.
//!
//! An image gets a record with the first command that is permitted by what its wrap says; from then on the record alone counts. A
//! refused command leaves nothing. A record goes only when the wrap's expiry and its own have passed: after that the wrap itself
//! refuses. If the wrap has none, the record stays for ever, so that no spent view comes back.

use std::collections::BTreeMap;

use imbl::{OrdMap, OrdSet, Vector};
use serde::{Deserialize, Serialize};

use super::stored;
use crate::id::{ImageId, RequestId, UserId};
use crate::protocol::ledger::RefusedWhy;
use crate::protocol::rights::{
    AuditEntry, ImageAction, ImageCommand, ImageDone, ImageRecord, Link, MOST_RIGHTS, MOST_VIEWS, Right, WrapTerms,
    check_rights, first_link,
};
use crate::protocol::user::Date;

/// What a record takes beside its rights and its audit entries, about, in bytes.
const BESIDE_RIGHTS: u64 = 512;
/// What a right takes, about, in bytes.
const RIGHT_BYTES: u64 = 192;
/// What an audit entry takes, about, in bytes.
const ENTRY_BYTES: u64 = 384;

/// What the records of one owner's images may take together, about, in bytes: 64 MiB, some 170,000 entries. Nobody fills the ledger for
/// everybody.
const BYTES_OF_AN_OWNER: u64 = 64 << 20;

/// How often a user may give views of one image back: a lease that comes back costs nobody a view, but leaves two entries.
const RETURNS_OF_A_USER: u64 = 64;

/// Records that one command lets go at most; the rest goes with the next ones.
const FORGOTTEN_AT_ONCE: usize = 1024;

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredImages")]
pub(super) struct Images {
    records: OrdMap<ImageId, Record>,
    /// When each record may go.
    #[serde(skip_serializing)]
    due: OrdSet<(Date, ImageId)>,
    /// Who owns what.
    #[serde(skip_serializing)]
    owned: OrdSet<(UserId, ImageId)>,
    /// What the records of each owner take.
    #[serde(skip_serializing)]
    bytes: OrdMap<UserId, u64>,
    #[serde(skip_serializing)]
    footprint_bytes: u64,
}

/// A table as a snapshot has it.
#[derive(Deserialize)]
struct StoredImages {
    #[serde(deserialize_with = "stored::map::<ImageId, _, _, _>")]
    records: OrdMap<ImageId, Record>,
}

impl From<StoredImages> for Images {
    fn from(StoredImages { records }: StoredImages) -> Images {
        let due = records.iter().filter_map(|(image, record)| Some((record.over()?, *image))).collect();
        let owned = records.iter().map(|(image, record)| (record.terms.owner, *image)).collect();
        let mut bytes: OrdMap<UserId, u64> = OrdMap::new();
        for record in records.values() {
            *bytes.entry(record.terms.owner).or_default() += record.footprint_bytes();
        }
        let footprint_bytes = bytes.values().sum();
        Images { records, due, owned, bytes, footprint_bytes }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    terms: WrapTerms,
    standing: Standing,
    #[serde(deserialize_with = "stored::vector")]
    audit: Vector<AuditEntry>,
    /// Requests that were done, with the place of their entry: none is done twice, for as long as the record lives.
    #[serde(deserialize_with = "stored::map::<(UserId, RequestId), _, _, _>")]
    done: OrdMap<(UserId, RequestId), u64>,
    /// What was given back, by the request that made the lease.
    #[serde(deserialize_with = "stored::map::<(UserId, RequestId), _, _, _>")]
    returned: OrdMap<(UserId, RequestId), Returned>,
    link: Link,
}

/// What was given back of a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Returned {
    views: u64,
    times: u64,
}

/// How the rights to an image stand. A command changes a copy of this, which is small, and leaves nothing if it is refused half-way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Standing {
    expires: Option<Date>,
    rights: BTreeMap<UserId, Right>,
    leases_returnable: bool,
}

/// A lease of which views may still be given back.
struct Leased {
    at: Date,
    for_ms: u64,
    /// How many.
    views: u64,
}

/// What a command was about, beside the action itself.
pub(super) struct Asked<'a> {
    /// The entry of the log.
    pub commit: u64,
    /// Who asks.
    pub by: UserId,
    /// The request.
    pub id: RequestId,
    /// The command.
    pub command: &'a ImageCommand,
    /// The latest date of any entry: what has expired by it stays expired.
    pub latest_date: Date,
    /// The leader's clock at this entry: what stands in the audit, and what a lease is over by.
    pub entry_date: Date,
}

impl Record {
    fn new(image: ImageId, terms: &WrapTerms) -> Record {
        Record {
            terms: terms.clone(),
            standing: Standing::new(terms),
            audit: Vector::new(),
            done: OrdMap::new(),
            returned: OrdMap::new(),
            link: first_link(image, terms),
        }
    }

    /// The one that a wrap makes, as long as it may. Once its rights have ended, whoever it names is told so.
    fn from_wrap(image: ImageId, terms: &WrapTerms, by: UserId, latest_date: Date) -> Result<Record, RefusedWhy> {
        if terms.expires.is_some_and(|expires| expires <= latest_date) {
            let is_named = terms.owner == by || terms.rights.contains_key(&by);
            return Err(if is_named { RefusedWhy::Expired } else { RefusedWhy::NoRight });
        }
        // A node that seals checks the same; a wrap that says otherwise was not made by one.
        check_rights(&terms.rights)?;
        Ok(Record::new(image, terms))
    }

    /// When it may go.
    fn over(&self) -> Option<Date> {
        Some(self.terms.expires?.max(self.standing.expires?))
    }

    fn footprint_bytes(&self) -> u64 {
        let rights = (self.standing.rights.len() + self.returned.len()) as u64;
        BESIDE_RIGHTS + RIGHT_BYTES * rights + ENTRY_BYTES * self.audit.len() as u64
    }

    /// What came of the request, if it was done before.
    fn repeated(&self, by: UserId, id: RequestId, action: &ImageAction) -> Option<Result<&AuditEntry, RefusedWhy>> {
        let number = *self.done.get(&(by, id))?;
        let entry = self.audit.get(number as usize - 1)?;
        Some(if entry.action == *action { Ok(entry) } else { Err(RefusedWhy::IdReused) })
    }

    /// What is left to give back of the lease that the user made with that request.
    fn lease(&self, by: UserId, id: RequestId) -> Option<Leased> {
        let number = *self.done.get(&(by, id))?;
        let AuditEntry { at, action: ImageAction::Lease { views, for_ms }, .. } =
            *self.audit.get(number as usize - 1)?
        else {
            return None;
        };
        let (first, last) = ((by, RequestId([0; 16])), (by, RequestId([255; 16])));
        let times: u64 = self.returned.range(first..=last).map(|(_, returned)| returned.times).sum();
        let returned = self.returned.get(&(by, id)).copied().unwrap_or_default();
        let views = views.checked_sub(returned.views)?;
        (times < RETURNS_OF_A_USER).then_some(Leased { at, for_ms, views })
    }

    fn record(&mut self, asked: &Asked<'_>, right: Option<Right>) {
        let number = self.audit.len() as u64 + 1;
        let Asked { commit, by, id, command, entry_date, .. } = *asked;
        let (node, action) = (command.node, command.action);
        let mut entry = AuditEntry { number, commit, at: entry_date, by, node, id, action, right, link: self.link };
        entry.link = entry.link_behind(self.link);
        self.link = entry.link;
        self.audit.push_back(entry);
        self.done.insert((by, id), number);
    }

    fn shown(&self) -> ImageRecord {
        ImageRecord {
            terms: self.terms.clone(),
            expires: self.standing.expires,
            rights: self.standing.rights.clone(),
            leases_returnable: self.standing.leases_returnable,
            entries: self.audit.len() as u64,
            link: self.link,
        }
    }
}

impl Standing {
    fn new(terms: &WrapTerms) -> Standing {
        let rights = terms.rights.iter().map(|(user, views)| (*user, Right::of(*views))).collect();
        let WrapTerms { expires, leases_returnable, .. } = *terms;
        Standing { expires, rights, leases_returnable }
    }

    /// Does what is permitted. `lease` is the one that a return speaks of.
    fn perform(
        &mut self,
        asked: &Asked<'_>,
        owner: UserId,
        lease: Option<Leased>,
    ) -> Result<Option<Right>, RefusedWhy> {
        let by = asked.by;
        let is_owner = by == owner;
        let action = &asked.command.action;
        if !is_owner && !self.rights.contains_key(&by) {
            return Err(RefusedWhy::NoRight);
        }
        if !is_owner && action.is_the_owners() {
            return Err(RefusedWhy::NotTheOwner);
        }
        match *action {
            ImageAction::View => self.spend(by, asked.latest_date, 1, |right| right.spent += 1).map(Some),
            ImageAction::Lease { views, .. } => {
                self.spend(by, asked.latest_date, views, |right| right.leased += views).map(Some)
            }
            ImageAction::Burn => {
                let right = self.rights.get_mut(&by).ok_or(RefusedWhy::NoRight)?;
                right.burnt += std::mem::take(&mut right.left);
                Ok(Some(*right))
            }
            ImageAction::Return { views, .. } => self.give_back(by, asked.entry_date, lease, views).map(Some),
            ImageAction::Grant { user, views } => {
                let left = self.rights.get(&user).map_or(0, |right| right.left);
                self.set_left(user, left.checked_add(views).ok_or(RefusedWhy::TooManyViews)?).map(Some)
            }
            ImageAction::SetQuota { user, left } => self.set_left(user, left).map(Some),
            ImageAction::Revoke { user } => {
                let right = self.rights.get_mut(&user).ok_or(RefusedWhy::NotNamed)?;
                right.revoked += std::mem::take(&mut right.left);
                right.is_revoked = true;
                Ok(Some(*right))
            }
            ImageAction::Expire { at } => {
                self.expires = at;
                Ok(None)
            }
            ImageAction::AllowReturns { allowed } => {
                self.leases_returnable = allowed;
                Ok(None)
            }
        }
    }

    /// Takes views that are left for something else.
    fn spend(
        &mut self,
        by: UserId,
        latest_date: Date,
        views: u64,
        take: impl FnOnce(&mut Right),
    ) -> Result<Right, RefusedWhy> {
        let right = self.rights.get_mut(&by).ok_or(RefusedWhy::NoRight)?;
        if self.expires.is_some_and(|expires| expires <= latest_date) {
            return Err(RefusedWhy::Expired);
        }
        match right.left {
            0 if right.is_revoked => return Err(RefusedWhy::RightRevoked),
            0 => return Err(RefusedWhy::NoneLeft),
            left if views == 0 || views > left => return Err(RefusedWhy::NotSoMany { left }),
            _ => {}
        }
        right.left -= views;
        take(right);
        Ok(*right)
    }

    fn give_back(
        &mut self,
        by: UserId,
        entry_date: Date,
        lease: Option<Leased>,
        views: u64,
    ) -> Result<Right, RefusedWhy> {
        let Leased { at, for_ms, views: left } = lease.ok_or(RefusedWhy::NotReturnable)?;
        if !self.leases_returnable || until(at, for_ms, self.expires) <= entry_date {
            return Err(RefusedWhy::NotReturnable);
        }
        if views == 0 || views > left {
            return Err(RefusedWhy::NotSoMany { left });
        }
        let right = self.rights.get_mut(&by).ok_or(RefusedWhy::NoRight)?;
        right.leased = right.leased.checked_sub(views).ok_or(RefusedWhy::NotReturnable)?;
        // What the owner has closed is not opened by views that were on a journey then.
        *(if right.is_revoked { &mut right.revoked } else { &mut right.left }) += views;
        Ok(*right)
    }

    /// More than there were are granted, fewer are revoked.
    fn set_left(&mut self, user: UserId, left: u64) -> Result<Right, RefusedWhy> {
        let known = self.rights.get(&user).copied();
        if known.is_none() && self.rights.len() >= MOST_RIGHTS {
            return Err(RefusedWhy::TooManyRights);
        }
        let mut right = known.unwrap_or_default();
        let more = left.saturating_sub(right.left);
        if more > MOST_VIEWS || right.granted + more > MOST_VIEWS {
            return Err(RefusedWhy::TooManyViews);
        }
        right.granted += more;
        right.revoked += right.left.saturating_sub(left);
        right.left = left;
        right.is_revoked = right.is_revoked && more == 0;
        self.rights.insert(user, right);
        Ok(right)
    }
}

/// Until when a lease may be used.
fn until(at: Date, for_ms: u64, expires: Option<Date>) -> Date {
    let until = Date(at.0.saturating_add(for_ms));
    expires.map_or(until, |expires| expires.min(until))
}

impl Images {
    /// Does a command, once for each request.
    pub fn apply(
        &mut self,
        asked: &Asked<'_>,
        may_have_rights: impl Fn(UserId) -> bool,
    ) -> Result<Applied, RefusedWhy> {
        let (image, action) = (asked.command.image, &asked.command.action);
        let known = self.records.get(&image);
        if let Some(repeated) = known.and_then(|record| record.repeated(asked.by, asked.id, action)) {
            let (expires, entry) = (known.and_then(|record| record.standing.expires), repeated?);
            let done = done(entry.at, &entry.action, entry.right, expires);
            return Ok(Applied { commit: entry.commit, done, leaves_a_trace: true });
        }
        let without_trace = |done| Ok(Applied { commit: asked.commit, done, leaves_a_trace: false });
        // A record that a node has seen before it asked may be gone since; what it was is not told.
        let terms = known.map(|record| &record.terms).or(asked.command.terms.as_ref()).ok_or(RefusedWhy::NoRight)?;
        if is_owners_view(terms, asked.by, action) {
            // Not counted, so nothing is remembered of it.
            return without_trace(ImageDone { right: None, until: None });
        }
        let owner = terms.owner;
        let fresh = match known {
            Some(_) => None,
            None => Some(Record::from_wrap(image, terms, asked.by, asked.latest_date)?),
        };
        let Some(record) = known.or(fresh.as_ref()) else { return Err(RefusedWhy::NoRight) };
        if let ImageAction::Grant { user, .. } | ImageAction::SetQuota { user, .. } = action
            && owner == asked.by
            && !may_have_rights(*user)
        {
            return Err(RefusedWhy::NoSuchUser);
        }
        let lease = match *action {
            ImageAction::Return { lease, .. } => record.lease(asked.by, lease),
            _ => None,
        };
        let mut standing = record.standing.clone();
        let right = standing.perform(asked, owner, lease)?;
        let done = done(asked.entry_date, action, right, standing.expires);
        if standing == record.standing {
            // What is so already leaves no trace, however often it is said.
            return without_trace(done);
        }
        let more = fresh.as_ref().map_or(0, Record::footprint_bytes) + RIGHT_BYTES + ENTRY_BYTES;
        let has_room = self.bytes.get(&owner).copied().unwrap_or_default() + more <= BYTES_OF_AN_OWNER;
        if !has_room && (fresh.is_some() || !action.only_takes_away()) {
            return Err(RefusedWhy::OwnerIsFull);
        }
        self.change(image, owner, fresh, |record| {
            record.standing = standing;
            if let ImageAction::Return { lease, views } = *action {
                let returned = record.returned.entry((asked.by, lease)).or_default();
                (returned.views, returned.times) = (returned.views + views, returned.times + 1);
            }
            record.record(asked, right);
        });
        Ok(Applied { commit: asked.commit, done, leaves_a_trace: true })
    }

    /// Whether the command adds nothing: it was done before, or leaves nothing.
    pub fn is_settled(&self, by: UserId, id: RequestId, command: &ImageCommand) -> bool {
        let known = self.records.get(&command.image);
        let is_repeated = known.is_some_and(|record| record.repeated(by, id, &command.action).is_some());
        let terms = known.map(|record| &record.terms).or(command.terms.as_ref());
        is_repeated || terms.is_some_and(|terms| is_owners_view(terms, by, &command.action))
    }

    /// Whether anything is remembered of the image.
    pub fn has(&self, image: ImageId) -> bool {
        self.records.contains_key(&image)
    }

    /// Changes a record in its place, which is `fresh` if there was none: a copy would copy the end of its audit chain each time.
    fn change(&mut self, image: ImageId, owner: UserId, fresh: Option<Record>, change: impl FnOnce(&mut Record)) {
        let bytes = self.bytes.entry(owner).or_default();
        if let Some(fresh) = fresh {
            self.owned.insert((owner, image));
            self.records.insert(image, fresh);
        } else if let Some(record) = self.records.get(&image) {
            *bytes -= record.footprint_bytes();
            self.footprint_bytes -= record.footprint_bytes();
        }
        let Some(record) = self.records.get_mut(&image) else { return };
        let before = record.over();
        change(record);
        *bytes += record.footprint_bytes();
        self.footprint_bytes += record.footprint_bytes();
        let over = record.over();
        if over != before
            && let Some(before) = before
        {
            self.due.remove(&(before, image));
        }
        if let Some(over) = over {
            self.due.insert((over, image));
        }
    }

    /// Lets records go whose time has passed, up to a bound.
    pub fn forget(&mut self, latest_date: Date) {
        let due = self.due.iter().take_while(|(over, _)| *over <= latest_date).take(FORGOTTEN_AT_ONCE);
        for (over, image) in due.copied().collect::<Vec<_>>() {
            self.due.remove(&(over, image));
            if let Some(record) = self.records.remove(&image) {
                let owner = record.terms.owner;
                self.footprint_bytes -= record.footprint_bytes();
                self.owned.remove(&(owner, image));
                if let Some(bytes) = self.bytes.get_mut(&owner) {
                    *bytes -= record.footprint_bytes();
                    if *bytes == 0 {
                        self.bytes.remove(&owner);
                    }
                }
            }
        }
    }

    pub fn is_due(&self, now: Date) -> bool {
        self.due.get_min().is_some_and(|(over, _)| *over <= now)
    }

    pub fn get(&self, image: ImageId) -> Option<ImageRecord> {
        self.records.get(&image).map(Record::shown)
    }

    /// The image for somebody who shows its wrap: as it is remembered, or as the wrap would make it.
    pub fn look(
        &self,
        image: ImageId,
        terms: &WrapTerms,
        by: UserId,
        latest_date: Date,
    ) -> Result<ImageRecord, RefusedWhy> {
        let record = match self.records.get(&image) {
            Some(record) => record.shown(),
            None => Record::from_wrap(image, terms, by, latest_date)?.shown(),
        };
        let has_right = terms.owner == by || record.rights.contains_key(&by);
        if has_right { Ok(record) } else { Err(RefusedWhy::NoRight) }
    }

    /// The images of an owner in the order of their ids, behind one.
    pub fn owned_by(&self, owner: UserId, after: Option<ImageId>, limit: usize) -> Vec<(ImageId, ImageRecord)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = after.map_or(Included((owner, ImageId([0; 32]))), |after| Excluded((owner, after)));
        let mine = self.owned.range((from, Unbounded)).take_while(|(user, _)| *user == owner).take(limit);
        mine.filter_map(|(_, image)| Some((*image, self.get(*image)?))).collect()
    }

    /// Entries of an image's audit chain behind a number.
    pub fn audit(&self, image: ImageId, after: u64, limit: usize) -> Vec<AuditEntry> {
        let entries = self.records.get(&image).map(|record| &record.audit);
        let Some(entries) = entries else { return Vec::new() };
        (after as usize..entries.len()).take(limit).filter_map(|place| entries.get(place).cloned()).collect()
    }

    /// Bytes that the table takes, about.
    pub fn footprint_bytes(&self) -> u64 {
        self.footprint_bytes
    }
}

/// What a command came to, and the entry that did it.
pub(super) struct Applied {
    pub commit: u64,
    pub done: ImageDone,
    /// Whether the image's record shows it, and with it the request's id.
    pub leaves_a_trace: bool,
}

fn done(at: Date, action: &ImageAction, right: Option<Right>, expires: Option<Date>) -> ImageDone {
    let until = if let ImageAction::Lease { for_ms, .. } = action { Some(until(at, *for_ms, expires)) } else { None };
    ImageDone { right, until }
}

/// Whether the owner opens her own image, which is not counted.
fn is_owners_view(terms: &WrapTerms, by: UserId, action: &ImageAction) -> bool {
    terms.owner == by && *action == ImageAction::View
}
