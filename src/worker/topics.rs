//! Topics between connections and workers: questions to a topic's home, and what becomes of the answers.

use super::errands::{Gathering, Share};
use super::{Envelope, Kernel, Worker};
use crate::conn::Opening;
use crate::error::{End, Refused};
use crate::http::{Field, Response};
use crate::json::push_string;
use crate::limits::{EVENT_SOURCE_BUSY_RETRY_MS, EVENT_SOURCE_RETRY_MS};
use crate::planted::{Bug, planted};
use crate::service::{Answered, AnsweredKind, ConnId, Connection, Join, Question, Reply, Service, TopicRequest, Wish};
use crate::topic::{
    Author, Change, Cursor, Elements, Infos, Message, Presence, Publication, Read, Resolved, Since, Start, TopicName,
    Wanted,
};
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
    /// As whom it subscribes, if others are to know.
    pub(crate) member: Option<Arc<Author>>,
    /// When a bare connection ends because its token's time is over, in seconds of Unix time.
    pub(crate) until: Option<u64>,
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
    /// From the home, to who asked who is there.
    Present { presence: Presence, ask: Ask<T> },
    /// To the home: a subscriber that others know of is gone.
    Left { name: TopicName, member: Arc<Author> },
    /// From the home, to who published.
    Published { cursor: Cursor, ask: Ask<T> },
    /// From the home, to everybody attached.
    Message { name: TopicName, message: Arc<Message> },
    /// From the home, to everybody attached: what was kept up to here is not any more.
    HistoryRemoved { name: TopicName, through: Cursor },
    /// To who does something for a request.
    Share(Share),
    /// To who has the request: everything has been found.
    Gathered(Arc<Gathering>),
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
    let TopicRequest { name, question, reply, headers, until } = request;
    (name, question, Ask { id, reply, opening: None, headers, member: None, until })
}

/// What a WebSocket that subscribes becomes.
pub(super) fn asked_to_open<T>(id: ConnId, opening: Opening<T>, join: Join) -> Asked<T> {
    let Join { name, wanted, skips, encoding, member, until } = join;
    let question = Question::Read(Read { skips, member, ..Read::all(wanted) });
    let (reply, opening) = (Reply::Open(encoding), Some(opening));
    (name, question, Ask { id, reply, opening, headers: Vec::new(), member: None, until })
}

/// The service is to be told of the answer.
fn tell<T>(id: ConnId, tag: u64) -> Asker<T> {
    let (reply, headers) = (Reply::Tell(tag), Vec::new());
    Asker::Connection(Ask { id, reply, opening: None, headers, member: None, until: None })
}

pub(super) fn cursor_header(cursor: Cursor) -> Field {
    ("Throng-Cursor".into(), cursor.to_string().into())
}

/// Who is there, as bare clients are told.
fn who(presence: &Presence) -> Vec<u8> {
    let mut json = b"{\"clients\":{".to_vec();
    for (index, member) in presence.members.iter().enumerate() {
        json.extend_from_slice(if index > 0 { b"," } else { b"" });
        push_string(&mut json, member.client.as_bytes());
        json.extend_from_slice(b":{\"client\":");
        push_string(&mut json, member.client.as_bytes());
        json.extend_from_slice(b",\"user\":");
        push_string(&mut json, member.user.as_bytes());
        json.push(b'}');
    }
    json.extend_from_slice(
        format!("}},\"num_clients\":{},\"num_users\":{}}}\n", presence.clients, presence.users).as_bytes(),
    );
    json
}

