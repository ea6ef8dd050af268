//! The sockets of one worker: opening, sending, closing, and the accounts of all three.

use super::Gone;
use super::dial::Line;
use super::gauge::{Farewell, Gauge, Tally};
use super::table::{Deadlines, Phase, Rare, Table};
use crate::centrifugo::{Format, Join};
use crate::cli::Transport;
use crate::clock::{Clock, Nanos};
use crate::handshake::{Answer, judge, judge_events};
use crate::reason::{Failure, Loss};
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use throng::client::EventStream;
use throng::mem::{Outbox, Rng};
use throng::sys::Socket;
use throng::ws::{Opcode, encode_masked};

/// Close code of an ordinary end (RFC 6455, section 7.4.1).
const NORMAL: u16 = 1000;

/// All that a mode may use.
#[derive(Debug)]
pub(crate) struct Net<S> {
    pub(crate) poll: Poll,
    pub(crate) table: Table<S>,
    pub(crate) line: Line,
    pub(crate) gauge: Arc<Gauge>,
    /// One for each transport, as they were dealt.
    pub(crate) tallies: Vec<Tally>,
    pub(crate) rng: Rng,
    pub(crate) clock: Clock,
    /// The moment of this turn; read again before each connection that is read.
    pub(crate) now: Nanos,
    /// When the measured part began, for all workers alike.
    pub(crate) began: Nanos,
    /// Connections that the worker is to open as soon as it may.
    pub(crate) to_open: u64,
    /// Handshakes under way, and how many there may be.
    pub(crate) pending: u64,
    pub(crate) pending_max: u64,
    /// Closings under way.
    pub(crate) closing: u64,
    /// Paused connections to be read after the mode's turn, and how many bytes of each.
    pub(crate) to_read: Vec<(u32, usize)>,
    pub(super) opening_deadlines: Deadlines,
    pub(super) closing_deadlines: Deadlines,
    /// What the connection that opened last was told about where it stands.
    pub(super) cursor: Vec<u8>,
    /// Serves connections that are between two events.
    pub(super) spare_stream: Option<Box<EventStream>>,
    /// Commands that are about to be put in a frame.
    commands: Vec<u8>,
    /// What is about to be written.
    out: Vec<u8>,
}

/// What became of an attempt to read.
pub(super) enum Read {
    Bytes(usize),
    Nothing,
    Gone,
}

impl<S: Default> Net<S> {
    pub(super) fn new(line: Line, gauge: Arc<Gauge>, capacity: usize, clock: Clock, seed: u64) -> io::Result<Self> {
        let (open_timeout, close_timeout) = (line.dial.open_timeout, line.dial.close_timeout);
        let tallies = line.dial.transports.iter().map(|_| Tally::default()).collect();
        Ok(Self {
            poll: Poll::new()?,
            table: Table::with_capacity(capacity),
            line,
            gauge,
            tallies,
            rng: Rng::new(seed),
            clock,
            now: clock.now(),
            began: Nanos(0),
            to_open: 0,
            pending: 0,
            pending_max: u64::MAX,
            closing: 0,
            to_read: Vec::new(),
            opening_deadlines: Deadlines::new(open_timeout),
            closing_deadlines: Deadlines::new(close_timeout),
            cursor: Vec::new(),
            spare_stream: None,
            commands: Vec::new(),
            out: Vec::with_capacity(1024),
        })
    }

    /// Whether another handshake may begin now.
    pub(crate) fn may_open(&self) -> bool {
        self.pending < self.pending_max
    }

    /// Begins a handshake. When that fails at once, it is counted, and why and the state come back.
    pub(crate) fn open(&mut self, state: S) -> Result<u32, (Failure, S)> {
        let slot = self.table.claim();
        self.open_in(slot, state, b"")
    }

    /// Begins a handshake in a slot that is free, on behalf of whoever had it before, to go on from a cursor.
    pub(crate) fn open_again(&mut self, slot: u32, state: S, cursor: &[u8]) -> Result<u32, (Failure, S)> {
        let slot = self.table.claim_again(slot).then_some(slot);
        self.open_in(slot, state, cursor)
    }

