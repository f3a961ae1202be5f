//! The promises of the image code, through its public interface.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::io::Cursor;

use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat};
use image_cloud::image::*;
use image_cloud::protocol::job::{Label, SealForm};
use image_cloud::protocol::problem::ProblemCode;
use proptest::prelude::*;

const FORMS: [SealForm; 2] = [SealForm::Compact, SealForm::Stored];

/// Bytes that look random, the same in every run.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

/// A PNG of this colour type and depth with random samples.
fn png_of(width: u32, height: u32, colour: png::ColorType, depth: png::BitDepth, seed: u64) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == png::ColorType::Indexed {
        encoder.set_palette(noise(3 << depth as u8, 3));
    }
    let line = (width as usize * colour.samples() * depth as usize).div_ceil(8);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&noise(line * height as usize, seed)).unwrap();
    drop(writer);
    file
}

fn rgb_png(width: u32, height: u32, seed: u64) -> Vec<u8> {
    png_of(width, height, png::ColorType::Rgb, png::BitDepth::Eight, seed)
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn decoded(file: &[u8]) -> DynamicImage {
    image::load_from_memory(file).unwrap()
}

/// Inserts a chunk behind the header.
fn with_chunk(png: &[u8], kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut chunk = (data.len() as u32).to_be_bytes().to_vec();
    chunk.extend_from_slice(kind);
    chunk.extend_from_slice(data);
    let sum = crc32fast::hash(&chunk[4..]);
    chunk.extend_from_slice(&sum.to_be_bytes());
    [&png[..33], &chunk, &png[33..]].concat()
}

fn bob(quota: u64) -> Label {
    Label { usernames: vec!["alice".into(), "bob".into()], quota }
}

fn labelled(file: &[u8]) -> Result<Vec<u8>, ImageError> {
    label(file, &bob(5), &Limits::default(), SealForm::Compact, &mut Scratch::default())
}

fn key() -> ClusterKey {
    ClusterKey::new([7; 32])
}

fn keys(seed: u8) -> SealKeys {
    SealKeys {
        cluster_key: key(),
        cluster_id: ClusterId([9; 32]),
        image_nonce: ImageNonce([seed; 32]),
        data_key: DataKey([seed ^ 0x55; 32]),
    }
}

fn sealed(original: &[u8], form: SealForm) -> Vec<u8> {
    let options = SealOptions { form, ..SealOptions::default() };
    seal(original, "cat.png", &keys(1), &options, &Limits::default(), &mut Scratch::default()).unwrap()
}

fn unsealed(file: &[u8]) -> Result<Unsealed, ImageError> {
    unseal(file, &key(), &Limits::default())
}

// ---- labels ----------------------------------------------------------------------------------------------------------

#[test]
fn the_worked_example_of_an_8_by_8_picture_holds() {
    // 64 RGB pixels are 192 samples: 32 bits of length and room for 20 bytes, less than any label's JSON.
    let file = rgb_png(8, 8, 1);
    assert_eq!(capacity(&file, &Limits::default()).unwrap().label_bytes, 20);
    let empty = Label { usernames: vec![], quota: 0 };
    let result = label(&file, &empty, &Limits::default(), SealForm::Stored, &mut Scratch::default());
    assert_eq!(result, Err(ImageError::CarrierTooSmall { need_bytes: 26, have_bytes: 20 }));
}

#[test]
fn the_bits_are_where_the_documentation_says() {
    for form in FORMS {
        let file = rgb_png(16, 16, 2);
        let mark = Label { usernames: vec!["bob".into()], quota: 5 };
        let output = label(&file, &mark, &Limits::default(), form, &mut Scratch::default()).unwrap();
        let (before, after) = (decoded(&file).into_rgb8(), decoded(&output).into_rgb8());
        let json = br#"{"usernames":["bob"],"quota":5}"#;
        let message = [&(json.len() as u32).to_be_bytes()[..], json].concat();
        for (index, (&new, &old)) in after.as_raw().iter().zip(before.as_raw()).enumerate() {
            let bit = message.get(index / 8).map_or(old & 1, |byte| byte >> (7 - index % 8) & 1);
            assert_eq!(new, old & 0xfe | bit, "sample {index}, {form:?}");
        }
    }
}

/// Decodes with every check sum checked.
fn strictly_decoded(file: &[u8]) -> Vec<u8> {
    let mut options = png::DecodeOptions::default();
    options.set_ignore_adler32(false);
    let mut reader = png::Decoder::new_with_options(Cursor::new(file), options).read_info().unwrap();
    let mut samples = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut samples).unwrap();
    reader.finish().unwrap();
    samples
}

