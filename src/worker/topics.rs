//! Topics between connections and workers: questions to a topic's home and their answers, and the sweep that sends what
//! was published.

use super::{Envelope, Kernel, Worker};
use crate::conn::{Ended, Opening, Phase};
use crate::error::{End, Refused};
use crate::http::Response;
use crate::limits::SWEEP_PER_TURN;
use crate::service::{ConnId, Headers, Join, Question, Reply, Service, TopicRequest};
use crate::time::Span;
use crate::topic::{Cursor, Encoding, From, Gap, Message, Place, Resolved, Since, Start, Subscriber, TopicName};
use crate::ws::{self, Opcode};
use std::fmt::Write;
use std::io::ErrorKind;
use std::sync::Arc;

/// Messages that one subscriber is sent together, in bytes.
const JOINED_BYTES_MAX: usize = 64 * 1024;

/// Who waits for the answer to a question.
#[derive(Debug)]
pub(crate) struct Ask<T> {
    pub(crate) id: ConnId,
    pub(crate) reply: Reply,
    /// The WebSocket that is to be opened with the answer.
    pub(crate) opening: Option<Opening<T>>,
    pub(crate) headers: Headers,
}

/// What workers write each other about topics.
#[derive(Debug)]
pub(crate) enum TopicMail<T> {
    /// To the home.
    Question { name: TopicName, question: Question, from: u16, ask: Option<Ask<T>> },
    /// From the home, to who asked.
    Read { name: TopicName, resolved: Resolved, ask: Ask<T> },
    /// From the home, to who asked: there are too many topics.
    Refused { name: TopicName, ask: Ask<T> },
    /// From the home, to who published.
    Published { cursor: Cursor, ask: Ask<T> },
    /// From the home, to everybody attached.
    Message { name: TopicName, message: Arc<Message> },
    /// To the home: nobody here listens any more.
    Detach { name: TopicName, from: u16 },
}

/// A long poll that waits.
#[derive(Debug)]
pub(super) struct Poll {
    limit: usize,
    headers: Headers,
}

/// What was joined for the last subscriber: most of the next stand at the same cursor.
#[derive(Debug, Default)]
pub(super) struct Joined {
    key: Option<(u32, u64, u64, Encoding)>,
    bytes: Vec<u8>,
}

fn cursor_header(cursor: Cursor) -> (std::borrow::Cow<'static, str>, std::borrow::Cow<'static, str>) {
    ("Throng-Cursor".into(), cursor.to_string().into())
}

fn with(response: Response, headers: Headers) -> Response {
    headers.into_iter().fold(response, |response, (name, value)| response.header(name, value))
}

