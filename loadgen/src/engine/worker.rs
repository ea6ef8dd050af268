//! The loop of one worker.

use super::gauge::Farewell;
use super::input::{input, tell_cursor};
use super::net::{Net, Read};
use super::stage::{Note, Outcome, Seat, Shared, Stage};
use super::table::{Conn, Phase};
use super::{Gone, Mode};
use crate::cli::Transport;
use crate::clock::{Nanos, Pace};
use crate::reason::{Failure, Loss};
use mio::event::Event as Readiness;
use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use throng::sys::Alarm;

/// The alarm's and the wake's places among the tokens, which are slots otherwise.
const ALARM: Token = Token(usize::MAX - 1);
const WAKE: Token = Token(usize::MAX - 2);

/// Events taken from the kernel at a time: 12 bytes each, in every worker.
const EVENTS_PER_TURN: usize = 512;
/// What one recv(2) may bring, in bytes. Pages are touched as they are used.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Handshakes begun, and closings begun, before the loop looks at its sockets again.
const OPENS_PER_TURN: u32 = 128;
const CLOSES_PER_TURN: u32 = 64;
/// When no more than this many closings of a worker are under way, and none is to begin, the next worker may begin.
const CLOSING_TAIL: u64 = 512;

struct Worker<M: Mode> {
    net: Net<M::State>,
    mode: M,
    index: usize,
    shared: Arc<Shared>,
    notes: Sender<Note>,
    scratch: Vec<u8>,
    alarm: Alarm,
    stage: Stage,
    /// How fast it opens, once it may.
    pace: Option<Pace>,
    /// It has told about its connections being opened, or about nothing being under way.
    told: Option<Note>,
    /// Taken before closing begins.
    report: Option<M::Report>,
    /// Next slot to be closed.
    close_at: u32,
    /// The next worker has been let close its connections.
    has_let_close: bool,
}

/// Runs one worker to its end, on the calling thread, which has a descriptor table of its own by now.
pub(crate) fn run<M: Mode>(seat: Seat, mode: M) -> io::Result<Outcome<M::Report>> {
    let Seat { index, share, capacity, pending_max, line, gauge, shared, notes, seed } = seat;
    let mut net = Net::new(line, gauge, capacity, shared.clock, seed)?;
    net.to_open = share;
    net.pending_max = pending_max;
    let alarm = Alarm::new()?;
    let registry = net.poll.registry();
    registry.register(&mut SourceFd(&alarm.as_raw_fd()), ALARM, Interest::READABLE)?;
    registry.register(&mut SourceFd(&shared.wakes[index].as_raw_fd()), WAKE, Interest::READABLE)?;
    let mut worker = Worker {
        net,
        mode,
        index,
        shared,
        notes,
        scratch: vec![0; SCRATCH_BYTES],
        alarm,
        stage: Stage::Opening,
        pace: None,
        told: None,
        report: None,
        close_at: 0,
        has_let_close: false,
    };
    worker.run()
}

