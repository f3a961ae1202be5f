//! Reading a sealed picture: our own segments directly, any other lossless form through a decoder.

use crate::image::carrier::tables::{END, FILTER, PAIR_BITS, Tables, tables};
use crate::image::carrier::{LAYOUT_CHUNK, LOCATOR, Layout, WIDTHS};
use crate::image::decode::decode;
use crate::image::error::ImageError;
use crate::image::limits::Limits;
use crate::image::lsb::read_nibbles;
use crate::image::png::encode::EMPTY_STORED;
use crate::image::png::sink::Code;
use crate::image::png::{Chunks, SIGNATURE};
use crate::image::probe::{Format, probe};
use crate::image::scratch::Scratch;
use crate::protocol::job::SealForm;

/// A sealed picture whose data can be read.
#[derive(Debug)]
pub(crate) struct Container<'a> {
    file: &'a [u8],
    pub layout: Layout,
    /// How it is written; none if other software wrote it anew.
    pub form: Option<SealForm>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Where the segments begin and end in the file.
    Segments(Vec<(usize, usize)>),
    /// The data of a file that was decoded.
    Data(Vec<u8>),
}

impl<'a> Container<'a> {
    /// Recognises a file as our own writer makes it, by its chunks alone; nothing is decoded and nothing allocated that the
    /// file's own length does not pay for. No check sums are computed: the seal authenticates itself.
    pub fn direct(file: &'a [u8], limits: &Limits) -> Option<Self> {
        if !file.starts_with(&SIGNATURE) {
            return None;
        }
        let mut chunks = Chunks::new(file);
        let header = chunks.next().filter(|chunk| chunk.kind == *b"IHDR")?;
        let (size, rest) = header.data.split_first_chunk::<8>()?;
        let width = u32::from_be_bytes([size[0], size[1], size[2], size[3]]);
        let height = u32::from_be_bytes([size[4], size[5], size[6], size[7]]);
        if rest != [8, 2, 0, 0, 0] || !WIDTHS.contains(&width) || limits.check_pixels(width, height).is_err() {
            return None;
        }
        let rows = chunks.next().filter(|chunk| chunk.kind == LAYOUT_CHUNK)?;
        let banner_rows = u32::from_be_bytes(rows.data.try_into().ok()?);
        let data_rows = height.checked_sub(banner_rows).filter(|&rows| rows > 0)?;
        let layout = Layout { width, banner_rows, data_rows };

        let mut data: Vec<(usize, usize)> = Vec::new();
        let mut ended = false;
        for chunk in chunks {
            match &chunk.kind {
                b"IDAT" if !ended => data.push((chunk.start, chunk.start + chunk.data.len())),
                b"IEND" if !ended => ended = true,
                _ => return None,
            }
        }
        let count = (data_rows as usize).div_ceil(layout.rows_per_segment());
        // The last chunk has the check sum.
        data.pop()?;
        let segments = data.split_off(data.len().checked_sub(count).filter(|_| ended)?);
        let (first, _) = *segments.first()?;
        let form = if *file.get(first)? == 0 { SealForm::Stored } else { SealForm::Compact };
        let container = Container { file, layout, form: Some(form), source: Source::Segments(Vec::new()) };
        let long_enough = segments.iter().enumerate().all(|(index, &(start, end))| {
            let bytes = container.segment_bytes(index);
            match form {
                SealForm::Stored => end - start == 5 + bytes / layout.row_bytes() * layout.raw_row_bytes(),
                SealForm::Compact => end - start > bytes,
            }
        });
        long_enough.then_some(Container { source: Source::Segments(segments), ..container })
    }

