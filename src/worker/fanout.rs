//! The sweep: sends what was published to those who have not seen it, in slices.

use super::table::Subscription;
use super::topics::Poll;
use super::{Kernel, Worker};
use crate::config::SlowReaders;
use crate::conn::{Ended, Phase};
use crate::error::End;
use crate::limits::{JOINED_BYTES_MAX, SLICES_PER_PERMIT, SWEEP_PER_TURN};
use crate::planted::{Bug, planted};
use crate::service::{ConnId, Service};
use crate::topic::{Elements, Encoding, Epoch, Gap, Message, Passed, Place, Subscriber};
use std::io::ErrorKind;
use std::sync::Arc;

/// What was joined for the last subscriber: most of the next stand at the same cursor.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// Of which log, from where to where, and how written. Not by the topic's number, which may become another topic's.
    key: Option<(Epoch, u64, u64, Encoding)>,
    bytes: Vec<u8>,
}

/// Whether this worker may sweep. Slices bound what a thread does at a time, not how many threads stand in the run
/// queue: with more workers than cores the others' sweeps would be in the way of whoever has a message to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// It has none, and wants none.
    None,
    /// It waits for one; its mailbox rings then.
    Waiting,
    /// It has one, since so many slices.
    Held(u32),
}

/// What became of an attempt to send.
enum Sent {
    /// All there was, as far as it was joined: there may be more.
    All,
    /// The socket is full, or the connection gone.
    Stopped,
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// A slice: sends to some of those who have not seen the newest.
    pub(super) fn sweep_topics(&mut self) {
        if !self.has_permit() {
            return;
        }
        for visit in 0..SWEEP_PER_TURN {
            self.uncork(); // before anybody's place is looked up: whoever is lost in it gives its own to another
            // What goes past the logs has its share, however much is published.
            let passed = if visit % 4 == 0 { self.topics.next_passed() } else { None };
            if let Some((passed, messages)) = passed {
                self.pass(passed, &messages);
            } else if let Some(place) = self.topics.next() {
                self.push(place);
            } else if let Some((passed, messages)) = self.topics.next_passed() {
                self.pass(passed, &messages);
            } else {
                break;
            }
        }
        self.topics.yield_turn();
        let metrics = &self.shared.ports[usize::from(self.index)].metrics;
        self.topics.swept.drain(..).for_each(|since_ms| metrics.sweep_ms.observe(self.now.0.saturating_sub(since_ms)));
        self.hand_permit_on();
    }

    /// Whether there is a slice to be swept now.
    pub(super) fn may_sweep_on(&self) -> bool {
        self.topics.is_sweeping() && self.permit != Permit::Waiting
    }

    /// Gets a permit, if one is needed.
    fn has_permit(&mut self) -> bool {
        let Some(permits) = &self.shared.sweeps else { return self.topics.is_sweeping() };
        let held = match self.permit {
            Permit::None if !self.topics.is_sweeping() => return false,
            Permit::None => permits.take(self.index),
            Permit::Waiting => permits.was_granted(self.index),
            Permit::Held(_) => return true,
        };
        self.permit = if held { Permit::Held(0) } else { Permit::Waiting };
        held
    }

    /// Gives the permit back when the sweep is over; after a few slices it is somebody else's turn.
    fn hand_permit_on(&mut self) {
        let (Some(permits), Permit::Held(slices)) = (&self.shared.sweeps, self.permit) else { return };
        let next;
        (self.permit, next) = if !self.topics.is_sweeping() {
            (Permit::None, if planted(Bug::PermitKept) { None } else { permits.give() })
        } else if slices + 1 < SLICES_PER_PERMIT {
            (Permit::Held(slices + 1), None)
        } else {
            let next = permits.pass(self.index);
            (if next.is_some() { Permit::Waiting } else { Permit::Held(0) }, next)
        };
        self.wake(next);
    }

    /// This worker ends.
    pub(super) fn give_up_permit(&mut self) {
        let Some(permits) = &self.shared.sweeps else { return };
        let next = match self.permit {
            Permit::None => None,
            Permit::Waiting => permits.give_up(self.index),
            Permit::Held(_) => permits.give(),
        };
        self.permit = Permit::None;
        self.wake(next);
    }

    fn wake(&self, worker: Option<u16>) {
        if let Some(worker) = worker {
            self.shared.ports[usize::from(worker)].wake.wake();
        }
    }

    /// Sends on, to a connection whose socket takes more. It begins anywhere, so that none of many subscriptions is always
    /// last.
    pub(super) fn push_all(&mut self, slot: u32, serial: u64) {
        let id = ConnId { worker: self.index, slot, serial };
        let numbers = self.table.numbers(slot).end;
        if numbers == 1 {
            return self.push_one(id, 0);
        }
        let first = self.rng.below(u64::from(numbers)) as u16;
        (first..numbers).chain(0..first).for_each(|nth| self.push_one(id, nth));
    }

