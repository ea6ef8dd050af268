//! The handshake's key and its answer (RFC 6455, section 4.2.2, item 5.4).

use base64::engine::{Engine, general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// A Sec-WebSocket-Key is 16 bytes, 24 characters of base64.
pub const KEY_BYTES: usize = 24;

/// What makes the answer one that only a WebSocket server gives (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether a client's key is what section 4.1, item 7 asks for: 16 bytes in base64, with its padding.
pub fn key_is_valid(key: &[u8]) -> bool {
    let mut bytes = [0_u8; 18]; // what 24 characters decode to at most
    key.len() == KEY_BYTES && STANDARD.decode_slice(key, &mut bytes) == Ok(16)
}

/// A client's key of 16 bytes, which should be random, anew for each connection (section 4.1, item 7).
///
/// ```
/// assert_eq!(&throng::ws::client_key(*b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
/// ```
pub fn client_key(nonce: [u8; 16]) -> [u8; KEY_BYTES] {
    let mut key = [0_u8; KEY_BYTES];
    let written = STANDARD.encode_slice(nonce, &mut key);
    debug_assert_eq!(written, Ok(KEY_BYTES), "16 bytes are 24 characters of base64");
    key
}

/// The value of Sec-WebSocket-Accept for a client's key.
///
/// ```
/// assert_eq!(&throng::ws::accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
pub fn accept_value(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut value = [0_u8; 28];
    let written = STANDARD.encode_slice(digest, &mut value);
    debug_assert_eq!(written, Ok(28), "20 bytes are 28 characters of base64");
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sixteen_bytes_of_canonical_base64_are_a_key() {
        assert!(key_is_valid(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for bad in [
            &b""[..],
            b"dGhlIHNhbXBsZSBub25jZQ=",     // padding cut
            b"dGhlIHNhbXBsZSBub25jZQ",      // no padding
            b"dGhlIHNhbXBsZSBub25jZQ==A",   // too long
            b"dGhlIHNhbXBsZSBub25jZR==",    // bits beyond the 16 bytes
            b"dGhlIHNhbXBsZSBub25jZQ\xff=", // not base64
            b"dGhlIHNhbXBsZSBub25jZTE=",    // 17 bytes
            b"dGhlIHNhbXBsZSBub25jZTEy",    // 18 bytes
            b"dGhlIHNhbXBs ZSBub25jZQ=",    // a space
        ] {
            assert!(!key_is_valid(bad), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
