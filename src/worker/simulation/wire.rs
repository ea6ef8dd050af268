//! What a client understands of the wire, written from its description: nothing of the server's own code.

use base64::engine::{Engine, general_purpose::STANDARD};

/// A cursor: an epoch of eight letters and an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) epoch: [u8; 8],
    pub(super) offset: u64,
}

impl At {
    pub(super) fn parse(text: &str) -> Self {
        let (epoch, offset) = text.split_once('-').unwrap_or_else(|| panic!("{text:?} is no cursor"));
        let epoch = epoch.as_bytes().try_into().unwrap_or_else(|_| panic!("{text:?} is no cursor"));
        Self { epoch, offset: offset.parse().unwrap_or_else(|_| panic!("{text:?} is no cursor")) }
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", String::from_utf8_lossy(&self.epoch), self.offset)
    }
}

/// What a payload is, as far as a transport tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Json,
    Bytes,
    /// Text or JSON.
    Words,
}

pub(super) type Payload = (Shape, Vec<u8>);

/// One thing in a poll's array.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Element {
    Message(At, Payload),
    Gap { since: String, resumed: At },
}

/// The head of a response, and its body if its length is told.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    /// Takes a whole response off the front of `input`.
    pub(super) fn take(input: &mut Vec<u8>, to_head: bool) -> Option<Self> {
        let end = input.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(input[..end].to_vec()).expect("a head is ASCII");
        let mut line = head.split(' ');
        assert_eq!(line.next(), Some("HTTP/1.1"), "{head:?}");
        let status = line.next().and_then(|status| status.parse().ok()).expect("a status");
        let mut answer = Self { status, head, body: String::new() };
        let bodiless = to_head || matches!(status, 101 | 204);
        let length = answer.field("content-length").map_or(0, |length| length.parse().expect("a length"));
        let length = if bodiless { 0 } else { length };
        let body = input.get(end..end + length)?;
        answer.body = String::from_utf8(body.to_vec()).expect("every body here is UTF-8");
        input.drain(..end + length);
        Some(answer)
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(super) fn cursor(&self) -> At {
        At::parse(self.field("throng-cursor").unwrap_or_else(|| panic!("no cursor in {:?}", self.head)))
    }

    pub(super) fn is_last(&self) -> bool {
        self.field("connection") == Some("close")
    }
}

/// Takes a whole frame of a server off the front: its first byte and payload.
pub(super) fn take_frame(input: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (&first, &second) = (input.first()?, input.get(1)?);
    assert_eq!(first & 0xb0, 0x80, "a server here sends whole frames, of one extension at most");
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let (start, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().expect("two")))),
        127 => (10, u64::from_be_bytes(input.get(2..10)?.try_into().expect("eight")) as usize),
        short => (2, usize::from(short)),
    };
    let payload = input.get(start..start + length)?.to_vec();
    input.drain(..start + length);
    Some((first, payload))
}

/// A client's frame, with all of its first byte.
pub(super) fn put_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(first);
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        long @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((long as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    const KEY: [u8; 4] = [0x55, 0, 0xff, 7];
    out.extend(KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// A block of an event stream.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) event: String,
    pub(super) id: Option<At>,
    pub(super) data: Option<String>,
    pub(super) retry: Option<u64>,
}

impl Block {
    /// Takes the next block off the front; comments alone are one with nothing in it.
    pub(super) fn take(input: &mut Vec<u8>) -> Option<Self> {
        let end = input.windows(2).position(|window| window == b"\n\n")?;
        let text = String::from_utf8(input[..end].to_vec()).expect("an event stream is UTF-8");
        input.drain(..end + 2);
        let mut block = Self::default();
        for line in text.split('\n') {
            let (field, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no field"));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => {}
                "event" => value.clone_into(&mut block.event),
                "id" => block.id = Some(At::parse(value)),
                "retry" => block.retry = Some(value.parse().expect("milliseconds")),
                "data" => match &mut block.data {
                    None => block.data = Some(value.to_owned()),
                    Some(data) => data.extend(["\n", value]),
                },
                _ => panic!("{field:?} is no field of an event"),
            }
        }
        Some(block)
    }

    pub(super) fn payload(&self) -> Payload {
        let data = self.data.as_deref().expect("an event has data");
        match &*self.event {
            "" => (Shape::Words, data.as_bytes().to_vec()),
            "base64" => (Shape::Bytes, STANDARD.decode(data).expect("base64")),
            other => panic!("{other:?} is no event that is known here"),
        }
    }
}

/// Cuts what stands between the outer brackets or braces at the commas of that level.
fn parts(text: &str) -> Vec<&str> {
    let inner = &text[1..text.len() - 1];
    let (mut depth, mut quoted, mut escaped, mut start, mut parts) = (0, false, false, 0, Vec::new());
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    assert!(depth == 0 && !quoted, "{text:?} is not JSON");
    if !inner.is_empty() {
        parts.push(&inner[start..]);
    }
    parts
}

fn members(object: &str) -> Vec<(&str, &str)> {
    assert!(object.starts_with('{') && object.ends_with('}'), "{object:?} is no object");
    parts(object).into_iter().map(|part| part[1..].split_once("\":").expect("a name and a value")).collect()
}

/// A JSON string's text.
fn unquote(json: &str) -> String {
    let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).expect("a string");
    let (mut text, mut rest) = (String::new(), inner.chars());
    while let Some(letter) = rest.next() {
        if letter != '\\' {
            text.push(letter);
            continue;
        }
        match rest.next().expect("something is escaped") {
            'n' => text.push('\n'),
            'r' => text.push('\r'),
            't' => text.push('\t'),
            'u' => {
                let digits: String = rest.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).expect("four digits");
                text.push(char::from_u32(code).expect("no surrogates are sent here"));
            }
            other => text.push(other),
        }
    }
    text
}

/// One element: a message, or a gap.
pub(super) fn element(object: &str) -> Element {
    let members = members(object);
    let member = |name: &str| members.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
    if let Some(gap) = member("gap") {
        let gap = self::members(gap);
        let field = |name: &str| unquote(gap.iter().find(|(other, _)| *other == name).expect("both are there").1);
        return Element::Gap { since: field("since"), resumed: At::parse(&field("resumed")) };
    }
    let at = At::parse(&unquote(member("id").expect("a message has its cursor")));
    let payload = match (member("data"), member("base64")) {
        (Some(text), None) if text.starts_with('"') => (Shape::Text, unquote(text).into_bytes()),
        (Some(json), None) => (Shape::Json, json.as_bytes().to_vec()),
        (None, Some(bytes)) => (Shape::Bytes, STANDARD.decode(unquote(bytes)).expect("base64")),
        _ => panic!("{object:?} is no message"),
    };
    Element::Message(at, payload)
}

/// The elements of a poll's array.
pub(super) fn elements(array: &str) -> Vec<Element> {
    let array = array.trim_end();
    assert!(array.starts_with('[') && array.ends_with(']'), "{array:?} is no array");
    parts(array).into_iter().map(element).collect()
}
