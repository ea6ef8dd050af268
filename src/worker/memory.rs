//! One budget for all that the process allocates. Over it nobody new comes in, and what connections hold is given back,
//! the largest first: all workers reset those that hold more than a bound, which is halved, from what anybody holds, until it
//! is enough. When nobody holds much any more, it is the logs that are too large: their older halves go.
//!
//! Memory grows only in turns of the loops, so it is looked at there; an idle server is left asleep.

use super::{Envelope, Kernel, Worker};
use crate::config::Memory;
use crate::conn::Ended;
use crate::error::End;
use crate::limits::{MEMORY_LOOK_MS, MEMORY_LOOK_PARTS, SHED_BYTES_MIN};
use crate::service::Service;
use crate::time::Millis;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The budget, as all workers see it.
#[derive(Debug)]
pub(crate) struct Budget {
    used: fn() -> u64,
    bytes_max: AtomicU64,
    /// When somebody looked.
    looked_ms: AtomicU64,
    /// How many workers take in what it is spent on.
    workers: u64,
    /// Who holds more than this is reset; `ROOM`: nobody is.
    bound: AtomicUsize,
    /// Where the bound starts: the most that one connection may hold.
    largest: AtomicUsize,
    /// How many workers have given back since the last look, and the most that a connection holds of those they left.
    given_back: AtomicU64,
    most_left: AtomicUsize,
}

/// When a worker last wondered whether memory is short, and what it had read until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looked {
    pub(super) at: Millis,
    pub(super) read_bytes: u64,
}

/// The bound while there is room.
const ROOM: usize = usize::MAX;

impl Budget {
    pub(crate) fn new(memory: Memory, largest: usize, workers: usize) -> Self {
        let Memory { bytes_max, used } = memory;
        let budget = Self {
            used,
            bytes_max: AtomicU64::new(0),
            looked_ms: AtomicU64::new(0),
            workers: workers as u64,
            bound: AtomicUsize::new(ROOM),
            largest: AtomicUsize::new(0),
            given_back: AtomicU64::new(0),
            most_left: AtomicUsize::new(0),
        };
        budget.limit(bytes_max, largest);
        budget
    }

    /// Another budget from here on.
    pub(crate) fn limit(&self, bytes_max: u64, largest: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.largest.store(largest.next_power_of_two().max(SHED_BYTES_MIN), Ordering::Relaxed);
    }

    /// What is in use, and what may be.
    pub(super) fn used(&self) -> (u64, u64) {
        ((self.used)(), self.bytes_max.load(Ordering::Relaxed))
    }

    /// Whether there is no room for anybody else.
    pub(super) fn is_spent(&self) -> bool {
        self.bound.load(Ordering::Relaxed) != ROOM
    }

    /// How much one worker may read until it is looked again, whatever the clock says: all of them together may have gone
    /// beyond the budget by a part of it then. On a fast network that is less than a look's time of reading.
    fn unseen_bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed) / MEMORY_LOOK_PARTS / self.workers
    }

    /// Looks, if it is time to, or `at_once`: what is to be given back now.
    fn look(&self, now: Millis, at_once: bool) -> Option<usize> {
        let looked_ms = self.looked_ms.load(Ordering::Relaxed);
        let is_time = at_once || now.0 >= looked_ms.saturating_add(MEMORY_LOOK_MS);
        let mine = || self.looked_ms.compare_exchange(looked_ms, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !is_time || !mine() {
            return None;
        }
        let (used, max) = self.used();
        if used <= max {
            if self.bound.swap(ROOM, Ordering::Relaxed) != ROOM {
                log::info!("memory: {used} bytes are in use, within the budget again");
            }
            return None;
        }
        let by_all = self.given_back.swap(0, Ordering::Relaxed) >= self.workers;
        let most_left = self.most_left.swap(0, Ordering::Relaxed);
        let bound = match self.bound.load(Ordering::Relaxed) {
            ROOM => {
                log::warn!(
                    "memory: {used} bytes are in use, {max} may be: refusing connections, resetting those that hold most"
                );
                self.largest.load(Ordering::Relaxed) / 2
            }
            // Above what anybody holds nothing would come of it.
            bound if by_all => (bound.min(most_left) / 2).max(SHED_BYTES_MIN),
            bound => (bound / 2).max(SHED_BYTES_MIN),
        };
        self.bound.store(bound, Ordering::Relaxed);
        Some(bound)
    }

    /// A worker has given back what was above the bound; the most that one of its connections still holds.
    fn note_given_back(&self, most_left: usize) {
        self.most_left.fetch_max(most_left, Ordering::Relaxed);
        self.given_back.fetch_add(1, Ordering::Relaxed);
    }
}

