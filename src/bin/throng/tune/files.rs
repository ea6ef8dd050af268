//! What is generated from the table: the guide's table, and the files that can be applied.

use std::fmt::Write;
use throng::tuning::{
    Aim, Check, Machine, Need, Place, Proof, Role, SETTINGS, Setting, Verdict, check, grouped, round_up,
};

/// What the files in `tuning/` are made for.
const CONNECTIONS: u64 = 1_000_000;

/// What there is to be generated.
pub(super) const PARTS: [&str; 5] = ["table", "sysctl", "load", "limits", "systemd"];

pub(super) fn part(name: &str) -> String {
    match name {
        "table" => table(),
        "sysctl" => example(Role::Server),
        "load" => example(Role::Load),
        "limits" => limits(),
        _ => systemd(),
    }
}

/// A file for sysctl.d(5) with what falls short.
pub(super) fn sysctl(aim: &Aim, checks: &[Check]) -> String {
    let mut text = format!(
        "# For {} connections ({}), by `throng tune`: what fell short on this machine, and nothing else.\n\
         # `sysctl --system` reads it. What each line does: `throng tune --explain SETTING`.\n",
        grouped(aim.connections),
        aim.role
    );
    for check in checks.iter().filter(|check| check.verdict == Verdict::Short) {
        line(&mut text, check, "");
    }
    text
}

fn line(text: &mut String, check: &Check, before: &str) {
    let Some(value) = value(check) else { return };
    let _ = writeln!(text, "\n# {}", check.setting.arithmetic);
    // A setting that is not there is no error (sysctl.d(5)).
    let optional = if check.setting.kernels.with.is_some() { "-" } else { "" };
    let _ = writeln!(text, "{before}{optional}{} = {value}", check.setting.name);
}

/// What is counted now will be a little more when the file is read.
pub(super) fn value(check: &Check) -> Option<String> {
    match check.need {
        Need::AtLeast(number) if check.setting.place == Place::Sysctl => Some(round_up(number).to_string()),
        _ => check.value(),
    }
}

/// The file that stands in `tuning/sysctl.d`.
fn example(role: Role) -> String {
    let aim = Aim::new(CONNECTIONS, role).expect("a million makes sense");
    // Sixteen addresses do not suffice for a million: 65,536 less 1,024 ports each.
    let aim = Aim { sources: (role == Role::Load).then_some(20), ..aim };
    let machine = Machine::stock();
    let (file, who) = match role {
        Role::Load => ("91-throng-load.conf", "a load generator with 20 source addresses"),
        _ => ("90-throng.conf", "a server"),
    };
    let mut text = format!(
        "# {} connections of {who}.\n\
         # For a machine as it comes: 16 GiB of memory, Linux 6.12, systemd's limits, a firewall that tracks connections.\n\
         # Copy it to /etc/sysctl.d/{file}, then `sysctl --system`.\n\
         #\n\
         # `throng tune --connections N --role {role} --write FILE` makes one for the machine at hand, and for any number:\n\
         # that is to be preferred, since a file like this one would also lower what is higher there.\n",
        grouped(CONNECTIONS),
    );
    let checks = check(&aim, &machine);
    for check in checks.iter().filter(|check| check.verdict == Verdict::Short) {
        line(&mut text, check, "");
    }
    let advised = checks.iter().filter(|check| check.verdict == Verdict::Advised && value(check).is_some());
    for (index, check) in advised.enumerate() {
        if index == 0 {
            text.push_str("\n# Not necessary, but better:\n");
        }
        line(&mut text, check, "");
    }
    text.push_str("\n# Needed too, and there already on such a machine, which has:\n");
    for check in checks.iter().filter(|check| check.verdict == Verdict::Fits && check.setting.place == Place::Sysctl) {
        let _ = writeln!(text, "#   {}: {}, {} needed", check.setting.name, check.now, check.need);
    }
    text
}

fn descriptors() -> u64 {
    let aim = Aim::new(CONNECTIONS, Role::Server).expect("a million makes sense");
    // Few workers, with tables that hold a core's share, rather than a thousand with the smallest ones.
    (aim.connections / Machine::stock().cores as u64 + 5_000).next_power_of_two()
}

/// The file that stands in `tuning/limits.d`.
fn limits() -> String {
    let descriptors = descriptors();
    format!(
        "# pam_limits(8), for what is started from a login: /etc/security/limits.d/90-throng.conf. A service of systemd's does\n\
         # not look at it: systemd/throng.service.d/limits.conf is for that, docker run --ulimit nofile={descriptors} for containers.\n\
         #\n\
         # throng needs no more than {} for {} connections, since each worker has a table of its own; with this much it takes\n\
         # one worker a core on {} of them. It raises the soft limit itself.\n\
         throng hard nofile {descriptors}\n",
        grouped(Aim::new(CONNECTIONS, Role::Server).expect("a million makes sense").descriptors(&Machine::stock())),
        grouped(CONNECTIONS),
        Machine::stock().cores,
    )
}

