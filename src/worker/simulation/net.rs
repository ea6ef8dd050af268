//! The machine that is simulated: listeners, sockets, readiness and one clock for all workers.
//!
//! Readiness is edge-triggered as epoll has it: an edge when bytes arrive, when the peer's direction ends, when room
//! appears behind a send that did not get everything out, and the state of things at registration. Whatever is odd
//! beyond that (a delay, an order, a repetition, an error) is drawn from the seed.

use super::super::kernel::{Event, Kernel};
use crate::mem::Rng;
use crate::time::Millis;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const READ: u8 = 1;
const WRITE: u8 = 2;
const ENDED: u8 = 4;
const ERROR: u8 = 8;

const EMFILE: i32 = 24;
const ECONNABORTED: i32 = 103;

/// How often, of 1,000 calls, something odd happens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// A call that a signal interrupts.
    pub(super) interrupted: u64,
    /// Accepting without a descriptor, or a client that gave up in the queue.
    pub(super) accept: u64,
    /// A send that gets a part out, or nothing, though there is room; a receive that is overtaken by what it did not
    /// see. An edge follows each.
    pub(super) short: u64,
    /// An event that waits for a later turn.
    pub(super) delay: u64,
    /// An event of nothing, or of a socket that is closed.
    pub(super) spurious: u64,
    /// The peer resets.
    pub(super) reset: u64,
}

/// One connection: what is under way in both directions, and what each side did to it.
#[derive(Debug, Default)]
pub(super) struct Link {
    worker: usize,
    token: Option<u64>,
    /// What happened since the worker was last told.
    edges: u8,
    /// The client's bytes on their way, and those that the server can read.
    flight: VecDeque<u8>,
    inbound: VecDeque<u8>,
    /// What the server sent and the client has not read.
    outbound: VecDeque<u8>,
    capacity: usize,
    /// A send did not get everything out: room makes an edge.
    starved: bool,
    /// The client's direction ends behind `flight`; it has ended.
    fin: bool,
    fin_came: bool,
    /// The client has reset.
    reset: bool,
    reset_told: bool,
    /// The server is done: with one direction, with a reset, with the socket.
    shut: bool,
    cut: bool,
    closed: bool,
}

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Bytes(usize),
    Nothing,
    End,
    Reset,
}

/// A worker's side of the machine.
#[derive(Debug, Default)]
struct Side {
    /// The listener's queue; `None` once it is closed.
    queue: Option<VecDeque<usize>>,
    listener_token: u64,
    listener_edge: bool,
    /// Links with edges.
    pending: Vec<usize>,
    /// Tokens of closed sockets, for events that come late.
    ghosts: Vec<u64>,
    spare_released: bool,
    /// When the mailbox's wakeup comes.
    wake: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    /// Whether an event tells all that is true of its socket, as epoll does, or only what has changed.
    whole_state: bool,
    links: Vec<Link>,
    live: Vec<usize>,
    sides: Vec<Side>,
}

impl Net {
    pub(super) fn new(seed: u64, workers: usize, faults: Faults) -> Self {
        let mut rng = Rng::new(seed);
        let whole_state = rng.below(2) == 0;
        let sides = (0..workers).map(|_| Side { queue: Some(VecDeque::new()), ..Side::default() }).collect();
        Self { now: 1_000_000, rng, faults, whole_state, links: Vec::new(), live: Vec::new(), sides }
    }

    fn chance(&mut self, of_1000: u64) -> bool {
        self.rng.below(1000) < of_1000
    }

    /// A client connects to whichever worker the kernel picks. `None`: nobody listens.
    pub(super) fn connect(&mut self) -> Option<usize> {
        let worker = self.rng.below(self.sides.len() as u64) as usize;
        let capacity = [200, 1000, 5000, 60_000][self.rng.below(4) as usize];
        let id = self.links.len();
        let side = &mut self.sides[worker];
        side.queue.as_mut()?.push_back(id);
        side.listener_edge = true;
        self.links.push(Link { worker, capacity, ..Link::default() });
        self.live.push(id);
        Some(id)
    }

