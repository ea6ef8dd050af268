//! The end of connections that are as old as they may become. How old they are, [`Ages`](super::ages) knows.

use super::{Kernel, Worker};
use crate::conn::Phase;
use crate::error::End;
use crate::limits::SWEEP_PER_TURN;
use crate::service::Service;
use crate::time::Millis;
use std::time::Duration;

/// Ends connections that are as old as they may become, in rounds over the table.
#[derive(Debug)]
pub(super) struct Aging {
    most: Duration,
    /// The next slot of the round under way.
    slot: u32,
    /// When it goes on.
    due: Millis,
}

impl Aging {
    pub(super) fn new(most: Duration, now: Millis) -> Self {
        Self { most, slot: 0, due: now }
    }

    pub(super) fn next(&self) -> Millis {
        self.due
    }

    /// How long a round takes: short beside the age.
    fn round(&self) -> Duration {
        (self.most / 32).clamp(Duration::from_millis(250), Duration::from_secs(30))
    }

    /// How many slots a slice has, of so many in all, and how long it is to the next: slices of a round are spread over it, so
    /// that the table is not gone through at once. The clock counts milliseconds, so there is one between any two of them; what
    /// would be more slices than that has larger ones.
    fn slice(&self, slots: u32) -> (u32, Duration) {
        let most = u32::try_from(self.round().as_millis()).unwrap_or(u32::MAX);
        let slices = slots.div_ceil(SWEEP_PER_TURN as u32).clamp(1, most);
        let pause = u64::from(most / slices);
        (slots.div_ceil(slices).max(SWEEP_PER_TURN as u32), Duration::from_millis(pause))
    }

    /// How old that connection may become: a tenth less for some than for others, so that those who came together do not
    /// come back together. It follows from the serial, so that nothing needs to be kept.
    fn limit(&self, serial: u64) -> Duration {
        // The fractional parts of multiples of the golden ratio are spread evenly, neighbours far apart.
        let spread = serial.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        self.most.mul_f64(1.0 - 0.1 * spread as f64 / f64::from(u32::MAX))
    }
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// A slice of a round over all connections, if their age is limited.
    pub(super) fn sweep_ages(&mut self) {
        let slots = self.table.high();
        let Some(aging) = self.aging.as_mut().filter(|aging| aging.due <= self.now) else { return };
        let start = aging.slot;
        let (width, pause) = aging.slice(slots);
        let end = start.saturating_add(width).min(slots);
        aging.due = self.now + pause;
        aging.slot = if end < slots { end } else { 0 };
        for slot in start..end {
            let Some((serial, phase)) = self.table.get(slot).map(|entry| (entry.serial, entry.conn.phase())) else {
                continue;
            };
            let is_ended = matches!(phase, Phase::Idle | Phase::Streaming) || phase.is_open();
            let limit = self.aging.as_ref().map_or(Duration::MAX, |aging| aging.limit(serial));
            if is_ended && self.now.since(self.ages.since(serial, self.now)) >= limit {
                self.see_off(slot, End::MaxAge, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_never_follows_at_once_and_a_round_is_over_in_its_time() {
        for seconds in [1, 9, 60, 499, 3600, 86_400] {
            let aging = Aging::new(Duration::from_secs(seconds), Millis(0));
            for slots in [0, 1, 64, 20_000, 1_000_000, 16_000_000] {
                let (width, pause) = aging.slice(slots);
                assert!(pause >= Duration::from_millis(1), "{seconds} s, {slots} slots: a busy loop");
                let takes = pause * slots.div_ceil(width);
                assert!(takes <= aging.round(), "{seconds} s, {slots} slots: {takes:?}");
            }
        }
    }

    #[test]
    fn limits_are_spread_over_a_tenth() {
        let aging = Aging::new(Duration::from_secs(1000), Millis(0));
        let mut limits: Vec<u64> = (0..1000).map(|serial| aging.limit(serial).as_secs()).collect();
        limits.sort_unstable();
        assert!(limits[0] >= 900 && limits[999] <= 1000, "{} to {}", limits[0], limits[999]);
        let widest = limits.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(widest <= Some(2), "no gap: {widest:?}");
    }
}
