//! How a run is spread over threads and source addresses.

use crate::cli::{Common, Transport};
use crate::engine::Dial;
use crate::handshake::{KEYS, KeyPair, Request};
use crate::observe::cores;
use crate::source::Sources;
use crate::target::Target;
use std::sync::Arc;
use throng::mem::Rng;
use throng::sys::{self, Address, ConnectOptions};

/// Descriptors of a worker's table that are not for connections: stdio, poller, alarm, and what a library
/// opens for a moment. Every worker's eventfd comes on top.
const DESCRIPTORS_RESERVED: u64 = 32;

/// Most workers: beyond, the descriptor limit is what should be raised.
const THREADS_MAX: u64 = 1024;

/// Where Centrifugo's servers, and throng, take their clients.
const CENTRIFUGO_PATH: &str = "/connection/websocket";

/// Everything that is settled before the first connection.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) connections: u64,
    pub(crate) target: Target,
    pub(crate) sources: Sources,
    pub(crate) dial: Arc<Dial>,
    pub(crate) workers: Vec<Share>,
    /// Workers that open connections at a time.
    pub(crate) openers: usize,
    /// Handshakes that a worker may have under way.
    pub(crate) pending_max: u64,
    pub(crate) descriptors: u64,
    pub(crate) seed: u64,
}

/// One worker's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Number of its first connection.
    pub(crate) first: u64,
    pub(crate) connections: u64,
    /// Connections it may have at a time, those that are closing included.
    pub(crate) capacity: u64,
    /// Number of its first source address, and how many.
    pub(crate) first_source: u64,
    pub(crate) sources: u64,
}

/// What a mode wants beyond the command line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wants<'a> {
    /// Connections beyond the given number that may exist at a time, in all.
    pub(crate) headroom: u64,
    /// Messages leave at once (TCP_NODELAY).
    pub(crate) nodelay: bool,
    /// Topics by name; none: there is nothing to tell apart.
    pub(crate) topics: &'a [String],
    /// Share of the connections that leave and come back with a cursor.
    pub(crate) returning: f64,
}

impl Plan {
    pub(crate) fn new(common: &Common, wants: Wants<'_>) -> Result<Self, String> {
        let target = match common.transports[..] {
            [Transport::Ws] => Target::websocket(&common.url)?,
            _ => Target::either(&common.url)?,
        };
        let sources = match &common.source {
            Some(list) => Sources::parse(list)?,
            None => Sources::for_target(target.address),
        };
        if !sources.suits(target.address) {
            return Err("--source and the target are of different families (IPv4, IPv6)".to_owned());
        }
        let descriptors = sys::raise_descriptor_limit().map_err(|error| format!("RLIMIT_NOFILE: {error}"))?;
        let table = Table { descriptors, is_private: sys::private_tables() };
        let workers = spread(common.connections, wants.headroom, common.threads, table, common.per_source)?;
        let openers = cores().min(workers.len());
        let seed = sys::random_u64().map_err(|error| format!("getrandom: {error}"))?;
        let dial = Arc::new(dial(common, &target, wants, seed)?);
        let pending_max = (common.pending / openers as u64).max(1);
        let connections = common.connections;
        Ok(Self { connections, target, sources, dial, workers, openers, pending_max, descriptors, seed })
    }

    /// Source addresses that are needed in all.
    pub(crate) fn sources_needed(&self) -> u64 {
        self.workers.iter().map(|share| share.sources).sum()
    }
}

/// The descriptor tables that workers get.
#[derive(Clone, Copy, Debug)]
struct Table {
    /// How many descriptors one holds.
    descriptors: u64,
    /// Each worker has one of its own.
    is_private: bool,
}

impl Table {
    /// Whether `threads` workers hold so many sockets.
    fn holds(self, slots: u64, threads: u64) -> bool {
        // Everyone's eventfds are in every table.
        if self.is_private {
            slots.div_ceil(threads) + DESCRIPTORS_RESERVED + threads <= self.descriptors
        } else {
            slots + DESCRIPTORS_RESERVED * threads + threads <= self.descriptors
        }
    }
}

