//! Who a request comes from, by the word of proxies: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Each proxy appends whom it was connected from, so the list reads from the client's own words at its left to what the
//! nearest proxy saw at its right. The client is the rightmost address that is not a trusted proxy's; whatever stands left of
//! it anybody can have written, and it is not looked at but for its syntax in `Forwarded`, where a quotation mark
//! that never ends would swallow what proxies append.

use super::Head;
use crate::config::ForwardedHeader;
use crate::error::Refused;
use std::net::{IpAddr, SocketAddr};

/// Somebody on the way of a request (RFC 7239, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// Port 0 where none is given.
    Address(SocketAddr),
    /// It came to a proxy through a Unix-domain socket: what nginx writes for that.
    Unix,
}

/// Whom the list names; `None`: nobody, so that it is whoever sent it.
pub(crate) fn forwarded(
    head: &Head<'_>,
    header: ForwardedHeader,
    trusts: impl Fn(Option<IpAddr>) -> bool,
) -> Result<Option<Node>, Refused> {
    let mut client = Client { found: Ok(None), trusts };
    for value in head.header_values(header.name()) {
        match header {
            ForwardedHeader::XForwardedFor => {
                for element in value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty()) {
                    client.then(node(element));
                }
            }
            ForwardedHeader::Forwarded => elements(value, |element| client.then(element))?,
        }
    }
    client.found
}

/// The rightmost that is not trusted, or else the leftmost of those that are: found from left to right.
struct Client<F> {
    found: Result<Option<Node>, Refused>,
    trusts: F,
}

impl<F: Fn(Option<IpAddr>) -> bool> Client<F> {
    /// What is appended next: `Ok(None)` is somebody that the proxy does not name.
    fn then(&mut self, node: Result<Option<Node>, Refused>) {
        let is_trusted = match node {
            Ok(Some(Node::Address(address))) => (self.trusts)(Some(address.ip())),
            Ok(Some(Node::Unix)) => (self.trusts)(None),
            Ok(None) | Err(_) => false,
        };
        if !is_trusted || self.found == Ok(None) {
            self.found = node;
        }
    }
}

fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

/// An address, with or without a port; `None` is `unknown`, or a name that only the proxy knows (RFC 7239, sections 6.2 and
/// 6.3).
fn node(bytes: &[u8]) -> Result<Option<Node>, Refused> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refused::ForwardedInvalid)?;
    // A port may be hidden as well.
    let name = match text.rsplit_once(':') {
        Some((name, port)) if is_hidden(port) => name,
        _ => text,
    };
    let unknown = |name: &str| name.eq_ignore_ascii_case("unknown") || is_hidden(name);
    if unknown(name) || name.split_once(':').is_some_and(|(name, port)| unknown(name) && port.parse::<u16>().is_ok()) {
        return Ok(None);
    }
    if name == "unix:" {
        return Ok(Some(Node::Unix));
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let address = match bare {
        Some(v6) => v6.parse().map(|ip| SocketAddr::new(IpAddr::V6(ip), 0)).ok(),
        None => name.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).ok().or_else(|| name.parse().ok()),
    };
    // An address that has a scope means something to the proxy alone, and the unspecified one is nobody's.
    let address = address.filter(|address: &SocketAddr| {
        let is_scoped = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
        !is_scoped && !address.ip().to_canonical().is_unspecified()
    });
    address.map(|address| Some(Node::Address(address))).ok_or(Refused::ForwardedInvalid)
}

