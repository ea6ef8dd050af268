//! Request bodies (RFC 9112, sections 6 and 7): where one ends, and its bytes as they come piece by piece.

use super::response::token_is_valid;
use crate::error::Refused;
use std::fmt;

/// Bytes of chunk extensions on one line, the first `;` included.
const EXTENSION_LINE_BYTES_MAX: usize = 1024;
/// Bytes of chunk extensions in one body: chunks of one byte must not carry a thousand times their size past
/// the limit on bodies.
const EXTENSIONS_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the trailer section, line ends included.
const TRAILERS_BYTES_MAX: usize = 8 * 1024;
/// Hex digits of a chunk's size: what a u64 holds.
const SIZE_DIGITS_MAX: u8 = 16;

/// How the end of a request's body is found (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body: neither field is there (section 6.3, item 7).
    None,
    /// As many bytes as Content-Length says (section 6.2).
    Length(u64),
    /// Chunks (section 7.1).
    Chunked,
}

/// Why the end of a body cannot be told. After any of these the connection must be closed, since what follows
/// the head may be anything (section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramingError {
    /// Both fields are there, which is how requests are smuggled past proxies (section 6.3, item 3).
    LengthAndEncoding,
    /// Content-Length comes twice, or is a list, be its members equal or not (section 6.3, item 5).
    LengthRepeated,
    /// Content-Length is not digits alone, or is beyond 2^64 - 1 (section 6.2).
    LengthInvalid,
    /// A transfer coding other than `chunked`, or one on top of another (section 6.1).
    NotImplemented,
    /// HTTP/1.0 has no Transfer-Encoding: whoever sent it may have been fooled (section 6.1).
    EncodingInHttp10,
}

impl Framing {
    /// Tells from the header fields of a request, their values without surrounding white space.
    pub(crate) fn of<'a>(
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        http_1_0: bool,
    ) -> Result<Self, FramingError> {
        let (mut length, mut encoding) = (None, None);
        let (mut lengths, mut encodings) = (0_usize, 0_usize);
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("Content-Length") {
                length = Some(value);
                lengths += 1;
            } else if name.eq_ignore_ascii_case("Transfer-Encoding") {
                encoding = Some(value);
                encodings += 1;
            }
        }
        match (length, encoding) {
            (None, None) => Ok(Self::None),
            (_, Some(_)) if http_1_0 => Err(FramingError::EncodingInHttp10),
            (Some(_), Some(_)) => Err(FramingError::LengthAndEncoding),
            // Names of codings are case-insensitive (section 7); no body is chunked twice (section 6.1).
            (None, Some(coding)) if encodings == 1 && coding.eq_ignore_ascii_case(b"chunked") => Ok(Self::Chunked),
            (None, Some(_)) => Err(FramingError::NotImplemented),
            (Some(length), None) if lengths > 1 || length.contains(&b',') => Err(FramingError::LengthRepeated),
            (Some(length), None) => decimal(length).map(Self::Length).ok_or(FramingError::LengthInvalid),
        }
    }
}

/// Digits alone, as RFC 9110, section 8.6 has it: `parse` would let a sign pass.
fn decimal(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl From<FramingError> for Refused {
    fn from(error: FramingError) -> Self {
        match error {
            FramingError::NotImplemented | FramingError::EncodingInHttp10 => Self::TransferCoding,
            FramingError::LengthAndEncoding | FramingError::LengthRepeated | FramingError::LengthInvalid => {
                Self::BadLength
            }
        }
    }
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LengthAndEncoding => "send either Content-Length or Transfer-Encoding, not both",
            Self::LengthRepeated => "send Content-Length once, with one value",
            Self::LengthInvalid => "Content-Length must be decimal digits alone, below 2^64",
            Self::NotImplemented => "the only transfer coding here is chunked: send Transfer-Encoding: chunked, once",
            Self::EncodingInHttp10 => "HTTP/1.0 has no Transfer-Encoding: send Content-Length, or use HTTP/1.1",
        })
    }
}

impl std::error::Error for FramingError {}

/// Why a body is refused. After any of these the connection must be closed: where the next request starts is
/// not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// More than the limit, found before the excess is read (RFC 9110, section 15.5.14).
    TooLarge,
    /// Not the chunked coding (section 7.1): what to do instead.
    BadChunk(&'static str),
    /// More than 1 KiB of chunk extensions on a line, or 64 KiB in all (section 7.1.1 asks for a limit).
    ExtensionsTooLarge,
    /// More than 8 KiB of trailers (section 7.1.2).
    TrailersTooLarge,
}

