//! Publishing and its audit: what every subscriber should have received is known exactly, so what is lost,
//! doubled, late or misrouted is counted, not estimated.

mod audit;
mod mark;
mod publisher;
mod subscribers;
mod template;
mod travel;
mod wire;

pub(crate) use mark::{MARK_BYTES, Mark};
pub(crate) use publisher::{Publisher, PublisherReport, Route};
pub(crate) use subscribers::{FanoutReport, Slowness, Subscribers, Tale};
pub(crate) use template::{Template, Values};
pub(crate) use travel::Travellers;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// What the publishers and the subscribers' workers share.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// This run's number, in every mark.
    pub(crate) run: u32,
    pub(crate) topics: Vec<String>,
    /// Messages published to each topic; each topic belongs to one publisher, so its numbers have one order.
    published: Vec<AtomicU32>,
    /// Publishers that may publish more.
    publishing: AtomicU32,
    /// What those found out that have ended.
    pub(crate) publishers: Mutex<PublisherReport>,
}

impl Ledger {
    pub(crate) fn new(run: u32, topics: Vec<String>, publishers: u32) -> Self {
        let published = topics.iter().map(|_| AtomicU32::new(0)).collect();
        Self { run, topics, published, publishing: AtomicU32::new(publishers), publishers: Mutex::default() }
    }

    /// Messages published to a topic so far.
    pub(crate) fn published(&self, topic: u32) -> u32 {
        self.published[topic as usize].load(Ordering::Relaxed)
    }

    /// Messages published to all topics so far.
    pub(crate) fn total(&self) -> u64 {
        self.published.iter().map(|count| u64::from(count.load(Ordering::Relaxed))).sum()
    }

    fn note_published(&self, topic: u32) {
        self.published[topic as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A publisher has ended.
    fn close(&self) {
        self.publishing.fetch_sub(1, Ordering::AcqRel);
    }

    fn is_final(&self) -> bool {
        self.publishing.load(Ordering::Acquire) == 0
    }
}
