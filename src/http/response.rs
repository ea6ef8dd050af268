//! Responses: each answers one request.

use crate::error::Refused;
use crate::json::push_string;
use std::borrow::Cow;
use std::io::Write;

/// A header field: name and value.
pub(crate) type Field = (Cow<'static, str>, Cow<'static, str>);

/// An HTTP response.
///
/// ```
/// use throng::Response;
///
/// let fine = Response::new(200).body("text/plain", "ok\n");
/// let refused = Response::refuse(403, "only members may listen here").header("X-Try", "/public");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    /// The word for logs and metrics, if it is a refusal.
    refused: Option<Refused>,
    headers: Vec<Field>,
    content_type: &'static str,
    body: Vec<u8>,
    /// The connection serves no other request.
    is_last: bool,
}

impl Response {
    /// An empty response with this status (100 to 999; others are sent as 500).
    pub fn new(status: u16) -> Self {
        let status = if (100..1000).contains(&status) { status } else { 500 };
        Self { status, refused: None, headers: Vec::new(), content_type: "", body: Vec::new(), is_last: false }
    }

    /// A refusal: a problem document (RFC 9457) whose `detail` tells the client what to do.
    pub fn refuse(status: u16, detail: &str) -> Self {
        Self::problem(status, Refused::Service, detail)
    }

    /// Tells the client that here is a WebSocket (426).
    pub fn upgrade_required() -> Self {
        Refused::UpgradeRequired.into()
    }

    /// A refusal from the registry, with a sentence on this very request.
    pub(crate) fn detailed(refused: Refused, detail: &str) -> Self {
        Self::problem(refused.code(), refused, detail)
    }

