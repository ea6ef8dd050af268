//! HTTP/1.1 requests, one after another (RFC 9112): heads, bodies, answers, until one of them is an upgrade.

use super::handshake::Handshake;
use super::{Conn, Emulated, Handler, Outcome, Phase};
use crate::config::Rules;
use crate::error::Refused;
use crate::http::{Body, Fields, Framing, Head, HeadScan, Manner, Response, Upgrade, wants_websocket};
use crate::limits::READ_PAUSE_BYTES;
use crate::time::Tick;

impl<T> Conn<T> {
    /// Takes input in `Head` or `Idle`: any number of requests (section 9.3.2), answered in order.
    pub(super) fn requests_input(
        &mut self,
        input: &mut [u8],
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) {
        let (phase, seen) = (self.phase(), std::mem::replace(&mut self.last_seen, now));
        let Some(Handshake::Head { mut bytes, scan, since }) = self.take_handshake() else {
            // The first one has its time from when the connection was accepted.
            let since = if phase == Phase::Head { seen } else { now };
            return self.first_requests(input, since, now, rules, output, handler);
        };
        // What waited for answers to be read begins now.
        let since = if phase == Phase::Head { since } else { now };
        bytes.extend_from_slice(input);
        if let Some((from, scan)) = self.requests(&mut bytes, scan, now, rules, output, handler) {
            // The same buffer, so that a head that comes byte by byte is not copied for each of them; behind requests that were
            // answered one of its size.
            let (bytes, since) = if from == 0 { (bytes, since) } else { (bytes[from..].to_vec(), now) };
            self.keep_handshake(Handshake::Head { bytes, scan, since });
        }
    }

    /// Takes requests of which nothing has come before; the time of the first one has begun at `since`.
    pub(super) fn first_requests(
        &mut self,
        input: &mut [u8],
        since: Tick,
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) {
        if let Some((from, scan)) = self.requests(input, HeadScan::default(), now, rules, output, handler) {
            let since = if from == 0 { since } else { now };
            self.keep_handshake(Handshake::Head { bytes: input[from..].to_vec(), scan, since });
        }
    }

    /// Whether requests are there that wait for nothing but their turn.
    pub(crate) fn has_early(&self) -> bool {
        self.phase() == Phase::Idle
            && self.rare.as_ref().is_some_and(|rare| matches!(rare.handshake, Some(Handshake::Head { .. })))
    }

    /// Ends a connection between two requests, which its client has to expect at any time (section 9.6).
    pub(crate) fn end_idle(&mut self) {
        debug_assert_eq!(self.phase(), Phase::Idle);
        self.take_handshake();
        self.set_phase(Phase::Finishing);
    }

    /// Answers what is whole. From where on the input is to be kept, and how far that has been looked at; `None`: it is done
    /// with.
    fn requests(
        &mut self,
        input: &mut [u8],
        mut scan: HeadScan,
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) -> Option<(usize, HeadScan)> {
        let mut at = 0;
        while at < input.len() {
            // Answers are no longer than what was asked for, but many: the rest waits until these have been read.
            if self.phase() == Phase::Idle && output.len() + self.queued() > READ_PAUSE_BYTES {
                return Some((at, HeadScan::default()));
            }
            let rest = &mut input[at..];
            match scan.advance(rest) {
                Ok(Some(end)) => at += self.request(rest, end, now, rules, output, handler),
                Ok(None) => {
                    self.set_phase(Phase::Head);
                    return Some((at, scan));
                }
                Err(refused) => {
                    self.refuse(&refused.into(), false, output, handler);
                    return None;
                }
            }
            if self.phase() != Phase::Idle {
                self.keep_rest(&input[at..]);
                return None;
            }
            scan = HeadScan::default();
        }
        None
    }

    /// The head is whole, `input[..end]`: answers the request, if its body is there too. How much of the input it
    /// took, all of it unless the connection is `Idle` now.
    fn request(
        &mut self,
        input: &mut [u8],
        end: usize,
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) -> usize {
        let length = input.len();
        let (bytes, rest) = input.split_at_mut(end);
        let mut fields = Fields::new();
        let refused = match Head::parse(bytes, &mut fields) {
            Err(refused) => (refused, false),
            Ok(head) => match self.head(&head, bytes, rest, now, rules, output, handler) {
                Ok(taken) => return end + taken,
                Err(refused) => (refused, head.method() == "HEAD"),
            },
        };
        self.refuse(&refused.0.into(), refused.1, output, handler);
        length
    }

