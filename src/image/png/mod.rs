//! A small PNG writer (ISO/IEC 15948) of our own: Huffman codes straight from the data, stored blocks, and chunks.
//!
//! General encoders spend most of their time on looking for repetitions, of which neither photographs nor ciphertext have any.

pub(crate) mod encode;
pub(crate) mod filter;
pub(crate) mod huffman;
pub(crate) mod inflate;
pub(crate) mod sink;
pub(crate) mod splice;

/// The first eight bytes of every PNG file.
pub(crate) const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// A chunk of a PNG file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk<'a> {
    /// Its four letters.
    pub kind: [u8; 4],
    /// Its data.
    pub data: &'a [u8],
    /// Where its data begins in the file.
    pub start: usize,
    crc: [u8; 4],
}

impl Chunk<'_> {
    /// Whether the check sum is right.
    pub fn is_intact(&self) -> bool {
        crc(&self.kind, self.data) == self.crc
    }
}

/// The chunks of a PNG file that begins with [`SIGNATURE`], up to the first that is not complete. Reads headers only.
#[derive(Clone, Debug)]
pub(crate) struct Chunks<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Chunks<'a> {
    pub fn new(file: &'a [u8]) -> Self {
        Chunks { file, at: SIGNATURE.len() }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let (head, rest) = self.file.get(self.at..)?.split_first_chunk::<8>()?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (data, rest) = rest.split_at_checked(length)?;
        let crc = *rest.first_chunk::<4>()?;
        let start = self.at + 8;
        self.at = start + length + 4;
        Some(Chunk { kind: [head[4], head[5], head[6], head[7]], data, start, crc })
    }
}

fn crc(kind: &[u8; 4], data: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(kind);
    hasher.update(data);
    hasher.finalize().to_be_bytes()
}
