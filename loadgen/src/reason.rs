//! Why a connection failed to open, and why an open one was lost: one variant per cause.

use std::borrow::Cow;
use std::io;
use throng::error::Violation;

/// Why a connection never came to be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// Nobody listens there (ECONNREFUSED).
    Refused,
    /// The peer reset the connection before it had answered.
    Reset,
    /// No connection within the time: the server's backlog is full, or packets are lost.
    ConnectTimeout,
    /// Connected, but not answered in time.
    HandshakeTimeout,
    /// The peer closed the connection before it had answered.
    ClosedEarly,
    /// An answer of another status than the one that opens: 101 for a WebSocket, else 200.
    Status(u16),
    /// What came back is not HTTP.
    NotHttp,
    /// The accept value is missing or does not belong to the key (RFC 6455, section 4.1).
    BadAccept,
    /// A 101 that is wrong otherwise: Upgrade, Connection, an extension or subprotocol nobody asked for.
    BadUpgrade,
    /// A 200 that is no event stream, or no poll with a cursor.
    BadStream,
    /// A WebSocket was open, but Centrifugo's commands were not answered in time.
    JoinTimeout,
    /// A WebSocket was open, and was closed with this code (1005: with none) before Centrifugo's commands were answered.
    Closed(u16),
    /// Centrifugo's connect or subscribe command was answered with this error.
    Error(u32),
    /// A WebSocket was open, and what came was no reply to Centrifugo's commands.
    BadReply,
    /// No route (EHOSTUNREACH, ENETUNREACH).
    Unreachable,
    /// This side has no source port left for its address (EADDRNOTAVAIL).
    NoPort,
    /// This side has no descriptor left (EMFILE, ENFILE).
    NoDescriptor,
    /// This side has no memory left (ENOMEM, ENOBUFS).
    NoMemory,
    /// The run ended first.
    Aborted,
    /// Any other error of a system call, by its number.
    Os(i32),
}

impl Failure {
    /// The class of an error that came up before the connection was open.
    pub(crate) fn of(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => Self::Refused,
            Kind::ConnectionReset | Kind::BrokenPipe | Kind::ConnectionAborted => Self::Reset,
            Kind::TimedOut => Self::ConnectTimeout,
            Kind::HostUnreachable | Kind::NetworkUnreachable => Self::Unreachable,
            Kind::AddrNotAvailable | Kind::AddrInUse => Self::NoPort,
            Kind::OutOfMemory => Self::NoMemory,
            _ => match error.raw_os_error() {
                Some(23 | 24) => Self::NoDescriptor, // ENFILE, EMFILE
                Some(105) => Self::NoMemory,         // ENOBUFS
                code => Self::Os(code.unwrap_or(0)),
            },
        }
    }

    /// The stable word for reports.
    pub(crate) fn word(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::ConnectTimeout => "connect_timeout",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::ClosedEarly => "closed_early",
            Self::Status(code) => return format!("http_{code}").into(),
            Self::NotHttp => "not_http",
            Self::BadAccept => "bad_accept",
            Self::BadUpgrade => "bad_upgrade",
            Self::BadStream => "bad_stream",
            Self::JoinTimeout => "join_timeout",
            Self::Closed(code) => return format!("closed_{code}").into(),
            Self::Error(code) => return format!("error_{code}").into(),
            Self::BadReply => "bad_reply",
            Self::Unreachable => "unreachable",
            Self::NoPort => "no_port",
            Self::NoDescriptor => "no_descriptor",
            Self::NoMemory => "no_memory",
            Self::Aborted => "aborted",
            Self::Os(code) => return format!("errno_{code}").into(),
        })
    }
}

/// Why an open connection was lost: it ended and we had not asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    /// The server closed it, with this code (1005: with none).
    Closed(u16),
    /// The server ended the stream without a close frame.
    Eof,
    /// It was reset.
    Reset,
    /// The kernel gave up on the peer.
    TimedOut,
    /// A poll was answered with this status.
    Status(u16),
    /// The server ended the connection's subscription, with this code of Centrifugo's protocol.
    Unsubscribed(u32),
    /// What the server sent broke the protocol.
    Violation(&'static str),
    /// Any other error of a system call, by its number.
    Os(i32),
}

impl Loss {
    /// The class of an error on an open connection.
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Os(error.raw_os_error().unwrap_or(0)),
        }
    }

    pub(crate) fn violation(violation: Violation) -> Self {
        Self::Violation(violation.word())
    }

    /// The stable word for reports.
    pub(crate) fn word(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Closed(code) => return format!("closed_{code}").into(),
            Self::Eof => "eof",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Status(code) => return format!("http_{code}").into(),
            Self::Unsubscribed(code) => return format!("unsubscribed_{code}").into(),
            Self::Violation(word) => return format!("violation_{word}").into(),
            Self::Os(code) => return format!("errno_{code}").into(),
        })
    }
}