#[test]
fn a_large_png_is_changed_in_its_first_rows_and_nowhere_else() {
    use png::{Compression, Filter};
    for seed in 0..24u32 {
        // Soft noise, so that there are literals, matches and several blocks.
        let colour = if seed % 3 == 0 { png::ColorType::Grayscale } else { png::ColorType::Rgb };
        let (width, height) = (400 + 7 * seed, 300);
        let line = width as usize * colour.samples();
        let samples: Vec<u8> = noise(line * height as usize, seed.into())
            .iter()
            .enumerate()
            .map(|(index, grain)| (index / line / 2 + index % line / 9) as u8 ^ (grain & [1, 7, 31][seed as usize % 3]))
            .collect();
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(colour);
        encoder
            .set_compression([Compression::Balanced, Compression::High, Compression::NoCompression][seed as usize / 8]);
        encoder.set_filter([Filter::Adaptive, Filter::Avg, Filter::Paeth, Filter::Sub, Filter::Up][seed as usize % 5]);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&samples).unwrap();
        drop(writer);
        let output = labelled(&file).unwrap();
        assert_eq!(read_label(&output, &Limits::default()), Ok(bob(5)), "seed {seed}");
        let after = strictly_decoded(&output);
        let json = serde_json::to_vec(&bob(5)).unwrap();
        let carried = 8 * (4 + json.len());
        assert!(after[carried..] == samples[carried..], "seed {seed}");
        assert!(after.iter().zip(&samples).all(|(new, old)| new ^ old < 2), "seed {seed}");
        if seed >= 16 && seed % 3 != 0 {
            // It was stored and still is, but for its beginning; written anew it would take a third less.
            assert!(output.len() > file.len() * 3 / 4, "seed {seed}: {} of {}", output.len(), file.len());
        }
    }
}

#[test]
fn every_colour_type_and_depth_comes_back_with_its_label_and_pixels() {
    use png::{BitDepth::*, ColorType::*};
    let all = [
        (Grayscale, One, "grey"),
        (Grayscale, Two, "grey"),
        (Grayscale, Four, "grey"),
        (Grayscale, Eight, "grey"),
        (Grayscale, Sixteen, "grey"),
        (Rgb, Eight, "rgb"),
        (Rgb, Sixteen, "rgb"),
        (Indexed, One, "rgb"),
        (Indexed, Four, "rgb"),
        (Indexed, Eight, "rgb"),
        (GrayscaleAlpha, Eight, "grey+alpha"),
        (GrayscaleAlpha, Sixteen, "grey+alpha"),
        (Rgba, Eight, "rgb+alpha"),
        (Rgba, Sixteen, "rgb+alpha"),
    ];
    for (colour, depth, expected) in all {
        // Random alpha is opaque in one pixel of 256, so pictures with alpha are larger.
        let side = if colour.samples().is_multiple_of(2) { 500 } else { 40 };
        let file = png_of(side, side, colour, depth, 5);
        let what = format!("{colour:?} {depth:?}");
        let found = capacity(&file, &Limits::default()).unwrap();
        assert_eq!(found.colour, expected, "{what}");
        let output = labelled(&file).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(read_label(&output, &Limits::default()), Ok(bob(5)), "{what}");
        let mut reader = png::Decoder::new(Cursor::new(&file[..]));
        reader.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
        let mut reader = reader.read_info().unwrap();
        let mut before = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut before).unwrap();
        let after = decoded(&output);
        let changed = before.iter().zip(after.as_bytes()).filter(|(old, new)| old != new);
        assert!(changed.clone().all(|(old, new)| old ^ new == 1), "{what}: only lowest bits change");
        assert!(changed.count() <= 8 * 60, "{what}: only the label's samples change");
    }
}

#[test]
fn transparent_pixels_and_alpha_are_left_alone() {
    let mut picture = image::RgbaImage::from_raw(64, 64, noise(64 * 64 * 4, 8)).unwrap();
    picture.pixels_mut().enumerate().for_each(|(index, pixel)| pixel[3] = [255, 254, 0, 128][index % 4]);
    let output = labelled(&encoded(&DynamicImage::from(picture.clone()), ImageFormat::Png)).unwrap();
    let after = decoded(&output).into_rgba8();
    for (old, new) in picture.pixels().zip(after.pixels()) {
        assert_eq!(old[3], new[3]);
        assert!(old[3] == 255 || old == new);
    }
    assert_eq!(read_label(&output, &Limits::default()), Ok(bob(5)));
}

#[test]
fn a_transparent_colour_becomes_alpha_and_its_pixels_stay() {
    let file = with_chunk(&rgb_png(40, 40, 3), b"tRNS", &[0, 1, 0, 2, 0, 3]);
    assert_eq!(capacity(&file, &Limits::default()).unwrap().colour, "rgb+alpha");
    assert_eq!(read_label(&labelled(&file).unwrap(), &Limits::default()), Ok(bob(5)));
}

#[test]
fn an_interlaced_picture_is_decoded_in_order() {
    // Written by hand, since no encoder at hand interlaces: 8 × 8 grey is seven passes of unfiltered rows.
    let samples = noise(64 * 64, 4);
    let mut raw = Vec::new();
    for (x0, y0, dx, dy) in
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    {
        for y in (y0..64).step_by(dy) {
            raw.push(0);
            raw.extend((x0..64).step_by(dx).map(|x| samples[y * 64 + x]));
        }
    }
    let length = (raw.len() as u16).to_le_bytes();
    let stream = [
        &[0x78, 1, 1, length[0], length[1], !length[0], !length[1]][..],
        &raw,
        &simd_adler32::adler32(&&raw[..]).to_be_bytes(),
    ]
    .concat();
    let base = png_of(64, 64, png::ColorType::Grayscale, png::BitDepth::Eight, 1);
    let mut file = [&base[..8], b"\0\0\0\rIHDR", &base[16..28], &[1]].concat();
    file.extend_from_slice(&crc32fast::hash(&file[12..29]).to_be_bytes());
    let file = with_chunk(&file, b"IDAT", &stream);
    let file = [&file[..], b"\0\0\0\0IEND\xaeB`\x82"].concat();
    let output = labelled(&file).unwrap();
    assert_eq!(read_label(&output, &Limits::default()), Ok(bob(5)));
    assert!(decoded(&output).as_bytes().iter().zip(&samples).all(|(new, old)| new ^ old < 2));
    // A label is also read from a picture that somebody interlaced.
    let plain = labelled(&png_of(64, 64, png::ColorType::Grayscale, png::BitDepth::Eight, 4)).unwrap();
    assert_eq!(read_label(&plain, &Limits::default()), Ok(bob(5)));
}

