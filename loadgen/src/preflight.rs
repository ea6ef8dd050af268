//! Whether this machine allows the run: asked before the first connection, so that no run ends at a wall
//! that could have been seen.

use crate::observe::{Machine, number_in, port_range};
use crate::plan::Plan;
use crate::progress::grouped;

/// What a socket costs the kernel: tcp_sock, inode, file, dentry, epoll items, with what slabs waste.
const KERNEL_BYTES_PER_SOCKET: u64 = 4_200;
/// What a connection costs this program, at most.
const OWN_BYTES: u64 = 100;
/// What a lean server needs for a connection. Others need far more, which we cannot know.
const SERVER_BYTES: u64 = 100;
/// Files that others have open or may want to open.
const FILES_SPARE: u64 = 1_000;

/// Something that is missing, in plain words, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) what: String,
    pub(crate) fix: String,
}

/// What the machine has; a kernel that does not say has no limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) memory_available: u64,
    pub(crate) files_open: u64,
    pub(crate) files_max: Option<u64>,
    pub(crate) watches_max: Option<u64>,
    pub(crate) conntrack_max: Option<u64>,
    pub(crate) ports: u64,
    pub(crate) port_range: String,
}

impl Facts {
    pub(crate) fn read() -> Self {
        let (ports, port_range) = port_range();
        Self {
            memory_available: Machine::read().memory_available_bytes,
            files_open: number_in("/proc/sys/fs/file-nr").unwrap_or(0),
            files_max: number_in("/proc/sys/fs/file-max"),
            watches_max: number_in("/proc/sys/fs/epoll/max_user_watches"),
            conntrack_max: conntrack_max(),
            ports,
            port_range,
        }
    }
}

/// The limit of connection tracking, where it is in use at all.
fn conntrack_max() -> Option<u64> {
    let tracked = number_in("/proc/sys/net/netfilter/nf_conntrack_count").unwrap_or(0);
    (tracked > 0).then(|| number_in("/proc/sys/net/netfilter/nf_conntrack_max")).flatten()
}

/// What is missing for `plan`.
pub(crate) fn check(plan: &Plan, per_source: u32, facts: &Facts) -> Vec<Missing> {
    let wanted = Wanted {
        connections: plan.connections,
        // Each connection has two sockets here when the server is here too.
        ends: if plan.target.is_local() { 2 } else { 1 },
        sources: plan.sources_needed(),
        sources_there: plan.sources.count(),
        per_source: u64::from(per_source),
    };
    wanted.missing(facts)
}

struct Wanted {
    connections: u64,
    ends: u64,
    sources: u64,
    sources_there: Option<u64>,
    per_source: u64,
}

impl Wanted {
    fn missing(&self, facts: &Facts) -> Vec<Missing> {
        let mut missing = Vec::new();
        let mut lacks = |what: String, fix: String| missing.push(Missing { what, fix });
        let (sockets, connections) = (self.connections * self.ends, grouped(self.connections));
        let both = if self.ends == 2 { " (both ends are on this machine)" } else { "" };

        let files = sockets + facts.files_open + FILES_SPARE;
        if let Some(max) = facts.files_max.filter(|&max| max < files) {
            lacks(
                format!(
                    "{connections} connections need {} open files{both}, and the machine allows {}",
                    grouped(files),
                    grouped(max)
                ),
                format!("sysctl -w fs.file-max={}", round_up(files)),
            );
        }
        if let Some(max) = facts.watches_max.filter(|&max| max < sockets) {
            lacks(
                format!(
                    "{connections} connections need {} epoll watches{both}, and a user may have {}",
                    grouped(sockets),
                    grouped(max)
                ),
                format!("sysctl -w fs.epoll.max_user_watches={}", round_up(sockets)),
            );
        }
        if let Some(max) = facts.conntrack_max.filter(|&max| max < self.connections + 1000) {
            lacks(
                format!("the firewall tracks connections, and at most {}", grouped(max)),
                format!("sysctl -w net.netfilter.nf_conntrack_max={}", round_up(self.connections + 1000)),
            );
        }
        let server_bytes = if self.ends == 2 { SERVER_BYTES } else { 0 };
        let bytes = self.connections * (self.ends * KERNEL_BYTES_PER_SOCKET + OWN_BYTES + server_bytes);
        if bytes > facts.memory_available {
            let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
            lacks(
                format!(
                    "{connections} connections need {:.1} GiB of memory{both}, most of it the kernel's, and {:.1} GiB are available",
                    gib(bytes),
                    gib(facts.memory_available)
                ),
                format!("use -c {}", facts.memory_available / (bytes / self.connections).max(1) / 1000 * 1000),
            );
        }
        self.lacks_ports(facts, lacks);
        missing
    }

