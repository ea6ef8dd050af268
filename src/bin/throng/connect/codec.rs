//! The client's side of a WebSocket, sans-IO: the library's own codec in the client's role, with an eye on the frames that
//! a message was made of.

use std::io;
use throng::Compression;
use throng::error::Violation;
use throng::limits::FRAME_HEADER_BYTES_MAX;
use throng::sys::random_u64;
use throng::ws::deflate::{Agreed, Context, encode_compressed, inflate};
use throng::ws::{
    CloseFrame, Event, Header, Opcode, Partial, Role, Rules, decode, encode_close, encode_masked, mask_frame,
};

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    /// One of several frames of a message; and every frame where they are wanted.
    Frame(&'a FrameSeen),
    /// A whole message.
    Message {
        payload: Data<'a>,
        made_of: MadeOf,
    },
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    Close(CloseFrame<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// What a message was on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MadeOf {
    pub(super) frames: usize,
    /// Its size before it was inflated.
    pub(super) compressed: Option<usize>,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrameSeen {
    pub(super) header: Header,
    /// As much of its payload as is to be shown.
    pub(super) payload: Vec<u8>,
    /// Where it ended in the input.
    end: usize,
}

/// The client's side of a connection.
#[derive(Debug)]
pub(super) struct Codec {
    rules: Rules,
    partial: Option<Box<Partial>>,
    scan: Scan,
    /// Data frames of the message under way.
    frames: usize,
    /// As the client has it; `None`: nothing is compressed.
    deflate: Option<(Agreed, Option<Context>)>,
    may_compress: bool,
}

/// Everything that shrinks is sent compressed: to see it is what it was asked for.
fn compression() -> Compression {
    Compression::default().message_bytes_min(0)
}

impl Codec {
    /// `frame_bytes_max`: how much of each frame's payload is to be seen; `None`: frames are not looked at by themselves.
    pub(super) fn new(agreed: Option<Agreed>, message_bytes_max: usize, frame_bytes_max: Option<usize>) -> Self {
        let deflate = agreed.map(|agreed| {
            let ours = agreed.reversed();
            (ours, Context::new(ours, &compression()))
        });
        Self {
            rules: Rules { role: Role::Client, message_bytes_max, compression: agreed.is_some() },
            partial: None,
            scan: Scan { keep: frame_bytes_max, ..Scan::default() },
            frames: 0,
            deflate,
            may_compress: agreed.is_some_and(|agreed| agreed.client_may_compress()),
        }
    }

    /// Takes what came next, and tells all that is whole.
    ///
    /// # Errors
    ///
    /// What the server did wrong: nothing more may be read, and the connection is to be failed with the violation's code.
    pub(super) fn input(&mut self, input: &mut [u8], mut tell: impl FnMut(Seen<'_>)) -> Result<(), Violation> {
        // A violation is the decoder's to find; frames before it are told all the same.
        let frames = self.scan.frames(input, self.rules.compression);
        let (mut at, mut told) = (0, 0);
        loop {
            let event = decode(&mut self.partial, input, &mut at, self.rules);
            // A violation is told behind the frames that came before it, and a message behind its own.
            let reached = if matches!(event, Ok(Some(_))) { at } else { input_end(&frames) };
            while let Some(frame) = frames.get(told).filter(|frame| frame.end <= reached) {
                told += 1;
                self.frames += usize::from(!frame.header.opcode.is_control());
                if self.scan.keep.is_some() {
                    tell(Seen::Frame(frame));
                }
            }
            let Some(event) = event? else { return Ok(()) };
            let frames = self.frames;
            let made_of = |compressed| MadeOf { frames, compressed };
            match event {
                Event::Text(text) => tell(Seen::Message { payload: Data::Text(text), made_of: made_of(None) }),
                Event::Binary(bytes) => tell(Seen::Message { payload: Data::Bytes(bytes), made_of: made_of(None) }),
                Event::Compressed(opcode, compressed) => {
                    let context = self.deflate.as_mut().and_then(|(_, context)| context.as_mut());
                    let mut inflated = Vec::new();
                    inflate(compressed, self.rules.message_bytes_max, context, &mut inflated)?;
                    let made_of = made_of(Some(compressed.len()));
                    let payload = match opcode {
                        Opcode::Text => Data::Text(std::str::from_utf8(&inflated).map_err(|_| Violation::InvalidUtf8)?),
                        _ => Data::Bytes(&inflated),
                    };
                    tell(Seen::Message { payload, made_of });
                }
                Event::Ping(payload) => {
                    tell(Seen::Ping(payload));
                    continue;
                }
                Event::Pong(payload) => {
                    tell(Seen::Pong(payload));
                    continue;
                }
                Event::Close(close) => {
                    tell(Seen::Close(close));
                    // What follows is to be ignored (RFC 6455, section 5.5.1).
                    return Ok(());
                }
            }
            self.frames = 0;
        }
    }

    /// A message as a frame, and its size there if it was compressed.
    pub(super) fn message(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<(Vec<u8>, Option<usize>)> {
        let (mut out, key) = (Vec::with_capacity(payload.len() + FRAME_HEADER_BYTES_MAX), masking_key()?);
        if let (Some((agreed, context)), true) = (&mut self.deflate, self.may_compress)
            && encode_compressed(&mut out, opcode, payload, (&compression(), agreed.window()), context.as_mut())
        {
            let header = Header::parse(&out, true).ok().flatten().map_or(0, |(_, length)| length);
            let size = out.len() - header;
            mask_frame(&mut out, 0, key);
            return Ok((out, Some(size)));
        }
        encode_masked(&mut out, opcode, payload, key);
        Ok((out, None))
    }

    /// A Close.
    pub(super) fn close(code: Option<u16>, reason: &str) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        encode_close(&mut out, code, reason);
        mask_frame(&mut out, 0, masking_key()?);
        Ok(out)
    }
}

fn input_end(frames: &[FrameSeen]) -> usize {
    frames.last().map_or(0, |frame| frame.end)
}

/// Not to be foreseen (RFC 6455, section 5.3).
fn masking_key() -> io::Result<[u8; 4]> {
    let [a, b, c, d, ..] = random_u64()?.to_ne_bytes();
    Ok([a, b, c, d])
}

/// Goes over the frames of a stream without judging them: where each ends, and what it was.
#[derive(Debug, Default)]
struct Scan {
    /// How much of a payload is kept; `None`: nothing.
    keep: Option<usize>,
    /// A header that is not whole.
    header: Vec<u8>,
    /// The frame under way: its header, what was kept of it, how much is still to come.
    frame: Option<(Header, Vec<u8>, u64)>,
    /// Something was wrong: from here on nothing is known.
    is_lost: bool,
}

impl Scan {
    /// The frames that end in `input`.
    fn frames(&mut self, input: &[u8], compression: bool) -> Vec<FrameSeen> {
        let (mut found, mut at) = (Vec::new(), 0);
        while !self.is_lost {
            let Some((header, kept, left)) = &mut self.frame else {
                match Header::parse(&self.header, compression) {
                    Ok(Some((header, _))) => {
                        self.header.clear();
                        self.frame = Some((header, Vec::new(), header.length));
                    }
                    Ok(None) if at < input.len() => {
                        self.header.push(input[at]);
                        at += 1;
                    }
                    Ok(None) => break,
                    Err(_) => self.is_lost = true,
                }
                continue;
            };
            let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len() - at);
            let wanted = self.keep.unwrap_or(0).saturating_sub(kept.len()).min(length);
            kept.extend_from_slice(&input[at..at + wanted]);
            (at, *left) = (at + length, *left - length as u64);
            if *left > 0 {
                break;
            }
            found.push(FrameSeen { header: *header, payload: std::mem::take(kept), end: at });
            self.frame = None;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng::ws::encode;

    /// What is told of `bytes` in pieces of `length`, in words.
    fn tell(codec: &mut Codec, bytes: &[u8], length: usize) -> (Vec<String>, Result<(), Violation>) {
        let mut told = Vec::new();
        for piece in bytes.chunks(length) {
            let result = codec.input(&mut piece.to_vec(), |seen| {
                told.push(match seen {
                    Seen::Frame(frame) => {
                        format!("frame {:?} {}", frame.header.opcode, String::from_utf8_lossy(&frame.payload))
                    }
                    Seen::Message { payload: Data::Text(text), made_of } => {
                        format!("text {text} {} {:?}", made_of.frames, made_of.compressed)
                    }
                    Seen::Message { payload: Data::Bytes(bytes), made_of } => {
                        format!("bytes {bytes:?} {}", made_of.frames)
                    }
                    Seen::Ping(payload) => format!("ping {payload:?}"),
                    Seen::Pong(payload) => format!("pong {payload:?}"),
                    Seen::Close(close) => format!("close {:?} {}", close.code, close.reason),
                });
            });
            if result.is_err() {
                return (told, result);
            }
        }
        (told, Ok(()))
    }

    /// Text in two frames with a ping between, bytes, a Close, and what is ignored behind it.
    fn stream() -> Vec<u8> {
        let mut out = b"\x01\x02he".to_vec();
        encode(&mut out, Opcode::Ping, b"?");
        out.extend_from_slice(b"\x80\x03llo");
        encode(&mut out, Opcode::Binary, &[0, 255]);
        encode_close(&mut out, Some(1001), "bye");
        out
    }

    #[test]
    fn frames_and_messages_are_told_in_their_order_however_they_are_cut() {
        let expected = [
            "frame Text he",
            "frame Ping ?",
            "ping [63]",
            "frame Continuation llo",
            "text hello 2 None",
            "frame Binary \0\u{FFFD}",
            "bytes [0, 255] 1",
            "frame Close \u{3}\u{FFFD}bye",
            "close Some(1001) bye",
        ];
        for length in 1..=stream().len() {
            let mut codec = Codec::new(None, 1000, Some(100));
            assert_eq!(tell(&mut codec, &stream(), length), (expected.map(str::to_owned).to_vec(), Ok(())), "{length}");
            let without: Vec<_> =
                expected.iter().filter(|line| !line.starts_with("frame")).map(|&line| line.to_owned()).collect();
            assert_eq!(tell(&mut Codec::new(None, 1000, None), &stream(), length).0, without, "{length}");
        }
    }

    #[test]
    fn a_server_that_breaks_the_rules_is_found_out_behind_what_was_right() {
        let cases: [(&[u8], Violation); 6] = [
            (b"\x81\x82\0\0\0\0hi", Violation::Masked),
            (b"\xC1\x02hi", Violation::ReservedBits),
            (b"\x83\x00", Violation::ReservedOpcode),
            (b"\x81\x02\xFF\xFF", Violation::InvalidUtf8),
            (b"\x80\x00", Violation::ContinuationUnexpected),
            (b"\x82\x7F\0\0\0\0\0\x01\0\0", Violation::MessageTooBig),
        ];
        for (bytes, violation) in cases {
            let bytes = [&b"\x81\x02ok"[..], bytes].concat();
            for length in [1, bytes.len()] {
                let (told, result) = tell(&mut Codec::new(None, 1000, None), &bytes, length);
                assert_eq!((told, result), (vec!["text ok 1 None".to_owned()], Err(violation)));
            }
        }
    }

    #[test]
    fn what_is_compressed_is_read_and_written() {
        let text = "again and ".repeat(20);
        for answer in [
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=9",
        ] {
            let agreed = Agreed::answered(answer.as_bytes()).unwrap();
            let mut client = Codec::new(Some(agreed), 10_000, None);
            // The server's side: the same code in its own role.
            let mut context = Context::new(agreed, &compression());
            for _ in 0..3 {
                let (mut frame, size) = client.message(Opcode::Text, text.as_bytes()).unwrap();
                let (size, mut partial, mut at) = (size.expect("it shrinks"), None, 0);
                let rules = Rules { role: Role::Server, message_bytes_max: 10_000, compression: true };
                let Ok(Some(Event::Compressed(Opcode::Text, compressed))) =
                    decode(&mut partial, &mut frame, &mut at, rules)
                else {
                    panic!("compressed text");
                };
                let mut inflated = Vec::new();
                inflate(compressed, 10_000, context.as_mut(), &mut inflated).unwrap();
                assert_eq!((inflated, compressed.len()), (text.clone().into_bytes(), size));

                let mut out = Vec::new();
                assert!(encode_compressed(
                    &mut out,
                    Opcode::Text,
                    text.as_bytes(),
                    (&compression(), agreed.window()),
                    context.as_mut()
                ));
                let told = tell(&mut client, &out, 5).0;
                assert_eq!(told, [format!("text {text} 1 Some({})", out.len() - 2)]);
            }
        }
        let mut small = Codec::new(Agreed::answered(b"permessage-deflate; client_max_window_bits=8"), 1000, None);
        assert_eq!(small.message(Opcode::Text, text.as_bytes()).unwrap().1, None, "nobody makes a window of 8 bits");
    }
}
