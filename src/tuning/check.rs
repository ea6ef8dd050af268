//! The table held against a machine.

use super::setting::{Need, Place, Setting, Weight};
use super::table::SETTINGS;
use super::{Aim, Machine, Reading};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is enough.
    Fits,
    /// It falls short.
    Short,
    /// It is enough, and would be better otherwise.
    Advised,
    /// Nothing is needed of it.
    Left,
    /// It limits nothing here, for this reason.
    Idle(String),
    /// It cannot be told, for this reason.
    Unknown(String),
}

/// A row of the table, for this machine.
#[derive(Clone, Debug)]
pub struct Check {
    /// The row.
    pub setting: &'static Setting,
    /// What it is.
    pub now: Reading,
    /// What it should be.
    pub need: Need,
    /// Whether it is.
    pub verdict: Verdict,
}

/// Every setting that concerns `aim`, in the table's order.
pub fn check(aim: &Aim, machine: &Machine) -> Vec<Check> {
    SETTINGS
        .iter()
        .filter(|setting| setting.role.concerns(aim.role))
        .map(|setting| one(setting, aim, machine))
        .collect()
}

fn one(setting: &'static Setting, aim: &Aim, machine: &Machine) -> Check {
    let need = (setting.need)(aim, machine);
    let now = match (setting.place, aim.sources) {
        (Place::Told, Some(sources)) => Reading::Numbers(vec![sources]),
        (Place::Told, None) => Reading::Unlimited,
        _ => machine.now(setting.name).clone(),
    };
    let verdict = verdict(setting, &now, &need, machine);
    Check { setting, now, need, verdict }
}

fn verdict(setting: &Setting, now: &Reading, need: &Need, machine: &Machine) -> Verdict {
    let kernels = setting.kernels;
    match now {
        Reading::Odd(what) => Verdict::Unknown(what.clone()),
        Reading::Absent if kernels.until.is_some_and(|until| machine.kernel >= until) => {
            Verdict::Idle(format!("{kernels}"))
        }
        Reading::Absent if kernels.since.is_some_and(|since| machine.kernel < since) => {
            Verdict::Idle(format!("{kernels}"))
        }
        Reading::Absent => match kernels.with {
            Some(with) => Verdict::Idle(format!("no {with}")),
            None if *need == Need::Nothing || setting.weight == Weight::Advice => {
                Verdict::Idle("not to be seen here".to_owned())
            }
            None => Verdict::Unknown("not to be seen here".to_owned()),
        },
        _ if setting.name.contains("nf_conntrack") && machine.tracked == 0 => {
            Verdict::Idle("no connection is tracked".to_owned())
        }
        _ if *need == Need::Nothing => Verdict::Left,
        _ if now.meets(need) => Verdict::Fits,
        _ if !now.suits(need) => Verdict::Unknown("it does not look as it should".to_owned()),
        _ if setting.weight == Weight::Advice => Verdict::Advised,
        _ => Verdict::Short,
    }
}

impl Check {
    /// What to write to the setting's file so that it is enough; none where a file does not do it.
    pub fn value(&self) -> Option<String> {
        if self.setting.place != Place::Sysctl {
            return None;
        }
        match &self.need {
            Need::AtLeast(number) => Some(number.to_string()),
            Need::Each(numbers) => {
                // What is more already stays as it is.
                let now = if let Reading::Numbers(now) = &self.now { now.as_slice() } else { &[] };
                let each = (numbers.iter().enumerate()).map(|(i, &need)| now.get(i).map_or(need, |&now| now.max(need)));
                Some(each.map(|number| number.to_string()).collect::<Vec<_>>().join(" "))
            }
            Need::Wide(_) => Some("1024 65535".to_owned()),
            Need::OneOf(right) => right.first().map(ToString::to_string),
            Need::Not(_) | Need::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::super::machine::tests::Fake;
    use super::*;

    fn of<'a>(checks: &'a [Check], name: &str) -> &'a Check {
        checks.iter().find(|check| check.setting.name == name).unwrap()
    }

    fn stock(connections: u64, role: Role) -> Vec<Check> {
        check(&Aim::new(connections, role).unwrap(), &Machine::stock())
    }

    #[test]
    fn a_million_falls_short_of_what_a_stock_machine_has_and_of_nothing_else() {
        let checks = stock(1_000_000, Role::Server);
        let short: Vec<_> =
            checks.iter().filter(|check| check.verdict == Verdict::Short).map(|check| check.setting.name).collect();
        assert_eq!(short, ["net.ipv4.tcp_mem", "net.netfilter.nf_conntrack_max"]);
        assert!(stock(10_000, Role::Server).iter().all(|check| check.verdict != Verdict::Short));
    }

