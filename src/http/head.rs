//! The request head (RFC 9112, sections 2 to 5): found, parsed, checked.

use super::body::Framing;
use super::response::Response;
use crate::error::Refused;
use crate::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX};
use std::mem::MaybeUninit;

/// Looks for the end of a head in bytes that arrive piece by piece. Each byte is looked at once, however
/// small the pieces are; a line that ends in LF alone is refused as soon as it shows, since its sender may
/// believe that the head is complete.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadScan {
    /// Bytes looked at. Invariant: line <= seen.
    seen: usize,
    /// Where the current line starts.
    line: usize,
}

impl HeadScan {
    /// Goes on over `bytes`, which start where they always did: the head's length, once it is there.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refused> {
        // Whatever is not text (a TLS ClientHello, say) is not worth waiting for.
        if bytes.first().is_some_and(|&first| !first.is_ascii_graphic() && first != b'\r' && first != b'\n') {
            return Err(Refused::BadRequestLine);
        }
        // What lies behind the limit is not looked at: it may be wrong in another way, or not have come yet.
        let bounded = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        while let Some(offset) = bounded[self.seen..].iter().position(|&byte| byte == b'\n') {
            let lf = self.seen + offset;
            if lf == self.line || bounded[lf - 1] != b'\r' {
                return Err(Refused::BareLf);
            }
            // One empty line before the request line is ignored (section 2.2).
            let empty = lf - 1 == self.line && self.line > 0;
            self.seen = lf + 1;
            self.line = lf + 1;
            if empty && lf > 3 {
                return Ok(Some(lf + 1));
            }
        }
        self.seen = bounded.len();
        if bytes.len() > HEAD_BYTES_MAX { Err(Refused::HeadTooLarge) } else { Ok(None) }
    }
}

/// Room for the fields of one head.
pub(crate) struct Fields<'b>([MaybeUninit<httparse::Header<'b>>; HEAD_FIELDS_MAX]);

impl Fields<'_> {
    pub(crate) fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX])
    }
}

/// A request's head: the request line and the header fields, borrowed from the bytes that came.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    /// HTTP/1.x.
    minor_version: u8,
    fields: &'a [httparse::Header<'a>],
}

impl<'a> Head<'a> {
    /// Parses a whole head as [`HeadScan`] found it, and checks what concerns every request: the syntax of the
    /// target, Host, and the body's length.
    pub(crate) fn parse<'b: 'a>(bytes: &'b [u8], fields: &'a mut Fields<'b>) -> Result<Self, Refused> {
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut fields.0) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Refused::BadRequestLine),
            Err(error) => return Err(diagnose(bytes, error)),
        }
        let (Some(method), Some(target), Some(minor_version)) = (request.method, request.path, request.version) else {
            return Err(Refused::BadRequestLine);
        };
        let target = origin_form(target).ok_or(Refused::BadTarget)?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let head = Self { method, path, query, minor_version, fields: request.headers };
        head.check_host()?;
        head.framing()?;
        Ok(head)
    }

    /// The method, as sent: methods are case-sensitive.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The path, as sent: not percent-decoded. It starts with `/`, or is empty for an absolute URI without one.
    pub fn path(&self) -> &'a str {
        if self.path.is_empty() { "/" } else { self.path }
    }

    /// What follows the first `?`, as sent.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// Whether the request is HTTP/1.1; else it is HTTP/1.0.
    pub fn is_http11(&self) -> bool {
        self.minor_version == 1
    }

    /// The header fields in the order they came: name as sent, value without surrounding white space.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.fields.iter().map(|field| (field.name, field.value))
    }

    /// The values of all fields of that name, in any case.
    pub fn header_values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.headers().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of the first field of that name, in any case, if it is UTF-8. Where one that is not must not pass for none,
    /// look at [`header_values`](Self::header_values).
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.header_values(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// As [`header`](Self::header), where one that cannot be read must not pass for none.
    pub(crate) fn readable(&self, name: &str) -> Result<Option<&'a str>, Response> {
        let Some(value) = self.header_values(name).next() else { return Ok(None) };
        std::str::from_utf8(value).map(Some).map_err(|_| {
            let detail = format!("{name} is not UTF-8: send it in ASCII, or leave it out");
            Response::detailed(Refused::HeaderUnreadable, &detail)
        })
    }

    /// The members of a comma-separated list, over all fields of that name (RFC 9110, section 5.6.1): empty
    /// ones left out, white space trimmed, as sent otherwise.
    pub fn header_list<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.header_values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    }

    /// Whether a list holds a token, in any case.
    pub fn header_has_token(&self, name: &str, token: &str) -> bool {
        self.header_list(name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The only value of a field: `absent` or `repeated` when there is not exactly one.
    pub(crate) fn only(&self, name: &str, absent: Refused, repeated: Refused) -> Result<&'a [u8], Refused> {
        let mut values = self.header_values(name);
        let value = values.next().ok_or(absent)?;
        if values.next().is_some() { Err(repeated) } else { Ok(value) }
    }

    /// The subprotocols that a WebSocket client offers, most wanted first (RFC 6455, section 11.3.4).
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.header_list("Sec-WebSocket-Protocol").filter_map(|protocol| std::str::from_utf8(protocol).ok())
    }

    /// How the end of the body is found (RFC 9112, section 6.3).
    pub(crate) fn framing(&self) -> Result<Framing, Refused> {
        Ok(Framing::of(self.headers(), !self.is_http11())?)
    }

    /// Whether the connection may serve another request after this one (RFC 9112, section 9.3).
    pub(crate) fn is_persistent(&self) -> bool {
        let says = |token| self.header_has_token("Connection", token);
        !says("close") && (self.is_http11() || says("keep-alive"))
    }

    /// Whether the client waits for a word before it sends the body (RFC 9110, section 10.1.1).
    pub(crate) fn expects_continue(&self) -> Result<bool, Refused> {
        let mut expectations = self.header_list("Expect").peekable();
        let expects = self.is_http11() && expectations.peek().is_some();
        if expectations.all(|one| one.eq_ignore_ascii_case(b"100-continue")) {
            Ok(expects)
        } else {
            Err(Refused::Expectation)
        }
    }

    /// Exactly one Host, and a sensible one (RFC 9112, section 3.2); HTTP/1.0 may do without.
    fn check_host(&self) -> Result<(), Refused> {
        let host = match self.only("Host", Refused::HostMissing, Refused::HostRepeated) {
            Err(Refused::HostMissing) if !self.is_http11() => return Ok(()),
            host => host?,
        };
        if host_is_valid(host) { Ok(()) } else { Err(Refused::HostInvalid) }
    }
}

