//! What a machine must allow for so many connections: one table of settings, and what is read against it.
//!
//! [`SETTINGS`] has a row for each thing that limits a server or a load generator, with the arithmetic for N
//! connections, what goes wrong without it, and how that is known. `throng tune`, the guide's table (`tuning/README.md`),
//! the files in `tuning/`, what `throng serve` says as it starts and what `throng-load` checks before it begins all come
//! of it.
//!
//! ```
//! use throng::tuning::{Aim, Machine, Role, Verdict, check};
//!
//! let aim = Aim::new(10_000, Role::Server)?;
//! for row in check(&aim, &Machine::read("/".as_ref())) {
//!     if row.verdict == Verdict::Short {
//!         println!("{}: {} now, {} needed", row.setting.name, row.now, row.need);
//!     }
//! }
//! # Ok::<(), String>(())
//! ```
//!
//! Shared with the load generator, hence public; no stability is promised.

mod capacity;
mod cgroup;
mod check;
mod machine;
mod setting;
mod table;

pub use capacity::{Bound, bounds};
pub use cgroup::memory_limit;
pub use check::{Check, Verdict, check};
pub use machine::{Machine, Reading};
pub use setting::{Kernels, Need, Place, Proof, Role, Setting, Weight, grouped};
pub use table::{SETTINGS, setting};

use crate::config::Config;
use crate::limits::{SLOTS_MAX, WORKERS_MAX};

/// What a socket costs the kernel, in bytes: tcp_sock, inode, file, dentry, epoll items, with what slabs waste. Measured
/// with a million: 4,092 for the server's end of a connection, 4,220 for the other.
pub const KERNEL_BYTES_PER_SOCKET: u64 = 4_200;

/// What a connection costs a program of ours at most, in bytes: 64 in the server, under 40 in the load generator, and
/// what is there once, spread over few connections.
pub const OWN_BYTES: u64 = 100;

/// Files, watches and threads that others have or may want to have.
pub const SPARE: u64 = 1_000;

/// Ports that a source address can have at most: all but the first 1,024.
pub const PORTS_MAX: u64 = 65_536 - 1_024;

/// Descriptors of a load generator's table that are not for connections.
const LOAD_RESERVED: u64 = 32;

/// What is to run on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    /// Connections at a time, at least 1.
    pub connections: u64,
    /// Which ends of them are here.
    pub role: Role,
    /// Addresses that a load generator's connections come from, where they are not loopback's 16 million.
    pub sources: Option<u64>,
}

impl Aim {
    /// Most connections that there can be: a connection's id has 16 bits for the worker and 24 for its slot.
    pub const CONNECTIONS_MAX: u64 = (WORKERS_MAX * SLOTS_MAX) as u64;

    /// An error says which numbers make sense.
    pub fn new(connections: u64, role: Role) -> Result<Self, String> {
        match connections {
            0 => {
                Err("0 connections need nothing: give the number of connections that there are to be at a time".into())
            }
            1..=Self::CONNECTIONS_MAX => {
                let sources = (role == Role::Load).then_some(1);
                Ok(Self { connections, role, sources })
            }
            _ => Err(format!(
                "{} connections are more than throng can number, which is {} ({WORKERS_MAX} workers of {SLOTS_MAX})",
                grouped(connections),
                grouped(Self::CONNECTIONS_MAX)
            )),
        }
    }

    /// Sockets on this machine.
    pub fn sockets(&self) -> u64 {
        self.connections * self.role.ends()
    }

    /// Threads that the programs here will have.
    pub fn threads(&self, machine: &Machine) -> u64 {
        let table = machine.descriptors.unwrap_or(u64::MAX);
        let server =
            self.role.has_server().then(|| self.server_workers(machine, table).unwrap_or(WORKERS_MAX as u64) + 3);
        let load = self.role.has_load().then(|| self.load_workers(machine, table).unwrap_or(WORKERS_MAX as u64) + 3);
        server.unwrap_or(0) + load.unwrap_or(0)
    }

    /// Bytes of memory that the connections take while nothing is under way on them.
    pub fn memory(&self) -> u64 {
        self.connections.saturating_mul(self.role.ends() * (KERNEL_BYTES_PER_SOCKET + OWN_BYTES))
    }