impl<M: Mode> Worker<M> {
    fn run(&mut self) -> io::Result<Outcome<M::Report>> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut next = Some(Nanos(0));
        loop {
            self.wait(&mut events, next)?;
            for event in &events {
                if event.token() != WAKE && event.token() != ALARM {
                    self.ready(event.token().0 as u32, event);
                }
            }
            self.follow_stage();
            let mode_next = self.mode.turn(&mut self.net);
            while let Some((slot, budget)) = self.net.to_read.pop() {
                self.read(slot, budget == usize::MAX, budget);
            }
            self.pass_deadlines();
            next = earliest(mode_next, self.open_connections());
            next = earliest(next, self.close_connections());
            // Last: what was just begun has deadlines too.
            next = earliest(next, self.net.next_deadline());
            self.tell();
            if self.stage == Stage::Closing && self.net.table.len() == 0 {
                break;
            }
        }
        let report = self.report.take().unwrap_or_else(|| self.mode.report(&mut self.net));
        let table_bytes = self.net.bytes();
        Ok(Outcome { tallies: std::mem::take(&mut self.net.tallies), report, table_bytes })
    }

    /// Sleeps until something is ready or `next` has come. The poller counts in milliseconds, rounded up; where
    /// that would be late, the alarm wakes it.
    fn wait(&mut self, events: &mut Events, next: Option<Nanos>) -> io::Result<()> {
        let left = next.map(|next| next.since(self.net.clock.now()));
        let timeout = match left {
            Some(left) if left.is_zero() => Some(Duration::ZERO),
            Some(left) => {
                self.alarm.set(left)?;
                None
            }
            None => None,
        };
        match self.net.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.net.now = self.net.clock.now();
        Ok(())
    }

    /// A socket has something.
    fn ready(&mut self, slot: u32, event: &Readiness) {
        // A short read proves that nothing is left, unless the end of the stream is there too, which
        // brings no further event.
        let to_the_end = event.is_read_closed() || event.is_error();
        match self.net.table[slot].phase {
            Phase::Free => return, // it ended earlier in this turn
            Phase::Connecting => {
                if let Err(failure) = self.net.connected(slot) {
                    let (state, gone) = self.net.fail(slot, failure);
                    return self.mode.gone(&mut self.net, slot, state, gone);
                }
                if self.net.table[slot].phase == Phase::Connecting {
                    return;
                }
            }
            _ if event.is_writable() => self.net.flush(slot),
            _ => {}
        }
        // A paused one is only read when it is over.
        if to_the_end || event.is_readable() && !self.net.table[slot].is_paused {
            self.read(slot, to_the_end, usize::MAX);
        }
    }

    /// Reads up to `budget` bytes, or what is there.
    fn read(&mut self, slot: u32, to_the_end: bool, mut budget: usize) {
        loop {
            self.net.now = self.net.clock.now();
            let length = self.scratch.len().min(budget);
            let count = match self.net.recv(slot, &mut self.scratch[..length]) {
                Ok(Read::Bytes(count @ 1..)) => count,
                Ok(Read::Bytes(_)) => return self.ended(slot, None),
                Ok(Read::Nothing | Read::Gone) => return,
                Err(error) => return self.ended(slot, Some(&error)),
            };
            let mut at = 0;
            // A poll's first answer is one like all others.
            if self.net.table[slot].phase == Phase::Waiting && self.net.line.transport(slot) != Transport::Poll {
                match self.net.answered(slot, &self.scratch[..count]) {
                    Ok(None) => at = count,
                    Ok(Some(start)) => {
                        at = start;
                        if self.net.table[slot].phase == Phase::Open {
                            self.mode.opened(&mut self.net, slot);
                            let cursor = std::mem::take(&mut self.net.cursor);
                            tell_cursor(&mut self.net, &mut self.mode, slot, &cursor);
                            self.net.cursor = cursor;
                        }
                    }
                    Err(failure) => {
                        let (state, gone) = self.net.fail(slot, failure);
                        return self.mode.gone(&mut self.net, slot, state, gone);
                    }
                }
            }
            if at < count && !input(&mut self.net, &mut self.mode, slot, &mut self.scratch[at..count]) {
                return;
            }
            budget -= count;
            if count < length && !to_the_end || budget == 0 {
                return;
            }
        }
    }

    /// The stream is over, in order or by an error.
    fn ended(&mut self, slot: u32, error: Option<&io::Error>) {
        let net = &mut self.net;
        let (state, gone) = match net.table[slot].phase {
            Phase::Free => return,
            Phase::Connecting | Phase::Waiting | Phase::Joining => {
                net.fail(slot, error.map_or(Failure::ClosedEarly, Failure::of))
            }
            Phase::Open => {
                let loss = error.map_or(Loss::Eof, Loss::of);
                net.lose(slot, loss)
            }
            Phase::Closing => net.part(slot, if error.is_none() { Farewell::Unanswered } else { Farewell::Reset }),
            Phase::Closed => net.part(slot, Farewell::Answered),
        };
        self.mode.gone(&mut self.net, slot, state, gone);
    }

    fn follow_stage(&mut self) {
        let stage = self.shared.stage();
        while self.stage < stage {
            self.told = None;
            self.stage = match self.stage {
                Stage::Opening => {
                    self.net.began = self.shared.began();
                    if stage == Stage::Running {
                        self.mode.start(&mut self.net);
                    } else {
                        self.net.to_open = 0; // cut short: what was not tried is not tried any more
                    }
                    Stage::Running
                }
                Stage::Running => {
                    self.mode.stop(&mut self.net);
                    Stage::Draining
                }
                Stage::Draining | Stage::Closing => {
                    self.report = Some(self.mode.report(&mut self.net));
                    self.net.to_open = 0;
                    Stage::Closing
                }
            };
        }
    }

    fn pass_deadlines(&mut self) {
        let Self { net, mode, stage, shared, .. } = self;
        while let Some(slot) = {
            let table = &net.table;
            net.opening_deadlines.expired(net.now, |slot, stamp| {
                let Conn { phase, stamp: begun, .. } = table[slot];
                matches!(phase, Phase::Connecting | Phase::Waiting | Phase::Joining) && begun == stamp
            })
        } {
            let failure = match net.table[slot].phase {
                Phase::Connecting => Failure::ConnectTimeout,
                Phase::Joining => Failure::JoinTimeout,
                _ => Failure::HandshakeTimeout,
            };
            let (state, gone) = net.fail(slot, failure);
            mode.gone(net, slot, state, gone);
        }
        while let Some(slot) = {
            let table = &net.table;
            net.closing_deadlines.expired(net.now, |slot, stamp| {
                let Conn { phase, stamp: begun, .. } = table[slot];
                matches!(phase, Phase::Closing | Phase::Closed) && begun == stamp
            })
        } {
            let (state, gone) = net.part(slot, Farewell::TimedOut);
            mode.gone(net, slot, state, gone);
            if *stage == Stage::Closing {
                shared.note_stuck();
            }
        }
    }

    /// Opens what is due; says when to come back.
    fn open_connections(&mut self) -> Option<Nanos> {
        if self.net.to_open == 0 || self.stage == Stage::Closing {
            return None;
        }
        let shared = &self.shared;
        if self.stage == Stage::Opening && !shared.may_open(self.index) {
            return None; // a wake will come
        }
        let now = self.net.now;
        if shared.open_rate > 0.0 && self.stage == Stage::Opening && self.pace.is_none() {
            self.pace = Some(Pace::new(now, shared.open_rate));
        }
        for _ in 0..OPENS_PER_TURN {
            if self.net.to_open == 0 || !self.net.may_open() {
                return None; // an answer will come, or a deadline
            }
            if let Some(pace) = self.pace.as_mut().filter(|_| self.stage == Stage::Opening) {
                let due = pace.due();
                if pace.take(now).is_none() {
                    return Some(due);
                }
            }
            self.net.to_open -= 1;
            if let Err((failure, state)) = self.net.open(M::State::default()) {
                self.mode.gone(&mut self.net, u32::MAX, state, Gone::Failed(failure));
            }
        }
        Some(now)
    }

    /// Closes what is left, a slice at a time; says when to come back.
    fn close_connections(&mut self) -> Option<Nanos> {
        if self.stage != Stage::Closing || !self.shared.may_close(self.index) && !self.shared.is_stuck() {
            return None; // a wake will come
        }
        let by_reset = self.shared.end_by_reset || self.shared.is_stuck();
        let end = self.net.table.slots().min(self.close_at + CLOSES_PER_TURN);
        for slot in self.close_at..end {
            match self.net.table[slot].phase {
                Phase::Open if !by_reset => self.net.close(slot),
                Phase::Closing | Phase::Closed if !by_reset => {}
                _ => {
                    self.net.reset(slot);
                }
            }
        }
        self.close_at = end;
        if end < self.net.table.slots() {
            return Some(self.net.now);
        }
        if !self.has_let_close && self.net.closing <= CLOSING_TAIL {
            self.has_let_close = true;
            self.shared.let_next_close();
        }
        None // an answer will come, or a deadline
    }

    /// Tells the main thread, once a stage, that this worker has come to its end.
    fn tell(&mut self) {
        let note = match self.stage {
            Stage::Opening if self.net.to_open == 0 && self.net.pending == 0 => Note::Opened,
            Stage::Running if self.mode.is_done(&self.net) => Note::Done,
            Stage::Draining if self.mode.is_drained(&self.net) => Note::Drained,
            _ => return,
        };
        if self.told != Some(note) {
            self.told = Some(note);
            if note == Note::Opened {
                self.shared.let_next_open();
            }
            // The main thread outlives the workers; were it gone, nobody would be left to tell.
            let _ = self.notes.send(note);
        }
    }
}

/// Whoever ends before its time, by an error, lets the next one go on all the same.
impl<M: Mode> Drop for Worker<M> {
    fn drop(&mut self) {
        if self.stage == Stage::Opening && self.told.is_none() {
            self.shared.let_next_open();
        }
        if !self.has_let_close {
            self.shared.let_next_close();
        }
    }
}

fn earliest(one: Option<Nanos>, other: Option<Nanos>) -> Option<Nanos> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