/// An array of what a poll found.
fn array<'a>(
    gap: Option<&Gap>,
    start: Cursor,
    messages: impl Iterator<Item = &'a Arc<Message>>,
    headers: Headers,
) -> Response {
    let (mut body, mut cursor) = (vec![b'['], start);
    if let Some(gap) = gap {
        body.extend_from_slice(gap.json().as_bytes());
    }
    for message in messages {
        if body.len() > 1 {
            body.push(b',');
        }
        body.extend_from_slice(message.encoded(Encoding::Element));
        cursor = message.cursor;
    }
    body.extend_from_slice(b"]\n");
    let (name, value) = cursor_header(cursor);
    with(Response::new(200).body("application/json", body).header(name, value), headers)
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// Asks what connections wanted of topics while they were handled.
    pub(super) fn ask_all(&mut self) {
        for (request, ask) in std::mem::take(&mut self.asked) {
            self.ask(request, ask);
        }
    }

    fn ask(&mut self, (name, question): (TopicName, Question), ask: Option<Ask<S::State>>) {
        if let Question::Read { from, attach: true, .. } = &question {
            // A stream that goes on within the copy that is here need not ask.
            if let (From::Since(Since::At(cursor)), Some(Ask { reply: Reply::Open(_) | Reply::Stream, .. })) =
                (from, &ask)
                && let Some(topic) = self.topics.covering(&name, *cursor)
            {
                let start = Start { from: *cursor, gap: None };
                return ask.into_iter().for_each(|ask| self.start(ask, topic, start.clone()));
            }
            self.topics.asking(&name);
        }
        self.ask_home(name, question, ask);
    }

    /// What a connection's handler published: without a topic, it is the connection's own.
    pub(super) fn take_published(&mut self, slot: u32, serial: u64) {
        let place = self.table.find(slot, serial).and_then(|entry| entry.place());
        for (name, question) in self.published.drain(..) {
            let own = || place.map(|place| self.topics.name(place.topic).clone());
            self.asked.extend(name.or_else(own).map(|name| ((name, question), None)));
        }
    }

    fn ask_home(&mut self, name: TopicName, question: Question, ask: Option<Ask<S::State>>) {
        let (home, from) = (name.home(self.shared.ports.len()), self.index);
        self.topic_mail(home as u16, TopicMail::Question { name, question, from, ask });
    }

    /// Brings mail to a worker; to this one at once.
    fn topic_mail(&mut self, to: u16, mail: TopicMail<S::State>) {
        if to == self.index {
            self.topic_mail_came(mail);
        } else {
            self.shared.ports[usize::from(to)].post(Envelope::Topic(Box::new(mail)));
        }
    }

    pub(super) fn topic_mail_came(&mut self, mail: TopicMail<S::State>) {
        match mail {
            TopicMail::Question { name, question: Question::Publish { kind, payload, key }, ask, from } => {
                let (now, rng) = (self.now.0, &mut self.rng);
                let found = self.topics.publish(&name, (kind, payload), key.as_deref(), now, || rng.next());
                let Ok((cursor, message)) = found else { return self.refuse_topic(from, name, ask) };
                if let Some(message) = message {
                    self.port().metrics.published.add(1);
                    self.distribute(&name, &message);
                }
                if let Some(ask) = ask {
                    self.topic_mail(from, TopicMail::Published { cursor, ask });
                }
            }
            TopicMail::Question { name, question: Question::Read { from: position, limit, attach }, ask, from } => {
                let (now, rng) = (self.now.0, &mut self.rng);
                let attach = attach.then_some(from);
                let found = self.topics.resolve(&name, position, limit, attach, now, || rng.next());
                let Ok(resolved) = found else { return self.refuse_topic(from, name, ask) };
                if let Some(ask) = ask {
                    self.topic_mail(from, TopicMail::Read { name, resolved, ask });
                }
            }
            TopicMail::Refused { name, ask } => self.topic_refused(&name, ask),
            TopicMail::Read { name, resolved, ask } => self.read_answered(&name, resolved, ask),
            TopicMail::Published { cursor, ask } => {
                let (name, value) = cursor_header(cursor);
                let response = Response::new(200)
                    .body("application/json", format!("{{\"id\":\"{cursor}\"}}\n"))
                    .header(name, value);
                self.reply(ask.id, &with(response, ask.headers));
            }
            TopicMail::Message { name, message } => self.topics.append(&name, &message, self.now.0),
            TopicMail::Detach { name, from } => self.topics.detach(&name, from),
        }
    }

    /// No topic can be added here. What nobody waits for is logged.
    fn refuse_topic(&mut self, from: u16, name: TopicName, ask: Option<Ask<S::State>>) {
        match ask {
            Some(ask) => self.topic_mail(from, TopicMail::Refused { name, ask }),
            None if self.log.allows(self.now) => log::warn!("a message was not published: {}", Refused::TopicsFull),
            None => {}
        }
    }

    fn topic_refused(&mut self, name: &TopicName, ask: Ask<S::State>) {
        let Ask { id, reply, opening, headers } = ask;
        let attached = matches!(reply, Reply::Open(_) | Reply::Stream | Reply::Poll { wait: Some(_), .. });
        if attached && let Some(topic) = self.topics.refused(name) {
            self.retire(topic);
        }
        let response = with(Refused::TopicsFull.into(), headers);
        match opening {
            Some(_) => self.answer(id, Err(response)),
            None => self.reply(id, &response),
        }
    }

    /// Sends a message to every worker that listens, this one too.
    fn distribute(&mut self, name: &TopicName, message: &Arc<Message>) {
        for index in 0..self.topics.attached(name).len() {
            let worker = self.topics.attached(name)[index];
            let (name, message) = (name.clone(), Arc::clone(message));
            self.topic_mail(worker, TopicMail::Message { name, message });
        }
    }

    fn read_answered(&mut self, name: &TopicName, resolved: Resolved, ask: Ask<S::State>) {
        let attached = !matches!(ask.reply, Reply::Position | Reply::Poll { wait: None, .. });
        let topic = attached.then(|| self.topics.answered(name, &resolved));
        let Resolved { start, suffix } = resolved;
        match (ask.reply, topic) {
            (Reply::Poll { limit, wait: Some(wait) }, Some(topic)) if suffix.is_empty() && start.gap.is_none() => {
                self.polls.insert(ask.id.slot, Poll { limit, headers: ask.headers });
                let until = self.now.tick() + Span::covering(wait);
                self.handle(ask.id.slot, ask.id.serial, |desk| desk.entry.conn.wait(until));
                self.join(ask.id, topic, start.from.offset, Encoding::Element);
            }
            (Reply::Poll { limit, .. }, _) => {
                let response = array(start.gap.as_ref(), start.from, suffix.iter().take(limit), ask.headers);
                self.reply(ask.id, &response);
            }
            (Reply::Position, _) => {
                let (name, value) = cursor_header(start.from);
                self.reply(ask.id, &with(Response::new(200).header(name, value), ask.headers));
            }
            (_, Some(topic)) => self.start(ask, topic, start),
            (_, None) => {}
        }
        if let Some(topic) = topic {
            self.retire(topic);
        }
    }

    /// Begins a stream.
    fn start(&mut self, ask: Ask<S::State>, topic: u32, start: Start) {
        let Ask { id, reply, opening, headers } = ask;
        let offset = start.from.offset;
        match (reply, opening) {
            (Reply::Open(encoding), Some(mut opening)) => {
                opening.headers.push(cursor_header(start.from));
                self.answer(id, Ok(opening));
                if let Some(gap) = start.gap {
                    if encoding == Encoding::Frame {
                        let reason = format!("gap: resume at {}", gap.resumed).into();
                        let ended = Ended { end: End::ServiceClosed, code: 4410, reason, clean: false };
                        return self.on_open(id, |conn, output| conn.close(Some(4410), ended, output));
                    }
                    self.on_open(id, |_, output| ws::encode(output, Opcode::Text, gap.json().as_bytes()));
                }
                self.join(id, topic, offset, encoding);
            }
            _ => {
                let mut head = String::from(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store, no-transform\r\n\
                     X-Accel-Buffering: no\r\nConnection: close\r\n",
                );
                for (name, value) in headers {
                    let _ = write!(head, "{name}: {value}\r\n");
                }
                // Spread, so that a million EventSources do not come back in the same second.
                let retry_ms = 1000 + self.rng.below(4000);
                let _ = write!(head, "\r\nretry: {retry_ms}\nid: {}\n\n", start.from);
                if let Some(gap) = start.gap {
                    let _ = write!(head, "event: gap\nid: {}\ndata: {}\n\n", gap.resumed, gap.json());
                }
                self.handle(id.slot, id.serial, |desk| {
                    desk.entry.conn.stream(head.as_bytes(), desk.output);
                });
                self.ready.push((id.slot, id.serial));
                self.join(id, topic, offset, Encoding::Event);
            }
        }
    }

    /// Makes a connection a subscriber, if it is still there, and sends what it has not seen.
    fn join(&mut self, id: ConnId, topic: u32, cursor: u64, encoding: Encoding) {
        let Some(entry) = self.table.find(id.slot, id.serial).filter(|entry| entry.conn.phase().is_subscribed()) else {
            return;
        };
        debug_assert!(entry.place().is_none());
        let subscriber = Subscriber { cursor, slot: id.slot, encoding };
        entry.set_place(Some(self.topics.subscribe(topic, subscriber)));
        self.push(id.slot);
    }

    /// Ends a subscription.
    pub(super) fn leave(&mut self, slot: u32, place: Place) {
        self.polls.remove(&slot);
        if let Some(moved) = self.topics.unsubscribe(place)
            && let Some(entry) = self.table.at(moved)
        {
            entry.set_place(Some(place));
        }
        self.retire(place.topic);
    }

    fn retire(&mut self, topic: u32) {
        if let Some(name) = self.topics.retire(topic) {
            let (home, from) = (name.home(self.shared.ports.len()), self.index);
            self.topic_mail(home as u16, TopicMail::Detach { name, from });
        }
    }

    /// Takes a connection that no longer listens from among the subscribers.
    pub(super) fn leave_if_over(&mut self, slot: u32) {
        if let Some(entry) = self.table.at(slot)
            && let Some(place) = entry.place()
            && !entry.conn.phase().is_subscribed()
        {
            entry.set_place(None);
            self.leave(slot, place);
        }
    }

    /// Answers a request that waits.
    fn reply(&mut self, id: ConnId, response: &Response) {
        self.handle(id.slot, id.serial, |desk| {
            desk.entry.conn.reply(response, desk.output, &mut desk.glue);
        });
        // Nothing was read while it waited, and the edges of that time are gone.
        self.ready.push((id.slot, id.serial));
    }

    /// The time of a long poll is up.
    pub(super) fn poll_over(&mut self, slot: u32) {
        let Some(entry) = self.table.at(slot) else { return };
        let id = ConnId { worker: self.index, slot, serial: entry.serial };
        let headers = self.polls.remove(&slot).map_or_else(Headers::new, |poll| poll.headers);
        let mut response = with(Response::new(204), headers);
        if let Some(Place { topic, index }) = entry.place() {
            let local = &self.topics.locals[topic as usize];
            if let Some(copy) = &local.copy {
                let offset = local.subscribers[index as usize].cursor;
                let (name, value) = cursor_header(Cursor { epoch: copy.head().epoch, offset });
                response = response.header(name, value);
            }
        }
        self.reply(id, &response);
    }

    /// A slice of the sweep: sends to some of those who have not seen the newest.
    pub(super) fn sweep_topics(&mut self) {
        if !self.topics.is_sweeping() {
            return;
        }
        self.uncork();
        for _ in 0..SWEEP_PER_TURN {
            let Some(slot) = self.topics.next() else { break };
            self.push(slot);
        }
        self.topics.yield_turn();
    }

    /// Sends a subscriber what it has not seen, as far as its socket takes it. What does not go into the socket is
    /// the rest of one message: all others are a cursor.
    pub(super) fn push(&mut self, slot: u32) {
        self.uncork();
        let tick = self.now.tick();
        loop {
            let Some(entry) = self.table.at(slot) else { return };
            let Some(place) = entry.place() else { return };
            let local = &mut self.topics.locals[place.topic as usize];
            let subscriber = &mut local.subscribers[place.index as usize];
            let Some(copy) = &local.copy else { return };
            let Some(suffix) = copy.slice_after(subscriber.cursor) else {
                return self.lagged(slot);
            };
            if entry.conn.queued() > 0 {
                return; // it goes on when the socket has taken that
            }
            let Some(first) = suffix.clone().next() else { return };
            if subscriber.encoding == Encoding::Element {
                return self.poll_answered(slot);
            }
            let (encoding, from) = (subscriber.encoding, subscriber.cursor);
            let bytes = if suffix.len() == 1 {
                first.encoded(encoding)
            } else {
                let key = Some((place.topic, from, copy.head().offset, encoding));
                if self.joined.key != key {
                    self.joined.bytes.clear();
                    for message in suffix.clone() {
                        let bytes = message.encoded(encoding);
                        if !self.joined.bytes.is_empty() && self.joined.bytes.len() + bytes.len() > JOINED_BYTES_MAX {
                            break;
                        }
                        self.joined.bytes.extend_from_slice(bytes);
                    }
                    self.joined.key = key;
                }
                &self.joined.bytes
            };
            let sent = match self.kernel.send(&entry.socket, bytes) {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(_) => return self.lost(slot, End::PeerReset),
            };
            let metrics = &self.shared.ports[usize::from(self.index)].metrics;
            metrics.bytes_out.add(sent as u64);
            let (length, mut left) = (bytes.len(), sent);
            for message in suffix {
                let bytes = message.encoded(encoding);
                if left < bytes.len() {
                    if sent < length {
                        // The socket is full: this message is under way, or the next.
                        subscriber.cursor = message.cursor.offset;
                        metrics.frames_out.add(1);
                        debug_assert!(self.output.is_empty());
                        self.output.extend_from_slice(bytes);
                        entry.conn.keep(&mut self.output, left, tick);
                        let deadline = entry.conn.deadline(tick, &self.rules);
                        self.wheel.arm(&mut self.table, slot, deadline);
                        return;
                    }
                    break;
                }
                left -= bytes.len();
                subscriber.cursor = message.cursor.offset;
                metrics.frames_out.add(1);
            }
        }
    }

    /// What a long poll waited for is there.
    fn poll_answered(&mut self, slot: u32) {
        let Some(entry) = self.table.at(slot) else { return };
        let Some(Place { topic, index }) = entry.place() else { return };
        let id = ConnId { worker: self.index, slot, serial: entry.serial };
        let Some(Poll { limit, headers }) = self.polls.remove(&slot) else { return };
        let local = &self.topics.locals[topic as usize];
        let Some(copy) = &local.copy else { return };
        let offset = local.subscribers[index as usize].cursor;
        let start = Cursor { epoch: copy.head().epoch, offset };
        let response = array(None, start, copy.after(offset).take(limit), headers);
        self.reply(id, &response);
    }

    /// A subscriber's next message is no longer kept: it reads too slowly.
    fn lagged(&mut self, slot: u32) {
        let Some(entry) = self.table.at(slot) else { return };
        let serial = entry.serial;
        self.port().metrics.lagged.add(1);
        self.handle(slot, serial, |desk| match desk.entry.conn.phase() {
            Phase::Streaming => desk.entry.conn.end_stream(),
            _ => {
                let ended = Ended::new(End::SlowReader);
                desk.entry.conn.close(Some(ended.code), ended, desk.output);
            }
        });
    }
}

/// A topic request, as the worker keeps it until the connection has been handled.
pub(super) type Asked<T> = ((TopicName, Question), Option<Ask<T>>);

/// What a connection's request becomes.
pub(super) fn asked<T>(id: ConnId, request: TopicRequest) -> Asked<T> {
    let TopicRequest { name, question, reply, headers } = request;
    ((name, question), Some(Ask { id, reply, opening: None, headers }))
}

/// What a WebSocket that subscribes becomes.
pub(super) fn asked_to_open<T>(id: ConnId, opening: Opening<T>, join: Join) -> Asked<T> {
    let Join { name, since, encoding } = join;
    let question = Question::Read { from: From::Since(since), limit: usize::MAX, attach: true };
    let ask = Ask { id, reply: Reply::Open(encoding), opening: Some(opening), headers: Headers::new() };
    ((name, question), Some(ask))
}
