//! Subscribers that leave and come back with the cursor of the last message they have seen, each in its own slot.

use super::subscribers::Subscriber;
use crate::clock::Nanos;
use crate::engine::Net;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
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
    /// It could not come back yet.
    away: Option<Subscriber>,
}

/// Those of one worker.
#[derive(Debug)]
pub(super) struct Travellers {
    every: Duration,
    list: Vec<Traveller>,
    /// When each is to leave, or to try again.
    due: BinaryHeap<Reverse<(Nanos, Ticket)>>,
    /// How often one came back.
    pub(super) returned: u64,
}

impl Travellers {
    /// Each leaves again and again, 0.5 to 1.5 times `every` after it came.
    pub(super) fn new(every: Duration) -> Self {
        Self { every, list: Vec::new(), due: BinaryHeap::new(), returned: 0 }
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
        self.returned += 1;
        self.settle(ticket, net);
    }

    pub(super) fn note_cursor(&mut self, ticket: Ticket, cursor: &[u8]) {
        cursor.clone_into(&mut self.at(ticket).cursor);
    }

    /// An attempt to come back has failed.
    pub(super) fn turned_back(&mut self, ticket: Ticket, state: Subscriber, net: &mut Net<Subscriber>) {
        self.at(ticket).away = Some(state);
        let wait = Duration::from_nanos(net.rng.below(RETRY.as_nanos() as u64));
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
            let by_close = net.rng.below(2) == 0;
            let Traveller { slot, cursor, away } = self.at(ticket);
            let state = match away.take() {
                Some(state) => state,
                None if !departures => continue,
                None if cursor.is_empty() => {
                    self.settle(ticket, net);
                    continue;
                }
                None => match net.leave(*slot, by_close) {
                    Some(state) => state,
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
