//! The key-value table.

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::stored;
use crate::protocol::ledger::{Expectation, KeyValue, KvOperation, KvResult, Refused, RefusedWhy, Stamp};

/// The most bytes of keys and values in one page of a list, 1 MiB; a page has at least one key.
pub const PAGE_LIMIT: usize = 1 << 20;

/// Keys that one command lets expire at most, so that none takes long; the rest goes with the next ones. A key that is due is
/// not shown any more, whether or not it is still held.
pub(super) const EXPIRED_AT_ONCE: usize = 1024;

/// The table. Persistent maps: a clone shares everything that does not change afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredTable")]
pub(super) struct Table {
    values: OrdMap<Bytes, Value>,
    due: OrdSet<(Stamp, Bytes)>,
    size_bytes: u64,
    /// Bytes of the keys in `due`: there they stand a second time.
    #[serde(skip_serializing)]
    due_bytes: u64,
}

/// A table as a snapshot has it.
#[derive(Deserialize)]
struct StoredTable {
    #[serde(deserialize_with = "stored::map::<stored::Key, _, _, _>")]
    values: OrdMap<Bytes, Value>,
    #[serde(deserialize_with = "stored::set::<stored::DueKey, _, _>")]
    due: OrdSet<(Stamp, Bytes)>,
    size_bytes: u64,
}

impl From<StoredTable> for Table {
    fn from(StoredTable { values, due, size_bytes }: StoredTable) -> Table {
        let due_bytes = due.iter().map(|(_, key)| key.len() as u64).sum();
        Table { values, due, size_bytes, due_bytes }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Value {
    #[serde(deserialize_with = "stored::bytes")]
    value: Bytes,
    create_revision: u64,
    mod_revision: u64,
    version: u64,
    expires: Option<Stamp>,
}

impl Value {
    fn is_alive(&self, now: Stamp) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }

    fn shown(&self, key: &Bytes) -> KeyValue {
        let Value { value, create_revision, mod_revision, version, expires } = self.clone();
        KeyValue { key: key.clone(), value, create_revision, mod_revision, version, expires }
    }
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys and values, in order.
    pub items: Vec<KeyValue>,
    /// Whether there are more behind the last.
    pub more: bool,
}

impl Table {
    /// Does all operations, or none. Says whether anything changed.
    pub fn apply(
        &mut self,
        operations: &[KvOperation],
        now: Stamp,
        revision: u64,
    ) -> Result<(Vec<KvResult>, bool), Refused> {
        // What is done before an operation fails must not stay. A clone costs a few pointers; a single operation fails before it
        // changes anything.
        let before = (operations.len() > 1).then(|| self.clone());
        let mut results = Vec::with_capacity(operations.len());
        for (place, operation) in operations.iter().enumerate() {
            match self.perform(operation, now, revision) {
                Ok(result) => results.push(result),
                Err(why) => {
                    if let Some(before) = before {
                        *self = before;
                    }
                    return Err(Refused { operation: place as u32, why });
                }
            }
        }
        let changed = results.iter().any(|result| result.changes());
        Ok((results, changed))
    }

    fn perform(&mut self, operation: &KvOperation, now: Stamp, revision: u64) -> Result<KvResult, RefusedWhy> {
        match operation {
            KvOperation::Put { key, value, expires_in_ms } => {
                let expires = expires_in_ms.map(|after| Stamp(now.0.saturating_add(after)));
                self.put(key, value.clone(), expires, now, revision);
                Ok(KvResult::Put)
            }
            KvOperation::Delete { key } => {
                let was_there = self.alive(key, now).is_some();
                // A key that is due goes by expiry, which tells those who watch it.
                if was_there {
                    self.remove(key);
                }
                Ok(KvResult::Deleted(was_there))
            }
            KvOperation::Require { key, expect } => {
                let found = self.alive(key, now);
                let holds = match (expect, found) {
                    (Expectation::Absent, found) => found.is_none(),
                    (_, None) => false,
                    (Expectation::Present, Some(_)) => true,
                    (Expectation::ModRevision(expected), Some(value)) => value.mod_revision == *expected,
                    (Expectation::Value(expected), Some(value)) => value.value == *expected,
                };
                let mod_revision = found.map(|value| value.mod_revision);
                if holds { Ok(KvResult::AsExpected) } else { Err(RefusedWhy::NotAsExpected { mod_revision }) }
            }
            KvOperation::Add { key, by, floor } => {
                let found = self.alive(key, now);
                let expires = found.and_then(|value| value.expires);
                let value = found.map_or(Some(0), |value| number(&value.value)).ok_or(RefusedWhy::NotANumber)?;
                let sum = value.checked_add(*by).ok_or(RefusedWhy::Overflow)?;
                if let Some(floor) = floor.filter(|floor| sum < *floor) {
                    return Err(RefusedWhy::BelowFloor { value, floor });
                }
                self.put(key, Bytes::from(sum.to_string()), expires, now, revision);
                Ok(KvResult::Sum(sum))
            }
        }
    }

