//! Whether this machine allows the run: asked before the first connection, so that no run ends at a wall
//! that could have been seen. What a machine must allow is the library's table (`throng::tuning`).

use crate::plan::Plan;
use crate::progress::grouped;
use std::path::Path;
use throng::tuning::{self, Aim, Check, Machine, Place, Role, Verdict, Weight, round_up};

/// Something that is missing, in plain words, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) what: String,
    pub(crate) fix: String,
}

/// What is missing for `plan` on this machine.
pub(crate) fn check(plan: &Plan, per_source: u32) -> Vec<Missing> {
    let wanted = Wanted {
        connections: plan.connections,
        // Each connection has two sockets here when the server is here too.
        role: if plan.target.is_local() { Role::Both } else { Role::Load },
        sources: plan.sources_needed(),
        sources_there: plan.sources.count(),
        per_source: u64::from(per_source),
    };
    wanted.missing(&Machine::read(Path::new("/")))
}

struct Wanted {
    connections: u64,
    role: Role,
    sources: u64,
    sources_there: Option<u64>,
    per_source: u64,
}

impl Wanted {
    fn missing(&self, machine: &Machine) -> Vec<Missing> {
        let mut missing = match Aim::new(self.connections, self.role) {
            // Ports and addresses are looked at below, as they were named.
            Ok(aim) => self.walls(&Aim { sources: None, ..aim }, machine),
            Err(what) => vec![Missing { what, fix: "use -c with fewer".to_owned() }],
        };
        self.lacks_ports(machine, |what, fix| missing.push(Missing { what, fix }));
        missing
    }

    /// What so many connections cannot be opened without. How many fit a descriptor table is settled by the plan.
    fn walls(&self, aim: &Aim, machine: &Machine) -> Vec<Missing> {
        let both = if self.role == Role::Both { " (both ends are on this machine)" } else { "" };
        let is_wall = |row: &Check| {
            row.verdict == Verdict::Short
                && row.setting.weight == Weight::Wall
                && !matches!(row.setting.name, "RLIMIT_NOFILE" | "fs.nr_open")
                && !(row.setting.name == "fs.file-max" && machine.exceeds_file_max)
        };
        let said = |row: Check| {
            let (name, connections) = (row.setting.name, grouped(self.connections));
            let what = match row.setting.place {
                Place::Memory | Place::Group("memory.max") => format!(
                    "{connections} connections need {:.1} GiB of memory{both}, most of it the kernel's, and {:.1} GiB are available",
                    gib(aim.memory()),
                    gib(machine.memory_left())
                ),
                _ => format!(
                    "{connections} connections need {} of {name}{both}, and there are {} ({})",
                    row.need, row.now, row.setting.unit
                ),
            };
            let fix = match (row.setting.place, row.value()) {
                (Place::Memory | Place::Group("memory.max"), _) => {
                    let each = (aim.memory() / self.connections).max(1);
                    format!("use -c {}", machine.memory_left() / each / 1000 * 1000)
                }
                (_, Some(value)) => {
                    let value = value.parse().map_or(value, |number: u64| round_up(number).to_string());
                    format!("sysctl -w {name}={value}")
                }
                (_, None) => format!("raise it: throng tune --explain {name}"),
            };
            Missing { what, fix }
        };
        tuning::check(aim, machine).into_iter().filter(is_wall).map(said).collect()
    }

    /// A source address has as many connections to one target as there are ports to choose from.
    fn lacks_ports(&self, machine: &Machine, mut lacks: impl FnMut(String, String)) {
        let ports = machine.ports();
        let one = format!("one source address has {} ports for one target (ip_local_port_range)", grouped(ports));
        match self.sources_there {
            None if self.connections > ports => lacks(
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
            Some(_) if self.per_source > ports => lacks(
                format!("{one}, and --per-source is {}", self.per_source),
                format!("use --per-source {}", ports / 2),
            ),
            _ => {}
        }
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plenty() -> Machine {
        let mut machine = Machine::stock();
        (machine.files_open, machine.tracked) = (500, 0);
        machine.with("fs.file-max", &[2_466_183]).with("fs.epoll.max_user_watches", &[5_491_533]).with_memory(24 << 30)
    }

    fn million() -> Wanted {
        Wanted {
            connections: 1_000_000,
            role: Role::Both,
            sources: 250,
            sources_there: Some(1 << 24),
            per_source: 4000,
        }
    }

    #[test]
    fn a_million_fits_where_it_fits() {
        assert_eq!(million().missing(&plenty()), []);
    }

    #[test]
    fn each_wall_is_named_with_what_helps() {
        let fix_of = |wanted: &Wanted, machine: &Machine| {
            let missing = wanted.missing(machine);
            assert_eq!(missing.len(), 1, "{missing:?}");
            missing[0].fix.clone()
        };
        let two = Wanted { connections: 2_000_000, sources: 500, ..million() };
        assert_eq!(fix_of(&two, &plenty()), "sysctl -w fs.file-max=4100000");
        let mut root = plenty();
        root.exceeds_file_max = true;
        assert_eq!(two.missing(&root), []);
        let machine = plenty().with("fs.epoll.max_user_watches", &[1_500_000]);
        assert_eq!(fix_of(&million(), &machine), "sysctl -w fs.epoll.max_user_watches=2100000");
        assert_eq!(fix_of(&million(), &plenty().with_memory(4 << 30)), "use -c 499000");
        let mut machine = plenty();
        machine.tracked = 1;
        assert_eq!(fix_of(&million(), &machine), "sysctl -w net.netfilter.nf_conntrack_max=1100000");
        let far = Wanted { connections: 50_000, role: Role::Load, sources: 13, sources_there: None, per_source: 4000 };
        assert!(fix_of(&far, &plenty()).contains("--source"));
        assert!(fix_of(&Wanted { sources_there: Some(3), ..far }, &plenty()).contains("--per-source 16667"));
    }
}
