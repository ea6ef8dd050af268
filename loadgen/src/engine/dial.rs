//! Whom a worker calls, from where, and with which words.

use crate::cli::Transport;
use crate::handshake::{Ask, KeyPair, Request};
use std::sync::Arc;
use std::time::Duration;
use throng::sys::{Address, ConnectOptions};

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) transport: Transport,
    pub(crate) target: Address,
    pub(crate) options: ConnectOptions,
    /// Key pairs, used in turn.
    pub(crate) keys: Vec<KeyPair>,
    /// Requests: connection number `n` sends number `n` modulo their count.
    pub(crate) requests: Vec<Request>,
    /// What was offered, comma-separated.
    pub(crate) subprotocol: Option<String>,
    /// Share of the connections that leave and come back with a cursor.
    pub(crate) returning: f64,
    /// How long the server is to hold a poll, in seconds.
    pub(crate) poll_wait_s: u64,
    /// From connect(2) to the whole answer.
    pub(crate) open_timeout: Duration,
    /// From our Close to the end of the stream.
    pub(crate) close_timeout: Duration,
    /// Connections from one source address.
    pub(crate) per_source: u32,
}

/// Whether `number` is among the `share` that is picked of all numbers, evenly.
pub(crate) fn picks(share: f64, number: u64) -> bool {
    let before = (number as f64 * share).floor();
    ((number + 1) as f64 * share).floor() > before
}

/// A worker's part of it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) dial: Arc<Dial>,
    /// The number of this worker's first connection.
    pub(crate) first: u64,
    /// This worker's source addresses; none: the kernel chooses.
    pub(crate) sources: Vec<Address>,
    next_key: u8,
}

impl Line {
    pub(crate) fn new(dial: Arc<Dial>, first: u64, sources: Vec<Address>) -> Self {
        Self { dial, first, sources, next_key: 0 }
    }

    /// The source of the connection in `slot`. It hangs on the slot, so no address ever has more live
    /// connections than it should, however they come and go.
    pub(crate) fn source(&self, slot: u32) -> Option<&Address> {
        let index = (slot / self.dial.per_source) as usize;
        (!self.sources.is_empty()).then(|| &self.sources[index % self.sources.len()])
    }

    /// The number of the connection in `slot` among those of all workers.
    pub(crate) fn number(&self, slot: u32) -> u64 {
        self.first + u64::from(slot)
    }

    /// Whether the connection in `slot` leaves and comes back: the same share of those of each request.
    pub(crate) fn returns(&self, slot: u32) -> bool {
        let rank = self.number(slot) / self.dial.requests.len() as u64;
        self.dial.returning > 0.0 && picks(self.dial.returning, rank)
    }

    /// Whether it is a WebSocket whose frames carry cursors.
    pub(crate) fn has_cursors(&self, slot: u32) -> bool {
        self.dial.transport == Transport::Ws && self.returns(slot)
    }

    /// Writes the request of `slot` over `out`, to go on from `cursor` unless that is empty, and says which key
    /// it holds.
    pub(crate) fn request(&mut self, slot: u32, cursor: &[u8], out: &mut Vec<u8>) -> u8 {
        let index = self.next_key;
        let key = &self.dial.keys[usize::from(index)].key;
        self.next_key = (index + 1) % self.dial.keys.len() as u8;
        let ask = match self.dial.transport {
            Transport::Sse => Ask::Events(cursor),
            Transport::Poll => Ask::Poll(cursor),
            _ if self.has_cursors(slot) => Ask::Frames(key, cursor),
            _ => Ask::Socket(key),
        };
        self.template(slot).write(out, ask);
        index
    }

    /// Writes the next poll of `slot` over `out`.
    pub(crate) fn long_poll(&self, slot: u32, cursor: &[u8], out: &mut Vec<u8>) {
        self.template(slot).write(out, Ask::LongPoll(cursor, self.dial.poll_wait_s));
    }

    fn template(&self, slot: u32) -> &Request {
        &self.dial.requests[(self.number(slot) % self.dial.requests.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::picks;

    #[test]
    fn a_share_is_picked_evenly() {
        for share in [0.0, 0.1, 0.33, 0.5, 1.0] {
            for until in [1_000_u64, 10_000] {
                let count = (0..until).filter(|&number| picks(share, number)).count() as f64;
                assert!((count - share * until as f64).abs() <= 1.0, "{count} of {until} at {share}");
            }
        }
    }
}
