//! The floor beside servers for people: handshake, echo and broadcast for any client, one recv and one send for each.
//!
//! What it omits: every check (of requests, frames, lengths and UTF-8), limits, timeouts and pings; queues of any kind, so that
//! who cannot take all of what is sent is let go; one send for several frames that came together. A frame that comes in pieces
//! is echoed piece by piece, and kept nowhere.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::RawFd;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::sys;

/// Holds the frame of a 64 KB message.
const SCRATCH_BYTES: usize = 128 * 1024;
/// An answer of 64 KB goes in one piece: the kernel doubles this, up to twice net.core.wmem_max (socket(7)).
const SEND_BUFFER_BYTES: i32 = 208 * 1024;

/// What a key is hashed with (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MASKING_KEY_BYTES: usize = 4;
const OPCODE: u8 = 0x0f;
const OPCODE_CLOSE: u8 = 8;

/// What a connection asked for with its path.
#[derive(Clone, Copy, Default)]
enum Role {
    /// Nothing yet.
    #[default]
    New,
    /// `/echo`: gets back what it sends.
    Echo,
    /// `/sub`: gets what is published; at this place among the subscribers.
    Sub(usize),
    /// `/pub`: publishes what it sends.
    Pub,
}

#[derive(Default)]
struct Conn {
    role: Role,
    /// Bytes that are still to come of the payload that is being echoed, and the masking key for the next of them.
    left: usize,
    key: [u8; MASKING_KEY_BYTES],
    /// The beginning of a frame whose header has not come whole; or of one to be published.
    tail: Vec<u8>,
}

struct Serve {
    /// By descriptor.
    conns: Vec<Conn>,
    subscribers: Vec<RawFd>,
    scratch: Vec<u8>,
}

/// Serves for ever. A request is read right after accept, since it is there already.
pub(crate) fn run(listen: SocketAddrV4) -> io::Result<()> {
    let listener = sys::listen(listen, true)?;
    let mut epoll = sys::Epoll::new()?;
    epoll.add(listener, libc::EPOLLIN, listener as usize)?;
    let mut serve = Serve { conns: Vec::new(), subscribers: Vec::new(), scratch: vec![0; SCRATCH_BYTES] };
    loop {
        for index in 0..epoll.wait(-1)? {
            let fd = epoll.event(index).token as RawFd;
            if fd != listener {
                serve.read(fd);
                continue;
            }
            while let Some(fd) = sys::accept(listener)? {
                if serve.conns.len() <= fd as usize {
                    serve.conns.resize_with(fd as usize + 1, Conn::default);
                }
                serve.conns[fd as usize] = Conn::default();
                epoll.add(fd, libc::EPOLLIN, fd as usize)?;
                serve.read(fd);
            }
        }
    }
}

impl Serve {
    fn read(&mut self, fd: RawFd) {
        let conn = &mut self.conns[fd as usize];
        let kept = conn.tail.len();
        self.scratch[..kept].copy_from_slice(&conn.tail);
        conn.tail.clear();
        let done = match sys::recv(fd, &mut self.scratch[kept..]) {
            // With TCP_DEFER_ACCEPT that is a client that says nothing for a second.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) if matches!(conn.role, Role::New) => self.upgrade(fd, read),
            Ok(read) => self.frames(fd, kept + read),
        };
        if done.is_err() {
            self.close(fd);
        }
    }

