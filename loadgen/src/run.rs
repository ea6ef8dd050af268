//! A run: the threads, the stages they are led through, and what was seen on the way.

use crate::cli::{Common, End};
use crate::clock::{Clock, Nanos};
use crate::engine::{self, Account, Gauge, Line, Mode, Note, Outcome, Seat, Shared, Stage, Tally};
use crate::observe::{self, Machine, Process};
use crate::plan::{Plan, Share};
use crate::progress::Progress;
use crate::timeline::{Mark, Timeline};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, UNIX_EPOCH};
use throng::sys::{self, Wake};

/// Signals that end a run early: SIGINT and SIGTERM, as Linux numbers them everywhere.
const SIGNALS: [i32; 2] = [2, 15];
/// A worker keeps everything large on the heap.
const STACK_BYTES: usize = 256 * 1024;

/// How long each part takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timing {
    /// Between the last opening and the beginning of the load.
    pub(crate) settle: Duration,
    /// Load that is not measured yet.
    pub(crate) warmup: Duration,
    /// Load that is; when `until_done`, at most.
    pub(crate) measured: Duration,
    /// The workers say when they are done.
    pub(crate) until_done: bool,
    /// Waiting for what is on its way, at most.
    pub(crate) drain: Duration,
}

/// The borders between the stages of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    pub(crate) start: Mark,
    pub(crate) opened: Mark,
    /// The measured part begins, and ends.
    pub(crate) measured: Mark,
    pub(crate) stopped: Mark,
    pub(crate) drained: Mark,
    pub(crate) closed: Mark,
}

/// What a run has brought.
#[derive(Debug)]
pub(crate) struct Run<R> {
    pub(crate) marks: Marks,
    pub(crate) timeline: Timeline,
    pub(crate) tally: Tally,
    /// The same for each transport, as they were dealt.
    pub(crate) tallies: Vec<Tally>,
    pub(crate) reports: Vec<R>,
    /// Bytes of the connections' records.
    pub(crate) table_bytes: usize,
    /// Processes that were watched.
    pub(crate) pids: Vec<u32>,
    pub(crate) interrupted: bool,
    /// Seconds since 1970.
    pub(crate) started_unix: u64,
    /// Workers that broke, and of what.
    pub(crate) errors: Vec<String>,
}

/// Threads that publish beside the workers, if a mode has any: they follow the stages by themselves, and send
/// [`Note::Failed`] when they cannot go on.
pub(crate) type Companions<'a> = Box<dyn FnOnce(&Arc<Shared>, &Sender<Note>) -> Vec<Companion> + 'a>;
type Companion = JoinHandle<Result<(), String>>;

/// Runs `mode_of(share)` on every worker of the plan.
pub(crate) fn drive<M: Mode + 'static>(
    plan: &Plan,
    common: &Common,
    timing: Timing,
    pids: Vec<u32>,
    mut mode_of: impl FnMut(Share) -> M,
    companions: Companions<'_>,
) -> io::Result<Run<M::Report>>
where
    M::Report: 'static,
{
    // The order matters: signals blocked before any thread exists, eventfds before any table parts, and no
    // other descriptor until all have parted.
    let started_unix = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let blocked = sys::block_signals(&SIGNALS)?;
    let wakes = plan.workers.iter().map(|_| Wake::new()).collect::<io::Result<Vec<_>>>()?;
    let by_reset = common.end == End::Reset;
    let shared = Arc::new(Shared::new(wakes, plan.openers, common.open_rate.unwrap_or(0.0), by_reset));
    let (notes, inbox) = channel();
    take_signals(notes.clone())?;
    let gauges: Vec<Arc<Gauge>> = plan.workers.iter().map(|_| Arc::default()).collect();
    let mut workers = Vec::new();
    for (index, (&share, gauge)) in plan.workers.iter().zip(&gauges).enumerate() {
        let seat = seat(plan, index, Arc::clone(gauge), Arc::clone(&shared), notes.clone());
        workers.push(spawn(seat, mode_of(share))?);
    }
    shared.parted.wait();
    let companions = companions(&shared, &notes);
    let progress = Progress::new(common.quiet, plan.connections);
    let timeline = Timeline::new(pids.clone());
    let mut lead = Lead { shared: &shared, gauges, inbox, seen: Seen::default(), timeline, pids, progress };
    let (mut marks, interrupted) = lead.through(timing, workers.len(), plan.connections);
    let outcomes = workers.into_iter().map(JoinHandle::join);
    let mut run = gather(outcomes);
    for companion in companions {
        match companion.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => run.errors.push(error),
            Err(_) => run.errors.push("a publisher panicked".to_owned()),
        }
    }
    marks.closed = lead.mark();
    lead.progress.finish();
    drop(blocked);
    Ok(Run { marks, timeline: lead.timeline, pids: lead.pids, interrupted, started_unix, ..run })
}

