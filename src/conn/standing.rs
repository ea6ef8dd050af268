//! Where a connection stands, and how it compresses, in one byte: a connection is one cache line in the table.

use super::Phase;
use crate::ws::deflate::Window;

/// The phase in the low four bits, above them two for the window, and one more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing(u8);

const PHASE: u8 = 0b1111;
const SMALL: u8 = 0b01_0000;
const FULL: u8 = 0b10_0000;
const WINDOW: u8 = SMALL | FULL;
/// The connection counts among those of its address.
const COUNTED: u8 = 0b100_0000;

/// By number; sixteen, so that four bits are always one of them.
const PHASES: [Phase; 16] = [
    Phase::Preamble,
    Phase::Head,
    Phase::Idle,
    Phase::Body,
    Phase::Deciding,
    Phase::Waiting,
    Phase::Streaming,
    Phase::Open,
    Phase::Pinged,
    Phase::Paced,
    Phase::Emulated,
    Phase::Closing,
    Phase::Finishing,
    Phase::Refusing,
    Phase::Lingering,
    Phase::Resetting,
];

const _: () = {
    let mut number = 0;
    while number < PHASES.len() {
        assert!(PHASES[number] as usize == number);
        number += 1;
    }
};

impl Standing {
    pub(super) fn new(phase: Phase) -> Self {
        Self(phase as u8)
    }

    #[inline]
    pub(super) fn phase(self) -> Phase {
        PHASES[usize::from(self.0 & PHASE)]
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        self.0 = self.0 & !PHASE | phase as u8;
    }

    /// The window of what is sent compressed; `None`: that was not agreed on.
    #[inline]
    pub(super) fn window(self) -> Option<Window> {
        match self.0 & WINDOW {
            SMALL => Some(Window::Small),
            FULL => Some(Window::Full),
            _ => None,
        }
    }

    pub(super) fn set_window(&mut self, window: Option<Window>) {
        let bits = match window {
            None => 0,
            Some(Window::Small) => SMALL,
            Some(Window::Full) => FULL,
        };
        self.0 = self.0 & !WINDOW | bits;
    }

    pub(super) fn is_counted(self) -> bool {
        self.0 & COUNTED != 0
    }

    pub(super) fn set_counted(&mut self, is_counted: bool) {
        self.0 = self.0 & !COUNTED | if is_counted { COUNTED } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_and_the_window_do_not_touch_each_other() {
        let mut standing = Standing::new(Phase::Head);
        for window in [None, Some(Window::Small), Some(Window::Full), None] {
            standing.set_window(window);
            for phase in PHASES {
                for is_counted in [true, false] {
                    standing.set_phase(phase);
                    standing.set_counted(is_counted);
                    let has = (standing.phase(), standing.window(), standing.is_counted());
                    assert_eq!(has, (phase, window, is_counted));
                }
            }
        }
    }
}
