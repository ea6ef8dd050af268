//! WebSocket framing (RFC 6455), sans-IO: bytes in, events out, for either side of a connection.
//!
//! [`decode`] works in place on the caller's buffer and keeps nothing between calls unless the input stopped
//! in the middle of something; [`encode`] appends to the caller's buffer.
//!
//! ```
//! use throng::ws::{self, Event, Opcode, Role, Rules};
//!
//! // A client's frame: `Hello`, masked (RFC 6455, section 5.7).
//! let mut input = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
//! let (mut partial, mut at) = (None, 0);
//! let rules = Rules { role: Role::Server, message_bytes_max: 1024, compression: false };
//! let event = ws::decode(&mut partial, &mut input, &mut at, rules)?;
//! assert_eq!(event, Some(Event::Text("Hello")));
//!
//! let mut output = Vec::new();
//! ws::encode(&mut output, Opcode::Text, b"Hello");
//! assert_eq!(output, b"\x81\x05Hello");
//! # Ok::<(), throng::error::Violation>(())
//! ```

mod close;
mod decode;
pub mod deflate;
mod frame;
mod key;
mod mask;
mod utf8;

pub use close::{CloseFrame, close_code_may_be_sent, encode_close};
#[cfg(any(test, fuzzing))]
pub(crate) use decode::oracle;
pub use decode::{Event, Partial, Role, Rules, decode};
pub use frame::{Header, Opcode, encode, encode_masked, frame_compressed, mask_frame};
pub use key::{KEY_BYTES, accept_value, client_key, key_is_valid};
pub use mask::unmask;
pub use utf8::Utf8;
