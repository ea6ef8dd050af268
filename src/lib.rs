//! A push server, and a library for building push servers: a million and more live connections on one Linux
//! machine, and a message to all of them.
//!
//! A [`Service`] says what happens with connections and messages; a [`Server`] runs it, on one thread per core,
//! each with an event loop, a connection table and a descriptor table of its own.
//!
//! ```no_run
//! use std::time::Duration;
//! use throng::{Accept, Connection, Decision, Message, Request, Server, Service};
//!
//! struct Echo;
//!
//! impl Service for Echo {
//!     type State = ();
//!
//!     fn open(&mut self, _: &Request<'_>) -> Decision<()> {
//!         Accept::new(()).into()
//!     }
//!
//!     fn message(&mut self, connection: &mut Connection<'_, ()>, message: Message<'_>) {
//!         let _ = connection.send(message);
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let server = Server::new().listen("127.0.0.1:9001".parse()?).start(|_| Echo)?;
//!     server.run_until_signal(Duration::from_secs(5))?;
//!     Ok(())
//! }
//! ```
//!
//! The parts that need no socket are usable by themselves: [`ws`] is the frame codec.

#![deny(unsafe_code)]
#![cfg_attr(
    not(all(feature = "centrifugo", feature = "control")),
    allow(
        dead_code,
        unused_imports,
        reason = "what only a protocol over the topics or the control plane uses stands idle without them"
    )
)]

// The order is the layering: each may use those above it (see ARCHITECTURE.md). The first five are for everybody.
pub mod error;
pub mod limits;
mod metrics;
mod planted;
#[doc(hidden)]
pub mod time;

mod json;
#[doc(hidden)]
pub mod mem;
#[doc(hidden)]
pub mod sys;

mod http;
pub mod ws;

#[doc(hidden)]
pub mod client;

mod conn;

#[cfg(feature = "centrifugo")]
mod adapter;
mod topic;

mod config;
mod worker;

mod launch;
mod server;
mod service;

#[cfg(feature = "control")]
mod control;
#[doc(hidden)]
pub mod tuning;

#[cfg(all(any(test, fuzzing), feature = "centrifugo"))]
#[doc(hidden)]
pub mod fuzzing;

#[cfg(throng_bench)]
#[doc(hidden)]
pub mod benching;

#[cfg(feature = "centrifugo")]
#[doc(hidden)]
pub use adapter::centrifugo::codes::{disconnect_text, reconnects as disconnect_reconnects};
pub use config::{
    Allow, Compression, Config, ConfigError, Drain, ForwardedHeader, Hosts, Memory, Network, Proxies, RuleSet,
    SlowReaders, TopicRules,
};
pub use conn::Peer;
#[cfg(feature = "control")]
pub use control::{Control, Watcher};
pub use http::{Head, Response};
pub use json::JsonError;
pub use server::{Gone, Handle, Publisher, Running, Seat, Server, StartError};
pub use service::{
    Accept, Answer, Close, ConnId, Connection, Decision, Frames, Message, Request, SendError, Service, Stranger, Token,
    TopicUrl, Writer,
};
#[doc(hidden)]
pub use service::{Answered, Begun, Emulated, Started, Told};
#[cfg(feature = "centrifugo")]
pub use service::{
    ApiKey, Bearer, Caller, Centrifugo, KeyError, Mounted, PublicKey, Rpc, RpcAnswer, RpcError, RpcToken, TokenKeys,
};
#[cfg(feature = "centrifugo")]
#[doc(hidden)]
pub use service::{Reached, UserCall};
pub use topic::{Cursor, CursorError, NameError, Publication, Since, TopicName};
