//! What the control plane asks of a worker, answered in slices: walking a table of 20,000 connections in one go would have
//! everybody there wait for milliseconds.
//!
//! ```text
//!   whoever asks                         each worker
//!     Envelope::Inspect ---------------->  look_on: a slice a turn
//!     a channel's receiver  <------------  Found, once, when it is through
//! ```
//!
//! The answer comes by a channel, since a worker cannot ring a thread whose eventfd was made after the tables parted. Whoever
//! asks waits, but not for ever; an answer that nobody waits for any more is dropped.

use super::recent::{Gone, Transport, Why};
use super::tap::Tap;
use super::{Kernel, Worker};
use crate::conn::{Ended, Peer, Phase};
use crate::error::End;
use crate::http::Response;
use crate::limits::{CALLS_PER_TURN, INSPECT_PER_TURN, INSPECT_TOPICS_EACH, SURVEY_LOOKS_MAX};
use crate::service::{ConnId, Service};
use crate::time::Tick;
use crate::topic::{AtHome, TopicName};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Which connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) id: Option<ConnId>,
    pub(crate) user: Option<Box<str>>,
    pub(crate) topic: Option<TopicName>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) transport: Option<Transport>,
}

/// Which first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Queued,
    Lag,
    Age,
}

/// Which topics first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopicOrder {
    Subscribers,
    Messages,
    Bytes,
}

/// Which of those who are gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct GoneFilter {
    pub(crate) serial: Option<u64>,
    pub(crate) user: Option<Box<str>>,
    pub(crate) address: Option<IpAddr>,
    /// The registry's word.
    pub(crate) reason: Option<Box<str>>,
}

/// What is asked of every worker.
#[derive(Debug)]
pub(crate) enum Quest {
    Connections {
        filter: Filter,
        order: Order,
        limit: usize,
    },
    /// Disconnects them; without a code, with the protocol's own.
    Dismiss {
        filter: Filter,
        code: Option<u16>,
        reason: Option<Box<str>>,
    },
    /// Names that may be among the first.
    Candidates {
        order: TopicOrder,
        limit: usize,
        prefix: Box<str>,
    },
    /// What there is of each of these here.
    Topics(Vec<TopicName>),
    Gone {
        filter: GoneFilter,
        limit: usize,
    },
    /// Shows frames from now on.
    Tap(Arc<Tap>),
}

/// A connection as others see it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: ConnId,
    pub(crate) peer: Peer,
    pub(crate) transport: Transport,
    pub(crate) protocol: &'static str,
    pub(crate) is_ending: bool,
    pub(crate) user: Option<Box<str>>,
    /// Some of them.
    pub(crate) topics: Vec<TopicName>,
    pub(crate) subscriptions: usize,
    pub(crate) age_ms: u64,
    /// Since a byte last came, in steps of 64 ms; `None`, where that is not known.
    pub(crate) idle_ms: Option<u64>,
    /// Bytes that wait for it, and what it alone has the server hold.
    pub(crate) queued: usize,
    pub(crate) held: usize,
    /// Messages behind the head, where it is farthest behind.
    pub(crate) lag: u64,
}

/// A topic on one worker: how many listen there, and what its home is, if that is there.
pub(crate) type TopicHere = (usize, Option<AtHome>);

/// What a worker found.
#[derive(Debug)]
pub(crate) enum Found {
    /// The first of them, and how many there are.
    Connections {
        rows: Vec<Row>,
        matched: usize,
    },
    Dismissed(usize),
    Candidates(Vec<(u64, TopicName)>),
    Topics(Vec<TopicHere>),
    Gone(Vec<Gone>),
    Tapped,
}

/// A quest under way on one worker.
#[derive(Debug)]
pub(crate) struct Inspection {
    quest: Arc<Quest>,
    answer: Sender<(u16, Found)>,
    /// Where the walk goes on.
    at: u64,
    matched: usize,
    /// The first so far, the last of them on top: score, slot, serial.
    first: BinaryHeap<Reverse<(u64, u32, u64)>>,
    rows: Vec<Row>,
    names: BinaryHeap<Reverse<(u64, TopicName)>>,
    /// The walk is over: what was found is written.
    is_through: bool,
}

impl Inspection {
    pub(crate) fn new(quest: Arc<Quest>, answer: Sender<(u16, Found)>) -> Self {
        Self {
            quest,
            answer,
            at: 0,
            matched: 0,
            first: BinaryHeap::new(),
            rows: Vec::new(),
            names: BinaryHeap::new(),
            is_through: false,
        }
    }
}

/// Keeps the `most` greatest.
fn keep<T: Ord>(heap: &mut BinaryHeap<Reverse<T>>, most: usize, new: T) {
    heap.push(Reverse(new));
    if heap.len() > most {
        heap.pop();
    }
}

