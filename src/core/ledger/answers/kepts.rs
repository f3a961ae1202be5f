//! Many answers in little memory.

use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::filter::{Filter, Hash};
use super::run::Run;
use super::{Id, Kept};

/// So many answers at a time become a run. It is of no account for the state: replicas may differ in it.
const RUN: usize = if cfg!(test) { 4 } else { 1 << 11 };

/// Answers by their ids, each of which comes once. The latest are in a map, which takes five times the memory, since many clients that
/// count their requests fill its leaves badly; the others are in runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Kepts {
    /// Each has more runs than the next, so there are few of them however many answers there are.
    groups: Vec<Arc<Group>>,
    latest: OrdMap<Id, Kept>,
    size_bytes: u64,
}

/// Runs behind one filter: to find that an id is new costs one look for all of them.
#[derive(Debug)]
struct Group {
    runs: Vec<Arc<Run>>,
    filter: Filter,
}

impl Group {
    fn of(runs: Vec<Arc<Run>>) -> Arc<Group> {
        let ids = || runs.iter().flat_map(|run| run.ids());
        let filter = Filter::of(ids().count(), ids().map(Hash::of));
        Arc::new(Group { runs, filter })
    }

    fn get(&self, id: &Id, hash: Hash) -> Option<Kept> {
        if !self.filter.may_have(hash) {
            return None;
        }
        self.runs.iter().find_map(|run| run.get(id))
    }
}

impl Kepts {
    pub fn get(&self, id: &Id, hash: Hash) -> Option<Kept> {
        self.latest.get(id).cloned().or_else(|| self.groups.iter().find_map(|group| group.get(id, hash)))
    }

    /// Adds the answer to a request that is not among them.
    pub fn insert(&mut self, id: Id, kept: Kept) {
        debug_assert!(self.get(&id, Hash::of(&id)).is_none(), "an id has two answers");
        self.size_bytes += kept.size_bytes();
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
            let answers: Vec<(Id, Kept)> = std::mem::take(&mut self.latest).into_iter().collect();
            self.groups.push(Group::of(vec![Arc::new(Run::of(&answers))]));
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
        self.groups.iter().flat_map(|group| &group.runs).map(Arc::as_ref)
    }

    pub fn len(&self) -> usize {
        self.runs().map(|run| run.ids().len()).sum::<usize>() + self.latest.len()
    }

    /// What the answers take, about, in bytes: the same on every replica.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    #[cfg(test)]
    pub fn groups_and_runs(&self) -> (usize, usize) {
        (self.groups.len(), self.runs().count())
    }

    /// All of them in the order of their ids; an answer in a run is read when its turn comes.
    fn in_order(&self) -> impl ExactSizeIterator<Item = (&Id, Kept)> {
        let in_runs = self.runs().flat_map(|run| (0..run.ids().len()).map(move |place| Place::Run(run, place)));
        let latest = self.latest.iter().map(|(id, kept)| Place::Latest(id, kept));
        let mut all: Vec<Place<'_>> = in_runs.chain(latest).collect();
        all.sort_unstable_by_key(|place| place.id());
        all.into_iter().map(|place| (place.id(), place.answer()))
    }
}

/// Where an answer is.
enum Place<'a> {
    Run(&'a Run, usize),
    Latest(&'a Id, &'a Kept),
}

impl<'a> Place<'a> {
    fn id(&self) -> &'a Id {
        match self {
            Place::Run(run, place) => &run.ids()[*place],
            Place::Latest(id, _) => id,
        }
    }

    fn answer(&self) -> Kept {
        match self {
            Place::Run(run, place) => run.answer(*place),
            Place::Latest(_, kept) => (*kept).clone(),
        }
    }
}

impl PartialEq for Kepts {
    fn eq(&self, other: &Kepts) -> bool {
        self.in_order().eq(other.in_order())
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
                let (mut last, mut size_bytes) = (None, 0);
                while let Some((id, kept)) = access.next_entry::<Id, Kept>()? {
                    if last.replace(id).is_some_and(|last| last >= id) {
                        return Err(A::Error::custom("ids of answers are out of order"));
                    }
                    size_bytes += kept.size_bytes();
                    run.push((id, kept));
                    if run.len() >= RUN {
                        runs.push(Arc::new(Run::of(&run)));
                        run.clear();
                    }
                }
                if !run.is_empty() {
                    runs.push(Arc::new(Run::of(&run)));
                }
                let groups = if runs.is_empty() { Vec::new() } else { vec![Group::of(runs)] };
                Ok(Kepts { groups, latest: OrdMap::new(), size_bytes })
            }
        }
        from.deserialize_map(Read)
    }
}
