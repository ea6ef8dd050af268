//! A connection's state machine, sans-IO: bytes and time in, bytes and a [`Phase`] out.
//!
//! The caller (the worker) reads into a scratch buffer and hands it to [`Conn::input`]; whatever is to be sent
//! is appended to the caller's output buffer, which the caller writes at once and gives the rest of to
//! [`Conn::keep`]. An idle connection owns no buffer: everything rare hangs off one pointer.
//!
//! ```text
//!   Preamble, from a proxy that speaks the PROXY protocol: then Head
//!
//!            head complete                        Close out            Close in
//!   Head ------------------> Open <--> Pinged ------------> Closing -----------+
//!   ^|  \                     ^  |        |  Close in                          v
//!   ||   +---> Deciding ------+  +--------+---------------------------->  Finishing --> closed
//!   || a request for an open connection that is no WebSocket: Emulated, until it is closed: Refusing
//!   || any other request: Body, if it has one, then the answer, then Idle until the next request
//!    |            |              | violation
//!    | refused    | refused      v                 all written
//!    +------------+--------> Refusing --------------------------------->  Lingering --> closed
//!
//!   a deadline of the last resort, from anywhere: Resetting --> closed with a reset
//! ```

mod frames;
mod handshake;
mod io;
mod peer;
mod preamble;
mod request;
mod standing;
mod timer;

pub(crate) use handshake::{Opening, Verdict};
pub use io::SendError;
pub(crate) use io::{CloseRequest, Emulated, Handler, Io, Outcome};
pub use peer::Peer;

use crate::error::{End, Refused};
use crate::http::{Date, Manner, Response};
use crate::limits::REFERRED_BYTES_MIN;
use crate::mem::{Outbox, Pieces};
use crate::planted::{Bug, planted};
use crate::time::Tick;
use crate::ws::Partial;
use crate::ws::deflate::{Context, Window};
use handshake::Handshake;
use standing::Standing;
use std::sync::Arc;

/// Where a connection stands. The meaning of its one timer follows from this (`conn::timer`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The PROXY header, which this peer must send first, is not complete.
    Preamble,
    /// The request's head is not complete.
    Head,
    /// A request was answered, and another may follow on the same connection (RFC 9112, section 9.3).
    Idle,
    /// The request's body is not complete.
    Body,
    /// The service decides somewhere else; nothing is read meanwhile.
    Deciding,
    /// A request waits for something to happen, for as long as its client asked to; nothing is read meanwhile.
    Waiting,
    /// The answer to a request goes on and on; what the client sends is thrown away.
    Streaming,
    /// Frames go both ways.
    Open,
    /// As `Open`; a ping is out and nothing has come since.
    Pinged,
    /// As `Open`; the service has heartbeats of its own, and is called when `last_seen`, which lies ahead, has come.
    Paced,
    /// As `Paced`, without a WebSocket: what is sent is the body of a response that goes on, and what the client sends on
    /// this connection is thrown away. The service is called again and again: it asks for it each time.
    Emulated,
    /// Our Close is out or on its way, the peer's is not in: messages are no longer delivered.
    Closing,
    /// Nothing more will be said: what is queued is written, then the socket is closed.
    Finishing,
    /// As `Finishing`, but the peer may be in the middle of sending: our direction is shut once everything is
    /// written, then `Lingering`.
    Refusing,
    /// What the peer still sends is thrown away until it ends, so that closing does not reset the connection
    /// under the answer's feet.
    Lingering,
    /// What can be written at once is, then the socket is reset.
    Resetting,
}

impl Phase {
    /// Whether a topic's messages are delivered.
    pub(crate) fn is_subscribed(self) -> bool {
        self.is_open() || matches!(self, Self::Streaming | Self::Waiting)
    }

    /// Whether it is on its way out.
    pub(crate) fn is_ending(self) -> bool {
        matches!(self, Self::Closing | Self::Finishing | Self::Refusing | Self::Lingering | Self::Resetting)
    }

    /// Whether messages are delivered and may be sent.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Pinged | Self::Paced | Self::Emulated)
    }
}

/// How a WebSocket ended, for the service.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) end: End,
    pub(crate) code: u16,
    pub(crate) reason: Box<str>,
    /// Both sides sent a Close (RFC 6455, section 7.1.4).
    pub(crate) clean: bool,
}

impl Ended {
    pub(crate) fn new(end: End) -> Self {
        Self { end, code: end.code(), reason: end.text().into(), clean: false }
    }
}

/// A connection. `T` is the service's state, there once the WebSocket is open.
#[derive(Debug)]
pub(crate) struct Conn<T> {
    rare: Option<Box<Rare>>,
    /// When a byte last came; in `Paced` and `Emulated` when the service is called.
    last_seen: Tick,
    peer: Peer,
    standing: Standing,
    pub(crate) state: Option<T>,
}

