//! Centrifugo's client protocol beside a service of one's own.

use super::api::{self, Access, ApiKey};
use super::emulation::{self, Served};
use super::rpc::{self, Handlers};
use super::{
    Accept, Answer, Answered, AnsweredKind, Begun, Close, ConnId, Connection, Decision, Join, Message, Request,
    Service, Started, Told,
};
use super::{Reached, TokenKeys, UserCall, Wish, topic};
use crate::adapter::centrifugo::codec::Format;
use crate::adapter::centrifugo::codes::DisconnectCode;
use crate::adapter::centrifugo::emulation::{Body, Emulation, Stream, Ticket, same_key};
use crate::adapter::centrifugo::session::{CommandRate, Effect, Output, Rules, Session, Tokens};
use crate::adapter::centrifugo::users::Users;
use crate::config::{Config, SlowReaders};
use crate::error::{End, Refused};
use crate::http::{Response, first, has_token};
use crate::limits::{CENTRIFUGO_CONNECT_TIMEOUT, CENTRIFUGO_PING_INTERVAL, CENTRIFUGO_PONG_TIMEOUT};
use crate::mem::Rng;
use crate::sys;
use crate::time::Millis;
use crate::topic::{Cursor, Encoding, TopicName};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Where sessions are opened.
const WEBSOCKET: &str = "/connection/websocket";

/// Serves Centrifugo's clients at `/connection/websocket`, and leaves everything else to another service. A channel is a
/// topic: whoever comes by a topic's URL meets them there.
///
/// Clients that cannot have a WebSocket find the fallbacks of their SDKs at `/connection/http_stream` and `/connection/sse`;
/// what they send comes to `/emulation`.
///
/// With [`api_key`](Self::api_key), `POST /api/METHOD` is Centrifugo's server API.
///
/// The protocol is version 2 of Centrifugo's client protocol, in JSON, or in Protobuf where the client offers the
/// subprotocol `centrifuge-protobuf` or asks for `?format=protobuf`; its official SDKs are the clients.
///
/// ```no_run
/// use throng::{Accept, Centrifugo, Connection, Decision, Message, Request, Response, Server, Service};
///
/// struct Mine;
///
/// impl Service for Mine {
///     type State = ();
///
///     fn open(&mut self, _: &Request<'_>) -> Decision<()> {
///         Response::refuse(404, "connect to /connection/websocket").into()
///     }
///
///     fn message(&mut self, _: &mut Connection<'_, ()>, _: Message<'_>) {}
/// }
///
/// let server = Server::new().client_publish(true).start(|_| Centrifugo::new(Mine))?;
/// server.run_until_signal(std::time::Duration::from_secs(5))?;
/// # Ok::<(), throng::StartError>(())
/// ```
#[derive(Debug)]
pub struct Centrifugo<S> {
    inner: S,
    pub(super) rules: Rules,
    access: Access,
    pub(super) served: Served,
    /// By slot.
    pub(super) sessions: HashMap<u32, Box<Session>>,
    /// By slot, of sessions without a WebSocket.
    tickets: HashMap<u32, Ticket>,
    /// Whose they are.
    pub(super) users: Users,
    pub(super) handlers: Handlers,
    rng: Rng,
}

/// The state of a connection: of the service beside, or one that speaks Centrifugo's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mounted<T> {
    /// The service's own.
    Own(T),
    /// A session in JSON.
    Json,
    /// A session in Protobuf.
    Protobuf,
    /// A session without a WebSocket, in the body of a response: JSON, a line each. Of this one and those below a
    /// [`Handle`](crate::Handle) can close the connection, but has no message that would fit in.
    Lines,
    /// The same without chunks.
    LinesUnchunked,
    /// A session in server-sent events.
    Events,
    /// The same without chunks.
    EventsUnchunked,
    /// A session in Protobuf, in the body of a response.
    Delimited,
    /// The same without chunks.
    DelimitedUnchunked,
}

// One byte with a service that has one: the connection stays within its cache line.
const _: () = assert!(size_of::<Option<Mounted<bool>>>() == 1);