    /// Sends to one of a connection's subscriptions what it has not seen.
    pub(super) fn push_one(&mut self, id: ConnId, nth: u16) {
        if !planted(Bug::CorkedLate) {
            self.uncork();
        }
        if let Some(place) = self.place_of(id, nth) {
            self.push(place);
        }
    }

    /// Sends a subscriber what it has not seen, as far as its socket takes it. What does not go into the socket is
    /// the rest of one message: all others are a cursor.
    fn push(&mut self, place: Place) {
        debug_assert!(self.has_nothing_corked(), "what was said to it before goes out before");
        loop {
            let local = &self.topics.locals[place.topic as usize];
            let subscriber = local.subscribers[place.index as usize];
            if self.held.has(subscriber.slot) {
                return; // it goes on when it is released
            }
            let (Some(copy), Some(entry)) = (&local.copy, self.table.at(subscriber.slot)) else { return };
            let is_behind = entry.conn.queued() > 0;
            let Some(mut suffix) = copy.slice_after(subscriber.cursor) else {
                // Who is told of the gap is told when the socket takes it, and goes on from what is the newest then.
                if is_behind && self.rules.slow_readers == SlowReaders::Skip {
                    return;
                }
                return self.lagged(place, subscriber);
            };
            if is_behind || suffix.next().is_none() {
                return; // it goes on when the socket has taken that
            }
            if self.rules.any_join_leave
                && let Some(name) = self.topics.name(place.topic).beside()
                && !self.has_begun(subscriber.slot, name)
            {
                return; // nothing is said of a topic before it has begun
            }
            if subscriber.encoding == Encoding::Element {
                return self.poll_answered(place, subscriber);
            }
            let sent = self.send_suffix(place, subscriber);
            if !self.taps.is_empty() {
                self.tap_suffix(place, subscriber);
            }
            match sent {
                Sent::All => {}
                Sent::Stopped => return,
            }
        }
    }

    /// One `send` of what lies behind a subscriber's cursor, which is something.
    fn send_suffix(&mut self, place: Place, Subscriber { cursor: from, slot, encoding, .. }: Subscriber) -> Sent {
        let local = &mut self.topics.locals[place.topic as usize];
        let (Some(copy), Some(entry)) = (&local.copy, self.table.at(slot)) else { return Sent::Stopped };
        let compression = self.rules.compression.as_ref();
        entry.conn.interrupt_context();
        let suffix = copy.after(from);
        let Some(oldest) = suffix.clone().next() else { return Sent::Stopped };
        let bytes = match suffix.len() {
            1 => oldest.encoded(encoding, compression),
            _ => {
                let head = copy.head();
                let joined_from = if planted(Bug::JoinedForOther) { 0 } else { from };
                let key = Some((head.epoch, joined_from, head.offset, encoding));
                if self.joined.key != key {
                    self.joined.bytes.clear();
                    for message in suffix.clone() {
                        let bytes = message.encoded(encoding, compression);
                        if !self.joined.bytes.is_empty() && self.joined.bytes.len() + bytes.len() > JOINED_BYTES_MAX {
                            break;
                        }
                        self.joined.bytes.extend_from_slice(bytes);
                    }
                    self.joined.key = key;
                }
                &self.joined.bytes
            }
        };
        let sent = match self.kernel.send(&entry.socket, bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Sent::All, // as if there were more
            Err(error) if planted(Bug::EagainIsSent) && error.kind() == ErrorKind::WouldBlock => bytes.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => {
                self.lost(slot, End::of(&error));
                return Sent::Stopped;
            }
        };
        let metrics = &self.shared.ports[usize::from(self.index)].metrics;
        metrics.bytes_out.add(sent as u64);
        metrics.delivery_ms.observe(self.now.0.saturating_sub(oldest.time_ms));
        let (is_full, mut left) = (sent < bytes.len(), sent);
        let cursor = &mut local.subscribers[place.index as usize].cursor;
        for message in suffix {
            let bytes = message.encoded(encoding, compression);
            if left < bytes.len() && !is_full {
                break; // what was joined ends here
            }
            *cursor = message.cursor.offset;
            metrics.frames_out.add(1);
            metrics.delivered.add(1);
            if left < bytes.len() {
                if planted(Bug::CursorAhead) {
                    *cursor = copy.head().offset;
                }
                // The socket is full in the midst of this message, or right before it: this one it gets whatever happens.
                let tick = self.now.tick();
                entry.conn.share(Arc::clone(message.shared(encoding, compression)), left, tick);
                metrics.slow.add(1);
                metrics.queued_bytes.add(entry.conn.queued() as u64);
                let deadline = entry.conn.deadline(tick, &self.rules);
                self.wheel.arm(&mut self.table, slot, deadline);
                return Sent::Stopped;
            }
            left -= bytes.len();
        }
        Sent::All
    }

