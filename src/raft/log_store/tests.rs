//! The log survives what a crash leaves, and refuses what none does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};

use super::frame::{self, Checkpoint, FRAME_BYTES, HEAD_BYTES, Record, Seal, Step};
use super::{LogStore, SEGMENT_BYTES};
use crate::id::{Incarnation, MemberId, NodeId, RequestId};
use crate::protocol::ledger::{KvOperation, Stamp, Write};
use crate::protocol::user::Date;
use crate::raft::types::{Command, Entry, LogId, Payload, Vote};

/// Small files, so that a few entries fill many.
const SMALL: usize = 8 << 10;

/// Whose log it is: a follower's, as the votes are for another member.
fn me() -> MemberId {
    MemberId { node: NodeId(1), incarnation: Incarnation(1) }
}

fn vote(term: u64) -> Vote {
    Vote::new(term, MemberId { node: NodeId(2), incarnation: Incarnation(2) })
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { log_id: log_id(term, index), payload: Payload::Blank }
}

fn put(term: u64, index: u64, value: impl Into<Bytes>) -> Entry {
    let put = KvOperation::Put { key: Bytes::from(index.to_string()), value: value.into(), expires_in_ms: None };
    let write = Write::kv(RequestId(u128::from(index).to_be_bytes()), vec![put]);
    let command = Command::Ledger { stamp: Stamp(term), date: Date(term), writes: [write].into() };
    Entry { log_id: log_id(term, index), payload: Payload::Normal(command) }
}

fn open_with(directory: &Path, segment_bytes: usize) -> io::Result<LogStore> {
    LogStore::open(directory, &directory.join("begun"), segment_bytes, me())
}

fn open(directory: &Path) -> io::Result<LogStore> {
    open_with(directory, SEGMENT_BYTES)
}

async fn ids(log: &mut LogStore) -> Vec<LogId> {
    log.try_get_log_entries(..).await.unwrap().into_iter().map(|entry| entry.log_id).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "wal")).collect();
    files.sort();
    files
}

/// What is written of the only file.
fn written(log: &LogStore, directory: &Path) -> Vec<u8> {
    let mut bytes = fs::read(&files(directory)[0]).unwrap();
    bytes.truncate(log.disk().bytes().unwrap().held as usize);
    bytes
}

/// The only file of a log in a directory of its own.
fn directory_with(bytes: &[u8]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(format!("{:020}.wal", 1)), bytes).unwrap();
    directory
}

/// Everything behind the last completed sync may be cut off, or blank where the file has its length already.
#[tokio::test]
async fn a_tail_that_was_torn_by_a_crash_is_cut_off_and_nothing_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path()).unwrap();
    log.save_vote(&vote(3)).await.unwrap();
    log.blocking_append([entry(1, 0), entry(2, 1)]).await.unwrap();
    let synced = written(&log, directory.path()).len();
    log.blocking_append([entry(3, 2)]).await.unwrap();
    let whole = written(&log, directory.path());
    // A frame that lacks nothing but zeros where the file is blank is there.
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;

    for length in synced..end {
        let cut = whole[..length].to_vec();
        let mut blank = cut.clone();
        blank.resize(SEGMENT_BYTES, 0);
        // The end of the frame came to the disk, its beginning did not.
        let mut hole = whole.clone();
        hole[synced..length.max(synced + 8)].fill(0);
        for bytes in [cut, blank, hole] {
            let crashed = directory_with(&bytes);
            let mut log = open(crashed.path()).unwrap_or_else(|error| panic!("{length}: {error}"));
            assert_eq!(log.read_vote().await.unwrap(), Some(vote(3)), "{length}");
            assert_eq!(ids(&mut log).await, [log_id(1, 0), log_id(2, 1)], "{length}");
            // And it goes on from there.
            log.blocking_append([entry(4, 2)]).await.unwrap();
            drop(log);
            let mut log = open(crashed.path()).unwrap();
            assert_eq!(ids(&mut log).await, [log_id(1, 0), log_id(2, 1), log_id(4, 2)]);
        }
    }
}

