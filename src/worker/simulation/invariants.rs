//! What must be true after every turn of a worker, and at the end.

use super::machine::Simulated;
use super::*;
use crate::conn::Phase;
use crate::limits::{OUTPUT_KEEP_BYTES, READ_PAUSE_BYTES, SCRATCH_BYTES, WAIT_S_MAX};
use crate::sys::ledger::{Held, held, peak};
use crate::time::Tick;

/// Turns in a row with nothing done after which a worker that asks to be called at once is spinning. Slices of what has
/// nothing to do (sweeps, timers that are armed again) are below.
const IDLE_TURNS_MAX: u32 = 150;

/// More than what is held after a turn is not held in it, but for a few messages in all their forms.
const MOMENT_BYTES_MAX: i64 = 4 << 20;

/// A deadline in ticks covers what it stands for, and one more begins.
const SLACK_MS: u64 = 3 * Tick::MS;

/// Where a connection was seen, and since when.
#[derive(Clone, Copy, Debug)]
struct Seen {
    serial: u64,
    stage: (Phase, bool, u64, u64),
    since_ms: u64,
    /// Turns since the deadline.
    overdue: usize,
}

/// What is remembered of a worker between its turns.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// By slot.
    seen: Vec<Option<Seen>>,
    calls: u64,
    closed: u64,
    mail: usize,
    idle_turns: u32,
}

type Tested = Worker<Centrifugo<Push>, Simulated>;

impl Watch {
    /// After a turn.
    pub(super) fn check(&mut self, worker: &mut Tested, net: &mut Net) {
        let index = usize::from(worker.index);
        assert!(worker.output.is_empty() && worker.asked.is_none(), "worker {index}: something is unsaid");
        assert!(worker.has_nothing_corked() && worker.wishes.is_empty(), "worker {index}: something is put aside");
        assert!(!worker.granting && !worker.beginning, "worker {index}: it is still at something");
        let (connections, sockets) = (worker.table.len(), net.sides[index].sockets());
        assert_eq!(connections, sockets, "worker {index}: connections, and sockets that are open");
        assert_eq!(connections, worker.wheel.len(), "worker {index}: connections, and timers");
        let metrics = &worker.shared.ports[index].metrics;
        let gauges = [metrics.opening.read(), metrics.open(), metrics.closing.read()].map(|gauge| gauge as i64);
        let is_right = gauges.iter().all(|&gauge| gauge >= 0) && gauges.iter().sum::<i64>() == connections as i64;
        assert!(is_right, "worker {index}: {connections} connections, and the gauges say {gauges:?}");
        assert_eq!(metrics.panics.read(), 0, "a handler panicked");
        let queued =
            (0..worker.table.high()).filter_map(|slot| worker.table.get(slot)).map(|entry| entry.conn.queued());
        let (slow, bytes) =
            queued.fold((0, 0), |(slow, bytes), each| (slow + u64::from(each > 0), bytes + each as u64));
        let gauges = (metrics.slow.read(), metrics.queued_bytes.read());
        assert_eq!(gauges, (slow, bytes), "worker {index}: who waits, for how much");
        let closed = (net.sides[index].closed - std::mem::replace(&mut self.closed, net.sides[index].closed)) as usize;
        // Each request that waits its turn may put it there once more; the next turn has it once.
        let most = 40 * (connections + closed);
        assert!(worker.ready.len() <= most, "worker {index}: {} to be read on, of {connections}", worker.ready.len());
        self.check_spinning(worker, net);
        self.seen.resize(worker.table.high() as usize, None);
        for slot in 0..worker.table.high() {
            self.check_connection(slot, worker, net);
        }
    }

    fn check_spinning(&mut self, worker: &Tested, net: &Net) {
        let side = &net.sides[usize::from(worker.index)];
        let moved = side.calls != self.calls || worker.mail.len() != self.mail;
        (self.calls, self.mail) = (side.calls, worker.mail.len());
        let wants_more = worker.timeout().is_some_and(|timeout| timeout.is_zero());
        self.idle_turns = if wants_more && !moved && worker.events.is_empty() { self.idle_turns + 1 } else { 0 };
        assert!(self.idle_turns < IDLE_TURNS_MAX, "worker {} spins", worker.index);
    }

