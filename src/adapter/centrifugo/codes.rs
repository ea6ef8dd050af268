//! The numbers of Centrifugo's protocol, with what the client is told.
//!
//! Clients go by the code alone: [`DisconnectCode::reconnects`], [`UnsubscribeCode::resubscribes`]. A reason is never
//! empty and never JSON, which the JavaScript client would take for advice that overrules the code.

use super::protocol;
use crate::error::reasons;
use std::fmt;

reasons! {
    /// Why a session ended: [`code`](DisconnectCode::code) is the close code.
    pub(crate) DisconnectCode {
        Shutdown = 3001, "shutdown", "shutdown";
        Internal = 3004, "internal", "internal server error";
        Expired = 3005, "connection_expired", "connection expired";
        SubscriptionExpired = 3006, "subscription_expired", "subscription expired";
        Slow = 3008, "slow", "slow";
        InsufficientState = 3010, "insufficient_state", "insufficient state";
        ForceReconnect = 3011, "force_reconnect", "force reconnect";
        NoPong = 3012, "no_pong", "no pong";
        TooManyRequests = 3013, "too_many_requests", "too many requests";
        InvalidToken = 3500, "invalid_token", "invalid token";
        /// Malformed; a command before connect, or a second connect.
        BadRequest = 3501, "bad_request", "bad request";
        /// No connect in time.
        Stale = 3502, "stale", "stale";
        ForceNoReconnect = 3503, "force_no_reconnect", "force disconnect";
        /// The token subscribes to too many.
        ChannelLimit = 3505, "channel_limit", "channel limit";
        /// There is nobody for what the client sends, and no reply to say so in.
        NotAvailable = 3508, "not_available", "not available";
    }
}

impl DisconnectCode {
    /// Whether the client comes back by itself.
    pub(crate) const fn reconnects(self) -> bool {
        reconnects(self.code())
    }
}

/// Whether a client comes back by itself after a close code of 3000 or above, the application's (4000 to 4999) included.
pub const fn reconnects(code: u16) -> bool {
    !matches!(code, 3500..=3999 | 4500..=4999)
}

/// What a disconnect's code says.
pub fn disconnect_text(code: u16) -> Option<&'static str> {
    DisconnectCode::ALL.iter().find(|known| known.code() == code).map(|known| known.text())
}

reasons! {
    /// Why a subscription ended.
    pub(crate) UnsubscribeCode {
        /// By the server API.
        Server = 2000, "server", "server unsubscribe";
        InsufficientState = 2500, "insufficient_state", "insufficient state";
        Expired = 2501, "subscription_expired", "subscription expired";
    }
}

impl UnsubscribeCode {
    /// Whether the client subscribes again by itself.
    pub(crate) const fn resubscribes(self) -> bool {
        self.code() >= 2500
    }
}

reasons! {
    /// Why a command failed.
    pub(crate) ErrorCode {
        Internal = 100, "internal", "internal server error";
        Unauthorized = 101, "unauthorized", "unauthorized";
        UnknownChannel = 102, "unknown_channel", "unknown channel";
        PermissionDenied = 103, "permission_denied", "permission denied";
        MethodNotFound = 104, "method_not_found", "method not found";
        AlreadySubscribed = 105, "already_subscribed", "already subscribed";
        LimitExceeded = 106, "limit_exceeded", "limit exceeded";
        BadRequest = 107, "bad_request", "bad request";
        NotAvailable = 108, "not_available", "not available";
        /// The client gets itself another token, and tries again.
        TokenExpired = 109, "token_expired", "token expired";
        Expired = 110, "expired", "expired";
        TooManyRequests = 111, "too_many_requests", "too many requests";
        UnrecoverablePosition = 112, "unrecoverable_position", "unrecoverable position";
    }
}

impl ErrorCode {
    /// Whether the client tries again by itself; after [`ErrorCode::TokenExpired`] it does without being told.
    pub(crate) const fn is_temporary(self) -> bool {
        matches!(self, Self::Internal | Self::TooManyRequests)
    }
}

impl From<DisconnectCode> for protocol::Disconnect {
    fn from(code: DisconnectCode) -> Self {
        Self { code: code.code().into(), reason: code.text().to_owned(), reconnect: false }
    }
}

impl From<UnsubscribeCode> for protocol::Unsubscribe {
    fn from(code: UnsubscribeCode) -> Self {
        Self { code: code.code().into(), reason: code.text().to_owned() }
    }
}

impl From<ErrorCode> for protocol::Error {
    fn from(code: ErrorCode) -> Self {
        Self { code: code.code().into(), message: code.text().to_owned(), temporary: code.is_temporary() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use crate::limits::CLOSE_REASON_BYTES_MAX;
    use std::collections::HashSet;

    type Row = (u16, &'static str, &'static str);

    fn tables() -> [Vec<Row>; 3] {
        [
            DisconnectCode::ALL.iter().map(|code| (code.code(), code.word(), code.text())).collect(),
            UnsubscribeCode::ALL.iter().map(|code| (code.code(), code.word(), code.text())).collect(),
            ErrorCode::ALL.iter().map(|code| (code.code(), code.word(), code.text())).collect(),
        ]
    }

    #[test]
    fn codes_and_words_are_unique() {
        for table in tables() {
            assert_eq!(table.iter().map(|row| row.0).collect::<HashSet<_>>().len(), table.len());
            assert_eq!(table.iter().map(|row| row.1).collect::<HashSet<_>>().len(), table.len());
            assert!(table.iter().all(|row| row.1.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())));
        }
    }

    #[test]
    fn a_reason_is_said_and_is_no_advice_in_json() {
        for (code, _, text) in tables().into_iter().flatten() {
            assert!(!text.is_empty() && text.len() <= CLOSE_REASON_BYTES_MAX, "{code}");
            assert!(json::validate(text.as_bytes()).is_err(), "{code}: {text}");
        }
    }

    #[test]
    fn codes_lie_where_clients_expect_them() {
        let [disconnects, unsubscribes, errors] = tables();
        assert!(disconnects.iter().all(|row| matches!(row.0, 3000..=3999)));
        assert!(disconnects.iter().all(|row| crate::ws::close_code_may_be_sent(row.0)));
        assert!(unsubscribes.iter().all(|row| matches!(row.0, 2000..=2999)));
        // Below 100 clients take an error for one of their own, and try again.
        assert!(errors.iter().all(|row| matches!(row.0, 100..=399)));
    }

    #[test]
    fn the_code_says_who_comes_back() {
        for code in DisconnectCode::ALL {
            assert_eq!(code.reconnects(), code.code() < 3500, "{code:?}");
        }
        for (code, expected) in [(3000, true), (3999, false), (4000, true), (4499, true), (4500, false), (4999, false)]
        {
            assert_eq!(reconnects(code), expected, "{code}");
        }
        let again: Vec<_> = UnsubscribeCode::ALL.iter().filter(|code| code.resubscribes()).collect();
        assert_eq!(again, [&UnsubscribeCode::InsufficientState, &UnsubscribeCode::Expired]);
        let temporary: Vec<_> = ErrorCode::ALL.iter().filter(|code| code.is_temporary()).collect();
        assert_eq!(temporary, [&ErrorCode::Internal, &ErrorCode::TooManyRequests]);
    }
}
