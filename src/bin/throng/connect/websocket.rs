//! A WebSocket: opened, listened to, spoken to, closed.

use super::codec::{Codec, Data, FrameSeen, MadeOf, Seen};
use super::commands::{Command, HELP};
use super::element::Element;
use super::exchange::{Answer, Ask, Failed, exchange};
use super::link::{Happening, Link};
use super::options::Plan;
use super::show::{Direction, Payload, Shown};
use super::terminal::Source;
use super::text::{escaped, size};
use super::{End, Stage, refusal, words};
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::time::{Duration, Instant};
use throng::Cursor;
use throng::client::{Offered, check_switch};
use throng::error::Violation;
use throng::sys::random_u64;
use throng::ws::deflate::Agreed;
use throng::ws::{Opcode, accept_value, client_key};

/// How long the server may take to answer a Close, and to end the connection behind its own.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// Pings whose pongs are waited for.
const PINGS_MAX: usize = 64;

/// Connects, and does what the plan says until it is over.
pub(super) fn run(plan: &mut Plan, stage: &mut Stage) -> Result<End, Failed> {
    let (answer, agreed) = open(plan, stage)?;
    let centrifugo = plan.is_centrifugo();
    if let Some(cursor) = answer.field("Throng-Cursor").and_then(|text| text.parse::<Cursor>().ok()) {
        stage.seen_cursor = stage.seen_cursor.or(Some(cursor));
    }
    let frames = plan.look.frames.then_some(plan.look.bytes_max);
    let Answer { rest, stream, .. } = answer;
    let link = stage.link(stream).map_err(|error| Failed::passing(error.to_string()))?;
    let codec = Codec::new(agreed, plan.message_bytes_max, frames);
    let mut session = Session {
        plan,
        stage,
        link,
        codec,
        state: State::Open,
        pings: VecDeque::new(),
        linger: None,
        centrifugo,
        end: None,
    };
    Ok(session.begin(rest))
}

/// The handshake.
fn open(plan: &Plan, stage: &mut Stage) -> Result<(Answer, Option<Agreed>), Failed> {
    let no_random = |error: io::Error| Failed::lasting(format!("no random numbers: {error}"));
    let nonce = [random_u64().map_err(no_random)?.to_ne_bytes(), random_u64().map_err(no_random)?.to_ne_bytes()];
    let key = client_key(nonce.concat().try_into().unwrap_or_default());
    let answer = exchange(plan, Ask::Socket(&key), |url| {
        stage.show.note(&format!(
            "redirected to {}://{}{}",
            url.scheme.name(),
            escaped(&url.authority),
            escaped(&url.path)
        ));
    })?;
    if answer.status != 101 {
        return Err(refusal::explain(answer));
    }
    let accept = accept_value(&key);
    let offered = Offered {
        accept: &accept,
        protocols: plan.subprotocols.as_deref(),
        protocol_needed: false,
        deflate: plan.compression,
    };
    let wrong = |why: String| Failed::lasting(format!("this is no WebSocket: {why}"));
    let switched = check_switch(answer.fields(), &offered).map_err(|fault| wrong(fault.to_string()))?;
    let agreed = match switched.extensions {
        None => None,
        Some(value) => Some(Agreed::answered(value).ok_or_else(|| {
            let value = super::text::escaped_bytes(value);
            wrong(format!("it answers to permessage-deflate with `{value}`, which cannot be (RFC 7692, section 7.1)"))
        })?),
    };
    let mut said = format!(
        "connected to {}://{}{} in {}",
        answer.url.scheme.name(),
        escaped(&answer.url.authority),
        escaped(&answer.url.path),
        words::duration(answer.took)
    );
    if let Some(name) = switched.protocol {
        said.push_str(&format!(", subprotocol {}", super::text::escaped_bytes(name)));
    }
    match agreed {
        Some(agreed) => said.push_str(&format!(", {}", agreed.answer())),
        None if plan.compression => said.push_str(", without compression: the server declined"),
        None => {}
    }
    if let Some(cursor) = answer.field("Throng-Cursor") {
        said.push_str(&format!(", cursor {}", escaped(cursor)));
    }
    stage.interrupts.set_open(true); // before it is said: whoever reads that may interrupt at once
    stage.show.note(&said);
    Ok((answer, agreed))
}

/// Where the closing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// We have sent a Close with this code, and wait until then for the server's.
    Closing(u16, Instant),
    /// Both have, or one has broken the protocol: the server is to end the connection by then.
    Ending(Instant),
}

