//! The simulation with a fuzzer's bytes as what is drawn.

use super::{Rng, World};

/// So few that a run takes milliseconds.
const STEPS_MAX: u32 = 400;

/// Runs the world that `data` describes, in the order that it says: drawn from the bytes, and from a seed behind them, which
/// the first four are. Panics where the server is wrong.
pub(crate) fn schedule(data: &[u8]) {
    let (seed, script) = data.split_at(data.len().min(4));
    let seed = seed.iter().fold(0, |seed, &byte| seed << 8 | u64::from(byte));
    World::of(Rng::scripted(script, seed), STEPS_MAX).run();
}