    fn edge(&mut self, id: usize, edges: u8) {
        let link = &mut self.links[id];
        if link.token.is_none() || link.closed {
            return;
        }
        if link.edges == 0 {
            self.sides[link.worker].pending.push(id);
        }
        link.edges |= edges;
    }

    /// Takes what there is room for.
    pub(super) fn client_write(&mut self, id: usize, bytes: &[u8]) -> usize {
        let link = &mut self.links[id];
        let room = link.capacity.saturating_sub(link.flight.len() + link.inbound.len());
        let count = bytes.len().min(room);
        link.flight.extend(&bytes[..count]);
        count
    }

    pub(super) fn client_read(&mut self, id: usize, most: usize, to: &mut Vec<u8>) -> Got {
        let link = &mut self.links[id];
        if link.cut {
            return Got::Reset;
        }
        let count = link.outbound.len().min(most);
        if count == 0 {
            return if link.outbound.is_empty() && (link.shut || link.closed) { Got::End } else { Got::Nothing };
        }
        to.extend(link.outbound.drain(..count));
        if link.starved && link.outbound.len() < link.capacity {
            link.starved = false;
            self.edge(id, WRITE);
        }
        Got::Bytes(count)
    }

    pub(super) fn client_fin(&mut self, id: usize) {
        self.links[id].fin = true;
    }

    /// Whether the client will send no more.
    pub(super) fn is_left(&self, id: usize) -> bool {
        self.links[id].fin || self.links[id].reset
    }

    /// Whether a worker has taken the client in, rather than sent it away in one go.
    pub(super) fn is_watched(&self, id: usize) -> bool {
        self.links[id].token.is_some()
    }

    pub(super) fn client_reset(&mut self, id: usize) {
        let link = &mut self.links[id];
        link.reset = true;
        link.flight.clear();
        if self.rng.below(2) == 0 {
            self.links[id].inbound.clear();
        }
        self.edge(id, READ | WRITE | ENDED | ERROR);
    }

    /// Brings bytes on their way to the server: of one link, or of all. Whether something moved.
    pub(super) fn deliver(&mut self, all: bool) -> bool {
        let mut moved = false;
        for index in (0..self.live.len()).rev() {
            if !all && self.rng.below(4) != 0 {
                continue;
            }
            let id = self.live[index];
            let link = &mut self.links[id];
            if (link.closed || link.cut) && link.outbound.is_empty() || link.reset && link.closed {
                self.live.swap_remove(index);
                continue;
            }
            let part = if all { link.flight.len() } else { self.rng.below(link.flight.len() as u64 + 1) as usize };
            if part > 0 {
                link.inbound.extend(link.flight.drain(..part));
            }
            let ended = link.fin && link.flight.is_empty() && !link.fin_came;
            link.fin_came |= ended;
            if part > 0 || ended {
                moved = true;
                self.edge(id, READ | if ended { ENDED } else { 0 });
            }
            if self.links[id].starved && self.links[id].outbound.len() < self.links[id].capacity {
                self.links[id].starved = false;
                moved = true;
                self.edge(id, WRITE);
            }
        }
        moved
    }

    /// Whether somebody waits to be accepted of whom the worker was told, and is not told again.
    pub(super) fn is_awaited(&self, worker: usize) -> bool {
        let side = &self.sides[worker];
        !side.listener_edge && side.queue.as_ref().is_some_and(|queue| !queue.is_empty())
    }

    /// Whether the worker has something to wake up for.
    pub(super) fn rouses(&self, worker: usize) -> bool {
        let side = &self.sides[worker];
        !side.pending.is_empty()
            || side.wake.is_some_and(|at| at <= self.now)
            || side.listener_edge && side.queue.is_some()
    }

    /// Somebody rang the mailbox's bell.
    pub(super) fn ring(&mut self, worker: usize, delay_ms: u64) {
        self.sides[worker].wake = Some(self.now + delay_ms);
    }

