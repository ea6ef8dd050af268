//! Commands and replies as JSON lines. Payloads pass through unparsed; fields that are not known are skipped.

use super::{CONNECT, Join, Malformed, Publication, Reply, SUBSCRIBE, Subscribed, Word};
use crate::poll::unbase64;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::Write;

/// Appends both commands.
pub(super) fn write(out: &mut Vec<u8>, join: &Join<'_>) {
    const FITS: &str = "memory takes all";
    write!(out, "{{\"id\":{CONNECT},\"connect\":{{").expect(FITS);
    if !join.token.is_empty() {
        out.extend_from_slice(b"\"token\":");
        string(out, join.token);
    }
    out.extend_from_slice(b"}}");
    if join.channel.is_empty() {
        return;
    }
    write!(out, "\n{{\"id\":{SUBSCRIBE},\"subscribe\":{{\"channel\":").expect(FITS);
    string(out, join.channel);
    if join.returns {
        out.extend_from_slice(b",\"recoverable\":true");
    }
    if let Some((epoch, offset)) = join.position() {
        out.extend_from_slice(b",\"recover\":true,\"epoch\":");
        string(out, epoch);
        write!(out, ",\"offset\":{offset}").expect(FITS);
    }
    out.extend_from_slice(b"}}");
}

fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string can be written as JSON, and a Vec takes everything");
}

/// Takes the next line.
pub(super) fn next<'a>(rest: &mut &'a [u8]) -> Result<Reply<'a>, Malformed> {
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    let line = rest[..end].trim_ascii();
    *rest = rest.get(end + 1..).unwrap_or_default();
    // Most of what an idle connection ever gets.
    if line == b"{}" {
        return Ok(Reply::Ping);
    }
    // An array would be taken for the fields in their order.
    if !line.starts_with(b"{") {
        return Err(Malformed);
    }
    let line: Line<'a> = serde_json::from_slice(line).map_err(|_| Malformed)?;
    line.reply()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow)]
    error: Option<Said<'a>>,
    #[serde(borrow)]
    push: Option<Push<'a>>,
    connect: Option<Session>,
    #[serde(borrow)]
    subscribe: Option<Subscription<'a>>,
}

/// An error has a message, an end has a reason.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said<'a> {
    code: u32,
    #[serde(borrow, alias = "message")]
    reason: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Session {
    client: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Subscription<'a> {
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    offset: u64,
    recovered: bool,
    #[serde(borrow)]
    publications: Option<Vec<Message<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    offset: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Push<'a> {
    #[serde(borrow, rename = "pub")]
    publication: Option<Message<'a>>,
    #[serde(borrow)]
    unsubscribe: Option<Said<'a>>,
    #[serde(borrow)]
    disconnect: Option<Said<'a>>,
}

impl<'a> Line<'a> {
    fn reply(self) -> Result<Reply<'a>, Malformed> {
        Ok(match self {
            Self { error: Some(said), .. } => Reply::Error(said.into()),
            Self { push: Some(Push { publication: Some(message), .. }), .. } => Reply::Publication(message.into()),
            Self { push: Some(Push { unsubscribe: Some(said), .. }), .. } => Reply::Unsubscribed(said.into()),
            Self { push: Some(Push { disconnect: Some(said), .. }), .. } => Reply::Disconnected(said.into()),
            Self { connect: Some(Session { client: Some(_) }), .. } => Reply::Connected,
            // A session has a client: this is our own command, come back from an echo.
            Self { connect: Some(_), .. } => return Err(Malformed),
            Self { subscribe: Some(subscription), .. } => {
                let Subscription { epoch, offset, recovered, publications } = subscription;
                let publications = publications.unwrap_or_default().into_iter().map(Publication::from).collect();
                Reply::Subscribed(Subscribed { epoch, offset, recovered, publications })
            }
            _ => Reply::Other,
        })
    }
}

impl<'a> From<Said<'a>> for Word<'a> {
    fn from(said: Said<'a>) -> Self {
        Self { code: said.code, reason: said.reason }
    }
}

impl<'a> From<Message<'a>> for Publication<'a> {
    fn from(message: Message<'a>) -> Self {
        let json = message.data.map_or("", RawValue::get).as_bytes();
        // Bytes that are no JSON stand in an object.
        let bytes = json.strip_prefix(b"{\"base64\":\"").and_then(|rest| rest.strip_suffix(b"\"}"));
        Self { data: bytes.map_or(Cow::Borrowed(json), unbase64), offset: message.offset }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{all, publication, word};
    use super::super::{Format, replies};
    use super::*;

    fn written(join: &Join<'_>) -> String {
        let mut out = b"left over".to_vec();
        join.write(&mut out, Format::Json);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn commands_are_written_as_the_sdk_does() {
        let join = Join { token: "", channel: "a\"b", returns: false, cursor: b"" };
        assert_eq!(written(&join), "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\\\"b\"}}");
        assert_eq!(written(&Join { token: "x.y", channel: "", ..join }), r#"{"id":1,"connect":{"token":"x.y"}}"#);
        let recover = written(&Join { channel: "a", returns: true, cursor: b"ep-7", ..join });
        let (_, subscribe) = recover.split_once('\n').unwrap();
        let expected =
            r#"{"id":2,"subscribe":{"channel":"a","recoverable":true,"recover":true,"epoch":"ep","offset":7}}"#;
        assert_eq!(subscribe, expected);
    }

    #[test]
    fn replies_are_read_whatever_else_they_hold() {
        let frame = br#"{"id":1,"connect":{"client":"c","version":"x","ping":25,"pong":true,"subs":{}}}
{"id":2,"subscribe":{"new":[{}],"recoverable":true,"epoch":"ep","positioned":true,"publications":[{"data":"a","offset":3},{"data":{"b":1},"info":{"user":"","client":"c"},"offset":4}],"recovered":true,"offset":4}}
{"push":{"channel":"a","pub":{"data":{"base64":"AP8="},"offset":5,"tags":{"k":"v"}}}}
{}
{"id":3,"error":{"code":103,"message":"permission \"denied\"","temporary":true}}
{"push":{"channel":"a","join":{"info":{"user":"","client":"c"}}}}
{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}
{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}
"#;
        let publications = vec![publication(b"\"a\"", 3), publication(br#"{"b":1}"#, 4)];
        let expected = [
            Reply::Connected,
            Reply::Subscribed(Subscribed { epoch: "ep".into(), offset: 4, recovered: true, publications }),
            Reply::Publication(publication(&[0, 255], 5)),
            Reply::Ping,
            Reply::Error(word(103, "permission \"denied\"")),
            Reply::Other,
            Reply::Unsubscribed(word(2500, "insufficient state")),
            Reply::Disconnected(word(3001, "shutdown")),
        ];
        assert_eq!(all(Format::Json, frame), expected);
        assert_eq!(all(Format::Json, br#"{"id":2,"subscribe":{}}"#), [Reply::Subscribed(Subscribed::default())]);
    }

    #[test]
    fn what_is_no_reply_is_told() {
        for bad in ["x", "[]", "{", "{\"id\":1,\"connect\":{}}", "{\"push\":{\"pub\":{\"offset\":-1}}}", "\n"] {
            let mut seen = replies(Format::Json, bad.as_bytes());
            assert_eq!((seen.next(), seen.next()), (Some(Err(Malformed)), None), "{bad}");
        }
        let mut seen = replies(Format::Json, b"{}\n{\n{}");
        assert_eq!((seen.next(), seen.next(), seen.next()), (Some(Ok(Reply::Ping)), Some(Err(Malformed)), None));
    }
}
