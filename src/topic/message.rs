//! A message in a topic: what it is, and its encodings, each made once and shared by everybody.

use super::cursor::{Cursor, Gap};
use super::name::TopicName;
use super::publication::Publication;
#[cfg(feature = "centrifugo")]
use crate::adapter::centrifugo::{codec::Format, emulation::Stream, push};
use crate::config::Compression;
use crate::json;
use crate::ws::Opcode;
use crate::ws::deflate::{Window, encode_compressed};
use base64::engine::{Engine, general_purpose::STANDARD};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// UTF-8.
    Text,
    /// One JSON value, checked when it was published; UTF-8 as well.
    Json,
    /// Anything.
    Bytes,
}

/// How a message leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// A server's WebSocket frame with the bare payload: binary for bytes, else text.
    Frame,
    /// A server's WebSocket text frame with the poll element.
    JsonFrame,
    /// A server-sent event.
    Event,
    /// An element of a poll's array: `{"id":CURSOR,"data":...}`, for bytes `{"id":CURSOR,"base64":"..."}`.
    Element,
    /// A push of Centrifugo's protocol in a server's WebSocket text frame.
    #[cfg(feature = "centrifugo")]
    CentrifugoJson,
    /// The same in Protobuf and a binary frame.
    #[cfg(feature = "centrifugo")]
    CentrifugoProtobuf,
    /// The same in the body of a response.
    #[cfg(feature = "centrifugo")]
    CentrifugoStream(Stream),
    /// One of those in a frame, compressed.
    Compressed(Compressed),
}

/// A frame's encoding and a window for it, in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compressed(u8);

impl Compressed {
    /// Those that are compressed, by number.
    #[cfg(not(feature = "centrifugo"))]
    const PLAIN: [Encoding; 2] = [Encoding::Frame, Encoding::JsonFrame];
    #[cfg(feature = "centrifugo")]
    const PLAIN: [Encoding; 4] =
        [Encoding::Frame, Encoding::JsonFrame, Encoding::CentrifugoJson, Encoding::CentrifugoProtobuf];

    /// How many there are.
    const COUNT: usize = 2 * Self::PLAIN.len();

    fn plain(self) -> Encoding {
        Self::PLAIN[usize::from(self.0) / 2]
    }

    fn window(self) -> Window {
        if self.0.is_multiple_of(2) { Window::Small } else { Window::Full }
    }
}

impl Encoding {
    /// Whether a session sees to it that its client knows where it stands.
    pub(crate) fn is_of_a_session(self) -> bool {
        !matches!(self.plain(), Self::Frame | Self::JsonFrame | Self::Event | Self::Element)
    }

    /// The same for a connection that compresses.
    pub(crate) fn compressed(self, window: Window) -> Self {
        let found = Compressed::PLAIN.iter().position(|plain| *plain == self);
        found.map_or(self, |at| Self::Compressed(Compressed(2 * at as u8 + u8::from(window == Window::Full))))
    }

    /// The same as it is before it is compressed.
    fn plain(self) -> Self {
        if let Self::Compressed(compressed) = self { compressed.plain() } else { self }
    }

    /// How a gap is said; `None` where there is no place for it: a bare frame is a message.
    pub(crate) fn gap(self, gap: &Gap) -> Option<Vec<u8>> {
        match self.plain() {
            Self::Frame | Self::Compressed(_) => None,
            Self::JsonFrame => Some(framed(OPCODE_TEXT, gap.json().as_bytes())),
            Self::Event => Some(format!("event: gap\nid: {}\ndata: {}\n\n", gap.resumed, gap.json()).into_bytes()),
            Self::Element => Some(gap.json().into_bytes()),
            // The session has said it.
            #[cfg(feature = "centrifugo")]
            Self::CentrifugoJson | Self::CentrifugoProtobuf | Self::CentrifugoStream(_) => Some(Vec::new()),
        }
    }
}

/// The encodings that are stored: an element is the payload of the JSON frame, and has no memory of its own.
const STORED: usize = if cfg!(feature = "centrifugo") { 5 } else { 3 };