    pub(super) fn wake_at(&self, worker: usize) -> Option<u64> {
        self.sides[worker].wake
    }

    fn event_of(&self, id: usize) -> Event {
        let link = &self.links[id];
        let (mut edges, token) = (link.edges, link.token.expect("registered"));
        if self.whole_state {
            edges |= if link.inbound.is_empty() { 0 } else { READ };
            edges |= if link.outbound.len() < link.capacity { WRITE } else { 0 };
            edges |= if link.fin_came { READ | ENDED } else { 0 };
            edges |= if link.reset { READ | WRITE | ENDED | ERROR } else { 0 };
        }
        let has = |edge| edges & edge != 0;
        Event { token, readable: has(READ), writable: has(WRITE), read_closed: has(ENDED), error: has(ERROR) }
    }

    fn collect(&mut self, worker: usize, mail_token: u64, events: &mut Vec<Event>) {
        let plain = |token, readable| Event { token, readable, writable: !readable, read_closed: false, error: false };
        if self.sides[worker].wake.is_some_and(|at| at <= self.now) {
            self.sides[worker].wake = None;
            events.push(plain(mail_token, true));
        }
        if std::mem::take(&mut self.sides[worker].listener_edge) && self.sides[worker].queue.is_some() {
            events.push(plain(self.sides[worker].listener_token, true));
        }
        for id in std::mem::take(&mut self.sides[worker].pending) {
            if self.links[id].closed || self.links[id].edges == 0 {
                continue;
            }
            if self.chance(self.faults.delay) {
                self.sides[worker].pending.push(id);
                continue;
            }
            let event = self.event_of(id);
            events.push(event);
            self.links[id].edges = 0;
            if self.chance(self.faults.spurious) {
                events.push(event);
            }
        }
        if self.chance(self.faults.spurious) && !self.sides[worker].ghosts.is_empty() {
            let ghost = self.rng.below(self.sides[worker].ghosts.len() as u64) as usize;
            let token = self.sides[worker].ghosts[ghost];
            events.push(Event { token, readable: true, writable: true, read_closed: true, error: true });
        }
        if self.chance(self.faults.spurious) && !self.live.is_empty() {
            let link = &self.links[self.live[self.rng.below(self.live.len() as u64) as usize]];
            if let Some(token) = link.token.filter(|_| link.worker == worker && !link.closed) {
                events.push(plain(token, self.now.is_multiple_of(2)));
            }
        }
        for index in (1..events.len()).rev() {
            let other = self.rng.below(index as u64 + 1) as usize;
            events.swap(index, other);
        }
    }

    /// The server is done with a socket. Unread input makes a reset of an orderly end.
    fn close(&mut self, id: usize, reset: bool) {
        let link = &mut self.links[id];
        assert!(!link.closed, "closed twice");
        link.closed = true;
        if reset || !link.inbound.is_empty() {
            link.cut = true;
            link.outbound.clear();
        }
        let (worker, token) = (link.worker, link.token);
        self.sides[worker].ghosts.extend(token);
    }
}

/// Dropping it closes it, like the real one.
#[derive(Debug)]
pub(super) struct Socket {
    net: Rc<RefCell<Net>>,
    id: usize,
    reset: bool,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.net.borrow_mut().close(self.id, self.reset);
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
        let mut net = self.net.borrow_mut();
        for id in net.sides[self.worker].queue.take().into_iter().flatten() {
            net.close(id, true);
        }
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