/// What a socket has that is not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Unread {
    #[default]
    Nothing,
    Something,
    /// The end, perhaps with something before it.
    End,
}

/// What only few connections have at any moment.
#[derive(Debug, Default)]
struct Rare {
    /// A head that is not whole, or a request that waits for its decision.
    handshake: Option<Handshake>,
    /// A frame that is not whole, or a message in fragments.
    partial: Option<Box<Partial>>,
    /// What waits for the socket.
    outbox: Outbox,
    /// When the outbox last moved, or became non-empty.
    moved: Tick,
    /// The latest ping that could not be answered at once: one pending pong at most (RFC 6455, section 5.5.3).
    pong: Option<Box<[u8]>>,
    /// How the WebSocket ended.
    ended: Option<Ended>,
    /// When a request in `Waiting` is answered whatever happened.
    until: Tick,
    /// What its messages refer to, from when it opens until it ends: the metric counts on that.
    context: Option<Box<Context>>,
    /// Bytes thrown away in `Lingering`.
    discarded: u32,
    /// What the socket had while a request waited for its answer.
    unread: Unread,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.handshake.is_none()
            && self.partial.is_none()
            && self.outbox.is_empty()
            && self.pong.is_none()
            && self.ended.is_none()
            && self.context.is_none()
            && self.discarded == 0
            && self.unread == Unread::Nothing
    }
}

impl<T> Conn<T> {
    /// A connection that was just accepted.
    pub(crate) fn new(peer: Peer, now: Tick) -> Self {
        Self { rare: None, last_seen: now, peer, standing: Standing::new(Phase::Head), state: None }
    }

    /// It begins with a PROXY header.
    pub(crate) fn expect_preamble(&mut self) {
        debug_assert_eq!(self.phase(), Phase::Head);
        self.set_phase(Phase::Preamble);
    }

    /// Whether its address has one connection more for it, which is to be given back.
    pub(crate) fn is_counted(&self) -> bool {
        self.standing.is_counted()
    }

    pub(crate) fn set_counted(&mut self, is_counted: bool) {
        self.standing.set_counted(is_counted);
    }