    fn problem(status: u16, refused: Refused, detail: &str) -> Self {
        let mut response = Self::new(status);
        response.refused = Some(refused);
        let (title, word) = (reason_phrase(response.status), refused.word());
        let start =
            format!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{},\"detail\":", response.status);
        let mut body = start.into_bytes();
        push_string(&mut body, detail.as_bytes());
        body.extend_from_slice(format!(",\"code\":\"{word}\"}}\n").as_bytes());
        response.body("application/problem+json", body)
    }

    /// Adds a header. One that is no valid field is found when the response is sent: the client gets a 500, and
    /// the log says why.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds several.
    #[must_use]
    pub(crate) fn headers(mut self, headers: impl IntoIterator<Item = Field>) -> Self {
        self.headers.extend(headers);
        self
    }

    /// A refusal for an EventSource, which any other status would end for good (HTML, section 9.2.2): it comes back by
    /// itself after this time.
    pub(crate) fn come_back(refused: Refused, retry_ms: u64) -> Self {
        let mut response = Self::new(200).body("text/event-stream", format!("retry: {retry_ms}\n\n"));
        response.refused = Some(refused);
        response.header("Cache-Control", "no-store, no-transform")
    }

    /// Sets the body and its media type.
    #[must_use]
    pub fn body(mut self, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        self.content_type = content_type;
        self.body = body.into();
        self
    }

    /// The connection ends with it, whatever the client wants.
    #[must_use]
    pub(crate) fn last(mut self) -> Self {
        self.is_last = true;
        self
    }

    pub(crate) fn is_last(&self) -> bool {
        self.is_last
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Why it refuses, if it does.
    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// The sentence of a problem document, as JSON has it between the quotes.
    pub(crate) fn detail(&self) -> Option<&str> {
        let body = std::str::from_utf8(&self.body).ok().filter(|_| self.content_type == "application/problem+json")?;
        let (_, rest) = body.split_once(",\"detail\":\"")?;
        Some(rest.rsplit_once("\",\"code\":\"")?.0)
    }

    /// Appends the response. An invalid header makes it a 500.
    pub(crate) fn write(&self, out: &mut Vec<u8>, manner: Manner, date: &Date) {
        if let Some((name, _)) = self.headers.iter().find(|(name, value)| !field_is_valid(name, value)) {
            log::error!("a response has a header that cannot be sent, named {name:?}: answered 500");
            return Self::from(Refused::Internal).write(out, manner, date);
        }
        let connection = match (self.status, manner.persistent) {
            (426, true) => "Upgrade, keep-alive",
            (426, false) => "Upgrade, close",
            (_, true) => "keep-alive",
            (_, false) => "close",
        };
        self.write_start(out, connection, date);
        // What a GET would send is not known to who answers a HEAD with an empty body (RFC 9110, section 8.6).
        if self.status != 204 && !(manner.to_head && self.body.is_empty()) {
            let _ = write!(out, "Content-Length: {}\r\n", self.body.len());
        }
        self.write_fields(out);
        if !manner.to_head && self.status != 204 {
            out.extend_from_slice(&self.body);
        }
    }

    /// Appends a response whose body goes on behind what there is of it, as its headers say or until the connection ends.
    pub(crate) fn begin(&self, out: &mut Vec<u8>, date: &Date) {
        self.write_start(out, "close", date);
        self.write_fields(out);
        out.extend_from_slice(&self.body);
    }

    fn write_start(&self, out: &mut Vec<u8>, connection: &str, date: &Date) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {} {}\r\nConnection: {connection}\r\n", self.status, reason_phrase(self.status),);
        // A date belongs to every answer but those of 1xx and 5xx (RFC 9110, section 6.6.1), and does no harm there.
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }

    fn write_fields(&self, out: &mut Vec<u8>) {
        if !self.content_type.is_empty() {
            let _ = write!(out, "Content-Type: {}\r\n", self.content_type);
        }
        for (name, value) in &self.headers {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// How a response is written, which follows from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// It answers a HEAD: there is no body.
    pub(crate) to_head: bool,
    /// The connection serves another request after this one.
    pub(crate) persistent: bool,
}

impl Manner {
    /// The last response on its connection.
    pub(crate) const LAST: Self = Self { to_head: false, persistent: false };
}

/// The current time as a `Date` header has it.
pub(crate) type Date = [u8; 29];

impl From<Refused> for Response {
    fn from(refused: Refused) -> Self {
        let response = Self::problem(refused.code(), refused, refused.text());
        match refused.code() {
            405 => response.header("Allow", "GET"),
            // What is needed, as RFC 9110, section 15.5.22 and RFC 6455, section 4.4 ask for.
            426 => response.header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13"),
            // It is for the client to close what it has, which takes longer than a moment's lack of room.
            429 => response.header("Retry-After", "30"),
            503 => response.header("Retry-After", "5"),
            _ => response,
        }
    }
}

/// Appends the answer that turns a connection into a WebSocket (RFC 6455, section 4.2.2). Fields must be valid.
pub(crate) fn write_switching_protocols(
    out: &mut Vec<u8>,
    accept: &[u8],
    subprotocol: Option<&str>,
    headers: &[Field],
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept);
    out.extend_from_slice(b"\r\n");
    if let Some(subprotocol) = subprotocol {
        let _ = write!(out, "Sec-WebSocket-Protocol: {subprotocol}\r\n");
    }
    for (name, value) in headers {
        let _ = write!(out, "{name}: {value}\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a name and value can be sent as a header field (RFC 9110, section 5.5): nothing that would end the
/// line early.
pub(crate) fn field_is_valid(name: &str, value: &str) -> bool {
    token_is_valid(name.as_bytes()) && value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7F))
}

/// Whether it is a token (RFC 9110, section 5.6.2).
pub(crate) fn token_is_valid(token: &[u8]) -> bool {
    !token.is_empty() && token.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// The reason phrase of a status (RFC 9110, section 15); empty if it has none here.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::imf_fixdate;

    fn written(response: &Response, to_head: bool) -> String {
        let mut out = Vec::new();
        response.write(&mut out, Manner { to_head, persistent: false }, &imf_fixdate(784_111_777));
        String::from_utf8(out).expect("responses here are text")
    }

    #[test]
    fn an_upgrade_required_says_to_what() {
        let text = written(&Refused::VersionUnsupported.into(), false);
        for line in [
            "HTTP/1.1 426 Upgrade Required",
            "Connection: Upgrade, close",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
        ] {
            assert!(text.contains(&format!("{line}\r\n")), "{text}");
        }
    }

    #[test]
    fn a_head_request_gets_the_length_but_no_body() {
        let response = Response::new(200).body("text/plain", "ok\n");
        assert!(
            written(&response, true).ends_with(
                "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 3\r\nContent-Type: text/plain\r\n\r\n"
            )
        );
        assert!(written(&response, false).ends_with("\r\n\r\nok\n"));
    }

    #[test]
    fn a_header_cannot_smuggle_a_line() {
        let response = Response::new(200).header("X-Name", "a\r\nSet-Cookie: b");
        let text = written(&response, false);
        assert!(text.starts_with("HTTP/1.1 500 ") && !text.contains("Set-Cookie"));
    }

    #[test]
    fn details_are_json() {
        let text = written(&Response::refuse(403, "say \"please\"\n\\"), false);
        assert!(text.contains(r#""detail":"say \"please\"\n\\","code":"service"}"#), "{text}");
    }

    #[test]
    fn every_status_in_the_registry_has_a_phrase() {
        assert!(Refused::ALL.iter().all(|refused| !reason_phrase(refused.code()).is_empty()));
    }
}
