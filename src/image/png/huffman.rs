//! Huffman codes of limited length (RFC 1951, 3.2).

use crate::image::png::inflate::ORDER;
use crate::image::png::sink::{Code, Sink};

/// Lengths of an optimal code for symbols that occur `counts` times, none longer than `longest` bits; 0 for those that do not
/// occur.
pub(crate) fn code_lengths(counts: &[u32], longest: usize) -> Vec<u8> {
    let mut lengths = vec![0u8; counts.len()];
    let mut symbols: Vec<usize> = (0..counts.len()).filter(|&symbol| counts[symbol] > 0).collect();
    if symbols.len() < 2 {
        symbols.iter().for_each(|&symbol| lengths[symbol] = 1);
        return lengths;
    }
    symbols.sort_by_key(|&symbol| counts[symbol]);

    // Huffman's tree from two queues: leaves in order of weight, and inner nodes, which arise in that order by themselves.
    let leaves = symbols.len();
    let mut weights: Vec<u64> = symbols.iter().map(|&symbol| u64::from(counts[symbol])).collect();
    let mut parents = vec![0usize; 2 * leaves - 1];
    let (mut leaf, mut inner) = (0, leaves);
    for node in leaves..2 * leaves - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            let lighter = if leaf < leaves && (inner == node || weights[leaf] <= weights[inner]) {
                &mut leaf
            } else {
                &mut inner
            };
            weight += weights[*lighter];
            parents[*lighter] = node;
            *lighter += 1;
        }
        weights.push(weight);
    }
    let mut depths = vec![0usize; 2 * leaves - 1];
    let mut of_length = vec![0usize; longest + 1];
    for node in (0..2 * leaves - 2).rev() {
        depths[node] = depths[parents[node]] + 1;
        if node < leaves {
            of_length[depths[node].min(longest)] += 1;
        }
    }

    // Codes that were cut off leave the code over-full: lengthen shorter ones until it fits (Kraft's inequality).
    let mut sum: usize = (1..=longest).map(|length| of_length[length] << (longest - length)).sum();
    while sum > 1 << longest {
        let shorter = (1..longest).rev().find(|&length| of_length[length] > 0);
        let shorter = shorter.expect("at most 286 symbols need no more than 2^9 codes, so some code is shorter");
        of_length[longest] -= 1;
        of_length[shorter] -= 1;
        of_length[shorter + 1] += 2;
        sum -= 1;
    }

    // The rarest symbols get the longest codes.
    let mut by_weight = symbols.into_iter();
    for length in (1..=longest).rev() {
        by_weight.by_ref().take(of_length[length]).for_each(|symbol| lengths[symbol] = length as u8);
    }
    lengths
}

/// The canonical codes of these lengths.
pub(crate) fn canonical_codes(lengths: &[u8]) -> Vec<Code> {
    let mut codes = vec![Code::default(); lengths.len()];
    let mut next = 0u16;
    for length in 1..=15u8 {
        for (code, _) in codes.iter_mut().zip(lengths).filter(|(_, has)| **has == length) {
            *code = Code { bits: next.reverse_bits() >> (16 - length), length: u16::from(length) };
            next += 1;
        }
        next <<= 1;
    }
    codes
}

/// Writes the head of a block with codes of its own: `literals` has 257 to 286 lengths; `distances` has at least one.
/// `spare` entries are added to its list of code lengths, three bits each, which change nothing.
pub(crate) fn write_dynamic_head(sink: &mut Sink, literals: &[u8], distances: &[u8], spare: usize) {
    let all: Vec<u8> = literals.iter().chain(distances).copied().collect();

    // Symbols of the code for code lengths, with the number and value of their extra bits.
    let mut symbols: Vec<(u8, u32, u32)> = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let value = all[at];
        let run = all[at..].iter().take_while(|&&other| other == value).count();
        at += match (value, run) {
            (0, 11..) => {
                symbols.push((18, 7, run.min(138) as u32 - 11));
                run.min(138)
            }
            (0, 3..) => {
                symbols.push((17, 3, run as u32 - 3));
                run
            }
            (_, 4..) => {
                let repeats = (run - 1).min(6);
                symbols.push((value, 0, 0));
                symbols.push((16, 2, repeats as u32 - 3));
                repeats + 1
            }
            _ => {
                symbols.push((value, 0, 0));
                1
            }
        };
    }

    let mut counts = [0u32; 19];
    symbols.iter().for_each(|&(symbol, ..)| counts[usize::from(symbol)] += 1);
    let lengths = code_lengths(&counts, 7);
    let codes = canonical_codes(&lengths);
    let used = ORDER.iter().rposition(|&symbol| lengths[symbol] > 0).map_or(4, |last| (last + 1).max(4));
    let used = (used + spare).min(ORDER.len());

    sink.put_bits(0b100, 3); // not the last block; codes of its own
    sink.put_bits(literals.len() as u32 - 257, 5);
    sink.put_bits(distances.len() as u32 - 1, 5);
    sink.put_bits(used as u32 - 4, 4);
    ORDER[..used].iter().for_each(|&symbol| sink.put_bits(u32::from(lengths[symbol]), 3));
    for (symbol, extra_bits, extra) in symbols {
        let code = codes[usize::from(symbol)];
        sink.put_bits(u32::from(code.bits), u32::from(code.length));
        sink.put_bits(extra, extra_bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_complete_and_within_the_limit_even_for_fibonacci_weights() {
        let (mut counts, mut pair) = (vec![0u32; 40], (1u32, 1u32));
        for count in &mut counts[3..] {
            *count = pair.0;
            pair = (pair.1, pair.0 + pair.1);
        }
        for longest in [7, 12, 15] {
            let lengths = code_lengths(&counts, longest);
            assert!(lengths.iter().all(|&length| usize::from(length) <= longest));
            assert!(lengths[..3].iter().all(|&length| length == 0));
            let kraft: u32 = lengths.iter().filter(|&&length| length > 0).map(|&length| 1 << (15 - length)).sum();
            assert_eq!(kraft, 1 << 15, "longest {longest}");
        }
    }
}
