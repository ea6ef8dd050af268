//! Permits for what only so many threads should do at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A number of permits, and a queue of those who wait for one. Nobody sleeps here: who is granted one is woken by
/// whoever gave it back.
#[derive(Debug)]
pub struct Permits {
    inner: Mutex<Inner>,
    /// By number: it was granted one and has not noticed yet.
    granted: Box<[AtomicBool]>,
}

#[derive(Debug)]
struct Inner {
    free: usize,
    /// Each at most once.
    waiting: VecDeque<u16>,
}

impl Permits {
    /// So many permits, for those numbered from 0 to `takers`.
    pub fn new(permits: usize, takers: usize) -> Self {
        let inner = Mutex::new(Inner { free: permits, waiting: VecDeque::new() });
        Self { inner, granted: (0..takers).map(|_| AtomicBool::new(false)).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that can panic runs under the lock, so a poisoned one is a sound one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one. `false`: there is none, and `taker` waits until it [`was_granted`](Self::was_granted) one.
    pub fn take(&self, taker: u16) -> bool {
        let mut inner = self.lock();
        if inner.free > 0 {
            inner.free -= 1;
            return true;
        }
        inner.waiting.push_back(taker);
        false
    }

    /// Whether one that waited has got one; asked once, it is taken note of.
    pub fn was_granted(&self, taker: u16) -> bool {
        self.granted[usize::from(taker)].swap(false, Ordering::AcqRel)
    }

    /// Whether one that waits has got one.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_granted(&self, taker: u16) -> bool {
        self.granted[usize::from(taker)].load(Ordering::Acquire)
    }

    /// Gives one back: to whoever waits longest, who is to be woken.
    pub fn give(&self) -> Option<u16> {
        let mut inner = self.lock();
        let next = self.grant(&mut inner);
        inner.free += usize::from(next.is_none());
        next
    }

    /// Hands one on, if somebody waits, and waits for the next one behind them.
    pub fn pass(&self, taker: u16) -> Option<u16> {
        let mut inner = self.lock();
        let next = self.grant(&mut inner)?;
        inner.waiting.push_back(taker);
        Some(next)
    }

    fn grant(&self, inner: &mut Inner) -> Option<u16> {
        let next = inner.waiting.pop_front()?;
        self.granted[usize::from(next)].store(true, Ordering::Release);
        Some(next)
    }

    /// Waits no longer. What was granted meanwhile goes on, to the one that is to be woken.
    pub fn give_up(&self, taker: u16) -> Option<u16> {
        self.lock().waiting.retain(|&waiting| waiting != taker);
        if self.was_granted(taker) { self.give() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_longest_is_next() {
        let permits = Permits::new(2, 5);
        assert!(permits.take(0) && permits.take(1) && !permits.take(2) && !permits.take(3));
        assert!(!permits.was_granted(2));
        assert_eq!(permits.pass(0), Some(2));
        assert!(permits.was_granted(2) && !permits.was_granted(2));
        assert_eq!(permits.give(), Some(3));
        assert_eq!(permits.give(), Some(0), "it went to the end of the queue");
        assert_eq!((permits.pass(3), permits.give(), permits.give()), (None, None, None));
        assert!(permits.take(4) && permits.take(1) && !permits.take(0), "two again");
    }

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let permits = Permits::new(1, 3);
        assert!(permits.take(0) && !permits.take(1) && !permits.take(2));
        assert_eq!(permits.give_up(1), None, "it only waited");
        assert_eq!(permits.give(), Some(2));
        assert_eq!(permits.give_up(2), None, "it had been granted one, which is free now");
        assert!(permits.take(1));
    }
}