/// Whoever may write may write what looks like a frame: it is none, since it stands elsewhere.
#[tokio::test]
async fn a_torn_entry_that_holds_whole_frames_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path()).unwrap();
    log.blocking_append([entry(1, 0), entry(1, 1)]).await.unwrap();
    let frames = written(&log, directory.path());
    log.blocking_append([put(1, 2, frames.clone())]).await.unwrap();
    let whole = written(&log, directory.path());
    assert!(whole.len() > 2 * frames.len());

    for length in frames.len()..whole.len() {
        let crashed = directory_with(&whole[..length]);
        let mut log = open(crashed.path()).unwrap_or_else(|error| panic!("cut at {length}: {error}"));
        assert_eq!(ids(&mut log).await, [log_id(1, 0), log_id(1, 1)], "cut at {length}");
    }
}

#[tokio::test]
async fn damage_before_the_tail_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path()).unwrap();
    let mut last = 0;
    for index in 0..20 {
        last = written(&log, directory.path()).len();
        log.blocking_append([entry(1, index)]).await.unwrap();
    }
    let whole = written(&log, directory.path());
    for at in 0..last {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        let damaged = directory_with(&bytes);
        let error = open(damaged.path()).err().unwrap_or_else(|| panic!("byte {at} is damaged, and nobody saw it"));
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert_eq!(fs::read(&files(damaged.path())[0]).unwrap(), bytes, "byte {at}");
    }
}

#[tokio::test]
async fn a_missing_or_strange_segment_is_refused_and_a_half_made_one_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open_with(directory.path(), SMALL).unwrap();
    for index in 0..30 {
        log.blocking_append([put(1, index, vec![7; 1000])]).await.unwrap();
    }
    drop(log);
    let segments = files(directory.path());
    assert!(segments.len() >= 4, "{segments:?}");
    let copy = || {
        let copy = tempfile::tempdir().unwrap();
        for file in &segments {
            fs::copy(file, copy.path().join(file.file_name().unwrap())).unwrap();
        }
        (files(copy.path()), copy)
    };
    let refused = |directory: &Path, word: &str| {
        let error = open_with(directory, SMALL).err().unwrap_or_else(|| panic!("not seen: {word}"));
        assert!(error.kind() == io::ErrorKind::InvalidData && error.to_string().contains(word), "{error}");
    };

    let (files_there, directory) = copy();
    fs::remove_file(&files_there[1]).unwrap();
    refused(directory.path(), "is missing");
    let (files_there, directory) = copy();
    fs::copy(&files_there[0], &files_there[1]).unwrap();
    refused(directory.path(), "another file's");
    // What a crash may do to the last segment, it cannot have done to one before.
    let (files_there, directory) = copy();
    let mut bytes = fs::read(&files_there[1]).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end] = 0;
    fs::write(&files_there[1], bytes).unwrap();
    refused(directory.path(), "there is a later segment");

    for half_made in [Vec::new(), vec![0; SMALL], fs::read(&segments[0]).unwrap()[..HEAD_BYTES - 1].to_vec()] {
        let (files_there, directory) = copy();
        let next = directory.path().join(format!("{:020}.wal", files_there.len() + 1));
        fs::write(&next, &half_made).unwrap();
        let mut log = open_with(directory.path(), SMALL).unwrap();
        assert_eq!(ids(&mut log).await.len(), 30);
        for index in 30..40 {
            log.blocking_append([put(1, index, vec![7; 1000])]).await.unwrap();
        }
        drop(log);
        assert_eq!(ids(&mut open_with(directory.path(), SMALL).unwrap()).await.len(), 40);
    }
}

