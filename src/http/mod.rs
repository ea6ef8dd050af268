//! HTTP/1.1 as far as a push server needs it (RFC 9110, RFC 9112), sans-IO: request heads in, responses out.

mod accept;
mod body;
mod date;
mod forwarded;
mod head;
mod origin;
mod preamble;
mod query;
mod response;
mod upgrade;

pub(crate) use accept::{prefer_wait, wants_events};
#[cfg(any(test, fuzzing))]
pub(crate) use body::BodyError;
pub(crate) use body::{Body, Framing};
pub(crate) use date::imf_fixdate;
pub(crate) use forwarded::{Node, forwarded};
pub use head::Head;
pub(crate) use head::{Fields, HeadScan};
pub(crate) use origin::{Origins, cross_origin, is_loopback};
pub(crate) use preamble::Preamble;
#[cfg(any(test, fuzzing))]
pub(crate) use query::QueryError;
pub(crate) use query::{first, has_token, pairs};
pub use response::Response;
pub(crate) use response::{Date, Field, Manner, field_is_valid, write_switching_protocols};
pub(crate) use upgrade::{Upgrade, wants_websocket};
