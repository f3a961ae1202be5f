//! The thread that writes and syncs: one frame is under way at a time, and everything that arrives meanwhile goes into the next. So a
//! writer alone never waits for a timer, and hundreds share one sync.

use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use super::contents::Contents;
use super::frame::{self, Checkpoint, FRAME_BYTES, Step};
use super::segments::{self, Segment};
use crate::raft::sync_clock::SyncClock;
use crate::raft::types::{LogId, Tokio, Types};
use crate::time;

/// A buffer for frames is kept for the next one up to this size.
const KEPT_BUFFER_BYTES: usize = 256 << 10;

/// What the log's users and its thread share.
pub struct Shared {
    state: Mutex<State>,
    /// Somebody waits for a sync, or the log is to be closed.
    has_work: Condvar,
    pub clock: Arc<SyncClock>,
    directory: PathBuf,
    segment_bytes: usize,
}

/// The log as its users see it: what they have written is there at once, on disk or not.
pub struct State {
    pub contents: Contents,
    /// The frame that is next to be written.
    next: Frame,
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

impl State {
    /// Adds a step to the next frame.
    ///
    /// # Errors
    /// The fault that has ended the log; `InvalidData` if it is too large.
    pub fn put(&mut self, step: Step) -> io::Result<()> {
        self.working()?;
        let number = self.next.number;
        let range = frame::put(&mut self.next.bytes, &step)?;
        match step {
            Step::Vote(vote) => self.contents.checkpoint.vote = Some(vote),
            Step::Entry(entry) => self.contents.append(entry, number, range),
            Step::Committed(committed) => self.contents.checkpoint.committed = Some(committed),
            Step::TruncateAfter(last) => self.contents.truncate_after(last),
            Step::Purge(upto) => self.contents.purge(upto),
        }
        Ok(())
    }

    fn working(&self) -> io::Result<()> {
        self.fault.as_ref().map_or(Ok(()), |(kind, what)| Err(io::Error::new(*kind, what.clone())))
    }
}

impl Shared {
    pub fn new(directory: PathBuf, segment_bytes: usize, contents: Contents, segments: Vec<Segment>) -> Shared {
        let written = segments.iter().map(|segment| segment.end as u64).sum();
        let next = Frame { number: 1, bytes: frame::empty_frame(), waiters: Vec::new() };
        let state = State { contents, next, segments, written, fault: None, is_closed: false };
        Shared { state: Mutex::new(state), has_work: Condvar::new(), clock: Arc::default(), directory, segment_bytes }
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

    /// Lets the thread end when nobody waits for it any more.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.has_work.notify_one();
    }

    /// Writes until the log is closed.
    pub fn run(&self) {
        let _ended = Ended(self);
        let mut spare = Vec::new();
        while let Some(mut job) = self.next_job(&mut spare) {
            self.clock.begin(time::now());
            let result = self.write(&mut job);
            self.settle(&job, &result);
            let Job { frame: Frame { mut bytes, waiters, .. }, segment, next_begins } = job;
            let mut purged = None;
            for waiter in waiters {
                purged = purged.max(waiter.purges());
                waiter.tell(&result);
            }
            if result.is_ok() {
                self.fail_if(&next_begins.map_or(Ok(()), |checkpoint| self.begin_segment(&segment, &checkpoint)));
                self.fail_if(&purged.map_or(Ok(()), |upto| self.delete_upto(upto)));
            }
            // A disk that hangs while it makes a file stalls like one that hangs while it syncs.
            self.clock.end(time::now());
            bytes.clear();
            bytes.shrink_to(KEPT_BUFFER_BYTES);
            spare = bytes;
        }
    }

    /// Waits until somebody waits, or the log is closed; then what nobody waits for is written as well. None when all is done.
    fn next_job(&self, spare: &mut Vec<u8>) -> Option<Job> {
        let mut state = self.state();
        while state.next.waiters.is_empty() {
            let has_rest = state.next.bytes.len() > FRAME_BYTES && state.fault.is_none();
            match (state.is_closed, has_rest) {
                (true, true) => break,
                (true, false) => return None,
                (false, _) => state = self.has_work.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        spare.resize(FRAME_BYTES, 0);
        let next = Frame { number: state.next.number + 1, bytes: mem::take(spare), waiters: Vec::new() };
        let frame = mem::replace(&mut state.next, next);
        let segment = state.segments.last().cloned().expect("a log has a segment from its opening on");
        let fills = segment.end + frame.bytes.len() >= self.segment_bytes;
        let next_begins = fills.then(|| state.contents.checkpoint.clone());
        if let (true, Some(last)) = (fills, state.contents.last()) {
            let index = state.segments.len() - 1;
            state.segments[index].ends_at = Some(last.index());
        }
        Some(Job { frame, segment, next_begins })
    }

    fn write(&self, job: &mut Job) -> io::Result<()> {
        self.state().working()?;
        let Job { frame, segment, .. } = job;
        if frame.bytes.len() > FRAME_BYTES {
            segment.seal.close(&mut frame.bytes, segment.end);
            segment.file.write_all_at(&frame.bytes, segment.end as u64)?;
        }
        segment.file.sync_data()
    }

    /// What was written is on disk from now on, or nothing is any more.
    fn settle(&self, job: &Job, result: &io::Result<()>) {
        if result.is_err() {
            return self.fail_if(result);
        }
        let Job { frame, segment, .. } = job;
        if frame.bytes.len() == FRAME_BYTES {
            return;
        }
        let mut state = self.state();
        state.contents.is_written(frame.number, segment.ordinal, segment.end);
        state.written += frame.bytes.len() as u64;
        if let Some(segment) = state.segments.last_mut() {
            segment.end += frame.bytes.len();
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
        if let Err(error) = result {
            log::error!("{}: the log cannot be written: {error}", self.directory.display());
            self.state().fault.get_or_insert_with(|| (error.kind(), error.to_string()));
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
