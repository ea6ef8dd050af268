//! HTTP/1.1 as far as a push server needs it (RFC 9110, RFC 9112), sans-IO: request heads in, responses out.

mod head;
mod response;
mod upgrade;

pub use head::Head;
pub(crate) use head::{Fields, HeadScan};
pub use response::Response;
pub(crate) use response::{field_is_valid, write_switching_protocols};
pub(crate) use upgrade::{Upgrade, wants_websocket};
