//! Changing the first rows of a PNG without decoding the others.
//!
//! A label changes a few rows. The stream is inflated up to the first boundary between two blocks that lies 32 KiB behind them,
//! so that no later block refers to a changed byte; that beginning is written anew, and the rest is copied, with the check sum
//! corrected. This takes a tenth of the time of decoding and encoding, and keeps the file's own compression. What is copied is
//! checked by the chunks' check sums only.

use crate::image::png::encode::{EMPTY_STORED, compress_stream};
use crate::image::png::huffman::{canonical_codes, write_dynamic_head};
use crate::image::png::inflate::inflate_beginning;
use crate::image::png::sink::Sink;
use crate::image::scratch::Scratch;

/// The reach of a reference in DEFLATE.
const WINDOW: usize = 32 << 10;
/// A block that goes on for longer than this behind the window is not waited for.
const LONGEST_BLOCK: usize = 1 << 20;

/// A PNG whose rows can be changed: 8 bits, not interlaced.
pub(crate) struct Spliceable<'a> {
    pub width: u32,
    pub height: u32,
    pub channels: u8,
    /// Data of all `IDAT` chunks.
    pub stream: &'a [u8],
    /// Chunks that go between header and data.
    pub extra: &'a [u8],
}

/// Lets `change` work on the samples of the first `rows` rows and writes the picture. None if its stream is not of the kind that
/// can be spliced; then it has to be decoded.
pub(crate) fn splice(
    png: &Spliceable<'_>,
    rows: usize,
    change: impl FnOnce(&mut [u8]),
    scratch: &mut Scratch,
) -> Option<Vec<u8>> {
    let channels = usize::from(png.channels);
    let line = png.width as usize * channels;
    let raw_bytes = png.height as usize * (line + 1);
    // The row after the changed ones is predicted from them.
    let touched = (rows + 1) * (line + 1);
    let need = touched + WINDOW;
    let (head, body) = png.stream.split_first_chunk::<2>()?;
    if need >= raw_bytes || head[0] & 15 != 8 || head[1] & 0x20 != 0 || body.len() < 16 {
        return None;
    }
    let (mut beginning, bits) = inflate_beginning(body, need, need + LONGEST_BLOCK)?;
    let before = beginning[..touched].to_vec();

    let mut samples = unfilter(&beginning[..touched], line, channels)?;
    change(&mut samples[..rows * line]);
    filter_again(&samples, line, channels, &mut beginning[..touched]);

    let (tail, check_sum) = body[bits / 8..].split_last_chunk::<4>()?;
    let (&first, tail) = tail.split_first()?;
    let check_sum = corrected(u32::from_be_bytes(*check_sum), raw_bytes, &before, &beginning);

    let bound = beginning.len() + beginning.len() / 64 + tail.len() + png.extra.len() + 4096;
    let mut sink = Sink::new(scratch.take(bound));
    sink.header(png.width, png.height, [0, 4, 2, 6][channels - 1]);
    sink.put(png.extra);
    let chunk = sink.open(b"IDAT");
    sink.put(head);
    compress_stream(&beginning, &mut sink);
    // Blocks without contents, until the stream stands at the same bit of a byte as it did before: stored blocks in the tail
    // begin at whole bytes.
    sink.put_bits(0, 3);
    sink.align();
    sink.put(&EMPTY_STORED);
    let bit = (bits % 8) as u32;
    if !bit.is_multiple_of(2) {
        odd_empty_block(&mut sink);
    }
    while sink.pending_bits() != bit {
        sink.put_bits(0b010, 10);
    }
    sink.put_bits(u32::from(first) >> bit, 8 - bit);
    sink.put(tail);
    sink.put(&check_sum.to_be_bytes());
    sink.close(chunk);
    sink.chunk(b"IEND", &[]);
    Some(sink.finish())
}

/// An empty block of an odd number of bits: one of two codes of one bit, its head one entry longer where that is needed.
fn odd_empty_block(sink: &mut Sink) {
    let mut lengths = [0; 257];
    (lengths[0], lengths[256]) = (1, 1);
    let end = canonical_codes(&lengths)[256];
    for longer in [0, 1] {
        let mut trial = Sink::new(vec![0; 256]);
        write_dynamic_head(&mut trial, &lengths, &[0], longer);
        trial.put_bits(end.bits.into(), end.length.into());
        if !trial.pending_bits().is_multiple_of(2) {
            write_dynamic_head(sink, &lengths, &[0], longer);
            sink.put_bits(end.bits.into(), end.length.into());
            return;
        }
    }
}

/// PNG's prediction of a byte from its left, upper and upper left neighbours (ISO/IEC 15948, 9.2).
fn predict(filter: u8, left: u8, above: u8, corner: u8) -> u8 {
    match filter {
        1 => left,
        2 => above,
        3 => ((u16::from(left) + u16::from(above)) / 2) as u8,
        4 => {
            let (a, b, c) = (i16::from(left), i16::from(above), i16::from(corner));
            let (to_left, to_above, to_corner) = ((b - c).abs(), (a - c).abs(), (a + b - 2 * c).abs());
            if to_left <= to_above && to_left <= to_corner {
                left
            } else if to_above <= to_corner {
                above
            } else {
                corner
            }
        }
        _ => 0,
    }
}

/// The neighbours of sample `at` of a row that begins at `start`.
fn neighbours(samples: &[u8], start: usize, at: usize, line: usize, channels: usize) -> (u8, u8, u8) {
    let (index, has_left, has_above) = (start + at, at >= channels, start >= line);
    (
        if has_left { samples[index - channels] } else { 0 },
        if has_above { samples[index - line] } else { 0 },
        if has_left && has_above { samples[index - line - channels] } else { 0 },
    )
}

fn unfilter(raw: &[u8], line: usize, channels: usize) -> Option<Vec<u8>> {
    let mut samples = Vec::with_capacity(raw.len());
    for row in raw.chunks_exact(line + 1) {
        let start = samples.len();
        if row[0] > 4 {
            return None;
        }
        for (at, &byte) in row[1..].iter().enumerate() {
            let (left, above, corner) = neighbours(&samples, start, at, line, channels);
            samples.push(byte.wrapping_add(predict(row[0], left, above, corner)));
        }
    }
    Some(samples)
}

/// Filters rows with the filters that they had.
fn filter_again(samples: &[u8], line: usize, channels: usize, raw: &mut [u8]) {
    for (number, row) in raw.chunks_exact_mut(line + 1).enumerate() {
        let (filter, start) = (row[0], number * line);
        for (at, byte) in row[1..].iter_mut().enumerate() {
            let (left, above, corner) = neighbours(samples, start, at, line, channels);
            *byte = samples[start + at].wrapping_sub(predict(filter, left, above, corner));
        }
    }
}

/// Adler-32 of a stream of `length` bytes after its first ones have changed. Both of its sums are linear in the bytes.
fn corrected(check_sum: u32, length: usize, before: &[u8], after: &[u8]) -> u32 {
    const PRIME: i64 = 65_521;
    let (mut low, mut high) = (i64::from(check_sum & 0xffff), i64::from(check_sum >> 16));
    for (index, (&old, &new)) in before.iter().zip(after).enumerate() {
        let change = i64::from(new) - i64::from(old);
        low += change;
        high += change * (((length - index) as i64) % PRIME);
    }
    (high.rem_euclid(PRIME) << 16 | low.rem_euclid(PRIME)) as u32
}
