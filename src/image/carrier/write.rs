//! Writing a sealed picture.

use simd_adler32::Adler32;

use crate::image::carrier::tables::{END, FILTER, tables};
use crate::image::carrier::{LAYOUT_CHUNK, Layout};
use crate::image::cover::Banner;
use crate::image::lsb::write_nibbles;
use crate::image::png::encode::{EMPTY_STORED, stored_block};
use crate::image::png::sink::Sink;
use crate::image::scratch::Scratch;
use crate::protocol::job::SealForm;

/// The most bytes that the file can take.
pub(crate) fn bound(layout: &Layout, banner: &Banner, form: SealForm) -> usize {
    let segments = (layout.data_rows as usize).div_ceil(layout.rows_per_segment());
    let data = match form {
        SealForm::Stored => layout.data_rows as usize * layout.raw_row_bytes(),
        // A half byte takes 5 bits at most, a filter byte 6.
        SealForm::Compact => layout.data_bytes() * 5 / 4 + layout.data_rows as usize,
    };
    data + 128 * segments + banner.chunks.len() + 256
}

/// Writes the picture that carries `data`, which fills the data area.
pub(crate) fn write(data: &[u8], layout: &Layout, banner: &Banner, form: SealForm, scratch: &mut Scratch) -> Vec<u8> {
    debug_assert_eq!(data.len(), layout.data_bytes());
    let mut sink = Sink::new(scratch.take(bound(layout, banner, form)));
    sink.header(layout.width, layout.height(), 2);
    sink.chunk(&LAYOUT_CHUNK, &banner.rows.to_be_bytes());
    sink.put(&banner.chunks);
    let mut check_sum = Adler32::from_checksum(banner.check_sum);
    let mut raw = vec![0; layout.rows_per_segment() * layout.raw_row_bytes()];
    for segment in data.chunks(layout.segment_bytes()) {
        let raw_bytes = segment.len() / layout.row_bytes() * layout.raw_row_bytes();
        match form {
            SealForm::Stored => stored_block(raw_bytes, &mut sink, &mut check_sum, |raw| rows(segment, layout, raw)),
            SealForm::Compact => {
                let raw = &mut raw[..raw_bytes];
                rows(segment, layout, raw);
                check_sum.write(raw);
                compact_segment(segment, layout, &mut sink);
            }
        }
    }
    let chunk = sink.open(b"IDAT");
    sink.put(&[1]);
    sink.put(&EMPTY_STORED);
    sink.put(&check_sum.finish().to_be_bytes());
    sink.close(chunk);
    sink.chunk(b"IEND", &[]);
    sink.finish()
}

/// The rows of a segment as samples, each behind its filter byte.
fn rows(segment: &[u8], layout: &Layout, raw: &mut [u8]) {
    for (row, raw) in segment.chunks_exact(layout.row_bytes()).zip(raw.chunks_exact_mut(layout.raw_row_bytes())) {
        raw[0] = 0;
        write_nibbles(&mut raw[1..], row);
    }
}

fn compact_segment(segment: &[u8], layout: &Layout, sink: &mut Sink) {
    let tables = tables();
    let chunk = sink.open(b"IDAT");
    sink.put(&tables.head);
    sink.put_bits(tables.head_bits.bits.into(), tables.head_bits.length.into());
    for row in segment.chunks_exact(layout.row_bytes()) {
        sink.put_bits(FILTER.bits.into(), FILTER.length.into());
        sink.put_codes(row, &tables.codes);
    }
    // The end of the block, and the three bits of an empty stored one.
    sink.put_bits(END.bits.into(), u32::from(END.length) + 3);
    sink.align();
    sink.put(&EMPTY_STORED);
    sink.close(chunk);
}
