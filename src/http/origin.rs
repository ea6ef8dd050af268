//! Which web pages may talk to the server (RFC 6454): any page can open a WebSocket to, or POST to, a server that its
//! reader's browser can reach, one on localhost too. And by which names: a page whose own name is made to mean 127.0.0.1 (DNS
//! rebinding) is of the same host as the server there, but for that the name is not the server's.

use super::head::Head;
use super::response::Field;
use crate::config::{ConfigError, Hosts, check_origin};
use crate::error::Refused;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The origins that are allowed beside the server's own, and the names that it answers to.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    any: bool,
    allowed: Box<[String]>,
    hosts: Hosts,
}

impl Origins {
    /// Takes `*`, and origins as browsers write them, with `*.` in front of the host for all that lie below it.
    pub(crate) fn new(origins: &[String]) -> Result<Self, ConfigError> {
        for (index, origin) in origins.iter().enumerate() {
            check_origin(origin).map_err(|text| ConfigError::new(format!("origins[{index}]"), text))?;
        }
        let any = origins.iter().any(|origin| origin == "*");
        Ok(Self { any, allowed: origins.into(), hosts: Hosts::Any })
    }

    /// Answers to these names.
    pub(crate) fn at(self, hosts: Hosts) -> Self {
        Self { hosts, ..self }
    }

    /// Whether a request may come from where it says it comes from, to the name that it says. One without an Origin comes from
    /// no page, and one without a Host (HTTP/1.0) from no browser.
    pub(crate) fn check(&self, head: &Head<'_>) -> Result<(), Refused> {
        if self.hosts == Hosts::Loopback && head.header("Host").is_some_and(|host| !is_loopback(host)) {
            return Err(Refused::HostForbidden);
        }
        let mut origins = head.header_values("Origin");
        let Some(origin) = origins.next() else { return Ok(()) };
        let origin = std::str::from_utf8(origin).map_err(|_| Refused::OriginForbidden)?;
        let is_own = head.header("Host").is_some_and(|host| origin_matches(origin, host));
        let is_allowed = || self.allowed.iter().any(|allowed| allows(allowed, origin));
        if origins.next().is_none() && (self.any || is_own || is_allowed()) {
            Ok(())
        } else {
            Err(Refused::OriginForbidden)
        }
    }
}