impl From<BodyError> for Refused {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::BodyTooLarge,
            BodyError::BadChunk(_) | BodyError::ExtensionsTooLarge => Self::BadChunk,
            BodyError::TrailersTooLarge => Self::HeadTooLarge,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the body is larger than the limit: send less"),
            Self::BadChunk(what) => write!(f, "the chunked body is malformed: {what}"),
            Self::ExtensionsTooLarge => f.write_str("send no chunk extensions, or shorter ones"),
            Self::TrailersTooLarge => f.write_str("send no trailers, or shorter ones: they are ignored"),
        }
    }
}

impl std::error::Error for BodyError {}

/// What became of some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fed {
    /// Bytes of the input that belong to the body; what follows them is the next request's.
    pub(crate) consumed: usize,
    /// Whether the body is whole.
    pub(crate) done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a body of announced length, which ends when `left` is 0.
    Length { left: usize },
    /// In the digits of a chunk's size.
    Size { size: u64, digits: u8 },
    /// White space behind the size: only an extension may follow it.
    Space { size: u64, line_bytes: usize },
    /// In a chunk's extensions.
    Extension { size: u64, line_bytes: usize },
    /// Before the LF that ends a size line.
    SizeLf { size: u64 },
    /// In a chunk's data; never with 0 left.
    Data { left: usize },
    /// Behind a chunk's data, before CR.
    DataCr,
    /// Behind a chunk's data, before LF.
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    /// In the name of a trailer.
    TrailerName,
    /// In the value of a trailer.
    TrailerValue,
    /// Before the LF that ends a trailer.
    TrailerLf,
    /// Before the last LF.
    EndLf,
    /// The body is whole.
    Done,
    /// It never will be.
    Failed(BodyError),
}

/// Collects a request's body from bytes that arrive piece by piece. What it holds grows with what has arrived,
/// never with what is announced.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    state: State,
    bytes: Vec<u8>,
    /// Bytes of chunks that have not been announced yet and still may be.
    /// Invariant: taken + held + left in this chunk + room <= max.
    room: usize,
    /// Bytes of chunk extensions so far.
    extension_bytes: usize,
    /// Bytes of the trailer section so far.
    trailer_bytes: usize,
}

impl Body {
    /// A body of at most `max` bytes. One that is announced larger fails here, before it is read, so that no
    /// `100 Continue` asks for it (RFC 9110, section 10.1.1).
    pub(crate) fn new(framing: Framing, max: usize) -> Result<Self, BodyError> {
        let (state, room) = match framing {
            Framing::None | Framing::Length(0) => (State::Done, 0),
            Framing::Length(length) => match usize::try_from(length) {
                Ok(left) if left <= max => (State::Length { left }, 0),
                _ => return Err(BodyError::TooLarge),
            },
            Framing::Chunked => (State::Size { size: 0, digits: 0 }, max),
        };
        Ok(Self { state, bytes: Vec::new(), room, extension_bytes: 0, trailer_bytes: 0 })
    }

