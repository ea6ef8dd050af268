//! The open WebSocket: frames in, the closing handshake.

use super::{CloseRequest, Conn, Ended, Handler, Io, Phase};
use crate::config::{Compression, Rules};
use crate::error::{End, Refused, Violation};
use crate::limits::LINGER_BYTES_MAX;
use crate::planted::{Bug, planted};
use crate::time::Tick;
use crate::ws::{self, CloseFrame, Event, Header, Opcode, Partial, Role, deflate};

impl<T> Conn<T> {
    /// Takes what the socket brought. The input is changed in place; what is to be sent is appended to
    /// `output`.
    #[inline]
    pub(crate) fn input(
        &mut self,
        input: &mut [u8],
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) {
        match self.phase() {
            Phase::Open | Phase::Pinged | Phase::Closing => {
                self.last_seen = now;
                if self.phase() == Phase::Pinged {
                    self.set_phase(Phase::Open);
                }
                self.frames_input(input, now, rules, output, handler);
            }
            Phase::Paced => self.frames_input(input, now, rules, output, handler),
            Phase::Preamble => self.preamble_input(input, now, rules, output, handler),
            Phase::Head | Phase::Idle => self.requests_input(input, now, rules, output, handler),
            Phase::Body => self.body_input(input, now, rules, output, handler),
            Phase::Refusing | Phase::Lingering => self.discard(input.len()),
            Phase::Deciding
            | Phase::Waiting
            | Phase::Streaming
            | Phase::Emulated
            | Phase::Finishing
            | Phase::Resetting => {}
        }
    }

    /// Takes frames in `Open` or `Closing`.
    pub(super) fn frames_input(
        &mut self,
        input: &mut [u8],
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) {
        let decoding = ws::Rules {
            role: Role::Server,
            message_bytes_max: rules.message_bytes_max,
            compression: self.window().is_some(),
        };
        let mut partial = self.rare.as_mut().and_then(|rare| rare.partial.take());
        let mut at = 0;
        while matches!(self.phase(), Phase::Open | Phase::Paced | Phase::Closing) {
            let result = match ws::decode(&mut partial, input, &mut at, decoding) {
                Ok(Some(Event::Compressed(opcode, bytes))) => self.compressed(opcode, bytes, rules, output, handler),
                Ok(Some(event)) => {
                    self.event(event, rules, output, handler);
                    Ok(())
                }
                Ok(None) => break,
                Err(violation) => Err(violation),
            };
            if let Err(violation) = result {
                handler.violated(violation, self.peer());
                self.violation(violation, output);
            }
            if planted(Bug::SecondFrameDropped) && self.queued() > 0 {
                break;
            }
        }
        match self.phase() {
            // The peer sends on behind its Close: closing now would reset the connection under ours.
            Phase::Finishing if at < input.len() => self.set_phase(Phase::Refusing),
            Phase::Open | Phase::Paced | Phase::Closing if partial.is_some() => {
                self.keep_partial(partial, now, rules, output, handler);
            }
            _ => self.tidy(),
        }
    }

    /// The input ended in the middle of a message, which has its time from when it began.
    #[cold]
    fn keep_partial(
        &mut self,
        mut partial: Option<Box<Partial>>,
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) {
        if let Some(partial) = &mut partial {
            partial.begun.get_or_insert(now);
        }
        self.rare.get_or_insert_default().partial = partial;
        self.end_overdue_message(now, rules, output, handler);
    }

    /// When the message under way must be complete.
    pub(super) fn message_due(&self, rules: &Rules) -> Option<Tick> {
        Some(self.rare.as_ref()?.partial.as_ref()?.begun? + rules.message_timeout)
    }

    /// Fails a connection whose message was not complete in time. `true`: so it was.
    pub(super) fn end_overdue_message(
        &mut self,
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) -> bool {
        let is_overdue = self.phase().is_open() && self.message_due(rules).is_some_and(|due| due.is_due(now));
        if is_overdue {
            handler.violated(Violation::MessageTimeout, self.peer());
            self.violation(Violation::MessageTimeout, output);
        }
        is_overdue
    }

