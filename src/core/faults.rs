//! Simulated faults of links: what becomes of a message between this node and a peer.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::id::NodeId;
use crate::protocol::fault::{FaultError, LinkFault};
use crate::time::Moment;

/// Which way a message goes, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the peer.
    In,
    /// To the peer.
    Out,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It passes, but not before this moment.
    Late {
        /// When.
        due: Moment,
    },
    /// It is lost, and nobody is told.
    Drop,
}

/// The faults of one node's links.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Every peer; none where its link is as good as new.
    links: BTreeMap<NodeId, Option<LinkFault>>,
    random: SmallRng,
}

impl Faults {
    /// Links to these peers, without a fault.
    pub fn new(peers: impl IntoIterator<Item = NodeId>, seed: u64) -> Self {
        let links = peers.into_iter().map(|peer| (peer, None)).collect();
        Faults { links, random: SmallRng::seed_from_u64(seed) }
    }

    /// These are the peers from now on; the faults of those that stay are kept.
    pub fn know(&mut self, peers: impl IntoIterator<Item = NodeId>) {
        let mut before = std::mem::take(&mut self.links);
        self.links = peers.into_iter().map(|peer| (peer, before.remove(&peer).flatten())).collect();
    }

    /// Replaces all faults by these, or none if one of them cannot be.
    ///
    /// # Errors
    /// [`FaultError`].
    pub fn replace(&mut self, faults: &[LinkFault]) -> Result<(), FaultError> {
        let mut links: BTreeMap<NodeId, Option<LinkFault>> = self.links.keys().map(|peer| (*peer, None)).collect();
        for fault in faults {
            fault.check()?;
            let peer = fault.peer;
            let known = || self.links.keys().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
            let link = links.get_mut(&peer).ok_or_else(|| FaultError::UnknownPeer { peer, known: known() })?;
            if link.replace(*fault).is_some() {
                return Err(FaultError::Twice { peer });
            }
        }
        links.values_mut().for_each(|link| *link = link.filter(|fault| !fault.is_none()));
        self.links = links;
        Ok(())
    }

    /// The faults that stand, in the order of the peers.
    pub fn standing(&self) -> Vec<LinkFault> {
        self.links.values().flatten().copied().collect()
    }

    /// Whether nothing passes that way.
    pub fn cuts(&self, peer: NodeId, direction: Direction) -> bool {
        self.of(peer).is_some_and(|fault| match direction {
            Direction::In => fault.cut_in,
            Direction::Out => fault.cut_out,
        })
    }

    /// What becomes of a message that is sent at `now`, or arrives. Delay and loss strike the sender's side only: with both ends
    /// told of the same link, each message is delayed and lost once.
    pub fn verdict(&mut self, now: Moment, peer: NodeId, direction: Direction) -> Verdict {
        if self.cuts(peer, direction) {
            return Verdict::Drop;
        }
        let Some(fault) = self.of(peer).filter(|_| direction == Direction::Out) else { return Verdict::Pass };
        if fault.loss > 0.0 && self.random.random_bool(fault.loss) {
            return Verdict::Drop;
        }
        let (shortest, longest) = fault.delays();
        match longest {
            Duration::ZERO => Verdict::Pass,
            _ => Verdict::Late { due: now + self.random.random_range(shortest..=longest) },
        }
    }

