//! What a user of the library writes, and what it is given.

use crate::config::Rules;
use crate::conn::{self, Io, Peer};
use crate::error::{End, Refused};
use crate::http::{Field, Head, Response};
use crate::metrics::Metrics;
use crate::time::Millis;
use crate::topic::{Cursor, Publication, Since, TopicName, Wanted};
use crate::ws::Opcode;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

pub use crate::conn::SendError;

#[cfg(feature = "centrifugo")]
mod api;
#[cfg(feature = "centrifugo")]
mod bearer;
#[cfg(feature = "centrifugo")]
mod centrifugo;
#[cfg(feature = "centrifugo")]
mod emulation;
mod errand;
#[cfg(feature = "centrifugo")]
mod rpc;
mod topic;
#[cfg(feature = "centrifugo")]
mod users;

#[cfg(feature = "centrifugo")]
pub use crate::adapter::centrifugo::token::{KeyError, Keys as TokenKeys, PublicKey};
#[cfg(feature = "centrifugo")]
pub use api::ApiKey;
#[cfg(feature = "centrifugo")]
pub use bearer::Bearer;
#[cfg(feature = "centrifugo")]
pub use centrifugo::{Centrifugo, Mounted};
#[cfg(feature = "centrifugo")]
pub use rpc::{Caller, Rpc, RpcAnswer, RpcError, RpcToken};

pub(crate) use errand::{Errand, Filter, Finish, Found, Task};
pub use topic::{Answer, Frames, Stranger, TopicUrl, Writer};
pub(crate) use topic::{AnswerKind, AnsweredKind, Join, Question, Reply, TopicRequest, Wish};
#[doc(hidden)]
pub use topic::{Answered, Started};
#[cfg(feature = "centrifugo")]
#[doc(hidden)]
pub use users::{Reached, UserCall};