    /// More has come than may, for too long.
    pub(crate) fn flooded(&mut self, output: &mut Vec<u8>, handler: &mut impl Handler<T>) {
        match self.phase() {
            Phase::Open | Phase::Pinged | Phase::Paced => {
                handler.violated(Violation::Flood, self.peer());
                self.violation(Violation::Flood, output);
            }
            Phase::Preamble | Phase::Head | Phase::Idle | Phase::Body => {
                self.refuse(&Refused::Flood.into(), false, output, handler);
            }
            // It sends where nothing is expected of it.
            Phase::Streaming | Phase::Emulated | Phase::Closing => {
                self.settle(Ended::new(End::Violation));
                self.set_phase(Phase::Resetting);
            }
            Phase::Deciding
            | Phase::Waiting
            | Phase::Refusing
            | Phase::Lingering
            | Phase::Finishing
            | Phase::Resetting => {}
        }
    }

    #[inline(always)] // into the loop above: a call a message costs a tenth of it
    fn event(&mut self, event: Event<'_>, rules: &Rules, output: &mut Vec<u8>, handler: &mut impl Handler<T>) {
        match event {
            Event::Close(frame) => self.peer_closed(frame, output),
            // After our Close only the peer's is waited for.
            _ if self.phase() == Phase::Closing => {}
            Event::Ping(payload) => {
                handler.pinged();
                self.pong(payload, output);
            }
            Event::Text(text) => self.with_state(rules, output, |io, state| handler.text(io, state, text)),
            Event::Binary(bytes) => self.with_state(rules, output, |io, state| handler.binary(io, state, bytes)),
            Event::Pong(payload) => self.with_state(rules, output, |io, state| handler.pong(io, state, payload)),
            Event::Compressed(..) => unreachable!("it is inflated before"),
        }
    }

    /// Inflates a message and hands it out.
    #[inline(never)]
    fn compressed(
        &mut self,
        opcode: Opcode,
        bytes: &[u8],
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) -> Result<(), Violation> {
        if self.phase() == Phase::Closing {
            return Ok(());
        }
        let context = self.rare.as_mut().and_then(|rare| rare.context.as_deref_mut());
        let mut message = deflate::buffer();
        let bytes_max = if planted(Bug::InflatedFirst) { usize::MAX } else { rules.message_bytes_max };
        deflate::inflate(bytes, bytes_max, context, &mut message)?;
        if planted(Bug::InflatedFirst) && message.len() > rules.message_bytes_max {
            return Err(Violation::MessageTooBig);
        }
        let event = match opcode {
            Opcode::Text => Event::Text(std::str::from_utf8(&message).map_err(|_| Violation::InvalidUtf8)?),
            _ => Event::Binary(&message),
        };
        self.event(event, rules, output, handler);
        deflate::give_back(message);
        Ok(())
    }