/// An EXIF block (big-endian TIFF) that holds only an orientation.
fn exif(orientation: u8) -> Vec<u8> {
    [b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", &[orientation][..], b"\0\0\0\0\0\0"].concat()
}

fn jpeg_with(picture: &DynamicImage, marker: u8, data: &[u8]) -> Vec<u8> {
    let file = encoded(picture, ImageFormat::Jpeg);
    let length = (data.len() as u16 + 2).to_be_bytes();
    [&file[..2], &[0xff, marker, length[0], length[1]], data, &file[2..]].concat()
}

#[test]
fn a_rotated_jpeg_is_turned_and_loses_its_exif_data() {
    let picture = DynamicImage::from(image::RgbImage::from_raw(60, 40, noise(7200, 6)).unwrap());
    let file = jpeg_with(&picture, 0xe1, &[b"Exif\0\0", &exif(6)[..]].concat());
    let output = labelled(&file).unwrap();
    let expected = decoded(&encoded(&picture, ImageFormat::Jpeg)).rotate90();
    let after = decoded(&output);
    assert_eq!((after.width(), after.height()), (40, 60));
    assert!(after.as_bytes().iter().zip(expected.as_bytes()).all(|(new, old)| new ^ old < 2));
    assert!(!output.windows(4).any(|window| window == b"eXIf" || window == b"Exif"));
    assert!(
        capacity(&file, &Limits::default()).unwrap().changes.contains(&"the picture is turned as its exif data says")
    );
    // The same in a PNG.
    let png = with_chunk(&rgb_png(60, 40, 6), b"eXIf", &exif(8));
    assert_eq!(decoded(&labelled(&png).unwrap()).width(), 40);
}

#[test]
fn a_colour_profile_is_copied_if_it_is_one_for_the_samples() {
    let picture = DynamicImage::from(image::RgbImage::from_raw(40, 40, noise(4800, 6)).unwrap());
    let profile = |space: &[u8; 4]| [&[0; 16][..], space, &noise(200, 1)].concat();
    for (space, is_copied) in [(b"RGB ", true), (b"CMYK", false)] {
        let icc = profile(space);
        let file = jpeg_with(&picture, 0xe2, &[b"ICC_PROFILE\0\x01\x01", &icc[..]].concat());
        let output = labelled(&file).unwrap();
        let info = png::Decoder::new(Cursor::new(&output[..])).read_info().unwrap();
        assert_eq!(info.info().icc_profile.as_deref() == Some(&icc[..]), is_copied);
        assert_eq!(read_label(&output, &Limits::default()), Ok(bob(5)));
    }
    let file = with_chunk(&rgb_png(40, 40, 1), b"gAMA", &[0, 0, 0xb1, 0x8f]);
    assert!(labelled(&file).unwrap().windows(4).any(|window| window == b"gAMA"));
}

#[test]
fn text_of_the_picture_is_dropped() {
    let file = with_chunk(&rgb_png(40, 40, 1), b"tEXt", b"GPS\0somewhere");
    assert!(!labelled(&file).unwrap().windows(9).any(|window| window == b"somewhere"));
}

#[test]
fn an_animated_picture_is_refused_for_a_label_but_can_be_sealed() {
    let file = with_chunk(&rgb_png(40, 40, 1), b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]);
    assert_eq!(labelled(&file), Err(ImageError::Animated { format: Format::Png }));
    assert_eq!(unsealed(&sealed(&file, SealForm::Compact)).unwrap().original, file);
}

#[test]
fn webp_and_grey_jpeg_take_labels() {
    let picture = DynamicImage::from(image::RgbImage::from_raw(40, 40, noise(4800, 6)).unwrap());
    let grey = DynamicImage::from(picture.to_luma8());
    for file in [encoded(&picture, ImageFormat::WebP), encoded(&grey, ImageFormat::Jpeg)] {
        assert_eq!(read_label(&labelled(&file).unwrap(), &Limits::default()), Ok(bob(5)));
    }
    assert_eq!(capacity(&encoded(&grey, ImageFormat::Jpeg), &Limits::default()).unwrap().colour, "grey");
}

