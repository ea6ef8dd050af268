//! The connections of one worker.

use crate::clock::{Nanos, Stamp};
use std::collections::VecDeque;
use throng::client::EventStream;
use throng::mem::Outbox;
use throng::sys::Socket;
use throng::ws::Partial;

/// Where a connection stands.
///
/// ```text
/// Free -> Connecting -> Waiting -> (Joining ->) Open -> Closing -> Closed -> Free
///              \___________\____________\________\_________\____________/    whenever the stream ends
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No connection.
    #[default]
    Free,
    /// connect(2) is under way; the request has not been sent.
    Connecting,
    /// The request has been sent.
    Waiting,
    /// It is a WebSocket, and Centrifugo's commands have been sent.
    Joining,
    /// Open.
    Open,
    /// We sent Close and wait for the answer.
    Closing,
    /// Both have said Close; the server ends the stream (RFC 6455, section 7.1.1).
    Closed,
}

/// A connection: 24 bytes and the mode's own state. What is rare hangs off one pointer.
#[derive(Debug)]
pub(crate) struct Conn<S> {
    pub(crate) socket: Option<Socket>,
    pub(crate) phase: Phase,
    /// Which key was sent.
    pub(crate) key: u8,
    /// Pings seen; stays at 255.
    pub(crate) pings: u8,
    /// The poller also tells when it can be written. Only sockets that were full once are asked about.
    pub(crate) watched_for_writing: bool,
    /// It is not read, whatever comes: a slow reader.
    pub(crate) is_paused: bool,
    /// When the handshake or the closing began: what its deadline goes by, and who it was by which a stale
    /// entry in a deadline queue is known.
    pub(crate) stamp: Stamp,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) state: S,
}

impl<S: Default> Default for Conn<S> {
    fn default() -> Self {
        Self {
            socket: None,
            phase: Phase::Free,
            key: 0,
            pings: 0,
            watched_for_writing: false,
            is_paused: false,
            stamp: Stamp::default(),
            rare: None,
            state: S::default(),
        }
    }
}

// An idle connection has no state of its own.
const _: () = assert!(size_of::<Conn<()>>() <= 32);

/// What few connections have at a time.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    /// A message under way.
    pub(crate) partial: Option<Box<Partial>>,
    /// What the socket would not take.
    pub(crate) outbox: Outbox,
    /// What has come of an answer's head, or of an answer to a poll.
    pub(crate) head: Vec<u8>,
    /// Bytes of it before it is worth another look.
    pub(crate) needed: usize,
    /// An event under way.
    pub(crate) stream: Option<Box<EventStream>>,
    /// What Centrifugo's commands are to ask for, or have asked for: to go on from here.
    pub(crate) cursor: Vec<u8>,
}

impl Rare {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { partial, outbox, head, needed: _, stream, cursor } = self;
        partial.is_none() && outbox.is_empty() && head.is_empty() && stream.is_none() && cursor.is_empty()
    }
}

/// Connections by slot. The memory is reserved at once and never moves; its pages are touched as they are used.
#[derive(Debug)]
pub(crate) struct Table<S> {
    conns: Vec<Conn<S>>,
    free: Vec<u32>,
    capacity: usize,
}

impl<S: Default> Table<S> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { conns: Vec::with_capacity(capacity), free: Vec::new(), capacity }
    }

    /// A slot that is free, if there is one.
    pub(crate) fn claim(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        (self.conns.len() < self.capacity).then(|| {
            self.conns.push(Conn::default());
            self.conns.len() as u32 - 1
        })
    }

    /// Takes a slot that was in use and is free.
    pub(crate) fn claim_again(&mut self, slot: u32) -> bool {
        // Mostly it has just been left.
        let Some(index) = self.free.iter().rposition(|&free| free == slot) else { return false };
        self.free.swap_remove(index);
        true
    }

    /// Empties a slot, which closes its socket, and gives the mode's state back.
    pub(crate) fn release(&mut self, slot: u32) -> S {
        let conn = std::mem::take(&mut self.conns[slot as usize]);
        debug_assert!(!self.free.contains(&slot) || self.free.len() > 64);
        self.free.push(slot);
        conn.state
    }

    /// Slots in use.
    pub(crate) fn len(&self) -> usize {
        self.conns.len() - self.free.len()
    }

    /// Slots that were ever used: all that are in use lie below.
    pub(crate) fn slots(&self) -> u32 {
        self.conns.len() as u32
    }

    pub(crate) fn bytes(&self) -> usize {
        self.conns.len() * size_of::<Conn<S>>() + self.free.capacity() * size_of::<u32>()
    }
}