    /// Decodes a file that other software wrote anew without loss, and looks for the locator in its samples.
    pub fn decoded(file: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let probe = probe(file, limits)?;
        if probe.format == Format::Jpeg || probe.animated || probe.width < WIDTHS[0] || !probe.width.is_multiple_of(16)
        {
            return Err(ImageError::NotSealed);
        }
        let decoded = decode(file, &probe, limits, &mut Scratch::new(0))?;
        let samples = match decoded.channels {
            3 => decoded.samples,
            4 => decoded.samples.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
            _ => return Err(ImageError::NotSealed),
        };
        let mut found = [0; 8];
        read_nibbles(&samples[..16], &mut found);
        let [a, b, c, d, e, f, g, h] = found;
        let banner_rows = u32::from_be_bytes([e, f, g, h]);
        if [a, b, c, d] != LOCATOR || banner_rows >= decoded.height {
            return Err(ImageError::NotSealed);
        }
        let layout = Layout { width: decoded.width, banner_rows, data_rows: decoded.height - banner_rows };
        let mut data = vec![0; layout.data_bytes()];
        read_nibbles(&samples[samples.len() - 2 * data.len()..], &mut data);
        Ok(Container { file, layout, form: None, source: Source::Data(data) })
    }

    /// Bytes of data in the segment of this number.
    fn segment_bytes(&self, index: usize) -> usize {
        let before = index * self.layout.segment_bytes();
        self.layout.segment_bytes().min(self.layout.data_bytes() - before)
    }

    /// At least the first `length` bytes of the data, as whole segments. None if a segment is not of our own form, or if there
    /// are fewer.
    pub fn beginning(&self, length: usize) -> Option<Vec<u8>> {
        match &self.source {
            Source::Data(data) => data.get(..length).map(<[u8]>::to_vec),
            Source::Segments(segments) => {
                let count = length.div_ceil(self.layout.segment_bytes());
                let mut data = vec![0; (0..count.min(segments.len())).map(|index| self.segment_bytes(index)).sum()];
                self.read_segments(segments.get(..count)?, &mut data)?;
                (data.len() >= length).then_some(data)
            }
        }
    }

    /// `length` bytes of data from `skip` on, where `beginning` is what [`Self::beginning`] gave for at least `skip` bytes.
    pub fn payload(self, beginning: &[u8], skip: usize, length: usize) -> Option<Vec<u8>> {
        if skip.checked_add(length)? > self.layout.data_bytes() {
            return None;
        }
        match self.source {
            Source::Data(mut data) => {
                data.truncate(skip + length);
                data.drain(..skip);
                Some(data)
            }
            Source::Segments(ref segments) => {
                let read = beginning.len().div_ceil(self.layout.segment_bytes());
                // The area's last row is longer than the payload.
                let known = beginning.len() - skip;
                let mut data = vec![0; known + self.layout.data_bytes() - beginning.len()];
                data[..known].copy_from_slice(&beginning[skip..]);
                self.read_segments(&segments[read..], &mut data[known..])?;
                data.truncate(length);
                Some(data)
            }
        }
    }

    /// Decodes consecutive segments, of which only the last may be short.
    fn read_segments(&self, segments: &[(usize, usize)], data: &mut [u8]) -> Option<()> {
        let size = self.layout.segment_bytes();
        if self.form == Some(SealForm::Stored) {
            return segments
                .iter()
                .zip(data.chunks_mut(size))
                .try_for_each(|(segment, data)| self.stored(*segment, data));
        }
        let (mut segments, mut data) = (segments, data);
        segments = self.read_groups::<8>(segments, &mut data)?;
        segments = self.read_groups::<4>(segments, &mut data)?;
        segments = self.read_groups::<2>(segments, &mut data)?;
        segments = self.read_groups::<1>(segments, &mut data)?;
        // The last segment of a picture may be short.
        segments.first().map_or(Some(()), |last| self.compact(tables(), [*last], [data]))
    }

