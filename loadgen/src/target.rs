//! The server: what a URL says, and where it is.

use std::net::{SocketAddr, ToSocketAddrs};

/// A URL taken apart, for WebSockets (`ws:`) and for publishing (`http:`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// For the Host header: with the port unless it is the default.
    pub(crate) host: String,
    /// With the query; may hold `{topic}`.
    pub(crate) path: String,
    pub(crate) address: SocketAddr,
}

impl Target {
    /// A `ws:` URL.
    pub(crate) fn websocket(url: &str) -> Result<Self, String> {
        Self::parse(url, "ws", "wss")
    }

    /// An `http:` URL.
    pub(crate) fn http(url: &str) -> Result<Self, String> {
        Self::parse(url, "http", "https")
    }

    /// A `ws:` or an `http:` URL, for requests that are no upgrade.
    pub(crate) fn either(url: &str) -> Result<Self, String> {
        let is_websocket =
            url.split_once("://").is_some_and(|(scheme, _)| scheme.to_ascii_lowercase().starts_with("ws"));
        if is_websocket { Self::websocket(url) } else { Self::http(url) }
    }

    fn parse(url: &str, scheme: &str, secure: &str) -> Result<Self, String> {
        let Some((given, rest)) = url.split_once("://") else {
            return Err(format!("`{url}` is not a URL: say {scheme}://HOST:PORT/PATH"));
        };
        if given.eq_ignore_ascii_case(secure) {
            return Err(format!("{secure}:// is not there yet: TLS comes later. Use {scheme}:// for now"));
        }
        if !given.eq_ignore_ascii_case(scheme) {
            return Err(format!("`{given}:` is not understood here: say {scheme}://HOST:PORT/PATH"));
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let slash = if path.starts_with('/') { "" } else { "/" };
        if authority.contains('@') {
            return Err("credentials do not belong in a URL: use --header 'Authorization: ...'".to_owned());
        }
        // A colon outside the brackets of an IPv6 address.
        let has_port = authority.rfind(':').is_some_and(|colon| authority.rfind(']').is_none_or(|end| end < colon));
        let with_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let mut addresses: Vec<_> =
            with_port.to_socket_addrs().map_err(|error| format!("cannot resolve `{authority}`: {error}"))?.collect();
        // Both families of `localhost`: only IPv4 has addresses to spread over.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let address = *addresses.first().ok_or_else(|| format!("`{authority}` has no address"))?;
        if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err("the URL's path holds a space or a control character: encode it".to_owned());
        }
        Ok(Self { host: authority.to_owned(), path: format!("{slash}{path}"), address })
    }

    /// Whether the path has a place for a topic's name.
    pub(crate) fn names_topic(&self) -> bool {
        self.path.contains("{topic}")
    }

    pub(crate) fn is_local(&self) -> bool {
        self.address.ip().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::websocket("ws://127.0.0.1:8080/a/b?c=d#e").unwrap();
        assert_eq!((target.host.as_str(), target.path.as_str()), ("127.0.0.1:8080", "/a/b?c=d"));
        assert_eq!(target.address, "127.0.0.1:8080".parse().unwrap());
        let target = Target::websocket("WS://[::1]?x").unwrap();
        assert_eq!((target.host.as_str(), target.path.as_str()), ("[::1]", "/?x"));
        assert_eq!(target.address, "[::1]:80".parse().unwrap());
        assert_eq!(Target::either("http://127.0.0.1/a"), Target::either("WS://127.0.0.1/a"));
        assert!(Target::websocket("ws://localhost:1").unwrap().address.is_ipv4());
    }

    #[test]
    fn what_is_not_there_is_refused_with_a_reason() {
        assert!(Target::websocket("wss://127.0.0.1/").unwrap_err().contains("TLS"));
        assert!(Target::http("https://127.0.0.1/").unwrap_err().contains("TLS"));
        assert!(Target::either("https://127.0.0.1/").unwrap_err().contains("TLS"));
        for bad in ["127.0.0.1:80", "http://127.0.0.1/", "ws://a:b@127.0.0.1/", "ws://127.0.0.1/a b", "ws://:x/"] {
            assert!(Target::websocket(bad).is_err(), "{bad}");
        }
    }
}