#[test]
fn the_widest_picture_takes_a_label_in_both_forms() {
    // 16,384 × 4 bytes and a filter byte are one byte more than a stored block holds.
    let mut samples = noise(16_384 * 4 * 3, 9);
    samples.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = 255);
    let file =
        encoded(&DynamicImage::from(image::RgbaImage::from_raw(16_384, 3, samples.clone()).unwrap()), ImageFormat::Png);
    for form in FORMS {
        let output = label(&file, &bob(5), &Limits::default(), form, &mut Scratch::default()).unwrap();
        assert_eq!(read_label(&output, &Limits::default()), Ok(bob(5)));
        assert!(decoded(&output).as_bytes().iter().zip(&samples).all(|(new, old)| new ^ old < 2));
    }
}

#[test]
fn a_label_that_is_too_long_or_missing_has_an_error_of_its_own() {
    let long = Label { usernames: vec!["x".repeat(70_000)], quota: 1 };
    let result = label(&rgb_png(9, 9, 1), &long, &Limits::default(), SealForm::Stored, &mut Scratch::default());
    assert!(matches!(result, Err(ImageError::LabelTooLong { limit: 65_536, .. })));
    assert_eq!(read_label(&rgb_png(50, 50, 1), &Limits::default()), Err(ImageError::NoLabel));
    let black = encoded(&DynamicImage::new_rgb8(50, 50), ImageFormat::Png);
    assert_eq!(read_label(&black, &Limits::default()), Err(ImageError::NoLabel));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn any_label_that_fits_comes_back(
        (width, height, seed) in (1u32..200, 1u32..60, any::<u64>()),
        usernames in proptest::collection::vec(".{0,12}", 0..6),
        quota: u64,
        kind in 0usize..4,
        stored: bool,
    ) {
        use png::ColorType::*;
        let colour = [Grayscale, Rgb, Indexed, Rgba][kind];
        let file = png_of(width, height, colour, png::BitDepth::Eight, seed);
        let mark = Label { usernames, quota };
        let form = FORMS[usize::from(stored)];
        let need = serde_json::to_vec(&mark).unwrap().len() as u64;
        let have = capacity(&file, &Limits::default()).unwrap().label_bytes;
        match label(&file, &mark, &Limits::default(), form, &mut Scratch::default()) {
            Ok(output) => {
                prop_assert!(need <= have);
                prop_assert_eq!(read_label(&output, &Limits::default()), Ok(mark));
            }
            Err(ImageError::CarrierTooSmall { need_bytes, .. }) => {
                prop_assert_eq!(need_bytes, need);
                prop_assert!(need > have);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn any_file_comes_back_bit_for_bit(length in 0usize..200_000, seed: u64, stored: bool, name in ".{0,40}") {
        // Whatever follows the end of a picture belongs to the file.
        let original = [rgb_png(3, 3, seed), noise(length, seed)].concat();
        let options = SealOptions { form: FORMS[usize::from(stored)], ..SealOptions::default() };
        let limits = Limits::default();
        let file = seal(&original, &name, &keys(2), &options, &limits, &mut Scratch::default()).unwrap();
        let opened = unsealed(&file).unwrap();
        prop_assert!(opened.original == original);
        prop_assert!(!opened.name.contains(['/', '\\', '\0']) && !opened.name.is_empty());
        prop_assert_eq!(&opened.media_type, "image/png");
        if !stored {
            prop_assert!(file.len() <= original.len() * 11 / 10 + (16 << 10), "{} of {}", file.len(), original.len());
        }
    }

    #[test]
    fn nothing_that_is_cut_off_or_flipped_makes_a_panic(cut in 0.0f64..1.0, flip in 0.0f64..1.0, bit in 0u8..8) {
        for file in [rgb_png(70, 50, 1), sealed(&rgb_png(70, 50, 1), SealForm::Compact),
            sealed(&rgb_png(70, 50, 1), SealForm::Stored), encoded(&DynamicImage::new_rgb8(70, 50), ImageFormat::Jpeg),
            encoded(&DynamicImage::new_rgb8(70, 50), ImageFormat::WebP)]
        {
            let cut = &file[..(file.len() as f64 * cut) as usize];
            prop_assert!(labelled(cut).is_err());
            prop_assert!(unsealed(cut).is_err() && inspect(cut, &Limits::default()).is_err());
            let mut flipped = file.clone();
            flipped[(file.len() as f64 * flip) as usize] ^= 1 << bit;
            let _ = (labelled(&flipped), unsealed(&flipped), inspect(&flipped, &Limits::default()), read_label(&flipped, &Limits::default()));
        }
    }
}

// ---- seals -----------------------------------------------------------------------------------------------------------

#[test]
fn any_viewer_sees_the_banner_in_both_forms() {
    let original = rgb_png(300, 200, 1);
    let [compact, stored] = FORMS.map(|form| sealed(&original, form));
    let (compact, stored) = (decoded(&compact).into_rgb8(), decoded(&stored).into_rgb8());
    assert!(compact == stored, "both forms are the same picture");
    // The padlock's body is red, the corner is the ground.
    assert_eq!(compact.get_pixel(220, 120).0, [0xe5, 0x48, 0x4d]);
    assert_eq!(compact.get_pixel(500, 3).0, [0x28; 3]);
    // Below the banner every sample is nearly black.
    assert!(compact.rows().skip(256).flatten().all(|pixel| pixel.0.iter().all(|sample| sample >> 4 == 2)));
}

#[test]
fn the_banner_takes_less_than_16_kib_beside_the_smallest_pictures() {
    let original = rgb_png(3, 3, 1);
    let file = sealed(&original, SealForm::Compact);
    assert!(file.len() < 14 << 10, "{} bytes", file.len());
}

#[test]
fn the_same_arguments_make_the_same_file_and_scratch_leaves_no_trace() {
    let mut scratch = Scratch::default();
    let (limits, options) = (Limits::default(), SealOptions::default());
    let (small, large) = (rgb_png(50, 50, 1), rgb_png(300, 300, 2));
    let mut one = |original: &[u8]| seal(original, "a", &keys(1), &options, &limits, &mut scratch).unwrap();
    let first = one(&small);
    let other = one(&large);
    let again = one(&small);
    assert!(first == again);
    scratch.give_back(other);
    assert!(first == seal(&small, "a", &keys(1), &options, &limits, &mut scratch).unwrap());
}

#[test]
fn a_file_written_anew_without_loss_still_opens() {
    use image::codecs::png::{CompressionType, FilterType, PngEncoder};
    let original = rgb_png(150, 100, 1);
    for form in FORMS {
        let picture = decoded(&sealed(&original, form));
        for filter in [FilterType::NoFilter, FilterType::Sub, FilterType::Up, FilterType::Paeth, FilterType::Adaptive] {
            let mut file = Vec::new();
            let encoder = PngEncoder::new_with_quality(&mut file, CompressionType::Default, filter);
            encoder
                .write_image(picture.as_bytes(), picture.width(), picture.height(), ExtendedColorType::Rgb8)
                .unwrap();
            assert!(unsealed(&file).unwrap().original == original, "{filter:?}");
            assert_eq!(inspect(&file, &Limits::default()).unwrap().form, None);
        }
        let with_alpha = encoded(&DynamicImage::from(picture.to_rgba8()), ImageFormat::Png);
        assert!(unsealed(&with_alpha).unwrap().original == original);
        let sixteen = encoded(&DynamicImage::from(picture.to_rgb16()), ImageFormat::Png);
        assert!(unsealed(&sixteen).unwrap().original == original);
        let webp = encoded(&picture, ImageFormat::WebP);
        assert!(unsealed(&webp).unwrap().original == original, "lossless webp");
    }
}

fn jpeg(picture: &DynamicImage, quality: u8) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, quality);
    picture.to_rgb8().write_with_encoder(encoder).unwrap();
    file
}

/// A PNG of the palette that gives three bits to red and green and two to blue.
fn with_palette(picture: &DynamicImage) -> Vec<u8> {
    let picture = picture.to_rgb8();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Indexed);
    let level = |bits: u32, most: u32| (bits * 255 / most) as u8;
    let colours = (0..256u32).flat_map(|index| [level(index >> 5, 7), level(index >> 2 & 7, 7), level(index & 3, 3)]);
    encoder.set_palette(colours.collect::<Vec<u8>>());
    let indices = picture.pixels().map(|pixel| pixel.0[0] & 0xe0 | pixel.0[1] >> 3 & 0x1c | pixel.0[2] >> 6);
    encoder.write_header().unwrap().write_image_data(&indices.collect::<Vec<u8>>()).unwrap();
    file
}

