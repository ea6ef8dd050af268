//! Centrifugo's client protocol, version 2, so that its official SDKs work unmodified.
//!
//! Sans-IO: without sockets or clocks.
//!
//! | question | answered by |
//! |---|---|
//! | what does the client ask? | [`codec::commands`], which gives [`protocol`]'s messages |
//! | what are the bytes of this reply? | [`codec::encode`], [`codec::Format::ping`] |
//! | what are the bytes of this publication, for everybody? | [`push::publication`], once per message and format |
//! | which code and reason is this? | [`codes`] |
//! | what does the application's server ask? | [`api`], and of a user's sessions [`call`] |
//! | which sessions does a user have? | [`users`] |
//! | who is this, and until when? | [`token`] |
//! | what becomes of a command? | [`session`], the state machine |
//! | what if there is no WebSocket? | [`emulation`] |
//!
//! The facts are those of `client.proto` and of the Go server's JSON encoders; what the server declines (deltas, keyed
//! and polled subscriptions, tag filters, compact channel ids, compression dictionaries) is left out of the messages, so
//! that reading skips it and no reply promises it.

pub(crate) mod api;
pub(crate) mod call;
pub(crate) mod codec;
#[cfg_attr(not(test), allow(dead_code, reason = "the protocol's whole table, and what its numbers mean to clients"))]
pub(crate) mod codes;
pub(crate) mod emulation;
mod field;
pub(crate) mod glob;
pub(crate) mod protocol;
pub(crate) mod push;
pub(crate) mod session;
pub(crate) mod token;
pub(crate) mod users;

#[cfg(test)]
mod tests;