/// The client that published a message, for protocols that tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Author {
    pub(crate) client: Box<str>,
    pub(crate) user: Box<str>,
    /// What others are told of it.
    pub(crate) info: Infos,
    /// Nobody is told that it comes or goes.
    pub(crate) is_quiet: bool,
}

/// What others are told of a client, in whatever form: of its connection, and of its subscription to this topic. Most have
/// neither, and no memory for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Infos(Option<Box<[Box<[u8]>; 2]>>);

impl Infos {
    pub(crate) fn new(connection: &[u8], subscription: &[u8]) -> Self {
        let is_empty = connection.is_empty() && subscription.is_empty();
        Self((!is_empty).then(|| Box::new([connection.into(), subscription.into()])))
    }

    pub(crate) fn connection(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |[connection, _]| connection)
    }

    pub(crate) fn subscription(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |[_, subscription]| subscription)
    }
}

/// What happened to a message's author, instead of a publication: only told beside a topic ([`TopicName::live`]), to those
/// whose protocol has a word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Came,
    Left,
}

/// What a publisher says about a message, for protocols that pass it on: names and values.
pub(crate) type Tags = BTreeMap<String, String>;

type CompressedFrames = [OnceLock<Arc<[u8]>>; Compressed::COUNT];

#[cfg(feature = "centrifugo")]
type Streams = [OnceLock<Arc<[u8]>>; Stream::COUNT];

/// One message, shared as `Arc<Message>`.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: TopicName,
    /// Its own position: who has seen it stands here.
    pub(crate) cursor: Cursor,
    /// Whether readers can come back to it.
    pub(crate) is_kept: bool,
    /// Who published it, if a client of a protocol that tells did.
    pub(crate) author: Option<Arc<Author>>,
    pub(crate) change: Option<Change>,
    pub(crate) tags: Option<Box<Tags>>,
    /// What the payload is.
    pub(crate) kind: Kind,
    /// As it was published.
    pub(crate) payload: Box<[u8]>,
    /// When it was appended, on the clock of the log.
    pub(crate) time_ms: u64,
    /// The same as the time of day, in milliseconds of Unix time; 0: not known.
    pub(crate) unix_ms: u64,
    /// It is in no log: its cursor is that of the message before.
    pub(crate) skips_history: bool,
    encodings: [OnceLock<Arc<[u8]>>; STORED],
    /// Those for the bodies of responses, which few topics need.
    #[cfg(feature = "centrifugo")]
    streams: OnceLock<Box<Streams>>,
    /// Those for connections that compress.
    compressed: OnceLock<Box<CompressedFrames>>,
}

impl Message {
    /// What a message weighs beside its payload: itself, the two counts of its `Arc`, its place in a log, and
    /// 32 bytes that the allocator loses on two blocks. Its encodings are not counted, as they come and go with
    /// who reads: each that is in use adds about another payload (base64: 4/3 of it; JSON of control
    /// characters: 6 times).
    pub(crate) const OVERHEAD_BYTES: usize = size_of::<Self>() + 2 * size_of::<usize>() + size_of::<Arc<Self>>() + 32;

    /// What a tag weighs beside its name and value: two `String`s, and what the allocator loses on them.
    const TAG_BYTES: usize = 2 * size_of::<String>() + 32;

    /// A message. A [`Publication`] has seen to it that the payload is of its kind.
    pub(crate) fn new(topic: TopicName, cursor: Cursor, is_kept: bool, publication: Publication, time_ms: u64) -> Self {
        let Publication { kind, payload, author, change, tags, unix_ms, skips_history, .. } = publication;
        debug_assert!(kind == Kind::Bytes || std::str::from_utf8(&payload).is_ok());
        Self {
            topic,
            cursor,
            is_kept,
            author,
            change,
            tags,
            kind,
            payload,
            time_ms,
            unix_ms,
            skips_history,
            encodings: Default::default(),
            #[cfg(feature = "centrifugo")]
            streams: OnceLock::new(),
            compressed: OnceLock::new(),
        }
    }

    /// The bytes it counts for in the bound of a log.
    pub(crate) fn size(&self) -> usize {
        let tags = self.tags.iter().flat_map(|tags| tags.iter());
        let tags: usize = tags.map(|(name, value)| name.len() + value.len() + Self::TAG_BYTES).sum();
        self.payload.len() + tags + Self::OVERHEAD_BYTES
    }

