//! Topics for services: what a request asks of one, and the URLs under which they are served.

#[cfg(feature = "centrifugo")]
use super::Bearer;
use super::{Accept, Decision, Errand, Parcel, Request};
use crate::config::{Denied, Right, RuleSet};
use crate::error::Refused;
use crate::http::{Field, Response, cross_origin, first, has_token, prefer_wait, wants_events};
use crate::limits::{IDEMPOTENCY_KEY_BYTES_MAX, WAIT_S_MAX};
use crate::topic::{
    self, Author, Cursor, Encoding, Infos, KindError, Presence, Publication, Read, Resolved, Since, Start, TopicName,
    Wanted,
};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// The prefix of topics' URLs.
const PREFIX: &str = "/topics/";
/// The subprotocol of bare WebSockets, for those that have to offer one beside their token.
const SUBPROTOCOL: &str = "throng";
/// What stands behind a topic's URL for those who are there.
const PRESENCE: &str = "/presence";

/// The answer to a request that is no upgrade: a [`Response`], or what a topic makes of it.
#[derive(Debug)]
pub struct Answer(pub(crate) AnswerKind);

#[derive(Debug)]
pub(crate) enum AnswerKind {
    Now(Response),
    Topic(TopicRequest),
    /// Many topics are asked, and one response made of it.
    #[cfg_attr(not(feature = "centrifugo"), allow(dead_code, reason = "only its server API does"))]
    Errand(Errand),
    /// It is brought to a connection, and answered from there.
    #[cfg_attr(not(feature = "centrifugo"), allow(dead_code, reason = "only its sessions without a WebSocket do"))]
    Parcel(Parcel),
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self(AnswerKind::Now(response))
    }
}

/// How a WebSocket gets the messages of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frames {
    /// Each is one frame with the payload alone, and nothing else comes. Where messages were missed there is no place to
    /// say so: the WebSocket is closed with 4410, and the reason `gap: resume at CURSOR`.
    #[default]
    Bare,
    /// Each is one text frame `{"id":CURSOR,"data":...}`, for bytes `{"id":CURSOR,"base64":"..."}`. Where messages were
    /// missed comes `{"gap":{"since":CURSOR,"resumed":CURSOR}}`.
    Json,
}

impl Frames {
    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Self::Bare => Encoding::Frame,
            Self::Json => Encoding::JsonFrame,
        }
    }
}

/// What is asked of a topic, and how the answer is written.
#[derive(Debug)]
pub(crate) struct TopicRequest {
    pub(crate) name: TopicName,
    pub(crate) question: Question,
    pub(crate) reply: Reply,
    pub(crate) headers: Vec<Field>,
    /// When a stream of it ends because its client's token's time is over, in seconds of Unix time.
    pub(crate) until: Option<u64>,
}

/// What a WebSocket subscribes to, from where, and how its messages are written.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) name: TopicName,
    pub(crate) wanted: Wanted,
    /// Where something is missing it goes on from the newest message, not from the oldest kept.
    pub(crate) skips: bool,
    pub(crate) encoding: Encoding,
    /// As whom, if others are to know.
    pub(crate) member: Option<Arc<Author>>,
    /// When the connection ends because its client's token's time is over, in seconds of Unix time.
    pub(crate) until: Option<u64>,
}

/// A subscription begins.
#[derive(Debug)]
pub struct Started<'a> {
    pub(crate) topic: &'a TopicName,
    pub(crate) start: &'a Start,
    /// What lies behind the start, as far as it has come.
    pub(crate) missed: &'a [Arc<topic::Message>],
}

/// What a topic's home answered to a service.
#[derive(Debug)]
pub struct Answered(pub(crate) AnsweredKind);

#[derive(Debug)]
pub(crate) enum AnsweredKind {
    Published,
    /// What is kept.
    Read(Resolved),
    /// Who is there.
    Presence(Presence),
    /// To a client's call, by the application.
    #[cfg(feature = "centrifugo")]
    Called(Result<Publication, super::RpcError>),
    /// To one client, by the application.
    #[cfg(feature = "centrifugo")]
    Said(Publication),
}

