//! Whom a worker calls, from where, and with which words.

use crate::cli::Transport;
use crate::handshake::{Ask, KeyPair, Offer, Request};
use std::sync::Arc;
use std::time::Duration;
use throng::sys::{Address, ConnectOptions};

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Dial {
    /// Dealt to the connections of each topic in turn.
    pub(crate) transports: Vec<Transport>,
    pub(crate) target: Address,
    pub(crate) options: ConnectOptions,
    /// Key pairs, used in turn.
    pub(crate) keys: Vec<KeyPair>,
    /// Requests: connection number `n` sends number `n` modulo their count.
    pub(crate) requests: Vec<Request>,
    /// The request of Centrifugo's clients.
    pub(crate) centrifugo: Request,
    /// Topics by name, as those clients subscribe to them: connection number `n` to number `n` modulo their count.
    pub(crate) channels: Vec<String>,
    /// Their connection token.
    pub(crate) token: String,
    /// Subprotocols that bare WebSockets offer, comma-separated.
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

    /// Which of the transports the connection in `slot` was dealt.
    pub(crate) fn part(&self, slot: u32) -> usize {
        let Dial { transports, channels, .. } = &*self.dial;
        match transports.len() as u64 {
            1 => 0,
            count => (self.number(slot) / channels.len() as u64 % count) as usize,
        }
    }

    pub(crate) fn transport(&self, slot: u32) -> Transport {
        self.dial.transports[self.part(slot)]
    }

    /// What one of Centrifugo's clients subscribes to; empty: nothing.
    pub(crate) fn channel(&self, slot: u32) -> &str {
        let channels = &self.dial.channels;
        &channels[(self.number(slot) % channels.len() as u64) as usize]
    }

    /// Whether the connection in `slot` leaves and comes back: the same share of those of each topic and transport.
    pub(crate) fn returns(&self, slot: u32) -> bool {
        let Dial { transports, channels, returning, .. } = &*self.dial;
        let alike = (transports.len() * channels.len()) as u64;
        *returning > 0.0 && picks(*returning, self.number(slot) / alike)
    }

    /// Whether it is a WebSocket whose frames carry cursors.
    pub(crate) fn has_cursors(&self, slot: u32) -> bool {
        self.dial.returning > 0.0 && self.transport(slot) == Transport::Ws && self.returns(slot)
    }

    /// What a WebSocket offers to speak.
    pub(crate) fn offer(&self, transport: Transport) -> Offer<'_> {
        match transport.centrifugo() {
            Some(format) => format.subprotocol().map_or(Offer::None, Offer::Only),
            None => self.dial.subprotocol.as_deref().map_or(Offer::None, Offer::Any),
        }
    }

    /// Writes the request of `slot` over `out`, to go on from `cursor` unless that is empty, and says which key
    /// it holds.
    pub(crate) fn request(&mut self, slot: u32, cursor: &[u8], out: &mut Vec<u8>) -> u8 {
        let index = self.next_key;
        let key = &self.dial.keys[usize::from(index)].key;
        self.next_key = (index + 1) % self.dial.keys.len() as u8;
        let transport = self.transport(slot);
        let offer = self.offer(transport);
        let (template, ask) = match transport {
            Transport::Sse => (self.template(slot), Ask::Events(cursor)),
            Transport::Poll => (self.template(slot), Ask::Poll(cursor)),
            Transport::Ws if self.has_cursors(slot) => (self.template(slot), Ask::Frames(key, offer, cursor)),
            Transport::Ws => (self.template(slot), Ask::Socket(key, offer)),
            _ => (&self.dial.centrifugo, Ask::Socket(key, offer)),
        };
        template.write(out, ask);
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
    use super::*;
    use std::collections::BTreeMap;

    fn line(transports: &[Transport], topics: usize, returning: f64) -> Line {
        let dial = Dial {
            transports: transports.to_vec(),
            target: Address::from("127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap()),
            options: ConnectOptions { nodelay: false, speaks_first: true },
            keys: Vec::new(),
            requests: Vec::new(),
            centrifugo: Request::new("/", "h", ""),
            channels: (0..topics).map(|topic| topic.to_string()).collect(),
            token: String::new(),
            subprotocol: None,
            returning,
            poll_wait_s: 1,
            open_timeout: Duration::ZERO,
            close_timeout: Duration::ZERO,
            per_source: 1,
        };
        Line::new(Arc::new(dial), 7_000, Vec::new())
    }

    #[test]
    fn each_topic_has_all_transports_and_each_of_them_the_same_share_that_returns() {
        let transports = [Transport::Ws, Transport::Sse, Transport::Poll, Transport::CentrifugoJson];
        for topics in [1, 2, 4, 7] {
            let (line, mut dealt) = (line(&transports, topics, 0.5), BTreeMap::<_, (u32, u32)>::new());
            let per = 100;
            for slot in 0..per * (topics * transports.len()) as u32 {
                let key = (line.channel(slot).to_owned(), line.part(slot));
                let (count, returns) = dealt.entry(key).or_default();
                *count += 1;
                *returns += u32::from(line.returns(slot));
            }
            assert_eq!(dealt.len(), topics * transports.len());
            for (who, (count, returns)) in dealt {
                assert!(count.abs_diff(per) <= 1 && returns.abs_diff(per / 2) <= 1, "{who:?}: {returns} of {count}");
            }
        }
    }

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
