//! Speed of the image code beside the obvious program: `cargo bench --bench image -- --help`.
//!
//! *Naive* is what one writes first: the `image` crate's defaults, `resize`, `get_pixel` and `put_pixel`, four bits a channel.
//! Both sides of a row take turns in the same run, in memory, on one thread; figures are medians [least–most] in milliseconds,
//! and the size of the output stands beside every ratio. Our buffers are given back, as a worker of a node does.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop")]

use std::hint::black_box;
use std::io::Cursor;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use image::imageops::{FilterType, resize};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use image_cloud::image::lsb::{embed_bits, extract_bits};
use image_cloud::image::*;
use image_cloud::protocol::job::{Label, SealForm};
use image_cloud::time::now;

const HELP: &str = "\
Speed of the image code beside the obvious program, on one thread.

cargo bench --bench image [-- WORDS]
  WORDS   only rows that have all of them in their names, as in `label`, `unseal`, `rights` (every row)";

fn main() {
    if std::env::args().any(|word| word == "--help" || word == "-h") {
        println!("{HELP}");
        return;
    }
    let pictures = Pictures::make();
    println!(
        "inputs: photo-like noise, 512 x 512 PNG {} KB; 4000 x 3000 JPEG {} KB, PNG {} KB",
        pictures.small_png.len() / 1000,
        pictures.large_jpeg.len() / 1000,
        pictures.large_png.len() / 1000
    );
    println!(
        "{:<44} {:>26} {:>26} {:>8}  {:<18} output MB: ours / other",
        "", "ours, ms", "other, ms", "ratio", "target"
    );
    lsb();
    seals(&pictures);
    rights(&pictures);
    labels(&pictures);
}

// ---- measuring -------------------------------------------------------------------------------------------------------

struct Times(Vec<f64>);

impl Times {
    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (least, most) =
            self.0.iter().fold((f64::MAX, 0f64), |(least, most), &time| (least.min(time), most.max(time)));
        formatter.pad(&format!("{:.3} [{least:.3}–{most:.3}]", self.median()))
    }
}

/// Runs both in turns and prints a row. Each returns the size of what it made.
fn compare(name: &str, target: f64, mut ours: impl FnMut() -> usize, mut other: impl FnMut() -> usize) {
    // `cargo bench --bench image -- unseal` runs the rows with that word.
    if std::env::args().skip(1).any(|word| !word.starts_with("--") && !name.contains(&word)) {
        return;
    }
    let time = |work: &mut dyn FnMut() -> usize| {
        let start = now();
        let size = work();
        (now().since(start).as_secs_f64() * 1000.0, size)
    };
    // Once each to warm up, and to see how often there is time for.
    let (sizes, slow) = ((ours(), other()), time(&mut other).0);
    let rounds = ((3000.0 / slow) as usize).clamp(7, 101);
    let (mut left, mut right) = (Times(Vec::new()), Times(Vec::new()));
    for _ in 0..rounds {
        left.0.push(time(&mut ours).0);
        right.0.push(time(&mut other).0);
    }
    let ratio = right.median() / left.median();
    let verdict = format!("≥ {target} {}", if ratio >= target { "ok" } else { "MISSED" });
    println!(
        "{name:<44} {:>26} {:>26} {ratio:>7.2}x  {verdict:<18} {:.2} / {:.2}",
        left.to_string(),
        right.to_string(),
        sizes.0 as f64 / 1e6,
        sizes.1 as f64 / 1e6,
    );
}

// ---- rows ------------------------------------------------------------------------------------------------------------

fn lsb() {
    const CARRIER: usize = 36_000_000;
    let source = noise(CARRIER, 1);
    let message = noise(CARRIER / 8, 2);
    let mut carrier = source.clone();
    let mut copy = vec![1; CARRIER];
    let mut found = vec![1; CARRIER / 8];
    // The target is a ratio of speeds to memcpy, which is the other side here.
    compare(
        "lsb embed, 36 MB carrier; other: memcpy",
        0.9,
        || {
            embed_bits(black_box(&mut carrier), black_box(&message));
            CARRIER
        },
        || {
            copy.copy_from_slice(black_box(&source));
            black_box(&mut copy).len()
        },
    );
    compare(
        "lsb extract, 36 MB carrier; other: memcpy",
        0.9,
        || {
            extract_bits(black_box(&carrier), black_box(&mut found));
            CARRIER / 8
        },
        || {
            copy.copy_from_slice(black_box(&source));
            black_box(&mut copy).len()
        },
    );
    embed_bits(&mut carrier, &message);
    extract_bits(&carrier, &mut found);
    assert!(found == message);
}

fn keys() -> SealKeys {
    SealKeys {
        cluster_key: ClusterKey::new([1; 32]),
        cluster_id: ClusterId([2; 32]),
        image_nonce: ImageNonce([3; 32]),
        data_key: DataKey([4; 32]),
    }
}

