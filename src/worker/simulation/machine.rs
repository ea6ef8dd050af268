//! A worker's side of the simulated machine: its descriptor table, its epoll, its system calls.
//!
//! Descriptors are small numbers, the lowest free one first, so a number is in use again at once; a socket is used by its
//! number, and one that is closed, or another worker's, panics the run. The spare is one of them, so what is short is
//! short for it as well.

use super::super::kernel::{Event, Kernel};
use super::net::{ENDED, ERROR, Net, READ};
use crate::limits::EVENTS_PER_TURN;
use crate::sys::ledger::counting;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EPROTO: i32 = 71;
const ECONNABORTED: i32 = 103;
const ENOBUFS: i32 = 105;
const ENOTCONN: i32 = 107;

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The standard three, the poller, the mailbox's bell, the listener.
    Fixed,
    Spare,
    Socket(usize),
}

/// A worker's side of the machine.
#[derive(Debug)]
pub(super) struct Side {
    /// The listener's queue; `None` once it is closed.
    pub(super) queue: Option<VecDeque<usize>>,
    listener_token: u64,
    pub(super) listener_edge: bool,
    /// Links with edges.
    pub(super) pending: Vec<usize>,
    /// Tokens of closed sockets, for events that come late.
    pub(super) ghosts: Vec<u64>,
    /// The descriptor table.
    table: Vec<Option<What>>,
    pub(super) descriptors_max: usize,
    spare: Option<usize>,
    /// Accepting fails with this error, until then.
    pub(super) spell: Option<(u64, i32)>,
    /// When the mailbox's wakeup comes.
    pub(super) wake: Option<u64>,
    /// Turns, and calls that did something.
    pub(super) turns: u64,
    pub(super) calls: u64,
    /// Sockets that were opened and closed.
    pub(super) opened: u64,
    pub(super) closed: u64,
}

impl Side {
    pub(super) fn new(descriptors_max: usize) -> Self {
        let mut table = vec![Some(What::Fixed); 6];
        table.push(Some(What::Spare));
        Self {
            queue: Some(VecDeque::new()),
            listener_token: 0,
            listener_edge: false,
            pending: Vec::new(),
            ghosts: Vec::new(),
            spare: Some(table.len() - 1),
            table,
            descriptors_max,
            spell: None,
            wake: None,
            turns: 0,
            calls: 0,
            opened: 0,
            closed: 0,
        }
    }

    /// Sockets that are open.
    pub(super) fn sockets(&self) -> usize {
        (self.opened - self.closed) as usize
    }

    /// All that was opened is closed, and the spare is there.
    pub(super) fn check_closed(&self) {
        assert_eq!(self.opened, self.closed, "sockets that were opened, and closed");
        let left = |what: &Option<What>| matches!(what, Some(What::Socket(_)));
        assert!(!self.table.iter().any(left), "descriptors are left: {:?}", self.table);
    }

    /// Takes the lowest free number.
    fn open(&mut self, what: What) -> Option<usize> {
        if let Some(free) = self.table.iter().position(Option::is_none) {
            self.table[free] = Some(what);
            return Some(free);
        }
        if self.table.len() >= self.descriptors_max {
            return None;
        }
        self.table.push(Some(what));
        Some(self.table.len() - 1)
    }

    fn has_descriptor(&self) -> bool {
        self.table.len() < self.descriptors_max || self.table.contains(&None)
    }

    fn close(&mut self, number: usize, what: What) {
        let was = self.table[number].take();
        assert_eq!(was, Some(what), "descriptor {number} is not what was closed");
    }
}

