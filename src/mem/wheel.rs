//! The timer wheel: every connection's one timer, armed, moved and cancelled in O(1).
//!
//! Hashed, one level (Varghese and Lauck 1987, scheme 6): a deadline goes into the bucket of its tick modulo the
//! number of buckets. Deadlines within one revolution (131 s) are looked at once, when they are due; farther
//! ones once more a revolution. The lists run through the connections themselves ([`Link`], 12 bytes), so a
//! timer needs no memory of its own.
//!
//! Expired timers move to a list of their own, from which the loop takes as many as it likes in a turn; until
//! then they can be cancelled like all others.

use crate::time::Tick;

/// Buckets: with ticks of 64 ms a revolution is 131 s, longer than any default deadline; 8 KiB.
const BUCKETS: usize = 2048;
const WORDS: usize = BUCKETS / 64;

/// The end of a list.
const NIL: u32 = u32::MAX;
/// `prev` of a timer that is not armed.
const UNARMED: u32 = u32::MAX - 1;

/// A timer's place in the wheel, kept in what it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The neighbours' slots.
    prev: u32,
    next: u32,
    deadline: Tick,
}

impl Default for Link {
    fn default() -> Self {
        Self { prev: UNARMED, next: NIL, deadline: Tick(0) }
    }
}

impl Link {
    /// When it fires, if it is armed.
    pub fn deadline(&self) -> Option<Tick> {
        (self.prev != UNARMED).then_some(self.deadline)
    }
}

/// Where the links are kept: slot in, link out. Slots are below `u32::MAX - 2`.
pub trait Links {
    /// The link of a slot that is or was just armed.
    fn link(&mut self, slot: u32) -> &mut Link;
}

/// The wheel. Time is what [`advance`](Self::advance) was last given.
///
/// Invariant: an armed timer is in the expired list if its deadline is due at `now`, else in its bucket.
#[derive(Debug)]
pub struct Wheel {
    heads: Box<[u32; BUCKETS]>,
    /// A bit for each bucket that is not empty, so that the next one is found by words.
    occupied: [u64; WORDS],
    expired: u32,
    now: Tick,
    armed: usize,
}

impl Wheel {
    /// An empty wheel.
    pub fn new(now: Tick) -> Self {
        Self { heads: Box::new([NIL; BUCKETS]), occupied: [0; WORDS], expired: NIL, now, armed: 0 }
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Arms the timer of `slot` for `deadline`, whether or not it was armed before. One that is due already
    /// fires at the next occasion.
    pub fn arm(&mut self, links: &mut impl Links, slot: u32, deadline: Tick) {
        debug_assert!(slot < UNARMED);
        self.cancel(links, slot);
        self.armed += 1;
        self.insert(links, slot, deadline);
    }

    /// Disarms the timer of `slot`, if it is armed.
    pub fn cancel(&mut self, links: &mut impl Links, slot: u32) {
        let Link { prev, next, deadline } = *links.link(slot);
        if prev == UNARMED {
            return;
        }
        links.link(slot).prev = UNARMED;
        self.armed -= 1;
        if next != NIL {
            links.link(next).prev = prev;
        }
        if prev != NIL {
            links.link(prev).next = next;
        } else {
            self.set_head(deadline, next);
        }
    }

    /// Moves time to `now` and what has become due to the expired list. O(ticks passed + timers in their
    /// buckets).
    pub fn advance(&mut self, links: &mut impl Links, now: Tick) {
        let passed = now.minus(self.now);
        if passed <= 0 {
            return; // a clock that stands still, or was set back by a simulation
        }
        let from = self.now;
        self.now = now;
        for step in 1..=(passed as usize).min(BUCKETS) {
            let bucket = bucket_of(Tick(from.0.wrapping_add(step as u32)));
            let mut slot = std::mem::replace(&mut self.heads[bucket], NIL);
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            while slot != NIL {
                let Link { next, deadline, .. } = *links.link(slot);
                self.insert(links, slot, deadline); // to the expired list, or back for another revolution
                slot = next;
            }
        }
    }

    /// Takes one expired timer; it is no longer armed.
    pub fn pop(&mut self, links: &mut impl Links) -> Option<u32> {
        let slot = self.expired;
        (slot != NIL).then(|| {
            self.cancel(links, slot);
            slot
        })
    }

    /// When to look again: now, if something has expired; else the first tick whose bucket is not empty, which
    /// may turn out to belong to a later revolution. `None` when nothing is armed.
    pub fn next(&self) -> Option<Tick> {
        if self.expired != NIL {
            return Some(self.now);
        }
        let start = bucket_of(self.now) + 1;
        // The word that holds the first bucket is looked at twice: its upper bits first, its lower bits last.
        (0..=WORDS).find_map(|step| {
            let word = (start / 64 + step) % WORDS;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            }
            (bits != 0).then(|| {
                let bucket = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (bucket + BUCKETS - start) % BUCKETS + 1;
                Tick(self.now.0.wrapping_add(ahead as u32))
            })
        })
    }

