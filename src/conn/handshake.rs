//! From a correct upgrade request to the open WebSocket, or a refusal.

use super::{Conn, Handler, Phase};
use crate::config::Rules;
use crate::error::Refused;
use crate::http::{Body, Field, Head, HeadScan, Manner, Response, Upgrade, field_is_valid, write_switching_protocols};
use crate::time::Tick;
use crate::ws::deflate::{Agreed, Context};
use std::borrow::Cow;

/// What the service gives a connection that may come in.
#[derive(Debug)]
pub(crate) struct Opening<T> {
    pub(crate) state: T,
    /// One of those that the client offered.
    pub(crate) subprotocol: Option<Cow<'static, str>>,
    pub(crate) headers: Vec<Field>,
}

/// The service's word on an upgrade request.
#[derive(Debug)]
pub(crate) enum Verdict<T> {
    /// It may come in, or is told why not.
    Now(Result<Opening<T>, Response>),
    /// Somebody will say through [`Conn::answer`].
    Later,
}

/// What is kept of a handshake while it is not complete.
#[derive(Debug)]
pub(super) enum Handshake {
    /// A part of a head; in `Idle`, requests that wait until the answers before them have been read.
    Head { bytes: Vec<u8>, scan: HeadScan, since: Tick },
    /// A part of a PROXY header.
    Preamble { bytes: Vec<u8>, since: Tick },
    /// A request whose body is not complete.
    Body { head: Vec<u8>, body: Body, since: Tick },
    /// A request that waits for its answer, and what came behind it.
    Asked { manner: Manner, rest: Vec<u8> },
    /// A correct upgrade that waits for its verdict.
    Deciding {
        upgrade: Upgrade,
        subprotocols: Box<[Box<str>]>,
        /// What was agreed on about compression.
        compression: Option<Agreed>,
        /// Frames that came right behind the head.
        early: Vec<u8>,
    },
}

impl Handshake {
    /// When the time of what is being read has begun.
    pub(super) fn since(&self) -> Option<Tick> {
        match self {
            Self::Head { since, .. } | Self::Preamble { since, .. } | Self::Body { since, .. } => Some(*since),
            Self::Asked { .. } | Self::Deciding { .. } => None,
        }
    }

    /// Bytes of memory behind it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Head { bytes, .. } | Self::Preamble { bytes, .. } => bytes.capacity(),
            Self::Body { head, body, .. } => head.capacity() + body.held(),
            Self::Asked { rest, .. } => rest.capacity(),
            Self::Deciding { early, .. } => early.capacity(),
        }
    }
}

impl<T> Conn<T> {
    /// The head `bytes` is a correct upgrade: the service is asked. `rest` came behind it.
    #[expect(clippy::too_many_arguments, reason = "all that a request and its answer need")]
    pub(super) fn upgrade(
        &mut self,
        head: &Head<'_>,
        upgrade: Upgrade,
        rest: &mut [u8],
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) {
        let offers = head.header_values("Sec-WebSocket-Extensions");
        let compression = rules.compression.and_then(|compression| Agreed::negotiate(offers, &compression));
        match handler.open(head, self.peer()) {
            Verdict::Now(Ok(opening)) => {
                let offered = |wanted: &str| head.subprotocols().any(|offered| offered == wanted);
                if self.open(opening, &upgrade, offered, compression, now, rules, output, handler) {
                    self.frames_input(rest, now, rules, output, handler);
                }
            }
            Verdict::Now(Err(response)) => self.refuse(&response, false, output, handler),
            Verdict::Later => {
                self.set_phase(Phase::Deciding);
                let subprotocols = head.subprotocols().map(Into::into).collect();
                // What it subscribes to meanwhile is written accordingly.
                self.standing.set_window(compression.map(|agreed| agreed.window()));
                self.keep_handshake(Handshake::Deciding { upgrade, subprotocols, compression, early: rest.to_vec() });
            }
        }
    }

    /// The verdict on a connection in `Deciding`. `false`: it was not waiting for one.
    pub(crate) fn answer(
        &mut self,
        verdict: Result<Opening<T>, Response>,
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) -> bool {
        if self.phase() != Phase::Deciding {
            return false;
        }
        let Some(Handshake::Deciding { upgrade, subprotocols, compression, mut early }) = self.take_handshake() else {
            return false;
        };
        match verdict {
            Ok(opening) => {
                let offered = |wanted: &str| subprotocols.iter().any(|offered| **offered == *wanted);
                if self.open(opening, &upgrade, offered, compression, now, rules, output, handler) {
                    self.frames_input(&mut early, now, rules, output, handler);
                }
            }
            Err(response) => self.refuse(&response, false, output, handler),
        }
        true
    }

    /// Opens the WebSocket. `false`: what the service chose cannot be sent, and the client got a 500.
    #[expect(clippy::too_many_arguments, reason = "the two callers differ in all of them")]
    fn open(
        &mut self,
        opening: Opening<T>,
        upgrade: &Upgrade,
        offered: impl Fn(&str) -> bool,
        compression: Option<Agreed>,
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) -> bool {
        let Opening { state, subprotocol, mut headers } = opening;
        let fault = if let Some(wanted) = subprotocol.as_deref().filter(|wanted| !offered(wanted)) {
            Some(("subprotocol", wanted))
        } else {
            headers.iter().find(|(name, value)| !field_is_valid(name, value)).map(|(name, _)| ("header", &**name))
        };
        if let Some((what, name)) = fault {
            log::error!("the service accepted with a {what} that cannot be sent, {name:?}: answered 500");
            self.refuse(&Refused::Internal.into(), false, output, handler);
            return false;
        }
        if let Some(agreed) = compression {
            self.compress(agreed, rules, handler);
            headers.push(("Sec-WebSocket-Extensions".into(), agreed.answer().into()));
        }
        write_switching_protocols(output, &upgrade.accept, subprotocol.as_deref(), &headers);
        self.set_phase(Phase::Open);
        self.last_seen = now;
        self.state = Some(state);
        self.with_state(rules, output, |io, state| handler.ready(io, state));
        true
    }

    /// Messages are compressed from now on.
    fn compress(&mut self, agreed: Agreed, rules: &Rules, handler: &mut impl Handler<T>) {
        self.standing.set_window(Some(agreed.window()));
        let context = rules.compression.and_then(|compression| Context::new(agreed, &compression));
        if let Some(context) = context {
            self.rare.get_or_insert_default().context = Some(Box::new(context));
        }
        handler.compresses(self.context_bytes());
    }

    /// Answers the request and is done with it: the answer is written, and what the client still sends is
    /// thrown away, so that it gets to read the answer.
    pub(crate) fn refuse(
        &mut self,
        response: &Response,
        to_head: bool,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) {
        if response.refused().is_some() {
            handler.refused(response, self.peer());
        }
        response.write(output, Manner { to_head, persistent: false }, &handler.date());
        self.take_handshake();
        self.set_phase(Phase::Refusing);
    }

    pub(super) fn take_handshake(&mut self) -> Option<Handshake> {
        let handshake = self.rare.as_mut().and_then(|rare| rare.handshake.take());
        self.tidy();
        handshake
    }

    pub(super) fn keep_handshake(&mut self, handshake: Handshake) {
        self.rare.get_or_insert_default().handshake = Some(handshake);
    }
}
