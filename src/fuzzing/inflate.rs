//! Compressed messages: what comes is what a naive inflater reads, within the limit, and what goes comes out again.

use super::puff::{Stop, puff};
use super::{cuts, settings};
use crate::config::Compression;
use crate::error::Violation;
use crate::ws::deflate::{Agreed, Context, encode_compressed, inflate as inflated};
use crate::ws::oracle::{Seen, feed};
use crate::ws::{Opcode, Role, Rules, encode, unmask};

/// What is not sent of a message, and comes back before it is inflated (RFC 7692, section 7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// So much, at most, is said in all.
const TALK_BYTES_MAX: usize = 150_000;

/// A byte that says what is to be done, then what to inflate, or what two sides say to each other.
pub fn inflate(data: &[u8]) {
    let ([what], rest) = settings::<1>(data);
    if what % 2 == 0 { arbitrary(rest, LIMITS[usize::from(what / 2) % LIMITS.len()]) } else { talk(rest) }
}

const LIMITS: [usize; 6] = [0, 1, 100, 1023, 5000, 100_000];

/// Bytes that nobody need have compressed.
fn arbitrary(compressed: &[u8], bytes_max: usize) {
    let mut out = Vec::new();
    let result = inflated(compressed, bytes_max, None, &mut out);
    let (said, stop) = puff(&[compressed, &TAIL].concat(), bytes_max);
    match (result, stop) {
        (Ok(()), Stop::Final | Stop::Input) => assert_eq!(out, said),
        (Err(Violation::InvalidDeflate), Stop::Invalid) | (Err(Violation::MessageTooBig), Stop::TooBig) => {}
        // Both are true of it, and the fast one looks ahead.
        (Err(Violation::InvalidDeflate), Stop::TooBig) => {}
        other => panic!("{other:?} for {compressed:x?}"),
    }
    let (length, capacity) = (out.len(), out.capacity());
    assert!(length <= bytes_max + 1 && capacity <= bytes_max + 1, "{length} of {capacity} bytes for {bytes_max}");
    assert!(capacity <= 3 * length + compressed.len().max(1024) + 1, "{length} of {capacity} bytes");
    let mut again = Vec::new();
    inflated(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5, None, &mut again).expect("what was before leaves nothing behind");
    assert_eq!(again, b"Hello");
}

/// What both sides of a connection have.
struct Side {
    context: Option<Box<Context>>,
    role: Role,
}

/// Settings (context, offer, level, shortest message, cuts), then messages of four bytes each: who and how, length, pattern.
fn talk(data: &[u8]) {
    let ([context, offer, level, shortest, seed], script) = settings::<5>(data);
    let context = (context & 1 == 1).then_some(9 + (context >> 1) % 7);
    let compression = Compression { level: 1 + level % 9, message_bytes_min: usize::from(shortest), context };
    let mut offered = "permessage-deflate".to_owned();
    for (bit, parameter) in
        ["server_no_context_takeover", "client_no_context_takeover", "client_max_window_bits"].iter().enumerate()
    {
        if offer >> bit & 1 == 1 {
            offered += &format!("; {parameter}");
        }
    }
    if offer >> 3 & 1 == 1 {
        offered += &format!("; server_max_window_bits={}", 9 + (offer >> 4) % 7);
    }
    let agreed = Agreed::negotiate([offered.as_bytes()].into_iter(), &compression).expect("it is in order");
    let mut server = Side { context: Context::new(agreed, &compression).map(Box::new), role: Role::Server };
    let mut client = Side { context: Context::of_client(agreed, &compression).map(Box::new), role: Role::Client };
    let mut left = TALK_BYTES_MAX;
    for &[how, low, high, pattern] in script.as_chunks::<4>().0.iter().take(24) {
        let length = usize::from(u16::from_le_bytes([low, high])).min(left);
        left -= length;
        let message: Vec<u8> = words(pattern, how & 4 != 0).take(length).collect();
        // One that all get stands for itself.
        let is_shared = how & 8 != 0;
        let (from, to) = if how & 1 == 0 { (&mut server, &mut client) } else { (&mut client, &mut server) };
        // Clients of this kind have no message for all.
        let is_shared = is_shared && from.role == Role::Server;
        if is_shared && let Some(context) = from.context.as_deref_mut() {
            context.interrupt();
        }
        let opcode = if how & 2 == 0 { Opcode::Text } else { Opcode::Binary };
        let kept = if is_shared { None } else { from.context.as_deref_mut() };
        let mut frame = Vec::new();
        if !encode_compressed(&mut frame, opcode, &message, (&compression, agreed.window()), kept) {
            assert!(frame.is_empty());
            encode(&mut frame, opcode, &message);
        }
        assert!(frame.len() <= message.len() + 10, "it did not get shorter, and is compressed all the same");
        let frame = if to.role == Role::Server { fragments(&frame, how >> 4) } else { frame };
        let rules = Rules { role: to.role, message_bytes_max: message.len(), compression: true };
        let events = feed(&frame, rules, cuts(seed, 3000));
        check_read(&events, &message, opcode, to.context.as_deref_mut());
    }
}

/// The message, out of what the decoder made of its frames.
fn check_read(events: &[Seen], message: &[u8], opcode: Opcode, context: Option<&mut Context>) {
    match events {
        [Seen::Compressed(of, bytes)] => {
            assert_eq!(*of, opcode);
            let mut out = b"before".to_vec();
            assert_eq!(inflated(bytes, message.len(), context, &mut out), Ok(()));
            assert_eq!(&out[6..], message);
        }
        [Seen::Binary(bytes)] => assert_eq!((&bytes[..], opcode), (message, Opcode::Binary)),
        [Seen::Text(text)] => assert_eq!((text.as_bytes(), opcode), (message, Opcode::Text)),
        [Seen::Violation(Violation::InvalidUtf8)] => {
            assert!(opcode == Opcode::Text && std::str::from_utf8(message).is_err());
        }
        other => panic!("{other:?} of {} bytes", message.len()),
    }
}

/// Text that repeats itself, or noise.
fn words(pattern: u8, is_noise: bool) -> impl Iterator<Item = u8> {
    let mut rng = crate::mem::Rng::new(pattern.into());
    let text = ["price", "aß€😀", "{\"a\":1}", " 12.5,"];
    let word = text[usize::from(pattern) % text.len()].bytes().cycle();
    word.map(move |byte| if is_noise { rng.below(256) as u8 } else { byte })
}

/// A server's frame as a client sends it, in so many more fragments than one.
fn fragments(frame: &[u8], more: u8) -> Vec<u8> {
    let (header, at) = crate::ws::Header::parse(frame, true).expect("ours").expect("whole");
    let mut rest = &frame[at..];
    let mut out = Vec::new();
    for left in (0..=more).rev() {
        let (piece, behind) = rest.split_at(if left == 0 { rest.len() } else { rest.len() / 2 });
        rest = behind;
        let start = out.len();
        encode(&mut out, header.opcode, piece);
        let first = frame[0] & 0x40 | header.opcode as u8;
        out[start] = if left == more { first } else { 0 } | u8::from(left == 0) << 7;
        out[start + 1] |= 0x80;
        let key = [left, 0x55, 0xAA, 7];
        let payload = out.len() - piece.len();
        unmask(&mut out[payload..], key, 0);
        out.splice(payload..payload, key);
    }
    out
}
