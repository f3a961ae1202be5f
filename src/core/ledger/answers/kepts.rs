//! Many answers in little memory.

use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::filter::{Filter, Hash};
use super::{Id, Kept};

/// So many answers at a time are put side by side. It is of no account for the state: replicas may differ in it.
const RUN: usize = if cfg!(test) { 4 } else { 1 << 13 };

/// Answers by their ids, each of which comes once. The latest are in a map, which takes three times the memory, since many clients that
/// count their requests fill its leaves badly; the others are in runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Kepts {
    runs: Vec<Arc<Run>>,
    latest: OrdMap<Id, Kept>,
}

/// Answers in the order of their ids.
#[derive(Debug)]
struct Run {
    answers: Vec<(Id, Kept)>,
    filter: Filter,
}

impl Run {
    fn new(answers: Vec<(Id, Kept)>) -> Arc<Run> {
        debug_assert!(answers.is_sorted_by(|one, next| one.0 < next.0), "a run is out of order");
        let filter = Filter::of(answers.iter().map(|(id, _)| Hash::of(id)));
        Arc::new(Run { answers, filter })
    }

    fn get(&self, id: &Id, hash: Hash) -> Option<&Kept> {
        if !self.filter.may_have(hash) {
            return None;
        }
        let place = self.answers.binary_search_by(|(other, _)| other.cmp(id)).ok()?;
        Some(&self.answers[place].1)
    }
}

impl Kepts {
    pub fn get(&self, id: &Id, hash: Hash) -> Option<&Kept> {
        self.latest.get(id).or_else(|| self.runs.iter().find_map(|run| run.get(id, hash)))
    }

    /// Adds the answer to a request that is not among them.
    pub fn insert(&mut self, id: Id, kept: Kept) {
        debug_assert!(self.get(&id, Hash::of(&id)).is_none(), "an id has two answers");
        self.latest.insert(id, kept);
        if self.latest.len() >= RUN {
            self.close();
        }
    }

    /// Nothing more is added.
    pub fn close(&mut self) {
        if !self.latest.is_empty() {
            let latest = std::mem::take(&mut self.latest);
            let mut answers = Vec::with_capacity(latest.len());
            answers.extend(latest);
            self.runs.push(Run::new(answers));
        }
    }

    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.answers.len()).sum::<usize>() + self.latest.len()
    }

    pub fn all(&self) -> impl Iterator<Item = (&Id, &Kept)> {
        let in_runs = self.runs.iter().flat_map(|run| run.answers.iter().map(|(id, kept)| (id, kept)));
        in_runs.chain(self.latest.iter())
    }

    fn in_order(&self) -> Vec<(&Id, &Kept)> {
        let mut all: Vec<_> = self.all().collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }
}

impl PartialEq for Kepts {
    fn eq(&self, other: &Kepts) -> bool {
        self.in_order() == other.in_order()
    }
}

impl Eq for Kepts {}

/// As one map in the order of the ids, whatever the runs.
impl Serialize for Kepts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.in_order())
    }
}

impl<'de> Deserialize<'de> for Kepts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Kepts, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Kepts;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("answers in the order of their ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Kepts, A::Error> {
                let (mut kepts, mut run) = (Kepts::default(), Vec::<(Id, Kept)>::new());
                let mut last = None;
                while let Some((id, kept)) = access.next_entry::<Id, Kept>()? {
                    if last.replace(id).is_some_and(|last| last >= id) {
                        return Err(A::Error::custom("ids of answers are out of order"));
                    }
                    run.push((id, kept));
                    if run.len() >= RUN {
                        kepts.runs.push(Run::new(std::mem::take(&mut run)));
                    }
                }
                if !run.is_empty() {
                    run.shrink_to_fit();
                    kepts.runs.push(Run::new(run));
                }
                Ok(kepts)
            }
        }
        from.deserialize_map(Read)
    }
}