impl Net {
    fn collect(&mut self, worker: usize, mail_token: u64, events: &mut Vec<Event>) {
        let plain = |token, readable| Event { token, readable, writable: !readable, read_closed: false, error: false };
        let mut most = EVENTS_PER_TURN;
        if self.chance(self.faults.delay / 5) {
            most = 1 + self.rng.below(4) as usize;
        }
        let mut pending = std::mem::take(&mut self.sides[worker].pending);
        pending.retain(|&id| !self.links[id].closed && self.links[id].edges != 0);
        for index in (1..pending.len()).rev() {
            let other = self.rng.below(index as u64 + 1) as usize;
            pending.swap(index, other);
        }
        let due = self.sides[worker].wake.is_some_and(|at| at <= self.now);
        if due || self.chance(self.faults.spurious / 10) {
            self.seen.false_wakeups += u64::from(!due);
            self.sides[worker].wake = if due { None } else { self.sides[worker].wake };
            events.push(plain(mail_token, true));
        }
        if std::mem::take(&mut self.sides[worker].listener_edge) && self.sides[worker].queue.is_some() {
            events.push(plain(self.sides[worker].listener_token, true));
        }
        for id in pending {
            if events.len() >= most || self.chance(self.faults.delay) {
                self.seen.truncated += u64::from(events.len() >= most);
                self.seen.delayed += 1;
                self.sides[worker].pending.push(id);
                continue;
            }
            let event = self.event_of(id);
            events.push(event);
            self.links[id].edges = 0;
            if event.readable && !self.links[id].inbound.is_empty() && self.links[id].told.is_none() {
                self.links[id].told = Some(self.sides[worker].turns);
            }
            if self.chance(self.faults.spurious) {
                self.seen.repeated_events += 1;
                events.push(event);
            }
        }
        if self.chance(self.faults.spurious) && !self.sides[worker].ghosts.is_empty() {
            self.seen.stale_events += 1;
            let ghost = self.rng.below(self.sides[worker].ghosts.len() as u64) as usize;
            let token = self.sides[worker].ghosts[ghost];
            events.push(Event { token, readable: true, writable: true, read_closed: true, error: true });
        }
        if self.chance(self.faults.spurious)
            && let Some(token) = self.any_token(worker)
        {
            events.push(plain(token, self.now.is_multiple_of(2)));
        }
        for index in (1..events.len()).rev() {
            let other = self.rng.below(index as u64 + 1) as usize;
            events.swap(index, other);
        }
    }

    /// An error of accept that has nothing to do with who waits, or takes its first with it.
    fn accept_error(&mut self, worker: usize) -> Option<i32> {
        let (now, rate) = (self.now, self.faults.accept);
        if let Some((until, code)) = self.sides[worker].spell {
            if now < until {
                self.seen.spells += 1;
                return Some(code);
            }
            self.sides[worker].spell = None;
        }
        if !self.chance(rate) {
            return None;
        }
        let shortage = [EMFILE, ENFILE, ENOBUFS, ENOMEM][self.rng.below(4) as usize];
        match self.rng.below(8) {
            0 => {
                self.sides[worker].spell = Some((now + 1 + self.rng.below(20_000), shortage));
                Some(shortage)
            }
            1..4 => {
                self.seen.shortages += 1;
                Some(shortage)
            }
            _ => {
                // It was there, and is not any more.
                let id = self.sides[worker].queue.as_mut().and_then(VecDeque::pop_front)?;
                self.close(id, true);
                self.seen.accept_errors += 1;
                Some([ECONNABORTED, EPERM, EPROTO][self.rng.below(3) as usize])
            }
        }
    }
}

/// Dropping it closes it, like the real one.
#[derive(Debug)]
pub(super) struct Socket {
    net: Rc<RefCell<Net>>,
    pub(super) id: usize,
    /// Its number in its worker's table.
    descriptor: usize,
    worker: usize,
    reset: bool,
}

impl Drop for Socket {
    fn drop(&mut self) {
        counting(false, || {
            let mut net = self.net.borrow_mut();
            let side = &mut net.sides[self.worker];
            side.close(self.descriptor, What::Socket(self.id));
            side.closed += 1;
            side.calls += 1;
            net.close(self.id, self.reset);
        });
    }
}

