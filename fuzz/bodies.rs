//! What each fuzz target does with its input. `tests/fuzz_corpus.rs` does the same with the committed inputs, so that `cargo test` replays them.

use std::collections::BTreeSet;

use image_cloud::id::{ClusterId, RequestId};
use image_cloud::identity::{Authorization, SignedRequest, UserSecret};
use image_cloud::image::{self, ClusterKey, DataKey, Header, ImageError, KeyRing, Limits, PublicPart, Scratch, Wrap};
use image_cloud::protocol::codec;
use image_cloud::protocol::frame::NodeFrame;
use image_cloud::protocol::job::{Label, SealForm};

/// The cluster key of everything in the corpus.
pub fn cluster_key() -> ClusterKey {
    ClusterKey::new([7; 32])
}

/// The data key of everything in the corpus.
pub fn data_key() -> DataKey {
    DataKey([9; 32])
}

/// The limits of all targets: as ever, but small, so that a second has many pictures.
pub fn limits() -> Limits {
    Limits { original_bytes: 1 << 20, sealed_bytes: 2 << 20, pixels: 1 << 20, side: 4096, ..Limits::default() }
}

fn ring() -> KeyRing {
    let retired = ClusterKey::new([6; 32]).id();
    KeyRing::new(cluster_key(), [ClusterKey::new([5; 32])], BTreeSet::from([retired]))
}

/// A frame from another node: what decodes is encoded to what decodes to the same.
pub fn frame(data: &[u8]) {
    if let Ok(frame) = codec::decode::<NodeFrame>(data) {
        // A frame at the limit may be refused when it is written anew; but what is written comes back.
        if let Ok(bytes) = codec::encode(&frame) {
            assert_eq!(codec::decode::<NodeFrame>(&bytes).ok().as_ref(), Some(&frame));
        }
    }
}

/// A header, as it comes over the network; and the wrap in it, as if its author had the cluster key.
pub fn header(data: &[u8]) {
    let limits = limits();
    if let Ok(header) = Header::read(data, &limits) {
        assert_eq!(Header::read(header.as_bytes(), &limits).as_ref(), Ok(&header));
        assert!(header.as_bytes().len() <= limits.header_bytes as usize);
        match ring().open(&header) {
            Ok(wrap) => round_trip(&wrap, &header.public, &limits),
            Err(ImageError::RetiredKey { key } | ImageError::WrongKey { file: key, .. }) => {
                assert_eq!(key, header.public.key_id);
            }
            Err(error) => assert_eq!(error, ImageError::Tampered { part: "header" }),
        }
    }
    if let Some(wrap) = Wrap::from_bytes(data) {
        let bytes = wrap.to_bytes().expect("what was read is within the bounds of what is written");
        assert_eq!(Wrap::from_bytes(&bytes), Some(wrap));
    }
}

fn round_trip(wrap: &Wrap, public: &PublicPart, limits: &Limits) {
    let closed =
        Header::create(wrap, &cluster_key(), public.cluster_id, public.image_nonce, public.payload_bytes, limits);
    let closed = closed.expect("a wrap that came in a header fits into one");
    assert_eq!(ring().open(&closed).as_ref(), Ok(wrap));
}

/// A file that says that it is a sealed picture: everything that looks for a seal in it.
pub fn image(data: &[u8]) {
    let limits = limits();
    let found = image::header_of(data, &limits);
    let inspected = image::inspect(data, &limits);
    assert_eq!(found.as_ref().map(|header| header.public), inspected.as_ref().map(|inspection| inspection.public));
    if let Ok(opened) = image::unseal_under(data, &ring(), &limits) {
        let header = found.expect("what opens has a header");
        assert_eq!(opened.original.len() as u64, header.public.payload_bytes);
        assert!(!opened.name.contains(['/', '\\']));
    }
    if let Ok(original) = image::unseal_with(data, &data_key(), &limits) {
        assert!(original.len() as u64 <= limits.original_bytes);
    }
}

/// A picture: a label is looked for; one that is put in comes out again.
pub fn label(data: &[u8]) {
    let limits = limits();
    let _ = image::read_label(data, &limits);
    let room = image::capacity(data, &limits);
    let label = Label { usernames: vec!["bob".to_owned()], quota: 5 };
    for form in [SealForm::Compact, SealForm::Stored] {
        match image::label(data, &label, &limits, form, &mut Scratch::new(0)) {
            Ok(labelled) => {
                assert_eq!(image::read_label(&labelled, &limits).as_ref(), Ok(&label), "{form:?}");
                assert!(room.is_ok());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// A signed request in lines: what stands in `Authorization`, method, path.
pub fn request(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let Ok(authorization) = Authorization::parse(lines.next().unwrap_or_default()) else { return };
    let shown = authorization.to_string();
    let (_, parameters) = shown.split_once(' ').expect("the scheme is followed by a space");
    assert_eq!(Authorization::parse(parameters).as_ref(), Ok(&authorization));
    let (method, path) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let Authorization { user, key, at, body, signature } = authorization;
    let (cluster, id) = (ClusterId([1; 32]), RequestId([3; 16]));
    let request = SignedRequest { cluster, user, key, method, path, body, at, id };
    let secret = UserSecret::from_bytes(&[1; 64]);
    if request.is_signed_by(&secret.public().signing, &signature) {
        // Signatures are deterministic, so a good one is that which the owner makes of the very same request.
        assert_eq!(request.sign(&secret).signature, signature);
        assert!(!path.contains('\n'));
    }
}
