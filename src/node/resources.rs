//! Processor time and memory of this process.

use std::time::Duration;

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// What the process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all threads since the start.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
}

/// Reads what this process has used until now; zeros where the system does not tell.
pub fn usage() -> Usage {
    let pid = Pid::from_u32(std::process::id());
    let Ok(mut system) = System::new() else { return Usage::default() };
    let kind = ProcessRefreshKind::nothing().with_cpu().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kind);
    system.process(pid).map_or_else(Usage::default, |process| Usage {
        cpu: Duration::from_millis(process.accumulated_cpu_time()),
        memory_bytes: process.memory(),
    })
}
