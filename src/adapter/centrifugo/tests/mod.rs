//! The codecs: examples written from Centrifugo's documents, bytes derived by hand from the schema, and properties.

mod calls;
mod emulation;
mod examples;
mod properties;
mod session;
mod tokens;

use super::codec::{Format, Malformed, commands, encode};
use super::protocol::{Command, Reply};

fn all(format: Format, frame: &[u8]) -> Vec<Result<Command, Malformed>> {
    commands(format, frame, 1 << 20).collect()
}

/// The commands of a frame that has nothing else.
#[track_caller]
fn read(format: Format, frame: &[u8]) -> Vec<Command> {
    all(format, frame).into_iter().collect::<Result<_, _>>().unwrap()
}

fn frame(format: Format, replies: &[Reply]) -> Vec<u8> {
    let mut out = Vec::new();
    replies.iter().for_each(|reply| encode(&mut out, format, reply));
    out
}

fn text(replies: &[Reply]) -> String {
    String::from_utf8(frame(Format::Json, replies)).unwrap()
}
