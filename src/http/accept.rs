//! What a request prefers: a media type, how long to wait. Values come as the fields' values, one each line.

use super::Head;
use std::fmt;
use std::iter;

/// Whether Accept names a media type with a weight above 0 (RFC 9110, section 12.5.1). A wildcard does not
/// name it: who sends `*/*` takes anything, and asks for nothing. Parameters other than the weight are ignored;
/// a member with a malformed weight is too.
pub(crate) fn accepts<V: AsRef<[u8]>>(mut values: impl Iterator<Item = V>, media_type: &str) -> bool {
    values.any(|value| {
        split_unquoted(value.as_ref(), b',').any(|range| {
            let mut parts = split_unquoted(range, b';');
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type.as_bytes()));
            named && parts.find_map(weight_is_positive).unwrap_or(true)
        })
    })
}

/// Whether it comes from an EventSource, or asks as one does.
pub(crate) fn wants_events(head: &Head<'_>) -> bool {
    head.method() == "GET" && accepts(head.header_values("Accept"), "text/event-stream")
}

/// Whether a parameter that is a weight is above 0 (RFC 9110, section 12.4.2); `None` if it is another one.
fn weight_is_positive(parameter: &[u8]) -> Option<bool> {
    let [b'q' | b'Q', b'=', weight @ ..] = parameter else {
        return None;
    };
    let (whole, fraction) = match weight {
        [whole] | [whole, b'.'] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return Some(false),
    };
    Some(match whole {
        b'0' => fraction.iter().all(u8::is_ascii_digit) && fraction.iter().any(|&digit| digit != b'0'),
        b'1' => fraction.iter().all(|&digit| digit == b'0'),
        _ => false,
    })
}

/// `Prefer: wait` without digits behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadWait;

impl fmt::Display for BadWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write Prefer: wait=N, N a number of seconds in digits alone")
    }
}

impl std::error::Error for BadWait {}

/// The seconds of `Prefer: wait=N` (RFC 7240, section 4.3), the first if there are several (section 2). What no
/// u32 holds becomes its greatest value.
pub(crate) fn prefer_wait<V: AsRef<[u8]>>(mut values: impl Iterator<Item = V>) -> Option<Result<u32, BadWait>> {
    values.find_map(|value| split_unquoted(value.as_ref(), b',').find_map(wait))
}

/// As [`prefer_wait`], of one preference; `None` if it is another one.
fn wait(preference: &[u8]) -> Option<Result<u32, BadWait>> {
    // Parameters may follow (section 2); wait has none, so they are ignored.
    let preference = split_unquoted(preference, b';').next()?;
    let equals = preference.iter().position(|&byte| byte == b'=');
    let (name, seconds) = match equals {
        Some(at) => (&preference[..at], &preference[at + 1..]),
        None => (preference, &[][..]),
    };
    // White space around `=` is bad, but to be accepted (section 2).
    if !name.trim_ascii().eq_ignore_ascii_case(b"wait") {
        return None;
    }
    let seconds = seconds.trim_ascii();
    if seconds.is_empty() || !seconds.iter().all(u8::is_ascii_digit) {
        return Some(Err(BadWait));
    }
    let add = |sum: u32, digit: &u8| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
    Some(Ok(seconds.iter().fold(0, add)))
}

/// The members of a list, without white space around them, split where no quoted string (RFC 9110, section
/// 5.6.4) is open. Empty members are passed on: they match nothing.
fn split_unquoted(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(list);
    iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.iter().position(|&byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = quoted,
                b'"' => quoted = !quoted,
                _ => return !quoted && byte == separator,
            }
            false
        });
        rest = end.map(|end| &text[end + 1..]);
        Some(text[..end.unwrap_or(text.len())].trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSE: &str = "text/event-stream";

    #[test]
    fn a_media_type_is_accepted_if_named() {
        for values in [
            &["text/event-stream"][..],
            &["TEXT/Event-Stream"],
            &["application/json", "text/event-stream"],
            &["text/html , text/event-stream ; q=0.001"],
            &[",,text/event-stream,"],
            &["text/event-stream;charset=utf-8;Q=1.000"],
            &["text/event-stream;q=1"],
            &["text/event-stream;q=1."],
            &["a/b;c=\",\\\",\", text/event-stream"],
        ] {
            assert!(accepts(values.iter(), SSE), "{values:?}");
        }
        for values in [
            &[][..],
            &[""],
            &["*/*"],
            &["text/*"],
            &["text/event-stream2"],
            &["text/event-stream/x"],
            &["text/event-stream;q=0"],
            &["text/event-stream;q=0."],
            &["text/event-stream; q=0.000, */*"],
            &["text/event-stream;q="],
            &["text/event-stream;q=2"],
            &["text/event-stream;q=1.001"],
            &["text/event-stream;q=0.0001"],
            &["text/event-stream;q=0.x"],
            &["text/event-stream;q=-1"],
            &["a/b;c=\", text/event-stream\""],
            &["a/b;c=\", text/event-stream"],
        ] {
            assert!(!accepts(values.iter(), SSE), "{values:?}");
        }
        assert!(accepts([b"\xff, text/event-stream"].iter(), SSE));
    }

    #[test]
    fn the_first_wait_counts() {
        for (values, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["respond-async, waiting=3"], None),
            (&["foo=\"wait=3, wait=4\""], None),
            (&["foo; wait=3"], None),
            (&["wait=0"], Some(Ok(0))),
            (&["wait=10"], Some(Ok(10))),
            (&["Respond-Async, WAIT = 010 ; a=b"], Some(Ok(10))),
            (&["respond-async", "wait=5", "wait=6"], Some(Ok(5))),
            (&["wait=5, wait=x"], Some(Ok(5))),
            (&["wait=4294967295"], Some(Ok(u32::MAX))),
            (&["wait=4294967296"], Some(Ok(u32::MAX))),
            (&["wait=99999999999999999999999"], Some(Ok(u32::MAX))),
            (&["wait"], Some(Err(BadWait))),
            (&["wait="], Some(Err(BadWait))),
            (&["wait=x, wait=5"], Some(Err(BadWait))),
            (&["wait=-1"], Some(Err(BadWait))),
            (&["wait=+1"], Some(Err(BadWait))),
            (&["wait=1.5"], Some(Err(BadWait))),
            (&["wait=1 2"], Some(Err(BadWait))),
            (&["wait=\"5\""], Some(Err(BadWait))),
        ] {
            assert_eq!(prefer_wait(values.iter()), expected, "{values:?}");
        }
    }
}
