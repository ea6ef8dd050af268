//! A request, and the head of its answer.

use super::dial::dial;
use super::options::{How, Plan};
use super::refusal;
use super::text::escaped;
use super::words;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use throng::Since;
use throng::client::Url;
use throng::ws::KEY_BYTES;
use throng::ws::deflate::Agreed;

/// Longest head of an answer, in bytes, and most fields in one.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 128;

/// Redirects that are followed, one after another.
const REDIRECTS_MAX: usize = 5;

/// Longest body of an answer that is no stream, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Headers that are for the host alone to which they were meant to go.
const CREDENTIALS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "x-api-key"];

/// What a request is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask<'a> {
    Socket(&'a [u8; KEY_BYTES]),
    /// From behind the event of this id on; empty: none is known.
    Events(&'a str),
    /// Wait so many seconds for something to be there; 0: do not.
    Poll(u32),
    Post(&'a [u8]),
}

/// The head of an answer, and the connection it came on.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Unescaped, like the fields.
    pub(super) reason: String,
    pub(super) fields: Vec<(String, Vec<u8>)>,
    /// What came behind the head.
    pub(super) rest: Vec<u8>,
    pub(super) stream: TcpStream,
    /// From the first packet to the head.
    pub(super) took: Duration,
    /// Where it came from, redirects followed.
    pub(super) url: Url,
}

/// There is nothing to go on with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// Why; escaped.
    pub(super) why: String,
    /// Whether another attempt may go better.
    pub(super) may_pass: bool,
    /// When the server says to come back.
    pub(super) after: Option<Duration>,
}

impl Failed {
    pub(super) fn passing(why: String) -> Self {
        Self { why, may_pass: true, after: None }
    }

    pub(super) fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), may_pass: false, after: None }
    }
}

impl Answer {
    /// The first value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok().map(str::trim)
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether its Content-Type is this one, whatever its parameters.
    pub(super) fn has_type(&self, wanted: &str) -> bool {
        self.field("Content-Type")
            .is_some_and(|value| value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted))
    }

    /// The whole body; cut where it takes longer than `timeout`, or is too long.
    pub(super) fn body(&mut self, timeout: Duration, bytes_max: usize) -> Result<Vec<u8>, String> {
        let deadline = Instant::now() + timeout;
        let mut reader =
            throng::client::BodyReader::new(self.status, self.fields()).map_err(|fault| fault.to_string())?;
        let mut body = reader.push(&self.rest).map_err(|fault| fault.to_string())?;
        while !reader.is_done() && body.len() < bytes_max {
            let mut buffer = [0; 16 * 1024];
            match read(&mut self.stream, &mut buffer, deadline) {
                Ok(0) if reader.ends_with_connection() => break,
                Ok(0) => return Err("the connection was lost in the midst of the answer".to_owned()),
                Ok(length) => body.extend(reader.push(&buffer[..length]).map_err(|fault| fault.to_string())?),
                Err(error) => return Err(format!("the answer was not to be read: {error}")),
            }
        }
        body.truncate(bytes_max);
        Ok(body)
    }

    /// As [`body`](Self::body), of whatever length is taken.
    pub(super) fn whole_body(&mut self, timeout: Duration) -> Result<Vec<u8>, Failed> {
        self.body(timeout, BODY_BYTES_MAX).map_err(Failed::passing)
    }
}

/// What the operator has the server told.
struct Told {
    headers: Vec<(String, String)>,
    /// As the header has them.
    subprotocols: Option<String>,
}

impl Told {
    /// Leaves out what is for the host alone that is left: there, a subprotocol may be a token, too.
    fn leave_host(&mut self) {
        self.headers.retain(|(name, _)| {
            !CREDENTIALS.contains(&&*name.to_ascii_lowercase()) && !name.eq_ignore_ascii_case("host")
        });
        let is_token = |name: &str| name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer."));
        // A header may name them as well.
        let lists = self.headers.iter_mut().filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol"));
        for list in lists.map(|(_, value)| value).chain(&mut self.subprotocols) {
            *list = list.split(',').map(str::trim).filter(|name| !is_token(name)).collect::<Vec<_>>().join(", ");
        }
        self.headers.retain(|(name, value)| !name.eq_ignore_ascii_case("sec-websocket-protocol") || !value.is_empty());
        self.subprotocols.take_if(|names| names.is_empty());
    }
}

