//! What the decoder is compared to: the same rules, read over a whole stream with the RFC beside them.

use super::{Event, Header, Opcode, Partial, Role, Rules, decode, event};
use crate::error::Violation;

/// An event that owns what it borrowed, or the violation that ended the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Compressed(Opcode, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Violation(Violation),
}

pub(super) fn own(event: Event<'_>) -> Seen {
    match event {
        Event::Text(text) => Seen::Text(text.to_owned()),
        Event::Binary(bytes) => Seen::Binary(bytes.to_vec()),
        Event::Compressed(opcode, bytes) => Seen::Compressed(opcode, bytes.to_vec()),
        Event::Ping(bytes) => Seen::Ping(bytes.to_vec()),
        Event::Pong(bytes) => Seen::Pong(bytes.to_vec()),
        Event::Close(close) => Seen::Close(close.code, close.reason.to_owned()),
    }
}

/// Feeds `stream` to the decoder in pieces whose lengths `cut` gives. What is held in between is bounded by what has come.
pub(crate) fn feed(stream: &[u8], rules: Rules, mut cut: impl FnMut(usize) -> usize) -> Vec<Seen> {
    let (mut partial, mut seen, mut rest) = (None, Vec::new(), stream);
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
        rest = left;
        let (mut piece, mut at) = (piece.to_vec(), 0);
        loop {
            match decode(&mut partial, &mut piece, &mut at, rules) {
                Ok(Some(event)) => seen.push(own(event)),
                Ok(None) => break,
                Err(violation) => {
                    seen.push(Seen::Violation(violation));
                    return seen;
                }
            }
        }
        assert_eq!(at, piece.len());
        let held = partial.as_deref().map_or(0, Partial::bytes);
        assert!(held <= size_of::<Partial>() + 2 * (stream.len() - rest.len()), "{held} bytes are held");
    }
    seen
}

/// The oracle: reads a whole stream, allocating as it likes.
pub(crate) fn naive(stream: &[u8], rules: Rules) -> Vec<Seen> {
    let (mut seen, mut at, mut under_way) = (Vec::new(), 0, None::<(Opcode, bool, Vec<u8>)>);
    let result = loop {
        let (header, length) = match Header::parse(&stream[at..], rules.compression) {
            Ok(Some(found)) => found,
            Ok(None) => break Ok(()),
            Err(violation) => break Err(violation),
        };
        let key = match (header.mask, rules.role) {
            (Some(key), Role::Server) => key,
            (None, Role::Client) => [0; 4],
            (None, Role::Server) => break Err(Violation::Unmasked),
            (Some(_), Role::Client) => break Err(Violation::Masked),
        };
        if !header.opcode.is_control() {
            match (header.opcode == Opcode::Continuation, under_way.is_some()) {
                (true, false) => break Err(Violation::ContinuationUnexpected),
                (false, true) => break Err(Violation::ContinuationExpected),
                _ => {}
            }
            let (compressed, so_far) = under_way
                .as_ref()
                .map_or((header.compressed, 0), |(_, compressed, message)| (*compressed, message.len()));
            let max = rules.message_bytes_max as u64;
            let max = if compressed { max + max / 8 + 64 } else { max };
            if so_far as u64 + header.length > max {
                break Err(Violation::MessageTooBig);
            }
        }
        at += length;
        let end = (at + header.length as usize).min(stream.len());
        let payload: Vec<u8> = stream[at..end].iter().enumerate().map(|(i, b)| b ^ key[i % 4]).collect();
        let whole = payload.len() as u64 == header.length;
        at = end;
        if header.opcode.is_control() {
            if !whole {
                break Ok(());
            }
            match event(header.opcode, &payload) {
                Ok(event) => seen.push(own(event)),
                Err(violation) => break Err(violation),
            }
            continue;
        }
        let (opcode, compressed, message) = under_way.get_or_insert((header.opcode, header.compressed, Vec::new()));
        message.extend_from_slice(&payload);
        let text = std::str::from_utf8(message);
        let hopeless = text.is_err_and(|error| error.error_len().is_some() || (whole && header.fin));
        if *opcode == Opcode::Text && !*compressed && hopeless {
            break Err(Violation::InvalidUtf8);
        }
        if !whole {
            break Ok(());
        }
        if header.fin {
            seen.push(match compressed {
                true => Seen::Compressed(*opcode, message.clone()),
                false => event(*opcode, message).map_or_else(Seen::Violation, own),
            });
            under_way = None;
        }
    };
    seen.extend(result.err().map(Seen::Violation));
    seen
}
