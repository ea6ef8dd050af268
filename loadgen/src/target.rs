//! The server: what a URL says, and where it is.

use std::net::{SocketAddr, ToSocketAddrs};
use throng::client::{Scheme, Url};

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
        Self::parse(url, Scheme::WebSocket)
    }

    /// An `http:` URL.
    pub(crate) fn http(url: &str) -> Result<Self, String> {
        Self::parse(url, Scheme::Http)
    }

    /// A `ws:` or an `http:` URL, for requests that are no upgrade.
    pub(crate) fn either(url: &str) -> Result<Self, String> {
        let is_websocket =
            url.split_once("://").is_some_and(|(scheme, _)| scheme.to_ascii_lowercase().starts_with("ws"));
        if is_websocket { Self::websocket(url) } else { Self::http(url) }
    }

    fn parse(text: &str, scheme: Scheme) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        if url.scheme != scheme {
            return Err(format!(
                "`{}:` is not understood here: say {}://HOST:PORT/PATH",
                url.scheme.name(),
                scheme.name()
            ));
        }
        let resolved = (&*url.host, url.port).to_socket_addrs();
        let mut addresses: Vec<_> =
            resolved.map_err(|error| format!("cannot resolve `{}`: {error}", url.authority))?.collect();
        // Both families of `localhost`: only IPv4 has addresses to spread over.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let address = *addresses.first().ok_or_else(|| format!("`{}` has no address", url.authority))?;
        Ok(Self { host: url.authority, path: url.path, address })
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