    /// Lets the handler do something with an open connection, outside of any input. `false`: it is not open.
    pub(crate) fn visit(&mut self, rules: &Rules, output: &mut Vec<u8>, visit: impl FnOnce(Io<'_>, &mut T)) -> bool {
        let is_open = self.phase().is_open() && self.state.is_some();
        if is_open {
            self.with_state(rules, output, visit);
        }
        is_open
    }

    /// Lets the handler do something with a connection that has its state, and closes if that asked for it.
    #[inline]
    pub(super) fn with_state(&mut self, rules: &Rules, output: &mut Vec<u8>, act: impl FnOnce(Io<'_>, &mut T)) {
        let mut close = None;
        let Some(state) = &mut self.state else { unreachable!("what is open has its state") };
        act(Io::new(output, &mut close, rules, self.peer, self.standing, &mut self.rare), state);
        self.close_if_asked(close, output);
    }

    fn close_if_asked(&mut self, close: Option<CloseRequest>, output: &mut Vec<u8>) {
        if let Some(CloseRequest { code, reason }) = close {
            let ended = Ended { end: End::ServiceClosed, code, reason, clean: false };
            self.close(Some(code), ended, output);
        }
    }

    /// Sends a frame that was made elsewhere, compressed where that was agreed on.
    pub(crate) fn frame(&mut self, frame: &[u8], compression: Option<&Compression>, output: &mut Vec<u8>) {
        if let Some(how) = compression.zip(self.window())
            && let Ok(Some((header, at))) = Header::parse(frame, false)
        {
            let context = self.rare.as_mut().and_then(|rare| rare.context.as_deref_mut());
            if deflate::encode_compressed(output, header.opcode, &frame[at..], how, context) {
                return;
            }
        }
        output.extend_from_slice(frame);
    }

    /// Begins the closing handshake from `Open`: at most one Close goes out. Without a WebSocket there is none: what is
    /// said instead is the caller's ([`last_words`](Self::last_words)).
    pub(crate) fn close(&mut self, code: Option<u16>, ended: Ended, output: &mut Vec<u8>) {
        if self.phase() == Phase::Emulated {
            self.set_phase(Phase::Refusing);
            self.settle(ended);
        } else if self.phase().is_open() {
            ws::encode_close(output, code, &ended.reason);
            self.set_phase(Phase::Closing);
            self.settle(ended);
        }
    }

    /// Ends the connection without waiting for the peer: what waits and `output` get one try.
    pub(crate) fn abort(&mut self, ended: Ended, output: &mut Vec<u8>) {
        let code = ws::close_code_may_be_sent(ended.code).then_some(ended.code);
        self.close(code, ended, output);
        self.set_phase(Phase::Resetting);
    }

    fn peer_closed(&mut self, frame: CloseFrame<'_>, output: &mut Vec<u8>) {
        if self.phase() == Phase::Closing && !planted(Bug::CloseTwice) {
            if let Some(ended) = self.rare.as_mut().and_then(|rare| rare.ended.as_mut()) {
                ended.clean = true;
            }
        } else {
            // The code is echoed (RFC 6455, section 5.5.1); the reason is the peer's own.
            ws::encode_close(output, frame.code, "");
            let code = frame.code.unwrap_or(End::PeerClosed.code());
            self.settle(Ended { end: End::PeerClosed, code, reason: frame.reason.into(), clean: true });
        }
        self.set_phase(Phase::Finishing);
    }

    /// Fails the connection (RFC 6455, section 7.1.7): a Close, unless one is out already, and nothing more
    /// is read as frames.
    fn violation(&mut self, violation: Violation, output: &mut Vec<u8>) {
        let (code, reason) = (violation.code(), violation.text());
        self.close(Some(code), Ended { end: End::Violation, code, reason: reason.into(), clean: false }, output);
        self.set_phase(Phase::Refusing);
        if let Some(rare) = &mut self.rare {
            rare.partial = None;
        }
    }

    /// Answers a ping: at once, unless something waits for the socket already. Then only the latest is
    /// remembered, so that a peer that pings without reading costs nothing.
    fn pong(&mut self, payload: &[u8], output: &mut Vec<u8>) {
        match &mut self.rare {
            Some(rare) if planted(Bug::PongDropped) && !rare.outbox.is_empty() => {}
            Some(rare) if !rare.outbox.is_empty() => rare.pong = Some(payload.into()),
            _ => ws::encode(output, Opcode::Pong, payload),
        }
    }

    /// Throws input away, up to a point.
    fn discard(&mut self, bytes: usize) {
        let rare = self.rare.get_or_insert_default();
        rare.discarded = rare.discarded.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if rare.discarded > LINGER_BYTES_MAX {
            self.set_phase(Phase::Resetting);
        }
    }
}
