//! Runs seeds.

use super::shape::Shape;
use super::truth::Tally;
use super::{Rng, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Seeds that once found something: a client that half-closed behind requests whose answers it did not read was counted
/// twice, by two gauges (268); whoever asked on and on without reading put off the deadline of its own writes (283); a worker that
/// had not heard yet that more is kept dropped what a session was to recover (11122, 34933).
const FOUND: [u64; 4] = [268, 283, 11_122, 34_933];

/// Enough to see everything happen, in some seconds.
const SEEDS: u64 = if cfg!(debug_assertions) { 120 } else { 2000 };

/// Runs one seed; panics where the server is wrong.
pub(super) fn run(seed: u64) -> Tally {
    World::of(Rng::new(seed), u32::MAX).run()
}

/// Runs seeds, on all cores, says which fail, and what was seen in all of them.
fn run_all(seeds: impl IntoIterator<Item = u64>) -> Tally {
    let seeds: Vec<u64> = seeds.into_iter().collect();
    let (next, all) = (AtomicUsize::new(0), Mutex::new((Tally::default(), Vec::new())));
    let work = || {
        while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
            let mut all = all.lock().expect("nothing panics under it");
            if let Ok(tally) = result {
                all.0.add(&tally);
                continue;
            }
            eprintln!("seed {seed} failed, with {:?}; to see it again:", Shape::draw(&mut Rng::new(seed)));
            eprintln!("  SIM_SEED={seed} cargo test --lib simulation -- --nocapture");
            all.1.push(seed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(seeds.len());
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));
    let (sum, failed) = all.into_inner().expect("nothing panics under it");
    eprintln!("{} seeds: {sum:?}", seeds.len());
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}", failed.len());
    sum
}

#[test]
fn nobody_is_left_behind_whatever_the_machine_does() {
    let number = |text: &str| text.parse().expect("THRONG_SEEDS is FROM..TO, and SIM_SEED a number");
    if let Ok(seed) = std::env::var("SIM_SEED") {
        run_all([number(&seed)]);
    } else if let Ok(seeds) = std::env::var("THRONG_SEEDS") {
        let (from, to) = seeds.split_once("..").expect("THRONG_SEEDS is FROM..TO");
        run_all(number(from)..number(to));
    } else {
        // What never happens proves nothing.
        run_all((0..SEEDS).chain(FOUND)).check();
    }
}
