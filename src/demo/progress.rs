//! What is shown while the run goes on: a bar on a terminal, lines elsewhere. All of it is talk, so it goes to standard error.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Whether a bar is wanted; where there is no terminal there is none in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// Where there is a terminal.
    Shown,
    /// Never.
    Hidden,
}

/// The bar and the lines above it.
#[derive(Clone, Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar over `total` requests.
    pub fn new(total: u64, wanted: Bar) -> Progress {
        let target = match wanted {
            Bar::Shown => ProgressDrawTarget::stderr(),
            Bar::Hidden => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let form = "{bar:28} {pos}/{len}  {wide_msg}";
        bar.set_style(ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress { bar }
    }

    /// Prints a line, above the bar if there is one.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{}", text.trim_end()));
    }

    /// Moves the bar.
    pub fn show(&self, done: u64, message: String) {
        self.bar.set_position(done);
        self.bar.set_message(message);
    }

    /// Removes the bar.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Requests per second over the last second: a window that moves with each look.
#[derive(Debug, Default)]
pub struct MovingRate {
    looks: std::collections::VecDeque<(Duration, u64)>,
}

impl MovingRate {
    const WINDOW: Duration = Duration::from_secs(1);

    /// The rate, after `done` requests at `at`.
    pub fn look(&mut self, at: Duration, done: u64) -> f64 {
        self.looks.push_back((at, done));
        // The first look that stays is the last one that is at least a window old, so that the window is full.
        while self.looks.get(1).is_some_and(|(second, _)| at.saturating_sub(*second) >= Self::WINDOW) {
            self.looks.pop_front();
        }
        let (first_at, first_done) = self.looks[0];
        let seconds = at.saturating_sub(first_at).as_secs_f64();
        if seconds > 0.0 { done.saturating_sub(first_done) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_second_and_falls_to_zero_when_nothing_moves() {
        let mut rate = MovingRate::default();
        let rates: Vec<f64> =
            (0..=20u64).map(|tick| rate.look(Duration::from_millis(tick * 100), tick.min(10) * 5)).collect();
        assert_eq!((rates[0], rates[5], rates[10]), (0.0, 50.0, 50.0));
        assert_eq!((rates[15], rates[20]), (25.0, 0.0));
    }
}