    /// Sends a session what is in no log, if it keeps up: whoever does not has lost it.
    fn pass(&mut self, passed: Passed, messages: &[Arc<Message>]) {
        debug_assert!(self.has_nothing_corked());
        let place = match passed {
            Passed::At(place) => place,
            Passed::Moved { topic, slot, nth } => match self.table.subscription(slot, nth) {
                Some(Subscription::Placed(place)) if place.topic == topic => place,
                _ => return,
            },
        };
        let subscriber = self.topics.locals[place.topic as usize].subscribers[place.index as usize];
        if !subscriber.encoding.is_of_a_session() || self.held.has(subscriber.slot) {
            return;
        }
        let passed = self.pass_to(subscriber, messages);
        if !self.taps.is_empty() {
            self.tap_deliveries(subscriber, &messages[..passed]);
        }
    }

    /// Sends it as many of them as its socket takes: how many.
    fn pass_to(&mut self, Subscriber { slot, encoding, .. }: Subscriber, messages: &[Arc<Message>]) -> usize {
        let Some(entry) = self.table.at(slot).filter(|entry| entry.conn.queued() == 0) else { return 0 };
        let metrics = &self.shared.ports[usize::from(self.index)].metrics;
        let compression = self.rules.compression.as_ref();
        entry.conn.interrupt_context();
        for (before, message) in messages.iter().enumerate() {
            let bytes = message.encoded(encoding, compression);
            let sent = match self.kernel.send(&entry.socket, bytes) {
                Ok(sent) => sent,
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => return before,
                Err(error) => {
                    self.lost(slot, End::of(&error));
                    return before;
                }
            };
            metrics.bytes_out.add(sent as u64);
            metrics.frames_out.add(u64::from(sent > 0));
            metrics.delivered.add(u64::from(sent > 0));
            if sent < bytes.len() {
                if sent > 0 {
                    let tick = self.now.tick();
                    entry.conn.share(Arc::clone(message.shared(encoding, compression)), sent, tick);
                    metrics.slow.add(1);
                    metrics.queued_bytes.add(entry.conn.queued() as u64);
                    let deadline = entry.conn.deadline(tick, &self.rules);
                    self.wheel.arm(&mut self.table, slot, deadline);
                }
                return before + usize::from(sent > 0);
            }
        }
        messages.len()
    }

    /// What a long poll waited for is there.
    fn poll_answered(&mut self, place: Place, subscriber: Subscriber) {
        let Some(id) = self.id_of(subscriber.slot) else { return };
        let Some(Poll { limit, headers }) = self.polls.remove(&subscriber.slot) else { return };
        let (Some(start), Some(copy)) = (self.topics.cursor(place), &self.topics.locals[place.topic as usize].copy)
        else {
            return;
        };
        let elements = Elements::new(None, copy.after(start.offset).take(limit).cloned().collect());
        self.reply_array(id, start, elements, headers);
    }

    /// A subscriber's next message is no longer kept: it reads too slowly.
    fn lagged(&mut self, place: Place, subscriber: Subscriber) {
        if self.topics.name(place.topic).beside().is_some() {
            // Nobody is promised what is not kept.
            self.topics.skip(place);
            return;
        }
        let (Some(id), Some(since)) = (self.id_of(subscriber.slot), self.topics.cursor(place)) else { return };
        self.port().metrics.lagged.add(1);
        if subscriber.encoding == Encoding::Element {
            // It comes back with its cursor, and hears from the home what it has missed.
            return self.poll_over(id);
        }
        if subscriber.encoding.is_of_a_session() {
            let topic = self.topics.name(place.topic).clone();
            return self.serve(id, |service, connection| service.lagged(connection, &topic));
        }
        if self.rules.slow_readers == SlowReaders::Skip {
            let Some(resumed) = self.topics.skip(place) else { return };
            let gap = Gap { since: since.to_string().into(), resumed };
            return self.say_gap(id, subscriber.encoding, &gap);
        }
        self.handle(id.slot, id.serial, |desk| match desk.entry.conn.phase() {
            Phase::Streaming => {
                desk.entry.conn.settle(Ended::new(End::SlowReader));
                desk.entry.conn.end_stream();
            }
            _ => {
                let ended = Ended::new(End::SlowReader);
                desk.entry.conn.close(Some(ended.code), ended, desk.output);
            }
        });
    }

    fn id_of(&mut self, slot: u32) -> Option<ConnId> {
        let serial = self.table.at(slot)?.serial;
        Some(ConnId { worker: self.index, slot, serial })
    }
}