#[test]
fn a_copy_whose_pixels_were_changed_is_recognised_by_its_banner() {
    use image::imageops::FilterType::{Lanczos3, Nearest, Triangle};
    // Sealed pictures of 512, 720 and 1440 pixels' width, and the least and the most of payload below the banner.
    for bytes in [100, 390_000, 700_000, 2_500_000] {
        let original = [rgb_png(3, 3, 1), noise(bytes, 4)].concat();
        let picture = decoded(&sealed(&original, SealForm::Stored));
        let mut copies = vec![
            ("a palette".to_owned(), with_palette(&picture)),
            ("shades of grey".to_owned(), encoded(&DynamicImage::from(picture.to_luma8()), ImageFormat::Png)),
        ];
        for quality in [30, 60, 95] {
            copies.push((format!("JPEG of quality {quality}"), jpeg(&picture, quality)));
        }
        for (quarters, filter) in
            [(1, Triangle), (1, Nearest), (2, Lanczos3), (3, Triangle), (5, Nearest), (8, Triangle)]
        {
            let (width, height) = (picture.width() * quarters / 4, picture.height() * quarters / 4);
            let scaled = picture.resize_exact(width, height, filter);
            copies.push((format!("{quarters}/4 with {filter:?}"), encoded(&scaled, ImageFormat::Png)));
            copies.push((format!("{quarters}/4 in WebP"), encoded(&scaled, ImageFormat::WebP)));
            copies.push((format!("{quarters}/4 in a poor JPEG"), jpeg(&scaled, 30)));
            copies.push((format!("{quarters}/4 in a palette"), with_palette(&scaled)));
        }
        for (what, copy) in copies {
            let error = unsealed(&copy).unwrap_err();
            assert_eq!(error, ImageError::ChangedCopy, "{what} of {} x {}", picture.width(), picture.height());
            assert_eq!(header_of(&copy, &Limits::default()).unwrap_err(), ImageError::ChangedCopy, "{what}");
        }
    }
    assert!(ImageError::ChangedCopy.to_string().contains("ask for the original file"));
    assert_eq!(ImageError::ChangedCopy.code(), ProblemCode::BadImage);
}

