//! A client made of a bare `TcpStream`, and the bytes it sends: valid ones, and every kind of invalid ones.

use super::{PATIENCE, millis};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The key and the accept value of RFC 6455, section 1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// A request head that can be bent in any direction. Lines are joined with CR LF.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    lines: Vec<Vec<u8>>,
}

/// A valid upgrade request.
pub(crate) fn upgrade() -> Head {
    plain("/chat")
        .with("Upgrade: websocket")
        .with("Connection: Upgrade")
        .with(format!("Sec-WebSocket-Key: {KEY}"))
        .with("Sec-WebSocket-Version: 13")
}

/// A valid request that is no upgrade.
pub(crate) fn plain(target: &str) -> Head {
    Head { lines: vec![format!("GET {target} HTTP/1.1").into_bytes()] }.with("Host: localhost")
}

impl Head {
    /// Another request line.
    pub(crate) fn line(mut self, line: impl AsRef<[u8]>) -> Self {
        self.lines[0] = line.as_ref().to_vec();
        self
    }

    /// One more line at the end.
    pub(crate) fn with(mut self, line: impl AsRef<[u8]>) -> Self {
        self.lines.push(line.as_ref().to_vec());
        self
    }

    /// Without the lines of one field.
    pub(crate) fn without(mut self, name: &str) -> Self {
        let start = format!("{name}:").into_bytes();
        self.lines.retain(|line| !line.starts_with(&start));
        self
    }

    /// `line` in place of the line that has the same name.
    pub(crate) fn but(self, line: &str) -> Self {
        self.without(line.split(':').next().unwrap()).with(line)
    }

    /// Lengthened by one more field so that the whole head, its empty line included, has `len` bytes.
    pub(crate) fn padded_to(self, len: usize) -> Self {
        let room = len - self.bytes().len() - "Pad: \r\n".len();
        self.with(format!("Pad: {}", "x".repeat(room)))
    }

    /// Lengthened by small fields until there are `count`.
    pub(crate) fn with_fields(self, count: usize) -> Self {
        (self.lines.len() - 1..count).fold(self, |head, n| head.with(format!("X-{n}: {n}")))
    }

    /// What goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.lines.join(&b"\r\n"[..]);
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes
    }
}

impl From<Head> for Vec<u8> {
    fn from(head: Head) -> Self {
        head.bytes()
    }
}

/// A client's frame, valid until it is bent.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    first: u8,
    mask: Option<[u8; 4]>,
    length_bits: u8,
    announced: u64,
    payload: Vec<u8>,
}

/// A final, masked frame with its length in the shortest form.
pub(crate) fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    let payload = payload.as_ref().to_vec();
    Frame { first: 0x80 | opcode, mask: Some([0x37, 0xFA, 0x21, 0x3D]), length_bits: 0, announced: 0, payload }
        .announcing_its_own_length()
}

pub(crate) fn text(payload: impl AsRef<[u8]>) -> Frame {
    frame(TEXT, payload)
}

/// A close frame with a code and a reason.
pub(crate) fn close(code: u16, reason: impl AsRef<[u8]>) -> Frame {
    frame(CLOSE, [&code.to_be_bytes(), reason.as_ref()].concat())
}

impl Frame {
    fn announcing_its_own_length(self) -> Self {
        let len = self.payload.len() as u64;
        self.announcing(len)
    }

    /// The FIN bit clear: more of this message follows.
    pub(crate) fn unfinished(mut self) -> Self {
        self.first &= 0x7F;
        self
    }

    /// Reserved bits set, as they stand in the first byte (0x40, 0x20, 0x10).
    pub(crate) fn reserved(mut self, bits: u8) -> Self {
        self.first |= bits;
        self
    }

    pub(crate) fn unmasked(mut self) -> Self {
        self.mask = None;
        self
    }

    pub(crate) fn masked_with(mut self, key: [u8; 4]) -> Self {
        self.mask = Some(key);
        self
    }