/// Sends a request, and follows redirects where it may. Whether the answer is the wanted one is the caller's to say.
pub(super) fn exchange(plan: &Plan, ask: Ask<'_>, mut each_redirect: impl FnMut(&Url)) -> Result<Answer, Failed> {
    let mut url = plan.url.clone();
    let mut told = Told { headers: plan.headers.clone(), subprotocols: plan.subprotocols.clone() };
    for _ in 0..=REDIRECTS_MAX {
        let answer = exchange_once(plan, &url, &told, ask)?;
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) || !plan.location {
            return Ok(answer);
        }
        let Some(location) = answer.field("Location") else { return Ok(answer) };
        let next = redirected(&url, location).map_err(Failed::lasting)?;
        if (&next.host, next.port) != (&url.host, url.port) {
            told.leave_host();
        }
        url = next;
        each_redirect(&url);
    }
    Err(Failed::lasting(format!("there were more than {REDIRECTS_MAX} redirects")))
}

/// Where a redirect leads: a URL, or a path of the same host.
fn redirected(from: &Url, location: &str) -> Result<Url, String> {
    let said = escaped(location);
    let to = match location {
        path if path.starts_with("//") => format!("{}:{path}", from.scheme.name()),
        path if path.starts_with('/') => format!("{}://{}{path}", from.scheme.name(), from.authority),
        url => url.to_owned(),
    };
    Url::parse(&to).map_err(|error| {
        format!("it redirects to {said}, and that cannot be followed: {}", escaped(&error.to_string()))
    })
}

fn exchange_once(plan: &Plan, url: &Url, told: &Told, ask: Ask<'_>) -> Result<Answer, Failed> {
    let started = Instant::now();
    let mut stream = dial(url, plan.timeout).map_err(Failed::passing)?;
    let deadline = Instant::now() + plan.timeout;
    let said = |error: io::Error| Failed::passing(unanswered(&error, plan.timeout));
    stream.set_write_timeout(Some(plan.timeout)).map_err(said)?;
    stream.write_all(&request(plan, url, told, ask)).map_err(said)?;
    // A long poll's answer may take as long as was asked for.
    let deadline = deadline + Duration::from_secs(if let Ask::Poll(wait) = ask { wait.into() } else { 0 });
    let mut bytes = Vec::new();
    loop {
        if let Some((status, reason, fields, length)) = parse(&bytes)? {
            let rest = bytes.split_off(length);
            // What is only said on the way (RFC 9110, section 15.2), such as a 100, is followed by the answer.
            if (100..200).contains(&status) && status != 101 {
                bytes = rest;
                continue;
            }
            return Ok(Answer { status, reason, fields, rest, stream, took: started.elapsed(), url: url.clone() });
        }
        let mut buffer = [0; 16 * 1024];
        match read(&mut stream, &mut buffer, deadline) {
            Ok(0) if bytes.is_empty() => {
                return Err(Failed::passing("the server closed the connection without an answer".to_owned()));
            }
            Ok(0) => {
                return Err(Failed::passing("the server closed the connection in the midst of its answer".to_owned()));
            }
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) => return Err(said(error)),
        }
    }
}

fn unanswered(error: &io::Error, timeout: Duration) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("connected, but there was no answer within {} (--timeout)", words::duration(timeout))
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the server reset the connection instead of answering".to_owned()
        }
        _ => format!("no answer: {error}"),
    }
}

/// Reads what has come, until a deadline.
fn read(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

type Head = (u16, String, Vec<(String, Vec<u8>)>, usize);

/// The head at the start of `bytes`; `None`: it is not whole yet.
fn parse(bytes: &[u8]) -> Result<Option<Head>, Failed> {
    // An alert of TLS (RFC 8446, sections 5.1 and 6): it was taken for a bad ClientHello.
    if matches!(bytes, [0x15, 0x03, ..]) {
        return Err(Failed::lasting(refusal::SPEAKS_TLS));
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            let fields = response.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect();
            let (status, reason) = (response.code.unwrap_or(0), response.reason.unwrap_or_default().to_owned());
            Ok(Some((status, reason, fields, length)))
        }
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => Ok(None),
        _ => {
            let start = super::text::escaped_bytes(&bytes[..bytes.len().min(60)]);
            Err(Failed::lasting(format!("what answers is not HTTP/1.1: it said `{start}`")))
        }
    }
}

