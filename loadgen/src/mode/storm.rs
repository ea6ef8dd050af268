//! Everyone is thrown out at once and comes back: how long until the last one is served again.

use crate::clock::Nanos;
use crate::engine::{Gone, Mode, Net};
use hdrhistogram::Histogram;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Connections dropped, and calls made, before the loop looks at its sockets again.
const DROPS_PER_TURN: u32 = 256;
const CALLS_PER_TURN: u32 = 128;
/// How often workers look whether the others are through.
const LOOK: Duration = Duration::from_millis(5);
/// Who comes back without backoff still waits so long after a failure.
const RETRY: Duration = Duration::from_millis(100);

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StormPlan {
    pub(crate) rounds: u32,
    pub(crate) rest: Duration,
    pub(crate) by_reset: bool,
    /// Full jitter: a random part of this, doubled with each attempt up to the maximum.
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) round_timeout: Duration,
}

/// What the workers share: rounds begin for all at the same moment, when all are through with the last one.
#[derive(Debug)]
pub(crate) struct StormClock {
    workers: usize,
    through: Vec<AtomicUsize>,
    /// 0: not known yet.
    begins: Vec<AtomicU64>,
}

impl StormClock {
    pub(crate) fn new(workers: usize, rounds: u32) -> Self {
        let rounds = rounds as usize;
        Self {
            workers,
            through: (0..rounds).map(|_| AtomicUsize::new(0)).collect(),
            begins: (0..=rounds).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn through(&self, round: usize, next_begins: Nanos) {
        if self.through[round].fetch_add(1, Ordering::AcqRel) + 1 == self.workers {
            self.begins[round + 1].store(next_begins.0, Ordering::Release);
        }
    }

    fn begins(&self, round: usize) -> Option<Nanos> {
        let begins = self.begins[round].load(Ordering::Acquire);
        (begins > 0).then_some(Nanos(begins))
    }
}

/// One round of one worker, or of all.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) dropped: u64,
    pub(crate) attempts: u64,
    /// From the drop to being open again, in microseconds.
    pub(crate) back_us: Histogram<u32>,
}

impl Default for Round {
    fn default() -> Self {
        let back_us = Histogram::new_with_max(3_600_000_000, 2).expect("the bounds are constants");
        Self { dropped: 0, attempts: 0, back_us }
    }
}

/// Where a worker stands in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Before the start, and after the last round.
    Resting,
    /// Dropping; the next slot to look at.
    Dropping(u32),
    /// Waiting for everyone to be back.
    Returning,
}

/// Which attempt it is; 0 for connections of the first opening.
pub(crate) type Attempt = u32;

#[derive(Debug)]
pub(crate) struct Storm {
    plan: StormPlan,
    clock: Arc<StormClock>,
    rounds: Vec<Round>,
    step: Step,
    /// Number of the round under way or waited for.
    round: usize,
    began: Nanos,
    running: bool,
    /// Who is away, by when they call again, and how often they have tried.
    away: BinaryHeap<Reverse<(Nanos, Attempt)>>,
    /// Away or calling.
    missing: u64,
}

impl Storm {
    pub(crate) fn new(plan: StormPlan, clock: Arc<StormClock>) -> Self {
        Self {
            plan,
            clock,
            rounds: Vec::new(),
            step: Step::Resting,
            round: 0,
            began: Nanos(0),
            running: false,
            away: BinaryHeap::new(),
            missing: 0,
        }
    }

    /// Someone is away and will call again.
    fn send_away(&mut self, net: &mut Net<Attempt>, attempt: Attempt) {
        let wait = if self.plan.backoff.is_zero() {
            if attempt == 0 { Duration::ZERO } else { RETRY }
        } else {
            let most = self.plan.backoff.saturating_mul(1 << attempt.min(20)).min(self.plan.backoff_max);
            Duration::from_nanos(net.rng.below(u64::try_from(most.as_nanos()).unwrap_or(u64::MAX)))
        };
        self.away.push(Reverse((net.now + wait, attempt + 1)));
    }

