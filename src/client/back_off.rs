//! Waiting between two attempts: full jitter, so that clients that failed together do not come back together
//! (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

use super::settings::ClientSettings;

/// The longest wait that a node may ask for.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(5);

/// How long to wait before the next attempt, when `failed` attempts have failed. `random` lies in [0, 1).
///
/// A node's `retry_after` comes first, and the jitter on top of it.
pub(super) fn back_off(
    settings: &ClientSettings,
    failed: usize,
    retry_after: Option<Duration>,
    random: f64,
) -> Duration {
    let doublings = failed.saturating_sub(1).min(20) as u32;
    let longest = settings.back_off_base.saturating_mul(1 << doublings).min(settings.back_off_cap);
    retry_after.unwrap_or_default().min(RETRY_AFTER_CAP) + longest.mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_cap_and_spreads_over_the_whole_span() {
        let settings = ClientSettings::new(Vec::new(), 0);
        let longest: Vec<_> = (1..=7).map(|failed| back_off(&settings, failed, None, 1.0).as_millis()).collect();
        assert_eq!(longest, [20, 40, 80, 160, 320, 500, 500]);
        assert_eq!(back_off(&settings, 5, None, 0.0), Duration::ZERO);
        assert_eq!(back_off(&settings, usize::MAX, None, 1.0), settings.back_off_cap);
    }

    #[test]
    fn what_the_node_asks_for_is_waited_at_least_within_reason() {
        let settings = ClientSettings::new(Vec::new(), 0);
        assert_eq!(back_off(&settings, 1, Some(Duration::from_millis(70)), 0.0), Duration::from_millis(70));
        assert_eq!(back_off(&settings, 1, Some(Duration::from_secs(3600)), 0.0), RETRY_AFTER_CAP);
    }
}
