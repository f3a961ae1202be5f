//! The bytes of a segment, one file of the log: a head, then frames, then zeros: **pure**.
//!
//! ```text
//! head    512 bytes: magic, BLAKE3-256 of what follows, key, ordinal, checkpoint, zeros
//! frame   length (u32), CRC-32 of the body (u32), tag (8 bytes), body: one sync of the disk
//! record  kind (u8), length (u32), CRC-32 (u32), content; a body is records
//! ```
//!
//! All numbers are big endian. A file has its full length from the start, so that a sync need not write that down as well: where the
//! frames end is where no frame begins.
//!
//! A frame is there as a whole or not at all, and the next one is written only when it is synced. So what does not hold together is the
//! half of a frame that nobody was told of, if nothing is behind it, and damage, if a later frame is. The tag is a keyed hash of the
//! frame's numbers and place, under a key that no client knows: nothing that somebody has written into a value looks like a frame.

use std::io;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::protocol::codec::{self, CodecError};
use crate::raft::types::{Entry, LogId, Payload, Vote};

/// Length of a segment's head, in bytes: a sector, so that a crash leaves it whole or not at all on most disks.
pub const HEAD_BYTES: usize = 512;

/// Length of a frame's own head, in bytes.
pub const FRAME_BYTES: usize = 16;

/// The first bytes of a segment; the last one is its version.
const MAGIC: [u8; 8] = *b"ICLOG\0\0\x01";
const HASH_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const RECORD_BYTES: usize = 9;

/// What holds when a segment begins, so that those before it may go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The last vote.
    pub vote: Option<Vote>,
    /// How far the log is known to be committed.
    pub committed: Option<LogId>,
    /// Up to where it was folded into a snapshot.
    pub purged: Option<LogId>,
}

/// Makes and recognises the frames of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal([u8; KEY_BYTES]);

/// One step of the log.
#[derive(Clone, Debug)]
pub enum Step {
    /// This node votes.
    Vote(Vote),
    /// The next entry.
    Entry(Entry),
    /// The log is committed so far.
    Committed(LogId),
    /// The entries behind this one go.
    TruncateAfter(Option<LogId>),
    /// The entries up to this one are in a snapshot.
    Purge(LogId),
}

/// A step as it is read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An entry, and where in the frame its record stands.
    Entry(LogId, Range<usize>),
    /// See [`Step`].
    Vote(Vote),
    /// See [`Step`].
    Committed(LogId),
    /// See [`Step`].
    TruncateAfter(Option<LogId>),
    /// See [`Step`].
    Purge(LogId),
}

impl Seal {
    /// A seal under a key that nobody can guess.
    pub fn new(key: [u8; KEY_BYTES]) -> Seal {
        Seal(key)
    }

    /// The head of a segment.
    ///
    /// # Errors
    /// `InvalidData` if it does not fit.
    pub fn head(&self, ordinal: u64, checkpoint: &Checkpoint) -> io::Result<Vec<u8>> {
        let mut head = [&MAGIC[..], &[0; HASH_BYTES], &self.0, &ordinal.to_be_bytes()].concat();
        let checkpoint = codec::encode(checkpoint).map_err(invalid)?;
        head.extend((checkpoint.len() as u32).to_be_bytes());
        head.extend(checkpoint);
        if head.len() > HEAD_BYTES {
            return Err(invalid("the checkpoint of a segment does not fit its head"));
        }
        head.resize(HEAD_BYTES, 0);
        let (hash, hashed) = head[MAGIC.len()..].split_at_mut(HASH_BYTES);
        hash.copy_from_slice(blake3::hash(hashed).as_bytes());
        Ok(head)
    }

    /// Reads the head of a segment; none if it is not whole.
    pub fn read_head(segment: &[u8]) -> Option<(Seal, u64, Checkpoint)> {
        let head = segment.get(..HEAD_BYTES)?.strip_prefix(&MAGIC)?;
        let (hash, hashed) = head.split_at(HASH_BYTES);
        if blake3::hash(hashed).as_bytes() != hash {
            return None;
        }
        let (key, rest) = hashed.split_first_chunk()?;
        let (ordinal, rest) = rest.split_first_chunk()?;
        let (checkpoint, _) = counted(rest)?;
        Some((Seal(*key), u64::from_be_bytes(*ordinal), codec::decode(checkpoint).ok()?))
    }

    /// Fills in the head of a frame that begins with room for it and stands at `offset` in its segment.
    pub fn close(&self, frame: &mut [u8], offset: usize) {
        let Some((head, body)) = frame.split_first_chunk_mut::<FRAME_BYTES>() else { return };
        *head = self.frame_head(body.len() as u32, crc32fast::hash(body), offset);
    }

    fn frame_head(&self, length: u32, checksum: u32, offset: usize) -> [u8; FRAME_BYTES] {
        let mut head = [0; FRAME_BYTES];
        head[..4].copy_from_slice(&length.to_be_bytes());
        head[4..8].copy_from_slice(&checksum.to_be_bytes());
        head[8..].copy_from_slice(&(offset as u64).to_be_bytes());
        let tag = blake3::keyed_hash(&self.0, &head);
        head[8..].copy_from_slice(&tag.as_bytes()[..8]);
        head
    }

