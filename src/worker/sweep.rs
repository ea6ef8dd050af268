//! Work that concerns every connection, done in slices so that nobody waits for all of it.

use super::{Kernel, Worker};
use crate::conn::{Ended, Phase};
use crate::error::{End, Refused};
use crate::limits::SWEEP_PER_TURN;
use crate::service::Service;
use crate::time::Millis;
use std::time::Duration;

/// The service's tick: every open connection once an interval.
#[derive(Debug)]
pub(super) struct Tick {
    interval: Duration,
    /// When the next sweep starts.
    due: Millis,
    /// The next slot of the sweep under way.
    slot: Option<u32>,
}

impl Tick {
    pub(super) fn new(interval: Duration, now: Millis) -> Self {
        Self { interval, due: now + interval, slot: None }
    }

    pub(super) fn next(&self) -> Millis {
        if self.slot.is_some() { Millis(0) } else { self.due }
    }
}

/// The way to the end: no more accepting, and everybody is closed in turn.
#[derive(Debug)]
pub(super) struct Drain {
    started: Millis,
    over: Duration,
    /// The next slot to be closed.
    slot: u32,
    /// Whoever is still there then is reset.
    deadline: Millis,
}

impl Drain {
    /// When the slot's turn comes, of `slots`.
    fn moment(&self, slot: u32, slots: u32) -> Millis {
        self.started + self.over.mul_f64(f64::from(slot) / f64::from(slots.max(1)))
    }

    pub(super) fn next(&self, slots: u32) -> Millis {
        if self.slot < slots { self.moment(self.slot, slots) } else { self.deadline }
    }
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// A slice of whichever sweep is under way.
    pub(super) fn sweep(&mut self) {
        self.sweep_tick();
        self.sweep_drain();
    }

    fn sweep_tick(&mut self) {
        let now = self.now;
        let Some(tick) = &mut self.tick else { return };
        if tick.slot.is_none() && tick.due <= now {
            tick.slot = Some(0);
            // From when it should have been, not from when it was: the pace holds. Missed ones are not made up for.
            let due = tick.due + tick.interval;
            tick.due = if due > now { due } else { now + tick.interval };
        }
        let Some(start) = tick.slot else { return };
        let end = (start + SWEEP_PER_TURN as u32).min(self.table.high());
        for slot in start..end {
            let Some(entry) = self.table.at(slot).filter(|entry| entry.conn.phase().is_open()) else {
                continue;
            };
            let serial = entry.serial;
            self.handle(slot, serial, |desk| {
                let glue = &mut desk.glue;
                desk.entry.conn.visit(desk.rules, desk.output, |io, state| {
                    glue.serve(io, state, S::tick);
                });
            });
        }
        if let Some(tick) = &mut self.tick {
            tick.slot = (end < self.table.high()).then_some(end);
        }
    }

    /// Starts to drain, or shortens a drain under way.
    pub(super) fn begin_drain(&mut self, over: Duration) {
        if self.drain.is_none() {
            self.stop_accepting();
            // The last one to be closed still gets its time to answer, and a little more to be reset in.
            let answer = Duration::from_millis(u64::from(self.rules.close_timeout.0) * crate::time::Tick::MS);
            let deadline = self.now + over + answer + Duration::from_millis(500);
            self.drain = Some(Drain { started: self.now, over, slot: 0, deadline });
        }
    }

    fn sweep_drain(&mut self) {
        let slots = self.table.high();
        for _ in 0..SWEEP_PER_TURN {
            let Some(drain) = &mut self.drain else { return };
            if drain.next(slots) > self.now {
                return;
            }
            if drain.slot >= slots {
                return self.abort_all();
            }
            let slot = drain.slot;
            drain.slot += 1;
            let Some(entry) = self.table.at(slot) else {
                continue;
            };
            let serial = entry.serial;
            self.handle(slot, serial, |desk| match desk.entry.conn.phase() {
                Phase::Idle => desk.entry.conn.end_idle(),
                Phase::Head | Phase::Body | Phase::Deciding | Phase::Waiting => {
                    desk.entry.conn.refuse(&Refused::Draining.into(), false, desk.output, &mut desk.glue);
                }
                Phase::Streaming => desk.entry.conn.end_stream(),
                _ => {
                    let Some(state) = &desk.entry.conn.state else { return };
                    let (code, reason) = desk.glue.service.farewell(state);
                    let ended = Ended { end: End::GoingAway, code, reason: reason.into(), clean: false };
                    desk.entry.conn.close(Some(code), ended, desk.output);
                }
            });
        }
    }

    /// Resets everybody, and ends.
    pub(super) fn abort_all(&mut self) {
        for slot in 0..self.table.high() {
            let Some(entry) = self.table.at(slot) else {
                continue;
            };
            let serial = entry.serial;
            self.handle(slot, serial, |desk| desk.entry.conn.abort(Ended::new(End::Aborted), desk.output));
        }
        self.aborted = true;
    }
}
