//! The cluster's keys in a running node: those that lie on disk now.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::secrets::{CLUSTER_KEY_FILE, ClusterKeys, OLD_KEYS_FILE, SecretsError, read_cluster_keys};
use crate::image::{ClusterKey, KeyRing};

/// The keys that lie in a directory. Each use asks the system whether the two files are those that were read last, which costs a few
/// microseconds; so a rotation and a retirement hold from the next image on, without a signal that could be forgotten.
#[derive(Debug)]
pub struct Keys {
    directory: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    files: [File; 2],
    /// Files that could not be read, of which the log has spoken.
    refused: Option<[File; 2]>,
    ring: Arc<KeyRing>,
}

/// What tells one file of a name from the next. A rename brings another inode, and every change another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    Missing,
    Unknown,
    There { inode: u64, bytes: u64, changed: (i64, i64) },
}

impl File {
    fn at(path: &Path) -> File {
        match fs::metadata(path) {
            Ok(is) => File::There { inode: is.ino(), bytes: is.len(), changed: (is.ctime(), is.ctime_nsec()) },
            Err(error) if error.kind() == ErrorKind::NotFound => File::Missing,
            Err(_) => File::Unknown,
        }
    }

    fn both(directory: &Path) -> [File; 2] {
        [CLUSTER_KEY_FILE, OLD_KEYS_FILE].map(|name| File::at(&directory.join(name)))
    }
}

impl Keys {
    /// Reads the keys in a directory.
    ///
    /// # Errors
    /// A file that is missing, too open or damaged; a current key that was retired.
    pub fn open(directory: &Path) -> Result<Keys, SecretsError> {
        let read = Read { files: File::both(directory), refused: None, ring: Arc::new(read_ring(directory)?) };
        Ok(Keys { directory: directory.to_owned(), read: Mutex::new(read) })
    }

    /// The keys as they are now. If they cannot be read, those of before stay, and the log says so, once.
    pub fn ring(&self) -> Arc<KeyRing> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at before they are read: what changes in between is seen at the next look.
        let files = File::both(&self.directory);
        if files != read.files {
            match read_ring(&self.directory) {
                Ok(ring) => {
                    (read.files, read.refused) = (files, None);
                    log::info!("the cluster keys were read anew: images are locked under {} now", ring.current().id());
                    read.ring = Arc::new(ring);
                }
                // It is tried again at each use, and told once.
                Err(error) if read.refused != Some(files) => {
                    read.refused = Some(files);
                    log::error!("the cluster keys stay as they were: {error}");
                }
                Err(_) => {}
            }
        }
        Arc::clone(&read.ring)
    }

    /// The key under which new images are sealed.
    pub fn current(&self) -> ClusterKey {
        self.ring().current().clone()
    }
}

fn read_ring(directory: &Path) -> Result<KeyRing, SecretsError> {
    let ClusterKeys { current, old, retired } = read_cluster_keys(&directory.join(CLUSTER_KEY_FILE))?;
    Ok(KeyRing::new(ClusterKey::new(current.0), old.into_iter().map(|key| ClusterKey::new(key.0)), retired))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secrets::{self, key_ring};
    use crate::id::{ClusterId, NodeId};
    use crate::image::{DataKey, Header, ImageError, ImageNonce, Limits, Terms, Wrap};

    fn header(key: &ClusterKey) -> Header {
        let wrap =
            Wrap { data_key: DataKey([9; 32]), terms: Terms::default(), media_type: String::new(), name: "cat".into() };
        Header::create(&wrap, key, ClusterId([1; 32]), ImageNonce([2; 32]), 5, &Limits::default()).unwrap()
    }

    #[test]
    fn a_running_node_takes_rotations_and_retirements_from_the_next_image_on() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("cluster");
        secrets::of_one_machine(&directory, NodeId(1)).unwrap();
        let keys = Keys::open(&directory).unwrap();
        let first = keys.current();
        let image = header(&first);
        let second = key_ring::rotate(&directory).unwrap();
        assert_eq!(keys.current().id(), second);
        assert!(keys.ring().open(&image).is_ok(), "old images still open");
        key_ring::retire(&directory, first.id()).unwrap();
        assert_eq!(keys.ring().open(&image), Err(ImageError::RetiredKey { key: first.id() }));
        assert!(keys.ring().open(&header(&keys.current())).is_ok());
    }

    #[test]
    fn keys_that_cannot_be_read_leave_those_of_before() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("cluster");
        secrets::of_one_machine(&directory, NodeId(1)).unwrap();
        let keys = Keys::open(&directory).unwrap();
        let first = keys.current();
        let text = fs::read(directory.join(CLUSTER_KEY_FILE)).unwrap();
        fs::write(directory.join(CLUSTER_KEY_FILE), "half").unwrap();
        assert_eq!(keys.current(), first);
        assert!(Keys::open(&directory).is_err(), "a start refuses them");
        fs::write(directory.join(CLUSTER_KEY_FILE), text).unwrap();
        assert_eq!(keys.current(), first);
    }
}