impl<S: Service, K: Kernel> Worker<S, K> {
    /// Asks what a connection wants to know of a topic.
    pub(super) fn ask(&mut self, (name, mut question, mut ask): Asked<S::State>) {
        let rules = self.rules.topics.at(name.as_str());
        if let Question::Read(read) = &mut question
            && matches!(ask.reply, Reply::Open(_) | Reply::Stream)
        {
            let known = read.member.take();
            let user = known.as_ref().map_or_else(Box::default, |member| member.user.clone());
            // Whose it is the worker remembers for those who ask for a user's connections; the home is told of nobody.
            ask.member = known.filter(|member| !member.user.is_empty());
            if rules.presence || rules.join_leave {
                // A bare client has no name but what it is given here.
                let client = format!("{:016x}{:016x}", self.rng.next(), self.rng.next()).into();
                let member = Arc::new(Author { client, user, info: Infos::default(), is_quiet: false });
                ask.member = Some(Arc::clone(&member));
                read.member = Some(member);
            }
        }
        if ask.reply == Reply::Presence && !rules.presence {
            return self.reply(ask.id, &Response::from(Refused::NoPresence).headers(ask.headers));
        }
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
            // As for requests (`Glue::request`): nobody is to publish what those who have gone do not hear.
            Wish::Publish(_, _, tag) if self.drain.as_ref().is_some_and(|leaving| leaving.has_begun(self.now)) => {
                match tag {
                    Some(tag) => self.tell(id, tag, Err(Refused::Draining)),
                    None if self.table.find(id.slot, id.serial).is_some() => {
                        self.see_off(id.slot, End::GoingAway, false);
                    }
                    None => {}
                }
            }
            Wish::Publish(name, publication, tag) => {
                self.ask_home(name, Question::Publish(publication), tag.map_or(Asker::Nobody, |tag| tell(id, tag)));
            }
            Wish::Errand(errand) => self.run_errand(id, errand),
            Wish::Parcel(parcel) => self.bring(id, parcel),
            Wish::Read(name, read, tag) => self.ask_home(name, Question::Read(read), tell(id, tag)),
            Wish::Presence(name, list, tag) => self.ask_home(name, Question::Presence(list), tell(id, tag)),
            Wish::Subscribe(join) => self.subscribe(id, join),
            Wish::Unsubscribe(name) => self.unsubscribe(id, &name),
            Wish::Wake(time) => self.wake_after(id, time),
            Wish::Hold(holds) => self.held.wish(id, holds),
        }
    }

    /// A stream that goes on within the copy that is here need not ask the topic's home.
    pub(super) fn started_here(&self, name: &TopicName, question: &Question, reply: Reply) -> Option<(u32, Start)> {
        match (question, reply) {
            (_, Reply::Poll { .. }) => None,
            (&Question::Read(Read { wanted: Wanted::Since(Since::At(from)), member: None, .. }), _) => {
                Some((self.topics.covering(name, from)?, Start { from, gap: None }))
            }
            _ => None,
        }
    }

    pub(super) fn ask_home(&mut self, name: TopicName, question: Question, asker: Asker<S::State>) {
        self.mail_home(name, |name| TopicMail::Question { name, question, asker });
    }

    pub(super) fn mail_home(&mut self, name: TopicName, mail: impl FnOnce(TopicName) -> TopicMail<S::State>) {
        let home = name.home(self.shared.ports.len());
        self.topic_mail(home as u16, mail(name));
    }

    /// Brings mail to a worker; to this one at once.
    pub(super) fn topic_mail(&mut self, to: u16, mail: TopicMail<S::State>) {
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
            TopicMail::Published { ask: Ask { id, reply: Reply::Tell(tag), .. }, .. } => {
                self.tell(id, tag, Ok(Answered(AnsweredKind::Published)));
            }
            TopicMail::Published { cursor, ask } => {
                let response = Response::new(200).body("application/json", format!("{{\"id\":\"{cursor}\"}}\n"));
                self.reply(ask.id, &response.headers([cursor_header(cursor)]).headers(ask.headers));
            }
            TopicMail::Message { name, message } => self.topics.append(&name, &message, self.now.0),
            TopicMail::HistoryRemoved { name, through } => self.topics.history_removed(&name, through),
            TopicMail::Share(share) => self.work(share),
            TopicMail::Gathered(gathering) => self.gathered(&gathering),
            TopicMail::Detach { name, from } => self.topics.detach(&name, from),
            TopicMail::Left { name, member } => {
                if let Some(member) = self.topics.left(&name, &member.client) {
                    self.tell_change(&name, Change::Left, member);
                }
            }
            TopicMail::Present { presence, ask } => match ask.reply {
                Reply::Tell(tag) => self.tell(ask.id, tag, Ok(Answered(AnsweredKind::Presence(presence)))),
                _ => self
                    .reply(ask.id, &Response::new(200).body("application/json", who(&presence)).headers(ask.headers)),
            },
        }
    }

    /// This is the topic's home: its word decides.
    fn asked_at_home(&mut self, name: TopicName, question: Question, asker: Asker<S::State>) {
        match (question, asker) {
            (Question::Publish(publication), asker) => match (self.publish_here(&name, publication), asker) {
                (Ok(cursor), Asker::Connection(ask)) => {
                    self.topic_mail(ask.id.worker, TopicMail::Published { cursor, ask });
                }
                (Err(_), Asker::Connection(ask)) => {
                    self.topic_mail(ask.id.worker, TopicMail::Refused { name, ask });
                }
                (published, Asker::Caller(then)) => {
                    self.call(then, published);
                }
                (Err(_), Asker::Nobody) if self.log.allows(self.now, Refused::TopicsFull.word()) => {
                    log::warn!(reason = Refused::TopicsFull.word(); "a message to {name} was not published: {}", Refused::TopicsFull);
                }
                (_, Asker::Nobody) => {}
            },
            (Question::Read(read), Asker::Connection(ask)) => {
                let worker = ask.id.worker;
                let attach = ask.reply.encoding().map(|_| worker);
                let member = read.member.clone();
                let (now, rng) = (self.now.0, &mut self.rng);
                let mail = match self.topics.resolve(&name, read, attach, now, || rng.next()) {
                    Ok(resolved) => {
                        self.port().metrics.gaps.add(u64::from(resolved.start.gap.is_some()));
                        member.into_iter().for_each(|member| self.tell_change(&name, Change::Came, member));
                        TopicMail::Read { name, resolved, ask }
                    }
                    Err(_) => TopicMail::Refused { name, ask },
                };
                self.topic_mail(worker, mail);
            }
            (Question::Presence(list), Asker::Connection(ask)) => {
                let presence = self.topics.presence(&name, list);
                self.topic_mail(ask.id.worker, TopicMail::Present { presence, ask });
            }
            (Question::Read(_) | Question::Presence(_), Asker::Caller(_) | Asker::Nobody) => {}
        }
    }

    /// Somebody came or left: those who want to know are told, beside the topic.
    fn tell_change(&mut self, name: &TopicName, change: Change, member: Arc<Author>) {
        if self.rules.topics.at(name.as_str()).join_leave && !member.is_quiet {
            let publication = Publication::of_change(change, member);
            self.ask_home(name.live(), Question::Publish(publication), Asker::Nobody);
        }
    }

    /// This is the topic's home: appends, and sends the message to whoever listens.
    pub(super) fn publish_here(&mut self, name: &TopicName, mut publication: Publication) -> Result<Cursor, Refused> {
        publication.unix_ms = self.unix_ms();
        let (now, rng) = (self.now.0, &mut self.rng);
        let published = self.topics.publish(name, publication, now, || rng.next());
        let (cursor, message) = published.map_err(|_| Refused::TopicsFull)?;
        if let Some(message) = message {
            self.port().metrics.published.add(1);
            if !self.taps.is_empty() {
                self.tap_publication(&message);
            }
            self.distribute(name, &message);
        }
        Ok(cursor)
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
        let Ask { id, reply, opening, headers, .. } = ask;
        if reply.encoding().is_some()
            && let Some(topic) = self.topics.refused(name)
        {
            self.retire(topic);
        }
        let refused = Refused::TopicsFull;
        match (reply, opening) {
            (Reply::Subscribe { ticket, .. }, _) => self.subscription_refused(id, name, ticket),
            (Reply::Tell(tag), _) => self.tell(id, tag, Err(refused)),
            (_, Some(_)) => self.answer(id, Err(Response::from(refused).headers(headers))),
            (Reply::Stream, _) => {
                let response = Response::come_back(refused, self.between(EVENT_SOURCE_BUSY_RETRY_MS));
                self.reply(id, &response.headers(headers));
            }
            _ => self.reply(id, &Response::from(refused).headers(headers)),
        }
    }

    fn read_answered(&mut self, name: &TopicName, resolved: Resolved, ask: Ask<S::State>) {
        if let Reply::Tell(tag) = ask.reply {
            return self.tell(ask.id, tag, Ok(Answered(AnsweredKind::Read(resolved))));
        }
        let topic = ask.reply.encoding().map(|_| self.topics.answered(name, &resolved));
        let Resolved { start, messages, .. } = resolved;
        match (ask.reply, topic) {
            (Reply::Poll { limit, wait: Some(wait) }, Some(topic)) if messages.is_empty() && start.gap.is_none() => {
                self.wait(ask, topic, start.from, (limit, wait));
            }
            (Reply::Poll { limit, .. }, _) => {
                let elements = Elements::new(start.gap.as_ref(), messages.into_iter().take(limit).collect());
                self.reply_array(ask.id, start.from, elements, ask.headers);
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

    /// Tells the service what it wanted to know.
    pub(super) fn tell(&mut self, id: ConnId, tag: u64, answer: Result<Answered, Refused>) {
        self.serve(id, |service, connection| service.answered(connection, tag, answer));
    }

    /// Has the service do something with an open connection, if it is still there.
    pub(super) fn serve(&mut self, id: ConnId, act: impl FnOnce(&mut S, &mut Connection<'_, S::State>)) {
        self.handle(id.slot, id.serial, |desk| {
            let glue = &mut desk.glue;
            desk.entry.conn.visit(desk.rules, desk.output, |io, state| glue.serve(io, state, act));
        });
    }

    /// The home is told, when nobody here listens to a topic any more.
    pub(super) fn retire(&mut self, topic: u32) {
        if let Some(name) = self.topics.retire(topic).filter(|_| !planted(Bug::DetachForgotten)) {
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

    /// Answers a poll with what it found. It is written in one go; what the socket does not take of it waits as references to
    /// the messages, not as a copy for each client that does not read.
    pub(super) fn reply_array(&mut self, id: ConnId, start: Cursor, elements: Elements, headers: Vec<Field>) {
        self.port().metrics.delivered.add(elements.len() as u64);
        let cursor = elements.last().map_or(start, |message| message.cursor);
        let response = Response::new(200).body("application/json", elements.json());
        self.reply(id, &response.headers([cursor_header(cursor)]).headers(headers));
        if let Some(entry) = self.table.find(id.slot, id.serial) {
            entry.conn.refer(elements);
        }
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
