//! Frames: however they are cut, what is read is what the naive decoder reads, and what was read can be written again.

use super::{cuts, settings};
use crate::limits::CONTROL_BYTES_MAX;
use crate::ws::oracle::{Seen, feed, naive};
use crate::ws::{
    Opcode, Role, Rules, close_code_may_be_sent, encode, encode_close, encode_masked, frame_compressed, unmask,
};

/// Limits of messages, around the edges of lengths.
const LIMITS: [usize; 8] = [0, 1, 125, 126, 1000, 65_535, 65_536, 1 << 20];

/// So long a stream, at most, is built.
const STREAM_BYTES_MAX: usize = 200_000;

/// Three bytes of settings (side, compression and whether frames are built; limit; how it is cut), then either the stream
/// itself or what to build frames of.
pub fn frames(data: &[u8]) {
    let ([flags, limit, seed], rest) = settings::<3>(data);
    let role = if flags & 1 == 0 { Role::Server } else { Role::Client };
    let message_bytes_max = LIMITS[usize::from(limit) % LIMITS.len()];
    let rules = Rules { role, message_bytes_max, compression: flags & 2 != 0 };
    let built = if flags & 4 == 0 { Vec::new() } else { build(rest, role) };
    let stream = if flags & 4 == 0 { rest } else { &built };
    let expected = naive(stream, rules);
    assert_eq!(feed(stream, rules, |rest| rest), expected, "whole");
    assert_eq!(feed(stream, rules, cuts(seed, 5000)), expected, "in pieces");
    if stream.len() <= 4096 {
        assert_eq!(feed(stream, rules, |_| 1), expected, "a byte at a time");
    }
    for event in &expected {
        check_written(event, rules);
    }
}

/// Frames out of five bytes each: the first byte as it is, the length, what to do, the masking key.
fn build(script: &[u8], role: Role) -> Vec<u8> {
    let mut stream = Vec::new();
    for &[first, low, high, how, key] in script.as_chunks::<5>().0 {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let length = if how & 1 == 0 { length % 300 } else { length + usize::from(how >> 4) };
        if stream.len() + length > STREAM_BYTES_MAX {
            break;
        }
        let pattern: &[u8] = if how & 2 == 0 { "aß€😀".as_bytes() } else { &[0, 0xFF, 0xC3, key] };
        let pattern = pattern.iter().copied().cycle().skip(if how & 4 == 0 { 0 } else { 1 });
        let mut payload: Vec<u8> = pattern.take(length).collect();
        let is_masked = (role == Role::Server) != (how & 8 != 0);
        let mask_bit = u8::from(is_masked) << 7;
        stream.extend_from_slice(&[first, mask_bit]);
        let at = stream.len() - 1;
        match length {
            0..=125 => stream[at] |= length as u8,
            126..=0xFFFF => {
                stream[at] |= 126;
                stream.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                stream[at] |= 127;
                stream.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if is_masked {
            let key = [key, 1, 0x80, !key];
            stream.extend_from_slice(&key);
            unmask(&mut payload, key, 0);
        }
        stream.extend_from_slice(&payload);
    }
    stream
}

/// What was read is read again out of the frame that is made of it, for either side.
fn check_written(event: &Seen, rules: Rules) {
    let (opcode, payload) = match event {
        Seen::Violation(_) => return,
        Seen::Text(text) => (Opcode::Text, text.as_bytes()),
        Seen::Binary(bytes) | Seen::Compressed(Opcode::Binary, bytes) => (Opcode::Binary, &bytes[..]),
        Seen::Compressed(_, bytes) => (Opcode::Text, &bytes[..]),
        Seen::Ping(bytes) => (Opcode::Ping, &bytes[..]),
        Seen::Pong(bytes) => (Opcode::Pong, &bytes[..]),
        Seen::Close(code, reason) => {
            let mut frame = Vec::new();
            encode_close(&mut frame, *code, reason);
            assert_eq!(feed(&frame, Rules { role: Role::Client, ..rules }, |rest| rest), std::slice::from_ref(event));
            return assert!(code.is_none_or(close_code_may_be_sent));
        }
    };
    assert!(!opcode.is_control() || payload.len() <= CONTROL_BYTES_MAX);
    let (mut from_server, mut from_client) = (Vec::new(), Vec::new());
    if let Seen::Compressed(opcode, bytes) = event {
        from_server.extend_from_slice(bytes);
        frame_compressed(&mut from_server, *opcode, 0);
    } else {
        encode(&mut from_server, opcode, payload);
        encode_masked(&mut from_client, opcode, payload, [1, 2, 0xFE, 0]);
        assert_eq!(feed(&from_client, Rules { role: Role::Server, ..rules }, |rest| rest), std::slice::from_ref(event));
    }
    assert_eq!(feed(&from_server, Rules { role: Role::Client, ..rules }, |rest| rest), std::slice::from_ref(event));
}
