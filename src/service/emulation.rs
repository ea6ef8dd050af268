//! Centrifugo's sessions without a WebSocket: the requests that begin them, and those that bring their commands.

use super::{Answer, AnswerKind, Begun, Centrifugo, ConnId, Emulated, Mounted, Parcel, Request};
use crate::adapter::centrifugo::codec::{self, Format};
use crate::adapter::centrifugo::emulation::{Body, Stream, Ticket};
use crate::conn;
use crate::error::Refused;
use crate::http::{Response, cross_origin, first};
use crate::limits::CENTRIFUGO_REQUEST_BYTES_MAX;
use std::borrow::Cow;

const HTTP_STREAM: &str = "/connection/http_stream";
const EVENTS: &str = "/connection/sse";
const COMMANDS: &str = "/emulation";
/// The first commands, where a GET has no body for them.
const CONNECT: &str = "cf_connect";

/// What a request at one of these URLs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stream(Body),
    Commands(Format),
}

/// Which of the fallbacks are served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    pub(super) http_stream: bool,
    pub(super) events: bool,
}

fn is_protobuf(request: &Request<'_>) -> bool {
    let media_type = request.header("Content-Type").and_then(|field| field.split(';').next());
    media_type.is_some_and(|name| name.trim().eq_ignore_ascii_case("application/octet-stream"))
}

/// Any page can have its browser GET something, as an image for instance, without an Origin. There browsers say by
/// themselves whether it is a page of ours (Fetch Metadata, section 2.3); what is typed in comes from none.
fn is_of_a_strange_page(request: &Request<'_>) -> bool {
    let has_origin = request.header_values("Origin").next().is_some();
    let site = request.header_values("Sec-Fetch-Site").next().filter(|_| !has_origin);
    site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
}

impl Served {
    fn kind(self, request: &Request<'_>) -> Option<Kind> {
        match request.path() {
            HTTP_STREAM if self.http_stream && is_protobuf(request) => Some(Kind::Stream(Body::Protobuf)),
            HTTP_STREAM if self.http_stream => Some(Kind::Stream(Body::Lines)),
            EVENTS if self.events => Some(Kind::Stream(Body::Events)),
            COMMANDS if !(self.http_stream || self.events) => None,
            COMMANDS if is_protobuf(request) => Some(Kind::Commands(Format::Protobuf)),
            COMMANDS => Some(Kind::Commands(Format::Json)),
            _ => None,
        }
    }
}

impl Kind {
    /// What may be asked of its URL.
    fn allowed(self) -> &'static str {
        if self == Self::Stream(Body::Events) { "GET, POST, OPTIONS" } else { "POST, OPTIONS" }
    }
}

/// What becomes of a request at one of these URLs; `None`: it is at another one.
pub(super) fn begin<T>(served: Served, node: &str, request: &Request<'_>) -> Option<Begun<Mounted<T>>> {
    let kind = served.kind(request)?;
    let answer = match (kind, commands(kind, request)) {
        (_, Err(response)) => Err(response),
        (Kind::Stream(body), Ok(first)) => return Some(Begun::Open(open(body, first, request))),
        (Kind::Commands(format), Ok(body)) => parcel(format, node, &body, request),
    };
    Some(Begun::Answered(match answer {
        Ok(parcel) => Answer(AnswerKind::Parcel(parcel)),
        Err(response) => response.headers(cross_origin(request)).into(),
    }))
}

/// What the request brings; the error answers one that brings nothing, or what it should not.
fn commands<'a>(kind: Kind, request: &Request<'a>) -> Result<Cow<'a, [u8]>, Response> {
    match request.method() {
        "POST" if request.body().len() <= CENTRIFUGO_REQUEST_BYTES_MAX => {
            // What is not JSON must not be taken for it.
            request.readable("Content-Type").map(|_| request.body().into())
        }
        "POST" => {
            let detail = format!("send at most {CENTRIFUGO_REQUEST_BYTES_MAX} bytes of commands at a time");
            Err(Response::detailed(Refused::BodyTooLarge, &detail))
        }
        "GET" if kind == Kind::Stream(Body::Events) && is_of_a_strange_page(request) => {
            Err(Refused::OriginForbidden.into())
        }
        "GET" if kind == Kind::Stream(Body::Events) => match first(request.query().unwrap_or(""), CONNECT) {
            Ok(Some(Cow::Borrowed(commands))) if !commands.is_empty() => Ok(commands.as_bytes().into()),
            Ok(Some(Cow::Owned(commands))) => Ok(commands.into_bytes().into()),
            Ok(_) => {
                Err(Response::detailed(Refused::BadParameter, "give the first commands as cf_connect, or POST them"))
            }
            Err(error) => Err(Response::detailed(Refused::BadParameter, &error.to_string())),
        },
        "OPTIONS" => Err(Response::new(204)
            .header("Allow", kind.allowed())
            .header("Access-Control-Allow-Methods", kind.allowed())
            .header("Access-Control-Allow-Headers", "Content-Type")
            .header("Access-Control-Max-Age", "7200")),
        _ => Err(Response::refuse(405, "commands are sent here: use POST").header("Allow", kind.allowed())),
    }
}

/// Begins a session.
fn open<T>(body: Body, first: Cow<'_, [u8]>, request: &Request<'_>) -> Emulated<Mounted<T>> {
    let stream = Stream { body, is_chunked: request.is_http11() };
    let response = Response::new(200)
        .body(stream.media_type(), stream.beginning())
        .header("Cache-Control", "no-store, no-transform")
        .header("X-Accel-Buffering", "no")
        // What a browser sniffs at it keeps from the page until there is enough of it.
        .header("X-Content-Type-Options", "nosniff")
        .headers(stream.is_chunked.then(|| ("Transfer-Encoding".into(), "chunked".into())))
        .headers(cross_origin(request));
    Emulated(conn::Emulated { state: Mounted::emulated(stream), response, first: first.into_owned() })
}

/// Commands for a session, which is anybody's.
fn parcel(format: Format, node: &str, body: &[u8], request: &Request<'_>) -> Result<Parcel, Response> {
    let commands = codec::emulation(format, body).map_err(|error| {
        Response::detailed(Refused::BadMessage, &format!("send `session`, `node` and `data`: {error}"))
    })?;
    let ticket = Ticket::read(&commands.session).filter(|_| commands.node == node);
    let Ticket { worker, slot, serial, key } = ticket.ok_or(Refused::NoSession)?;
    let headers = cross_origin(request);
    Ok(Parcel { to: ConnId { serial, slot, worker }, key, data: commands.data, headers })
}

impl<S> Centrifugo<S> {
    /// Serves clients that cannot have a WebSocket over responses that go on, `POST /connection/http_stream`. Default: they
    /// are served.
    #[must_use]
    pub fn http_stream(mut self, serve: bool) -> Self {
        self.served.http_stream = serve;
        self
    }

    /// The same over server-sent events, `/connection/sse`. Default: they are served.
    #[must_use]
    pub fn sse(mut self, serve: bool) -> Self {
        self.served.events = serve;
        self
    }
}
