//! How the main thread leads the workers from stage to stage, and what they tell it.

use super::dial::Line;
use super::gauge::{Gauge, Tally};
use crate::clock::{Clock, Nanos};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Barrier};
use throng::sys::Wake;

/// What all workers are doing. The main thread moves it on; it only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Connections are opened.
    Opening,
    /// The measured part.
    Running,
    /// Nothing new is sent; what is on its way may come.
    Draining,
    /// Connections are closed.
    Closing,
}

/// What the threads of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    stage: AtomicU8,
    /// When the measured part began.
    began: AtomicU64,
    /// Workers below this number may open their connections. Each that is done lets the next one begin: few
    /// tables and pollers are hot at a time, which costs less than all of them in turn.
    permits: AtomicUsize,
    /// The same for closing them.
    closing_permits: AtomicUsize,
    /// A closing was not answered in time: the rest is reset, since waiting for each would take for ever.
    is_stuck: AtomicBool,
    pub(crate) wakes: Vec<Wake>,
    pub(crate) clock: Clock,
    /// All tables are private before anyone opens a descriptor.
    pub(crate) parted: Barrier,
    /// Handshakes begun a second by each worker that may open; 0: as fast as they go.
    pub(crate) open_rate: f64,
    /// Connections are reset in the end instead of closed.
    pub(crate) end_by_reset: bool,
}

impl Shared {
    /// For `wakes.len()` workers, of which `openers` open connections at a time.
    pub(crate) fn new(wakes: Vec<Wake>, openers: usize, open_rate: f64, end_by_reset: bool) -> Self {
        Self {
            stage: AtomicU8::new(Stage::Opening as u8),
            began: AtomicU64::new(0),
            permits: AtomicUsize::new(openers),
            closing_permits: AtomicUsize::new(openers),
            is_stuck: AtomicBool::new(false),
            parted: Barrier::new(wakes.len() + 1),
            wakes,
            clock: Clock::start(),
            open_rate: open_rate / openers as f64,
            end_by_reset,
        }
    }

    /// When the measured part began.
    pub(crate) fn began(&self) -> Nanos {
        Nanos(self.began.load(Ordering::Relaxed))
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Opening,
            1 => Stage::Running,
            2 => Stage::Draining,
            _ => Stage::Closing,
        }
    }

    /// Leads everyone to `stage`.
    pub(crate) fn advance(&self, stage: Stage) {
        if stage == Stage::Running {
            self.began.store(self.clock.now().0, Ordering::Relaxed);
        }
        self.stage.store(stage as u8, Ordering::Release);
        self.wakes.iter().for_each(|wake| wake.wake());
    }

    /// Whether worker `index` may open its connections.
    pub(super) fn may_open(&self, index: usize) -> bool {
        index < self.permits.load(Ordering::Acquire)
    }

    pub(super) fn let_next_open(&self) {
        self.let_next(&self.permits);
    }

    /// Whether worker `index` may close its connections.
    pub(super) fn may_close(&self, index: usize) -> bool {
        index < self.closing_permits.load(Ordering::Acquire)
    }

    pub(super) fn let_next_close(&self) {
        self.let_next(&self.closing_permits);
    }

    fn let_next(&self, permits: &AtomicUsize) {
        let next = permits.fetch_add(1, Ordering::AcqRel);
        if let Some(wake) = self.wakes.get(next) {
            wake.wake();
        }
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }

    pub(super) fn note_stuck(&self) {
        if !self.is_stuck.swap(true, Ordering::Relaxed) {
            self.wakes.iter().for_each(|wake| wake.wake());
        }
    }
}

/// What a worker tells the main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// It has tried all its connections.
    Opened,
    /// The load is done, where it is the workers who know.
    Done,
    /// Nothing is on its way any more.
    Drained,
    /// It has ended.
    Ended,
    /// A thread beside the workers cannot go on, so the run makes no sense any more.
    Failed,
    /// The user wants to end (from the thread that takes signals).
    Signal,
}

/// One worker's place in a run.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) index: usize,
    /// Connections that it opens at first.
    pub(crate) share: u64,
    /// Connections it may have at a time.
    pub(crate) capacity: usize,
    /// Handshakes that it may have under way.
    pub(crate) pending_max: u64,
    pub(crate) line: Line,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) notes: Sender<Note>,
    pub(crate) seed: u64,
}

/// What a worker leaves behind.
#[derive(Debug)]
pub(crate) struct Outcome<R> {
    /// One for each transport, as they were dealt.
    pub(crate) tallies: Vec<Tally>,
    pub(crate) report: R,
    /// Bytes of its connection records.
    pub(crate) table_bytes: usize,
}