impl GoneFilter {
    fn takes(&self, gone: &Gone) -> bool {
        let word = match gone.why {
            Why::Ended(end) => end.word(),
            Why::Refused(refused) => refused.word(),
        };
        self.serial.is_none_or(|serial| gone.serial == Some(serial))
            && self.user.as_ref().is_none_or(|user| gone.user.as_ref() == Some(user))
            && self.address.is_none_or(|address| gone.peer.ip() == Some(address))
            && self.reason.as_ref().is_none_or(|reason| **reason == *word)
    }
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// A slice of what the control plane asks.
    pub(super) fn look_on(&mut self) {
        let Some(mut inspection) = self.inspections.pop_front() else { return };
        let quest = Arc::clone(&inspection.quest);
        let found = match &*quest {
            Quest::Connections { filter, order, limit } => {
                self.look_at_connections(&mut inspection, filter, *order, *limit)
            }
            Quest::Dismiss { filter, code, reason } => {
                self.dismiss_some(&mut inspection, filter, *code, reason.as_deref())
            }
            Quest::Candidates { order, limit, prefix } => self.look_at_topics(&mut inspection, *order, *limit, prefix),
            Quest::Topics(names) => Some(Found::Topics(names.iter().map(|name| self.topics.here(name)).collect())),
            Quest::Gone { filter, limit } => {
                Some(Found::Gone(self.recent.iter().filter(|gone| filter.takes(gone)).take(*limit).cloned().collect()))
            }
            Quest::Tap(tap) => {
                self.taps.begin(Arc::clone(tap), self.now);
                Some(Found::Tapped)
            }
        };
        match found {
            // Nobody may wait any more.
            Some(found) => drop(inspection.answer.send((self.index, found))),
            None => self.inspections.push_back(inspection),
        }
    }

    /// The slots of the next slice, and whether it is the last.
    fn slice(&self, inspection: &mut Inspection, filter: &Filter) -> (std::ops::Range<u32>, bool) {
        if let Some(id) = filter.id {
            return (id.slot..id.slot + 1, true);
        }
        let from = inspection.at as u32;
        let end = (from + INSPECT_PER_TURN as u32).min(self.table.high());
        inspection.at = u64::from(end);
        (from..end, end >= self.table.high())
    }

    fn look_at_connections(
        &mut self,
        inspection: &mut Inspection,
        filter: &Filter,
        order: Order,
        limit: usize,
    ) -> Option<Found> {
        if !inspection.is_through {
            let (slots, is_last) = self.slice(inspection, filter);
            for slot in slots {
                let Some(serial) = self.matching(slot, filter) else { continue };
                inspection.matched += 1;
                keep(&mut inspection.first, limit, (self.score(slot, order), slot, serial));
            }
            inspection.is_through = is_last;
            return None;
        }
        // The rows are written in slices, too: a thousand are a millisecond.
        for _ in 0..INSPECT_PER_TURN {
            let Some(Reverse((_, slot, serial))) = inspection.first.pop() else {
                let rows = std::mem::take(&mut inspection.rows);
                return Some(Found::Connections { rows, matched: inspection.matched });
            };
            inspection.rows.extend(self.row(slot, serial));
        }
        None
    }

    /// The serial of that slot's connection, if it is one of those.
    fn matching(&self, slot: u32, filter: &Filter) -> Option<u64> {
        let entry = self.table.get(slot)?;
        let id = ConnId { worker: self.index, slot, serial: entry.serial };
        let is_its = filter.id.is_none_or(|wanted| wanted == id)
            && filter.address.is_none_or(|address| entry.conn.peer().ip() == Some(address))
            && filter.transport.is_none_or(|transport| self.transport_of(slot) == Some(transport))
            && filter.topic.as_ref().is_none_or(|topic| self.has_begun(slot, topic.as_str()))
            && filter.user.as_ref().is_none_or(|user| self.user_of(slot) == Some(user));
        is_its.then_some(entry.serial)
    }

    fn score(&self, slot: u32, order: Order) -> u64 {
        let Some(entry) = self.table.get(slot) else { return 0 };
        match order {
            Order::Queued => entry.conn.queued() as u64,
            Order::Lag => self.standing(slot).1,
            // The lowest serial came first.
            Order::Age => u64::MAX - entry.serial,
        }
    }

    /// Whose a connection is, as far as that is known.
    pub(super) fn user_of(&self, slot: u32) -> Option<&str> {
        let entry = self.table.get(slot)?;
        let id = ConnId { worker: self.index, slot, serial: entry.serial };
        let told = entry.conn.state.as_ref().map(|state| self.service.told(id, state)).unwrap_or_default();
        let member = || self.members.get(&(slot, 0)).map(|member| &*member.user);
        Some(told.user).filter(|user| !user.is_empty()).or_else(member).filter(|user| !user.is_empty())
    }

    pub(super) fn transport_of(&self, slot: u32) -> Option<Transport> {
        let entry = self.table.get(slot)?;
        let id = ConnId { worker: self.index, slot, serial: entry.serial };
        let is_emulated = entry.conn.state.as_ref().is_some_and(|state| self.service.told(id, state).is_emulated);
        Some(Transport::of(entry.conn.phase(), entry.conn.state.is_some(), is_emulated))
    }

