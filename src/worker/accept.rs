//! Accepting: everybody who comes is either taken or told why not, whatever the machine is short of.

use super::{Envelope, Kernel, Worker, token};
use crate::conn::{Conn, Ended, Peer};
use crate::error::{End, Refused};
use crate::http::{Fields, Head, HeadScan, Manner, Preamble, Response, cross_origin, wants_events};
use crate::limits::{
    ACCEPT_PAUSE_MS, ACCEPTS_PER_TURN, EVENT_SOURCE_BUSY_RETRY_MS, SHARED_ACCEPTS_PER_TURN, SHARED_AHEAD_MAX,
};
use crate::mem::{Meter, Rate};
use crate::planted::{Bug, planted};
use crate::service::Service;
use crate::sys;
use crate::time::Millis;
use std::io::ErrorKind;
use std::time::Duration;

/// The listeners, and whether there is something to accept. mio reports an edge once: it is kept here until
/// `accept` has said that the queue is empty, through pauses too.
#[derive(Debug)]
pub(super) struct Accepting<L> {
    listeners: Vec<(L, bool)>,
    /// The listener whose turn it is to be the first: with few to be accepted, it may be the only one.
    first: usize,
    /// Out of descriptors or memory, or ahead of the pace: not before this moment.
    paused_until: Option<Millis>,
    pace: Option<Pace>,
}

/// How fast a worker accepts: its share of what all of them may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    rate: Rate,
    /// Of each worker's own rate, which is the whole of it, a connection takes as many units as there are workers: so
    /// that shares need not be whole numbers.
    cost: u64,
    meter: Meter,
}

impl Pace {
    pub(super) fn new(per_second: u32, workers: usize) -> Self {
        let (per_second, cost) = (u64::from(per_second), workers as u64);
        // A second's worth, and at least one connection.
        Self { rate: Rate { per_second, burst: per_second.max(cost) }, cost, meter: Meter::default() }
    }

    /// Takes one connection, or says how long there is to wait, in whole milliseconds.
    fn take(&mut self, now: Millis) -> Result<(), Duration> {
        let taken = self.meter.take(&self.rate, self.cost, now.0.saturating_mul(1_000_000));
        taken.map_err(|wait| Duration::from_millis(wait.as_nanos().div_ceil(1_000_000) as u64))
    }
}

/// What is left in a listener's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Empty,
    /// Perhaps somebody.
    Open,
    /// Perhaps somebody, who has to wait for the pace.
    Held,
}

impl<L> Accepting<L> {
    /// A listener counts as ready at first: whoever came before its registration made no edge.
    pub(super) fn new(listeners: Vec<L>, pace: Option<Pace>) -> Self {
        let listeners = listeners.into_iter().map(|listener| (listener, true)).collect();
        Self { listeners, first: 0, paused_until: None, pace }
    }

    /// Another pace from here on.
    pub(super) fn limit(&mut self, pace: Option<Pace>) {
        // Whoever waits for the old one does not any more; if it is for something else, that is found out again.
        (self.pace, self.paused_until) = (pace, None);
    }

    pub(super) fn count(&self) -> usize {
        self.listeners.len()
    }

    pub(super) fn ready(&mut self, index: usize) {
        if let Some((_, ready)) = self.listeners.get_mut(index) {
            *ready = true;
        }
    }

    /// Whether accepting is to go on right away.
    pub(super) fn is_ready(&self, now: Millis) -> bool {
        self.paused_until.is_none_or(|until| until <= now) && self.listeners.iter().any(|(_, ready)| *ready)
    }

    /// Nobody is kept waiting for what does not come any more.
    pub(super) fn hurry(&mut self) {
        if self.pace.take().is_some() {
            self.paused_until = None;
        }
    }

    /// When a pause ends.
    pub(super) fn next(&self) -> Option<Millis> {
        self.paused_until.filter(|_| self.listeners.iter().any(|(_, ready)| *ready))
    }
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// Accepts from each ready listener, within the budget.
    pub(super) fn accept(&mut self) {
        if !self.accepting.is_ready(self.now) {
            return;
        }
        self.accepting.paused_until = None;
        let mut listeners = std::mem::take(&mut self.accepting.listeners);
        let (first, count) = (self.accepting.first, listeners.len());
        for index in (first..count).chain(0..first) {
            let (listener, ready) = &mut listeners[index];
            if !*ready {
                continue;
            }
            let left = match self.behind(listener) {
                Some(other) => {
                    self.shared.ports[other].post(Envelope::Accept { listener: index });
                    Queue::Empty
                }
                None => self.accept_from(listener),
            };
            *ready = left != Queue::Empty;
            if left == Queue::Held {
                self.accepting.first = (index + 1) % count;
                break;
            }
        }
        self.accepting.listeners = listeners;
    }

