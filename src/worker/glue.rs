//! Puts the user's service behind the connections' handler.

use super::Sources;
use super::budget::LogBudget;
use super::recent::Recent;
use super::topics::{Asked, asked, asked_to_open};
use crate::config::Rules;
use crate::conn::{Handler, Io, Outcome, Peer, Verdict};
use crate::error::{Refused, Violation};
use crate::http::{Date, Head, Node, Origins, Response, forwarded, wants_events};
use crate::limits::EVENT_SOURCE_RETRY_MS;
use crate::metrics::Metrics;
use crate::service::{Accept, AnswerKind, Begun, ConnId, Connection, Decision, Message, Request, Service, Wish};
use crate::time::Millis;
use crate::topic::TopicName;
use std::collections::{HashMap, VecDeque};

/// The service, for the connection that is being handled.
#[derive(Debug)]
pub(super) struct Glue<'a, S: Service> {
    pub(super) service: &'a mut S,
    pub(super) metrics: &'a Metrics,
    pub(super) log: &'a mut LogBudget,
    pub(super) recent: &'a mut Recent,
    /// Nobody comes in any more.
    pub(super) draining: bool,
    pub(super) sources: Option<&'a Sources>,
    /// Whom requests came through that named their clients, by slot.
    pub(super) hops: &'a mut HashMap<u32, Peer>,
    pub(super) origins: &'a Origins,
    /// The time, for responses.
    pub(super) date: &'a Date,
    pub(super) asked: &'a mut Option<Asked<S::State>>,
    pub(super) wishes: &'a mut VecDeque<(ConnId, Wish)>,
    /// What the connection subscribes to first.
    pub(super) topic: Option<&'a TopicName>,
    pub(super) id: ConnId,
    pub(super) rules: &'a Rules,
    pub(super) now: Millis,
    pub(super) unix_seconds: u64,
}

impl<S: Service> Glue<'_, S> {
    /// Has the service do something with the connection.
    #[inline]
    pub(super) fn serve(
        &mut self,
        io: Io<'_>,
        state: &mut S::State,
        act: impl FnOnce(&mut S, &mut Connection<'_, S::State>),
    ) {
        let Self { id, metrics, topic, rules, now, unix_seconds, .. } = *self;
        let wishes = &mut *self.wishes;
        act(self.service, &mut Connection { io, state, id, metrics, topic, wishes, rules, now, unix_seconds });
    }

    #[inline]
    fn message(&mut self, io: Io<'_>, state: &mut S::State, message: Message<'_>) {
        self.metrics.messages_in.add(1);
        self.serve(io, state, |service, connection| service.message(connection, message));
    }
}

