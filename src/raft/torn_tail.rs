//! The end of the log after a crash. A record that was left half written is cut off: nobody was told that it was kept. Damage with
//! whole records behind it is no crash, and is refused.
//!
//! raft-log tells the two apart by whether a record ends too early. But a damaged length lets a record of the middle reach beyond the
//! end of the file too, and what was acknowledged behind it would be cut off with it. So this looks first, and raft-log cuts nothing.
//!
//! A value may hold what looks like a record. So the entry that the damaged record carries is asked first, since it says by itself how
//! far it goes: an entry that is cut off by the end of the file is torn, and nothing in it counts; behind one that goes exactly as far
//! as its record says, records are looked for only there.
//!
//! What cannot be told apart: damage in the very last record looks like a crash. And a crash that kept a later block of one write
//! but not an earlier one looks like damage; journalling file systems make a file longer only when its blocks are there, in order.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use raft_log::codeq::Decode;

use crate::protocol::codec::{self, LIMIT_BYTES, Reach};
use crate::raft::types::{LogId, Payload};

/// The type of a record that carries an entry: the only one with bytes of users in it.
const APPEND: u32 = 1;

/// The highest number of a record's type; it stands in front of each record as a `u32`, big endian.
const LAST_TYPE: u8 = 5;

/// Cuts off what a crash has left half written, and syncs the rest: what a killed process had written but not synced is seen by the next
/// one, which answers for it without writing it again. `R` is a record of the log.
///
/// # Errors
/// The system's; `InvalidData` if a record is damaged and whole ones follow it: then the file is as it was.
pub(crate) fn mend<R: Decode>(directory: &Path) -> io::Result<()> {
    let mut chunks = chunks(directory)?;
    // A file gets its first record when the one before it is synced. One without any holds nothing, and raft-log removes it.
    while let Some(path) = chunks.pop() {
        let bytes = fs::read(&path)?;
        let whole = whole_records::<R>(&bytes);
        if whole < bytes.len() {
            let from = whole + nothing_before(&bytes[whole..]);
            if let Some(next) = next_record::<R>(&bytes, from) {
                let what =
                    format!("{}: the record at byte {whole} is damaged; byte {next} is whole again", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            let cut = bytes.len() - whole;
            log::warn!("{}: cutting off {cut} bytes of a record that a crash has left half written", path.display());
        }
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(whole as u64)?;
        file.sync_all()?;
        if whole > 0 {
            break;
        }
    }
    Ok(())
}

/// The files of the log, in order.
fn chunks(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut chunks = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            chunks.push(path);
        }
    }
    chunks.sort();
    Ok(chunks)
}

/// Where the last of the records ends that stand whole at the beginning.
fn whole_records<R: Decode>(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut reader = rest;
        if R::decode(&mut reader).is_err() {
            break;
        }
        rest = reader;
    }
    bytes.len() - rest.len()
}

/// Before which place, in what begins with a record that is not whole, no other record can begin.
fn nothing_before(bytes: &[u8]) -> usize {
    let anywhere = 1;
    let Some((APPEND, rest)) = number(bytes) else { return anywhere };
    let Some((_, rest)) = coded(rest).filter(|(id, _)| codec::decode::<LogId>(id).is_ok()) else { return anywhere };
    let Some((length, entry)) = number(rest).filter(|(length, _)| *length as usize <= LIMIT_BYTES) else {
        return anywhere;
    };
    let length = length as usize;
    match codec::reach::<Payload>(&entry[..entry.len().min(length)]) {
        Reach::Beyond if length > entry.len() => bytes.len(),
        Reach::Exactly => bytes.len().min(bytes.len() - entry.len() + length),
        _ => anywhere,
    }
}

/// A number, and what is behind it.
fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

/// Bytes behind their length, and what is behind them.
fn coded(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = number(bytes)?;
    rest.split_at_checked(length as usize)
}

/// Where the next whole record begins, at `from` or later.
fn next_record<R: Decode>(bytes: &[u8], from: usize) -> Option<usize> {
    let is_type = |at: &usize| matches!(bytes[*at..], [0, 0, 0, number, ..] if number <= LAST_TYPE);
    (from..bytes.len()).filter(is_type).find(|&at| R::decode(&bytes[at..]).is_ok())
}
