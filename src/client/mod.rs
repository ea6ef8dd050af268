//! What whoever calls a server needs, sans-IO: URLs, the judgement of an answer to an upgrade, bodies of answers, event streams.
//!
//! Shared by the load generator and `throng connect`, hence public; no stability is promised.

mod body;
mod events;
mod switch;
mod url;

pub use body::{BodyFault, BodyReader};
pub use events::{Block, EventStream};
pub use switch::{Offered, SwitchFault, Switched, check_switch};
pub use url::{Scheme, Url, UrlError};