    fn put(&mut self, key: &Bytes, value: Bytes, expires: Option<Stamp>, now: Stamp, revision: u64) {
        let (create_revision, version) = match self.alive(key, now) {
            Some(old) => (old.create_revision, old.version + 1),
            None => (revision, 1),
        };
        self.size_bytes += (key.len() + value.len()) as u64;
        let value = Value { value, create_revision, mod_revision: revision, version, expires };
        let old = self.values.insert(key.clone(), value);
        self.forget(key, old);
        if let Some(expires) = expires {
            self.due.insert((expires, key.clone()));
            self.due_bytes += key.len() as u64;
        }
    }

    fn remove(&mut self, key: &Bytes) {
        let old = self.values.remove(key);
        self.forget(key, old);
    }

    /// What else is kept about a value that is gone.
    fn forget(&mut self, key: &Bytes, old: Option<Value>) {
        let Some(old) = old else { return };
        self.size_bytes -= (key.len() + old.value.len()) as u64;
        if let Some(expires) = old.expires {
            self.due.remove(&(expires, key.clone()));
            self.due_bytes -= key.len() as u64;
        }
    }

    fn alive(&self, key: &[u8], now: Stamp) -> Option<&Value> {
        self.values.get(key).filter(|value| value.is_alive(now))
    }

    /// Removes what is due, up to a bound, and says which keys.
    pub fn expire(&mut self, now: Stamp) -> Vec<Bytes> {
        let due = self.due.iter().take_while(|(expires, _)| *expires <= now).take(EXPIRED_AT_ONCE);
        let due: Vec<Bytes> = due.map(|(_, key)| key.clone()).collect();
        due.iter().for_each(|key| self.remove(key));
        due
    }

    pub fn is_due(&self, now: Stamp) -> bool {
        self.due.get_min().is_some_and(|(expires, _)| *expires <= now)
    }

    pub fn get(&self, key: &[u8], now: Stamp) -> Option<KeyValue> {
        let (key, value) = self.values.get_key_value(key)?;
        value.is_alive(now).then(|| value.shown(key))
    }

    pub fn list(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize, now: Stamp) -> Page {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => Excluded(Bytes::copy_from_slice(after)),
            None => Included(Bytes::copy_from_slice(prefix)),
        };
        let mut page = Page::default();
        let mut bytes = 0;
        let range = self.values.range::<_, Bytes>((from, Unbounded));
        for (key, value) in
            range.take_while(|(key, _)| key.starts_with(prefix)).filter(|(_, value)| value.is_alive(now))
        {
            let size = key.len() + value.value.len();
            if page.items.len() == limit || (bytes + size > PAGE_LIMIT && !page.items.is_empty()) {
                page.more = true;
                break;
            }
            bytes += size;
            page.items.push(value.shown(key));
        }
        page
    }

    #[cfg(test)]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Bytes that the table takes, if each key costs so much beside its own bytes and its value's. One that expires stands twice.
    pub fn footprint_bytes(&self, beside_a_key: u64) -> u64 {
        let keys = (self.values.len() + self.due.len()) as u64;
        self.size_bytes + self.due_bytes + keys * beside_a_key
    }

    /// Whether any key expires some day.
    pub fn expires(&self) -> bool {
        !self.due.is_empty()
    }
}

fn number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