/// The file that stands in `tuning/systemd/throng.service.d`.
fn systemd() -> String {
    let descriptors = descriptors();
    format!(
        "# /etc/systemd/system/throng.service.d/limits.conf, then systemctl daemon-reload (systemd.exec(5),\n\
         # systemd.resource-control(5)).\n\
         [Service]\n\
         # Hard limit of one descriptor table; throng raises the soft one itself. systemd's default, 524288, is enough too.\n\
         LimitNOFILE={descriptors}\n\
         # One thread a worker, and 23: the default, 15 % of kernel.pid_max, is enough; a lower one is what this is against.\n\
         TasksMax=2048\n\
         # A million sockets are 4.3 GB of the kernel's memory, counted to the unit: no MemoryMax= below what `throng tune` says.\n\
         MemoryMax=infinity\n",
    )
}

/// The guide's table: what is needed, then what is not.
fn table() -> String {
    let machine = Machine::stock();
    let is_left = |setting: &&Setting| million(setting, &machine) == Need::Nothing;
    let known = |setting: &Setting| match setting.proof {
        Proof::Tried(experiment) => format!("tried: {experiment}"),
        Proof::Read => "read, not tried".to_owned(),
    };
    let mut text = String::from(
        "| setting | for N connections | for 1,000,000 | whose | without it | kernel | known |\n|---|---|---|---|---|---|---|\n",
    );
    for setting in SETTINGS.iter().filter(|setting| !is_left(setting)) {
        // A sysctl is below /proc/sys, by its name.
        let place = match setting.place {
            Place::File(path) => format!("{path}: "),
            Place::Limit(_) => "/proc/PID/limits: ".to_owned(),
            Place::Group(_) => "/sys/fs/cgroup/...: ".to_owned(),
            Place::Memory => "/proc/meminfo, MemAvailable: ".to_owned(),
            Place::Sysctl | Place::Told => String::new(),
        };
        let _ = writeln!(
            text,
            "| `{}` ({place}{}) | {} | {} | {} | {} | {} | {} |",
            setting.name,
            setting.unit,
            setting.arithmetic,
            million(setting, &machine),
            setting.role,
            setting.without,
            setting.kernels,
            known(setting),
        );
    }
    text.push_str("\nAnd what is recommended, and needs nothing:\n\n");
    text.push_str("| setting | needs | otherwise | kernel | known |\n|---|---|---|---|---|\n");
    for setting in SETTINGS.iter().filter(is_left) {
        let Setting { name, arithmetic, without, kernels, .. } = setting;
        let _ = writeln!(text, "| `{name}` | {arithmetic} | {without} | {kernels} | {} |", known(setting));
    }
    text
}

/// What a million connections need of it: a server's, or those of a load generator with 20 addresses.
fn million(setting: &Setting, machine: &Machine) -> Need {
    let role = if setting.role == Role::Load { Role::Load } else { Role::Server };
    let aim = Aim::new(CONNECTIONS, role).expect("a million makes sense");
    let aim = Aim { sources: (role == Role::Load).then_some(20), ..aim };
    (setting.need)(&aim, machine)
}

#[cfg(test)]
mod tests {
    use super::super::guide::GUIDE;
    use super::*;
    use std::path::Path;

    fn stands(file: &str, part_name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(file);
        let stands = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stands == part(part_name),
            "tuning/{file} is not what the table says: throng tune --guide {part_name} > tuning/{file}"
        );
    }

    #[test]
    fn the_files_are_what_the_table_says() {
        stands("sysctl.d/90-throng.conf", "sysctl");
        stands("sysctl.d/91-throng-load.conf", "load");
        stands("limits.d/90-throng.conf", "limits");
        stands("systemd/throng.service.d/limits.conf", "systemd");
    }

    #[test]
    fn the_guides_table_is_the_codes() {
        let (_, rest) = GUIDE.split_once("<!-- throng tune --guide table -->\n").expect("the guide has a place for it");
        let (stands, _) = rest.split_once("<!-- end -->").expect("and it ends");
        assert!(stands == table(), "put there what `throng tune --guide table` prints");
    }

    #[test]
    fn every_experiment_that_the_table_names_is_one_of_the_script() {
        let script = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/proof")).unwrap();
        for setting in &SETTINGS {
            if let Proof::Tried(name) = setting.proof {
                assert!(script.contains(&format!("@experiment('{name}'")), "{}: {name}", setting.name);
            }
        }
    }

    /// Keys and values of a file for sysctl.d(5).
    fn read_back(text: &str) -> Vec<(&str, &str)> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| line.trim_start_matches('-').split_once(" = ").expect("KEY = VALUE")).collect()
    }

    #[test]
    fn what_is_written_can_be_read_back_and_is_enough() {
        let aim = Aim::new(CONNECTIONS, Role::Server).unwrap();
        let checks = check(&aim, &Machine::stock());
        let text = sysctl(&aim, &checks);
        let written = read_back(&text);
        assert_eq!(
            written,
            [("net.ipv4.tcp_mem", "750000 1000000 1500000"), ("net.netfilter.nf_conntrack_max", "1100000")]
        );
        let short: Vec<_> = checks.iter().filter(|check| check.verdict == Verdict::Short).collect();
        for ((name, value), check) in written.iter().zip(short) {
            assert_eq!(*name, check.setting.name);
            let numbers: Vec<u64> = value.split(' ').map(|number| number.parse().unwrap()).collect();
            let is_enough = match check.need {
                Need::AtLeast(least) => numbers[0] >= least,
                Need::Each(least) => numbers.iter().zip(least).all(|(number, least)| *number >= least),
                _ => false,
            };
            assert!(is_enough, "{name} {value}");
        }
    }
}
