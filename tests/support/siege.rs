//! A server under attack: what it was like before, somebody innocent on the same worker meanwhile, and what must hold
//! of both whatever the attack is. Optimised, the sieges of one test crate stand one after another, so that none disturbs
//! another's figures.

use super::process::{memory_bytes, with_descriptors};
use super::{PATIENCE, Raw, Throng, millis};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What depends on the build: by how much crowds are smaller than meant where the server checks itself at every step, and
/// takes ten times as long for each; and how many sieges there are at a time, which wait more than they work then.
const BUILD: Build =
    if cfg!(debug_assertions) { Build { smaller: 10, at_a_time: 2 } } else { Build { smaller: 1, at_a_time: 1 } };

struct Build {
    smaller: usize,
    at_a_time: usize,
}

/// How many an attack is made with.
pub(crate) const fn crowd_of(count: usize) -> usize {
    count.div_ceil(BUILD.smaller)
}

static PLACES: [Mutex<()>; BUILD.at_a_time] = [const { Mutex::new(()) }; BUILD.at_a_time];

/// A place for a siege, once there is one.
fn place() -> MutexGuard<'static, ()> {
    loop {
        for place in &PLACES {
            match place.try_lock() {
                Ok(place) => return place,
                // A siege that failed.
                Err(TryLockError::Poisoned(place)) => return place.into_inner(),
                Err(TryLockError::WouldBlock) => thread::sleep(millis(5)),
            }
        }
    }
}

/// What the innocent's echoes may take at the 99th percentile: far above what they do on a quiet machine, and far below
/// what they would if an attack held the worker up.
const ECHO_MAX: Duration = Duration::from_secs(1);

/// What may stay resident after an attack: tables keep the pages they have touched, 64 bytes a connection, and the
/// allocator keeps some of its own.
const REST_BYTES_MAX: u64 = 4 << 20;

/// A server with one worker, which the attacker and somebody innocent share.
#[derive(Debug)]
pub(crate) struct Siege {
    pub(crate) server: Throng,
    before: Figures,
    laid: Instant,
    innocent: Option<Innocent>,
    _place: MutexGuard<'static, ()>,
}

/// What connections cost the server, and what has to come back.
#[derive(Debug)]
struct Figures {
    connections: f64,
    timers: f64,
    descriptors: usize,
    resident_bytes: u64,
}

/// Somebody who sends a message every 20 ms and wants it back.
#[derive(Debug)]
struct Innocent {
    echoing: JoinHandle<Vec<Duration>>,
    over: Sender<()>,
    most_resident_bytes: Arc<AtomicU64>,
}

