//! Processors, processor time, and the kernel's random numbers.

use super::syscall;
use std::io;

/// Keeps the calling thread on one processor (sched_setaffinity(2)).
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no processor {cpu}")));
    }
    // SAFETY: `cpu` was checked to lie inside the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // The set is valid for its whole size, and the kernel only reads it.
    syscall!(sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)).map(drop)
}

/// Processors that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes of a page of memory (sysconf(3)).
pub fn page_bytes() -> u64 {
    // Takes no pointers. A system without an answer has the size that nearly all have.
    syscall!(sysconf(libc::_SC_PAGESIZE)).map_or(4096, |bytes| bytes as u64)
}

/// Processor time that the calling thread has used, in seconds (clock_gettime(2)).
pub fn cpu_seconds_of_thread() -> io::Result<f64> {
    seconds_of(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time that all threads of a process have used, those that have ended too, in seconds: to the nanosecond, where
/// /proc/PID/stat counts in hundredths (clock_getcpuclockid(3)).
pub fn cpu_seconds_of_process(pid: u32) -> io::Result<f64> {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    };
    let mut clock = 0;
    // SAFETY: `clock` outlives the call, which writes one clock id. It returns the error rather than setting errno.
    match unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } {
        0 => seconds_of(clock),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn seconds_of(clock: libc::clockid_t) -> io::Result<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // `time` outlives the call, which writes one timespec.
    syscall!(clock_gettime(clock, &raw mut time))?;
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

/// A random number from the kernel (getrandom(2)): seeds, never per-message randomness.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // The buffer is valid for 8 bytes; requests up to 256 bytes are never cut short.
    syscall!(getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0))?;
    Ok(u64::from_ne_bytes(bytes))
}
