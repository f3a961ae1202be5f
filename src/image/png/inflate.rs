//! The beginning of a DEFLATE stream (RFC 1951), up to a boundary between two blocks.

use crate::image::png::huffman::canonical_codes;

/// First length and extra bits of each length symbol from 257 on (RFC 1951, 3.2.5).
const LENGTHS: [(u16, u8); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

/// The order in which lengths of the code for code lengths are written.
pub(crate) const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Inflates whole blocks until there are `need` bytes; returns them and how many bits of the stream they took. None if that is
/// in or after the last block, if it would take more than `most` bytes, or if the stream is damaged.
pub(crate) fn inflate_beginning(stream: &[u8], need: usize, most: usize) -> Option<(Vec<u8>, usize)> {
    let mut bits = Bits { stream, position: 0 };
    let mut out = Vec::with_capacity(need);
    while out.len() < need {
        let (is_last, kind) = (bits.take(1)?, bits.take(2)?);
        if is_last == 1 {
            return None;
        }
        match kind {
            0 => {
                let start = bits.position.div_ceil(8);
                let (head, rest) = stream.get(start..)?.split_first_chunk::<4>()?;
                let length = u16::from_le_bytes([head[0], head[1]]);
                if length != !u16::from_le_bytes([head[2], head[3]]) {
                    return None;
                }
                out.extend_from_slice(rest.get(..usize::from(length))?);
                bits.position = 8 * (start + 4 + usize::from(length));
            }
            1 => {
                let literals: Vec<u8> = [(8, 144), (9, 112), (7, 24), (8, 8)]
                    .into_iter()
                    .flat_map(|(length, count)| std::iter::repeat_n(length, count))
                    .collect();
                coded(&mut bits, &Table::new(&literals)?, &Table::new(&[5; 32])?, &mut out, most)?;
            }
            2 => {
                let (literals, distances) = read_codes(&mut bits)?;
                coded(&mut bits, &literals, &distances, &mut out, most)?;
            }
            _ => return None,
        }
        if out.len() > most {
            return None;
        }
    }
    Some((out, bits.position))
}

struct Bits<'a> {
    stream: &'a [u8],
    position: usize,
}

impl Bits<'_> {
    /// The next 57 bits at least.
    fn peek(&self) -> Option<u64> {
        let next = self.stream.get(self.position / 8..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*next) >> (self.position % 8))
    }

    fn take(&mut self, count: u32) -> Option<usize> {
        let bits = self.peek()? & ((1 << count) - 1);
        self.position += count as usize;
        Some(bits as usize)
    }

    fn symbol(&mut self, table: &Table) -> Option<usize> {
        let (symbol, length) = table.find(self.peek()?)?;
        self.position += length as usize;
        Some(symbol)
    }
}

/// For the next bits, symbol × 16 + length of its code; 0 where there is none.
struct Table(Vec<u16>);

impl Table {
    fn new(lengths: &[u8]) -> Option<Table> {
        let longest = lengths.iter().copied().max()?;
        let used = |length: &&u8| **length > 0;
        if lengths.iter().filter(used).map(|&length| 1u32 << (15 - length)).sum::<u32>() > 1 << 15 {
            return None;
        }
        let mut entries = vec![0; 1 << longest];
        for (symbol, code) in canonical_codes(lengths).into_iter().enumerate().filter(|(_, code)| code.length > 0) {
            for entry in entries[usize::from(code.bits)..].iter_mut().step_by(1 << code.length) {
                *entry = (symbol as u16) << 4 | code.length;
            }
        }
        Some(Table(entries))
    }

    fn find(&self, bits: u64) -> Option<(usize, u32)> {
        let entry = self.0[bits as usize & (self.0.len() - 1)];
        (entry > 0).then_some((usize::from(entry >> 4), u32::from(entry & 15)))
    }
}

fn read_codes(bits: &mut Bits<'_>) -> Option<(Table, Table)> {
    let (literals, distances, order) = (bits.take(5)? + 257, bits.take(5)? + 1, bits.take(4)? + 4);
    let mut lengths = [0; 19];
    for &symbol in &ORDER[..order] {
        lengths[symbol] = bits.take(3)? as u8;
    }
    let table = Table::new(&lengths)?;
    let mut lengths = Vec::with_capacity(320);
    while lengths.len() < literals + distances {
        let (value, repeats) = match bits.symbol(&table)? {
            16 => (*lengths.last()?, bits.take(2)? + 3),
            17 => (0, bits.take(3)? + 3),
            18 => (0, bits.take(7)? + 11),
            length => (length as u8, 1),
        };
        lengths.extend(std::iter::repeat_n(value, repeats));
    }
    if lengths.len() > literals + distances {
        return None;
    }
    Some((Table::new(&lengths[..literals])?, Table::new(&lengths[literals..])?))
}

fn coded(bits: &mut Bits<'_>, literals: &Table, distances: &Table, out: &mut Vec<u8>, most: usize) -> Option<()> {
    while out.len() <= most {
        // A length and a distance take 48 bits at most, so one look is enough.
        let word = bits.peek()?;
        let (symbol, mut taken) = literals.find(word)?;
        if symbol < 256 {
            out.push(symbol as u8);
        } else if symbol == 256 {
            bits.position += taken as usize;
            return Some(());
        } else {
            let extra = |base: usize, count: u32, taken: &mut u32| {
                let more = (word >> *taken) as usize & ((1 << count) - 1);
                *taken += count;
                base + more
            };
            let &(base, count) = LENGTHS.get(symbol - 257)?;
            let length = extra(usize::from(base), u32::from(count), &mut taken);
            let (symbol, code_length) = distances.find(word >> taken)?;
            taken += code_length;
            let distance = match symbol {
                0..4 => symbol + 1,
                4..30 => {
                    let count = symbol as u32 / 2 - 1;
                    extra(((2 + symbol % 2) << count) + 1, count, &mut taken)
                }
                _ => return None,
            };
            let from = out.len().checked_sub(distance)?;
            if distance >= length {
                out.extend_from_within(from..from + length);
            } else {
                (from..from + length).for_each(|index| out.push(out[index]));
            }
        }
        bits.position += taken as usize;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::png::encode::compress_stream;
    use crate::image::png::sink::Sink;

    /// What our own encoder makes of these bytes, and an empty stored block with some bytes behind it.
    fn compressed(data: &[u8]) -> Vec<u8> {
        let mut sink = Sink::new(vec![0; data.len() * 2 + 4096]);
        compress_stream(data, &mut sink);
        sink.put_bits(0, 3);
        sink.align();
        sink.put(&[0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
        sink.finish()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn what_is_compressed_comes_back(pieces in prop::collection::vec((any::<u8>(), 1usize..400, any::<bool>()), 1..300)) {
            let data: Vec<u8> = pieces
                .iter()
                .flat_map(|&(byte, count, is_run)| (0..count).map(move |at| if is_run { byte } else { byte ^ (at * at) as u8 }))
                .collect();
            let (back, _) = inflate_beginning(&compressed(&data), data.len(), data.len()).expect("it is a whole stream");
            prop_assert!(back == data);
        }

        #[test]
        fn a_damaged_stream_costs_neither_a_panic_nor_memory(data in prop::collection::vec(any::<u8>(), 0..3000), at: usize, bit in 0u8..8) {
            let _ = inflate_beginning(&data, 100_000, 200_000);
            let mut stream = compressed(&data);
            let at = at % stream.len();
            stream[at] ^= 1 << bit;
            if let Some((out, _)) = inflate_beginning(&stream, data.len().max(1), 200_000) {
                prop_assert!(out.len() <= 200_000);
            }
        }
    }
}