    /// The message as it leaves: made on first use, by whichever thread is first. `compression` is the server's, the same
    /// each time.
    pub(crate) fn encoded(&self, encoding: Encoding, compression: Option<&Compression>) -> &[u8] {
        match encoding {
            Encoding::Element => payload_of(self.shared(Encoding::JsonFrame, compression)),
            _ => self.shared(encoding, compression),
        }
    }

    /// The same to be kept: the message may leave its topic meanwhile. An element has no bytes of its own; its frame is given.
    pub(crate) fn shared(&self, encoding: Encoding, compression: Option<&Compression>) -> &Arc<[u8]> {
        match encoding {
            Encoding::Frame => self.stored(0, Self::frame),
            Encoding::JsonFrame | Encoding::Element => {
                self.stored(1, |message| framed(OPCODE_TEXT, &message.element()))
            }
            Encoding::Event => self.stored(2, Self::event),
            #[cfg(feature = "centrifugo")]
            Encoding::CentrifugoJson => self.stored(3, |message| push::frame(Format::Json, message)),
            #[cfg(feature = "centrifugo")]
            Encoding::CentrifugoProtobuf => self.stored(4, |message| push::frame(Format::Protobuf, message)),
            #[cfg(feature = "centrifugo")]
            Encoding::CentrifugoStream(stream) => self.streams.get_or_init(Box::default)[stream.index()]
                .get_or_init(|| stream.frame(&push::of_message(stream.format(), self)).into()),
            Encoding::Compressed(compressed) => self.compressed.get_or_init(Box::default)[usize::from(compressed.0)]
                .get_or_init(|| self.compress(compressed, compression)),
        }
    }

    /// A frame compressed, or as it is if it is too short for that or would not get shorter.
    fn compress(&self, compressed: Compressed, compression: Option<&Compression>) -> Arc<[u8]> {
        let plain = self.shared(compressed.plain(), None);
        let opcode = if plain[0] & 0x0F == OPCODE_BINARY { Opcode::Binary } else { Opcode::Text };
        let mut out = Vec::new();
        let is_shorter = compression.is_some_and(|compression| {
            encode_compressed(&mut out, opcode, payload_of(plain), (compression, compressed.window()), None)
        });
        if is_shorter { out.into() } else { Arc::clone(plain) }
    }

    fn stored(&self, at: usize, encode: impl FnOnce(&Self) -> Vec<u8>) -> &Arc<[u8]> {
        self.encodings[at].get_or_init(|| encode(self).into())
    }

    fn frame(&self) -> Vec<u8> {
        let opcode = if self.kind == Kind::Bytes { OPCODE_BINARY } else { OPCODE_TEXT };
        framed(opcode, &self.payload)
    }

    fn element(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + 64);
        out.extend_from_slice(format!("{{\"id\":\"{}\",", self.cursor).as_bytes());
        match self.kind {
            Kind::Text => {
                out.extend_from_slice(b"\"data\":");
                json::push_string(&mut out, &self.payload);
            }
            Kind::Json => {
                out.extend_from_slice(b"\"data\":");
                out.extend_from_slice(&self.payload);
            }
            Kind::Bytes => {
                out.extend_from_slice(b"\"base64\":\"");
                out.extend_from_slice(STANDARD.encode(&self.payload).as_bytes());
                out.push(b'"');
            }
        }
        out.push(b'}');
        out
    }

    /// HTML, section 9.2.6: fields in lines, a blank line dispatches. The space behind each colon is the one
    /// that the client strips; further ones are the payload's.
    fn event(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + 64);
        out.extend_from_slice(format!("id: {}\n", self.cursor).as_bytes());
        if self.kind == Kind::Bytes {
            out.extend_from_slice(b"event: base64\ndata: ");
            out.extend_from_slice(STANDARD.encode(&self.payload).as_bytes());
            out.push(b'\n');
        } else {
            push_data_lines(&mut out, &self.payload);
        }
        out.push(b'\n');
        out
    }
}

/// RFC 6455, section 5.2: FIN, and the opcodes.
const FIN: u8 = 0x80;
const OPCODE_TEXT: u8 = 0x1;
const OPCODE_BINARY: u8 = 0x2;