    /// A header for `len` bytes, in the shortest form, whatever the payload's length is.
    pub(crate) fn announcing(mut self, len: u64) -> Self {
        self.announced = len;
        self.length_bits = length_bits(len);
        self
    }

    /// The length in 16 or 64 bits, also where fewer would do.
    pub(crate) fn length_in(mut self, bits: u8) -> Self {
        self.length_bits = bits;
        self
    }

    /// What goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mask_bit = if self.mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        let wide = self.announced.to_be_bytes();
        match self.length_bits {
            7 => bytes.push(mask_bit | wide[7]),
            16 => bytes.extend([&[mask_bit | 126], &wide[6..]].concat()),
            _ => bytes.extend([&[mask_bit | 127], &wide[..]].concat()),
        }
        bytes.extend(self.mask.iter().flatten());
        let key = self.mask.unwrap_or_default();
        bytes.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }
}

/// The bits of the shortest form of a length (section 5.2).
fn length_bits(len: u64) -> u8 {
    match len {
        0..126 => 7,
        126..65_536 => 16,
        _ => 64,
    }
}

/// The bytes of several frames.
pub(crate) fn wire(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::bytes).collect()
}

/// How a sequence of bytes is cut into writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    Whole,
    ByteByByte,
    /// In pieces of random length; the seed is printed, and `THRONG_TEST_SEED` replays it.
    AtRandom,
}

impl Cut {
    pub(crate) const ALL: [Self; 3] = [Self::Whole, Self::ByteByByte, Self::AtRandom];

    /// The pieces of `bytes`.
    fn pieces(self, bytes: &[u8]) -> Vec<&[u8]> {
        match self {
            Self::Whole => vec![bytes],
            Self::ByteByByte => bytes.chunks(1).collect(),
            Self::AtRandom => {
                let (mut random, mut rest, mut pieces) = (Random::new(), bytes, Vec::new());
                while !rest.is_empty() {
                    let (piece, tail) = rest.split_at(1 + random.below(rest.len()) / 4);
                    pieces.push(piece);
                    rest = tail;
                }
                pieces
            }
        }
    }
}

/// A small generator (xorshift64) that says how to repeat it.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("THRONG_TEST_SEED").map_or_else(|_| now(), |seed| seed.parse().unwrap());
        println!("THRONG_TEST_SEED={seed}");
        Self(seed.max(1))
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of the one field of this name; none when there is none.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice in {self:?}");
        value.map(String::as_str)
    }

    /// Whether `token` is in the list that the field of this name holds.
    #[track_caller]
    pub(crate) fn lists(&self, name: &str, token: &str) -> bool {
        self.field(name).is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
    }

    /// The members of a problem document (RFC 9457): one flat object of strings and numbers.
    #[track_caller]
    pub(crate) fn problem(&self) -> HashMap<String, String> {
        assert_eq!(self.field("Content-Type"), Some("application/problem+json"), "{self:?}");
        let text = std::str::from_utf8(&self.body).unwrap();
        flat_object(text).unwrap_or_else(|| panic!("not a flat JSON object: {text}"))
    }
}

/// A frame as the server sent it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Eof,
    Reset,
}

/// One TCP connection to the server.
#[derive(Debug)]
pub(crate) struct Raw {
    stream: TcpStream,
    /// What has been read and not yet looked at.
    unread: Vec<u8>,
}

