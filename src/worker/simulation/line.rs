//! A client's side of one connection: what it still has to write, what it has read, and how it behaves.

use super::net::{Got, Net};
use super::truth::Truth;
use crate::mem::Rng;
use std::cell::RefCell;

/// What a client acts in.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) net: &'a RefCell<Net>,
    pub(super) truth: &'a mut Truth,
    pub(super) rng: &'a mut Rng,
    /// Nothing odd happens any more, and nobody begins anything.
    pub(super) calm: bool,
    /// The server compresses for those who offer to.
    pub(super) compression: bool,
}

impl Scene<'_> {
    pub(super) fn now(&self) -> u64 {
        self.net.borrow().now
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    Nothing,
    /// Something was written or read.
    Something,
    /// The server has ended its direction.
    End,
    Reset,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) link: Option<usize>,
    pub(super) out: Vec<u8>,
    pub(super) input: Vec<u8>,
    /// It reads nothing.
    pub(super) is_deaf: bool,
    stalled_until: u64,
}

impl Line {
    /// Connects; what was said and read on the connection before is forgotten.
    pub(super) fn connect(&mut self, scene: &mut Scene<'_>) -> bool {
        *self = Self { link: scene.net.borrow_mut().connect(), ..Self::default() };
        self.link.is_some()
    }

    /// Gives the connection up: in order, or with a reset.
    pub(super) fn leave(&mut self, scene: &mut Scene<'_>) {
        if let Some(link) = self.link.take() {
            let mut net = scene.net.borrow_mut();
            if scene.rng.below(2) == 0 { net.client_fin(link) } else { net.client_reset(link) }
        }
    }

    /// Ends its own direction, and reads on.
    pub(super) fn half_close(&self, scene: &Scene<'_>) {
        if let Some(link) = self.link {
            scene.net.borrow_mut().client_fin(link);
        }
    }

    /// Writes and reads some.
    pub(super) fn step(&mut self, scene: &mut Scene<'_>) -> Came {
        let Some(link) = self.link else { return Came::Nothing };
        let (mut net, rng) = (scene.net.borrow_mut(), &mut *scene.rng);
        if !scene.calm && rng.below(1000) < net.faults.reset {
            net.client_reset(link);
            return Came::Reset;
        }
        if !scene.calm && rng.below(1000) < net.faults.half_close {
            net.client_fin(link);
        }
        let most = if scene.calm || rng.below(4) > 0 { usize::MAX } else { 1 + rng.below(60) as usize };
        let written = net.client_write(link, &self.out[..self.out.len().min(most)]);
        self.out.drain(..written);
        let moved = if written > 0 { Came::Something } else { Came::Nothing };
        if !scene.calm && rng.below(150) == 0 {
            self.stalled_until = net.now + [20, 200, 3000, 50_000][rng.below(4) as usize];
        }
        if !scene.calm && rng.below(1000) < net.faults.stall {
            net.seen.zero_windows += 1;
            self.stalled_until = u64::MAX; // until everything calms down
        }
        if !scene.calm && self.stalled_until > net.now {
            return moved;
        }
        if self.is_deaf {
            return if net.is_over(link) { Came::Reset } else { moved };
        }
        match net.client_read(link, if scene.calm { usize::MAX } else { most.min(2000) }, &mut self.input) {
            Got::Bytes(_) => Came::Something,
            Got::Nothing => moved,
            Got::End => Came::End,
            Got::Reset => Came::Reset,
        }
    }
}