    /// A source address has as many connections to one target as there are ports to choose from.
    fn lacks_ports(&self, facts: &Facts, mut lacks: impl FnMut(String, String)) {
        let one =
            format!("one source address has {} ports ({}) for one target", grouped(facts.ports), facts.port_range);
        match self.sources_there {
            None if self.connections > facts.ports => lacks(
                format!("{one}, and {} connections are to come from one", grouped(self.connections)),
                "give this machine more addresses and name them: --source 10.0.0.0/24; or widen the range: \
                 sysctl -w net.ipv4.ip_local_port_range='1024 65535'"
                    .to_owned(),
            ),
            Some(there) if there < self.sources => lacks(
                format!(
                    "{} connections at {} an address need {} source addresses, and there are {there}",
                    grouped(self.connections),
                    self.per_source,
                    self.sources
                ),
                format!("name more with --source, or use --per-source {}", self.connections.div_ceil(there.max(1))),
            ),
            Some(_) if self.per_source > facts.ports => lacks(
                format!("{one}, and --per-source is {}", self.per_source),
                format!("use --per-source {}", facts.ports / 2),
            ),
            _ => {}
        }
    }
}

/// Two digits, upwards: a limit that is easy to read and leaves some room.
fn round_up(number: u64) -> u64 {
    let step = 10_u64.pow(number.max(1).ilog10().saturating_sub(1));
    number.div_ceil(step) * step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plenty() -> Facts {
        Facts {
            memory_available: 24 << 30,
            files_open: 500,
            files_max: Some(2_466_183),
            watches_max: Some(5_491_533),
            conntrack_max: None,
            ports: 28_232,
            port_range: "32768-60999".into(),
        }
    }

    fn million() -> Wanted {
        Wanted { connections: 1_000_000, ends: 2, sources: 250, sources_there: Some(1 << 24), per_source: 4000 }
    }

    #[test]
    fn a_million_fits_where_it_fits() {
        assert_eq!(million().missing(&plenty()), []);
    }

    #[test]
    fn each_wall_is_named_with_what_helps() {
        let fix_of = |wanted: &Wanted, facts: &Facts| {
            let missing = wanted.missing(facts);
            assert_eq!(missing.len(), 1, "{missing:?}");
            missing[0].fix.clone()
        };
        let two = Wanted { connections: 2_000_000, sources: 500, ..million() };
        assert_eq!(fix_of(&two, &plenty()), "sysctl -w fs.file-max=4100000");
        let facts = Facts { watches_max: Some(1_500_000), ..plenty() };
        assert_eq!(fix_of(&million(), &facts), "sysctl -w fs.epoll.max_user_watches=2000000");
        let facts = Facts { memory_available: 4 << 30, ..plenty() };
        assert_eq!(fix_of(&million(), &facts), "use -c 499000");
        let facts = Facts { conntrack_max: Some(262_144), ..plenty() };
        assert_eq!(fix_of(&million(), &facts), "sysctl -w net.netfilter.nf_conntrack_max=1100000");
        let far = Wanted { connections: 50_000, ends: 1, sources: 13, sources_there: None, per_source: 4000 };
        assert!(fix_of(&far, &plenty()).contains("--source"));
        assert!(fix_of(&Wanted { sources_there: Some(3), ..far }, &plenty()).contains("--per-source 16667"));
    }
}
