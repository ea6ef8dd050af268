//! Bare connections that end when their tokens' time is over. Only those are kept here: who has no token, or one for ever,
//! costs nothing.

use super::{Kernel, Worker};
use crate::conn::{Ended, Phase};
use crate::error::End;
use crate::limits::EXPIRED_PER_TURN;
use crate::service::{ConnId, Service};
use crate::time::Millis;
use std::collections::{BTreeSet, HashMap};

/// When it is whose turn, in seconds of Unix time.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    /// Invariant: the same pairs as in `by_slot`.
    by_time: BTreeSet<(u64, u32)>,
    by_slot: HashMap<u32, u64>,
}

impl Expiries {
    pub(super) fn insert(&mut self, slot: u32, at: u64) {
        self.forget(slot);
        self.by_time.insert((at, slot));
        self.by_slot.insert(slot, at);
    }

    /// The connection in that slot is gone.
    pub(super) fn forget(&mut self, slot: u32) {
        if !self.by_slot.is_empty()
            && let Some(at) = self.by_slot.remove(&slot)
        {
            self.by_time.remove(&(at, slot));
        }
    }

    /// When the first is due.
    fn next(&self) -> Option<u64> {
        self.by_time.first().map(|&(at, _)| at)
    }

    fn take_due(&mut self, now: u64) -> Option<u32> {
        let &(at, slot) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.forget(slot);
        Some(slot)
    }
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// When the next token's time is over, by the worker's clock.
    pub(super) fn next_expiry(&self) -> Option<Millis> {
        let at = self.expiries.next()?;
        Some(Millis(at.saturating_mul(1000).saturating_sub(self.unix_start_ms)))
    }

    /// Ends connections whose tokens' time is over, a budget of them.
    pub(super) fn end_expired(&mut self) {
        let now = self.unix_ms() / 1000;
        for _ in 0..EXPIRED_PER_TURN {
            let Some(slot) = self.expiries.take_due(now) else { return };
            let Some(entry) = self.table.at(slot) else { continue };
            let id = ConnId { worker: self.index, slot, serial: entry.serial };
            match entry.conn.phase() {
                Phase::Streaming => self.handle(slot, id.serial, |desk| {
                    desk.entry.conn.settle(Ended::new(End::Expired));
                    desk.entry.conn.end_stream();
                }),
                phase if phase.is_open() => self.close_expired(id),
                _ => {} // it is being closed
            }
        }
    }

    /// A WebSocket is told from where it can go on.
    fn close_expired(&mut self, id: ConnId) {
        let cursor = self.place_of(id, 0).and_then(|place| self.topics.cursor(place));
        let end = End::Expired;
        let reason = match cursor {
            Some(cursor) => format!("token expired: resume at {cursor} with another"),
            None => end.text().to_owned(),
        };
        self.on_open(id, |conn, output| {
            conn.close(Some(end.code()), Ended { end, code: end.code(), reason: reason.into(), clean: false }, output);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_due_first_and_who_is_gone_is_not() {
        let mut expiries = Expiries::default();
        for (slot, at) in [(1, 30), (2, 10), (3, 20), (2, 25)] {
            expiries.insert(slot, at);
        }
        expiries.forget(3);
        expiries.forget(4);
        assert_eq!((expiries.next(), expiries.take_due(24)), (Some(25), None));
        assert_eq!([expiries.take_due(30), expiries.take_due(30), expiries.take_due(30)], [Some(2), Some(1), None]);
        assert!(expiries.by_slot.is_empty() && expiries.by_time.is_empty());
    }
}
