//! Who writes a frame, and when those are told who wait for it.

use std::os::unix::fs::{FileExt, MetadataExt};

use futures::FutureExt;
use openraft::type_config::TypeConfigExt;

use super::*;
use crate::id::{Incarnation, NodeId};
use crate::raft::types::{Entry, Payload, Vote};

fn member(node: u16) -> MemberId {
    MemberId { node: NodeId(node), incarnation: Incarnation(1) }
}

fn entry(index: u64) -> Step {
    Step::Entry(Entry { log_id: LogId::new_term_index(1, index), payload: Payload::Blank })
}

/// The log of node 1, with a vote for `leader` in it, and nobody who writes.
fn log_without_a_thread(directory: &tempfile::TempDir, leader: MemberId) -> Shared {
    let checkpoint = Checkpoint { vote: Some(Vote::new(1, leader)), ..Checkpoint::default() };
    let segment = segments::create(directory.path(), 1, 1 << 20, &checkpoint).unwrap();
    Shared::new(directory.path().to_owned(), 1 << 20, member(1), Contents::begin(checkpoint), vec![segment])
}

/// The same, and the first frames need no new blocks.
fn log_with_blocks(directory: &tempfile::TempDir, leader: MemberId) -> Shared {
    let log = log_without_a_thread(directory, leader);
    log.state().segments[0].allocated = 1 << 20;
    log
}

/// Does the thread's work.
fn write_what_waits(log: &Shared) -> Rest {
    let job = log.state().begin_job(log.segment_bytes);
    log.carry_out(job)
}

/// Puts a step, and says whether it is on disk as soon as the call has returned.
fn is_written_at_once(log: &Shared, step: Step) -> bool {
    let (sender, mut synced) = oneshot::channel();
    let mut state = log.state();
    state.put(step).unwrap();
    log.sync_soon(state, Waiter::Caller(sender));
    synced.try_recv().is_ok_and(|result| result.is_ok())
}

#[test]
fn a_follower_writes_a_small_frame_itself_if_the_disk_is_quick_and_nothing_is_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let log = log_without_a_thread(&directory, member(2));
    log.state().quick_from = Moment::default();
    assert!(!is_written_at_once(&log, entry(0)), "it needs new blocks");
    assert_eq!(write_what_waits(&log), Rest::Nothing);
    log.state().quick_from = Moment::default();
    assert!(is_written_at_once(&log, entry(1)));

    log.state().quick_from = Moment::default();
    log.state().is_writing = true;
    assert!(!is_written_at_once(&log, entry(2)), "another frame is under way");
    log.state().is_writing = false;

    let directory = tempfile::tempdir().unwrap();
    let slow = log_with_blocks(&directory, member(2));
    assert!(!is_written_at_once(&slow, entry(0)), "a disk of which nothing is known yet");

    let directory = tempfile::tempdir().unwrap();
    let large = log_with_blocks(&directory, member(2));
    large.state().quick_from = Moment::default();
    for index in 0..1_000 {
        large.state().put(entry(index)).unwrap();
    }
    assert!(!is_written_at_once(&large, entry(1_000)), "many entries");
}

/// The promise: most syncs write nothing about the file. What is written ahead is blank, and within the file.
#[test]
fn the_frames_after_a_new_block_find_theirs() {
    let directory = tempfile::tempdir().unwrap();
    let log = log_without_a_thread(&directory, member(2));
    log.state().put(entry(0)).unwrap();
    assert_eq!(write_what_waits(&log), Rest::Nothing);
    let segment = log.state().segments[0].clone();
    assert_eq!(segment.allocated, segment.end + (128 << 10));
    assert!(segment.file.metadata().unwrap().blocks() * 512 >= segment.allocated as u64);

    log.state().put(entry(1)).unwrap();
    assert_eq!(write_what_waits(&log), Rest::Nothing);
    let later = log.state().segments[0].clone();
    assert_eq!(later.allocated, segment.allocated, "it is there");
    let mut ahead = vec![1; (1 << 20) - later.end];
    later.file.read_exact_at(&mut ahead, later.end as u64).unwrap();
    assert!(ahead.iter().all(|byte| *byte == 0));
    assert_eq!(later.file.metadata().unwrap().len(), 1 << 20);
}