/// What a service wants for the connection that it handles; seen to once that is done.
#[derive(Debug)]
pub(crate) enum Wish {
    /// With a tag, the service is told of the outcome.
    Publish(TopicName, Publication, Option<u64>),
    /// What is kept of a topic; the service is told.
    Read(TopicName, Read, u64),
    /// Who is there: with their names, or only how many.
    Presence(TopicName, bool, u64),
    Subscribe(Join),
    Unsubscribe(TopicName),
    /// The request is answered when it is done.
    Errand(Errand),
    Parcel(Parcel),
    Wake(Duration),
    /// Nothing of the topics is to be sent to it meanwhile, or that is to go on.
    #[cfg_attr(not(feature = "centrifugo"), expect(dead_code, reason = "for protocols of the library's own"))]
    Hold(bool),
}

/// What the home is asked.
#[derive(Debug)]
pub(crate) enum Question {
    Publish(Publication),
    Read(Read),
    /// Who is there: with their names, or only how many.
    Presence(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The WebSocket is opened, and gets the messages in this encoding.
    Open(Encoding),
    /// An open WebSocket gets the messages as well, if the subscription with this ticket is still wanted.
    Subscribe { encoding: Encoding, ticket: u32 },
    /// Server-sent events.
    Stream,
    /// An array, or nothing once the time is up.
    Poll { limit: usize, wait: Option<Duration> },
    /// The service is told, with its tag.
    Tell(u64),
    /// Who is there.
    Presence,
    /// The cursor alone.
    Position,
    /// The cursor that a publication got.
    Published,
}

impl Reply {
    /// How messages are written from then on; `None` if there are none to come, and the home need not send them.
    pub(crate) fn encoding(self) -> Option<Encoding> {
        match self {
            Self::Open(encoding) | Self::Subscribe { encoding, .. } => Some(encoding),
            Self::Stream => Some(Encoding::Event),
            Self::Poll { wait: Some(_), .. } => Some(Encoding::Element),
            Self::Poll { wait: None, .. } | Self::Tell(_) | Self::Presence | Self::Position | Self::Published => None,
        }
    }
}

/// A request for `/topics/{name}`, which serves one topic over WebSocket, server-sent events, long polls and polls,
/// and takes publications by POST.
///
/// ```no_run
/// use throng::{Accept, Answer, Connection, Decision, Message, Request, Response, Server, Service, TopicUrl};
///
/// struct Push;
///
/// impl Service for Push {
///     type State = ();
///
///     fn open(&mut self, request: &Request<'_>) -> Decision<()> {
///         match TopicUrl::of(request) {
///             Some(Ok(topic)) => topic.open(request, Accept::new(())),
///             Some(Err(refusal)) => refusal.into(),
///             None => Response::refuse(404, "WebSockets are at /topics/NAME").into(),
///         }
///     }
///
///     fn message(&mut self, connection: &mut Connection<'_, ()>, _: Message<'_>) {
///         connection.close(1008, "publish with POST");
///     }
///
///     fn request(&mut self, request: &Request<'_>) -> Answer {
///         match TopicUrl::of(request) {
///             Some(Ok(topic)) => topic.answer(request),
///             Some(Err(refusal)) => refusal.into(),
///             None => Response::refuse(404, "topics are at /topics/NAME").into(),
///         }
///     }
/// }
///
/// Server::new().start(|_| Push)?.run_until_signal(std::time::Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TopicUrl {
    name: TopicName,
    /// Asks who is there.
    presence: bool,
    who: Who,
}

/// A client that does not show who it is, where others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// The application shows its key; clients have nothing to show.
    Keyless,
    /// Clients have tokens, and this one shows none.
    Tokenless {
        /// It may read all the same where nothing is ruled.
        reads: bool,
    },
}

/// Whose messages on a WebSocket are to be published: as much of it as the rules of topics ask for, in a byte that a
/// connection's state has room for ([`TopicUrl::writer`], [`Connection::may_publish`](super::Connection::may_publish)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The application's own server.
    Application,
    /// A client with a name.
    User,
    /// A client without one.
    Anonymous,
    /// A client whose token allows it, whatever the rules say.
    Allowed,
}