    /// Decodes segments of full size, `N` at a time, while there are as many; returns the others.
    fn read_groups<'s, const N: usize>(
        &self,
        segments: &'s [(usize, usize)],
        data: &mut &mut [u8],
    ) -> Option<&'s [(usize, usize)]> {
        let size = self.layout.segment_bytes();
        let mut segments = segments;
        while let Some((group, rest)) = segments.split_first_chunk::<N>()
            && data.len() >= N * size
        {
            let (now, later) = std::mem::take(data).split_at_mut(N * size);
            let mut parts = now.chunks_exact_mut(size);
            self.compact(tables(), *group, std::array::from_fn(|_| parts.next().unwrap_or_default()))?;
            (segments, *data) = (rest, later);
        }
        Some(segments)
    }

    fn stored(&self, (start, end): (usize, usize), data: &mut [u8]) -> Option<()> {
        let (head, raw) = self.file.get(start..end)?.split_first_chunk::<5>()?;
        let length = u16::try_from(raw.len()).ok()?;
        let [l0, l1] = length.to_le_bytes();
        if *head != [0, l0, l1, !l0, !l1] {
            return None;
        }
        let rows = raw.chunks_exact(self.layout.raw_row_bytes()).zip(data.chunks_exact_mut(self.layout.row_bytes()));
        for (raw, row) in rows {
            if raw[0] != 0 {
                return None;
            }
            read_nibbles(&raw[1..], row);
        }
        Some(())
    }

    /// Decodes `N` segments of equal size side by side.
    fn compact<const N: usize>(
        &self,
        tables: &Tables,
        segments: [(usize, usize); N],
        mut data: [&mut [u8]; N],
    ) -> Option<()> {
        let file = self.file;
        let mut lanes = segments.map(|(start, _)| Lane { position: 8 * (start + tables.head.len()) });
        for (lane, (start, _)) in lanes.iter_mut().zip(segments) {
            if file.get(start..start + tables.head.len())? != tables.head || !lane.skip(file, tables.head_bits)? {
                return None;
            }
        }
        let row_bytes = self.layout.row_bytes();
        for row in 0..data[0].len() / row_bytes {
            for lane in &mut lanes {
                if !lane.skip(file, FILTER)? {
                    return None;
                }
            }
            for at in (row * row_bytes..(row + 1) * row_bytes).step_by(4) {
                for (lane, data) in lanes.iter_mut().zip(&mut data) {
                    let four = lane.four_bytes(file, &tables.pairs)?;
                    *data.get_mut(at..)?.first_chunk_mut::<4>()? = four;
                }
            }
        }
        for (lane, (_, end)) in lanes.iter_mut().zip(segments) {
            // The end of the block, the three bits of an empty stored block, and the rest of it from the next whole byte on.
            let is_end = lane.skip(file, END)? && lane.skip(file, Code { bits: 0, length: 3 })?;
            let rest = lane.position.div_ceil(8);
            if !is_end || rest + EMPTY_STORED.len() != end || file.get(rest..end)? != EMPTY_STORED {
                return None;
            }
        }
        Some(())
    }
}

/// Whether every chunk of a PNG file has the check sum that it says.
pub(crate) fn is_intact(file: &[u8]) -> bool {
    Chunks::new(file).all(|chunk| chunk.is_intact())
}

/// A reader of bits, least significant first. Its position is all that it keeps, so that many fit into the registers.
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// Bits of the file before it.
    position: usize,
}

impl Lane {
    /// The next 57 bits at least.
    #[inline(always)]
    fn peek(self, file: &[u8]) -> Option<u64> {
        let next = file.get(self.position / 8..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*next) >> (self.position % 8))
    }

    /// Takes a code, and says whether it was this one.
    #[inline(always)]
    fn skip(&mut self, file: &[u8], code: Code) -> Option<bool> {
        let is_next = self.peek(file)? & ((1 << code.length) - 1) == u64::from(code.bits);
        self.position += usize::from(code.length);
        Some(is_next)
    }

    /// Takes eight samples, 40 bits at most.
    #[inline(always)]
    fn four_bytes(&mut self, file: &[u8], pairs: &[u16; 1 << PAIR_BITS]) -> Option<[u8; 4]> {
        let mut bits = self.peek(file)?;
        let (mut four, mut taken) = ([0; 4], 0u32);
        for byte in &mut four {
            let entry = pairs[bits as usize % (1 << PAIR_BITS)];
            *byte = (entry >> 8) as u8;
            bits >>= entry & 63;
            // The bytes add up above the lengths, and are cut off below.
            taken += u32::from(entry);
        }
        self.position += (taken & 63) as usize;
        Some(four)
    }
}