#[test]
fn what_only_resembles_the_banner_is_not_taken_for_a_changed_copy() {
    let canvas = |draw: &dyn Fn(f32, f32) -> [u8; 3]| {
        DynamicImage::from(image::RgbImage::from_fn(640, 480, |x, y| {
            image::Rgb(draw(x as f32 / 320.0, y as f32 / 320.0))
        }))
    };
    let ground = [0x28; 3];
    let (red, white) = ([0xe5, 0x48, 0x4d], [0xf2, 0xf2, 0xf3]);
    let inside = |x: f32, y: f32, left: f32, top: f32, right: f32, bottom: f32| {
        (left..right).contains(&x) && (top..bottom).contains(&y)
    };
    let pictures: Vec<(&str, DynamicImage)> = vec![
        ("the banner's ground alone", canvas(&|_, _| ground)),
        ("a night with one red light", canvas(&|x, y| if (x - 1.0).hypot(y - 0.45) < 0.2 { red } else { ground })),
        (
            "a red plate where the lock is",
            canvas(&|x, y| if inside(x, y, 0.82, 0.17, 1.18, 0.58) { red } else { ground }),
        ),
        (
            "a white bar where the words are",
            canvas(&|x, y| if inside(x, y, 0.2, 0.69, 1.8, 0.84) { white } else { ground }),
        ),
        ("a dusk", canvas(&|x, y| [(90.0 * y) as u8, (60.0 * y) as u8, (60.0 + 20.0 * x) as u8])),
        (
            "a chessboard",
            canvas(&|x, y| if ((x * 8.0) as u32 + (y * 8.0) as u32).is_multiple_of(2) { white } else { [0; 3] }),
        ),
        ("waves", canvas(&|x, y| [(127.0 + 127.0 * (9.0 * x * y).sin()) as u8; 3])),
        ("hills", canvas(&|x, y| if y > 0.7 + 0.2 * (5.0 * x).sin() { [30, 90, 40] } else { [130, 180, 240] })),
        ("noise", DynamicImage::from(image::RgbImage::from_raw(640, 480, noise(640 * 480 * 3, 8)).unwrap())),
        (
            "dark noise",
            DynamicImage::from(
                image::RgbImage::from_raw(640, 480, noise(640 * 480 * 3, 9).iter().map(|byte| byte / 4).collect())
                    .unwrap(),
            ),
        ),
    ];
    for (what, picture) in pictures {
        for file in [encoded(&picture, ImageFormat::Png), jpeg(&picture, 80), encoded(&picture, ImageFormat::WebP)] {
            assert_eq!(unsealed(&file), Err(ImageError::NotSealed), "{what}");
        }
    }
    // A cover of the user's own is unknown to the reader.
    let red_cover =
        encoded(&DynamicImage::from(image::RgbImage::from_pixel(90, 60, image::Rgb([250, 10, 20]))), ImageFormat::Png);
    let limits = Limits::default();
    let options = SealOptions { cover: Cover::from_file(&red_cover, &limits).unwrap(), ..SealOptions::default() };
    let file = seal(&rgb_png(20, 20, 1), "a", &keys(1), &options, &limits, &mut Scratch::default()).unwrap();
    assert_eq!(unsealed(&jpeg(&decoded(&file), 80)), Err(ImageError::NotSealed));
}

/// Changes byte `index` of the data area in the pixels and writes the picture anew.
fn with_data_byte(picture: &image::RgbImage, banner_rows: u32, index: usize, mask: u8) -> Vec<u8> {
    let mut picture = picture.clone();
    let start = (banner_rows * picture.width() * 3) as usize + 2 * index;
    let samples: &mut [u8] = &mut picture;
    samples[start] ^= mask >> 4;
    samples[start + 1] ^= mask & 15;
    let mut file = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new_with_quality(
        &mut file,
        image::codecs::png::CompressionType::Fast,
        image::codecs::png::FilterType::NoFilter,
    );
    encoder.write_image(picture.as_raw(), picture.width(), picture.height(), ExtendedColorType::Rgb8).unwrap();
    file
}

#[test]
fn each_byte_of_the_header_and_of_the_payload_is_protected() {
    let original = rgb_png(3, 3, 1);
    let file = sealed(&original, SealForm::Compact);
    let seen = inspect(&file, &Limits::default()).unwrap();
    let picture = decoded(&file).into_rgb8();
    let whole = seen.public.header_bytes as usize + original.len() + 16;
    assert!(unsealed(&with_data_byte(&picture, seen.banner_rows, whole, 1)).is_ok(), "what follows is padding");
    for index in 0..whole {
        let altered = with_data_byte(&picture, seen.banner_rows, index, 1 << (index % 8));
        let error = unsealed(&altered).err().unwrap_or_else(|| panic!("byte {index} was accepted"));
        match index {
            // Without its first bytes it is no seal, and the banner says that it was one.
            0..8 => assert_eq!(error, ImageError::ChangedCopy),
            8 => assert!(matches!(error, ImageError::WrongVersion { .. })),
            41..49 => assert!(matches!(error, ImageError::WrongKey { .. })),
            81..93 => assert!(matches!(error, ImageError::Tampered { .. } | ImageError::TooLarge { .. }), "{error}"),
            _ => assert!(matches!(error, ImageError::Tampered { .. }), "byte {index}: {error}"),
        }
    }
}

