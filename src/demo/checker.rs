//! What a right answer is: a label that reads back as it was asked for, a seal that opens to the picture bit for bit.

use crate::client::Work;
use crate::demo::pictures::Picture;
use crate::demo::verify::{Checker, same_bytes};
use crate::image::{ClusterKey, Limits, read_label, unseal};

/// Checks with the cluster's key, where it is known.
pub struct ImageChecker {
    /// The key; needed for seals only.
    pub cluster_key: Option<ClusterKey>,
    /// Limits of the decoder.
    pub limits: Limits,
}

impl Checker for ImageChecker {
    fn check(&self, work: &Work, picture: &Picture, answer: &[u8]) -> Result<(), String> {
        match work {
            Work::Label(wanted) => {
                let found =
                    read_label(answer, &self.limits).map_err(|error| format!("no label in the answer: {error}"))?;
                if found == *wanted { Ok(()) } else { Err(format!("the label is {found:?} instead of {wanted:?}")) }
            }
            Work::Seal(_) | Work::SealOwned(..) => {
                let key = self.cluster_key.as_ref().ok_or("a seal cannot be opened without the cluster key")?;
                let opened =
                    unseal(answer, key, &self.limits).map_err(|error| format!("the seal does not open: {error}"))?;
                if opened.name != picture.name {
                    return Err(format!("the seal holds \"{}\" instead of \"{}\"", opened.name, picture.name));
                }
                same_bytes(&opened.original, &picture.bytes)
            }
        }
    }
}
