//! The machine as a whole.

use super::process::field_of;
use std::fs;

/// What the machine has and has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    /// Processors, whoever may use them.
    pub(crate) cores: usize,
    /// Processor seconds since it started, all cores together: in all, and with nothing to do.
    pub(crate) total_seconds: f64,
    pub(crate) idle_seconds: f64,
    pub(crate) memory_available_bytes: u64,
    /// The kernel's small objects, sockets among them.
    pub(crate) slab_bytes: u64,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        // user nice system idle iowait irq softirq steal (proc(5)); guests are in user already.
        let ticks: Vec<f64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|field| field.parse().ok())
            .collect();
        let idle = ticks.get(3).unwrap_or(&0.0) + ticks.get(4).unwrap_or(&0.0);
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let bytes = |name| field_of(&meminfo, name).unwrap_or(0) * 1024;
        Self {
            cores: stat.lines().skip(1).take_while(|line| line.starts_with("cpu")).count(),
            total_seconds: ticks.iter().sum::<f64>() / 100.0,
            idle_seconds: idle / 100.0,
            memory_available_bytes: bytes("MemAvailable:"),
            slab_bytes: bytes("Slab:"),
        }
    }
}

/// Processors that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

pub(crate) fn memory_total() -> u64 {
    field_of(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:").unwrap_or(0) * 1024
}

pub(crate) fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |text| text.trim().into())
}