/// Entries come back with what they carry: from memory, from disk, after a restart; and purged segments are deleted whole.
#[tokio::test]
async fn entries_are_read_as_they_were_written_until_they_are_purged() {
    let directory = tempfile::tempdir().unwrap();
    let all: Vec<Entry> = (0..400).map(|index| put(1, index, vec![index as u8; 40_000])).collect();
    let mut log = open_with(directory.path(), 1 << 20).unwrap();
    for entries in all.chunks(7) {
        log.blocking_append(entries.iter().cloned()).await.unwrap();
    }
    // More than is kept in memory.
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), all);
    assert_eq!(log.try_get_log_entries(10..=12).await.unwrap(), all[10..13]);
    assert_eq!(log.try_get_log_entries(399..1000).await.unwrap(), all[399..]);
    log.truncate_after(Some(log_id(1, 389))).await.unwrap();
    log.save_committed(Some(log_id(1, 380))).await.unwrap();
    log.blocking_append([entry(2, 390)]).await.unwrap();
    drop(log);

    let mut log = open_with(directory.path(), 1 << 20).unwrap();
    let mut expected = all[..390].to_vec();
    expected.push(entry(2, 390));
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), expected);
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 380)));
    let (before, dispensable) = (files(directory.path()).len(), log.disk().dispensable(4 << 20, 300).unwrap());
    log.purge(log_id(1, dispensable)).await.unwrap();
    // The purge shares a sync with the vote, and what it lets go is deleted behind that.
    log.save_vote(&vote(3)).await.unwrap();
    drop(log);
    assert!(files(directory.path()).len() + 4 < before, "{before} files before");

    let mut log = open_with(directory.path(), 1 << 20).unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), expected[dispensable as usize + 1..]);
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, dispensable)), Some(log_id(2, 390))));
    assert_eq!(log.read_vote().await.unwrap(), Some(vote(3)));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 380)));
}

#[tokio::test]
async fn a_committed_position_that_the_log_does_not_hold_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path()).unwrap();
    log.save_committed(Some(log_id(1, 5))).await.unwrap();
    assert_eq!(log.read_committed().await.unwrap(), None);
    log.blocking_append([entry(1, 0), entry(1, 1)]).await.unwrap();
    log.save_committed(Some(log_id(1, 5))).await.unwrap();
    log.save_committed(Some(log_id(1, 0))).await.unwrap();
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 1)));
    // Nobody waited for it to be on disk, but a log that is closed in order forgets nothing.
    drop(log);
    assert_eq!(open(directory.path()).unwrap().read_committed().await.unwrap(), Some(log_id(1, 1)));
}

