//! The publisher's connections: few, so they block, and need no event loop.

use crate::handshake::{Answer, Ask, KeyPair, Offer, Request, judge};
use crate::target::Target;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use throng::mem::Rng;
use throng::ws::{self, Event, Opcode, Role, Rules, encode_masked};

/// A server that takes nothing, or answers nothing, for so long is stuck.
const STUCK: Duration = Duration::from_secs(10);
const RULES: Rules = Rules { role: Role::Client, message_bytes_max: 64 * 1024 * 1024, compression: false };

fn connect(target: &Target) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target.address, STUCK)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(STUCK))?;
    stream.set_read_timeout(Some(STUCK))?;
    Ok(stream)
}

/// A WebSocket that is published to. A thread of its own reads what the server says, and answers its pings.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<Mutex<TcpStream>>,
    reader: Option<JoinHandle<()>>,
    rng: Rng,
}

impl Socket {
    /// `fields` are further header lines, each with its CR LF.
    pub(super) fn open(target: &Target, fields: &str, subprotocol: Option<&str>, seed: u64) -> Result<Self, String> {
        let mut rng = Rng::new(seed);
        let fail = |error: io::Error| format!("the publisher cannot connect: {error}");
        let mut stream = connect(target).map_err(fail)?;
        let pair = KeyPair::draw(&mut rng);
        let mut head = Vec::new();
        let offer = subprotocol.map_or(Offer::None, Offer::Any);
        Request::new(&target.path, &target.host, fields).write(&mut head, Ask::Socket(&pair.key, offer));
        stream.write_all(&head).map_err(fail)?;
        let mut input = Vec::new();
        let rest = loop {
            match judge(&input, &pair.accept, offer) {
                Answer::Open(length, _) => break input.split_off(length),
                Answer::Failed(failure) => return Err(format!("the publisher is not let in: {}", failure.word())),
                Answer::Partial => {
                    let mut piece = [0; 4096];
                    let count = stream.read(&mut piece).map_err(fail)?;
                    if count == 0 {
                        return Err("the publisher's connection was closed before it was open".to_owned());
                    }
                    input.extend_from_slice(&piece[..count]);
                }
            }
        };
        let reading = stream.try_clone().map_err(fail)?;
        reading.set_read_timeout(None).map_err(fail)?;
        let stream = Arc::new(Mutex::new(stream));
        let writer = Arc::clone(&stream);
        let reader = thread::Builder::new()
            .name("publisher-in".into())
            .spawn(move || read_on(reading, &writer, rest))
            .map_err(fail)?;
        Ok(Self { stream, reader: Some(reader), rng })
    }

    /// Appends a message to `out`, framed.
    pub(super) fn frame(&mut self, out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
        encode_masked(out, opcode, payload, (self.rng.next() as u32).to_ne_bytes());
    }

    pub(super) fn write(&self, frames: &[u8]) -> io::Result<()> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).write_all(frames)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut close = Vec::new();
        self.frame(&mut close, Opcode::Close, &1000_u16.to_be_bytes());
        let _ = self.write(&close);
        // The reader ends when the server has ended its side, or now.
        thread::sleep(Duration::from_millis(50));
        let _ = self.stream.lock().unwrap_or_else(PoisonError::into_inner).shutdown(std::net::Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Reads until the end. What servers send to whoever publishes is nobody's message here.
fn read_on(mut stream: TcpStream, writer: &Mutex<TcpStream>, mut input: Vec<u8>) {
    let (mut partial, mut pong) = (None, Vec::new());
    let mut scratch = vec![0; 64 * 1024];
    loop {
        let mut at = 0;
        while let Ok(Some(event)) = ws::decode(&mut partial, &mut input, &mut at, RULES) {
            if let Event::Ping(payload) = event {
                pong.clear();
                encode_masked(&mut pong, Opcode::Pong, payload, [0x5A; 4]);
                let _ = writer.lock().unwrap_or_else(PoisonError::into_inner).write_all(&pong);
            }
        }
        match stream.read(&mut scratch) {
            Ok(0) => return,
            Ok(count) => {
                input.clear();
                input.extend_from_slice(&scratch[..count]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => input.clear(),
            Err(_) => return,
        }
    }
}

/// An HTTP connection that is published over, one POST at a time, kept alive as long as the server lets it.
#[derive(Debug)]
pub(super) struct Http {
    stream: Option<TcpStream>,
    input: Vec<u8>,
}

impl Http {
    pub(super) fn new() -> Self {
        Self { stream: None, input: Vec::new() }
    }

    /// Sends a request and takes the answer: its status. A connection that the server had closed in between is
    /// opened again, once.
    pub(super) fn exchange(&mut self, target: &Target, request: &[u8]) -> io::Result<u16> {
        let kept = self.stream.is_some();
        match self.try_exchange(target, request) {
            Err(_) if kept => {
                self.stream = None;
                self.try_exchange(target, request)
            }
            result => result,
        }
    }

    fn try_exchange(&mut self, target: &Target, request: &[u8]) -> io::Result<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(target)?,
        };
        stream.write_all(request)?;
        self.input.clear();
        let mut piece = [0; 8192];
        loop {
            if let Some((status, keeps)) = answer(&self.input)? {
                self.stream = keeps.then_some(stream);
                return Ok(status);
            }
            let count = stream.read(&mut piece)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.input.extend_from_slice(&piece[..count]);
        }
    }
}

/// The status of an answer once its body is whole, and whether the connection can be used again. A body that
/// ends with the connection is not waited for.
fn answer(bytes: &[u8]) -> io::Result<Option<(u16, bool)>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
    };
    let status = response.code.unwrap_or(0);
    let field = |name: &str| {
        let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(found.value).trim().to_ascii_lowercase())
    };
    let keeps = field("connection").is_none_or(|value| value != "close");
    let body = &bytes[head..];
    let whole = match (field("content-length").and_then(|length| length.parse::<usize>().ok()), status) {
        (_, 204 | 304) => true,
        (Some(length), _) => body.len() >= length,
        (None, _) if field("transfer-encoding").is_some_and(|value| value.contains("chunked")) => {
            body.ends_with(b"0\r\n\r\n")
        }
        (None, _) => return Ok(Some((status, false))),
    };
    Ok(whole.then_some((status, keeps)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_awaited_whole() {
        let whole = |text: &str| answer(text.as_bytes()).unwrap();
        assert_eq!(whole("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"), None);
        assert_eq!(whole("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Some((200, true)));
        assert_eq!(whole("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), Some((204, false)));
        assert_eq!(whole("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), None);
        assert_eq!(
            whole("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
            Some((200, true))
        );
        assert_eq!(whole("HTTP/1.1 500 Oops\r\n\r\n"), Some((500, false)));
        assert!(answer(b"\x00\x01nonsense\r\n\r\n").is_err());
    }
}
