//! Topics: a topic is a log, and every subscriber is a cursor into it.
//!
//! The data alone, without sockets, threads or clocks (time is an argument, milliseconds on any clock): what a
//! topic is called ([`TopicName`]), where a reader stands in it ([`Cursor`]), what lies there ([`Message`],
//! encoded once for everybody), what is kept ([`Log`] at the topic's home, [`Copy`] on the other workers), and
//! which publications were already made ([`Keys`]).
//!
//! | question | answered by |
//! |---|---|
//! | where does this request start, and is that a gap? | [`Log::resolve`], at the home only |
//! | what comes next, or did this reader lag? | [`Log::slice_after`], [`Copy::slice_after`] |
//! | may a stream start without asking the home? | [`Copy::contains`] |
//! | what is this body? | [`kind_of`] |

mod cursor;
mod hub;
mod idempotency;
mod json;
mod log;
mod message;
mod name;

pub(crate) use self::hub::{From, Place, Resolved, Subscriber, Topics};
pub(crate) use self::log::{Copy, Limits, Log, Start};
pub(crate) use cursor::{Cursor, Epoch, Gap, Since};
pub(crate) use idempotency::Keys;
pub(crate) use message::{Encoding, Kind, KindError, Message, kind_of};
pub use name::{NameError, TopicName};