    /// The body of the frame at `offset`, if it is whole.
    pub fn frame<'a>(&self, segment: &'a [u8], offset: usize) -> Option<&'a [u8]> {
        let (length, checksum) = self.begins(segment, offset)?;
        let body = segment[offset + FRAME_BYTES..].get(..length as usize)?;
        (crc32fast::hash(body) == checksum).then_some(body)
    }

    /// Length and checksum of the frame that begins at `offset`, whole or not.
    fn begins(&self, segment: &[u8], offset: usize) -> Option<(u32, u32)> {
        let head = segment.get(offset..)?.first_chunk::<FRAME_BYTES>()?;
        let (length, rest) = number(head)?;
        let (checksum, _) = number(rest)?;
        // Most places are told from frames by their lengths alone.
        let fits = length > 0 && length as usize <= segment.len() - offset - FRAME_BYTES;
        (fits && self.frame_head(length, checksum, offset) == *head).then_some((length, checksum))
    }

    /// Where a frame begins at `from` or later, although the one before it is not whole.
    pub fn frame_behind(&self, segment: &[u8], from: usize) -> Option<usize> {
        (from..segment.len()).find(|offset| self.begins(segment, *offset).is_some())
    }
}

/// A frame without records, with room for its head.
pub fn empty_frame() -> Vec<u8> {
    vec![0; FRAME_BYTES]
}

const VOTE: u8 = 1;
const ENTRY: u8 = 2;
const COMMITTED: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGE: u8 = 5;

/// Puts a record behind those of a frame; says where in the frame it stands.
///
/// # Errors
/// `InvalidData` if it is larger than a frame of the node protocol; the records before it stay as they are.
pub fn put(frame: &mut Vec<u8>, step: &Step) -> io::Result<Range<usize>> {
    let begin = frame.len();
    frame.extend([0; RECORD_BYTES]);
    let kind = put_content(frame, step).map_err(|error| {
        frame.truncate(begin);
        invalid(error)
    })?;
    let (head, content) = frame[begin..].split_at_mut(RECORD_BYTES);
    head[0] = kind;
    head[1..5].copy_from_slice(&(content.len() as u32).to_be_bytes());
    head[5..].copy_from_slice(&crc32fast::hash(content).to_be_bytes());
    Ok(begin..frame.len())
}

fn put_content(frame: &mut Vec<u8>, step: &Step) -> Result<u8, CodecError> {
    match step {
        Step::Vote(vote) => codec::encode_into(vote, frame).map(|()| VOTE),
        Step::Committed(committed) => codec::encode_into(committed, frame).map(|()| COMMITTED),
        Step::TruncateAfter(last) => codec::encode_into(last, frame).map(|()| TRUNCATE),
        Step::Purge(upto) => codec::encode_into(upto, frame).map(|()| PURGE),
        Step::Entry(Entry { log_id, payload }) => {
            // The id behind its length, so that it can be read without the payload.
            let at = frame.len();
            frame.push(0);
            codec::encode_into(log_id, frame)?;
            frame[at] = (frame.len() - at - 1) as u8;
            codec::encode_into(payload, frame).map(|()| ENTRY)
        }
    }
}

/// The records of a frame's body, in order.
///
/// # Errors
/// `InvalidData`: the body is whole, and its writer did not keep to this form.
pub fn records(body: &[u8]) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut begin = 0;
    while begin < body.len() {
        let (kind, content) = record(&body[begin..])?;
        let end = begin + RECORD_BYTES + content.len();
        records.push(match kind {
            VOTE => Record::Vote(codec::decode(content).map_err(invalid)?),
            COMMITTED => Record::Committed(codec::decode(content).map_err(invalid)?),
            TRUNCATE => Record::TruncateAfter(codec::decode(content).map_err(invalid)?),
            PURGE => Record::Purge(codec::decode(content).map_err(invalid)?),
            // Where a body begins, its frame has begun already.
            ENTRY => Record::Entry(entry(content)?.0, begin + FRAME_BYTES..end + FRAME_BYTES),
            other => return Err(invalid(format!("a record of kind {other}"))),
        });
        begin = end;
    }
    Ok(records)
}

/// The payload of an entry's record.
///
/// # Errors
/// `InvalidData` if it is damaged, or another entry's.
pub fn read_entry(bytes: &[u8], id: &LogId) -> io::Result<Payload> {
    match record(bytes)? {
        (ENTRY, content) => match entry(content)? {
            (found, payload) if found == *id => codec::decode(payload).map_err(invalid),
            (found, _) => Err(invalid(format!("entry {found} stands where entry {id} should"))),
        },
        _ => Err(invalid(format!("no entry stands where entry {id} should"))),
    }
}

fn record(bytes: &[u8]) -> io::Result<(u8, &[u8])> {
    let parts = || {
        let (kind, rest) = bytes.split_first()?;
        let (length, rest) = number(rest)?;
        let (checksum, rest) = number(rest)?;
        let content = rest.get(..length as usize)?;
        (crc32fast::hash(content) == checksum).then_some((*kind, content))
    };
    parts().ok_or_else(|| invalid("a record is damaged"))
}

/// Id and payload of an entry.
fn entry(content: &[u8]) -> io::Result<(LogId, &[u8])> {
    let split = content.split_first().and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)));
    let (id, payload) = split.ok_or_else(|| invalid("an entry without an id"))?;
    Ok((codec::decode(id).map_err(invalid)?, payload))
}

fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = number(bytes)?;
    rest.split_at_checked(length as usize)
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

pub fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
