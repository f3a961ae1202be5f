//! The machine and this process: cores, memory, processor time.

use std::time::Duration;

use sysinfo::System;

use crate::demo::report::{Host, Usage};
use crate::node::resources;
use crate::time::{Moment, now};

/// The machine.
pub fn host() -> Host {
    let memory_bytes = System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Host { cores, memory_bytes, os: std::env::consts::OS }
}

/// What this process uses from a moment on.
#[derive(Debug)]
pub struct OwnUsage {
    began: Moment,
    cpu_before: Duration,
}

impl OwnUsage {
    /// Counts from now on.
    pub fn start() -> OwnUsage {
        OwnUsage { began: now(), cpu_before: resources::usage().cpu }
    }

    /// For the report. The memory is that of the end, when every record is there and so it is at its largest.
    pub fn usage(&self) -> Usage {
        let resources::Usage { cpu, memory_bytes: memory_max_bytes } = resources::usage();
        let cpu_ms = cpu.saturating_sub(self.cpu_before).as_millis() as u64;
        let seconds = now().since(self.began).as_secs_f64();
        let cpu_cores = if seconds > 0.0 { cpu_ms as f64 / 1000.0 / seconds } else { 0.0 };
        Usage { cpu_ms, cpu_cores, memory_max_bytes }
    }
}