/// Whether a Host is a name of loopback, which nobody can have mean something else: an address of it, or `localhost` and what
/// lies below it (RFC 6761, section 6.3).
pub(crate) fn is_loopback(host: &str) -> bool {
    let Some((name, _)) = name_and_port(host, 80) else { return false };
    if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok_and(|address| address.to_canonical().is_loopback());
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an origin is the one that is allowed, or lies below it.
fn allows(allowed: &str, origin: &str) -> bool {
    let Some((scheme, host)) = allowed.split_once("://*") else { return allowed.eq_ignore_ascii_case(origin) };
    let Some((its_scheme, its_host)) = origin.split_once("://") else { return false };
    let (labels, end) = its_host.as_bytes().split_at(its_host.len().saturating_sub(host.len()));
    let is_label = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    its_scheme.eq_ignore_ascii_case(scheme)
        && end.eq_ignore_ascii_case(host.as_bytes())
        && !labels.is_empty()
        && labels.iter().all(is_label)
}

/// What a page of another origin needs to read the answer (the fetch standard, section 3.3), and caches to know that it
/// depends on who asks.
pub(crate) fn cross_origin(head: &Head<'_>) -> Vec<Field> {
    let mut fields: Vec<Field> = vec![("Vary".into(), "Accept, Origin".into())];
    if let Some(origin) = head.header("Origin") {
        fields.push(("Access-Control-Allow-Origin".into(), origin.to_owned().into()));
        fields.push(("Access-Control-Expose-Headers".into(), "Throng-Cursor".into()));
    }
    fields
}

/// Whether an Origin (RFC 6454, section 6.2) is that of the Host it was sent to (RFC 9110, section 7.2): same
/// name in any case, same port, the default one of the origin's scheme if none is written (RFC 9110, sections
/// 4.2.1 and 4.2.2). The schemes are not compared, since a proxy may have ended TLS. `null`, lists and schemes
/// other than http and https never match.
fn origin_matches(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default_port = if scheme.eq_ignore_ascii_case("http") {
        80
    } else if scheme.eq_ignore_ascii_case("https") {
        443
    } else {
        return false;
    };
    match (name_and_port(authority, default_port), name_and_port(host, default_port)) {
        (Some((origin, origin_port)), Some((host, port))) => origin.eq_ignore_ascii_case(host) && origin_port == port,
        _ => false,
    }
}

/// Takes HOST or HOST:PORT apart, a host with colons being in brackets (RFC 3986, section 3.2). An empty port is
/// the default one (section 3.2.3).
fn name_and_port(authority: &str, default_port: u16) -> Option<(&str, u16)> {
    let name_end = match authority.find(']') {
        Some(bracket) if authority.starts_with('[') => bracket + 1,
        Some(_) => return None,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, port) = authority.split_at(name_end);
    // No user, path, list or second colon: an origin has none of them.
    let name_is_valid = name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/\\@?#,".contains(&byte));
    if name.is_empty() || !name_is_valid {
        return None;
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Some((name, default_port)),
        None => None,
        Some("") => Some((name, default_port)),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some((name, digits.parse().ok()?)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Fields;

    #[test]
    fn an_origin_is_its_host_and_port() {
        for (origin, host) in [
            ("http://a", "a"),
            ("http://A.example", "a.EXAMPLE"),
            ("HTTP://a", "a:80"),
            ("http://a:80", "a"),
            ("http://a:", "a"),
            ("https://a", "a"),
            ("https://a", "a:443"),
            ("https://a:443", "a"),
            ("http://a:8080", "a:8080"),
            ("http://a:443", "a:443"),
            ("http://[::1]", "[::1]:80"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://[FE80::a]", "[fe80::A]"),
        ] {
            assert!(origin_matches(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("null", "null"),
            ("null", ""),
            ("", ""),
            ("a", "a"),
            ("http://", ""),
            ("http://:80", ":80"),
            ("http://a", "b"),
            ("http://a", "a.b"),
            ("http://a.", "a"),
            ("http://a", "a:443"),
            ("https://a", "a:80"),
            ("http://a:443", "a"),
            ("https://a:80", "a"),
            ("http://a:8080", "a"),
            ("http://a", "a:8080"),
            ("http://a:65616", "a"), // 80 + 2^16
            ("http://a:+80", "a"),
            ("http://a:80:80", "a"),
            ("http://a/", "a"),
            ("http://a/", "a/"),
            ("http://b@a", "a"),
            ("http://b@a", "b@a"),
            ("http://a http://b", "a"),
            ("http://a, http://b", "a"),
            ("ftp://a", "a"),
            ("ws://a", "a"),
            ("file://", ""),
            ("chrome-extension://a", "a"),
            ("http://[::1]", "::1"),
            ("http://::1", "::1"),
            ("http://[::1]a", "[::1]a"),
            ("http://[::1", "[::1"),
        ] {
            assert!(!origin_matches(origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn a_page_is_let_in_if_it_is_ours_or_allowed() {
        let check = |origins: &Origins, lines: &str| {
            let bytes = format!("GET / HTTP/1.1\r\nHost: a:8080\r\n{lines}\r\n");
            let mut fields = Fields::new();
            origins.check(&Head::parse(bytes.as_bytes(), &mut fields).expect("a head")).is_ok()
        };
        let none = Origins::default();
        let one = Origins::new(&["https://b.example".into()]).expect("an origin");
        let any = Origins::new(&["*".into()]).expect("all");
        for (lines, expected) in [
            ("", [true, true, true]),
            ("Origin: http://a:8080\r\n", [true, true, true]),
            ("Origin: http://a\r\n", [false, false, true]),
            ("Origin: HTTPS://B.example\r\n", [false, true, true]),
            ("Origin: http://b.example\r\n", [false, false, true]),
            ("Origin: null\r\n", [false, false, true]),
            ("Origin: http://a:8080\r\nOrigin: http://a:8080\r\n", [false, false, false]),
        ] {
            assert_eq!([&none, &one, &any].map(|origins| check(origins, lines)), expected, "{lines}");
        }
        for wrong in
            ["", "b.example", "https://", "https://b.example/", "https://*", "https://*.", "https://*b", "https://a.*"]
        {
            assert!(Origins::new(&[wrong.into()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_of_loopback_answers_to_names_of_loopback() {
        let check = |origins: &Origins, line: &str| {
            let bytes = format!("GET / HTTP/1.0\r\n{line}\r\n");
            let mut fields = Fields::new();
            origins.check(&Head::parse(bytes.as_bytes(), &mut fields).expect("a head"))
        };
        let (any, loopback) = (Origins::default(), Origins::default().at(Hosts::Loopback));
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "app.localhost:1",
            "127.0.0.1",
            "127.9.8.7:80",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
        ] {
            assert_eq!(check(&loopback, &format!("Host: {host}\r\n")), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "10.0.0.1:8080",
            "[::]",
            "[fe80::1]",
            "127.1",
            "2130706433",
            "localhost..",
        ] {
            let line = format!("Host: {host}\r\n");
            assert_eq!((check(&any, &line), check(&loopback, &line)), (Ok(()), Err(Refused::HostForbidden)), "{host}");
        }
        assert_eq!(check(&loopback, ""), Ok(()), "no browser");
        let rebound = "Host: evil.example\r\nOrigin: http://evil.example\r\n";
        assert_eq!((check(&any, rebound), check(&loopback, rebound)), (Ok(()), Err(Refused::HostForbidden)));
    }

    #[test]
    fn all_below_a_host_are_let_in_where_that_is_said() {
        let below = "https://*.b.example:8443";
        assert!(Origins::new(&[below.into()]).is_ok());
        for (origin, expected) in [
            ("https://a.b.example:8443", true),
            ("HTTPS://x-1.A.B.example:8443", true),
            ("https://b.example:8443", false),
            ("https://.b.example:8443", false),
            ("https://ab.example:8443", false),
            ("http://a.b.example:8443", false),
            ("https://a.b.example", false),
            ("https://evil.com/.b.example:8443", false),
            ("https://evil.com:80@a.b.example:8443", false),
            ("https://a.b.example:8443.evil.com", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(allows(below, origin), expected, "{origin}");
        }
    }
}
