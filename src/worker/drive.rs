//! Drives one connection: its socket's events into the state machine, what the state machine says out of the socket.

use super::glue::Glue;
use super::kernel::{Event, Kernel};
use super::table::Entry;
use super::{SERIAL_BITS, Worker, token};
use crate::config::Rules;
use crate::conn::{Conn, Ended, Opening, Phase};
use crate::error::End;
use crate::http::Response;
use crate::metrics::{Count, Metrics};
use crate::planted::{Bug, planted};
use crate::service::{Close, ConnId, Service};
use crate::time::{Span, Tick};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Reads of one connection in a row, when its end is to be found; bytes are bounded by the scratch.
const READS_PER_TURN: usize = 16;

/// What is put aside before it is sent: connections, and bytes of each. Enough to keep code in the cache, little
/// enough that the first of them waits for a tenth of a millisecond.
const CORKS_MAX: usize = 32;
const CORK_BYTES_MAX: usize = 4096;

/// Output of open connections that is sent in a moment.
#[derive(Debug, Default)]
pub(super) struct Corked {
    bytes: Vec<u8>,
    /// Slot, serial, and where in `bytes` its output ends.
    ends: Vec<(u32, u64, usize)>,
    /// The worker's output while these are sent: nothing is allocated for that.
    spare: Vec<u8>,
}

/// What the timer and the gauges of a connection depend on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stage {
    phase: Phase,
    blocked: bool,
}

fn stage<T>(conn: &Conn<T>) -> Stage {
    Stage { phase: conn.phase(), blocked: conn.queued() > 0 }
}

/// The gauge that counts a connection in that phase.
fn gauge(metrics: &Metrics, phase: Phase) -> &Count {
    match phase {
        Phase::Preamble | Phase::Head | Phase::Idle | Phase::Body | Phase::Deciding => &metrics.opening,
        Phase::Open | Phase::Pinged | Phase::Paced => &metrics.websockets,
        Phase::Emulated => &metrics.emulated,
        Phase::Streaming => &metrics.event_streams,
        Phase::Waiting => &metrics.long_polls,
        Phase::Closing | Phase::Finishing | Phase::Refusing | Phase::Lingering | Phase::Resetting => &metrics.closing,
    }
}

/// A connection laid out together with all that handling it needs.
pub(super) struct Desk<'a, S: Service, K: Kernel> {
    pub(super) entry: &'a mut Entry<S::State, K::Socket>,
    pub(super) glue: Glue<'a, S>,
    pub(super) rules: &'a Rules,
    pub(super) tick: Tick,
    pub(super) scratch: &'a mut [u8],
    pub(super) output: &'a mut Vec<u8>,
}

