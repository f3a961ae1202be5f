//! What can be wrong with a picture, a label or a seal: one line each, which says what to do.

use thiserror::Error;

use crate::image::keys::KeyId;
use crate::image::probe::Format;
use crate::protocol::problem::{Problem, ProblemCode};

/// Why a picture was refused. Nothing was allocated for its pixels where a limit is named.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    /// The first bytes are of no format that is read.
    #[error("this is not a PNG, JPEG or WebP picture: convert it to one of these first")]
    NotAnImage,
    /// The file ends before the picture does.
    #[error("the {format} file is cut short: fetch a complete copy")]
    Truncated {
        /// Its format.
        format: Format,
    },
    /// The file breaks the rules of its format.
    #[error("the {format} file is damaged ({reason}): fetch a good copy")]
    Damaged {
        /// Its format.
        format: Format,
        /// What the decoder found.
        reason: String,
    },
    /// A file of more than one frame.
    #[error("the {format} file is animated, a labelled picture has one frame: save a single frame and label that")]
    Animated {
        /// Its format.
        format: Format,
    },
    /// More bytes than a limit allows.
    #[error("the {what} takes {have} bytes, the limit is {limit}: make it smaller or raise the limit")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        have: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// More pixels than a limit allows, as the file's header claims.
    #[error("the picture has {width} x {height} pixels, the limit is {pixels} pixels and {side} a side: scale it down")]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The most pixels.
        pixels: u64,
        /// The longest side.
        side: u32,
    },
    /// The label does not fit into the picture's samples.
    #[error(
        "the picture cannot hold the label: need {need_bytes} bytes, have {have_bytes} (pixels that are not opaque hold nothing); use a larger picture or name fewer users"
    )]
    CarrierTooSmall {
        /// Bytes of the label's JSON.
        need_bytes: u64,
        /// Bytes that the picture can carry.
        have_bytes: u64,
    },
    /// The label's JSON is longer than a label may be.
    #[error("the label takes {have} bytes, the limit is {limit}: name fewer users")]
    LabelTooLong {
        /// Its length in bytes.
        have: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The samples hold no label.
    #[error("the picture carries no label: it was never labelled, or was scaled or recompressed since")]
    NoLabel,
    /// No seal is found in the picture.
    #[error("the picture is not sealed: it was never sealed, or was scaled or recompressed since")]
    NotSealed,
    /// The picture shows the banner of a sealed one, and holds nothing.
    #[error("this copy was changed on its way (recompressed, scaled or reduced in colours): ask for the original file")]
    ChangedCopy,
    /// A seal of a version that this program does not know.
    #[error("the seal has version {found}, this program reads version {known}: update it")]
    WrongVersion {
        /// The version that the file names.
        found: u8,
        /// The version that this program reads.
        known: u8,
    },
    /// The seal was made under another key.
    #[error("the seal was made under key {file}, this is key {own}: use the key of the cluster that sealed it")]
    WrongKey {
        /// The key id that the file names.
        file: KeyId,
        /// The id of the key that was tried.
        own: KeyId,
    },
    /// The seal was made under a key that was taken out of use.
    #[error(
        "this image is locked under the cluster key {key}, which was retired: ask its owner to lock the original again"
    )]
    RetiredKey {
        /// The key id that the file names.
        key: KeyId,
    },
    /// The seal does not authenticate: a bit of it was changed after it was made.
    #[error("the seal's {part} was altered after sealing: fetch the sealed file again from where it came from")]
    Tampered {
        /// Which part failed.
        part: &'static str,
    },
    /// The file name is longer than a header may carry.
    #[error("the file name takes {have} bytes, the limit is {limit}: shorten it")]
    NameTooLong {
        /// Its length in bytes.
        have: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More users than a header may carry.
    #[error("the seal names {have} users, the limit is {limit}: name fewer")]
    TooManyRights {
        /// How many are named.
        have: usize,
        /// The most that may be.
        limit: usize,
    },
}

impl ImageError {
    /// The code under which HTTP reports this error.
    pub const fn code(&self) -> ProblemCode {
        match self {
            ImageError::TooLarge { .. } | ImageError::TooManyPixels { .. } | ImageError::LabelTooLong { .. } => {
                ProblemCode::TooLarge
            }
            ImageError::CarrierTooSmall { .. } => ProblemCode::CarrierTooSmall,
            ImageError::NameTooLong { .. } | ImageError::TooManyRights { .. } => ProblemCode::BadRequest,
            ImageError::WrongKey { .. } | ImageError::RetiredKey { .. } => ProblemCode::WrongCluster,
            _ => ProblemCode::BadImage,
        }
    }

    /// The body of the refusal, with `need` and `have` where something did not fit.
    pub fn problem(&self) -> Problem {
        let mut problem = Problem::new(self.code(), self.to_string());
        match *self {
            ImageError::CarrierTooSmall { need_bytes, have_bytes } => {
                problem.need = Some(need_bytes);
                problem.have = Some(have_bytes);
            }
            ImageError::TooLarge { have, limit, .. } | ImageError::LabelTooLong { have, limit } => {
                problem.need = Some(have);
                problem.have = Some(limit);
            }
            _ => {}
        }
        problem
    }
}
