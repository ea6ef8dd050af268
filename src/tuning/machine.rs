//! What a machine says of itself.

use super::cgroup::{self, Limit};
use super::setting::{Need, Place, Setting, grouped};
use super::table::SETTINGS;
use crate::sys;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// CAP_SYS_ADMIN (capabilities(7)): whoever has it may open files beyond `fs.file-max`.
const CAP_SYS_ADMIN: u32 = 21;

/// What a file held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// One number, or several.
    Numbers(Vec<u64>),
    /// A word; of several, that in brackets.
    Word(String),
    /// There is no limit.
    Unlimited,
    /// There is no such file.
    Absent,
    /// It could not be read, or holds what it should not; which is said.
    Odd(String),
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Numbers(numbers) => numbers.iter().map(|&number| short(number)).collect::<Vec<_>>().join(" "),
            Self::Word(word) => word.clone(),
            Self::Unlimited => "unlimited".to_owned(),
            Self::Absent => "-".to_owned(),
            Self::Odd(what) => format!("? ({what})"),
        };
        f.pad(&text)
    }
}

/// A number with commas, or `max` where it stands for all there is.
fn short(number: u64) -> String {
    if number >= i64::MAX as u64 { "max".to_owned() } else { grouped(number) }
}

/// The machine, as far as it matters for connections.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Major and minor version of the kernel; 0.0 if it does not say.
    pub kernel: (u32, u32),
    /// Processors that this process may use.
    pub cores: usize,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Bytes of memory in all.
    pub memory_total: u64,
    /// Bytes that may still be had.
    pub memory_available: u64,
    /// Files that are open.
    pub files_open: u64,
    /// Threads that there are.
    pub threads: u64,
    /// Connections that the firewall tracks. None: it does not track.
    pub tracked: u64,
    /// Hard limit of descriptors in a table.
    pub descriptors: Option<u64>,
    /// A thread may have a descriptor table of its own.
    pub private_tables: bool,
    /// This process may open files beyond `fs.file-max`.
    pub exceeds_file_max: bool,
    /// Limits of control groups.
    pub(super) group_memory: Option<Limit>,
    pub(super) group_processes: Option<Limit>,
    pub(super) readings: BTreeMap<&'static str, Reading>,
}