    fn interrupted(net: &mut Net) -> io::Result<()> {
        if net.chance(net.faults.interrupted) { Err(ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

impl Kernel for Simulated {
    type Socket = Socket;
    type Listener = Listener;

    /// Whoever calls decides when to wake; an interrupted wait is one without events.
    fn wait(&mut self, _: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let mut net = self.net.borrow_mut();
        if Self::interrupted(&mut net).is_ok() {
            net.collect(self.worker, super::super::MAIL_TOKEN, events);
        }
        Ok(())
    }

    fn now(&mut self) -> Millis {
        Millis(self.net.borrow().now)
    }

    fn unix_ms(&mut self) -> u64 {
        784_111_777_000 + self.net.borrow().now
    }

    fn register_listener(&mut self, _: &Listener, token: u64) -> io::Result<()> {
        self.net.borrow_mut().sides[self.worker].listener_token = token;
        Ok(())
    }

    fn register(&mut self, socket: &Socket, token: u64) -> io::Result<()> {
        let mut net = self.net.borrow_mut();
        let link = &mut net.links[socket.id];
        link.token = Some(token);
        let mut edges = if link.inbound.is_empty() { 0 } else { READ };
        edges |= if link.outbound.len() < link.capacity { WRITE } else { 0 };
        edges |= if link.fin_came { READ | ENDED } else { 0 };
        edges |= if link.reset { READ | WRITE | ENDED | ERROR } else { 0 };
        if edges != 0 {
            net.edge(socket.id, edges);
        }
        Ok(())
    }

    fn accept(&mut self, _: &Listener) -> io::Result<(Socket, SocketAddr)> {
        let mut net = self.net.borrow_mut();
        Self::interrupted(&mut net)?;
        if net.sides[self.worker].queue.as_ref().is_none_or(VecDeque::is_empty) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let faults = net.faults;
        if !net.sides[self.worker].spare_released && net.chance(faults.accept) {
            let code = if net.rng.below(2) == 0 { EMFILE } else { ECONNABORTED };
            return Err(io::Error::from_raw_os_error(code));
        }
        let id = net.sides[self.worker].queue.as_mut().and_then(VecDeque::pop_front).expect("looked before");
        drop(net);
        Ok((Socket { net: Rc::clone(&self.net), id, reset: false }, ([127, 0, 0, 1], id as u16).into()))
    }

    fn recv(&mut self, socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        let mut net = self.net.borrow_mut();
        Self::interrupted(&mut net)?;
        let faults = net.faults;
        let overtaken = net.chance(faults.short);
        let part = net.rng.next();
        let link = &mut net.links[socket.id];
        assert!(!link.closed, "read after close");
        if link.inbound.is_empty() {
            if link.reset && !std::mem::replace(&mut link.reset_told, true) {
                return Err(ErrorKind::ConnectionReset.into());
            }
            return if link.reset || link.fin_came { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let all = link.inbound.len().min(buffer.len());
        let count = if overtaken { 1 + (part % all as u64) as usize } else { all };
        buffer.iter_mut().zip(link.inbound.drain(..count)).for_each(|(to, byte)| *to = byte);
        if count < all {
            net.edge(socket.id, READ);
        }
        Ok(count)
    }

    fn send(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        let mut net = self.net.borrow_mut();
        Self::interrupted(&mut net)?;
        let faults = net.faults;
        let short = net.chance(faults.short);
        let part = net.rng.next();
        let link = &mut net.links[socket.id];
        assert!(!link.closed, "written after close");
        assert!(!link.shut, "written behind the end");
        if link.reset {
            let kind = if std::mem::replace(&mut link.reset_told, true) {
                ErrorKind::BrokenPipe
            } else {
                ErrorKind::ConnectionReset
            };
            return Err(kind.into());
        }
        let room = link.capacity.saturating_sub(link.outbound.len()).min(bytes.len());
        let count = if short { (part % (room as u64 + 1)) as usize } else { room };
        link.outbound.extend(&bytes[..count]);
        link.starved |= count < bytes.len();
        if count == 0 && !bytes.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    fn shutdown_write(&mut self, socket: &Socket) -> io::Result<()> {
        self.net.borrow_mut().links[socket.id].shut = true;
        Ok(())
    }

    fn reset(&mut self, mut socket: Socket) {
        socket.reset = true;
    }

    fn release_spare(&mut self) {
        self.net.borrow_mut().sides[self.worker].spare_released = true;
    }

    fn restore_spare(&mut self) {
        self.net.borrow_mut().sides[self.worker].spare_released = false;
    }
}