impl<T> Mounted<T> {
    /// A session in the body of a response.
    pub(super) fn emulated(Stream { body, is_chunked }: Stream) -> Self {
        match (body, is_chunked) {
            (Body::Lines, true) => Self::Lines,
            (Body::Lines, false) => Self::LinesUnchunked,
            (Body::Events, true) => Self::Events,
            (Body::Events, false) => Self::EventsUnchunked,
            (Body::Protobuf, true) => Self::Delimited,
            (Body::Protobuf, false) => Self::DelimitedUnchunked,
        }
    }

    /// How it is written, if it is one.
    fn stream(&self) -> Option<Stream> {
        let (body, is_chunked) = match self {
            Self::Own(_) | Self::Json | Self::Protobuf => return None,
            Self::Lines => (Body::Lines, true),
            Self::LinesUnchunked => (Body::Lines, false),
            Self::Events => (Body::Events, true),
            Self::EventsUnchunked => (Body::Events, false),
            Self::Delimited => (Body::Protobuf, true),
            Self::DelimitedUnchunked => (Body::Protobuf, false),
        };
        Some(Stream { body, is_chunked })
    }
}

impl<S> Centrifugo<S> {
    /// With the service beside it, and the defaults: everybody may connect. What clients may do with channels is the server's
    /// to say ([`Server::topics`](crate::Server::topics)).
    pub fn new(inner: S) -> Self {
        let server = Config::default();
        Self {
            inner,
            rules: Rules {
                ping_interval: CENTRIFUGO_PING_INTERVAL,
                pong_timeout: CENTRIFUGO_PONG_TIMEOUT,
                connect_timeout: CENTRIFUGO_CONNECT_TIMEOUT,
                command_bytes_max: server.message_bytes_max,
                channels_max: server.subscriptions_max,
                topics: Arc::new(server.topics),
                personal: None,
                tokens: Tokens::default(),
                command_rate: None,
                takes_calls: false,
                takes_messages: false,
                emulation: None,
                now: Millis::default(),
                unix_seconds: 0,
            },
            access: Access::default(),
            served: Served { http_stream: true, events: true },
            sessions: HashMap::new(),
            users: Users::default(),
            handlers: Handlers::default(),
            tickets: HashMap::new(),
            rng: Rng::new(std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0)),
        }
    }

    /// Subscribes every user to a channel of its own, `#USER`, in this namespace or in none, when it connects
    /// (`client.subscribe_to_user_personal_channel`). Default: off. A user whose name cannot be part of a topic's is turned
    /// away (3500).
    #[must_use]
    pub fn personal_channel(mut self, namespace: &str) -> Self {
        self.rules.personal = Some(namespace.into());
        self
    }

    /// How often a client is pinged, and how long it has to answer (`client.ping_interval`, `client.pong_timeout`); at least a
    /// second each. Default: 25 s and 8 s.
    #[must_use]
    pub fn pings(mut self, interval: Duration, timeout: Duration) -> Self {
        let second = Duration::from_secs(1);
        self.rules.ping_interval = interval.max(2 * second);
        self.rules.pong_timeout = timeout.clamp(second, self.rules.ping_interval);
        self
    }

    /// How long a client has for its connect command (`client.stale_close_delay`). Default: 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.rules.connect_timeout = timeout;
        self
    }

    /// Most channels of a client (`client.channel_limit`); the server's
    /// [`subscriptions_max`](crate::Server::subscriptions_max) bounds it too. Default: 128.
    #[must_use]
    pub fn channels_max(mut self, channels: usize) -> Self {
        self.rules.channels_max = channels;
        self
    }

    /// Longest command in bytes (`websocket.message_size_limit`). Default: 64 KiB.
    #[must_use]
    pub fn command_bytes_max(mut self, bytes: usize) -> Self {
        self.rules.command_bytes_max = bytes;
        self
    }

    /// Serves Centrifugo's server API, `POST /api/METHOD`, to whoever sends this key as `X-API-Key` or as
    /// `Authorization: apikey KEY`. Default: the API is off, and its URLs are the other service's.
    #[must_use]
    pub fn api_key(mut self, key: ApiKey) -> Self {
        self.access.key = key;
        self
    }

    /// Serves the server API to everybody, whatever the key. For a server that only the application reaches.
    #[must_use]
    pub fn api_insecure(mut self, insecure: bool) -> Self {
        self.access.insecure = insecure;
        self
    }

    /// Takes connection tokens (`client.token`): they say who connects, until when, and what the server subscribes it to.
    /// Who has none is turned away (3501), unless [`anonymous`](Self::anonymous) clients are allowed. Default: nobody needs
    /// a token, and nobody can show one (3500).
    #[must_use]
    pub fn tokens(mut self, keys: TokenKeys) -> Self {
        self.rules.tokens.connection = Some(keys);
        self
    }

    /// Takes subscription tokens with keys of their own (`client.subscription_token`). Default: those of
    /// [`tokens`](Self::tokens). With either, channels whose names start with `$` need one (103);
    /// at a [`TopicUrl`](crate::TopicUrl) that is [`RuleSet::private_prefix`](crate::RuleSet::private_prefix)'s to say.
    #[must_use]
    pub fn subscription_tokens(mut self, keys: TokenKeys) -> Self {
        self.rules.tokens.subscription = Some(keys);
        self
    }

    /// Lets clients connect without a token where there are some, as the empty user
    /// (`client.allow_anonymous_connect_without_token`). Default: they may not.
    #[must_use]
    pub fn anonymous(mut self, may: bool) -> Self {
        self.rules.tokens.anonymous = may;
        self
    }

    /// Looks at no tokens: everybody is the empty user, and may do everything with every channel. For development. Default:
    /// they are looked at.
    #[must_use]
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.rules.tokens.insecure = insecure;
        self
    }

    /// Lets each client send at most so many commands a second in the long run, and so many at once (a token bucket). What is
    /// more fails with error 111, too many requests; what has no reply to say so in, and a client that does not mind,
    /// is disconnected (3013). Pongs do not count. Default: as many as they like.
    #[must_use]
    pub fn command_rate(mut self, per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        self.rules.command_rate = Some(CommandRate::new(per_second, burst));
        self
    }

    /// Takes over the settings of another, and the service beside it. Sessions stay, with the rights that they were given,
    /// and so do those who answer calls; from here on they go by the new settings.
    ///
    /// ```
    /// # use throng::{Centrifugo, Handle, Mounted, Service};
    /// # fn example<S: Service + Clone + Send + Sync>(handle: &Handle<Mounted<S::State>>, mine: S) {
    /// handle.update_services(move |service: &mut Centrifugo<S>| {
    ///     service.reconfigure(Centrifugo::new(mine.clone()).channels_max(64));
    /// });
    /// # }
    /// ```
    pub fn reconfigure(&mut self, with: Self) {
        let Self { inner, rules, access, served, .. } = with;
        let Rules { takes_calls, takes_messages, .. } = self.rules;
        // The topics and the time are taken from the worker at each call.
        self.rules = Rules { takes_calls, takes_messages, topics: Arc::clone(&self.rules.topics), ..rules };
        (self.inner, self.access, self.served) = (inner, access, served);
    }

    /// The same with ids that are no surprise.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn seeded(inner: S, seed: u64) -> Self {
        Self { rng: Rng::new(seed), ..Self::new(inner) }
    }

    /// How many sessions there are.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    fn random(&mut self) -> [u64; 2] {
        [self.rng.next(), self.rng.next()]
    }
}

