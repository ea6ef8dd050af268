//! The registry: every reason for which a request is refused or a connection ends, in one place.
//!
//! A variant is one violation or one decision. The HTTP status or close code, the word that stands in
//! logs, metrics and problem documents, and the sentence that the client reads all follow from it here
//! and nowhere else.

use std::fmt;

/// Declares a reason enum together with its table; a protocol of its own (`adapter`) keeps its codes in the same way.
macro_rules! reasons {
    ($(#[$doc:meta])* $vis:vis $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $code:literal, $word:literal, $text:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        $vis enum $name {
            $(#[doc = concat!("`", $word, "`, ", $code, ": ", $text, ".")] $(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every reason, in the order in which metrics index them.
            $vis const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What the peer is given: the HTTP status, the WebSocket close code, or a protocol's own code.
            $vis const fn code(self) -> u16 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The stable word for logs, metric labels and problem documents.
            $vis const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// What went wrong and what to do, in a sentence for people.
            $vis const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text())
            }
        }

        impl std::error::Error for $name {}
    };
}
#[cfg(feature = "centrifugo")]
pub(crate) use reasons;

reasons! {
    /// Why an HTTP request was refused: [`code`](Refused::code) is the status.
    pub Refused {
        // The head itself (RFC 9112).
        BareLf = 400, "bare_lf", "a line of the head ends in LF alone: lines end in CR LF (RFC 9112, section 2.2)";
        BadRequestLine = 400, "bad_request_line", "the request line must be: METHOD SP TARGET SP HTTP/1.1 (RFC 9112, section 3)";
        BadTarget = 400, "bad_target", "the request target must be a path that starts with / in visible ASCII, or an absolute http URI (RFC 9112, section 3.2)";
        BadHeader = 400, "bad_header", "a header line is malformed: NAME: VALUE, the name a token, no control characters (RFC 9112, section 5)";
        SpaceBeforeColon = 400, "space_before_colon", "there is white space between a header's name and its colon (RFC 9112, section 5.1)";
        ObsoleteFolding = 400, "obsolete_folding", "a header line starts with white space: folded headers are obsolete (RFC 9112, section 5.2)";
        HeaderUnreadable = 400, "header_unreadable", "a header that counts for this request is not text: send it in ASCII, or leave it out";
        NulByte = 400, "nul_byte", "the head contains a NUL byte";
        HostMissing = 400, "host_missing", "an HTTP/1.1 request needs a Host header (RFC 9112, section 3.2)";
        HostRepeated = 400, "host_repeated", "there must be exactly one Host header (RFC 9112, section 3.2)";
        HostInvalid = 400, "host_invalid", "the Host header must be HOST or HOST:PORT (RFC 9112, section 3.2)";
        BadLength = 400, "bad_length", "Content-Length must be one number, and not beside Transfer-Encoding (RFC 9112, section 6.3)";
        BadChunk = 400, "bad_chunk", "the chunked body is malformed: SIZE in hex, CR LF, that many bytes, CR LF, at the end a 0 (RFC 9112, section 7.1)";
        TransferCoding = 501, "transfer_coding", "the only Transfer-Encoding understood here is chunked, in HTTP/1.1 (RFC 9112, section 6.1)";
        Expectation = 417, "expectation", "the only expectation that can be met here is 100-continue (RFC 9110, section 10.1.1)";
        BodyTooLarge = 413, "body_too_large", "the request's body is larger than a message may be on this server";
        BadTopic = 400, "bad_topic", "a topic's name is 1 to 255 visible ASCII characters, percent-encoded in the URL";
        BadParameter = 400, "bad_parameter", "a parameter of the request is malformed";
        BadMessage = 400, "bad_message", "the message is not what its Content-Type says";
        MediaType = 415, "media_type", "the message's Content-Type or Content-Encoding is not taken here";
        MethodUnknown = 405, "method_unknown", "this resource takes GET, HEAD, POST and OPTIONS";
        NoPresence = 404, "no_presence", "it is not known here who is there: start the server with --presence, or set `presence` for the topic's namespace";
        UnknownNamespace = 404, "unknown_namespace", "there is no such namespace of topics here";
        Forbidden = 403, "forbidden", "this client may not do that with this topic";
        Token = 401, "token", "the token of this request does not count: send `Authorization: Bearer TOKEN` with one that does, or none";
        TokenInUrl = 400, "token_in_url", "a token in a URL ends up in logs, histories and Referer headers: send `Authorization: Bearer TOKEN`, a WebSocket of a page the subprotocols `throng, bearer.TOKEN`";
        TokensDiffer = 400, "tokens_differ", "this request brings different tokens (Authorization, subprotocol, cookie): send one, or the same";
        BearerAlone = 400, "bearer_alone", "offer the subprotocol `throng` beside `bearer.TOKEN`: it is the one that is selected, and the token is not said again";
        CookieOrigin = 403, "cookie_origin", "a cookie counts only for requests that say which page they come from (Origin; for a GET a Sec-Fetch-Site other than cross-site): send the token as `Authorization: Bearer TOKEN`";
        BodyTimeout = 408, "body_timeout", "the request's body was not complete in time";
        Flood = 429, "flood", "this client has sent more than it may for too long: send less, or have the server allow more";
        HeadTimeout = 408, "head_timeout", "the request's head was not complete in time";
        HeadTooLarge = 431, "head_too_large", "the request's head is larger than 16 KiB";
        TooManyFields = 431, "too_many_fields", "the request has more than 100 header fields";
        BadVersion = 505, "bad_version", "only HTTP/1.1 and HTTP/1.0 are spoken here";
        // What proxies say of their clients (haproxy's proxy-protocol.txt; RFC 7239).
        ProxyExpected = 400, "proxy_expected", "this address is trusted as a proxy that speaks the PROXY protocol: have it begin each connection with a PROXY header, or take its address out of those that are trusted";
        ProxyLine = 400, "proxy_line", "the PROXY line is malformed: PROXY TCP4|TCP6|UNKNOWN, two addresses, two ports, CR LF, in 107 bytes (proxy-protocol.txt, section 2.1)";
        ProxyHeader = 400, "proxy_header", "the binary PROXY header is malformed, or not of a stream over IPv4, IPv6 or a Unix-domain socket (proxy-protocol.txt, section 2.2)";
        ProxyTooLong = 400, "proxy_too_long", "the binary PROXY header is longer than is taken here: have the proxy add less to it";
        ProxyChecksum = 400, "proxy_checksum", "the PROXY header is not what its checksum says (proxy-protocol.txt, section 2.2)";
        ForwardedInvalid = 400, "forwarded_invalid", "what a trusted proxy appended to the header that names the client is no address: X-Forwarded-For is a list of addresses, Forwarded has for=ADDRESS (RFC 7239, section 4)";
        // The upgrade (RFC 6455, section 4.2.1).
        UpgradeMethod = 405, "upgrade_method", "a WebSocket upgrade is a GET request";
        UpgradeHttp10 = 400, "upgrade_http10", "a WebSocket upgrade needs HTTP/1.1";
        UpgradeConnection = 400, "upgrade_connection", "a WebSocket upgrade needs `Connection: Upgrade` (did a proxy remove it?)";
        UpgradeBody = 400, "upgrade_body", "a WebSocket upgrade has no body: send neither Content-Length nor Transfer-Encoding";
        KeyMissing = 400, "key_missing", "a WebSocket upgrade needs a Sec-WebSocket-Key header";
        KeyRepeated = 400, "key_repeated", "there must be exactly one Sec-WebSocket-Key header";
        KeyInvalid = 400, "key_invalid", "Sec-WebSocket-Key must be 16 bytes in base64 (24 characters)";
        VersionMissing = 400, "version_missing", "a WebSocket upgrade needs `Sec-WebSocket-Version: 13`";
        VersionUnsupported = 426, "version_unsupported", "only Sec-WebSocket-Version 13 is spoken here";
        ProtocolInvalid = 400, "protocol_invalid", "Sec-WebSocket-Protocol must be a list of different tokens";
        OriginForbidden = 403, "origin_forbidden", "pages of this origin may not talk to this server: serve them from the same host, or have the server allow the origin";
        HostForbidden = 421, "host_forbidden", "this server has no authentication, so it answers to names of loopback alone (`localhost`, `127.0.0.1`, `[::1]`) as Host: use one, configure tokens or an API key, or start it with --open";
        NoSession = 404, "no_session", "there is no such session here (any more): send `session` and `node` as the answer to connect gave them, or connect again";
        ApiKey = 401, "api_key", "the server API wants its key: send it as `X-API-Key: KEY` or `Authorization: apikey KEY`";
        UpgradeRequired = 426, "upgrade_required", "this is a WebSocket: send `Upgrade: websocket` and `Connection: Upgrade` (did a proxy remove them?)";
        // The server's own state.
        AtCapacity = 503, "at_capacity", "the server has all the connections it may have: try again later";
        MemoryShort = 503, "memory_short", "the server has no memory for another connection: try again later";
        AddressFull = 429, "address_full", "this address has all the connections it may have: close one, or try again later";
        TopicsFull = 503, "topics_full", "the server has all the topics it may have, and none of them is idle: try again later";
        TooManySubscriptions = 503, "too_many_subscriptions", "this connection has all the subscriptions it may have: end one, or open another connection";
        Draining = 503, "draining", "the server is shutting down: connect to another one, or try again later";
        DecisionTimeout = 503, "decision_timeout", "nobody decided in time whether this connection may come in: try again later";
        /// The service's own decision; status and text are the service's.
        Service = 403, "service", "the service refused the request";
        /// The service panicked, or answered with a header or subprotocol that cannot be sent.
        Internal = 500, "internal", "the server failed to answer this request";
    }
}