impl Writer {
    /// Whether it may publish as the rules are now. It subscribes to the topic.
    pub(super) fn may_publish(self, rules: &RuleSet, topic: &str) -> bool {
        match self {
            Self::Application | Self::Allowed => rules.of(topic).is_some(),
            // Whose name it is, is nothing to the rules.
            Self::User => rules.may(Right::Publish, topic, SOMEBODY, true).is_ok(),
            Self::Anonymous => rules.may(Right::Publish, topic, "", true).is_ok(),
        }
    }
}

/// A user, where any will do.
const SOMEBODY: &str = "-";

/// Who asks.
#[derive(Clone, Debug)]
enum Who {
    /// A client; the empty user is anonymous.
    User(Box<str>),
    Stranger(Stranger),
    /// A client with a token.
    #[cfg(feature = "centrifugo")]
    Bearer(Box<Bearer>),
    /// The application's own server, which may do everything.
    Application,
}

impl Who {
    fn user(&self) -> &str {
        match self {
            Self::User(user) => user,
            #[cfg(feature = "centrifugo")]
            Self::Bearer(bearer) => bearer.user(),
            Self::Application | Self::Stranger(_) => "",
        }
    }

    /// Whether a token allows it this with that topic, whatever the rules say. A private topic needs a token of its own.
    fn is_allowed(&self, denied: Denied, right: Right, topic: &str) -> bool {
        match self {
            #[cfg(feature = "centrifugo")]
            Self::Bearer(bearer) => {
                !matches!(denied, Denied::Private | Denied::UnknownNamespace) && bearer.is_allowed(right, topic)
            }
            _ => {
                let _ = (denied, right, topic);
                false
            }
        }
    }

    /// When what its token gave is over.
    fn until(&self) -> Option<u64> {
        match self {
            #[cfg(feature = "centrifugo")]
            Self::Bearer(bearer) => bearer.expire_at(),
            _ => None,
        }
    }
}

/// A refusal that names what is wrong with this request.
fn refusal(refused: Refused, detail: impl Display) -> Response {
    Response::detailed(refused, &detail.to_string())
}

impl TopicUrl {
    /// The topic that a request's path names; `None` for any other path, a refusal for a name that cannot be, and for a URL that
    /// has what looks like a token in it.
    pub fn of(request: &Request<'_>) -> Option<Result<Self, Response>> {
        let path = request.path().strip_prefix(PREFIX)?;
        if has_token(request.query().unwrap_or("")) {
            return Some(Err(Refused::TokenInUrl.into()));
        }
        let (segment, presence) = path.strip_suffix(PRESENCE).map_or((path, false), |segment| (segment, true));
        let name = TopicName::from_path_segment(segment.as_bytes());
        let who = Who::User(Box::default());
        Some(name.map(|name| Self { name, presence, who }).map_err(|error| refusal(Refused::BadTopic, error)))
    }

    /// Says who asks: this user. Default: an anonymous client.
    #[must_use]
    pub fn by(mut self, user: &str) -> Self {
        self.who = Who::User(user.into());
        self
    }

    /// Says who asks: the client with this token, with the rights that the token gives beyond the rules. What it opens ends when
    /// the token's time is over: a WebSocket with 3005, and the reason says from where to go on with another one.
    #[cfg(feature = "centrifugo")]
    #[must_use]
    pub fn by_bearer(mut self, bearer: Bearer) -> Self {
        self.who = Who::Bearer(Box::new(bearer));
        self
    }

    /// Says who asks: somebody who does not show who it is, where others do. Under rules that is an anonymous client. Where
    /// nothing is ruled ([`RuleSet::open`](crate::RuleSet::open)) it publishes only if everybody may
    /// ([`Server::client_publish`](crate::Server::client_publish)), and reads as [`Stranger`] says.
    #[must_use]
    pub fn by_stranger(mut self, stranger: Stranger) -> Self {
        self.who = Who::Stranger(stranger);
        self
    }

    /// Says that the application's own server asks, which may do everything.
    #[must_use]
    pub fn by_application(mut self) -> Self {
        self.who = Who::Application;
        self
    }

    /// Whether the client may publish by what it sends on a WebSocket that subscribes to the topic
    /// ([`TopicRules::allow_publish`](crate::TopicRules::allow_publish)).
    pub fn may_publish(&self, request: &Request<'_>) -> bool {
        self.writer(request).may_publish(&request.rules.topics, self.name.as_str())
    }

