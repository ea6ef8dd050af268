//! The PROXY header in front of a connection.

use super::*;

const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.2 4242 80\r\n";

impl Pair {
    /// One that begins with a PROXY header.
    fn behind_a_proxy() -> Self {
        let mut pair = Self::new();
        pair.conn.expect_preamble();
        pair
    }
}

fn peer(text: &str) -> Peer {
    text.parse::<SocketAddr>().expect("an address").into()
}

#[test]
fn a_preamble_names_the_client_however_it_is_cut() {
    let bytes = [LINE, HEAD].concat().into_bytes();
    for cut in 0..bytes.len() {
        let mut pair = Pair::behind_a_proxy();
        pair.feed(&bytes[..cut]);
        pair.feed(&bytes[cut..]);
        assert_eq!((pair.conn.phase(), pair.conn.peer()), (Phase::Open, peer("192.0.2.7:4242")), "cut at {cut}");
        assert!(pair.conn.rare.is_none(), "nothing of it is kept");
    }
    let mut pair = Pair::behind_a_proxy();
    bytes.iter().for_each(|&byte| pair.feed(&[byte]));
    assert_eq!((pair.conn.phase(), pair.conn.peer()), (Phase::Open, peer("192.0.2.7:4242")));
}

#[test]
fn a_proxy_that_says_nothing_is_told_what_is_missing() {
    let mut pair = Pair::behind_a_proxy();
    pair.feed(HEAD.as_bytes());
    assert_eq!(pair.conn.phase(), Phase::Refusing);
    let text = String::from_utf8(pair.wire).expect("text");
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("proxy_expected"), "{text}");
}

#[test]
fn a_preamble_from_whoever_is_not_to_send_one_is_no_request() {
    for bytes in [LINE.as_bytes(), b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\xC0\0\x02\x01\xC0\0\x02\x02\0\x50\0\x50"] {
        let mut pair = Pair::new();
        pair.feed(bytes);
        pair.feed(HEAD.as_bytes());
        assert!(pair.wire.starts_with(b"HTTP/1.1 400 "));
        assert_eq!(pair.conn.peer(), peer("127.0.0.1:1"));
    }
}

#[test]
fn the_proxys_own_connection_keeps_its_address() {
    let mut pair = Pair::behind_a_proxy();
    pair.feed(b"PROXY UNKNOWN\r\n");
    pair.feed(HEAD.as_bytes());
    assert_eq!((pair.conn.phase(), pair.conn.peer()), (Phase::Open, peer("127.0.0.1:1")));
}

#[test]
fn header_and_head_have_their_time_together_from_accept() {
    for said in ["PROXY TCP4 192", LINE] {
        let mut pair = Pair::behind_a_proxy();
        let due = pair.now + pair.rules.head_timeout;
        assert_eq!(pair.conn.deadline(pair.now, &pair.rules), due);
        pair.now = pair.now + crate::time::Span::covering(Duration::from_secs(6));
        pair.feed(said.as_bytes());
        assert_eq!(pair.conn.deadline(pair.now, &pair.rules), due, "{said:?}");
        assert_eq!(pair.pass(4), None);
        assert!(pair.wire.starts_with(b"HTTP/1.1 408 "), "{said:?}");
    }
}
