//! The store that the ledger promises to be, written a second time and as plainly as possible.

use std::collections::BTreeMap;

use bytes::Bytes;
use image_cloud::protocol::ledger::{Expectation, KvOperation, KvResult, RefusedWhy};

use super::{Question, Seen, Told};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub revision: u64,
    keys: BTreeMap<Bytes, Seen>,
}

impl Model {
    /// Answers a question; a write may change the store.
    pub fn answer(&mut self, question: &Question) -> Told {
        match question {
            Question::Write(operations) => Told::written(self.write(operations)),
            Question::Get(key) => Told::Found(
                self.keys.get_key_value(key).map(|(key, seen)| (key.clone(), seen.clone())).into_iter().collect(),
            ),
            Question::List => Told::Found(self.keys.iter().map(|(key, seen)| (key.clone(), seen.clone())).collect()),
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&Seen> {
        self.keys.get(key)
    }

    /// All operations or none.
    pub fn write(&mut self, operations: &[KvOperation]) -> Result<Vec<KvResult>, RefusedWhy> {
        let before = (operations.len() > 1).then(|| self.keys.clone());
        let mut results = Vec::with_capacity(operations.len());
        for operation in operations {
            match self.perform(operation) {
                Ok(result) => results.push(result),
                Err(why) => {
                    if let Some(before) = before {
                        self.keys = before;
                    }
                    return Err(why);
                }
            }
        }
        self.revision += u64::from(Told::Done(results.clone()).is_a_change());
        Ok(results)
    }

    fn perform(&mut self, operation: &KvOperation) -> Result<KvResult, RefusedWhy> {
        let found = self.keys.get(operation.key());
        match operation {
            KvOperation::Put { key, value, expires_in_ms } => {
                assert!(expires_in_ms.is_none(), "the model knows no time");
                self.put(key, value.clone());
                Ok(KvResult::Put)
            }
            KvOperation::Delete { key } => Ok(KvResult::Deleted(self.keys.remove(key).is_some())),
            KvOperation::Require { expect, .. } => {
                let holds = match expect {
                    Expectation::Absent => found.is_none(),
                    Expectation::Present => found.is_some(),
                    Expectation::ModRevision(revision) => found.is_some_and(|seen| seen.mod_revision == *revision),
                    Expectation::Value(value) => found.is_some_and(|seen| seen.value == value),
                };
                let mod_revision = found.map(|seen| seen.mod_revision);
                if holds { Ok(KvResult::AsExpected) } else { Err(RefusedWhy::NotAsExpected { mod_revision }) }
            }
            KvOperation::Add { key, by, floor } => {
                let value = match found {
                    None => 0,
                    Some(seen) => {
                        let text = std::str::from_utf8(&seen.value).map_err(|_| RefusedWhy::NotANumber)?;
                        text.parse::<i64>().map_err(|_| RefusedWhy::NotANumber)?
                    }
                };
                let sum = value.checked_add(*by).ok_or(RefusedWhy::Overflow)?;
                match floor {
                    Some(floor) if sum < *floor => Err(RefusedWhy::BelowFloor { value, floor: *floor }),
                    _ => {
                        self.put(key, Bytes::from(sum.to_string()));
                        Ok(KvResult::Sum(sum))
                    }
                }
            }
        }
    }

    fn put(&mut self, key: &Bytes, value: Bytes) {
        let mod_revision = self.revision + 1;
        let (create_revision, version) = match self.keys.get(key) {
            Some(old) => (old.create_revision, old.version + 1),
            None => (mod_revision, 1),
        };
        self.keys.insert(key.clone(), Seen { value, create_revision, mod_revision, version });
    }

    /// The store without its revisions, which depend on the order of calls that have nothing to do with one another.
    pub fn without_revisions(&self) -> Vec<(Bytes, Bytes, u64)> {
        self.keys.iter().map(|(key, seen)| (key.clone(), seen.value.clone(), seen.version)).collect()
    }
}
