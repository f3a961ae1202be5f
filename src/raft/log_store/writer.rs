//! Who writes and syncs: one frame is under way at a time, and everything that arrives meanwhile goes into the next. So a writer alone
//! never waits for a timer, and hundreds share one sync.
//!
//! That is a thread's work, since a sync may take any time. But two changes of thread take as long as a quick disk. So a small frame of a
//! node that follows is written by whoever brings it, if the disk is quick: the node has nothing better to do until it
//! is synced, and one that stalls holds up nobody, as the leader has others to count on. And a leader's own copy counts for nothing until a
//! follower has one too: it is told of both at once, which wakes it once less.

use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use super::contents::Contents;
use super::frame::{self, Checkpoint, FRAME_BYTES, Step};
use super::segments::{self, Segment};
use crate::id::MemberId;
use crate::raft::sync_clock::SyncClock;
use crate::raft::types::{LogId, Tokio, Types};
use crate::time::{self, Moment};

/// A buffer for frames is kept for the next one up to this size.
const KEPT_BUFFER_BYTES: usize = 256 << 10;

/// A frame up to this size is small: a write of a client or a few, one page of the disk.
const SMALL_BYTES: usize = 4 << 10;

/// A disk that took longer for a frame is slow. The peers would notice a hundred times as much.
const SLOW: Duration = Duration::from_millis(1);

/// The same for a frame that needs new blocks, and has more than itself to bring to the disk.
const SLOW_WITH_NEW_BLOCKS: Duration = Duration::from_millis(5);

/// How many times as long as a slow frame took its disk is not taken for quick: a hiccup is forgotten soon, a stall is not.
const DOUBTED: u32 = 20;

/// How long nothing is known of a disk.
const UNKNOWN: Duration = Duration::from_secs(1);

/// How long a leader is not told of its own copies while no follower acknowledges them and nothing else is written.
const UNTOLD: Duration = Duration::from_millis(5);

/// A leader whose followers have acknowledged nothing for so long is told at once: it may be alone.
const ALONE: Duration = Duration::from_millis(100);

/// What the log's users and its thread share.
pub struct Shared {
    state: Mutex<State>,
    /// Somebody waits for a sync, or the log is to be closed.
    has_work: Condvar,
    pub clock: Arc<SyncClock>,
    directory: PathBuf,
    segment_bytes: usize,
    me: MemberId,
}

/// The log as its users see it: what they have written is there at once, on disk or not.
pub struct State {
    pub contents: Contents,
    /// The frame that is next to be written.
    next: Frame,
    /// Another frame is under way.
    is_writing: bool,
    /// From when on the disk is taken for quick, if it is not slow before.
    quick_from: Moment,
    /// The buffer of a frame before, for the one after `next`.
    spare: Vec<u8>,
    /// The index of the last entry that a follower is known to have, and since when.
    acknowledged: Option<(u64, Moment)>,
    /// Who is not told yet that the leader's own copy is on disk.
    untold: Vec<Waiter>,
    /// On disk, in order; the last one is written to.
    pub segments: Vec<Segment>,
    /// Bytes that were ever written to these, and to those that were deleted since the log was opened.
    pub written: u64,
    /// The fault of the disk that has ended the log.
    fault: Option<(io::ErrorKind, String)>,
    is_closed: bool,
}

struct Frame {
    number: u64,
    bytes: Vec<u8>,
    /// The index of its first entry, if it has one.
    first: Option<u64>,
    waiters: Vec<Waiter>,
}

/// Who waits for a sync.
pub enum Waiter {
    Caller(oneshot::Sender<io::Result<()>>),
    Entries(IOFlushed<Types<Tokio>>),
    /// Segments without entries behind this one are to be deleted when that they may go is on disk.
    Purge(LogId),
}

impl Waiter {
    fn tell(self, result: &io::Result<()>) {
        match self {
            // If nobody waits any more, Raft is shutting down.
            Waiter::Caller(caller) => drop(caller.send(copy(result))),
            Waiter::Entries(callback) => callback.io_completed(copy(result)),
            Waiter::Purge(_) => {}
        }
    }

