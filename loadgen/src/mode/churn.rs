//! Connections that come and go at a rate, while their number stays the same.

use crate::clock::{Nanos, Pace};
use crate::engine::{Gone, Mode, Net};
use crate::mode::roster::{Place, Roster};

/// Connections closed before the loop looks at its sockets again.
const CLOSES_PER_TURN: u32 = 64;
/// Handshakes and closings of one worker that may be behind before the schedule waits.
const BEHIND_MAX: u64 = 4096;

/// A mode's state that holds a [`Place`] among those that may be replaced.
pub(crate) trait HasPlace: Default {
    fn place(&mut self) -> &mut Place;
}

impl HasPlace for Place {
    fn place(&mut self) -> &mut Place {
        self
    }
}

/// What was found out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ChurnReport {
    pub(crate) replaced: u64,
    /// Due before the end and not done: the schedule waited for handshakes or closings.
    pub(crate) behind: u64,
}

/// The comings and goings of one worker.
#[derive(Debug)]
pub(crate) struct Replacer {
    rate: f64,
    by_reset: bool,
    pace: Option<Pace>,
    candidates: Roster,
    report: ChurnReport,
}

impl Replacer {
    /// `rate`: connections that this worker replaces a second.
    pub(crate) fn new(rate: f64, by_reset: bool) -> Self {
        Self { rate, by_reset, pace: None, candidates: Roster::default(), report: ChurnReport::default() }
    }

    pub(crate) fn enlist<S: HasPlace>(&mut self, net: &mut Net<S>, slot: u32) {
        *net.table[slot].state.place() = self.candidates.add(slot);
    }

    pub(crate) fn dismiss<S: HasPlace>(&mut self, net: &mut Net<S>, state: &mut S) {
        let place = std::mem::take(state.place());
        if let Some(moved) = self.candidates.remove(place) {
            *net.table[moved].state.place() = place;
        }
    }

    pub(crate) fn start<S: HasPlace>(&mut self, net: &mut Net<S>) {
        self.pace = Some(Pace::new(net.began, self.rate));
    }

    pub(crate) fn turn<S: HasPlace>(&mut self, net: &mut Net<S>) -> Option<Nanos> {
        for _ in 0..CLOSES_PER_TURN {
            let pace = self.pace.as_mut()?;
            if self.candidates.is_empty() || net.to_open + net.pending + net.closing >= BEHIND_MAX {
                return None; // an answer will come, or a deadline
            }
            let due = pace.due();
            if pace.take(net.now).is_none() {
                return Some(due);
            }
            let slot = self.candidates.at(net.rng.below(self.candidates.len() as u64) as usize);
            let mut place = S::default();
            *place.place() = std::mem::take(net.table[slot].state.place());
            self.dismiss(net, &mut place);
            if self.by_reset {
                net.reset(slot);
            } else {
                net.close(slot);
            }
            net.to_open += 1;
            self.report.replaced += 1;
        }
        Some(net.now)
    }

    pub(crate) fn stop<S: HasPlace>(&mut self, net: &mut Net<S>) {
        if let Some(mut pace) = self.pace.take() {
            while pace.take(net.now).is_some() {
                self.report.behind += 1;
            }
        }
    }

    pub(crate) fn is_drained<S: HasPlace>(&self, net: &Net<S>) -> bool {
        net.to_open == 0 && net.pending == 0 && net.closing == 0
    }

    pub(crate) fn report(&self) -> ChurnReport {
        self.report
    }
}

/// Any connection may be replaced.
#[derive(Debug)]
pub(crate) struct Churn(pub(crate) Replacer);

impl Mode for Churn {
    type State = Place;
    type Report = ChurnReport;

    fn opened(&mut self, net: &mut Net<Place>, slot: u32) {
        self.0.enlist(net, slot);
    }

    fn start(&mut self, net: &mut Net<Place>) {
        self.0.start(net);
    }

    fn gone(&mut self, net: &mut Net<Place>, _slot: u32, mut state: Place, _how: Gone) {
        self.0.dismiss(net, &mut state);
    }

    fn turn(&mut self, net: &mut Net<Place>) -> Option<Nanos> {
        self.0.turn(net)
    }

    fn stop(&mut self, net: &mut Net<Place>) {
        self.0.stop(net);
    }

    fn is_drained(&self, net: &Net<Place>) -> bool {
        self.0.is_drained(net)
    }

    fn report(&mut self, _net: &mut Net<Place>) -> ChurnReport {
        self.0.report()
    }
}
