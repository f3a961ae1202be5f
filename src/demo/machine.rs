//! The machine and this process: cores, memory, processor time.

use sysinfo::{Pid, ProcessesToUpdate, System};

use crate::demo::report::{Host, Usage};
use crate::time::{Moment, now};

/// The machine.
pub fn host() -> Host {
    let mut system = System::new();
    system.refresh_memory();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Host { cores, memory_bytes: system.total_memory(), os: std::env::consts::OS }
}

/// Processor time and memory of this process since it was made.
pub struct OwnUsage {
    system: System,
    pid: Pid,
    began: Moment,
    cpu_ms_before: u64,
    memory_max_bytes: u64,
}

impl OwnUsage {
    /// Counts from now on.
    pub fn start() -> OwnUsage {
        let pid = Pid::from_u32(std::process::id());
        let mut usage =
            OwnUsage { system: System::new(), pid, began: now(), cpu_ms_before: 0, memory_max_bytes: 0 };
        usage.cpu_ms_before = usage.look();
        usage
    }

    /// Looks, so that the largest memory is not missed; returns the processor time so far.
    pub fn look(&mut self) -> u64 {
        self.system.refresh_processes(ProcessesToUpdate::Some(&[self.pid]), true);
        let Some(process) = self.system.process(self.pid) else { return self.cpu_ms_before };
        self.memory_max_bytes = self.memory_max_bytes.max(process.memory());
        process.accumulated_cpu_time()
    }

    /// For the report.
    pub fn usage(&mut self) -> Usage {
        let cpu_ms = self.look().saturating_sub(self.cpu_ms_before);
        let seconds = now().since(self.began).as_secs_f64();
        let cpu_cores = if seconds > 0.0 { cpu_ms as f64 / 1000.0 / seconds } else { 0.0 };
        Usage { cpu_ms, cpu_cores, memory_max_bytes: self.memory_max_bytes }
    }
}