/// A name or a port that the proxy made up: an underscore, and then letters, digits, `.`, `_` or `-`.
fn is_hidden(text: &str) -> bool {
    let rest = text.strip_prefix('_').unwrap_or("");
    !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Reads the elements of one `Forwarded` field (RFC 7239, section 4), and says of each whom it is for.
fn elements(value: &[u8], mut found: impl FnMut(Result<Option<Node>, Refused>)) -> Result<(), Refused> {
    let mut rest = value;
    loop {
        let (mut whom, mut is_empty) = (None, true);
        loop {
            rest = rest.trim_ascii_start();
            if rest.first().is_some_and(|byte| !b";,".contains(byte)) {
                let (name, value, behind) = pair(rest).ok_or(Refused::ForwardedInvalid)?;
                if name.eq_ignore_ascii_case(b"for") && whom.replace(node(&value)).is_some() {
                    return Err(Refused::ForwardedInvalid); // "each parameter MUST NOT occur more than once"
                }
                (rest, is_empty) = (behind.trim_ascii_start(), false);
            }
            match rest.split_first() {
                Some((b';', behind)) => rest = behind,
                Some((b',', _)) | None => break,
                Some(_) => return Err(Refused::ForwardedInvalid),
            }
        }
        if !is_empty {
            found(whom.unwrap_or(Ok(None)));
        }
        match rest.split_first() {
            Some((_, behind)) => rest = behind,
            None => return Ok(()),
        }
    }
}

/// `name=value`, the value a token or quoted (RFC 9110, sections 5.6.2 and 5.6.4), and what follows.
fn pair(bytes: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    let (name, rest) = token(bytes)?;
    let rest = rest.strip_prefix(b"=")?;
    let Some(mut quoted) = rest.strip_prefix(b"\"") else {
        let (value, rest) = token(rest)?;
        return Some((name, value.to_vec(), rest));
    };
    let mut value = Vec::new();
    loop {
        let (&byte, behind) = quoted.split_first()?;
        quoted = behind;
        match byte {
            b'"' => return Some((name, value, quoted)),
            b'\\' => {
                let (&escaped, behind) = quoted.split_first()?;
                quoted = behind;
                value.push(escaped);
            }
            _ => value.push(byte),
        }
    }
}

/// A token. An address with its port is none, and is written like one all the same by proxies that do not quote: `:` and the
/// brackets are taken as well.
fn token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:[]/".contains(byte);
    let length = bytes.iter().position(|byte| !is_part(byte)).unwrap_or(bytes.len());
    Some(bytes.split_at(length)).filter(|_| length > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Fields;

    /// Proxies are in 10.0.0.0/8, and at Unix-domain sockets.
    fn found(header: ForwardedHeader, values: &[&str]) -> Result<Option<String>, Refused> {
        let mut text = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
        values.iter().for_each(|value| text.push_str(&format!("{}: {value}\r\n", header.name())));
        text.push_str("\r\n");
        let mut fields = Fields::new();
        let head = Head::parse(text.as_bytes(), &mut fields).expect("a head");
        let trusts = |ip: Option<IpAddr>| ip.is_none_or(|ip| matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 10));
        forwarded(&head, header, trusts).map(|node| {
            node.map(|node| match node {
                Node::Address(address) if address.port() == 0 => address.ip().to_string(),
                Node::Address(address) => address.to_string(),
                Node::Unix => "unix:".to_owned(),
            })
        })
    }

    fn list(values: &[&str]) -> Result<Option<String>, Refused> {
        found(ForwardedHeader::XForwardedFor, values)
    }

    fn elements(values: &[&str]) -> Result<Option<String>, Refused> {
        found(ForwardedHeader::Forwarded, values)
    }

    fn is(text: &str) -> Result<Option<String>, Refused> {
        Ok(Some(text.to_owned()))
    }

    #[test]
    fn the_rightmost_that_is_not_trusted_is_the_client() {
        assert_eq!(list(&[]), Ok(None));
        assert_eq!(list(&["192.0.2.1"]), is("192.0.2.1"));
        assert_eq!(list(&["203.0.113.7, 192.0.2.1, 10.0.0.1"]), is("192.0.2.1"));
        assert_eq!(list(&["203.0.113.7", "192.0.2.1 ,10.0.0.1", "10.0.0.2"]), is("192.0.2.1"), "as one list");
        assert_eq!(list(&["10.0.0.9, 10.0.0.1"]), is("10.0.0.9"), "a proxy's own");
        assert_eq!(list(&["2001:db8::1, unix:"]), is("2001:db8::1"));
        assert_eq!(list(&["[2001:db8::1]:443, 10.0.0.1:9"]), is("[2001:db8::1]:443"));
        assert_eq!(list(&[" , 192.0.2.1:80,,"]), is("192.0.2.1:80"), "empty elements do not count");
        assert_eq!(list(&["192.0.2.1, unknown, 10.0.0.1"]), is("10.0.0.1"), "who does not know whom it came from");
    }

    #[test]
    fn what_the_client_wrote_is_not_looked_at() {
        assert_eq!(list(&["<script>, 192.0.2.1, 10.0.0.1"]), is("192.0.2.1"));
        assert_eq!(list(&["10.0.0.1, 192.0.2.1"]), is("192.0.2.1"), "it cannot pretend to be a proxy");
        let nobody = ["0.0.0.0", "::", "[::]:80", "::ffff:0.0.0.0"];
        let wrong =
            ["what", "192.0.2.256", "192.0.2.1:65536", "192.0.2.1 192.0.2.2", "[192.0.2.1]", "fe80::1%1", "\u{e9}"];
        for bad in wrong.into_iter().chain(nobody) {
            assert_eq!(list(&[bad]), Err(Refused::ForwardedInvalid), "{bad}");
            assert_eq!(list(&[&format!("192.0.2.1, {bad}, 10.0.0.1")]), Err(Refused::ForwardedInvalid), "{bad}");
        }
    }

    #[test]
    fn elements_are_read_as_rfc_7239_has_them() {
        assert_eq!(elements(&["for=192.0.2.60;proto=http;by=203.0.113.43"]), is("192.0.2.60"));
        assert_eq!(elements(&["For=\"[2001:db8:cafe::17]:4711\""]), is("[2001:db8:cafe::17]:4711"));
        assert_eq!(elements(&["for=192.0.2.43, for=10.17.0.1;by=\"a, \\\" b\""]), is("192.0.2.43"));
        assert_eq!(elements(&["for=192.0.2.43 , , for=10.0.0.1 ; proto=https"]), is("192.0.2.43"));
        assert_eq!(elements(&["for=192.0.2.43", "for=\"10.0.0.1:80\""]), is("192.0.2.43"));
        assert_eq!(elements(&["for=10.1.1.1, for=10.0.0.1"]), is("10.1.1.1"));
    }

    #[test]
    fn who_is_not_named_is_the_proxy_that_does_not_say() {
        for hidden in ["for=unknown", "for=_hidden", "for=\"_SEVKISEK:_port\"", "for=\"unknown:80\"", "by=192.0.2.1"] {
            assert_eq!(elements(&[hidden]), Ok(None), "{hidden}");
            assert_eq!(elements(&[&format!("for=192.0.2.1, {hidden}, for=10.0.0.1")]), is("10.0.0.1"), "{hidden}");
        }
        assert_eq!(elements(&["for=\"192.0.2.1:_hidden\""]), is("192.0.2.1"));
    }

    #[test]
    fn an_open_quote_does_not_swallow_what_a_proxy_appends() {
        for bad in [
            "for=\"192.0.2.9, for=192.0.2.1",
            "for=192.0.2.9;by=\"x, for=192.0.2.1",
            "for=192.0.2.9;for=192.0.2.8",
            "for",
            "for=",
            "=192.0.2.1",
            "for=\"192.0.2.1\"x",
            "for=192.0.2.1 for=192.0.2.2",
            "for=what",
        ] {
            assert_eq!(elements(&[bad]), Err(Refused::ForwardedInvalid), "{bad}");
        }
        assert_eq!(elements(&["for=\"", "\", for=192.0.2.1"]), Err(Refused::ForwardedInvalid), "each field by itself");
    }
}
