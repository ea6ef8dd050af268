//! How a connection is opened, from the client's side, sans-IO: the request's text, made once, and the judgement of the
//! answer: a WebSocket's (RFC 6455, section 4.1) or an event stream's. Polls are in `poll`.

use crate::reason::Failure;
use throng::client::{Offered, SwitchFault, check_switch};
use throng::mem::Rng;
use throng::ws::{KEY_BYTES, accept_value, client_key, key_is_valid};

/// Key pairs drawn at the start. Connections use them in turn, so that nobody hashes in the loop, and a
/// server that answers everyone with the same value is found out.
pub(crate) const KEYS: usize = 64;

/// Longest head of an answer, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 64;

/// A key and the accept value that belongs to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyPair {
    pub(crate) key: [u8; KEY_BYTES],
    pub(crate) accept: [u8; 28],
}

impl KeyPair {
    /// Draws a key.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let nonce = (u128::from(rng.next()) << 64 | u128::from(rng.next())).to_ne_bytes();
        let key = client_key(nonce);
        Self { key, accept: accept_value(&key) }
    }

    /// A key chosen by somebody else.
    pub(crate) fn given(key: &str) -> Option<Self> {
        let key = <[u8; KEY_BYTES]>::try_from(key.as_bytes()).ok().filter(|key| key_is_valid(key))?;
        Some(Self { key, accept: accept_value(&key) })
    }
}

/// The subprotocols that a WebSocket offers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Offer<'a> {
    None,
    /// Comma-separated; the server takes one of them or none.
    Any(&'a str),
    /// The server has to take it.
    Only(&'a str),
}

impl<'a> Offer<'a> {
    fn list(self) -> Option<&'a str> {
        match self {
            Self::None => None,
            Self::Any(list) | Self::Only(list) => Some(list),
        }
    }
}