impl<S: Service, K: Kernel> Worker<S, K> {
    pub(super) fn is_short_of_memory(&self) -> bool {
        self.shared.budget.as_ref().is_some_and(Budget::is_spent)
    }

    /// When memory is to be looked at although nothing else happens.
    pub(super) fn memory_look(&self) -> Option<Millis> {
        self.is_short_of_memory().then(|| self.memory_looked.at + Duration::from_millis(MEMORY_LOOK_MS))
    }

    /// Looks whether there is more in use than may be, and has all workers give something back.
    pub(super) fn look_at_memory(&mut self) {
        let Some(budget) = &self.shared.budget else { return };
        let read_bytes = self.port().metrics.bytes_in.read();
        let much_came = read_bytes - self.memory_looked.read_bytes > budget.unseen_bytes_max();
        if !much_came && self.now < self.memory_looked.at + Duration::from_millis(MEMORY_LOOK_MS) {
            return;
        }
        self.memory_looked = Looked { at: self.now, read_bytes };
        let Some(bound) = budget.look(self.now, much_came) else { return };
        for (index, port) in self.shared.ports.iter().enumerate() {
            if index != usize::from(self.index) {
                port.post(Envelope::Shed { bound });
            }
        }
        self.shed_memory(bound);
    }

    /// Resets those that hold more than the bound. At its lowest, the older halves of the logs go too.
    pub(super) fn shed_memory(&mut self, bound: usize) {
        self.uncork();
        let mut most_left = 0;
        for slot in 0..self.table.high() {
            let Some(entry) = self.table.at(slot) else { continue };
            let held = entry.conn.held();
            if held <= bound {
                most_left = most_left.max(held);
                continue;
            }
            let peer = entry.conn.peer();
            entry.conn.settle(Ended::new(End::MemoryShort));
            self.remove(slot, true);
            self.port().metrics.shed.add(1);
            let reason = End::MemoryShort.word();
            if self.log.allows(self.now, reason) {
                log::info!(peer:% = peer, reason, held; "closed");
            }
        }
        if let Some(budget) = &self.shared.budget {
            budget.note_given_back(most_left);
        }
        if bound <= SHED_BYTES_MIN {
            let dropped = self.topics.shrink();
            if dropped > 0 && self.log.allows(self.now, "logs_dropped") {
                log::warn!(reason = "logs_dropped"; "memory: dropped {dropped} bytes of what topics keep");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static USED: AtomicU64 = AtomicU64::new(0);

    #[test]
    fn the_bound_is_halved_until_it_is_enough() {
        let memory = Memory { bytes_max: 1000, used: || USED.load(Ordering::Relaxed) };
        let budget = Budget::new(memory, 60_000, 4);
        let mut now = Millis(0);
        let mut look = |used| {
            USED.store(used, Ordering::Relaxed);
            now = now + Duration::from_millis(MEMORY_LOOK_MS);
            assert_eq!(budget.look(Millis(now.0 - 1), false), None, "it is not time yet");
            let bound = budget.look(now, false);
            assert_eq!(budget.look(now, false), None, "once");
            (bound, budget.is_spent())
        };
        assert_eq!(look(1000), (None, false));
        assert_eq!(look(1001), (Some(32_768), true));
        assert_eq!(look(1001), (Some(16_384), true));
        for _ in 0..10 {
            look(1001);
        }
        assert_eq!(look(1001), (Some(SHED_BYTES_MIN), true), "that is the lowest");
        assert_eq!(look(999), (None, false));
        assert_eq!(look(2000), (Some(32_768), true));
        assert_eq!(budget.look(now, true), Some(16_384), "at once, where much came");
        (0..3).for_each(|_| budget.note_given_back(10_000));
        assert_eq!(budget.look(now, true), Some(8192), "one worker has not, and may have those who hold more");
        [9000, 0, 10_000, 0].into_iter().for_each(|most_left| budget.note_given_back(most_left));
        assert_eq!(
            budget.look(now, true),
            Some(SHED_BYTES_MIN),
            "the bound's half is less than that of what anybody holds"
        );
        budget.limit(1000, 1 << 20);
        USED.store(0, Ordering::Relaxed);
        assert_eq!(budget.look(now, true), None);
        USED.store(2000, Ordering::Relaxed);
        assert_eq!(budget.look(now, true), Some(1 << 19));
        [9000, 0, 10_000, 0].into_iter().for_each(|most_left| budget.note_given_back(most_left));
        assert_eq!(budget.look(now, true), Some(5000), "nobody holds more than twice that");
        assert_eq!(budget.unseen_bytes_max(), 1000 / MEMORY_LOOK_PARTS / 4, "and that is a part of the budget for all");
    }
}
