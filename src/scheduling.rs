//! What the system's scheduler is told about threads.
//!
//! Heartbeats and Raft run the moment they wake. Whoever moves or transforms bytes in bulk runs on until the scheduler takes the
//! core away, and does not interrupt others at each wake-up: with two cores and fifty clients that is a sixth of the throughput.

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

/// The lowest of all: it gets what the others leave.
const LOWEST: i32 = 19;

/// The calling thread moves bytes in bulk (`SCHED_BATCH` of sched(7)); its niceness stays. A refusal costs only the advantage.
pub fn bulk() {
    // Linux takes no process for the calling thread.
    let niceness = rustix::process::getpriority_process(None).unwrap_or(0);
    bulk_with(niceness);
}

/// The calling thread computes in bulk, whenever nobody else has anything to do.
pub fn bulk_in_the_background() {
    bulk_with(LOWEST);
}

fn bulk_with(niceness: i32) {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    // The library sets a niceness too, after the policy. The best one is refused to ordinary users, which leaves theirs as it is;
    // an administrator's is put back below.
    let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Max, policy);
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        log::debug!("a thread keeps its niceness: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise: bulk threads are told apart from the rest, and only the background ones lose their niceness.
    #[test]
    fn bulk_threads_keep_their_niceness_and_background_ones_have_the_lowest() {
        let seen = |prepare: fn()| {
            std::thread::spawn(move || {
                prepare();
                let policy = thread_priority::thread_schedule_policy().unwrap();
                (policy, rustix::process::getpriority_process(None).unwrap())
            })
            .join()
            .unwrap()
        };
        let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
        let (before, niceness) = seen(|| {});
        assert_ne!(before, batch, "the test says nothing if all threads are of this policy");
        assert_eq!(seen(bulk), (batch, niceness));
        assert_eq!(seen(bulk_in_the_background), (batch, LOWEST));
    }
}
