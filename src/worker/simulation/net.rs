//! The network that is simulated: listeners' queues, both directions of each connection, and one clock for all workers.
//!
//! Readiness is edge-triggered as epoll has it: an edge when bytes arrive, when the peer's direction ends, when room
//! appears behind a send that did not get everything out, and the state of things at registration. Whatever is odd
//! beyond that (a delay, an order, a repetition, an error) is drawn from the seed. What a worker's system calls do is in
//! [`machine`](super::machine).

use super::super::kernel::Event;
use super::machine::Side;
use super::truth::Tally;
use crate::mem::Rng;

pub(super) const READ: u8 = 1;
pub(super) const WRITE: u8 = 2;
pub(super) const ENDED: u8 = 4;
pub(super) const ERROR: u8 = 8;

/// How often, of 1,000 calls, something odd happens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// A call that a signal interrupts.
    pub(super) interrupted: u64,
    /// Accepting without a descriptor or memory, for one call or for a long time; a client that gave up in the queue;
    /// a firewall.
    pub(super) accept: u64,
    /// A send that gets a part out, or nothing, though there is room; a receive that is overtaken by what it did not
    /// see, or by all of it. An edge follows each.
    pub(super) short: u64,
    /// An event that waits for a later turn; a batch that ends early; a wakeup that takes its time.
    pub(super) delay: u64,
    /// An event of nothing, of a socket that is closed, or one told twice.
    pub(super) spurious: u64,
    /// The peer resets.
    pub(super) reset: u64,
    /// The peer ends its direction, whatever it was about to say.
    pub(super) half_close: u64,
    /// A socket cannot be watched.
    pub(super) unwatched: u64,
    /// Connections that move a byte at a time.
    pub(super) bytewise: u64,
    /// Peers that stop reading.
    pub(super) stall: u64,
}

/// One connection: what is under way in both directions, and what each side did to it.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) worker: usize,
    pub(super) token: Option<u64>,
    /// What happened since the worker was last told.
    pub(super) edges: u8,
    /// The client's bytes on their way, and those that the server can read.
    flight: Vec<u8>,
    pub(super) inbound: Vec<u8>,
    /// What the server sent and the client has not read.
    pub(super) outbound: Vec<u8>,
    pub(super) capacity: usize,
    /// A byte at a time.
    pub(super) is_bytewise: bool,
    /// A send did not get everything out: room makes an edge.
    pub(super) starved: bool,
    /// The client's direction ends behind `flight`; it has ended.
    fin: bool,
    pub(super) fin_came: bool,
    /// The client has reset.
    pub(super) reset: bool,
    pub(super) reset_told: bool,
    /// The server is done: with one direction, with a reset, with the socket.
    pub(super) shut: bool,
    pub(super) cut: bool,
    pub(super) closed: bool,
    /// Bytes that the server's calls moved.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// The worker's turn in which it was told that there is something to read, unless it has read since.
    pub(super) told: Option<u64>,
}

impl Link {
    pub(super) fn has_room(&self) -> bool {
        self.outbound.len() < self.capacity
    }

    /// All that is true of it, as edges.
    pub(super) fn state(&self) -> u8 {
        let mut edges = if self.inbound.is_empty() { 0 } else { READ };
        edges |= if self.has_room() { WRITE } else { 0 };
        edges |= if self.fin_came { READ | ENDED } else { 0 };
        edges | if self.reset { READ | WRITE | ENDED | ERROR } else { 0 }
    }
}

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Bytes(usize),
    Nothing,
    End,
    Reset,
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    /// Whether an event tells all that is true of its socket, as epoll does, or only what has changed.
    whole_state: bool,
    pub(super) links: Vec<Link>,
    live: Vec<usize>,
    pub(super) sides: Vec<Side>,
    pub(super) seen: Tally,
}

impl Net {
    /// A network of so many workers, each of which may have so many descriptors.
    pub(super) fn new(seed: u64, workers: usize, descriptors: usize, faults: Faults) -> Self {
        let mut rng = Rng::new(seed);
        let whole_state = rng.below(2) == 0;
        let sides = (0..workers).map(|_| Side::new(descriptors)).collect();
        let (links, live, seen) = (Vec::new(), Vec::new(), Tally::default());
        Self { now: 1_000_000, rng, faults, whole_state, links, live, sides, seen }
    }

    pub(super) fn chance(&mut self, of_1000: u64) -> bool {
        of_1000 > 0 && self.rng.below(1000) < of_1000
    }