impl Machine {
    /// Reads the machine whose /proc and /sys lie below `root`, which is `/` but for tests. What is missing limits nothing.
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let first = |path: &str| text(path).split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let memory = text("proc/meminfo");
        let bytes = |name| field(&memory, name).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024;
        let (limits, status) = (text("proc/self/limits"), text("proc/self/status"));
        let is_this_one = root == Path::new("/");
        let mut machine = Self {
            kernel: version(&text("proc/sys/kernel/osrelease")),
            cores: if is_this_one { sys::cores() } else { cores(&text("proc/stat")) },
            page_bytes: sys::page_bytes(),
            memory_total: bytes("MemTotal:"),
            memory_available: bytes("MemAvailable:"),
            files_open: first("proc/sys/fs/file-nr"),
            threads: threads(&text("proc/loadavg")),
            tracked: first("proc/sys/net/netfilter/nf_conntrack_count"),
            descriptors: hard_limit(&limits, "Max open files"),
            private_tables: !is_this_one || sys::private_tables(),
            exceeds_file_max: has_capability(&status, CAP_SYS_ADMIN) && is_initial(&text("proc/self/uid_map")),
            group_memory: cgroup::memory(root),
            group_processes: cgroup::processes(root),
            readings: BTreeMap::new(),
        };
        machine.readings =
            SETTINGS.iter().map(|setting| (setting.name, machine.reading(root, &limits, setting))).collect();
        machine
    }

    fn reading(&self, root: &Path, limits: &str, setting: &Setting) -> Reading {
        let group = |limit: Option<Limit>| limit.map_or(Reading::Unlimited, |limit| Reading::Numbers(vec![limit.max]));
        match setting.place {
            Place::Group(file) if file.starts_with("memory") => group(self.group_memory),
            Place::Group(_) => group(self.group_processes),
            Place::Memory if self.memory_available == 0 => Reading::Absent,
            Place::Memory => Reading::Numbers(vec![self.memory_available]),
            Place::Told => Reading::Absent,
            Place::Limit(name) => match hard_limit(limits, name) {
                Some(u64::MAX) => Reading::Unlimited,
                Some(limit) => Reading::Numbers(vec![limit]),
                None => Reading::Absent,
            },
            Place::Sysctl | Place::File(_) => {
                let path = setting.path().unwrap_or_default();
                match fs::read_to_string(root.join(path.trim_start_matches('/'))) {
                    Ok(text) => parsed(&text, setting),
                    Err(error) if error.kind() == ErrorKind::NotFound => Reading::Absent,
                    Err(error) => Reading::Odd(error.to_string()),
                }
            }
        }
    }

    /// What a setting is.
    pub fn now(&self, name: &str) -> &Reading {
        self.readings.get(name).unwrap_or(&Reading::Absent)
    }

    /// The first number of a setting.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.now(name) {
            Reading::Numbers(numbers) => numbers.first().copied(),
            _ => None,
        }
    }

    /// How many ports connect(2) may choose from.
    pub fn ports(&self) -> u64 {
        match self.now("net.ipv4.ip_local_port_range") {
            Reading::Numbers(ends) if ends.len() == 2 && ends[0] <= ends[1] => ends[1] - ends[0] + 1,
            _ => 28_232, // the kernel's default
        }
    }

    /// Bytes that may still be had by this process and what the kernel keeps for it.
    pub fn memory_left(&self) -> u64 {
        let group = self.group_memory.map_or(u64::MAX, |limit| limit.max.saturating_sub(limit.used));
        self.memory_available.min(group)
    }

    /// With so many bytes of memory, all of them to be had.
    pub fn with_memory(mut self, bytes: u64) -> Self {
        (self.memory_total, self.memory_available) = (bytes, bytes);
        self.readings.insert("memory", Reading::Numbers(vec![bytes]));
        self
    }

    /// With another value of a setting.
    pub fn with(mut self, name: &'static str, numbers: &[u64]) -> Self {
        self.readings.insert(name, Reading::Numbers(numbers.to_vec()));
        self
    }

    /// A machine as it comes: 16 GiB, 8 cores, a 6.12 kernel's defaults and systemd's limits, a firewall that tracks
    /// connections. What the files in `tuning/` are made for.
    pub fn stock() -> Self {
        let mut machine = Self {
            kernel: (6, 12),
            cores: 8,
            page_bytes: 4096,
            memory_total: 16 << 30,
            memory_available: 15 << 30,
            files_open: 2_000,
            threads: 300,
            tracked: 100,
            descriptors: Some(524_288),
            private_tables: true,
            exceeds_file_max: false,
            group_memory: None,
            group_processes: None,
            readings: BTreeMap::new(),
        };
        let stock: [(&str, &[u64]); 19] = [
            ("memory", &[15 << 30]),
            ("fs.file-max", &[i64::MAX as u64]), // systemd raises it
            ("fs.nr_open", &[1_048_576]),
            ("RLIMIT_NOFILE", &[524_288]),
            ("fs.epoll.max_user_watches", &[3_670_016]),
            ("net.core.somaxconn", &[4_096]),
            ("net.ipv4.tcp_max_syn_backlog", &[2_048]),
            ("net.ipv4.tcp_syncookies", &[1]),
            ("net.ipv4.tcp_mem", &[190_000, 253_000, 380_000]),
            ("net.netfilter.nf_conntrack_max", &[262_144]),
            ("net.netfilter.nf_conntrack_buckets", &[262_144]),
            ("net.ipv4.ip_local_port_range", &[32_768, 60_999]),
            ("net.ipv4.tcp_tw_reuse", &[2]),
            ("net.ipv4.tcp_timestamps", &[1]),
            ("vm.overcommit_memory", &[0]),
            ("vm.max_map_count", &[65_530]),
            ("kernel.threads-max", &[127_000]),
            ("kernel.pid_max", &[4_194_304]),
            ("net.ipv4.tcp_ehash_entries", &[131_072]),
        ];
        machine.readings = stock.map(|(name, numbers)| (name, Reading::Numbers(numbers.to_vec()))).into();
        machine
    }
}

/// What stands behind a name in a file of lines `Name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