    #[test]
    fn tcp_mem_is_counted_in_pages_one_a_socket() {
        let checks = stock(200_000, Role::Server);
        let tcp_mem = of(&checks, "net.ipv4.tcp_mem");
        assert_eq!(tcp_mem.need, Need::Each([150_000, 200_000, 300_000]));
        assert_eq!(tcp_mem.verdict, Verdict::Fits);
        let checks = stock(300_000, Role::Server);
        assert_eq!(of(&checks, "net.ipv4.tcp_mem").value().unwrap(), "225000 300000 450000");
        // Half of 16 GiB is two million pages of 4 KiB.
        let checks = stock(10_000_000, Role::Server);
        let pages = 16_u64 * (1 << 30) / 4096;
        assert_eq!(of(&checks, "net.ipv4.tcp_mem").need, Need::Each([pages / 4, pages / 3, pages / 2]));
        // What is larger already is not made smaller.
        let fake = Fake::new("tcp_mem")
            .file("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 16777216 kB\n")
            .file("proc/sys/net/ipv4/tcp_mem", "900000\t910000\t920000\n");
        let checks = check(&Aim::new(1_000_000, Role::Server).unwrap(), &Machine::read(&fake.root));
        assert_eq!(of(&checks, "net.ipv4.tcp_mem").value().unwrap(), "900000 1000000 1500000");
    }

    #[test]
    fn ends_sources_and_what_is_open_count() {
        let machine = Machine { files_open: 5_000, ..Machine::stock() };
        let need = |connections, role, sources, name: &str| {
            let aim = Aim { sources, ..Aim::new(connections, role).unwrap() };
            of(&check(&aim, &machine), name).need.clone()
        };
        assert_eq!(need(1_000_000, Role::Server, None, "fs.file-max"), Need::AtLeast(1_006_000));
        assert_eq!(need(1_000_000, Role::Both, None, "fs.file-max"), Need::AtLeast(2_006_000));
        assert_eq!(need(1_000_000, Role::Both, None, "fs.epoll.max_user_watches"), Need::AtLeast(2_001_000));
        assert_eq!(need(1_000_000, Role::Both, None, "net.netfilter.nf_conntrack_max"), Need::AtLeast(1_001_100));
        assert_eq!(need(100_000, Role::Load, Some(4), "net.ipv4.ip_local_port_range"), Need::Wide(25_000));
        assert_eq!(need(100_000, Role::Load, Some(1), "source addresses"), Need::AtLeast(2));
        assert_eq!(need(64_512, Role::Load, Some(1), "source addresses"), Need::AtLeast(1));
    }

    #[test]
    fn what_is_missing_or_odd_is_never_called_short() {
        let fake = Fake::new("verdicts")
            .file("proc/sys/kernel/osrelease", "4.19.0\n")
            .file("proc/meminfo", "MemTotal: 99999999 kB\nMemAvailable: 99999999 kB\n")
            .file("proc/sys/fs/file-max", "lots\n")
            .file("proc/sys/net/core/somaxconn", "128\n")
            .file("proc/sys/net/ipv4/tcp_mem", "1 2\n");
        let checks = check(&Aim::new(100_000, Role::Server).unwrap(), &Machine::read(&fake.root));
        assert!(matches!(of(&checks, "fs.file-max").verdict, Verdict::Unknown(_)));
        assert!(matches!(of(&checks, "net.ipv4.tcp_mem").verdict, Verdict::Unknown(_)));
        assert!(matches!(of(&checks, "fs.epoll.max_user_watches").verdict, Verdict::Unknown(_)));
        assert_eq!(of(&checks, "net.ipv4.tcp_migrate_req").verdict, Verdict::Idle("since 5.14".into()));
        assert_eq!(of(&checks, "net.ipv4.tcp_tw_recycle").verdict, Verdict::Idle("gone in 4.12".into()));
        assert!(matches!(of(&checks, "net.netfilter.nf_conntrack_max").verdict, Verdict::Idle(_)));
        let somaxconn = of(&checks, "net.core.somaxconn");
        assert_eq!((&somaxconn.verdict, somaxconn.value()), (&Verdict::Short, Some("4096".to_owned())));
    }

    #[test]
    fn advice_is_not_a_shortage() {
        let fake = Fake::new("advice")
            .file("proc/sys/vm/overcommit_memory", "2\n")
            .file("proc/sys/net/ipv4/tcp_timestamps", "0\n")
            .file("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n");
        let checks = check(&Aim::new(1_000, Role::Both).unwrap(), &Machine::read(&fake.root));
        for name in ["vm.overcommit_memory", "net.ipv4.tcp_timestamps", "transparent_hugepage"] {
            assert_eq!(of(&checks, name).verdict, Verdict::Advised, "{name}");
        }
    }
}