    /// Nothing odd happens any more.
    pub(super) fn calm(&mut self) {
        self.faults = Faults::default();
        let now = self.now;
        for side in &mut self.sides {
            side.descriptors_max = usize::MAX;
            side.spell = None;
            side.wake = side.wake.map(|at| at.min(now + 3));
        }
    }

    /// A client connects to whichever worker the kernel picks. `None`: nobody listens.
    pub(super) fn connect(&mut self) -> Option<usize> {
        let worker = self.rng.below(self.sides.len() as u64) as usize;
        let capacity = [200, 1000, 5000, 60_000][self.rng.below(4) as usize];
        let is_bytewise = self.chance(self.faults.bytewise);
        self.seen.bytewise += u64::from(is_bytewise);
        let id = self.links.len();
        let side = &mut self.sides[worker];
        side.queue.as_mut()?.push_back(id);
        side.listener_edge = true;
        self.links.push(Link { worker, capacity, is_bytewise, ..Link::default() });
        self.live.push(id);
        Some(id)
    }

    pub(super) fn edge(&mut self, id: usize, edges: u8) {
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
        if link.fin || link.reset || link.cut {
            return bytes.len(); // to nowhere
        }
        let room = link.capacity.saturating_sub(link.flight.len() + link.inbound.len());
        let count = bytes.len().min(room);
        link.flight.extend(&bytes[..count]);
        count
    }

    pub(super) fn client_read(&mut self, id: usize, most: usize, to: &mut Vec<u8>) -> Got {
        let link = &mut self.links[id];
        if link.cut {
            self.seen.cut += 1;
            return Got::Reset;
        }
        let count = link.outbound.len().min(most);
        if count == 0 {
            return if link.outbound.is_empty() && (link.shut || link.closed) { Got::End } else { Got::Nothing };
        }
        to.extend(link.outbound.drain(..count));
        if link.starved && link.has_room() {
            link.starved = false;
            self.edge(id, WRITE);
        }
        Got::Bytes(count)
    }

    /// Whether the server is done with it.
    pub(super) fn is_over(&self, id: usize) -> bool {
        self.links[id].closed
    }

    pub(super) fn client_fin(&mut self, id: usize) {
        self.links[id].fin = true;
        self.seen.fins += 1;
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
        self.seen.resets += 1;
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
                (link.flight, link.inbound) = (Vec::new(), Vec::new());
                link.outbound = Vec::new();
                self.live.swap_remove(index);
                continue;
            }
            let part = if all { link.flight.len() } else { self.rng.below(link.flight.len() as u64 + 1) as usize };
            let part = if link.is_bytewise && !all { part.min(1) } else { part };
            if part > 0 {
                link.inbound.extend(link.flight.drain(..part));
            }
            let ended = link.fin && link.flight.is_empty() && !link.fin_came;
            link.fin_came |= ended;
            if part > 0 || ended {
                moved = true;
                self.edge(id, READ | if ended { ENDED } else { 0 });
            }
            if self.links[id].starved && self.links[id].has_room() {
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

    /// Somebody rang the mailbox's bell. It is heard after a while.
    pub(super) fn ring(&mut self, worker: usize, delay_ms: u64) {
        let late = self.faults.delay > 0 && self.rng.below(200) == 0;
        self.seen.late_wakeups += u64::from(late);
        let at = self.now + if late { self.rng.below(5000) } else { delay_ms };
        let wake = &mut self.sides[worker].wake;
        *wake = Some(wake.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn wake_at(&self, worker: usize) -> Option<u64> {
        self.sides[worker].wake
    }

    pub(super) fn event_of(&self, id: usize) -> Event {
        let link = &self.links[id];
        let (mut edges, token) = (link.edges, link.token.expect("registered"));
        if self.whole_state {
            edges |= link.state();
        }
        let has = |edge| edges & edge != 0;
        Event { token, readable: has(READ), writable: has(WRITE), read_closed: has(ENDED), error: has(ERROR) }
    }

    /// Some connection of that worker that is registered, for an event of nothing.
    pub(super) fn any_token(&mut self, worker: usize) -> Option<u64> {
        if self.live.is_empty() {
            return None;
        }
        let link = &self.links[self.live[self.rng.below(self.live.len() as u64) as usize]];
        link.token.filter(|_| link.worker == worker && !link.closed)
    }

    /// The server is done with a socket. Unread input makes a reset of an orderly end.
    pub(super) fn close(&mut self, id: usize, reset: bool) {
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
