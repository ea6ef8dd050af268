//! Request heads and bodies: whole or in pieces they are the same, and what is taken is what RFC 9112 says.

use super::{cuts, settings};
use crate::error::Refused;
use crate::http::{
    Body, BodyError, Fields, Framing, Head, HeadScan, QueryError, Upgrade, first, pairs, prefer_wait, wants_events,
    wants_websocket,
};
use crate::limits::HEAD_BYTES_MAX;

/// Five bytes of settings (how it is cut; how many bytes are padded in, to reach the limits, and where; how long a body may
/// be), then what a client sends.
pub fn head(data: &[u8]) {
    let ([seed, padding, padding_high, padding_at, exponent], sent) = settings::<5>(data);
    let padding = usize::from(u16::from_le_bytes([padding, padding_high])) % (HEAD_BYTES_MAX + 1000);
    let at = usize::from(padding_at) * sent.len() / 256;
    let bytes = [&sent[..at], &vec![b'a'; padding], &sent[at..]].concat();
    let found = end_of(&bytes, |rest| rest);
    assert_eq!(found, end_of(&bytes, |_| 1), "a byte at a time");
    assert_eq!(found, end_of(&bytes, cuts(seed, 5000)), "in pieces");
    match found {
        Ok(Some(end)) => {
            check_end(&bytes[..end]);
            let mut fields = Fields::new();
            if let Ok(head) = Head::parse(&bytes[..end], &mut fields) {
                check_head(&head);
                check_upgrade(&head);
                check_query(head.query().unwrap_or(""));
                let _ = (wants_events(&head), prefer_wait(head.header_values("Prefer")), head.expects_continue());
                check_body(head.framing().expect("checked with the head"), 1 << (exponent % 17), &bytes[end..], seed);
            }
        }
        Ok(None) => assert!(bytes.len() <= HEAD_BYTES_MAX),
        Err(Refused::HeadTooLarge) => assert!(bytes.len() > HEAD_BYTES_MAX),
        Err(_) => {}
    }
    // Bodies without the luck of a head in front.
    for framing in [Framing::Chunked, Framing::Length(u64::from(padding_at))] {
        check_body(framing, 1 << (exponent % 17), &bytes, seed);
    }
}

/// Where the head ends, in bytes that come in pieces.
fn end_of(bytes: &[u8], mut cut: impl FnMut(usize) -> usize) -> Result<Option<usize>, Refused> {
    let (mut scan, mut have) = (HeadScan::default(), 0);
    while have < bytes.len() {
        have += cut(bytes.len() - have).min(bytes.len() - have);
        let found = scan.advance(&bytes[..have]);
        if found != Ok(None) {
            return found;
        }
    }
    Ok(None)
}

/// A head is lines that end in CRLF, of which only the last, and some in front, are empty.
fn check_end(head: &[u8]) {
    assert!(head.len() <= HEAD_BYTES_MAX);
    let text = &head[head.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(head.len())..];
    let end = text.windows(4).position(|window| window == b"\r\n\r\n");
    assert!(text.is_empty() || end == Some(text.len() - 4), "it ends at the first empty line");
    assert!(head.split_inclusive(|&byte| byte == b'\n').all(|line| line.ends_with(b"\r\n")), "a bare LF");
}

