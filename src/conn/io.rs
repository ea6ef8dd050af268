//! The border between the state machine and whoever handles what it says.

use super::{Peer, Rare, Standing, Verdict};
use crate::config::{Compression, Rules};
use crate::error::{Refused, Violation};
use crate::http::{Date, Head, Response};
use crate::ws::deflate::{Context, Window, encode_compressed};
use crate::ws::{Opcode, encode};

/// Takes what a connection says. The worker puts the user's service behind this.
pub(crate) trait Handler<T> {
    /// A correct upgrade request: may it come in?
    fn open(&mut self, head: &Head<'_>, peer: Peer) -> Verdict<T>;
    /// Any other request, with its whole body.
    fn request(&mut self, head: &Head<'_>, body: &[u8], peer: Peer) -> Outcome<T>;
    /// Whose request it is, by the word of the proxies that it came through; `peer` is whose the one before was, or who is on
    /// the other side.
    fn client(&mut self, head: &Head<'_>, peer: Peer) -> Result<Peer, Refused> {
        let _ = head;
        Ok(peer)
    }
    /// Counts a connection more for that address. Whether it is counted; `Err`: it has as many as it may.
    fn count(&mut self, client: Peer) -> Result<bool, Refused> {
        let _ = client;
        Ok(false)
    }
    /// Counts one less.
    fn discount(&mut self, client: Peer) {
        let _ = client;
    }
    /// Nobody is to stay: responses end their connections.
    fn is_draining(&self) -> bool {
        false
    }
    /// The time, for responses.
    fn date(&self) -> Date;
    /// The WebSocket is open; the first occasion to send.
    fn ready(&mut self, io: Io<'_>, state: &mut T);
    /// A whole text message.
    fn text(&mut self, io: Io<'_>, state: &mut T, text: &str);
    /// A whole binary message.
    fn binary(&mut self, io: Io<'_>, state: &mut T, bytes: &[u8]);
    /// A ping, which is answered.
    fn pinged(&mut self);
    /// A pong, solicited or not.
    fn pong(&mut self, io: Io<'_>, state: &mut T, payload: &[u8]);
    /// The moment has come that was asked for with [`Conn::pace`](super::Conn::pace).
    fn woken(&mut self, io: Io<'_>, state: &mut T);
    /// The WebSocket that is about to be ready compresses, and keeps so many bytes for that.
    fn compresses(&mut self, context_bytes: usize);
    /// A request was refused, by us or by the service.
    fn refused(&mut self, response: &Response, peer: Peer);
    /// The peer's frames broke the protocol; the connection is being failed.
    fn violated(&mut self, violation: Violation, peer: Peer);
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    /// It is answered.
    Now(Response),
    /// The answer comes later, through [`Conn::reply`], [`Conn::wait`] or [`Conn::stream`].
    ///
    /// [`Conn::reply`]: super::Conn::reply
    /// [`Conn::wait`]: super::Conn::wait
    /// [`Conn::stream`]: super::Conn::stream
    Later,
    /// The connection is open, as if it were a WebSocket.
    Open(Emulated<T>),
}

/// A connection that is open without being a WebSocket: what it is sent is the body of a response that goes on.
#[derive(Debug)]
pub(crate) struct Emulated<T> {
    pub(crate) state: T,
    /// How the response begins.
    pub(crate) response: Response,
    /// The first message that came: a part of the request.
    pub(crate) first: Vec<u8>,
}

/// The sending side of a connection, as long as a handler is called. What is sent is collected, and leaves in
/// one write when the handler's batch is done.
#[derive(Debug)]
pub(crate) struct Io<'a> {
    output: &'a mut Vec<u8>,
    /// Bytes that waited before.
    queued: usize,
    queue_bytes_max: usize,
    /// The handler closes.
    close: &'a mut Option<CloseRequest>,
    peer: Peer,
    deflate: Option<Deflate<'a>>,
}

/// How messages are compressed, where that was agreed on.
#[derive(Debug)]
struct Deflate<'a> {
    compression: &'a Compression,
    window: Window,
    context: Option<&'a mut Context>,
}

/// A close that a handler asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CloseRequest {
    pub(crate) code: u16,
    pub(crate) reason: Box<str>,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The connection is closing or closed.
    Closed,
    /// More would wait for this client than `queue_bytes_max`: it reads too slowly. Nothing was queued.
    QueueFull,
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Closed => "the connection is closed",
            Self::QueueFull => "too much is waiting for this client already: skip the message, or close",
        })
    }
}

impl std::error::Error for SendError {}

impl<'a> Io<'a> {
    pub(super) fn new(
        output: &'a mut Vec<u8>,
        close: &'a mut Option<CloseRequest>,
        rules: &'a Rules,
        peer: Peer,
        standing: Standing,
        rare: &'a mut Option<Box<Rare>>,
    ) -> Self {
        let queued = rare.as_ref().map_or(0, |rare| rare.outbox.len());
        let deflate = standing.window().zip(rules.compression.as_ref()).map(|(window, compression)| Deflate {
            compression,
            window,
            context: rare.as_mut().and_then(|rare| rare.context.as_deref_mut()),
        });
        Self { output, queued, queue_bytes_max: rules.queue_bytes_max, close, peer, deflate }
    }

    /// The same for somebody else, for a while.
    #[cfg(feature = "centrifugo")]
    pub(crate) fn reborrow(&mut self) -> Io<'_> {
        let Self { queued, queue_bytes_max, peer, .. } = *self;
        let deflate =
            self.deflate.as_mut().map(|deflate| Deflate { context: deflate.context.as_deref_mut(), ..*deflate });
        Io { output: self.output, queued, queue_bytes_max, close: self.close, peer, deflate }
    }

    /// Queues a frame.
    #[inline]
    pub(crate) fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), SendError> {
        if self.close.is_some() {
            return Err(SendError::Closed);
        }
        // 10: the longest header that a server writes.
        if self.queued() + payload.len() + 10 > self.queue_bytes_max {
            return Err(SendError::QueueFull);
        }
        let is_sent = self.deflate.as_mut().is_some_and(|Deflate { compression, window, context }| {
            encode_compressed(self.output, opcode, payload, (compression, *window), context.as_deref_mut())
        });
        if !is_sent {
            encode(self.output, opcode, payload);
        }
        Ok(())
    }

    /// Queues bytes as they are, for a connection that is no WebSocket.
    #[cfg(feature = "centrifugo")]
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        if self.close.is_some() {
            return Err(SendError::Closed);
        }
        if self.queued() + bytes.len() > self.queue_bytes_max {
            return Err(SendError::QueueFull);
        }
        self.output.extend_from_slice(bytes);
        Ok(())
    }

    /// Asks for the close; the first request counts.
    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        self.close.get_or_insert_with(|| CloseRequest { code, reason: reason.into() });
    }

    /// Bytes that wait for the socket, those of this batch included.
    pub(crate) fn queued(&self) -> usize {
        self.queued + self.output.len()
    }

    /// Who is on the other side.
    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }
}
