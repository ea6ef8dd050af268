//! What proxies say of their clients: PROXY headers are the same whole or in pieces and mean what is written in them; of
//! `X-Forwarded-For` and `Forwarded` the rightmost counts that is not trusted, as a reader from the right finds it.

use super::{cuts, settings};
use crate::config::ForwardedHeader;
use crate::error::Refused;
use crate::http::{Fields, Head, Node, Preamble, forwarded};
use crate::limits::PROXY_HEADER_BYTES_MAX;
use std::net::{IpAddr, SocketAddr};

/// Two bytes of settings (how it is cut; odd: a header of a request, even: a PROXY header), then what a proxy sends, or the
/// fields' values, a line each.
pub fn proxies(data: &[u8]) {
    let ([seed, kind], sent) = settings::<2>(data);
    if kind % 2 == 0 { preamble(seed, sent) } else { lists(sent) }
}

fn preamble(seed: u8, sent: &[u8]) {
    let whole = read(sent, |rest| rest);
    assert_eq!(whole, read(sent, |_| 1), "a byte at a time");
    assert_eq!(whole, read(sent, cuts(seed, 100)), "in pieces");
    let Ok(Some((length, said))) = whole else {
        let is_short = sent.len() < PROXY_HEADER_BYTES_MAX;
        assert!(whole.is_err() || is_short, "it is waited for more than there may be");
        return;
    };
    assert!(length <= PROXY_HEADER_BYTES_MAX.min(sent.len()));
    let header = &sent[..length];
    if header.starts_with(b"PROXY ") {
        let line = std::str::from_utf8(header).expect("a line is text");
        assert!(line.len() <= 107 && line.ends_with("\r\n"));
        let words: Vec<&str> = line.trim_end_matches("\r\n").split(' ').collect();
        match said {
            Preamble::Client(address) => {
                let same: SocketAddr = match words[..] {
                    ["PROXY", "TCP4", ip, _, port, _] => format!("{ip}:{port}").parse().expect("an address"),
                    ["PROXY", "TCP6", ip, _, port, _] => format!("[{ip}]:{port}").parse().expect("an address"),
                    _ => panic!("{words:?}"),
                };
                assert_eq!(address, same);
            }
            said => assert_eq!((said, words[1]), (Preamble::Connection, "UNKNOWN")),
        }
    } else {
        assert_eq!(length, 16 + usize::from(header[14]) * 256 + usize::from(header[15]));
        let local = header[12] == 0x20 || header[13] == 0;
        match said {
            Preamble::Connection => assert!(local),
            Preamble::Unix => assert_eq!(header[13], 0x31),
            Preamble::Client(SocketAddr::V4(v4)) => {
                assert_eq!((header[13], &v4.ip().octets()[..]), (0x11, &header[16..20]));
                assert_eq!(v4.port().to_be_bytes(), header[24..26]);
            }
            Preamble::Client(SocketAddr::V6(v6)) => {
                assert_eq!((header[13], &v6.ip().octets()[..]), (0x21, &header[16..32]));
                assert_eq!(v6.port().to_be_bytes(), header[48..50]);
            }
        }
    }
}

fn read(bytes: &[u8], mut cut: impl FnMut(usize) -> usize) -> Result<Option<(usize, Preamble)>, Refused> {
    let mut have = 0;
    while have < bytes.len() {
        have += cut(bytes.len() - have).min(bytes.len() - have);
        let found = Preamble::read(&bytes[..have]);
        if found != Ok(None) {
            return found;
        }
    }
    Ok(None)
}

/// 10.0.0.0/8 and Unix-domain sockets are trusted.
fn trusts(address: Option<IpAddr>) -> bool {
    address.is_none_or(|address| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10))
}

fn lists(sent: &[u8]) {
    for (name, header) in ForwardedHeader::ALL {
        let mut text = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        for value in sent.split(|&byte| byte == b'\n').filter(|value| !value.contains(&b'\r')).take(50) {
            text.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        text.extend_from_slice(b"\r\n");
        let mut fields = Fields::new();
        let Ok(head) = Head::parse(&text, &mut fields) else { return };
        let found = forwarded(&head, header, trusts);
        match header {
            ForwardedHeader::XForwardedFor => assert_eq!(found, naive(&head), "{head:?}"),
            ForwardedHeader::Forwarded => check_elements(&head, found),
        }
    }
}

/// Reads a list from its right end.
fn naive(head: &Head<'_>) -> Result<Option<Node>, Refused> {
    let values: Vec<&[u8]> = head.header_values("X-Forwarded-For").collect();
    let all = values.join(&b","[..]);
    let mut client = None;
    for element in all.split(|&byte| byte == b',').rev() {
        let Ok(text) = std::str::from_utf8(element) else { return Err(Refused::ForwardedInvalid) };
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
        if text.is_empty() {
            continue;
        }
        // Each by itself: what it is for is shown by `check_elements` and the tests beside the code.
        let line = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {text}\r\n\r\n");
        let mut fields = Fields::new();
        let Ok(one) = Head::parse(line.as_bytes(), &mut fields) else { return Err(Refused::ForwardedInvalid) };
        let Some(node) = forwarded(&one, ForwardedHeader::XForwardedFor, trusts)? else { break };
        client = Some(node);
        if !is_trusted(node) {
            break;
        }
    }
    Ok(client)
}

fn is_trusted(node: Node) -> bool {
    match node {
        Node::Address(address) => trusts(Some(address.ip())),
        Node::Unix => trusts(None),
    }
}

/// Whatever stands there, a proxy that appends a client's address decides; and what is found stands there.
fn check_elements(head: &Head<'_>, found: Result<Option<Node>, Refused>) {
    let mut text = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for value in head.header_values("Forwarded") {
        text.extend_from_slice(&[b"Forwarded: ", value, b", for=192.0.2.99, for=10.0.0.1\r\n"].concat());
    }
    text.extend_from_slice(b"\r\n");
    let mut fields = Fields::new();
    let Ok(appended) = Head::parse(&text, &mut fields) else { return };
    if appended.header_values("Forwarded").next().is_none() {
        return assert_eq!(found, Ok(None));
    }
    let expected = SocketAddr::from(([192, 0, 2, 99], 0));
    match forwarded(&appended, ForwardedHeader::Forwarded, trusts) {
        Ok(node) => assert_eq!(node, Some(Node::Address(expected)), "{appended:?}"),
        Err(refused) => assert_eq!(found, Err(refused), "what is appended spoils nothing: {appended:?}"),
    }
    if let Ok(Some(Node::Address(address))) = found {
        let has = |value: &[u8]| !value.is_empty();
        assert!(head.header_values("Forwarded").any(has), "{address} comes from somewhere");
    }
}
