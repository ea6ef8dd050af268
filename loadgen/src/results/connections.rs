//! The account of connections: of all, and of each transport of a mix.

use crate::cli::Common;
use crate::engine::Tally;
use crate::plan::Plan;
use crate::results::Quantiles;
use crate::run::Run;
use serde::Serialize;
use std::collections::BTreeMap;

/// The account of connections.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Connections {
    pub(crate) wanted: u64,
    pub(crate) attempted: u64,
    pub(crate) opened: u64,
    /// Open when the measured part began, and when it ended.
    pub(crate) open_at_start: u64,
    pub(crate) open_at_end: u64,
    pub(crate) failed: u64,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) lost: u64,
    pub(crate) losses: BTreeMap<String, u64>,
    /// What the server said first with a failure or a loss that has a code.
    pub(crate) said: BTreeMap<String, String>,
    pub(crate) closed: u64,
    pub(crate) farewells: BTreeMap<String, u64>,
    /// In a mix: the same by transport, whole when all is over.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) by_transport: BTreeMap<String, TransportConnections>,
    pub(crate) pings: u64,
    /// How many connections had seen so many pings when they were closed; 255 means as many or more.
    pub(crate) connections_by_pings: BTreeMap<u8, u64>,
}

/// The connections of one transport.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct TransportConnections {
    pub(crate) opened: u64,
    pub(crate) failed: u64,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) lost: u64,
    pub(crate) losses: BTreeMap<String, u64>,
    pub(crate) closed: u64,
    pub(crate) farewells: BTreeMap<String, u64>,
    pub(crate) handshake_us: Quantiles,
}

pub(super) fn connections<R>(plan: &Plan, common: &Common, run: &Run<R>) -> Connections {
    let (marks, tally) = (&run.marks, &run.tally);
    let end = marks.closed.account;
    Connections {
        wanted: plan.connections,
        attempted: end.attempted,
        opened: end.opened,
        open_at_start: marks.opened.account.open(),
        open_at_end: marks.drained.account.open(),
        failed: end.failed,
        failures: words(&tally.failures, |failure| failure.word()),
        lost: end.lost,
        losses: words(&tally.losses, |loss| loss.word()),
        said: tally.said.clone(),
        closed: end.closed,
        farewells: words(&tally.farewells, |farewell| farewell.word()),
        by_transport: by_transport(common, run),
        pings: end.pings,
        connections_by_pings: tally.pings_seen.clone(),
    }
}

/// A transport that was dealt several times has one account.
fn by_transport<R>(common: &Common, run: &Run<R>) -> BTreeMap<String, TransportConnections> {
    let mut tallies = BTreeMap::<String, Tally>::new();
    for (transport, tally) in common.transports.iter().zip(&run.tallies) {
        tallies.entry(transport.to_string()).or_default().merge(tally);
    }
    let of = |tally: &Tally| TransportConnections {
        opened: tally.handshake_us.len(),
        failed: tally.failures.values().sum(),
        failures: words(&tally.failures, |failure| failure.word()),
        lost: tally.losses.values().sum(),
        losses: words(&tally.losses, |loss| loss.word()),
        closed: tally.farewells.values().sum(),
        farewells: words(&tally.farewells, |farewell| farewell.word()),
        handshake_us: Quantiles::of(&tally.handshake_us, 1.0),
    };
    tallies.iter().filter(|_| tallies.len() > 1).map(|(name, tally)| (name.clone(), of(tally))).collect()
}

fn words<K, W: ToString>(counts: &BTreeMap<K, u64>, word: impl Fn(&K) -> W) -> BTreeMap<String, u64> {
    counts.iter().map(|(key, &count)| (word(key).to_string(), count)).collect()
}