/// The hard limit in /proc/self/limits: the third of four columns, of which the first is `name`.
fn hard_limit(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn has_capability(status: &str, number: u32) -> bool {
    field(status, "CapEff:").and_then(|set| u64::from_str_radix(set, 16).ok()).is_some_and(|set| set >> number & 1 == 1)
}

/// Whether the user namespace is the machine's own, in which alone capabilities count for the whole machine.
fn is_initial(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// `6.18.44-rc1` is 6.18.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn cores(stat: &str) -> usize {
    let is_core =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    stat.lines().filter(is_core).count().max(1)
}

/// `4.84 3.93 2.14 6/116 11375`: the second number of the fourth field (proc_loadavg(5)).
fn threads(loadavg: &str) -> u64 {
    let field = loadavg.split_whitespace().nth(3).and_then(|field| field.split_once('/'));
    field.and_then(|(_, all)| all.parse().ok()).unwrap_or(0)
}

/// What a file holds: as many numbers as the need has, or words.
fn parsed(text: &str, setting: &Setting) -> Reading {
    let text = text.trim();
    if let Some((_, rest)) = text.split_once('[')
        && let Some((word, _)) = rest.split_once(']')
    {
        return Reading::Word(word.to_owned());
    }
    let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
    let count = if setting.name == "net.ipv4.tcp_mem" { 3 } else { 1 };
    match numbers {
        Ok(numbers) if numbers.len() >= count => Reading::Numbers(numbers),
        Err(_) if text == "max" || text == "unlimited" => Reading::Unlimited,
        _ => Reading::Odd(format!("{:?} is not what should be there", text.chars().take(40).collect::<String>())),
    }
}

impl Reading {
    /// Whether this is enough.
    pub(super) fn meets(&self, need: &Need) -> bool {
        match (self, need) {
            (_, Need::Nothing) | (Self::Unlimited, _) => true,
            (Self::Numbers(now), Need::AtLeast(least)) => now.first().is_some_and(|now| now >= least),
            (Self::Numbers(now), Need::Each(least)) => {
                now.len() == 3 && now.iter().zip(least).all(|(now, least)| now >= least)
            }
            (Self::Numbers(now), Need::Wide(ports)) => now.len() == 2 && now[1].saturating_sub(now[0]) + 1 >= *ports,
            (Self::Numbers(now), Need::OneOf(right)) => now.first().is_some_and(|now| right.contains(now)),
            (Self::Word(now), Need::Not(wrong)) => now != wrong,
            _ => false,
        }
    }

    /// Whether it is of the kind that the need is about.
    pub(super) fn suits(&self, need: &Need) -> bool {
        match (self, need) {
            (_, Need::Nothing) | (Self::Unlimited, _) | (Self::Word(_), Need::Not(_)) => true,
            (Self::Numbers(now), Need::Each(_)) => now.len() == 3,
            (Self::Numbers(now), Need::Wide(_)) => now.len() == 2,
            (Self::Numbers(now), Need::AtLeast(_) | Need::OneOf(_)) => !now.is_empty(),
            _ => false,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A machine made of files.
    pub(in crate::tuning) struct Fake {
        pub(in crate::tuning) root: PathBuf,
    }

    impl Fake {
        pub(in crate::tuning) fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("throng-machine-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(&root).unwrap();
            Self { root }
        }

        pub(in crate::tuning) fn file(self, path: &str, text: &str) -> Self {
            let path = self.root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }

    #[test]
    fn this_machine_is_read() {
        let machine = Machine::read(Path::new("/"));
        assert!(machine.kernel >= (3, 0) && machine.cores > 0 && machine.threads > 0, "{machine:?}");
        assert!(machine.memory_total >= machine.memory_available && machine.memory_available > 1 << 20, "{machine:?}");
        assert!(machine.descriptors.is_some() && machine.number("net.core.somaxconn").is_some(), "{machine:?}");
    }

    #[test]
    fn files_are_read_as_they_are_written() {
        let fake = Fake::new("read")
            .file("proc/sys/kernel/osrelease", "5.15.0-91-generic\n")
            .file("proc/meminfo", "MemTotal:       1000 kB\nMemAvailable:    900 kB\n")
            .file("proc/sys/fs/file-nr", "1242\t0\t2466183\n")
            .file("proc/loadavg", "4.84 3.93 2.14 6/116 11375\n")
            .file("proc/stat", "cpu  1 2\ncpu0 1 1\ncpu1 0 1\nintr 5\n")
            .file(
                "proc/self/limits",
                "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024      4096      files\n",
            )
            .file("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n")
            .file("proc/self/uid_map", "         0       1000          1\n")
            .file("proc/sys/net/ipv4/tcp_mem", "1\t2\t3\n")
            .file("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        let machine = Machine::read(&fake.root);
        assert_eq!((machine.kernel, machine.cores, machine.threads), ((5, 15), 2, 116));
        assert_eq!((machine.memory_total, machine.memory_available), (1_024_000, 921_600));
        assert_eq!((machine.files_open, machine.descriptors), (1242, Some(4096)));
        assert!(!machine.exceeds_file_max, "root of a container has no say over the machine");
        assert_eq!(*machine.now("net.ipv4.tcp_mem"), Reading::Numbers(vec![1, 2, 3]));
        assert_eq!(*machine.now("transparent_hugepage"), Reading::Word("madvise".into()));
        assert_eq!(*machine.now("fs.file-max"), Reading::Absent);
    }

    #[test]
    fn odd_contents_are_said_and_are_no_number() {
        let fake = Fake::new("odd")
            .file("proc/sys/net/ipv4/tcp_mem", "1 2\n")
            .file("proc/sys/net/core/somaxconn", "")
            .file("proc/sys/fs/file-max", "lots\n")
            .file("proc/sys/fs/nr_open", "-1\n");
        let machine = Machine::read(&fake.root);
        for name in ["net.ipv4.tcp_mem", "net.core.somaxconn", "fs.file-max", "fs.nr_open"] {
            assert!(matches!(machine.now(name), Reading::Odd(_)), "{name}: {:?}", machine.now(name));
        }
    }
}