/// Whether it is HOST or HOST:PORT, the host a name, an IPv4 address or an IPv6 address in brackets (RFC 3986,
/// section 3.2.2), as far as the characters go.
fn host_is_valid(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|&byte| byte == b':' || byte == b']') {
        Some(colon) if host[colon] == b':' => (&host[..colon], &host[colon + 1..]),
        _ => (host, &host[..0]),
    };
    let name_is_valid = match name {
        [b'[', address @ .., b']'] => address.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte)),
        _ => name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(byte)),
    };
    !name.is_empty() && name_is_valid && port.iter().all(u8::is_ascii_digit)
}

/// The path and query of a target in origin-form or absolute-form (RFC 9112, section 3.2).
fn origin_form(target: &str) -> Option<&str> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains('#') {
        return None;
    }
    if target.starts_with('/') {
        return Some(target);
    }
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let authority = rest.find(['/', '?']).unwrap_or(rest.len());
    (authority > 0).then(|| &rest[authority..])
}

/// Names the fault of a head that did not parse.
#[cold]
fn diagnose(bytes: &[u8], error: httparse::Error) -> Refused {
    if bytes.contains(&0) {
        return Refused::NulByte;
    }
    match error {
        httparse::Error::Version | httparse::Error::Token => diagnose_request_line(bytes),
        httparse::Error::TooManyHeaders => Refused::TooManyFields,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => bytes
            .split(|&byte| byte == b'\n')
            .skip(1)
            .find_map(|line| {
                let name = line.split(|&byte| byte == b':').next()?;
                match (line.first()?, name.last()?) {
                    (b' ' | b'\t', _) => Some(Refused::ObsoleteFolding),
                    (_, b' ' | b'\t') if name.len() < line.len() => Some(Refused::SpaceBeforeColon),
                    _ => None,
                }
            })
            .unwrap_or(Refused::BadHeader),
        _ => Refused::BadRequestLine,
    }
}

