//! The one Huffman code of all data segments.
//!
//! Samples are 0x20 to 0x2f, all equally frequent. Fifteen of them get 4 bits, so that a half byte is its own code; 0x2f gets 5,
//! the filter byte (0) and the end of block 6 each:
//!
//! ```text
//! 0x20 … 0x2e   0000 … 1110
//! 0x2f          11110
//! filter byte   111110
//! end of block  111111
//! ```
//! That is 4 1/16 bits for a half byte: 1.016 times the data.

use std::sync::OnceLock;

use crate::image::lsb::DATA_AREA;
use crate::image::png::huffman::{canonical_codes, write_dynamic_head};
use crate::image::png::sink::{Code, Sink};

/// Bits of the longest pair of samples.
pub(crate) const PAIR_BITS: u32 = 10;
/// The filter byte, as it is read from the least significant bit up.
pub(crate) const FILTER: Code = Code { bits: 0b01_1111, length: 6 };
/// The end of a block.
pub(crate) const END: Code = Code { bits: 0b11_1111, length: 6 };

pub(crate) struct Tables {
    /// Head of each block: whole bytes …
    pub head: Vec<u8>,
    /// … and the bits after them.
    pub head_bits: Code,
    /// The two samples of a byte.
    pub codes: [Code; 256],
    /// The reverse: for the next ten bits, how many of them make a byte, and above those eight bits the byte. Bits that are no
    /// pair of samples count as ten and a zero: the seal does not authenticate then.
    pub pairs: [u16; 1 << PAIR_BITS],
}

pub(crate) fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(Tables::new)
}

impl Tables {
    fn new() -> Self {
        let mut lengths = [0u8; 257];
        lengths[usize::from(DATA_AREA)..][..15].fill(4);
        lengths[usize::from(DATA_AREA) + 15] = 5;
        (lengths[0], lengths[256]) = (6, 6);
        let symbols = canonical_codes(&lengths);
        debug_assert_eq!((symbols[0], symbols[256]), (FILTER, END));

        let mut sink = Sink::new(vec![0; 256]);
        write_dynamic_head(&mut sink, &lengths, &[0], 0);
        let head_bits = sink.take_pending();
        let head = sink.finish();

        let mut codes = [Code::default(); 256];
        let mut pairs = [PAIR_BITS as u16; 1 << PAIR_BITS];
        for byte in 0..256 {
            let first = symbols[usize::from(DATA_AREA) + (byte >> 4)];
            let second = symbols[usize::from(DATA_AREA) + (byte & 15)];
            let code = Code { bits: first.bits | second.bits << first.length, length: first.length + second.length };
            codes[byte] = code;
            for above in 0..1usize << (PAIR_BITS as u16 - code.length) {
                pairs[usize::from(code.bits) | above << code.length] = (byte as u16) << 8 | code.length;
            }
        }
        Tables { head, head_bits, codes, pairs }
    }
}
