//! What is typed: lines to send, and commands, which begin with a slash.

use super::text::{escaped, unhex};
use std::path::PathBuf;
use throng::limits::{CLOSE_REASON_BYTES_MAX, CONTROL_BYTES_MAX};
use throng::ws::close_code_may_be_sent;

pub(super) const HELP: &str = "\
a line          is sent as text; // in front is a / of the text
/ping [TEXT]    a ping; its pong shows the round-trip time
/pong [TEXT]    a pong that nobody asked for
/binary HEX     bytes, as in: /binary 00 ff a0
/file PATH      a file: as text if it is UTF-8, else as bytes
/close [CODE] [REASON]   closes, with 1000 unless another code is given; Ctrl-C and Ctrl-D do, too
/help           this";

/// A line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Binary(Vec<u8>),
    File(PathBuf),
    Close(u16, String),
    Help,
}

impl Command {
    /// Understands a line, without its end.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let Some(command) = line.strip_prefix('/') else { return Ok(Self::Text(line.to_owned())) };
        if command.starts_with('/') {
            return Ok(Self::Text(command.to_owned()));
        }
        let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
        match name {
            "ping" => Ok(Self::Ping(control_payload(rest)?)),
            "pong" => Ok(Self::Pong(control_payload(rest)?)),
            "binary" => unhex(rest).map(Self::Binary),
            "file" if rest.trim().is_empty() => Err("which file? /file PATH".to_owned()),
            "file" => Ok(Self::File(rest.trim().into())),
            "close" => close(rest.trim()),
            "help" => Ok(Self::Help),
            _ => Err(format!("there is no command /{0}: /help has them all, //{0} sends it as text", escaped(name))),
        }
    }
}

fn control_payload(text: &str) -> Result<Vec<u8>, String> {
    if text.len() > CONTROL_BYTES_MAX {
        return Err(format!(
            "a ping or pong has {CONTROL_BYTES_MAX} bytes at most (RFC 6455, section 5.5), and this is {}",
            text.len()
        ));
    }
    Ok(text.as_bytes().to_vec())
}

fn close(rest: &str) -> Result<Command, String> {
    let (first, behind) = rest.split_once(' ').unwrap_or((rest, ""));
    let (code, reason) = match first.parse::<u16>() {
        Ok(code) if first.bytes().all(|byte| byte.is_ascii_digit()) => (Some(code), behind.trim()),
        _ => (None, rest),
    };
    if let Some(code) = code.filter(|&code| !close_code_may_be_sent(code)) {
        return Err(format!(
            "{code} may not be sent: 1000 to 1003, 1007 to 1014, 3000 to 4999 (RFC 6455, section 7.4)"
        ));
    }
    if reason.len() > CLOSE_REASON_BYTES_MAX {
        return Err(format!("a reason has {CLOSE_REASON_BYTES_MAX} bytes at most, and this is {}", reason.len()));
    }
    Ok(Command::Close(code.unwrap_or(1000), reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_text_unless_it_begins_with_one_slash() {
        for (line, text) in [("hello", "hello"), ("", ""), (" /ping", " /ping"), ("//ping", "/ping"), ("///", "//")] {
            assert_eq!(Command::parse(line), Ok(Command::Text(text.to_owned())), "{line}");
        }
    }

    #[test]
    fn commands_are_understood() {
        let cases = [
            ("/ping", Command::Ping(vec![])),
            ("/ping are you there", Command::Ping(b"are you there".to_vec())),
            ("/pong x", Command::Pong(b"x".to_vec())),
            ("/binary 00 ff", Command::Binary(vec![0, 255])),
            ("/file a b.txt ", Command::File("a b.txt".into())),
            ("/close", Command::Close(1000, String::new())),
            ("/close 4000", Command::Close(4000, String::new())),
            ("/close 4000 that is all", Command::Close(4000, "that is all".to_owned())),
            ("/close that is all", Command::Close(1000, "that is all".to_owned())),
            ("/help", Command::Help),
        ];
        for (line, command) in cases {
            assert_eq!(Command::parse(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused_before_it_is() {
        let (long_ping, long_reason) =
            (format!("/ping {}", "x".repeat(126)), format!("/close 1000 {}", "x".repeat(124)));
        for (line, hint) in [
            ("/nonsense", "//nonsense"),
            ("/", "/help"),
            ("/PING", "no command"),
            ("/binary 0", "odd"),
            ("/binary xy", "hex digit"),
            ("/file", "which file"),
            ("/close 1005", "may not be sent"),
            ("/close 999", "may not be sent"),
            (&long_ping, "125 bytes at most"),
            (&long_reason, "123 bytes at most"),
        ] {
            let error = Command::parse(line).unwrap_err();
            assert!(error.contains(hint), "{line}: {error}");
        }
        assert!(!Command::parse("/\x1B[2J").unwrap_err().contains('\x1B'));
    }
}
