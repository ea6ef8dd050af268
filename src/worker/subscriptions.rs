//! A connection's subscriptions: how they begin and end.

use super::table::{Entry, Subscription};
use super::topics::{Ask, Asker, Poll, TopicMail, cursor_header};
use super::{Kernel, Worker};
use crate::conn::{Ended, Phase};
use crate::error::{End, Refused};
use crate::http::Response;
use crate::planted::{Bug, planted};
use crate::service::{ConnId, Join, Question, Reply, Service, Started, Wish};
use crate::time::Span;
use crate::topic::{Author, Cursor, Encoding, Gap, Place, Read, Start, Subscriber, TopicName};
use crate::ws::deflate::Window;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Connections whose subscriptions have begun, and that are sent nothing of them yet.
#[derive(Debug, Default)]
pub(super) struct Held {
    slots: HashSet<u32>,
    /// Those to be sent to again, once what is under way is done: where their subscriptions stand is known then.
    released: Vec<ConnId>,
}

impl Held {
    pub(super) fn wish(&mut self, id: ConnId, holds: bool) {
        if holds {
            self.slots.insert(id.slot);
        } else {
            self.released.push(id);
        }
    }

    #[inline]
    pub(super) fn has(&self, slot: u32) -> bool {
        !self.slots.is_empty() && self.slots.contains(&slot)
    }

    pub(super) fn is_any_released(&self) -> bool {
        !self.released.is_empty()
    }

    fn forget(&mut self, slot: u32) {
        if !self.slots.is_empty() {
            self.slots.remove(&slot);
        }
    }
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// The service wants an open WebSocket to get the messages of a topic. Twice is once.
    pub(super) fn subscribe(&mut self, id: ConnId, join: Join) {
        let Join { name, wanted, skips, encoding, member, until } = join;
        // A session has another one beside each, if it wants to know who comes and goes; it counts for itself.
        let most = self.rules.subscriptions_max * if self.rules.any_join_leave { 2 } else { 1 };
        let slot = id.slot;
        if !self.table.find(slot, id.serial).is_some_and(|entry| entry.conn.phase().is_open()) {
            return;
        }
        let known = self.topics.number(name.as_str());
        if known.is_some_and(|topic| self.table.subscriptions(slot).any(|(_, other)| other.topic() == topic)) {
            return;
        }
        let Some(nth) = self.table.vacancy(slot, most) else {
            let refused = Err(Refused::TooManySubscriptions);
            return self.serve(id, |service, connection| service.subscribed(connection, &name, refused));
        };
        self.tickets = self.tickets.wrapping_add(1);
        let ticket = Subscription::ticket(self.tickets);
        let reply = Reply::Subscribe { encoding, ticket };
        let question = Question::Read(Read { skips, member: member.clone(), ..Read::all(wanted) });
        let ask = Ask { id, reply, opening: None, headers: Vec::new(), member, until };
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
        let Some(topic) = self.topics.number(name.as_str()) else { return };
        let found = self.table.subscriptions(id.slot).find(|(_, subscription)| subscription.topic() == topic);
        if let Some((nth, _)) = found {
            self.leave(id.slot, nth);
        }
    }

    /// The home has refused a subscription.
    pub(super) fn subscription_refused(&mut self, id: ConnId, name: &TopicName, ticket: u32) {
        if let Some(nth) = self.asked_with(id, ticket) {
            self.table.set_subscription(id.slot, nth, None);
            self.serve(id, |service, connection| service.subscribed(connection, name, Err(Refused::TopicsFull)));
        }
    }

    /// Which of a connection's subscriptions was asked for with this ticket, if it is still wanted.
    fn asked_with(&mut self, id: ConnId, wanted: u32) -> Option<u16> {
        self.table.find(id.slot, id.serial)?;
        let is_it = |subscription| matches!(subscription, Subscription::Asked { ticket, .. } if ticket == wanted || planted(Bug::TicketIgnored));
        self.table.subscriptions(id.slot).find(|&(_, subscription)| is_it(subscription)).map(|(nth, _)| nth)
    }

    /// Makes a connection a subscriber, if it still waits for that. Its number among the connection's subscriptions.
    fn place(&mut self, id: ConnId, topic: u32, cursor: u64, reply: Reply) -> Option<u16> {
        let encoding = reply.encoding()?;
        let conn = &self.table.find(id.slot, id.serial)?.conn;
        let (phase, window) = (conn.phase(), conn.window());
        let nth = match reply {
            Reply::Subscribe { ticket, .. } if phase.is_open() => self.asked_with(id, ticket)?,
            Reply::Open(_) | Reply::Stream | Reply::Poll { .. } if phase == Phase::Deciding => 0,
            _ => return None,
        };
        let window = if planted(Bug::CompressedToAll) { Some(Window::Small) } else { window };
        let encoding = window.map_or(encoding, |window| encoding.compressed(window));
        let place = self.topics.subscribe(topic, Subscriber { cursor, slot: id.slot, nth, encoding });
        self.table.set_subscription(id.slot, nth, Some(Subscription::Placed(place)));
        Some(nth)
    }