#[derive(Debug)]
pub(super) struct Listener {
    net: Rc<RefCell<Net>>,
    worker: usize,
}

impl Drop for Listener {
    /// Whoever waits in the queue is reset.
    fn drop(&mut self) {
        counting(false, || {
            let mut net = self.net.borrow_mut();
            for id in net.sides[self.worker].queue.take().into_iter().flatten() {
                net.close(id, true);
            }
        });
    }
}

/// One worker's kernel.
#[derive(Debug)]
pub(super) struct Simulated {
    pub(super) net: Rc<RefCell<Net>>,
    pub(super) worker: usize,
}

impl Simulated {
    pub(super) fn listener(&self) -> Listener {
        Listener { net: Rc::clone(&self.net), worker: self.worker }
    }

    /// A system call: what it takes in memory is not the server's, and a signal may come first.
    fn call<T>(&self, call: impl FnOnce(&mut Net) -> io::Result<T>) -> io::Result<T> {
        counting(false, || {
            let mut net = self.net.borrow_mut();
            let faults = net.faults;
            if net.chance(faults.interrupted) {
                net.seen.interrupted += 1;
                return Err(ErrorKind::Interrupted.into());
            }
            let result = call(&mut net);
            net.sides[self.worker].calls += u64::from(result.is_ok());
            result
        })
    }

    /// The same for a socket, by its number.
    fn call_on<T>(&self, socket: &Socket, call: impl FnOnce(&mut Net) -> io::Result<T>) -> io::Result<T> {
        self.call(|net| {
            assert_eq!(socket.worker, self.worker, "another worker's descriptor");
            let there = net.sides[self.worker].table.get(socket.descriptor).copied().flatten();
            assert_eq!(there, Some(What::Socket(socket.id)), "descriptor {} is not that socket", socket.descriptor);
            assert!(!net.links[socket.id].closed, "used after close");
            call(net)
        })
    }
}

impl Kernel for Simulated {
    type Socket = Socket;
    type Listener = Listener;

    /// Whoever calls decides when to wake; an interrupted wait is one without events.
    fn wait(&mut self, _: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.net.borrow_mut().sides[self.worker].turns += 1;
        let _ = self.call(|net| {
            net.collect(self.worker, super::super::MAIL_TOKEN, events);
            Err::<(), _>(ErrorKind::TimedOut.into()) // it counts for nothing
        });
        Ok(())
    }

    fn micros(&mut self) -> u64 {
        self.net.borrow().now.saturating_mul(1000)
    }

    fn unix_ms(&mut self) -> u64 {
        784_111_777_000 + self.net.borrow().now
    }

    fn register_listener(&mut self, _: &Listener, token: u64) -> io::Result<()> {
        self.net.borrow_mut().sides[self.worker].listener_token = token;
        Ok(())
    }

    /// A signal does not interrupt it.
    fn register(&mut self, socket: &Socket, token: u64) -> io::Result<()> {
        counting(false, || {
            let mut net = self.net.borrow_mut();
            let faults = net.faults;
            if net.chance(faults.unwatched) {
                net.seen.unwatched += 1;
                return Err(io::Error::from_raw_os_error(ENOSPC));
            }
            let link = &mut net.links[socket.id];
            assert!(link.token.is_none(), "it is watched already");
            link.token = Some(token);
            let edges = link.state();
            if edges != 0 {
                net.edge(socket.id, edges);
            }
            Ok(())
        })
    }

