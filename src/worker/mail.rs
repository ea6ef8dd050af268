//! What other threads may ask of a worker.

use super::inspect::Inspection;
use super::memory::Budget;
use super::reload::{Reload, Update};
use super::sources::Sources;
use super::table::Live;
use super::topics::{Asker, TopicMail};
use crate::config::{Config, Drain};
use crate::conn::Opening;
use crate::http::Response;
use crate::mem::{Mailbox, Permits};
use crate::metrics::Metrics;
use crate::planted::{Bug, planted};
#[cfg(feature = "centrifugo")]
use crate::service::Answered;
use crate::service::{ConnId, Join, Parcel, Question};
use crate::sys::Wake;
use crate::topic::{Publication, TopicName};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// One request to a worker.
#[derive(Debug)]
pub(crate) enum Envelope<T> {
    /// A whole frame for a connection.
    Send { id: ConnId, frame: Arc<[u8]> },
    /// Begin the closing handshake of a connection.
    Close { id: ConnId, code: u16, reason: Box<str> },
    /// The verdict that a connection waits for.
    Answer { id: ConnId, verdict: Result<Opening<T>, Response>, join: Option<Join> },
    /// A message for a connection of this worker, from a request of that one.
    Parcel(ConnId, Box<Parcel>),
    /// The answer to a request that waits.
    Reply(ConnId, Box<Response>),
    /// About a topic.
    Topic(Box<TopicMail<T>>),
    /// The service is to be told, as of an answer.
    #[cfg(feature = "centrifugo")]
    Tell { id: ConnId, tag: u64, answer: Box<Answered> },
    /// Other settings from here on.
    Reload(Arc<Reload>),
    /// The service has other settings.
    Update(Update),
    /// The control plane wants to know something.
    Inspect(Box<Inspection>),
    /// Give memory back: reset the connections that hold more than this.
    Shed { bound: usize },
    /// Another worker leaves who waits at that listener, which all of them share, to this one.
    Accept { listener: usize },
    /// Stop accepting and close everybody; then end.
    Drain(Drain),
    /// End at once.
    Abort,
}

/// A worker as the other threads see it.
#[derive(Debug)]
pub(crate) struct Port<T> {
    pub(crate) mailbox: Mailbox<Envelope<T>>,
    pub(crate) wake: Wake,
    pub(crate) live: Arc<Live>,
    pub(crate) metrics: Metrics,
}

impl<T> Port<T> {
    /// Puts an envelope in and wakes the worker if nobody else has.
    pub(crate) fn post(&self, envelope: Envelope<T>) {
        if self.mailbox.post(envelope) && !planted(Bug::WakeDropped) {
            self.wake.wake();
            #[cfg(any(test, fuzzing))]
            self.mailbox.rang();
        }
    }
}

/// What all workers of a server share.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    pub(crate) ports: Box<[Port<T>]>,
    /// Connections of all workers: the one number that they count together, so that the limit is exact.
    connections: AtomicUsize,
    connections_max: usize,
    /// It has been told to end: nobody should be sent here any more.
    pub(crate) leaving: AtomicBool,
    /// Connections by source address, if these are limited.
    pub(super) sources: Option<Arc<Sources>>,
    /// Connections a second that all workers together may accept, if these are limited.
    pub(super) accept_rate: Option<u32>,
    /// Who may sweep; `None`: all at once, since there is a core for each.
    pub(super) sweeps: Option<Permits>,
    /// How much memory there is for all, if that is limited.
    pub(super) budget: Option<Budget>,
    /// What the server was told, for those who tell it something else.
    pub(crate) told: Mutex<Config>,
}

impl<T> Shared<T> {
    /// At most `sweeps_max` workers send to topics' subscribers at a time.
    pub(crate) fn new(
        ports: Box<[Port<T>]>,
        connections_max: usize,
        sweeps_max: usize,
        budget: Option<Budget>,
    ) -> Self {
        let sweeps = (sweeps_max < ports.len()).then(|| Permits::new(sweeps_max, ports.len()));
        Self {
            ports,
            connections: AtomicUsize::new(0),
            connections_max,
            sources: None,
            accept_rate: None,
            sweeps,
            budget,
            told: Mutex::default(),
            leaving: AtomicBool::new(false),
        }
    }

    /// With limits on whose connections are accepted, and how fast.
    pub(crate) fn accepting(self, sources: Option<Sources>, accept_rate: Option<u32>) -> Self {
        Self { sources: sources.map(Arc::new), accept_rate, ..self }
    }

    /// Publishes from outside of the workers.
    pub(crate) fn publish(&self, name: &TopicName, publication: Publication, asker: Asker<T>) {
        let mail = TopicMail::Question { name: name.clone(), question: Question::Publish(publication), asker };
        self.ports[name.home(self.ports.len())].post(Envelope::Topic(Box::new(mail)));
    }

    /// Bytes that the process has allocated, and those that it may, if that is limited.
    pub(crate) fn memory(&self) -> Option<(u64, u64)> {
        self.budget.as_ref().map(Budget::used)
    }

    pub(crate) fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Takes a place, if one is free.
    pub(super) fn enter(&self) -> bool {
        let one_more = |taken| (taken < self.connections_max).then_some(taken + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Gives a place back.
    pub(super) fn leave(&self) {
        let before = self.connections.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0);
    }
}