    /// As whom the client publishes by what it sends on a WebSocket, if it may.
    pub fn writer(&self, request: &Request<'_>) -> Writer {
        let (right, name) = (Right::Publish, self.name.as_str());
        match &self.who {
            Who::Application => Writer::Application,
            who => match request.rules.topics.may(right, name, who.user(), true) {
                Err(denied) if who.is_allowed(denied, right, name) => Writer::Allowed,
                _ if who.user().is_empty() => Writer::Anonymous,
                _ => Writer::User,
            },
        }
    }

    /// Whether the client has these rights; to subscribe is the first that anybody needs.
    fn check(&self, request: &Request<'_>, rights: &[Right]) -> Result<(), Response> {
        let (rules, name) = (&*request.rules.topics, self.name.as_str());
        if name.len() > rules.max_length {
            let detail = format!("shorten the topic's name to at most {} bytes", rules.max_length);
            return Err(refusal(Refused::BadTopic, detail));
        }
        for &right in rights {
            let allowed = match (&self.who, right) {
                (Who::Application, _) if rules.of(name).is_some() => Ok(()),
                (Who::Application, _) => Err(Denied::UnknownNamespace),
                (Who::Stranger(Stranger::Tokenless { reads: false }), _)
                    if rules.is_open() && right != Right::Publish =>
                {
                    Err(Denied::Right(right))
                }
                (who, Right::Subscribe) => rules.may_subscribe(name, who.user()),
                // Without rules, whoever reaches the server is its application, unless that is asked who it is.
                (who, Right::Publish) if rules.is_open() && !matches!(who, Who::Stranger(_)) => Ok(()),
                (who, Right::History) => rules.may(right, name, who.user(), true),
                (who, _) => rules.may(right, name, who.user(), false),
            };
            match allowed {
                Ok(()) => {}
                Err(denied) if self.who.is_allowed(denied, right, name) => {}
                Err(denied @ Denied::UnknownNamespace) => return Err(refusal(Refused::UnknownNamespace, denied)),
                Err(denied) => return Err(refusal(Refused::Forbidden, self.explain(rules, denied))),
            }
        }
        Ok(())
    }

    /// Why it may not, and what would help.
    fn explain(&self, rules: &RuleSet, denied: Denied) -> String {
        const SEND: &str = "no token was sent: send `Authorization: Bearer TOKEN`, or from a page's WebSocket the subprotocols `throng, bearer.TOKEN`";
        let Who::Stranger(stranger) = &self.who else { return denied.to_string() };
        let is_open = rules.is_open();
        match (stranger, denied) {
            (_, Denied::Right(Right::Publish)) if is_open => {
                let key = "the application sends its API key (`X-API-Key: KEY`), and with --client-publish everybody may publish";
                if *stranger == Stranger::Keyless {
                    format!("to publish here, {key}")
                } else {
                    format!("{SEND}; {key}")
                }
            }
            (Stranger::Tokenless { .. }, Denied::Right(_)) if is_open => {
                format!("{SEND}; with --allow-anonymous everybody may read")
            }
            (Stranger::Tokenless { .. }, Denied::Right(right)) => {
                let name = self.name.as_str();
                match rules.may(right, name, SOMEBODY, right == Right::History) {
                    Ok(()) => format!("{SEND}; {denied}"),
                    Err(_) => denied.to_string(),
                }
            }
            (Stranger::Tokenless { .. }, Denied::Limited) => format!("{SEND}; {denied}"),
            _ => denied.to_string(),
        }
    }

    /// As whom a client subscribes; its id comes later. Most are nobody in particular.
    fn member(&self) -> Option<Arc<Author>> {
        let (user, client) = (self.who.user(), Box::default());
        (!user.is_empty())
            .then(|| Arc::new(Author { client, user: user.into(), info: Infos::default(), is_quiet: false }))
    }