/// A push service: what it does with connections and messages.
///
/// Each worker thread has an instance of its own, made by the factory that [`Server::start`] is given; its methods
/// are called on that thread only, one at a time, and should return quickly: everybody on that worker waits. A panic
/// costs the connection it happened on (close code 1011), not the worker.
///
/// ```
/// use throng::{Accept, Connection, Decision, Message, Request, Service};
///
/// struct Upper;
///
/// impl Service for Upper {
///     type State = ();
///
///     fn open(&mut self, _: &Request<'_>) -> Decision<()> {
///         Accept::new(()).into()
///     }
///
///     fn message(&mut self, connection: &mut Connection<'_, ()>, message: Message<'_>) {
///         if let Message::Text(text) = message {
///             // Full: the client reads too slowly. It is simply not answered.
///             let _ = connection.send(Message::Text(&text.to_uppercase()));
///         }
///     }
/// }
/// ```
///
/// [`Server::start`]: crate::Server::start
pub trait Service: 'static {
    /// What the service keeps for each connection. `()` costs nothing. `Send`, because a decision that was put off
    /// may be made on another thread.
    type State: Send + 'static;

    /// A WebSocket upgrade was asked for, correctly: may it come in?
    fn open(&mut self, request: &Request<'_>) -> Decision<Self::State>;

    /// The WebSocket is open: the first occasion to send. What is sent here leaves together with the answer to the
    /// upgrade.
    fn ready(&mut self, connection: &mut Connection<'_, Self::State>) {
        let _ = connection;
    }

    /// A whole message came.
    fn message(&mut self, connection: &mut Connection<'_, Self::State>, message: Message<'_>);

    /// A pong came, solicited or not. Heartbeats are the server's business; most services need not look.
    fn pong(&mut self, connection: &mut Connection<'_, Self::State>, payload: &[u8]) {
        let _ = (connection, payload);
    }

    /// The moment has come that [`Connection::wake_after`] asked for. Unless it is asked for again, the server's heartbeats
    /// go on from here.
    fn woken(&mut self, connection: &mut Connection<'_, Self::State>) {
        let _ = connection;
    }

    /// What [`Connection::subscribe`] asked for has come about: the messages behind this cursor follow. Or it was refused,
    /// for one of the reasons named there; the default closes the WebSocket (1013) then, with the reason.
    fn subscribed(
        &mut self,
        connection: &mut Connection<'_, Self::State>,
        topic: &TopicName,
        outcome: Result<Cursor, Refused>,
    ) {
        let _ = topic;
        if let Err(refused) = outcome {
            connection.close(1013, refused.text());
        }
    }

    /// As [`subscribed`](Self::subscribed), for protocols of the library's own: the offset of the last message that was
    /// sent already. The rest follows.
    #[doc(hidden)]
    fn started(&mut self, connection: &mut Connection<'_, Self::State>, started: Started<'_>) -> u64 {
        self.subscribed(connection, started.topic, Ok(started.start.from));
        started.start.from.offset
    }

    /// For protocols of the library's own: what was asked with a tag.
    #[doc(hidden)]
    fn answered(&mut self, connection: &mut Connection<'_, Self::State>, tag: u64, answer: Result<Answered, Refused>) {
        let _ = (connection, tag, answer);
    }

    /// For protocols of the library's own: the code and reason for an end that is not the client's
    /// fault, after which it comes back.
    #[doc(hidden)]
    fn farewell(&self, state: &Self::State, end: End) -> (u16, &'static str) {
        let _ = state;
        (end.code(), end.text())
    }

    /// For protocols of the library's own: whose a connection is, and what it speaks.
    #[doc(hidden)]
    fn told(&self, id: ConnId, state: &Self::State) -> Told<'_> {
        let _ = (id, state);
        Told::default()
    }

    /// For protocols of the library's own: the code and reason with which an operator disconnects, unless there are others.
    #[doc(hidden)]
    fn dismissal(&self, state: &Self::State) -> (u16, &'static str) {
        let _ = state;
        (End::Operator.code(), End::Operator.text())
    }

    /// For protocols of the library's own: a request that is no WebSocket upgrade. It is answered, or its connection is open
    /// from then on as if it were one.
    #[doc(hidden)]
    fn begin(&mut self, request: &Request<'_>) -> Begun<Self::State> {
        Begun::Answered(self.request(request))
    }

    /// For protocols of the library's own: a message that came by a request of its own, with what proves that it is this
    /// connection's. Whether it is.
    #[doc(hidden)]
    fn parcel(&mut self, connection: &mut Connection<'_, Self::State>, key: u128, data: &[u8]) -> bool {
        let _ = (connection, key, data);
        false
    }

    /// For protocols of the library's own: what is said at the end of a connection that is open without being a WebSocket.
    #[doc(hidden)]
    fn last_words(&self, state: &Self::State, code: u16, reason: &str) -> Vec<u8> {
        let _ = (state, code, reason);
        Vec::new()
    }

    /// For protocols of the library's own: a subscription of its own kind lags.
    #[doc(hidden)]
    fn lagged(&mut self, connection: &mut Connection<'_, Self::State>, topic: &TopicName) {
        let _ = (connection, topic);
    }

    /// For protocols of the library's own: some of the connections that a call is for, from where it was left.
    #[cfg(feature = "centrifugo")]
    #[doc(hidden)]
    fn reach(&mut self, call: &UserCall, walk: Option<u64>) -> Reached {
        let _ = (call, walk);
        Reached::default()
    }

    /// For protocols of the library's own: a call is for this connection.
    #[cfg(feature = "centrifugo")]
    #[doc(hidden)]
    fn called(&mut self, connection: &mut Connection<'_, Self::State>, call: &UserCall) {
        let _ = (connection, call);
    }

    /// The WebSocket has ended, once for each that [`ready`](Self::ready) was called for. The id is stale from here
    /// on.
    fn close(&mut self, id: ConnId, state: Self::State, close: &Close<'_>) {
        let _ = (id, state, close);
    }

    /// Called for every open connection once in each [`Server::tick_interval`], a few at a time so that nobody else
    /// waits. Not called unless an interval is set.
    ///
    /// [`Server::tick_interval`]: crate::Server::tick_interval
    fn tick(&mut self, connection: &mut Connection<'_, Self::State>) {
        let _ = connection;
    }

    /// A request that is no WebSocket upgrade, with its whole body ([`Request::body`]). The default tells the client
    /// that this is a WebSocket (426). The connection stays for the next request, if the client wants that.
    fn request(&mut self, request: &Request<'_>) -> Answer {
        let _ = request;
        Response::upgrade_required().into()
    }
}

