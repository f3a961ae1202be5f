//! Which followers get each entry at once, and which a moment later, several at a time: **pure**.
//!
//! A majority commits an entry. Sent to all followers at once, it costs each of them a message, a sync and a turn of every thread, although
//! those beyond the majority decide nothing: the thrifty quorum of Moraru, Andersen and Kaminsky ("There Is More Consensus in Egalitarian
//! Parliaments", SOSP 2013). Here nobody is left out, some only come a little later. The price is the tail: when a follower that is
//! prompt hesitates, those that could take its place have to be sent the entry first, so they wait a few milliseconds and no longer. Who
//! fails or is slow is not counted on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::MemberId;
use crate::time::Moment;

/// How much later the others get entries, counted from the ones before: what came meanwhile travels together.
const PAUSE: Duration = Duration::from_millis(10);

/// Who takes longer to answer is slow.
const SLOW: Duration = Duration::from_millis(10);

/// For so long nobody counts on a follower that was slow or failed.
const DOUBTED: Duration = Duration::from_secs(1);

/// A leader's followers, as it sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thrift {
    /// The voters besides the leader; nobody waits while the membership changes.
    followers: BTreeSet<MemberId>,
    seen: BTreeMap<MemberId, Seen>,
    /// All are prompt until then.
    hurry: Moment,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    sent: Moment,
    /// What it was sent was as much as a message holds.
    was_full: bool,
    waits: bool,
    doubted: Moment,
}

impl Thrift {
    /// Who votes besides the leader; none while two memberships count.
    pub fn followers(&mut self, followers: Option<BTreeSet<MemberId>>) {
        self.followers = followers.unwrap_or_default();
        self.seen.retain(|member, _| self.followers.contains(member));
    }

    /// Whether that member is one of them.
    pub fn counts(&self, member: MemberId) -> bool {
        self.followers.contains(&member)
    }

    /// Everybody gets entries at once for a while: the lead changes hands.
    pub fn hurry(&mut self, until: Moment) {
        self.hurry = self.hurry.max(until);
    }

    /// Entries leave for a follower; as many as a message holds, so that there may be more, or all that there are.
    pub fn sent(&mut self, to: MemberId, is_full: bool, now: Moment) {
        let seen = self.seen.entry(to).or_default();
        (seen.sent, seen.was_full, seen.waits) = (now, is_full, true);
    }

    /// The follower has answered, or something else is known of what it was sent.
    pub fn answered(&mut self, to: MemberId, succeeded: bool, now: Moment) {
        let seen = self.seen.entry(to).or_default();
        seen.waits = false;
        if !succeeded || now.since(seen.sent) > SLOW {
            seen.doubted = now + DOUBTED;
        }
    }

    /// How long entries for this follower wait for others to travel with.
    pub fn pause(&self, to: MemberId, now: Moment) -> Duration {
        // A follower that does not vote is catching up.
        if now < self.hurry || !self.followers.contains(&to) || self.prompt(now).any(|prompt| prompt == to) {
            return Duration::ZERO;
        }
        match self.seen.get(&to) {
            Some(seen) if !seen.was_full => PAUSE.saturating_sub(now.since(seen.sent)),
            _ => Duration::ZERO,
        }
    }

