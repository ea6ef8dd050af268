//! URLs of WebSockets (RFC 6455, section 3) and of HTTP (RFC 9110, section 4.2), taken apart but not resolved.

use std::fmt;

/// How a URL's server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `ws:`.
    WebSocket,
    /// `http:`.
    Http,
}

impl Scheme {
    /// As it stands in a URL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "ws",
            Self::Http => "http",
        }
    }
}

/// A URL taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// For the Host header: with the port if the URL names one.
    pub authority: String,
    /// What is to be resolved: a name, or an address without brackets.
    pub host: String,
    /// 80 unless the URL says otherwise.
    pub port: u16,
    /// With the query and without the fragment; starts with `/`.
    pub path: String,
}

/// Why a URL cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// There is no scheme in it.
    NoScheme(String),
    /// `wss:` or `https:`: the scheme that does without TLS.
    Tls(Scheme),
    /// Another scheme.
    Scheme(String),
    /// A user's name or password in front of the host.
    Credentials,
    /// No host, or none that can be.
    Host(String),
    /// No port from 1 to 65535.
    Port(String),
    /// White space or a control character, which would end or forge a line of the request.
    Path,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoScheme(url) => write!(f, "`{url}` is no URL: say ws://HOST:PORT/PATH or http://HOST:PORT/PATH"),
            Self::Tls(plain) => {
                let plain = plain.name();
                write!(f, "{plain}s:// takes TLS, which is not spoken here: use {plain}://, TLS ending elsewhere")
            }
            Self::Scheme(scheme) => write!(f, "`{scheme}:` is not spoken here: say ws:// or http://"),
            Self::Credentials => f.write_str("credentials do not belong in a URL: send a header, `Authorization: ...`"),
            Self::Host(authority) => {
                write!(
                    f,
                    "`{authority}` is no host: say HOST or HOST:PORT, an IPv6 address in brackets, as in [::1]:8080"
                )
            }
            Self::Port(port) => write!(f, "`{port}` is no port: a number from 1 to 65535"),
            Self::Path => f.write_str("the URL's path holds a space or a control character: percent-encode it"),
        }
    }
}

impl std::error::Error for UrlError {}

impl Url {
    /// Takes a URL apart.
    ///
    /// # Errors
    ///
    /// [`UrlError`] says what is wrong with it, and what to write instead.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (given, rest) = url.split_once("://").ok_or_else(|| UrlError::NoScheme(url.to_owned()))?;
        let scheme = match &*given.to_ascii_lowercase() {
            "ws" => Scheme::WebSocket,
            "http" => Scheme::Http,
            "wss" => return Err(UrlError::Tls(Scheme::WebSocket)),
            "https" => return Err(UrlError::Tls(Scheme::Http)),
            _ => return Err(UrlError::Scheme(given.to_owned())),
        };
        // A fragment is not the server's business (RFC 6455, section 3; RFC 9110, section 4.2.5).
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::Credentials);
        }
        if path.bytes().any(|byte| byte <= b' ' || byte == 0x7F) {
            return Err(UrlError::Path);
        }
        let (host, port) = split_authority(authority)?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { scheme, authority: authority.to_owned(), host, port, path: format!("{slash}{path}") })
    }

    /// Sets a query parameter to a value that needs no encoding: in the place of one that is there.
    pub fn set_parameter(&mut self, name: &str, value: &str) {
        let path = self.path.split('?').next().unwrap_or_default();
        let is_other = |pair: &&(&str, &str)| pair.0 != name;
        let mut query = String::new();
        for (other, value) in self.parameters().filter(|pair| is_other(&pair)) {
            query.push_str(other);
            if !value.is_empty() {
                query.push('=');
                query.push_str(value);
            }
            query.push('&');
        }
        self.path = format!("{path}?{query}{name}={value}");
    }

    /// Whether the query names a parameter.
    pub fn has_parameter(&self, name: &str) -> bool {
        self.parameters().any(|(other, _)| other == name)
    }

    /// The query's parameters, not decoded.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

