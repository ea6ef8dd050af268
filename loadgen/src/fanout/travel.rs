//! Subscribers that leave and come back with the cursor of the last message they have seen, each in its own slot.

use super::subscribers::Subscriber;
use crate::clock::Nanos;
use crate::engine::{Cursor, Net};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write;
use std::num::NonZeroU32;
use std::time::Duration;

/// Departures before the loop looks at its sockets again.
const TRIPS_PER_TURN: u32 = 64;
/// Who could not come back tries again after a random time up to this.
const RETRY: Duration = Duration::from_millis(500);

/// A traveller's place in the list, plus one: four bytes in every subscriber, and no more for those that stay.
pub(super) type Ticket = NonZeroU32;

#[derive(Debug)]
struct Traveller {
    slot: u32,
    /// Behind which message it goes on; empty until the server has said so.
    cursor: Vec<u8>,
    /// It is away, or could not come back yet.
    away: Option<Subscriber>,
}

/// Those of one worker.
#[derive(Debug)]
pub(crate) struct Travellers {
    every: Duration,
    away: Duration,
    list: Vec<Traveller>,
    /// When each is to leave, or to try again.
    due: BinaryHeap<Reverse<(Nanos, Ticket)>>,
}

impl Travellers {
    /// Each leaves again and again, 0.5 to 1.5 times `every` after it came, and stays away for up to `away`.
    pub(crate) fn new(every: Duration, away: Duration) -> Self {
        Self { every, away, list: Vec::new(), due: BinaryHeap::new() }
    }

    /// A subscriber is there for the first time.
    pub(super) fn enlist(&mut self, slot: u32) -> Ticket {
        self.list.push(Traveller { slot, cursor: Vec::new(), away: None });
        NonZeroU32::MIN.saturating_add(self.list.len() as u32 - 1)
    }

    /// Everybody's first departure is settled.
    pub(super) fn start(&mut self, net: &mut Net<Subscriber>) {
        for number in 0..self.list.len() as u32 {
            self.settle(NonZeroU32::MIN.saturating_add(number), net);
        }
    }

    /// A subscriber is back.
    pub(super) fn came_back(&mut self, ticket: Ticket, net: &mut Net<Subscriber>) {
        self.settle(ticket, net);
    }

    pub(super) fn note_cursor(&mut self, ticket: Ticket, cursor: Cursor<'_>) {
        let held = &mut self.at(ticket).cursor;
        match cursor {
            Cursor::At(cursor) => cursor.clone_into(held),
            Cursor::Offset(offset) => {
                let Some(dash) = memchr::memrchr(b'-', held) else { return };
                held.truncate(dash + 1);
                write!(held, "{offset}").expect("memory takes all");
            }
        }
    }

    /// An attempt to come back has failed.
    pub(super) fn turned_back(&mut self, ticket: Ticket, state: Subscriber, net: &mut Net<Subscriber>) {
        self.stay_away(ticket, state, RETRY, net);
    }

    /// For a random time of up to `at_most`.
    fn stay_away(&mut self, ticket: Ticket, state: Subscriber, at_most: Duration, net: &mut Net<Subscriber>) {
        self.at(ticket).away = Some(state);
        let wait = Duration::from_nanos(net.rng.below(at_most.as_nanos() as u64));
        self.due.push(Reverse((net.now + wait, ticket)));
    }

    /// Those that are not back.
    pub(super) fn away(&mut self) -> impl Iterator<Item = Subscriber> {
        self.list.iter_mut().filter_map(|traveller| traveller.away.take())
    }

    /// Sends off who is due, and brings back who is away; says when to look again. Without `departures` all stay.
    pub(super) fn turn(&mut self, net: &mut Net<Subscriber>, departures: bool) -> Option<Nanos> {
        for _ in 0..TRIPS_PER_TURN {
            let &Reverse((due, ticket)) = self.due.peek()?;
            if due > net.now {
                return Some(due);
            }
            if !net.may_open() {
                return None; // an answer will come, or a deadline
            }
            self.due.pop();
            let (by_close, stays_away) = (net.rng.below(2) == 0, self.away);
            let Traveller { slot, cursor, away } = self.at(ticket);
            let state = match away.take() {
                Some(state) => state,
                None if !departures => continue,
                None if cursor.is_empty() => {
                    self.settle(ticket, net);
                    continue;
                }
                None => match net.leave(*slot, by_close) {
                    Some(state) if stays_away.is_zero() => state,
                    Some(state) => {
                        self.stay_away(ticket, state, stays_away, net);
                        continue;
                    }
                    None => continue, // it was lost
                },
            };
            if let Err((_, state)) = net.open_again(*slot, state, cursor) {
                self.turned_back(ticket, state, net);
            }
        }
        Some(net.now)
    }

    fn settle(&mut self, ticket: Ticket, net: &mut Net<Subscriber>) {
        let part = 0.5 + net.rng.below(1 << 32) as f64 / (1_u64 << 32) as f64;
        self.due.push(Reverse((net.now + self.every.mul_f64(part), ticket)));
    }

    fn at(&mut self, ticket: Ticket) -> &mut Traveller {
        &mut self.list[ticket.get() as usize - 1]
    }
}
