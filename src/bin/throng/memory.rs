//! How much memory there is, and how much of it is in use.

use std::fs::read_to_string;
use throng::tuning::memory_limit;
use tikv_jemalloc_ctl::{epoch, stats};

/// Half of what the machine has, or the control group that this process is in: as much again is the kernel's, for sockets.
pub(crate) fn half() -> u64 {
    let machine = read_to_string("/proc/meminfo").ok().and_then(|text| machine(&text));
    machine.into_iter().chain(memory_limit()).min().map_or(0, |bytes: u64| bytes / 2)
}

/// `MemTotal` of proc_meminfo(5), in bytes.
fn machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the allocator has handed out, in bytes. Its statistics are as of the last epoch (jemalloc(3)).
pub(crate) fn used() -> u64 {
    epoch::advance().and_then(|_| stats::allocated::read()).map_or(0, |bytes| bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_and_what_there_is_are_known() {
        assert!(half() > 1 << 20, "{}", half());
        let before = used();
        let block = std::hint::black_box(vec![1_u8; 10 << 20]);
        let with = used();
        assert!(with >= before + (9 << 20), "{before} {with}");
        drop(block);
        assert!(used() < with);
    }

    #[test]
    fn meminfo_is_read_or_not() {
        assert_eq!(machine("MemTotal:       24000000 kB\nMemFree: 1 kB\n"), Some(24_000_000 * 1024));
        assert_eq!(machine("MemFree: 1 kB\n"), None);
        assert_eq!(machine("MemTotal: much\n"), None);
    }
}
