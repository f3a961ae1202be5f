//! Linearizability of a short history by search, from the times of the calls and their answers alone (J. Wing and C. Gong, "Testing
//! and Verifying Concurrent Objects", 1993; with the memory of G. Lowe, "Testing for Linearizability", 2017): an order is sought in
//! which no call stands before one that had ended when it began, and in which a plain store gives the same answers.
//!
//! Linearizability is local: the keys are searched apart, unless a call spans several of them. Revisions are not looked at, nor
//! commit indexes, so nothing that the ledger says about its own order is believed.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use image_cloud::protocol::ledger::{Expectation, KvOperation};

use super::model::Model;
use super::{Call, NEVER, NotLinearizable, Question, Seen, Told};

/// Calls on keys that belong together.
pub const CALLS_LIMIT: usize = 128;

/// States that are looked at, at most, for keys that belong together.
const STATES: usize = 2_000_000;

/// Checks a history of at most [`CALLS_LIMIT`] calls on keys that belong together.
pub fn check(history: &[Call]) -> Result<(), NotLinearizable> {
    parts(history).into_iter().try_for_each(|part| Search::new(part).run())
}

/// Divides a history into parts that have no key in common.
fn parts(history: &[Call]) -> Vec<Vec<&Call>> {
    let mut keys: Vec<&Bytes> = history.iter().flat_map(|call| keys_of(&call.question)).flatten().collect();
    keys.sort();
    keys.dedup();
    let mut part_of: BTreeMap<&Bytes, usize> = keys.iter().enumerate().map(|(part, key)| (*key, part)).collect();
    for call in history {
        let together: Vec<usize> = match keys_of(&call.question) {
            Some(keys) => keys.iter().map(|key| part_of[*key]).collect(),
            None => part_of.values().copied().collect(),
        };
        for part in part_of.values_mut().filter(|part| together.contains(part)) {
            *part = together[0];
        }
    }
    let mut parts: BTreeMap<usize, Vec<&Call>> = BTreeMap::new();
    for call in history {
        let first = match keys_of(&call.question) {
            Some(keys) => keys.first().map(|key| part_of[*key]),
            None => part_of.values().next().copied(),
        };
        // A list before the first key stands alone.
        parts.entry(first.unwrap_or(usize::MAX)).or_default().push(call);
    }
    parts.into_values().collect()
}

/// The keys that a call is about; None for all of them.
fn keys_of(question: &Question) -> Option<Vec<&Bytes>> {
    match question {
        Question::Write(operations) => Some(operations.iter().map(KvOperation::key).collect()),
        Question::Get(key) => Some(vec![key]),
        Question::List => None,
    }
}

/// Keys, values and versions.
type Held = Vec<(Bytes, Bytes, u64)>;

struct Search<'a> {
    calls: Vec<&'a Call>,
    /// What was looked at already: which calls were done, and what the store was then.
    known: HashSet<(u128, Held)>,
    /// The most calls that could be put in order, for the message.
    longest: u128,
}

impl<'a> Search<'a> {
    fn new(calls: Vec<&'a Call>) -> Self {
        // A read without an answer says nothing.
        let mut calls: Vec<_> = calls
            .into_iter()
            .filter(|call| call.answer.is_some() || matches!(call.question, Question::Write(_)))
            .collect();
        calls.sort_by_key(|call| call.began);
        assert!(calls.len() <= CALLS_LIMIT, "{} calls are too many for a search", calls.len());
        Search { calls, known: HashSet::new(), longest: 0 }
    }

    fn run(mut self) -> Result<(), NotLinearizable> {
        let answered = |call: &&Call| call.answer.is_some();
        let must: u128 = self.calls.iter().enumerate().filter(|(_, call)| answered(call)).map(|(at, _)| 1 << at).sum();
        let mut open = vec![(0u128, Model::default())];
        while let Some((done, store)) = open.pop() {
            if done & must == must {
                return Ok(());
            }
            if (done & must).count_ones() > (self.longest & must).count_ones() {
                self.longest = done;
            }
            if self.known.len() > STATES {
                return Err(NotLinearizable(format!("undecided after {STATES} states of {} calls", self.calls.len())));
            }
            let waiting = |at: &usize| done & (1 << at) == 0;
            // Whoever began after another one ended must stand behind it.
            let first_end = (0..self.calls.len()).filter(waiting).map(|at| self.calls[at].ended).min().unwrap_or(NEVER);
            let may_be_next = |at: &usize| waiting(at) && self.calls[*at].began <= first_end;
            let mut next: Vec<usize> = (0..self.calls.len()).filter(may_be_next).collect();
            // The last one here is tried first: whoever ended first; whoever never ended only if nothing else explains it.
            next.sort_by_key(|at| std::cmp::Reverse(self.calls[*at].ended));
            for at in next {
                let call = self.calls[at];
                let mut next = store.clone();
                let told = next.answer(&call.question);
                let fits = call.answer.as_ref().is_none_or(|answer| alike(&told, &answer.told));
                if fits && self.known.insert((done | 1 << at, next.without_revisions())) {
                    open.push((done | 1 << at, next));
                }
            }
        }
        let left = self.calls.iter().enumerate().filter(|(at, _)| self.longest & (1 << at) == 0).map(|(_, call)| call);
        Err(NotLinearizable(format!(
            "after {} calls in the best order none of these can be next: {:#?}",
            self.longest.count_ones(),
            left.take(4).collect::<Vec<_>>()
        )))
    }
}

/// Whether two answers are the same but for revisions.
fn alike(one: &Told, other: &Told) -> bool {
    let plain = |found: &[(Bytes, Seen)]| -> Held {
        found.iter().map(|(key, seen)| (key.clone(), seen.value.clone(), seen.version)).collect()
    };
    match (one, other) {
        (Told::Found(one), Told::Found(other)) => plain(one) == plain(other),
        (Told::Refused(one), Told::Refused(other)) => without_revision(one) == without_revision(other),
        (one, other) => one == other,
    }
}

fn without_revision(why: &str) -> &str {
    why.split(" in revision ").next().unwrap_or(why)
}

/// Whether a search can decide about a write: an expected revision is a matter of the order of all calls.
pub fn is_searchable(operations: &[KvOperation]) -> bool {
    let needs_revision =
        |operation: &KvOperation| matches!(operation, KvOperation::Require { expect: Expectation::ModRevision(_), .. });
    !operations.iter().any(needs_revision)
}