    /// The topic.
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// Lets a WebSocket in, as a subscriber from where its request says: each message is one frame, or with
    /// `frames=json` one text frame that carries the cursor too. The subprotocol `throng` is selected if it is offered.
    pub fn open<S>(self, request: &Request<'_>, mut accept: Accept<S>) -> Decision<S> {
        let query = request.query().unwrap_or("");
        let read = || {
            if self.presence {
                return Err(Response::refuse(400, "who is there can only be asked: use GET, without an upgrade"));
            }
            let offers = |wanted: fn(&str) -> bool| request.subprotocols().any(wanted);
            if offers(|offered| offered.starts_with("bearer.")) && !offers(|offered| offered == SUBPROTOCOL) {
                return Err(Refused::BearerAlone.into());
            }
            let (frames, since) = (frames(query)?, since(query, Since::Latest)?);
            self.check(request, rights(&Wanted::Since(since))).map(|()| (frames, since))
        };
        match read() {
            Ok((frames, since)) => {
                let (wanted, member) = (Wanted::Since(since), self.member());
                let (encoding, until) = (frames.encoding(), self.who.until());
                if request.subprotocols().any(|offered| offered == SUBPROTOCOL) && accept.0.subprotocol.is_none() {
                    accept = accept.subprotocol(SUBPROTOCOL);
                }
                accept.1 = Some(Join { name: self.name, wanted, skips: false, encoding, member, until });
                accept.into()
            }
            Err(response) => response.headers(cross_origin(request)).into(),
        }
    }

    /// Answers any other request.
    pub fn answer(self, request: &Request<'_>) -> Answer {
        let asked = match request.method() {
            "GET" if self.presence => {
                self.check(request, &[Right::Presence]).map(|()| (Question::Presence(true), Reply::Presence))
            }
            "OPTIONS" => return options(request).into(),
            _ if self.presence => {
                Err(Response::refuse(405, "who is there can only be asked: use GET").header("Allow", "GET, OPTIONS"))
            }
            "GET" => self.get(request),
            "HEAD" => self.check(request, READING).map(|()| {
                (Question::Read(Read { limit: 0, ..Read::all(Wanted::Since(Since::Latest)) }), Reply::Position)
            }),
            "POST" => (self.check(request, &[Right::Publish]).and_then(|()| post(request)))
                .map(|publication| (Question::Publish(publication), Reply::Published)),
            _ => Err(refusal(Refused::MethodUnknown, Refused::MethodUnknown).header("Allow", ALLOW)),
        };
        match asked {
            Ok((question, reply)) => {
                let mut headers = cross_origin(request);
                if matches!(reply, Reply::Poll { .. } | Reply::Position | Reply::Presence) {
                    headers.push(("Cache-Control".into(), "no-store".into()));
                }
                let until = self.who.until();
                Answer(AnswerKind::Topic(TopicRequest { name: self.name, question, reply, headers, until }))
            }
            Err(response) => response.headers(cross_origin(request)).into(),
        }
    }

    fn get(&self, request: &Request<'_>) -> Result<(Question, Reply), Response> {
        let query = request.query().unwrap_or("");
        if wants_events(request) {
            let (wanted, id) = event_position(request)?;
            let read = match (self.check(request, rights(&wanted)), id) {
                (Ok(()), _) => Read::all(wanted),
                // It sends where it was whether or not it may come back there, and a refusal would end it for ever.
                (Err(_), Some(id)) => {
                    self.check(request, &[Right::Subscribe])?;
                    Read { skips: true, ..Read::all(Wanted::Malformed(id)) }
                }
                (Err(refusal), None) => return Err(refusal),
            };
            return Ok((Question::Read(Read { member: self.member(), ..read }), Reply::Stream));
        }
        self.check(request, READING)?;
        let number = |name: &'static str| {
            let text = first(query, name).map_err(|error| refusal(Refused::BadParameter, error))?;
            let Some(text) = text else { return Ok(None) };
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            // What no u64 holds is more than any limit.
            if digits {
                Ok(Some(text.parse::<u64>().unwrap_or(u64::MAX)))
            } else {
                Err(refusal(Refused::BadParameter, format!("{name} must be a number, in digits alone")))
            }
        };
        let wait = match number("wait")? {
            Some(wait) => wait,
            None => match prefer_wait(request.header_values("Prefer")) {
                None => 0,
                Some(Ok(wait)) => u64::from(wait),
                Some(Err(error)) => return Err(refusal(Refused::BadParameter, error)),
            },
        };
        let limit = number("limit")?.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        if limit == 0 {
            return Err(refusal(Refused::BadParameter, "limit must be at least 1; HEAD gives the cursor alone"));
        }
        // A poll does not wait for longer than its token counts.
        let left = self.who.until().map_or(u64::MAX, |at| at.saturating_sub(request.unix_seconds));
        let wait = (wait > 0).then(|| Duration::from_secs(wait.min(WAIT_S_MAX).min(left)));
        let default = if wait.is_some() { Since::Latest } else { Since::Earliest };
        let wanted = Wanted::Since(since(query, default)?);
        let read = if wait.is_some() { usize::MAX } else { limit };
        Ok((Question::Read(Read { limit: read, ..Read::all(wanted) }), Reply::Poll { limit, wait }))
    }
}