    /// How much of `rest` belongs to the request.
    #[expect(clippy::too_many_arguments, reason = "all that a request and its answer need")]
    fn head(
        &mut self,
        head: &Head<'_>,
        bytes: &[u8],
        rest: &mut [u8],
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) -> Result<usize, Refused> {
        let client = handler.client(head, self.peer())?;
        self.turn_out_to_be(client, handler)?;
        if wants_websocket(head) {
            let upgrade = Upgrade::check(head)?;
            self.upgrade(head, upgrade, rest, now, rules, output, handler);
            return Ok(rest.len());
        }
        let framing = head.framing()?;
        if framing == Framing::None {
            self.answer_request(head, &[], now, rules, output, handler);
            return Ok(0);
        }
        let expects_continue = head.expects_continue()?;
        let mut body = Body::new(framing, rules.message_bytes_max)?;
        let fed = body.feed(rest)?;
        if fed.done {
            self.answer_request(head, &body.take(), now, rules, output, handler);
            return Ok(fed.consumed);
        }
        // Who has begun to send does not wait (RFC 9110, section 10.1.1).
        if expects_continue && rest.is_empty() {
            output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.set_phase(Phase::Body);
        self.keep_handshake(Handshake::Body { head: bytes.to_vec(), body, since: now });
        Ok(rest.len())
    }

    /// Takes input in `Body`.
    pub(super) fn body_input(
        &mut self,
        input: &mut [u8],
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) {
        self.last_seen = now;
        let Some(Handshake::Body { head: bytes, mut body, since }) = self.take_handshake() else {
            unreachable!("a body belongs to a request");
        };
        let fed = match body.feed(input) {
            Ok(fed) => fed,
            Err(error) => return self.refuse(&Refused::from(error).into(), false, output, handler),
        };
        if !fed.done {
            return self.keep_handshake(Handshake::Body { head: bytes, body, since });
        }
        let mut fields = Fields::new();
        let Ok(head) = Head::parse(&bytes, &mut fields) else { unreachable!("it was parsed before") };
        self.answer_request(&head, &body.take(), now, rules, output, handler);
        let rest = &mut input[fed.consumed..];
        if self.phase() == Phase::Idle {
            self.first_requests(rest, now, now, rules, output, handler);
        } else {
            self.keep_rest(rest);
        }
    }

    /// Has the service answer, and keeps the connection for the next request if the client wants that.
    fn answer_request(
        &mut self,
        head: &Head<'_>,
        body: &[u8],
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) {
        let manner = Manner { to_head: head.method() == "HEAD", persistent: head.is_persistent() };
        match handler.request(head, body, self.peer()) {
            Outcome::Now(response) => self.respond(&response, manner, output, handler),
            Outcome::Later => {
                self.set_phase(Phase::Deciding);
                self.keep_handshake(Handshake::Asked { manner, rest: Vec::new() });
            }
            Outcome::Open(emulated) => self.emulate(emulated, now, rules, output, handler),
        }
    }

    /// Opens the connection as if it were a WebSocket, and takes its first message.
    fn emulate(
        &mut self,
        emulated: Emulated<T>,
        now: Tick,
        rules: &Rules,
        output: &mut Vec<u8>,
        handler: &mut impl Handler<T>,
    ) {
        let Emulated { state, response, first } = emulated;
        response.begin(output, &handler.date());
        self.set_phase(Phase::Emulated);
        self.last_seen = now + rules.ping_interval;
        self.state = Some(state);
        self.with_state(rules, output, |io, state| handler.ready(io, state));
        if self.phase() == Phase::Emulated {
            self.with_state(rules, output, |io, state| handler.binary(io, state, &first));
        }
    }

    fn respond(&mut self, response: &Response, manner: Manner, output: &mut Vec<u8>, handler: &mut impl Handler<T>) {
        if !manner.persistent || response.is_last() || handler.is_draining() {
            return self.refuse(response, manner.to_head, output, handler);
        }
        if response.refused().is_some() {
            handler.refused(response, self.peer());
        }
        response.write(output, manner, &handler.date());
        self.set_phase(Phase::Idle);
    }

    /// Keeps what came behind a request that waits for its answer.
    fn keep_rest(&mut self, input: &[u8]) {
        if let Some(Handshake::Asked { rest, .. }) = self.rare.as_mut().and_then(|rare| rare.handshake.as_mut()) {
            rest.extend_from_slice(input);
        }
    }

    /// Whether there is nobody to go on for, given that the peer sends no more: a WebSocket cannot be opened, and who
    /// polls has hung up. A client that half-closes behind its request still reads the answer.
    pub(crate) fn is_pointless(&self) -> bool {
        let is_asked =
            || self.rare.as_ref().is_some_and(|rare| matches!(rare.handshake, Some(Handshake::Asked { .. })));
        self.phase() == Phase::Waiting || self.phase() == Phase::Deciding && !is_asked()
    }

    /// Takes the request that waits for its answer, if there is one.
    fn take_asked(&mut self) -> Option<(Manner, Vec<u8>)> {
        if !matches!(self.phase(), Phase::Deciding | Phase::Waiting) {
            return None;
        }
        match self.take_handshake() {
            Some(Handshake::Asked { manner, rest }) => Some((manner, rest)),
            Some(other) => {
                self.keep_handshake(other);
                None
            }
            None => None,
        }
    }

    /// Answers a request that waits. `false`: none does.
    pub(crate) fn reply(&mut self, response: &Response, output: &mut Vec<u8>, handler: &mut impl Handler<T>) -> bool {
        let Some((manner, rest)) = self.take_asked() else { return false };
        self.respond(response, manner, output, handler);
        if self.phase() == Phase::Idle && !rest.is_empty() {
            self.keep_handshake(Handshake::Head { bytes: rest, scan: HeadScan::default(), since: self.last_seen });
        }
        true
    }

    /// Lets a request wait on, until this moment at most.
    pub(crate) fn wait(&mut self, until: Tick) {
        if self.phase() == Phase::Deciding
            && let Some(rare) = &mut self.rare
        {
            rare.until = until;
            self.set_phase(Phase::Waiting);
        }
    }

    /// Begins an answer that goes on for as long as the client listens. `false`: no request waits.
    pub(crate) fn stream(&mut self, head: &[u8], output: &mut Vec<u8>) -> bool {
        if self.take_asked().is_none() {
            return false;
        }
        output.extend_from_slice(head);
        self.set_phase(Phase::Streaming);
        true
    }

    /// Ends such an answer: what waits is still written.
    pub(crate) fn end_stream(&mut self) {
        debug_assert_eq!(self.phase(), Phase::Streaming);
        self.set_phase(Phase::Finishing);
    }
}
