//! A picture as a PNG file: compact (adaptive filters, Huffman codes, runs) or stored.
//!
//! Compact looks for no repetition but runs of one byte. On photographs that is as small as the `image` crate's encoder and
//! faster; on flat drawings it is as small as it needs to be.

use simd_adler32::Adler32;

use crate::image::png::filter::Filter;
use crate::image::png::huffman::{canonical_codes, code_lengths, write_dynamic_head};
use crate::image::png::sink::{CHUNK_OVERHEAD, Code, Sink};
use crate::image::scratch::Scratch;
use crate::protocol::job::SealForm;

/// The first two bytes of a PNG's data stream: DEFLATE, window of 32 KiB, no dictionary (RFC 1950).
pub(crate) const STREAM_HEAD: [u8; 2] = [0x78, 0x01];
/// What an empty stored block ends with, after which the stream stands at a whole byte.
pub(crate) const EMPTY_STORED: [u8; 4] = [0, 0, 0xff, 0xff];
/// The longest stored block.
pub(crate) const LONGEST_STORED: usize = 65_535;
/// Filtered bytes of a compact block, at least.
const BLOCK: usize = 128 << 10;
/// The filter is chosen anew every so many rows.
const ROWS_BETWEEN_CHOICES: usize = 4;

/// 8-bit samples in rows from the top, without gaps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Picture<'a> {
    pub width: u32,
    pub height: u32,
    /// 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    pub channels: u8,
    pub samples: &'a [u8],
}

/// Writes a PNG. `extra` are whole chunks that go between the header and the data.
pub(crate) fn encode(picture: Picture<'_>, extra: &[u8], form: SealForm, scratch: &mut Scratch) -> Vec<u8> {
    let raw = picture.samples.len() + picture.height as usize;
    // A block costs at most its stored form: 5 bytes for 65,535, and a chunk's frame; rows may make blocks smaller.
    let bound = raw + raw / 1024 + extra.len() + 40 * picture.height as usize + 1024;
    let mut sink = Sink::new(scratch.take(bound));
    let colour = [0, 4, 2, 6][usize::from(picture.channels) - 1];
    sink.header(picture.width, picture.height, colour);
    sink.put(extra);
    let line = picture.width as usize * usize::from(picture.channels);
    let check_sum = match form {
        SealForm::Stored => {
            let chunk = sink.open(b"IDAT");
            sink.put(&STREAM_HEAD);
            sink.close(chunk);
            store(picture.samples, line, &mut sink)
        }
        SealForm::Compact => {
            let mut compressor = Compressor::new(line, usize::from(picture.channels), scratch);
            let nothing = vec![0; line];
            let mut above = &nothing[..];
            for row in picture.samples.chunks_exact(line) {
                compressor.push(row, above, &mut sink);
                above = row;
            }
            compressor.flush(&mut sink);
            compressor.finish(scratch)
        }
    };
    // An empty last block of the fixed code, then the check sum of everything.
    let chunk = sink.open(b"IDAT");
    sink.put_bits(0b011, 10);
    sink.align();
    sink.put(&check_sum.to_be_bytes());
    sink.close(chunk);
    sink.chunk(b"IEND", &[]);
    sink.finish()
}

/// Writes rows as stored blocks of unfiltered rows; returns the check sum of the stream.
fn store(samples: &[u8], line: usize, sink: &mut Sink) -> u32 {
    let mut check_sum = Adler32::new();
    if line < LONGEST_STORED {
        for rows in samples.chunks((LONGEST_STORED / (line + 1)) * line) {
            stored_block(rows.len() / line + rows.len(), sink, &mut check_sum, |raw| {
                for (raw, row) in raw.chunks_exact_mut(line + 1).zip(rows.chunks_exact(line)) {
                    raw[0] = 0;
                    raw[1..].copy_from_slice(row);
                }
            });
        }
    } else {
        // Two blocks for a row: 16,384 pixels of four bytes and their filter byte are one too many for a block.
        for row in samples.chunks_exact(line) {
            let (first, second) = row.split_at(line / 2);
            stored_block(first.len() + 1, sink, &mut check_sum, |raw| {
                raw[0] = 0;
                raw[1..].copy_from_slice(first);
            });
            stored_block(second.len(), sink, &mut check_sum, |raw| raw.copy_from_slice(second));
        }
    }
    check_sum.finish()
}

