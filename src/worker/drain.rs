//! The way to the end: newcomers are told, then nobody is let in any more, and everybody is closed in turn.
//!
//! ```text
//!   told        delay        begins   grace    listeners closed            over                     deadline
//!    |------ served as ever ----|-- 503, or --|------------------------------|-- what is left --------|
//!    | not ready any more       |   served    |                              |   is looked at again   |
//!                               |--- everybody there is closed, spread evenly ---|                    all reset
//! ```
//!
//! Whoever is sent off comes to another server, which without a broker knows nothing of what is published here. So from the
//! beginning on nothing is: who wants to is told to go elsewhere, and the first are closed only when all workers must have
//! come to know it.
//!
//! A listener that closes resets whoever waits in its queue (of several on one address too, but for `tcp_migrate_req=1`).
//! With TCP_DEFER_ACCEPT there are some whom it does not show yet: connected, and their request not here, for a second at
//! most. So it stays open that long, and what comes is told; then its queue is emptied, and it is closed.

use super::{Kernel, Worker};
use crate::config::Drain;
use crate::conn::{Conn, Ended, Phase};
use crate::error::{End, Refused};
use crate::limits::{DRAIN_GRACE_MS, DRAIN_LOOK_MS, DRAIN_QUIET_MS, EVENT_SOURCE_RETRY_MS, SWEEP_PER_TURN};
use crate::service::{ConnId, Service};
use crate::time::{Millis, Tick};
use std::fmt::Write;
use std::time::Duration;

/// A drain under way.
#[derive(Debug)]
pub(super) struct Leaving {
    /// When closing begins.
    begins: Millis,
    over: Duration,
    /// When the listeners are closed; `None`: they are.
    deaf_at: Option<Millis>,
    /// How often all slots have been looked at.
    rounds: u32,
    /// The next slot to be closed.
    slot: u32,
    /// Whoever is still there then is reset.
    deadline: Millis,
}

impl Leaving {
    /// When the slot's turn comes, of `slots`: in the first round spread evenly, later all at once.
    fn moment(&self, slots: u32) -> Millis {
        match self.rounds {
            0 => {
                let quiet = Duration::from_millis(DRAIN_QUIET_MS).min(self.over);
                self.begins + quiet + (self.over - quiet).mul_f64(f64::from(self.slot) / f64::from(slots.max(1)))
            }
            n => self.begins + self.over + Duration::from_millis(DRAIN_LOOK_MS * u64::from(n - 1)),
        }
    }

    pub(super) fn next(&self, slots: u32, now: Millis) -> Millis {
        if !self.has_begun(now) {
            return self.begins;
        }
        let next = self.moment(slots).min(self.deadline);
        self.deaf_at.map_or(next, |deaf_at| next.min(deaf_at))
    }

    /// Whether nobody is to stay any more.
    pub(super) fn has_begun(&self, now: Millis) -> bool {
        self.begins <= now
    }

    /// Whether nobody can come any more.
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf_at.is_none()
    }
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// Has the end begin, unless it has.
    pub(super) fn begin_drain(&mut self, Drain { delay, over }: Drain) {
        if self.drain.as_ref().is_some_and(|leaving| leaving.has_begun(self.now)) {
            return;
        }
        let begins = self.now + delay;
        // The last one to be closed still gets its time to answer, and a little more to be reset in.
        let answer = Duration::from_millis(u64::from(self.rules.close_timeout.0) * Tick::MS);
        let deadline = begins + over + answer + Duration::from_millis(500);
        let grace = Duration::from_millis(DRAIN_GRACE_MS).min(over);
        self.drain = Some(Leaving { begins, over, deaf_at: Some(begins + grace), rounds: 0, slot: 0, deadline });
    }

    /// A slice of the way to the end.
    pub(super) fn sweep_drain(&mut self) {
        let now = self.now;
        if self.drain.as_ref().is_some_and(|leaving| leaving.has_begun(now)) {
            self.accepting.hurry();
        }
        if let Some(leaving) = self.drain.as_mut().filter(|leaving| leaving.deaf_at.is_some_and(|at| at <= now)) {
            leaving.deaf_at = None;
            self.stop_accepting();
        }
        let slots = self.table.high();
        for _ in 0..SWEEP_PER_TURN {
            let Some(leaving) = &mut self.drain else { return };
            if leaving.deadline <= now {
                return self.abort_all();
            }
            if leaving.moment(slots) > now {
                return;
            }
            if leaving.slot >= slots {
                (leaving.rounds, leaving.slot) = (leaving.rounds + 1, 0);
                return;
            }
            let (slot, is_late) = (leaving.slot, leaving.rounds > 0);
            leaving.slot += 1;
            self.see_off(slot, End::GoingAway, is_late);
        }
    }

    /// Ends a connection as it is to be ended where that is nobody's fault, so that its client comes back: to another server,
    /// or later. What is being answered is left alone, unless `is_late`.
    pub(super) fn see_off(&mut self, slot: u32, end: End, is_late: bool) {
        let retry = self.between(EVENT_SOURCE_RETRY_MS);
        let Some(entry) = self.table.at(slot) else { return };
        let (serial, phase) = (entry.serial, entry.conn.phase());
        let id = ConnId { worker: self.index, slot, serial };
        match phase {
            Phase::Waiting => return self.poll_over(id),
            Phase::Deciding if !is_late => return,
            _ => {}
        }
        self.handle(slot, serial, |desk| match phase {
            Phase::Idle => desk.entry.conn.end_idle(),
            Phase::Preamble | Phase::Head | Phase::Body | Phase::Deciding => {
                desk.entry.conn.refuse(&Refused::Draining.into(), false, desk.output, &mut desk.glue);
            }
            Phase::Streaming => {
                // Writing to a string cannot fail, and a stream's blocks end in empty lines.
                let mut text = String::new();
                let _ = write!(text, "retry: {retry}\n\n");
                desk.output.extend_from_slice(text.as_bytes());
                desk.entry.conn.settle(Ended::new(end));
                desk.entry.conn.end_stream();
            }
            Phase::Open | Phase::Pinged | Phase::Paced | Phase::Emulated => {
                let Some(state) = &desk.entry.conn.state else { return };
                let (code, reason) = desk.glue.service.farewell(state, end);
                let ended = Ended { end, code, reason: reason.into(), clean: false };
                desk.entry.conn.close(Some(code), ended, desk.output);
            }
            Phase::Waiting
            | Phase::Closing
            | Phase::Finishing
            | Phase::Refusing
            | Phase::Lingering
            | Phase::Resetting => {}
        });
    }

    /// Resets everybody, and ends.
    pub(super) fn abort_all(&mut self) {
        for slot in 0..self.table.high() {
            let Some(entry) = self.table.at(slot) else {
                continue;
            };
            let serial = entry.serial;
            self.handle(slot, serial, |desk| Conn::abort(&mut desk.entry.conn, Ended::new(End::Aborted), desk.output));
        }
        self.aborted = true;
    }
}
