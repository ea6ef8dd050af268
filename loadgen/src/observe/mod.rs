//! What processes and the machine use, read from /proc: nothing is asked of the server itself.

mod listener;
mod machine;
mod process;

pub(crate) use listener::listening_pids;
pub(crate) use machine::{Machine, cores, kernel_release, memory_total};
pub(crate) use process::{Process, anonymous_bytes, thread_cpu_seconds};
