//! Messages that come back: a closed loop, where each answer lets the next message go, or an open loop, where
//! messages go when they are due whatever becomes of the earlier ones.
//!
//! Latency counts from the moment a message was due, not from when it left: a server that stalls makes
//! messages late that could not even be sent, and those count too (no coordinated omission).

use crate::clock::{Nanos, Pace};
use crate::engine::{Gone, Mode, Net};
use crate::mode::roster::{Place, Roster};
use crate::sizes::Sizes;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use throng::mem::Rng;
use throng::ws::Opcode;

/// Answers that one connection may owe in the open loop, and bytes that may wait for its socket; beyond, the
/// schedule waits, and its messages become late.
const OWED_MAX: usize = 4096;
const BACKLOG_MAX: usize = 4 * 1024 * 1024;
/// Messages sent before the loop looks at its sockets again.
const SENDS_PER_TURN: u32 = 64;
/// Places in the pattern where a payload may begin: neighbours differ, so a mixed-up answer is found out.
const OFFSETS: u64 = 4096;
/// A message that is due for so long when the load ends, and was not sent, counts as unsent.
const OVERDUE_NS: u64 = 10_000_000;
/// Longest latency that is told apart, in nanoseconds.
const LATENCY_MAX_NS: u64 = 120_000_000_000;

/// How echoes are made.
#[derive(Clone, Debug)]
pub(crate) struct EchoPlan {
    pub(crate) sizes: Sizes,
    pub(crate) opcode: Opcode,
    /// What payloads are cut out of.
    pub(crate) pattern: Arc<[u8]>,
    /// Messages under way on each connection; with `rate`, no such limit.
    pub(crate) inflight: u32,
    /// Messages a second of this worker.
    pub(crate) rate: Option<f64>,
    /// Load before the measured part.
    pub(crate) warmup: Duration,
}

/// The pattern for messages of up to `size_max` bytes: printable, without a period that any size could hide.
pub(crate) fn pattern(size_max: u32) -> Arc<[u8]> {
    let mut rng = Rng::new(11);
    (0..OFFSETS + u64::from(size_max)).map(|_| b'!' + rng.below(94) as u8).collect()
}

/// A message whose answer is owed.
#[derive(Clone, Copy, Debug)]
struct Owed {
    due: Nanos,
    offset: u32,
    length: u32,
}

/// What a connection that echoes needs.
#[derive(Debug, Default)]
pub(crate) struct Echoing {
    owed: VecDeque<Owed>,
    /// Among those that send.
    place: Place,
}

/// A mode's state that holds an [`Echoing`].
pub(crate) trait HasEchoing: Default {
    fn echoing(&mut self) -> &mut Echoing;
}

impl HasEchoing for Echoing {
    fn echoing(&mut self) -> &mut Echoing {
        self
    }
}

/// What was found out.
#[derive(Clone, Debug)]
pub(crate) struct EchoReport {
    /// From due to answered, in nanoseconds; messages that were due in the measured part.
    pub(crate) latency_ns: Histogram<u64>,
    /// From due to sent: this side's own lateness.
    pub(crate) late_ns: Histogram<u64>,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// Answers that are not what was sent, and messages that nobody had asked for.
    pub(crate) wrong: u64,
    pub(crate) unasked: u64,
    /// Owed by connections that are gone, and at the end.
    pub(crate) missing: u64,
    /// Due before the end and never sent: the schedule waited for answers.
    pub(crate) unsent: u64,
}

impl Default for EchoReport {
    fn default() -> Self {
        let histogram = || Histogram::new_with_max(LATENCY_MAX_NS, 3).expect("the bounds are constants");
        Self {
            latency_ns: histogram(),
            late_ns: histogram(),
            sent: 0,
            answered: 0,
            wrong: 0,
            unasked: 0,
            missing: 0,
            unsent: 0,
        }
    }
}

impl EchoReport {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.latency_ns += &other.latency_ns;
        self.late_ns += &other.late_ns;
        self.sent += other.sent;
        self.answered += other.answered;
        self.wrong += other.wrong;
        self.unasked += other.unasked;
        self.missing += other.missing;
        self.unsent += other.unsent;
    }
}

/// The senders of one worker.
#[derive(Debug)]
pub(crate) struct Echoes {
    plan: EchoPlan,
    report: EchoReport,
    senders: Roster,
    /// Whose turn it is in the open loop.
    turn: usize,
    pace: Option<Pace>,
    running: bool,
    measured_from: Nanos,
    owed: u64,
}

impl Echoes {
    pub(crate) fn new(plan: EchoPlan) -> Self {
        Self {
            plan,
            report: EchoReport::default(),
            senders: Roster::default(),
            turn: 0,
            pace: None,
            running: false,
            measured_from: Nanos(u64::MAX),
            owed: 0,
        }
    }

    /// Makes a connection one of those that send.
    pub(crate) fn enlist<S: HasEchoing>(&mut self, net: &mut Net<S>, slot: u32) {
        net.table[slot].state.echoing().place = self.senders.add(slot);
        if self.running && self.pace.is_none() {
            self.fill(net, slot);
        }
    }