#[test]
fn a_flipped_bit_in_our_own_file_says_damaged_and_a_repaired_check_sum_says_tampered() {
    let original = rgb_png(100, 100, 1);
    for form in FORMS {
        let mut file = sealed(&original, form);
        // A payload byte in the last segment: the tail is 21 bytes of last chunk, 12 of IEND, and the check sum before.
        let at = file.len() - 5000;
        file[at] ^= 4;
        let error = unsealed(&file).unwrap_err();
        assert!(matches!(error, ImageError::Damaged { .. }), "{form:?}: {error}");
    }
    let mut file = sealed(&original, SealForm::Stored);
    let at = file.len() - 5000;
    file[at] ^= 4;
    let mut position = 8;
    while position + 12 <= file.len() {
        let length = u32::from_be_bytes(file[position..position + 4].try_into().unwrap()) as usize;
        let sum = crc32fast::hash(&file[position + 4..position + 8 + length]);
        file[position + 8 + length..position + 12 + length].copy_from_slice(&sum.to_be_bytes());
        position += length + 12;
    }
    assert_eq!(unsealed(&file), Err(ImageError::Tampered { part: "payload" }));
}

#[test]
fn another_key_is_named_and_a_data_key_opens_only_its_own_payload() {
    let original = rgb_png(20, 20, 1);
    let file = sealed(&original, SealForm::Compact);
    let other = ClusterKey::new([8; 32]);
    let error = unseal(&file, &other, &Limits::default()).unwrap_err();
    assert_eq!(error, ImageError::WrongKey { file: key().id(), own: other.id() });
    assert!(unseal_with(&file, &keys(1).data_key, &Limits::default()).unwrap() == original);
    assert!(unseal_with(&file, &keys(2).data_key, &Limits::default()).is_err());
    assert!(!format!("{:?} {:?}", key(), keys(1)).contains("07, 07"));
}

/// Found by fuzzing: a label that was written and could not be read, since a stored picture is as large as its pixels.
#[test]
fn a_label_that_is_written_can_be_read() {
    let picture = encoded(&DynamicImage::new_rgb8(200, 200), ImageFormat::Png);
    let limits = Limits { original_bytes: 50_000, sealed_bytes: 100_000, ..Limits::default() };
    let mark = Label { usernames: vec!["bob".into()], quota: 5 };
    let labelled = |form| label(&picture, &mark, &limits, form, &mut Scratch::default());
    assert_eq!(read_label(&labelled(SealForm::Compact).unwrap(), &limits).unwrap(), mark);
    assert!(matches!(labelled(SealForm::Stored), Err(ImageError::TooLarge { have: 120_000.., .. })), "120,000 samples");
}

#[test]
fn terms_come_back_from_the_wrap_and_a_stranger_sees_none_of_them() {
    let original = rgb_png(20, 20, 1);
    let rights = (0..64u8).map(|user| (UserId([user; 32]), u64::from(user) * 1000)).collect();
    let (owner, expires_at_ms) = (Some(UserId([200; 32])), Some(1_900_000_000_000));
    let terms = Terms { owner, rights, expires_at_ms, leases_returnable: true };
    let mut options = SealOptions { terms, ..SealOptions::default() };
    let limits = Limits::default();
    let file = seal(&original, "dir/secret name.png", &keys(3), &options, &limits, &mut Scratch::default()).unwrap();
    let opened = unsealed(&file).unwrap();
    assert_eq!(opened.terms, options.terms);
    assert_eq!(opened.name, "secret name.png");
    let header = header_of(&file, &limits).unwrap();
    assert!(!header.as_bytes().windows(6).any(|window| window == b"secret" || window == [200; 6]));
    let seen = serde_json::to_value(inspect(&file, &limits).unwrap()).unwrap();
    let mut names: Vec<_> = seen.as_object().unwrap().keys().cloned().collect();
    names.sort();
    let public = [
        "banner_rows",
        "cluster_id",
        "form",
        "header_bytes",
        "height",
        "image_nonce",
        "key_id",
        "payload_bytes",
        "version",
        "width",
    ];
    assert_eq!(names, public);
    assert_eq!(seen["form"], "compact");
    assert_eq!(seen["payload_bytes"], original.len());

    options.terms.rights.insert(UserId([99; 32]), 1);
    let result = seal(&original, "a", &keys(3), &options, &limits, &mut Scratch::default());
    assert_eq!(result, Err(ImageError::TooManyRights { have: 65, limit: 64 }));
    let result = seal(&original, &"n".repeat(256), &keys(3), &SealOptions::default(), &limits, &mut Scratch::default());
    assert_eq!(result, Err(ImageError::NameTooLong { have: 256, limit: 255 }));
}

