//! Whom a worker calls, from where, and with which words.

use crate::handshake::{KeyPair, Request};
use std::sync::Arc;
use std::time::Duration;
use throng::sys::{Address, ConnectOptions};

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) target: Address,
    pub(crate) options: ConnectOptions,
    /// Key pairs, used in turn.
    pub(crate) keys: Vec<KeyPair>,
    /// Requests: connection number `n` sends number `n` modulo their count.
    pub(crate) requests: Vec<Request>,
    /// What was offered, comma-separated.
    pub(crate) subprotocol: Option<String>,
    /// From connect(2) to the whole answer.
    pub(crate) open_timeout: Duration,
    /// From our Close to the end of the stream.
    pub(crate) close_timeout: Duration,
    /// Connections from one source address.
    pub(crate) per_source: u32,
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

    /// Writes the request of `slot` over `out`, and says which key it holds.
    pub(crate) fn request(&mut self, slot: u32, out: &mut Vec<u8>) -> u8 {
        let key = self.next_key;
        self.next_key = (key + 1) % self.dial.keys.len() as u8;
        let number = self.number(slot) % self.dial.requests.len() as u64;
        self.dial.requests[number as usize].write(out, &self.dial.keys[usize::from(key)].key);
        key
    }
}