    pub(crate) fn start<S: HasEchoing>(&mut self, net: &mut Net<S>) {
        self.running = true;
        self.measured_from = net.began + self.plan.warmup;
        self.pace = self.plan.rate.map(|rate| Pace::new(net.began, rate));
        if self.pace.is_none() {
            for index in 0..self.senders.len() {
                self.fill(net, self.senders.at(index));
            }
        }
    }

    /// Closed loop: the first messages of a connection.
    fn fill<S: HasEchoing>(&mut self, net: &mut Net<S>, slot: u32) {
        for _ in 0..self.plan.inflight {
            net.now = net.clock.now();
            let now = net.now;
            self.send(net, slot, now);
        }
    }

    fn send<S: HasEchoing>(&mut self, net: &mut Net<S>, slot: u32, due: Nanos) {
        let length = self.plan.sizes.draw(&mut net.rng);
        let offset = net.rng.below(OFFSETS) as u32;
        net.table[slot].state.echoing().owed.push_back(Owed { due, offset, length });
        self.owed += 1;
        if due >= self.measured_from {
            self.report.sent += 1;
        }
        net.send(slot, self.plan.opcode, &self.plan.pattern[offset as usize..(offset + length) as usize]);
    }

    pub(crate) fn message<S: HasEchoing>(&mut self, net: &mut Net<S>, slot: u32, payload: &[u8]) {
        let Some(owed) = net.table[slot].state.echoing().owed.pop_front() else {
            self.report.unasked += 1;
            return;
        };
        self.owed -= 1;
        let expected = &self.plan.pattern[owed.offset as usize..(owed.offset + owed.length) as usize];
        if payload != expected {
            self.report.wrong += 1;
        }
        if owed.due >= self.measured_from {
            self.report.answered += 1;
            self.report.latency_ns.saturating_record(net.now.0.saturating_sub(owed.due.0));
        }
        if self.running && self.pace.is_none() {
            let now = net.now;
            self.send(net, slot, now);
        }
    }

    /// Open loop: sends what is due.
    pub(crate) fn turn<S: HasEchoing>(&mut self, net: &mut Net<S>) -> Option<Nanos> {
        let mut pace = self.pace.filter(|_| self.running && !self.senders.is_empty())?;
        let mut next = None;
        for _ in 0..SENDS_PER_TURN {
            next = Some(pace.due());
            if pace.due() > net.now {
                break;
            }
            self.turn = (self.turn + 1) % self.senders.len();
            let slot = self.senders.at(self.turn);
            if net.table[slot].state.echoing().owed.len() >= OWED_MAX || net.backlog(slot) >= BACKLOG_MAX {
                next = None; // an answer will come
                break;
            }
            let Some(due) = pace.take(net.now) else { break };
            net.now = net.clock.now();
            if due >= self.measured_from {
                self.report.late_ns.saturating_record(net.now.0.saturating_sub(due.0));
            }
            self.send(net, slot, due);
        }
        self.pace = Some(pace);
        next
    }

    pub(crate) fn stop(&mut self, now: Nanos) {
        self.running = false;
        // What became due just now would have gone in this turn.
        let overdue = Nanos(now.0.saturating_sub(OVERDUE_NS));
        while self.pace.as_mut().is_some_and(|pace| pace.take(overdue).is_some()) {
            self.report.unsent += 1;
        }
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.owed == 0
    }

    /// A connection is gone, or about to be: what it owes is missing.
    pub(crate) fn dismiss<S: HasEchoing>(&mut self, net: &mut Net<S>, state: &mut S) {
        let echoing = state.echoing();
        let owed = echoing.owed.len() as u64;
        self.owed = self.owed.saturating_sub(owed); // the final report took it
        self.report.missing += owed;
        echoing.owed = VecDeque::new();
        let place = std::mem::take(&mut echoing.place);
        if let Some(moved) = self.senders.remove(place) {
            net.table[moved].state.echoing().place = place;
        }
    }

    pub(crate) fn report(&mut self) -> EchoReport {
        self.report.missing += std::mem::take(&mut self.owed);
        std::mem::take(&mut self.report)
    }
}

/// Every connection echoes.
#[derive(Debug)]
pub(crate) struct Echo(pub(crate) Echoes);

impl Mode for Echo {
    type State = Echoing;
    type Report = EchoReport;

    fn opened(&mut self, net: &mut Net<Echoing>, slot: u32) {
        self.0.enlist(net, slot);
    }

    fn start(&mut self, net: &mut Net<Echoing>) {
        self.0.start(net);
    }

    fn message(&mut self, net: &mut Net<Echoing>, slot: u32, payload: &[u8]) {
        self.0.message(net, slot, payload);
    }

    fn gone(&mut self, net: &mut Net<Echoing>, _slot: u32, mut state: Echoing, _how: Gone) {
        self.0.dismiss(net, &mut state);
    }

    fn turn(&mut self, net: &mut Net<Echoing>) -> Option<Nanos> {
        self.0.turn(net)
    }

    fn stop(&mut self, net: &mut Net<Echoing>) {
        self.0.stop(net.now);
    }

    fn is_drained(&self, _net: &Net<Echoing>) -> bool {
        self.0.is_drained()
    }

    fn report(&mut self, _net: &mut Net<Echoing>) -> EchoReport {
        self.0.report()
    }
}
