//! The eventfd that wakes a worker.

use super::syscall;
use std::io;
use std::os::fd::RawFd;

/// Wakes one worker from any thread.
///
/// Made before any worker parts from the process's descriptor table, so that its number means the same in
/// every table, and never closed: closed in one table, it would keep firing from the others, and its number
/// would come to mean something else here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake(RawFd);

impl Wake {
    /// An eventfd (eventfd(2)), non-blocking.
    pub fn new() -> io::Result<Self> {
        // Takes no pointers.
        syscall!(eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)).map(Self)
    }

    /// Makes the descriptor readable. Registered edge-triggered, every call is an event of its own, so nobody
    /// has to read it; the counter takes 2^64 - 2 calls.
    pub fn wake(self) {
        let one = 1_u64;
        // The buffer is valid for 8 bytes. The only failure that the man page leaves (EAGAIN, a full counter)
        // means that the descriptor is readable already.
        let _ = syscall!(write(self.0, (&raw const one).cast(), size_of::<u64>()));
    }

    /// The number, for registration with a poller.
    pub fn as_raw_fd(self) -> RawFd {
        self.0
    }
}