fn diagnose_request_line(bytes: &[u8]) -> Refused {
    let line = bytes.trim_ascii_start().split(|&byte| byte == b'\r').next().unwrap_or_default();
    let parts: Vec<_> = line.split(|&byte| byte == b' ').collect();
    match parts[..] {
        [_, target, _] if !target.iter().all(u8::is_ascii_graphic) => Refused::BadTarget,
        [_, _, version] if version != b"HTTP/1.1" && version != b"HTTP/1.0" => Refused::BadVersion,
        _ => Refused::BadRequestLine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<(String, String, Option<String>), Refused> {
        let mut fields = Fields::new();
        let head = Head::parse(head.as_bytes(), &mut fields)?;
        Ok((head.method().to_owned(), head.path().to_owned(), head.query().map(str::to_owned)))
    }

    fn end_of(bytes: &[u8]) -> Result<Option<usize>, Refused> {
        let whole = HeadScan::default().advance(bytes);
        let (mut scan, mut stepwise) = (HeadScan::default(), Ok(None));
        for length in 1..=bytes.len() {
            stepwise = scan.advance(&bytes[..length]);
            if stepwise != Ok(None) {
                break;
            }
        }
        assert_eq!(whole, stepwise, "{:?}", String::from_utf8_lossy(bytes));
        whole
    }

    #[test]
    fn the_end_is_found_whatever_the_pieces() {
        assert_eq!(end_of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest"), Ok(Some(27)));
        assert_eq!(end_of(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Some(29)));
        assert_eq!(end_of(b"GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
        assert_eq!(end_of(b"GET / HTTP/1.1\n\n"), Err(Refused::BareLf));
        assert_eq!(end_of(b"GET / HTTP/1.1\r\nA: b\nB: c\r\n\r\n"), Err(Refused::BareLf));
        assert_eq!(end_of(b"\nGET / HTTP/1.1\r\n\r\n"), Err(Refused::BareLf));
        assert_eq!(end_of(b"\x16\x03\x01\x02"), Err(Refused::BadRequestLine));
    }

    #[test]
    fn a_head_of_exactly_the_limit_passes() {
        for (extra, expected) in [(0, Ok(Some(HEAD_BYTES_MAX))), (1, Err(Refused::HeadTooLarge))] {
            let mut head = b"GET / HTTP/1.1\r\nA: ".to_vec();
            head.resize(HEAD_BYTES_MAX - 4 + extra, b'a');
            head.extend_from_slice(b"\r\n\r\n");
            assert_eq!(HeadScan::default().advance(&head), expected);
        }
        assert_eq!(HeadScan::default().advance(&[b'a'; HEAD_BYTES_MAX]), Ok(None));
        let wrong_behind = [&[b'a'; HEAD_BYTES_MAX][..], b"\n"].concat();
        assert_eq!(end_of(&wrong_behind), Err(Refused::HeadTooLarge));
        let wrong_farther = [&[b'a'; HEAD_BYTES_MAX][..], b"aaa\n"].concat();
        assert_eq!(end_of(&wrong_farther), Err(Refused::HeadTooLarge));
        assert_eq!(HeadScan::default().advance(&[b'a'; HEAD_BYTES_MAX + 1]), Err(Refused::HeadTooLarge));
    }

    #[test]
    fn faults_are_named() {
        let cases = [
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Refused::SpaceBeforeColon),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", Refused::ObsoleteFolding),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused::ObsoleteFolding),
            ("GET / HTTP/1.1\r\nHost: a\r\nB\0: c\r\n\r\n", Refused::NulByte),
            ("GET / HTTP/1.1\r\nHost: a\r\nB: c\x01\r\n\r\n", Refused::BadHeader),
            ("GET / HTTP/1.1\r\nHost: a\r\n: c\r\n\r\n", Refused::BadHeader),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", Refused::BadHeader),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refused::BadVersion),
            ("GET /\r\nHost: a\r\n\r\n", Refused::BadRequestLine),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused::BadRequestLine),
            ("GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n", Refused::BadTarget),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Refused::BadRequestLine),
            ("GET /ä HTTP/1.1\r\nHost: a\r\n\r\n", Refused::BadTarget),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refused::BadTarget),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Refused::BadTarget),
            ("GET / HTTP/1.1\r\n\r\n", Refused::HostMissing),
            ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Refused::HostRepeated),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Refused::HostInvalid),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Refused::HostInvalid),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Refused::BadLength),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", Refused::BadLength),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Refused::BadLength,
            ),
        ];
        for (head, expected) in cases {
            assert_eq!(parse(head), Err(expected), "{head:?}");
        }
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(HEAD_FIELDS_MAX));
        assert_eq!(parse(&many), Err(Refused::TooManyFields));
    }

    #[test]
    fn targets_are_taken_apart() {
        for (target, path, query) in [
            ("/", "/", None),
            ("/a/b?c=d?e", "/a/b", Some("c=d?e")),
            ("http://example.org/a?b", "/a", Some("b")),
            ("http://example.org", "/", None),
            ("ws://example.org?b", "/", Some("b")),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: example.org:80\r\n\r\n");
            assert_eq!(parse(&head), Ok(("GET".into(), path.into(), query.map(Into::into))), "{target}");
        }
        assert!(parse("GET / HTTP/1.0\r\n\r\n").is_ok());
    }

    #[test]
    fn hosts_are_names_or_addresses_with_a_port() {
        for host in ["a", "a.b-c:80", "127.0.0.1:8080", "[::1]", "[::1]:8080", "a:", "xn--a%20"] {
            assert!(host_is_valid(host.as_bytes()), "{host}");
        }
        for host in ["", ":80", "a:b", "a:80:80", "::1", "[::1", "[::1]a", "[x]", "a b", "a/b", "a@b", "a,b"] {
            assert!(!host_is_valid(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn lists_run_over_lines_and_ignore_case_and_space() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive ,\r\nCONNECTION:\t, uPGRADE\t\r\n\r\n";
        let mut fields = Fields::new();
        let head = Head::parse(bytes, &mut fields).expect("well-formed");
        assert!(head.header_has_token("connection", "Upgrade"));
        assert!(!head.header_has_token("connection", "Up"));
        assert_eq!(head.header_list("Connection").count(), 2);
    }
}