/// What a protocol knows of a connection.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Told<'a> {
    /// Empty if that is not known.
    pub(crate) user: &'a str,
    pub(crate) protocol: &'static str,
    /// It is open without being a WebSocket.
    pub(crate) is_emulated: bool,
}

/// The name of one connection, for as long as it lives and for ever after: no other connection of this server gets
/// the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Counts the connections of a worker, from 1, and is never used twice.
    pub(crate) serial: u64,
    pub(crate) slot: u32,
    pub(crate) worker: u16,
}

impl ConnId {
    /// The worker and the serial of what [`Display`](fmt::Display) writes, both without leading zeros.
    pub(crate) fn parse(text: &str) -> Option<(u16, u64)> {
        let (worker, serial) = text.split_once('-')?;
        let (worker, serial) = (worker.parse().ok()?, serial.parse().ok()?);
        (format!("{worker}-{serial}") == text).then_some((worker, serial))
    }
}

/// `WORKER-SERIAL`, which is unique.
impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.worker, self.serial)
    }
}

/// A request: its [`Head`], and who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub(crate) head: &'a Head<'a>,
    pub(crate) body: &'a [u8],
    pub(crate) peer: Peer,
    pub(crate) id: ConnId,
    /// What the server was told of its topics, for protocols of the library's own.
    pub(crate) rules: &'a Rules,
    /// The time of day, in seconds of Unix time.
    pub(crate) unix_seconds: u64,
}

impl<'a> Request<'a> {
    /// The body, at most as long as a message may be ([`Server::message_bytes_max`](crate::Server::message_bytes_max));
    /// empty for an upgrade.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Who sent it: the other side of the socket, or, behind a proxy that is trusted to say so, its client.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The id that the connection has, and will have if it is accepted.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// What [`Decision::Later`] takes, and [`Handle::answer`](crate::Handle::answer) with it.
    pub fn token(&self) -> Token {
        Token(self.id)
    }
}

impl<'a> Deref for Request<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Self::Target {
        self.head
    }
}

/// Stands for an upgrade request that waits for its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub(crate) ConnId);

/// Whether a WebSocket may be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Decision<S> {
    /// It is accepted, or refused with this response.
    Now(Result<Accept<S>, Response>),
    /// Somebody else decides: [`Handle::answer`](crate::Handle::answer), from any thread, within the server's
    /// `decision_timeout` (then the client gets a 503). The client waits and costs about 200 bytes meanwhile.
    Later(Token),
}

impl<S> From<Accept<S>> for Decision<S> {
    fn from(accept: Accept<S>) -> Self {
        Self::Now(Ok(accept))
    }
}

impl<S> From<Response> for Decision<S> {
    fn from(response: Response) -> Self {
        Self::Now(Err(response))
    }
}

/// Lets a WebSocket be opened.
#[derive(Debug)]
pub struct Accept<S>(pub(crate) conn::Opening<S>, pub(crate) Option<Join>);

impl<S> Accept<S> {
    /// Accepts, with this as the connection's state.
    pub fn new(state: S) -> Self {
        Self(conn::Opening { state, subprotocol: None, headers: Vec::new() }, None)
    }