impl Siege {
    /// Starts `throng --echo --workers 1` with more flags.
    #[track_caller]
    pub(crate) fn lay(flags: &str) -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_throng")), flags)
    }

    /// The same with so few descriptors.
    #[track_caller]
    pub(crate) fn with_descriptors(limit: u32, flags: &str) -> Self {
        Self::of(with_descriptors(limit), flags)
    }

    #[track_caller]
    fn of(mut command: Command, flags: &str) -> Self {
        let place = place();
        super::raise_own_descriptor_limit();
        // The allocator gives back at once what is freed, rather than after ten seconds: what is resident is what is held.
        command.env("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0");
        let server = Throng::launch(command, &format!("serve --echo --workers 1 {flags}"));
        let mut innocent = server.websocket();
        // Everything that is made on first use is there before anything is measured.
        for _ in 0..20 {
            innocent.echo("warm");
            server.get("/metrics");
        }
        server.until_connections(..=2.0, PATIENCE);
        let before = Figures::of(&server);
        let innocent = Some(Innocent::set_in(innocent, server.pid()));
        Self { server, before, laid: Instant::now(), innocent, _place: place }
    }

    /// A crowd of connections that have sent `bytes`, and will not send or read anything else by themselves.
    #[track_caller]
    pub(crate) fn crowd(&self, count: usize, bytes: impl Fn(usize) -> Vec<u8>) -> Vec<Raw> {
        let connect = |n| {
            if n % 500 == 499 {
                // Behind those before it in the queue, which would overflow where nobody waits for the server.
                self.server.get("/healthz");
            }
            let mut peer = self.server.connect();
            // Some are refused at once.
            let _ = peer.try_send(bytes(n));
            peer
        };
        (0..count).map(connect).collect()
    }

    /// The server has nothing to do but the innocent's echoes, and does nothing else.
    #[track_caller]
    pub(crate) fn is_calm(&self, span: Duration) {
        let turns = || self.server.metric("throng_loop_turns_total");
        let (cpu, turned, since) = (self.server.cpu_seconds(), turns(), Instant::now());
        thread::sleep(span);
        let (cpu, turned) = (self.server.cpu_seconds() - cpu, turns() - turned);
        let seconds = since.elapsed().as_secs_f64();
        // 50 echoes a second, and the questions: a loop that spins turns ten thousand times and takes the whole core.
        assert!(turned < 300.0 * seconds + 50.0, "{turned} turns of the loop in {seconds:.2} s");
        assert!(cpu < 0.05 * seconds + 0.02, "{cpu} s of CPU in {seconds:.2} s");
    }

    /// The attack is over, and its connections are closed on the attackers' side or should be by the server: the innocent
    /// was served all the time, no more than `held_bytes_max` was held at any time, and everything is back where it was.
    ///
    /// What was measured is printed, a row of a table: the attack; the innocent's p50 and p99, in ms; the most memory that was
    /// resident beyond what was before, in MiB; the attack's duration, in s.
    #[track_caller]
    pub(crate) fn lift(mut self, held_bytes_max: u64) {
        let (latencies, most) = self.innocent.take().expect("lifted once").release();
        let [p50, p99] = [50, 99].map(|percent| latencies[latencies.len() * percent / 100]);
        let most = most.saturating_sub(self.before.resident_bytes);
        let name = thread::current().name().unwrap_or_default().to_owned();
        let [p50_ms, p99_ms] = [p50, p99].map(|latency| latency.as_secs_f64() * 1e3);
        let (mib, seconds) = (most as f64 / f64::from(1 << 20), self.laid.elapsed().as_secs_f64());
        println!("| {name} | {p50_ms:.2} | {p99_ms:.2} | {mib:.1} | {seconds:.1} |");
        assert!(p99 < ECHO_MAX, "the innocent waited: p99 {p99:?} of {}", latencies.len());
        assert!(most <= held_bytes_max, "{most} bytes were held, more than {held_bytes_max}");
        assert_eq!(self.server.metric("throng_panics_total"), 0.0);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let after = Figures::of(&self.server);
            if after.is_within(&self.before) {
                break;
            }
            assert!(Instant::now() < deadline, "it was {:?}, and is still {after:?}", self.before);
            thread::sleep(millis(20));
        }
        self.is_calm(millis(200));
    }
}

impl Figures {
    #[track_caller]
    fn of(server: &Throng) -> Self {
        Self {
            connections: server.metric("throng_connections"),
            timers: server.metric("throng_timers"),
            descriptors: server.descriptors().iter().sum(),
            resident_bytes: server.resident_bytes(),
        }
    }

    /// No more than it was; the connection that asks may count once more while it ends.
    fn is_within(&self, before: &Self) -> bool {
        self.connections <= before.connections
            && self.timers <= before.timers.max(2.0)
            && self.descriptors <= before.descriptors
            && self.resident_bytes <= before.resident_bytes + REST_BYTES_MAX
    }
}

impl Innocent {
    fn set_in(mut peer: Raw, pid: u32) -> Self {
        let (over, is_over) = mpsc::channel();
        let most_resident_bytes = Arc::new(AtomicU64::new(0));
        let most = Arc::clone(&most_resident_bytes);
        let echoing = thread::spawn(move || {
            let mut latencies = Vec::new();
            loop {
                let asked = Instant::now();
                peer.echo("not disturbed");
                latencies.push(asked.elapsed());
                most.fetch_max(memory_bytes(pid, "VmRSS:"), Ordering::Relaxed);
                if is_over.recv_timeout(millis(20)).is_ok() {
                    return latencies;
                }
            }
        });
        Self { echoing, over, most_resident_bytes }
    }

    /// What its echoes took, sorted, and the most that was resident.
    #[track_caller]
    fn release(self) -> (Vec<Duration>, u64) {
        // It is gone already when an echo did not come.
        let _ = self.over.send(());
        let mut latencies = self.echoing.join().expect("the innocent got its echoes");
        latencies.sort_unstable();
        (latencies, self.most_resident_bytes.load(Ordering::Relaxed))
    }
}
