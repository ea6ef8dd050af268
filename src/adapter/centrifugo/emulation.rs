//! Sessions without a WebSocket: replies are the body of one response that goes on, commands come in requests of their own.
//!
//! ```text
//!   a frame of two replies         {"id":1,"connect":{}} LF {"id":2,"subscribe":{}}
//!   as lines                       {"id":1,"connect":{}} LF {"id":2,"subscribe":{}} LF
//!   as events          data: SP    {"id":1,"connect":{}} LF LF data: SP {"id":2,"subscribe":{}} LF LF
//!   each of them in a chunk        SIZE CR LF ... CR LF
//! ```
//!
//! A frame is one chunk (RFC 9112, section 7.1), since clients cannot put one together that is cut.

use super::codec::Format;
use super::protocol::{Disconnect, Event};
use super::push;
use base64::engine::{Engine, general_purpose::URL_SAFE_NO_PAD};
use std::fmt;

/// What the body of such a response is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// JSON, a reply each line.
    Lines,
    /// JSON, a reply each server-sent event.
    Events,
    /// Protobuf, each reply behind its length.
    Protobuf,
}

/// How a session's replies leave in the body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) body: Body,
    /// HTTP/1.0 has no chunks: there the body ends with the connection.
    pub(crate) is_chunked: bool,
}

impl Stream {
    /// How many there are.
    pub(crate) const COUNT: usize = 6;

    /// Its number among them.
    pub(crate) fn index(self) -> usize {
        2 * self.body as usize + usize::from(self.is_chunked)
    }

    pub(crate) fn format(self) -> Format {
        match self.body {
            Body::Lines | Body::Events => Format::Json,
            Body::Protobuf => Format::Protobuf,
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self.body {
            Body::Lines => "application/x-ndjson",
            Body::Events => "text/event-stream",
            Body::Protobuf => "application/octet-stream",
        }
    }

    /// How the body begins: an event stream with a comment, since some clients, and some proxies, take it for open only
    /// when something has come.
    pub(crate) fn beginning(self) -> Vec<u8> {
        if self.body == Body::Events { self.chunk(3, |out| out.extend_from_slice(b":\n\n")) } else { Vec::new() }
    }

    /// A frame of replies.
    pub(crate) fn frame(self, replies: &[u8]) -> Vec<u8> {
        let (before, after): (&[u8], &[u8]) = match self.body {
            Body::Lines => (b"", b"\n"),
            Body::Events => (b"data: ", b"\n\n"),
            Body::Protobuf => return self.chunk(replies.len(), |out| out.extend_from_slice(replies)),
        };
        let lines = || replies.split(|&byte| byte == b'\n');
        // Each but the last has a line feed behind it already.
        let bytes = replies.len() + 1 + lines().count() * (before.len() + after.len() - 1);
        self.chunk(bytes, |out| {
            for line in lines() {
                [before, line, after].into_iter().for_each(|part| out.extend_from_slice(part));
            }
        })
    }

    /// So many bytes, in a chunk if there are chunks.
    fn chunk(self, bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        // A size has 16 digits at most; two line ends.
        let mut out = Vec::with_capacity(bytes + 20);
        if self.is_chunked {
            out.extend_from_slice(format!("{bytes:x}\r\n").as_bytes());
        }
        let start = out.len();
        write(&mut out);
        debug_assert_eq!(out.len() - start, bytes);
        if self.is_chunked {
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    /// The last words, and the end of the body.
    pub(crate) fn parting(self, code: u16, reason: &str) -> Vec<u8> {
        let disconnect = Disconnect { code: code.into(), reason: reason.to_owned(), reconnect: false };
        let mut out = self.frame(&push::push(self.format(), "", Event::Disconnect(disconnect)));
        if self.is_chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        out
    }
}

/// Names a session to whichever worker its client's commands come to, and proves that they are its client's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) worker: u16,
    pub(crate) slot: u32,
    /// What tells the slot's connections apart.
    pub(crate) serial: u64,
    /// Nobody else knows it.
    pub(crate) key: u128,
}

impl fmt::Debug for Ticket {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({}, {}, {})", self.worker, self.slot, self.serial)
    }
}

impl Ticket {
    const BYTES: usize = 2 + 4 + 8 + 16;
    /// 6 bits each.
    const CHARS: usize = Self::BYTES * 8 / 6;

    /// The protocol's `session`.
    pub(crate) fn text(&self) -> String {
        let Self { worker, slot, serial, key } = self;
        let parts = [&worker.to_be_bytes()[..], &slot.to_be_bytes(), &serial.to_be_bytes(), &key.to_be_bytes()];
        URL_SAFE_NO_PAD.encode(parts.concat())
    }

    /// What a client shows; `None` for what is no ticket of anybody.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(Some(text).filter(|text| text.len() == Self::CHARS)?).ok()?;
        let (worker, rest) = bytes.split_first_chunk()?;
        let (slot, rest) = rest.split_first_chunk()?;
        let (serial, rest) = rest.split_first_chunk()?;
        let (worker, slot, serial) =
            (u16::from_be_bytes(*worker), u32::from_be_bytes(*slot), u64::from_be_bytes(*serial));
        Some(Self { worker, slot, serial, key: u128::from_be_bytes(rest.try_into().ok()?) })
    }
}

/// Whether two keys are the same, in a time that does not tell where they differ.
pub(crate) fn same_key(a: u128, b: u128) -> bool {
    let [a, b] = [a, b].map(u128::to_ne_bytes);
    a.iter().zip(b).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b))) == 0
}

/// What the client of such a session is told, with the answer to its connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Emulation {
    pub(crate) ticket: Ticket,
    /// The process.
    pub(crate) node: &'static str,
}
