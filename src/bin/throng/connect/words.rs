//! Close codes and statuses in words.

use std::time::Duration;

/// What a close code says: RFC 6455, section 7.4.1, and what IANA's registry has beside it; then Centrifugo's; then ours.
/// Where IANA and Centrifugo have one code each for different things, `centrifugo` says who is meant.
pub(super) fn close_code(code: u16, centrifugo: bool) -> &'static str {
    let registered = registered(code);
    let theirs = throng::disconnect_text(code).or_else(|| disconnect(code));
    let named = if centrifugo { theirs.or(registered) } else { registered.or(theirs) };
    named.unwrap_or(match code {
        1016..=2999 => "reserved for WebSocket itself",
        3000..=3999 => "a library's or framework's own code",
        4000..=4999 => "the application's own code",
        _ => "no code that may be sent",
    })
}

fn registered(code: u16) -> Option<&'static str> {
    Some(match code {
        1000 => "normal closure",
        1001 => "going away",
        1002 => "protocol error",
        1003 => "unsupported data",
        1005 => "no code given",
        1006 => "lost without a close",
        1007 => "invalid payload, such as text that is not UTF-8",
        1008 => "policy violation",
        1009 => "message too big",
        1010 => "an extension is missing",
        1011 => "internal error",
        1012 => "service restart",
        1013 => "try again later",
        1014 => "bad gateway",
        1015 => "TLS handshake failed",
        3000 => "unauthorized",
        3003 => "forbidden",
        3008 => "timeout",
        // The one of our own registry: throng::error::End.
        4410 => "some messages are no longer kept",
        _ => return None,
    })
}

/// What Centrifugo's servers send, and throng does not (centrifugal/centrifuge, disconnect.go).
fn disconnect(code: u16) -> Option<&'static str> {
    Some(match code {
        3000 => "connection closed",
        3009 => "write error",
        3504 => "connection limit",
        3506 => "inappropriate protocol",
        3507 => "permission denied",
        3509 => "too many errors",
        _ => return None,
    })
}

/// Whether another attempt may go better than the one that ended with this close code.
pub(super) fn worth_another_try(code: u16) -> bool {
    match code {
        // It ended as it should; or what we send, or ask for, is not wanted, and will not be the next time.
        1000 | 1002 | 1003 | 1007..=1010 => false,
        3000.. => throng::disconnect_reconnects(code),
        _ => true,
    }
}

/// What to do about an answer that is not the one that opens.
pub(super) fn hint(status: u16) -> Option<&'static str> {
    Some(match status {
        200 => "this path serves something else: no WebSocket, or no event stream, is behind it",
        400 => "the server found the request malformed: are the path and its parameters right?",
        401 => "it wants to know who you are: --token-file FILE, --bearer TOKEN or -H 'NAME: VALUE'",
        403 => "you may not do that: another token, or another --origin",
        404 => "there is nothing at this path",
        405 => "the path takes other methods: is it the one for WebSockets, or the one for topics?",
        407 => "a proxy stands between, and wants to know who you are",
        408 => "the server waited too long for the request",
        421 => "the server is not the one for this host: -H 'Host: NAME'",
        426 => "the path takes WebSockets only (use ws://), or another version of them",
        429 => "too many requests or connections: wait, or close one",
        502 | 504 => "a proxy answered for a server that did not: is that one running?",
        503 => "the server cannot take you now: try again later (--reconnect does)",
        500..=599 => "the server failed: its log knows why",
        _ => return None,
    })
}

/// Whether a request that got this status may get another one later.
pub(super) fn status_may_pass(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502..=504)
}

/// A time as people read it: of three digits or so.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        1e-3..1.0 => format!("{:.1} ms", seconds * 1e3),
        1.0.. => format!("{seconds:.2} s"),
        _ => format!("{:.0} us", seconds * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_words() {
        let cases = [
            (1000, "normal closure"),
            (1006, "lost without a close"),
            (3501, "bad request"),
            (4410, "some messages are no longer kept"),
        ];
        for (code, words) in cases {
            assert_eq!(close_code(code, false), words);
        }
        assert_eq!((close_code(3000, false), close_code(3000, true)), ("unauthorized", "connection closed"));
        assert_eq!((close_code(3008, false), close_code(3008, true)), ("timeout", "slow"));
        assert_eq!(close_code(4999, true), "the application's own code");
        assert_eq!(close_code(4410, false), throng::error::End::Gap.text());
        // Every code that may be sent, and those that only describe, say something of their own.
        for code in (1000..=1003).chain(1005..=1015) {
            assert!(registered(code).is_some(), "{code}");
        }
    }

    #[test]
    fn what_would_end_in_the_same_way_is_not_tried_again() {
        for (code, expected) in [
            (1000, false),
            (1001, true),
            (1002, false),
            (1006, true),
            (1008, false),
            (1011, true),
            (1013, true),
            (3001, true),
            (3500, false),
            (4000, true),
            (4410, true),
            (4500, false),
        ] {
            assert_eq!(worth_another_try(code), expected, "{code}");
        }
        assert!(status_may_pass(503) && !status_may_pass(404) && !status_may_pass(401));
    }

    #[test]
    fn times_are_read_at_a_glance() {
        let times = [0.000_08, 0.0123, 2.5].map(|seconds| duration(Duration::from_secs_f64(seconds)));
        assert_eq!(times, ["80 us", "12.3 ms", "2.50 s"]);
    }
}
