//! Every system call that std does not make for us, and all `unsafe` but the unmasking kernel's.
//!
//! Contract: functions here take and return safe types; a failing call is an `io::Error` made from `errno`;
//! nothing here keeps state, retries, or logs. `EINTR` and `EAGAIN` come back as the kernel gave them.
//!
//! A descriptor means something only in the table of the thread that opened it, once
//! [`private_table`] has been called: so [`Socket`] and [`Listener`] are `!Send`. The one exception is
//! [`Wake`], which is made before the tables part and is never closed.
//!
//! Shared with the load generator, hence public; no stability is promised.

#![allow(unsafe_code)] // The one layer that may: see above.

mod client;
mod cpu;
mod event;
#[cfg(any(test, fuzzing))]
pub(crate) mod ledger;
mod local;
mod signal;
mod socket;
mod table;
mod terminal;

pub use client::{Address, Alarm, ConnectOptions};
pub use cpu::{cores, cpu_seconds_of_process, cpu_seconds_of_thread, page_bytes, pin_to_cpu, random_u64};
pub use event::Wake;
pub use local::{LocalListener, Share, SocketFile, watch_exclusively};
pub use signal::{ASYNCHRONOUS, Blocked, SIGHUP, SIGINT, SIGTERM, block_signals, wait_signal};
pub use socket::{Keepalive, ListenOptions, Listener, Socket};
pub use table::{
    descriptor_limit, is_exhaustion, private_table, private_tables, raise_descriptor_limit, reserve_descriptor,
};
pub use terminal::TerminalSettings;

/// Turns -1 into the error that `errno` names.
macro_rules! syscall {
    ($name:ident ( $($arg:expr),* $(,)? )) => {{
        // SAFETY: each caller states at its call why the arguments are valid for this function.
        let result = unsafe { libc::$name($($arg),*) };
        if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
    }};
}
use syscall;