/// Gives each worker its share: as many workers as there are cores, or as many more as it takes for
/// each to hold its share in a descriptor table of its own.
fn spread(
    connections: u64,
    headroom: u64,
    threads: Option<u64>,
    table: Table,
    per_source: u32,
) -> Result<Vec<Share>, String> {
    let slots = connections + headroom;
    let wanted = threads.unwrap_or(cores() as u64).min(connections);
    let most = if threads.is_some() || !table.is_private { wanted } else { THREADS_MAX };
    let Some(count) = (wanted..=most).find(|&threads| table.holds(slots, threads)) else {
        let each = if table.is_private { "each" } else { "in all: this system refuses them tables of their own" };
        let fewer = if threads.is_some() { "Leave out --threads, or raise" } else { "Raise" };
        return Err(format!(
            "{slots} connections do not fit {most} threads with {} descriptors {each}. {fewer} the limit: ulimit -n 1048576",
            table.descriptors
        ));
    };
    let (mut first, mut first_source) = (0, 0);
    let part = |total: u64, index: u64| total / count + u64::from(index < total % count);
    Ok((0..count)
        .map(|index| {
            let connections = part(connections, index);
            let capacity = connections + headroom.div_ceil(count);
            let sources = capacity.div_ceil(u64::from(per_source));
            let share = Share { first, connections, capacity, first_source, sources };
            first += connections;
            first_source += sources;
            share
        })
        .collect())
}

fn dial(common: &Common, target: &Target, wants: Wants<'_>, seed: u64) -> Result<Dial, String> {
    let mut fields = String::new();
    for line in &common.headers {
        if !line.contains(':') || line.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(format!("--header `{line}`: say NAME: VALUE"));
        }
        fields += line;
        fields += "\r\n";
    }
    let mut rng = Rng::new(seed);
    let keys = match &common.key {
        None => (0..KEYS).map(|_| KeyPair::draw(&mut rng)).collect(),
        Some(key) => vec![KeyPair::given(key).ok_or("--key is not 16 bytes in base64")?],
    };
    let request = |path: &str| Request::new(path, &target.host, &fields);
    // One request serves all unless the URL says which topic it is.
    let requests = match wants.topics {
        topics if !topics.is_empty() && target.names_topic() => {
            topics.iter().map(|topic| request(&target.path.replace("{topic}", topic))).collect()
        }
        _ => vec![request(&target.path)],
    };
    let channels = if wants.topics.is_empty() { vec![String::new()] } else { wants.topics.to_vec() };
    Ok(Dial {
        transports: common.transports.clone(),
        centrifugo: request(&endpoint(common, target)),
        channels,
        token: common.token.clone(),
        returning: wants.returning,
        poll_wait_s: common.poll_wait,
        target: Address::from(target.address),
        options: ConnectOptions { nodelay: wants.nodelay, speaks_first: target.is_local() },
        keys,
        requests,
        subprotocol: common.subprotocol.clone(),
        open_timeout: common.open_timeout,
        close_timeout: common.close_timeout,
        per_source: common.per_source,
    })
}

/// Where Centrifugo's clients connect.
fn endpoint(common: &Common, target: &Target) -> String {
    let alone = common.transports.iter().all(|transport| transport.centrifugo().is_some());
    match &common.centrifugo_path {
        Some(path) => path.clone(),
        None if alone && !target.names_topic() && target.path != "/" => target.path.clone(),
        None => CENTRIFUGO_PATH.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn private(descriptors: u64) -> Table {
        Table { descriptors, is_private: true }
    }

    #[test]
    fn a_million_takes_as_many_tables_as_it_must() {
        let shares = spread(1_000_000, 0, None, private(20_000), 4000).unwrap();
        assert_eq!(shares.len(), 51);
        assert_eq!(shares.iter().map(|share| share.connections).sum::<u64>(), 1_000_000);
        assert!(shares.iter().all(|share| share.capacity + DESCRIPTORS_RESERVED + 51 <= 20_000));
        for pair in shares.windows(2) {
            assert_eq!(pair[0].first + pair[0].connections, pair[1].first);
            assert_eq!(pair[0].first_source + pair[0].sources, pair[1].first_source);
        }
    }

    #[test]
    fn few_connections_take_few_threads() {
        assert_eq!(spread(1, 0, None, private(1024), 4000).unwrap().len(), 1);
        assert_eq!(spread(100, 0, Some(3), private(1024), 4000).unwrap().len(), 3);
        assert!(spread(100_000, 0, Some(3), private(1024), 4000).is_err());
        assert!(spread(100_000_000, 0, None, private(1024), 4000).is_err());
    }

    #[test]
    fn a_table_that_all_must_share_is_not_counted_twice() {
        let shared = Table { descriptors: 1024, is_private: false };
        assert!(spread(500, 0, None, shared, 4000).is_ok());
        assert!(spread(1100, 0, None, shared, 4000).unwrap_err().contains("refuses"));
    }
}
