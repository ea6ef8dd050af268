//! When to come back: later each time, and not all at once.

use std::time::Duration;
use throng::mem::Rng;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Attempts in a row that led to nothing.
#[derive(Debug)]
pub(super) struct Backoff {
    attempts: u32,
    rng: Rng,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { attempts: 0, rng: Rng::new(seed) }
    }

    /// One led to something.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How long to wait: doubled each time, of that between a half and the whole. At least `asked`, which the server said.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.attempts.min(10)).min(LONGEST);
        self.attempts += 1;
        let half = whole / 2;
        let jitter = Duration::from_millis(self.rng.below(half.as_millis() as u64 + 1));
        (half + jitter).max(asked.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_begin_anew() {
        let mut backoff = Backoff::new(1);
        let waits: Vec<_> = (0..12).map(|_| backoff.next(None)).collect();
        for (at, wait) in waits.iter().enumerate() {
            let whole = (FIRST * (1 << at.min(8))).min(LONGEST);
            assert!((whole / 2..=whole).contains(wait), "{at}: {wait:?}");
        }
        assert_ne!(waits[10], waits[11], "spread");
        backoff.reset();
        assert!(backoff.next(None) <= FIRST);
        assert_eq!(backoff.next(Some(Duration::from_secs(99))), Duration::from_secs(99));
    }
}