    /// Where it stands.
    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        self.standing.phase()
    }

    fn set_phase(&mut self, phase: Phase) {
        self.standing.set_phase(phase);
    }

    /// The window of what it is sent compressed, if that was agreed on.
    pub(crate) fn window(&self) -> Option<Window> {
        self.standing.window()
    }

    /// A compressed message goes out that was not made for it alone.
    pub(crate) fn interrupt_context(&mut self) {
        if let Some(context) = self.rare.as_mut().and_then(|rare| rare.context.as_mut()) {
            context.interrupt();
        }
    }

    /// What its own streams take, in bytes.
    pub(crate) fn context_bytes(&self) -> usize {
        self.rare.as_ref().and_then(|rare| rare.context.as_ref()).map_or(0, |context| context.bytes())
    }

    /// Who is on the other side.
    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }

    /// How long ago a byte last came; `None`, where that is not remembered.
    pub(crate) fn silent_ticks(&self, now: Tick) -> Option<u32> {
        let is_known = !matches!(self.phase(), Phase::Paced | Phase::Emulated);
        is_known.then(|| u32::try_from(now.minus(self.last_seen)).unwrap_or(0))
    }

    /// Whether it is in the middle of a frame or of a fragmented message.
    pub(crate) fn is_mid_message(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.partial.is_some())
    }

    /// Bytes that wait for the socket.
    pub(crate) fn queued(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.outbox.len())
    }

    /// What it alone has the server hold, in bytes of memory: what waits for it, and what it has begun to send.
    pub(crate) fn held(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| {
            let partial = rare.partial.as_ref().map_or(0, |partial| partial.bytes());
            let handshake = rare.handshake.as_ref().map_or(0, Handshake::bytes);
            rare.outbox.own_bytes() + partial + handshake
        })
    }

    /// Bytes of memory that it alone holds for the socket: what waits, without what is others' too.
    pub(crate) fn queued_own(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.outbox.own_bytes())
    }

    /// Whether it wants to be read: not while much waits to be written, nor while the service decides.
    pub(crate) fn wants_input(&self) -> bool {
        !matches!(self.phase(), Phase::Deciding | Phase::Waiting) && self.queued() < crate::limits::READ_PAUSE_BYTES
    }

    /// The socket has something to read, and is not read: if a request waits, that is remembered for when it is answered.
    /// `ended`: and the peer sends no more.
    pub(crate) fn pass_over(&mut self, ended: bool) {
        if matches!(self.phase(), Phase::Deciding | Phase::Waiting)
            && let Some(rare) = &mut self.rare
        {
            rare.unread = rare.unread.max(if ended { Unread::End } else { Unread::Something });
        }
    }

    /// Whether it is known that the peer of a request that waits sends no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.unread == Unread::End)
    }

    /// Whether it was passed over since it was last asked.
    pub(crate) fn was_passed_over(&mut self) -> bool {
        let unread = self.rare.as_mut().is_some_and(|rare| std::mem::take(&mut rare.unread) != Unread::Nothing);
        self.tidy();
        unread
    }

    /// What is to be written next, if something waits; many small pieces are put together in `scratch`.
    pub(crate) fn pending<'a>(&'a self, scratch: &'a mut [u8]) -> Option<&'a [u8]> {
        self.rare.as_ref().map(|rare| rare.outbox.gather(scratch)).filter(|bytes| !bytes.is_empty())
    }

    /// Takes over what the socket did not take of `output`, all of it if something waits already.
    pub(crate) fn keep(&mut self, output: &mut Vec<u8>, sent: usize, now: Tick) {
        let rare = self.rare.get_or_insert_default();
        if rare.outbox.is_empty() || planted(Bug::StallPutOff) {
            rare.moved = now;
        }
        rare.outbox.keep(output, sent);
    }

    /// As [`keep`](Self::keep), of bytes that are others' too, when nothing waits yet.
    pub(crate) fn share(&mut self, bytes: Arc<[u8]>, sent: usize, now: Tick) {
        let rare = self.rare.get_or_insert_default();
        rare.moved = now;
        rare.outbox.share(bytes, sent);
    }

    /// If it holds much for the socket, and that ends in the bytes of `pieces`, these are referred to instead.
    pub(crate) fn refer(&mut self, pieces: impl Pieces + 'static) {
        if self.queued_own() >= REFERRED_BYTES_MIN
            && let Some(rare) = &mut self.rare
        {
            rare.outbox.refer(pieces);
        }
    }

    /// Notes that `count` bytes of [`pending`](Self::pending) were written. When that was all, what had to wait
    /// for it (a pong) is appended to `output`.
    pub(crate) fn wrote(&mut self, count: usize, now: Tick, output: &mut Vec<u8>) {
        let Some(rare) = &mut self.rare else { return };
        rare.moved = now;
        rare.outbox.advance(count);
        if rare.outbox.is_empty() {
            if let Some(pong) = rare.pong.take()
                && self.phase().is_open()
            {
                crate::ws::encode(output, crate::ws::Opcode::Pong, &pong);
            }
            self.tidy();
        }
    }

    /// All that was queued has been written in `Refusing`, and our direction is shut.
    pub(crate) fn linger(&mut self) {
        debug_assert_eq!(self.phase(), Phase::Refusing);
        self.set_phase(Phase::Lingering);
    }

    /// The peer's direction has ended. `true`: what is queued may still go out; else there is nothing left to do.
    pub(crate) fn end_of_input(&mut self) -> bool {
        match self.phase() {
            // A client that only sends a request may half-close behind it and still read the answer.
            Phase::Finishing | Phase::Refusing => self.queued() > 0,
            Phase::Idle if self.queued() > 0 => {
                self.set_phase(Phase::Finishing);
                true
            }
            _ => false,
        }
    }

    /// How the WebSocket ended, if that is settled.
    pub(crate) fn ended(&mut self) -> Option<Ended> {
        self.rare.as_mut().and_then(|rare| rare.ended.take())
    }

    /// Whose connection it is, and the code and reason, if how it ended is settled.
    pub(crate) fn last_words(&self) -> Option<(&T, u16, &str)> {
        let ended = self.rare.as_ref()?.ended.as_ref()?;
        Some((self.state.as_ref()?, ended.code, &ended.reason))
    }

    /// Settles how it ended, unless that is settled already.
    pub(crate) fn settle(&mut self, ended: Ended) {
        self.rare.get_or_insert_default().ended.get_or_insert(ended);
    }

    /// The handler panicked: nothing it left half done is touched again.
    pub(crate) fn panicked(&mut self, output: &mut Vec<u8>, date: &Date) {
        match self.phase() {
            Phase::Preamble | Phase::Head | Phase::Idle | Phase::Body | Phase::Deciding | Phase::Waiting => {
                Response::from(Refused::Internal).write(output, Manner::LAST, date);
            }
            _ => self.close(Some(End::Panic.code()), Ended::new(End::Panic), output),
        }
        self.set_phase(Phase::Refusing);
        if let Some(rare) = &mut self.rare {
            (rare.handshake, rare.partial) = (None, None);
        }
    }

    /// Gives back what is no longer needed: an idle connection owns nothing.
    fn tidy(&mut self) {
        if self.rare.as_ref().is_some_and(|rare| rare.is_empty()) {
            self.rare = None;
        }
    }
}

#[cfg(test)]
mod tests;