struct Session<'a> {
    plan: &'a mut Plan,
    stage: &'a mut Stage,
    link: Link,
    codec: Codec,
    state: State,
    /// What was sent in a ping by hand, and when.
    pings: VecDeque<(Vec<u8>, Instant)>,
    /// All input was sent: until when to stay.
    linger: Option<Instant>,
    centrifugo: bool,
    /// How it ends, as soon as that is known.
    end: Option<End>,
}

impl Session<'_> {
    fn begin(&mut self, rest: Vec<u8>) -> End {
        self.stage.open();
        self.bytes(rest);
        for line in std::mem::take(&mut self.plan.execute) {
            self.line(&line, true, false);
            self.stage.input_ended = true;
        }
        if self.stage.input_ended {
            self.stay();
        }
        loop {
            if let Some(end) = self.turn() {
                self.stage.interrupts.set_open(false);
                return end;
            }
        }
    }

    /// Waits for what happens next, and sees to it.
    fn turn(&mut self) -> Option<End> {
        if (self.stage.interrupts.asked() || self.stage.show.is_gone() || self.stage.is_enough(self.plan))
            && self.state == State::Open
        {
            self.close(1000, "");
        }
        let now = Instant::now();
        let deadline = match self.state {
            State::Open => self.linger,
            State::Closing(_, until) | State::Ending(until) => Some(until),
        };
        if deadline.is_some_and(|deadline| deadline <= now) {
            return self.time_is_up();
        }
        match self.stage.next(deadline.map(|deadline| deadline - now)) {
            Some(Happening::Bytes(number, bytes)) if number == self.link.number => self.bytes(bytes),
            Some(Happening::Ended(number, error)) if number == self.link.number => {
                return Some(self.ended(error.as_ref()));
            }
            Some(Happening::Line(line)) if self.state == State::Open => {
                let is_typed = self.stage.source == Source::Terminal;
                self.line(&line, is_typed || self.plan.slash, is_typed);
            }
            Some(Happening::InputEnded) => {
                self.stage.input_ended = true;
                self.stay();
            }
            Some(Happening::InputBroken(why)) => {
                self.stage.show.error(&why);
                self.end = Some(End::BadInput);
                self.close(1000, "");
            }
            _ => {}
        }
        None
    }

    /// There is nothing more to send: until when to stay.
    fn stay(&mut self) {
        // A terminal's end of input is somebody's wish to leave; with a count it is the count that says when.
        let linger = if self.stage.source == Source::Terminal { Some(Duration::ZERO) } else { self.plan.linger };
        self.linger = linger.filter(|_| self.plan.count.is_none()).map(|time| Instant::now() + time);
    }

    fn time_is_up(&mut self) -> Option<End> {
        match self.state {
            State::Open => {
                self.linger = None;
                self.close(1000, "");
                None
            }
            State::Closing(code, _) => {
                let waited = words::duration(CLOSE_TIME_MAX);
                self.note(&format!("closed by this side with {code}, which the server did not answer within {waited}"));
                Some(self.end.take().unwrap_or(End::Closed))
            }
            State::Ending(_) => {
                self.note("the server did not end the connection after the closing: ended by this side");
                Some(self.end.take().unwrap_or(End::Closed))
            }
        }
    }

    fn ended(&mut self, error: Option<&io::Error>) -> End {
        match self.state {
            State::Ending(_) => self.end.take().unwrap_or(End::Closed),
            State::Closing(code, _) => {
                self.note(&format!("closed by this side with {code}; the server ended the connection without a Close"));
                self.end.take().unwrap_or(End::Closed)
            }
            State::Open => {
                let how = match error.map(io::Error::kind) {
                    None => "the server, or somebody between, ended the connection".to_owned(),
                    Some(io::ErrorKind::ConnectionReset) => "the connection was reset".to_owned(),
                    Some(_) => error.map(ToString::to_string).unwrap_or_default(),
                };
                self.stage.show.error(&format!("connection lost without a close (1006): {how}"));
                End::Lost(1006)
            }
        }
    }

    fn bytes(&mut self, mut bytes: Vec<u8>) {
        if matches!(self.state, State::Ending(_)) {
            return;
        }
        let Self { plan, stage, codec, pings, .. } = self;
        let (mut answers, mut closed) = (Vec::new(), None);
        let result = codec.input(&mut bytes, |seen| match seen {
            Seen::Frame(frame) => show_frame(stage, frame),
            // Of more than are wanted nothing is shown.
            Seen::Message { .. } if stage.is_enough(plan) => {}
            Seen::Message { payload, made_of } => message(plan, stage, payload, made_of),
            Seen::Ping(payload) => {
                control(stage, Direction::In, "ping", payload, Vec::new());
                answers.push(payload.to_vec());
            }
            Seen::Pong(payload) => {
                let sent = pings.iter().position(|(ping, _)| ping == payload);
                let took = sent.and_then(|at| pings.drain(..=at).next_back()).map(|(_, sent)| sent.elapsed());
                let note = took.map(|took| format!("round trip {}", words::duration(took)));
                control(stage, Direction::In, "pong", payload, note.into_iter().collect());
            }
            Seen::Close(close) => closed = Some((close.code, close.reason.to_owned())),
        });
        for payload in answers {
            self.control(Opcode::Pong, "pong", &payload);
        }
        match (result, closed) {
            (Err(violation), _) => self.violated(violation),
            (Ok(()), Some((code, reason))) => self.closed(code, &reason),
            (Ok(()), None) => {}
        }
    }

    /// The server broke the protocol: the connection is failed (RFC 6455, section 7.1.7).
    fn violated(&mut self, violation: Violation) {
        let text = if violation == Violation::MessageTooBig {
            format!("the message is larger than --max-message allows ({})", size(self.plan.message_bytes_max))
        } else {
            violation.text().to_owned()
        };
        self.stage.show.error(&format!("the server broke the protocol: {text}; closed with {}", violation.code()));
        self.send_close(Some(violation.code()), "");
        self.end = Some(End::Violated);
        self.state = State::Ending(Instant::now() + CLOSE_TIME_MAX);
    }

    /// The server's Close.
    fn closed(&mut self, code: Option<u16>, reason: &str) {
        let described = self.describe(code.unwrap_or(1005), reason);
        self.stage.show.frame(&Shown {
            direction: Direction::In,
            what: "close",
            bytes: code.map_or(0, |_| 2 + reason.len()),
            notes: vec![described.clone()],
            payload: Payload::Hidden,
        });
        match self.state {
            State::Closing(ours, _) => {
                let words = words::close_code(ours, self.centrifugo);
                self.note(&format!("closed by this side: {ours} {words}; the server answered"));
            }
            _ => {
                // The answer has the server's own code (section 5.5.1).
                self.send_close(code, "");
                self.note(&format!("closed by the server: {described}"));
                self.end = Some(match code {
                    None | Some(1000) => End::Closed,
                    Some(4410) => match reason.rsplit(' ').next().and_then(|text| text.parse::<Cursor>().ok()) {
                        Some(cursor) => {
                            self.stage.seen_cursor = Some(cursor);
                            End::Gap
                        }
                        None => End::Lost(4410),
                    },
                    Some(code) => End::Lost(code),
                });
            }
        }
        self.state = State::Ending(Instant::now() + CLOSE_TIME_MAX);
    }

    fn describe(&self, code: u16, reason: &str) -> String {
        let words = words::close_code(code, self.centrifugo);
        let number = if code == 1005 { String::new() } else { format!("{code} ") };
        let reason = if reason.is_empty() { String::new() } else { format!(": \"{}\"", escaped(reason)) };
        format!("{number}{words}{reason}")
    }

    /// A line that was typed, or came by the pipe.
    fn line(&mut self, line: &str, commands: bool, is_typed: bool) {
        let command = if commands { Command::parse(line) } else { Ok(Command::Text(line.to_owned())) };
        match command {
            Ok(Command::Text(text)) => {
                // What is edited stands on the screen already.
                let shown =
                    if is_typed && self.stage.show.is_edited() { Payload::Hidden } else { Payload::Text(&text) };
                self.send(Opcode::Text, text.as_bytes(), shown);
            }
            Ok(Command::Binary(bytes)) => self.send(Opcode::Binary, &bytes, Payload::Bytes(&bytes)),
            Ok(Command::File(path)) => match fs::read(&path) {
                Ok(bytes) => match Payload::of(&bytes) {
                    text @ Payload::Text(_) => self.send(Opcode::Text, &bytes, text),
                    other => self.send(Opcode::Binary, &bytes, other),
                },
                Err(error) => self.bad_line(&format!("{}: {error}", escaped(&path.to_string_lossy())), is_typed),
            },
            Ok(Command::Ping(payload)) => {
                if self.pings.len() == PINGS_MAX {
                    self.pings.pop_front();
                }
                self.pings.push_back((payload.clone(), Instant::now()));
                self.control(Opcode::Ping, "ping", &payload);
            }
            Ok(Command::Pong(payload)) => self.control(Opcode::Pong, "pong", &payload),
            Ok(Command::Close(code, reason)) => self.close(code, &reason),
            Ok(Command::Help) => self.stage.show.note(HELP),
            Err(why) => self.bad_line(&why, is_typed),
        }
    }

    /// Whoever types may try again; a script is wrong.
    fn bad_line(&mut self, why: &str, is_typed: bool) {
        self.stage.show.error(why);
        if !is_typed {
            self.end = Some(End::BadInput);
            self.close(1000, "");
        }
    }

    fn send(&mut self, opcode: Opcode, bytes: &[u8], payload: Payload<'_>) {
        let Some((frame, compressed)) = self.made(|codec| codec.message(opcode, bytes)) else { return };
        self.link.send(frame);
        let what = if opcode == Opcode::Text { "text" } else { "binary" };
        let notes = compressed.map(|bytes| format!("compressed to {}", size(bytes)));
        let direction = Direction::Out;
        self.stage.show.message(&Shown {
            direction,
            what,
            bytes: bytes.len(),
            notes: notes.into_iter().collect(),
            payload,
        });
    }

    fn control(&mut self, opcode: Opcode, what: &'static str, payload: &[u8]) {
        // Control frames are never compressed (RFC 7692, section 6.1).
        let mut plain = Codec::new(None, 0, None);
        let Some((frame, _)) = self.made(|_| plain.message(opcode, payload)) else { return };
        self.link.send(frame);
        control(self.stage, Direction::Out, what, payload, Vec::new());
    }

    /// Begins the closing handshake (RFC 6455, section 7.1.2).
    fn close(&mut self, code: u16, reason: &str) {
        if self.state != State::Open {
            return;
        }
        let notes = vec![self.describe(code, reason)];
        let bytes = 2 + reason.len();
        self.send_close(Some(code), reason);
        self.stage.show.frame(&Shown {
            direction: Direction::Out,
            what: "close",
            bytes,
            notes,
            payload: Payload::Hidden,
        });
        self.state = State::Closing(code, Instant::now() + CLOSE_TIME_MAX);
    }

    fn send_close(&mut self, code: Option<u16>, reason: &str) {
        if let Some(frame) = self.made(|_| Codec::close(code, reason)) {
            self.link.send(frame);
        }
    }

    /// What the system fails to make (a masking key) is told, and not sent.
    fn made<T>(&mut self, make: impl FnOnce(&mut Codec) -> io::Result<T>) -> Option<T> {
        match make(&mut self.codec) {
            Ok(made) => Some(made),
            Err(error) => {
                self.stage.show.error(&format!("not sent: {error}"));
                None
            }
        }
    }

    fn note(&mut self, text: &str) {
        self.stage.show.note(text);
    }
}

