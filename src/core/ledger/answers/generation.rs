//! Answers of one span of time: as long as further ones are added, and afterwards.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize, Serializer};

use super::filter::Filter;
use super::{Id, Kept, Key};
use crate::core::ledger::stored;
use crate::protocol::ledger::Stamp;

/// Answers that are forgotten together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Generation<Kepts> {
    pub begun: Stamp,
    pub last: Stamp,
    /// Of whoever may reach the port, by their ids: a client that counts its requests puts them side by side.
    of_anyone: Kepts,
    /// Of those whom the node knows.
    of_known: Kepts,
}

/// Answers by their keys, as long as further ones are added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Growing(#[serde(deserialize_with = "stored::map::<Id, _, _, _>")] OrdMap<Id, Kept>);

/// The same in little memory, when nothing is added any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed(Arc<Sorted>);

#[derive(Debug, PartialEq, Eq)]
struct Sorted {
    /// In the order of their ids, side by side.
    answers: Vec<(Id, Kept)>,
    filter: Filter,
}

impl Serialize for Closed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.answers.iter().map(|(id, kept)| (id, kept)))
    }
}

/// What both have.
pub(super) trait Kepts {
    fn get(&self, id: &Id) -> Option<&Kept>;
    fn all(&self) -> impl Iterator<Item = &Kept>;
    fn len(&self) -> usize;
}

impl Kepts for Growing {
    fn get(&self, id: &Id) -> Option<&Kept> {
        self.0.get(id)
    }

    fn all(&self) -> impl Iterator<Item = &Kept> {
        self.0.values()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Kepts for Closed {
    fn get(&self, id: &Id) -> Option<&Kept> {
        let Sorted { answers, filter } = self.0.as_ref();
        if !filter.may_have(id) {
            return None;
        }
        let place = answers.binary_search_by(|(other, _)| other.cmp(id)).ok()?;
        Some(&answers[place].1)
    }

    fn all(&self) -> impl Iterator<Item = &Kept> {
        self.0.answers.iter().map(|(_, kept)| kept)
    }

    fn len(&self) -> usize {
        self.0.answers.len()
    }
}

impl<K: Kepts> Generation<K> {
    pub fn get(&self, key: &Key) -> Option<&Kept> {
        match key {
            Key::OfAnyone(id) => self.of_anyone.get(id),
            Key::OfKnown(id) => self.of_known.get(id),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Kept> {
        self.of_anyone.all().chain(self.of_known.all())
    }

    pub fn len(&self) -> usize {
        self.of_anyone.len() + self.of_known.len()
    }

    pub fn size_bytes(&self) -> u64 {
        self.all().map(Kept::size_bytes).sum()
    }
}

impl Generation<Growing> {
    pub fn new(begun: Stamp) -> Self {
        Generation { begun, ..Generation::default() }
    }

    /// Gives what it replaces.
    pub fn insert(&mut self, key: Key, kept: Kept) -> Option<Kept> {
        match key {
            Key::OfAnyone(id) => self.of_anyone.0.insert(id, kept),
            Key::OfKnown(id) => self.of_known.0.insert(id, kept),
        }
    }

    pub fn close(self) -> Generation<Closed> {
        let Generation { begun, last, of_anyone, of_known } = self;
        Generation { begun, last, of_anyone: of_anyone.close(), of_known: of_known.close() }
    }
}

impl Growing {
    fn close(self) -> Closed {
        let mut answers = Vec::with_capacity(self.0.len());
        answers.extend(self.0);
        let filter = Filter::of(answers.iter().map(|(id, _)| id));
        Closed(Arc::new(Sorted { answers, filter }))
    }
}
