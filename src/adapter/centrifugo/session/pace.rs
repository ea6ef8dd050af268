//! How many commands a client may send: a token bucket, kept as the moment at which it is full again (the generic cell rate
//! algorithm of ATM's traffic management), in 8 bytes.
//!
//! ```text
//!   full again in:  0 ........ burst ............ 2 * burst
//!                    as asked   | error 111, or 3013 |  3013
//!                               | without a reply    |
//! ```
//!
//! What is refused counts too: whoever goes on all the same is disconnected.

use super::super::codes::{DisconnectCode, ErrorCode};
use super::super::protocol::{Command, Request};
use super::{Output, Rules, Session};
use std::num::NonZeroU32;

/// How many commands each client may send. Pongs and the connect do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandRate {
    /// Between two commands in the long run, in microseconds.
    interval_us: u64,
    /// At once, after a while without any.
    burst: u32,
}

impl CommandRate {
    /// So many a second, and so many at once.
    pub(crate) fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { interval_us: (1_000_000 / u64::from(per_second.get())).max(1), burst: burst.get() }
    }
}

/// When the bucket is full again, in microseconds of the worker's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket(u64);

/// What a command is, beside those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Within,
    /// One too many: it is refused.
    Over,
    /// So many too many that the session ends.
    Flood,
}

impl Bucket {
    fn take(&mut self, rate: CommandRate, now_us: u64) -> Pace {
        self.0 = self.0.max(now_us) + rate.interval_us;
        let (missing, full) = (self.0 - now_us, rate.interval_us * u64::from(rate.burst));
        match missing {
            missing if missing <= full => Pace::Within,
            missing if missing <= 2 * full => Pace::Over,
            _ => Pace::Flood,
        }
    }
}

impl Session {
    /// Counts a command.
    pub(super) fn pace(&mut self, command: &Command, rules: &Rules) -> Pace {
        match (&command.request, rules.command_rate) {
            (None | Some(Request::Connect(_)), _) | (_, None) => Pace::Within,
            (Some(_), Some(rate)) => self.bucket.take(rate, rules.now.0 * 1000),
        }
    }

    /// Refuses a command that is one too many.
    pub(super) fn hold_back(&self, command: &Command, output: &mut Output) -> Result<(), DisconnectCode> {
        match command.request {
            Some(Request::Send(_)) => Err(DisconnectCode::TooManyRequests),
            _ => {
                self.fail(output, command.id, ErrorCode::TooManyRequests);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Rng;

    fn rate(per_second: u32, burst: u32) -> CommandRate {
        CommandRate::new(per_second.try_into().unwrap(), burst.try_into().unwrap())
    }

    #[test]
    fn a_burst_goes_through_and_then_as_many_as_there_are_seconds_for() {
        let (mut bucket, rate) = (Bucket::default(), rate(10, 20));
        let mut take =
            |at_ms: u64, count: usize| (0..count).map(|_| bucket.take(rate, at_ms * 1000)).collect::<Vec<_>>();
        assert_eq!(take(5000, 20), [Pace::Within; 20]);
        assert_eq!(take(5000, 20), [Pace::Over; 20]);
        assert_eq!(take(5000, 1), [Pace::Flood]);
        // What was refused counts as well: 41 commands are 4.1 s.
        assert_eq!(take(7099, 1), [Pace::Over]);
        assert_eq!(take(7300, 2), [Pace::Within, Pace::Over]);
        assert_eq!(take(20_000, 21)[18..], [Pace::Within, Pace::Within, Pace::Over]);
    }

    #[test]
    fn it_is_a_bucket_that_fills_at_its_rate() {
        for seed in 0..100 {
            let mut rng = Rng::new(seed);
            let (per_second, burst) = (1 + rng.below(2000) as u32, 1 + rng.below(50) as u32);
            let interval_us = (1_000_000 / u64::from(per_second)).max(1);
            let full = i64::from(burst) * interval_us as i64;
            let (mut bucket, mut level, mut now) = (Bucket::default(), full, 0);
            for _ in 0..500 {
                let step = rng.below(3 * interval_us);
                now += step;
                level = (level + step as i64).min(full) - interval_us as i64;
                let expected = match level {
                    0.. => Pace::Within,
                    level if level >= -full => Pace::Over,
                    _ => Pace::Flood,
                };
                assert_eq!(bucket.take(rate(per_second, burst), now), expected, "seed {seed}");
            }
        }
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let mut bucket = Bucket::default();
        let rate = CommandRate::new(1.try_into().unwrap(), u32::MAX.try_into().unwrap());
        assert_eq!(bucket.take(rate, u64::from(u32::MAX) * 1000), Pace::Within);
        assert_eq!(size_of::<Bucket>(), 8);
    }
}
