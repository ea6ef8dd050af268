//! Topics for services: what a request asks of one, and the URLs under which they are served.

use super::{Accept, Decision, Request};
use crate::error::Refused;
use crate::http::{Response, accepts, first, prefer_wait};
use crate::topic::{self, Cursor, Encoding, From, Kind, KindError, Since, TopicName, kind_of};
use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

/// Longest that a long poll waits, in seconds; who asks for more gets this.
const WAIT_S_MAX: u64 = 60;
/// The prefix of topics' URLs.
const PREFIX: &str = "/topics/";

/// Header fields of an answer.
pub(crate) type Headers = Vec<(Cow<'static, str>, Cow<'static, str>)>;

/// The answer to a request that is no upgrade: a [`Response`], or what a topic makes of it.
#[derive(Debug)]
pub struct Answer(pub(crate) Kind_);

#[derive(Debug)]
pub(crate) enum Kind_ {
    Now(Response),
    Topic(TopicRequest),
}

impl std::convert::From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self(Kind_::Now(response))
    }
}

/// What is asked of a topic, and how the answer is written.
#[derive(Debug)]
pub(crate) struct TopicRequest {
    pub(crate) name: TopicName,
    pub(crate) question: Question,
    pub(crate) reply: Reply,
    pub(crate) headers: Headers,
}

/// What a WebSocket subscribes to, from where, and how its messages are written.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) name: TopicName,
    pub(crate) since: Since,
    pub(crate) encoding: Encoding,
}

#[derive(Debug)]
pub(crate) enum Question {
    Publish { kind: Kind, payload: Box<[u8]>, key: Option<Box<[u8]>> },
    Read { from: From, limit: usize, attach: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The WebSocket is opened, and gets the messages in this encoding.
    Open(Encoding),
    /// Server-sent events.
    Stream,
    /// An array, or nothing once the time is up.
    Poll { limit: usize, wait: Option<Duration> },
    /// The cursor alone.
    Position,
    /// The cursor that a publication got.
    Published,
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
}

/// A refusal that names what is wrong with this request.
fn refusal(refused: Refused, detail: impl Display) -> Response {
    Response::detailed(refused, &detail.to_string())
}

impl TopicUrl {
    /// The topic that a request's path names; `None` for any other path, a refusal for a name that cannot be.
    pub fn of(request: &Request<'_>) -> Option<Result<Self, Response>> {
        let segment = request.path().strip_prefix(PREFIX)?;
        let name = TopicName::from_path_segment(segment.as_bytes());
        Some(name.map(|name| Self { name }).map_err(|error| refusal(Refused::BadTopic, error)))
    }

    /// The topic.
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// Lets a WebSocket in, as a subscriber from where its request says: each message is one frame, or with
    /// `frames=json` one text frame that carries the cursor too.
    pub fn open<S>(self, request: &Request<'_>, mut accept: Accept<S>) -> Decision<S> {
        let query = request.query().unwrap_or("");
        let encoding = match first(query, "frames") {
            Ok(None) => Encoding::Frame,
            Ok(Some(json)) if json == "json" => Encoding::JsonFrame,
            Ok(Some(_)) => return refusal(Refused::BadParameter, "frames can only be json").into(),
            Err(error) => return refusal(Refused::BadParameter, error).into(),
        };
        let since = match since(query, Since::Latest) {
            Ok(since) => since,
            Err(response) => return response.into(),
        };
        accept.1 = Some(Join { name: self.name, since, encoding });
        accept.into()
    }

    /// Answers any other request.
    pub fn answer(self, request: &Request<'_>) -> Answer {
        let asked = match request.method() {
            "GET" => self.get(request),
            "HEAD" => {
                Ok((Question::Read { from: From::Since(Since::Latest), limit: 0, attach: false }, Reply::Position))
            }
            "POST" => post(request).map(|question| (question, Reply::Published)),
            "OPTIONS" => return options(request).into(),
            _ => Err(refusal(Refused::MethodUnknown, Refused::MethodUnknown).header("Allow", ALLOW)),
        };
        match asked {
            Ok((question, reply)) => {
                let mut headers = headers(request);
                if matches!(reply, Reply::Poll { .. } | Reply::Position) {
                    headers.push(("Cache-Control".into(), "no-store".into()));
                }
                Answer(Kind_::Topic(TopicRequest { name: self.name, question, reply, headers }))
            }
            Err(response) => headers(request)
                .into_iter()
                .fold(response, |response, (name, value)| response.header(name, value))
                .into(),
        }
    }

