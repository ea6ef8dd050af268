//! What a seed's world is like.

use super::net::Faults;
use super::truth::Promise;
use crate::config::{Compression, Config, Rates, RuleSet, Rules, SlowReaders};
use crate::limits::QUEUE_BYTES_BEYOND_MESSAGE;
use crate::mem::Rng;
use crate::topic::Limits;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) workers: usize,
    pub(super) slots: usize,
    pub(super) connections_max: usize,
    /// Of one worker's table.
    pub(super) descriptors_max: usize,
    pub(super) topics: usize,
    pub(super) topics_max: usize,
    pub(super) history: Limits,
    /// Workers that may sweep at a time.
    pub(super) sweeps_max: usize,
    /// Who reads too slowly is told of the gap, not disconnected.
    skips: bool,
    /// Topics know who is there.
    presence: bool,
    /// Sessions are told of others' coming and going.
    join_leave: bool,
    pub(super) readers: usize,
    /// Of Centrifugo's protocol; none where there is no history, without which there are no positions to compare.
    pub(super) sessions: usize,
    pub(super) publishers: usize,
    pub(super) hostiles: usize,
    pub(super) client_publish: bool,
    pub(super) compression: Option<Compression>,
    /// The workers are drained at the end, rather than left by their clients.
    pub(super) drains: bool,
    pub(super) ticks: bool,
    /// Deadlines are short: answers come too late, heartbeats often.
    hasty: bool,
    /// Messages and what waits for a client are as small as they may be.
    narrow: bool,
    /// The clock leaps by minutes.
    pub(super) leaps: bool,
    /// Workers stand still for seconds while others go on.
    pub(super) stalls: bool,
    pub(super) steps: u32,
    pub(super) faults: Faults,
}

/// Longer than any storm, and over before the topics are forgotten.
const AGES_MS: u64 = 20 * 60 * 60 * 1000;

fn one_of(rng: &mut Rng, values: &[u64]) -> u64 {
    values[rng.below(values.len() as u64) as usize]
}

impl Shape {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let full = rng.below(8) == 0;
        let crowded = rng.below(4) == 0;
        let (bytes, age_ms) = match rng.below(4) {
            0 => (one_of(rng, &[1000, 20_000]) as usize, AGES_MS),
            1 => (1 << 20, one_of(rng, &[100, 5000])),
            _ => (1 << 30, AGES_MS),
        };
        let age_ms = if crowded { 50 } else { age_ms };
        let history = Limits { messages: one_of(rng, &[0, 2, 8, 8, 8, 40]) as usize, bytes, age_ms };
        let compression = (rng.below(3) == 0).then(|| {
            let compression = Compression::default().message_bytes_min(20).level(one_of(rng, &[1, 2, 6]) as u8);
            if rng.below(3) == 0 { compression.context(one_of(rng, &[9, 15]) as u8) } else { compression }
        });
        Self {
            workers: one_of(rng, &[2, 2, 3, 4]) as usize,
            slots: if full { 5 } else { 64 },
            connections_max: if full { 12 } else { 200 },
            // Six are always taken, and the spare.
            descriptors_max: if rng.below(8) == 0 { 7 + one_of(rng, &[1, 3, 8]) as usize } else { usize::MAX },
            topics: if crowded { 8 } else { one_of(rng, &[1, 1, 2, 4]) as usize },
            topics_max: if crowded { 2 } else { 100 },
            sweeps_max: one_of(rng, &[1, 1, 2, 9]) as usize,
            skips: rng.below(3) == 0,
            presence: rng.below(2) == 0,
            join_leave: rng.below(3) == 0,
            history,
            sessions: if history.messages > 0 { one_of(rng, &[0, 3, 8]) as usize } else { 0 },
            readers: one_of(rng, &[4, 10, 25]) as usize,
            publishers: one_of(rng, &[1, 2, 4]) as usize,
            hostiles: one_of(rng, &[0, 2, 8]) as usize,
            client_publish: rng.below(2) == 0,
            compression,
            drains: rng.below(4) == 0,
            ticks: rng.below(4) == 0,
            hasty: rng.below(3) == 0,
            narrow: rng.below(2) == 0,
            leaps: rng.below(8) == 0,
            stalls: rng.below(4) == 0,
            steps: one_of(rng, &[1000, 2000, 3000, 5000]) as u32,
            faults: Self::faults(rng),
        }
    }

    fn faults(rng: &mut Rng) -> Faults {
        let wild = one_of(rng, &[0, 1, 5]);
        Faults {
            interrupted: wild * 6,
            accept: wild * 10,
            short: wild * 20,
            delay: one_of(rng, &[0, 100, 500]),
            spurious: wild * 10,
            reset: one_of(rng, &[0, 1, 3]),
            half_close: one_of(rng, &[0, 0, 1]),
            unwatched: wild * 2,
            bytewise: one_of(rng, &[0, 0, 30]),
            stall: one_of(rng, &[0, 0, 1]),
        }
    }

    /// Whether the workers are given other settings while they run.
    pub(super) fn reloads(&self) -> bool {
        self.steps == 2000
    }

    /// Other settings that promise no less: more is kept, and what is long is compressed in another way. Timeouts stay: timers
    /// that run fire when they were to.
    pub(super) fn other(&self, rng: &mut Rng) -> Rules {
        let mut other = *self;
        other.history.messages *= one_of(rng, &[1, 1, 2, 5]) as usize;
        other.compression = self.compression.map(|compression| {
            compression.message_bytes_min(one_of(rng, &[1, 20, 5000]) as usize).level(one_of(rng, &[1, 9]) as u8)
        });
        Rules { rates: Rates { messages: one_of(rng, &[0, 100_000]) as u32, ..Rates::default() }, ..other.rules() }
    }

    pub(super) fn rules(&self) -> Rules {
        let ms = Duration::from_millis;
        let hasty = Config {
            ping_interval: ms(300),
            pong_timeout: ms(300),
            head_timeout: ms(1000),
            idle_timeout: ms(1000),
            decision_timeout: ms(100),
            close_timeout: ms(300),
            write_timeout: ms(2000),
            ..Config::default()
        };
        let config = if self.hasty { hasty } else { Config::default() };
        // The clock may leap in the middle of a message.
        let config = Config { message_timeout: ms(3_600_000), ..config };
        let slow_readers = if self.skips { SlowReaders::Skip } else { SlowReaders::Disconnect };
        let message_bytes_max = if self.narrow { 12_000 } else { config.message_bytes_max };
        let mut config = Config { slow_readers, compression: self.compression, message_bytes_max, ..config };
        config.queue_bytes_max = self.narrow.then_some(message_bytes_max + QUEUE_BYTES_BEYOND_MESSAGE);
        let mut topics = RuleSet::open();
        let rules = &mut topics.without_namespace;
        (rules.presence, rules.join_leave) = (self.presence, self.join_leave);
        (rules.history_size, rules.history_bytes) = (self.history.messages, self.history.bytes);
        rules.history_ttl = Duration::from_millis(self.history.age_ms);
        Config { topics, ..config }.rules().expect("these are right")
    }

    pub(super) fn promise(&self) -> Promise {
        let Limits { messages, bytes, age_ms } = self.history;
        let by_count = bytes == 1 << 30 && age_ms == AGES_MS && messages > 0;
        Promise {
            kept: by_count.then_some(messages as u64),
            one_epoch: self.topics_max > self.topics,
            skips: self.skips,
            leaps: self.leaps,
        }
    }
}