/// The bytes of a request. Headers that are told take the place of ours.
fn request(plan: &Plan, url: &Url, told: &Told, ask: Ask<'_>) -> Vec<u8> {
    let Told { headers, subprotocols } = told;
    let mut url = url.clone();
    let since = plan.since.map(|since| match since {
        Since::Earliest => "earliest".to_owned(),
        Since::Latest => "latest".to_owned(),
        Since::At(cursor) => cursor.to_string(),
    });
    if let (Some(since), false) = (since, matches!(ask, Ask::Post(_))) {
        url.set_parameter("since", &since);
    }
    let mut lines = vec![("Host", url.authority.clone()), ("User-Agent", USER_AGENT.to_owned())];
    match ask {
        Ask::Socket(key) => {
            lines.push(("Upgrade", "websocket".to_owned()));
            lines.push(("Connection", "Upgrade".to_owned()));
            lines.push(("Sec-WebSocket-Version", "13".to_owned()));
            lines.push(("Sec-WebSocket-Key", String::from_utf8_lossy(key).into_owned()));
            lines.extend(subprotocols.clone().map(|names| ("Sec-WebSocket-Protocol", names)));
            lines.extend(plan.compression.then(|| ("Sec-WebSocket-Extensions", Agreed::OFFER.to_owned())));
        }
        Ask::Events(last_id) => {
            lines.push(("Accept", "text/event-stream".to_owned()));
            lines.push(("Cache-Control", "no-cache".to_owned()));
            // What cannot stand in a header is not sent back.
            if !last_id.is_empty() && !last_id.chars().any(char::is_control) {
                lines.push(("Last-Event-ID", last_id.to_owned()));
            }
        }
        Ask::Poll(wait) => {
            if plan.how != How::Poll {
                url.set_parameter("wait", &wait.to_string());
            }
            lines.push(("Accept", "application/json".to_owned()));
            lines.push(("Connection", "close".to_owned()));
        }
        Ask::Post(body) => {
            let is_text = std::str::from_utf8(body).is_ok();
            let media_type = if is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
            lines.push(("Content-Type", media_type.to_owned()));
            lines.push(("Content-Length", body.len().to_string()));
            lines.push(("Connection", "close".to_owned()));
        }
    }
    let method = if matches!(ask, Ask::Post(_)) { "POST" } else { "GET" };
    let mut out = format!("{method} {} HTTP/1.1\r\n", url.path);
    let is_theirs = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let ours = lines.iter().filter(|(name, _)| !is_theirs(name)).map(|(name, value)| (*name, &**value));
    for (name, value) in ours.chain(headers.iter().map(|(name, value)| (&**name, &**value))) {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    let mut out = out.into_bytes();
    if let Ask::Post(body) = ask {
        out.extend_from_slice(body);
    }
    out
}

const USER_AGENT: &str = concat!("throng/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_a_url_or_a_path() {
        let from = Url::parse("ws://a:81/b?c").unwrap();
        for (location, to) in [("/d", "ws://a:81/d"), ("//e/f", "ws://e/f"), ("http://g/", "http://g/")] {
            assert_eq!(redirected(&from, location), Url::parse(to).map_err(|error| error.to_string()), "{location}");
        }
        assert!(redirected(&from, "wss://a/").unwrap_err().contains("TLS"));
        assert!(!redirected(&from, "\x1B[2J").unwrap_err().contains('\x1B'));
    }

    #[test]
    fn no_credential_goes_to_another_host() {
        let header = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let all = [
            ("Authorization", "Bearer T"),
            ("Proxy-Authorization", "Basic T"),
            ("cookie", "a=T"),
            ("X-API-Key", "T"),
            ("Host", "a"),
            ("Sec-WebSocket-Protocol", "bearer.T, chat"),
            ("X-Other", "kept"),
        ];
        let mut told =
            Told { headers: all.map(header).to_vec(), subprotocols: Some("throng, bearer.T, Bearer.T2".to_owned()) };
        told.leave_host();
        assert_eq!(told.headers, [("Sec-WebSocket-Protocol", "chat"), ("X-Other", "kept")].map(header));
        assert_eq!(told.subprotocols.as_deref(), Some("throng"));
        let mut told = Told { headers: Vec::new(), subprotocols: Some("bearer.T".to_owned()) };
        told.leave_host();
        assert_eq!(told.subprotocols, None);
    }

    #[test]
    fn an_answer_is_awaited_whole_and_what_is_none_is_told() {
        let text = b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]), Ok(None), "{cut}");
        }
        let (status, reason, fields, length) = parse(text).unwrap().unwrap();
        assert_eq!((status, &*reason, fields.len(), length), (426, "Upgrade Required", 1, text.len()));
        assert!(parse(b"\x15\x03\x01\x00\x02\x02\x46").unwrap_err().why.contains("TLS"));
        let ssh = parse(b"SSH-2.0-OpenSSH\x1B\r\n").unwrap_err().why;
        assert!(ssh.contains("SSH-2.0") && !ssh.contains('\x1B'), "{ssh}");
        assert!(!parse(&[b'a'; 10]).unwrap_err().may_pass);
    }
}