impl<S: Service> Handler<S::State> for Glue<'_, S> {
    fn client(&mut self, head: &Head<'_>, peer: Peer) -> Result<Peer, Refused> {
        // Whoever was named before was another request's client, also where nobody is to be named any more.
        let hop = self.hops.get(&self.id.slot).copied().unwrap_or(peer);
        let Some((proxies, header)) = self.rules.proxies.as_ref().and_then(|proxies| Some((proxies, proxies.header?)))
        else {
            return Ok(hop);
        };
        if !proxies.trusts(hop.ip()) {
            return Ok(hop);
        }
        let client = match forwarded(head, header, |ip| proxies.trusts(ip))? {
            Some(Node::Address(address)) => address.into(),
            Some(Node::Unix) => Peer::UNIX,
            None => hop,
        };
        if client != hop {
            self.hops.insert(self.id.slot, hop);
        }
        Ok(client)
    }

    fn count(&mut self, client: Peer) -> Result<bool, Refused> {
        let is_proxy = self.rules.proxies.as_ref().is_some_and(|proxies| proxies.trusts(client.ip()));
        match (self.sources, client.ip()) {
            (Some(sources), Some(ip)) if !is_proxy => match sources.enter(ip) {
                true => Ok(true),
                false => Err(Refused::AddressFull),
            },
            _ => Ok(false),
        }
    }

    fn discount(&mut self, client: Peer) {
        if let Some((sources, ip)) = self.sources.zip(client.ip()) {
            sources.leave(ip);
        }
    }

    fn is_draining(&self) -> bool {
        self.draining
    }

    fn open(&mut self, head: &Head<'_>, peer: Peer) -> Verdict<S::State> {
        if self.draining {
            return Verdict::Now(Err(Refused::Draining.into()));
        }
        if let Err(refused) = self.origins.check(head) {
            return Verdict::Now(Err(refused.into()));
        }
        let Self { id, rules, unix_seconds, .. } = *self;
        match self.service.open(&Request { head, body: &[], peer, id, rules, unix_seconds }) {
            Decision::Now(Ok(Accept(opening, None))) => Verdict::Now(Ok(opening)),
            Decision::Now(Ok(Accept(opening, Some(join)))) => {
                *self.asked = Some(asked_to_open(self.id, opening, join));
                Verdict::Later
            }
            Decision::Now(Err(response)) => Verdict::Now(Err(response)),
            Decision::Later(_) => Verdict::Later,
        }
    }

    fn request(&mut self, head: &Head<'_>, body: &[u8], peer: Peer) -> Outcome<S::State> {
        if let Err(refused) = self.origins.check(head) {
            return Outcome::Now(refused.into());
        }
        // Who has been sent off may be at another server already, and would never hear of what is published here: whoever
        // changes something is told to do it there.
        if self.draining && !matches!(head.method(), "GET" | "HEAD" | "OPTIONS") {
            return Outcome::Now(Refused::Draining.into());
        }
        // A stream would be ended in a moment; and an EventSource that is refused in another way never comes back.
        if self.draining && wants_events(head) {
            let (from, to) = EVENT_SOURCE_RETRY_MS;
            return Outcome::Now(Response::come_back(Refused::Draining, from + self.id.serial * 97 % (to - from)));
        }
        self.metrics.requests.add(1);
        let Self { id, rules, unix_seconds, .. } = *self;
        let answer = match self.service.begin(&Request { head, body, peer, id, rules, unix_seconds }) {
            Begun::Open(_) if self.draining => return Outcome::Now(Refused::Draining.into()),
            Begun::Open(emulated) => return Outcome::Open(emulated.0),
            Begun::Answered(answer) => answer,
        };
        match answer.0 {
            AnswerKind::Now(response) => return Outcome::Now(response),
            AnswerKind::Errand(errand) => self.wishes.push_back((self.id, Wish::Errand(errand))),
            AnswerKind::Parcel(parcel) => self.wishes.push_back((self.id, Wish::Parcel(parcel))),
            AnswerKind::Topic(request) => *self.asked = Some(asked(self.id, request)),
        }
        Outcome::Later
    }

    fn date(&self) -> Date {
        *self.date
    }

    fn ready(&mut self, io: Io<'_>, state: &mut S::State) {
        self.metrics.opened.add(1);
        self.serve(io, state, S::ready);
    }

    fn text(&mut self, io: Io<'_>, state: &mut S::State, text: &str) {
        self.message(io, state, Message::Text(text));
    }

    fn binary(&mut self, io: Io<'_>, state: &mut S::State, bytes: &[u8]) {
        self.message(io, state, Message::Binary(bytes));
    }

    fn pinged(&mut self) {
        self.metrics.pings_in.add(1);
    }

    fn pong(&mut self, io: Io<'_>, state: &mut S::State, payload: &[u8]) {
        self.metrics.pongs.add(1);
        self.serve(io, state, |service, connection| service.pong(connection, payload));
    }

    fn woken(&mut self, io: Io<'_>, state: &mut S::State) {
        self.serve(io, state, S::woken);
    }

    fn compresses(&mut self, context_bytes: usize) {
        self.metrics.compressed.add(1);
        self.metrics.context_bytes.add(context_bytes as u64);
    }

    fn refused(&mut self, response: &Response, peer: Peer) {
        let Some(refused) = response.refused() else {
            return;
        };
        self.metrics.refused.count(refused as usize);
        let word = (refused, response.status(), response.detail());
        self.recent.refused(self.unix_seconds * 1000, Some(self.id.serial), peer, word);
        if self.log.allows(self.now, refused.word()) {
            log::info!(peer:% = peer, id:% = self.id, status = response.status(), reason = refused.word(); "refused");
        }
    }

    fn violated(&mut self, violation: Violation, peer: Peer) {
        self.metrics.violations.count(violation as usize);
        if self.log.allows(self.now, violation.word()) {
            log::info!(peer:% = peer, code = violation.code(), reason = violation.word(); "closed");
        }
    }
}
