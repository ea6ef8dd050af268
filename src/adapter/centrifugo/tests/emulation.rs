//! What sessions without a WebSocket are sent, and how their commands find them.

use super::super::codec::{Format, encode};
use super::super::emulation::{Body, Emulation, Stream, Ticket, same_key};
use super::session::{Script, at, message, topic};
use crate::topic::{Change, Encoding, Message, Publication};
use std::collections::HashSet;
use std::sync::Arc;

const STREAMS: [Stream; Stream::COUNT] = {
    const fn stream(body: Body, is_chunked: bool) -> Stream {
        Stream { body, is_chunked }
    }
    [
        stream(Body::Lines, false),
        stream(Body::Lines, true),
        stream(Body::Events, false),
        stream(Body::Events, true),
        stream(Body::Protobuf, false),
        stream(Body::Protobuf, true),
    ]
};

/// What is in the only chunk there is (RFC 9112, section 7.1).
#[track_caller]
fn in_chunk(bytes: &[u8]) -> &[u8] {
    let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a line");
    let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).expect("a size");
    let rest = &bytes[end + 2..];
    assert_eq!(&rest[size..], b"\r\n", "{}", bytes.escape_ascii());
    &rest[..size]
}

/// The replies in a body, for which a client has to wait for nothing more.
#[track_caller]
fn replies(body: Body, bytes: &[u8]) -> Vec<Vec<u8>> {
    match body {
        Body::Lines => {
            let lines = bytes.strip_suffix(b"\n").expect("the end of a line");
            lines.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect()
        }
        Body::Events => {
            let text = std::str::from_utf8(bytes).unwrap();
            let events = text.strip_suffix("\n\n").expect("the end of an event").split("\n\n");
            events.map(|event| event.strip_prefix("data: ").expect("a data field").as_bytes().to_vec()).collect()
        }
        Body::Protobuf => {
            let (mut rest, mut all) = (bytes, Vec::new());
            while !rest.is_empty() {
                let length = prost::encoding::decode_varint(&mut rest).expect("a length") as usize;
                let (reply, behind) = rest.split_at(length);
                all.push(reply.to_vec());
                rest = behind;
            }
            all
        }
    }
}

#[test]
fn a_frame_of_replies_is_one_chunk_of_whole_replies() {
    for stream in STREAMS {
        let format = stream.format();
        for count in 1..20 {
            let mut frame = Vec::new();
            for id in 0..count {
                let outcome = Some(super::super::protocol::Outcome::Ping(super::super::protocol::Empty {}));
                encode(&mut frame, format, &super::super::protocol::Reply { id, outcome });
            }
            let sent = stream.frame(&frame);
            let body = if stream.is_chunked { in_chunk(&sent) } else { &sent };
            let plain = Stream { body: if format == Format::Json { Body::Lines } else { Body::Protobuf }, ..stream };
            let expected = replies(plain.body, &Stream { is_chunked: false, ..plain }.frame(&frame));
            assert_eq!(replies(stream.body, body), expected, "{stream:?}");
            assert_eq!(expected.len(), count as usize);
        }
        let ping = stream.frame(format.ping());
        let expected: &[u8] = match (stream.body, stream.is_chunked) {
            (Body::Lines, false) => b"{}\n",
            (Body::Lines, true) => b"3\r\n{}\n\r\n",
            (Body::Events, false) => b"data: {}\n\n",
            (Body::Events, true) => b"a\r\ndata: {}\n\n\r\n",
            (Body::Protobuf, false) => b"\0",
            (Body::Protobuf, true) => b"1\r\n\0\r\n",
        };
        assert_eq!(ping, expected);
    }
}

#[test]
fn the_last_words_say_why_and_end_the_body() {
    let parting = |index: usize| String::from_utf8_lossy(&STREAMS[index].parting(3012, "no pong")).into_owned();
    let push = r#"{"push":{"disconnect":{"code":3012,"reason":"no pong"}}}"#;
    assert_eq!(parting(0), format!("{push}\n"));
    assert_eq!(parting(1), format!("{:x}\r\n{push}\n\r\n0\r\n\r\n", push.len() + 1));
    assert_eq!(parting(2), format!("data: {push}\n\n"));
    // Reply { push: 2 { disconnect: 8 { code: 1, reason: 2 } } }, as client.proto numbers them.
    let words = [&b"\x08\xc4\x17\x12\x07no pong"[..]].concat();
    let bytes = STREAMS[4].parting(3012, "no pong");
    assert!(bytes.ends_with(&words) && bytes[0] as usize == bytes.len() - 1, "{}", bytes.escape_ascii());
    assert!(STREAMS[5].parting(3012, "no pong").ends_with(b"\r\n0\r\n\r\n"));
}