reasons! {
    /// What a peer's frames did wrong: [`code`](Violation::code) is the close code.
    pub Violation {
        ReservedBits = 1002, "reserved_bits", "a reserved bit is set and no extension was agreed on (RFC 6455, section 5.2)";
        ReservedOpcode = 1002, "reserved_opcode", "the opcode is reserved (RFC 6455, section 5.2)";
        FragmentedControl = 1002, "fragmented_control", "a control frame is fragmented (RFC 6455, section 5.5)";
        LongControl = 1002, "long_control", "a control frame is longer than 125 bytes (RFC 6455, section 5.5)";
        Unmasked = 1002, "unmasked", "a client's frame is not masked (RFC 6455, section 5.1)";
        Masked = 1002, "masked", "a server's frame is masked (RFC 6455, section 5.1)";
        LengthNotMinimal = 1002, "length_not_minimal", "a length is not in its shortest form (RFC 6455, section 5.2)";
        LengthTopBit = 1002, "length_top_bit", "a 64-bit length has its top bit set (RFC 6455, section 5.2)";
        ContinuationUnexpected = 1002, "continuation_unexpected", "there is no message to continue (RFC 6455, section 5.4)";
        ContinuationExpected = 1002, "continuation_expected", "a new message starts inside a fragmented one (RFC 6455, section 5.4)";
        CloseTooShort = 1002, "close_too_short", "a close frame has one byte: a code has two (RFC 6455, section 5.5.1)";
        CloseCodeInvalid = 1002, "close_code_invalid", "the close code may not be sent (RFC 6455, section 7.4)";
        InvalidUtf8 = 1007, "invalid_utf8", "text is not UTF-8 (RFC 6455, section 8.1)";
        InvalidDeflate = 1007, "invalid_deflate", "a compressed message cannot be inflated (RFC 7692, section 7.2.2)";
        MessageTimeout = 1008, "message_timeout", "the message was begun and not completed in time";
        Flood = 1008, "flood", "more was sent than may be, for too long: send less";
        MessageTooBig = 1009, "message_too_big", "the message is larger than this server takes";
    }
}