    fn purges(&self) -> Option<LogId> {
        if let Waiter::Purge(upto) = self { Some(*upto) } else { None }
    }
}

/// A frame on its way to the disk.
struct Job {
    frame: Frame,
    segment: Segment,
    /// The frame fills its segment: another one begins behind it, with this.
    next_begins: Option<Checkpoint>,
}

/// What is left to do when a frame is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// What came meanwhile.
    Waits,
}

impl State {
    /// Adds a step to the next frame.
    ///
    /// # Errors
    /// The fault that has ended the log; `InvalidData` if it is too large.
    pub fn put(&mut self, step: Step) -> io::Result<()> {
        self.working()?;
        let number = self.next.number;
        let range = frame::put(&mut self.next.bytes, &step)?;
        if let Step::Entry(entry) = &step {
            self.next.first.get_or_insert(entry.log_id.index());
        }
        match step {
            Step::Vote(vote) => self.contents.checkpoint.vote = Some(vote),
            Step::Entry(entry) => self.contents.append(entry, number, range),
            Step::Committed(committed) => self.contents.checkpoint.committed = Some(committed),
            Step::TruncateAfter(last) => self.contents.truncate_after(last),
            Step::Purge(upto) => self.contents.purge(upto),
        }
        Ok(())
    }

    /// Whether the next frame is sure to be on disk in a moment, as far as one can know: it is small, no other is under way, nobody else
    /// waits for it (a purge would delete files), it needs no new blocks and so no new segment, and the disk is quick.
    fn is_brief(&self, now: Moment) -> bool {
        let bytes = self.next.bytes.len();
        let is_small =
            bytes <= SMALL_BYTES && self.segments.last().is_some_and(|last| last.end + bytes < last.allocated);
        now >= self.quick_from && is_small && !self.is_writing && self.next.waiters.is_empty()
    }

    /// Takes the next frame; nobody else does until [`State::end_job`].
    fn begin_job(&mut self, segment_bytes: usize) -> Job {
        self.is_writing = true;
        let mut bytes = mem::take(&mut self.spare);
        bytes.resize(FRAME_BYTES, 0);
        let next = Frame { number: self.next.number + 1, bytes, first: None, waiters: Vec::new() };
        let frame = mem::replace(&mut self.next, next);
        let segment = self.segments.last_mut().expect("a log has a segment from its opening on");
        let fills = segment.end + frame.bytes.len() >= segment_bytes;
        if let (true, Some(last)) = (fills, self.contents.last()) {
            segment.ends_at = Some(last.index());
        }
        let next_begins = fills.then(|| self.contents.checkpoint.clone());
        Job { frame, segment: segment.clone(), next_begins }
    }

    /// Keeps the buffer of the frame that is done.
    fn end_job(&mut self, mut bytes: Vec<u8>) -> Rest {
        bytes.clear();
        bytes.shrink_to(KEPT_BUFFER_BYTES);
        self.spare = bytes;
        self.is_writing = false;
        if self.next.waiters.is_empty() && !self.is_closed { Rest::Nothing } else { Rest::Waits }
    }

    /// Tells those who were to be told later. Whoever tells anybody holds the log, so that the library hears of frames in their order.
    fn tell_rest(&mut self) {
        self.untold.drain(..).for_each(|waiter| waiter.tell(&Ok(())));
    }

    /// Whether the entries from `first` on wait for a follower that is there and does not have them yet.
    fn is_awaited_elsewhere(&self, first: Option<u64>, now: Moment) -> bool {
        let (Some(first), Some((index, at))) = (first, self.acknowledged) else { return false };
        !self.is_closed && index < first && now.since(at) < ALONE
    }

    fn working(&self) -> io::Result<()> {
        self.fault.as_ref().map_or(Ok(()), |(kind, what)| Err(io::Error::new(*kind, what.clone())))
    }
}

