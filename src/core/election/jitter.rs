//! The seeded generator of the back-offs.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014): one word of state that can be compared and hashed, which the model checker needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Jitter(u64);

impl Jitter {
    /// A generator of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Jitter(seed)
    }

    /// A duration below `limit`, in microseconds; zero if the limit is.
    pub fn below(&mut self, limit: Duration) -> Duration {
        let limit = limit.as_micros() as u64;
        if limit == 0 {
            return Duration::ZERO;
        }
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_micros((word ^ (word >> 31)) % limit)
    }
}