    fn insert(&mut self, links: &mut impl Links, slot: u32, deadline: Tick) {
        let head = self.head(deadline);
        *links.link(slot) = Link { prev: NIL, next: head, deadline };
        if head != NIL {
            links.link(head).prev = slot;
        }
        self.set_head(deadline, slot);
    }

    fn head(&self, deadline: Tick) -> u32 {
        if deadline.is_due(self.now) { self.expired } else { self.heads[bucket_of(deadline)] }
    }

    fn set_head(&mut self, deadline: Tick, slot: u32) {
        if deadline.is_due(self.now) {
            self.expired = slot;
            return;
        }
        let bucket = bucket_of(deadline);
        self.heads[bucket] = slot;
        let bit = 1 << (bucket % 64);
        match slot {
            NIL => self.occupied[bucket / 64] &= !bit,
            _ => self.occupied[bucket / 64] |= bit,
        }
    }
}

fn bucket_of(tick: Tick) -> usize {
    tick.0 as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Rng;
    use std::collections::BTreeMap;

    impl Links for Vec<Link> {
        fn link(&mut self, slot: u32) -> &mut Link {
            &mut self[slot as usize]
        }
    }

    /// Random operations beside an ordered map, across the wrap of the clock.
    #[test]
    fn agrees_with_an_ordered_map() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut now = Tick(u32::MAX - rng.below(5000) as u32);
            let mut wheel = Wheel::new(now);
            let mut links = vec![Link::default(); 50];
            let mut naive = BTreeMap::<u32, Tick>::new();
            for _ in 0..2000 {
                let slot = rng.below(50) as u32;
                match rng.below(8) {
                    0..=3 => {
                        let far = if rng.below(5) == 0 { 10_000 } else { 300 };
                        let deadline = Tick(now.0.wrapping_add(rng.below(far) as u32));
                        wheel.arm(&mut links, slot, deadline);
                        naive.insert(slot, deadline);
                    }
                    4 => {
                        wheel.cancel(&mut links, slot);
                        naive.remove(&slot);
                    }
                    5 => {
                        // A budget that is smaller than what is due.
                        if let Some(slot) = wheel.pop(&mut links) {
                            assert!(naive.remove(&slot).is_some_and(|deadline| deadline.is_due(now)), "seed {seed}");
                        }
                    }
                    _ => {
                        let far = if rng.below(20) == 0 { 9000 } else { 40 };
                        now = Tick(now.0.wrapping_add(rng.below(far) as u32));
                        wheel.advance(&mut links, now);
                        while let Some(slot) = wheel.pop(&mut links) {
                            let deadline = naive.remove(&slot);
                            assert!(deadline.is_some_and(|deadline| deadline.is_due(now)), "seed {seed}: early");
                        }
                        assert!(naive.values().all(|deadline| !deadline.is_due(now)), "seed {seed}: late");
                    }
                }
                assert_eq!(wheel.len(), naive.len());
                let first = naive.values().map(|deadline| deadline.minus(now).max(0)).min();
                match (wheel.next(), first) {
                    (None, None) => {}
                    (Some(next), Some(first)) => assert!(next.minus(now) <= first, "seed {seed}: would sleep too long"),
                    (next, first) => panic!("seed {seed}: {next:?} beside {first:?}"),
                }
            }
        }
    }

    #[test]
    fn the_next_tick_is_exact_within_a_revolution() {
        let mut links = vec![Link::default(); 1];
        for start in [0, 1, 63, 64, 2046, 2047, u32::MAX] {
            for ahead in [1, 2, 63, 64, 65, 1000, 2047, 2048] {
                let mut wheel = Wheel::new(Tick(start));
                let deadline = Tick(start.wrapping_add(ahead));
                wheel.arm(&mut links, 0, deadline);
                assert_eq!(wheel.next(), Some(deadline), "start {start}, ahead {ahead}");
                wheel.cancel(&mut links, 0);
                assert_eq!(wheel.next(), None);
            }
        }
    }
}
