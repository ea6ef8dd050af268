//! Topics between connections and workers: questions to a topic's home, and what becomes of the answers.

use super::{Envelope, Kernel, Worker};
use crate::conn::Opening;
use crate::error::Refused;
use crate::http::{Field, Response};
use crate::limits::{EVENT_SOURCE_BUSY_RETRY_MS, EVENT_SOURCE_RETRY_MS};
use crate::service::{ConnId, Join, Question, Reply, Service, TopicRequest, Wish};
use crate::topic::{Cursor, Encoding, Gap, Message, Resolved, Since, Start, TopicName, Wanted};
use std::fmt::{self, Write};
use std::sync::Arc;

/// A connection that waits for the answer to a question.
#[derive(Debug)]
pub(crate) struct Ask<T> {
    pub(crate) id: ConnId,
    pub(crate) reply: Reply,
    /// The WebSocket that is to be opened with the answer.
    pub(crate) opening: Option<Opening<T>>,
    pub(crate) headers: Vec<Field>,
}

/// What is done once a publication has its place in the log, or is refused one.
pub(crate) type Then = Box<dyn FnOnce(Result<Cursor, Refused>) + Send>;

/// Who asked.
pub(crate) enum Asker<T> {
    Connection(Ask<T>),
    /// Whoever published wants to know.
    Caller(Then),
    /// Nobody waits.
    Nobody,
}

impl<T> fmt::Debug for Asker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection(_) => "Connection",
            Self::Caller(_) => "Caller",
            Self::Nobody => "Nobody",
        })
    }
}

/// What workers write each other about topics.
#[derive(Debug)]
pub(crate) enum TopicMail<T> {
    /// To the home.
    Question { name: TopicName, question: Question, asker: Asker<T> },
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
    pub(super) limit: usize,
    pub(super) headers: Vec<Field>,
}

/// What a connection asks of a topic, once it has been handled.
pub(super) type Asked<T> = (TopicName, Question, Ask<T>);

/// What a connection's request becomes.
pub(super) fn asked<T>(id: ConnId, request: TopicRequest) -> Asked<T> {
    let TopicRequest { name, question, reply, headers } = request;
    (name, question, Ask { id, reply, opening: None, headers })
}

/// What a WebSocket that subscribes becomes.
pub(super) fn asked_to_open<T>(id: ConnId, opening: Opening<T>, join: Join) -> Asked<T> {
    let Join { name, since, encoding } = join;
    let question = Question::Read { wanted: Wanted::Since(since), limit: usize::MAX };
    (name, question, Ask { id, reply: Reply::Open(encoding), opening: Some(opening), headers: Vec::new() })
}

pub(super) fn cursor_header(cursor: Cursor) -> Field {
    ("Throng-Cursor".into(), cursor.to_string().into())
}

