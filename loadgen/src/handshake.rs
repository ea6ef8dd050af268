//! The opening handshake from the client's side (RFC 6455, section 4.1), sans-IO: the request's text, made
//! once, and the judgement of the answer.

use crate::reason::Failure;
use throng::mem::Rng;
use throng::ws::{KEY_BYTES, accept_value, key_is_valid};

/// Key pairs drawn at the start. Connections use them in turn, so that nobody hashes in the loop, and a
/// server that answers everyone with the same value is found out.
pub(crate) const KEYS: usize = 64;

/// Longest head of an answer, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 64;

/// A key and the accept value that belongs to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyPair {
    pub(crate) key: [u8; KEY_BYTES],
    pub(crate) accept: [u8; 28],
}

impl KeyPair {
    /// Draws a key: 16 random bytes in base64 are 21 free characters, one that carries two bits, and padding.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut key = [b'='; KEY_BYTES];
        for (index, byte) in key[..22].iter_mut().enumerate() {
            let bits = rng.below(64) as usize;
            *byte = ALPHABET[if index == 21 { bits & 0x30 } else { bits }];
        }
        Self { key, accept: accept_value(&key) }
    }

    /// A key chosen by somebody else.
    pub(crate) fn given(key: &str) -> Option<Self> {
        let key = <[u8; KEY_BYTES]>::try_from(key.as_bytes()).ok().filter(|key| key_is_valid(key))?;
        Some(Self { key, accept: accept_value(&key) })
    }
}

/// A request whose key is yet to be filled in.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    before_key: Vec<u8>,
    after_key: Vec<u8>,
}

impl Request {
    /// `fields` are further header lines, each with its CR LF.
    pub(crate) fn new(path: &str, host: &str, fields: &str) -> Self {
        let before_key = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        );
        Self { before_key: before_key.into_bytes(), after_key: format!("\r\n{fields}\r\n").into_bytes() }
    }

    /// Writes the whole request over `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, key: &[u8; KEY_BYTES]) {
        out.clear();
        out.extend_from_slice(&self.before_key);
        out.extend_from_slice(key);
        out.extend_from_slice(&self.after_key);
    }
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The head is not whole yet.
    Partial,
    /// Open: the head took this many bytes, and frames follow.
    Open(usize),
    /// Not open, and why.
    Failed(Failure),
}

/// Judges what has come of an answer to a key whose accept value is `accept`.
pub(crate) fn judge(bytes: &[u8], accept: &[u8; 28], subprotocol: Option<&str>) -> Answer {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Answer::Partial,
        _ => return Answer::Failed(Failure::NotHttp),
    };
    if response.code != Some(101) {
        return Answer::Failed(Failure::Status(response.code.unwrap_or(0)));
    }
    match check_fields(response.headers, accept, subprotocol) {
        Ok(()) => Answer::Open(length),
        Err(failure) => Answer::Failed(failure),
    }
}

/// The client's duties of RFC 6455, section 4.1, on the fields of a 101.
fn check_fields(fields: &[httparse::Header<'_>], accept: &[u8; 28], subprotocol: Option<&str>) -> Result<(), Failure> {
    let (mut upgrade, mut connection, mut accepted) = (false, false, false);
    for field in fields {
        let value = field.value.trim_ascii();
        // Told apart by length first: names are compared for the few that matter.
        match field.name.len() {
            7 if field.name.eq_ignore_ascii_case("upgrade") => upgrade = value.eq_ignore_ascii_case(b"websocket"),
            10 if field.name.eq_ignore_ascii_case("connection") => {
                connection |=
                    value.split(|&byte| byte == b',').any(|v| v.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
            }
            20 if field.name.eq_ignore_ascii_case("sec-websocket-accept") => {
                if accepted || value != accept {
                    return Err(Failure::BadAccept);
                }
                accepted = true;
            }
            // We offer no extension, so none may be used.
            24 if field.name.eq_ignore_ascii_case("sec-websocket-extensions") && !value.is_empty() => {
                return Err(Failure::BadUpgrade);
            }
            22 if field.name.eq_ignore_ascii_case("sec-websocket-protocol") => {
                let offered = subprotocol.is_some_and(|list| list.split(',').any(|one| one.trim().as_bytes() == value));
                if !offered {
                    return Err(Failure::BadUpgrade);
                }
            }
            _ => {}
        }
    }
    match (accepted, upgrade && connection) {
        (true, true) => Ok(()),
        (true, false) => Err(Failure::BadUpgrade),
        (false, _) => Err(Failure::BadAccept),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: &[u8; 28] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nCONNECTION: keep-alive, Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn every_key_drawn_is_valid() {
        let mut rng = Rng::new(1);
        for _ in 0..1000 {
            let pair = KeyPair::draw(&mut rng);
            assert!(throng::ws::key_is_valid(&pair.key), "{:?}", String::from_utf8_lossy(&pair.key));
        }
    }

    #[test]
    fn an_answer_is_awaited_whole() {
        for cut in 0..GOOD.len() {
            assert_eq!(judge(&GOOD.as_bytes()[..cut], ACCEPT, None), Answer::Partial, "cut at {cut}");
        }
        let with_frames = format!("{GOOD}\u{1}frames");
        assert_eq!(judge(with_frames.as_bytes(), ACCEPT, None), Answer::Open(GOOD.len()));
    }

    #[test]
    fn wrong_answers_are_told_apart() {
        let cases = [
            ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo0", Failure::BadAccept),
            ("Sec-WebSocket-Accept", "Sec-WebSocket-Accepts", Failure::BadAccept),
            ("WebSocket\r", "h2c\r", Failure::BadUpgrade),
            ("keep-alive, Upgrade", "keep-alive", Failure::BadUpgrade),
            ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", Failure::BadUpgrade),
            ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n", Failure::BadUpgrade),
            ("101 Switching Protocols", "503 Service Unavailable", Failure::Status(503)),
            ("HTTP/1.1", "SSH-2.0 ", Failure::NotHttp),
        ];
        for (from, to, failure) in cases {
            let answer = GOOD.replacen(from, to, 1);
            assert_eq!(judge(answer.as_bytes(), ACCEPT, None), Answer::Failed(failure), "{answer}");
        }
        let chat = GOOD.replacen("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n", 1);
        assert_eq!(judge(chat.as_bytes(), ACCEPT, Some("soap, chat")), Answer::Open(chat.len()));
        assert_eq!(judge(&[b'a'; HEAD_BYTES_MAX], ACCEPT, None), Answer::Failed(Failure::NotHttp));
    }
}
