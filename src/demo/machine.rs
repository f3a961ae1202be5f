//! The machine and this process: cores, memory, processor time.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::demo::report::{Host, Usage};
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

/// Processor time so far in milliseconds, and resident memory in bytes, of this process; zeros where the system does not tell.
pub fn own_usage() -> (u64, u64) {
    let pid = Pid::from_u32(std::process::id());
    let Ok(mut system) = System::new() else { return (0, 0) };
    let kind = ProcessRefreshKind::nothing().with_cpu().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kind);
    system.process(pid).map_or((0, 0), |process| (process.accumulated_cpu_time(), process.memory()))
}

/// What this process uses from a moment on.
#[derive(Debug)]
pub struct OwnUsage {
    began: Moment,
    cpu_ms_before: u64,
}

impl OwnUsage {
    /// Counts from now on.
    pub fn start() -> OwnUsage {
        OwnUsage { began: now(), cpu_ms_before: own_usage().0 }
    }

    /// For the report. The memory is that of the end, when every record is there and so it is at its largest.
    pub fn usage(&self) -> Usage {
        let (cpu_ms, memory_max_bytes) = own_usage();
        let cpu_ms = cpu_ms.saturating_sub(self.cpu_ms_before);
        let seconds = now().since(self.began).as_secs_f64();
        let cpu_cores = if seconds > 0.0 { cpu_ms as f64 / 1000.0 / seconds } else { 0.0 };
        Usage { cpu_ms, cpu_cores, memory_max_bytes }
    }
}
