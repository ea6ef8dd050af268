//! Long polls from the client's side, sans-IO: answers with a length, and the JSON in them, which WebSockets with
//! `frames=json` carry too.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
const HEAD_BYTES_MAX: usize = crate::handshake::HEAD_BYTES_MAX;
const CURSOR_BYTES_MAX: usize = 64;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    /// Where the next poll goes on.
    pub(crate) cursor: Option<&'a [u8]>,
    pub(crate) body: &'a [u8],
}

/// What bytes are so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// More has to come: so many bytes in all, as far as that is known.
    Partial(usize),
    Whole(Answer<'a>),
    /// No answer to a poll: not HTTP, of no length, too long, or with something behind it that nobody asked for.
    Broken,
}

pub(crate) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Parsed::Partial(bytes.len() + 1),
        _ => return Parsed::Broken,
    };
    let status = response.code.unwrap_or(0);
    let (mut length, mut cursor) = ((status == 204).then_some(0), None);
    for field in response.headers {
        if field.name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(field.value).ok().and_then(|text| text.trim().parse::<usize>().ok());
        } else if field.name.eq_ignore_ascii_case("throng-cursor") {
            cursor = Some(field.value.trim_ascii()).filter(|cursor| is_cursor(cursor));
        }
    }
    let Some(length) = length.filter(|&length| length <= ANSWER_BYTES_MAX) else { return Parsed::Broken };
    match bytes.len().cmp(&(head + length)) {
        std::cmp::Ordering::Less => Parsed::Partial(head + length),
        std::cmp::Ordering::Equal => Parsed::Whole(Answer { status, cursor, body: &bytes[head..] }),
        std::cmp::Ordering::Greater => Parsed::Broken,
    }
}

/// Whether it can be sent back in a URL and in a header as it is.
pub(crate) fn is_cursor(bytes: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.:~-".contains(byte);
    (1..=CURSOR_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(plain)
}

/// One element of a poll, or one JSON frame. Cursors and base64 need no escapes, so they are borrowed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Element<'a> {
    pub(crate) id: Option<&'a str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    base64: Option<&'a str>,
    #[serde(borrow)]
    pub(crate) gap: Option<Gap<'a>>,
}

/// What is missing, and where it goes on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Gap<'a> {
    since: Option<IgnoredAny>,
    pub(crate) resumed: Option<&'a str>,
}

impl<'a> Element<'a> {
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    pub(crate) fn parse_all(body: &'a [u8]) -> Option<Vec<Self>> {
        if body.is_empty() { Some(Vec::new()) } else { serde_json::from_slice(body).ok() }
    }

    /// The payload: JSON as it stands there, or bytes.
    pub(crate) fn payload(&self) -> Cow<'a, [u8]> {
        match (self.data, self.base64) {
            (Some(data), _) => Cow::Borrowed(data.get().as_bytes()),
            (None, Some(text)) => unbase64(text.as_bytes()),
            (None, None) => Cow::Borrowed(b""),
        }
    }
}

/// What base64 stands for; what is none stands for itself.
pub(crate) fn unbase64(text: &[u8]) -> Cow<'_, [u8]> {
    STANDARD.decode(text).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 28\r\nThrong-Cursor: abcdefgh-7\r\n\r\n\
                          [{\"id\":\"e-1\",\"data\":\"one\"}]\n";

    #[test]
    fn an_answer_is_awaited_whole_wherever_it_is_cut() {
        let bytes = ANSWER.as_bytes();
        for cut in 0..bytes.len() {
            let Parsed::Partial(needed) = parse(&bytes[..cut]) else { panic!("cut at {cut}") };
            assert!(needed > cut && needed <= bytes.len(), "cut at {cut}: {needed}");
        }
        let body = &bytes[bytes.len() - 28..];
        assert_eq!(parse(bytes), Parsed::Whole(Answer { status: 200, cursor: Some(b"abcdefgh-7"), body }));
        assert_eq!(parse(format!("{ANSWER}x").as_bytes()), Parsed::Broken);
    }

    #[test]
    fn what_is_no_answer_to_a_poll_is_told() {
        let quiet = b"HTTP/1.1 204 No Content\r\nThrong-Cursor: e-1\r\n\r\n";
        assert_eq!(parse(quiet), Parsed::Whole(Answer { status: 204, cursor: Some(b"e-1"), body: b"" }));
        for broken in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
            assert_eq!(parse(broken.as_bytes()), Parsed::Broken, "{broken}");
        }
        assert_eq!(parse(&[b'a'; HEAD_BYTES_MAX]), Parsed::Broken);
        let evil = "HTTP/1.1 204 No\r\nThrong-Cursor: a&b\r\n\r\n";
        assert_eq!(parse(evil.as_bytes()), Parsed::Whole(Answer { status: 204, cursor: None, body: b"" }));
    }

    #[test]
    fn elements_are_read_with_what_they_may_hold() {
        let body = br#"[{"gap":{"since":"x\n","resumed":"e-3"}},{"id":"e-4","data":{"a":1},"new":[2]},{"id":"e-5","base64":"AP8="}]"#;
        let all = Element::parse_all(body).unwrap();
        assert_eq!(all[0].gap.as_ref().unwrap().resumed, Some("e-3"));
        assert_eq!((all[1].id, &*all[1].payload()), (Some("e-4"), &br#"{"a":1}"#[..]));
        assert_eq!((all[2].id, &*all[2].payload()), (Some("e-5"), &[0, 255][..]));
        assert!(all[1].gap.is_none() && Element::parse_all(b"").unwrap().is_empty());
        for cut in 1..body.len() {
            assert!(Element::parse_all(&body[..cut]).is_none(), "cut at {cut}");
        }
        assert!(Element::parse(br#"{"id":"e-4","data":"x"}"#).is_some());
    }
}