impl Shared {
    pub fn new(
        directory: PathBuf,
        segment_bytes: usize,
        me: MemberId,
        contents: Contents,
        segments: Vec<Segment>,
    ) -> Shared {
        let written = segments.iter().map(|segment| segment.end as u64).sum();
        let next = Frame { number: 1, bytes: frame::empty_frame(), first: None, waiters: Vec::new() };
        let state = State {
            contents,
            next,
            is_writing: false,
            quick_from: time::now() + UNKNOWN,
            spare: Vec::new(),
            acknowledged: None,
            untold: Vec::new(),
            segments,
            written,
            fault: None,
            is_closed: false,
        };
        Shared {
            state: Mutex::new(state),
            has_work: Condvar::new(),
            clock: Arc::default(),
            directory,
            segment_bytes,
            me,
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `waiter` know when everything that was put into the log before this call is on disk.
    pub fn sync(&self, mut state: MutexGuard<'_, State>, waiter: Waiter) {
        state.next.waiters.push(waiter);
        drop(state);
        self.has_work.notify_one();
    }

    /// The same. A small frame of a follower is written before this returns, if the disk is quick.
    pub fn sync_soon(&self, mut state: MutexGuard<'_, State>, waiter: Waiter) {
        if !self.follows(&state) || !state.is_brief(time::now()) {
            return self.sync(state, waiter);
        }
        state.next.waiters.push(waiter);
        let job = state.begin_job(self.segment_bytes);
        drop(state);
        if self.carry_out(job) == Rest::Waits {
            self.has_work.notify_one();
        }
    }

    /// Lets the thread end when nobody waits for it any more.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.has_work.notify_one();
    }

    /// Writes until the log is closed.
    pub fn run(&self) {
        let _ended = Ended(self);
        while let Some(job) = self.next_job() {
            // It looks for the rest itself.
            let _ = self.carry_out(job);
        }
    }

    /// Waits until somebody waits, or the log is closed; then what nobody waits for is written as well. None when all is done.
    fn next_job(&self) -> Option<Job> {
        let mut state = self.state();
        while state.is_writing || state.next.waiters.is_empty() {
            if state.is_closed && !state.is_writing {
                if state.next.bytes.len() > FRAME_BYTES && state.fault.is_none() {
                    break;
                }
                state.tell_rest();
                return None;
            }
            state = self.wait(state);
        }
        Some(state.begin_job(self.segment_bytes))
    }

    /// Waits until there may be work; no longer than [`UNTOLD`] if somebody is to be told then.
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.untold.is_empty() {
            return self.has_work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut state, wait) = self.has_work.wait_timeout(state, UNTOLD).unwrap_or_else(PoisonError::into_inner);
        if wait.timed_out() {
            state.tell_rest();
        }
        state
    }

    /// Brings a frame to the disk, and tells those who wait for it.
    fn carry_out(&self, mut job: Job) -> Rest {
        let begun = time::now();
        self.clock.begin(begun);
        let result = self.write(&mut job);
        self.settle(&job, &result, time::now().since(begun));
        let Job { frame: Frame { bytes, first, waiters, .. }, segment, next_begins } = job;
        let purged = waiters.iter().filter_map(Waiter::purges).max();
        self.tell(first, waiters, &result);
        if result.is_ok() {
            self.fail_if(&next_begins.map_or(Ok(()), |checkpoint| self.begin_segment(&segment, &checkpoint)));
            self.fail_if(&purged.map_or(Ok(()), |upto| self.delete_upto(upto)));
        }
        // A disk that hangs while it makes a file stalls like one that hangs while it syncs.
        self.clock.end(time::now());
        self.state().end_job(bytes)
    }

