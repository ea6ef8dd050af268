//! A connection's subscriptions: how they begin and end.

use super::table::Subscription;
use super::topics::{Ask, Asker, Poll, cursor_header};
use super::{Kernel, Worker};
use crate::conn::{Ended, Phase};
use crate::error::{End, Refused};
use crate::http::Response;
use crate::service::{ConnId, Join, Question, Reply, Service};
use crate::time::Span;
use crate::topic::{Cursor, Encoding, Gap, Place, Start, Subscriber, TopicName, Wanted};
use std::time::Duration;

impl<S: Service, K: Kernel> Worker<S, K> {
    /// The service wants an open WebSocket to get the messages of a topic. Twice is once.
    pub(super) fn subscribe(&mut self, id: ConnId, join: Join) {
        let Join { name, since, encoding } = join;
        let (slot, most) = (id.slot, self.rules.subscriptions_max);
        if !self.table.find(slot, id.serial).is_some_and(|entry| entry.conn.phase().is_open()) {
            return;
        }
        let known = self.topics.number(&name);
        if known.is_some_and(|topic| self.table.subscriptions(slot).any(|(_, other)| other.topic() == topic)) {
            return;
        }
        let Some(nth) = self.table.vacancy(slot, most) else {
            return self.tell(id, &name, Err(Refused::TooManySubscriptions));
        };
        self.tickets = self.tickets.wrapping_add(1);
        let ticket = Subscription::ticket(self.tickets);
        let reply = Reply::Subscribe { encoding, ticket };
        let question = Question::Read { wanted: Wanted::Since(since), limit: usize::MAX };
        let ask = Ask { id, reply, opening: None, headers: Vec::new() };
        let here = self.started_here(&name, &question, reply);
        let topic = here.as_ref().map_or_else(|| self.topics.asking(&name), |(topic, _)| *topic);
        self.table.set_subscription(slot, nth, Some(Subscription::Asked { topic, ticket }));
        match here {
            Some((topic, start)) => self.start(ask, topic, start),
            None => self.ask_home(name, question, Asker::Connection(ask)),
        }
    }

    /// The service wants no more of a topic for a connection.
    pub(super) fn unsubscribe(&mut self, id: ConnId, name: &TopicName) {
        if self.table.find(id.slot, id.serial).is_none() {
            return;
        }
        let Some(topic) = self.topics.number(name) else { return };
        let found = self.table.subscriptions(id.slot).find(|(_, subscription)| subscription.topic() == topic);
        if let Some((nth, _)) = found {
            self.leave(id.slot, nth);
        }
    }

    /// The home has refused a subscription.
    pub(super) fn subscription_refused(&mut self, id: ConnId, name: &TopicName, ticket: u32) {
        if let Some(nth) = self.asked_with(id, ticket) {
            self.table.set_subscription(id.slot, nth, None);
            self.tell(id, name, Err(Refused::TopicsFull));
        }
    }

    /// Which of a connection's subscriptions was asked for with this ticket, if it is still wanted.
    fn asked_with(&mut self, id: ConnId, wanted: u32) -> Option<u16> {
        self.table.find(id.slot, id.serial)?;
        let is_it = |subscription| matches!(subscription, Subscription::Asked { ticket, .. } if ticket == wanted);
        self.table.subscriptions(id.slot).find(|&(_, subscription)| is_it(subscription)).map(|(nth, _)| nth)
    }

    /// Tells the service what became of a subscription.
    fn tell(&mut self, id: ConnId, name: &TopicName, outcome: Result<Cursor, Refused>) {
        self.handle(id.slot, id.serial, |desk| {
            let glue = &mut desk.glue;
            desk.entry.conn.visit(desk.rules, desk.output, |io, state| {
                glue.serve(io, state, |service, connection| service.subscribed(connection, name, outcome));
            });
        });
    }

    /// Makes a connection a subscriber, if it still waits for that. Its number among the connection's subscriptions.
    fn place(&mut self, id: ConnId, topic: u32, cursor: u64, reply: Reply) -> Option<u16> {
        let encoding = reply.encoding()?;
        let phase = self.table.find(id.slot, id.serial)?.conn.phase();
        let nth = match reply {
            Reply::Subscribe { ticket, .. } if phase.is_open() => self.asked_with(id, ticket)?,
            Reply::Open(_) | Reply::Stream | Reply::Poll { .. } if phase == Phase::Deciding => 0,
            _ => return None,
        };
        let place = self.topics.subscribe(topic, Subscriber { cursor, slot: id.slot, nth, encoding });
        self.table.set_subscription(id.slot, nth, Some(Subscription::Placed(place)));
        Some(nth)
    }

