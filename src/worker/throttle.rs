//! How much one connection may send. Who sends more is not read for a while, so that TCP holds it back; who has gone on
//! like that for too long is closed. Kept only of those who have sent more lately than they might have gone on with.

use super::{Kernel, Worker};
use crate::config::Rates;
use crate::conn::Phase;
use crate::limits::{RATE_BURST_S, THROTTLE_MS, THROTTLED_MS_MAX};
use crate::mem::{Meter, Rate};
use crate::service::Service;
use crate::time::Millis;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// What was counted of a connection: messages and requests, bytes, pings and pongs.
pub(super) type Spent = [u64; 3];

#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// In the order of [`Spent`].
    rates: [Option<Rate>; 3],
    /// By slot.
    meters: HashMap<u32, Meters>,
    /// How many there may be before those are dropped that are clear.
    look_at: usize,
    /// Who is not read, and until when: in that order, since all wait equally long.
    waiting: VecDeque<(Millis, u32, u64)>,
}

#[derive(Debug, Default)]
struct Meters {
    of: [Meter; 3],
    /// It is not read.
    waits: bool,
    /// When it first was not, unless all has been clear since.
    since: Option<Millis>,
}

impl Meters {
    fn is_clear(&self, now: Millis) -> bool {
        !self.waits && self.of.iter().all(|meter| meter.is_clear(ns(now)))
    }

    fn is_flooding(&self, now: Millis) -> bool {
        self.since.is_some_and(|since| now.since(since) >= Duration::from_millis(THROTTLED_MS_MAX))
    }

    fn is_over(&self, rates: &[Option<Rate>; 3], now: Millis) -> bool {
        let is_over =
            |(meter, rate): (&Meter, &Option<Rate>)| rate.is_some_and(|rate| !meter.wait(&rate, ns(now)).is_zero());
        self.of.iter().zip(rates).any(is_over)
    }
}

fn ns(now: Millis) -> u64 {
    now.0.saturating_mul(1_000_000)
}

/// What follows from what a connection has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Within,
    /// It is not read for a while.
    Over,
    /// It has been over for too long.
    Flooding,
}

impl Throttle {
    pub(super) fn new(rates: &Rates) -> Self {
        let mut throttle = Self::default();
        throttle.limit(rates);
        throttle
    }

    /// Other rates from here on. Nothing is held against anybody that came before; who is not read is read in its time.
    pub(super) fn limit(&mut self, rates: &Rates) {
        let rate = |per_second: u64| {
            (per_second > 0).then(|| Rate { per_second, burst: per_second.saturating_mul(RATE_BURST_S) })
        };
        self.rates = [u64::from(rates.messages), rates.bytes, u64::from(rates.controls)].map(rate);
        self.meters.retain(|_, meters| meters.waits);
        self.meters.values_mut().for_each(|meters| *meters = Meters { waits: true, ..Meters::default() });
    }

    /// Whether that slot's connection is not to be read now.
    #[inline]
    fn holds(&self, slot: u32) -> bool {
        !self.waiting.is_empty() && self.meters.get(&slot).is_some_and(|meters| meters.waits)
    }

    fn charge(&mut self, slot: u32, serial: u64, spent: Spent, now: Millis) -> Standing {
        if !self.rates.iter().zip(spent).any(|(rate, spent)| rate.is_some() && spent > 0) {
            return Standing::Within;
        }
        if self.meters.len() >= self.look_at {
            self.meters.retain(|_, meters| !meters.is_clear(now));
            self.look_at = 64 + 2 * self.meters.len();
        }
        let meters = self.meters.entry(slot).or_default();
        if meters.is_clear(now) {
            meters.since = None;
        }
        for ((meter, rate), spent) in meters.of.iter_mut().zip(&self.rates).zip(spent) {
            if let Some(rate) = rate {
                meter.charge(rate, spent, ns(now));
            }
        }
        if !meters.is_over(&self.rates, now) {
            return Standing::Within;
        }
        meters.since.get_or_insert(now);
        if meters.is_flooding(now) {
            return Standing::Flooding;
        }
        meters.waits = true;
        self.waiting.push_back((now + Duration::from_millis(THROTTLE_MS), slot, serial));
        Standing::Over
    }

    /// The connection in that slot is gone.
    pub(super) fn forget(&mut self, slot: u32) {
        if !self.meters.is_empty() {
            self.meters.remove(&slot);
        }
    }