/// An unmasked frame (section 5.1: a server's) with the shortest length that holds.
fn framed(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 10);
    out.push(FIN | opcode);
    match payload.len() {
        len @ 0..=125 => out.push(len as u8),
        len @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

/// What is behind the header of one of our frames.
fn payload_of(frame: &[u8]) -> &[u8] {
    match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    }
}

/// A `data:` line for each line of `text`; CRLF, CR and LF end one, as they would in the event stream itself.
fn push_data_lines(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let end = rest.iter().position(|&byte| byte == b'\r' || byte == b'\n');
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
        out.push(b'\n');
        let Some(end) = end else { return };
        rest = &rest[end + if rest[end..].starts_with(b"\r\n") { 2 } else { 1 }..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: Kind, payload: &[u8]) -> Message {
        let topic = TopicName::new("t").unwrap();
        Message::new(topic, "abcdefgh-7".parse().unwrap(), true, Publication::new(kind, payload.into()), 0)
    }

    fn text(message: &Message, encoding: Encoding) -> &str {
        std::str::from_utf8(message.encoded(encoding, None)).unwrap()
    }

    /// An event as an EventSource sees it: (last event id, type, data).
    type Seen = (String, String, String);

    /// HTML, section 9.2.6, for whole streams, written from its text.
    fn event_source(stream: &str) -> Vec<Seen> {
        let (mut id, mut kind, mut data) = (String::new(), String::new(), String::new());
        let mut seen = Vec::new();
        let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
        for line in lines.strip_suffix('\n').expect("a stream of whole lines").split('\n') {
            if line.is_empty() {
                if let Some(data) = data.strip_suffix('\n') {
                    let kind = if kind.is_empty() { "message" } else { &kind };
                    seen.push((id.clone(), kind.to_owned(), data.to_owned()));
                }
                data.clear();
                kind.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => data.extend([value, "\n"]),
                "event" => kind = value.to_owned(),
                "id" => id = value.to_owned(),
                _ => {}
            }
        }
        seen
    }

    #[test]
    fn frames_carry_the_shortest_length() {
        for (len, header) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (0xffff, &[0x82, 126, 0xff, 0xff]),
            (0x1_0000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload = vec![0xfe; len];
            assert_eq!(message(Kind::Bytes, &payload).encoded(Encoding::Frame, None), [header, &payload].concat());
        }
        assert_eq!(message(Kind::Text, b"hi").encoded(Encoding::Frame, None), b"\x81\x02hi");
        assert_eq!(message(Kind::Json, b"{}").encoded(Encoding::Frame, None), b"\x81\x02{}");
    }

    #[test]
    fn elements_carry_strings_json_and_base64() {
        let element = |kind, payload: &[u8]| text(&message(kind, payload), Encoding::Element).to_owned();
        assert_eq!(element(Kind::Text, b"a\"b\n"), r#"{"id":"abcdefgh-7","data":"a\"b\n"}"#);
        assert_eq!(element(Kind::Text, b""), r#"{"id":"abcdefgh-7","data":""}"#);
        assert_eq!(element(Kind::Json, b"[1, 2]"), r#"{"id":"abcdefgh-7","data":[1, 2]}"#);
        assert_eq!(element(Kind::Bytes, b"\xff\xfe\xfd\xfc"), r#"{"id":"abcdefgh-7","base64":"//79/A=="}"#);
        assert_eq!(element(Kind::Bytes, b""), r#"{"id":"abcdefgh-7","base64":""}"#);
    }

    #[test]
    fn a_json_frame_is_a_text_frame_of_the_element_at_every_length() {
        for len in (0..200).chain(65_480..65_540) {
            let message = message(Kind::Text, &vec![b'x'; len]);
            let element = message.encoded(Encoding::Element, None);
            assert_eq!(element, format!("{{\"id\":\"abcdefgh-7\",\"data\":\"{}\"}}", "x".repeat(len)).as_bytes());
            assert_eq!(message.encoded(Encoding::JsonFrame, None), framed(OPCODE_TEXT, element));
        }
    }

    #[test]
    fn an_encoding_is_made_once() {
        let message = message(Kind::Text, b"once");
        for encoding in [Encoding::Frame, Encoding::JsonFrame, Encoding::Event, Encoding::Element] {
            assert_eq!(message.encoded(encoding, None).as_ptr(), message.encoded(encoding, None).as_ptr());
        }
        assert_eq!(message.size(), 4 + Message::OVERHEAD_BYTES);
    }

    #[test]
    fn a_compressed_frame_is_made_once_a_window_and_shared_even_if_it_is_not_compressed() {
        let compression = &Compression::default().message_bytes_min(50);
        let mut forms = vec![Encoding::Frame, Encoding::JsonFrame];
        #[cfg(feature = "centrifugo")]
        forms.extend([Encoding::CentrifugoJson, Encoding::CentrifugoProtobuf]);
        let (long, short) = (message(Kind::Text, &b"again and ".repeat(40)), message(Kind::Bytes, b"short"));
        let mut made: Vec<*const u8> = Vec::new();
        for (form, window) in forms.iter().flat_map(|form| [(*form, Window::Small), (*form, Window::Full)]) {
            let encoding = form.compressed(window);
            assert_eq!((encoding.plain(), encoding.is_of_a_session()), (form, form.is_of_a_session()));
            let (plain, packed) = (long.shared(form, None), long.shared(encoding, Some(compression)));
            assert_eq!(packed[0], plain[0] | 0x40, "the bit of a compressed message");
            assert!(packed.len() < plain.len() / 2);
            assert_eq!(packed.as_ptr(), long.shared(encoding, Some(compression)).as_ptr());
            made.extend([plain.as_ptr(), packed.as_ptr()]);
            let mut read = Vec::new();
            crate::ws::deflate::inflate(payload_of(packed), 1000, None, &mut read).unwrap();
            assert_eq!(read, payload_of(plain));
            if form == Encoding::Frame {
                assert!(Arc::ptr_eq(short.shared(encoding, Some(compression)), short.shared(form, None)));
            }
        }
        made.sort_unstable();
        made.dedup();
        assert_eq!(made.len(), 3 * forms.len(), "one plain and two compressed of each");
        assert_eq!(Encoding::Event.compressed(Window::Full), Encoding::Event);
        assert_eq!(size_of::<Encoding>(), 2);
    }

    #[test]
    fn events_are_written_line_by_line() {
        let event = |kind, payload: &[u8]| text(&message(kind, payload), Encoding::Event).to_owned();
        assert_eq!(event(Kind::Text, b""), "id: abcdefgh-7\ndata: \n\n");
        assert_eq!(event(Kind::Text, b"a\nb\r\nc\rd"), "id: abcdefgh-7\ndata: a\ndata: b\ndata: c\ndata: d\n\n");
        assert_eq!(event(Kind::Json, b"[1,\n2]"), "id: abcdefgh-7\ndata: [1,\ndata: 2]\n\n");
        assert_eq!(event(Kind::Bytes, b"\n\n\n\n"), "id: abcdefgh-7\nevent: base64\ndata: CgoKCg==\n\n");
    }

    #[test]
    fn an_event_source_reads_what_was_published() {
        let payloads = [
            "",
            " ",
            "  two spaces",
            "a",
            "\n",
            "\r",
            "\r\n",
            "\n\r",
            "\n\n",
            "\r\r\n\n",
            "a\n",
            "\na",
            "a\r\n\r\nb",
            ":comment",
            "data: x",
            "id: 1\nevent: y\n\ndata: z",
            "retry: 1",
            "\t\u{0}\u{e9}\u{2028}",
            "\n ",
            " \r \n ",
        ];
        let mut stream = String::new();
        let mut expected: Vec<Seen> = Vec::new();
        for payload in payloads {
            stream.push_str(text(&message(Kind::Text, payload.as_bytes()), Encoding::Event));
            let data = payload.replace("\r\n", "\n").replace('\r', "\n");
            expected.push(("abcdefgh-7".into(), "message".into(), data));
            stream.push_str(text(&message(Kind::Bytes, payload.as_bytes()), Encoding::Event));
            expected.push(("abcdefgh-7".into(), "base64".into(), STANDARD.encode(payload)));
        }
        assert_eq!(event_source(&stream), expected);
    }
}