    /// Tells those who wait, now or when a follower has what `first` begins; always in the order of their frames.
    fn tell(&self, first: Option<u64>, waiters: Vec<Waiter>, result: &io::Result<()>) {
        let mut state = self.state();
        let only_entries = waiters.iter().all(|waiter| matches!(waiter, Waiter::Entries(_)));
        if result.is_ok() && only_entries && !self.follows(&state) && state.is_awaited_elsewhere(first, time::now()) {
            state.untold.extend(waiters);
            return;
        }
        state.tell_rest();
        waiters.into_iter().for_each(|waiter| waiter.tell(result));
    }

    /// A follower has all entries up to this one.
    pub fn acknowledged(&self, index: u64) {
        let mut state = self.state();
        let before = state.acknowledged.map_or(0, |(before, _)| before);
        state.acknowledged = Some((index.max(before), time::now()));
        state.tell_rest();
    }

    fn follows(&self, state: &State) -> bool {
        state.contents.checkpoint.vote.is_some_and(|vote| vote.leader_id().voted_for != self.me)
    }

    fn write(&self, job: &mut Job) -> io::Result<()> {
        self.state().working()?;
        let Job { frame, segment, .. } = job;
        if frame.bytes.len() > FRAME_BYTES {
            segment.seal.close(&mut frame.bytes, segment.end);
            segment.write(&frame.bytes, self.segment_bytes)?;
        }
        segment.file.sync_data()
    }

    /// What was written is on disk from now on, or nothing is any more.
    fn settle(&self, job: &Job, result: &io::Result<()>, took: Duration) {
        if result.is_err() {
            return self.fail_if(result);
        }
        let Job { frame, segment, .. } = job;
        let mut state = self.state();
        let has_new_blocks = state.segments.last().is_some_and(|before| before.allocated < segment.allocated);
        if took > if has_new_blocks { SLOW_WITH_NEW_BLOCKS } else { SLOW } {
            state.quick_from = state.quick_from.max(time::now() + took * DOUBTED);
        }
        if frame.bytes.len() == FRAME_BYTES {
            return;
        }
        state.contents.is_written(frame.number, segment.ordinal, segment.end);
        state.written += frame.bytes.len() as u64;
        if let Some(segment) = state.segments.last_mut() {
            segment.end += frame.bytes.len();
            segment.allocated = job.segment.allocated;
        }
    }

    fn begin_segment(&self, last: &Segment, checkpoint: &Checkpoint) -> io::Result<()> {
        let segment = segments::create(&self.directory, last.ordinal + 1, self.segment_bytes, checkpoint)?;
        let mut state = self.state();
        state.written += segment.end as u64;
        state.segments.push(segment);
        Ok(())
    }

    fn delete_upto(&self, upto: LogId) -> io::Result<()> {
        let dispensable: Vec<Segment> = {
            let mut state = self.state();
            let closed = state.segments.len() - 1;
            let may_go = |segment: &&Segment| segment.ends_at.is_none_or(|index| index <= upto.index());
            let count = state.segments[..closed].iter().take_while(may_go).count();
            state.segments.drain(..count).collect()
        };
        segments::delete(&self.directory, &dispensable)
    }

    /// The same, unless the log was closed.
    fn fail_if_open(&self, result: &io::Result<()>) {
        if !self.state().is_closed {
            self.fail_if(result);
        }
    }

    /// A fault of the disk is the end: what it lost would never be written.
    fn fail_if(&self, result: &io::Result<()>) {
        let Err(error) = result else { return };
        let mut state = self.state();
        if state.fault.is_none() {
            log::error!("{}: the log cannot be written: {error}", self.directory.display());
            state.fault = Some((error.kind(), error.to_string()));
        }
    }
}

/// The end of the thread, however it comes: whoever waits for it hears so, and so does whoever comes later.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let ended = Err(io::Error::other("the log's writer has ended"));
        self.0.fail_if_open(&ended);
        let waiters = mem::take(&mut self.0.state().next.waiters);
        waiters.into_iter().for_each(|waiter| waiter.tell(&ended));
    }
}

fn copy(result: &io::Result<()>) -> io::Result<()> {
    result.as_ref().map(|&()| ()).map_err(|error| io::Error::new(error.kind(), error.to_string()))
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