impl Raw {
    #[track_caller]
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::of(TcpStream::connect_timeout(&addr, PATIENCE).unwrap())
    }

    /// Connects from one of this machine's own addresses.
    #[track_caller]
    pub(crate) fn connect_from(source: IpAddr, addr: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect_timeout(&addr.into(), PATIENCE).unwrap();
        Self::of(socket.into())
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, unread: Vec::new() }
    }

    /// Sends everything; the server must be there to take it.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends what can be sent: the server may have hung up already. Says how far it came.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends in pieces, as [`try_send`](Self::try_send) does. Short sequences pause between the pieces,
    /// so that the server sees them one by one.
    pub(crate) fn send_cut(&mut self, bytes: &[u8], cut: Cut) {
        let pieces = cut.pieces(bytes);
        let pause = if pieces.len() > 1 && pieces.len() < 1000 { Duration::from_micros(50) } else { Duration::ZERO };
        for piece in pieces {
            if self.try_send(piece).is_err() {
                return;
            }
            thread::sleep(pause);
        }
    }

    /// Sends the valid upgrade and takes the 101.
    #[track_caller]
    pub(crate) fn upgrade(&mut self) {
        self.send(upgrade().bytes());
        let response = self.head();
        assert_eq!(response.status, 101, "{response:?}");
    }

    /// Reads the head of an answer; what follows stays for frames.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Response {
        let deadline = Instant::now() + PATIENCE;
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            let ending = self.fill(deadline);
            assert_eq!(ending, None, "in the head, after {:?}", String::from_utf8_lossy(&self.unread));
        };
        let rest = self.unread.split_off(end + 4);
        let head = String::from_utf8(std::mem::replace(&mut self.unread, rest)).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..4)).unwrap();
        let fields = lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned()));
        Response { status: status.trim_end().parse().unwrap(), fields: fields.collect(), body: Vec::new() }
    }

    /// Reads a whole answer and then a clean end: a reset would have cost a real client the answer.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        let mut response = self.head();
        response.body = self.rest();
        response
    }

    /// Reads an answer that has a length, and leaves what follows.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Response {
        let mut response = self.head();
        let length = response.field("Content-Length").map_or(0, |length| length.parse().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while self.unread.len() < length {
            assert_eq!(self.fill(deadline), None, "in the body");
        }
        let rest = self.unread.split_off(length);
        response.body = std::mem::replace(&mut self.unread, rest);
        response
    }

    /// The text up to the next empty line (LF LF), without it.
    #[track_caller]
    pub(crate) fn line_block(&mut self, deadline: Instant) -> String {
        loop {
            if let Some(end) = self.unread.windows(2).position(|window| window == b"\n\n") {
                let rest = self.unread.split_off(end + 2);
                let mut block = std::mem::replace(&mut self.unread, rest);
                block.truncate(end);
                return String::from_utf8(block).unwrap();
            }
            assert_eq!(self.fill(deadline), None, "in a block of lines");
        }
    }

    /// The data of the next chunk of a body (RFC 9112, section 7.1); none of the last.
    #[track_caller]
    pub(crate) fn chunk(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.unread.windows(2).position(|window| window == b"\r\n") {
                let size = std::str::from_utf8(&self.unread[..end]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("no chunk size: {size:?}"));
                if self.unread.len() >= end + 2 + size + 2 {
                    let rest = self.unread.split_off(end + 2 + size + 2);
                    let chunk = std::mem::replace(&mut self.unread, rest);
                    assert_eq!(&chunk[end + 2 + size..], b"\r\n", "behind a chunk");
                    return chunk[end + 2..end + 2 + size].to_vec();
                }
            }
            assert_eq!(self.fill(deadline), None, "in a chunk: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// Everything up to a clean end.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        assert_eq!(self.end(), Ending::Eof, "after {:?}", String::from_utf8_lossy(&self.unread));
        std::mem::take(&mut self.unread)
    }

    /// Reads one frame and checks all that every frame of a server must be.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Received {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(received) = self.take_frame() {
                return received;
            }
            assert_eq!(self.fill(deadline), None, "instead of a frame, after {:02X?}", self.unread);
        }
    }

    /// The next frame, if it is there within `within`.
    #[track_caller]
    pub(crate) fn frame_within(&mut self, within: Duration) -> Option<Received> {
        let deadline = Instant::now() + within;
        loop {
            let received = self.take_frame();
            if received.is_some() || Instant::now() >= deadline {
                return received;
            }
            if let Err(error) = self.read_some(deadline) {
                assert!(timed_out(&error), "{error}");
            }
        }
    }

    /// Whether anything comes within `within`, be it the end; it stays unread.
    pub(crate) fn hears_or_ends(&mut self, within: Duration) -> bool {
        !self.read_some(Instant::now() + within).is_err_and(|error| timed_out(&error))
    }

    /// Whether what is unread starts like this.
    pub(crate) fn starts_with(&self, bytes: &[u8]) -> bool {
        self.unread.starts_with(bytes)
    }

    /// Whether anything comes within `within`; it stays unread.
    #[track_caller]
    pub(crate) fn hears(&mut self, within: Duration) -> bool {
        match self.read_some(Instant::now() + within) {
            Ok(_) => true,
            Err(error) => {
                assert!(timed_out(&error), "{error}");
                false
            }
        }
    }

    /// Expects a frame.
    #[track_caller]
    pub(crate) fn expect(&mut self, opcode: u8, payload: impl AsRef<[u8]>) {
        let (got, payload) = (self.frame(), payload.as_ref());
        let start = &got.payload[..got.payload.len().min(40)];
        assert!(
            got.opcode == opcode && got.payload == payload,
            "got opcode {:X} with {} bytes {:?}, wanted {opcode:X} with {}",
            got.opcode,
            got.payload.len(),
            String::from_utf8_lossy(start),
            payload.len(),
        );
    }

    /// Sends a text and expects it back.
    #[track_caller]
    pub(crate) fn echo(&mut self, message: &str) {
        self.send(text(message).bytes());
        self.expect(TEXT, message);
    }

    /// Expects a close frame with this code; gives its reason.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16) -> String {
        let got = self.frame();
        assert!(got.opcode == CLOSE && got.payload.starts_with(&code.to_be_bytes()), "wanted {code}: {got:?}");
        String::from_utf8(got.payload[2..].to_vec()).unwrap()
    }

    /// Reads to the end of the connection; what came first stays unread.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Ending {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(ending) = self.fill(deadline) {
                return ending;
            }
        }
    }

    /// Expects that nothing comes any more but a clean end.
    #[track_caller]
    pub(crate) fn expect_eof(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "after what should have been the last: {rest:02X?}");
    }

    /// Expects that nothing comes any more but the end, clean or not.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let ending = self.end();
        assert!(self.unread.is_empty(), "after what should have been the last, then {ending:?}: {:02X?}", self.unread);
    }

    /// Whether the server has reset the connection, or does when more comes. A reset may overtake an answer on its
    /// way, though on one Linux machine what has arrived can still be read.
    pub(crate) fn was_reset(&mut self) -> bool {
        let first = self.try_send("x");
        thread::sleep(millis(5));
        first.and_then(|()| self.try_send("x")).is_err()
    }

    /// Leaves with a reset instead of a FIN.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// As if its machine had lost the network: whatever comes for it from now on is dropped before TCP sees it.
    pub(crate) fn vanish(&self) {
        let nothing = SockFilter::new(0x06, 0, 0, 0); // BPF_RET | BPF_K: so many bytes of each packet
        SockRef::from(&self.stream).attach_filter(&[nothing]).unwrap();
    }

    /// The socket itself.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    #[track_caller]
    fn take_frame(&mut self) -> Option<Received> {
        if let Some(first) = self.unread.first() {
            assert_eq!(first & 0x40, 0, "nothing about compression was agreed on: {first:02X}");
        }
        self.take_any_frame().map(|(_, received)| received)
    }

    /// Reads one frame, whose message may be compressed (RFC 7692, section 6): whether it is, and its bytes as they came.
    #[track_caller]
    pub(crate) fn any_frame(&mut self) -> (bool, Received) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(received) = self.take_any_frame() {
                return received;
            }
            assert_eq!(self.fill(deadline), None, "instead of a frame, after {:02X?}", self.unread);
        }
    }

    /// Passes over any number of frames with this opcode: the first of another kind, or none at the end of the connection.
    #[track_caller]
    pub(crate) fn frame_behind_all(&mut self, opcode: u8) -> Option<Received> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut at = 0;
            while let Some((_, received, end)) = first_frame(&self.unread[at..]) {
                at += end;
                if received.opcode != opcode {
                    self.unread.drain(..at);
                    return Some(received);
                }
            }
            self.unread.drain(..at);
            if self.fill(deadline).is_some() {
                return None;
            }
        }
    }

    #[track_caller]
    fn take_any_frame(&mut self) -> Option<(bool, Received)> {
        let (is_compressed, received, end) = first_frame(&self.unread)?;
        self.unread.drain(..end);
        Some((is_compressed, received))
    }

    /// Reads more; an ending when there is no more. Panics at the deadline.
    #[track_caller]
    fn fill(&mut self, deadline: Instant) -> Option<Ending> {
        match self.read_some(deadline) {
            Ok(0) => Some(Ending::Eof),
            Ok(_) => None,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                Some(Ending::Reset)
            }
            Err(error) => panic!("{error}, after {} bytes", self.unread.len()),
        }
    }

    fn read_some(&mut self, deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now()).max(millis(1));
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 65_536];
        let n = loop {
            match self.stream.read(&mut chunk) {
                // A read with a timeout is not restarted when the process was stopped for a while (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.unread.extend_from_slice(&chunk[..n]);
        Ok(n)
    }
}