    /// The same for another state.
    #[cfg(feature = "centrifugo")]
    pub(crate) fn map<T>(self, with: impl FnOnce(S) -> T) -> Accept<T> {
        let conn::Opening { state, subprotocol, headers } = self.0;
        Accept(conn::Opening { state: with(state), subprotocol, headers }, self.1)
    }

    /// Selects a subprotocol, one of those the client offered ([`Head::subprotocols`]): any other makes the answer
    /// a 500, since the client would have to fail the connection (RFC 6455, section 4.1).
    #[must_use]
    pub fn subprotocol(mut self, protocol: impl Into<Cow<'static, str>>) -> Self {
        self.0.subprotocol = Some(protocol.into());
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        self.0.headers.push((name.into(), value.into()));
        self
    }
}

/// What becomes of a request that is no WebSocket upgrade.
#[derive(Debug)]
pub enum Begun<S> {
    /// It has an answer.
    Answered(Answer),
    /// Its connection is open.
    Open(Emulated<S>),
}

/// What a connection begins with that is open without being a WebSocket.
#[derive(Debug)]
pub struct Emulated<S>(pub(crate) conn::Emulated<S>);

/// A message for such a connection, in a request of its own.
pub(crate) struct Parcel {
    pub(crate) to: ConnId,
    /// Proves that it is the connection's.
    pub(crate) key: u128,
    pub(crate) data: Vec<u8>,
    /// For the answer.
    pub(crate) headers: Vec<Field>,
}

impl fmt::Debug for Parcel {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parcel({}, {} bytes)", self.to, self.data.len())
    }
}

/// A message, borrowed from where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message<'a> {
    /// A text frame's payload.
    Text(&'a str),
    /// A binary frame's payload.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    pub(crate) fn parts(self) -> (Opcode, &'a [u8]) {
        match self {
            Self::Text(text) => (Opcode::Text, text.as_bytes()),
            Self::Binary(bytes) => (Opcode::Binary, bytes),
        }
    }
}

impl From<Message<'_>> for Publication {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => text.into(),
            Message::Binary(bytes) => bytes.into(),
        }
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Binary(bytes)
    }
}

/// An open connection, inside a callback.
#[derive(Debug)]
pub struct Connection<'a, S> {
    pub(crate) io: Io<'a>,
    pub(crate) state: &'a mut S,
    pub(crate) id: ConnId,
    pub(crate) metrics: &'a Metrics,
    /// The topic of its first subscription.
    pub(crate) topic: Option<&'a TopicName>,
    pub(crate) wishes: &'a mut VecDeque<(ConnId, Wish)>,
    pub(crate) rules: &'a Rules,
    /// The time as of this turn, on the clock that does not go back.
    #[cfg_attr(not(feature = "centrifugo"), expect(dead_code, reason = "for protocols of the library's own"))]
    pub(crate) now: Millis,
    /// The same as the time of day, in seconds of Unix time.
    #[cfg_attr(not(feature = "centrifugo"), expect(dead_code, reason = "for protocols of the library's own"))]
    pub(crate) unix_seconds: u64,
}

