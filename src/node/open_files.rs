//! File descriptors: a node that has none left cannot open its log's next file, so people and programs never get the last ones.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is kept for the log, the snapshots, the other nodes and the runtime.
const KEPT: u64 = 768;

/// Asks the system for as many descriptors as it gives, and says how many connections may have one: at most `wanted`.
pub fn connections(wanted: u32) -> u32 {
    let limit = getrlimit(Resource::Nofile);
    // A refusal changes nothing: then the present limit counts.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_ok();
    let available = if raised { limit.maximum } else { limit.current };
    let allowed = allowed(wanted, available);
    if allowed < wanted {
        log::warn!(
            "the system allows {} open files: {allowed} connections instead of {wanted}; raise it with ulimit -Hn, or lower \
             http.connections",
            available.unwrap_or_default()
        );
    }
    allowed
}

fn allowed(wanted: u32, available: Option<u64>) -> u32 {
    // Half of a small limit, so that there are some for both sides.
    let available = available.map_or(u64::MAX, |available| available.saturating_sub(KEPT).max(available / 2));
    wanted.min(u32::try_from(available).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bounded: connections leave descriptors for the node itself, however few there are.
    #[test]
    fn the_node_keeps_descriptors_for_itself() {
        assert_eq!(allowed(12_288, None), 12_288);
        assert_eq!(allowed(12_288, Some(1 << 20)), 12_288);
        assert_eq!(allowed(12_288, Some(4096)), 4096 - KEPT as u32);
        assert_eq!(allowed(12_288, Some(1024)), 512);
    }
}
