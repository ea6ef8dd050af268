//! Signals are blocked in every thread and taken by one that waits for them: no handler ever runs.

use super::syscall;
use std::io;

pub use libc::{SIGHUP, SIGINT, SIGTERM};

/// The signals that come from outside, which a worker is not to be interrupted by. Those that a fault raises are
/// not among them.
pub const ASYNCHRONOUS: [i32; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCHLD,
    libc::SIGWINCH,
];

/// Signals blocked in the calling thread until this is dropped. Threads spawned meanwhile inherit the mask
/// and keep it.
#[derive(Debug)]
#[must_use]
pub struct Blocked {
    before: libc::sigset_t,
}

fn set_of(signals: &[i32]) -> io::Result<libc::sigset_t> {
    // SAFETY: sigemptyset below makes it a valid set before anyone reads it.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // `set` is valid for writing; a bad signal number is an error.
    syscall!(sigemptyset(&raw mut set))?;
    for &signal in signals {
        syscall!(sigaddset(&raw mut set, signal))?;
    }
    Ok(set)
}

/// Blocks `signals` in the calling thread (pthread_sigmask(3)).
pub fn block_signals(signals: &[i32]) -> io::Result<Blocked> {
    let set = set_of(signals)?;
    let mut before = set_of(&[])?;
    // SAFETY: both sets are valid; the function returns its error instead of setting errno.
    let code = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before) };
    if code == 0 { Ok(Blocked { before }) } else { Err(io::Error::from_raw_os_error(code)) }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` is the mask that pthread_sigmask gave; nothing is written.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// Waits for one of `signals`, which must be blocked, and returns it (sigwait(3)).
pub fn wait_signal(signals: &[i32]) -> io::Result<i32> {
    let set = set_of(signals)?;
    let mut signal = 0;
    // SAFETY: the set is valid and `signal` is writable; errors are returned, not in errno.
    let code = unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    if code == 0 { Ok(signal) } else { Err(io::Error::from_raw_os_error(code)) }
}