fn seat(plan: &Plan, index: usize, gauge: Arc<Gauge>, shared: Arc<Shared>, notes: Sender<Note>) -> Seat {
    let share = plan.workers[index];
    Seat {
        index,
        share: share.connections,
        capacity: share.capacity as usize,
        pending_max: plan.pending_max,
        line: Line::new(Arc::clone(&plan.dial), share.first, plan.sources.take(share.first_source, share.sources)),
        gauge,
        shared,
        notes,
        seed: plan.seed ^ (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
    }
}

/// Puts together what the workers bring as they end.
fn gather<R>(outcomes: impl Iterator<Item = thread::Result<io::Result<Outcome<R>>>>) -> Run<R> {
    let mut run = Run {
        marks: Marks::default(),
        timeline: Timeline::new(Vec::new()),
        tally: Tally::default(),
        tallies: Vec::new(),
        reports: Vec::new(),
        table_bytes: 0,
        pids: Vec::new(),
        interrupted: false,
        started_unix: 0,
        errors: Vec::new(),
    };
    for outcome in outcomes {
        match outcome {
            Ok(Ok(outcome)) => {
                run.tallies.resize_with(outcome.tallies.len(), Tally::default);
                for (sum, tally) in run.tallies.iter_mut().zip(&outcome.tallies) {
                    sum.merge(tally);
                    run.tally.merge(tally);
                }
                run.table_bytes += outcome.table_bytes;
                run.reports.push(outcome.report);
            }
            Ok(Err(error)) => run.errors.push(format!("a worker ended: {error}")),
            Err(_) => run.errors.push("a worker panicked".to_owned()),
        }
    }
    run
}

/// The first signal ends the run in order, the second one the process.
fn take_signals(notes: Sender<Note>) -> io::Result<()> {
    thread::Builder::new().name("signals".into()).stack_size(STACK_BYTES).spawn(move || {
        for count in 0.. {
            if sys::wait_signal(&SIGNALS).is_err() {
                return;
            }
            if count > 0 || notes.send(Note::Signal).is_err() {
                std::process::exit(130);
            }
        }
    })?;
    Ok(())
}

fn spawn<M: Mode + 'static>(seat: Seat, mode: M) -> io::Result<JoinHandle<io::Result<Outcome<M::Report>>>>
where
    M::Report: 'static,
{
    thread::Builder::new().name(format!("load-{}", seat.index)).stack_size(STACK_BYTES).spawn(move || {
        // Where it is refused, the plan knows, and what fits one table is shared by all.
        let _ = sys::private_table();
        let _ended = Ended(seat.notes.clone());
        seat.gauge.thread_id.store(thread_id(), Ordering::Relaxed);
        seat.shared.parted.wait();
        engine::run(seat, mode)
    })
}

/// Tells that a worker has ended, even by a panic.
struct Ended(Sender<Note>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.send(Note::Ended);
    }
}

/// The kernel's number of this thread: the last part of `/proc/thread-self`.
fn thread_id() -> u32 {
    let link = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    link.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0)
}

/// Notes received so far.
#[derive(Debug, Default)]
struct Seen {
    opened: usize,
    done: usize,
    drained: usize,
    ended: usize,
    /// Signals, and companions that failed.
    stops: usize,
}

/// The main thread's part.
struct Lead<'a> {
    shared: &'a Shared,
    gauges: Vec<Arc<Gauge>>,
    inbox: Receiver<Note>,
    seen: Seen,
    timeline: Timeline,
    pids: Vec<u32>,
    progress: Progress,
}

