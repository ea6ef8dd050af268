//! One process, or several as one.

use std::fs;
use std::ops::AddAssign;
use throng::sys::cpu_seconds_of_process;

/// What processes have used and hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    /// Processor time of all its threads.
    pub(crate) cpu_seconds: f64,
    /// Memory of its own: not files, not shared.
    pub(crate) anonymous_bytes: u64,
    pub(crate) voluntary_switches: u64,
    pub(crate) involuntary_switches: u64,
    pub(crate) threads: u64,
}

impl AddAssign for Process {
    fn add_assign(&mut self, other: Self) {
        self.cpu_seconds += other.cpu_seconds;
        self.anonymous_bytes += other.anonymous_bytes;
        self.voluntary_switches += other.voluntary_switches;
        self.involuntary_switches += other.involuntary_switches;
        self.threads += other.threads;
    }
}

impl Process {
    /// The sum over `pids`; `None` if one of them is not there or not ours to look at.
    pub(crate) fn read(pids: &[u32]) -> Option<Self> {
        let mut sum = Self::default();
        for &pid in pids {
            sum += Self::read_one(pid)?;
        }
        (!pids.is_empty()).then_some(sum)
    }

    fn read_one(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold blanks and brackets, the first field is number 3 (proc(5)).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let mut reading = Self {
            cpu_seconds: cpu_seconds_of_process(pid).ok()?,
            anonymous_bytes: anonymous_bytes(pid)?,
            threads: field(20)?,
            ..Self::default()
        };
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            // A thread may have ended meanwhile.
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            reading.voluntary_switches += field_of(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            reading.involuntary_switches += field_of(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        Some(reading)
    }
}

/// Memory of a process's own, in bytes: exact, from smaps_rollup, where the kernel lets us; else its own count.
pub(crate) fn anonymous_bytes(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    if let Some(kib) = field_of(&rollup, "Anonymous:") {
        return Some(kib * 1024);
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field_of(&status, "RssAnon:").map(|kib| kib * 1024)
}

/// Processor time of one of our own threads, by its number.
pub(crate) fn thread_cpu_seconds(thread_id: u32) -> Option<f64> {
    let schedstat = fs::read_to_string(format!("/proc/self/task/{thread_id}/schedstat")).ok()?;
    schedstat.split_whitespace().next()?.parse::<u64>().ok().map(|ns| ns as f64 / 1e9)
}

/// The number behind a name at the start of a line.
pub(super) fn field_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id();
        let reading = Process::read(&[pid]).unwrap();
        assert!(reading.threads >= 1 && reading.anonymous_bytes > 10_000, "{reading:?}");
        assert!(Process::read(&[]).is_none());
        assert!(Process::read(&[pid, u32::MAX]).is_none());
    }
}