/// The service beside sees a connection of its own.
fn own<'a, T>(connection: &'a mut Connection<'_, Mounted<T>>) -> Option<Connection<'a, T>> {
    let Connection { io, state, id, metrics, topic, wishes, rules, now, unix_seconds } = connection;
    match state {
        Mounted::Own(state) => Some(Connection {
            io: io.reborrow(),
            state,
            id: *id,
            metrics,
            topic: *topic,
            wishes,
            rules,
            now: *now,
            unix_seconds: *unix_seconds,
        }),
        _ => None,
    }
}

/// Does what a session wants, replies first.
fn follow<T>(output: Output, connection: &mut Connection<'_, Mounted<T>>) {
    let Output { replies, effects } = output;
    let encoding = match (&*connection.state, connection.state.stream()) {
        (_, Some(stream)) => Encoding::CentrifugoStream(stream),
        (Mounted::Json, _) => Encoding::CentrifugoJson,
        (Mounted::Protobuf, _) => Encoding::CentrifugoProtobuf,
        _ => return,
    };
    if !replies.is_empty() {
        let sent = match encoding {
            Encoding::CentrifugoJson => String::from_utf8(replies).map(|text| connection.send(&*text)),
            Encoding::CentrifugoStream(stream) => Ok(connection.put(&stream.frame(&replies))),
            _ => Ok(connection.send(&*replies)),
        };
        if sent.is_ok_and(|sent| sent.is_err()) {
            return connection.close(3008, "slow");
        }
    }
    let id = connection.id;
    for effect in effects {
        let wish = match effect {
            Effect::Subscribe { topic: name, wanted, member } => {
                Wish::Subscribe(Join { name, wanted, skips: true, encoding, member, until: None })
            }
            Effect::Presence { topic, list, tag } => Wish::Presence(topic, list, tag),
            Effect::Unsubscribe(name) => Wish::Unsubscribe(name),
            Effect::Publish { topic, publication, tag } => Wish::Publish(topic, publication, Some(tag)),
            Effect::Read { topic, read, tag } => Wish::Read(topic, read, tag),
            Effect::Hold(holds) => Wish::Hold(holds),
            Effect::Wake(time) => Wish::Wake(time),
            Effect::Disconnect(code) => {
                connection.close(code.code(), code.text());
                continue;
            }
            Effect::Close(code, reason) => {
                connection.close(code, &reason);
                continue;
            }
            Effect::Call(_) => continue, // seen to already
        };
        connection.wishes.push_back((id, wish));
    }
}

