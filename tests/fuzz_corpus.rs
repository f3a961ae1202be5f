//! What the fuzz targets have in store is replayed with every test run; and the inputs that it began with are made here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use bodies::{cluster_key, data_key, limits};
use image_cloud::id::{ClusterId, Incarnation, Load, LogPosition, MemberId, NodeId, RequestId};
use image_cloud::identity::{SignedRequest, UserSecret};
use image_cloud::image::*;
use image_cloud::protocol::codec;
use image_cloud::protocol::election::Heartbeat;
use image_cloud::protocol::frame::{NodeFrame, Opaque};
use image_cloud::protocol::job::{Label, SealForm};
use image_cloud::protocol::status::NodeState;
use image_cloud::protocol::user::{BodyHash, Date};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 5] = [
    ("frame", bodies::frame),
    ("header", bodies::header),
    ("image", bodies::image),
    ("label", bodies::label),
    ("request", bodies::request),
];

fn seeds(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

#[test]
fn every_committed_input_passes_its_target_whole_cut_and_with_a_bit_changed() {
    for (target, body) in TARGETS {
        let mut inputs: Vec<PathBuf> =
            fs::read_dir(seeds(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(inputs.len() >= 4, "{target} has only {} inputs", inputs.len());
        for path in inputs {
            let input = fs::read(&path).unwrap();
            println!("{}", path.display());
            body(&input);
            let step = (input.len() / 64).max(1);
            for at in (0..input.len()).step_by(step) {
                body(&input[..at]);
                let mut changed = input.clone();
                changed[at] ^= 1 << (at % 8);
                body(&changed);
            }
        }
    }
}

/// Blind, without a fuzzer's knowledge of what was reached: for machines that cannot build the targets. `CHANGES=1000000` for more.
#[test]
fn inputs_with_many_random_changes_pass_their_targets() {
    let changes: u32 = std::env::var("CHANGES").ok().map_or(2_000, |text| text.parse().unwrap());
    for (target, body) in TARGETS {
        let mut inputs: Vec<PathBuf> =
            fs::read_dir(seeds(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        let inputs: Vec<Vec<u8>> = inputs.into_iter().map(|path| fs::read(path).unwrap()).collect();
        let mut random = SmallRng::seed_from_u64(7);
        for round in 0..changes {
            let mut input = inputs[random.random_range(0..inputs.len())].clone();
            for _ in 0..random.random_range(1..6) {
                let at = random.random_range(0..input.len().max(1)).min(input.len());
                match random.random_range(0..5) {
                    0 => input.truncate(at),
                    1 => input.insert(at, random.random()),
                    2 => input.splice(at..at, [255; 4]).for_each(drop),
                    _ if at < input.len() => input[at] = random.random(),
                    _ => input.extend_from_slice(&inputs[0]),
                }
            }
            if catch_unwind(|| body(&input)).is_err() {
                let path = std::env::temp_dir().join(format!("finding-{target}-{round}"));
                fs::write(&path, &input).unwrap();
                panic!("{target}, round {round}: keep {} in fuzz/seeds/{target} beside the fix", path.display());
            }
        }
    }
}

/// The inputs do what they are for: else the fuzzer would begin outside of what it is to look at.
#[test]
fn the_committed_inputs_reach_what_they_are_for() {
    let read = |target: &str, name: &str| fs::read(seeds(target).join(name)).unwrap();
    for name in ["compact.png", "stored.png", "rewritten.png"] {
        assert!(unseal(&read("image", name), &cluster_key(), &limits()).is_ok(), "{name}");
    }
    let header = Header::read(&read("header", "rights"), &limits()).unwrap();
    assert_eq!(header.open(&cluster_key()).unwrap().terms.rights.len(), 3);
    assert!(Wrap::from_bytes(&read("header", "wrap")).is_some());
    assert_eq!(read_label(&read("label", "labelled.png"), &limits()).unwrap().quota, 5);
    for name in ["heartbeat", "raft"] {
        assert!(codec::decode::<NodeFrame>(&read("frame", name)).is_ok(), "{name}");
    }
}

/// `cargo test --test fuzz_corpus -- --ignored` writes the inputs of `fuzz/seeds` anew, the same each time.
#[test]
#[ignore = "writes into the source tree"]
fn make_the_inputs() {
    for (target, name, input) in made() {
        fs::create_dir_all(seeds(target)).unwrap();
        fs::write(seeds(target).join(name), input).unwrap();
    }
}

fn made() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut all = Vec::new();
    let member = MemberId { node: NodeId(1), incarnation: Incarnation(7) };
    let heartbeat = Heartbeat {
        member,
        sequence: 3,
        state: NodeState::Active,
        load: Load::from_hundredths(150),
        pressure: Default::default(),
        workers: 2,
        jobs_accepted: 70_000,
        disk_waits_ms: 0,
        last_log: LogPosition::default(),
        coordinator: None,
    };
    for (name, frame) in [
        ("heartbeat", NodeFrame::Heartbeat(heartbeat)),
        ("raft", NodeFrame::Raft { id: 300, request: Opaque(vec![1, 2, 3]) }),
        ("raft-response", NodeFrame::RaftResponse { id: u64::MAX, response: Opaque(Vec::new()) }),
    ] {
        all.push(("frame", name, codec::encode(&frame).unwrap()));
    }
    // The variant of a vector that says it is endless.
    all.push(("frame", "endless", vec![4, 1, 253, 255, 255, 255, 255, 255, 255, 255, 255]));

    let rights = (1..=3).map(|user| (UserId([user; 32]), u64::from(user))).collect();
    let terms =
        Terms { owner: Some(UserId([4; 32])), rights, expires_at_ms: Some(1_900_000_000_000), ..Terms::default() };
    let wrap = |terms| Wrap { data_key: data_key(), terms, media_type: "image/png".into(), name: "cat.png".into() };
    let header = |wrap: &Wrap, key: &ClusterKey| {
        Header::create(wrap, key, ClusterId([1; 32]), ImageNonce([2; 32]), 1000, &limits()).unwrap().as_bytes().to_vec()
    };
    let (owned, unowned) = (wrap(terms.clone()), wrap(Terms::default()));
    all.push(("header", "rights", header(&owned, &cluster_key())));
    all.push(("header", "unowned", header(&unowned, &cluster_key())));
    all.push(("header", "retired", header(&unowned, &ClusterKey::new([6; 32]))));
    all.push(("header", "wrap", owned.to_bytes().unwrap()));

    let picture = image::RgbImage::from_fn(24, 24, |x, y| image::Rgb([x as u8 * 9, y as u8 * 9, (x * y) as u8]));
    let encoded = |picture: &image::DynamicImage, format| {
        let mut file = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut file, format).unwrap();
        file.into_inner()
    };
    let original = encoded(&image::DynamicImage::from(picture.clone()), image::ImageFormat::Png);
    let keys = SealKeys {
        cluster_key: cluster_key(),
        cluster_id: ClusterId([1; 32]),
        image_nonce: ImageNonce([2; 32]),
        data_key: data_key(),
    };
    let cover = Cover::from_file(
        &encoded(&image::RgbImage::from_pixel(512, 8, image::Rgb([40; 3])).into(), image::ImageFormat::Png),
        &limits(),
    );
    // A low cover, so that the inputs are small.
    let cover = cover.unwrap();
    for (name, form) in [("compact.png", SealForm::Compact), ("stored.png", SealForm::Stored)] {
        let options = SealOptions { cover: cover.clone(), form, terms: terms.clone() };
        let sealed = seal(&original, "cat.png", &keys, &options, &limits(), &mut Scratch::new(0)).unwrap();
        if form == SealForm::Compact {
            let pixels = image::load_from_memory(&sealed).unwrap();
            all.push(("image", "rewritten.png", encoded(&pixels, image::ImageFormat::Png)));
            all.push(("image", "recompressed.jpg", encoded(&pixels, image::ImageFormat::Jpeg)));
        }
        all.push(("image", name, sealed));
    }

    let label = Label { usernames: vec!["alice".into(), "bob".into()], quota: 5 };
    let labelled = image_cloud::image::label(&original, &label, &limits(), SealForm::Compact, &mut Scratch::new(0));
    all.push(("label", "labelled.png", labelled.unwrap()));
    let picture = image::DynamicImage::from(picture);
    all.push(("label", "grey.png", encoded(&picture.to_luma8().into(), image::ImageFormat::Png)));
    all.push(("label", "alpha16.png", encoded(&picture.to_rgba16().into(), image::ImageFormat::Png)));
    all.push(("label", "plain.jpg", encoded(&picture, image::ImageFormat::Jpeg)));
    all.push(("label", "plain.webp", encoded(&picture, image::ImageFormat::WebP)));

    let secret = UserSecret::from_bytes(&[1; 64]);
    for (name, method, path) in [
        ("view", "POST", "/api/v1/images/view"),
        ("query", "GET", "/api/v1/images/rights?user=bob"),
        ("empty", "", ""),
        ("long", "DELETE", "/api/v1/images/0000000000000000000000000000000000000000000000000000000000000000"),
    ] {
        let request = SignedRequest {
            cluster: ClusterId([1; 32]),
            user: secret.public().user(),
            key: secret.public().id(),
            method,
            path,
            body: BodyHash::of(b"body"),
            at: Date(1_700_000_000_000),
            id: RequestId([3; 16]),
        };
        let authorization = request.sign(&secret).to_string();
        let (_, parameters) = authorization.split_once(' ').unwrap();
        all.push(("request", name, format!("{parameters}\n{method}\n{path}").into_bytes()));
    }
    all
}
