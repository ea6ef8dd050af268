//! The bytes that cross the wire. All of them are fixed, so that neither side spends time on them.

use std::net::SocketAddrV4;

/// The nonce and its answer from RFC 6455, section 1.3. Every client sends the same one: servers
/// hash it like any other, and the floor needs no SHA-1.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Payload of the frame that the floor answers and sweeps with.
pub(crate) const PAYLOAD_BYTES: usize = 64;
/// With a two-byte header: RFC 6455, section 5.2.
pub(crate) const FRAME_BYTES: usize = 2 + PAYLOAD_BYTES;

pub(crate) const FRAME: [u8; FRAME_BYTES] = {
    let mut frame = [b'x'; FRAME_BYTES];
    frame[0] = FIN_TEXT;
    frame[1] = PAYLOAD_BYTES as u8;
    frame
};

const FIN_TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
const MASKING_KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The upgrade request, with the fields and about the size of a browser's.
pub(crate) fn request(target: SocketAddrV4, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\n\
         Host: {target}\r\n\
         Connection: Upgrade\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
         Chrome/140.0.0.0 Safari/537.36\r\n\
         Upgrade: websocket\r\n\
         Origin: http://{target}\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    .into_bytes()
}

/// A publication of what [`FRAME`] carries.
pub(crate) fn post(target: SocketAddrV4, path: &str) -> Vec<u8> {
    let payload = "x".repeat(PAYLOAD_BYTES);
    format!("POST {path} HTTP/1.1\r\nHost: {target}\r\nContent-Type: text/plain\r\nContent-Length: {PAYLOAD_BYTES}\r\n\r\n{payload}")
        .into_bytes()
}

/// Bytes that the response head takes: 0 while it is incomplete, an error unless it is the 101 to
/// our nonce (RFC 6455, section 4.1).
pub(crate) fn response_head(bytes: &[u8]) -> Result<usize, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(0);
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    if head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT) {
        Ok(end + 4)
    } else {
        Err(format!("the upgrade was answered with:\n{head}"))
    }
}

/// What a client sends (masked) and what it wants back (not masked), `size` bytes of payload each.
pub(crate) fn frames(size: u16) -> (Vec<u8>, Vec<u8>) {
    let payload = vec![b'x'; usize::from(size)];
    let header = |mask_bit: u8| match size {
        0..=125 => vec![FIN_TEXT, mask_bit | size as u8],
        126.. => [&[FIN_TEXT, mask_bit | 126][..], &size.to_be_bytes()].concat(),
    };
    let masked = payload.iter().zip(MASKING_KEY.iter().cycle()).map(|(byte, key)| byte ^ key);
    let message = [header(MASKED), MASKING_KEY.to_vec(), masked.collect()].concat();
    (message, [header(0), payload].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_answers_what_the_client_wants() {
        let (message, answer) = frames(PAYLOAD_BYTES as u16);
        assert_eq!((message.len(), answer.len()), (70, 66));
        assert_eq!(answer, FRAME);
        assert_eq!(response_head(SWITCHING), Ok(SWITCHING.len()));
    }

    #[test]
    fn a_response_head_is_awaited_whole_and_refused_unless_it_is_ours() {
        assert_eq!(response_head(&SWITCHING[..SWITCHING.len() - 1]), Ok(0));
        assert!(response_head(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").is_err());
        assert!(response_head(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").is_err());
    }

    #[test]
    fn lengths_are_minimal() {
        assert_eq!(frames(125).1[..2], [0x81, 125]);
        assert_eq!(frames(126).1[..4], [0x81, 126, 0, 126]);
        assert_eq!(frames(126).0[..4], [0x81, 0x80 | 126, 0, 126]);
    }
}