impl<S> Connection<'_, S> {
    /// Sends a message. Messages of one callback leave in one write.
    ///
    /// # Errors
    ///
    /// [`SendError::QueueFull`] when more than `queue_bytes_max` would wait for this client, [`SendError::Closed`]
    /// after [`close`](Self::close). In both cases nothing was queued.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<(), SendError> {
        let (opcode, payload) = message.into().parts();
        self.io.send(opcode, payload)?;
        self.metrics.frames_out.add(1);
        Ok(())
    }

    /// Sends bytes as they are, on a connection that is no WebSocket.
    #[cfg(feature = "centrifugo")]
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.io.put(bytes)?;
        self.metrics.frames_out.add(1);
        Ok(())
    }

    /// Sends a ping with up to 125 bytes of payload (more is cut). Heartbeats need none: the server pings whoever
    /// is silent.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.io.send(Opcode::Ping, &payload[..payload.len().min(crate::limits::CONTROL_BYTES_MAX)])
    }

    /// Starts the closing handshake: nothing more is delivered or sent. The code must be one that an endpoint may
    /// send (RFC 6455, section 7.4: 1000 to 1003, 1007 to 1014, 3000 to 4999), or 1011 is sent instead; a reason longer
    /// than 123 bytes is cut.
    pub fn close(&mut self, code: u16, reason: &str) {
        let code = if crate::ws::close_code_may_be_sent(code) { code } else { End::Panic.code() };
        self.io.close(code, reason);
    }

    /// Whether this one may publish to the topic as the rules are now: others than when it came, after a reload.
    pub fn may_publish(&self, topic: &TopicName, writer: Writer) -> bool {
        writer.may_publish(&self.rules.topics, topic.as_str())
    }

    /// Publishes a message, to all subscribers of the topic on all workers: in the order of its publications, and beside
    /// others' in the order in which they reach the topic's home.
    pub fn publish(&mut self, topic: &TopicName, message: impl Into<Publication>) {
        self.wishes.push_back((self.id, Wish::Publish(topic.clone(), message.into(), None)));
    }

    /// The topic by whose URL the connection came ([`TopicUrl::open`]), or that it subscribed to first.
    pub fn topic(&self) -> Option<&TopicName> {
        self.topic
    }

    /// Subscribes to a topic, from where `since` says; a second time it changes nothing. What is asked of one topic happens
    /// in the order in which it is asked for; [`Service::subscribed`] tells when it has.
    ///
    /// Refused when the connection has as many subscriptions as it may ([`Server::subscriptions_max`]), or the server as
    /// many topics ([`Server::topics_max`]). The first of a connection lies where the connection does; further ones need memory
    /// of their own.
    ///
    /// [`Server::subscriptions_max`]: crate::Server::subscriptions_max
    /// [`Server::topics_max`]: crate::Server::topics_max
    pub fn subscribe(&mut self, topic: &TopicName, since: Since, frames: Frames) {
        let wanted = Wanted::Since(since);
        let (name, encoding) = (topic.clone(), frames.encoding());
        let join = Join { name, wanted, skips: false, encoding, member: None, until: None };
        self.wishes.push_back((self.id, Wish::Subscribe(join)));
    }

    /// Ends a subscription: nothing of the topic follows what was sent already.
    pub fn unsubscribe(&mut self, topic: &TopicName) {
        self.wishes.push_back((self.id, Wish::Unsubscribe(topic.clone())));
    }

    /// Has [`Service::woken`] called after this time, once, and leaves the heartbeats to the service until then: whoever
    /// is silent is not pinged. Asked for again, the last time counts. For protocols with pings of their own.
    pub fn wake_after(&mut self, time: Duration) {
        self.wishes.push_back((self.id, Wish::Wake(time)));
    }

    /// The connection's id, for [`Handle`](crate::Handle)s.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Who is on the other side, as [`Request::peer`] had it.
    pub fn peer(&self) -> Peer {
        self.io.peer()
    }

    /// Bytes that wait for the socket: what the client has not taken yet, beyond what the kernel holds. Zero for
    /// a client that keeps up.
    pub fn queued_bytes(&self) -> usize {
        self.io.queued()
    }

    /// The service's state of this connection.
    pub fn state(&mut self) -> &mut S {
        self.state
    }
}

/// How a WebSocket ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Close<'a> {
    /// Why, and by whom.
    pub end: End,
    /// The close code: the peer's, ours, 1005 when the peer gave none, 1006 when it vanished.
    pub code: u16,
    /// The reason that went with it.
    pub reason: &'a str,
    /// Both sides sent their Close (RFC 6455, section 7.1.4).
    pub clean: bool,
    /// Who was on the other side, as [`Request::peer`] had it.
    pub peer: Peer,
}
