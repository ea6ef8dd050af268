//! The generator as a user runs it, and servers for it to meet.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod strange;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What nobody may take longer than.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) summary: String,
    pub(crate) errors: String,
    json: Value,
}

impl Outcome {
    /// A value of the JSON file, by its path: `connections.failed`.
    #[track_caller]
    pub(crate) fn value(&self, path: &str) -> &Value {
        path.split('.').fold(&self.json, |value, key| {
            value.get(key).unwrap_or_else(|| panic!("no {key} of {path} in {:#}\n{}", self.json, self.errors))
        })
    }

    /// A count; 0 for a class that never came up.
    #[track_caller]
    pub(crate) fn count(&self, path: &str) -> u64 {
        let (parent, key) = path.rsplit_once('.').unwrap();
        let parent = self.value(parent);
        parent.get(key).map_or(0, |value| value.as_u64().unwrap_or_else(|| panic!("{path} is {value}")))
    }

    #[track_caller]
    pub(crate) fn number(&self, path: &str) -> f64 {
        self.value(path).as_f64().unwrap_or_else(|| panic!("{path} is no number"))
    }

    /// Everything was accounted for, and nothing lost.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.status, 0, "{}\n{}", self.summary, self.errors);
        assert_eq!(self.value("clean"), true, "{}", self.summary);
        let [attempted, opened, failed, lost, closed] =
            ["attempted", "opened", "failed", "lost", "closed"].map(|name| self.count(&format!("connections.{name}")));
        assert_eq!((attempted, failed, lost), (opened, 0, 0), "{}", self.summary);
        assert_eq!(opened, closed, "{}", self.summary);
    }
}

/// Runs the generator to its end, once there is room for it.
#[track_caller]
pub(crate) fn load(arguments: &[&str]) -> Outcome {
    let _room = Room::wait();
    Running::start(arguments).wait()
}

/// Generators mostly wait, so that many can run at a time; with too many of them none keeps to its rate.
#[derive(Debug)]
struct Room;

static ROOM: (Mutex<usize>, Condvar) = (Mutex::new(8), Condvar::new());

impl Room {
    fn wait() -> Self {
        let (left, came) = &ROOM;
        *came.wait_while(left.lock().unwrap(), |left| *left == 0).unwrap() -= 1;
        Self
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let (left, came) = &ROOM;
        *left.lock().unwrap() += 1;
        came.notify_one();
    }
}

/// A generator that runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    json: PathBuf,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::launch(Command::new(env!("CARGO_BIN_EXE_throng-load")), arguments)
    }

    /// Under `ulimit -n`.
    #[track_caller]
    pub(crate) fn start_with_descriptors(limit: u32, arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        let binary = env!("CARGO_BIN_EXE_throng-load");
        shell.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\""), binary]);
        Self::launch(shell, arguments)
    }

    #[track_caller]
    fn launch(mut command: Command, arguments: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("load-{}-{number}.json", std::process::id()));
        let child = command
            .args(arguments)
            .args(["--quiet", "--json"])
            .arg(&json)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, json }
    }

    pub(crate) fn interrupt(&self) {
        let kill = Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    #[track_caller]
    pub(crate) fn wait(mut self) -> Outcome {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if began.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("no end after {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(10));
        }
        let output = self.child.wait_with_output().unwrap();
        let json = std::fs::read_to_string(&self.json).unwrap_or_default();
        let _ = std::fs::remove_file(&self.json);
        Outcome {
            status: output.status.code().unwrap_or(-1),
            summary: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
            json: serde_json::from_str(&json).unwrap_or(Value::Null),
        }
    }
}

/// A server in a process of its own. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) http: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Throng, from `THRONG_BIN` or from beside the generator. `None`, said loudly, when it is not there.
    pub(crate) fn throng(flags: &str) -> Option<Self> {
        Self::throng_at("127.0.0.1:0", flags)
    }

    pub(crate) fn throng_at(listen: &str, flags: &str) -> Option<Self> {
        let beside = Path::new(env!("CARGO_BIN_EXE_throng-load")).with_file_name("throng");
        let binary = std::env::var_os("THRONG_BIN").map_or(beside, PathBuf::from);
        if !binary.exists() {
            eprintln!("SKIPPED: there is no {}: build it, or set THRONG_BIN", binary.display());
            return None;
        }
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", listen]).args(flags.split_whitespace()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let address = first_of(lines, |line| {
            let (_, rest) = line.split_once("listening on ")?;
            rest.split_whitespace().next()?.trim_end_matches([':', ',']).parse().ok()
        });
        Some(Self::at(child, address))
    }

    /// Has it end in order, as an operator does.
    pub(crate) fn terminate(&self) {
        let kill = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// The small server of `peer.mjs`, on Node's `ws` from `THRONG_NODE_ENV` or `target/test-env/node`.
    pub(crate) fn node(flags: &str) -> Option<Self> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let target = Path::new(env!("CARGO_BIN_EXE_throng-load")).ancestors().nth(2).unwrap();
        let installed = std::env::var_os("THRONG_NODE_ENV").map_or(target.join("test-env/node"), PathBuf::from);
        if !installed.join("node_modules/ws").exists() {
            eprintln!(
                "SKIPPED: there is no `ws` under {}: npm install it, or set THRONG_NODE_ENV",
                installed.display()
            );
            return None;
        }
        let mut command = Command::new("node");
        command.arg(tests.join("peer.mjs")).args(flags.split_whitespace());
        let mut child = command.env("THRONG_NODE_ENV", installed).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let port: u16 = first_of(lines, |line| line.trim().parse().ok());
        Some(Self::at(child, SocketAddr::from(([127, 0, 0, 1], port))))
    }

    fn at(child: Child, address: SocketAddr) -> Self {
        Self { child, url: format!("ws://{address}/"), http: format!("http://{address}") }
    }
}

/// The first line that says what is waited for; the rest is read and dropped, so that nobody blocks.
fn first_of<T: Send + 'static>(
    mut lines: impl BufRead + Send + 'static,
    find: impl Fn(&str) -> Option<T> + Send + 'static,
) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    let said = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&said);
    thread::spawn(move || {
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
            log.lock().unwrap().push_str(&line);
            if let Some(found) = find(&line) {
                let _ = sender.send(found);
                break;
            }
            line.clear();
        }
        let _ = std::io::copy(&mut lines, &mut std::io::sink());
    });
    receiver
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| panic!("it never said where it listens: {}", said.lock().unwrap()))
}