reasons! {
    /// Why a WebSocket ended: [`code`](End::code) is what the service is told where the peer gave none.
    pub End {
        /// The peer began the closing handshake; the code is the peer's.
        PeerClosed = 1005, "peer_closed", "closed by the client";
        PeerGone = 1006, "peer_gone", "the client went away without a close frame";
        PeerReset = 1006, "peer_reset", "the connection was reset";
        /// The service, or a handle, closed; the code is the service's.
        ServiceClosed = 1000, "service_closed", "closed by the service";
        GoingAway = 1001, "going_away", "the server is shutting down";
        /// The frames broke the protocol; the code is the [`Violation`]'s.
        Violation = 1002, "violation", "the client broke the protocol";
        /// Its client is to come back, perhaps to another server.
        MaxAge = 1001, "max_age", "this connection is as old as it may become: connect again";
        PingTimeout = 1011, "ping_timeout", "ping timeout";
        WriteStall = 1013, "write_stall", "the client does not read: reset";
        SlowReader = 1013, "slow_reader", "the client reads too slowly: too much is waiting for it";
        MemoryShort = 1013, "memory_short", "the server is short of memory, and this client held most: reset";
        /// What it missed is no longer kept; the reason of the Close says from where it can go on.
        Gap = 4410, "gap", "some messages are no longer kept";
        /// The token of a bare client; the reason of the Close says from where it can go on with another one.
        Expired = 3005, "expired", "the token's time is over: connect again with another one";
        Operator = 1008, "operator", "disconnected by an operator";
        Panic = 1011, "panic", "internal error";
        Aborted = 1006, "aborted", "the server ended at once";
    }
}

impl End {
    /// Whether the client closed, or went, rather than the server.
    pub const fn is_by_client(self) -> bool {
        matches!(self, Self::PeerClosed | Self::PeerGone | Self::PeerReset)
    }

    /// What it means that a socket fails: it was reset, or the kernel has given up since nothing answered its probes or what it
    /// sent: ETIMEDOUT, or what routers said last (`tcp_write_err` in Linux).
    pub(crate) fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
        match error.kind() {
            TimedOut | HostUnreachable | NetworkUnreachable => Self::PingTimeout,
            _ => Self::PeerReset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_unique_and_fit_a_label() {
        for words in [
            Refused::ALL.iter().map(|r| r.word()).collect::<Vec<_>>(),
            Violation::ALL.iter().map(|r| r.word()).collect(),
            End::ALL.iter().map(|r| r.word()).collect(),
        ] {
            let unique: HashSet<_> = words.iter().collect();
            assert_eq!(unique.len(), words.len());
            assert!(
                words.iter().all(|w| { w.bytes().all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit()) })
            );
        }
    }

    #[test]
    fn what_goes_into_a_close_frame_fits_it() {
        let texts = Violation::ALL.iter().map(|v| v.text()).chain(End::ALL.iter().map(|e| e.text()));
        assert!(texts.into_iter().all(|text| text.len() <= crate::limits::CLOSE_REASON_BYTES_MAX));
    }
}