    /// As many followers as make a majority with the leader: those that are not doubted first, then by their ids.
    fn prompt(&self, now: Moment) -> impl Iterator<Item = MemberId> {
        let needed = self.followers.len().div_ceil(2);
        let mut ranked: Vec<_> = self.followers.iter().map(|&member| (self.is_doubted(member, now), member)).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, member)| member).take(needed)
    }

    fn is_doubted(&self, member: MemberId, now: Moment) -> bool {
        self.seen.get(&member).is_some_and(|seen| now < seen.doubted || (seen.waits && now.since(seen.sent) > SLOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, NodeId};

    const NOW: Moment = Moment::from_millis(60_000);
    const MS: Duration = Duration::from_millis(1);

    fn member(node: u16) -> MemberId {
        MemberId { node: NodeId(node), incarnation: Incarnation(1) }
    }

    fn thrift(nodes: impl IntoIterator<Item = u16>) -> Thrift {
        let mut thrift = Thrift::default();
        thrift.followers(Some(nodes.into_iter().map(member).collect()));
        thrift
    }

    /// Who of these does not wait, when all have just been sent something.
    fn prompt(thrift: &Thrift, now: Moment) -> Vec<u16> {
        let mut thrift = thrift.clone();
        for follower in thrift.followers.clone() {
            thrift.seen.entry(follower).or_default().sent = now;
        }
        thrift.followers.iter().filter(|follower| thrift.pause(**follower, now).is_zero()).map(|m| m.node.0).collect()
    }

    #[test]
    fn a_majority_is_prompt_and_the_rest_waits() {
        assert_eq!(prompt(&thrift([2]), NOW), [2], "of two nodes both are needed");
        assert_eq!(prompt(&thrift([2, 3]), NOW), [2]);
        assert_eq!(prompt(&thrift([1, 3, 4]), NOW), [1, 3]);
        assert_eq!(prompt(&thrift([1, 2, 4, 5]), NOW), [1, 2]);
    }

    #[test]
    fn who_waits_does_so_for_ten_milliseconds_after_what_it_was_sent_last() {
        let mut thrift = thrift([2, 3]);
        assert_eq!(thrift.pause(member(3), NOW), Duration::ZERO, "nothing was sent for long");
        thrift.sent(member(3), false, NOW);
        thrift.answered(member(3), true, NOW + MS);
        assert_eq!(thrift.pause(member(3), NOW + MS), 9 * MS);
        assert_eq!(thrift.pause(member(3), NOW + 10 * MS), Duration::ZERO);
    }

    /// A follower that is behind, or gets more entries than messages hold, is not held up.
    #[test]
    fn who_was_sent_as_much_as_a_message_holds_does_not_wait() {
        let mut thrift = thrift([2, 3]);
        thrift.sent(member(3), true, NOW);
        thrift.answered(member(3), true, NOW + MS);
        assert_eq!(thrift.pause(member(3), NOW + MS), Duration::ZERO);
        thrift.sent(member(3), false, NOW + MS);
        assert_eq!(thrift.pause(member(3), NOW + MS), 10 * MS);
    }

    /// Nobody is counted on who has just failed, is slow, or has been asked for long.
    #[test]
    fn another_takes_the_place_of_who_fails_or_is_slow() {
        let fresh = thrift([2, 3]);
        let mut failed = fresh.clone();
        failed.sent(member(2), false, NOW);
        failed.answered(member(2), false, NOW);
        assert_eq!(prompt(&failed, NOW), [3]);
        assert_eq!(prompt(&failed, NOW + DOUBTED), [2], "and then it is asked again");

        let mut slow = fresh;
        slow.sent(member(2), false, NOW);
        assert_eq!(prompt(&slow, NOW), [2]);
        assert_eq!(slow.pause(member(3), NOW + 11 * MS), Duration::ZERO);
        slow.sent(member(3), false, NOW + 11 * MS);
        assert_eq!(slow.pause(member(3), NOW + 12 * MS), Duration::ZERO, "node 2 still does not answer");
        slow.answered(member(2), true, NOW + 20 * MS);
        assert_eq!(prompt(&slow, NOW + 21 * MS), [3]);

        let mut both = failed;
        both.sent(member(3), false, NOW);
        both.answered(member(3), false, NOW);
        assert_eq!(prompt(&both, NOW), [2], "somebody must be asked");
    }

    #[test]
    fn nobody_waits_while_somebody_is_to_take_over_or_the_members_change() {
        let mut hurried = thrift([2, 3]);
        hurried.hurry(NOW + 10 * MS);
        assert_eq!(prompt(&hurried, NOW), [2, 3]);
        assert_eq!(prompt(&hurried, NOW + 10 * MS), [2]);

        let mut changing = thrift([2, 3]);
        changing.sent(member(3), false, NOW);
        changing.followers(None);
        assert_eq!(changing.pause(member(3), NOW), Duration::ZERO);
    }
}
