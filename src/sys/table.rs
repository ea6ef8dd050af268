//! Descriptor tables: how large, and one of one's own.

use super::syscall;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// How many descriptors one table may hold: the soft RLIMIT_NOFILE (getrlimit(2)).
pub fn descriptor_limit() -> io::Result<u64> {
    limit().map(|limit| limit.rlim_cur)
}

fn limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // `limit` is valid for writing one rlimit.
    syscall!(getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
    Ok(limit)
}

/// Raises the soft limit to the hard one, which needs no privilege, and returns it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = limit()?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // `limit` is only read.
        syscall!(setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    }
    Ok(limit.rlim_cur)
}

/// Gives the calling thread a descriptor table of its own: a copy of the one it shared so far, counted
/// against RLIMIT_NOFILE by itself from now on (unshare(2) with CLONE_FILES; no privilege needed).
///
/// What is open now stays open here even when others close it, so this belongs at a thread's start.
pub fn private_table() -> io::Result<()> {
    // Takes no pointers.
    syscall!(unshare(libc::CLONE_FILES)).map(drop)
}

/// Whether threads are allowed tables of their own: a seccomp profile, such as Docker's, may refuse them.
pub fn private_tables() -> bool {
    std::thread::spawn(|| private_table().is_ok()).join().unwrap_or(false)
}

/// A descriptor to give up when the table is full, so that one more connection can be taken and told so.
pub fn reserve_descriptor() -> io::Result<OwnedFd> {
    File::open("/dev/null").map(OwnedFd::from)
}

/// Whether an error says that there is no room for another descriptor or socket: this table is full, the system's
/// is, or memory is short (accept(2)).
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
