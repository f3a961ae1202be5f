//! The moving 99th percentile of the attempts, which says how long an attempt may take.

use std::time::Duration;

/// How many observations the window holds.
const WINDOW: usize = 512;

/// The last observations, oldest overwritten first.
#[derive(Debug, Default)]
pub(super) struct MovingPercentile {
    micros: Vec<u64>,
    next: usize,
}

impl MovingPercentile {
    pub fn record(&mut self, took: Duration) {
        let micros = took.as_micros() as u64;
        if self.micros.len() < WINDOW {
            self.micros.push(micros);
        } else {
            self.micros[self.next] = micros;
        }
        self.next = (self.next + 1) % WINDOW;
    }

    /// The smallest observation that is at least as long as 99 % of them; none without observations.
    pub fn p99(&self) -> Option<Duration> {
        let rank = (self.micros.len() * 99).div_ceil(100).checked_sub(1)?;
        let mut sorted = self.micros.clone();
        let (_, micros, _) = sorted.select_nth_unstable(rank);
        Some(Duration::from_micros(*micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window_of(millis: impl IntoIterator<Item = u64>) -> MovingPercentile {
        let mut window = MovingPercentile::default();
        millis.into_iter().for_each(|milliseconds| window.record(Duration::from_millis(milliseconds)));
        window
    }

    #[test]
    fn the_percentile_is_the_nearest_rank() {
        let p99 = |window: MovingPercentile| window.p99().map(|duration| duration.as_millis());
        assert_eq!(p99(window_of([])), None);
        assert_eq!(p99(window_of([7])), Some(7));
        assert_eq!(p99(window_of(1..=100)), Some(99));
        assert_eq!(p99(window_of(1..=200)), Some(198));
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let mut window = window_of([9_000; 100]);
        (0..WINDOW).for_each(|_| window.record(Duration::from_millis(3)));
        assert_eq!(window.p99(), Some(Duration::from_millis(3)));
    }
}
