//! The files of the log: found again after a crash, made, and deleted whole.
//!
//! A half-written frame at the end is cut off: nobody was told that it was kept. Damage with a later frame behind it is no crash, and is
//! refused with its place; then nothing is changed. What cannot be told apart: damage in the very last frame looks like a crash.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::contents::Contents;
use super::frame::{self, Checkpoint, FRAME_BYTES, HEAD_BYTES, Seal, invalid};

/// How many zeros are written ahead of the frames: few enough that the sync that brings them to the disk takes a moment only.
const BLANK_BYTES: usize = 128 << 10;

/// One file of the log.
#[derive(Clone, Debug)]
pub struct Segment {
    pub ordinal: u64,
    pub file: Arc<File>,
    pub seal: Seal,
    /// Where its frames end, and the next one will stand.
    pub end: usize,
    /// Where the part ends that has its blocks on the disk.
    pub allocated: usize,
    /// The index of the log's last entry behind its last frame; none while frames follow.
    pub ends_at: Option<u64>,
}

/// What was found in a directory.
pub struct Recovered {
    /// In order; there may be none.
    pub segments: Vec<Segment>,
    pub contents: Contents,
}

/// Reads the segments of a directory, cuts off what a crash has left half written, and makes the rest durable: what a killed process had
/// written but not synced is seen by the next one, which answers for it. `has_voted` says that there is a log.
///
/// # Errors
/// The system's; `InvalidData` if the log is damaged: then its files are as they were.
pub fn recover(directory: &Path, has_voted: bool) -> io::Result<Recovered> {
    let mut files = segment_files(directory)?;
    let unfinished = match files.last() {
        // The only segment of a log that has a vote is not half made.
        Some((ordinal, path)) if (files.len() > 1 || !has_voted) && is_unfinished(*ordinal, path)? => files.pop(),
        _ => None,
    };
    let mut recovered = Recovered { segments: Vec::new(), contents: Contents::default() };
    let mut torn = None;
    for (place, (ordinal, path)) in files.iter().enumerate() {
        // The next segment was begun when this one was synced as a whole.
        let is_last = place + 1 == files.len() && unfinished.is_none();
        torn = recovered.read(*ordinal, path, is_last)?;
    }
    recovered.contents.check_beginning()?;
    if let Some((_, path)) = &unfinished {
        log::warn!("{}: deleting a segment that a crash has left half made", path.display());
        fs::remove_file(path)?;
    }
    if let (Some((_, path)), Some(last)) = (files.last(), recovered.segments.last()) {
        if let Some(bytes) = torn {
            log::warn!("{}: cutting off {bytes} bytes that a crash has left half written", path.display());
            let length = last.file.metadata()?.len();
            last.file.set_len(last.end as u64)?;
            last.file.set_len(length)?;
        }
        // Written again, not only synced: after a sync that failed the system shows pages that are not on the disk and never will be.
        let bytes = fs::read(path)?;
        last.file.write_all_at(&bytes[..last.end], 0)?;
        last.file.sync_all()?;
    }
    File::open(directory)?.sync_all()?;
    Ok(recovered)
}

impl Recovered {
    /// Reads one more segment; says how many bytes behind its last whole frame are not blank.
    fn read(&mut self, ordinal: u64, path: &Path, is_last: bool) -> io::Result<Option<usize>> {
        let damaged = |what: String| invalid(format!("{}: {what}", path.display()));
        let bytes = fs::read(path)?;
        let (seal, _, checkpoint) = Seal::read_head(&bytes)
            .filter(|(_, found, _)| *found == ordinal)
            .ok_or_else(|| damaged("its head is damaged, or another file's".to_owned()))?;
        match self.segments.last_mut() {
            Some(before) if before.ordinal + 1 != ordinal => {
                return Err(damaged(format!("the segment before it, number {}, is missing", ordinal - 1)));
            }
            Some(before) => before.ends_at = self.contents.last().map(|id| id.index()),
            None => self.contents = Contents::begin(checkpoint),
        }
        let mut end = HEAD_BYTES;
        while let Some(body) = seal.frame(&bytes, end) {
            let records = frame::records(body).map_err(|error| damaged(format!("the frame at byte {end}: {error}")))?;
            for record in records {
                self.contents.replay(record, ordinal, end).map_err(|error| damaged(error.to_string()))?;
            }
            end += FRAME_BYTES + body.len();
        }
        let torn = bytes[end..].iter().rposition(|byte| *byte != 0).map(|last| last + 1);
        if torn.is_some() {
            if let Some(next) = seal.frame_behind(&bytes, end + 1) {
                return Err(damaged(format!("the frame at byte {end} is damaged; another one begins at byte {next}")));
            }
            if !is_last {
                return Err(damaged(format!("the frame at byte {end} is damaged, and there is a later segment")));
            }
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(path)?);
        self.segments.push(Segment { ordinal, file, seal, end, allocated: end, ends_at: None });
        Ok(torn)
    }
}

/// Whether a crash came while that file was made: its head is not whole, and nothing was written behind that.
fn is_unfinished(ordinal: u64, path: &Path) -> io::Result<bool> {
    let bytes = fs::read(path)?;
    let has_head = Seal::read_head(&bytes).is_some_and(|(_, found, _)| found == ordinal);
    Ok(!has_head && bytes.iter().skip(HEAD_BYTES).all(|byte| *byte == 0))
}

/// Makes a segment of that length and begins it; all of it is synced when this returns.
///
/// # Errors
/// The system's.
pub fn create(directory: &Path, ordinal: u64, bytes: usize, checkpoint: &Checkpoint) -> io::Result<Segment> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let seal = Seal::new(key);
    let head = seal.head(ordinal, checkpoint)?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path_of(directory, ordinal))?;
    // Frames are written into the file, not behind it, so that a sync does not have to write down a new length.
    file.set_len(bytes as u64)?;
    file.write_all_at(&head, 0)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()?;
    Ok(Segment { ordinal, file: Arc::new(file), seal, end: HEAD_BYTES, allocated: HEAD_BYTES, ends_at: None })
}

impl Segment {
    /// Writes a frame at the end. One that needs new blocks of the disk has zeros written behind it, within `bytes` of the file, so that
    /// the next ones do not: a sync of new blocks writes about the file too, and takes nearly twice as long. A frame as long as that has
    /// successors that would need new ones anyway.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&mut self, frame: &[u8], bytes: usize) -> io::Result<()> {
        self.file.write_all_at(frame, self.end as u64)?;
        let end = self.end + frame.len();
        if end > self.allocated {
            let ahead = if frame.len() < BLANK_BYTES { BLANK_BYTES } else { 0 };
            let blank = vec![0; ahead.min(bytes.saturating_sub(end))];
            self.file.write_all_at(&blank, end as u64)?;
            self.allocated = end + blank.len();
        }
        Ok(())
    }
}

/// Deletes segments; none of them comes back in a power cut.
///
/// # Errors
/// The system's.
pub fn delete(directory: &Path, segments: &[Segment]) -> io::Result<()> {
    for segment in segments {
        fs::remove_file(path_of(directory, segment.ordinal))?;
    }
    if segments.is_empty() { Ok(()) } else { File::open(directory)?.sync_all() }
}

fn path_of(directory: &Path, ordinal: u64) -> PathBuf {
    directory.join(format!("{ordinal:020}.wal"))
}

/// The files of the log, in order.
fn segment_files(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        let ordinal = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".wal")?.parse().ok());
        files.extend(ordinal.map(|ordinal| (ordinal, path)));
    }
    files.sort();
    Ok(files)
}