/// An array of what a poll found.
pub(super) fn array<'a>(
    gap: Option<&Gap>,
    start: Cursor,
    messages: impl Iterator<Item = &'a Arc<Message>>,
    headers: Vec<Field>,
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
    Response::new(200).body("application/json", body).headers([cursor_header(cursor)]).headers(headers)
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// Asks what a connection wants to know of a topic.
    pub(super) fn ask(&mut self, (name, question, ask): Asked<S::State>) {
        if ask.reply.encoding().is_some() {
            if let Some((topic, start)) = self.started_here(&name, &question, ask.reply) {
                return self.start(ask, topic, start);
            }
            self.topics.asking(&name);
        }
        self.ask_home(name, question, Asker::Connection(ask));
    }

    /// Does what the service wanted for a connection.
    pub(super) fn grant(&mut self, id: ConnId, wish: Wish) {
        match wish {
            Wish::Publish(name, publication) => {
                self.ask_home(name, Question::Publish(publication), Asker::Nobody);
            }
            Wish::Subscribe(join) => self.subscribe(id, join),
            Wish::Unsubscribe(name) => self.unsubscribe(id, &name),
        }
    }

    /// A stream that goes on within the copy that is here need not ask the topic's home.
    pub(super) fn started_here(&self, name: &TopicName, question: &Question, reply: Reply) -> Option<(u32, Start)> {
        match (question, reply) {
            (_, Reply::Poll { .. }) => None,
            (&Question::Read { wanted: Wanted::Since(Since::At(from)), .. }, _) => {
                Some((self.topics.covering(name, from)?, Start { from, gap: None }))
            }
            _ => None,
        }
    }

    pub(super) fn ask_home(&mut self, name: TopicName, question: Question, asker: Asker<S::State>) {
        self.mail_home(name, |name| TopicMail::Question { name, question, asker });
    }

    fn mail_home(&mut self, name: TopicName, mail: impl FnOnce(TopicName) -> TopicMail<S::State>) {
        let home = name.home(self.shared.ports.len());
        self.topic_mail(home as u16, mail(name));
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
            TopicMail::Question { name, question, asker } => self.asked_at_home(name, question, asker),
            TopicMail::Refused { name, ask } => self.topic_refused(&name, ask),
            TopicMail::Read { name, resolved, ask } => self.read_answered(&name, resolved, ask),
            TopicMail::Published { cursor, ask } => {
                let response = Response::new(200).body("application/json", format!("{{\"id\":\"{cursor}\"}}\n"));
                self.reply(ask.id, &response.headers([cursor_header(cursor)]).headers(ask.headers));
            }
            TopicMail::Message { name, message } => self.topics.append(&name, &message, self.now.0),
            TopicMail::Detach { name, from } => self.topics.detach(&name, from),
        }
    }

    /// This is the topic's home: its word decides.
    fn asked_at_home(&mut self, name: TopicName, question: Question, asker: Asker<S::State>) {
        let (now, rng) = (self.now.0, &mut self.rng);
        match (question, asker) {
            (Question::Publish(publication), asker) => {
                let published = self.topics.publish(&name, publication, now, || rng.next());
                if let Ok((_, Some(message))) = &published {
                    self.port().metrics.published.add(1);
                    self.distribute(&name, message);
                }
                match (published, asker) {
                    (Ok((cursor, _)), Asker::Connection(ask)) => {
                        self.topic_mail(ask.id.worker, TopicMail::Published { cursor, ask });
                    }
                    (Err(_), Asker::Connection(ask)) => {
                        self.topic_mail(ask.id.worker, TopicMail::Refused { name, ask });
                    }
                    (published, Asker::Caller(then)) => {
                        self.call(then, published.map(|(cursor, _)| cursor).map_err(|_| Refused::TopicsFull));
                    }
                    (Err(_), Asker::Nobody) if self.log.allows(self.now) => {
                        log::warn!("a message to {name} was not published: {}", Refused::TopicsFull);
                    }
                    (_, Asker::Nobody) => {}
                }
            }
            (Question::Read { wanted, limit }, Asker::Connection(ask)) => {
                let worker = ask.id.worker;
                let attach = ask.reply.encoding().map(|_| worker);
                let mail = match self.topics.resolve(&name, wanted, limit, attach, now, || rng.next()) {
                    Ok(resolved) => TopicMail::Read { name, resolved, ask },
                    Err(_) => TopicMail::Refused { name, ask },
                };
                self.topic_mail(worker, mail);
            }
            (Question::Read { .. }, Asker::Caller(_) | Asker::Nobody) => {}
        }
    }

    /// Tells who published. A panic there is no reason for everybody here to suffer.
    fn call(&mut self, then: Then, outcome: Result<Cursor, Refused>) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| then(outcome))).is_err() {
            self.port().metrics.panics.add(1);
            log::error!("what was to be done after a publication panicked");
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

    fn topic_refused(&mut self, name: &TopicName, ask: Ask<S::State>) {
        let Ask { id, reply, opening, headers } = ask;
        if reply.encoding().is_some()
            && let Some(topic) = self.topics.refused(name)
        {
            self.retire(topic);
        }
        let refused = Refused::TopicsFull;
        match (reply, opening) {
            (Reply::Subscribe { ticket, .. }, _) => self.subscription_refused(id, name, ticket),
            (_, Some(_)) => self.answer(id, Err(Response::from(refused).headers(headers))),
            (Reply::Stream, _) => {
                let response = Response::come_back(refused, self.between(EVENT_SOURCE_BUSY_RETRY_MS));
                self.reply(id, &response.headers(headers));
            }
            _ => self.reply(id, &Response::from(refused).headers(headers)),
        }
    }

    fn read_answered(&mut self, name: &TopicName, resolved: Resolved, ask: Ask<S::State>) {
        let topic = ask.reply.encoding().map(|_| self.topics.answered(name, &resolved));
        let Resolved { start, suffix } = resolved;
        match (ask.reply, topic) {
            (Reply::Poll { limit, wait: Some(wait) }, Some(topic)) if suffix.is_empty() && start.gap.is_none() => {
                self.wait(ask, topic, start.from, (limit, wait));
            }
            (Reply::Poll { limit, .. }, _) => {
                let response = array(start.gap.as_ref(), start.from, suffix.iter().take(limit), ask.headers);
                self.reply(ask.id, &response);
            }
            (_, Some(topic)) => self.start(ask, topic, start),
            (_, None) => {
                let response = Response::new(200).headers([cursor_header(start.from)]).headers(ask.headers);
                self.reply(ask.id, &response);
            }
        }
        if let Some(topic) = topic {
            self.retire(topic);
        }
    }

    /// The home is told, when nobody here listens to a topic any more.
    pub(super) fn retire(&mut self, topic: u32) {
        if let Some(name) = self.topics.retire(topic) {
            let from = self.index;
            self.mail_home(name, |name| TopicMail::Detach { name, from });
        }
    }

    /// Answers a request that waits.
    pub(super) fn reply(&mut self, id: ConnId, response: &Response) {
        self.handle(id.slot, id.serial, |desk| {
            desk.entry.conn.reply(response, desk.output, &mut desk.glue);
        });
        self.read_again(id);
    }

    /// A random number of milliseconds.
    pub(super) fn between(&mut self, (from, to): (u64, u64)) -> u64 {
        from + self.rng.below(to - from)
    }

    /// The head of an event stream, with its first block: when to come back, and the position it starts from.
    pub(super) fn event_stream(&mut self, from: Cursor, headers: Vec<Field>) -> String {
        let date = String::from_utf8_lossy(&self.date);
        let mut head = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nDate: {date}\r\nContent-Type: text/event-stream\r\n\
             Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\n"
        );
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let _ = write!(head, "\r\nretry: {}\nid: {from}\n\n", self.between(EVENT_SOURCE_RETRY_MS));
        head
    }
}