impl Lead<'_> {
    /// Leads the workers from opening to the end; what was marked, and whether it was cut short.
    fn through(&mut self, timing: Timing, workers: usize, connections: u64) -> (Marks, bool) {
        let mut marks = Marks { start: self.mark(), ..Marks::default() };
        self.progress.stage("opening", Some(connections), None);
        let mut go_on = self.wait(None, |seen| seen.opened >= workers);
        marks.opened = self.mark();
        if go_on && !timing.settle.is_zero() {
            self.progress.stage("settling", None, Some(timing.settle));
            go_on = self.wait(Some(timing.settle), |_| false);
        }
        if go_on {
            self.shared.advance(Stage::Running);
        }
        if go_on && !timing.warmup.is_zero() {
            self.progress.stage("warming up", None, Some(timing.warmup));
            go_on = self.wait(Some(timing.warmup), |_| false);
        }
        marks.measured = self.mark();
        if go_on {
            self.progress.stage("running", None, Some(timing.measured));
            go_on = self.wait(Some(timing.measured), |seen| timing.until_done && seen.done >= workers);
        }
        marks.stopped = self.mark();
        self.shared.advance(Stage::Draining);
        if go_on && !timing.drain.is_zero() {
            self.progress.stage("draining", None, Some(timing.drain));
            go_on = self.wait(Some(timing.drain), |seen| seen.drained >= workers);
        }
        marks.drained = self.mark();
        self.shared.advance(Stage::Closing);
        self.progress.stage("closing", None, None);
        self.wait_for_the_end(workers);
        (marks, !go_on)
    }

    /// Waits until `reached`, or for `at_most`; false when a signal came, or a worker ended before its time.
    fn wait(&mut self, at_most: Option<Duration>, reached: impl Fn(&Seen) -> bool) -> bool {
        let deadline = at_most.map(|time| self.now() + time);
        loop {
            if self.seen.stops > 0 || self.seen.ended > 0 {
                return false;
            }
            let now = self.now();
            if reached(&self.seen) || deadline.is_some_and(|deadline| now >= deadline) {
                return true;
            }
            self.look(deadline.map_or(Duration::MAX, |deadline| deadline.since(now)));
        }
    }

    fn wait_for_the_end(&mut self, workers: usize) {
        while self.seen.ended < workers {
            self.look(Duration::MAX);
        }
    }

    /// Takes a sample if it is time, shows it, and waits for a note until the next one is due.
    fn look(&mut self, at_most: Duration) {
        let (now, account) = (self.now(), self.account());
        self.timeline.sample(now, account, false);
        self.progress.show(now, &account);
        match self.inbox.recv_timeout(at_most.min(self.timeline.interval())) {
            Ok(Note::Opened) => self.seen.opened += 1,
            Ok(Note::Done) => self.seen.done += 1,
            Ok(Note::Drained) => self.seen.drained += 1,
            Ok(Note::Ended) => self.seen.ended += 1,
            Ok(Note::Signal) => {
                self.seen.stops += 1;
                self.progress.say("ending early: once more ends at once");
            }
            Ok(Note::Failed) => self.seen.stops += 1,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("the thread that takes signals keeps a sender"),
        }
    }

    fn now(&self) -> Nanos {
        let clock: Clock = self.shared.clock;
        clock.now()
    }

    fn account(&self) -> Account {
        let mut account = Account::default();
        self.gauges.iter().for_each(|gauge| account += gauge);
        account
    }

    fn mark(&mut self) -> Mark {
        let (now, account) = (self.now(), self.account());
        self.timeline.sample(now, account, true);
        Mark {
            at: now,
            account,
            own: Process::read(&[std::process::id()]).unwrap_or_default(),
            server: Process::read(&self.pids),
            machine: Machine::read(),
            workers_cpu: self
                .gauges
                .iter()
                .map(|gauge| observe::thread_cpu_seconds(gauge.thread_id.load(Ordering::Relaxed)).unwrap_or(0.0))
                .collect(),
        }
    }
}
