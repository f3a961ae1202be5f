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
    /// Each has more runs than the next, so there are few of them however many answers there are.
    groups: Vec<Arc<Group>>,
    latest: OrdMap<Id, Kept>,
}

/// Answers in the order of their ids.
type Run = Arc<Vec<(Id, Kept)>>;

/// Runs behind one filter: to find that an id is new costs one look for all of them.
#[derive(Debug)]
struct Group {
    runs: Vec<Run>,
    filter: Filter,
}

impl Group {
    fn of(runs: Vec<Run>) -> Arc<Group> {
        let in_order = |run: &Run| run.is_sorted_by(|one, next| one.0 < next.0);
        debug_assert!(runs.iter().all(in_order), "a run is out of order");
        let ids = runs.iter().flat_map(|run| run.iter()).map(|(id, _)| Hash::of(id));
        let filter = Filter::of(runs.iter().map(|run| run.len()).sum(), ids);
        Arc::new(Group { runs, filter })
    }

    fn get(&self, id: &Id, hash: Hash) -> Option<&Kept> {
        if !self.filter.may_have(hash) {
            return None;
        }
        self.runs.iter().find_map(|run| {
            let place = run.binary_search_by(|(other, _)| other.cmp(id)).ok()?;
            Some(&run[place].1)
        })
    }
}

impl Kepts {
    pub fn get(&self, id: &Id, hash: Hash) -> Option<&Kept> {
        self.latest.get(id).or_else(|| self.groups.iter().find_map(|group| group.get(id, hash)))
    }

    /// Adds the answer to a request that is not among them.
    pub fn insert(&mut self, id: Id, kept: Kept) {
        debug_assert!(self.get(&id, Hash::of(&id)).is_none(), "an id has two answers");
        self.latest.insert(id, kept);
        if self.latest.len() >= RUN {
            self.end_run();
            self.join(|last, before| before <= last);
        }
    }

    /// Nothing more is added.
    pub fn close(&mut self) {
        self.end_run();
        self.join(|_, _| true);
    }

    fn end_run(&mut self) {
        if !self.latest.is_empty() {
            let latest = std::mem::take(&mut self.latest);
            let mut answers = Vec::with_capacity(latest.len());
            answers.extend(latest);
            self.groups.push(Group::of(vec![Arc::new(answers)]));
        }
    }

    /// Makes one group of the last one and those before it, as long as that is wanted for so many runs in it and in the one before.
    fn join(&mut self, is_wanted: impl Fn(usize, usize) -> bool) {
        let Some(last) = self.groups.pop() else { return };
        let mut runs = last.runs.clone();
        while let Some(before) = self.groups.pop_if(|before| is_wanted(runs.len(), before.runs.len())) {
            runs.extend(before.runs.iter().cloned());
        }
        self.groups.push(if runs.len() > last.runs.len() { Group::of(runs) } else { last });
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.groups.iter().flat_map(|group| &group.runs)
    }

    pub fn len(&self) -> usize {
        self.runs().map(|run| run.len()).sum::<usize>() + self.latest.len()
    }

    pub fn all(&self) -> impl Iterator<Item = (&Id, &Kept)> {
        self.runs().flat_map(|run| run.iter().map(|(id, kept)| (id, kept))).chain(self.latest.iter())
    }

    #[cfg(test)]
    pub fn groups_and_runs(&self) -> (usize, usize) {
        (self.groups.len(), self.runs().count())
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
                let (mut runs, mut run) = (Vec::new(), Vec::<(Id, Kept)>::new());
                let mut last = None;
                while let Some((id, kept)) = access.next_entry::<Id, Kept>()? {
                    if last.replace(id).is_some_and(|last| last >= id) {
                        return Err(A::Error::custom("ids of answers are out of order"));
                    }
                    run.push((id, kept));
                    if run.len() >= RUN {
                        runs.push(Arc::new(std::mem::take(&mut run)));
                    }
                }
                if !run.is_empty() {
                    run.shrink_to_fit();
                    runs.push(Arc::new(run));
                }
                let groups = if runs.is_empty() { Vec::new() } else { vec![Group::of(runs)] };
                Ok(Kepts { groups, latest: OrdMap::new() })
            }
        }
        from.deserialize_map(Read)
    }
}
