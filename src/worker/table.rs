//! The connection table: a slab whose room is reserved at the start, so that growth never moves it and memory is
//! touched only as connections come.

use crate::conn::Conn;
use crate::limits::REFUSALS_MAX;
use crate::mem::{Link, Links};
use crate::topic::Place;
use slab::Slab;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A connection with what the worker keeps beside its state machine.
#[derive(Debug)]
pub(super) struct Entry<T, S> {
    pub(super) conn: Conn<T>,
    /// Never used twice in this worker: what makes ids and tokens of one slot differ.
    pub(super) serial: u64,
    link: Link,
    pub(super) socket: S,
    /// Its subscription: the topic's number, `NO_TOPIC` for none.
    topic: u32,
    /// Where it stands among the topic's subscribers; the top bit says that the connection counts among those that the
    /// server may have. One that is only told that there are too many does not.
    index: u32,
}

const NO_TOPIC: u32 = u32::MAX;
const COUNTS: u32 = 1 << 31;

impl<T, S> Entry<T, S> {
    /// Whether it counts among the connections that the server may have.
    pub(super) fn counts(&self) -> bool {
        self.index & COUNTS != 0
    }

    /// Where its subscription stands, if it has one.
    #[inline]
    pub(super) fn place(&self) -> Option<Place> {
        (self.topic != NO_TOPIC).then_some(Place { topic: self.topic, index: self.index & !COUNTS })
    }

    pub(super) fn set_place(&mut self, place: Option<Place>) {
        let Place { topic, index } = place.unwrap_or(Place { topic: NO_TOPIC, index: 0 });
        self.topic = topic;
        self.index = index | self.index & COUNTS;
    }

    /// Whether its timer is armed.
    pub(super) fn is_armed(&self) -> bool {
        self.link.deadline().is_some()
    }
}

// A connection is one cache line.
const _: () = assert!(size_of::<Entry<(), crate::sys::Socket>>() <= 64);

/// Which slots are live, for other threads to look at: the low half of the serial, 0 for a free slot.
#[derive(Debug)]
pub(crate) struct Live(Box<[AtomicU32]>);

impl Live {
    pub(crate) fn new(slots: usize) -> Self {
        Self((0..slots + REFUSALS_MAX).map(|_| AtomicU32::new(0)).collect())
    }

    /// Whether that connection was there a moment ago. The worker itself has the last word.
    pub(crate) fn is_live(&self, slot: u32, serial: u64) -> bool {
        self.0.get(slot as usize).is_some_and(|live| live.load(Ordering::Acquire) == serial as u32)
    }

    fn set(&self, slot: u32, serial: u64) {
        self.0[slot as usize].store(serial as u32, Ordering::Release);
    }
}

#[derive(Debug)]
pub(super) struct Table<T, S> {
    slab: Slab<Entry<T, S>>,
    live: Arc<Live>,
    last_serial: u64,
    /// One more than the highest slot ever used.
    high: u32,
    slots: usize,
    /// How many are in it without a place.
    refusals: usize,
}

impl<T, S> Table<T, S> {
    pub(super) fn new(slots: usize, live: Arc<Live>) -> Self {
        Self { slab: Slab::with_capacity(slots + REFUSALS_MAX), live, last_serial: 0, high: 0, slots, refusals: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether all slots for connections are taken.
    pub(super) fn is_full(&self) -> bool {
        self.slab.len() - self.refusals >= self.slots
    }

    /// Whether those are taken, too, that are kept for telling clients that the others are.
    pub(super) fn is_overfull(&self) -> bool {
        self.refusals >= REFUSALS_MAX
    }

    /// One more than the highest slot that may be taken.
    pub(super) fn high(&self) -> u32 {
        self.high
    }

    pub(super) fn insert(&mut self, conn: Conn<T>, socket: S, counts: bool) -> (u32, u64) {
        assert!(if counts { !self.is_full() } else { !self.is_overfull() }, "the caller looks first");
        self.refusals += usize::from(!counts);
        self.last_serial += 1;
        if self.last_serial as u32 == 0 {
            self.last_serial += 1; // 0 stands for a free slot in `Live`
        }
        let serial = self.last_serial;
        let (link, index) = (Link::default(), if counts { COUNTS } else { 0 });
        let slot = self.slab.insert(Entry { conn, serial, link, socket, topic: NO_TOPIC, index }) as u32;
        self.live.set(slot, serial);
        self.high = self.high.max(slot + 1);
        (slot, serial)
    }

    /// The connection in that slot, if it is still the one of that serial.
    #[inline]
    pub(super) fn find(&mut self, slot: u32, serial: u64) -> Option<&mut Entry<T, S>> {
        self.slab.get_mut(slot as usize).filter(|entry| entry.serial == serial)
    }

    /// The connection in that slot, whichever it is.
    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Entry<T, S>> {
        self.slab.get_mut(slot as usize)
    }

    /// Frees a slot, whose timer must have been cancelled.
    pub(super) fn remove(&mut self, slot: u32) -> Entry<T, S> {
        self.live.set(slot, 0);
        let entry = self.slab.remove(slot as usize);
        self.refusals -= usize::from(!entry.counts());
        assert!(!entry.is_armed(), "a freed slot left its timer behind");
        entry
    }
}

impl<T, S> Links for Table<T, S> {
    fn link(&mut self, slot: u32) -> &mut Link {
        &mut self.slab[slot as usize].link
    }
}