    /// Begins a stream.
    pub(super) fn start(&mut self, ask: Ask<S::State>, topic: u32, start: Start) {
        let Ask { id, reply, opening, headers, member, until } = ask;
        let Some(nth) = self.place(id, topic, start.from.offset, reply) else {
            let name = self.topics.name(topic).clone();
            return member.into_iter().for_each(|member| self.member_left(name.clone(), member));
        };
        if let Some(member) = member {
            self.members.insert((id.slot, nth), member);
        }
        if let Some(until) = until {
            self.expiries.insert(id.slot, until);
        }
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
            _ => self.begin(id, nth, topic, &start),
        }
        if let (Some(gap), Some(encoding)) = (start.gap, reply.encoding()) {
            self.say_gap(id, encoding, &gap);
        }
        self.push_one(id, nth);
        if self.rules.any_join_leave {
            self.push_all(id.slot, id.serial); // what stands beside the topic waited for it
        }
        self.grant_wishes();
    }

    /// Tells the service that a subscription begins.
    fn begin(&mut self, id: ConnId, nth: u16, topic: u32, start: &Start) {
        // Kept for the time of the call, in which the topics belong to the worker.
        let local = &self.topics.locals[topic as usize];
        let Some(copy) = &local.copy else { return };
        let name = self.topics.name(topic).clone();
        let missed: Vec<_> = copy.after(start.from.offset).cloned().collect();
        let mut seen = start.from.offset;
        self.beginning = true;
        self.serve(id, |service, connection| {
            seen = service.started(connection, Started { topic: &name, start, missed: &missed });
        });
        if let Some(place) = self.place_of(id, nth) {
            self.topics.saw(place, seen);
        }
        self.beginning = false;
        // Whoever does not want it after all is sent nothing of it.
        let ends =
            |(other, wish): &(ConnId, Wish)| *other == id && matches!(wish, Wish::Unsubscribe(other) if *other == name);
        if self.wishes.iter().any(ends) {
            self.unsubscribe(id, &name);
        }
    }

    /// Lets a long poll wait, for so many messages and so long.
    pub(super) fn wait(&mut self, ask: Ask<S::State>, topic: u32, from: Cursor, (limit, wait): (usize, Duration)) {
        let Ask { id, reply, headers, .. } = ask;
        let Some(nth) = self.place(id, topic, from.offset, reply) else { return };
        self.polls.insert(id.slot, Poll { limit, headers });
        let until = self.now.tick() + Span::covering(wait);
        self.handle(id.slot, id.serial, |desk| desk.entry.conn.wait(until));
        // It went while the home was asked, and no edge will tell of that again.
        let has_gone = |entry: &mut Entry<_, _>| entry.conn.has_ended() && entry.conn.is_pointless();
        if self.table.find(id.slot, id.serial).is_some_and(has_gone) {
            return self.remove(id.slot, false);
        }
        self.push_one(id, nth);
    }

    /// Tells a subscriber that it missed something; a WebSocket that has no place for that is closed.
    pub(super) fn say_gap(&mut self, id: ConnId, encoding: Encoding, gap: &Gap) {
        if planted(Bug::GapUnsaid) {
            return;
        }
        let said = encoding.gap(gap);
        self.handle(id.slot, id.serial, |desk| match (said, desk.entry.conn.phase()) {
            (Some(bytes), phase) if phase.is_subscribed() => desk.output.extend_from_slice(&bytes),
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
            if !self.members.is_empty()
                && let Some(member) = self.members.remove(&(slot, nth))
            {
                self.member_left(self.topics.name(place.topic).clone(), member);
            }
            if let Some(moved) = self.topics.unsubscribe(place).filter(|_| !planted(Bug::MovedNotTold)) {
                self.table.set_subscription(moved.slot, moved.nth, Some(Subscription::Placed(place)));
            }
            self.retire(place.topic);
        }
    }

    /// The home is told that somebody is gone of whom others know.
    fn member_left(&mut self, name: TopicName, member: Arc<Author>) {
        // Who has no name is not at the home: it is only known here whose it is.
        if !member.client.is_empty() && !planted(Bug::MemberKept) {
            self.mail_home(name, |name| TopicMail::Left { name, member });
        }
    }

    /// Sends to those that are held no longer.
    pub(super) fn release_held(&mut self) {
        for id in std::mem::take(&mut self.held.released) {
            if self.table.find(id.slot, id.serial).is_some() {
                self.held.forget(id.slot);
                self.push_all(id.slot, id.serial);
            }
        }
    }

    /// Ends all of them.
    pub(super) fn leave_all(&mut self, slot: u32) {
        self.held.forget(slot);
        if !self.polls.is_empty() {
            self.polls.remove(&slot);
        }
        for nth in self.table.numbers(slot).rev() {
            self.leave(slot, nth);
        }
    }

    /// Takes a connection that no longer listens from among the subscribers.
    pub(super) fn leave_if_over(&mut self, slot: u32) {
        let Some(phase) = self.table.at(slot).map(|entry| entry.conn.phase()) else { return };
        if phase.is_ending() {
            self.note_parting(slot);
        }
        if !phase.is_subscribed() {
            self.leave_all(slot);
        }
    }

    /// Whether a connection's subscription to a topic of this name has begun.
    pub(super) fn has_begun(&self, slot: u32, name: &str) -> bool {
        let Some(topic) = self.topics.number(name) else { return false };
        self.table.subscriptions(slot).any(|(_, other)| other.place().is_some_and(|place| place.topic == topic))
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
