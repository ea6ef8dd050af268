//! The body of an answer (RFC 9112, section 6.3), as it comes.

use crate::http::{Body, Framing};
use std::fmt;

/// Far more than comes, and far from overflowing.
const BYTES_MAX: usize = usize::MAX / 4;

/// Hands out a body's bytes piece by piece, and says when it is over.
#[derive(Debug)]
pub struct BodyReader {
    /// `None`: it ends with the connection (section 6.3, item 8).
    framed: Option<Body>,
}

/// The end of the body cannot be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyFault(String);

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BodyFault {}

impl BodyReader {
    /// Of an answer to anything but a HEAD request.
    ///
    /// # Errors
    ///
    /// Where it ends is said twice, or in no way that is known.
    pub fn new<'a>(status: u16, fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Self, BodyFault> {
        if matches!(status, 100..=199 | 204 | 304) {
            return Ok(Self::of(Framing::Length(0)));
        }
        match Framing::of(fields, false)
            .map_err(|_| BodyFault("the answer says in no clear way where it ends".to_owned()))?
        {
            Framing::None => Ok(Self { framed: None }),
            framing => Ok(Self::of(framing)),
        }
    }

    fn of(framing: Framing) -> Self {
        // What is announced larger than that never comes to its end.
        Self { framed: Body::new(framing, BYTES_MAX).ok() }
    }

    /// Takes what came next: what of it belongs to the body.
    ///
    /// # Errors
    ///
    /// The chunks are malformed.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, BodyFault> {
        let Some(body) = &mut self.framed else { return Ok(bytes.to_vec()) };
        body.feed(bytes).map_err(|error| BodyFault(error.to_string()))?;
        Ok(body.take())
    }

    /// Whether it is whole.
    pub fn is_done(&self) -> bool {
        self.framed.as_ref().is_some_and(Body::is_done)
    }

    /// Whether the end of the connection is its end.
    pub fn ends_with_connection(&self) -> bool {
        self.framed.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(status: u16, fields: &[(&'static str, &'static str)]) -> BodyReader {
        BodyReader::new(status, fields.iter().map(|&(name, value)| (name, value.as_bytes()))).unwrap()
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        let mut length = reader(200, &[("Content-Length", "5")]);
        assert_eq!(length.push(b"he").unwrap(), b"he");
        assert!(!length.is_done());
        assert_eq!(length.push(b"llo, and more").unwrap(), b"llo");
        assert!(length.is_done());

        let mut chunks = reader(200, &[("transfer-encoding", "Chunked")]);
        let text = b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n";
        let said: Vec<u8> = text.iter().flat_map(|byte| chunks.push(&[*byte]).unwrap()).collect();
        assert_eq!((&*said, chunks.is_done()), (&b"hello"[..], true));

        let mut open = reader(200, &[]);
        assert_eq!(open.push(b"hello").unwrap(), b"hello");
        assert!(!open.is_done() && open.ends_with_connection());
        assert!(reader(204, &[]).is_done() && reader(304, &[("Content-Length", "5")]).is_done());
    }

    #[test]
    fn bad_framing_is_said() {
        let fields = [("Content-Length", &b"1"[..]), ("Transfer-Encoding", b"chunked")];
        assert!(BodyReader::new(200, fields.into_iter()).is_err());
        let mut chunks = reader(200, &[("Transfer-Encoding", "chunked")]);
        assert!(chunks.push(b"xyz\r\n").unwrap_err().to_string().contains("chunked body"));
    }
}