impl<S> std::ops::Index<u32> for Table<S> {
    type Output = Conn<S>;

    #[inline]
    fn index(&self, slot: u32) -> &Conn<S> {
        &self.conns[slot as usize]
    }
}

impl<S> std::ops::IndexMut<u32> for Table<S> {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut Conn<S> {
        &mut self.conns[slot as usize]
    }
}

/// Deadlines that all lie equally far ahead, so that they come due in the order in which they were set: no
/// timer in any connection. An entry whose connection has gone on is dropped when it comes to the front.
#[derive(Debug)]
pub(crate) struct Deadlines {
    queue: VecDeque<(u32, Stamp)>,
    after_us: u32,
}

impl Deadlines {
    pub(crate) fn new(after: std::time::Duration) -> Self {
        Self { queue: VecDeque::new(), after_us: u32::try_from(after.as_micros()).unwrap_or(u32::MAX / 2) }
    }

    pub(crate) fn push(&mut self, slot: u32, stamp: Stamp) {
        self.queue.push_back((slot, stamp));
    }

    /// A slot whose deadline has passed. `stands` says whether an entry still means its connection.
    pub(crate) fn expired(&mut self, now: Nanos, stands: impl Fn(u32, Stamp) -> bool) -> Option<u32> {
        while let Some(&(slot, stamp)) = self.queue.front() {
            let stands = stands(slot, stamp);
            if stands && stamp.age_us(now) < self.after_us {
                return None;
            }
            self.queue.pop_front();
            if stands {
                return Some(slot);
            }
        }
        // What a burst needed is given back.
        if self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        None
    }

    /// When to look again.
    pub(crate) fn next(&self, now: Nanos) -> Option<Nanos> {
        let &(_, stamp) = self.queue.front()?;
        let left_us = self.after_us.saturating_sub(stamp.age_us(now));
        Some(now + std::time::Duration::from_micros(u64::from(left_us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn slots_are_bounded_and_used_again() {
        let mut table = Table::<()>::with_capacity(2);
        let (first, second) = (table.claim().unwrap(), table.claim().unwrap());
        assert_eq!((first, second, table.claim(), table.len()), (0, 1, None, 2));
        table.release(first);
        assert_eq!((table.len(), table.claim(), table.claim()), (1, Some(first), None));
        table.release(first);
        table.release(second);
        assert!(table.claim_again(first) && !table.claim_again(first));
        assert_eq!((table.len(), table.claim(), table.claim()), (1, Some(second), None));
    }

    #[test]
    fn a_deadline_whose_connection_went_on_never_fires() {
        let mut deadlines = Deadlines::new(Duration::from_secs(1));
        let moment = |ms: u64| Nanos(ms * 1_000_000);
        for slot in 0..3 {
            deadlines.push(slot, moment(u64::from(slot) * 10).stamp());
        }
        let stands = |slot, _| slot != 1;
        assert_eq!(deadlines.expired(moment(999), stands), None);
        assert_eq!(deadlines.next(moment(999)), Some(moment(1000)));
        assert_eq!(deadlines.expired(moment(1015), stands), Some(0));
        assert_eq!(deadlines.expired(moment(1015), stands), None);
        assert_eq!(deadlines.expired(moment(1020), stands), Some(2));
        assert_eq!((deadlines.expired(moment(9999), stands), deadlines.next(moment(9999))), (None, None));
    }
}