    /// When somebody has waited long enough.
    pub(super) fn next(&self) -> Option<Millis> {
        self.waiting.front().map(|(until, ..)| *until)
    }
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// Whether that connection is held back: what it sent is read when it no longer is.
    #[inline]
    pub(super) fn is_throttled(&self, slot: u32) -> bool {
        self.throttle.holds(slot)
    }

    /// What has been counted of all connections so far. A pong that was asked for is not held against its client.
    #[inline]
    pub(super) fn heard(&self, slot: u32) -> Spent {
        let metrics = &self.port().metrics;
        let asked = self.table.get(slot).is_some_and(|entry| entry.conn.phase() == Phase::Pinged);
        [
            metrics.messages_in.read() + metrics.requests.read(),
            metrics.bytes_in.read(),
            metrics.pings_in.read() + metrics.pongs.read() + u64::from(asked),
        ]
    }

    /// Holds what was counted since `before` against the connection. `false`: it is not to be read on.
    #[inline]
    pub(super) fn may_go_on(&mut self, slot: u32, serial: u64, before: Spent) -> bool {
        let after = self.heard(u32::MAX);
        let spent = [0, 1, 2].map(|kind| after[kind].saturating_sub(before[kind]));
        match self.throttle.charge(slot, serial, spent, self.now) {
            Standing::Within => true,
            Standing::Over => {
                self.port().metrics.throttled.add(1);
                false
            }
            Standing::Flooding => {
                self.end_flood(slot, serial);
                false
            }
        }
    }

    fn end_flood(&mut self, slot: u32, serial: u64) {
        self.throttle.forget(slot); // what it still sends is read to the end, and thrown away
        self.handle(slot, serial, |desk| desk.entry.conn.flooded(desk.output, &mut desk.glue));
    }

    /// Reads on those who have waited long enough. Who sent so much at once that this is still too early waits on, but not
    /// for ever: its heartbeats are not read either.
    pub(super) fn release_throttled(&mut self) {
        while self.throttle.next().is_some_and(|until| until <= self.now) {
            let Some((_, slot, serial)) = self.throttle.waiting.pop_front() else { return };
            if self.table.find(slot, serial).is_none() {
                continue;
            }
            let Throttle { rates, meters, waiting, .. } = &mut self.throttle;
            let Some(meters) = meters.get_mut(&slot) else { continue };
            if !meters.is_over(rates, self.now) {
                meters.waits = false;
                self.ready.push((slot, serial));
            } else if meters.is_flooding(self.now) {
                self.end_flood(slot, serial);
            } else {
                waiting.push_back((self.now + Duration::from_millis(THROTTLE_MS), slot, serial));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_too_much_waits_and_who_goes_on_is_flooding() {
        let mut throttle = Throttle::new(&Rates { messages: 10, bytes: 0, controls: 0 });
        assert_eq!(throttle.charge(1, 1, [50, 1 << 40, 1 << 40], Millis(0)), Standing::Within, "a burst");
        assert_eq!(throttle.charge(1, 1, [1, 0, 0], Millis(0)), Standing::Over);
        assert!(throttle.holds(1) && !throttle.holds(2));
        assert_eq!(throttle.charge(2, 2, [1, 0, 0], Millis(0)), Standing::Within, "another");
        let mut now = Millis(0);
        loop {
            now = now + Duration::from_millis(500);
            match throttle.charge(1, 1, [20, 0, 0], now) {
                Standing::Flooding => break,
                standing => assert_eq!(standing, Standing::Over, "at {now:?}"),
            }
        }
        assert_eq!(now.0, THROTTLED_MS_MAX);
    }

    #[test]
    fn what_is_clear_is_forgotten() {
        let mut throttle = Throttle::new(&Rates { messages: 1000, bytes: 0, controls: 0 });
        for slot in 0..10_000 {
            throttle.charge(slot, 1, [1, 0, 0], Millis(u64::from(slot) * 10));
        }
        assert!(throttle.meters.len() < 200, "{}", throttle.meters.len());
        throttle.charge(5, 1, [10_000, 0, 0], Millis(100_000));
        throttle.forget(5);
        assert!(!throttle.holds(5));
        assert_eq!(throttle.charge(5, 2, [1, 0, 0], Millis(100_000)), Standing::Within, "somebody else");
    }
}