    /// The worker to leave a shared queue to. The kernel wakes the same one again and again, as long as it is idle: who has
    /// more than another by so much has that one go on.
    fn behind(&self, listener: &K::Listener) -> Option<usize> {
        if !self.kernel.is_shared(listener) || self.shared.ports.len() == 1 {
            return None;
        }
        let load = |index: usize| {
            let metrics = &self.shared.ports[index].metrics;
            metrics.opening.read() + metrics.open() + metrics.closing.read()
        };
        let least = (0..self.shared.ports.len()).min_by_key(|&index| load(index))?;
        (load(usize::from(self.index)) > load(least) + SHARED_AHEAD_MAX).then_some(least)
    }

    fn accept_from(&mut self, listener: &K::Listener) -> Queue {
        let budget = if self.kernel.is_shared(listener) { SHARED_ACCEPTS_PER_TURN } else { ACCEPTS_PER_TURN };
        for _ in 0..budget {
            let before = self.accepting.pace;
            if let Some(Err(wait)) = self.accepting.pace.as_mut().map(|pace| pace.take(self.now)) {
                // Another listener may have found before that there are no descriptors, which takes longer.
                self.accepting.paused_until = self.accepting.paused_until.max(Some(self.now + wait));
                self.port().metrics.accept_paused.add(1);
                return Queue::Held;
            }
            match self.kernel.accept(listener) {
                Ok((socket, peer)) => self.accepted(socket, peer.into()),
                Err(error) => {
                    self.accepting.pace = before; // nobody came
                    match error.kind() {
                        ErrorKind::WouldBlock => return Queue::Empty,
                        _ if planted(Bug::EmfileIgnored) && sys::is_exhaustion(&error) => return Queue::Empty,
                        ErrorKind::ConnectionAborted if planted(Bug::AbortIgnored) => return Queue::Empty,
                        // A signal; a client that gave up in the queue; or an error of the network that accept(2)
                        // passes on: all of them concern one call.
                        _ if !sys::is_exhaustion(&error) => {}
                        _ => {
                            self.shed(listener, &error);
                            return Queue::Open;
                        }
                    }
                }
            }
        }
        Queue::Open
    }

    /// No descriptor or no memory for another socket. One client is told through the spare descriptor, so that it
    /// does not hang; then accepting pauses, with the edge kept.
    fn shed(&mut self, listener: &K::Listener, error: &std::io::Error) {
        self.port().metrics.accept_errors.add(1);
        if self.log.allows(self.now, "accept") {
            log::warn!(reason = "accept";
                "cannot accept, pausing for {ACCEPT_PAUSE_MS} ms: {error} ({} connections here)",
                self.table.len()
            );
        }
        self.kernel.release_spare();
        if let Ok((socket, peer)) = self.kernel.accept(listener) {
            self.turn_away(&socket, peer.into(), Refused::AtCapacity);
        }
        self.kernel.restore_spare();
        self.accepting.paused_until = Some(self.now + Duration::from_millis(ACCEPT_PAUSE_MS));
    }

    /// A new connection. With TCP_DEFER_ACCEPT its request is there already: it is answered before the socket is
    /// even registered.
    fn accepted(&mut self, socket: K::Socket, peer: Peer) {
        self.port().metrics.accepted.add(1);
        if self.is_short_of_memory() {
            return self.refuse_entry(socket, peer, Refused::MemoryShort);
        }
        let is_counted = match self.take_place(peer) {
            Ok(is_counted) => is_counted,
            Err(refused) => return self.refuse_entry(socket, peer, refused),
        };
        let mut conn = Conn::new(peer, self.now.tick());
        conn.set_counted(is_counted);
        if self.begins_with_preamble(peer) {
            conn.expect_preamble();
        }
        let (slot, serial) = self.table.insert(conn, socket, true);
        self.ages.came(serial, self.now);
        self.port().metrics.opening.add(1);
        self.read(slot, serial, false, false);
        self.attend(slot, serial);
    }

    /// Whether it must be a PROXY header that comes first.
    fn begins_with_preamble(&self, peer: Peer) -> bool {
        self.rules.proxies.as_ref().is_some_and(|proxies| proxies.protocol && proxies.trusts(peer.ip()))
    }

    /// A place of those that the server has, and of those that the client's address may have. Whether it has one of the
    /// latter: a proxy's are its clients', and known later.
    fn take_place(&self, peer: Peer) -> Result<bool, Refused> {
        if self.table.is_full() {
            return Err(Refused::AtCapacity);
        }
        let is_proxy = self.rules.proxies.as_ref().is_some_and(|proxies| proxies.trusts(peer.ip()));
        let source = self.shared.sources.as_ref().zip(peer.ip()).filter(|_| !is_proxy);
        if source.is_some_and(|(sources, ip)| !sources.enter(ip)) {
            return Err(Refused::AddressFull);
        }
        // Behind the address, so that one that has too many takes no place from others, be it for a moment.
        if !self.shared.enter() {
            if let Some((sources, ip)) = source {
                sources.leave(ip);
            }
            return Err(Refused::AtCapacity);
        }
        Ok(source.is_some())
    }