/// The host, without the brackets of an IPv6 address, and the port.
fn split_authority(authority: &str) -> Result<(String, u16), UrlError> {
    let bad_host = || UrlError::Host(authority.to_owned());
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']').ok_or_else(bad_host)?;
            // A zone (RFC 6874) is for whoever resolves it.
            let address = host.split('%').next().unwrap_or_default();
            if address.parse::<std::net::Ipv6Addr>().is_err() || !(behind.is_empty() || behind.starts_with(':')) {
                return Err(bad_host());
            }
            (host, behind.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() || host.bytes().any(|byte| byte <= b' ' || byte == 0x7F) {
        return Err(bad_host());
    }
    // More colons than one are an IPv6 address that lacks its brackets.
    let port = match port {
        Some(port) if port.contains(':') => return Err(bad_host()),
        // An empty one is the default (RFC 3986, section 3.2.3).
        None | Some("") => 80,
        Some(port) => match port.parse() {
            Ok(number @ 1..) if port.bytes().all(|byte| byte.is_ascii_digit()) => number,
            _ => return Err(UrlError::Port(port.to_owned())),
        },
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let cases = [
            ("ws://a", (Scheme::WebSocket, "a", "a", 80, "/")),
            ("WS://127.0.0.1:8080/a/b?c=d#e", (Scheme::WebSocket, "127.0.0.1:8080", "127.0.0.1", 8080, "/a/b?c=d")),
            ("http://[::1]?x", (Scheme::Http, "[::1]", "::1", 80, "/?x")),
            ("HTTP://[fe80::1%eth0]:65535/", (Scheme::Http, "[fe80::1%eth0]:65535", "fe80::1%eth0", 65_535, "/")),
            ("ws://b:/#", (Scheme::WebSocket, "b:", "b", 80, "/")),
        ];
        for (text, (scheme, authority, host, port, path)) in cases {
            let (authority, host, path) = (authority.to_owned(), host.to_owned(), path.to_owned());
            assert_eq!(Url::parse(text), Ok(Url { scheme, authority, host, port, path }), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let host = |text: &str| UrlError::Host(text.to_owned());
        let cases = [
            ("127.0.0.1:80", UrlError::NoScheme("127.0.0.1:80".to_owned())),
            ("wss://a/", UrlError::Tls(Scheme::WebSocket)),
            ("HTTPS://a/", UrlError::Tls(Scheme::Http)),
            ("ftp://a/", UrlError::Scheme("ftp".to_owned())),
            ("ws://me:secret@a/", UrlError::Credentials),
            ("ws:///a", host("")),
            ("ws://:80/", host(":80")),
            ("ws://::1/", host("::1")),
            ("ws://[::1/", host("[::1")),
            ("ws://[x]/", host("[x]")),
            ("ws://[::1]80/", host("[::1]80")),
            ("ws://a b/", host("a b")),
            ("ws://a:0/", UrlError::Port("0".to_owned())),
            ("ws://a:65536/", UrlError::Port("65536".to_owned())),
            ("ws://a:+80/", UrlError::Port("+80".to_owned())),
            ("ws://a/b c", UrlError::Path),
            ("ws://a/\r\nX: y", UrlError::Path),
        ];
        for (text, error) in cases {
            assert_eq!(Url::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn parameters_are_found_and_added() {
        let url = Url::parse("ws://a/b?token=x&&y").unwrap();
        assert_eq!(url.parameters().collect::<Vec<_>>(), [("token", "x"), ("y", "")]);
        assert!(url.has_parameter("y") && !url.has_parameter("x"));
        let with = |text: &str| {
            let mut url = Url::parse(text).unwrap();
            url.set_parameter("since", "e-1");
            url.path
        };
        assert_eq!(with("ws://a"), "/?since=e-1");
        assert_eq!(with("ws://a/b?token=x&&y"), "/b?token=x&y&since=e-1");
        assert_eq!(with("ws://a/b?since=earliest&frames=json"), "/b?frames=json&since=e-1");
    }
}