impl<S: Service> Centrifugo<S> {
    /// Has a session do something, and does what it wants. `None`: it is the other service's connection.
    fn session<R>(
        &mut self,
        connection: &mut Connection<'_, Mounted<S::State>>,
        act: impl FnOnce(&mut Session, &Rules, &mut Output) -> R,
    ) -> Option<R> {
        if matches!(connection.state, Mounted::Own(_)) {
            return None;
        }
        let session = self.sessions.get_mut(&connection.id.slot)?;
        // The topics are the server's, and the time is the worker's.
        if !Arc::ptr_eq(&self.rules.topics, &connection.rules.topics) {
            self.rules.topics = Arc::clone(&connection.rules.topics);
        }
        (self.rules.now, self.rules.unix_seconds) = (connection.now, connection.unix_seconds);
        self.rules.emulation = None;
        if connection.state.stream().is_some() {
            let ticket = self.tickets.get(&connection.id.slot);
            self.rules.emulation = ticket.map(|&ticket| Emulation { ticket, node: api::node() });
        }
        let mut output = Output::default();
        let done = act(session, &self.rules, &mut output);
        self.handlers.see_to(connection.id, session, &mut output);
        follow(output, connection);
        if session.is_to_enter() {
            self.enter(connection.id.slot);
        }
        Some(done)
    }
}

/// A format that a client asks for, and the subprotocol to select.
fn format(request: &Request<'_>) -> (Format, Option<&'static str>) {
    for (subprotocol, format) in [("centrifuge-protobuf", Format::Protobuf), ("centrifuge-json", Format::Json)] {
        if request.subprotocols().any(|offered| offered == subprotocol) {
            return (format, Some(subprotocol));
        }
    }
    let query = request.query().unwrap_or("");
    let asks = |name| matches!(first(query, name), Ok(Some(value)) if value == "protobuf");
    (if asks("format") || asks("cf_protocol") { Format::Protobuf } else { Format::Json }, None)
}

