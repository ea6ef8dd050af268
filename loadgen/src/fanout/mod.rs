//! Publishing and its audit: what every subscriber should have received is known exactly, so what is lost,
//! doubled, late or misrouted is counted, not estimated.

mod audit;
mod mark;
mod publisher;
mod subscribers;
mod template;
mod wire;

pub(crate) use mark::{MARK_BYTES, Mark};
pub(crate) use publisher::{Publisher, PublisherReport, Route};
pub(crate) use subscribers::{FanoutReport, Slowness, Subscribers, Tale};
pub(crate) use template::{Template, Values};

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What the publisher and the subscribers' workers share.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// This run's number, in every mark.
    pub(crate) run: u32,
    pub(crate) topics: Vec<String>,
    /// Messages published to each topic.
    published: Vec<AtomicU32>,
    /// Nothing more will be published.
    is_final: AtomicBool,
    pub(crate) publisher: Mutex<PublisherReport>,
}

impl Ledger {
    pub(crate) fn new(run: u32, topics: Vec<String>) -> Self {
        let published = topics.iter().map(|_| AtomicU32::new(0)).collect();
        Self { run, topics, published, is_final: AtomicBool::new(false), publisher: Mutex::default() }
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

    fn close(&self) {
        self.is_final.store(true, Ordering::Release);
    }

    fn is_final(&self) -> bool {
        self.is_final.load(Ordering::Acquire)
    }
}
