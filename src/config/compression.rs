//! What a server compresses.

use super::ConfigError;

/// Smallest and largest windows of zlib's raw format, log2 of their bytes. The 8 that RFC 7692 has too is in no library.
pub(crate) const WINDOW_BITS: (u8, u8) = (9, 15);

/// How a server compresses messages (permessage-deflate, RFC 7692), for clients that offer to: all browsers do. Off by default:
/// it takes CPU time on both sides, and lets who can have a secret and a text of its own put into one message guess at
/// the secret from the message's length.
///
/// A message stands for itself (`no_context_takeover` on both sides), so that a connection costs no memory, and what is
/// published is compressed once for all who get it in the same form. A worker has its own two compressors and inflater,
/// 0.7 MB in all.
///
/// ```
/// use throng::{Compression, Server};
///
/// let server = Server::new().compression(Compression::default().message_bytes_min(512));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compression {
    /// See [`level`](Self::level()).
    pub level: u8,
    /// See [`message_bytes_min`](Self::message_bytes_min()).
    pub message_bytes_min: usize,
    /// See [`context`](Self::context()).
    pub context: Option<u8>,
}

impl Default for Compression {
    fn default() -> Self {
        Self { level: 2, message_bytes_min: 256, context: None }
    }
}

impl Compression {
    /// From 1, the fastest, to 9, which makes the shortest messages. Default: 2. Of 1 KB of JSON it makes 280 bytes in 11 us;
    /// level 1 has one fixed code for all texts, and makes 380 in 5.
    pub fn level(mut self, level: u8) -> Self {
        self.level = level;
        self
    }

    /// Shorter messages are sent as they are, in bytes. Default: 256: a message takes a packet however short it is.
    pub fn message_bytes_min(mut self, bytes: usize) -> Self {
        self.message_bytes_min = bytes;
        self
    }

    /// Lets a connection's messages refer to those before them, within windows of so many bits (9 to 15: 512 bytes to
    /// 32 KiB). What is sent to one client, again and again much the same, gets shorter; what is published to a topic is
    /// compressed once for all as before, and its subscribers' own messages do not refer to what was before it. Default: off. It costs each connection the memory of two streams, whether or
    /// not anything is sent: [`context_bytes`](Self::context_bytes), counted in the metric
    /// `throng_compression_context_bytes`.
    pub fn context(mut self, window_bits: u8) -> Self {
        self.context = Some(window_bits);
        self
    }

    /// What a connection's two streams take in bytes, at a window of so many bits: 0.3 to 0.43 MB. What zlib-rs asks the
    /// allocator for.
    pub const fn context_bytes(window_bits: u8) -> usize {
        Self::compressor_bytes(window_bits) + Self::INFLATER_BYTES
    }

    /// The window and the hash chains, of two bytes for each of the window's; its hash table and what is pending, of any window.
    pub(crate) const fn compressor_bytes(window_bits: u8) -> usize {
        (1 << (window_bits + 2)) + 244 * 1024
    }

    /// The largest window in any case, and the tables.
    pub(crate) const INFLATER_BYTES: usize = 47 * 1024;

    pub(super) fn check(&self, faults: &mut Vec<ConfigError>) {
        if !(1..=9).contains(&self.level) {
            let text = format!("the compression level cannot be {}: from 1 to 9", self.level);
            faults.push(ConfigError::new("compression.level", text));
        }
        let (min, max) = WINDOW_BITS;
        if let Some(bits) = self.context.filter(|bits| !(min..=max).contains(bits)) {
            let text = format!("the window of a compression context cannot have {bits} bits: from {min} to {max}");
            faults.push(ConfigError::new("compression.context", text));
        }
    }
}
