//! Which ids are not among others.

use super::Id;

/// Tells of nearly every id that is not among others that it is not: a new request is looked for in each generation, and is in none.
/// A Bloom filter (Bloom 1970) in which an id has all its bits in one word, so that it costs one access to memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter(Vec<u64>);

impl Filter {
    /// Sixteen bits for each id.
    pub fn of<'a>(ids: impl ExactSizeIterator<Item = &'a Id>) -> Filter {
        let mut filter = Filter(vec![0; ids.len() / 4 + 1]);
        for id in ids {
            let (word, bits) = filter.place(id);
            filter.0[word] |= bits;
        }
        filter
    }

    pub fn may_have(&self, id: &Id) -> bool {
        let (word, bits) = self.place(id);
        self.0[word] & bits == bits
    }

    /// A word, and three bits in it. The ids are mixed, since clients may count them.
    fn place(&self, id: &Id) -> (usize, u64) {
        let id = u128::from_be_bytes(*id);
        let folded = (id as u64) ^ ((id >> 64) as u64).rotate_left(32);
        // The odd number next to 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
        let mixed = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let word = (u128::from(mixed) * self.0.len() as u128) >> 64;
        (word as usize, 1 << (mixed & 63) | 1 << (mixed >> 6 & 63) | 1 << (mixed >> 12 & 63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: no id is missed, and few others are taken for one, whether clients count their ids or draw them.
    #[test]
    fn every_id_is_found_and_few_others() {
        let counted = |client: u64, number: u64| (u128::from(client) << 64 | u128::from(number)).to_be_bytes();
        let drawn = |client: u64, number: u64| {
            let mut id = Id::default();
            let of = blake3::hash(&counted(client, number));
            id.copy_from_slice(&of.as_bytes()[..16]);
            id
        };
        for id in [&counted as &dyn Fn(u64, u64) -> Id, &drawn] {
            let all = |clients: std::ops::Range<u64>| clients.flat_map(|client| (0..64).map(move |n| id(client, n)));
            let inside: Vec<Id> = all(0..256).collect();
            let filter = Filter::of(inside.iter());
            assert!(inside.iter().all(|id| filter.may_have(id)));
            let taken = all(256..512).filter(|id| filter.may_have(id)).count();
            assert!(taken < inside.len() / 20, "{taken} of {} others", inside.len());
        }
    }
}