    /// Bytes of memory behind it.
    pub(crate) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether the body is whole: so from the start if it is empty.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Goes on with what came next. An error is final: it comes again with all further input.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Result<Fed, BodyError> {
        let mut rest = input;
        loop {
            match self.state {
                State::Failed(error) => return Err(error),
                State::Done => break,
                State::Length { left } => {
                    let left = self.collect(&mut rest, left);
                    self.state = if left == 0 { State::Done } else { State::Length { left } };
                }
                State::Data { left } => {
                    let left = self.collect(&mut rest, left);
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                }
                _ => {
                    let Some((&byte, behind)) = rest.split_first() else { break };
                    rest = behind;
                    self.state = self.step(byte).unwrap_or_else(State::Failed);
                    continue;
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        Ok(Fed { consumed: input.len() - rest.len(), done: self.is_done() })
    }

    /// The bytes collected so far, which are all of them once it is done. It goes on without them; the limit
    /// counts them still.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Moves up to `left` bytes from the input into the body: how many are left then.
    fn collect(&mut self, rest: &mut &[u8], left: usize) -> usize {
        let (piece, behind) = rest.split_at(left.min(rest.len()));
        *rest = behind;
        let (held, capacity) = (self.bytes.len(), self.bytes.capacity());
        let needed = held + piece.len();
        if needed > capacity {
            // Doubled, as Vec does, but never beyond what can still come.
            let most = held + left + self.room;
            self.bytes.reserve_exact(needed.max(most.min(2 * capacity)) - held);
        }
        self.bytes.extend_from_slice(piece);
        left - piece.len()
    }

    /// One byte of what is around the chunks (sections 7.1 to 7.1.2): the state behind it.
    fn step(&mut self, byte: u8) -> Result<State, BodyError> {
        if matches!(self.state, State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf) {
            self.trailer_bytes += 1;
            if self.trailer_bytes > TRAILERS_BYTES_MAX {
                return Err(BodyError::TrailersTooLarge);
            }
        }
        Ok(match (self.state, byte) {
            (State::Size { size, digits }, _) => return self.step_size(size, digits, byte),
            (State::Space { size, line_bytes }, b' ' | b'\t') => self.extension(size, line_bytes, false)?,
            (State::Space { size, line_bytes }, b';') => self.extension(size, line_bytes, true)?,
            (State::Space { .. }, _) => return Err(bad("only an extension may follow white space behind a size")),
            (State::Extension { size, .. }, b'\r') => State::SizeLf { size },
            (State::Extension { size, line_bytes }, _) if is_text(byte) => self.extension(size, line_bytes, true)?,
            (State::Extension { .. }, _) => return Err(bad("end the line of a chunk's size with CR LF")),
            (State::SizeLf { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { size }, b'\n') => match usize::try_from(size) {
                Ok(left) if left <= self.room => {
                    self.room -= left;
                    State::Data { left }
                }
                _ => return Err(BodyError::TooLarge),
            },
            (State::SizeLf { .. }, _) => return Err(bad("end the line of a chunk's size with CR LF")),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::DataCr | State::DataLf, _) => return Err(bad("a chunk has its size in bytes, then CR LF")),
            (State::TrailerStart, b'\r') => State::EndLf,
            // A field line (section 5): a request that comes instead of the last empty line is not swallowed.
            (State::TrailerStart | State::TrailerName, _) if token_is_valid(&[byte]) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerStart, _) => return Err(bad("end the body with an empty line, CR LF")),
            (State::TrailerName, _) => return Err(bad("end the body with an empty line; a trailer is NAME: VALUE")),
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_text(byte) => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::TrailerValue | State::TrailerLf, _) => return Err(bad("end a trailer with CR LF")),
            (State::EndLf, b'\n') => State::Done,
            (State::EndLf, _) => return Err(bad("end the body with an empty line, CR LF")),
            // `feed` keeps these to itself.
            (state @ (State::Length { .. } | State::Data { .. } | State::Done | State::Failed(_)), _) => state,
        })
    }

    /// One byte of a size line, up to the size's end.
    fn step_size(&mut self, size: u64, digits: u8, byte: u8) -> Result<State, BodyError> {
        match (char::from(byte).to_digit(16), byte) {
            (Some(_), _) if digits == SIZE_DIGITS_MAX => Err(bad("a chunk's size has at most 16 hex digits")),
            // 16 digits fit, so nothing is shifted out.
            (Some(digit), _) => Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }),
            (None, _) if digits == 0 => Err(bad("a chunk starts with its size in hex digits")),
            (None, b'\r') => Ok(State::SizeLf { size }),
            (None, b';') => self.extension(size, 0, true),
            // Bad white space (section 7.1.1), at which some parsers stop.
            (None, b' ' | b'\t') => self.extension(size, 0, false),
            (None, b'\n') => Err(bad("end the line of a chunk's size with CR LF")),
            (None, _) => Err(bad("a chunk's size is hex digits alone")),
        }
    }

    /// Counts a byte of an extension, or of the white space before one.
    fn extension(&mut self, size: u64, line_bytes: usize, begun: bool) -> Result<State, BodyError> {
        self.extension_bytes += 1;
        let line_bytes = line_bytes + 1;
        if line_bytes > EXTENSION_LINE_BYTES_MAX || self.extension_bytes > EXTENSIONS_BYTES_MAX {
            return Err(BodyError::ExtensionsTooLarge);
        }
        Ok(if begun { State::Extension { size, line_bytes } } else { State::Space { size, line_bytes } })
    }
}

fn bad(what: &'static str) -> BodyError {
    BodyError::BadChunk(what)
}