    fn open_in(&mut self, slot: Option<u32>, state: S, cursor: &[u8]) -> Result<u32, (Failure, S)> {
        self.gauge.attempted.add(1);
        let Some(slot) = slot else {
            self.count_failure(0, Failure::NoDescriptor);
            return Err((Failure::NoDescriptor, state));
        };
        self.now = self.clock.now();
        match self.call(slot, cursor) {
            Ok(()) => {
                self.table[slot].state = state;
                self.pending += 1;
                self.opening_deadlines.push(slot, self.table[slot].stamp);
                Ok(slot)
            }
            Err(error) => {
                self.table.release(slot);
                let failure = Failure::of(&error);
                self.count_failure(self.line.part(slot), failure);
                Err((failure, state))
            }
        }
    }

    /// Connects and, which mostly works at once on loopback, sends the request: five system calls with the
    /// registration, and no event until the answer is there.
    fn call(&mut self, slot: u32, cursor: &[u8]) -> io::Result<()> {
        let dial = &self.line.dial;
        let socket = Socket::connect(self.line.source(slot), &dial.target, dial.options)?;
        let key = self.line.request(slot, cursor, &mut self.out);
        let phase = match socket.send(&self.out) {
            Ok(sent) if sent == self.out.len() => Phase::Waiting,
            Ok(_) => return Err(io::Error::other("a new socket took half a request")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Phase::Connecting,
            Err(error) => return Err(error),
        };
        let connecting = phase == Phase::Connecting;
        let interest = if connecting { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(slot as usize), interest)?;
        let conn = &mut self.table[slot];
        if connecting {
            conn.rare.get_or_insert_default().outbox.keep(&mut self.out, 0);
        }
        // The request has no place for it; the commands do.
        if !cursor.is_empty() && self.line.transport(slot).centrifugo().is_some() {
            conn.rare.get_or_insert_default().cursor = cursor.to_vec();
        }
        conn.socket = Some(socket);
        (conn.phase, conn.key, conn.watched_for_writing) = (phase, key, connecting);
        conn.stamp = self.now.stamp();
        Ok(())
    }

    /// connect(2) has come to an end: sends the request, or says why not.
    pub(super) fn connected(&mut self, slot: u32) -> Result<(), Failure> {
        let conn = &mut self.table[slot];
        let (Some(socket), Some(rare)) = (&conn.socket, &mut conn.rare) else { return Ok(()) };
        if let Some(error) = socket.take_error().unwrap_or_else(Some) {
            return Err(Failure::of(&error));
        }
        match socket.send(rare.outbox.pending()) {
            Ok(_) => {
                rare.outbox = Outbox::default();
                conn.phase = Phase::Waiting;
                self.drop_rare(slot);
                Ok(())
            }
            // Not through yet after all: another event will come.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    /// Judges what has come of the answer. `Some`: it is open, or a WebSocket over which Centrifugo's commands have been
    /// sent, and where in `bytes` frames begin.
    pub(super) fn answered(&mut self, slot: u32, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let conn = &mut self.table[slot];
        let dial = &self.line.dial;
        let accept = &dial.keys[usize::from(conn.key)].accept;
        let before = match &mut conn.rare {
            None => 0,
            Some(rare) => {
                rare.head.extend_from_slice(bytes);
                rare.head.len() - bytes.len()
            }
        };
        let head = conn.rare.as_ref().map_or(bytes, |rare| &rare.head);
        let transport = self.line.transport(slot);
        let answer = match transport {
            Transport::Sse => judge_events(head),
            _ => judge(head, accept, self.line.offer(transport)),
        };
        match answer {
            Answer::Failed(failure) => Err(failure),
            Answer::Partial => {
                let rare = conn.rare.get_or_insert_default();
                if rare.head.is_empty() {
                    rare.head.extend_from_slice(bytes);
                }
                Ok(None)
            }
            Answer::Open(length, cursor) => {
                cursor.clone_into(&mut self.cursor);
                if let Some(rare) = &mut conn.rare {
                    rare.head = Vec::new();
                }
                self.drop_rare(slot);
                match transport.centrifugo() {
                    Some(format) => self.join(slot, format),
                    None => self.opened(slot),
                }
                Ok(Some(length - before))
            }
        }
    }

    /// Sends Centrifugo's commands over a new WebSocket.
    fn join(&mut self, slot: u32, format: Format) {
        let conn = &mut self.table[slot];
        conn.phase = Phase::Joining;
        let cursor = conn.rare.as_ref().map_or(&[][..], |rare| &rare.cursor);
        let line = &self.line;
        let join = Join { token: &line.dial.token, channel: line.channel(slot), returns: line.returns(slot), cursor };
        let mut commands = std::mem::take(&mut self.commands);
        join.write(&mut commands, format);
        self.send_frame(slot, format.opcode(), &commands);
        self.commands = commands;
    }

    /// Accounts for a connection that is open now.
    pub(super) fn opened(&mut self, slot: u32) {
        let conn = &mut self.table[slot];
        debug_assert!(matches!(conn.phase, Phase::Waiting | Phase::Joining));
        conn.phase = Phase::Open;
        let took_us = conn.stamp.age_us(self.now);
        self.tallies[self.line.part(slot)].handshake_us.saturating_record(u64::from(took_us));
        self.pending -= 1;
        self.gauge.opened.add(1);
    }

    /// Reads what is there.
    #[inline]
    pub(super) fn recv(&mut self, slot: u32, scratch: &mut [u8]) -> Result<Read, io::Error> {
        let Some(socket) = &self.table[slot].socket else { return Ok(Read::Gone) };
        loop {
            return match socket.recv(scratch) {
                Ok(count) => Ok(Read::Bytes(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Read::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Sends a message. An error is not reported here: the same one comes as an event of the socket.
    pub(crate) fn send(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) {
        debug_assert_eq!(self.table[slot].phase, Phase::Open);
        self.gauge.sent.add(1);
        self.send_frame(slot, opcode, payload);
    }

    pub(super) fn send_frame(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) {
        let key = (self.rng.next() as u32).to_ne_bytes();
        self.out.clear();
        encode_masked(&mut self.out, opcode, payload, key);
        self.send_out(slot);
    }

    /// Asks for what comes behind a cursor.
    pub(super) fn poll_on(&mut self, slot: u32, cursor: &[u8]) {
        self.line.long_poll(slot, cursor, &mut self.out);
        self.send_out(slot);
    }

    /// Sends what is in `out`, or keeps it until the socket takes it.
    fn send_out(&mut self, slot: u32) {
        let conn = &mut self.table[slot];
        let Some(socket) = &conn.socket else { return };
        if let Some(rare) = conn.rare.as_mut().filter(|rare| !rare.outbox.is_empty()) {
            rare.outbox.keep(&mut self.out, 0);
            return;
        }
        let sent = match socket.send(&self.out) {
            Ok(sent) if sent == self.out.len() => return,
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return,
        };
        conn.rare.get_or_insert_default().outbox.keep(&mut self.out, sent);
        if !conn.watched_for_writing {
            conn.watched_for_writing = true;
            let both = Interest::READABLE | Interest::WRITABLE;
            // Fails only for a descriptor that is not registered, or for want of memory: then the bytes wait
            // for the connection's end.
            let _ = self.poll.registry().reregister(&mut SourceFd(&socket.as_raw_fd()), Token(slot as usize), both);
        }
    }

    /// The socket takes bytes again.
    pub(super) fn flush(&mut self, slot: u32) {
        let conn = &mut self.table[slot];
        let (Some(socket), Some(rare)) = (&conn.socket, &mut conn.rare) else { return };
        while !rare.outbox.is_empty() {
            match socket.send(rare.outbox.pending()) {
                Ok(sent) => rare.outbox.advance(sent),
                Err(_) => return, // full again, or broken, which comes as an event
            }
        }
        self.drop_rare(slot);
    }

    /// Bytes that wait for the socket.
    pub(crate) fn backlog(&self, slot: u32) -> usize {
        self.table[slot].rare.as_ref().map_or(0, |rare| rare.outbox.len())
    }

    pub(super) fn drop_rare(&mut self, slot: u32) {
        let rare = &mut self.table[slot].rare;
        if rare.as_ref().is_some_and(|rare| Rare::is_empty(rare)) {
            *rare = None;
        }
    }

    /// Begins the closing handshake of an open connection, or ends it where the transport has none.
    pub(crate) fn close(&mut self, slot: u32) {
        debug_assert_eq!(self.table[slot].phase, Phase::Open);
        if !self.line.transport(slot).is_websocket() {
            self.closing += 1;
            self.part(slot, Farewell::Ended);
            return;
        }
        self.send_frame(slot, Opcode::Close, &NORMAL.to_be_bytes());
        self.count_pings(slot);
        let stamp = self.now.stamp();
        let conn = &mut self.table[slot];
        (conn.phase, conn.stamp) = (Phase::Closing, stamp);
        self.closing += 1;
        self.closing_deadlines.push(slot, stamp);
    }

    /// Ends a connection at once, with a reset: an open one counts as closed by us, a handshake as aborted.
    pub(crate) fn reset(&mut self, slot: u32) -> Option<(S, Gone)> {
        match self.table[slot].phase {
            Phase::Free => None,
            Phase::Connecting | Phase::Waiting | Phase::Joining => Some(self.fail(slot, Failure::Aborted)),
            Phase::Open => {
                self.count_pings(slot);
                self.closing += 1;
                Some(self.part(slot, Farewell::ByReset))
            }
            Phase::Closing | Phase::Closed => Some(self.part(slot, Farewell::TimedOut)),
        }
    }

    /// Ends an open connection whose owner comes back at once; a WebSocket says so first when `politely`. Nothing of
    /// what is still on its way counts.
    pub(crate) fn leave(&mut self, slot: u32, politely: bool) -> Option<S> {
        if self.table[slot].phase != Phase::Open {
            return None;
        }
        if politely && self.line.transport(slot).is_websocket() {
            self.send_frame(slot, Opcode::Close, &NORMAL.to_be_bytes());
        }
        self.closing += 1;
        Some(self.part(slot, Farewell::Returning).0)
    }

    /// Accounts for a handshake that came to nothing.
    pub(super) fn fail(&mut self, slot: u32, failure: Failure) -> (S, Gone) {
        debug_assert!(matches!(self.table[slot].phase, Phase::Connecting | Phase::Waiting | Phase::Joining));
        self.pending -= 1;
        self.count_failure(self.line.part(slot), failure);
        if let Some(socket) = self.table[slot].socket.take() {
            socket.reset();
        }
        (self.table.release(slot), Gone::Failed(failure))
    }

    fn count_failure(&mut self, part: usize, failure: Failure) {
        self.gauge.failed.add(1);
        *self.tallies[part].failures.entry(failure).or_default() += 1;
    }

    /// Accounts for an open connection that ended without our asking.
    pub(super) fn lose(&mut self, slot: u32, loss: Loss) -> (S, Gone) {
        debug_assert_eq!(self.table[slot].phase, Phase::Open);
        self.gauge.lost.add(1);
        *self.tallies[self.line.part(slot)].losses.entry(loss).or_default() += 1;
        (self.table.release(slot), Gone::Lost(loss))
    }

    /// Accounts for a connection that we closed, now that it is over.
    pub(super) fn part(&mut self, slot: u32, farewell: Farewell) -> (S, Gone) {
        self.closing -= 1;
        self.gauge.closed.add(1);
        *self.tallies[self.line.part(slot)].farewells.entry(farewell).or_default() += 1;
        if matches!(farewell, Farewell::ByReset | Farewell::TimedOut)
            && let Some(socket) = self.table[slot].socket.take()
        {
            socket.reset();
        }
        (self.table.release(slot), Gone::Closed(farewell))
    }

    /// Accounts for a ping of the server's.
    pub(super) fn note_ping(&mut self, slot: u32) {
        self.gauge.pings.add(1);
        let conn = &mut self.table[slot];
        conn.pings = conn.pings.saturating_add(1);
    }

    /// Keeps what the server said with a code.
    pub(super) fn note_said(&mut self, slot: u32, word: &str, text: &str) {
        self.tallies[self.line.part(slot)].note_said(word, text);
    }

    fn count_pings(&mut self, slot: u32) {
        *self.tallies[self.line.part(slot)].pings_seen.entry(self.table[slot].pings).or_default() += 1;
    }

    /// When a handshake or a closing under way has to be over.
    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        let deadlines = [self.opening_deadlines.next(self.now), self.closing_deadlines.next(self.now)];
        deadlines.into_iter().flatten().min()
    }

    /// Bytes of user-space memory that this worker's connections take.
    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes()
    }
}