    /// There is no place: the client is told as any other that is refused, in one of the slots kept for that.
    fn refuse_entry(&mut self, socket: K::Socket, peer: Peer, refused: Refused) {
        if self.table.is_overfull() {
            return self.turn_away(&socket, peer, refused);
        }
        self.port().metrics.turned_away.add(1);
        let (slot, serial) = self.table.insert(Conn::new(peer, self.now.tick()), socket, false);
        self.ages.came(serial, self.now);
        self.port().metrics.opening.add(1);
        let Some(entry) = self.table.find(slot, serial) else { return };
        let count = self.kernel.recv(&entry.socket, &mut self.scratch).unwrap_or(0);
        let response = self.no_room(count, peer, refused);
        self.handle(slot, serial, |desk| desk.entry.conn.refuse(&response, false, desk.output, &mut desk.glue));
        self.attend(slot, serial);
    }

    /// Has a new connection watched, if it is still there.
    fn attend(&mut self, slot: u32, serial: u64) {
        // Most have come farther than this by now, and with it to another timer.
        if self.table.find(slot, serial).is_some_and(|entry| !entry.is_armed()) {
            self.wheel.arm(&mut self.table, slot, self.now.tick() + self.rules.head_timeout);
        }
        // Registered last: what came meanwhile is reported by the registration itself.
        let Some(entry) = self.table.find(slot, serial) else {
            return;
        };
        if let Err(error) = self.kernel.register(&entry.socket, token(slot, serial)) {
            self.port().metrics.accept_errors.add(1);
            if self.log.allows(self.now, "unwatched") {
                log::warn!(reason = "unwatched"; "cannot watch a connection (see fs.epoll.max_user_watches): {error}");
            }
            if let Some(entry) = self.table.at(slot) {
                entry.conn.settle(Ended::new(End::Aborted)); // it was there
            }
            self.remove(slot, true);
        }
    }

    /// What a client is told for whom there is no room: an EventSource (its request is the first `count` bytes of the
    /// scratch) when to come back, since any other answer would keep it away for good.
    fn no_room(&mut self, count: usize, peer: Peer, refused: Refused) -> Response {
        let (mut request, mut fields) = (&self.scratch[..count], Fields::new());
        if self.begins_with_preamble(peer)
            && let Ok(Some((length, _))) = Preamble::read(request)
        {
            request = &request[length..];
        }
        if let Ok(Some(end)) = HeadScan::default().advance(request)
            && let Ok(head) = Head::parse(&request[..end], &mut fields)
            && wants_events(&head)
            && self.origins.check(&head).is_ok()
        {
            let headers = cross_origin(&head);
            return Response::come_back(refused, self.between(EVENT_SOURCE_BUSY_RETRY_MS)).headers(headers);
        }
        refused.into()
    }

    /// Answers and closes, without a slot: what the client has sent is read first, as far as it is there, since
    /// closing on unread input would reset the connection before the client reads the answer.
    fn turn_away(&mut self, socket: &K::Socket, peer: Peer, refused: Refused) {
        let metrics = &self.port().metrics;
        metrics.turned_away.add(1);
        metrics.refused.count(refused as usize);
        self.recent.refused(self.unix_ms(), None, peer, (refused, refused.code(), None));
        if self.log.allows(self.now, refused.word()) {
            log::info!(peer:% = peer, status = refused.code(), reason = refused.word(); "refused");
        }
        let count = self.kernel.recv(socket, &mut self.scratch).unwrap_or(0);
        self.no_room(count, peer, refused).write(&mut self.output, Manner::LAST, &self.date);
        // Whatever cannot be sent to a client that is turned away is not sent.
        let _ = self.kernel.send(socket, &self.output);
        let _ = self.kernel.shutdown_write(socket);
        self.output.clear();
    }

    /// Takes whoever is in the queues, and closes the listeners.
    pub(super) fn stop_accepting(&mut self) {
        let listeners = std::mem::take(&mut self.accepting.listeners);
        self.accepting.hurry();
        self.accepting.paused_until = None;
        for (listener, _) in &listeners {
            // Bounded, in case that clients come faster than they are seen to.
            for _ in 0..1024 {
                if self.accept_from(listener) == Queue::Empty || self.accepting.paused_until.is_some() {
                    break;
                }
            }
        }
    }
}
