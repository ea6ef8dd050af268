//! How many connections each source address has, over all workers, in a fixed number of counters.
//!
//! An address is counted where a keyed hash puts it; addresses that meet there are counted together. So no address ever
//! has more than the limit, and one may be refused before it has as many. With `C` counters, a limit of `N`, and `L`
//! connections of others, an address that has `j` itself is refused wrongly with a probability of at most
//! `L / (C * (N - j))`, whoever the others are: `L / C` of theirs are expected beside it, and it takes `N - j` (Markov's
//! inequality; nobody knows the key, so nobody can choose to meet somebody). There are [`SOURCE_COUNTERS_EACH`] counters
//! for each connection that there may be, so that `L / C` is at most 1/8, up to [`SOURCE_COUNTERS_MAX`].

use crate::limits::{SOURCE_COUNTERS_EACH, SOURCE_COUNTERS_MAX, SOURCE_COUNTERS_MIN};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};

/// Counters of connections by source address. All workers share them, and touch them as a connection comes and ends.
#[derive(Debug)]
pub(crate) struct Sources {
    counters: Box<[AtomicU16]>,
    most: AtomicU16,
    key: RandomState,
}

/// Whose connections are counted together: those of an IPv4 address, or of a network of IPv6, which is the least that a
/// site is given (RFC 6177); within it a host takes any address it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

impl Sources {
    /// At most `most` connections for each address, of at most `connections_max` in all.
    pub(crate) fn new(most: u16, connections_max: usize, key: RandomState) -> Self {
        let counters =
            connections_max.saturating_mul(SOURCE_COUNTERS_EACH).clamp(SOURCE_COUNTERS_MIN, SOURCE_COUNTERS_MAX);
        Self {
            counters: (0..counters.next_power_of_two()).map(|_| AtomicU16::new(0)).collect(),
            most: AtomicU16::new(most),
            key,
        }
    }

    /// Another limit from here on. Who has more keeps what it has.
    pub(crate) fn limit(&self, most: u16) {
        self.most.store(most, Ordering::Relaxed);
    }

    fn counter(&self, address: IpAddr) -> &AtomicU16 {
        let hash = self.key.hash_one(Source::from(address));
        &self.counters[hash as usize & (self.counters.len() - 1)]
    }

    /// Counts one more connection of an address, unless it has as many as it may.
    pub(super) fn enter(&self, address: IpAddr) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let one_more = |count| (count < most).then_some(count + 1);
        // It is only counted: nothing else is read by what the number says.
        self.counter(address).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// A connection that was counted has ended.
    pub(super) fn leave(&self, address: IpAddr) {
        let before = self.counter(address).fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "an address gave back more than it had");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Rng;
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    fn sources(most: u16, connections_max: usize) -> Sources {
        Sources::new(most, connections_max, RandomState::new())
    }

    fn v4(bits: u32) -> IpAddr {
        Ipv4Addr::from_bits(bits).into()
    }

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn ipv4_counts_by_address_and_ipv6_by_network() {
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"), "mapped, it is the same client");
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_ne!(source("0.0.0.0"), source("::"), "they are two, whatever their bits are");
    }

    #[test]
    fn there_are_eight_counters_a_connection_within_bounds() {
        for (connections, counters) in [
            (1, 1 << 16),
            (8192, 1 << 16),
            (8193, 1 << 17),
            (524_288, 1 << 22),
            (1_000_000, 1 << 22),
            (usize::MAX, 1 << 22),
        ] {
            assert_eq!(sources(1, connections).counters.len(), counters, "for {connections}");
        }
    }

    /// Against a map that counts each address by itself: never more than the limit, and refused early only where
    /// addresses meet.
    #[test]
    fn no_address_has_more_than_the_limit_and_what_is_given_back_is_free() {
        let (sources, mut rng) = (sources(4, 100), Rng::new(1));
        let mut exact: HashMap<IpAddr, u16> = HashMap::new();
        let mut together: HashMap<*const AtomicU16, u16> = HashMap::new();
        let mut live = Vec::new();
        for _ in 0..100_000 {
            if rng.below(2) == 0 && !live.is_empty() {
                let address = live.swap_remove(rng.below(live.len() as u64) as usize);
                sources.leave(address);
                *exact.get_mut(&address).expect("it is there") -= 1;
                *together.get_mut(&std::ptr::from_ref(sources.counter(address))).expect("it is there") -= 1;
            } else {
                let address = v4(rng.below(300) as u32);
                let shared = together.entry(std::ptr::from_ref(sources.counter(address))).or_default();
                let entered = sources.enter(address);
                assert_eq!(entered, *shared < 4);
                if entered {
                    *shared += 1;
                    let own = exact.entry(address).or_default();
                    *own += 1;
                    assert!(*own <= 4);
                    live.push(address);
                }
            }
        }
        live.into_iter().for_each(|address| sources.leave(address));
        assert!(sources.counters.iter().all(|counter| counter.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn the_limit_is_exact_however_many_come_at_once() {
        let (sources, address) = (sources(100, 1000), v4(7));
        let entered: usize = std::thread::scope(|scope| {
            let tries = || (0..1000).filter(|_| sources.enter(address)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(tries)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it ends")).sum()
        });
        assert_eq!(entered, 100);
    }

    /// The bound at the head of this file, at a full server of clients that have one connection each, and of clients
    /// that have all they may. Ten deviations of chance are allowed for.
    #[test]
    fn hardly_anybody_is_refused_for_others() {
        for (most, each) in [(10, 1), (10, 10), (2, 1), (2, 2)] {
            let connections = 8192;
            let sources = sources(most, connections);
            for address in 0..(connections / each) as u32 {
                (0..each).for_each(|_| _ = sources.enter(v4(address)));
            }
            for own in [0, most - 1] {
                let samples = 20_000;
                let is_refused = |n: &u32| sources.counter(v4(1 << 31 | n)).load(Ordering::Relaxed) >= most - own;
                let refused = (0..samples).filter(is_refused).count() as f64;
                let bound = f64::from(samples) * connections as f64 / (65_536.0 * f64::from(most - own));
                assert!(refused <= bound + 10.0 * bound.sqrt(), "{refused} of {bound}: {most}, {each} each, {own} own");
            }
        }
    }
}
