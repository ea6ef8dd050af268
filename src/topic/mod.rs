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
//! | what comes next, or did this reader lag? | [`Copy::slice_after`] |
//! | may a stream start without asking the home? | [`Copy::contains`] |
//! | who is there? | [`Members`] |
//! | what is this body? | [`Publication::of_body`] |

mod cursor;
mod elements;
mod hub;
mod idempotency;
mod log;
mod message;
mod name;
mod presence;
mod publication;

pub(crate) use self::hub::{
    AtHome, Census, Passed, Place, Presence, Read, Resolved, Retention, Subscriber, Topics, Wanted,
};
pub(crate) use self::log::{Copy, Kept, Limits, Log, Start};
pub use cursor::{Cursor, CursorError, Since};
pub(crate) use cursor::{Epoch, Gap};
pub(crate) use elements::Elements;
pub(crate) use idempotency::Keys;
pub(crate) use message::{Author, Change, Encoding, Infos, Kind, Message, Tags};
pub use name::{NameError, TopicName};
pub(crate) use presence::Members;
pub(crate) use publication::KindError;
pub use publication::Publication;
