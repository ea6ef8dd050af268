//! A `throng` process: started, asked, signalled, and never left behind.

use super::{PATIENCE, Raw, eventually};
use std::fmt::Debug;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::ops::RangeBounds;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A running server of one test's own. It is killed when it is dropped, and its log shown when the test failed.
#[derive(Debug)]
pub(crate) struct Throng {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// The addresses it listens on, in the order in which it said so.
    pub(crate) addrs: Vec<SocketAddr>,
}

impl Throng {
    /// Starts a server on a free port of 127.0.0.1, unless `flags` (split at white space) say where.
    #[track_caller]
    pub(crate) fn start(flags: &str) -> Self {
        Self::launch(Command::new(env!("CARGO_BIN_EXE_throng")), flags)
    }

    /// Like [`start`](Self::start), under `ulimit -n`.
    #[track_caller]
    pub(crate) fn start_with_descriptors(limit: u32, flags: &str) -> Self {
        Self::launch(with_descriptors(limit), flags)
    }

    /// Like [`start`](Self::start), where something else says where it listens.
    #[track_caller]
    pub(crate) fn start_as_configured(flags: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
        command.args(flags.split_whitespace());
        Self::run(command, 1)
    }

    #[track_caller]
    pub(super) fn launch(mut command: Command, flags: &str) -> Self {
        command.args(flags.split_whitespace());
        if !flags.contains("--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Self::run(command, flags.matches("--listen ").count().max(1))
    }

    /// Until it listens on so many addresses.
    #[track_caller]
    fn run(mut command: Command, wanted: usize) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stderr, sink) = (child.stderr.take().unwrap(), Arc::clone(&log));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        let mut server = Self { child, log, addrs: Vec::new() };
        eventually("the server says where it listens", PATIENCE, || {
            assert!(server.child.try_wait().unwrap().is_none(), "it ended instead: {:#?}", server.log());
            server.addrs = server.log().iter().filter_map(|line| listening_on(line)).collect();
            server.addrs.len() == wanted
        });
        server
    }

    /// Connects to the first address.
    #[track_caller]
    pub(crate) fn connect(&self) -> Raw {
        Raw::connect(self.addrs[0])
    }

    /// Connects and upgrades.
    #[track_caller]
    pub(crate) fn websocket(&self) -> Raw {
        let mut peer = self.connect();
        peer.upgrade();
        peer
    }

    /// The body of `GET path`, which must be answered with 200.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> String {
        let mut peer = self.connect();
        peer.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        let response = peer.response();
        assert_eq!(response.status, 200, "{response:?}");
        String::from_utf8(response.body).unwrap()
    }

    /// The sum of all series of one metric.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        let series = text.lines().filter_map(|line| line.strip_prefix(name));
        let values: Vec<f64> = series
            .filter(|rest| rest.starts_with(['{', ' ']))
            .map(|rest| rest.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(!values.is_empty(), "no {name} in\n{text}");
        values.iter().sum()
    }

    /// Waits until the connections, the one that asks included, are as many as `range` says.
    #[track_caller]
    pub(crate) fn until_connections(&self, range: impl RangeBounds<f64> + Debug, within: Duration) {
        let what = format!("{range:?} connections");
        eventually(&what, within, || range.contains(&self.metric("throng_connections")));
    }

    /// Everything it has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its short name (`TERM`, `INT`).
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub(crate) fn exit(&mut self, within: Duration) -> ExitStatus {
        let mut status = None;
        eventually("the server exits", within, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// CPU time that its threads have used so far, in seconds, to the nanosecond (Documentation/scheduler/sched-stats.rst).
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let spent = threads.map(|thread| {
            let stat = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
            stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
        });
        spent.sum()
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        memory_bytes(self.pid(), "VmRSS:")
    }

    /// Its address space, in bytes: what it has asked for, used or not.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        memory_bytes(self.pid(), "VmSize:")
    }

    /// Open descriptors as each thread sees them, smallest first: with private tables they differ.
    pub(crate) fn descriptors(&self) -> Vec<usize> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let mut counts: Vec<usize> =
            threads.map(|thread| fs::read_dir(thread.unwrap().path().join("fd")).unwrap().count()).collect();
        counts.sort_unstable();
        counts
    }

    /// Lowers or raises the descriptor limit of the running server.
    #[track_caller]
    pub(crate) fn limit_descriptors(&self, limit: u32) {
        limit_descriptors_of(self.pid(), &format!("{limit}:"));
    }
}

impl Drop for Throng {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the server's log: {:#?}", self.log());
        }
        // Both fail when it has ended already, as it should in some tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary under `ulimit -n`.
pub(super) fn with_descriptors(limit: u32) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_throng")]);
    shell
}

/// One of the figures of a process's memory (proc_pid_status(5)), in bytes.
pub(super) fn memory_bytes(pid: u32, figure: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Runs `throng` with flags that make it end by itself; gives its exit code and what it wrote to stderr.
#[track_caller]
pub(crate) fn run_to_end(flags: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
    command.args(flags.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut status = None;
    for _ in 0..PATIENCE.as_millis() / 10 {
        status = child.try_wait().unwrap();
        if status.is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (status.unwrap_or_else(|| panic!("`{flags}` should end by itself: {stderr}")).code(), stderr)
}

/// Lets this process have as many descriptors as it may: a desktop's soft limit is 1,024.
pub(crate) fn raise_own_descriptor_limit() {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard = line.split_whitespace().nth(4).unwrap();
    limit_descriptors_of(std::process::id(), &format!("{hard}:{hard}"));
}

#[track_caller]
fn limit_descriptors_of(pid: u32, limit: &str) {
    let prlimit = Command::new("prlimit").args([format!("--pid={pid}"), format!("--nofile={limit}")]).status();
    assert!(prlimit.unwrap().success());
}

fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, addr) = line.split_once("listening on ")?;
    addr.split_whitespace().next()?.trim_end_matches([',', ';', ':']).parse().ok()
}