fn seals(pictures: &Pictures) {
    let limits = Limits::default();
    let keys = keys();
    let mut scratch = Scratch::default();
    let cover = encoded(
        &image::load_from_memory(
            &seal(&pictures.small_png, "a", &keys, &SealOptions::default(), &limits, &mut scratch).unwrap(),
        )
        .unwrap()
        .crop_imm(0, 0, 720, 360),
        ImageFormat::Png,
    );
    for (size, original) in
        [("0.43 MB", &pictures.small_png), ("1.8 MB", &pictures.large_jpeg), ("11.5 MB", &pictures.large_png)]
    {
        let naive = naive_seal(original, &cover);
        for (form, target, unseal_target) in [(SealForm::Compact, 20.0, 4.0), (SealForm::Stored, 60.0, 10.0)] {
            let options = SealOptions { form, ..SealOptions::default() };
            let name = format!("{form:?}").to_lowercase();
            compare(
                &format!("seal {name} {size}"),
                target,
                || {
                    let file = seal(original, "a", &keys, &options, &limits, &mut scratch).unwrap();
                    let length = file.len();
                    scratch.give_back(file);
                    length
                },
                || naive_seal(original, &cover).len(),
            );
            let file = seal(original, "a", &keys, &options, &limits, &mut scratch).unwrap();
            assert!(unseal(&file, &keys.cluster_key, &limits).unwrap().original == **original);
            let unseal_target = if size == "0.43 MB" { 1.0 } else { unseal_target };
            compare(
                &format!("unseal {name} {size}"),
                unseal_target,
                || unseal(&file, &keys.cluster_key, &limits).unwrap().original.len(),
                || naive_unseal(&naive).len(),
            );
        }
    }
}

/// What the rights of as many users as there may be cost in the header. The other side is the same without any.
fn rights(pictures: &Pictures) {
    let (limits, keys) = (&Limits::default(), &keys());
    let rights = (0..64).map(|user| (UserId([user; 32]), 3)).collect();
    let terms =
        Terms { owner: Some(UserId([99; 32])), rights, expires_at_ms: Some(1_900_000_000_000), ..Terms::default() };
    let with = SealOptions { terms, ..SealOptions::default() };
    let without = SealOptions::default();
    for (size, original) in
        [("0.43 MB", &pictures.small_png), ("1.8 MB", &pictures.large_jpeg), ("11.5 MB", &pictures.large_png)]
    {
        let sealer = |options: &SealOptions| {
            let (options, mut scratch) = (options.clone(), Scratch::default());
            move || {
                let file = seal(original, "a", keys, &options, limits, &mut scratch).unwrap();
                let length = file.len();
                scratch.give_back(file);
                length
            }
        };
        compare(&format!("seal {size}, 64 rights; other: none"), 0.95, sealer(&with), sealer(&without));
        let opener = |options: &SealOptions| {
            let file = seal(original, "a", keys, options, limits, &mut Scratch::default()).unwrap();
            move || unseal(&file, &keys.cluster_key, limits).unwrap().original.len()
        };
        compare(&format!("unseal {size}, 64 rights; other: none"), 0.95, opener(&with), opener(&without));
    }
}

fn labels(pictures: &Pictures) {
    let limits = Limits::default();
    let mark = Label { usernames: (0..60).map(|user| format!("user-number-{user}")).collect(), quota: 5 };
    let json = serde_json::to_vec(&mark).unwrap();
    let mut scratch = Scratch::default();
    for (name, file, targets) in [
        ("512 x 512 PNG", &pictures.small_png, [1.3, 2.2]),
        ("12 MP PNG", &pictures.large_png, [1.3, 2.2]),
        ("12 MP JPEG", &pictures.large_jpeg, [1.3, 3.0]),
    ] {
        for (form, target) in [SealForm::Compact, SealForm::Stored].into_iter().zip(targets) {
            let ours = label(file, &mark, &limits, form, &mut scratch).unwrap();
            assert_eq!(read_label(&ours, &limits).unwrap(), mark);
            compare(
                &format!("label {name}, {}", format!("{form:?}").to_lowercase()),
                target,
                || {
                    let output = label(file, &mark, &limits, form, &mut scratch).unwrap();
                    let length = output.len();
                    scratch.give_back(output);
                    length
                },
                || naive_label(file, &json).len(),
            );
        }
        let ours = label(file, &mark, &limits, SealForm::Compact, &mut scratch).unwrap();
        let naive = naive_label(file, &json);
        compare(
            &format!("read label {name}"),
            1.0,
            || read_label(&ours, &limits).unwrap().usernames.len(),
            || naive_read_label(&naive).len(),
        );
    }
}

// ---- the obvious program ---------------------------------------------------------------------------------------------

fn cipher() -> (LessSafeKey, Nonce) {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[5; 32]).unwrap());
    (key, Nonce::assume_unique_for_key([6; 12]))
}

