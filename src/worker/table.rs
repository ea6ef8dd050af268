//! The connection table: a slab whose room is reserved at the start, so that growth never moves it and memory is
//! touched only as connections come.

use super::sources::Sources;
use crate::conn::Conn;
use crate::limits::REFUSALS_MAX;
use crate::mem::{Link, Links};
use crate::topic::Place;
use slab::Slab;
use std::collections::HashMap;
use std::ops::Range;
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
    /// Its first subscription: the topic's number, `NO_TOPIC` for none.
    topic: u32,
    /// Where it stands among the topic's subscribers, or its ticket, and the two bits.
    index: u32,
}

const NO_TOPIC: u32 = u32::MAX;
/// The connection counts among those that the server may have. One that is only told that there are too many does not.
const COUNTS: u32 = 1 << 31;
/// The first subscription has been asked for: the rest of `index` is its ticket.
const ASKED: u32 = 1 << 30;

/// A subscription, as its connection knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subscription {
    /// The topic's home has been asked. The ticket tells apart who asked, went and asked again.
    Asked { topic: u32, ticket: u32 },
    /// Where it stands among the topic's subscribers.
    Placed(Place),
}

impl Subscription {
    /// Makes a ticket of a counter.
    pub(super) fn ticket(count: u32) -> u32 {
        count % ASKED
    }

    pub(super) fn topic(self) -> u32 {
        match self {
            Self::Asked { topic, .. } | Self::Placed(Place { topic, .. }) => topic,
        }
    }

    pub(super) fn place(self) -> Option<Place> {
        match self {
            Self::Placed(place) => Some(place),
            Self::Asked { .. } => None,
        }
    }
}

impl<T, S> Entry<T, S> {
    /// Whether it counts among the connections that the server may have.
    pub(super) fn counts(&self) -> bool {
        self.index & COUNTS != 0
    }

    /// Its first subscription, if it has that.
    #[inline]
    pub(super) fn subscription(&self) -> Option<Subscription> {
        let (topic, index) = (self.topic, self.index & !(COUNTS | ASKED));
        match self.index & ASKED {
            _ if topic == NO_TOPIC => None,
            0 => Some(Subscription::Placed(Place { topic, index })),
            _ => Some(Subscription::Asked { topic, ticket: index }),
        }
    }

    fn set_subscription(&mut self, subscription: Option<Subscription>) {
        let (topic, index) = match subscription {
            None => (NO_TOPIC, 0),
            Some(Subscription::Placed(Place { topic, index })) => (topic, index),
            Some(Subscription::Asked { topic, ticket }) => (topic, ticket | ASKED),
        };
        self.topic = topic;
        self.index = index | self.index & COUNTS;
    }

    /// Whether its timer is armed.
    pub(super) fn is_armed(&self) -> bool {
        self.link.deadline().is_some()
    }
}

// A connection is one cache line, with a service's state of a byte that has values to spare.
const _: () = assert!(size_of::<Entry<(), crate::sys::Socket>>() <= 64);
const _: () = assert!(size_of::<Entry<bool, crate::sys::Socket>>() <= 64);

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

    /// Where the connection of that serial is, if it is there.
    pub(crate) fn slot_of(&self, serial: u64) -> Option<u32> {
        self.0.iter().position(|live| live.load(Ordering::Acquire) == serial as u32).map(|slot| slot as u32)
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
    /// Where connections are counted by their address, too.
    sources: Option<Arc<Sources>>,
    /// How many are in it without a place.
    refusals: usize,
    /// Subscriptions beyond the first, by slot.
    more: HashMap<u32, Vec<Option<Subscription>>>,
}

impl<T, S> Table<T, S> {
    pub(super) fn new(slots: usize, live: Arc<Live>, sources: Option<Arc<Sources>>) -> Self {
        let slab = Slab::with_capacity(slots + REFUSALS_MAX);
        Self { slab, live, last_serial: 0, high: 0, slots, sources, refusals: 0, more: HashMap::new() }
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

    /// What it takes of memory: as far as it was ever in use.
    pub(super) fn bytes(&self) -> usize {
        self.high as usize * size_of::<Entry<T, S>>()
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

    /// The same, to look at.
    pub(super) fn get(&self, slot: u32) -> Option<&Entry<T, S>> {
        self.slab.get(slot as usize)
    }

    /// The connection in that slot, whichever it is.
    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Entry<T, S>> {
        self.slab.get_mut(slot as usize)
    }

    /// The subscription with that number of that slot.
    pub(super) fn subscription(&self, slot: u32, nth: u16) -> Option<Subscription> {
        match nth.checked_sub(1) {
            None => self.slab.get(slot as usize)?.subscription(),
            Some(beyond) => *self.more.get(&slot)?.get(usize::from(beyond))?,
        }
    }

    /// The numbers that subscriptions of that slot may have.
    pub(super) fn numbers(&self, slot: u32) -> Range<u16> {
        let beyond = if self.more.is_empty() { 0 } else { self.more.get(&slot).map_or(0, Vec::len) };
        0..1 + beyond as u16
    }

    /// The subscriptions of that slot, with their numbers.
    pub(super) fn subscriptions(&self, slot: u32) -> impl Iterator<Item = (u16, Subscription)> {
        self.numbers(slot).filter_map(move |nth| Some((nth, self.subscription(slot, nth)?)))
    }

    /// Sets or ends the subscription with that number, of a connection that is there.
    pub(super) fn set_subscription(&mut self, slot: u32, nth: u16, subscription: Option<Subscription>) {
        let Some(beyond) = nth.checked_sub(1).map(usize::from) else {
            return self.slab[slot as usize].set_subscription(subscription);
        };
        let more = self.more.entry(slot).or_default();
        if beyond >= more.len() {
            more.resize(beyond + 1, None);
        }
        more[beyond] = subscription;
        while more.last().is_some_and(Option::is_none) {
            more.pop();
        }
        if more.is_empty() {
            self.more.remove(&slot);
        }
    }

    /// A number that no subscription of that slot has, of those below `most`.
    pub(super) fn vacancy(&self, slot: u32, most: usize) -> Option<u16> {
        let most = u16::try_from(most).unwrap_or(u16::MAX);
        let end = self.numbers(slot).end.saturating_add(1).min(most);
        (0..end).find(|&nth| self.subscription(slot, nth).is_none())
    }

    /// Frees a slot, whose timer must have been cancelled and whose subscriptions have ended, and its address's place.
    pub(super) fn remove(&mut self, slot: u32) -> Entry<T, S> {
        self.live.set(slot, 0);
        let entry = self.slab.remove(slot as usize);
        self.refusals -= usize::from(!entry.counts());
        if let Some((sources, ip)) =
            self.sources.as_ref().zip(entry.conn.peer().ip()).filter(|_| entry.conn.is_counted())
        {
            sources.leave(ip);
        }
        assert!(!entry.is_armed(), "a freed slot left its timer behind");
        debug_assert!(entry.topic == NO_TOPIC && !self.more.contains_key(&slot));
        entry
    }
}

impl<T, S> Links for Table<T, S> {
    fn link(&mut self, slot: u32) -> &mut Link {
        &mut self.slab[slot as usize].link
    }
}
