//! Reading a sealed picture: our own segments directly, any other lossless form through a decoder.

use crate::image::carrier::tables::{END, FILTER, NO_PAIR, PAIR_BITS, Tables, tables};
use crate::image::carrier::{LAYOUT_CHUNK, LOCATOR, Layout, WIDTHS};
use crate::image::decode::decode;
use crate::image::error::ImageError;
use crate::image::limits::Limits;
use crate::image::lsb::read_nibbles;
use crate::image::png::encode::EMPTY_STORED;
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

/// Segments that are decoded at a time: enough to keep a core busy while each lane waits for its own last byte.
const LANES: usize = 4;

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
        let tables = tables();
        let (segment_groups, segments_left) = segments.as_chunks::<LANES>();
        let mut groups = data.chunks_mut(size * LANES);
        let mut left = &mut [][..];
        for group in segment_groups {
            let data = groups.next()?;
            if data.len() < size * LANES {
                // The very last segment is among these, and shorter than the others.
                left = data;
                for (segment, data) in group.iter().zip(left.chunks_mut(size)) {
                    self.compact(tables, [*segment], [data])?;
                }
                return Some(());
            }
            let (first, second) = data.split_at_mut(2 * size);
            let ((a, b), (c, d)) = (first.split_at_mut(size), second.split_at_mut(size));
            self.compact(tables, *group, [a, b, c, d])?;
        }
        if let Some(data) = groups.next() {
            left = data;
        }
        segments_left
            .iter()
            .zip(left.chunks_mut(size))
            .try_for_each(|(segment, data)| self.compact(tables, [*segment], [data]))
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
        let mut lanes = [Lane::default(); N];
        for (lane, (start, _)) in lanes.iter_mut().zip(segments) {
            let head = self.file.get(start..start + tables.head.len())?;
            if head != tables.head {
                return None;
            }
            lane.at = start + tables.head.len();
            lane.refill(self.file)?;
            if !lane.skip(tables.head_bits) {
                return None;
            }
        }
        let row_bytes = self.layout.row_bytes();
        let mut seen = 0;
        for row in 0..data[0].len() / row_bytes {
            for lane in &mut lanes {
                lane.refill(self.file)?;
                if !lane.skip(FILTER) {
                    return None;
                }
            }
            let from = row * row_bytes;
            for at in (from..from + row_bytes).step_by(4) {
                for (lane, data) in lanes.iter_mut().zip(&mut data) {
                    lane.refill(self.file)?;
                    let mut four = [0; 4];
                    for byte in &mut four {
                        let entry = tables.pairs[lane.bits as usize % (1 << PAIR_BITS)];
                        seen |= entry;
                        *byte = entry as u8;
                        lane.drop(u32::from(entry >> 8 & 15));
                    }
                    data[at..at + 4].copy_from_slice(&four);
                }
            }
        }
        for (lane, (_, end)) in lanes.iter_mut().zip(segments) {
            lane.refill(self.file)?;
            // The end of the block, the three bits of an empty stored block, and the rest of it from the next whole byte on.
            let rest = (lane.position() + u64::from(END.length) + 3).div_ceil(8) as usize;
            let whole = lane.skip(END) && lane.bits & 7 == 0;
            if !whole || rest + 4 != end || self.file.get(rest..end)? != EMPTY_STORED {
                return None;
            }
        }
        (seen & NO_PAIR == 0).then_some(())
    }
}

/// Whether every chunk of a PNG file has the check sum that it says.
pub(crate) fn is_intact(file: &[u8]) -> bool {
    Chunks::new(file).all(|chunk| chunk.is_intact())
}

/// A reader of bits, least significant first.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    bits: u64,
    count: u32,
    at: usize,
}

impl Lane {
    /// Makes sure that at least 56 bits are there. Bits above `count` may be set: they are those of the next byte.
    #[inline(always)]
    fn refill(&mut self, file: &[u8]) -> Option<()> {
        let next = file.get(self.at..)?.first_chunk::<8>()?;
        self.bits |= u64::from_le_bytes(*next) << self.count;
        self.at += ((63 - self.count) / 8) as usize;
        self.count |= 56;
        Some(())
    }

    #[inline(always)]
    fn drop(&mut self, count: u32) {
        self.bits >>= count;
        self.count -= count;
    }

    /// Whether `code` comes next; if so it is taken.
    #[inline(always)]
    fn skip(&mut self, code: crate::image::png::sink::Code) -> bool {
        let is_next = self.bits & ((1 << code.length) - 1) == u64::from(code.bits);
        self.drop(u32::from(code.length));
        is_next
    }

    /// How many bits of the file were taken.
    fn position(&self) -> u64 {
        self.at as u64 * 8 - u64::from(self.count)
    }
}