    fn accept(&mut self, _: &Listener) -> io::Result<(Socket, SocketAddr)> {
        let (descriptor, id) = self.call(|net| {
            if net.sides[self.worker].queue.as_ref().is_none_or(VecDeque::is_empty) {
                return Err(ErrorKind::WouldBlock.into());
            }
            let faults = net.faults;
            if net.chance(faults.short) {
                net.seen.would_block += 1;
                net.sides[self.worker].listener_edge = true; // it came a moment later
                return Err(ErrorKind::WouldBlock.into());
            }
            if let Some(code) = net.accept_error(self.worker) {
                return Err(io::Error::from_raw_os_error(code));
            }
            let side = &mut net.sides[self.worker];
            if !side.has_descriptor() {
                net.seen.table_full += 1;
                return Err(io::Error::from_raw_os_error(EMFILE));
            }
            let id = side.queue.as_mut().and_then(VecDeque::pop_front).expect("looked before");
            side.opened += 1;
            let descriptor = side.open(What::Socket(id)).expect("looked before");
            net.seen.reused += u64::from(descriptor + 1 < net.sides[self.worker].table.len());
            Ok((descriptor, id))
        })?;
        let socket = Socket { net: Rc::clone(&self.net), id, descriptor, worker: self.worker, reset: false };
        Ok((socket, ([127, 0, 0, 1], id as u16).into()))
    }

    fn recv(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        self.call_on(socket, |net| {
            let faults = net.faults;
            let overtaken = net.chance(faults.short);
            let part = net.rng.next();
            let link = &mut net.links[socket.id];
            link.told = None;
            if link.inbound.is_empty() {
                if link.reset && !std::mem::replace(&mut link.reset_told, true) {
                    return Err(ErrorKind::ConnectionReset.into());
                }
                return if link.reset || link.fin_came { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
            }
            let all = link.inbound.len().min(buffer.len());
            // Behind the end nothing comes, so what was told of with it is there.
            let least = usize::from(link.fin_came || link.reset);
            let mut count = if overtaken { ((part % all as u64) as usize).max(least) } else { all };
            if link.is_bytewise && faults.bytewise > 0 {
                count = 1;
            }
            buffer[..count].copy_from_slice(&link.inbound[..count]);
            link.inbound.drain(..count);
            link.received += count as u64;
            if !link.inbound.is_empty() {
                let more = link.state() & (READ | ENDED | ERROR);
                net.seen.short_reads += 1;
                net.edge(socket.id, more);
            }
            if count == 0 {
                net.seen.would_block += 1;
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(count)
        })
    }

    fn send(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        self.call_on(socket, |net| {
            let faults = net.faults;
            let short = net.chance(faults.short);
            let part = net.rng.next();
            let link = &mut net.links[socket.id];
            assert!(!link.shut, "written behind the end");
            if link.reset {
                let first = !std::mem::replace(&mut link.reset_told, true);
                return Err(if first { ErrorKind::ConnectionReset } else { ErrorKind::BrokenPipe }.into());
            }
            let room = link.capacity.saturating_sub(link.outbound.len()).min(bytes.len());
            let mut count = if short { (part % (room as u64 + 1)) as usize } else { room };
            if link.is_bytewise && faults.bytewise > 0 {
                count = count.min(1);
            }
            link.outbound.extend(&bytes[..count]);
            link.starved |= count < bytes.len();
            link.sent += count as u64;
            net.seen.short_writes += u64::from(count < bytes.len());
            if count == 0 && !bytes.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
        })
    }

    /// A signal does not interrupt it.
    fn shutdown_write(&mut self, socket: &Socket) -> io::Result<()> {
        let mut net = self.net.borrow_mut();
        let link = &mut net.links[socket.id];
        if link.reset {
            return Err(io::Error::from_raw_os_error(ENOTCONN));
        }
        link.shut = true;
        Ok(())
    }

    fn reset(&mut self, mut socket: Socket) {
        socket.reset = true;
    }

    fn release_spare(&mut self) {
        let mut net = self.net.borrow_mut();
        let side = &mut net.sides[self.worker];
        if let Some(spare) = side.spare.take() {
            side.close(spare, What::Spare);
        }
    }

    fn restore_spare(&mut self) {
        let mut net = self.net.borrow_mut();
        let side = &mut net.sides[self.worker];
        if side.spare.is_none() {
            side.spare = side.open(What::Spare);
        }
    }
}