    fn get(&self, request: &Request<'_>) -> Result<(Question, Reply), Response> {
        let query = request.query().unwrap_or("");
        if accepts(request.header_values("Accept"), "text/event-stream") {
            return Ok((
                Question::Read { from: event_position(request)?, limit: usize::MAX, attach: true },
                Reply::Stream,
            ));
        }
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
        let wait = (wait > 0).then(|| Duration::from_secs(wait.min(WAIT_S_MAX)));
        let default = if wait.is_some() { Since::Latest } else { Since::Earliest };
        let from = From::Since(since(query, default)?);
        let attach = wait.is_some();
        let read = if attach { usize::MAX } else { limit };
        Ok((Question::Read { from, limit: read, attach }, Reply::Poll { limit, wait }))
    }
}

const ALLOW: &str = "GET, HEAD, POST, OPTIONS";

/// What a page of another origin needs to read the answer.
fn headers(request: &Request<'_>) -> Headers {
    let mut headers: Headers = vec![("Vary".into(), "Accept, Origin".into())];
    if let Some(origin) = request.header("Origin") {
        headers.push(("Access-Control-Allow-Origin".into(), origin.to_owned().into()));
        headers.push(("Access-Control-Expose-Headers".into(), "Throng-Cursor".into()));
    }
    headers
}

fn options(request: &Request<'_>) -> Response {
    let response = Response::new(204).header("Allow", ALLOW);
    let response = response
        .header("Access-Control-Allow-Methods", ALLOW)
        .header("Access-Control-Allow-Headers", "Content-Type, Idempotency-Key, Last-Event-ID, Prefer")
        .header("Access-Control-Max-Age", "7200");
    headers(request).into_iter().fold(response, |response, (name, value)| response.header(name, value))
}

fn since(query: &str, default: Since) -> Result<Since, Response> {
    match first(query, "since").map_err(|error| refusal(Refused::BadParameter, error))? {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| {
            refusal(Refused::BadParameter, "since must be a cursor as the server gave it, or earliest, or latest")
        }),
    }
}

/// Where an EventSource goes on: `Last-Event-ID` wins over `last_event_id`, which wins over `since`.
fn event_position(request: &Request<'_>) -> Result<From, Response> {
    let query = request.query().unwrap_or("");
    let parameter = first(query, "last_event_id").map_err(|error| refusal(Refused::BadParameter, error))?;
    let header = request.header("Last-Event-ID").map(Cow::from);
    let id = header.into_iter().chain(parameter).find(|id| !id.is_empty());
    Ok(match id {
        Some(id) => {
            id.parse::<Cursor>().map_or_else(|_| From::Malformed(id.as_ref().into()), |at| From::Since(Since::At(at)))
        }
        None => From::Since(since(query, Since::Latest)?),
    })
}

fn post(request: &Request<'_>) -> Result<Question, Response> {
    if request.header_list("Content-Encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(refusal(Refused::MediaType, "send the message without a Content-Encoding"));
    }
    let kind = kind_of(request.header("Content-Type"), request.body()).map_err(|error| {
        let refused = if matches!(error, KindError::Charset) { Refused::MediaType } else { Refused::BadMessage };
        refusal(refused, error)
    })?;
    let key = request.header("Idempotency-Key").map(|key| key.as_bytes().into());
    Ok(Question::Publish { kind, payload: request.body().into(), key })
}

/// The kind of a message that came over a WebSocket, or from the service itself.
pub(crate) fn kind_of_message(message: super::Message<'_>) -> (Kind, Box<[u8]>) {
    match message {
        super::Message::Text(text) => (topic::Kind::Text, text.as_bytes().into()),
        super::Message::Binary(bytes) => (topic::Kind::Bytes, bytes.into()),
    }
}