/// Writes a chunk with one stored block of `length` ≤ 65,535 bytes, which `fill` provides.
pub(crate) fn stored_block(length: usize, sink: &mut Sink, check_sum: &mut Adler32, fill: impl FnOnce(&mut [u8])) {
    let chunk = sink.open(b"IDAT");
    stored_block_head(length, sink);
    let raw = sink.space(length);
    fill(raw);
    check_sum.write(raw);
    sink.close(chunk);
}

fn stored_block_head(length: usize, sink: &mut Sink) {
    let length = length as u16;
    sink.put_bits(0, 3);
    sink.align();
    sink.put(&length.to_le_bytes());
    sink.put(&(!length).to_le_bytes());
}

/// Compresses rows block by block; each block is a chunk.
pub(crate) struct Compressor {
    block: Vec<u8>,
    filled: usize,
    /// What a run of literals and a run of one byte after it take.
    runs: Vec<(u32, u32)>,
    line: usize,
    pixel: usize,
    rows: usize,
    filter: Filter,
    check_sum: Adler32,
    started: bool,
}

impl Compressor {
    pub fn new(line: usize, pixel: usize, scratch: &mut Scratch) -> Self {
        Compressor {
            block: scratch.take(BLOCK + line + 1),
            filled: 0,
            runs: Vec::new(),
            line,
            pixel,
            rows: 0,
            filter: Filter::Sub,
            check_sum: Adler32::new(),
            started: false,
        }
    }

    /// Adds a row; `above` is the one before it, zeros for the first.
    pub fn push(&mut self, row: &[u8], above: &[u8], sink: &mut Sink) {
        let (number, filtered) = self.block[self.filled..][..self.line + 1].split_at_mut(1);
        if self.rows.is_multiple_of(ROWS_BETWEEN_CHOICES) {
            self.filter = Filter::choose(row, above, self.pixel, filtered);
        }
        number[0] = self.filter as u8;
        self.filter.apply(row, above, self.pixel, filtered);
        self.rows += 1;
        self.filled += self.line + 1;
        if self.filled >= BLOCK {
            self.flush(sink);
        }
    }

    /// Writes what has gathered.
    pub fn flush(&mut self, sink: &mut Sink) {
        let block = &self.block[..self.filled];
        self.check_sum.write(block);
        let chunk = sink.open(b"IDAT");
        if !self.started {
            // Nothing is pending yet.
            sink.put(&STREAM_HEAD);
            self.started = true;
        }
        find_runs(block, &mut self.runs);
        write_block(block, &self.runs, sink);
        sink.close(chunk);
        self.filled = 0;
    }

    /// The check sum of the whole stream.
    pub fn finish(self, scratch: &mut Scratch) -> u32 {
        scratch.give_back(self.block);
        self.check_sum.finish()
    }
}

/// Divides a block into stretches of literals, each followed by a run of the byte before it. Runs are looked for at every
/// eighth byte only: photographs have none, and drawings have long ones.
fn find_runs(block: &[u8], runs: &mut Vec<(u32, u32)>) {
    runs.clear();
    let (mut literals_from, mut at) = (0, 1);
    while at + 8 <= block.len() {
        if block[at..at + 8] != block[at - 1..at + 7] {
            at += 8;
            continue;
        }
        let byte = block[at];
        let (mut start, mut end) = (at, at + 8);
        while start > literals_from + 1 && block[start - 2] == byte {
            start -= 1;
        }
        while end + 8 <= block.len() && block[end..end + 8] == [byte; 8] {
            end += 8;
        }
        end += block[end..].iter().take_while(|&&other| other == byte).count();
        runs.push(((start - literals_from) as u32, (end - start) as u32));
        (literals_from, at) = (end, end + 1);
    }
    runs.push(((block.len() - literals_from) as u32, 0));
}

/// Symbol, number of extra bits and their value for a run of 3 to 258 bytes (RFC 1951, 3.2.5).
fn run_symbol(length: u32) -> (usize, u32, u32) {
    match length - 3 {
        0..=7 => (254 + length as usize, 0, 0),
        255 => (285, 0, 0),
        rest => {
            let extra_bits = rest.ilog2() - 2;
            let group = (rest >> extra_bits) - 4;
            (265 + (4 * (extra_bits - 1) + group) as usize, extra_bits, rest & ((1 << extra_bits) - 1))
        }
    }
}