impl<S: Service, K: Kernel> Desk<'_, S, K> {
    /// A connection is over, which without a WebSocket the service says in its own way.
    fn say_last_words(&mut self) {
        if let Some((state, code, reason)) = self.entry.conn.last_words() {
            self.output.extend(self.glue.service.last_words(state, code, reason));
        }
    }
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// A readiness event of a connection.
    pub(super) fn event(&mut self, event: Event) {
        let slot = (event.token >> SERIAL_BITS) as u32;
        let is_its = |serial| token(slot, serial) == event.token || planted(Bug::SerialIgnored);
        let Some(entry) = self.table.at(slot).filter(|entry| is_its(entry.serial)) else {
            return self.port().metrics.stale_events.add(1);
        };
        let serial = entry.serial;
        // A socket that was never full is told to be writable with every event. Nothing waits for that but what is queued, and
        // what lies behind it.
        let was_full = event.writable && entry.conn.queued() > 0;
        if was_full && !self.write_on(slot, serial) {
            return;
        }
        if was_full && !planted(Bug::WritableIgnored) {
            self.push_all(slot, serial);
        }
        if event.readable || event.read_closed || event.error {
            let ended = event.read_closed || event.error;
            if event.read_closed && planted(Bug::ReadClosedLoses) {
                return self.input_ended(slot, serial);
            }
            self.read(slot, serial, ended, ended);
        }
    }

    /// Reads on where the last turn left off, to the end of what is there.
    pub(super) fn resume(&mut self, slot: u32, serial: u64) {
        if self.table.find(slot, serial).is_some() {
            self.read(slot, serial, true, false);
        }
    }

    /// Reads and handles. One read is enough when it comes back short: what arrives later makes an edge of its own.
    /// With `exhaust` (the event told of an end, or no edge will come) it reads until the kernel has nothing more; `ended`
    /// is the event's word that the peer sends no more.
    pub(super) fn read(&mut self, slot: u32, serial: u64, exhaust: bool, ended: bool) {
        if self.is_throttled(slot) {
            return;
        }
        let mut taken = 0;
        for _ in 0..READS_PER_TURN {
            let before = self.heard(slot);
            let Some(entry) = self.table.find(slot, serial) else {
                return;
            };
            if !entry.conn.wants_input() {
                // Held back until its output is written or its answer is there; then it is resumed. Whoever has gone
                // while somebody decides would not be noticed meanwhile.
                entry.conn.pass_over(ended);
                if ended && entry.conn.is_pointless() {
                    self.remove(slot, false);
                }
                return;
            }
            if entry.conn.has_early() {
                self.handle(slot, serial, |desk| {
                    desk.entry.conn.input(&mut [], desk.tick, desk.rules, desk.output, &mut desk.glue);
                });
                if !self.may_go_on(slot, serial, before) {
                    return;
                }
                continue;
            }
            match self.kernel.recv(&entry.socket, &mut self.scratch) {
                Ok(0) => return self.input_ended(slot, serial),
                Ok(count) => {
                    self.port().metrics.bytes_in.add(count as u64);
                    if !self.taps.is_empty() {
                        self.tap_input(slot, count);
                    }
                    self.handle(slot, serial, |desk| {
                        let input = &mut desk.scratch[..count];
                        desk.entry.conn.input(input, desk.tick, desk.rules, desk.output, &mut desk.glue);
                    });
                    if !self.may_go_on(slot, serial, before) {
                        return;
                    }
                    taken += count;
                    if taken >= self.scratch.len() {
                        return self.ready.push((slot, serial));
                    }
                    if !exhaust || planted(Bug::StopBeforeEagain) {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted && !planted(Bug::EintrIsDead) => {}
                Err(_) if planted(Bug::ResetUnseen) => return,
                Err(error) => return self.lost(slot, End::of(&error)),
            }
        }
        self.ready.push((slot, serial));
    }

    /// Lays a connection out to be handled.
    fn desk(&mut self, slot: u32, serial: u64) -> Option<Desk<'_, S, K>> {
        let unix_seconds = self.unix_ms() / 1000;
        let entry = self.table.find(slot, serial)?;
        let topic = entry.subscription().map(|subscription| self.topics.name(subscription.topic()));
        let glue = Glue {
            service: &mut self.service,
            metrics: &self.shared.ports[usize::from(self.index)].metrics,
            log: &mut self.log,
            draining: self.drain.as_ref().is_some_and(|leaving| leaving.has_begun(self.now)),
            sources: self.shared.sources.as_deref(),
            hops: &mut self.hops,
            recent: &mut self.recent,
            origins: &self.origins,
            date: &self.date,
            asked: &mut self.asked,
            wishes: &mut self.wishes,
            topic,
            rules: &self.rules,
            id: ConnId { worker: self.index, slot, serial },
            now: self.now,
            unix_seconds,
        };
        let (scratch, output) = (&mut *self.scratch, &mut self.output);
        Some(Desk { entry, glue, rules: &self.rules, tick: self.now.tick(), scratch, output })
    }

    /// Does something with a connection, and then what follows from it. A panic of the service ends the connection.
    pub(super) fn handle(&mut self, slot: u32, serial: u64, act: impl FnOnce(&mut Desk<'_, S, K>)) {
        let Some(mut desk) = self.desk(slot, serial) else {
            return;
        };
        let before = stage(&desk.entry.conn);
        let mut corkable = before.phase.is_open() && !before.blocked;
        // The state machine is put right by `panicked`; the service has been told what a panic means.
        if catch_unwind(AssertUnwindSafe(|| act(&mut desk))).is_err() {
            desk.glue.metrics.panics.add(1);
            if desk.glue.log.allows(desk.glue.now, "panic") {
                log::error!(id:% = desk.glue.id, peer:% = desk.entry.conn.peer(), reason = "panic"; "the service panicked at a connection: closed");
            }
            desk.entry.conn.panicked(desk.output, desk.glue.date);
        }
        if before.phase != Phase::Refusing && desk.entry.conn.phase() == Phase::Refusing {
            desk.say_last_words();
        }
        corkable &= stage(&desk.entry.conn) == before && desk.output.len() <= CORK_BYTES_MAX;
        if corkable {
            self.cork(slot, serial);
        } else {
            self.take_back(slot, serial);
            self.uncork();
            self.settle(slot, serial, before);
        }
        if let Some(asked) = self.asked.take() {
            self.ask(asked);
        }
        self.grant_wishes();
    }

    /// Does what services want. An answer that is here at once comes through [`handle`](Self::handle) again, from within
    /// `grant`: what follows from it is left to the call that is at the wishes, since a client may want thousands of things in
    /// one read, and the stack has an end. While a subscription begins nothing is done: first it must be known how far its
    /// client is.
    pub(super) fn grant_wishes(&mut self) {
        if self.beginning || std::mem::replace(&mut self.granting, true) {
            return;
        }
        while let Some((id, wish)) = self.wishes.pop_front() {
            self.grant(id, wish);
        }
        self.granting = false;
    }

    /// Puts what an open connection says aside for a moment: the sends of several connections in a row find the
    /// kernel's code for sending in the cache, as the receives before them found that for receiving.
    fn cork(&mut self, slot: u32, serial: u64) {
        if self.output.is_empty() {
            return;
        }
        self.corked.bytes.append(&mut self.output);
        let end = self.corked.bytes.len();
        match self.corked.ends.last_mut() {
            Some(last) if (last.0, last.1) == (slot, serial) => last.2 = end,
            _ => self.corked.ends.push((slot, serial, end)),
        }
        if self.corked.ends.len() == CORKS_MAX {
            self.uncork();
        }
    }

    /// Puts what was put aside of a connection in front of what it says now. Were the two sent apart, the first could find
    /// that the peer is gone, and the second would be nobody's.
    fn take_back(&mut self, slot: u32, serial: u64) {
        let Corked { bytes, ends, .. } = &mut self.corked;
        let (mut own, mut start) = (Vec::new(), 0);
        for end in ends {
            if (end.0, end.1) == (slot, serial) {
                own.extend_from_slice(&bytes[start..end.2]);
                end.1 = u64::MAX; // no connection's
            }
            start = end.2;
        }
        if !own.is_empty() {
            own.append(&mut self.output);
            self.output = own;
        }
    }

    pub(super) fn has_nothing_corked(&self) -> bool {
        self.corked.ends.is_empty()
    }

    /// Sends what was put aside. Whoever is found to be gone by that is removed, and with it its places in topics.
    pub(super) fn uncork(&mut self) {
        if self.corked.ends.is_empty() {
            return;
        }
        let mut corked = std::mem::take(&mut self.corked);
        // What the connection under way says is its own.
        let own = std::mem::replace(&mut self.output, std::mem::take(&mut corked.spare));
        let mut start = 0;
        for &(slot, serial, end) in &corked.ends {
            if let Some(entry) = self.table.find(slot, serial) {
                let before = stage(&entry.conn);
                self.output.extend_from_slice(&corked.bytes[start..end]);
                self.settle(slot, serial, before);
                assert!(self.output.is_empty(), "what was said to one connection must not reach the next");
            }
            start = end;
        }
        corked.spare = std::mem::replace(&mut self.output, own);
        corked.ends.clear();
        corked.bytes.clear();
        self.corked = corked;
    }

    /// Sends what was collected, and follows the state machine to where it went.
    fn settle(&mut self, slot: u32, serial: u64, before: Stage) {
        let flushed = self.flush(slot, serial);
        if !planted(Bug::SentBehindClose) {
            self.leave_if_over(slot);
        }
        let metrics = &self.shared.ports[usize::from(self.index)].metrics;
        let Some(entry) = self.table.find(slot, serial) else {
            return;
        };
        let mut after = stage(&entry.conn);
        if !after.blocked && entry.conn.has_early() && !planted(Bug::EarlyForgotten) {
            self.ready.push((slot, entry.serial));
        }
        if after == before && flushed.is_ok() {
            return;
        }
        gauge(metrics, before.phase).sub(1);
        gauge(metrics, after.phase).add(1);
        metrics.slow.sub(u64::from(before.blocked));
        metrics.slow.add(u64::from(after.blocked));
        // No other request comes that might name another client.
        if !self.hops.is_empty() && (after.phase.is_open() || after.phase == Phase::Streaming) {
            self.hops.remove(&slot);
        }
        if let Err(end) = flushed {
            return self.lost(slot, end);
        }
        match after.phase {
            Phase::Resetting => return self.remove(slot, true),
            Phase::Finishing if !after.blocked => return self.remove(slot, false),
            Phase::Refusing if !after.blocked => {
                let _ = self.kernel.shutdown_write(&entry.socket); // fails when the peer is gone, as the next read will tell
                entry.conn.linger();
                after = stage(&entry.conn);
                self.ready.push((slot, serial));
            }
            Phase::Pinged => metrics.pings.add(u64::from(before.phase != Phase::Pinged)),
            Phase::Open if !before.phase.is_open() => entry.conn.stagger(&self.rules, &mut self.rng),
            _ => {}
        }
        let deadline = entry.conn.deadline(self.now.tick(), &self.rules);
        self.wheel.arm(&mut self.table, slot, deadline);
        debug_assert!(after.phase != Phase::Refusing || after.blocked);
    }

    /// Writes the collected output, or queues it behind what waits already. An error: the socket is dead.
    fn flush(&mut self, slot: u32, serial: u64) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        if !self.taps.is_empty() {
            self.tap_output(slot, serial);
        }
        let Some(entry) = self.table.find(slot, serial) else {
            self.output.clear(); // what is for somebody who is gone is for nobody
            return Ok(());
        };
        let tick = self.now.tick();
        let metrics = &self.shared.ports[usize::from(self.index)].metrics;
        if entry.conn.queued() > 0 {
            metrics.queued_bytes.add(self.output.len() as u64);
            entry.conn.keep(&mut self.output, 0, tick);
            return Ok(());
        }
        let sent = loop {
            match self.kernel.send(&entry.socket, &self.output) {
                Ok(sent) => break sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    break if planted(Bug::EagainIsSent) { self.output.len() } else { 0 };
                }
                // Nothing is full, so no edge would follow.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if !planted(Bug::OutputLeft) {
                        self.output.clear();
                    }
                    return Err(End::of(&error));
                }
            }
        };
        metrics.bytes_out.add(sent as u64);
        if sent < self.output.len() && !planted(Bug::PartialDropped) {
            entry.conn.keep(&mut self.output, if planted(Bug::PartialRepeated) { 0 } else { sent }, tick);
            metrics.queued_bytes.add(entry.conn.queued() as u64);
        } else {
            self.output.clear();
        }
        Ok(())
    }

    /// The socket takes more: writes what waits. `false`: the connection is gone.
    fn write_on(&mut self, slot: u32, serial: u64) -> bool {
        let tick = self.now.tick();
        loop {
            let Some(entry) = self.table.find(slot, serial) else {
                return false;
            };
            let before = stage(&entry.conn);
            let Some(pending) = entry.conn.pending(&mut self.scratch) else {
                return true;
            };
            let (length, held_back) = (pending.len(), !entry.conn.wants_input());
            match self.kernel.send(&entry.socket, pending) {
                Ok(sent) => {
                    let metrics = &self.shared.ports[usize::from(self.index)].metrics;
                    metrics.bytes_out.add(sent as u64);
                    metrics.queued_bytes.sub(sent as u64);
                    entry.conn.wrote(sent, tick, &mut self.output);
                    if held_back && entry.conn.wants_input() {
                        self.ready.push((slot, serial));
                    }
                    self.settle(slot, serial, before);
                    if sent < length {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.lost(slot, End::of(&error));
                    return false;
                }
            }
        }
    }

    /// The peer will send no more.
    fn input_ended(&mut self, slot: u32, serial: u64) {
        self.uncork(); // it may have half-closed behind a question, and read the answer
        let Some(entry) = self.table.find(slot, serial) else {
            return;
        };
        let before = stage(&entry.conn);
        if !entry.conn.end_of_input() {
            return self.lost(slot, End::PeerGone);
        }
        self.settle(slot, serial, before);
    }

    /// The connection is gone without a word, unless how it ended was settled before.
    pub(super) fn lost(&mut self, slot: u32, end: End) {
        if let Some(entry) = self.table.at(slot) {
            entry.conn.settle(Ended::new(end));
            self.remove(slot, false);
        }
    }

    /// Frees a connection: its timer, its slot, its place, its socket; the service is told if it had it open.
    pub(super) fn remove(&mut self, slot: u32, reset: bool) {
        if !planted(Bug::TimerStays) {
            self.wheel.cancel(&mut self.table, slot);
        }
        let parting = self.parting(slot);
        self.leave_all(slot);
        self.throttle.forget(slot);
        self.expiries.forget(slot);
        let mut entry = self.table.remove(slot);
        if entry.counts() && !planted(Bug::PlaceKept) {
            self.shared.leave();
        }
        if entry.counts() && planted(Bug::PlaceGivenTwice) {
            self.shared.leave();
        }
        if !self.hops.is_empty() {
            self.hops.remove(&slot);
        }
        let ended = entry.conn.ended();
        self.note_removal(slot, &entry, ended.as_ref(), parting);
        let metrics = &self.shared.ports[usize::from(self.index)].metrics;
        gauge(metrics, entry.conn.phase()).sub(1);
        let queued = entry.conn.queued() as u64;
        metrics.slow.sub(u64::from(queued > 0));
        metrics.queued_bytes.sub(queued);
        metrics.context_bytes.sub(entry.conn.context_bytes() as u64);
        if let Some(state) = entry.conn.state.take() {
            let Ended { end, code, reason, clean } = ended.unwrap_or_else(|| Ended::new(End::PeerGone));
            metrics.ended.count(end as usize);
            metrics.closes.count(code, end.is_by_client());
            let id = ConnId { worker: self.index, slot, serial: entry.serial };
            let close = Close { end, code, reason: &reason, clean, peer: entry.conn.peer() };
            let age = self.now.since(self.ages.since(entry.serial, self.now));
            log::debug!(
                id:%, peer:% = close.peer, reason = end.word(), code, text = &*reason, age_s = age.as_secs();
                "closed"
            );
            let service = &mut self.service;
            if catch_unwind(AssertUnwindSafe(|| service.close(id, state, &close))).is_err() {
                metrics.panics.add(1);
                log::error!(id:%, reason = "panic"; "the service panicked at the close of a connection");
            }
        }
        if reset {
            self.kernel.reset(entry.socket);
        }
    }

    /// The timer of a slot fired.
    pub(super) fn fire(&mut self, slot: u32) {
        let Some(entry) = self.table.at(slot) else {
            return;
        };
        if entry.conn.phase() == Phase::Waiting && entry.conn.queued() == 0 {
            let id = ConnId { worker: self.index, slot, serial: entry.serial };
            return self.poll_over(id);
        }
        let (serial, mut again) = (entry.serial, None);
        self.handle(slot, serial, |desk| {
            again = desk.entry.conn.timer(desk.tick, desk.rules, desk.output, &mut desk.glue);
        });
        // What it said may have found that the peer is gone.
        if let Some(deadline) = again.filter(|_| self.table.find(slot, serial).is_some()) {
            self.wheel.arm(&mut self.table, slot, deadline);
        }
    }

    /// The service wants to be called about a connection.
    pub(super) fn wake_after(&mut self, id: ConnId, time: Duration) {
        self.uncork(); // what it says now goes by the timer of before
        let tick = self.now.tick();
        let Some(entry) = self.table.find(id.slot, id.serial) else { return };
        entry.conn.pace(tick + Span::covering(time));
        let deadline = entry.conn.deadline(tick, &self.rules);
        if matches!(entry.conn.phase(), Phase::Paced | Phase::Emulated) {
            self.wheel.arm(&mut self.table, id.slot, deadline);
        }
    }

    /// Does something with an open connection, if it is still the one that is meant.
    pub(super) fn on_open(&mut self, id: ConnId, act: impl FnOnce(&mut Conn<S::State>, &mut Vec<u8>)) {
        self.handle(id.slot, id.serial, |desk| act(&mut desk.entry.conn, desk.output));
    }

    /// A frame from another thread. A client for which too much waits is closed rather than left out.
    pub(super) fn send_frame(&mut self, id: ConnId, frame: &[u8]) {
        let metrics = Arc::clone(&self.shared);
        let (queue_bytes_max, compression) = (self.rules.queue_bytes_max, self.rules.compression);
        self.on_open(id, |conn, output| {
            if !conn.phase().is_open() || conn.phase() == Phase::Emulated {
                return; // there is no place for a frame
            }
            if conn.queued() + output.len() + frame.len() > queue_bytes_max {
                return conn.abort(Ended::new(End::SlowReader), output);
            }
            conn.frame(frame, compression.as_ref(), output);
            metrics.ports[usize::from(id.worker)].metrics.frames_out.add(1);
        });
    }

    /// The verdict on an upgrade request.
    pub(super) fn answer(&mut self, id: ConnId, verdict: Result<Opening<S::State>, Response>) {
        self.handle(id.slot, id.serial, |desk| {
            let waiting = desk.entry.conn.answer(verdict, desk.tick, desk.rules, desk.output, &mut desk.glue);
            if !waiting {
                log::debug!("connection {id} did not wait for a decision (any more)");
            }
        });
        self.read_again(id);
    }

    /// Has a connection that waited read again, if there was something to read meanwhile: that edge is gone.
    pub(super) fn read_again(&mut self, id: ConnId) {
        let was_passed_over = self.table.find(id.slot, id.serial).is_some_and(|entry| entry.conn.was_passed_over());
        if was_passed_over && !planted(Bug::UnreadForgotten) {
            self.ready.push((id.slot, id.serial));
        }
    }
}