/// The promise: a disk that has stalled is left to the thread for a while, whatever it was that stalled it.
#[test]
fn a_frame_that_took_long_makes_the_disk_slow_with_new_blocks_or_without() {
    for (took_ms, has_new_blocks, is_slow) in [(2, false, true), (2, true, false), (6, true, true)] {
        let directory = tempfile::tempdir().unwrap();
        let log = log_with_blocks(&directory, member(2));
        log.state().quick_from = Moment::default();
        log.state().put(entry(0)).unwrap();
        let mut job = log.state().begin_job(log.segment_bytes);
        job.segment.allocated += usize::from(has_new_blocks);
        log.settle(&job, &Ok(()), Duration::from_millis(took_ms));
        assert_eq!(log.state().quick_from > time::now(), is_slow, "{took_ms} ms, new blocks: {has_new_blocks}");
    }
}

/// A leader goes on while its disk works: it has others to send to, and must give way if the disk stalls.
#[test]
fn a_leader_leaves_the_disk_to_the_thread() {
    let directory = tempfile::tempdir().unwrap();
    let log = log_with_blocks(&directory, member(1));
    log.state().quick_from = Moment::default();
    assert!(!is_written_at_once(&log, entry(0)));
}

/// Writes the entry, and says when those who wait for it are told.
fn write_for_raft(log: &Shared, index: u64) -> impl Future<Output = ()> + Unpin + use<> {
    let (sender, told) = Types::<Tokio>::oneshot();
    let mut state = log.state();
    state.put(entry(index)).unwrap();
    state.next.waiters.push(Waiter::Entries(IOFlushed::signal(sender)));
    let job = state.begin_job(log.segment_bytes);
    drop(state);
    let _ = log.carry_out(job);
    told.map(|result| result.unwrap().unwrap())
}

/// A follower has acknowledged an entry at a moment that is not over soon, however slow the disk of this test is. Says when.
fn acknowledged_for_ever(log: &Shared, index: u64) -> Moment {
    let at = time::now() + Duration::from_secs(3600);
    log.state().acknowledged = Some((index, at));
    at
}

/// The promise: a leader hears of its own copy no later than when it can use it, and not before if a follower is expected to follow.
#[test]
fn a_leader_is_told_of_its_own_copy_when_a_follower_has_one_too() {
    let directory = tempfile::tempdir().unwrap();
    let log = log_without_a_thread(&directory, member(1));
    assert_eq!(write_for_raft(&log, 0).now_or_never(), Some(()), "no follower has ever acknowledged anything");

    acknowledged_for_ever(&log, 0);
    let mut second = write_for_raft(&log, 1);
    assert_eq!((&mut second).now_or_never(), None);
    let mut third = write_for_raft(&log, 2);
    assert_eq!((&mut third).now_or_never(), None);
    log.acknowledged(1);
    assert_eq!(second.now_or_never(), Some(()));
    assert_eq!(third.now_or_never(), Some(()), "it is true, and costs nothing more");

    let at = acknowledged_for_ever(&log, 3);
    assert_eq!(write_for_raft(&log, 3).now_or_never(), Some(()), "the follower was faster");
    let state = log.state();
    assert!(state.is_awaited_elsewhere(Some(4), at));
    assert!(!state.is_awaited_elsewhere(Some(4), at + ALONE), "the followers are silent");
}

/// What nobody acknowledges is told after a moment, and in order when something else is told.
#[tokio::test]
async fn nothing_stays_untold() {
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(log_without_a_thread(&directory, member(1)));
    acknowledged_for_ever(&log, 0);
    let mut first = write_for_raft(&log, 1);
    assert_eq!((&mut first).now_or_never(), None);
    let (sender, synced) = oneshot::channel();
    let job = {
        let mut state = log.state();
        state.next.waiters.push(Waiter::Caller(sender));
        state.begin_job(log.segment_bytes)
    };
    let _ = log.carry_out(job);
    assert_eq!(first.now_or_never(), Some(()));
    assert!(synced.now_or_never().unwrap().unwrap().is_ok());

    let second = write_for_raft(&log, 2);
    let thread = std::thread::spawn({
        let log = log.clone();
        move || log.run()
    });
    second.await;
    log.close();
    thread.join().unwrap();
}

/// A follower answers its leader at once.
#[test]
fn a_follower_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let log = log_without_a_thread(&directory, member(2));
    acknowledged_for_ever(&log, 0);
    assert_eq!(write_for_raft(&log, 1).now_or_never(), Some(()));
}
