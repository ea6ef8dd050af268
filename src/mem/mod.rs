//! The structures that hold a worker's memory: pure, without a clock or a socket.
//!
//! Shared with the load generator, hence public; no stability is promised.

mod mailbox;
mod meter;
mod outbox;
mod permits;
mod rng;
mod wheel;

pub use mailbox::Mailbox;
pub use meter::{Meter, Rate};
pub use outbox::{Outbox, Pieces};
pub use permits::Permits;
pub use rng::Rng;
pub use wheel::{Link, Links, Wheel};
