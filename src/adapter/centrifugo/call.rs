//! What the server API does with the sessions of a user.

use super::token::Overrides;
use crate::topic::TopicName;

/// A call, for all sessions of a user or for some of them.
#[derive(Debug)]
pub(crate) struct Call {
    /// Never the empty one, of whose sessions there is no list.
    pub(crate) user: Box<str>,
    /// Only the session with this client id, unless it is empty.
    pub(crate) client: Box<str>,
    /// Only the one with this session id, unless it is empty. A WebSocket's session has none.
    pub(crate) session: Box<str>,
    pub(crate) act: Act,
}

/// What is done.
#[derive(Debug)]
pub(crate) enum Act {
    Disconnect {
        code: u16,
        reason: Box<str>,
        /// Ids of clients that stay.
        whitelist: Vec<String>,
    },
    Unsubscribe(TopicName),
    Subscribe(Box<Subscription>),
    Refresh(Refresh),
}

/// A subscription that the server makes.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) topic: TopicName,
    /// What the client gets with it: JSON, or bytes.
    pub(crate) data: Vec<u8>,
    /// What others see of it.
    pub(crate) info: Vec<u8>,
    /// When it expires, in seconds of Unix time.
    pub(crate) expire_at: Option<u64>,
    /// Behind which offset of which epoch it begins; the newest message, if none is given.
    pub(crate) recover_since: Option<(String, u64)>,
    pub(crate) overrides: Overrides,
}

/// Until when a connection may go on.
#[derive(Clone, Debug)]
pub(crate) enum Refresh {
    /// It is over now.
    Expired,
    /// Until then, in seconds of Unix time; `None`: for ever. With what others see of the client from now on, unless that is
    /// empty.
    Until(Option<u64>, Vec<u8>),
}