#[test]
fn the_second_half_of_sealing_needs_no_cluster_key() {
    let original = rgb_png(20, 20, 1);
    let (limits, keys) = (Limits::default(), keys(4));
    let wrap = Wrap {
        data_key: keys.data_key.clone(),
        terms: Terms::default(),
        media_type: "image/png".into(),
        name: "a.png".into(),
    };
    let header =
        Header::create(&wrap, &key(), keys.cluster_id, keys.image_nonce, original.len() as u64, &limits).unwrap();
    let received = Header::read(header.as_bytes(), &limits).unwrap();
    let file =
        seal_under(&original, &received, &wrap.data_key, &SealOptions::default(), &limits, &mut Scratch::default());
    assert!(unsealed(&file.unwrap()).unwrap().original == original);
    let shorter = seal_under(
        &original[1..],
        &received,
        &wrap.data_key,
        &SealOptions::default(),
        &limits,
        &mut Scratch::default(),
    );
    assert_eq!(shorter, Err(ImageError::Tampered { part: "header" }));
}

#[test]
fn a_cover_of_the_users_own_is_what_everybody_sees() {
    let red =
        encoded(&DynamicImage::from(image::RgbImage::from_pixel(90, 60, image::Rgb([250, 10, 20]))), ImageFormat::Png);
    let limits = Limits::default();
    let cover = Cover::from_file(&red, &limits).unwrap();
    let original = [rgb_png(3, 3, 1), noise(400_000, 4)].concat();
    for form in FORMS {
        let options = SealOptions { cover: cover.clone(), form, ..SealOptions::default() };
        let file = seal(&original, "a", &keys(1), &options, &limits, &mut Scratch::default()).unwrap();
        assert_eq!(decoded(&file).into_rgb8().get_pixel(360, 100).0, [250, 10, 20]);
        assert!(unsealed(&file).unwrap().original == original);
    }
    assert_eq!(Cover::from_file(b"text", &limits).unwrap_err(), ImageError::NotAnImage);
}

#[test]
fn whatever_may_be_sealed_can_be_opened() {
    let limits = Limits::default();
    let original = [rgb_png(3, 3, 1), noise((64 << 20) - rgb_png(3, 3, 1).len(), 4)].concat();
    assert_eq!(original.len() as u64, limits.original_bytes);
    // The most that a header can hold.
    let rights = (0..64u8).map(|user| (UserId([user; 32]), 1)).collect();
    let terms = Terms { owner: Some(UserId([1; 32])), rights, expires_at_ms: Some(1), leases_returnable: true };
    let mut scratch = Scratch::default();
    for form in FORMS {
        let options = SealOptions { form, terms: terms.clone(), ..SealOptions::default() };
        let file = seal(&original, &"n".repeat(255), &keys(1), &options, &limits, &mut scratch).unwrap();
        assert!(file.len() as u64 <= limits.sealed_bytes, "{} bytes", file.len());
        assert!(unsealed(&file).unwrap().original == original, "{form:?}");
        scratch.give_back(file);
    }
    let longer = [&original[..], &[0]].concat();
    let result = seal(&longer, "a", &keys(1), &SealOptions::default(), &limits, &mut scratch);
    assert_eq!(result.unwrap_err().code(), ProblemCode::TooLarge);
}

// ---- bad input -------------------------------------------------------------------------------------------------------

#[test]
fn every_bad_input_has_its_error_before_memory_is_taken() {
    let limits = Limits::default();
    let text = b"hello, this is no picture at all";
    assert_eq!(labelled(text), Err(ImageError::NotAnImage));
    assert_eq!(unsealed(text), Err(ImageError::NotAnImage));
    assert_eq!(unsealed(&rgb_png(600, 9, 1)), Err(ImageError::NotSealed));
    assert_eq!(labelled(&rgb_png(90, 90, 1)[..9000]), Err(ImageError::Truncated { format: Format::Png }));

    let mut bomb = rgb_png(9, 9, 1);
    bomb[16..24].copy_from_slice(&[0, 0, 0xfd, 0xe8, 0, 0, 0xfd, 0xe8]);
    let refused = ImageError::TooManyPixels { width: 65_000, height: 65_000, pixels: 100_000_000, side: 16_384 };
    assert_eq!(decoded_bytes(&bomb, &limits), Err(refused.clone()));
    assert_eq!(labelled(&bomb), Err(refused.clone()));
    assert_eq!(read_label(&bomb, &limits), Err(refused.clone()));
    assert_eq!(unsealed(&bomb), Err(refused.clone()));
    let result = seal(&bomb, "a", &keys(1), &SealOptions::default(), &limits, &mut Scratch::default());
    assert_eq!(result, Err(refused));

    let small = Limits { original_bytes: 100, ..Limits::default() };
    assert!(matches!(decoded_bytes(&rgb_png(9, 9, 1), &small), Err(ImageError::TooLarge { limit: 100, .. })));
    let problem = ImageError::CarrierTooSmall { need_bytes: 30, have_bytes: 20 }.problem();
    assert_eq!((problem.code, problem.need, problem.have), (ProblemCode::CarrierTooSmall, Some(30), Some(20)));
}

#[test]
fn the_memory_that_is_announced_covers_the_pixels() {
    let file = rgb_png(1000, 500, 1);
    let announced = decoded_bytes(&file, &Limits::default()).unwrap();
    assert!((1_500_000 * 2..1_500_000 * 4).contains(&announced), "{announced}");
}