    fn drop_some(&mut self, net: &mut Net<Attempt>, mut slot: u32) -> Option<Nanos> {
        use crate::engine::Phase;
        for _ in 0..DROPS_PER_TURN {
            if slot == net.table.slots() {
                self.step = Step::Returning;
                return Some(net.now);
            }
            if net.table[slot].phase == Phase::Open {
                self.rounds[self.round].dropped += 1;
                self.missing += 1;
                if self.plan.by_reset {
                    net.reset(slot);
                    self.send_away(net, 0);
                } else {
                    net.close(slot); // comes back once the closing is over
                }
            }
            slot += 1;
        }
        self.step = Step::Dropping(slot);
        Some(net.now)
    }

    fn call(&mut self, net: &mut Net<Attempt>) -> Option<Nanos> {
        for _ in 0..CALLS_PER_TURN {
            let &Reverse((due, attempt)) = self.away.peek()?;
            if due > net.now {
                return Some(due);
            }
            self.away.pop();
            self.rounds[self.round].attempts += 1;
            if net.open(attempt).is_err() {
                self.send_away(net, attempt);
            }
        }
        Some(net.now)
    }

    fn finish_round(&mut self, net: &Net<Attempt>) {
        self.away.clear();
        self.missing = 0;
        self.step = Step::Resting;
        self.clock.through(self.round, net.now + self.plan.rest);
        self.round += 1;
    }
}

impl Mode for Storm {
    type State = Attempt;
    type Report = Vec<Round>;

    fn opened(&mut self, net: &mut Net<Attempt>, slot: u32) {
        if self.step == Step::Resting || net.table[slot].state == 0 {
            return;
        }
        self.missing = self.missing.saturating_sub(1);
        let back = net.now.since(self.began);
        self.rounds[self.round].back_us.saturating_record(back.as_micros() as u64);
    }

    fn start(&mut self, net: &mut Net<Attempt>) {
        self.running = true;
        // Clients do not agree among each other on how many may call at a time.
        net.pending_max = u64::MAX;
        self.clock.begins[0].store((net.began + self.plan.rest).0, Ordering::Release);
    }

    fn gone(&mut self, net: &mut Net<Attempt>, _slot: u32, state: Attempt, how: Gone) {
        if self.running && self.step != Step::Resting {
            match how {
                Gone::Closed(_) => self.send_away(net, 0),
                Gone::Failed(_) => self.send_away(net, state),
                Gone::Lost(_) => {}
            }
        }
    }

    fn turn(&mut self, net: &mut Net<Attempt>) -> Option<Nanos> {
        if !self.running || self.is_done(net) {
            return None;
        }
        match self.step {
            Step::Resting => {
                let Some(begins) = self.clock.begins(self.round) else { return Some(net.now + LOOK) };
                if begins > net.now {
                    return Some(begins);
                }
                self.began = begins;
                self.rounds.push(Round::default());
                self.step = Step::Dropping(0);
                Some(net.now)
            }
            Step::Dropping(slot) => self.drop_some(net, slot),
            Step::Returning => {
                let deadline = self.began + self.plan.round_timeout;
                let next = self.call(net);
                if self.missing == 0 || net.now >= deadline {
                    self.finish_round(net);
                    return Some(net.now);
                }
                Some(next.map_or(deadline, |next| next.min(deadline)))
            }
        }
    }

    fn is_done(&self, _net: &Net<Attempt>) -> bool {
        self.round == self.plan.rounds as usize
    }

    fn stop(&mut self, _net: &mut Net<Attempt>) {
        self.running = false;
    }

    fn is_drained(&self, net: &Net<Attempt>) -> bool {
        net.pending == 0
    }

    fn report(&mut self, _net: &mut Net<Attempt>) -> Vec<Round> {
        std::mem::take(&mut self.rounds)
    }
}
