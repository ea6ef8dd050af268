//! What was seen over time: a bounded number of samples, however long the run takes.

use crate::clock::Nanos;
use crate::engine::Account;
use crate::observe::{Machine, Process, anonymous_bytes};
use std::time::{Duration, Instant};

/// Samples kept at most; beyond, every other one goes and the interval doubles.
const SAMPLES_MAX: usize = 600;
const INTERVAL_MIN: Duration = Duration::from_millis(50);
/// How often memory is looked at. The kernel walks page tables for it, so for large processes more seldom: it
/// is to take no more than this part of the time.
const MEMORY_INTERVAL: Duration = Duration::from_millis(250);
const MEMORY_PART: u32 = 100;

/// One look at everything.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at: Nanos,
    pub(crate) account: Account,
    pub(crate) own_bytes: u64,
    pub(crate) server_bytes: Option<u64>,
    pub(crate) slab_bytes: u64,
}

/// Samples in the order of time.
#[derive(Debug)]
pub(crate) struct Timeline {
    pub(crate) samples: Vec<Sample>,
    interval: Duration,
    /// When memory is to be looked at again.
    memory_due: Nanos,
    server: Vec<u32>,
}

impl Timeline {
    pub(crate) fn new(server: Vec<u32>) -> Self {
        Self { samples: Vec::new(), interval: INTERVAL_MIN, memory_due: Nanos(0), server }
    }

    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// Takes a sample if it is time for one, or in any case, memory included, when it is a `landmark`.
    pub(crate) fn sample(&mut self, now: Nanos, account: Account, landmark: bool) {
        let last = self.samples.last().copied().unwrap_or_default();
        if !self.samples.is_empty() && now.since(last.at) < self.interval && !landmark {
            return;
        }
        let mut sample = Sample { at: now, account, ..last };
        if now >= self.memory_due || landmark {
            let asked = Instant::now();
            sample.own_bytes = anonymous_bytes(std::process::id()).unwrap_or(0);
            let bytes: Option<Vec<u64>> = self.server.iter().map(|&pid| anonymous_bytes(pid)).collect();
            sample.server_bytes = bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| bytes.iter().sum());
            sample.slab_bytes = Machine::read().slab_bytes;
            self.memory_due = now + MEMORY_INTERVAL.max(asked.elapsed() * MEMORY_PART);
        }
        self.samples.push(sample);
        if self.samples.len() > SAMPLES_MAX {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.interval *= 2;
        }
    }
}

/// Everything at the border between two stages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) at: Nanos,
    pub(crate) account: Account,
    pub(crate) own: Process,
    pub(crate) server: Option<Process>,
    pub(crate) machine: Machine,
    /// Processor seconds of each worker.
    pub(crate) workers_cpu: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_sampled_ever_more_seldom() {
        let mut timeline = Timeline::new(Vec::new());
        for tick in 0..20_000_u64 {
            timeline.sample(Nanos(tick * 50_000_000), Account::default(), false);
        }
        assert!((SAMPLES_MAX / 2..=SAMPLES_MAX).contains(&timeline.samples.len()));
        let gaps = timeline.samples.windows(2).map(|pair| pair[1].at.since(pair[0].at));
        assert!(gaps.min().unwrap() * 3 > timeline.interval(), "{:?}", timeline.interval());
    }
}