    /// Descriptors that one table must hold for this: the smallest limit with which there is a way to do it.
    pub fn descriptors(&self, machine: &Machine) -> u64 {
        let fits = |table: u64| {
            (!self.role.has_server() || self.server_workers(machine, table).is_some())
                && (!self.role.has_load() || self.load_workers(machine, table).is_some())
        };
        let (mut low, mut high) = (0, 2 * Self::CONNECTIONS_MAX);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if fits(middle) { high = middle } else { low = middle }
        }
        high
    }

    /// Workers that the server itself will have for this, told --max-connections; none, if it will refuse to.
    pub fn workers(&self, machine: &Machine) -> Option<u64> {
        self.server_workers(machine, machine.descriptors.unwrap_or(u64::MAX))
    }

    /// As the server itself will lay its connections out; none, if it will refuse to.
    fn server_workers(&self, machine: &Machine, table: u64) -> Option<u64> {
        let connections_max = usize::try_from(self.connections).ok();
        let shared_descriptors = !machine.private_tables;
        let config = Config { connections_max, shared_descriptors, ..Config::default() };
        config.plan(machine.cores, table).ok().map(|plan| plan.workers as u64)
    }

    /// The load generator deals its connections out evenly.
    fn load_workers(&self, machine: &Machine, table: u64) -> Option<u64> {
        let workers = (machine.cores as u64).min(self.connections)..=WORKERS_MAX as u64;
        if !machine.private_tables {
            let workers = *workers.start();
            return (self.connections + LOAD_RESERVED * workers + workers <= table).then_some(workers);
        }
        workers.into_iter().find(|workers| self.connections.div_ceil(*workers) + LOAD_RESERVED + workers <= table)
    }
}

/// Two digits, upwards: a limit that is easy to read and leaves some room.
pub fn round_up(number: u64) -> u64 {
    let step = 10_u64.pow(number.max(1).ilog10().saturating_sub(1));
    number.div_ceil(step).saturating_mul(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aim(connections: u64, role: Role) -> Aim {
        Aim::new(connections, role).unwrap()
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused_with_those_that_do() {
        assert!(Aim::new(0, Role::Server).unwrap_err().contains("at a time"));
        assert!(Aim::new(Aim::CONNECTIONS_MAX, Role::Both).is_ok());
        for more in [Aim::CONNECTIONS_MAX + 1, u64::MAX] {
            assert!(Aim::new(more, Role::Load).unwrap_err().contains("17,179,869,184"));
        }
    }

    #[test]
    fn the_table_that_is_asked_for_is_the_smallest_that_the_server_can_do_with() {
        let machine = Machine::stock();
        for connections in [1, 1000, 100_000, 1_000_000, 10_000_000] {
            let aim = aim(connections, Role::Server);
            let needed = aim.descriptors(&machine);
            assert!(aim.server_workers(&machine, needed).is_some(), "{connections}: {needed}");
            assert!(aim.server_workers(&machine, needed - 1).is_none(), "{connections}: {needed}");
        }
        // N / 1,000 workers, their spread, their eventfds and the reserve: sqrt(N) twice and a bit.
        let million = aim(1_000_000, Role::Server).descriptors(&machine);
        assert!((2_000..2_500).contains(&million), "{million}");
    }

    #[test]
    fn a_table_that_all_share_must_hold_all() {
        let machine = Machine { private_tables: false, ..Machine::stock() };
        assert!(aim(100_000, Role::Server).descriptors(&machine) > 100_000);
        assert!(aim(100_000, Role::Load).descriptors(&machine) > 100_000);
        assert!(aim(100_000, Role::Load).descriptors(&Machine::stock()) < 1_024);
    }

    #[test]
    fn both_ends_cost_twice() {
        assert_eq!(aim(1_000_000, Role::Server).memory(), 4_300_000_000);
        assert_eq!(aim(1_000_000, Role::Both).memory(), 8_600_000_000);
        assert_eq!(aim(7, Role::Both).sockets(), 14);
    }

    #[test]
    fn limits_are_rounded_upwards_to_two_digits() {
        assert_eq!([0, 9, 10, 99, 1_001, 2_004_001].map(round_up), [0, 9, 10, 99, 1_100, 2_100_000]);
        assert!(round_up(u64::MAX) == u64::MAX, "there is nothing above it");
    }
}