/// What a field value may hold (RFC 9110, section 5.5), and what is let pass in a chunk extension.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(&'a str, &'a str)];
    type Outcome = Result<(Vec<u8>, usize, bool), BodyError>;

    /// Feeds the pieces until the body is done: the body, the bytes it took, whether it is done.
    fn fed<'a>(framing: Framing, max: usize, pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
        let mut body = Body::new(framing, max)?;
        let mut total = 0;
        for piece in pieces {
            let result = body.feed(piece);
            assert!(body.bytes.capacity() <= max + 64, "{} bytes for at most {max}", body.bytes.capacity());
            let Fed { consumed, done } = result.inspect_err(|&error| assert_eq!(body.feed(b"x"), Err(error)))?;
            assert!(consumed == piece.len() || done);
            total += consumed;
            if done {
                assert_eq!(body.feed(b"next"), Ok(Fed { consumed: 0, done: true }));
                break;
            }
        }
        let done = body.is_done();
        Ok((body.take(), total, done))
    }

    /// Whole, byte by byte and in any two pieces.
    fn outcome(framing: Framing, max: usize, input: &[u8]) -> Outcome {
        let whole = fed(framing, max, [input].into_iter());
        assert_eq!(whole, fed(framing, max, input.chunks(1)), "{:?}", String::from_utf8_lossy(input));
        for at in 0..=input.len().min(3000) {
            let (head, tail) = input.split_at(at);
            assert_eq!(whole, fed(framing, max, [head, tail].into_iter()), "{:?}", String::from_utf8_lossy(input));
        }
        whole
    }

    fn chunked(input: &str) -> Outcome {
        outcome(Framing::Chunked, 64, input.as_bytes())
    }

    #[test]
    fn framing_is_told_by_two_fields() {
        use FramingError::*;
        let (length, encoding) = ("Content-Length", "Transfer-Encoding");
        let cases: &[(Headers<'_>, Result<Framing, FramingError>)] = &[
            (&[], Ok(Framing::None)),
            (&[("Host", "a"), ("X-Content-Length", "7")], Ok(Framing::None)),
            (&[(length, "0")], Ok(Framing::Length(0))),
            (&[("content-LENGTH", "007")], Ok(Framing::Length(7))),
            (&[(length, "18446744073709551615")], Ok(Framing::Length(u64::MAX))),
            (&[(length, "18446744073709551616")], Err(LengthInvalid)),
            (&[(length, "")], Err(LengthInvalid)),
            (&[(length, "+7")], Err(LengthInvalid)),
            (&[(length, "-7")], Err(LengthInvalid)),
            (&[(length, "0x7")], Err(LengthInvalid)),
            (&[(length, "7 ")], Err(LengthInvalid)),
            (&[(length, "7\u{b}")], Err(LengthInvalid)),
            (&[(length, "7٣")], Err(LengthInvalid)),
            (&[(length, "7"), (length, "8")], Err(LengthRepeated)),
            (&[(length, "7"), (length, "7")], Err(LengthRepeated)),
            (&[(length, "7, 7")], Err(LengthRepeated)),
            (&[(length, "7,8")], Err(LengthRepeated)),
            (&[(encoding, "chunked")], Ok(Framing::Chunked)),
            (&[(encoding, "Chunked")], Ok(Framing::Chunked)),
            (&[(encoding, "")], Err(NotImplemented)),
            (&[(encoding, "gzip")], Err(NotImplemented)),
            (&[(encoding, "identity")], Err(NotImplemented)),
            (&[(encoding, "gzip, chunked")], Err(NotImplemented)),
            (&[(encoding, "chunked, chunked")], Err(NotImplemented)),
            (&[(encoding, "chunked;a=b")], Err(NotImplemented)),
            (&[(encoding, "\u{b}chunked")], Err(NotImplemented)),
            (&[(encoding, "chunked"), (encoding, "chunked")], Err(NotImplemented)),
            (&[(encoding, "chunked"), (encoding, "identity")], Err(NotImplemented)),
            (&[(encoding, "chunked"), (length, "7")], Err(LengthAndEncoding)),
            (&[(length, "x"), (encoding, "gzip")], Err(LengthAndEncoding)),
        ];
        for (headers, expected) in cases {
            let of = |http_1_0| Framing::of(headers.iter().map(|(name, value)| (*name, value.as_bytes())), http_1_0);
            assert_eq!(of(false), *expected, "{headers:?}");
            let encoded = headers.iter().any(|(name, _)| *name == encoding);
            assert_eq!(of(true), if encoded { Err(EncodingInHttp10) } else { *expected }, "{headers:?}");
        }
        assert_eq!((Refused::from(NotImplemented).code(), Refused::from(LengthInvalid).code()), (501, 400));
    }

    #[test]
    fn a_body_of_known_length_ends_there() {
        assert_eq!(outcome(Framing::None, 9, b"next"), Ok((vec![], 0, true)));
        assert_eq!(outcome(Framing::Length(0), 0, b"next"), Ok((vec![], 0, true)));
        assert_eq!(outcome(Framing::Length(5), 5, b"hellonext"), Ok((b"hello".to_vec(), 5, true)));
        assert_eq!(outcome(Framing::Length(5), 5, b"hell"), Ok((b"hell".to_vec(), 4, false)));
    }

    #[test]
    fn too_much_fails_before_it_is_read() {
        assert_eq!(Body::new(Framing::Length(6), 5).err(), Some(BodyError::TooLarge));
        assert_eq!(Body::new(Framing::Length(u64::MAX), 5).err(), Some(BodyError::TooLarge));
        assert_eq!(outcome(Framing::Chunked, 5, b"6\r\n"), Err(BodyError::TooLarge));
        assert_eq!(outcome(Framing::Chunked, 5, b"3\r\nabc\r\n3\r\n"), Err(BodyError::TooLarge));
        assert_eq!(outcome(Framing::Chunked, 5, b"ffffffffffffffff\r\n"), Err(BodyError::TooLarge));
        assert_eq!(outcome(Framing::Chunked, 0, b"1\r\n"), Err(BodyError::TooLarge));
        let exact = outcome(Framing::Chunked, 5, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        assert_eq!(exact, Ok((b"abcde".to_vec(), 20, true)));
    }

    #[test]
    fn what_was_taken_counts_still() {
        let mut body = Body::new(Framing::Chunked, 5).expect("nothing is announced");
        assert!(body.feed(b"3\r\nabc\r\n").is_ok());
        assert_eq!(body.take(), b"abc");
        assert_eq!(body.feed(b"3\r\n"), Err(BodyError::TooLarge));
    }

    #[test]
    fn an_announcement_takes_no_memory() {
        let mut body = Body::new(Framing::Length(1 << 30), 1 << 30).expect("within the limit");
        assert!(body.feed(b"a").is_ok() && body.bytes.capacity() < 64);
        let mut body = Body::new(Framing::Chunked, 1 << 30).expect("nothing is announced");
        assert!(body.feed(b"40000000\r\na").is_ok() && body.bytes.capacity() < 64);
    }

    #[test]
    fn chunks_are_joined() {
        for (input, expected) in [
            ("0\r\n\r\n", ""),
            ("000\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
            ("1\r\na\r\nA\r\n0123456789\r\na\r\n\r\n0\r\n\r\n0\r\n\r\n0\r\n\r\n", "a0123456789\r\n0\r\n\r\n0\r\n"),
            ("2;a\r\nab\r\n1 ; b=\"c;d\"\r\nc\r\n0\t;e=f;g\r\n\r\n", "abc"),
            ("1\r\n\n\r\n0\r\nDigest: x\r\nY:\r\nZ: \t\u{e4}\r\n\r\n", "\n"),
        ] {
            assert_eq!(chunked(input), Ok((expected.into(), input.len(), true)), "{input:?}");
            assert_eq!(chunked(&format!("{input}next")), Ok((expected.into(), input.len(), true)), "{input:?}");
            let (short, _) = input.split_at(input.len() - 1);
            assert_eq!(chunked(short), Ok((expected.into(), short.len(), false)), "{input:?}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for input in [
            "\r\n",
            "\n",
            " 5\r\nhello\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x5\r\nhello\r\n",
            ";a\r\n",
            "5\nhello\r\n",
            "5\rhello\r\n",
            "5 \r\nhello\r\n",
            "5\u{b}\r\nhello\r\n",
            "5,5\r\n",
            "5;a\nhello\r\n",
            "5;a\rb\r\nhello\r\n",
            "5;a\0\r\nhello\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\r0\r\n\r\n",
            "5\r\nhello!\r\n0\r\n\r\n",
            "5\r\nhell\r\n0\r\n\r\n",
            "00000000000000005\r\nhello\r\n",
            "10000000000000000\r\n",
            "0\n\r\n",
            "0\r\n\n",
            "0\r\n\r\r\n",
            "0\r\na: b\n\r\n",
            "0\r\na: b\rc\r\n\r\n",
            "0\r\na: \0\r\n\r\n",
            "0\r\na: b\r\n c\r\n\r\n",
            "0\r\na : b\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\na\r\n\r\n",
            "0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(matches!(chunked(input), Err(BodyError::BadChunk(_))), "{input:?}: {:?}", chunked(input));
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        for (extra, fits) in [(0, true), (1, false)] {
            let line = format!("0;{}\r\n\r\n", "a".repeat(EXTENSION_LINE_BYTES_MAX - 1 + extra));
            let expected = if fits { Ok((vec![], line.len(), true)) } else { Err(BodyError::ExtensionsTooLarge) };
            assert_eq!(chunked(&line), expected);
            let blank = format!("0{}\r\n\r\n", " ".repeat(EXTENSION_LINE_BYTES_MAX + extra));
            assert_eq!(matches!(chunked(&blank), Err(BodyError::BadChunk(_))), fits);
            // The CR that starts the last line counts too.
            let trailers = format!("0\r\na:{}\r\n\r\n", "b".repeat(TRAILERS_BYTES_MAX - 5 + extra));
            let expected = if fits { Ok((vec![], trailers.len(), true)) } else { Err(BodyError::TrailersTooLarge) };
            assert_eq!(chunked(&trailers), expected);
        }
        let chunk = format!("1;{}\r\na\r\n", "a".repeat(EXTENSION_LINE_BYTES_MAX - 1));
        let lines = EXTENSIONS_BYTES_MAX / EXTENSION_LINE_BYTES_MAX;
        let fits = format!("{}0\r\n\r\n", chunk.repeat(lines));
        let one_more = format!("{}0;\r\n\r\n", chunk.repeat(lines));
        assert!(fed(Framing::Chunked, lines, [fits.as_bytes()].into_iter()).is_ok());
        let refused = fed(Framing::Chunked, lines, [one_more.as_bytes()].into_iter());
        assert_eq!(refused, Err(BodyError::ExtensionsTooLarge));
        let endless = "0\r\n".to_owned() + &"a: b\r\n".repeat(2000);
        let refused = fed(Framing::Chunked, 9, endless.as_bytes().chunks(7));
        assert_eq!(refused, Err(BodyError::TrailersTooLarge));
    }

    /// xorshift64* of Marsaglia and Vigna: a seed replays a run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
        }

        fn pieces<'a>(&mut self, mut input: &'a [u8]) -> Vec<&'a [u8]> {
            let mut pieces = Vec::new();
            while !input.is_empty() {
                let (piece, rest) = input.split_at(self.below(input.len().min(40) + 1));
                pieces.push(piece);
                input = rest;
            }
            pieces
        }

        /// A chunked body: its bytes and their encoding.
        fn encoded(&mut self) -> (Vec<u8>, Vec<u8>) {
            let (mut plain, mut wire) = (Vec::new(), Vec::new());
            for _ in 0..self.below(6) {
                let data: Vec<u8> = (0..=self.below(50)).map(|_| b"\r\n0;a:\xff"[self.below(7)]).collect();
                let extension = ["", ";a", " ;b=\"c\"", ";;"][self.below(4)];
                wire.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
                wire.extend_from_slice(&data);
                wire.extend_from_slice(b"\r\n");
                plain.extend_from_slice(&data);
            }
            wire.extend_from_slice(
                ["0\r\n\r\n", "00;a\r\nb: c\r\n\r\n", "0\r\nb:\r\nc:d\r\n\r\n"][self.below(3)].as_bytes(),
            );
            (plain, wire)
        }
    }

    #[test]
    fn random_bodies_in_random_pieces_come_out_whole_and_damage_is_survived() {
        for seed in 1..=20_000 {
            let mut random = Random(seed);
            let (plain, mut wire) = random.encoded();
            let max = plain.len() + random.below(2) * 100;
            let pieces = random.pieces(&wire);
            let good = fed(Framing::Chunked, max, pieces.into_iter());
            assert_eq!(good, Ok((plain, wire.len(), true)), "seed {seed}");

            for _ in 0..=random.below(4) {
                let at = random.below(wire.len());
                match random.below(3) {
                    0 => wire[at] = b"\r\n0f;: \0"[random.below(8)],
                    1 => drop(wire.remove(at)),
                    _ => wire.insert(at, b"\r\n0f;: \xff"[random.below(8)]),
                }
                if wire.is_empty() {
                    break;
                }
            }
            let max = random.below(200);
            for framing in [Framing::Chunked, Framing::Length(random.below(200) as u64)] {
                let pieces = random.pieces(&wire);
                let whole = fed(framing, max, [&wire[..]].into_iter());
                assert_eq!(whole, fed(framing, max, pieces.into_iter()), "seed {seed}");
            }
        }
    }
}