#[test]
fn only_an_event_stream_begins_with_something() {
    let beginnings: Vec<_> = STREAMS.iter().map(|stream| stream.beginning()).collect();
    assert_eq!(beginnings, [&b""[..], b"", b":\n\n", b"3\r\n:\n\n\r\n", b"", b""]);
    let numbers: HashSet<_> = STREAMS.iter().map(|stream| stream.index()).collect();
    assert_eq!(numbers, (0..Stream::COUNT).collect());
}

#[test]
fn a_publication_is_written_once_for_each_kind_of_stream() {
    let published = message(7, r#"{"n": 1}"#);
    let json = br#"{"push":{"channel":"a","pub":{"data":{"n": 1},"offset":7}}}"#;
    for stream in STREAMS {
        let bytes = published.encoded(Encoding::CentrifugoStream(stream), None);
        assert_eq!(bytes.as_ptr(), published.encoded(Encoding::CentrifugoStream(stream), None).as_ptr());
        let body = if stream.is_chunked { in_chunk(bytes) } else { bytes };
        let replies = replies(stream.body, body);
        assert_eq!(replies.len(), 1);
        if stream.format() == Format::Json {
            let compact = |bytes: &[u8]| bytes.iter().copied().filter(|&byte| byte != b' ').collect::<Vec<_>>();
            assert_eq!(compact(&replies[0]), compact(json));
        }
    }
    let author =
        crate::topic::Author { client: "c".into(), user: "u".into(), info: Default::default(), is_quiet: false };
    let came = Publication::of_change(Change::Came, Arc::new(author));
    let came = Message::new(topic("a").live(), at(1), false, came, 0);
    assert_eq!(
        came.encoded(Encoding::CentrifugoStream(STREAMS[0]), None),
        b"{\"push\":{\"channel\":\"a\",\"join\":{\"info\":{\"user\":\"u\",\"client\":\"c\"}}}}\n"
    );
}

#[test]
fn a_ticket_is_read_as_it_was_written_and_nothing_else_is_one() {
    let ticket = Ticket { worker: 0x0102, slot: 0x0304_0506, serial: u64::MAX - 1, key: u128::MAX / 3 };
    let text = ticket.text();
    assert_eq!((text.len(), Ticket::read(&text)), (40, Some(ticket)));
    for (at, _) in text.char_indices() {
        assert!(Ticket::read(&text[..at]).is_none());
        for other in ["=", "+", "/", " ", "\0"] {
            assert!(Ticket::read(&format!("{}{other}{}", &text[..at], &text[at + 1..])).is_none(), "{other:?} at {at}");
        }
        let swapped = if &text[at..=at] == "A" { "B" } else { "A" };
        let other = Ticket::read(&format!("{}{swapped}{}", &text[..at], &text[at + 1..])).expect("another one");
        assert!(other != ticket, "no two texts are one ticket");
    }
    assert!(Ticket::read("").is_none() && Ticket::read(&"A".repeat(44)).is_none());
    assert!(!format!("{ticket:?}").contains(&format!("{}", ticket.key)), "the key is nobody's business");
}

#[test]
fn keys_are_the_same_or_they_are_not() {
    assert!(same_key(0, 0) && same_key(u128::MAX, u128::MAX));
    assert!((0..128).all(|bit| !same_key(1 << bit, 0) && !same_key(u128::MAX, u128::MAX ^ 1 << bit)));
}

#[test]
fn only_a_session_without_a_websocket_is_told_where_its_commands_go() {
    let ticket = Ticket { worker: 1, slot: 2, serial: 3, key: 4 };
    let mut script = Script::new();
    script.rules.emulation = Some(Emulation { ticket, node: "here" });
    let (reply, _) = script.say(r#"{"id":1,"connect":{}}"#);
    assert!(reply.contains(&format!(r#""session":"{}","node":"here""#, ticket.text())), "{reply}");
    let (reply, _) = Script::new().say(r#"{"id":1,"connect":{}}"#);
    assert!(!reply.contains("session") && !reply.contains("node"));
}
