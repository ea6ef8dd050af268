//! A worker's mailbox: many threads put envelopes in, one takes them out.

use crate::planted::{Bug, planted};
use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// A queue whose owner is woken once per burst.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Mutex<VecDeque<T>>,
    /// A wakeup is under way that the owner has not seen yet: whoever sets it must wake the owner.
    ringing: AtomicBool,
    /// How often its owner was woken, for the simulation.
    #[cfg(any(test, fuzzing))]
    rings: std::sync::atomic::AtomicUsize,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            ringing: AtomicBool::new(false),
            #[cfg(any(test, fuzzing))]
            rings: std::sync::atomic::AtomicUsize::new(0),
        }
    }
}

impl<T> Mailbox<T> {
    /// Puts an envelope in. `true`: the caller must wake the owner; else somebody has.
    #[must_use = "the owner sleeps until it is woken"]
    pub fn post(&self, envelope: T) -> bool {
        // No code that can panic runs under the lock, so a poisoned one is a sound one.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(envelope);
        !self.ringing.swap(true, Ordering::AcqRel)
    }

    /// Takes out everything, into an empty `batch`. What is posted from here on rings again: the flag is cleared
    /// before the lock is taken, so a sender that locks later sees it cleared, and one that locked earlier had its
    /// envelope in time.
    pub fn take(&self, batch: &mut VecDeque<T>) {
        debug_assert!(batch.is_empty());
        if !planted(Bug::RingingStays) {
            self.ringing.store(false, Ordering::Release);
        }
        mem::swap(batch, &mut self.queue.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// How many envelopes are in it.
    pub fn len(&self) -> usize {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a wakeup is under way.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_ringing(&self) -> bool {
        self.ringing.load(Ordering::Acquire)
    }

    /// Its owner has been woken.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn rang(&self) {
        self.rings.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn rings(&self) -> usize {
        self.rings.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;

    #[test]
    fn a_burst_rings_once_and_nothing_is_lost_between_bursts() {
        let (mailbox, (ring, bell)) = (Arc::new(Mailbox::default()), mpsc::channel());
        let senders: Vec<_> = (0..4_u64)
            .map(|sender| {
                let (mailbox, ring) = (Arc::clone(&mailbox), ring.clone());
                std::thread::spawn(move || {
                    for number in 0..50_000 {
                        if mailbox.post((sender, number)) {
                            ring.send(()).expect("the receiver outlives the senders");
                        }
                    }
                })
            })
            .collect();
        drop(ring);
        // Takes only when rung: whatever arrived without a ring would be missing at the end.
        let (mut next, mut batch) = ([0; 4], VecDeque::new());
        while bell.recv().is_ok() {
            mailbox.take(&mut batch);
            for (sender, number) in batch.drain(..) {
                assert_eq!(next[sender as usize], number);
                next[sender as usize] += 1;
            }
        }
        senders.into_iter().for_each(|sender| sender.join().expect("no sender panics"));
        assert_eq!(next, [50_000; 4]);
    }
}