/// What it takes to read what is kept.
const READING: &[Right] = &[Right::Subscribe, Right::History];

/// What it takes to be sent what comes from there on.
fn rights(wanted: &Wanted) -> &'static [Right] {
    match wanted {
        Wanted::Since(Since::Latest) => &[Right::Subscribe],
        Wanted::Since(Since::Earliest) => READING,
        Wanted::Since(Since::At(_)) | Wanted::Offset(_) | Wanted::Malformed(_) => &[Right::Subscribe, Right::Recovery],
    }
}

const ALLOW: &str = "GET, HEAD, POST, OPTIONS";

fn options(request: &Request<'_>) -> Response {
    Response::new(204)
        .header("Allow", ALLOW)
        .header("Access-Control-Allow-Methods", ALLOW)
        .header("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer")
        .header("Access-Control-Max-Age", "7200")
        .headers(cross_origin(request))
}

fn frames(query: &str) -> Result<Frames, Response> {
    match first(query, "frames").map_err(|error| refusal(Refused::BadParameter, error))? {
        None => Ok(Frames::Bare),
        Some(json) if json == "json" => Ok(Frames::Json),
        Some(_) => Err(refusal(Refused::BadParameter, "frames can only be json")),
    }
}

fn since(query: &str, default: Since) -> Result<Since, Response> {
    match first(query, "since").map_err(|error| refusal(Refused::BadParameter, error))? {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| {
            refusal(Refused::BadParameter, "since must be a cursor as the server gave it, or earliest, or latest")
        }),
    }
}

/// Where an EventSource goes on: `Last-Event-ID` wins over `last_event_id`, which wins over `since`. With the id, if it was
/// one.
fn event_position(request: &Request<'_>) -> Result<(Wanted, Option<Box<str>>), Response> {
    let query = request.query().unwrap_or("");
    let parameter = first(query, "last_event_id").map_err(|error| refusal(Refused::BadParameter, error))?;
    // One that cannot be read is malformed, not absent: its client has missed something, and hears of it.
    let header = request.header_values("Last-Event-ID").next().map(String::from_utf8_lossy);
    let id = header.into_iter().chain(parameter).find(|id| !id.is_empty());
    Ok(match id {
        Some(id) => {
            let id: Box<str> = id.into();
            let cursor = id.parse::<Cursor>();
            let wanted = cursor.map_or_else(|_| Wanted::Malformed(id.clone()), |at| Wanted::Since(Since::At(at)));
            (wanted, Some(id))
        }
        None => (Wanted::Since(since(query, Since::Latest)?), None),
    })
}

fn post(request: &Request<'_>) -> Result<Publication, Response> {
    if request.header_list("Content-Encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(refusal(Refused::MediaType, "send the message without a Content-Encoding"));
    }
    let publication = Publication::of_body(request.readable("Content-Type")?, request.body()).map_err(|error| {
        let refused = match error {
            KindError::Charset => Refused::MediaType,
            KindError::MediaType => Refused::HeaderUnreadable,
            KindError::NotJson { .. } | KindError::NotUtf8 { .. } => Refused::BadMessage,
        };
        refusal(refused, error)
    })?;
    let Some(key) = request.header_values("Idempotency-Key").next() else { return Ok(publication) };
    // A key that was left out, or cut, would let a message be published twice.
    match std::str::from_utf8(key) {
        Ok(key) if key.len() <= IDEMPOTENCY_KEY_BYTES_MAX => Ok(publication.idempotency_key(key)),
        _ => Err(refusal(
            Refused::BadParameter,
            format!("Idempotency-Key must be UTF-8, at most {IDEMPOTENCY_KEY_BYTES_MAX} bytes"),
        )),
    }
}
