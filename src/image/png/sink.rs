//! Where a PNG file is written: a buffer of a size known beforehand, with bytes, bits and chunks.

use crate::image::png::SIGNATURE;

/// Bytes that a chunk takes beside its data.
pub(crate) const CHUNK_OVERHEAD: usize = 12;

/// Writes into a buffer that is large enough for the whole file; bits go least significant first, as in DEFLATE (RFC 1951).
#[derive(Debug)]
pub(crate) struct Sink {
    bytes: Vec<u8>,
    at: usize,
    bits: u64,
    pending: u32,
}

/// Where an open chunk began.
#[derive(Debug)]
#[must_use]
pub(crate) struct OpenChunk(usize);

impl Sink {
    /// Writes over `buffer`, whose length bounds the file.
    pub fn new(buffer: Vec<u8>) -> Self {
        Sink { bytes: buffer, at: 0, bits: 0, pending: 0 }
    }

    /// The file: what was written.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.truncate(self.at);
        self.bytes
    }

    /// Writes whole bytes; no bits may be pending.
    pub fn put(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.pending, 0);
        self.space(bytes.len()).copy_from_slice(bytes);
    }

    /// The next `length` bytes, to be filled by the caller.
    pub fn space(&mut self, length: usize) -> &mut [u8] {
        let start = self.at;
        self.at += length;
        &mut self.bytes[start..start + length]
    }

    /// Writes the signature and the header chunk of an 8-bit picture that is not interlaced. `colour` as in the standard.
    pub fn header(&mut self, width: u32, height: u32, colour: u8) {
        self.put(&SIGNATURE);
        let chunk = self.open(b"IHDR");
        self.put(&width.to_be_bytes());
        self.put(&height.to_be_bytes());
        self.put(&[8, colour, 0, 0, 0]);
        self.close(chunk);
    }

    /// Begins a chunk.
    pub fn open(&mut self, kind: &[u8; 4]) -> OpenChunk {
        let start = self.at;
        self.space(4);
        self.space(4).copy_from_slice(kind);
        OpenChunk(start)
    }

    /// Ends a chunk: writes its length and, while its data is still in the cache, its check sum. Pending bits go into the next
    /// chunk of the stream.
    pub fn close(&mut self, OpenChunk(start): OpenChunk) {
        let length = (self.at - start - 8) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
        let sum = crc32fast::hash(&self.bytes[start + 4..self.at]);
        self.space(4).copy_from_slice(&sum.to_be_bytes());
    }

    /// Writes a chunk of its own.
    pub fn chunk(&mut self, kind: &[u8; 4], data: &[u8]) {
        let chunk = self.open(kind);
        self.put(data);
        self.close(chunk);
    }

    /// Writes the lowest `count` ≤ 32 bits of `bits`; the others must be zero.
    pub fn put_bits(&mut self, bits: u32, count: u32) {
        self.bits |= u64::from(bits) << self.pending;
        self.pending += count;
        while self.pending >= 8 {
            self.space(1)[0] = self.bits as u8;
            self.bits >>= 8;
            self.pending -= 8;
        }
    }

    /// Takes the bits that do not fill a byte.
    pub fn take_pending(&mut self) -> Code {
        let code = Code { bits: self.bits as u16, length: self.pending as u16 };
        (self.bits, self.pending) = (0, 0);
        code
    }

    /// How many bits wait for the rest of their byte.
    pub fn pending_bits(&self) -> u32 {
        self.pending
    }

    /// Fills up the last byte with zero bits.
    pub fn align(&mut self) {
        if self.pending > 0 {
            self.put_bits(0, 8 - self.pending);
        }
    }

    /// Writes one code for each byte of `data`. Codes have at most 12 bits.
    pub fn put_codes(&mut self, data: &[u8], codes: &[Code; 256]) {
        let (mut bits, mut pending, mut at) = (self.bits, self.pending, self.at);
        let (fours, rest) = data.as_chunks::<4>();
        for four in fours {
            // At most 7 + 4 × 12 bits are pending.
            for &byte in four {
                let code = codes[usize::from(byte)];
                bits |= u64::from(code.bits) << pending;
                pending += u32::from(code.length);
            }
            self.bytes[at..at + 8].copy_from_slice(&bits.to_le_bytes());
            at += (pending / 8) as usize;
            bits >>= pending & !7;
            pending &= 7;
        }
        (self.bits, self.pending, self.at) = (bits, pending, at);
        for &byte in rest {
            let code = codes[usize::from(byte)];
            self.put_bits(u32::from(code.bits), u32::from(code.length));
        }
    }
}

/// A Huffman code as it is written: `bits` holds it from the least significant bit up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Code {
    /// The code.
    pub bits: u16,
    /// Its length in bits; 0 if the symbol does not occur.
    pub length: u16,
}