/// A whole message.
fn message(plan: &Plan, stage: &mut Stage, payload: Data<'_>, made_of: MadeOf) {
    stage.received += 1;
    let mut notes = Vec::new();
    if made_of.frames > 1 {
        notes.push(format!("{} fragments", made_of.frames));
    }
    notes.extend(made_of.compressed.map(|bytes| format!("compressed {}", size(bytes))));
    let (what, bytes, shown) = match payload {
        Data::Text(text) => ("text", text.len(), Payload::Text(text)),
        Data::Bytes(bytes) => ("binary", bytes.len(), Payload::Bytes(bytes)),
    };
    stage.show.message(&Shown { direction: Direction::In, what, bytes, notes, payload: shown });
    if let (Data::Text(text), true) = (payload, plan.has_cursors())
        && let Some(cursor) = Element::parse(text).and_then(|element| element.cursor())
    {
        stage.seen_cursor = Some(cursor);
    }
}

/// A ping or a pong.
fn control(stage: &mut Stage, direction: Direction, what: &str, payload: &[u8], notes: Vec<String>) {
    // A pong that was asked for by hand is shown; those between two machines need not be.
    if !stage.show.look().hide_pings || !notes.is_empty() {
        stage.show.frame(&Shown { direction, what, bytes: payload.len(), notes, payload: Payload::of(payload) });
    }
}

/// A frame by itself; a message that is one frame is shown as such.
fn show_frame(stage: &mut Stage, frame: &FrameSeen) {
    let header = &frame.header;
    if header.opcode.is_control() || (header.fin && header.opcode != Opcode::Continuation) {
        return;
    }
    let what = match header.opcode {
        Opcode::Text => "frame: text",
        Opcode::Binary => "frame: binary",
        _ => "frame: continuation",
    };
    let mut notes = vec![if header.fin { "the last" } else { "more to come" }.to_owned()];
    if header.compressed {
        notes.push("compressed".to_owned());
    }
    let bytes = usize::try_from(header.length).unwrap_or(usize::MAX);
    let lossy = String::from_utf8_lossy(&frame.payload);
    let payload = if header.opcode == Opcode::Text && !header.compressed {
        // A character may be cut by the frame's end.
        Payload::Text(&lossy)
    } else {
        Payload::of(&frame.payload)
    };
    stage.show.frame(&Shown { direction: Direction::In, what, bytes, notes, payload });
}