/// A node that has voted must not take the loss of its log for a first start: it could vote again in the same term.
#[tokio::test]
async fn a_log_that_is_lost_after_a_vote_is_not_a_first_start() {
    let root = tempfile::tempdir().unwrap();
    let (directory, begun) = (root.path().join("log"), root.path().join("begun"));
    fs::create_dir(&directory).unwrap();
    let open = || LogStore::open(&directory, &begun, SEGMENT_BYTES, me());
    let mut log = open().unwrap();
    assert!(!begun.exists(), "a node that has not voted is free to begin");
    log.save_vote(&vote(1)).await.unwrap();
    drop(log);
    assert_eq!(open().unwrap().read_vote().await.unwrap(), Some(vote(1)));

    fs::remove_dir_all(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    let error = open().err().expect("the log is lost");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}

/// A frame counts only where it was written, in the segment that it was written for.
#[test]
fn a_frame_is_recognised_at_its_own_place_alone() {
    let seal = Seal::new([1; 32]);
    let mut frame = frame::empty_frame();
    let range = frame::put(&mut frame, &Step::Entry(entry(1, 7))).unwrap();
    frame::put(&mut frame, &Step::Committed(log_id(1, 6))).unwrap();
    frame::put(&mut frame, &Step::TruncateAfter(None)).unwrap();
    seal.close(&mut frame, 100);
    let mut segment = vec![0; 100];
    segment.extend(&frame);
    segment.extend([0; 50]);

    let body = seal.frame(&segment, 100).unwrap();
    let records =
        [Record::Entry(log_id(1, 7), range.clone()), Record::Committed(log_id(1, 6)), Record::TruncateAfter(None)];
    assert_eq!(frame::records(body).unwrap(), records);
    assert_eq!(frame::read_entry(&frame[range.clone()], &log_id(1, 7)).unwrap(), Payload::Blank);
    assert!(frame::read_entry(&frame[range], &log_id(1, 8)).is_err(), "it is another entry's");
    assert_eq!(seal.frame_behind(&segment, 0), Some(100));
    assert_eq!(Seal::new([2; 32]).frame(&segment, 100), None);
    let elsewhere = [&[0; 99][..], &frame].concat();
    assert_eq!(seal.frame(&elsewhere, 99), None);
    for at in 0..frame.len() {
        let mut damaged = segment.clone();
        damaged[100 + at] ^= 1;
        assert_eq!(seal.frame(&damaged, 100), None, "byte {at}");
    }
    assert!(frame.len() > FRAME_BYTES);
}

#[test]
fn a_head_is_read_whole_or_not_at_all() {
    let checkpoint = Checkpoint {
        vote: Some(Vote::new_committed(u64::MAX, MemberId { node: NodeId(31), incarnation: Incarnation(u64::MAX) })),
        committed: Some(log_id(u64::MAX, u64::MAX)),
        purged: Some(log_id(u64::MAX, u64::MAX)),
    };
    let seal = Seal::new([9; 32]);
    let head = seal.head(5, &checkpoint).unwrap();
    assert_eq!(Seal::read_head(&head), Some((seal, 5, checkpoint)));
    for at in 0..head.len() {
        let mut damaged = head.clone();
        damaged[at] ^= 1;
        assert_eq!(Seal::read_head(&damaged), None, "byte {at}");
        assert_eq!(Seal::read_head(&head[..at]), None);
    }
}

/// What no crash does to a log, and an index alone would not show.
#[tokio::test]
async fn a_hole_between_or_before_the_entries_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open_with(directory.path(), SMALL).unwrap();
    for index in 0..30 {
        log.blocking_append([put(1, index, vec![7; 1000])]).await.unwrap();
    }
    drop(log);
    let first = files(directory.path())[0].clone();
    let whole = fs::read(&first).unwrap();
    let refused = |word: &str| {
        let error = open_with(directory.path(), SMALL).err().unwrap_or_else(|| panic!("not seen: {word}"));
        assert!(error.kind() == io::ErrorKind::InvalidData && error.to_string().contains(word), "{error}");
    };
    // The last frame of a segment that is not the last one is blank.
    let (seal, _, _) = Seal::read_head(&whole).unwrap();
    let (mut last, mut end) = (0, HEAD_BYTES);
    while let Some(body) = seal.frame(&whole, end) {
        (last, end) = (end, end + FRAME_BYTES + body.len());
    }
    let mut blank = whole.clone();
    blank[last..].fill(0);
    fs::write(&first, &blank).unwrap();
    refused("a hole in the log");
    fs::remove_file(&first).unwrap();
    refused("are missing");
    fs::write(&first, &whole).unwrap();
    assert_eq!(ids(&mut open_with(directory.path(), SMALL).unwrap()).await.len(), 30);
}

/// A head that is damaged in the only segment of a log that has voted is damage: nothing is deleted.
#[tokio::test]
async fn the_only_segment_of_a_log_that_has_voted_is_not_half_made() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path()).unwrap();
    log.save_vote(&vote(1)).await.unwrap();
    drop(log);
    let file = files(directory.path())[0].clone();
    let damaged = vec![0; HEAD_BYTES];
    fs::write(&file, &damaged).unwrap();
    let error = open(directory.path()).err().expect("its vote is lost");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert_eq!(fs::read(&file).unwrap(), damaged);
}
