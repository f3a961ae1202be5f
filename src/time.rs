//! The only file that reads a clock.

use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point on this process's monotonic clock, in microseconds since its first reading. Points of two processes do not compare:
/// no decision crosses the network as a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// A moment `milliseconds` after the start; for tests and simulations.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Moment(milliseconds * 1000)
    }

    /// Time passed since `earlier`; zero if that lies in the future.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration.as_micros() as u64))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_sub(duration.as_micros() as u64))
    }
}

/// The monotonic clock, now.
#[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
pub fn now() -> Moment {
    static START: OnceLock<Instant> = OnceLock::new();
    Moment(START.get_or_init(Instant::now).elapsed().as_micros() as u64)
}

/// Wall time in milliseconds since 1970: for people and reports, and for what is about dates, which are signatures, expiry and leases.
/// No election is decided by it.
#[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
pub fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
