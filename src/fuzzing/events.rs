//! Event streams: what is written is read back, by the letter of the standard, as what was published, and nothing more.

use super::settings;
use crate::adapter::centrifugo::emulation::{Body, Stream};
use crate::topic::{Cursor, Encoding, Gap, Kind, Message, Publication, Since, TopicName};
use base64::engine::{Engine, general_purpose::STANDARD};
use std::sync::Arc;

/// An event as an EventSource dispatches it: last event id, type, data.
type Seen = (String, String, String);

/// Six bytes of settings (epoch, offset, what the payloads are, where one ends), then payloads, one of which is also what a
/// client says that it has seen last.
pub fn sse(data: &[u8]) {
    let ([epoch, high, low, shift, kinds, part], rest) = settings::<6>(data);
    let offset = u64::from(u16::from_be_bytes([high, low])) << (shift % 49);
    let epoch = format!("abc{}DE9", ["ab", "Zz", "00", "9A"][usize::from(epoch) % 4]);
    let cursor: Cursor = format!("{epoch}-{offset}").parse().expect("a cursor");
    let (first, second) = rest.split_at(rest.len() * usize::from(part) / 256);
    check_position(first);
    let (mut stream, mut expected) = (String::new(), Vec::new());
    for (payload, kind, offset) in [(first, kinds, offset), (second, kinds >> 2, offset.saturating_add(1))] {
        let at = Cursor { offset, ..cursor };
        let message = message(payload, kind, at);
        let event = message.encoded(Encoding::Event, None);
        let event = std::str::from_utf8(event).expect("an event stream is UTF-8");
        let seen = match message.kind {
            Kind::Bytes => (at.to_string(), "base64".to_owned(), STANDARD.encode(&message.payload)),
            Kind::Text | Kind::Json => {
                let text = std::str::from_utf8(&message.payload).expect("it was checked");
                (at.to_string(), "message".to_owned(), text.replace("\r\n", "\n").replace('\r', "\n"))
            }
        };
        stream += event;
        expected.push(seen);
        check_element(&message);
    }
    let gap = Gap { since: String::from_utf8_lossy(first).into(), resumed: cursor };
    stream += std::str::from_utf8(&Encoding::Event.gap(&gap).expect("an event")).expect("UTF-8");
    expected.push((cursor.to_string(), "gap".to_owned(), gap.json()));
    assert_eq!(event_source(stream.as_bytes()), expected);
    check_gap(&gap);
    check_emulated(&message(first, kinds, cursor));
}

fn message(payload: &[u8], kind: u8, cursor: Cursor) -> Arc<Message> {
    let text = std::str::from_utf8(payload).ok();
    let publication = match (kind % 4, text) {
        (1, Some(text)) => Publication::json(text).unwrap_or_else(|_| Publication::from(text)),
        (0 | 2, Some(text)) => Publication::from(text),
        _ => Publication::from(payload),
    };
    let topic = TopicName::new("t").expect("a name");
    Arc::new(Message::new(topic, cursor, true, publication, 0))
}

/// A cursor has one spelling, and no other is one.
fn check_position(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let naive = text.split_once('-').filter(|(epoch, offset)| {
        let is_number = offset.parse::<u64>().is_ok_and(|number| number.to_string() == *offset);
        epoch.len() == 8 && epoch.bytes().all(|byte| byte.is_ascii_alphanumeric()) && is_number
    });
    match text.parse::<Cursor>() {
        Ok(cursor) => assert!(naive.is_some() && cursor.to_string() == text, "{text}"),
        Err(_) => assert_eq!(naive, None, "{text}"),
    }
    match text.parse() {
        Ok(Since::At(cursor)) => assert_eq!(text, cursor.to_string()),
        Ok(Since::Earliest) => assert_eq!(text, "earliest"),
        Ok(Since::Latest) => assert_eq!(text, "latest"),
        Err(_) => assert_eq!(naive, None, "{text}"),
    }
}

/// The element of a poll has the same in JSON.
fn check_element(message: &Message) {
    let element = message.encoded(Encoding::Element, None);
    // What no double holds is JSON as well, and serde_json has no place for it.
    let Ok(element) = serde_json::from_slice::<serde_json::Value>(element) else {
        return assert_eq!(message.kind, Kind::Json);
    };
    assert_eq!(element["id"], message.cursor.to_string());
    assert_eq!(element.as_object().map(serde_json::Map::len), Some(2));
    match message.kind {
        Kind::Bytes => assert_eq!(element["base64"], STANDARD.encode(&message.payload)),
        Kind::Text => assert_eq!(element["data"].as_str().map(str::as_bytes), Some(&*message.payload)),
        Kind::Json => {
            let data: serde_json::Value = serde_json::from_slice(&message.payload).expect("its element was");
            assert_eq!(element["data"], data);
        }
    }
}

fn check_gap(gap: &Gap) {
    let said: serde_json::Value = serde_json::from_str(&gap.json()).expect("JSON");
    let expected = serde_json::json!({"gap": {"since": &*gap.since, "resumed": gap.resumed.to_string()}});
    assert_eq!(said, expected);
}

/// A session of Centrifugo's protocol over an event stream: each reply is an event, however it is chunked.
fn check_emulated(message: &Message) {
    let stream = |is_chunked| Stream { body: Body::Events, is_chunked };
    let push = crate::adapter::centrifugo::push::of_message(stream(false).format(), message);
    let replies = [&push[..], b"\n", stream(false).format().ping()].concat();
    let plain = [stream(false).beginning(), stream(false).frame(&replies), stream(false).parting(3000, "bye")].concat();
    let chunked = [stream(true).beginning(), stream(true).frame(&replies), stream(true).parting(3000, "bye")].concat();
    let events = event_source(&plain);
    let [first, second, last] = &events[..] else { panic!("{events:?}") };
    assert!(events.iter().all(|(id, kind, _)| id.is_empty() && kind == "message"));
    assert_eq!((first.2.as_bytes(), &*second.2), (&push[..], "{}"));
    assert!(last.2.contains("3000"));
    assert_eq!(super::head::unchunked(&chunked), Some(plain));
}

/// HTML, section 9.2.6, a line at a time: what is dispatched of a stream that has ended.
fn event_source(stream: &[u8]) -> Vec<Seen> {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut seen, mut id, mut kind, mut data) = (Vec::new(), String::new(), String::new(), String::new());
    let mut last_id = String::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\r', '\n']) {
        let line = &rest[..end];
        rest = rest[end..].strip_prefix("\r\n").unwrap_or(&rest[end + 1..]);
        if line.is_empty() {
            last_id.clone_from(&id);
            if let Some(data) = data.strip_suffix('\n') {
                let kind = if kind.is_empty() { "message" } else { &kind };
                seen.push((last_id.clone(), kind.to_owned(), data.to_owned()));
            }
            data.clear();
            kind.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data.extend([value, "\n"]),
            "event" => value.clone_into(&mut kind),
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            _ => {}
        }
    }
    seen
}
