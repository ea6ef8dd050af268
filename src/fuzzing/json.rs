//! JSON, and Centrifugo's commands in it and in Protobuf: accepted is what serde_json accepts, and what was read once is
//! written and read again.

use super::session::session;
use super::settings;
use crate::adapter::centrifugo::codec::{Format, commands, emulation};
use crate::adapter::centrifugo::protocol::Command;
use crate::json::{push_string, validate};
use crate::limits::JSON_DEPTH_MAX;
use prost::Message;
use serde::de::IgnoredAny;

const COMMAND_BYTES_MAX: usize = 1 << 16;

/// A byte that says what the rest is: a text, a frame of commands, or a session's script.
pub fn json(data: &[u8]) {
    let ([what], rest) = settings::<1>(data);
    match what % 4 {
        0 => check_text(rest),
        1 => check_commands(Format::Json, rest),
        2 => check_commands(Format::Protobuf, rest),
        _ => session(rest),
    }
}

fn check_text(text: &[u8]) {
    let utf8 = std::str::from_utf8(text).ok();
    let is_json = utf8.is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    match validate(text) {
        Ok(()) => assert!(is_json && depth(text) <= JSON_DEPTH_MAX),
        Err(error) => {
            assert!(!is_json || depth(text) > JSON_DEPTH_MAX, "{error}");
            // What is before the first byte that does not fit, fits.
            let before = validate(&text[..error.at]);
            assert!(before.is_ok() || before.is_err_and(|before| before.at == error.at), "{error}: {before:?}");
        }
    }
    let Some(text) = utf8 else { return };
    let mut written = b"before".to_vec();
    push_string(&mut written, text.as_bytes());
    let written = &written[6..];
    assert_eq!(serde_json::from_slice::<String>(written).ok().as_deref(), Some(text));
    assert!(validate(written).is_ok() && !written.iter().any(|&byte| byte < b' '));
}

/// How deep JSON nests.
fn depth(json: &[u8]) -> u32 {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_u32, 0, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn check_commands(format: Format, frame: &[u8]) {
    let read: Vec<_> = commands(format, frame, COMMAND_BYTES_MAX).collect();
    let (good, bad) = read.split_at(read.iter().take_while(|command| command.is_ok()).count());
    assert!(bad.len() <= 1, "nothing is read behind what is malformed");
    let good: Vec<Command> = good.iter().flatten().cloned().collect();
    if !good.is_empty() {
        let once = written(format, &good);
        let again: Result<Vec<_>, _> = commands(format, &once, 8 * COMMAND_BYTES_MAX).collect();
        let again = again.expect("what was read once");
        assert_eq!(written(format, &again), once, "{good:?}");
        // JSON loses the line ends between tokens.
        assert!(format == Format::Json && frame.contains(&b'\r') || again == good, "{again:?} of {good:?}");
    }
    if let Ok(request) = emulation(format, frame) {
        assert!(request.data.len() <= frame.len());
    }
}

/// As a client writes them.
fn written(format: Format, commands: &[Command]) -> Vec<u8> {
    match format {
        Format::Json => {
            let lines = commands.iter().map(|command| serde_json::to_string(command).expect("it is written"));
            lines.collect::<Vec<_>>().join("\n").into_bytes()
        }
        Format::Protobuf => commands.iter().flat_map(Message::encode_length_delimited_to_vec).collect(),
    }
}