    fn check_connection(&mut self, slot: u32, worker: &mut Tested, net: &mut Net) {
        let (now, index, most) = (worker.now.0, usize::from(worker.index), worker.table.len());
        let rules = worker.rules.clone();
        let Some(entry) = worker.table.at(slot) else {
            self.seen[slot as usize] = None;
            return;
        };
        let (phase, queued) = (entry.conn.phase(), entry.conn.queued());
        let who = || format!("worker {index}, connection {slot} in {phase:?}, {queued} bytes wait");
        let link = &mut net.links[entry.socket.id];
        let may_wait = rules.queue_bytes_max + READ_PAUSE_BYTES + 16 * 1024;
        assert!(queued <= may_wait, "{}: too many", who());
        let blocked = queued > 0;
        let passes = matches!(phase, Phase::Finishing | Phase::Refusing | Phase::Resetting);
        assert!(!passes || blocked, "{}: it was to be over by now", who());

        let turns = net.sides[index].turns;
        // Who is refused is read on when that is written.
        if !entry.conn.wants_input() || passes {
            link.told = link.told.map(|_| turns);
        }
        let unread = link.told.map_or(0, |told| turns - told);
        assert!(unread <= 4 + most as u64, "{}: it was told of input {unread} turns ago, and does not read", who());

        let limit = if blocked { Some(rules.write_timeout) } else { limit(phase, &rules) };
        let Some(limit_ms) = limit.map(|span| u64::from(span.0) * Tick::MS) else {
            self.seen[slot as usize] = None;
            return;
        };
        // What begins the time anew.
        let (sent, received) = match phase {
            Phase::Closing | Phase::Lingering => (0, 0),
            _ if blocked => (link.sent, 0),
            Phase::Idle => (link.sent, link.received), // the requests that waited their turn begin it, too
            Phase::Open | Phase::Pinged => (0, link.received),
            Phase::Streaming | Phase::Preamble | Phase::Head | Phase::Body | Phase::Deciding | Phase::Waiting => {
                (link.sent, 0)
            }
            _ => (0, 0),
        };
        let (stage, serial) = ((phase, blocked, sent, received), entry.serial);
        let fresh = Seen { serial, stage, since_ms: now, overdue: 0 };
        let slots = self.seen.len();
        let seen = self.seen[slot as usize].get_or_insert(fresh);
        if (seen.serial, seen.stage) != (serial, stage) {
            *seen = fresh;
        }
        let is_overdue = now > seen.since_ms + limit_ms + SLACK_MS;
        seen.overdue = if is_overdue { seen.overdue + 1 } else { 0 };
        let (since, overdue) = (seen.since_ms, seen.overdue);
        // So many others may have been due with it, of those that came and went meanwhile.
        let bound = 6 + slots;
        assert!(overdue <= bound, "{}: since {since}, now {now}, {limit_ms} ms allowed: {overdue} turns late", who());
    }
}

/// How long a connection may stand there, if nothing begins its time anew.
fn limit(phase: Phase, rules: &Rules) -> Option<crate::time::Span> {
    use crate::time::Span;
    Some(match phase {
        Phase::Preamble | Phase::Head | Phase::Body => rules.head_timeout,
        Phase::Idle => rules.idle_timeout,
        Phase::Deciding => rules.decision_timeout,
        Phase::Waiting => Span::covering(Duration::from_secs(WAIT_S_MAX)),
        Phase::Streaming | Phase::Open => rules.ping_interval,
        Phase::Pinged => rules.pong_timeout,
        Phase::Closing | Phase::Lingering => rules.close_timeout,
        Phase::Paced | Phase::Emulated | Phase::Finishing | Phase::Refusing | Phase::Resetting => return None,
    })
}

/// What the workers of a world hold in memory, measured from when they were made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    start: Held,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { start: held() }
    }

    fn taken(&self) -> Held {
        let now = held();
        Held { bytes: now.bytes - self.start.bytes, blocks: now.blocks - self.start.blocks }
    }

    /// No more than so many connections, and what was published, account for.
    pub(super) fn check(&self, shape: &Shape, rules: &Rules, connections: usize, published: (usize, usize)) {
        let each = rules.queue_bytes_max + 3 * rules.message_bytes_max + READ_PAUSE_BYTES + SCRATCH_BYTES;
        let context = shape.compression.and_then(|compression| compression.context);
        let each = each + context.map_or(0, crate::config::Compression::context_bytes);
        // A message is written in each encoding that somebody wants, and remembered by its key.
        let logs = 12 * published.0 + 4000 * published.1;
        let own = shape.workers * (4 * OUTPUT_KEEP_BYTES + 256 * 1024);
        let now = held();
        let (most, taken) = (connections * each + logs + own, self.taken());
        assert!(taken.bytes <= most as i64, "{taken:?} for {connections} connections, where {most} bytes may be");
        let for_a_moment = peak() - now.bytes;
        assert!(for_a_moment <= MOMENT_BYTES_MAX, "{for_a_moment} bytes were taken and given back in one turn");
    }

    /// Everybody has gone, and all that was said is forgotten: what is left are the workers' own buffers.
    pub(super) fn check_end(&self, workers: usize) {
        let taken = self.taken();
        let (bytes, blocks) = (workers as i64 * 700 * 1024, workers as i64 * 40);
        assert!(taken.bytes <= bytes && taken.blocks <= blocks, "{taken:?} is left of nothing");
    }
}