/// What a head says has the syntax of what it is, and means the same when it is written down again.
fn check_head(head: &Head<'_>) {
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_token_byte);
    assert!(is_token(head.method()), "{head:?}");
    assert!(head.path().starts_with('/') && !head.path().contains(['?', '#']), "{head:?}");
    assert!(head.path().bytes().chain(head.query().unwrap_or("").bytes()).all(|byte| byte.is_ascii_graphic()));
    let hosts = head.header_values("hOST").count();
    assert!(hosts == 1 || hosts == 0 && !head.is_http11(), "{hosts} hosts");
    let mut again = format!("{} {}", head.method(), head.path()).into_bytes();
    if let Some(query) = head.query() {
        again.extend_from_slice(format!("?{query}").as_bytes());
    }
    again.extend_from_slice(if head.is_http11() { b" HTTP/1.1\r\n" } else { b" HTTP/1.0\r\n" });
    for (name, value) in head.headers() {
        assert!(is_token(name), "{head:?}");
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)), "{head:?}");
        again.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    again.extend_from_slice(b"\r\n");
    let mut fields = Fields::new();
    let same = Head::parse(&again, &mut fields).expect("what was read once");
    assert_eq!((head.method(), head.path(), head.query()), (same.method(), same.path(), same.query()));
    assert!(head.headers().eq(same.headers()), "{head:?}\n{same:?}");
    assert_eq!((head.framing(), head.is_persistent()), (same.framing(), same.is_persistent()));
    let lengths = head.header_values("content-length").count();
    match head.framing() {
        Ok(Framing::None) => assert_eq!(lengths + head.header_values("transfer-encoding").count(), 0),
        Ok(Framing::Length(_)) => assert_eq!((lengths, head.header_values("transfer-encoding").count()), (1, 0)),
        Ok(Framing::Chunked) => assert!(lengths == 0 && head.is_http11()),
        Err(refused) => panic!("{refused:?} was found with the head"),
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 6455, section 4.2.1, item by item.
fn check_upgrade(head: &Head<'_>) {
    if !wants_websocket(head) || Upgrade::check(head).is_err() {
        return;
    }
    assert_eq!((head.method(), head.is_http11()), ("GET", true));
    assert!(head.header_has_token("connection", "upgrade"));
    assert!(head.header_values("Sec-WebSocket-Version").eq([b"13"]));
    let keys: Vec<_> = head.header_values("Sec-WebSocket-Key").collect();
    assert!(matches!(keys[..], [key] if key.len() == 24 && key.ends_with(b"==")), "16 bytes in base64: {keys:?}");
    let mut protocols: Vec<_> = head.subprotocols().collect();
    assert!(protocols.iter().all(|protocol| protocol.bytes().all(is_token_byte)));
    let offered = protocols.len();
    protocols.sort_unstable();
    protocols.dedup();
    assert_eq!(protocols.len(), offered, "one twice");
}

fn check_query(query: &str) {
    let Ok(all) = pairs(query).collect::<Result<Vec<_>, _>>() else { return };
    let mut values = all.iter().filter(|(name, _)| name == "since").map(|(_, value)| value);
    let expected = match (values.next(), values.next()) {
        (value, None) => Ok(value.cloned()),
        _ => Err(QueryError::Repeated("since")),
    };
    assert_eq!(first(query, "since"), expected);
}

/// What came of a body: its bytes, how many of the input it had, whether it is whole.
type Outcome = Result<(Vec<u8>, usize, bool), BodyError>;

fn check_body(framing: Framing, max: usize, input: &[u8], seed: u8) {
    let whole = fed(framing, max, input, |rest| rest);
    assert_eq!(whole, fed(framing, max, input, |_| 1), "a byte at a time");
    assert_eq!(whole, fed(framing, max, input, cuts(seed, 300)), "in pieces");
    let Ok((bytes, consumed, is_done)) = whole else {
        if matches!(whole, Err(BodyError::BadChunk(_))) {
            assert_eq!(naive_chunks(input), None, "it is well-formed");
        }
        return;
    };
    assert!(bytes.len() <= max && consumed <= input.len());
    match framing {
        Framing::None => assert_eq!((bytes.len(), consumed, is_done), (0, 0, true)),
        Framing::Length(length) => {
            assert_eq!(is_done, input.len() as u64 >= length);
            assert_eq!((&bytes[..], consumed), (&input[..consumed], length.min(input.len() as u64) as usize));
        }
        Framing::Chunked => assert_eq!(naive_chunks(input), is_done.then_some((bytes, consumed))),
    }
}

fn fed(framing: Framing, max: usize, input: &[u8], mut cut: impl FnMut(usize) -> usize) -> Outcome {
    let mut body = Body::new(framing, max)?;
    let (mut bytes, mut at) = (Vec::new(), 0);
    while at < input.len() && !body.is_done() {
        let length = cut(input.len() - at).min(input.len() - at);
        let fed = body.feed(&input[at..at + length])?;
        assert!(fed.done || fed.consumed == length, "input is left over, and the body not done");
        assert_eq!(fed.done, body.is_done());
        at += fed.consumed;
        // Now and then what there is, is taken; in between it is bounded by what has come.
        if at.is_multiple_of(5) || fed.done {
            let taken = body.take();
            assert!(taken.capacity() <= 2 * at, "{} for {at} bytes", taken.capacity());
            bytes.extend_from_slice(&taken);
        }
    }
    bytes.extend_from_slice(&body.take());
    Ok((bytes, at, body.is_done()))
}

/// A whole chunked body (RFC 9112, section 7.1) without any limit: what it says, and how long it is.
fn naive_chunks(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let is_text = |text: &[u8]| text.iter().all(|&byte| byte == b'\t' || byte >= b' ' && byte != 0x7F);
    let (mut said, mut rest) = (Vec::new(), input);
    loop {
        let (line, behind) = line(rest)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let extension = &line[digits..];
        let is_extension = extension.is_empty() || extension.trim_ascii_start().starts_with(b";");
        if !(1..=16).contains(&digits) || !is_extension || !is_text(line) {
            return None;
        }
        let size = u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        if size == 0 {
            rest = behind;
            break;
        }
        let (chunk, behind) = behind.split_at_checked(usize::try_from(size).ok()?)?;
        said.extend_from_slice(chunk);
        rest = behind.strip_prefix(b"\r\n")?;
    }
    loop {
        let (trailer, behind) = line(rest)?;
        rest = behind;
        if trailer.is_empty() {
            return Some((said, input.len() - rest.len()));
        }
        let colon = trailer.iter().position(|&byte| byte == b':')?;
        if colon == 0 || !trailer[..colon].iter().copied().all(is_token_byte) || !is_text(trailer) {
            return None;
        }
    }
}

/// A body without the chunks around it, if it is whole and nothing follows.
pub(super) fn unchunked(body: &[u8]) -> Option<Vec<u8>> {
    naive_chunks(body).filter(|(_, length)| *length == body.len()).map(|(said, _)| said)
}

/// A line and what is behind its CRLF, if it has one and neither CR nor LF before.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| b"\r\n".contains(byte))?;
    Some((&bytes[..end], bytes[end..].strip_prefix(b"\r\n")?))
}