    /// Begins a stream.
    pub(super) fn start(&mut self, ask: Ask<S::State>, topic: u32, start: Start) {
        let Ask { id, reply, opening, headers } = ask;
        let Some(nth) = self.place(id, topic, start.from.offset, reply) else { return };
        match (reply, opening) {
            (Reply::Open(_), Some(mut opening)) => {
                opening.headers.push(cursor_header(start.from));
                self.answer(id, Ok(opening));
            }
            (Reply::Stream, _) => {
                let head = self.event_stream(start.from, headers);
                self.handle(id.slot, id.serial, |desk| _ = desk.entry.conn.stream(head.as_bytes(), desk.output));
                self.read_again(id);
            }
            _ => {
                let name = self.topics.name(topic).clone();
                self.tell(id, &name, Ok(start.from));
            }
        }
        if let (Some(gap), Some(encoding)) = (start.gap, reply.encoding()) {
            self.say_gap(id, encoding, &gap);
        }
        self.push_one(id, nth);
    }

    /// Lets a long poll wait, for so many messages and so long.
    pub(super) fn wait(&mut self, ask: Ask<S::State>, topic: u32, from: Cursor, (limit, wait): (usize, Duration)) {
        let Ask { id, reply, headers, .. } = ask;
        let Some(nth) = self.place(id, topic, from.offset, reply) else { return };
        self.polls.insert(id.slot, Poll { limit, headers });
        let until = self.now.tick() + Span::covering(wait);
        self.handle(id.slot, id.serial, |desk| desk.entry.conn.wait(until));
        self.push_one(id, nth);
    }

    /// Tells a subscriber that it missed something; a WebSocket that has no place for that is closed.
    pub(super) fn say_gap(&mut self, id: ConnId, encoding: Encoding, gap: &Gap) {
        let said = encoding.gap(gap);
        self.handle(id.slot, id.serial, |desk| match (said, desk.entry.conn.phase()) {
            (Some(bytes), Phase::Open | Phase::Pinged | Phase::Streaming) => desk.output.extend_from_slice(&bytes),
            (Some(_), _) => {}
            (None, _) => {
                let (end, reason) = (End::Gap, format!("gap: resume at {}", gap.resumed).into());
                let ended = Ended { end, code: end.code(), reason, clean: false };
                desk.entry.conn.close(Some(end.code()), ended, desk.output);
            }
        });
    }

    /// Ends one of a connection's subscriptions.
    fn leave(&mut self, slot: u32, nth: u16) {
        let Some(subscription) = self.table.subscription(slot, nth) else { return };
        self.table.set_subscription(slot, nth, None);
        if let Subscription::Placed(place) = subscription {
            if let Some(moved) = self.topics.unsubscribe(place) {
                self.table.set_subscription(moved.slot, moved.nth, Some(Subscription::Placed(place)));
            }
            self.retire(place.topic);
        }
    }

    /// Ends all of them.
    pub(super) fn leave_all(&mut self, slot: u32) {
        if !self.polls.is_empty() {
            self.polls.remove(&slot);
        }
        for nth in self.table.numbers(slot).rev() {
            self.leave(slot, nth);
        }
    }

    /// Takes a connection that no longer listens from among the subscribers.
    pub(super) fn leave_if_over(&mut self, slot: u32) {
        if self.table.at(slot).is_some_and(|entry| !entry.conn.phase().is_subscribed()) {
            self.leave_all(slot);
        }
    }

    /// Where a subscription stands, unless the connection is gone or the subscription has not begun.
    pub(super) fn place_of(&mut self, id: ConnId, nth: u16) -> Option<Place> {
        self.table.find(id.slot, id.serial)?;
        self.table.subscription(id.slot, nth)?.place()
    }

    /// The time of a long poll is up.
    pub(super) fn poll_over(&mut self, id: ConnId) {
        let headers = self.polls.remove(&id.slot).map_or_else(Vec::new, |poll| poll.headers);
        let cursor = self.place_of(id, 0).and_then(|place| self.topics.cursor(place)).map(cursor_header);
        self.reply(id, &Response::new(204).headers(cursor).headers(headers));
    }
}
