//! Which ids are not among others.

use super::Id;

/// What a filter knows an id by.
#[derive(Clone, Copy)]
pub(super) struct Hash(u64);

/// The odd number next to 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hash {
    /// Mixes both halves into all bits, since clients may count their ids in any of their bytes. Who chooses ids that are alike under it
    /// makes the search for his own slower: one look into each run instead of none.
    pub fn of(id: &Id) -> Hash {
        let id = u128::from_be_bytes(*id);
        let mixed = ((id >> 64) as u64).wrapping_mul(ODD);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_add(id as u64).wrapping_mul(ODD);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(ODD);
        Hash(mixed ^ (mixed >> 32))
    }
}

/// Tells of nearly every id that is not among others that it is not: a new request is looked for in all runs, and is in none.
/// A Bloom filter (Bloom 1970) in which an id has all its bits in one line of the processor's cache, so that it costs one access to memory
/// (Putze, Sanders and Singler, Cache-, Hash- and Space-Efficient Bloom Filters, 2007).
#[derive(Debug)]
pub(super) struct Filter(Vec<Line>);

#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Line([u64; 8]);

/// Bits of an id.
const BITS: u32 = 6;

impl Filter {
    /// For so many ids; sixteen bits for each.
    pub fn of(count: usize, ids: impl Iterator<Item = Hash>) -> Filter {
        let mut filter = Filter(vec![Line::default(); count / 32 + 1]);
        for id in ids {
            let line = filter.line(id);
            for (word, bit) in bits(id) {
                filter.0[line].0[word] |= bit;
            }
        }
        filter
    }

    pub fn may_have(&self, id: Hash) -> bool {
        let Line(line) = &self.0[self.line(id)];
        bits(id).all(|(word, bit)| line[word] & bit != 0)
    }

    fn line(&self, Hash(hash): Hash) -> usize {
        ((u128::from(hash) * self.0.len() as u128) >> 64) as usize
    }
}

/// Words of a line, and a bit in each, by nine bits of a number that is mixed once more: the hash itself has chosen the line.
fn bits(Hash(hash): Hash) -> impl Iterator<Item = (usize, u64)> {
    let mixed = hash.wrapping_mul(ODD);
    (1..=BITS).map(move |number| {
        let nine = mixed >> (64 - 9 * number);
        ((nine >> 6 & 7) as usize, 1 << (nine & 63))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: no id is missed, and few others are taken for one, whether clients draw their ids or count them, and in which bytes.
    #[test]
    fn every_id_is_found_and_few_others() {
        let drawn = |number: u64| {
            let mut id = Id::default();
            id.copy_from_slice(&blake3::hash(&number.to_be_bytes()).as_bytes()[..16]);
            id
        };
        let of_clients = |number: u64| (u128::from(number / 64) << 64 | u128::from(number % 64)).to_be_bytes();
        let at = |byte: usize, little: bool| {
            move |number: u64| {
                let number = number as u32;
                let mut id = [7; 16];
                id[byte..byte + 4].copy_from_slice(&if little { number.to_le_bytes() } else { number.to_be_bytes() });
                id
            }
        };
        let four_times = |number: u64| {
            let mut id = Id::default();
            id.chunks_exact_mut(4).for_each(|part| part.copy_from_slice(&(number as u32).to_be_bytes()));
            id
        };
        let mut families: Vec<Box<dyn Fn(u64) -> Id>> =
            vec![Box::new(drawn), Box::new(of_clients), Box::new(four_times)];
        for byte in [0, 4, 8, 12] {
            families.extend([true, false].map(|little| Box::new(at(byte, little)) as Box<dyn Fn(u64) -> Id>));
        }
        const MANY: u64 = 16_384;
        for (family, id) in families.iter().enumerate() {
            let hashes: Vec<Hash> = (0..MANY).map(|number| Hash::of(&id(number))).collect();
            let filter = Filter::of(hashes.len(), hashes.iter().copied());
            assert!(hashes.iter().all(|hash| filter.may_have(*hash)));
            let taken = (MANY..2 * MANY).filter(|number| filter.may_have(Hash::of(&id(*number)))).count();
            assert!(taken < MANY as usize / 250, "family {family}: {taken} of {MANY} others");
        }
    }
}