    fn of(&self, peer: NodeId) -> Option<LinkFault> {
        self.links.get(&peer).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_millis(1_000);
    const TWO: NodeId = NodeId(2);
    const THREE: NodeId = NodeId(3);

    fn with(faults: &[LinkFault]) -> Faults {
        let mut core = Faults::new([TWO, THREE], 7);
        core.replace(faults).unwrap();
        core
    }

    /// A cut is of one peer and one way; everything else passes.
    #[test]
    fn a_cut_drops_that_way_of_that_link_and_no_other() {
        let mut faults = with(&[LinkFault { cut_out: true, ..LinkFault::none(TWO) }]);
        assert_eq!(faults.verdict(NOW, TWO, Direction::Out), Verdict::Drop);
        assert_eq!(faults.verdict(NOW, TWO, Direction::In), Verdict::Pass);
        assert_eq!(faults.verdict(NOW, THREE, Direction::Out), Verdict::Pass);
        let mut faults = with(&[LinkFault { cut_in: true, ..LinkFault::none(THREE) }]);
        assert_eq!(faults.verdict(NOW, THREE, Direction::In), Verdict::Drop);
        assert_eq!(faults.verdict(NOW, THREE, Direction::Out), Verdict::Pass);
    }

    /// A new set replaces the whole old one; the empty set heals.
    #[test]
    fn a_new_set_replaces_the_old_one_and_an_empty_one_heals() {
        let mut faults = with(&[LinkFault { cut_out: true, ..LinkFault::none(TWO) }]);
        let slow = LinkFault { delay_ms: 5, ..LinkFault::none(THREE) };
        faults.replace(&[slow, LinkFault::none(TWO)]).unwrap();
        assert_eq!(faults.standing(), [slow], "a fault of nothing is none");
        assert!(!faults.cuts(TWO, Direction::Out));
        faults.replace(&[]).unwrap();
        assert_eq!(faults.standing(), []);
        assert_eq!(faults.verdict(NOW, THREE, Direction::Out), Verdict::Pass);
    }

    /// A delay strikes what is sent, within its jitter, and nothing that arrives.
    #[test]
    fn a_delay_keeps_within_its_jitter_and_strikes_only_what_is_sent() {
        let mut faults = with(&[LinkFault { delay_ms: 50, jitter_ms: 10, ..LinkFault::none(TWO) }]);
        let mut delays = Vec::new();
        for _ in 0..500 {
            let Verdict::Late { due } = faults.verdict(NOW, TWO, Direction::Out) else { panic!("it passed at once") };
            delays.push(due.since(NOW));
            assert_eq!(faults.verdict(NOW, TWO, Direction::In), Verdict::Pass);
        }
        let (shortest, longest) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        let within = Duration::from_millis(40)..=Duration::from_millis(60);
        assert!(within.contains(shortest) && within.contains(longest), "{shortest:?} to {longest:?}");
        assert!(*longest - *shortest > Duration::from_millis(15), "it varies");
    }

    /// Loss is a probability per message, the same with the same seed, and 0 and 1 are what they say.
    #[test]
    fn loss_is_per_message_and_follows_from_the_seed() {
        let lost = |loss: f64| -> Vec<bool> {
            let mut faults = with(&[LinkFault { loss, ..LinkFault::none(TWO) }]);
            (0..2_000).map(|_| faults.verdict(NOW, TWO, Direction::Out) == Verdict::Drop).collect()
        };
        let count = |loss: f64| lost(loss).into_iter().filter(|lost| *lost).count();
        assert!((420..580).contains(&count(0.25)), "{} of 2000", count(0.25));
        assert_eq!((count(0.0), count(1.0)), (0, 2_000));
        assert_eq!(lost(0.25), lost(0.25));
    }

    /// A wrong list is refused by name and changes nothing.
    #[test]
    fn a_wrong_list_is_refused_and_changes_nothing() {
        let cut = LinkFault { cut_out: true, ..LinkFault::none(TWO) };
        let mut faults = with(&[cut]);
        let unknown = faults.replace(&[LinkFault { cut_in: true, ..LinkFault::none(NodeId(9)) }]).unwrap_err();
        assert_eq!(unknown.to_string(), "this node has no link to a node 9: its peers are 2, 3");
        assert_eq!(faults.replace(&[cut, cut]), Err(FaultError::Twice { peer: TWO }));
        assert!(faults.replace(&[LinkFault { loss: 2.0, ..cut }]).is_err());
        assert_eq!(faults.standing(), [cut]);
    }
}
