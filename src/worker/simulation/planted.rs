//! The simulation sees bugs: with any of those that are planted, one of the first seeds fails, which passes without.

use super::seeds::run;
use crate::planted::Bug::{self, *};
use crate::planted::tests::with;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once};
use std::thread;

/// By when each must have been found.
const SEEDS_MAX: u64 = 3000;

/// Those that take more seeds than a build without optimisation has time for.
const RARE: [Bug; 3] = [InflatedFirst, StallPutOff, TicketIgnored];

const THREADS: usize = 2;

thread_local! {
    /// What panics have said on this thread, if somebody listens: they are not printed then.
    static SAID: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Has panics speak to who listens on their thread, and to everybody as before on all others.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_heard = SAID.with_borrow_mut(|said| {
                let text = info.payload_as_str().unwrap_or("something").replace('\n', " ");
                said.as_mut().map(|said| said.push(text)).is_some()
            });
            if !is_heard {
                loud(info);
            }
        }));
    });
}

/// What the first panic of this seed says, if it fails.
fn failure(seed: u64) -> Option<String> {
    SAID.set(Some(Vec::new()));
    let is_fine = catch_unwind(AssertUnwindSafe(|| run(seed))).is_ok();
    let said = SAID.take().into_iter().flatten().next();
    (!is_fine).then(|| said.expect("whatever fails has said why"))
}

/// The first seed that fails with this bug, and how.
fn found(bug: Bug) -> Option<(u64, String)> {
    with(Some(bug), || (0..SEEDS_MAX).find_map(|seed| Some((seed, failure(seed)?))))
}

/// A line of the table.
type Found = (Bug, Option<(u64, String)>);

/// Looks for bugs on as many threads, in no order.
fn look_for(bugs: &[Bug]) -> Vec<Found> {
    let (bugs, table) = (Mutex::new(bugs.iter()), Mutex::new(Vec::new()));
    let next = || bugs.lock().expect("nobody panics").next().copied();
    let work = || {
        while let Some(bug) = next() {
            let found = found(bug);
            table.lock().expect("nobody panics").push((bug, found));
        }
    };
    thread::scope(|scope| (0..THREADS).for_each(|_| _ = scope.spawn(work)));
    table.into_inner().expect("nobody panics")
}

#[test]
fn every_planted_bug_is_found() {
    listen();
    let has_time = |bug: &Bug| !(cfg!(debug_assertions) && RARE.contains(bug));
    let bugs: Vec<_> = Bug::ALL.iter().copied().filter(has_time).collect();
    let mut found = look_for(&bugs);
    found.sort_by_key(|&(bug, _)| bug as usize);
    let mut table = String::from("bug                 seed  what the seed says\n");
    for (bug, found) in &found {
        let (seed, how) = found.as_ref().map_or((String::new(), "nothing"), |(seed, how)| (seed.to_string(), how));
        _ = writeln!(table, "{:<20}{seed:>4}  {how:.120}", format!("{bug:?}"));
    }
    eprint!("{table}");
    let missed: Vec<_> = found.iter().filter(|(_, found)| found.is_none()).map(|(bug, _)| bug).collect();
    assert!(missed.is_empty(), "not found by the first {SEEDS_MAX} seeds: {missed:?}");
    // It is the bug that is seen.
    for seed in found.iter().flat_map(|(_, found)| found).map(|&(seed, _)| seed).collect::<HashSet<_>>() {
        assert_eq!(failure(seed), None, "seed {seed} fails without a bug");
    }
}