impl<S: Service> Service for Centrifugo<S> {
    type State = Mounted<S::State>;

    fn open(&mut self, request: &Request<'_>) -> Decision<Self::State> {
        if request.path() == WEBSOCKET {
            if has_token(request.query().unwrap_or("")) {
                return Response::from(Refused::TokenInUrl).into();
            }
            let (format, subprotocol) = format(request);
            let accept = Accept::new(match format {
                Format::Json => Mounted::Json,
                Format::Protobuf => Mounted::Protobuf,
            });
            return match subprotocol {
                Some(subprotocol) => accept.subprotocol(subprotocol).into(),
                None => accept.into(),
            };
        }
        match self.inner.open(request) {
            Decision::Now(verdict) => Decision::Now(verdict.map(|accept| accept.map(Mounted::Own))),
            Decision::Later(token) => Decision::Later(token),
        }
    }

    fn ready(&mut self, connection: &mut Connection<'_, Self::State>) {
        let stream = connection.state.stream();
        let format = match (&*connection.state, stream) {
            (_, Some(stream)) => stream.format(),
            (Mounted::Json, _) => Format::Json,
            (Mounted::Protobuf, _) => Format::Protobuf,
            _ => return own(connection).into_iter().for_each(|mut own| self.inner.ready(&mut own)),
        };
        if stream.is_some() {
            // The kernel's, since it is a secret.
            let Ok(key) =
                sys::random_u64().and_then(|high| Ok(u128::from(high) << 64 | u128::from(sys::random_u64()?)))
            else {
                return connection.close(DisconnectCode::Internal.code(), DisconnectCode::Internal.text());
            };
            let ConnId { worker, slot, serial } = connection.id;
            self.tickets.insert(slot, Ticket { worker, slot, serial, key });
        }
        let session = Session::new(format, self.random());
        self.sessions.insert(connection.id.slot, Box::new(session));
        let effects = vec![Session::opened(&self.rules)];
        follow(Output { effects, ..Output::default() }, connection);
    }

    fn message(&mut self, connection: &mut Connection<'_, Self::State>, message: Message<'_>) {
        if let Some(mut own) = own(connection) {
            return self.inner.message(&mut own, message);
        }
        self.session(connection, |session, rules, output| session.input(message.parts().1, rules, output));
    }

    fn pong(&mut self, connection: &mut Connection<'_, Self::State>, payload: &[u8]) {
        own(connection).into_iter().for_each(|mut own| self.inner.pong(&mut own, payload));
    }

    fn woken(&mut self, connection: &mut Connection<'_, Self::State>) {
        match own(connection) {
            Some(mut own) => self.inner.woken(&mut own),
            None => drop(self.session(connection, Session::woken)),
        }
    }

    fn subscribed(
        &mut self,
        connection: &mut Connection<'_, Self::State>,
        topic: &TopicName,
        outcome: Result<Cursor, Refused>,
    ) {
        if let Some(mut own) = own(connection) {
            return self.inner.subscribed(&mut own, topic, outcome);
        }
        if let Err(refused) = outcome {
            self.session(connection, |session, rules, output| session.refused(topic, refused, rules, output));
        }
    }

    fn started(&mut self, connection: &mut Connection<'_, Self::State>, started: Started<'_>) -> u64 {
        if let Some(mut own) = own(connection) {
            return self.inner.started(&mut own, started);
        }
        let topic::Started { topic, start, missed } = started;
        self.session(connection, |session, rules, output| session.started(topic, start, missed, rules, output))
            .unwrap_or(start.from.offset)
    }

