//! How many connections a machine holds, and what says so.

use super::{Aim, KERNEL_BYTES_PER_SOCKET, Machine, OWN_BYTES, Reading, Role, SPARE};
use std::fmt;

/// A limit on the number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The setting that sets it.
    pub setting: &'static str,
    /// Connections that it allows.
    pub connections: u64,
}

impl fmt::Display for Bound {
    /// `1.05 M by fs.file-max`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", rounded(self.connections), self.setting)
    }
}

/// Three digits, downwards.
fn rounded(number: u64) -> String {
    let scaled = |unit: u64, name: &str| {
        let digits = if number >= 100 * unit {
            0
        } else if number >= 10 * unit {
            1
        } else {
            2
        };
        let factor = 10_u64.pow(digits);
        let value = (u128::from(number) * u128::from(factor) / u128::from(unit)) as f64 / factor as f64;
        format!("{value:.*} {name}", digits as usize)
    };
    match number {
        1_000_000_000.. => scaled(1_000_000_000, "G"),
        1_000_000.. => scaled(1_000_000, "M"),
        10_000.. => scaled(1_000, "k"),
        _ => number.to_string(),
    }
}

/// What bounds the connections of a server, or of a server and a load generator beside it, on this machine, the tightest
/// bound first. What is not to be seen bounds nothing.
pub fn bounds(role: Role, machine: &Machine) -> Vec<Bound> {
    let ends = role.ends();
    let number = |name: &str| machine.number(name).filter(|&number| number < i64::MAX as u64);
    let by_memory = |bytes: u64| bytes / (ends * (KERNEL_BYTES_PER_SOCKET + OWN_BYTES));
    let mut bounds = Vec::new();
    let mut bound = |setting, connections: Option<u64>| {
        bounds.extend(connections.map(|connections| Bound { setting, connections }));
    };
    bound("memory", (machine.memory_available > 0).then(|| by_memory(machine.memory_available)));
    bound("memory.max", machine.group_memory.map(|limit| by_memory(limit.max.saturating_sub(limit.used))));
    if !machine.exceeds_file_max {
        bound("fs.file-max", number("fs.file-max").map(|max| max.saturating_sub(machine.files_open + SPARE) / ends));
    }
    bound("fs.epoll.max_user_watches", number("fs.epoll.max_user_watches").map(|max| max.saturating_sub(SPARE) / ends));
    if machine.tracked > 0 {
        let max = machine.now("net.netfilter.nf_conntrack_max");
        if let Reading::Numbers(max) = max {
            bound("net.netfilter.nf_conntrack_max", max.first().map(|max| max.saturating_sub(machine.tracked + SPARE)));
        }
    }
    bound("RLIMIT_NOFILE", machine.descriptors.map(|limit| by_descriptors(role, machine, limit)));
    bounds.sort_by_key(|bound| bound.connections);
    bounds
}

/// The most connections that fit tables of `limit` descriptors.
fn by_descriptors(role: Role, machine: &Machine, limit: u64) -> u64 {
    let fits = |connections: u64| {
        Aim::new(connections, role).is_ok_and(|aim| {
            (!role.has_server() || aim.server_workers(machine, limit).is_some())
                && (!role.has_load() || aim.load_workers(machine, limit).is_some())
        })
    };
    let (mut low, mut high) = (0, Aim::CONNECTIONS_MAX + 1);
    while low + 1 < high {
        let middle = low.midpoint(high);
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::cgroup::Limit;

    fn with(name: &'static str, number: u64) -> Machine {
        let mut machine = Machine { tracked: 0, ..Machine::stock() };
        machine.readings.insert(name, Reading::Numbers(vec![number]));
        machine
    }

    #[test]
    fn the_tightest_limit_comes_first() {
        let first = |machine: &Machine| bounds(Role::Server, machine)[0];
        assert_eq!(first(&with("memory", 0)).to_string(), "3.66 M by fs.epoll.max_user_watches");
        let machine = with("fs.file-max", 1_056_000);
        assert_eq!(first(&machine), Bound { setting: "fs.file-max", connections: 1_053_000 });
        assert_eq!(first(&machine).to_string(), "1.05 M by fs.file-max");
        assert_ne!(first(&Machine { exceeds_file_max: true, ..machine }).setting, "fs.file-max");
        let machine = Machine { tracked: 10, ..with("net.netfilter.nf_conntrack_max", 65_536) };
        assert_eq!(first(&machine).to_string(), "64.5 k by net.netfilter.nf_conntrack_max");
        let machine = Machine { memory_available: 430_000_000, ..with("fs.nr_open", 1) };
        assert_eq!(first(&machine), Bound { setting: "memory", connections: 100_000 });
        assert_eq!(bounds(Role::Both, &machine)[0].connections, 50_000);
        let group_memory = Some(Limit { max: 53_000_000, used: 10_000_000 });
        assert_eq!(first(&Machine { group_memory, ..machine }).to_string(), "10.0 k by memory.max");
    }

    #[test]
    fn tables_hold_what_the_server_will_take() {
        let by = |machine: &Machine, limit| by_descriptors(Role::Server, machine, limit);
        let machine = Machine { cores: 2, ..Machine::stock() };
        let most = by(&machine, 20_000);
        assert!(Aim::new(most, Role::Server).unwrap().server_workers(&machine, 20_000).is_some());
        assert!(Aim::new(most + 1, Role::Server).unwrap().server_workers(&machine, 20_000).is_none());
        assert!(most > 18_000_000, "{most}");
        let shared = Machine { private_tables: false, ..machine };
        assert_eq!(by(&shared, 20_000), 20_000 - 130);
        assert_eq!(by(&shared, 0), 0);
    }

    #[test]
    fn numbers_are_rounded_downwards() {
        let numbers = [7, 9_999, 12_345, 999_999, 1_059_999, 23_456_789, 1_234_000_000];
        assert_eq!(numbers.map(rounded), ["7", "9999", "12.3 k", "999 k", "1.05 M", "23.4 M", "1.23 G"]);
    }
}