fn naive_seal(original: &[u8], cover: &[u8]) -> Vec<u8> {
    let (key, nonce) = cipher();
    let mut data = original.to_vec();
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut data).unwrap();
    data.splice(0..0, (data.len() as u32).to_be_bytes());
    let cover = image::load_from_memory(cover).unwrap().into_rgb8();
    let pixels = data.len() as f64 * 2.0 / 3.0;
    let width = (pixels * f64::from(cover.width()) / f64::from(cover.height())).sqrt().ceil() as u32;
    let height = (pixels / f64::from(width)).ceil() as u32;
    let mut picture = resize(&cover, width, height, FilterType::Triangle);
    let nibble = |index: usize| data.get(index / 2).map_or(0, |byte| byte >> (4 * (1 - index % 2)) & 15);
    for y in 0..height {
        for x in 0..width {
            let mut pixel = *picture.get_pixel(x, y);
            for channel in 0..3 {
                pixel[channel] = pixel[channel] & 0xf0 | nibble((y * width + x) as usize * 3 + channel);
            }
            picture.put_pixel(x, y, pixel);
        }
    }
    encoded(&DynamicImage::from(picture), ImageFormat::Png)
}

fn naive_unseal(file: &[u8]) -> Vec<u8> {
    let picture = image::load_from_memory(file).unwrap().into_rgb8();
    let mut data = Vec::new();
    let mut half = None;
    for y in 0..picture.height() {
        for x in 0..picture.width() {
            for sample in picture.get_pixel(x, y).0 {
                match half.take() {
                    None => half = Some(sample << 4),
                    Some(upper) => data.push(upper | sample & 15),
                }
            }
        }
    }
    let length = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
    let (key, nonce) = cipher();
    let mut data = data[4..4 + length].to_vec();
    key.open_in_place(nonce, Aad::empty(), &mut data).unwrap().to_vec()
}

fn naive_label(file: &[u8], json: &[u8]) -> Vec<u8> {
    let mut picture = image::load_from_memory(file).unwrap().into_rgb8();
    let message = [&(json.len() as u32).to_be_bytes()[..], json].concat();
    for y in 0..picture.height() {
        for x in 0..picture.width() {
            let mut pixel = *picture.get_pixel(x, y);
            for channel in 0..3 {
                let index = (y * picture.width() + x) as usize * 3 + channel;
                if let Some(byte) = message.get(index / 8) {
                    pixel[channel] = pixel[channel] & 0xfe | byte >> (7 - index % 8) & 1;
                }
            }
            picture.put_pixel(x, y, pixel);
        }
    }
    encoded(&DynamicImage::from(picture), ImageFormat::Png)
}

fn naive_read_label(file: &[u8]) -> Vec<u8> {
    let picture = image::load_from_memory(file).unwrap().into_rgb8();
    let mut bits = picture.pixels().flat_map(|pixel| pixel.0).map(|sample| sample & 1);
    let mut byte = || (0..8).fold(0u8, |byte, _| byte << 1 | bits.next().unwrap());
    let length = u32::from_be_bytes([byte(), byte(), byte(), byte()]);
    (0..length).map(|_| byte()).collect()
}

// ---- inputs ----------------------------------------------------------------------------------------------------------

struct Pictures {
    small_png: Vec<u8>,
    large_png: Vec<u8>,
    large_jpeg: Vec<u8>,
}

impl Pictures {
    fn make() -> Self {
        let mut large_jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut large_jpeg, 90)
            .encode_image(&photo(4000, 3000, 4.8))
            .unwrap();
        let large = image::load_from_memory(&large_jpeg).unwrap().into_rgb8();
        Pictures { small_png: png_level_6(&photo(512, 512, 5.0)), large_png: png_level_6(&large), large_jpeg }
    }
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// As most software writes a PNG: adaptive filters, zlib level 6.
fn png_level_6(picture: &RgbImage) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Balanced);
    encoder.write_header().unwrap().write_image_data(picture.as_raw()).unwrap();
    file
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// Gradients, soft shapes with edges, and noise of a sensor.
fn photo(width: u32, height: u32, grain: f32) -> RgbImage {
    let grains = noise((width * height * 3) as usize, 7);
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
        let soft = (u * 9.0 + (v * 7.0).sin()).sin() * 40.0 + (v * 23.0 + u * 5.0).cos() * 20.0;
        let edge = if ((u * 13.0).sin() + (v * 11.0).cos()) > 0.4 { 35.0 } else { 0.0 };
        let fine = ((x as f32 * 0.35).sin() * (y as f32 * 0.27).cos()) * 5.0;
        let base = [120.0 + soft + edge, 110.0 + soft * 0.8 + edge * 0.6, 95.0 + soft * 0.6 - edge];
        let at = ((y * width + x) * 3) as usize;
        Rgb(std::array::from_fn(|channel| {
            let grain = (f32::from(grains[at + channel]) / 128.0 - 1.0) * grain;
            (base[channel] + fine + grain) as u8
        }))
    })
}
