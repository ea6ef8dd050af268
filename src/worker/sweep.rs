//! Work that concerns every connection, done in slices so that nobody waits for all of it.

use super::{Kernel, Worker};
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

impl<S: Service, K: Kernel> Worker<S, K> {
    /// A slice of whichever sweep is under way.
    pub(super) fn sweep(&mut self) {
        self.sweep_tick();
        self.sweep_ages();
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
}