    /// Answers the request in the first `len` bytes of `scratch` (RFC 6455, section 4.2.2).
    fn upgrade(&mut self, fd: RawFd, len: usize) -> io::Result<()> {
        let request = &self.scratch[..len];
        let path = request.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        let role = match path {
            b"/echo" => Role::Echo,
            b"/sub" => Role::Sub(self.subscribers.len()),
            b"/pub" => Role::Pub,
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        let name = b"\r\nSec-WebSocket-Key: ";
        let at = request.windows(name.len()).position(|window| window == name).ok_or(io::ErrorKind::InvalidData)?;
        let key = request[at + name.len()..].split(|&byte| byte == b'\r').next().unwrap_or_default();
        let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
        let mut response = [0; 192];
        let len = head.len() + accept.len();
        response[..head.len()].copy_from_slice(head.as_bytes());
        response[head.len()..len].copy_from_slice(accept.as_bytes());
        response[len..len + 4].copy_from_slice(b"\r\n\r\n");
        sys::send(fd, &response[..len + 4])?;
        match role {
            Role::Sub(_) => self.subscribers.push(fd),
            Role::Echo => sys::set_send_buffer(fd, SEND_BUFFER_BYTES)?,
            Role::New | Role::Pub => {}
        }
        self.conns[fd as usize].role = role;
        Ok(())
    }

    /// Deals with the frames in the first `len` bytes of `scratch`.
    fn frames(&mut self, fd: RawFd, len: usize) -> io::Result<()> {
        let Serve { conns, subscribers, scratch } = self;
        let conn = &mut conns[fd as usize];
        let mut gone = Vec::new();
        let mut at = conn.left.min(len);
        if at > 0 {
            unmask(&mut scratch[..at], conn.key);
            conn.left -= at;
            conn.key.rotate_left(at % MASKING_KEY_BYTES);
            sys::send(fd, &scratch[..at])?;
        }
        while at < len {
            let bytes = &mut scratch[at..len];
            let Some((header, payload)) = header(bytes) else {
                conn.tail.extend_from_slice(bytes);
                break;
            };
            let publish = matches!(conn.role, Role::Pub) && bytes[0] & OPCODE != OPCODE_CLOSE;
            let here = (bytes.len() - header).min(payload);
            if publish && here < payload {
                conn.tail.extend_from_slice(bytes);
                break;
            }
            let mut key = [0; MASKING_KEY_BYTES];
            key.copy_from_slice(&bytes[header - MASKING_KEY_BYTES..header]);
            unmask(&mut bytes[header..header + here], key);
            // The same header without a key goes right before the payload.
            bytes.copy_within(..header - MASKING_KEY_BYTES, MASKING_KEY_BYTES);
            bytes[MASKING_KEY_BYTES + 1] &= 0x7f;
            let answer = at + MASKING_KEY_BYTES..at + header + here;
            at = answer.end;
            if publish {
                gone.extend(subscribers.iter().copied().filter(|&fd| sys::send(fd, &scratch[answer.clone()]).is_err()));
                continue;
            }
            key.rotate_left(here % MASKING_KEY_BYTES);
            (conn.left, conn.key) = (payload - here, key);
            sys::send(fd, &scratch[answer.clone()])?;
            if scratch[answer.start] & OPCODE == OPCODE_CLOSE {
                return Err(io::ErrorKind::UnexpectedEof.into()); // the server closes first (RFC 6455, section 7.1.1)
            }
        }
        gone.sort_unstable();
        gone.dedup();
        gone.into_iter().for_each(|fd| self.close(fd));
        Ok(())
    }

    fn close(&mut self, fd: RawFd) {
        let Conn { role, .. } = std::mem::take(&mut self.conns[fd as usize]);
        match role {
            Role::Sub(at) => {
                self.subscribers.swap_remove(at);
                if let Some(&moved) = self.subscribers.get(at) {
                    self.conns[moved as usize].role = Role::Sub(at);
                }
            }
            Role::New | Role::Echo | Role::Pub => {}
        }
        sys::close(fd);
    }
}

/// Lengths of the header, key included, and of the payload (RFC 6455, section 5.2); nothing while the header is not whole.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let (extended, payload) = match bytes.get(1)? & 0x7f {
        126 => (2, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (8, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize),
        short => (0, usize::from(short)),
    };
    let header = 2 + extended + MASKING_KEY_BYTES;
    (bytes.len() >= header).then_some((header, payload))
}

fn unmask(payload: &mut [u8], key: [u8; MASKING_KEY_BYTES]) {
    let mut words = payload.chunks_exact_mut(8);
    let [a, b, c, d] = key;
    let key_twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ key_twice).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    fn masked(size: usize, key: [u8; 4]) -> (Vec<u8>, Vec<u8>) {
        let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
        let header = |mask: u8| match size {
            0..=125 => vec![0x82, mask | size as u8],
            126..=0xffff => [&[0x82, mask | 126][..], &(size as u16).to_be_bytes()].concat(),
            _ => [&[0x82, mask | 127][..], &(size as u64).to_be_bytes()].concat(),
        };
        let hidden: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        ([header(0x80), key.to_vec(), hidden].concat(), [header(0), payload].concat())
    }

    /// What comes back from one that has `role`, for what is sent in these pieces.
    fn answered(role: Role, pieces: &[&[u8]]) -> Vec<u8> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let fd = ours.into_raw_fd();
        let mut conns: Vec<Conn> = Vec::new();
        conns.resize_with(fd as usize + 1, Conn::default);
        conns[fd as usize].role = role;
        let mut serve = Serve { conns, subscribers: vec![fd], scratch: vec![0; SCRATCH_BYTES] };
        for piece in pieces {
            theirs.write_all(piece).unwrap();
            serve.read(fd);
        }
        if !matches!(serve.conns[fd as usize].role, Role::New) {
            sys::close(fd);
        }
        let mut answer = Vec::new();
        theirs.read_to_end(&mut answer).unwrap();
        answer
    }

    #[test]
    fn frames_of_each_length_come_back_however_they_are_cut() {
        for size in [0, 5, 125, 126, 1024, 65_535, 66_000] {
            let (frame, answer) = masked(size, [1, 2, 3, 4]);
            assert_eq!(answered(Role::Echo, &[&frame]), answer, "{size}");
            for cut in [1, 3, 7, 13, 15].into_iter().filter(|&cut| cut < frame.len()) {
                let (first, second) = frame.split_at(cut);
                assert_eq!(answered(Role::Echo, &[first, second]), answer, "{size} cut at {cut}");
            }
        }
    }

    #[test]
    fn several_in_one_read_are_each_answered_or_published() {
        let ((a, a_back), (b, b_back)) = (masked(64, [9, 8, 7, 6]), masked(200, [5, 5, 5, 5]));
        let (sent, back) = ([&a[..], &b, &a].concat(), [&a_back[..], &b_back, &a_back].concat());
        for cut in [0, 66, 75, 80, 200] {
            let (first, second) = sent.split_at(cut);
            for role in [Role::Echo, Role::Pub] {
                assert_eq!(
                    answered(
                        role,
                        &[first, second].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>()[..]
                    ),
                    back,
                    "{cut}"
                );
            }
        }
    }

    #[test]
    fn a_close_frame_is_answered_and_not_published() {
        assert_eq!(answered(Role::Pub, &[&[0x88, 0x82, 0, 0, 0, 0, 3, 232]]), [0x88, 2, 3, 232]);
    }
}