/// Cuts a run of at least 8 into pieces of 3 to 258.
fn pieces(mut run: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let piece = match run {
            0 => return None,
            259..=260 => run - 3,
            _ => run.min(258),
        };
        run -= piece;
        Some(piece)
    })
}

fn count_literals(literals: &[u8], counts: &mut [u32; 286]) {
    // Four tables, since equal neighbours would wait for one another's count.
    let mut tables = [[0u32; 256]; 4];
    let (fours, rest) = literals.as_chunks::<4>();
    for four in fours {
        for (table, &byte) in tables.iter_mut().zip(four) {
            table[usize::from(byte)] += 1;
        }
    }
    rest.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
    for table in &tables {
        counts.iter_mut().zip(table).for_each(|(count, more)| *count += more);
    }
}

/// The stretches of literals in a block, each with the run after it.
fn stretches<'a>(block: &'a [u8], runs: &'a [(u32, u32)]) -> impl Iterator<Item = (&'a [u8], u32)> {
    let mut at = 0;
    runs.iter().map(move |&(literals, run)| {
        let stretch = &block[at..][..literals as usize];
        at += (literals + run) as usize;
        (stretch, run)
    })
}

fn write_block(block: &[u8], runs: &[(u32, u32)], sink: &mut Sink) {
    let mut counts = [0u32; 286];
    counts[256] = 1;
    let mut extra_bits = 0;
    for (literals, run) in stretches(block, runs) {
        if literals.len() < 256 {
            literals.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
        } else {
            count_literals(literals, &mut counts);
        }
        for piece in pieces(run) {
            let (symbol, bits, _) = run_symbol(piece);
            counts[symbol] += 1;
            extra_bits += bits + 1;
        }
    }
    let lengths = code_lengths(&counts, 12);
    let coded_bits: u64 = counts.iter().zip(&lengths).map(|(&n, &l)| u64::from(n) * u64::from(l)).sum();
    // The head takes 14 + 19 × 3 + 287 × 14 bits at the very most.
    if (coded_bits + u64::from(extra_bits)) / 8 + 520 >= block.len() as u64 && block.len() > 2048 {
        for piece in block.chunks(LONGEST_STORED) {
            stored_block_head(piece.len(), sink);
            sink.put(piece);
        }
        return;
    }
    let used = lengths.iter().rposition(|&length| length > 0).map_or(257, |last| last + 1);
    write_dynamic_head(sink, &lengths[..used], &[u8::from(runs.len() > 1)]);
    let codes = canonical_codes(&lengths);
    let literal_codes: &[Code; 256] = codes.first_chunk().expect("there are 286 codes");
    let put = |sink: &mut Sink, symbol: usize| sink.put_bits(codes[symbol].bits.into(), codes[symbol].length.into());
    for (literals, run) in stretches(block, runs) {
        sink.put_codes(literals, literal_codes);
        for piece in pieces(run) {
            let (symbol, bits, extra) = run_symbol(piece);
            put(sink, symbol);
            // The one code for distance 1 is a single zero bit.
            sink.put_bits(extra, bits + 1);
        }
    }
    put(sink, 256);
}

/// The size that a chunk adds to a bound.
pub(crate) const fn chunk_bound(data: usize) -> usize {
    data + CHUNK_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_length_has_the_symbol_that_the_standard_gives_it() {
        // The last row of RFC 1951's table, and points around each change of group.
        let expected = [(3, 257, 0), (10, 264, 0), (11, 265, 1), (12, 265, 1), (13, 266, 1), (18, 268, 1)];
        for (length, symbol, bits) in
            expected.into_iter().chain([(19, 269, 2), (34, 272, 2), (257, 284, 5), (258, 285, 0)])
        {
            let (has, extra_bits, _) = run_symbol(length);
            assert_eq!((has, extra_bits), (symbol, bits), "length {length}");
        }
    }

    #[test]
    fn pieces_of_a_run_add_up_and_none_is_too_short() {
        for run in 8..2000 {
            assert_eq!(pieces(run).sum::<u32>(), run);
            assert!(pieces(run).all(|piece| (3..=258).contains(&piece)), "run {run}");
        }
    }
}
