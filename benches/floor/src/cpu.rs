//! What a server has used and holds, seen from outside.

use std::{fs, io};

use crate::sys;

/// CPU time of a group of processes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// Exact: the scheduler's own count.
    pub(crate) total_ns: u64,
    /// The same from /proc/PID/stat, in its ticks: a check, and the only one to tell user space
    /// from the kernel.
    pub(crate) user_ticks: u64,
    pub(crate) system_ticks: u64,
}

/// Ticks a second in /proc/PID/stat: USER_HZ, which Linux has promised to userland.
pub(crate) const TICKS_PER_S: f64 = 100.0;

impl Cpu {
    pub(crate) fn read(pids: &[u32]) -> io::Result<Cpu> {
        let mut sum = Cpu::default();
        for &pid in pids {
            sum.total_ns += sys::cpu_ns(pid)?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // Behind the name, which may hold blanks and brackets: utime and stime are fields 14
            // and 15 (proc(5)).
            let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            let mut ticks = fields.split_whitespace().skip(11).map_while(|field| field.parse::<u64>().ok());
            sum.user_ticks += ticks.next().ok_or(io::ErrorKind::InvalidData)?;
            sum.system_ticks += ticks.next().ok_or(io::ErrorKind::InvalidData)?;
        }
        Ok(sum)
    }

    pub(crate) fn since(self, before: Cpu) -> Cpu {
        Cpu {
            total_ns: self.total_ns - before.total_ns,
            user_ticks: self.user_ticks - before.user_ticks,
            system_ticks: self.system_ticks - before.system_ticks,
        }
    }
}

/// Descriptors that are open in a group of processes. Each thread is asked, since each may have a
/// table of its own; a shared table is counted once a thread.
pub(crate) fn open_files(pids: &[u32]) -> io::Result<u64> {
    let mut open = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // The size of this directory is the number of descriptors (Linux 6.2). A thread may be
            // gone by now.
            open += fs::metadata(task?.path().join("fd")).map_or(0, |fd| fd.len());
        }
    }
    Ok(open)
}
