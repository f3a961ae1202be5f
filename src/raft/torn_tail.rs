//! A crash that raft-log does not take for one: the file had grown, but only the first blocks of its last record were written.
//!
//! raft-log cuts off a record that ends too early, and a tail that is blank from a record's first byte; a record that begins well
//! and goes on blank it takes for damage. Without its blank tail such a record ends too early.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Tries once more without the blank tail of the last file. If that does not help either, the file is as it was.
///
/// # Errors
/// `error`, the answer to the first try, if the second fails; the system's.
pub(crate) fn open_without_blank_tail<T>(
    directory: &Path,
    open: impl FnOnce() -> io::Result<T>,
    error: io::Error,
) -> io::Result<T> {
    let Some(path) = last_chunk(directory)? else { return Err(error) };
    let bytes = fs::read(&path)?;
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if written == bytes.len() {
        return Err(error);
    }
    set_length(&path, written)?;
    match open() {
        Ok(opened) => {
            log::warn!("{}: cut off a record that a crash had left half written ({error})", path.display());
            Ok(opened)
        }
        Err(_) => {
            set_length(&path, bytes.len())?;
            Err(error)
        }
    }
}

fn last_chunk(directory: &Path) -> io::Result<Option<PathBuf>> {
    let mut last = None;
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            last = last.max(Some(path));
        }
    }
    Ok(last)
}

/// Cuts a file, or makes it longer by zeros.
fn set_length(path: &Path, length: usize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length as u64)?;
    file.sync_all()
}
