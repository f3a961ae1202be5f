//! Waiting for a condition, with a deadline and the name of what was waited for.

#![allow(dead_code, reason = "each test file waits in one way")]

use std::time::Duration;

use image_cloud::time::now;

/// How long any condition may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Looks until there is a value.
pub async fn wait_for<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let end = now() + DEADLINE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(now() < end, "after {DEADLINE:?} still not: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The same on a thread that may block.
#[track_caller]
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, condition)
}

/// The same with another deadline.
#[track_caller]
pub fn eventually_within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(now() < end, "after {limit:?} still not: {what}");
        std::thread::sleep(LOOK);
    }
}
