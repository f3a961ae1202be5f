//! Buffers that are used again.
//!
//! The system hands out large buffers as fresh pages, and filling 36 MB of fresh pages takes ten times as long as filling
//! pages that were used before. Whoever is done with a result gives its buffer back with [`Scratch::give_back`].

/// A bounded pool of byte buffers, one for each worker.
#[derive(Debug)]
pub struct Scratch {
    buffers: Vec<Vec<u8>>,
    most_bytes: usize,
}

impl Scratch {
    /// The most buffers that are kept.
    const MOST_BUFFERS: usize = 4;

    /// A pool that keeps at most `most_bytes` bytes while it is idle.
    pub const fn new(most_bytes: usize) -> Self {
        Scratch { buffers: Vec::new(), most_bytes }
    }

    /// Bytes that the pool holds at the moment.
    pub fn held_bytes(&self) -> usize {
        self.buffers.iter().map(Vec::capacity).sum()
    }

    /// A buffer of exactly `length` bytes **with unspecified contents** (what an earlier job left in it).
    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        // One that is far too large is left for a job that needs it: the result may be held for long.
        let fits = |capacity: usize| capacity >= length && capacity / 4 <= length.max(64 << 10);
        let best = (0..self.buffers.len())
            .filter(|&index| fits(self.buffers[index].capacity()))
            .min_by_key(|&index| self.buffers[index].capacity());
        match best {
            Some(index) => {
                let mut buffer = self.buffers.swap_remove(index);
                buffer.resize(length, 0);
                buffer
            }
            // Zeroed by the system, page by page as they are touched.
            None => vec![0; length],
        }
    }

    /// Keeps a buffer for the next job, or drops it if the pool is full.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() == Self::MOST_BUFFERS {
            let smallest = (0..self.buffers.len()).min_by_key(|&index| self.buffers[index].capacity());
            if let Some(index) = smallest.filter(|&index| self.buffers[index].capacity() < buffer.capacity()) {
                std::mem::swap(&mut self.buffers[index], &mut buffer);
            }
            return;
        }
        if self.held_bytes() + buffer.capacity() <= self.most_bytes {
            self.buffers.push(buffer);
        }
    }
}

impl Default for Scratch {
    /// A pool of at most 256 MiB.
    fn default() -> Self {
        Scratch::new(256 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_the_pool_stays_bounded() {
        let mut scratch = Scratch::new(1 << 20);
        let first = scratch.take(300_000);
        let address = first.as_ptr();
        scratch.give_back(first);
        let second = scratch.take(250_000);
        assert_eq!((second.as_ptr(), second.len()), (address, 250_000));
        for _ in 0..20 {
            scratch.give_back(vec![0; 300_000]);
        }
        assert!(scratch.held_bytes() <= 1 << 20);
    }
}