    fn answered(&mut self, connection: &mut Connection<'_, Self::State>, tag: u64, answer: Result<Answered, Refused>) {
        if let Some(mut own) = own(connection) {
            return self.inner.answered(&mut own, tag, answer);
        }
        self.session(connection, |session, _, output| match answer {
            Ok(Answered(AnsweredKind::Published)) => session.published(tag, Ok(()), output),
            Ok(Answered(AnsweredKind::Presence(presence))) => session.present(tag, &presence, output),
            Ok(Answered(AnsweredKind::Read(resolved))) => session.read(tag, resolved, output),
            Ok(Answered(AnsweredKind::Called(answer))) => rpc::answered(session, tag as u32, &answer, output),
            Ok(Answered(AnsweredKind::Said(data))) => session.message(data.kind, &data.payload, output),
            Err(refused) => session.published(tag, Err(refused), output),
        });
    }

    fn told(&self, id: ConnId, state: &Self::State) -> Told<'_> {
        let protocol = match state {
            Mounted::Own(state) => return self.inner.told(id, state),
            Mounted::Json => "centrifugo json",
            Mounted::Protobuf => "centrifugo protobuf",
            Mounted::Lines | Mounted::LinesUnchunked => "centrifugo http_stream",
            Mounted::Events | Mounted::EventsUnchunked => "centrifugo sse",
            Mounted::Delimited | Mounted::DelimitedUnchunked => "centrifugo http_stream protobuf",
        };
        let user = self.sessions.get(&id.slot).map_or("", |session| session.user());
        Told { user, protocol, is_emulated: state.stream().is_some() }
    }

    fn dismissal(&self, state: &Self::State) -> (u16, &'static str) {
        match state {
            Mounted::Own(state) => self.inner.dismissal(state),
            _ => (DisconnectCode::ForceNoReconnect.code(), DisconnectCode::ForceNoReconnect.text()),
        }
    }

    fn farewell(&self, state: &Self::State, end: End) -> (u16, &'static str) {
        match state {
            Mounted::Own(state) => self.inner.farewell(state, end),
            _ if end == End::MaxAge => (DisconnectCode::ForceReconnect.code(), DisconnectCode::ForceReconnect.text()),
            _ => (DisconnectCode::Shutdown.code(), DisconnectCode::Shutdown.text()),
        }
    }

    fn begin(&mut self, request: &Request<'_>) -> Begun<Self::State> {
        let begun = emulation::begin(self.served, api::node(), request);
        begun.unwrap_or_else(|| Begun::Answered(self.request(request)))
    }

    fn parcel(&mut self, connection: &mut Connection<'_, Self::State>, key: u128, data: &[u8]) -> bool {
        if !self.tickets.get(&connection.id.slot).is_some_and(|own| same_key(own.key, key)) {
            return false;
        }
        self.session(connection, |session, rules, output| session.input(data, rules, output)).is_some()
    }

    fn last_words(&self, state: &Self::State, code: u16, reason: &str) -> Vec<u8> {
        state.stream().map_or_else(Vec::new, |stream| stream.parting(code, reason))
    }

    fn lagged(&mut self, connection: &mut Connection<'_, Self::State>, topic: &TopicName) {
        if let Some(mut own) = own(connection) {
            return self.inner.lagged(&mut own, topic);
        }
        let skips = connection.rules.slow_readers == SlowReaders::Skip;
        self.session(connection, |session, _, output| session.lagged(topic, skips, output));
    }

    fn reach(&mut self, call: &UserCall, walk: Option<u64>) -> Reached {
        self.some_of(&call.0, walk)
    }

    fn called(&mut self, connection: &mut Connection<'_, Self::State>, call: &UserCall) {
        self.session(connection, |session, rules, output| session.called(&call.0, rules, output));
    }

    fn close(&mut self, id: ConnId, state: Self::State, close: &Close<'_>) {
        match state {
            Mounted::Own(state) => self.inner.close(id, state, close),
            _ => {
                self.tickets.remove(&id.slot);
                self.forget(id.slot);
            }
        }
    }

    fn tick(&mut self, connection: &mut Connection<'_, Self::State>) {
        own(connection).into_iter().for_each(|mut own| self.inner.tick(&mut own));
    }

    fn request(&mut self, request: &Request<'_>) -> Answer {
        match api::answer(&self.access, request) {
            Some(answer) => answer,
            None => self.inner.request(request),
        }
    }
}
