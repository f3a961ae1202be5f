//! The last changes of the ledger, for those who watch it. They are no part of the state: a node that starts again, or that gets a
//! snapshot, begins with an empty list and says so to whoever asks for older ones.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::watch;

use crate::protocol::ledger::Change;

/// Changes that are kept. An entry's are added before old ones go: for an ordinary entry there is room for both in the 8,192 places to
/// which the list grows.
const KEPT: usize = 7_000;

/// Bytes of keys and values in them, 16 MiB.
const KEPT_BYTES: usize = 16 << 20;

/// The changes asked for are not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("only the changes after revision {after} are kept: read the present state, and watch from there")]
pub struct Forgotten {
    /// All changes after this revision are kept; of it and those before, not all.
    pub after: u64,
}

/// The list. Clones share it.
#[derive(Clone)]
pub(crate) struct Feed {
    kept: Arc<Mutex<Kept>>,
    revision: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Kept {
    changes: VecDeque<Change>,
    bytes: usize,
    /// All changes after this revision are in the list.
    complete_after: u64,
}

impl Feed {
    /// An empty list of a ledger at this revision.
    pub fn new(revision: u64) -> Feed {
        let kept = Kept { complete_after: revision, ..Kept::default() };
        Feed { kept: Arc::new(Mutex::new(kept)), revision: Arc::new(watch::Sender::new(revision)) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the changes of one entry, in the order of their revisions.
    pub fn push(&self, changes: Vec<Change>) {
        let Some(revision) = changes.last().map(|change| change.revision()) else { return };
        let mut kept = self.kept();
        for change in changes {
            kept.bytes += change.size_bytes();
            kept.changes.push_back(change);
        }
        // A revision goes as a whole: half of a batch must not be taken for all of it.
        while kept.changes.len() > KEPT || kept.bytes > KEPT_BYTES {
            let Some(oldest) = kept.changes.front().map(|change| change.revision()) else { break };
            while kept.changes.front().is_some_and(|change| change.revision() == oldest) {
                let gone = kept.changes.pop_front().map_or(0, |change| change.size_bytes());
                kept.bytes -= gone;
            }
            kept.complete_after = oldest;
        }
        drop(kept);
        self.revision.send_replace(revision);
    }

    /// Begins anew: a snapshot has taken the place of the changes.
    pub fn restart(&self, revision: u64) {
        *self.kept() = Kept { complete_after: revision, ..Kept::default() };
        self.revision.send_replace(revision);
    }

    /// Up to `limit` changes after a revision of keys that begin with `prefix`, and the revision up to which they are all.
    pub fn after(&self, revision: u64, prefix: &[u8], limit: usize) -> Result<(Vec<Change>, u64), Forgotten> {
        let kept = self.kept();
        if revision < kept.complete_after {
            return Err(Forgotten { after: kept.complete_after });
        }
        let from = kept.changes.partition_point(|change| change.revision() <= revision);
        let mut found: Vec<Change> = Vec::new();
        let mut seen = revision;
        for change in kept.changes.range(from..) {
            if found.len() >= limit && change.revision() != seen {
                return Ok((found, seen));
            }
            seen = change.revision();
            if change.key().starts_with(prefix) {
                found.push(change.clone());
            }
        }
        Ok((found, seen))
    }

    /// Changes when there are new changes.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn change(revision: u64, key: &str) -> Change {
        Change::Gone { key: Bytes::copy_from_slice(key.as_bytes()), revision }
    }

    #[test]
    fn watchers_get_every_change_in_order_or_are_told_what_is_missing() {
        let feed = Feed::new(10);
        feed.push(vec![change(11, "a/1"), change(11, "b/1")]);
        feed.push(vec![change(12, "a/2")]);
        let keys = |found: &[Change]| found.iter().map(|change| change.key().clone()).collect::<Vec<_>>();
        let (found, seen) = feed.after(10, b"a/", 100).unwrap();
        assert_eq!((keys(&found), seen), (vec![Bytes::from("a/1"), Bytes::from("a/2")], 12));
        assert_eq!(feed.after(12, b"", 100).unwrap(), (Vec::new(), 12));
        assert_eq!(feed.after(9, b"", 100), Err(Forgotten { after: 10 }));
        let (found, seen) = feed.after(10, b"", 1).unwrap();
        assert_eq!((found.len(), seen), (2, 11), "a revision is not cut in two");

        for revision in 13..13 + KEPT as u64 {
            feed.push(vec![change(revision, "k")]);
        }
        assert_eq!(feed.after(11, b"", 1), Err(Forgotten { after: 12 }));
        assert_eq!(feed.after(12, b"", KEPT + 1).unwrap().0.len(), KEPT);
        feed.restart(50_000);
        assert_eq!(feed.after(20_000, b"", 1), Err(Forgotten { after: 50_000 }));
    }
}
