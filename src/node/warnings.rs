//! Warnings about what others do: a peer that is refused comes again on each of its connections, several times in a second, and a
//! stranger may go on for ever. The log must not grow with either.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::id::NodeId;
use crate::time::{self, Moment};

/// The same is said again after so long, with how often it has happened meanwhile.
const EVERY: Duration = Duration::from_secs(10);

/// Different warnings in that time, by address and kind; further ones are not said.
const KINDS: usize = 64;

/// When each was said last, and how often it has happened since without being said.
#[derive(Default)]
pub(super) struct Warnings(Mutex<BTreeMap<(IpAddr, String), Said>>);

struct Said {
    at: Moment,
    unsaid: u64,
}

impl Warnings {
    /// Warns that `node` has closed a connection from there, and why; once for each `kind` of reason.
    pub fn closed(&self, node: NodeId, from: SocketAddr, kind: String, connection: &str, why: &dyn Display) {
        match self.is_due(time::now(), from.ip(), kind) {
            Some(0) => log::warn!("node {node}: closed {connection} from {from}: {why}"),
            Some(unsaid) => {
                log::warn!("node {node}: closed {connection} from {from}: {why} (and {unsaid} times before)");
            }
            None => {}
        }
    }

    /// Whether to say it, and how often it was not said.
    fn is_due(&self, now: Moment, from: IpAddr, kind: String) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (from, kind);
        if let Some(said) = all.get_mut(&key) {
            if now.since(said.at) < EVERY {
                said.unsaid += 1;
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.unsaid));
        }
        if all.len() >= KINDS {
            all.retain(|_, said| now.since(said.at) < EVERY);
        }
        if all.len() >= KINDS {
            return None;
        }
        all.insert(key, Said { at: now, unsaid: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: whatever others do, and however often, the log and the memory of it stay bounded.
    #[test]
    fn the_same_is_said_once_and_then_counted() {
        let warnings = Warnings::default();
        let start = time::now();
        let peer = IpAddr::from([127, 0, 0, 1]);
        let due =
            |after_ms: u64, what: &str| warnings.is_due(start + Duration::from_millis(after_ms), peer, what.to_owned());
        assert_eq!(due(0, "refused"), Some(0));
        assert_eq!((due(40, "refused"), due(80, "refused")), (None, None));
        assert_eq!(due(80, "mute"), Some(0), "another thing is said at once");
        assert_eq!(due(10_000, "refused"), Some(2));
        let said = (0..1_000).filter(|number| due(10_001, &format!("kind {number}")).is_some()).count();
        assert!(said < KINDS, "{said}");
        assert_eq!(due(30_000, "later"), Some(0));
    }
}