/// What a request asks for. A cursor that is empty is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask<'a> {
    /// A WebSocket.
    Socket(&'a [u8; KEY_BYTES], Offer<'a>),
    /// A WebSocket whose frames carry cursors, from one on.
    Frames(&'a [u8; KEY_BYTES], Offer<'a>, &'a [u8]),
    /// An event stream, from behind an event on.
    Events(&'a [u8]),
    /// What lies behind a cursor now, perhaps nothing, and where that ends.
    Poll(&'a [u8]),
    /// The same as soon as there is something, or when so many seconds are over.
    LongPoll(&'a [u8], u64),
}

/// A request, but for what it asks.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `GET` and the target.
    start: Vec<u8>,
    /// What a parameter begins with: `?`, or `&` where the target has a query.
    separator: u8,
    /// The rest of the line, and the fields that all have.
    rest: Vec<u8>,
}

impl Request {
    /// `fields` are further header lines, each with its CR LF.
    pub(crate) fn new(path: &str, host: &str, fields: &str) -> Self {
        let separator = if path.contains('?') { b'&' } else { b'?' };
        let rest = format!(" HTTP/1.1\r\nHost: {host}\r\n{fields}");
        Self { start: format!("GET {path}").into_bytes(), separator, rest: rest.into_bytes() }
    }

    /// Writes the whole request over `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, ask: Ask<'_>) {
        out.clear();
        out.extend_from_slice(&self.start);
        let mut separator = self.separator;
        let mut parameter = |name: &str, value: &[u8]| {
            if !value.is_empty() {
                out.push(std::mem::replace(&mut separator, b'&'));
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(value);
            }
        };
        match ask {
            Ask::Socket(..) | Ask::Events(_) => {}
            Ask::Frames(_, _, since) => {
                parameter("frames=", b"json");
                parameter("since=", since);
            }
            Ask::Poll(since) => parameter("since=", if since.is_empty() { b"latest" } else { since }),
            Ask::LongPoll(since, wait) => {
                parameter("wait=", wait.to_string().as_bytes());
                parameter("since=", since);
            }
        }
        out.extend_from_slice(&self.rest);
        match ask {
            Ask::Socket(key, offer) | Ask::Frames(key, offer, _) => {
                if let Some(list) = offer.list() {
                    out.extend_from_slice(b"Sec-WebSocket-Protocol: ");
                    out.extend_from_slice(list.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n");
                out.extend_from_slice(b"Sec-WebSocket-Key: ");
                out.extend_from_slice(key);
                out.extend_from_slice(b"\r\n");
            }
            Ask::Events(since) => {
                out.extend_from_slice(b"Accept: text/event-stream\r\n");
                if !since.is_empty() {
                    out.extend_from_slice(b"Last-Event-ID: ");
                    out.extend_from_slice(since);
                    out.extend_from_slice(b"\r\n");
                }
            }
            Ask::Poll(_) | Ask::LongPoll(..) => out.extend_from_slice(b"Accept: application/json\r\n"),
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// The head is not whole yet.
    Partial,
    /// Open: the head took this many bytes, and frames or events follow. The topic stands at this cursor, if the server
    /// said so.
    Open(usize, &'a [u8]),
    /// Not open, and why.
    Failed(Failure),
}

/// Judges what has come of an answer to a key whose accept value is `accept`.
pub(crate) fn judge<'a>(bytes: &'a [u8], accept: &[u8; 28], offer: Offer<'_>) -> Answer<'a> {
    judge_head(bytes, 101, |fields| check_fields(fields, accept, offer))
}

/// Judges what has come of an answer that is to be an event stream.
pub(crate) fn judge_events(bytes: &[u8]) -> Answer<'_> {
    judge_head(bytes, 200, |fields| {
        let is_events = |value: &[u8]| {
            let name = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
            name.eq_ignore_ascii_case(b"text/event-stream")
        };
        let has_type =
            fields.iter().any(|field| field.name.eq_ignore_ascii_case("content-type") && is_events(field.value));
        // Chunks would have to be taken apart.
        let is_chunked = fields.iter().any(|field| field.name.eq_ignore_ascii_case("transfer-encoding"));
        if has_type && !is_chunked { Ok(()) } else { Err(Failure::BadStream) }
    })
}

fn judge_head(
    bytes: &[u8],
    status: u16,
    check: impl FnOnce(&[httparse::Header<'_>]) -> Result<(), Failure>,
) -> Answer<'_> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Answer::Partial,
        _ => return Answer::Failed(Failure::NotHttp),
    };
    if response.code != Some(status) {
        return Answer::Failed(Failure::Status(response.code.unwrap_or(0)));
    }
    match check(response.headers) {
        Ok(()) => {
            let cursor = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("throng-cursor"));
            Answer::Open(length, cursor.map_or(b"", |field| field.value.trim_ascii()))
        }
        Err(failure) => Answer::Failed(failure),
    }
}

/// The client's duties on the fields of a 101. No extension is offered, so none may be used.
fn check_fields(fields: &[httparse::Header<'_>], accept: &[u8; 28], offer: Offer<'_>) -> Result<(), Failure> {
    let offered =
        Offered { accept, protocols: offer.list(), protocol_needed: matches!(offer, Offer::Only(_)), deflate: false };
    match check_switch(fields.iter().map(|field| (field.name, field.value)), &offered) {
        Ok(_) => Ok(()),
        Err(SwitchFault::AcceptMissing | SwitchFault::AcceptWrong) => Err(Failure::BadAccept),
        Err(_) => Err(Failure::BadUpgrade),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: &[u8; 28] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nCONNECTION: keep-alive, Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn every_key_drawn_is_valid() {
        let mut rng = Rng::new(1);
        for _ in 0..1000 {
            let pair = KeyPair::draw(&mut rng);
            assert!(throng::ws::key_is_valid(&pair.key), "{:?}", String::from_utf8_lossy(&pair.key));
        }
    }

    #[test]
    fn an_answer_is_awaited_whole() {
        for cut in 0..GOOD.len() {
            assert_eq!(judge(&GOOD.as_bytes()[..cut], ACCEPT, Offer::None), Answer::Partial, "cut at {cut}");
        }
        let with_frames = format!("{GOOD}\u{1}frames");
        assert_eq!(judge(with_frames.as_bytes(), ACCEPT, Offer::None), Answer::Open(GOOD.len(), b""));
    }

    #[test]
    fn wrong_answers_are_told_apart() {
        let cases = [
            ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo0", Failure::BadAccept),
            ("Sec-WebSocket-Accept", "Sec-WebSocket-Accepts", Failure::BadAccept),
            ("WebSocket\r", "h2c\r", Failure::BadUpgrade),
            ("keep-alive, Upgrade", "keep-alive", Failure::BadUpgrade),
            ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", Failure::BadUpgrade),
            ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n", Failure::BadUpgrade),
            ("101 Switching Protocols", "503 Service Unavailable", Failure::Status(503)),
            ("HTTP/1.1", "SSH-2.0 ", Failure::NotHttp),
        ];
        for (from, to, failure) in cases {
            let answer = GOOD.replacen(from, to, 1);
            assert_eq!(judge(answer.as_bytes(), ACCEPT, Offer::None), Answer::Failed(failure), "{answer}");
        }
        let chat = GOOD.replacen("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n", 1);
        assert_eq!(judge(chat.as_bytes(), ACCEPT, Offer::Any("soap, chat")), Answer::Open(chat.len(), b""));
        assert_eq!(judge(chat.as_bytes(), ACCEPT, Offer::Only("chat")), Answer::Open(chat.len(), b""));
        assert_eq!(judge(GOOD.as_bytes(), ACCEPT, Offer::Any("chat")), Answer::Open(GOOD.len(), b""));
        assert_eq!(judge(GOOD.as_bytes(), ACCEPT, Offer::Only("chat")), Answer::Failed(Failure::BadUpgrade));
        assert_eq!(judge(&[b'a'; HEAD_BYTES_MAX], ACCEPT, Offer::None), Answer::Failed(Failure::NotHttp));
    }

    #[test]
    fn an_event_stream_is_known_by_its_head() {
        let good = "HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n\r\n";
        for cut in 0..good.len() {
            assert_eq!(judge_events(&good.as_bytes()[..cut]), Answer::Partial, "cut at {cut}");
        }
        assert_eq!(judge_events(format!("{good}id: 1").as_bytes()), Answer::Open(good.len(), b""));
        let cases = [
            ("Text/Event-Stream", "text/html", Failure::BadStream),
            ("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n", Failure::BadStream),
            ("200 OK", "503 No", Failure::Status(503)),
        ];
        for (from, to, failure) in cases {
            assert_eq!(judge_events(good.replacen(from, to, 1).as_bytes()), Answer::Failed(failure), "{to}");
        }
    }

    #[test]
    fn a_request_says_what_is_asked() {
        let line = |path: &str, ask| {
            let mut out = Vec::new();
            Request::new(path, "h", "X: y\r\n").write(&mut out, ask);
            String::from_utf8(out).unwrap()
        };
        let key = b"dGhlIHNhbXBsZSBub25jZQ==";
        assert!(
            line("/a", Ask::Socket(key, Offer::None))
                .starts_with("GET /a HTTP/1.1\r\nHost: h\r\nX: y\r\nUpgrade: websocket\r\n")
        );
        assert!(
            line("/a", Ask::Frames(key, Offer::None, b"e-1")).starts_with("GET /a?frames=json&since=e-1 HTTP/1.1\r\n")
        );
        assert!(line("/a?b", Ask::Frames(key, Offer::None, b"")).starts_with("GET /a?b&frames=json HTTP/1.1\r\n"));
        assert!(line("/a", Ask::Socket(key, Offer::Any("a, b"))).contains("\r\nSec-WebSocket-Protocol: a, b\r\n"));
        assert!(line("/a", Ask::Events(b"e-1")).ends_with("Accept: text/event-stream\r\nLast-Event-ID: e-1\r\n\r\n"));
        assert!(line("/a", Ask::Poll(b"")).starts_with("GET /a?since=latest HTTP/1.1\r\n"));
        assert!(line("/a", Ask::LongPoll(b"e-1", 25)).starts_with("GET /a?wait=25&since=e-1 HTTP/1.1\r\n"));
    }
}