/// The frame at the head of `bytes`, if it is whole: whether it is compressed, the frame, and where it ends.
#[track_caller]
fn first_frame(bytes: &[u8]) -> Option<(bool, Received, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(first & 0xB0, 0x80, "FIN and no reserved bit but the first: {first:02X}");
    assert!(first & 0x48 != 0x48, "control frames are not compressed: {first:02X}");
    assert_eq!(second & 0x80, 0, "a server must not mask: {second:02X}");
    let (bits, start, len) = match second {
        126 => (16, 4, u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()).into()),
        127 => (64, 10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())),
        short => (7, 2, short.into()),
    };
    assert_eq!(bits, length_bits(len), "{len} in its shortest form");
    let end = start + len as usize;
    let payload = bytes.get(start..end)?.to_vec();
    Some((first & 0x40 != 0, Received { opcode: first & 0x0F, payload }, end))
}

/// Whether an operation ended because its time was up.
pub(crate) fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Parses `{"name":"string"|number, ...}`, strictly.
fn flat_object(text: &str) -> Option<HashMap<String, String>> {
    let mut rest = text.trim().strip_prefix('{')?;
    let mut members = HashMap::new();
    loop {
        let (name, tail) = json_string(rest.trim_start())?;
        let tail = tail.trim_start().strip_prefix(':')?.trim_start();
        let (value, tail) = json_string(tail).or_else(|| {
            let end = tail.find(|c: char| !c.is_ascii_digit()).filter(|&end| end > 0)?;
            Some((tail[..end].to_owned(), &tail[end..]))
        })?;
        if members.insert(name, value).is_some() {
            return None;
        }
        let tail = tail.trim_start();
        match tail.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (tail == "}").then_some(members),
        }
    }
}

/// A JSON string and what stands behind it.
fn json_string(text: &str) -> Option<(String, &str)> {
    let (mut string, mut chars) = (String::new(), text.strip_prefix('"')?.chars());
    loop {
        string.push(match chars.next()? {
            '"' => return Some((string, chars.as_str())),
            '\\' => match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let code = u32::from_str_radix(chars.as_str().get(..4)?, 16).ok()?;
                    chars = chars.as_str()[4..].chars();
                    char::from_u32(code)?
                }
                plain @ ('"' | '\\' | '/') => plain,
                _ => return None,
            },
            control if control < ' ' => return None,
            plain => plain,
        });
    }
}