    fn row(&self, slot: u32, serial: u64) -> Option<Row> {
        let entry = self.table.get(slot).filter(|entry| entry.serial == serial)?;
        let (conn, id) = (&entry.conn, ConnId { worker: self.index, slot, serial });
        let names = self.table.subscriptions(slot).map(|(_, subscription)| self.topics.name(subscription.topic()));
        let names: Vec<_> = names.filter(|name| name.beside().is_none()).collect();
        let told = conn.state.as_ref().map(|state| self.service.told(id, state)).unwrap_or_default();
        let age_ms = u64::try_from(self.now.since(self.ages.since(serial, self.now)).as_millis()).unwrap_or(u64::MAX);
        // It is known in steps, from before it came.
        let idle_ms = conn.silent_ticks(self.now.tick()).map(|ticks| (u64::from(ticks) * Tick::MS).min(age_ms));
        Some(Row {
            id,
            peer: conn.peer(),
            transport: self.transport_of(slot)?,
            protocol: told.protocol,
            is_ending: conn.phase().is_ending(),
            user: self.user_of(slot).map(Into::into),
            topics: names.iter().take(INSPECT_TOPICS_EACH).map(|&name| name.clone()).collect(),
            subscriptions: names.len(),
            age_ms,
            idle_ms,
            queued: conn.queued(),
            held: conn.held(),
            lag: self.standing(slot).1,
        })
    }

    /// Disconnects some of those who are meant.
    fn dismiss_some(
        &mut self,
        inspection: &mut Inspection,
        filter: &Filter,
        code: Option<u16>,
        reason: Option<&str>,
    ) -> Option<Found> {
        let (slots, is_last) = self.slice(inspection, filter);
        let end = slots.end;
        let mut dismissed = 0;
        for slot in slots {
            let Some(serial) = self.matching(slot, filter) else { continue };
            if !self.dismiss(slot, serial, code, reason) {
                continue; // it is about to end already
            }
            inspection.matched += 1;
            dismissed += 1;
            if dismissed == CALLS_PER_TURN && slot + 1 < end {
                inspection.at = u64::from(slot + 1); // the rest has its turn
                return None;
            }
        }
        is_last.then_some(Found::Dismissed(inspection.matched))
    }

    /// Disconnects a connection, whatever it is doing; `false`: it is ending already.
    fn dismiss(&mut self, slot: u32, serial: u64, code: Option<u16>, reason: Option<&str>) -> bool {
        if self.table.find(slot, serial).is_none_or(|entry| entry.conn.phase().is_ending()) {
            return false;
        }
        self.handle(slot, serial, |desk| match desk.entry.conn.phase() {
            Phase::Idle => desk.entry.conn.end_idle(),
            Phase::Preamble | Phase::Head | Phase::Body | Phase::Deciding | Phase::Waiting => {
                let response = Response::refuse(403, reason.unwrap_or(End::Operator.text()));
                desk.entry.conn.refuse(&response, false, desk.output, &mut desk.glue);
            }
            Phase::Streaming => {
                desk.entry.conn.settle(Ended::new(End::Operator));
                desk.entry.conn.end_stream();
            }
            _ => {
                let Some(state) = &desk.entry.conn.state else { return };
                let (its_code, its_reason) = desk.glue.service.dismissal(state);
                let (code, reason) = (code.unwrap_or(its_code), reason.unwrap_or(its_reason).into());
                let ended = Ended { end: End::Operator, code, reason, clean: false };
                desk.entry.conn.close(Some(code), ended, desk.output);
            }
        });
        true
    }

    /// Names of topics that have most of something here.
    fn look_at_topics(
        &mut self,
        inspection: &mut Inspection,
        order: TopicOrder,
        limit: usize,
        prefix: &str,
    ) -> Option<Found> {
        let names = &mut inspection.names;
        let mut tell = |score: u64, name: &TopicName| {
            if name.as_str().starts_with(prefix) && name.beside().is_none() {
                keep(names, limit, (score, name.clone()));
            }
        };
        let next = if order == TopicOrder::Subscribers {
            let from = usize::try_from(inspection.at).unwrap_or(usize::MAX);
            let next = self.topics.survey(from, SURVEY_LOOKS_MAX, |name, clients| tell(clients as u64, name));
            next.map(|next| next as u64)
        } else {
            self.topics.survey_homes(inspection.at, SURVEY_LOOKS_MAX, |name, home| {
                tell(if order == TopicOrder::Messages { home.messages as u64 } else { home.bytes as u64 }, name);
            })
        };
        inspection.at = next.unwrap_or(0);
        let names = std::mem::take(&mut inspection.names);
        if next.is_some() {
            inspection.names = names;
            return None;
        }
        Some(Found::Candidates(names.into_iter().map(|Reverse(named)| named).collect()))
    }
}
